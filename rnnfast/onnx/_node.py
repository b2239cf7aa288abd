"""One node of an ONNX graph, read as a layer.

Letters as in `rnnfast.layers`; a node is one stacked layer, so its states are (D, B, H).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from onnx import helper

from .. import _check
from .._parameters import Array
from .._recurrent import GivenState
from ..layers import GRU, LSTM, RNN
from ._layers import NodeGRU, NodeLSTM, NodeRNN
from ._operators import GATES, nonlinearity, reorder

Layer = RNN | GRU | LSTM

_LAYERS: dict[str, Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
_NODE_LAYERS: dict[str, Any] = {"RNN": NodeRNN, "GRU": NodeGRU, "LSTM": NodeLSTM}
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_ATTRIBUTES: dict[str, tuple[Any, ...] | None] = {  # values that layers can have; None: see below
    "activations": None,
    "activation_alpha": None,
    "activation_beta": None,
    "direction": ("forward", "reverse", "bidirectional"),
    "hidden_size": None,
    "input_forget": (0,),
    "layout": (0, 1),
    "linear_before_reset": (0, 1),
}


def is_recurrent(node: Any) -> bool:
    """Whether a NodeProto is of one of the three operators."""
    return node.op_type in GATES and node.domain in ("", "ai.onnx")


def label(node: Any) -> str:
    """Return the node's name, or if it has none that of its first output."""
    return str(node.name or next(filter(None, node.output), ""))


class Node:
    """What a NodeProto of one of the three operators says, apart from the values of its inputs.

    Raises ValueError for what no layer can do.
    """

    def __init__(self, proto: Any) -> None:
        self.operator = proto.op_type
        self.label = f"{self.operator} node {label(proto)!r}"
        inputs = zip(_INPUTS, proto.input, strict=False)
        self.inputs = {role: name for role, name in inputs if name}
        given = {a.name: _text(helper.get_attribute_value(a)) for a in proto.attribute}
        self._check(given)
        direction = given.get("direction", "forward")
        self.reverse = direction == "reverse"
        self.directions = 2 if direction == "bidirectional" else 1
        self.layout = given.get("layout", 0)
        self.hidden_size = given.get("hidden_size")
        self.options: dict[str, Any] = {
            "bidirectional": self.directions == 2,
            "batch_first": self.layout == 1,
        }
        activation = nonlinearity(self.operator, given, self.directions)
        if activation is None:
            self._refuse({k: v for k, v in given.items() if k.startswith("activation")})
        if self.operator == "RNN":
            self.options["nonlinearity"] = activation
        if self.operator == "GRU":
            self.options["reset_after"] = given.get("linear_before_reset", 0) == 1

    def _check(self, attributes: Mapping[str, Any]) -> None:
        if "P" in self.inputs:
            self._refuse({"peepholes, input P": self.inputs["P"]})
        for name, value in attributes.items():
            allowed = _ATTRIBUTES.get(name, ())
            if allowed is not None and value not in allowed:
                self._refuse({name: value})

    def _refuse(self, named: Mapping[str, Any]) -> NoReturn:
        what = ", ".join(f"{name} = {value!r}" for name, value in named.items())
        raise ValueError(f"{self.label} has {what}, which no layer can express")

    # ----------------------------------------------------- with arrays, by their names in the graph

    def layer(self, values: Mapping[str, Array]) -> Layer:
        """Make the layer; states, unless zeros, and lengths among `values` become its own."""
        state, lengths = self.state(values), self.lengths(values)
        parts = state if isinstance(state, tuple) else (state,)
        if not any(part is not None and np.any(part) for part in parts):
            state = None
        plain = not self.reverse and state is None and lengths is None
        W, R, B = (self._weight(role, values) for role in "WRB")
        self._check_weights(W, R, B)
        kind = (_LAYERS if plain else _NODE_LAYERS)[self.operator]
        layer = kind(
            W.shape[2], R.shape[2], bias=B is not None, dtype=W.dtype, rng=0, **self.options
        )
        if not plain:
            layer._reverse, layer.initial_state, layer.lengths = self.reverse, state, lengths
        self._fill(layer.params, W, R, B)
        return layer  # type: ignore[no-any-return]

    def state(self, values: Mapping[str, Array]) -> GivenState:
        """Return the initial state as layers take it, of what is among `values`."""
        given = (values.get(self.inputs.get(role, "")) for role in ("initial_h", "initial_c"))
        h, c = (None if part is None else self.swap(part) for part in given)
        if self.operator != "LSTM":
            return h
        return None if h is None and c is None else (h, c)

    def lengths(self, values: Mapping[str, Array]) -> Array | None:
        """Return the lengths if they are among `values`."""
        return values.get(self.inputs.get("sequence_lens", ""))

    def swap(self, state: Array) -> Array:
        """Turn a state (D, B, H) into what the node has, or back: with layout 1 it is (B, D, H)."""
        return state.swapaxes(0, 1) if self.layout else state

    def _weight(self, role: str, values: Mapping[str, Array]) -> Any:
        name = self.inputs.get(role, "")
        if not name and role == "B":
            return None
        if name not in values:
            raise ValueError(
                f"{self.label} has input {role} = {name!r}, expected an initializer or a Constant"
            )
        return values[name]

    def _check_weights(self, W: Any, R: Any, B: Any) -> None:
        _check.floating(f"W of {self.label}", W, "(D, G*H, I)", 3)
        _check.floating(f"R of {self.label}", R, "(D, G*H, H)", 3)
        D, H, I = self.directions, R.shape[2], W.shape[2]
        if self.hidden_size not in (None, H):
            raise ValueError(
                f"R of {self.label} has shape {R.shape}, expected H = {self.hidden_size}"
            )
        rows = len(GATES[self.operator]) * H
        expected: dict[str, tuple[Any, str, tuple[int, ...]]] = {
            "W": (W, "(D, G*H, I)", (D, rows, I)),
            "R": (R, "(D, G*H, H)", (D, rows, H)),
            "B": (B, "(D, 2*G*H)", (D, 2 * rows)),
        }
        for role, (value, dims, shape) in expected.items():
            if value is not None:
                _check.exact(f"{role} of {self.label}", value, W.dtype, shape, dims)

    def _fill(self, params: dict[str, Array], W: Any, R: Any, B: Any) -> None:
        order = np.argsort(GATES[self.operator])
        for direction, suffix in enumerate(("_l0", "_l0_reverse")[: self.directions]):
            arrays = {"weight_ih": W[direction], "weight_hh": R[direction]}
            if B is not None:
                arrays["bias_ih"], arrays["bias_hh"] = np.split(B[direction], 2)
            for name, array in arrays.items():
                params[name + suffix][...] = reorder(array, order)


def _text(value: Any) -> Any:
    """Decode the bytes that ONNX has for text, alone or in a list."""
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
