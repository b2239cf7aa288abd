"""Functions that make cells of options, and cells that know what they were made of.

So a cell that a function made can be pickled, copied and found again for a file: by the function's
name and the arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec

from ._cell import Cell, Made, cell

P = ParamSpec("P")

_factories: set[Callable[..., Cell]] = set()


def factory(function: Callable[P, Cell]) -> Callable[P, Cell]:
    """Make a function return the same cell for the same arguments, which the cell then knows.

    It stands at the top level of its module. It takes numbers, strings, bools, None and tuples of
    them, and gets NumPy's numbers as Python's and lists as tuples. Each call of the function makes
    a cell of its own.
    """
    call: Callable[..., Cell] = function
    signature = inspect.signature(function)
    cells: dict[str, Cell] = {}

    @functools.wraps(function)
    def make(*args: P.args, **named: P.kwargs) -> Cell:
        bound = signature.bind(*args, **named)
        bound.apply_defaults()
        arguments = {name: _plain(name, value) for name, value in bound.arguments.items()}
        key = repr(arguments)  # tells 1, 1.0 and True apart
        if key not in cells:
            made = call(**arguments)
            made.made = Made(make, arguments)
            cells.setdefault(key, made)  # another thread may have been first
        return cells[key]

    _factories.add(make)
    return make


def is_factory(value: Any) -> bool:
    """Whether `factory` decorated it."""
    return callable(value) and value in _factories


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, tuple | list):
        return tuple(_plain(name, part) for part in value)
    kind = type(value).__name__
    raise TypeError(f"{name} has type {kind}, expected a number, str, bool, None or tuple of them")


def with_states(
    name: str,
    states: Sequence[str],
    step: Callable[..., Any],
    extra: Sequence[str] = (),
    sizes: Mapping[str, int | str] | None = None,
) -> Cell:
    """Make a cell of a function that takes any number of states: `cell` reads their names."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    arguments = [inspect.Parameter(n, kind) for n in ("x", *states, *extra)]
    vars(step)["__signature__"] = inspect.Signature(arguments)
    step.__name__ = name
    return cell(state=" ".join(states), extra=" ".join(extra), sizes=sizes)(step)
