"""From an ONNX model to a layer."""

from __future__ import annotations

import os
from typing import Any

import onnx
from onnx import numpy_helper

from .._parameters import Array
from ._node import Layer, Node, is_recurrent, label


def load(model: str | os.PathLike[str] | bytes | onnx.ModelProto, node: str | None = None) -> Layer:
    """Make a layer of an RNN, GRU or LSTM node [1]_ of a model.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Operators in the model's functions and in subgraphs (Loop, If) are not looked at.
    node : str, optional
        The node's name, or if it has none that of its first output. Not needed where the model has
        one such node only. A model has one node for each stacked layer.

    Returns
    -------
    RNN, GRU or LSTM
        With one stacked layer; `bidirectional` if the node is, `batch_first` if it has
        ``layout=1``, with biases if it has the input B, and its dtype is W's. Where the node has
        ``direction="reverse"``, or constants for its initial states (other than zeros) or sequence
        lengths, it is a `NodeRNN`, `NodeGRU` or `NodeLSTM`: a subclass that keeps to them, with the
        attributes `reverse`, `initial_state` and `lengths`. Initial states and lengths that the
        graph computes or takes as inputs are the caller's to pass.

    Raises
    ------
    TypeError
        `model` is none of these, or the weights are neither float32 nor float64.
    ValueError
        There is no such node, or more than one; it has what no layer can express: peepholes (input
        P), `clip`, `input_forget`, other activations than the layers'; or W, R or B is not an
        initializer or the output of a Constant. The message names the node, and the attribute or
        input.
    OSError
        The file cannot be read.
    google.protobuf.message.DecodeError
        It, or `model`, holds something else.

    References
    ----------
    .. [1] https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html.
    """
    graph = _read(model).graph
    proto = _select(graph, node)
    tensors = constants(graph)
    values = {name: to_array(tensors[name]) for name in proto.input if name in tensors}
    return Node(proto).layer(values)


def constants(graph: Any) -> dict[str, Any]:
    """Return the TensorProtos of a graph that are initializers or values of Constant nodes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return tensors


def to_array(tensor: Any) -> Array:
    array: Array = numpy_helper.to_array(tensor)
    return array


def _read(model: Any) -> Any:
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, bytes):
        return onnx.load_model_from_string(model)
    if isinstance(model, str | os.PathLike):
        return onnx.load_model(model)
    kind = type(model).__name__
    raise TypeError(f"model has type {kind}, expected a path, bytes or onnx.ModelProto")


def _select(graph: Any, name: str | None) -> Any:
    found = [node for node in graph.node if is_recurrent(node)]
    names = ", ".join(f"{label(node)!r} ({node.op_type})" for node in found)
    if not found:
        raise ValueError("model has no RNN, GRU or LSTM node in its main graph")
    if name is None and len(found) > 1:
        raise ValueError(f"node is None, expected one of the model's {names}")
    matching = [node for node in found if name in (None, label(node))]
    if len(matching) != 1:
        raise ValueError(f"node is {name!r}, expected one of the model's {names}")
    return matching[0]
