"""ONNX: layers of nodes that need a cell of their own, and such layers as nodes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import (
    ELU,
    LENGTHS,
    TWO_CELLS,
    B,
    H,
    I,
    assert_like,
    assert_same,
    data,
    helper,
    node_model,
    onnx,
    outputs,
    run,
    with_peepholes,
)

import rnnfast
from rnnfast import Recurrent, cells, functional
from rnnfast.onnx import export, load

# ----------------------------------------------------------------------------- what a layer can


def test_directions_of_different_cells_have_gradients_of_their_own() -> None:
    layer: Any = load(node_model(**TWO_CELLS)[0])
    x, _ = data(layer)
    y, state, tape = layer.forward(x, lengths=LENGTHS)
    dy = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    grads = layer.backward(tape, dy, state)
    total = np.zeros_like(x)
    for k, cell in enumerate((layer.cell, layer.reverse_cell)):
        suffix = ("_l0", "_l0_reverse")[k]
        names = [n for n in layer.params if n.endswith("_l0" if k == 0 else "_reverse")]
        params = {n.removesuffix(suffix): layer.params[n] for n in names}
        options = {"lengths": LENGTHS, "reverse": k == 1}
        own, last, tape = functional.cell_forward(cell, x, None, params, **options)
        part = slice(k * H, (k + 1) * H)
        assert_same([y[..., part], state[k]], [own, last[0]])
        found = functional.cell_backward(tape, np.ascontiguousarray(dy[..., part]), last)
        assert_same([grads.params[n] for n in names], list(found.params.values()))
        total += found.x
    assert_same([grads.input], [total])
    with pytest.raises(ValueError, match="layer is bidirectional"):
        layer.stream()


def fixed_layer(**options: Any) -> Any:
    """An LSTM with peepholes and constant states."""
    given = {"clip": 0.5, "state": "constant", "change": with_peepholes} | options
    return load(node_model("LSTM", **given)[0])


def test_what_a_call_passes_comes_first() -> None:
    layer = fixed_layer(direction="reverse", lengths="constant")
    plain = load(node_model("LSTM", clip=0.5, direction="reverse", change=with_peepholes)[0])
    for name, value in plain.params.items():
        value[...] = layer.params[name]
    x, state = data(layer)
    options = {"state": state, "lengths": LENGTHS}
    assert_same(outputs(layer, x, **options), outputs(plain, x, **options))
    fixed = outputs(plain, x, layer.initial_state, lengths=layer.lengths)
    assert_same(outputs(layer, x), fixed)
    with pytest.raises(ValueError, match=r"^initial_state\[0\] .*: it is the loaded node's own"):
        layer(x[:, :2], lengths=LENGTHS[:2])


def test_streams() -> None:
    layer = fixed_layer()
    x, state = data(layer)
    assert_same([layer.stream(B).run(x)], [layer(x)[0]])
    stream = layer.stream(B, state)
    assert_same([np.stack([stream.step(x_t) for x_t in x])], [layer(x, state)[0]])
    with pytest.raises(ValueError, match="layer runs in reverse"):
        fixed_layer(direction="reverse").stream(B)
    with pytest.raises(ValueError, match="layer has lengths of its own"):
        fixed_layer(lengths="constant").stream(B)


def test_it_is_copied_and_pickled_as_it_is() -> None:
    for layer in (load(node_model(**TWO_CELLS)[0]), fixed_layer(direction="reverse")):
        x, _ = data(layer)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert_like(twin, layer)
            assert_same(outputs(twin, x), outputs(layer, x))


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    layer = load(node_model("GRU", activations=["Sigmoid", "Relu"])[0])
    layer.save(tmp_path / "layer.npz")
    assert_like(rnnfast.load(tmp_path / "layer.npz"), layer)


# ------------------------------------------------------------------------- chains, and export


CELLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (cells.onnx_rnn, (["ScaledTanh"], [1.5], [0.7]), {}),
    (cells.onnx_rnn, (["Softplus"],), {"clip": 1.5}),
    (cells.onnx_gru, (["Sigmoid", "ThresholdedRelu"],), {"linear_before_reset": True}),
    (cells.onnx_gru, (["HardSigmoid", "LeakyRelu"],), {"clip": 0.7}),
    (cells.onnx_lstm, (["Sigmoid", "Tanh", "Elu"],), {"peepholes": True}),
    (cells.onnx_lstm, (), {"peepholes": True, "input_forget": True, "clip": 0.7}),
    (cells.onnx_lstm, (), {"input_forget": True}),
]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", [{}, {"bias": False}, {"num_layers": 3, "batch_first": True}])
def test_export_is_what_onnx_runtime_computes_and_load_undoes_it(
    bidirectional: bool, form: dict[str, Any], tmp_path: Path
) -> None:
    for factory, arguments, options in CELLS:
        cell = factory(*arguments, **options)
        layer = Recurrent(cell, I, H, bidirectional=bidirectional, rng=0, **form)
        for value in layer.params.values():
            value *= 0.7
        x, state = data(layer)
        given = list(state) if isinstance(state, tuple) else [state]
        feeds = {"x": x, "lengths": LENGTHS, **dict(zip(("h0", "c0"), given, strict=False))}
        export(layer, tmp_path / "m.onnx", state=True, lengths=True)
        got = run(tmp_path / "m.onnx", feeds)
        for a, b in zip(got, outputs(layer, x, state, lengths=LENGTHS), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=str(cell))
        same = load(tmp_path / "m.onnx")
        assert_same(outputs(same, x, state), outputs(layer, x, state))
        export(same, tmp_path / "again.onnx", state=True, lengths=True)
        assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_export_of_what_nodes_fix(tmp_path: Path) -> None:
    for options in (
        TWO_CELLS,
        {"operator": "RNN", **ELU, "direction": "reverse", "lengths": "constant"},
        {"operator": "LSTM", "state": "constant", "clip": 0.5, "change": with_peepholes},
    ):
        model, inputs = node_model(**options)
        layer = load(model)
        export(layer, tmp_path / "m.onnx")
        want = outputs(layer, inputs["X"])
        got = run(tmp_path / "m.onnx", {"x": inputs["X"]})
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
        assert_same(outputs(load(tmp_path / "m.onnx"), inputs["X"]), want)


def test_cells_without_an_operator_are_not_exported(tmp_path: Path) -> None:
    for cell in (cells.mgu, cells.lstm_variant("CIFG")):
        with pytest.raises(ValueError, match=f"layer has the cell {cell.name}, for which ONNX has"):
            export(Recurrent(cell, I, H), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"clip": 0.6}, {"activation_alpha": [0.4]}, {"input_forget": 1}]
)
def test_nodes_of_different_cells_are_no_chain(change: dict[str, Any], tmp_path: Path) -> None:
    cell = cells.onnx_lstm(["Sigmoid", "Tanh", "Elu"], [0.5], [], clip=0.5)
    export(Recurrent(cell, I, H, 2, rng=0), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert load(model).num_layers == 2
    second = next(node for node in model.graph.node if node.name == "layer_1")
    kept = [a for a in second.attribute if a.name not in change]
    del second.attribute[:]
    second.attribute.extend([*kept, *(helper.make_attribute(*item) for item in change.items())])
    with pytest.raises(ValueError, match=r"node is None, expected one of .*'layer_0' .*'layer_1'"):
        load(model)


# ------------------------------------------------------------------------------------- a network


def test_a_network_of_rnnoise_s_kind() -> None:
    """Three GRUs with relu candidates between dense layers: each is loaded, and streams."""
    rng, sizes = np.random.default_rng(0), {"vad": (12, 6), "noise": (18, 9), "denoise": (27, 13)}
    tensors, nodes, given, last = [], [], "X", I
    for name, (inputs, units) in sizes.items():
        shapes = {"M": (last, inputs), "W": (1, 3 * units, inputs)}
        shapes |= {"R": (1, 3 * units, units), "B": (1, 6 * units)}
        for role, shape in shapes.items():
            values = rng.uniform(-0.5, 0.5, shape).astype(np.float32)
            tensors.append(onnx.numpy_helper.from_array(values, f"{name}_{role}"))
        nodes += [
            helper.make_node("MatMul", [given, f"{name}_M"], [f"{name}_m"]),
            helper.make_node("Tanh", [f"{name}_m"], [f"{name}_x"]),
            helper.make_node(
                "GRU", [f"{name}_{role}" for role in "xWRB"], [f"{name}_Y", f"{name}_h"],
                name=name, hidden_size=units, activations=["Sigmoid", "Relu"],
                linear_before_reset=0,
            ),
            helper.make_node("Squeeze", [f"{name}_Y", "axes"], [f"{name}_y"]),
        ]  # fmt: skip
        given, last = f"{name}_y", units
    tensors.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    infos = [helper.make_tensor_value_info("X", 1, ["T", 1, I])]
    ends = [f"{name}_{end}" for name in sizes for end in "xy"]
    graph = helper.make_graph(
        nodes, "g", infos, [helper.make_tensor_value_info(e, 1, [None] * 3) for e in ends], tensors
    )
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", 14)])
    onnx.checker.check_model(model)
    x = rng.standard_normal((50, 1, I)).astype(np.float32)
    values = dict(zip(ends, run(model, {"X": x}), strict=True))
    for name, (_, units) in sizes.items():
        layer: Any = load(model, name)
        assert (type(layer), layer.hidden_size) == (Recurrent, units)
        y = layer(values[f"{name}_x"])[0]
        want = values[f"{name}_y"]
        assert np.abs(y - want).max() <= 2e-5 * (1 + np.abs(want).max())
        stream = layer.stream()
        steps = [stream.step(step[0]) for step in values[f"{name}_x"]]
        assert_same([np.stack(steps)[:, None]], [y])
