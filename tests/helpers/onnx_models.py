"""Layers, models of one ONNX node, and ONNX Runtime to compare them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import NONLINEARITIES

from rnnfast import GRU, LSTM, RNN

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, TensorProto = onnx.helper, onnx.TensorProto

Array = np.ndarray[Any, np.dtype[Any]]

T, B, I, H = 5, 3, 7, 11
LENGTHS = np.array([4, 0, 2], np.int32)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{name: (RNN, {"nonlinearity": name}) for name in NONLINEARITIES},
    "gru": (GRU, {}),
    "reset_before": (GRU, {"reset_after": False}),
    "lstm": (LSTM, {}),
}


def parts(state: Any) -> list[Any]:
    """The arrays of a state."""
    return list(state) if isinstance(state, tuple) else [state]


def joined(arrays: list[Any]) -> Any:
    """The opposite of `parts`."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def make(kind: str, **options: Any) -> Any:
    """A layer with 7 inputs and 11 hidden units."""
    layer, defaults = KINDS[kind]
    return layer(I, H, **{"rng": 0} | defaults | options)


def data(layer: Any, steps: int = T, rows: int = B) -> tuple[Array, Any]:
    """A random x and a random state to go with it."""
    rng = np.random.default_rng(1)
    lead = (rows, steps) if layer.batch_first else (steps, rows)
    x = rng.standard_normal((*lead, layer.input_size)).astype(layer.dtype)
    shapes = [part.shape for part in parts(layer(x)[1])]
    return x, joined([rng.uniform(-1, 1, shape).astype(layer.dtype) for shape in shapes])


def run(model: Any, feeds: dict[str, Array]) -> list[Array]:
    """What ONNX Runtime computes with a path or a ModelProto."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(None, feeds)
    return results


def assert_close(got: list[Array], want: list[Array]) -> None:
    """Equal up to rounding, relative to the largest element of each array."""
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        allowed = 50 * np.finfo(b.dtype).eps * np.max(np.abs(b), initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def assert_same(got: list[Array], want: list[Array]) -> None:
    """Equal bit by bit."""
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def outputs(layer: Any, *args: Any, **options: Any) -> list[Array]:
    """What a layer's call returns, as a list of arrays."""
    y, state = layer(*args, **options)
    return [y, *parts(state)]


def node_model(
    operator: str,
    *,
    direction: str = "forward",
    bias: bool = True,
    state: str = "absent",
    lengths: str = "absent",
    opset: int = 14,
    constants: str = "initializers",
    dtype: Any = np.float32,
    change: Callable[[dict[str, Array]], None] | None = None,
    **attributes: Any,
) -> tuple[Any, dict[str, Array]]:
    """A model of one node, named "it", and random inputs for it by name.

    `state` and `lengths` are absent, inputs or constants. The weights are initializers, values of
    Constant nodes or inputs.
    """
    rng = np.random.default_rng(2)
    D, rows = 2 if direction == "bidirectional" else 1, GATES[operator] * H
    shapes = {"X": (T, B, I), "W": (D, rows, I), "R": (D, rows, H)}
    shapes |= {"B": (D, 2 * rows)} if bias else {}
    if state != "absent":
        states = ("initial_h", "initial_c") if operator == "LSTM" else ("initial_h",)
        shapes |= dict.fromkeys(states, (D, B, H))
    arrays: dict[str, Any] = {n: rng.uniform(-1, 1, s).astype(dtype) for n, s in shapes.items()}
    if lengths != "absent":
        arrays["sequence_lens"] = np.array([3, 5, 1], np.int32)
    if change is not None:
        change(arrays)
    where = dict.fromkeys("WRB", constants) | {"X": "input", "sequence_lens": lengths}
    where |= dict.fromkeys(("initial_h", "initial_c"), state) | {"P": "initializers"}
    fixed = [n for n in arrays if where[n] != "input"]
    tensors = {n: onnx.numpy_helper.from_array(arrays[n], n) for n in fixed}
    roles = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    inputs = [role if role in arrays else "" for role in roles[: 8 if operator == "LSTM" else 6]]
    results = ["Y", "Y_h", "Y_c"][: 2 + (operator == "LSTM")]
    named = {"name": "it", "hidden_size": H, "direction": direction} | attributes
    node = helper.make_node(operator, inputs, results, **named)
    nodes = [node]
    if constants == "nodes":
        nodes = [helper.make_node("Constant", [], [n], value=t) for n, t in tensors.items()] + nodes
        tensors = {}

    def info(name: str) -> Any:
        like = arrays[name] if name in arrays else np.empty((0,) * (4 if name == "Y" else 3), dtype)
        element = helper.np_dtype_to_tensor_dtype(like.dtype)
        return helper.make_tensor_value_info(name, element, [None] * like.ndim)

    free = [n for n in arrays if n not in fixed]
    graph = helper.make_graph(
        nodes, "g", [info(n) for n in free], [info(n) for n in results], list(tensors.values())
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model_gen_version(graph, opset_imports=opsets), {n: arrays[n] for n in free}


def to_onnx(results: list[Array], directions: int) -> list[Array]:
    """A layer's results in the shapes of an ONNX node's."""
    y, *states = results
    return [y.reshape(*y.shape[:2], directions, H).swapaxes(1, 2), *states]


def assert_like(got: Any, want: Any) -> None:
    """The same class, options and parameters."""
    assert (type(got), repr(got)) == (type(want), repr(want))
    assert_same(list(got.params.values()), list(want.params.values()))


def info(name: str, element: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, element, [])


BODIES: dict[str, list[tuple[str, int]]] = {  # the inputs of a body of each operator
    "If": [],
    "Loop": [("i", TensorProto.INT64), ("go", TensorProto.BOOL)],
    "Scan": [("step", TensorProto.FLOAT)],
}
GIVEN = {  # the inputs of such a node
    "If": [("yes", TensorProto.BOOL)],
    "Loop": [("count", TensorProto.INT64), ("yes", TensorProto.BOOL)],
    "Scan": [("steps", TensorProto.FLOAT)],
}


def inside(model: Any, operator: str, outer: str = "") -> Any:
    """The model with its graph in the body of a node, but for the constants in `outer`."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    tensors = [tensor for tensor in graph.initializer if tensor.name in outer]
    nodes = [n for n in graph.node if n.op_type == "Constant" and n.output[0] in outer]
    for field, values in ((graph.initializer, tensors), (graph.node, nodes)):
        for value in values:
            field.remove(value)
    inputs = list(graph.input)
    del graph.input[:]
    graph.input.extend(info(name, element) for name, element in BODIES[operator])
    names = [output.name for output in graph.output]
    options: dict[str, Any] = {"body": graph}
    if operator == "If":
        other = [helper.make_node("Identity", [inputs[0].name], [f"{n}_other"]) for n in names]
        infos = [info(f"{name}_other") for name in names]
        other_graph = helper.make_graph(other, "else", [], infos)
        options = {"then_branch": graph, "else_branch": other_graph}
    elif operator == "Loop":
        graph.node.append(helper.make_node("Identity", ["go"], ["again"]))
        graph.output.insert(0, info("again", TensorProto.BOOL))
    else:
        options["num_scan_inputs"] = 1
    known = {value.name for value in inputs}
    inputs += [info(name, kind) for name, kind in GIVEN[operator] if name not in known]
    results = [f"{name}_{operator}" for name in names]
    given = [name for name, _ in GIVEN[operator]]
    node = helper.make_node(operator, given, results, name=f"the_{operator}", **options)
    main = helper.make_graph([*nodes, node], "g", inputs, [info(n) for n in results], tensors)
    made = helper.make_model_gen_version(main, opset_imports=list(model.opset_import))
    onnx.checker.check_model(made)
    return made


ELU: dict[str, Any] = {"activations": ["Elu"], "activation_alpha": [0.5]}  # of an RNN
TWO_CELLS: dict[str, Any] = {
    "operator": "GRU",
    "direction": "bidirectional",
    "activations": ["HardSigmoid", "Tanh", "Sigmoid", "Relu"],
}


def with_peepholes(arrays: dict[str, Array]) -> None:
    """Add the input P, for one direction."""
    arrays["P"] = np.random.default_rng(4).uniform(-1, 1, (1, 3 * H)).astype(np.float32)
