"""Nodes of an ONNX graph, read as a layer.

Letters as in `rnnfast.layers`; a node is one stacked layer, so its states are (D, B, H).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from onnx import helper

from .._core import checks
from .._generic import Recurrent
from .._parameters import Array
from .._recurrent import GivenState
from ..cells._onnx import check_clip
from ..layers import GRU, LSTM, RNN
from ._cells import Weights, cell_params, make_cells
from ._layers import NodeGRU, NodeLayer, NodeLSTM, NodeRecurrent, NodeRNN
from ._operators import GATES, describe, nonlinearity, read_directions, reorder

Layer = RNN | GRU | LSTM | Recurrent

_LAYERS: dict[str, Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
_NODE_LAYERS: dict[str, Any] = {"RNN": NodeRNN, "GRU": NodeGRU, "LSTM": NodeLSTM}
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_ATTRIBUTES: dict[str, tuple[Any, ...] | None] = {  # values that layers can have; None: see below
    "activations": None,
    "activation_alpha": None,
    "activation_beta": None,
    "clip": None,
    "direction": ("forward", "reverse", "bidirectional"),
    "hidden_size": None,
    "input_forget": (0, 1),
    "layout": (0, 1),
    "linear_before_reset": (0, 1),
}


class Node:
    """What a NodeProto of one of the three operators says, apart from the values of its inputs.

    Raises ValueError for what no layer can do.
    """

    def __init__(self, proto: Any) -> None:
        self.operator = proto.op_type
        self.label = describe(proto)
        inputs = zip(_INPUTS, proto.input, strict=False)
        self.inputs = {role: name for role, name in inputs if name}
        given = {a.name: _text(helper.get_attribute_value(a)) for a in proto.attribute}
        self._check(given)
        direction = given.get("direction", "forward")
        self.reverse = direction == "reverse"
        self.directions = 2 if direction == "bidirectional" else 1
        self.layout = given.get("layout", 0)
        self.hidden_size = given.get("hidden_size")
        self.options: dict[str, Any] = {"bidirectional": self.directions == 2}
        try:
            self.activations = read_directions(self.operator, given, self.directions)
            check_clip(given.get("clip"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.label}: {error}") from error
        self._choose(given)

    def _choose(self, given: Mapping[str, Any]) -> None:
        """Choose between a built-in layer and a cell, and the options of either."""
        reset_after = given.get("linear_before_reset", 0) == 1
        activation = nonlinearity(self.operator, self.activations[0])
        self.cell_options: dict[str, Any] = {"clip": given.get("clip")}
        if self.operator == "LSTM":
            self.cell_options["input_forget"] = given.get("input_forget", 0) == 1
            self.cell_options["peepholes"] = "P" in self.inputs
        equal = self.activations[0] == self.activations[-1]
        self.built_in = activation is not None and equal and not any(self.cell_options.values())
        if self.operator == "GRU":
            self.cell_options["linear_before_reset"] = reset_after
        if self.built_in and self.operator == "RNN":
            self.options["nonlinearity"] = activation
        if self.built_in and self.operator == "GRU":
            self.options["reset_after"] = reset_after

    def _check(self, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            allowed = _ATTRIBUTES.get(name, ())
            if allowed is not None and value not in allowed:
                self._refuse({name: value})
        if self.operator != "LSTM":
            if "P" in self.inputs:
                self._refuse({"input P": self.inputs["P"]})
            if attributes.get("input_forget"):
                self._refuse({"input_forget": attributes["input_forget"]})

    def _refuse(self, named: Mapping[str, Any]) -> NoReturn:
        what = ", ".join(f"{name} = {value!r}" for name, value in named.items())
        raise ValueError(f"{self.label} has {what}, which no layer can express")

    # ----------------------------------------------------- with arrays, by their names in the graph

    def state(self, values: Mapping[str, Array]) -> GivenState:
        """Return the initial state as layers take it, of what is among `values`."""
        h, c = (self._state(role, values) for role in ("initial_h", "initial_c"))
        if self.operator != "LSTM":
            return h
        return None if h is None and c is None else (h, c)

    def _state(self, role: str, values: Mapping[str, Array]) -> Array | None:
        part = values.get(self.inputs.get(role, ""))
        if part is None:
            return None
        dims = "(B, D, H)" if self.layout else "(D, B, H)"
        return self.swap(checks.floating(f"{role} of {self.label}", part, dims, 3))

    def lengths(self, values: Mapping[str, Array]) -> Array | None:
        """Return the lengths if they are among `values`."""
        return values.get(self.inputs.get("sequence_lens", ""))

    def swap(self, state: Array) -> Array:
        """Turn a state (D, B, H) into what the node has, or back: with layout 1 it is (B, D, H)."""
        return state.swapaxes(0, 1) if self.layout else state

    def weights(self, values: Mapping[str, Array]) -> Weights:
        """Return the parameters, checked."""
        for role in "WR":
            if role not in self.inputs:
                raise ValueError(f"{self.label} has input {role} = '', expected weights")
        given: Any = (values.get(self.inputs.get(role, "")) for role in Weights._fields)
        weights = Weights(*given)
        self._check_weights(*weights)
        return weights

    def _check_weights(self, W: Any, R: Any, B: Any, P: Any) -> None:
        checks.floating(f"W of {self.label}", W, "(D, G*H, I)", 3)
        checks.floating(f"R of {self.label}", R, "(D, G*H, H)", 3)
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
            "P": (P, "(D, 3*H)", (D, 3 * H)),
        }
        for role, (value, dims, shape) in expected.items():
            if value is not None:
                checks.exact(f"{role} of {self.label}", value, W.dtype, shape, dims)

    def fill(self, params: dict[str, Array], k: int, weights: Weights) -> None:
        """Write the node's weights into the parameters of stacked layer `k`."""
        for direction, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")[: self.directions]):
            if self.built_in:
                arrays = _built_in_params(self.operator, weights, direction)
            else:
                arrays = cell_params(self.operator, self.cell_options, weights, direction)
            for name, array in arrays.items():
                params[name + suffix][...] = array

    def layer(self, fixes: bool, I: int, H: int, L: int, options: dict[str, Any]) -> Layer:
        """Make a layer of such nodes, of a subclass if they fix more than parameters."""
        options = options | self.options
        if self.built_in:
            kind = (_NODE_LAYERS if fixes else _LAYERS)[self.operator]
            return kind(I, H, L, **options)  # type: ignore[no-any-return]
        cell, reverse_cell = make_cells(self.operator, self.activations, self.cell_options)
        if not fixes and reverse_cell is None:
            return Recurrent(cell, I, H, L, **options)
        layer = NodeRecurrent(cell, I, H, L, **options)
        layer.reverse_cell = reverse_cell
        return layer


def _built_in_params(operator: str, weights: Weights, direction: int) -> dict[str, Array]:
    order = np.argsort(GATES[operator])
    arrays = {"weight_ih": weights.W[direction], "weight_hh": weights.R[direction]}
    if weights.B is not None:
        arrays["bias_ih"], arrays["bias_hh"] = np.split(weights.B[direction], 2)
    return {name: reorder(array, order) for name, array in arrays.items()}


def build(
    nodes: Sequence[Node], values: Sequence[Mapping[str, Array]], batch_first: bool = False
) -> Layer:
    """Make a layer of nodes, the stacked layers, that are the same but for their weights.

    States, unless zeros, and lengths among each node's `values` become the layer's own. The layer
    is `batch_first` if that is asked for or the nodes are.
    """
    node = nodes[0]
    weights = [n.weights(v) for n, v in zip(nodes, values, strict=True)]
    W, R, B, _ = weights[0]
    state, lengths = _fixed(nodes, values, R)
    fixes = node.reverse or state is not None or lengths is not None
    options = {
        "bias": B is not None,
        "batch_first": batch_first or node.layout == 1,
        "dtype": W.dtype,
        "rng": 0,
    }
    layer = node.layer(fixes, W.shape[2], R.shape[2], len(nodes), options)
    if isinstance(layer, NodeLayer):
        layer._reverse, layer.initial_state, layer.lengths = node.reverse, state, lengths
    for k, arrays in enumerate(weights):
        nodes[k].fill(layer.params, k, arrays)
    return layer


def _fixed(
    nodes: Sequence[Node], values: Sequence[Mapping[str, Array]], R: Array
) -> tuple[GivenState, Array | None]:
    """Return the states (L*D, B, H) and the lengths (B,) that the nodes have as constants."""
    lengths = nodes[0].lengths(values[0])
    if lengths is not None and (lengths.ndim != 1 or lengths.dtype.kind not in "iu"):
        what = f"shape {lengths.shape} and dtype {lengths.dtype}"
        raise ValueError(f"sequence_lens of {nodes[0].label} has {what}, expected integers (B,)")
    states = [node.state(v) for node, v in zip(nodes, values, strict=True)]
    pairs = [state if isinstance(state, tuple) else (state, None) for state in states]
    parts = [part for pair in pairs for part in pair if part is not None and np.any(part)]
    if not parts:
        return None, lengths
    B = parts[0].shape[1] if lengths is None else len(lengths)
    shape = (len(R), B, R.shape[2])
    for node, pair in zip(nodes, pairs, strict=True):
        for role, part in zip(("initial_h", "initial_c"), pair, strict=True):
            if part is not None:
                checks.exact(f"{role} of {node.label}", part, R.dtype, shape, "(D, B, H)")
    h, c = (_joined(column, shape, R.dtype) for column in zip(*pairs, strict=True))
    return (h, c) if nodes[0].operator == "LSTM" else h, lengths


def _joined(parts: Sequence[Array | None], shape: tuple[int, ...], dtype: Any) -> Array | None:
    """Join one state of each node; None where it is absent is zeros, unless all are."""
    if all(part is None for part in parts):
        return None
    zeros = np.zeros(shape, dtype)
    return np.concatenate([zeros if part is None else part for part in parts])


def _text(value: Any) -> Any:
    """Decode the bytes that ONNX has for text, alone or in a list."""
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
