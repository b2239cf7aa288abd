"""From a layer to an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .._generic import Recurrent
from .._parameters import Array
from .._version import __version__
from ..layers import GRU, LSTM, RNN
from ._cells import Weights, node_attributes, node_weights, operator_of
from ._operators import GATES, activations, reorder

_OPSET = 14  # the oldest whose three operators are, but for bfloat16, those of today


def export(
    layer: RNN | GRU | LSTM | Recurrent,
    path: str | os.PathLike[str],
    *,
    state: bool = False,
    lengths: bool = False,
) -> None:
    """Write a layer as an ONNX model, which computes what ``layer(x)`` does: no dropout.

    The model has the input ``x`` (T, B, I), with any T and B. Its outputs are ``y`` (T, B, D*H),
    ``h_n`` (L*D, B, H) and, of the LSTM, ``c_n`` (L*D, B, H). With `batch_first` x is (B, T, I) and
    y (B, T, D*H). Each stacked layer is one node [1]_, named ``layer_0`` and so on; `load` makes
    the same layer of them.

    Parameters
    ----------
    layer : RNN, GRU, LSTM or Recurrent
        A Recurrent of one of the cells `onnx_rnn`, `onnx_gru` and `onnx_lstm` of `rnnfast.cells`.
    path : path
        The file to write.
    state : bool
        Whether the model takes initial states: inputs ``h0`` and, for the LSTM, ``c0``
        (L*D, B, H). Otherwise it starts from zeros, or from `layer.initial_state` if the layer was
        loaded from a node that has one.
    lengths : bool
        Whether the model takes the lengths of the rows: input ``lengths`` (B,) of int32.

    Raises
    ------
    TypeError
        `layer` is not one of these layers.
    ValueError
        It is a projected LSTM, which ONNX's has no input for; or a Recurrent of another cell, which
        has no operator; or its `params` do not fit it.
    OSError
        The file cannot be written.

    Notes
    -----
    ONNX Runtime (up to 1.31) needs T and B of at least 1, and has no kernels for float64: such a
    model is valid ONNX, which it refuses. Rows of length 0 are right in it.

    References
    ----------
    .. [1] https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html;
       opset 14.
    """
    if not isinstance(layer, RNN | GRU | LSTM | Recurrent):
        kind = type(layer).__name__
        raise TypeError(f"layer has type {kind}, expected RNN, GRU, LSTM or Recurrent")
    if isinstance(layer, Recurrent) and operator_of(layer) is None:
        raise ValueError(
            f"layer has the cell {layer.cell.name}, for which ONNX has no operator: expected one "
            "of rnnfast.cells.onnx_rnn, onnx_gru and onnx_lstm"
        )
    if layer.proj_size:
        raise ValueError(f"layer has proj_size={layer.proj_size}: ONNX's LSTM has no projection")
    layer._check_named("params", layer.params)
    model = helper.make_model_gen_version(
        _Graph(layer, state, lengths).proto(),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="rnnfast",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, os.fspath(path), format="protobuf")


class _Graph:
    """A layer's graph as it grows. Names of tensors: "" is an input that a node does without."""

    def __init__(self, layer: Any, state: bool, lengths: bool) -> None:
        self.layer = layer
        self.built_in = not isinstance(layer, Recurrent)
        self.operator = str(operator_of(layer))
        self.L, self.D, self.H = layer.num_layers, 1 + layer.bidirectional, layer.hidden_size
        self.letters = "hc" if self.operator == "LSTM" else "h"
        self.batch = ["B", "T"] if layer.batch_first else ["T", "B"]
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs = [self.real("x", *self.batch, layer.input_size)]
        self.starts = self.initial_states(state)
        self.lengths = self.row_lengths(lengths)
        # ONNX Runtime returns zeros as the last state of a row of length 0, not its initial state:
        # where those differ, the operators' state is not yet the result.
        self.ends = [
            f"{letter}_last" if self.lengths and start else f"{letter}_n"
            for letter, start in zip(self.letters, self.starts, strict=True)
        ]

    def proto(self) -> Any:
        """Add the nodes and return the GraphProto."""
        self.stacked_layers()
        self.last_states()
        outputs = [self.real("y", *self.batch, self.D * self.H)]
        outputs += [self.real(f"{s}_n", self.L * self.D, "B", self.H) for s in self.letters]
        return helper.make_graph(self.nodes, "rnnfast", self.inputs, outputs, self.constants)

    # ------------------------------------------------------------------------------------ inputs

    def initial_states(self, given: bool) -> list[str]:
        names = [f"{letter}0" for letter in self.letters]
        if given:
            self.inputs += [self.real(name, self.L * self.D, "B", self.H) for name in names]
            return names
        own = getattr(self.layer, "initial_state", None)
        parts = own if isinstance(own, tuple) else [own] * len(names)
        return ["" if p is None else self.constant(n, p) for n, p in zip(names, parts, strict=True)]

    def row_lengths(self, given: bool) -> str:
        if given:
            self.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]))
            return "lengths"
        own = getattr(self.layer, "lengths", None)
        return "" if own is None else self.constant("lengths", own.astype(np.int32))

    # ------------------------------------------------------------------------------------- nodes

    def stacked_layers(self) -> None:
        """Add the layers, from ``x`` to ``y``."""
        first = self.layer.batch_first
        x = self.node("Transpose", ["x"], ["x_by_step"], perm=[1, 0, 2]) if first else "x"
        for name in filter(None, self.starts if self.L > 1 else []):
            self.node("Split", [name], self.pieces(name), axis=0)
        shape = self.constant("y_shape", np.array([0, 0, self.D * self.H]))  # 0: as it is
        for k in range(self.L):
            last = k == self.L - 1
            starts = [name and self.pieces(name)[k] for name in self.starts]
            ends = [self.pieces(name)[k] for name in self.ends]
            W, R, B, P = self.weights(k)
            inputs = [x, W, R, B, self.lengths, *starts, *filter(None, [P])]
            outputs = [f"Y_{k}", *ends]
            self.node(self.operator, inputs, outputs, name=f"layer_{k}", **self.attributes())
            perm = [2, 0, 1, 3] if first and last else [0, 2, 1, 3]  # of T, D, B, H
            self.node("Transpose", [f"Y_{k}"], [f"Y_{k}_by_row"], perm=perm)
            x = self.node("Reshape", [f"Y_{k}_by_row", shape], ["y" if last else f"x_{k + 1}"])

    def last_states(self) -> None:
        """Add what makes ``h_n`` and ``c_n`` of each layer's last states."""
        if self.lengths and any(self.starts):
            zero, axes = self.constant("zero", np.int32(0)), self.constant("axes", np.array([1]))
            self.node("Equal", [self.lengths, zero], ["is_empty"])
            self.node("Unsqueeze", ["is_empty", axes], ["is_empty_row"])  # (B, 1)
        for letter, start, end in zip(self.letters, self.starts, self.ends, strict=True):
            if self.L > 1:
                self.node("Concat", self.pieces(end), [end], axis=0)
            if self.lengths and start:
                self.node("Where", ["is_empty_row", start, end], [f"{letter}_n"])

    def pieces(self, name: str) -> list[str]:
        """Name what belongs to each stacked layer in a state."""
        return [name] if self.L == 1 else [f"{name}_{k}" for k in range(self.L)]

    def weights(self, k: int) -> list[str]:
        """Add the weights W, R, B and P of stacked layer `k`."""
        if self.built_in:
            weights = self.built_in_weights(k)
        else:
            weights = node_weights(self.layer, self.operator, k)
        named = weights._asdict().items()
        return ["" if value is None else self.constant(f"{n}_{k}", value) for n, value in named]

    def built_in_weights(self, k: int) -> Weights:
        suffixes = (f"_l{k}", f"_l{k}_reverse")[: self.D]

        def stacked(*kinds: str) -> Array:
            order, params = GATES[self.operator], self.layer.params
            parts = [[reorder(params[kind + s], order) for kind in kinds] for s in suffixes]
            return np.stack([np.concatenate(part) for part in parts])

        B = stacked("bias_ih", "bias_hh") if self.layer.bias else None
        return Weights(stacked("weight_ih"), stacked("weight_hh"), B, None)

    def attributes(self) -> dict[str, Any]:
        direction = "reverse" if getattr(self.layer, "reverse", False) else "forward"
        named: dict[str, Any] = {
            "hidden_size": self.H,
            "direction": "bidirectional" if self.D == 2 else direction,
        }
        if not self.built_in:
            return named | node_attributes(self.layer)
        if self.operator == "GRU":
            named["linear_before_reset"] = int(self.layer.reset_after)
        nonlinearity = getattr(self.layer, "nonlinearity", "")
        return named | activations(self.operator, nonlinearity, self.D)

    # ------------------------------------------------------------------------------------- parts

    def real(self, name: str, *shape: int | str) -> Any:
        element = helper.np_dtype_to_tensor_dtype(self.layer.dtype)
        return helper.make_tensor_value_info(name, element, shape)

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **named: Any
    ) -> str:
        """Add a node and return the name of its first output."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, **named))
        return outputs[0]
