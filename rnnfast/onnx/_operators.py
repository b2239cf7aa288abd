"""ONNX's operators RNN, GRU and LSTM: their nodes, and how gates and activations differ from ours.

Source: the operators' specification, https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._parameters import Array
from ..cells._onnx import Activation, listed, read_activations

STANDARD = ("", "ai.onnx")  # the names of the domain of ONNX's own operators

# Which gate of this package stands at each place of ONNX's: z r h of r z n, i o f c of i f g o.
GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}

# The gates' names in the cells of `rnnfast.cells`, in the order of this package.
CELL_GATES = {"RNN": "a", "GRU": "rzn", "LSTM": "ifgo"}

_STANDARD = {
    "RNN": (Activation("Tanh"),),
    "GRU": (Activation("Sigmoid"), Activation("Tanh")),
    "LSTM": (Activation("Sigmoid"), Activation("Tanh"), Activation("Tanh")),
}
_NONLINEARITIES = {
    "tanh": Activation("Tanh"),
    "relu": Activation("Relu"),
    "sigmoid": Activation("Sigmoid"),
    "identity": Activation("Affine", (1.0, 0.0)),
}


def is_standard(node: Any) -> bool:
    """Whether a NodeProto's operator is one of ONNX's own."""
    return node.domain in STANDARD


def is_recurrent(node: Any) -> bool:
    """Whether a NodeProto is of one of the three operators."""
    return is_standard(node) and node.op_type in GATES


def first_output(node: Any) -> str:
    """Return the name of a node's first output."""
    return str(next(filter(None, node.output), ""))


def describe(node: Any) -> str:
    """Name a node in a message: by its name, or if it has none that of its first output."""
    domain = "" if is_standard(node) else f" of {node.domain}"
    return f"{node.op_type} node {node.name or first_output(node)!r}{domain}"


def reorder(a: Array, order: Any) -> Array:
    """Put the blocks of rows of `a`, one for each gate, in another order."""
    blocks: Array = a.reshape(len(order), -1)[order]
    return blocks.reshape(a.shape)


def activations(operator: str, nonlinearity: str, directions: int) -> dict[str, Any]:
    """Return the attributes that say which activations a built-in layer has."""
    single = [_NONLINEARITIES[nonlinearity]] if nonlinearity else [*_STANDARD[operator]]
    return attributes_of(single * directions)


def attributes_of(found: Sequence[Activation]) -> dict[str, Any]:
    """Return the attributes that say these activations, with all of their numbers."""
    names = {"alpha": "activation_alpha", "beta": "activation_beta"}
    named = {names.get(name, name): list(values) for name, values in listed(found).items()}
    return {name: values for name, values in named.items() if values}


def read_directions(
    operator: str, attributes: Mapping[str, Any], directions: int
) -> list[tuple[Activation, ...]]:
    """Return the activations of each direction that a node's attributes name.

    Raises ValueError for what there is not.
    """
    standard = _STANDARD[operator]
    names = attributes.get("activations", [a.name for a in standard] * directions)
    count = len(standard) * directions
    if operator == "RNN" and len(names) == 2:  # as its default has, whatever the direction
        names = names[:count]
    if len(names) != count:
        raise ValueError(f"activations has {len(names)} names, expected {count}")
    numbers = (attributes.get(f"activation_{which}", []) for which in ("alpha", "beta"))
    found = read_activations(names, *numbers)
    return [tuple(found[k : k + len(standard)]) for k in range(0, count, len(standard))]


def nonlinearity(operator: str, found: Sequence[Activation]) -> str | None:
    """Return the nonlinearity of the built-in layer with such activations; None if there is none.

    It is "" for the GRU and the LSTM, which have no choice.
    """
    if operator == "RNN":
        return next((n for n, a in _NONLINEARITIES.items() if [a] == [*found]), None)
    return "" if tuple(found) == _STANDARD[operator] else None
