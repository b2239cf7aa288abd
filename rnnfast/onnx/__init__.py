"""ONNX: write a layer as a model, make a layer of a node, and serve as a backend for nodes.

Needs the `onnx` package (``pip install rnnfast[onnx]``), nothing of a run time. What the operators
compute, and the layout of their inputs, is as in their specification [1]_.

>>> rnnfast.onnx.export(layer, "layer.onnx", lengths=True)
>>> y, h_n = onnxruntime.InferenceSession("layer.onnx").run(None, {"x": x, "lengths": lengths})[:2]
>>> same = rnnfast.onnx.load("layer.onnx")

`rnnfast.onnx.backend` has the functions of `onnx.backend.base.Backend` for models of one such node.

References
----------
.. [1] Operators RNN, GRU and LSTM, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

try:
    import onnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("rnnfast.onnx needs the onnx package: pip install rnnfast[onnx]") from error
from . import backend
from ._export import export
from ._layers import NodeGRU, NodeLSTM, NodeRecurrent, NodeRNN
from ._load import load

__all__ = ["NodeGRU", "NodeLSTM", "NodeRNN", "NodeRecurrent", "backend", "export", "load"]
