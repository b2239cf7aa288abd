"""Groups: latency, unequal lengths, float64, the AVX2 path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from clock import (
    BOTH,
    LAYERS,
    Clock,
    Row,
    Run,
    Sizes,
    SkipError,
    must_agree,
    one_thread_for_torch,
    run_of,
    say,
)

import rnnfast
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES, Case
from rnnfast.bench.peers import missing
from rnnfast.bench.report import times
from rnnfast.bench.run import Bench, Settings, Worker


def stream(clock: Clock) -> Iterator[Row]:
    """One row, the weights packed once: steps called one by one, then 1000 in one call."""
    steps = [
        ("lstm", 1, 32, 0.3), ("lstm", 32, 64, 1.3), ("lstm", 128, 128, 5), ("gru", 1, 32, 0.3),
    ]  # fmt: skip
    for cell, I, H, goal in clock.some(steps):
        what = f"stream.step {cell.upper()} {I}->{H}"
        yield Row(what, 1e3 * clock.time(what, thousand_steps(cell, I, H)), "us", goal)
    runs = [
        ("lstm", 1, 20, 120), ("lstm", 1, 32, 140), ("lstm", 1, 40, 230),
        ("lstm", 32, 64, 700), ("gru", 1, 32, 110), ("gru", 32, 64, 550),
    ]  # fmt: skip
    for cell, I, H, goal in clock.some(runs):
        what = f"stream.run {cell.upper()} {I}->{H}, per step"
        run = partial(LAYERS[cell](I, H, rng=0).stream().run, np.ones((1000, I), np.float32))
        yield Row(what, 1e6 * clock.time(what, run), "ns", goal)


def thousand_steps(cell: str, I: int, H: int) -> Run:
    step = LAYERS[cell](I, H, rng=0).stream().step
    x, out = np.ones(I, np.float32), np.empty(H, np.float32)

    def run() -> tuple[Any, ...]:
        for _ in range(1000):
            step(x, out=out)
        return (out,)

    return run


def latency(clock: Clock) -> Iterator[Row]:
    """Calls of a layer with next to nothing to compute."""
    goals = [("tiny", "forward", 8), ("tiny", "training", 25), ("step", "training", 15)]
    for (shape, direction, goal), cell in product(clock.some(goals), CELLS):
        what = f"{shape} {cell.upper()} {direction}"
        seconds = clock.time(what, run_of(cell, SHAPES[shape], direction))
        yield Row(what, 1e6 * seconds, "us", goal)


def lengths(clock: Clock) -> Iterator[Row]:
    """Lengths drawn from 1 to T: against T for all, and against PyTorch's packed LSTM."""
    sizes = T, B, _, _ = 100, 32, 128, 128
    drawn = np.random.default_rng(0).integers(1, T, B, endpoint=True)
    note = f"{100 * drawn.mean() / T:.0f} % of the steps"
    for cell, direction in clock.some(BOTH):
        what = f"{cell.upper()} {direction}, time over dense"
        dense, ours = (run_of(cell, sizes, direction, call) for call in ({}, {"lengths": drawn}))
        found = clock.best(what, {"dense": dense, "ours": ours})
        yield Row(what, found["ours"] / found["dense"], "", 0.6, note=note)
    for direction in () if missing("torch") else DIRECTIONS:
        what = f"LSTM {direction}, speed over PyTorch packed"
        ours = run_of("lstm", sizes, direction, {"lengths": drawn})
        theirs, packed = torch_packed(sizes, direction, drawn)
        must_agree(what, [packed(a).data if a.ndim == 3 else a for a in ours()], theirs())
        found = clock.best(what, {"ours": ours, "theirs": theirs})
        note = f"{1e3 * found['ours']:.1f} ms, PyTorch {1e3 * found['theirs']:.1f} ms"
        yield Row(what, found["theirs"] / found["ours"], "x", 4, at_least=True, note=note)


def torch_packed(sizes: Sizes, direction: str, drawn: Any) -> tuple[Run, Callable[[Any], Any]]:
    """PyTorch's twin of `run_of`, its input packed beforehand; and what packs an array."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    one_thread_for_torch()
    T, B, I, H = sizes
    module, rng = torch.nn.LSTM(I, H), np.random.default_rng(1)
    params = rnnfast.LSTM(I, H, rng=0).params
    module.load_state_dict({name: torch.from_numpy(p) for name, p in params.items()})

    def packed(array: Any) -> Any:
        array = torch.from_numpy(array)
        return pack_padded_sequence(array, torch.from_numpy(drawn), enforce_sorted=False)

    x, dy = (packed(rng.standard_normal((T, B, n), np.float32)) for n in (I, H))

    def forward() -> tuple[Any, ...]:
        with torch.inference_mode():
            return (module(x)[0].data,)

    def train() -> tuple[Any, ...]:
        y = module(x)[0].data
        return y.detach(), *torch.autograd.grad(y, [x.data, *module.parameters()], dy.data)

    x.data.requires_grad_(direction == "training")
    return train if direction == "training" else forward, packed


def float64(clock: Clock) -> Iterator[Row]:
    """Speed in float64 relative to float32."""
    for shape, (cell, direction) in product(clock.some(("medium", "large", "xl")), BOTH):
        what = f"{shape} {cell.upper()} {direction}"
        runs = {k: run_of(cell, SHAPES[shape], direction, dtype=k) for k in ("float32", "float64")}
        found = clock.best(what, runs)
        yield Row(what, found["float32"] / found["float64"], "", 0.45, at_least=True)


def isa(clock: Clock) -> Iterator[Row]:
    """Speed of the AVX2 path relative to the default one, each in a process of its own."""
    config = rnnfast.config()
    if config["isa"] == "avx2" or "avx2" not in config["isas"]:
        raise SkipError(f"in use is {config['isa']}, available {', '.join(config['isas'])}")
    paths = {"rnnfast": config["isa"], "avx2": "avx2"}
    peaks = dict.fromkeys(paths, 0.0)
    rounds, seconds = (2, 0.001) if clock.quick else (15, 0.02)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bench = Bench(Settings(1, (), rounds=rounds, seconds=seconds), folder)
        for key, path in paths.items():
            (folder / key).mkdir()
            with patch.dict(os.environ, RNNFAST_ISA=path):
                bench.workers[key] = stack.enter_context(Worker("rnnfast", 1, folder / key))
        for shape, (cell, direction) in product(
            clock.some(("medium", "long", "large", "xl")), clock.some(BOTH)
        ):
            say(f"{shape} {cell.upper()} {direction}")
            bench.measure(Case(cell, shape, direction))
            for key, worker in bench.workers.items():
                reply = worker.ask({"do": "peak", "dtype": "float32", "seconds": seconds})
                peaks[key] = max(peaks[key], reply["gflops"])
    if bench.skipped:
        raise SystemExit(f"isa: {bench.skipped[0]['reason']}")
    clock.peak = max(clock.peak, peaks["rnnfast"])
    bound = peaks["avx2"] / peaks["rnnfast"]
    note = f"{peaks['avx2']:.0f} of {peaks['rnnfast']:.0f} GFLOP/s"
    yield Row("multiply-add peak", bound, note=note)
    us = times({"results": bench.results})
    for (shape, cell, direction, key), default in us.items():
        if key == "rnnfast":
            ratio = default / us[shape, cell, direction, "avx2"]
            note = f"{ratio / bound:.2f} of the peaks' ratio"
            yield Row(
                f"{shape} {cell.upper()} {direction}", ratio, "", 0.92, at_least=True, note=note
            )
