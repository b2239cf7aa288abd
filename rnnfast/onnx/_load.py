"""From an ONNX model to a layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model

from ._chains import Part, are_stacked, in_order, is_batch_first
from ._constants import NotConstant
from ._graph import Item, main_graph
from ._node import Layer, Node, build
from ._select import by_name, recurrent, refuse_to_choose


def load(model: str | os.PathLike[str] | bytes | onnx.ModelProto, node: str | None = None) -> Layer:
    """Make a layer of the RNN, GRU or LSTM nodes [1]_ of a model.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    node : str, optional
        One node: its name, or if no node has that name, one of its outputs. Nodes in the bodies of
        If, Loop and Scan and in the model's functions count too. Where outputs repeat as well, the
        error names the way to each node.

        Without it, all such nodes of the model make one layer: a single one, or a chain, which is
        how `export` and PyTorch write stacked layers.

    Returns
    -------
    RNN, GRU, LSTM or Recurrent
        A `Recurrent` of a cell that `rnnfast.cells.onnx_rnn`, `onnx_gru` or `onnx_lstm` makes if
        the nodes have other activations than the built-in layers, peepholes (input P), `clip` or
        `input_forget`.

        The layer is `bidirectional` if the nodes are, with biases if they have the input B, and its
        dtype is W's. One node that is named is one stacked layer, `batch_first` if it has
        ``layout=1``. Otherwise there are as many as nodes. The layer is then also `batch_first`
        where the graph swaps the axes T and B of x before them and of y after them.

        Where nodes have ``direction="reverse"``, or constants for their initial states (other than
        zeros) or sequence lengths, it is a `NodeRNN`, `NodeGRU`, `NodeLSTM` or `NodeRecurrent`: a
        subclass that keeps to them, with the attributes `reverse`, `initial_state` and `lengths`.
        Initial states and lengths that the graph computes or takes as inputs are the caller's to
        pass. A `NodeRecurrent` may have directions of different activations.

    Raises
    ------
    TypeError
        `model` is none of these, or the weights are neither float32 nor float64.
    ValueError
        `model` is no ONNX model. It has no such node, or more than one that are no chain. A node
        has what the standard does not define: an unknown activation, Affine without alpha,
        ScaledTanh without both numbers, `clip` of 0 or less. W, R, B or P is not constant. The
        message names the node, and the attribute or input.
    OSError
        The file cannot be read.

    Notes
    -----
    Constant is an initializer, a Constant, and what the operators Cast, Concat, Identity, Reshape,
    Slice, Split, Squeeze, Transpose and Unsqueeze make of constants.

    Numbers that `activation_alpha` and `activation_beta` leave out are the defaults of the
    operators of those names, also where ONNX Runtime has others (0 for ThresholdedRelu, where ONNX
    has 1). Numbers that no activation is left for are not used.

    A chain is nodes of the same operator, sizes and options. Each is fed by the one before, through
    Transpose, Reshape, Squeeze, Identity and inactive Dropout only.

    References
    ----------
    .. [1] https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html.
    """
    items = list(main_graph(_read(model)).walk())
    if node is not None:
        part = _part(by_name(items, node))
        return build([part.node], [part.values])
    found = recurrent(items)
    layer = _stacked(found)
    return refuse_to_choose(found) if layer is None else layer


def _stacked(found: Sequence[Item]) -> Layer | None:
    """Make one layer of all these nodes, or None if they are no stacked layers of one."""
    items = in_order(found)
    if items is None:
        return None
    parts = [_part(item) for item in items]
    if not are_stacked(parts):
        return None
    nodes, values = [part.node for part in parts], [part.values for part in parts]
    return build(nodes, values, is_batch_first(parts))


def _part(item: Item) -> Part:
    """Read a node and the constants among its inputs; ValueError if a weight is none."""
    node, values = Node(item.node), {}
    for role in ("W", "R", "B", "P", "sequence_lens", "initial_h", "initial_c"):
        name = node.inputs.get(role, "")
        try:
            if name:
                values[name] = item.scope.constant(name)
        except ValueError as reason:
            if role in "WRBP" or not isinstance(reason, NotConstant):
                expected = "expected an initializer or a Constant"
                message = f"{node.label} has input {role} = {name!r}, {expected}; {reason}"
                raise ValueError(message) from reason
    return Part(item, node, values)


def _read(model: Any) -> Any:
    """Return the ModelProto."""
    if isinstance(model, onnx.ModelProto):
        proto = model
    elif isinstance(model, bytes):
        proto = _reading("model is not an ONNX model", onnx.load_model_from_string, model)
    elif isinstance(model, str | os.PathLike):
        load_model = partial(onnx.load_model, load_external_data=False)
        proto = _reading("model is not an ONNX model", load_model, model)
        folder = os.path.dirname(os.path.abspath(model))
        _reading("model has data in another file", load_external_data_for_model, proto, folder)
    else:
        kind = type(model).__name__
        raise TypeError(f"model has type {kind}, expected a path, bytes or onnx.ModelProto")
    # A few bytes, or none, are read as a message in which all is missing.
    for field in ("graph", "opset_import"):
        if field not in {descriptor.name for descriptor, _ in proto.ListFields()}:
            raise ValueError(f"model is not an ONNX model: it has no {field}")
    return proto


def _reading(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call what reads a model; ValueError for whatever but the system refuses it."""
    try:
        return function(*args)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each of ONNX's file formats has errors of its own
        raise ValueError(f"{what}: {error}") from error
