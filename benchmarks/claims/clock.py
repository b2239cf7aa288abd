"""What the groups share: rows of results, timing in turns, a layer's work as a function."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias, TypeVar

import numpy as np

import rnnfast
from rnnfast._core.config import fma_peak
from rnnfast.bench.cases import CELLS, DIRECTIONS, Case
from rnnfast.bench.timing import Run, repeats_for, seconds_per_call, turns
from rnnfast.bench.worker import TOLERANCE, disagreement

Sizes: TypeAlias = tuple[int, int, int, int]  # T, B, I, H
Key = TypeVar("Key")
Item = TypeVar("Item")

LAYERS: dict[str, Any] = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}
BOTH = tuple(product(CELLS, DIRECTIONS))


class SkipError(Exception):
    """A group cannot be measured here; the message says why."""


class Sized(Case):
    """A case of any size: `shape` reads `"T B I H"`."""

    @property
    def sizes(self) -> Sizes:
        T, B, I, H = map(int, self.shape.split())
        return T, B, I, H


@dataclass
class Row:
    """A result and what it should be at most, or with `at_least` at least."""

    what: str
    measured: float
    unit: str = ""
    goal: float | None = None
    at_least: bool = False
    note: str = ""
    curve: dict[int, float] | None = None  # of `growth`: ns per row and step

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


@dataclass
class Clock:
    """Takes times. `peak` is the best multiply-add rate of one core seen on the way, in GFLOP/s."""

    quick: bool
    threads: int
    peak: float = 0.0

    def some(self, items: Sequence[Item]) -> Sequence[Item]:
        """With `quick` only the first."""
        return items[:1] if self.quick else items

    def best(self, what: str, runs: Mapping[Key, Run], pause: float = 0) -> dict[Key, float]:
        """Seconds per call of each: the best of the rounds in which they take turns.

        The first round has their own order, each further one another.
        """
        say(what)
        rounds, least, seconds = (2, 0.0, 0.001) if self.quick else (8, 1.5, 0.02)
        repeats = {key: repeats_for(run, seconds) for key, run in runs.items()}
        found = dict.fromkeys(runs, math.inf)
        end, number = time.perf_counter() + least, 0
        while number < rounds or time.perf_counter() < end:
            for key in turns(runs, number):
                time.sleep(pause)
                found[key] = min(found[key], seconds_per_call(runs[key], repeats[key]))
            number += 1
            self.peak = max(self.peak, fma_peak("float32", seconds) / 1e9)
        return found

    def spread(
        self, cases: Mapping[str, Callable[[], Mapping[Key, Run]]], pause: float = 0
    ) -> dict[str, dict[Key, float]]:
        """The `best` of each case in three passes over all, so that no bad moment decides."""
        found: dict[str, dict[Key, float]] = {}
        for _ in range(1 if self.quick else 3):
            for what, runs in cases.items():
                times = self.best(what, runs(), pause)
                before = found.get(what, times)
                found[what] = {key: min(before[key], times[key]) for key in times}
        return found

    def time(self, what: str, run: Run) -> float:
        """Seconds per call."""
        return self.best(what, {what: run})[what]


def say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def must_agree(what: str, ours: Sequence[Any], theirs: Sequence[Any], growth: float = 1) -> None:
    """End the program if results differ: what computes something else is not compared in speed.

    `growth`: how many times as large as usual rounding errors become over the steps.
    """
    theirs = [np.asarray(array) for array in theirs]
    error = max(disagreement(ours, theirs))
    if not error <= growth * TOLERANCE[theirs[0].dtype.name]:
        raise SystemExit(f"{what}: results differ by {error:.1e} of the largest value")


def one_thread_for_torch() -> None:
    """As many as rnnfast has; end the program if PyTorch takes others."""
    import torch

    torch.set_num_threads(1)
    if (threads := torch.get_num_threads()) != 1:
        raise SystemExit(f"PyTorch has {threads} threads, not the 1 asked for")


def run_of(cell: str, sizes: Sizes, direction: str, call: Any = None, **options: Any) -> Run:
    """A layer's inference or its forward and backward, with the keywords `call` in each call.

    The function returns `(y,)` or `(y, dx, gradients of the parameters...)`.
    """
    T, B, I, H = sizes
    layer, rng = LAYERS[cell](I, H, rng=0, **options), np.random.default_rng(1)
    x = rng.standard_normal((T, B, I), layer.dtype)
    dy = rng.standard_normal((T, B, H * (1 + layer.bidirectional)), layer.dtype)
    call = call or {}
    threads = {name: value for name, value in call.items() if name == "threads"}

    def train() -> tuple[Any, ...]:
        y, _, tape = layer.forward(x, **call)
        grads = layer.backward(tape, dy, **threads)
        return y, grads.input, *grads.params.values()

    return train if direction == "training" else lambda: layer(x, **call)[:1]
