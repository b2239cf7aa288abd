"""What `print(cell)` shows: the equations, the parameters, the stages, and the gradient."""

from __future__ import annotations

from typing import Any

from ._gradient import Gradient, gradient, order_of, stages_of
from ._graph import LEAVES, SOME_H, SOME_I, Graph, Value, in_order

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "less": "<", "less_equal": "<=", "equal": "==",
    "not_equal": "!=",
}  # fmt: skip
_PRECEDENCE = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3}


def text(cell: Any) -> str:
    """Describe a cell, with letters for the sizes that it leaves open."""
    graph = cell.example()
    parts = [
        f"cell {cell.name}({', '.join(['x', *cell.states, *cell.extra])})",
        _section("equations", _equations(graph)),
        _section("parameters", _parameters(graph)),
        _section("masks", [f"{name}  {mask}" for name, mask in cell.masks.items()]),
        _section("stages", _stages(graph)),
        _section("gradient", _gradient(graph)),
    ]
    return "\n\n".join(part for part in parts if part)


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


def size_text(size: int) -> str:
    """A size, or the letter that a size of the example stands for."""
    for number, letter in ((SOME_I, "I"), (SOME_H, "H")):
        if size % number == 0:
            return letter if size == number else f"{size // number}{letter}"
    return str(size)


def _number(number: float) -> str:
    """A constant; 1/H and the like where it stems from a size of the example."""
    if 0 < number < 1e-5 and size_text(round(1 / number)).isalpha():
        return f"1/{size_text(round(1 / number))}"
    return f"{number:g}"


class _Writer:
    """Writes values as equations. What is used more than once gets a name and a line."""

    def __init__(self, roots: list[Value], names: dict[int, str]) -> None:
        self.names = names
        uses: dict[int, int] = {}
        for value in in_order(roots):
            for argument in value.args:
                uses[id(argument)] = uses.get(id(argument), 0) + 1
        self.shared = {key for key, n in uses.items() if n > 1}
        self._count = 0
        self.lines: list[str] = []

    def define(self, name: str, value: Value) -> None:
        """Add the line of a named value."""
        right = self.expression(value, 0, new=name)
        if right != name:
            self.lines.append(f"{name} = {right}")
        self.names.setdefault(id(value), name)

    def expression(self, value: Value, outer: int, new: str = "") -> str:
        if id(value) in self.names:
            return self.names[id(value)]
        if value.kind == "const":
            return _number(value.number)
        if value.kind in LEAVES:
            return value.name
        written = self._operation(value)
        if id(value) in self.shared and not new:
            self._count += 1
            name = self.names[id(value)] = f"v{self._count}"
            self.lines.append(f"{name} = {written}")
            return name
        own = _PRECEDENCE.get(value.kind, 4 if value.kind not in _INFIX else 0)
        return f"({written})" if own < outer and not new else written

    def _operation(self, value: Value) -> str:
        kind, args = value.kind, value.args
        if kind in _INFIX:
            own = _PRECEDENCE.get(kind, 0)
            left = self.expression(args[0], own)
            right = self.expression(args[1], own + (kind in ("sub", "div")) + (own == 0))
            return f"{left} {_INFIX[kind]} {right}"
        if kind == "neg":
            return f"-{self.expression(args[0], 3)}"
        return f"{kind}({', '.join(self.expression(a, 0) for a in args)})"


def _result(graph: Graph, linear: str) -> str:
    """What the result of a linear is called: its name, unless a state or an input has it."""
    return f"linear {linear}" if linear in {"x", *graph.states, *graph.extra} else linear


def _writer(graph: Graph, roots: list[Value]) -> _Writer:
    return _Writer(
        roots, {id(v): v.name for v in [graph.x, *graph.states.values(), *graph.extra.values()]}
    )


def _equations(graph: Graph) -> list[str]:
    writer = _writer(graph, [*graph.new.values(), graph.output])
    for value in order_of(graph):
        if value.kind == "linear":
            linear = graph.linears[value.name]
            terms = [
                f"weight_{label} {writer.expression(source, 2)}"
                for label, source in linear.sources.items()
            ]
            terms += ["bias"] if linear.bias else []
            name = writer.names[id(value)] = _result(graph, value.name)
            writer.lines.append(f"{name} = {' + '.join(terms)}")
    for name, value in graph.new.items():
        writer.define(f"new {name}", value)
    writer.define("y", graph.output)
    return writer.lines


def _parameters(graph: Graph) -> list[str]:
    shapes = graph.shapes()
    width = max(map(len, shapes), default=0)
    lines = []
    for name, shape in shapes.items():
        sizes = ", ".join(map(size_text, shape))
        lines.append(f"{name:{width}}  ({sizes}{',' if len(shape) == 1 else ''})")
    return lines


def _stages(graph: Graph) -> list[str]:
    order = order_of(graph)
    stage = stages_of(order)
    found: dict[int, list[str]] = {}
    for value in order:
        if value.kind == "linear":
            found.setdefault(stage[id(value)], []).append(value.name)
    return [f"{number}  {', '.join(names)}" for number, names in sorted(found.items())]


def _gradient(graph: Graph) -> list[str]:
    derived: Gradient = gradient(graph)
    writer = _writer(graph, derived.values())
    for value in order_of(graph):
        if value.kind == "linear":
            writer.names[id(value)] = _result(graph, value.name)
    for name, value in graph.new.items():
        if value.kind not in LEAVES:
            writer.names.setdefault(id(value), f"new {name}")
        next_ = graph.leaf("given", f"next:{name}", value.size)
        writer.names[id(next_)] = f"dnew {name}"
    for name, (stage, source) in derived.back.items():
        label = source.name or "a source"
        given = graph.leaf("given", name, source.size)
        writer.names[id(given)] = f"back from stage {stage} to {label}"
    dz = {_result(graph, name): value for name, value in derived.dz.items()}
    groups = [dz, derived.vectors, derived.states, derived.extra]
    for group in groups:
        for name, value in group.items():
            writer.define(f"d{name}", value)
    if derived.x is not None:
        writer.define("dx beside the linears", derived.x)
    return writer.lines
