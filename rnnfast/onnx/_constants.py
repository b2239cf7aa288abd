"""Constants of a graph: what tensors hold, and what operators that only move values make of them.

What the operators do is left to ONNX's own evaluator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from .._parameters import Array
from ._operators import describe, is_standard

FOLDED = {
    "Cast", "Concat", "Constant", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_QUANTISED = re.compile("quant|^qlinear|integer$", re.IGNORECASE)


class NotConstant(ValueError):  # noqa: N818
    """A tensor is no constant. The message says what it is."""


def to_array(tensor: Any) -> Array:
    """Return what a TensorProto holds."""
    if uses_external_data(tensor):  # relative to a path that is not known here
        where = next((e.value for e in tensor.external_data if e.key == "location"), "")
        raise ValueError(
            f"tensor {tensor.name!r} is in another file, {where!r}: load the model by its path"
        )
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ValueError(f"tensor {tensor.name!r} cannot be read: {error}") from error
    return array


def needs(source: Any) -> list[str]:
    """Return the names of the constants of which a name's source is made."""
    return [name for name in source.input if name] if _is_folded(source) else []


def fold(name: str, source: Any, inputs: Sequence[Array | None], opset: int) -> dict[str, Array]:
    """Return what a source makes, by name.

    Parameters
    ----------
    name : str
    source : NodeProto, TensorProto, SparseTensorProto or str
        What makes it. A text says what it is instead of a constant.
    inputs : sequence of ndarray or None
        The node's inputs.
    opset : int
        The version of ONNX's operators.

    Raises
    ------
    NotConstant
        It is an input, or another operator's.
    ValueError
        It is not valid.
    """
    if isinstance(source, str):
        raise NotConstant(f"{name!r} is {source}")
    if isinstance(source, TensorProto):
        return {name: to_array(source)}
    if not isinstance(source, NodeProto):
        raise ValueError(f"{name!r} is a sparse initializer")
    if not _is_folded(source):
        raise NotConstant(f"{name!r} comes from {describe(source)}{remark(source)}")
    results = zip(source.output, evaluate(source, inputs, opset), strict=False)
    return {name: value for name, value in results if name}


def remark(node: Any) -> str:
    """Say what is to be said of a node of a quantised operator."""
    quantised = _QUANTISED.search(node.op_type)
    return ": rnnfast takes float32 and float64 weights, not quantised ones" if quantised else ""


def evaluate(node: Any, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """Return the outputs of a node for these inputs.

    Raises ValueError if it is not valid with them.
    """
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Constant" and "value" in attributes:
        return [to_array(attributes["value"].t)]
    # The evaluator takes axes that are an attribute one by one, which is not right for negative
    # or unsorted ones. Since version 13 they are an input.
    if node.op_type in ("Squeeze", "Unsqueeze") and "axes" in attributes:
        axes = np.array(attributes.pop("axes").ints, np.int64)
        inputs, opset = [*inputs[:1], axes], 13
    names = ["" if value is None else f"in{k}" for k, value in enumerate(inputs)]
    outputs = [f"out{k}" for k in range(len(node.output))]
    single = helper.make_node(node.op_type, names, outputs)
    single.attribute.extend(attributes.values())
    opsets = [helper.make_opsetid("", opset)]
    function = helper.make_function(
        "rnnfast", "Single", [n for n in names if n], outputs, [single], opsets
    )
    from onnx.reference import ReferenceEvaluator  # takes time that few models need

    try:
        given = {n: value for n, value in zip(names, inputs, strict=True) if n}
        return list(ReferenceEvaluator(function).run(None, given, {}))
    except Exception as error:  # of any kind, as the operator's code happens to raise
        raise ValueError(f"{describe(node)} cannot be evaluated: {error}") from error


def _is_folded(source: Any) -> bool:
    return isinstance(source, NodeProto) and is_standard(source) and source.op_type in FOLDED
