"""The functions of `onnx.backend.base.Backend`, for models of one RNN, GRU or LSTM node.

They serve ONNX's node tests (`onnx.backend.test.BackendTest`), and whatever drives a backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest import SkipTest  # what ONNX derives BackendIsNotSupposedToImplementIt from

import numpy as np
from onnx.backend.base import Backend, BackendRep
from onnx.checker import ValidationError

from .._parameters import Array
from ._graph import main_graph
from ._node import Node, build
from ._operators import is_recurrent

__all__ = ["is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class RecurrentNode(BackendRep):  # type: ignore[misc]
    """A node that runs, with its inputs and outputs in ONNX's layouts."""

    def __init__(
        self, proto: Any, inputs: list[str], outputs: list[str], fixed: Mapping[str, Array]
    ) -> None:
        self._node = Node(proto)
        self._inputs, self._outputs, self._fixed = inputs, outputs, fixed
        self._names = list(proto.output)
        weights = [self._node.inputs.get(role, "") for role in "WRBP"]
        self._layer = None if set(weights) & set(inputs) else build([self._node], [fixed])

    def run(self, inputs: Sequence[Array], **kwargs: Any) -> tuple[Array, ...]:
        """Return the outputs for these inputs, both in their order.

        Raises
        ------
        TypeError, ValueError
            The inputs do not fit the node; the message names what does not.
        """
        if len(inputs) != len(self._inputs):
            raise ValueError(
                f"inputs has length {len(inputs)}, expected one each for {', '.join(self._inputs)}"
            )
        node = self._node
        values = {**self._fixed, **dict(zip(self._inputs, inputs, strict=True))}
        layer: Any = self._layer or build([node], [values])
        x, lengths = values[node.inputs["X"]], node.lengths(values)
        y, state = layer(x, node.state(values), lengths=lengths)
        y = y.reshape(*y.shape[:2], node.directions, layer.hidden_size)
        states = [node.swap(part) for part in (state if isinstance(state, tuple) else (state,))]
        results = [y if node.layout else y.swapaxes(1, 2), *states]
        named = dict(zip(self._names, results, strict=False))
        return tuple(np.ascontiguousarray(named[name]) for name in self._outputs)


class RecurrentBackend(Backend):  # type: ignore[misc]
    """Runs models of one RNN, GRU or LSTM node, on the CPU."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` accepts the model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (SkipTest, ValidationError, TypeError, ValueError):
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> RecurrentNode:
        """Check a model and return what runs it.

        Parameters
        ----------
        model : onnx.ModelProto
            One RNN, GRU or LSTM node, besides Constants. Its weights may be inputs.
        device : str
            "CPU".

        Raises
        ------
        onnx.checker.ValidationError
            The model is not valid.
        onnx.backend.test.runner.BackendIsNotSupposedToImplementIt
            The model is another than that.
        TypeError, ValueError
            The node has what no layer can express, or `device` is another; see `load`.
        """
        super().prepare(model, device, **kwargs)
        graph = model.graph
        outputs = [info.name for info in graph.output]
        proto = _only([node for node in graph.node if node.op_type != "Constant"], outputs)
        scope = main_graph(model)
        inputs = [info.name for info in graph.input if scope.is_input(info.name)]
        fixed = {n: scope.constant(n) for n in proto.input if n and not scope.is_input(n)}
        return cls._runnable(proto, inputs, outputs, fixed, device)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Array, ...]:
        """Run a node without a model: arrays for the inputs and from the outputs that it names.

        `outputs_info` is not needed. Raises what `prepare` and `RecurrentNode.run` do.
        """
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        named_inputs, named_outputs = ([n for n in io if n] for io in (node.input, node.output))
        proto = _only([node], named_outputs)
        return cls._runnable(proto, named_inputs, named_outputs, {}, device).run(inputs)

    @classmethod
    def _runnable(
        cls,
        proto: Any,
        inputs: list[str],
        outputs: list[str],
        fixed: Mapping[str, Array],
        device: str,
    ) -> RecurrentNode:
        if not cls.supports_device(device):
            raise ValueError(f"device is {device!r}, expected 'CPU'")
        return RecurrentNode(proto, inputs, outputs, fixed)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether the device is the CPU."""
        return device.partition(":")[0] == "CPU"


def _only(nodes: Sequence[Any], outputs: Sequence[str]) -> Any:
    """Return the one node, which must be recurrent and have all the outputs."""
    if len(nodes) == 1 and is_recurrent(nodes[0]) and {*outputs} <= {*nodes[0].output}:
        return nodes[0]
    from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

    found = ", ".join(node.op_type for node in nodes)
    raise BackendIsNotSupposedToImplementIt(
        f"model has the nodes {found or 'none'}, expected one RNN, GRU or LSTM and its outputs"
    )


is_compatible = RecurrentBackend.is_compatible
prepare = RecurrentBackend.prepare
run_model = RecurrentBackend.run_model
run_node = RecurrentBackend.run_node
supports_device = RecurrentBackend.supports_device
