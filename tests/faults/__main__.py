"""Plant every listed fault in a copy of the checkout and report those that no test finds.

    python tests/faults                     all lists
    python tests/faults kernels training    two of them
    python tests/faults --only "float32"    the faults with this text in their file or description

Each fault is planted by itself, and built at -O1 where it is in C or Cython. Then the tests that
its entry names look for it. The exit status is 1 if a fault survives or cannot be tried. The
packages of `rnnfast[test]` and a compiler are needed; a few lists need PyTorch or ONNX Runtime too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from time import perf_counter

from planting import Copy, Fault, Outcome, listed


def runnable() -> list[str]:
    """The instruction sets that this processor can run, the best one first."""
    from rnnfast._core import config

    return list(config.ISAS)


def sound(copies: list[Copy], faults: list[Fault]) -> str:
    """The output of the tests that fail without any fault; empty if all is well."""
    plain = sorted({test for fault in faults if "-k" not in fault.tests for test in fault.tests})
    groups = [tuple(plain[i :: len(copies)]) for i in range(len(copies))]
    groups[-1:] = [groups[-1], *sorted({f.tests for f in faults if "-k" in f.tests})]
    free: Queue[Copy] = Queue()
    for copy in copies:
        free.put(copy)

    def test(arguments: tuple[str, ...]) -> str:
        copy = free.get()
        try:
            verdict, output = copy.test(arguments, seconds=None)
        finally:
            free.put(copy)
        return "" if verdict == "SURVIVED" else output

    with ThreadPoolExecutor(len(copies)) as pool:
        return "\n".join(filter(None, pool.map(test, filter(None, groups))))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__.split("\n")[0])
    parser.add_argument("lists", nargs="*", help="names of the lists in tests/faults (all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults that have it in them")
    parser.add_argument("--unchecked", action="store_true", help="no run without a fault first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (CPUs)")
    options = parser.parse_args()
    chosen = [fault for fault in listed(options.lists) if options.only in str(fault)]
    faults = [fault for fault in chosen if not fault.equivalent]
    start = perf_counter()
    with tempfile.TemporaryDirectory() as name:
        print("Building the extension, then all tests of the lists without a fault", flush=True)
        first = Copy(Path(name, "0"))
        sys.path.insert(0, str(first.folder))
        isas = runnable()
        others = [Copy(Path(name, str(i)), like=first) for i in range(1, options.jobs)]
        copies = [first, *others]
        if output := "" if options.unchecked else sound(copies, faults):
            print(output, "These tests fail without a fault.", sep="\n")
            return 1
        wrong = report(faults, copies, isas)
    print(f"{len(chosen) - len(faults)} of {len(chosen)} change nothing that could be found")
    print(f"{perf_counter() - start:.0f} s")
    return int(bool(wrong))


def report(faults: list[Fault], copies: list[Copy], isas: list[str]) -> list[Fault]:
    """Look for all faults, a line each; the survivors again at the end."""
    outcomes: dict[Fault, Outcome] = {}
    free: Queue[Copy] = Queue()
    for copy in copies:
        free.put(copy)

    def look_for(fault: Fault) -> None:
        if fault.isa and fault.isa not in isas:
            outcome = Outcome("skipped", 0, f"this processor cannot run {fault.isa}")
        else:
            copy = free.get()
            try:
                outcome = copy.look_for(fault, isas[0])
            finally:
                free.put(copy)
        outcomes[fault] = outcome
        place = f"{len(outcomes)}/{len(faults)}"
        print(f"{place:>9}  {outcome.verdict:8}  {outcome.seconds:5.1f} s  {fault}", flush=True)

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(look_for, faults))
    verdicts = [outcome.verdict for outcome in outcomes.values()]
    print(*(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)), sep=", ")
    wrong = [f for f, outcome in outcomes.items() if outcome.verdict in ("SURVIVED", "ERROR")]
    for fault in wrong:
        last = "\n    ".join(outcomes[fault].output.strip().splitlines()[-15:])
        print(f"\n{outcomes[fault].verdict}: {fault}\n    {last}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
