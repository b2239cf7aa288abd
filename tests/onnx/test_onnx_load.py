"""ONNX: layers made of nodes against ONNX Runtime, and what cannot be made one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cover
from onnx_models import (
    Array,
    H,
    T,
    TensorProto,
    assert_close,
    assert_like,
    assert_same,
    data,
    helper,
    joined,
    make,
    node_model,
    onnx,
    outputs,
    run,
    to_onnx,
)

from rnnfast import GRU, LSTM, RNN
from rnnfast.onnx import NodeGRU, NodeLSTM, NodeRNN, export, load


def test_load_takes_paths_bytes_and_protos(tmp_path: Path) -> None:
    layer = make("gru")
    path = tmp_path / "m.onnx"
    export(layer, path)
    for model in (path, str(path), path.read_bytes(), onnx.load(path)):
        assert_like(load(model), layer)


def test_each_stacked_layer_is_a_node(tmp_path: Path) -> None:
    layer = make("lstm", num_layers=3, bidirectional=True)
    export(layer, tmp_path / "m.onnx")
    y, _ = data(layer)
    want = outputs(layer, y)
    finals = []
    for k in range(3):
        y, state = load(tmp_path / "m.onnx", f"layer_{k}")(y)
        finals.append(state)
    got = [y, *(np.concatenate(part) for part in zip(*finals, strict=True))]
    assert_same(got, want)


NODES = cover(
    36,
    seed=0,
    operator=("RNN", "GRU", "LSTM"),
    direction=("forward", "reverse", "bidirectional"),
    bias=(True, False),
    state=("absent", "input", "constant"),
    lengths=("absent", "input", "constant"),
    opset=(7, 14, 22),
    constants=("initializers", "nodes"),
    variant=(0, 1),
)


@pytest.mark.parametrize("options", NODES, ids=lambda o: "-".join(map(str, o.values())))
def test_layers_compute_what_nodes_do_in_onnx_runtime(options: dict[str, Any]) -> None:
    options = dict(options)
    variant = options.pop("variant")
    if options["operator"] == "GRU":
        options["linear_before_reset"] = variant
    model, inputs = node_model(**options)
    layer: Any = load(model)
    assert isinstance(layer, {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[options["operator"]])
    fixed = {"reverse", "constant"} & {options[n] for n in ("direction", "state", "lengths")}
    assert isinstance(layer, NodeRNN | NodeGRU | NodeLSTM) == bool(fixed)
    state = [inputs[n] for n in ("initial_h", "initial_c") if n in inputs]
    got = outputs(
        layer, inputs["X"], joined(state) if state else None, lengths=inputs.get("sequence_lens")
    )
    directions = 2 if options["direction"] == "bidirectional" else 1
    assert_close(to_onnx(got, directions), run(model, inputs))


@pytest.mark.parametrize("name", ["Relu", "Tanh", "Sigmoid", "Affine"])
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_activations(name: str, direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    scale = {"activation_alpha": [1.0] * count} if name == "Affine" else {}
    model, inputs = node_model("RNN", direction=direction, activations=[name] * count, **scale)
    got = outputs(load(model), inputs["X"])
    assert_close(to_onnx(got, count), run(model, inputs))


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_activations_are_the_same_in_capital_and_small_letters(change: Any) -> None:
    for name in ("Relu", "Tanh", "Sigmoid", "Affine"):
        scale = {"activation_alpha": [1.0]} if name == "Affine" else {}
        plain, inputs = node_model("RNN", activations=[name], **scale)
        model, _ = node_model("RNN", activations=[change(name)], **scale)
        assert_same(outputs(load(model), inputs["X"]), outputs(load(plain), inputs["X"]))
    for operator, names in (("GRU", ["Sigmoid", "Tanh"]), ("LSTM", ["Sigmoid", "Tanh", "Tanh"])):
        model, inputs = node_model(operator, activations=list(map(change, names)))
        want = outputs(load(node_model(operator)[0]), inputs["X"])
        assert_same(outputs(load(model), inputs["X"]), want)
    models = [node_model("RNN", activations=[name])[0] for name in ("Elu", change("Elu"))]
    assert_same(*(outputs(load(model), inputs["X"]) for model in models))


@pytest.mark.parametrize("operator", ["GRU", "LSTM"])
def test_the_standard_activations_may_be_spelled_out(operator: str) -> None:
    names = ["Sigmoid", "Tanh", "Tanh"][: 2 + (operator == "LSTM")]
    spelled, _ = node_model(operator, direction="bidirectional", activations=names * 2)
    silent, _ = node_model(operator, direction="bidirectional")
    assert_same(list(load(spelled).params.values()), list(load(silent).params.values()))


def test_batch_first_is_layout_1() -> None:
    rows_first, _ = node_model("LSTM", layout=1, direction="bidirectional", state="input")
    steps_first, inputs = node_model("LSTM", direction="bidirectional", state="input")
    layer = load(rows_first)
    assert layer.batch_first
    state = inputs["initial_h"], inputs["initial_c"]
    y, *states = outputs(layer, inputs["X"].swapaxes(0, 1), state)
    assert_same([y.swapaxes(0, 1), *states], outputs(load(steps_first), inputs["X"], state))


def zeros(arrays: dict[str, Array]) -> None:
    """Make the initial states zeros."""
    for name in arrays:
        if name.startswith("initial"):
            arrays[name] = np.zeros_like(arrays[name])


def test_constant_states_of_zeros_bind_no_batch() -> None:
    model, inputs = node_model("LSTM", state="constant", change=zeros)
    layer = load(model)
    assert type(layer) is LSTM
    assert_close(to_onnx(outputs(layer, inputs["X"]), 1), run(model, inputs))
    assert layer(inputs["X"][:, :1])[0].shape == (T, 1, H)


def test_one_constant_state_of_two() -> None:
    model, inputs = node_model("LSTM", state="constant", change=lambda a: a.pop("initial_h"))
    layer: Any = load(model)
    assert layer.initial_state[0] is None
    assert_close(to_onnx(outputs(layer, inputs["X"]), 1), run(model, inputs))


def test_a_node_without_a_name_goes_by_its_first_output() -> None:
    model, inputs = node_model("GRU")
    model.graph.node[0].name = ""
    assert_same(outputs(load(model, "Y"), inputs["X"]), outputs(load(model), inputs["X"]))


# ------------------------------------------------------------------------- load: what does not come


def peepholes(arrays: dict[str, Array]) -> None:
    """Add the input P of a forward LSTM, for two gates only."""
    arrays["P"] = np.zeros((1, 2 * H), np.float32)


def shorter(name: str, axis: int) -> Any:
    """Make one of the arrays shorter along an axis."""
    return lambda arrays: arrays.update({name: np.delete(arrays[name], 0, axis)})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"operator": "LSTM", "clip": 0.0}, "LSTM node 'it': clip is 0.0, expected a number above 0"),
    ({"operator": "GRU", "clip": float("nan")}, "GRU node 'it': clip is nan, expected a number"),
    ({"operator": "GRU", "input_forget": 1}, "GRU node 'it' has input_forget = 1, which no layer"),
    ({"operator": "LSTM", "input_forget": 2}, "LSTM node 'it' has input_forget = 2, which no lay"),
    (
        {"operator": "LSTM", "change": peepholes},
        r"P of LSTM node 'it' has shape \(1, 22\), expected \(D, 3\*H\) = \(1, 33\)",
    ),
    (
        {"operator": "RNN", "activations": ["Gelu"]},
        "RNN node 'it': activations has 'Gelu', expected names among Affine, Elu, HardSigmoid, Lea",
    ),
    (
        {"operator": "GRU", "activations": ["Sigmoid", "Tanh"], "direction": "bidirectional"},
        "GRU node 'it': activations has 2 names, expected 4",
    ),
    (
        {"operator": "LSTM", "activations": ["Affine", "Tanh", "Tanh"]},
        "LSTM node 'it': activations has 'Affine', but alpha has no number for it, and ONNX has no",
    ),
    (
        {"operator": "RNN", "activations": ["ScaledTanh"], "activation_alpha": [1.0]},
        "RNN node 'it': activations has 'ScaledTanh', but beta has no number for it, and ONNX has",
    ),
    (
        {"operator": "RNN", "activations": ["Elu"], "activation_alpha": [float("inf")]},
        "RNN node 'it': alpha has inf, expected finite numbers",
    ),
    ({"operator": "RNN", "activations": "Tanh"}, "RNN node 'it': activations has .*, expected"),
    ({"operator": "GRU", "direction": "sideways"}, "has direction = 'sideways', which no layer"),
    ({"operator": "GRU", "layout": 2}, "has layout = 2, which no layer"),
    ({"operator": "RNN", "output_sequence": 1}, "has output_sequence = 1, which no layer"),
    ({"operator": "GRU", "constants": "input"}, "GRU node 'it' has input W = 'W', expected an ini"),
    ({"operator": "GRU", "hidden_size": 5}, r"R of GRU node 'it' has shape .*, expected H = 5"),
    (
        {"operator": "LSTM", "change": lambda a: a.update(B=a["B"][:, :-1])},
        r"B of LSTM node 'it' has shape \(1, 87\), expected \(D, 2\*G\*H\) = \(1, 88\)",
    ),
    (
        {"operator": "GRU", "change": lambda a: a.update(W=a["W"][0])},
        r"W of GRU node 'it' has shape \(33, 7\), expected 3 dimensions \(D, G\*H, I\)",
    ),
    (
        {"operator": "GRU", "change": lambda a: a.update(R=np.repeat(a["R"], 2, 0))},
        r"R of GRU node 'it' has shape \(2, 33, 11\), expected \(D, G\*H, H\) = \(1, 33, 11\)",
    ),
    (
        {"operator": "GRU", "state": "constant", "change": shorter("initial_h", 2)},
        r"initial_h of GRU node 'it' has shape \(1, 3, 10\), expected \(D, B, H\) = \(1, 3, 11\)",
    ),
    (
        {"operator": "LSTM", "state": "constant", "change": shorter("initial_c", 1)},
        r"initial_c of LSTM node 'it' has shape \(1, 2, 11\), expected \(D, B, H\) = \(1, 3, 11\)",
    ),
    (
        {"operator": "GRU", "state": "constant", "change": lambda a: a.update(initial_h=a["W"][0])},
        r"initial_h of GRU node 'it' has shape \(33, 7\), expected 3 dimensions \(D, B, H\)",
    ),
    (
        {
            "operator": "GRU",
            "lengths": "constant",
            "state": "constant",
            "change": shorter("sequence_lens", 0),
        },
        r"initial_h of GRU node 'it' has shape \(1, 3, 11\), expected \(D, B, H\) = \(1, 2, 11\)",
    ),
    (
        {
            "operator": "GRU",
            "lengths": "constant",
            "change": lambda a: a.update(sequence_lens=a["W"][0, 0]),
        },
        r"sequence_lens of GRU node 'it' has shape \(7,\) and dtype float32, expected integers",
    ),
    ({"operator": "RNN", "change": lambda a: a.pop("W")}, "RNN node 'it' has input W = ''"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda v: v if type(v) is str else "")
def test_load_says_what_it_cannot(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(node_model(**options)[0])


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_other_dtypes(dtype: Any) -> None:
    name = np.dtype(dtype).name
    match = f"W of GRU node 'it' has dtype {name}, expected float32 or float64"
    with pytest.raises(TypeError, match=match):
        load(node_model("GRU", dtype=dtype)[0])
    mixed, _ = node_model("GRU", change=lambda a: a.update(R=a["R"].astype(np.float64)))
    with pytest.raises(TypeError, match="R of GRU node 'it' has dtype float64, expected float32"):
        load(mixed)


def test_load_says_which_node(tmp_path: Path) -> None:
    export(make("gru", num_layers=2), tmp_path / "m.onnx")
    among = re.escape("expected one of the model's 'layer_0' (GRU), 'layer_1' (GRU)")
    with pytest.raises(ValueError, match=f"node is 'layer_2', {among}"):
        load(tmp_path / "m.onnx", "layer_2")
    node = helper.make_node("Relu", ["x"], ["y"], name="layer_0")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    other = helper.make_model(helper.make_graph([node], "g", infos[:1], infos[1:]))
    for name in (None, "layer_0"):
        with pytest.raises(ValueError, match="model has no RNN, GRU or LSTM node"):
            load(other, name)


def test_load_says_what_a_model_may_be() -> None:
    with pytest.raises(TypeError, match="model has type int, expected a path, bytes or onnx"):
        load(3)  # type: ignore[arg-type]


def test_the_package_onnx_is_asked_for(tmp_path: Path) -> None:
    text = "import sys; sys.modules['onnx'] = None; import rnnfast; import rnnfast.onnx"
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, text=True, timeout=60)
    message = "ImportError: rnnfast.onnx needs the onnx package: pip install rnnfast[onnx]"
    assert done.stderr.strip().splitlines()[-1] == message
