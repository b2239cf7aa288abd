"""A Hopfield network: patterns are stored in the weights, and recalled from a part.

Units are +1 or -1. N units store P patterns x by Hebb's rule, and take turns in random order:

    W = 1/N sum_p x_p x_p^T, without its diagonal,    s_i = sign(sum_j w_ij s_j), kept if that is 0

W is symmetric, so no turn lets the energy `E = -s^T W s / 2` rise, and the network comes to rest.
While the load P/N is small, it rests at a stored pattern, even from a start with a quarter of the
units flipped. Beyond a load of about 0.138 the patterns are lost, all at once (Amit, Gutfreund &
Sompolinsky 1985). The overlap `x^T s / N` is 1 where a pattern is recalled without an error.

Source: Hopfield 1982. No gradient is needed, and no layer: one product is the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.training import Progress, new_figure

from ._demo import Demo, Options, Result, at_least, at_most

UNITS = 800
LOADS = 0.05, 0.10, 0.12, 0.138, 0.15, 0.16, 0.20
STARTS = 20  # patterns that recall begins at, for each load
NOISE = 0.25  # the share of units flipped at the start


class Hopfield:
    """A network that has stored patterns `(P, N)` of +1 and -1.

    Its weights are N W: whole numbers, whose sums have no rounding errors.
    """

    def __init__(self, patterns: Any) -> None:
        self.weight = patterns.T @ patterns
        np.fill_diagonal(self.weight, 0)

    def energy(self, states: Any) -> Any:
        """The energy `(B,)` of states `(B, N)`."""
        return -0.5 * np.sum(states @ self.weight * states, axis=1) / len(self.weight)

    def sweep(self, states: Any, rng: np.random.Generator) -> int:
        """Give every unit one turn, in random order; return how many units have changed.

        The states `(B, N)` change in place, each on its own.
        """
        fields, flips = states @ self.weight, 0
        for i in rng.permutation(states.shape[1]):
            rows = np.flatnonzero(fields[:, i] * states[:, i] < 0)
            if rows.size:
                states[rows, i] *= -1
                fields[rows] += 2 * states[rows, i, None] * self.weight[i]
                flips += len(rows)
        return flips

    def recall(self, states: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """Where the states `(B, N)` come to rest, and the energy after every sweep."""
        states = states.copy()
        energies = [self.energy(states)]
        while self.sweep(states, rng):
            energies.append(self.energy(states))
        return states, np.array(energies)


def flipped(patterns: Any, share: float, rng: np.random.Generator) -> Any:
    """The patterns with that share of the units of each flipped."""
    order = np.argsort(rng.random(patterns.shape), axis=1)
    return np.where(order < round(share * patterns.shape[1]), -patterns, patterns)


def main(options: Options) -> Result:
    """Recall from stored patterns and from noisy ones, at several loads."""
    rng = np.random.default_rng(options.seed)
    units = UNITS // 4 if options.quick else UNITS
    starts = {"stored pattern": 0.0, f"{NOISE:.0%} flipped": NOISE}
    overlaps: dict[str, list[float]] = {name: [] for name in starts}
    energies = {}
    with Progress(len(LOADS) * len(starts), "hopfield, loads") as progress:
        for load in LOADS:
            patterns = rng.choice([-1.0, 1.0], (round(load * units), units))
            network, wanted = Hopfield(patterns), patterns[:STARTS]
            for name, share in starts.items():
                states, energy = network.recall(flipped(wanted, share, rng), rng)
                overlaps[name].append(float(np.mean(states * wanted)))
                energies[name, load] = energy / units
                progress.update(load=load, overlap=overlaps[name][-1])

    stored, noisy = overlaps.values()
    rise = max(np.diff(energy, axis=0).max(initial=0) for energy in energies.values())
    return Result(
        [
            at_least("overlap at rest, load 0.10", stored[LOADS.index(0.10)], 0.99),
            at_most("overlap at rest, load 0.20", stored[LOADS.index(0.20)], 0.6),
            at_least(f"overlap from {NOISE:.0%} flipped, load 0.05", noisy[0], 0.9999),
            at_most("largest rise of the energy in a sweep", rise, 0),
        ],
        lambda: plot(overlaps, energies),
        {"loads": LOADS, "overlaps": overlaps},
    )


def plot(overlaps: dict[str, list[float]], energies: dict[tuple[str, float], Any]) -> Any:
    """Overlap by load, and the energy of noisy starts sweep by sweep."""
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    for name, values in overlaps.items():
        left.plot(LOADS, values, "o-", label=f"from {name}")
    left.axvline(0.138, color="gray", linestyle=":", label="capacity, 0.138")
    left.set(xlabel="load P/N", ylabel="overlap at rest", title="recall", ylim=(0, 1.05))
    for (name, load), energy in energies.items():
        if name != "stored pattern" and load in (0.05, 0.138, 0.20):
            right.plot(energy.mean(axis=1), ".-", label=f"load {load}")
    right.set(xlabel="sweep", ylabel="energy / N", title=f"from {NOISE:.0%} flipped")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


demo = Demo(main)
