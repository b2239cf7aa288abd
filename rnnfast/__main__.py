"""The command line: `python -m rnnfast bench | info | demo`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import rnnfast

from ._command_line import Parser, why_not_writable
from .bench import command as bench
from .bench.machine import cpu_model


def configuration() -> dict[str, Any]:
    """What `info` prints, by the names it prints."""
    return {
        **rnnfast.config(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
    }


def info(args: argparse.Namespace) -> int:
    """Print the configuration and what it runs on."""
    if args.json is None:
        for name, value in configuration().items():
            print(f"{name:<9}", ", ".join(value) if isinstance(value, list) else value)
        return 0
    text = json.dumps(configuration(), indent=1) + "\n"
    if args.json == "-":
        print(text, end="")
    elif reason := why_not_writable(args.json):
        print(f"rnnfast info: --json {args.json}: {reason}", file=sys.stderr)
        return 2
    else:
        Path(args.json).write_text(text, encoding="utf-8")
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run one demonstration or list them all."""
    from . import demos

    if args.name is None or args.name == "list":
        width = max(map(len, demos.DEMOS))
        for theme, entries in demos.THEMES.items():
            print(f"{theme}:")
            for name, description in entries.items():
                print(f"  {name:<{width}}  {description}")
        return 0
    if args.name not in demos.DEMOS:
        close = get_close_matches(args.name, demos.DEMOS, n=1)
        expected = f"did you mean {close[0]}? Expected" if close else "expected"
        names = ", ".join(demos.DEMOS)
        print(
            f"rnnfast demo: there is no {args.name!r}, {expected} one of {names}", file=sys.stderr
        )
        return 2
    return demos.run(args.name, args.argv)


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(
        prog="rnnfast",
        description="Fast, exact recurrent layers for the CPU.",
        epilog="`rnnfast COMMAND --help` says what a command can do.",
    )
    version = f"rnnfast {rnnfast.__version__}"
    top.add_argument("-V", "--version", action="version", version=version, help="print the version")
    commands = top.add_subparsers(metavar="COMMAND")
    bench.add_to(commands)

    p = commands.add_parser("info", help="print the configuration")
    p.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="PATH",
        help="as JSON; with PATH, write it there (-: print it)",
    )
    p.set_defaults(run=info)

    p = commands.add_parser(
        "demo",
        help="run a demonstration; without a name, list them",
        description="Run a demonstration. Without NAME, or with list, list them.",
        epilog="`rnnfast demo NAME --help` says which arguments a demonstration takes.",
    )
    p.hint = "a NAME comes first"
    p.add_argument("name", nargs="?", metavar="NAME", help="which demonstration")
    p.add_argument("argv", nargs=argparse.REMAINDER, metavar="...", help="its own arguments")
    p.set_defaults(run=demo)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads the output.
    """
    try:
        try:
            return command(sys.argv[1:] if argv is None else list(argv))
        finally:
            print(end="", flush=True)  # here, and not when the interpreter ends, errors can be told
    except KeyboardInterrupt:
        print("rnnfast: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as under `head`
        discard(sys.stdout, sys.stderr)
        return 141  # 128 + SIGPIPE, as a shell says it
    except OSError as error:
        discard(sys.stdout)
        print(f"rnnfast: {error}", file=sys.stderr)
        return 1


def command(argv: list[str]) -> int:
    """Run a command; its exit status, unless it raises."""
    commands = parser()
    args = commands.parse_args(argv)
    if "run" not in args:
        commands.print_help()
        return 0
    try:
        rnnfast.get_num_threads()
    except ValueError as error:  # of RNNFAST_NUM_THREADS
        print(f"rnnfast: {error}", file=sys.stderr)
        return 2
    return int(args.run(args))


def discard(*streams: TextIO) -> None:
    """Let go what was not written, about which the interpreter would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
