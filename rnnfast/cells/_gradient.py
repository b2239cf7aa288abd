"""The gradient of a graph, as values of the same graph: reverse mode, one rule per operation.

What backward gets from outside are values of the kind "given", by their names:

    dy            the gradient of the output
    next:NAME     that of the new state NAME, from later steps
    back:S:N      a product with the weights of stage S, for the N-th source of its linears
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ._graph import Graph, Value, in_order


@dataclass
class Gradient:
    """The values that backward computes in one step, each by the name of what it belongs to.

    Attributes
    ----------
    dz : dict of str to Value
        The gradient of each linear's result.
    back : dict of str to (int, Value)
        Of each product with the weights of a stage, which stage, and the source.
    x : Value or None
        The gradient of x where it is used element by element; that by way of linears comes later,
        for all steps at once.
    """

    states: dict[str, Value] = field(default_factory=dict)
    extra: dict[str, Value] = field(default_factory=dict)
    vectors: dict[str, Value] = field(default_factory=dict)
    dz: dict[str, Value] = field(default_factory=dict)
    back: dict[str, tuple[int, Value]] = field(default_factory=dict)
    x: Value | None = None

    def values(self) -> list[Value]:
        """All that is to be computed."""
        parts = self.dz, self.states, self.extra, self.vectors
        return [v for part in parts for v in part.values()] + ([self.x] if self.x else [])


def order_of(graph: Graph) -> list[Value]:
    """All values of a step forward, each after its arguments."""
    return list(in_order([*graph.new.values(), graph.output]))


def stages_of(order: list[Value]) -> dict[int, int]:
    """The stage of every value, by its id: how many linears one after the other it needs."""
    stage: dict[int, int] = {}
    for value in order:
        before = max((stage[id(a)] for a in value.args), default=0)
        stage[id(value)] = before + (value.kind == "linear")
    return stage


def gradient(graph: Graph) -> Gradient:
    """Derive the gradient of one step."""
    order = order_of(graph)
    stage = stages_of(order)
    result = Gradient()
    parts: dict[int, list[Value]] = {}
    for name, value in graph.new.items():
        _add(parts, value, graph.leaf("given", f"next:{name}", value.size))
    _add(parts, graph.output, graph.leaf("given", "dy", graph.output.size))
    for value in reversed(order):  # each after all that it is an argument of
        total = _sum(graph, parts.get(id(value), []))
        if value.kind == "linear":
            result.dz[value.name] = graph.spread(total or graph.constant(0), value.size)
            _pass_back(graph, value, stage[id(value)], result, parts)
        elif total is None:
            continue
        elif value.kind in RULES:
            derived = RULES[value.kind](graph, value, total)
            for argument, part in zip(value.args, derived, strict=True):
                if part is not None and not graph.is_constant(argument):
                    one = argument.size == 1 and part.size > 1  # it was broadcast
                    _add(parts, argument, graph.apply("total", part) if one else part)
        elif not graph.is_constant(value):
            _take_leaf(graph, value, total, result)
    for name, state in graph.states.items():
        if name not in result.states:
            result.states[name] = graph.spread(graph.constant(0), state.size)
    return result


def _add(parts: dict[int, list[Value]], value: Value, part: Value) -> None:
    parts.setdefault(id(value), []).append(part)


def _sum(graph: Graph, parts: list[Value]) -> Value | None:
    total: Value | None = None
    for part in parts:
        total = part if total is None else graph.apply("add", total, part)
    return total


def _pass_back(
    graph: Graph, linear: Value, stage: int, result: Gradient, parts: dict[int, list[Value]]
) -> None:
    """The products that the stage of a linear makes for its sources, one for all of its linears."""
    known = {id(source): name for name, (of, source) in result.back.items() if of == stage}
    for source in graph.linears[linear.name].sources.values():
        if source.kind != "x" and not graph.is_constant(source) and id(source) not in known:
            name = f"back:{stage}:{len(known)}"
            known[id(source)] = name
            result.back[name] = stage, source
            _add(parts, source, graph.leaf("given", name, source.size))


def _take_leaf(graph: Graph, leaf: Value, total: Value, result: Gradient) -> None:
    total = graph.spread(total, leaf.size)
    if leaf.kind == "x":
        result.x = total
    else:
        places = {"state": result.states, "extra": result.extra, "vector": result.vectors}
        places[leaf.kind][leaf.name] = total


# ---------------------------------------------------------------------------------------- rules
# Each returns the gradients of the arguments of v, given that of v; None where there is none.

Rule = Callable[[Graph, Value, Value], tuple[Value | None, ...]]


def _add_rule(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return d, d


def _sub(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return d, None if v.args[1].kind == "const" else g.apply("neg", d)


def _mul(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    a, b = v.args
    da = None if a.kind == "const" else g.apply("mul", d, b)
    return da, None if b.kind == "const" else g.apply("mul", d, a)


def _div(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    a, b = v.args
    da = g.apply("div", d, b)
    db = None if b.kind == "const" else g.apply("neg", g.apply("mul", da, v))
    return None if a.kind == "const" else da, db


def _neg(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("neg", d),)


def _sigmoid(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("mul", d, g.apply("sub", v, g.apply("mul", v, v))),)


def _tanh(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("sub", d, g.apply("mul", d, g.apply("mul", v, v))),)


def _relu(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    zero = g.constant(0)
    return (g.apply("where", g.apply("less", zero, v), d, zero),)


def _exp(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("mul", d, v),)


def _log(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("div", d, v.args[0]),)


def _sqrt(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("div", g.apply("mul", d, g.constant(0.5)), v),)


def _softplus(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (g.apply("mul", d, g.apply("sigmoid", v.args[0])),)


def _abs(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    zero, a = g.constant(0), v.args[0]
    sign = g.apply("sub", g.apply("less", zero, a), g.apply("less", a, zero))
    return (g.apply("mul", d, sign),)


def _extremum(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    """Half of the gradient each at a tie: (a < b) + (a <= b) is 2, 1 or 0."""
    half = g.apply("mul", d, g.constant(0.5))
    shares: list[Value | None] = []
    for own, other in (v.args, v.args[::-1]):
        pair = (own, other) if v.kind == "minimum" else (other, own)
        count = g.apply("add", g.apply("less", *pair), g.apply("less_equal", *pair))
        shares.append(None if own.kind == "const" else g.apply("mul", half, count))
    return tuple(shares)


def _where(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    condition, a, b = v.args
    zero = g.constant(0)
    return (
        None,
        None if a.kind == "const" else g.apply("where", condition, d, zero),
        None if b.kind == "const" else g.apply("where", condition, zero, d),
    )


def _outer(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    a, b = v.args
    d = g.spread(d, v.size)
    return g.apply("outer_left", d, b), g.apply("outer_right", d, a)


def _total(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (d,)  # of size 1: it is broadcast where it is used


def _normalized(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    """By way of the deviation too, so that one has no gradient of its own."""
    return g.apply("normalized_back", g.spread(d, v.size), v, v.args[1]), None


def _nothing(g: Graph, v: Value, d: Value) -> tuple[Value | None, ...]:
    return (None,) * len(v.args)


RULES: dict[str, Rule] = {
    "add": _add_rule, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "sigmoid": _sigmoid,
    "tanh": _tanh, "relu": _relu, "exp": _exp, "log": _log, "sqrt": _sqrt, "softplus": _softplus,
    "abs": _abs, "minimum": _extremum, "maximum": _extremum, "where": _where, "outer": _outer,
    "total": _total, "normalized": _normalized, "largest": _nothing, "less": _nothing,
    "less_equal": _nothing, "equal": _nothing, "not_equal": _nothing,
}  # fmt: skip
