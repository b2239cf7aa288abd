"""Groups: per cent of the peak, threads, sizes that fill no vector, growth with T and B."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from clock import BOTH, LAYERS, Clock, Row, Run, Sized, Sizes, SkipError, run_of, say

from rnnfast._core.config import fma_peak
from rnnfast.bench.cases import CELLS, DIRECTIONS, GATES, SHAPES
from rnnfast.bench.machine import cpus
from rnnfast.bench.plot import CELL_COLOURS
from rnnfast.bench.run import PAUSE

SWEEPS = {
    "T": {T: (T, 32, 128, 128) for T in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)},
    "B": {B: (32, B, 128, 128) for B in (16, 32, 64, 128, 256, 512)},
}
# Per cent of the peak: RNN, GRU and LSTM forward, then training.
GOALS = {
    "small": ((65, 75, 80), (60, 71, 76)),
    "medium": ((87, 89, 91), (84, 86, 88)),
    "long": ((80, 85, 88), (70, 76, 80)),
    "large": ((92, 93, 95), (89, 90, 91)),
    "xl": ((94, 95, 96), (91, 92, 93)),
    "xxl": ((92, 93, 94), (90, 91, 92)),
    "wide": ((84, 86, 88), (84, 86, 88)),
}
WIDE = (30, 16, 1024, 1024)
# Operations on the multiply-adds' ports for a vector of units: its activations and its new state.
OPERATIONS = {"rnn": 23, "gru": 64, "lstm": 106}
FIXED = {"T": "B = 32", "B": "T = 32"}
WORDS = {"T": "time steps", "B": "batch rows"}


def peak(clock: Clock) -> Iterator[Row]:
    """Per cent of the peak: forward with weights packed once, training with new ones each time."""
    cases = {}
    for shape, (cell, direction) in product(clock.some(tuple(GOALS)), BOTH):
        sizes = " ".join(map(str, SHAPES.get(shape, WIDE)))
        cases[f"{shape} {cell.upper()} {direction}"] = shape, Sized(cell, sizes, direction)
    found = clock.spread({what: partial(packed_once, case) for what, (_, case) in cases.items()})
    for what, (shape, case) in cases.items():
        training, products = case.direction == "training", GATES[case.cell] * sum(case.sizes[2:])
        most = 100 * products / (products + OPERATIONS[case.cell])
        note = "" if training else f"at most {most:.0f} % beside its activations"
        goal = GOALS[shape][training][CELLS.index(case.cell)]
        share = case.flops / found[what][case] / clock.peak / 1e7
        yield Row(what, share, "%", goal, at_least=True, note=note)


def packed_once(case: Sized) -> dict[Sized, Run]:
    """A case's run; forward it is a stream's, whose weights are packed beforehand."""
    if case.direction == "training":
        return {case: run_of(case.cell, case.sizes, case.direction)}
    T, B, I, H = case.sizes
    x = np.random.default_rng(1).standard_normal((T, B, I), np.float32)
    return {case: partial(LAYERS[case.cell](I, H, rng=0).stream(B).run, x)}


def threads(clock: Clock) -> Iterator[Row]:
    """Speed of several threads over one."""
    n, goal = clock.threads, 1.85 if clock.threads == 2 else None
    if cpus() < n:
        raise SkipError(f"{n} threads need as many CPUs, this process may use {cpus()}")
    shapes = clock.some(("medium", "long", "large", "xl", "xxl"))
    cases = [(shape, *both, SHAPES[shape], {}) for shape, both in product(shapes, BOTH)]
    both_ways: Any = (1000, 1, 64, 128), {"bidirectional": True}
    cases += [("1000 1 64 128 bidirectional", "lstm", d, *both_ways) for d in DIRECTIONS]

    def runs(cell: str, direction: str, sizes: Sizes, options: dict[str, Any]) -> dict[int, Run]:
        return {t: run_of(cell, sizes, direction, {"threads": t}, **options) for t in (1, n)}

    named = {f"{shape} {case[0].upper()} {case[1]}": partial(runs, *case) for shape, *case in cases}
    for what, found in clock.spread(named, PAUSE).items():
        yield Row(what, found[1] / found[n], "x", goal, at_least=True)
    say("multiply-add peak")
    with ThreadPoolExecutor(n) as pool:
        peaks = [sum(pool.map(fma_peak, ["float32"] * n, [0.1] * n)) / 1e9 for _ in range(5)]
    note = f"{max(peaks):.0f} over {clock.peak:.0f} GFLOP/s"
    yield Row("multiply-add peak", max(peaks) / clock.peak, "x", note=note)


def odd(clock: Clock) -> Iterator[Row]:
    """Per cent of the peak at sizes that fill no whole vectors or tiles, below a neighbour's."""
    pairs = [("50 32 100 100", "50 32 128 128"), ("50 32 130 130", "50 32 128 128"),
             ("50 32 257 257", "50 32 256 256"), ("50 7 128 128", "50 8 128 128"),
             ("50 33 128 128", "50 32 128 128")]  # fmt: skip

    def runs(pair: Sequence[str], cell: str, direction: str) -> dict[Sized, Run]:
        cases = [Sized(cell, shape, direction) for shape in pair]
        return {case: run_of(cell, case.sizes, direction) for case in cases}

    named = {
        f"{pair[0]} {cell.upper()} {direction}": partial(runs, pair, cell, direction)
        for pair, (cell, direction) in product(clock.some(pairs), BOTH)
    }
    for found in clock.spread(named).values():
        (case, share), (near, near_share) = (
            (case, case.flops / seconds / clock.peak / 1e7) for case, seconds in found.items()
        )
        _, B, _, H = case.sizes
        what = f"B {B}, H {H} {case.cell.upper()} {case.direction}"
        _, B, _, H = near.sizes
        note = f"{share:.1f} % of peak; {near_share:.1f} % at B {B}, H {H}"
        yield Row(what, near_share - share, "points", 10, note=note)


def growth(clock: Clock) -> Iterator[Row]:
    """Time per row and step, longest over shortest, while T or B grows at I = H = 128."""
    for (letter, sweep), (cell, direction) in product(SWEEPS.items(), clock.some(BOTH)):
        what = f"{cell.upper()} {direction} over {letter}"
        chosen = dict(list(sweep.items())[: 2 if clock.quick else None])
        found = clock.best(what, {n: run_of(cell, s, direction) for n, s in chosen.items()})
        curve = {n: 1e9 * found[n] / (T * B) for n, (T, B, _, _) in chosen.items()}
        least, most = min(curve.values()), max(curve.values())
        note = f"{min(curve)} to {max(curve)} at {FIXED[letter]}: {least:.0f} to {most:.0f} ns"
        yield Row(what, most / least, "", 1.1, note=note, curve=curve)


def plot(rows: Sequence[Row], path: str) -> None:
    """Draw what `growth` found: time per row and step over T and over B."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = dict(zip(SWEEPS, figure.subplots(1, 2, sharey=True), strict=True))
    for row in rows:
        label, letter = row.what.split(" over ")
        cell, direction = label.lower().split()
        style = "o-" if direction == "training" else "s--"
        x, y = zip(*row.curve.items(), strict=True)
        axes[letter].plot(x, y, style, ms=4, lw=1.2, color=CELL_COLOURS[cell], label=label)
    for letter, axis in axes.items():
        ticks = list(SWEEPS[letter])
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, ticks)
        axis.set_xlabel(f"{WORDS[letter]} {letter}, at {FIXED[letter]}, I = H = 128")
        axis.grid(lw=0.4, alpha=0.6)
    axes["T"].set_ylim(bottom=0)
    axes["T"].set_ylabel("ns per row and step")
    handles, labels = axes["T"].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=9)
    figure.savefig(path, dpi=130)
