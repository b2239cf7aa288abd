"""Where ONNX's operators RNN, GRU and LSTM differ from this package: gates and activations.

Source: the operators' specification, https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM).
"""

from __future__ import annotations

from typing import Any

from .._parameters import Array

# Which gate of this package stands at each place of ONNX's: z r h of r z n, i o f c of i f g o.
GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}

_NONLINEARITIES = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}
_FIXED = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


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
    """Return the nonlinearity with such attributes; None if there is none."""
    given = {"activation_beta": [0.0] * directions} | attributes
    for name in _NONLINEARITIES:
        expected = activations(operator, name, directions)
        if all(given.get(key) == value for key, value in expected.items()):
            return name
    return None if "activations" in given else "tanh"
