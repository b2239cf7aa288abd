"""The command line: `python -m rnnfast bench | info | demo`."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

import numpy as np

import rnnfast

from .bench import command as bench
from .bench.machine import cpu_model


def info(args: argparse.Namespace) -> int:
    """Print the configuration and what it runs on."""
    rnnfast.show_config()
    print(f"{'python':<9} {platform.python_version()}")
    print(f"{'numpy':<9} {np.__version__}")
    print(f"{'system':<9} {platform.system()} {platform.machine()}")
    print(f"{'cpu':<9} {cpu_model()}")
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run one demonstration or list them all."""
    from . import demos

    if args.name is None:
        width = max(map(len, demos.DEMOS))
        for name, description in demos.DEMOS.items():
            print(f"{name:<{width}}  {description}")
        return 0
    if args.name not in demos.DEMOS:
        print(
            f"rnnfast demo: there is no {args.name!r}, expected one of {', '.join(demos.DEMOS)}",
            file=sys.stderr,
        )
        return 2
    return demos.run(args.name, args.argv)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="rnnfast", description="Fast, exact recurrent layers.")
    top.add_argument("--version", action="version", version=f"rnnfast {rnnfast.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    bench.add_to(commands)

    p = commands.add_parser("info", help="print the configuration")
    p.set_defaults(run=info)

    p = commands.add_parser(
        "demo",
        help="run a demonstration; without a name, list them",
        description="Run a demonstration. Without NAME, list them.",
    )
    p.add_argument("name", nargs="?", metavar="NAME", help="which demonstration")
    p.add_argument("argv", nargs=argparse.REMAINDER, metavar="...", help="its own arguments")
    p.set_defaults(run=demo)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        args = parser().parse_args(argv)
        return int(args.run(args))
    except KeyboardInterrupt:
        print("rnnfast: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
