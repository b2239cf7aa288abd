"""Tracing: a cell's function is called once with symbols, which record what it does."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import CodeType
from typing import Any, NoReturn

from ._graph import Graph, Initial, Linear, Value, Vector, bias_name, result_size, weight_name

FUNCTIONS = (
    "abs", "clip", "exp", "linear", "log", "maximum", "mean", "minimum", "normalize", "outer",
    "relu", "sigmoid", "softmax", "softplus", "sqrt", "tanh", "total", "vector", "where",
)  # fmt: skip


class TraceError(TypeError):
    """A cell's function does what cannot be traced. The message names the line and the remedy."""


@dataclass
class Tracing:
    """The one call of a cell's function."""

    function: Callable[..., Any]
    graph: Graph
    hidden_size: int


class _UnderWay(threading.local):
    """The tracings of this thread; a cell may call another one."""

    def __init__(self) -> None:
        self.tracings: list[Tracing] = []


_under_way = _UnderWay()


def refuse(message: str) -> NoReturn:
    """Raise a TraceError that names the line of the cell's function."""
    raise TraceError(f"{_place()}{message}")


def _place() -> str:
    if not _under_way.tracings:
        return ""
    code: CodeType = _under_way.tracings[-1].function.__code__
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    line = code.co_firstlineno if frame is None else frame.f_lineno
    return f"cell {code.co_name} ({code.co_filename}, line {line}): "


def current() -> Tracing:
    if not _under_way.tracings:
        raise TraceError(
            "this function describes a cell: call it inside a function that is decorated with "
            "rnnfast.cells.cell"
        )
    return _under_way.tracings[-1]


class Expression:
    """A symbol for a vector of one row. It can be calculated with, and has no values.

    Operators are ``+ - * /``, unary minus and comparisons, with other expressions and with numbers.
    """

    __slots__ = ("value",)
    __hash__ = object.__hash__

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return self.value.size

    def __repr__(self) -> str:
        return f"<expression of size {self.size}>"

    def __add__(self, other: Operand) -> Expression:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Expression:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Expression:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Expression:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Expression:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Expression:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Expression:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expression:
        return apply("div", other, self)

    def __neg__(self) -> Expression:
        return apply("neg", self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return apply("abs", self)

    def __lt__(self, other: Operand) -> Expression:
        return apply("less", self, other)

    def __le__(self, other: Operand) -> Expression:
        return apply("less_equal", self, other)

    def __gt__(self, other: Operand) -> Expression:
        return apply("less", other, self)

    def __ge__(self, other: Operand) -> Expression:
        return apply("less_equal", other, self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return apply("equal", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return apply("not_equal", self, other)

    # What cannot be traced.

    def __bool__(self) -> NoReturn:
        refuse(
            "the truth of an expression is asked for (if, and, or, while), but it has no value "
            "while it is traced; use where(condition, a, b)"
        )

    def __float__(self) -> NoReturn:
        refuse(
            "a number is made of an expression, as the functions of math do; use those of "
            f"rnnfast.cells: {', '.join(FUNCTIONS)}"
        )

    __int__ = __index__ = __complex__ = __float__

    def __pow__(self, other: object) -> NoReturn:
        refuse("powers cannot be traced; multiply (v * v), or use exp, log and sqrt")

    __rpow__ = __pow__

    def __matmul__(self, other: object) -> NoReturn:
        refuse('matrix products are linear("name", source), which brings its own weight')

    __rmatmul__ = __matmul__

    def __getitem__(self, index: object) -> NoReturn:
        refuse(
            "parts of an expression cannot be taken; give each part a state or linear of its own"
        )

    def __iter__(self) -> NoReturn:
        refuse("an expression cannot be iterated over, as for, max, min, sum and unpacking do")

    def __array__(self, *args: object, **options: object) -> NoReturn:
        refuse(
            "NumPy cannot calculate with an expression; use the functions of rnnfast.cells: "
            f"{', '.join(FUNCTIONS)}"
        )

    def __array_ufunc__(self, function: Any, method: str, *args: Any, **options: Any) -> Expression:
        operation = _ARITHMETIC.get(function.__name__)
        if operation and all(isinstance(a, Expression | Real) for a in args):
            return apply(operation, *args)  # a scalar of NumPy came first
        known = f"; use rnnfast.cells.{function.__name__}" if function.__name__ in FUNCTIONS else ""
        refuse(f"numpy.{function.__name__} cannot be traced{known}")


# What the operators of NumPy's scalars call.
_ARITHMETIC = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "less": "less",
    "less_equal": "less_equal",
    "equal": "equal",
    "not_equal": "not_equal",
}
Operand = Expression | float | int


def value_of(operand: Operand, what: str = "an operand") -> Value:
    if isinstance(operand, Expression):
        return operand.value
    if isinstance(operand, Real):
        return current().graph.constant(float(operand))
    kind = type(operand).__name__
    fix = "; a parameter is made by vector(name)" if hasattr(operand, "shape") else ""
    refuse(f"{what} has type {kind}, expected an expression or a number{fix}")


def apply(kind: str, *operands: Operand | object) -> Expression:
    args = tuple(value_of(operand) for operand in operands)  # type: ignore[arg-type]
    if not result_size(kind, args):
        sizes = " and ".join(str(a.size) for a in args)
        refuse(f"the sizes {sizes} do not fit each other; expected equal ones, or 1")
    return Expression(current().graph.apply(kind, *args))


# ---------------------------------------------------------------------------------- parameters


def linear(
    name: str,
    *sources: Expression,
    size: int | None = None,
    bias: bool = True,
    **named: Expression,
) -> Expression:
    """Return the sum of a weight times each source, plus a bias.

    Parameters
    ----------
    name : str
        Of its parameters: ``{name}.weight_{source}``, shape (size, size of the source), and
        ``{name}.bias``, shape (size,).
    *sources : expression
        x, states or extra inputs, which have names.
    size : int, optional
        Of the result; H by default.
    bias : bool
        Whether to add one.
    **named : expression
        Any further sources, by the names that their weights get.

    Returns
    -------
    expression
    """
    tracing = current()
    found: dict[str, Value] = {}
    for source in sources:
        value = value_of(source, f"a source of linear({name!r})")
        label = _label(tracing.graph, value)
        if not label:
            refuse(
                f"a source of linear({name!r}) is an expression without a name; give it by "
                f"keyword: linear({name!r}, ..., gated=r * h)"
            )
        found[label] = value
    for label, expression in named.items():
        if label in found:
            refuse(f"linear({name!r}) has two sources {label!r}; name the second one otherwise")
        found[label] = value_of(expression, f"the source {label!r} of linear({name!r})")
    if len({id(value) for value in found.values()}) < len(sources) + len(named):
        refuse(f"linear({name!r}) has one source twice; add it to itself, or leave it out")
    if not found:
        refuse(f"linear({name!r}) has no source; use vector({name!r}) for a bias alone")
    size = _size(f"linear({name!r})", size, tracing)
    made = Linear(name, size, found, bias and tracing.graph.bias)
    _claim(tracing.graph, [*(weight_name(name, s) for s in found), bias_name(name)], name)
    tracing.graph.linears[name] = made
    return Expression(tracing.graph.linear(made))


def vector(name: str, size: int | None = None, init: Initial = 0.0) -> Expression:
    """Return a parameter of shape (size,), H by default, that begins as `init`.

    `init` is a number, or a function ``init(rng, size)`` that returns numbers, drawn from a NumPy
    generator. A vector that is asked for twice with the same size and `init` is the same one.
    """
    tracing = current()
    size = _size(f"vector({name!r})", size, tracing)
    known = tracing.graph.vectors.get(name)
    if known is None:
        _claim(tracing.graph, [name], name)
        start = init if callable(init) else float(init)
        tracing.graph.vectors[name] = Vector(name, size, start)
    elif (known.size, known.init) != (size, init):
        refuse(
            f"vector({name!r}) has size {size} and init {init} here, and size {known.size} "
            f"and init {known.init} before; use two names"
        )
    return Expression(tracing.graph.leaf("vector", name, size))


def _label(graph: Graph, value: Value) -> str:
    """The name of a leaf that has one."""
    if value is graph.x:
        return "x"
    return value.name if value.kind in ("state", "extra") else ""


def _size(what: str, size: int | None, tracing: Tracing) -> int:
    if size is None:
        return tracing.hidden_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        refuse(f"{what} has size {size!r}, expected a whole number of at least 1")
    return size


def _claim(graph: Graph, names: Sequence[str], name: str) -> None:
    """Refuse a name that is no string, or that another parameter has."""
    if not isinstance(name, str) or not name:
        refuse(f"the name {name!r} is not a text; parameters are named by strings")
    taken = {*graph.vectors, *graph.linears}
    for linear_ in graph.linears.values():
        taken |= {weight_name(linear_.name, s) for s in linear_.sources} | {bias_name(linear_.name)}
    if name in taken or taken.intersection(names):
        refuse(f"the name {name!r} is used twice; every parameter has a name of its own")


# --------------------------------------------------------------------------------------- tracing


def trace(
    function: Callable[..., Any],
    states: Sequence[str],
    extra: Sequence[str],
    input_size: int,
    hidden_size: int,
    sizes: Mapping[str, int],
    bias: bool,
    masks: frozenset[str],
) -> Graph:
    """Call the function of a cell with symbols; return its graph."""
    x = Value("x", (), input_size, "x")
    leaves = {
        kind: {name: Value(kind, (), sizes.get(name, hidden_size), name) for name in names}
        for kind, names in (("state", states), ("extra", extra))
    }
    graph = Graph(x, leaves["state"], leaves["extra"], bias=bias, masks=masks)
    _under_way.tracings.append(Tracing(function, graph, hidden_size))
    try:
        symbols = [x, *leaves["state"].values(), *leaves["extra"].values()]
        result = function(*map(Expression, symbols))
        _take_result(graph, result)
    finally:
        _under_way.tracings.pop()
    return graph


def _take_result(graph: Graph, result: Any) -> None:
    """Sort what the function returned: the new states and the output."""
    names = list(graph.states)
    if not isinstance(result, dict):
        parts = result if isinstance(result, tuple | list) else (result,)
        if len(parts) != len(names):
            refuse(
                f"{len(parts)} values are returned, expected the {len(names)} new states "
                f"({', '.join(names)}) in order, or a dict that names them"
            )
        result = dict(zip(names, parts, strict=True))
    unknown = result.keys() - {*names, "y"}
    missing = [name for name in names if name not in result]
    if unknown or missing:
        refuse(
            f"the returned dict has the names {sorted(map(str, result))}, expected "
            f"{', '.join(names)} and perhaps y"
        )
    for name in names:
        value = value_of(result[name], f"the new state {name!r}")
        size = graph.states[name].size
        if value.size != size:
            refuse(f"the new state {name!r} has size {value.size}, and the old one {size}")
        graph.new[name] = value
    graph.output = value_of(result["y"], "y") if "y" in result else graph.new[names[0]]


def names_of_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of a function's positional arguments."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
