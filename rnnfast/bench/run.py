"""Lead one worker process per library through all cases, in interleaved rounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np

from . import machine
from .cases import CELLS, DIRECTIONS, SHAPES, Case, all_cases, inputs
from .peers import expected
from .progress import progress
from .timing import turns

# Seconds until idle threads of OpenMP and ONNX Runtime, which spin at first, are asleep.
# OMP_WAIT_POLICY=passive would spare the wait, but also change how the libraries themselves run.
PAUSE = 0.03
PEAK_SECONDS = 0.05


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What to measure and how long."""

    threads: int
    libraries: tuple[str, ...]
    cells: tuple[str, ...] = CELLS
    shapes: tuple[str, ...] = tuple(SHAPES)
    directions: tuple[str, ...] = DIRECTIONS
    dtype: str = "float32"
    rounds: int = 5
    seconds: float = 0.1


def environment(threads: int) -> dict[str, str]:
    """Variables that give every library the same number of threads and this process's modules."""
    names = (
        "RNNFAST_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NPROC",  # JAX
    )
    env = dict(os.environ) | dict.fromkeys(names, str(threads))
    env["OPENBLAS_THREAD_TIMEOUT"] = "24"  # spin for 2^24 clock cycles, not ten times that
    env["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return env


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process, and those it starts, on the first `threads` of its CPUs (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Worker:
    """The parent's end of a worker process."""

    def __init__(self, library: str, threads: int, folder: Path) -> None:
        self.library = library
        self.errors = folder / f"{library}.log"
        with self.errors.open("wb") as log:
            # A session of its own: Ctrl-C reaches the parent alone, which then ends the workers.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rnnfast.bench.worker", library, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(threads),
                start_new_session=True,
                text=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(BrokenPipeError), self.process:  # closes the pipes and waits
            self.process.kill()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a question, wait for the reply. Raises BenchError if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps(question), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            last = self.errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise BenchError(": ".join([f"its process ended with code {code}", *last]))
        return dict(json.loads(line))


class Bench:
    """One run: the workers that take part and the record that grows."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.workers: dict[str, Worker] = {}
        self.interrupted = False
        self.results: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.versions: dict[str, str] = {}
        self.peak = 0.0

    @contextmanager
    def ending_on_ctrl_c(self) -> Iterator[None]:
        """Let SIGINT end the workers, and with them the next `ask`.

        A KeyboardInterrupt raised wherever Python happens to be, such as in a library's import,
        can get lost there.
        """

        def interrupt(*_: object) -> None:
            self.interrupted = True
            for worker in self.workers.values():
                worker.process.kill()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self.interrupted:
            raise KeyboardInterrupt

    def ask(self, library: str, case: Case | None, question: dict[str, Any]) -> dict[str, Any]:
        """Ask a worker; a peer that has ended takes no further part."""
        try:
            return self.workers[library].ask(question)
        except BenchError as error:
            if self.interrupted:
                raise KeyboardInterrupt from None
            if library == "rnnfast":
                raise BenchError(f"rnnfast: {error}") from None
            del self.workers[library]
            self.skip(library, case, str(error))
            return {"skip": str(error)}

    def skip(self, library: str, case: Case | None, reason: str) -> None:
        """Note that `library` was not timed on `case` (None: on any from here on)."""
        where = asdict(case) if case else {}
        self.skipped.append({**where, "library": library, "reason": reason})

    def start(self) -> None:
        """Wait until every library has been imported."""
        for library in list(self.workers):
            reply = self.ask(library, None, {"do": "hello"})
            if "version" in reply:
                self.versions[library] = reply["version"]

    def expect(self, case: Case) -> Path:
        """The file with the expected results of the case's cell and shape."""
        path = self.folder / f"{case.cell}-{case.shape}.npz"
        if not path.exists():
            for old in self.folder.glob("*.npz"):
                old.unlink()
            both = Case(case.cell, case.shape, "training", case.dtype)
            right = expected(both, inputs(both))
            np.savez(path, **dict(zip(both.results, right, strict=True)))
        return path

    def prepare(self, case: Case) -> dict[str, dict[str, Any]]:
        """Make the libraries ready. What those that are to be timed say of themselves."""
        question = {
            "do": "prepare",
            "case": asdict(case),
            "expected": str(self.expect(case)),
            "seconds": self.settings.seconds,
        }
        ready = {}
        for library in list(self.workers):
            reply = self.ask(library, case, question)
            if "skip" not in reply:
                ready[library] = reply
            elif library in self.workers:
                self.skip(library, case, reply["skip"])
        return ready

    def measure(self, case: Case) -> None:
        """Time the case in rounds, each library once per round; the best of each counts.

        The libraries change places from round to round.
        """
        ready = self.prepare(case)
        rounds: dict[str, list[float]] = {library: [] for library in ready}
        places: dict[str, list[int]] = {library: [] for library in ready}
        for number in range(self.settings.rounds):
            for place, library in enumerate(turns(rounds, number)):
                time.sleep(PAUSE)
                reply = self.ask(library, case, {"do": "time"})
                if "us" in reply:
                    rounds[library].append(reply["us"])
                    places[library].append(place)
                else:
                    del rounds[library]
        time.sleep(PAUSE)
        question = {"do": "peak", "dtype": case.dtype, "seconds": PEAK_SECONDS}
        peak = self.ask("rnnfast", case, question)
        self.peak = max(self.peak, peak["gflops"])
        T, B, I, H = case.sizes
        for library, times in rounds.items():
            if not self.still_right(library, case):
                continue
            us = min(times)
            self.results.append(
                {**asdict(case), "T": T, "B": B, "I": I, "H": H, "library": library}
                | {"us": us, "gflops": case.flops / us / 1e3}
                | {"rounds_us": times, "places": places[library], "spread": max(times) / us - 1}
                | ready[library]
            )

    def still_right(self, library: str, case: Case) -> bool:
        """Whether what was timed computes the right results; if not, it is skipped with a word."""
        reply = self.ask(library, case, {"do": "check"})
        if "skip" in reply and library in self.workers:
            self.skip(library, case, reply["skip"])
        return "skip" not in reply

    def record(self) -> dict[str, Any]:
        """The run as it is written to JSON."""
        total = self.peak * min(self.settings.threads, machine.cpus())
        for result in self.results:
            result["percent_of_peak"] = 100 * result["gflops"] / total
        return {
            "schema": 1,
            "machine": machine.describe() | {"versions": self.versions},
            "settings": asdict(self.settings),
            "peak_gflops": {"one_core": self.peak, "all_threads": total},
            "results": self.results,
            "skipped": self.skipped,
        }


def measure(settings: Settings) -> dict[str, Any]:
    """Run the benchmark.

    Returns
    -------
    dict
        `schema`, `machine`, `settings`, `peak_gflops` (GFLOP/s), `results` and `skipped` (what was
        not timed and why). `results` has one entry per case and library: microseconds per call,
        those of every round with the library's place in it, and their spread (slowest over fastest
        less 1); GFLOP/s and per cent of the peak of all threads; the threads that the library says
        it has, None if it does not say; notes on the way it was called.

    Raises
    ------
    BenchError
        If rnnfast's own process ends.
    KeyboardInterrupt
        On Ctrl-C, after all processes have ended. To be called from the main thread.
    """
    cases = all_cases(settings.cells, settings.shapes, settings.directions, settings.dtype)
    with ExitStack() as stack:
        stack.enter_context(pinned(settings.threads))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bench = Bench(settings, folder)
        stack.enter_context(bench.ending_on_ctrl_c())
        for library in settings.libraries:
            worker = stack.enter_context(Worker(library, settings.threads, folder))
            bench.workers[library] = worker
        bench.start()
        for case in progress(cases):
            bench.measure(case)
        return bench.record()
