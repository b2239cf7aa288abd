"""Measure what `python -m rnnfast bench` does not show, and hold it against the goals.

What is compared takes turns in rounds of some hundredths of a second, and the best round counts.
One thread on one CPU, except in the group `threads`; float32 unless said.

    python benchmarks/claims stream latency --json claims.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from cell_peers import cell_peers
from cells import cells
from clock import Clock, Row, SkipError
from jax_layers import jax_layers
from memory import memory
from modules import modules
from scaling import growth, odd, peak, plot, threads
from speed import float64, isa, latency, lengths, stream

import rnnfast
from rnnfast._core.threads import MAX_THREADS
from rnnfast.bench.command import between, check_outputs
from rnnfast.bench.machine import describe
from rnnfast.bench.peers import missing
from rnnfast.bench.report import align, dumps, number
from rnnfast.bench.run import BenchError, pinned

MEASURED = (
    peak, stream, latency, lengths, cells, cell_peers, modules, jax_layers, float64, isa, threads,
    odd, growth, memory,
)  # fmt: skip
GROUPS: dict[str, Callable[[Clock], Iterator[Row]]] = {group.__name__: group for group in MEASURED}
TITLES = {name: (group.__doc__ or "").strip() for name, group in GROUPS.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/claims",
        description=(__doc__ or "").rpartition("\n\n")[0],
        epilog="\n".join(align(list(TITLES.items()))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("groups", nargs="*", metavar="GROUP", help="default: all of these")
    add("--json", type=Path, metavar="PATH", help="also write the results there")
    add("--plot", metavar="PATH", help="draw the group growth (.png, .svg); needs matplotlib")
    add("--quick", action="store_true", help="a little of everything, too short to publish")
    add("--threads", type=between(2, MAX_THREADS, int), default=2, metavar="N",
        help="how many the group threads compares with one; default: 2")  # fmt: skip
    args = parser.parse_args()
    if unknown := [name for name in args.groups if name not in GROUPS]:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(GROUPS)}")
    args.groups = [name for name in GROUPS if name in args.groups or not args.groups]
    if args.plot and "growth" not in args.groups:
        parser.error("--plot draws the group growth, which is not chosen")
    try:
        check_outputs(args)
    except BenchError as error:
        parser.error(str(error))
    return args


def table(rows: Sequence[Row]) -> str:
    cells = [["what", "measured", "goal", "met"]]
    for row in rows:
        goal = "-" if row.goal is None else f"{'>=' if row.at_least else '<='} {row.goal:g}"
        met = {None: "-", True: "yes", False: "no"}[row.met]
        cells.append([row.what, f"{number(row.measured)} {row.unit}".rstrip(), goal, met])
    notes = ["", *(row.note for row in rows)]
    lines = zip(align(cells, left=1), notes, strict=True)
    return "\n".join(f"{line}  {note}".rstrip() for line, note in lines)


def main() -> None:
    args = arguments()
    clock, results, skipped = Clock(args.quick, args.threads), [], {}
    machine = describe()  # as it is before this process is pinned
    rnnfast.set_num_threads(1)
    for name in args.groups:
        print(name, file=sys.stderr)
        try:
            with pinned(args.threads if name == "threads" else 1):
                rows = list(GROUPS[name](clock))
        except SkipError as error:
            skipped[name] = str(error)
            print(f"{name}: not measured: {error}\n")
            continue
        print(f"{name}: {TITLES[name]}", table(rows), "", sep="\n", flush=True)
        results += [{"group": name, **asdict(row), "met": row.met} for row in rows]
        if name == "growth" and args.plot:
            plot(rows, args.plot)
    peak = f"multiply-add peak {number(clock.peak or None)} GFLOP/s per core"
    print(f"{peak}; {machine['cpu']}, {machine['isa']}, {machine['compiler']}")
    if args.json:
        versions = {name: version(name) for name in ("numpy", "torch") if not missing(name)}
        versions["rnnfast"] = rnnfast.__version__
        record = {
            "schema": 1,
            "machine": machine | {"versions": versions},
            "settings": {"groups": args.groups, "quick": args.quick, "threads": args.threads},
            "peak_gflops": clock.peak,
            "results": results,
            "skipped": skipped,
        }
        args.json.write_text(dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
