"""Group: what training adds to the resident memory, each measurement in a process of its own.

Read from `/proc`, because the `ru_maxrss` of a new process includes what its parent had resident.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from clock import LAYERS, Clock, Row, Sized, SkipError, run_of, say

from rnnfast.bench.cases import inputs
from rnnfast.bench.peers import RUNNERS, missing

PROC = Path("/proc/self")
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc: give free memory back
WINDOW = 100  # calls over which resident memory, which varies with the sizes, is averaged


def memory(clock: Clock) -> Iterator[Row]:
    """Peak of a training step, its growth with T, and what calls of all sizes leave behind."""
    if not (PROC / "clear_refs").exists():
        raise SkipError(f"there is no {PROC}/clear_refs")
    B, H = (16, 64) if clock.quick else (64, 512)
    peaks = {T: measured(peak_of_step, "rnnfast", f"{T} {B} {H} {H}") for T in (25, 50, 100, 200)}
    if not missing("torch"):
        theirs = measured(peak_of_step, "torch", f"50 {B} {H} {H}")
        note = f"{peaks[50]:.0f} MiB, PyTorch {theirs:.0f} MiB"
        yield Row(f"LSTM step 50 {B} {H} {H}, over PyTorch", peaks[50] / theirs, "", 1, note=note)
    more = [1024 * (peaks[2 * T] - peaks[T]) / (T * B) for T in (25, 50, 100)]
    note = f"{min(more):.2f} to {max(more):.2f} KiB; " + ", ".join(
        f"{mib:.0f} MiB at T {T}" for T, mib in peaks.items()
    )
    yield Row("per further row and step, T 25 to 200", max(more) / min(more), "", 1.1, note=note)
    warm, calls = (WINDOW, 2 * WINDOW) if clock.quick else (200, 1000)
    for trim in (False, True) if TRIM else (False,):
        what = f"random sizes, from call {warm} to {calls}{', trimmed' if trim else ''}"
        yield Row(what, measured(left_by_calls, warm, calls, trim), "MiB", 5)


def measured(function: Callable[..., float], *args: Any) -> float:
    """Call `function` in a process of its own."""
    say(f"{function.__name__} {args}")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def resident(kind: str) -> float:
    """MiB in memory: `VmRSS` now, `VmHWM` at most since the last reset."""
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def peak_of_step(library: str, shape: str) -> float:
    """MiB that a first LSTM training step adds at its peak; a tiny one has loaded what it needs."""
    for sizes in ("2 2 3 5", shape):
        case = Sized("lstm", sizes, "training")
        run = RUNNERS[library](case, inputs(case), 1).run
        before = resident("VmRSS")
        (PROC / "clear_refs").write_text("5")  # VmHWM starts again from VmRSS
        results = run()
        peak = resident("VmHWM") - before
    del results  # alive until here, as in a training loop
    return peak


def left_by_calls(warm: int, calls: int, trim: bool) -> float:
    """MiB that training steps of random cells and sizes add from one call to another."""
    rng, cells, mib = np.random.default_rng(0), list(LAYERS), []
    for _ in range(calls):
        T, B, I, H = rng.integers(1, (50, 64, 128, 128), endpoint=True).tolist()
        run_of(cells[rng.integers(len(cells))], (T, B, I, H), "training")()
        if trim:
            TRIM(0)
        mib.append(resident("VmRSS"))
    return float(np.mean(mib[calls - WINDOW : calls]) - np.mean(mib[warm - WINDOW : warm]))
