"""`python -m rnnfast bench` and `bench compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import rnnfast
from rnnfast._command_line import Parser, why_not_writable
from rnnfast._core.threads import MAX_THREADS

from . import report
from .cases import CELLS, DIRECTIONS, DTYPES, QUICK_SHAPES, SHAPES
from .peers import RUNNERS, missing
from .run import BenchError, Settings, measure

PEERS = tuple(library for library in RUNNERS if library != "rnnfast")


def selection(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of comma-separated names out of `allowed`; the result has the order of `allowed`."""
    names = tuple(allowed)

    def parse(text: str) -> tuple[str, ...]:
        wanted = [name.strip() for name in text.split(",")]
        for name in wanted:
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
        return tuple(name for name in names if name in wanted)

    return parse


def between(low: float, high: float, kind: type) -> Callable[[str], Any]:
    """A parser of numbers from `low` to `high`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} from {low} to {high}")
        return value

    return parse


def peers(text: str) -> tuple[str, ...]:
    """A parser of `--peers`: names of installed libraries, or `none`."""
    if text == "none":
        return ()
    wanted = selection(PEERS)(text)
    for library in wanted:
        if absent := missing(library):
            raise argparse.ArgumentTypeError(f"{library}: {' and '.join(absent)} not installed")
    return wanted


def add_to(commands: Any) -> None:
    """Add the command `bench` to the parser's commands."""
    p = commands.add_parser(
        "bench",
        usage="%(prog)s [options]\n       %(prog)s compare A.json B.json",
        help="measure this machine: rnnfast against NumPy and the installed peers",
        description=(
            "Measure this machine: every cell, forward and training (forward and backward), "
            "rnnfast against the NumPy reference and whichever peers are installed. Each library "
            "runs in its own process, with as many threads on the same CPUs; one that says it has "
            "others is not timed. Its results are checked before and after they are timed. The "
            "libraries take turns, in another order each round, and the best of all rounds counts. "
            "Names are given as a comma-separated list."
        ),
        epilog="`rnnfast bench compare A.json B.json` compares two records written with --json.",
    )
    p.hint = "expected options, or compare A.json B.json"
    add = p.add_argument
    add("--quick", action="store_true",
        help="a few shapes and short timings: under a minute, plus JAX's compiling")  # fmt: skip
    add("--json", metavar="PATH", help="write the record to PATH (-: print it instead)")
    add("--plot", metavar="PATH", help="draw the figure to PATH (.png, .svg); needs matplotlib")
    add("--threads", type=between(1, MAX_THREADS, int), metavar="N", help="default: as rnnfast")
    add("--cells", type=selection(CELLS), default=CELLS, metavar="CELL,...", help=", ".join(CELLS))
    add("--shapes", type=selection(SHAPES), metavar="SHAPE,...", help=", ".join(SHAPES))
    add("--peers", type=peers, metavar="PEER,...",
        help=f"none, or {', '.join(PEERS)}; default: the installed ones")  # fmt: skip
    add("--dtype", choices=DTYPES, default="float32", help="default: float32")
    add("--directions", type=selection(DIRECTIONS), default=DIRECTIONS, metavar="DIRECTION,...",
        help=", ".join(DIRECTIONS))  # fmt: skip
    add("--rounds", type=between(1, 1000, int), metavar="N", help="default: 5, with --quick 3")
    add("--seconds", type=between(0, 60, float), metavar="S",
        help="least duration of one measurement; default: 0.1, with --quick 0.02")  # fmt: skip
    p.set_defaults(run=bench)

    c = p.actions["compare"] = Parser(
        prog="rnnfast bench compare",
        description="Compare two records case by case: time in A over time in B.",
    )
    c.add_argument("before", metavar="A.json")
    c.add_argument("after", metavar="B.json")
    c.set_defaults(run=compare)


def settings(args: argparse.Namespace) -> Settings:
    """What the command line asks for."""
    installed = tuple(library for library in PEERS if not missing(library))
    return Settings(
        threads=args.threads or rnnfast.get_num_threads(),
        libraries=("rnnfast", *(installed if args.peers is None else args.peers)),
        cells=args.cells,
        shapes=args.shapes or (QUICK_SHAPES if args.quick else tuple(SHAPES)),
        directions=args.directions,
        dtype=args.dtype,
        rounds=args.rounds or (3 if args.quick else 5),
        seconds=args.seconds if args.seconds is not None else (0.02 if args.quick else 0.1),
    )


def check_outputs(args: argparse.Namespace) -> None:
    """Find out before the long work whether its results can be saved."""
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path not in (None, "-") and (reason := why_not_writable(path)):
            raise BenchError(f"{option} {path}: {reason}")
    if args.plot is not None:
        try:
            from matplotlib.backend_bases import FigureCanvasBase
        except ImportError:
            raise BenchError("--plot needs matplotlib: pip install 'rnnfast[plot]'") from None
        formats = FigureCanvasBase.get_supported_filetypes()
        if Path(args.plot).suffix[1:] not in formats:
            raise BenchError(f"--plot {args.plot}: expected a suffix among {', '.join(formats)}")


def bench(args: argparse.Namespace) -> int:
    """Measure, print the table, save what was asked for; 1 if rnnfast itself was not timed."""
    try:
        check_outputs(args)
    except BenchError as error:
        return failed(error, 2)
    try:
        record = measure(settings(args))
    except BenchError as error:
        return failed(error, 1)
    status = int(any(entry["library"] == "rnnfast" for entry in record["skipped"]))
    text = report.dumps(record)
    try:
        if args.json not in (None, "-"):
            Path(args.json).write_text(text + "\n", encoding="utf-8")
        if args.plot:
            from .plot import plot

            plot(record, args.plot)
    except OSError as error:
        status = failed(error, 1)
    finally:  # what has been measured is shown whatever happens, and saved even if nobody reads it
        print(text if args.json == "-" else report.table(record))
    return status


def compare(args: argparse.Namespace) -> int:
    """Print the comparison of two records."""
    try:
        before, after = report.load(args.before), report.load(args.after)
    except (OSError, ValueError) as error:
        return failed(error, 2)
    print(report.compare(before, after))
    return 0


def failed(error: Exception, status: int) -> int:
    """Report on one line and return the exit status."""
    print(f"rnnfast bench: {error}", file=sys.stderr)
    return status
