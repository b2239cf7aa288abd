"""Cells whose groups of units move at clock rates of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import checks
from ._cell import Cell
from ._factory import factory, with_states
from ._functions import outer, tanh, total, where
from ._trace import Expression, linear

__all__ = ["clock", "clockwork"]

MOST_GROUPS = 64  # a bound for what a file can ask for


@factory
def clockwork(periods: Sequence[int]) -> Cell:
    """Return a Clockwork RNN, whose group of period p moves at every p-th step (Koutnik 2014).

    A group sees itself and all slower ones: `h_p = tanh(W_p x + sum_{q >= p} U_pq h_q' + b_p)` at
    the steps that p divides, else `h_p = h_p'`. Connections from faster groups do not exist.

    Parameters
    ----------
    periods : sequence of int
        The period of each group, fastest first. Powers of two are usual.

    Returns
    -------
    Cell
        Its hidden size is that of one group. It has a state for each group, `h1`, `h2`, `h4` for
        the periods 1, 2, 4. Its output has the units of all groups, in the order of `periods`. Its
        extra inputs are what `clock` makes.

    Raises
    ------
    TypeError
        A period is no integer.
    ValueError
        The periods are none, below 1 or not increasing.

    Notes
    -----
    Source: Koutnik, Greff, Gomez & Schmidhuber 2014, arXiv:1402.3511.

    Examples
    --------
    >>> from rnnfast.cells import clock, clockwork
    >>> periods = 1, 2, 4, 8
    >>> layer = rnnfast.Recurrent(clockwork(periods), input_size=3, hidden_size=5)
    >>> x = np.zeros((100, 16, 3), np.float32)
    >>> y, state = layer(x, extra=clock(periods, 100))
    >>> y.shape
    (100, 16, 20)
    """
    periods = _checked(periods)
    names = [f"h{p}" for p in periods]

    def step(x: Expression, *rest: Expression) -> Any:
        *states, active, place = rest
        new, y = {}, None
        for i, (name, h) in enumerate(zip(names, states, strict=True)):
            moved = tanh(linear(f"group_{periods[i]}", x, *states[i:]))
            new[name] = where(total(active * (place == i)), moved, h)
            part = outer(place == i, new[name])  # zero outside the place of the group
            y = part if y is None else y + part
        return new | {"y": y}

    sizes = {"active": len(periods), "place": len(periods)}
    name = "clockwork_" + "_".join(map(str, periods))
    return with_states(name, names, step, extra=["active", "place"], sizes=sizes)


def clock(
    periods: Sequence[int], steps: int, start: int = 0, *, batch_first: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the extra inputs of `clockwork(periods)` for a sequence of so many steps.

    Parameters
    ----------
    periods : sequence of int
        Those of the cell.
    steps : int
        T.
    start : int
        How many steps came before, where a longer sequence is cut into chunks, or into the single
        steps of a stream.
    batch_first : bool
        Whether the layer has x (B, T, I). Then `active` is (1, T, groups).

    Returns
    -------
    extra : dict
        `active (T, 1, groups)`, bool, says which groups move in which step, and `place (groups,)`
        numbers the groups.

    Raises
    ------
    TypeError
        A period, `steps` or `start` is no integer.
    ValueError
        The periods are none, below 1 or not increasing; or `steps` or `start` is below 0.
    """
    periods = _checked(periods)
    steps, start = checks.integer("steps", steps, 0), checks.integer("start", start, 0)
    t = np.arange(start, start + steps)[:, None, None]
    active = t % np.array(periods) == 0
    if batch_first:
        active = active.swapaxes(0, 1)
    return {"active": active, "place": np.arange(len(periods))}


def _checked(periods: Sequence[int]) -> list[int]:
    checked = [checks.integer(f"periods[{i}]", p, 1) for i, p in enumerate(periods)]
    increasing = all(a < b for a, b in pairwise(checked))
    if not 1 <= len(checked) <= MOST_GROUPS or not increasing:
        bounds = f"1 to {MOST_GROUPS} numbers, each above the one before"
        raise ValueError(f"periods is {checked}, expected {bounds}")
    return checked
