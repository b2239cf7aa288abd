"""Nodes in a chain, each fed by the one before: the stacked layers of one layer.

What stands between two nodes is tried on numbers: it must make (T, B, D*H) of (T, D, B, H).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto

from .._parameters import Array
from ._graph import Item, Scope
from ._node import Node
from ._operators import is_standard

_PASSING = ("Dropout", "Identity", "Reshape", "Squeeze", "Transpose")  # keep the values they get
_T, _B = 5, 7  # of the trials; neither is a likely constant of a Reshape


class Part(NamedTuple):
    """A recurrent node as `rnnfast` reads it, with the constants among its inputs by name."""

    item: Item
    node: Node
    values: Mapping[str, Array]


def in_order(items: Sequence[Item]) -> list[Item] | None:
    """Return nodes in the order in which each feeds the next, or None if they are no chain."""
    following: dict[int, int] = {}  # by the place in `items` of a node, that of one it feeds
    for k, item in enumerate(items):
        name, _ = _origin(item)
        for j, other in enumerate(items):
            if name and other.scope is item.scope and name in other.node.output[:1]:
                following[j] = k
    order = [k for k in range(len(items)) if k not in following.values()][:1]
    while order and order[-1] in following and len(order) < len(items):
        order.append(following[order[-1]])
    return [items[k] for k in order] if len(order) == len(items) else None


def are_stacked(parts: Sequence[Part]) -> bool:
    """Whether nodes in such an order compute what one layer does."""
    forms = [_form(part) for part in parts]
    lengths = [part.node.lengths(part.values) for part in parts]
    # A state of a later node that an earlier one made is not the caller's to pass.
    results = {name for part in parts for name in part.item.node.output if name}
    made = (
        part.item.scope.depends(name, results) for part in parts for name in _given(part).values()
    )
    return (
        all(form == forms[0] for form in forms)
        and all(_equal(value, lengths[0]) for value in lengths)
        and not any(made)
        and all(map(_feeds, parts, parts[1:]))
    )


def is_batch_first(parts: Sequence[Part]) -> bool:
    """Whether the graph swaps the axes T and B of x before the nodes, and of y wherever it goes."""
    first, last = parts[0], parts[-1]
    scope, y = last.item.scope, _trial(last)
    swap = scope.sources.get(first.node.inputs.get("X", ""))
    x = _numbers(_B, _T, 1)
    if first.node.layout or not _passes(swap) or not _equal(_passed(scope, [swap], x), _swapped(x)):
        return False
    reached: list[tuple[str, Array | None]] = [("".join(last.item.node.output[:1]), y)]
    for name, value in reached:  # which grows
        if not name or _equal(value, _swapped(_as_input(last, y))):
            continue
        users = scope.users(name)
        if name in scope.outputs or len(reached) > len(scope.nodes):
            return False
        if not all(_passes(node) and node.input[0] == name for node in users):
            return False
        reached += [(node.output[0], _passed(scope, [node], value)) for node in users]
    return all(value is not None for _, value in reached)


def _form(part: Part) -> Any:
    """Return what stacked layers have in common."""
    node = part.node
    W, R, B, _ = node.weights(part.values)
    lengths = node.inputs.get("sequence_lens") if "sequence_lens" in _given(part) else None
    options = node.options | {"reverse": node.reverse, "bias": B is not None}
    computed = node.operator, node.activations, node.cell_options, node.layout, options
    return computed, R.shape, W.dtype, lengths, _given(part).keys()


def _given(part: Part) -> dict[str, str]:
    """Return, by role, the states and lengths that are not constants."""
    roles = ("initial_h", "initial_c", "sequence_lens")
    named = {role: part.node.inputs[role] for role in roles if role in part.node.inputs}
    return {role: name for role, name in named.items() if name not in part.values}


# --------------------------------------------------------------------------------------- between


def _passes(source: Any) -> bool:
    known = isinstance(source, NodeProto) and is_standard(source) and source.op_type in _PASSING
    return known and len(source.input) > 0 and len(source.output) > 0


def _origin(item: Item) -> tuple[str, list[Any]]:
    """Return the tensor that passing nodes make a node's X of, and these in order."""
    name, path = str(next(iter(item.node.input), "")), list[Any]()
    while len(path) < len(item.scope.nodes):  # more would be a circle
        source: Any = item.scope.sources.get(name)
        if not _passes(source) or name != source.output[0]:  # or it is the mask of a Dropout
            break
        path.insert(0, source)
        name = source.input[0]
    return name, path


def _feeds(one: Part, other: Part) -> bool:
    """Whether y of a node goes to another, as its x, and nowhere else."""
    W, y, scope = other.values[other.node.inputs["W"]], _trial(one), one.item.scope
    x = _as_input(one, y)
    name, path = _origin(other.item)
    nodes, names = [*path, other.item.node], [name, *(node.output[0] for node in path)]
    for node, name in zip(nodes, names, strict=True):
        elsewhere = [user for user in scope.users(name) if user is not node]
        if name in scope.outputs or any(user.op_type != "Shape" for user in elsewhere):
            return False
    return W.shape[2] == x.shape[2] and _equal(_passed(scope, path, y), x)


def _passed(scope: Scope, path: Sequence[Any], value: Array | None) -> Array | None:
    """Return what nodes make of a value, or None if that is not known."""
    try:
        for node in path:
            training = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
            if value is None or (training and scope.constant(training).any()):
                return None
            value = scope.apply(node, value)
    except ValueError:
        return None
    return value


def _trial(part: Part) -> Array:
    """Return numbers in the shape of a node's output Y."""
    D, H = part.node.directions, part.values[part.node.inputs["R"]].shape[2]
    return _numbers(_B, _T, D, H) if part.node.layout else _numbers(_T, D, _B, H)


def _as_input(part: Part, y: Array) -> Array:
    """Turn a node's output Y into the input of the next stacked layer."""
    y = y if part.node.layout else y.swapaxes(1, 2)
    return y.reshape(*y.shape[:2], -1)


def _numbers(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def _swapped(a: Array) -> Array:
    return a.swapaxes(0, 1)


def _equal(a: Array | None, b: Array | None) -> bool:
    return (a is None) == (b is None) and (a is None or np.array_equal(a, b))  # type: ignore[arg-type]
