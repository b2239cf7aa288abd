"""ONNX: what weights come through, and what is no model."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import (
    Array,
    H,
    TensorProto,
    assert_like,
    assert_same,
    helper,
    inside,
    make,
    node_model,
    onnx,
    outputs,
)

from rnnfast.onnx import export, load

from_array = onnx.numpy_helper.from_array

# ----------------------------------------------------------------------------------------- folding

Made = tuple[list[Any], list[Any]]  # nodes and initializers


def through(name: str, made: Callable[[Array], Made], opset: int = 14, **options: Any) -> Any:
    """A model whose input `name` comes through nodes: `made` returns nodes that make "out"."""
    model, _ = node_model("GRU", opset=opset, **options)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    nodes, tensors = made(onnx.numpy_helper.to_array(tensor).copy())
    model.graph.initializer.remove(tensor)
    model.graph.initializer.extend(tensors)
    for node in nodes:
        node.output[:] = [name if out == "out" else out for out in node.output]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.ir_version = 8  # in older ones initializers must be inputs too
    onnx.checker.check_model(model)
    return model


def ints(name: str, *values: int) -> Any:
    return from_array(np.array(values, np.int64), name)


def node(operator: str, inputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, ["out"], **attributes)


FOLDED: dict[str, tuple[int, Callable[[Array], Made]]] = {
    "Identity": (14, lambda a: ([node("Identity", ["a"])], [from_array(a, "a")])),
    "Cast": (
        14,
        lambda a: ([node("Cast", ["a"], to=1)], [from_array(a.astype(np.float64), "a")]),
    ),
    "Transpose": (
        14,
        lambda a: (
            [node("Transpose", ["a"], perm=[2, 0, 1])],
            [from_array(np.ascontiguousarray(a.transpose(1, 2, 0)), "a")],
        ),
    ),
    "Transpose without perm": (
        14,
        lambda a: ([node("Transpose", ["a"])], [from_array(np.ascontiguousarray(a.T), "a")]),
    ),
    "Reshape": (
        14,
        lambda a: (
            [node("Reshape", ["a", "shape"])],
            [from_array(a.reshape(-1), "a"), ints("shape", 1, -1, a.shape[2])],
        ),
    ),
    "Reshape with 0": (
        5,
        lambda a: (
            [node("Reshape", ["a", "shape"])],
            [from_array(a[:, :, None], "a"), ints("shape", 0, -1, a.shape[2])],
        ),
    ),
    "Unsqueeze, axes as input": (
        13,
        lambda a: ([node("Unsqueeze", ["a", "axes"])], [from_array(a[0], "a"), ints("axes", 0)]),
    ),
    "Unsqueeze, axes as attribute": (
        9,
        lambda a: ([node("Unsqueeze", ["a"], axes=[0])], [from_array(a[0], "a")]),
    ),
    "Unsqueeze, negative axes": (
        11,
        lambda a: ([node("Unsqueeze", ["a"], axes=[-3])], [from_array(a[0], "a")]),
    ),
    "Squeeze, axes as input": (
        13,
        lambda a: (
            [node("Squeeze", ["a", "axes"])],
            [from_array(a[None, :, :, None], "a"), ints("axes", -2, 0)],
        ),
    ),
    "Squeeze, negative axes as attribute": (
        11,
        lambda a: (
            [node("Squeeze", ["a"], axes=[-2, -1, 0])],
            [from_array(a[None, ..., None, None], "a")],
        ),
    ),
    "Unsqueeze, unsorted axes as attribute": (
        11,
        lambda a: (
            [
                helper.make_node("Unsqueeze", ["a"], ["more"], axes=[5, 0, -2]),
                node("Squeeze", ["more"], axes=[0, 4, 5]),
            ],
            [from_array(a, "a")],
        ),
    ),
    "Concat": (
        14,
        lambda a: (
            [node("Concat", ["a", "b"], axis=-2)],
            [from_array(a[:, :4], "a"), from_array(a[:, 4:], "b")],
        ),
    ),
    "Slice, axes as inputs": (
        10,
        lambda a: (
            [node("Slice", ["a", "start", "end", "axes", "steps"])],
            [
                from_array(np.repeat(a, 2, 1), "a"), ints("start", 0), ints("end", 2**63 - 1),
                ints("axes", 1), ints("steps", 2),
            ],
        ),
    ),
    "Slice backward": (
        13,
        lambda a: (
            [node("Slice", ["a", "start", "end", "axes", "steps"])],
            [
                from_array(a[:, ::-1].copy(), "a"), ints("start", -1), ints("end", -(2**63)),
                ints("axes", -2), ints("steps", -1),
            ],
        ),
    ),
    "Slice, axes as attributes": (
        9,
        lambda a: (
            [node("Slice", ["a"], axes=[1], starts=[2], ends=[2**31])],
            [from_array(np.concatenate([a[:, :2], a], 1), "a")],
        ),
    ),
    "Split": (
        13,
        lambda a: (
            [helper.make_node("Split", ["a", "split"], ["other", "out"], axis=1)],
            [from_array(np.concatenate([a[:, :2], a], 1), "a"), ints("split", 2, a.shape[1])],
        ),
    ),
    "Split and Slice, with outputs and inputs left out": (
        13,
        lambda a: (
            [
                helper.make_node("Split", ["a", "split"], ["", "more"], axis=1),
                node("Slice", ["more", "start", "end", "", "steps"]),
            ],
            [
                from_array(np.concatenate([a[:, :2], a], 1), "a"), ints("split", 2, a.shape[1]),
                ints("start", 0), ints("end", 1), ints("steps", 1),
            ],
        ),
    ),
    "Constant": (14, lambda a: ([node("Constant", [], value=from_array(a))], [])),
    "Constant of floats": (
        14,
        lambda a: (
            [
                helper.make_node("Constant", [], ["a"], value_floats=a.ravel().tolist()),
                helper.make_node("Constant", [], ["shape"], value_ints=list(a.shape)),
                node("Reshape", ["a", "shape"]),
            ],
            [],
        ),
    ),
    "many in a row": (
        14,
        lambda a: (
            [
                *(helper.make_node("Identity", [f"a{k}"], [f"a{k + 1}"]) for k in range(2000)),
                node("Identity", ["a2000"]),
            ],
            [from_array(a, "a0")],
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", FOLDED)
@pytest.mark.parametrize("name", ["W", "R"])
def test_weights_are_folded(how: str, name: str) -> None:
    opset, made = FOLDED[how]
    model = through(name, made, max(opset, 7))
    assert_like(load(model), load(node_model("GRU")[0]))


def test_constants_in_between_may_come_from_outer_graphs() -> None:
    model = inside(through("W", FOLDED["Reshape"][1]), "If", "shape")
    assert_like(load(model), load(node_model("GRU")[0]))


def test_states_and_lengths_are_folded() -> None:
    options = {"state": "constant", "lengths": "constant"}
    want: Any = load(node_model("GRU", **options)[0])
    model = through("initial_h", FOLDED["Concat"][1], change=lambda a: None, **options)
    got: Any = load(model)
    assert_same([got.initial_state, got.lengths], [want.initial_state, want.lengths])

    def halves(a: Array) -> Made:
        parts = [from_array(a[:1].astype(np.int64), "a"), from_array(a[1:].astype(np.int64), "b")]
        concat = helper.make_node("Concat", ["a", "b"], ["long"], axis=0)
        return [concat, node("Cast", ["long"], to=TensorProto.INT32)], parts

    got = load(through("sequence_lens", halves, **options))
    assert_same([got.initial_state, got.lengths], [want.initial_state, want.lengths])


REFUSED: list[tuple[str, list[Any], str]] = [
    ("arithmetic", [node("Add", ["a", "a"])], "'W' comes from Add node 'W'"),
    (
        "arithmetic before it",
        [helper.make_node("Mul", ["a", "a"], ["b"], name="mul"), node("Identity", ["b"])],
        "'b' comes from Mul node 'mul'",
    ),
    ("an input", [node("Identity", ["X"])], "'X' is an input of the model"),
    (
        "what is not valid",
        [node("Transpose", ["a"], perm=[0, 1], name="t")],
        "Transpose node 't' cannot be evaluated: ",
    ),
    (
        "a quantised weight",
        [
            helper.make_node("QuantizeLinear", ["a", "scale"], ["q"], name="quantise"),
            node("DequantizeLinear", ["q", "scale"], name="dequantise"),
        ],
        "'W' comes from DequantizeLinear node 'dequantise': rnnfast takes float32 and float64 we",
    ),
]


@pytest.mark.parametrize(("nodes", "message"), [case[1:] for case in REFUSED], ids=lambda v: "")
def test_what_else_feeds_a_weight_is_named(nodes: list[Any], message: str) -> None:
    def made(a: Array) -> Made:
        return nodes, [from_array(a, "a"), from_array(np.float32(1), "scale")]

    nodes = copy.deepcopy(nodes)  # `through` renames outputs
    expected = "GRU node 'it' has input W = 'W', expected an initializer or a Constant; "
    with pytest.raises(ValueError, match=re.escape(expected + message)):
        load(through("W", made))


def test_graphs_that_are_not_valid_are_refused() -> None:
    model, _ = node_model("GRU")
    model.graph.node[0].input[1] = "nothing"
    with pytest.raises(ValueError, match="'nothing' is nowhere in the model"):
        load(model)
    circle = [helper.make_node("Identity", [a], [b]) for a, b in ("ab", "bc", "ca")]
    model.graph.node[0].input[1] = "a"
    model.graph.node.extend(circle)
    with pytest.raises(ValueError, match=r"'.' is computed of itself"):
        load(model)
    short, _ = node_model("GRU")
    short.graph.initializer[0].raw_data = b"abc"
    with pytest.raises(ValueError, match="tensor 'W' cannot be read"):
        load(short)
    sparse, _ = node_model("GRU")
    tensor = helper.make_sparse_tensor(
        helper.make_tensor("R", 1, [1], [1.0]), helper.make_tensor("", 7, [1], [0]), [1, 3 * H, H]
    )
    sparse.graph.initializer.remove(next(t for t in sparse.graph.initializer if t.name == "R"))
    sparse.graph.sparse_initializer.append(tensor)
    with pytest.raises(ValueError, match="'R' is a sparse initializer"):
        load(sparse)


# --------------------------------------------------------------------------------------- quantised


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_operators_are_named(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, quantised = tmp_path / "m.onnx", tmp_path / "q.onnx"
    export(make("lstm", num_layers=2), path)
    quantization.quantize_dynamic(path, quantised, op_types_to_quantize=["LSTM"])
    names = [f"DynamicQuantizeLSTM node 'layer_{k}_quant' of com.microsoft" for k in range(2)]
    only = ": rnnfast takes float32 and float64 weights, not quantised ones"
    message = f"model has no RNN, GRU or LSTM node, but {names[0]}, {names[1]}{only}"
    for name in (None, "layer_0_quant"):
        with pytest.raises(ValueError, match=re.escape(message)):
            load(quantised, name)
    model, _ = node_model("GRU")
    model.graph.node.append(onnx.load(quantised).graph.node[0])
    message = f"which is {names[0]}, expected one of the model's 'it' (GRU){only}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(model, "layer_0_quant")


# ------------------------------------------------------------------------------------ not a model


@pytest.mark.filterwarnings("ignore:The onnxtxt format is experimental")
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    contents = [b"", b"\n", b"some text\n", b"\x08\x07", b"PK\x03\x04", bytes(1000)]
    contents += [rng.randbytes(n) for n in (1, 10, 100, 1000, 10000) for _ in range(20)]
    path = tmp_path / "m.onnx"
    for content in contents:
        path.write_bytes(content)
        for model in (content, path):
            with pytest.raises(ValueError, match="model is not an ONNX model: "):
                load(model)
    for suffix in ("json", "onnxtxt", "textproto", "txt"):
        path = tmp_path / f"m.{suffix}"
        path.write_text("some text")
        with pytest.raises(ValueError, match="model is not an ONNX model: "):
            load(path)


def test_a_part_of_a_model_is_refused(tmp_path: Path) -> None:
    export(make("gru"), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    for stop in [
        *range(300),
        *range(300, len(content), 37),
        *range(len(content) - 40, len(content)),
    ]:
        with pytest.raises(ValueError, match="model is not an ONNX model: "):
            load(content[:stop])


def test_files_that_cannot_be_read_are_os_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.onnx", tmp_path):
        with pytest.raises(OSError, match=re.escape(str(path))):
            load(path)


def test_data_in_another_file(tmp_path: Path) -> None:
    model, inputs = node_model("GRU")
    want = outputs(load(model), inputs["X"])
    path = tmp_path / "m.onnx"
    options = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save_model(model, path, **options)
    assert_same(outputs(load(path), inputs["X"]), want)
    for content in (path.read_bytes(), onnx.load_model(path, load_external_data=False)):
        with pytest.raises(
            ValueError, match=r"another file, 'm\.data': load the model by its path"
        ):
            load(content)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ValueError, match=r"model has data in another file: .*m\.data"):
        load(path)
