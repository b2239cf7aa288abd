"""One library in a process of its own: answers the parent's questions, one JSON line each way.

Run as `python -m rnnfast.bench.worker LIBRARY THREADS`. Ends with the end of its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .cases import Case, inputs
from .peers import RUNNERS
from .timing import repeats_for, seconds_per_call
from .work import UnsupportedError, Work, load

# Far above rounding, far below what a wrong gate order or a missing bias would give.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}


def disagreement(results: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """Largest difference of each result from what is expected, relative to its largest value."""
    errors = []
    for result, right in zip(results, expected, strict=True):
        array = np.asarray(result)
        if array.shape != right.shape:
            errors.append(float("inf"))
            continue
        error = float(np.max(np.abs(array - right))) / (float(np.max(np.abs(right))) or 1.0)
        errors.append(error if error == error else float("inf"))
    return errors


def wrong_results(work: Work, case: Case, expected: Mapping[str, Any]) -> str:
    """Start `work` anew, run it, and say which results differ from what is expected; "" if none."""
    work.restart()
    results = work.run()
    if len(results) != len(case.results):
        return f"{len(results)} results, expected {', '.join(case.results)}"
    errors = disagreement(results, [expected[name] for name in case.results])
    return ", ".join(
        f"{name} differs from the reference by {error:.1e} of its largest value"
        for name, error in zip(case.results, errors, strict=True)
        if error > TOLERANCE[case.dtype]
    )


class Worker:
    """The case at hand and how to time it."""

    def __init__(self, library: str, threads: int) -> None:
        self.library, self.threads = library, threads
        self.case: Case | None = None
        self.work: Work | None = None
        self.expected = ""
        self.repeats = 1

    def hello(self) -> dict[str, Any]:
        """Import the library."""
        version = str(load(self.library).__version__)
        return {"version": version.partition("-")[0]}

    def prepare(self, case: dict[str, str], expected: str, seconds: float) -> dict[str, Any]:
        """Set `case` up, compare its results with the file `expected`, choose the repeats.

        The reply has the library's threads and notes, or with `skip` the reason why it is not to be
        timed: it does not compute the case, it has not the threads, or its results are wrong.
        """
        self.work = None  # frees the previous case first
        self.case, self.expected = Case(**case), expected
        try:
            work = RUNNERS[self.library](self.case, inputs(self.case), self.threads)
            if work.threads not in (None, self.threads):
                return {"skip": f"it has {work.threads} threads, not the {self.threads} asked for"}
            self.work = work
            if reason := self.wrong("wrong result"):
                return {"skip": reason}
        except UnsupportedError as error:
            return {"skip": str(error)}
        except Exception as error:  # whatever a library raises is its answer
            return {"skip": f"{type(error).__name__}: {error}"}
        self.repeats = repeats_for(work.run, seconds)
        return {"threads": work.threads, "notes": work.notes}

    def wrong(self, title: str) -> str:
        """What is wrong with the results, after `title`; nothing is timed then."""
        assert self.work is not None
        assert self.case is not None
        with np.load(self.expected) as right:
            reasons = wrong_results(self.work, self.case, right)
        if reasons:
            self.work = None
        return f"{title}: {reasons}" if reasons else ""

    def time(self) -> dict[str, Any]:
        """Microseconds per call."""
        assert self.work is not None
        return {"us": 1e6 * seconds_per_call(self.work.run, self.repeats)}

    def check(self) -> dict[str, Any]:
        """Compare once more: what was timed still has to compute the right results."""
        reason = self.wrong("wrong result after it was timed")
        return {"skip": reason} if reason else {}

    def peak(self, dtype: str, seconds: float) -> dict[str, Any]:
        """What one core's multiply-add units reach, in GFLOP/s."""
        from rnnfast._core.config import fma_peak

        return {"gflops": fma_peak(dtype, seconds) / 1e9}


def main(library: str, threads: str) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not end up among the replies
    worker = Worker(library, int(threads))
    for line in sys.stdin:
        question = json.loads(line)
        reply = getattr(worker, question.pop("do"))(**question)
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main(*sys.argv[1:])
