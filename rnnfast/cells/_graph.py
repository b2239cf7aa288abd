"""The graph of a cell: what one time step computes, as values on the vectors of one row.

A `Value` is a leaf (x, a state, an extra input, a parameter vector, a constant), a `linear`, or an
operation on other values. A graph keeps one value for equal operations on equal arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Initial = float | Callable[[np.random.Generator, int], NDArray[Any]]  # of a vector of some size

LEAVES = "x", "state", "extra", "vector", "const", "given"
REDUCTIONS = "total", "largest", "inverse_deviation"  # one number for all units of a row
# Sizes to trace a cell with before any are known: primes that no one chooses.
SOME_I, SOME_H = 1_000_003, 1_000_033


@dataclass(eq=False, slots=True)
class Value:
    """One vector of `size` numbers per row, or the same in all rows.

    `name` is that of a state, an extra input or a parameter; `number` that of a constant. A value
    of the kind "given" stands for what backward gets from outside: `name` says what.
    """

    kind: str
    args: tuple[Value, ...]
    size: int
    name: str = ""
    number: float = 0.0


@dataclass(slots=True)
class Linear:
    """The parameters of one `linear`: a weight for each source, and a bias."""

    name: str
    size: int
    sources: dict[str, Value]
    bias: bool


@dataclass(slots=True)
class Vector:
    """A parameter that is one vector."""

    name: str
    size: int
    init: Initial


@dataclass
class Graph:
    """All values of a cell with known sizes.

    Attributes
    ----------
    states : dict of str to Value
        The states before the step, by name, in order.
    new : dict of str to Value
        The states after it.
    output : Value
        What becomes y.
    linears, vectors : dict of str to Linear and Vector
        The parameters, in the order of their first use.
    masks : set of str
        The extra inputs that have no gradient.
    """

    x: Value
    states: dict[str, Value]
    extra: dict[str, Value]
    linears: dict[str, Linear] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    new: dict[str, Value] = field(default_factory=dict)
    output: Value = field(init=False)
    bias: bool = True
    masks: frozenset[str] = frozenset()
    plans: dict[tuple[int, bool], object] = field(default_factory=dict, repr=False)
    _known: dict[tuple[object, ...], Value] = field(default_factory=dict, repr=False)

    def constant(self, number: float) -> Value:
        return self._value("const", (), 1, number=float(number))

    def leaf(self, kind: str, name: str, size: int) -> Value:
        return self._value(kind, (), size, name)

    def linear(self, parameters: Linear) -> Value:
        sources = tuple(parameters.sources.values())
        return self._value("linear", sources, parameters.size, parameters.name)

    def apply(self, kind: str, *args: Value) -> Value:
        """Return the value of an operation, the one that is there already if it is known."""
        if all(a.kind == "const" for a in args) and kind in _ON_NUMBERS:
            return self.constant(_ON_NUMBERS[kind](*(a.number for a in args)))
        simple = self._simpler(kind, args)
        return simple if simple is not None else self._value(kind, args, result_size(kind, args))

    def spread(self, value: Value, size: int) -> Value:
        """Return a value of size 1 with that many equal units; another one as it is."""
        return value if value.size == size else self._value("spread", (value,), size)

    def _simpler(self, kind: str, args: tuple[Value, ...]) -> Value | None:
        """What needs no operation, or one less: x * 1, x + 0, x + (-y), a total over one unit."""
        if kind == "mul":
            for one, other in (args, args[::-1]):
                if one.kind == "const" and one.number == 1:
                    return other
        if kind in ("add", "sub") and args[1].kind == "const" and args[1].number == 0:
            return args[0]
        if kind in ("total", "largest") and args[0].size == 1:
            return args[0]
        if kind == "add" and args[1].kind == "neg":
            return self.apply("sub", args[0], *args[1].args)
        return None

    def _value(
        self, kind: str, args: tuple[Value, ...], size: int, name: str = "", number: float = 0.0
    ) -> Value:
        # A number by its text: 0.0 and -0.0 are not one, and NaN is itself.
        key = (kind, *(id(a) for a in args), size, name, repr(number))
        if key not in self._known:
            self._known[key] = Value(kind, args, size, name, number)
        return self._known[key]

    def is_constant(self, leaf: Value) -> bool:
        """Whether a leaf has no gradient."""
        return leaf.kind == "const" or (leaf.kind == "extra" and leaf.name in self.masks)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every parameter."""
        shapes: dict[str, tuple[int, ...]] = {}
        for linear in self.linears.values():
            for source, value in linear.sources.items():
                shapes[weight_name(linear.name, source)] = (linear.size, value.size)
            if linear.bias:
                shapes[bias_name(linear.name)] = (linear.size,)
        return shapes | {v.name: (v.size,) for v in self.vectors.values()}


def weight_name(linear: str, source: str) -> str:
    return f"{linear}.weight_{source}"


def bias_name(linear: str) -> str:
    return f"{linear}.bias"


def result_size(kind: str, args: tuple[Value, ...]) -> int:
    """Return the size of an operation's result; 0 if the arguments do not fit each other."""
    sizes = [a.size for a in args]
    if kind in REDUCTIONS:
        return 1
    if kind == "outer":
        return sizes[0] * sizes[1]
    if kind in ("outer_left", "outer_right"):  # of the product and the other factor
        return sizes[0] // sizes[1]
    widest = max(sizes)
    return widest if all(size in (1, widest) for size in sizes) else 0


def in_order(roots: list[Value]) -> Iterator[Value]:
    """All values that the roots need, each after its arguments."""
    done: set[int] = set()
    for root in roots:
        stack = [(root, iter(root.args))]
        while stack:
            value, rest = stack[-1]
            if id(value) in done:
                stack.pop()
                continue
            argument = next((a for a in rest if id(a) not in done), None)
            if argument is None:
                stack.pop()
                done.add(id(value))
                yield value
            else:
                stack.append((argument, iter(argument.args)))


_ON_NUMBERS: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b if b else math.nan,
    "neg": lambda a: -a,
}
