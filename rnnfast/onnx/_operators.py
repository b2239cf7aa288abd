"""ONNX's operators RNN, GRU and LSTM: their nodes, and how gates and activations differ from ours.

Source: the operators' specification, https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM).
"""

from __future__ import annotations

from typing import Any

from .._parameters import Array

STANDARD = ("", "ai.onnx")  # the names of the domain of ONNX's own operators

# Which gate of this package stands at each place of ONNX's: z r h of r z n, i o f c of i f g o.
GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}

_NONLINEARITIES = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}
_FIXED = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


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
    """Return the attributes that say which activations a node has."""
    names = _FIXED.get(operator) or [_NONLINEARITIES[nonlinearity]]
    attributes: dict[str, Any] = {"activations": names * directions}
    if names == ["Affine"]:  # alpha x + beta
        attributes["activation_alpha"] = [1.0] * directions
        attributes["activation_beta"] = [0.0] * directions
    return attributes


def nonlinearity(operator: str, attributes: dict[str, Any], directions: int) -> str | None:
    """Return the nonlinearity with such attributes; None if there is none.

    The names of activations are the same in capital and small letters.
    """
    given = {"activation_beta": [0.0] * directions} | attributes
    names = given.get("activations")
    if isinstance(names, list):
        given["activations"] = [str(name).capitalize() for name in names]
    for name in _NONLINEARITIES:
        expected = activations(operator, name, directions)
        if all(given.get(key) == value for key, value in expected.items()):
            return name
    return None if "activations" in attributes else "tanh"
