"""Compare the checkout with another version: the bits of all results, then the speed.

Both versions are built side by side. Each works in processes of its own, on every instruction set
that this processor has for the bits, on the best one for the times. Versions take turns, and the
best round of each counts. The exit status is 1 if a bit differs, or if a case is slower by more
than `--slower` in both of two runs.

    python benchmarks/compare_versions v0.1.0
    python benchmarks/compare_versions HEAD~1 --no-bits --only "lstm training"
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from versions import Version

from rnnfast.bench.cases import CELLS, SHAPES

ISAS = ("avx512", "avx2", "neon", "baseline")
SECONDS = 0.05  # of one measurement


@dataclass(frozen=True)
class Case:
    """Something to time: `forward` or `training` of a function, `step` or `run` of a stream."""

    kind: str
    cell: str
    shape: tuple[int, int, int, int]
    name: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        words = [self.cell, self.kind, self.name]
        return " ".join([*words, *(f"{k}={v}" for k, v in self.options.items())])


def timed_cases() -> list[Case]:
    cases = [
        Case(kind, cell, sizes, name)
        for name, sizes in SHAPES.items()
        for cell in CELLS
        for kind in ("forward", "training")
    ]
    for cell in CELLS:
        for I, H in ((1, 32), (32, 64), (128, 128), (256, 256)):
            cases.append(Case("step", cell, (1, 1, I, H), f"{I}-{H}"))
        cases.append(Case("run", cell, SHAPES["audio"], "audio"))
    own: list[tuple[str, dict[str, Any]]] = [
        ("rnn", {"nonlinearity": "relu"}),
        ("gru", {"reset_after": False}),
        ("lstm", {"P": 64}),
        ("lstm", {"lengths": True, "resets": True}),
        *((cell, {"dtype": "float64"}) for cell in CELLS),
    ]
    kinds = ("forward", "training")
    cases += [Case(k, cell, SHAPES["medium"], "medium", o) for cell, o in own for k in kinds]
    return cases


def compare_bits(versions: list[Version]) -> int:
    """The number of results that differ; says so for each instruction set."""
    wrong = 0
    runnable = [answer_of(version, "", "isas") for version in versions]
    for isa in ISAS:
        if not all(isa in isas for isas in runnable):
            print(f"{isa}: cannot run here, not compared")
            continue
        old, new = (answer_of(version, isa, "bits") for version in versions)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        print(f"{isa}: {len(old)} results, {len(names)} differ", flush=True)
        for name in names[:20]:
            print(f"  {name}")
        wrong += len(names)
    return wrong


def answer_of(version: Version, isa: str, request: str) -> Any:
    """What a new process of a version answers."""
    process = version.start(isa)
    try:
        return process.ask(request)
    finally:
        process.close()


def ratio_of(case: Case, versions: list[Version], threads: int, rounds: int) -> list[float]:
    """Seconds per call of both versions in new processes: the best of the rounds."""
    processes = [version.start("", threads) for version in versions]
    best = [math.inf, math.inf]
    try:
        repeats = 1
        for process in processes:
            process.ask("threads", threads)
            process.ask("prepare", str(case), case.kind, case.cell, case.shape, case.options)
        while (elapsed := processes[0].ask("time", str(case), repeats)) < SECONDS:
            repeats = min(10 * repeats, max(2 * repeats, int(1.1 * repeats * SECONDS / elapsed)))
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                elapsed = processes[which].ask("time", str(case), repeats)
                best[which] = min(best[which], elapsed / repeats)
    finally:
        for process in processes:
            process.close()
    return best


def compare_times(cases: list[Case], versions: list[Version], args: argparse.Namespace) -> int:
    """The number of cases that are slower; prints a line for each and the geometric mean."""
    limit, ratios, slower = 1 + args.slower / 100, {}, 0
    width = max(len(str(case)) for case in cases)
    for case in cases:
        old, new = ratio_of(case, versions, args.threads, args.rounds)
        ratios[case] = new / old
        line = f"{case!s:{width}}  {1e6 * old:12.2f}  {1e6 * new:12.2f}  {new / old:6.3f}"
        if new / old > limit:
            old, new = ratio_of(case, versions, args.threads, 2 * args.rounds)
            again = new / old
            ratios[case] = min(ratios[case], again)
            slower += again > limit
            line += f"  again {again:.3f}{'  SLOWER' if again > limit else ''}"
        print(line, flush=True)
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    print(f"{len(cases)} cases, geometric mean of new to old {mean:.4f}, {slower} slower")
    return slower


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/compare_versions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("revision", metavar="REV", help="the version to compare with, as git names it")
    add("--no-bits", action="store_true", help="only times")
    add("--no-times", action="store_true", help="only bits")
    add("--only", default="", metavar="TEXT", help="time the cases with this text in their name")
    add("--rounds", type=int, default=8, metavar="N", help="of each case; default: 8")
    add("--threads", type=int, default=1, metavar="N", help="of the timed cases; default: 1")
    add("--slower", type=float, default=3, metavar="PERCENT", help="what is too much; default: 3")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    cases = [case for case in timed_cases() if args.only in str(case)]
    if not cases and not args.no_times:
        raise SystemExit(f"no case has {args.only!r} in its name")
    with tempfile.TemporaryDirectory() as name:
        print("Building both versions", flush=True)
        versions = [
            Version(args.revision, Path(name, "old"), args.revision),
            Version("the checkout", Path(name, "new"), None),
        ]
        differing = 0 if args.no_bits else compare_bits(versions)
        slower = 0 if args.no_times else compare_times(cases, versions, args)
    return int(bool(differing or slower))


if __name__ == "__main__":
    sys.exit(main())
