"""A cell: its function, and the graphs that were traced of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._core import checks
from . import _describe
from ._graph import SOME_H, SOME_I, Graph
from ._mask import Mask
from ._trace import TraceError, names_of_arguments, trace

Sizes = tuple[tuple[str, int], ...]


class Made(NamedTuple):
    """The function that made a cell, decorated with `factory`, and what of."""

    factory: Callable[..., Cell]
    arguments: dict[str, Any]


class Cell:
    """A recurrent cell, described by a function that `cell` decorated.

    Called inside another cell's function, it does there what its own function does.

    Attributes
    ----------
    name : str
    states : tuple of str
        The names of the states, in order. The first one is the output unless the function returns
        another one.
    extra : tuple of str
        The names of the extra inputs.
    sizes : dict of str to int or "x"
        The sizes of states and extra inputs that differ from the hidden size.
    masks : dict of str to Mask
        The extra inputs that a layer draws.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        states: tuple[str, ...],
        extra: tuple[str, ...],
        sizes: Mapping[str, int | str],
        masks: Mapping[str, Mask],
    ) -> None:
        self._function = function
        self.name = function.__name__
        self.states, self.extra, self.sizes = states, extra, dict(sizes)
        self.masks = dict(masks)
        self.made: Made | None = None
        self.__doc__ = function.__doc__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        self._graphs: dict[tuple[int, int, Sizes, bool], Graph] = {}
        self._check_arguments()
        self._check_masks()
        self.example()

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._function(*args, **named)

    def __repr__(self) -> str:
        return f"<cell {self.name}({', '.join(['x', *self.states, *self.extra])})>"

    def __str__(self) -> str:
        return _describe.text(self)

    def __reduce__(self) -> Any:
        if self.made:
            return _make_again, self.made
        return self.__qualname__  # as functions are pickled: by name

    def graph(
        self,
        input_size: int,
        hidden_size: int,
        sizes: Mapping[str, int | str] | None = None,
        bias: bool = True,
    ) -> Graph:
        """Trace the function with these sizes, or return the graph of an earlier time.

        Raises
        ------
        TraceError
            The function does what cannot be traced, or the sizes do not fit it.
        TypeError, ValueError
            `sizes` has a name that is neither a state nor an extra input, or what is no size.
        """
        all_sizes: dict[str, int] = {}
        for name, size in (self.sizes | dict(sizes or {})).items():
            if name not in (*self.states, *self.extra):
                known = ", ".join([*self.states, *self.extra])
                raise ValueError(f"sizes has the unexpected name {name!r}, expected one of {known}")
            own = input_size if size == "x" else size
            all_sizes[name] = checks.integer(f"sizes[{name!r}]", own, 1)
        key = input_size, hidden_size, tuple(sorted(all_sizes.items())), bias
        if key not in self._graphs:
            self._graphs[key] = trace(
                self._function, self.states, self.extra, input_size, hidden_size, all_sizes, bias,
                frozenset(self.masks),
            )  # fmt: skip
        return self._graphs[key]

    def example(self) -> Graph:
        """Return the graph with sizes that stand for I and H; for H alone if they must be equal."""
        try:
            return self.graph(SOME_I, SOME_H)
        except TraceError:
            return self.graph(SOME_H, SOME_H)

    def _check_arguments(self) -> None:
        expected = ["x", *self.states, *self.extra]
        found = names_of_arguments(self._function)
        if found != expected:
            raise TraceError(
                f"cell {self.name}: the function has the arguments ({', '.join(found)}), expected "
                f"({', '.join(expected)}): x, the states and the extra inputs, in this order"
            )
        if len(set(expected)) < len(expected):
            raise TraceError(f"cell {self.name}: a name is used twice in ({', '.join(expected)})")

    def _check_masks(self) -> None:
        for name, mask in self.masks.items():
            if name not in self.extra:
                known = ", ".join(self.extra) or "none"
                raise ValueError(
                    f"masks has the unexpected name {name!r}, expected an extra input: {known}"
                )
            if not isinstance(mask, Mask):
                kind = type(mask).__name__
                raise TypeError(f"masks[{name!r}] has type {kind}, expected rnnfast.cells.Mask")


def _make_again(factory: Callable[..., Cell], arguments: dict[str, Any]) -> Cell:
    return factory(**arguments)


def cell(
    *,
    state: str,
    extra: str = "",
    sizes: Mapping[str, int | str] | None = None,
    masks: Mapping[str, Mask] | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Make a recurrent cell of a function that describes one time step.

    The function is called once for every choice of sizes, with symbols for its arguments. What it
    does with them is recorded, and later computed without Python.

    Parameters
    ----------
    state : str
        The names of the states, separated by spaces: the arguments of the function after x.
    extra : str
        The names of further inputs, the arguments after the states.
    sizes : dict of str to int or "x", optional
        The sizes of states and extra inputs that are not the hidden size. "x": that of the input.
    masks : dict of str to Mask, optional
        The extra inputs that a layer draws while it trains, and how.

    Returns
    -------
    decorator
        It turns the function into a `Cell`. The function returns the new states in order, or a dict
        of them by their names. The first state is the output, unless the dict has another one, "y".

    Raises
    ------
    TraceError
        The function cannot be traced; the message names the line and the remedy.
    TypeError, ValueError
        An entry of `sizes` or `masks` does not fit.

    Examples
    --------
    >>> from rnnfast.cells import cell, linear, sigmoid, tanh
    >>> @cell(state="h")
    ... def mgu(x, h):
    ...     f = sigmoid(linear("f", x, h))
    ...     n = tanh(linear("n", x, gated=f * h))
    ...     return (1 - f) * h + f * n
    >>> mgu
    <cell mgu(x, h)>
    """

    def decorate(function: Callable[..., Any]) -> Cell:
        names = tuple(state.split())
        if not names:
            raise TraceError(f"cell {function.__name__}: state is empty, expected a name like 'h'")
        return Cell(function, names, tuple(extra.split()), sizes or {}, masks or {})

    return decorate
