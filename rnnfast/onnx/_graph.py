"""The graphs of a model: the main one, the bodies of If, Loop and Scan, the functions it calls.

A name stands for what the innermost graph has under it; names of outer graphs are visible inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from onnx import AttributeProto, FunctionProto, NodeProto

from .._parameters import Array
from ._constants import evaluate, fold, needs
from ._operators import STANDARD, describe, first_output

Functions = Mapping[tuple[str, ...], Any]  # by what `_key` returns for their calls


class Item(NamedTuple):
    """A node, and the graph in which it stands."""

    scope: Scope
    node: Any


class Scope:
    """One graph: where its names come from, and what those of constants stand for.

    Parameters
    ----------
    body : GraphProto or FunctionProto
    opset : int
        The version of ONNX's operators.
    functions : mapping
        The model's functions.
    outer : Item, optional
        The node to which `body` belongs.
    part : str
        Which part of that node it is.
    """

    def __init__(
        self,
        body: Any,
        opset: int,
        functions: Functions,
        outer: Item | None = None,
        part: str = "",
    ) -> None:
        self.nodes = list(body.node)
        self.outer = outer
        self.outputs = {getattr(output, "name", output) for output in body.output}
        self.sources: dict[str, Any] = {}  # nodes, tensors, or what inputs are called in messages
        self._opset, self._functions = opset, functions
        self._aliases: dict[str, str] = {}  # names of a function's inputs where it is called
        self._values: dict[str, Array] = {}
        self.place, self.path = "", ""  # where it is, for messages and for `node`
        if outer is not None:
            place = f"{part} of {describe(outer.node)}"
            self.place = f"{place} in {outer.scope.place}" if outer.scope.place else place
            self.path = f"{outer.scope.path}{first_output(outer.node)}/{part}/"
        if isinstance(body, FunctionProto):
            self._aliases = dict(zip(body.input, outer.node.input, strict=False))  # type: ignore[union-attr]
        else:
            self._name_tensors(body)
        for node in self.nodes:
            self.sources |= dict.fromkeys(filter(None, node.output), node)

    def _name_tensors(self, graph: Any) -> None:
        inputs = {info.name: f"an input of {self.place or 'the model'}" for info in graph.input}
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        tensors |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        # An initializer is the default of the main graph's input of that name, so it counts there.
        # The inputs of a body come from its node, always.
        self.sources |= tensors | inputs if self.outer else inputs | tensors

    def is_input(self, name: str) -> bool:
        """Whether a name is an input, other than one with a default."""
        return isinstance(self.sources.get(name), str)

    # --------------------------------------------------------------------------------------- nodes

    def walk(self) -> Iterator[Item]:
        """Yield the nodes in their order, each before those inside it."""
        for node in self.nodes:
            item = Item(self, node)
            yield item
            for scope in self._inside(item):
                yield from scope.walk()

    def _inside(self, item: Item) -> Iterator[Scope]:
        for name, graph in _graphs(item.node):
            yield Scope(graph, self._opset, self._functions, item, name)
        key = _key(item.node, item.node.op_type)
        function = self._functions.get(key)
        if function is not None:
            others = {k: f for k, f in self._functions.items() if k != key}  # it cannot call itself
            called, opset = _called(function, item.node), _version(function)
            yield Scope(called, opset, others, item, f"function {function.name}")

    def users(self, name: str) -> list[Any]:
        """Return the nodes that use a name, also inside them."""
        return [node for node in self.nodes if name in _used(node)]

    def depends(self, name: str, on: set[str]) -> bool:
        """Whether what a name stands for is computed of one of `on`, other than of its shape."""
        names, seen = [name], set()
        while names:
            name = names.pop()
            source = self.sources.get(name)
            if name in on:
                return True
            if name not in seen and isinstance(source, NodeProto) and source.op_type != "Shape":
                names += _used(source)
            seen.add(name)
        return False

    # ----------------------------------------------------------------------------------- constants

    def constant(self, name: str) -> Array:
        """Return the value of a tensor.

        Raises
        ------
        NotConstant
            It is no constant.
        ValueError
            It is not valid.
        """
        found = self._locate(name)
        path = {found: None}  # each needs the one after it
        while path:
            scope, name = next(reversed(path))
            source = scope.sources[name]
            needed = [scope._locate(n) for n in needs(source)]
            missing = next((item for item in needed if item[1] not in item[0]._values), None)
            if missing in path:
                raise ValueError(f"{name!r} is computed of itself")
            if missing is not None:
                path[missing] = None
                continue
            inputs = [scope._value(n) for n in source.input] if needed else []
            scope._values |= fold(name, source, inputs, scope._opset)
            path.popitem()
        return found[0]._values[found[1]]

    def apply(self, node: Any, value: Array) -> Array:
        """Return the first output of a node for its first input; the others must be constants."""
        others = [self.constant(name) if name else None for name in node.input[1:]]
        return evaluate(node, [value, *others], self._opset)[0]

    def _value(self, name: str) -> Array | None:
        scope, name = self._locate(name) if name else (self, name)
        return scope._values.get(name)

    def _locate(self, name: str) -> tuple[Scope, str]:
        """Return the innermost graph that has a name, and its name there."""
        scope = self
        while name not in scope.sources:
            if scope.outer is None:
                raise ValueError(f"{name!r} is nowhere in the model")
            name, scope = scope._aliases.get(name, name), scope.outer.scope
        return scope, name


def main_graph(model: Any) -> Scope:
    """Return the scope of a model's main graph."""
    functions = {_key(function, function.name): function for function in model.functions}
    return Scope(model.graph, _version(model), functions)


def _key(proto: Any, name: str) -> tuple[str, ...]:
    """Return what a function and its calls share; overloads are younger than functions."""
    return proto.domain, name, getattr(proto, "overload", "")


def _version(proto: Any) -> int:
    """Return the version of ONNX's operators that a model or a function imports."""
    versions = [o.version for o in proto.opset_import if o.domain in STANDARD]
    return max(versions, default=1)


def _graphs(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and graphs of a node's bodies."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for k, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}[{k}]", graph


def _used(node: Any) -> list[str]:
    """Return the names that a node uses, also inside."""
    names = [name for name in node.input if name]
    for _, graph in _graphs(node):
        names += [output.name for output in graph.output]
        names += [name for inner in graph.node for name in _used(inner)]
    return names


def _called(function: Any, call: Any) -> Any:
    """Return a function with the attributes of a call, without the inputs that it leaves out."""
    bound = FunctionProto()
    bound.CopyFrom(function)
    attributes = {a.name: a for a in [*function.attribute_proto, *call.attribute]}
    given = zip_longest(function.input, call.input[: len(function.input)])
    _bind(bound.node, attributes, {name for name, actual in given if not actual})
    return bound


def _bind(nodes: Any, attributes: Mapping[str, Any], absent: set[str]) -> None:
    for node in nodes:
        node.input[:] = ["" if name in absent else name for name in node.input]
        for attribute in list(node.attribute):
            name, reference = attribute.name, attribute.ref_attr_name
            if reference in attributes:
                attribute.CopyFrom(attributes[reference])
                attribute.name = name
            elif reference:
                node.attribute.remove(attribute)
        for _, graph in _graphs(node):
            _bind(graph.node, attributes, absent)
