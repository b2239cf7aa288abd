"""One library in a process of its own: answers the parent's questions, one JSON line each way.

Run as `python -m rnnfast.bench.worker LIBRARY THREADS`. Ends with the end of its standard input.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from .cases import Case, inputs
from .peers import RUNNERS, Run, UnsupportedError, load

RESULTS = ("y", "dx", "dw_ih", "dw_hh")
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


def seconds_of(run: Run, repeats: int) -> float:
    """Duration of `repeats` calls, without pauses for garbage collection."""
    gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        for _ in range(repeats):
            run()
        return perf_counter() - start
    finally:
        gc.enable()


def repeats_for(run: Run, seconds: float) -> int:
    """How often to call `run` so that one measurement lasts at least about `seconds`."""
    repeats = 1
    while (elapsed := seconds_of(run, repeats)) < seconds:
        wanted = 1.1 * repeats * seconds / max(elapsed, 1e-9)
        repeats = min(max(2 * repeats, int(wanted)), 10 * repeats)
    return repeats


class Worker:
    """The case at hand and how to time it."""

    def __init__(self, library: str, threads: int) -> None:
        self.library, self.threads = library, threads
        self.run: Run | None = None
        self.repeats = 1

    def hello(self) -> dict[str, Any]:
        """Import the library."""
        version = str(load(self.library).__version__)
        return {"version": version.partition("-")[0]}

    def prepare(self, case: dict[str, str], expected: str, seconds: float) -> dict[str, Any]:
        """Set `case` up, compare its results with the file `expected`, choose the repeats."""
        self.run = None  # frees the previous case first
        chosen = Case(**case)
        try:
            run = RUNNERS[self.library](chosen, inputs(chosen), self.threads)
            results = run()
        except UnsupportedError as error:
            return {"skip": str(error)}
        except Exception as error:  # whatever a library raises is its answer
            return {"skip": f"{type(error).__name__}: {error}"}
        with np.load(expected) as right:
            errors = disagreement(results, [right[name] for name in RESULTS[: len(results)]])
        wrong = [
            f"{name} differs from the reference by {error:.1e} of its largest value"
            for name, error in zip(RESULTS, errors, strict=False)
            if error > TOLERANCE[chosen.dtype]
        ]
        if wrong:
            return {"skip": "wrong result: " + ", ".join(wrong)}
        self.run, self.repeats = run, repeats_for(run, seconds)
        return {}

    def time(self) -> dict[str, Any]:
        """Warm up with a tenth of the calls, then time them; microseconds per call.

        While other libraries have their turn caches go cold, and the host of a virtual machine
        takes back memory that was freed: the first call of a long case can take twice the time.
        """
        assert self.run is not None
        seconds_of(self.run, math.ceil(self.repeats / 10))
        return {"us": 1e6 * seconds_of(self.run, self.repeats) / self.repeats}

    def peak(self, dtype: str, seconds: float) -> dict[str, Any]:
        """What one core's multiply-add units reach, in GFLOP/s."""
        from rnnfast._kernels import fma_peak

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
