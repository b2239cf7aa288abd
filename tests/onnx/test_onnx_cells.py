"""ONNX: nodes that need a cell of their own, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import (
    ELU,
    GATES,
    TWO_CELLS,
    Array,
    H,
    assert_close,
    assert_like,
    assert_same,
    helper,
    joined,
    node_model,
    outputs,
    run,
    to_onnx,
    with_peepholes,
)

from rnnfast import GRU, LSTM, RNN, Recurrent
from rnnfast.onnx import NodeRecurrent, backend, load

NAMES = (
    "Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus",
    "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
ALPHA = {"Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu"}
BETA = {"Affine", "HardSigmoid", "ScaledTanh"}
COUNTS = {"RNN": 1, "GRU": 2, "LSTM": 3}


def case(operator: str, seed: int) -> dict[str, Any]:
    """The arguments of `node_model` for a random node, with all numbers of its activations."""
    rng = np.random.default_rng([seed, len(operator), 7])
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count = COUNTS[operator] * (1 + (direction == "bidirectional"))
    names = [str(name) for name in rng.choice(NAMES, count)]
    options: dict[str, Any] = {
        "operator": operator,
        "direction": direction,
        "activations": names,
        "activation_alpha": [float(rng.uniform(-0.5, 1)) for name in names if name in ALPHA],
        "activation_beta": [float(rng.uniform(-0.5, 1)) for name in names if name in BETA],
        "bias": bool(rng.integers(2)),
        "state": str(rng.choice(["absent", "input", "constant"])),
        "lengths": str(rng.choice(["absent", "input", "constant"])),
    }
    options = {name: value for name, value in options.items() if value != []}
    if rng.integers(2):
        options["clip"] = float(rng.uniform(0.1, 1.5))
    if operator == "GRU":
        options["linear_before_reset"] = int(rng.integers(2))
    peepholes = operator == "LSTM" and rng.integers(2)
    if operator == "LSTM":
        options["input_forget"] = int(rng.integers(2))

    def change(arrays: dict[str, Array]) -> None:
        values = np.random.default_rng([seed, 5])
        if peepholes:
            arrays["P"] = np.empty((count // 3, 3 * H), np.float32)
        for name, array in arrays.items():
            if array.dtype == np.float32:
                bound = 0.4 if name in "WR" else 1.0
                arrays[name] = values.uniform(-bound, bound, array.shape).astype(np.float32)

    return options | {"change": change}


def results(model: Any, inputs: dict[str, Array]) -> list[Array]:
    """What the layer of a model of one node computes, in the shapes of the node's outputs."""
    layer: Any = load(model)
    state = [inputs[n] for n in ("initial_h", "initial_c") if n in inputs]
    given = joined(state) if state else None
    got = outputs(layer, inputs["X"], given, lengths=inputs.get("sequence_lens"))
    return to_onnx(got, 1 + layer.bidirectional)


def is_at_a_jump(options: dict[str, Any]) -> bool:
    """Whether the threshold of a ThresholdedRelu, a little higher or lower, changes the result."""
    if "ThresholdedRelu" not in options["activations"]:
        return False
    users = [name for name in options["activations"] if name in ALPHA]
    moved = []
    for step in (-1e-4, 1e-4):
        numbers = zip(users, options["activation_alpha"], strict=True)
        alpha = [a + step * (name == "ThresholdedRelu") for name, a in numbers]
        moved.append(results(*node_model(**options | {"activation_alpha": alpha})))
    return not all(map(np.array_equal, *moved))


@pytest.mark.parametrize("operator", GATES)
def test_random_nodes_agree_with_onnx_runtime(operator: str) -> None:
    compared = 0
    for seed in range(110):
        options = case(operator, seed)
        if is_at_a_jump(options):
            continue
        model, inputs = node_model(**options)
        want = run(model, inputs)
        in_order = list(inputs.values())
        got = results(model, inputs) if seed % 2 else backend.run_model(model, in_order)
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape
            assert np.isfinite(a).all(), (seed, options)
            if np.isfinite(b).all():
                assert np.abs(a - b).max() <= 2e-5 * (1 + np.abs(b).max()), (seed, options)
            else:  # its Softplus overflows
                assert "Softplus" in options["activations"], (seed, options)
        compared += all(np.isfinite(b).all() for b in want)
    assert compared > 100


# --------------------------------------------------------------------------------- which layer


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"operator": "RNN", "activations": ["Affine"], "activation_alpha": [1.0]}, RNN),
        ({"operator": "RNN", "activations": ["Tanh", "Tanh"]}, RNN),  # as its default has them
        ({"operator": "RNN", "activations": ["Affine"], "activation_alpha": [0.5]}, Recurrent),
        ({"operator": "RNN", **ELU}, Recurrent),
        ({"operator": "RNN", **ELU, "direction": "reverse"}, NodeRecurrent),
        ({"operator": "RNN", **ELU, "state": "constant"}, NodeRecurrent),
        ({"operator": "RNN", **ELU, "lengths": "constant"}, NodeRecurrent),
        ({"operator": "GRU", "linear_before_reset": 1}, GRU),
        ({"operator": "GRU", "linear_before_reset": 1, "clip": 0.5}, Recurrent),
        ({"operator": "GRU", "activations": ["Tanh", "Sigmoid"]}, Recurrent),
        ({"operator": "LSTM", "input_forget": 0}, LSTM),
        ({"operator": "LSTM", "input_forget": 1}, Recurrent),
        ({"operator": "LSTM", "clip": 0.5, "direction": "bidirectional"}, Recurrent),
        (TWO_CELLS, NodeRecurrent),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_built_in_layer_where_one_fits_and_a_cell_elsewhere(
    options: dict[str, Any], kind: Any
) -> None:
    model, inputs = node_model(**options)
    assert type(load(model)) is kind
    assert_close(results(model, inputs), run(model, inputs))


def test_numbers_that_no_activation_is_left_for_are_not_used() -> None:
    names = {"activations": ["Sigmoid", "Elu", "Tanh"], "clip": 0.5}
    model, inputs = node_model("LSTM", **names, activation_alpha=[0.5, 2.0, 0.7])
    assert_close(results(model, inputs), run(model, inputs))
    exact, _ = node_model("LSTM", **names, activation_alpha=[0.5])
    assert_like(load(model), load(exact))


def test_numbers_that_are_missing_are_those_of_the_text() -> None:
    """ONNX Runtime's defaults are others for ThresholdedRelu."""
    spelled: list[tuple[str, list[float], list[float]]] = [
        ("ThresholdedRelu", [1.0], []), ("LeakyRelu", [0.01], []), ("Elu", [1.0], []),
        ("HardSigmoid", [0.2], [0.5]),
    ]  # fmt: skip
    for name, alpha, beta in spelled:
        numbers = {"activation_alpha": alpha} | ({"activation_beta": beta} if beta else {})
        silent, inputs = node_model("RNN", activations=[name], clip=3.0)
        full, _ = node_model("RNN", activations=[name], clip=3.0, **numbers)
        got = outputs(load(silent), inputs["X"])
        want = run(full, inputs)
        np.testing.assert_allclose(to_onnx(got, 1)[0], want[0], rtol=0, atol=1e-5, err_msg=name)


def test_peepholes_must_be_constant() -> None:
    model, _ = node_model("LSTM", change=with_peepholes)
    load(model)
    (tensor,) = (t for t in model.graph.initializer if t.name == "P")
    model.graph.initializer.remove(tensor)
    model.graph.input.append(helper.make_tensor_value_info("P", 1, [1, 3 * H]))
    with pytest.raises(ValueError, match="LSTM node 'it' has input P = 'P', expected an initial"):
        load(model)


def test_float64() -> None:
    options: dict[str, Any] = {"operator": "LSTM", "clip": 0.5, "change": with_peepholes}
    with pytest.raises(TypeError, match="P of LSTM node 'it' has dtype float32, expected float64"):
        load(node_model(**options, dtype=np.float64)[0])

    def wide(arrays: dict[str, Array]) -> None:
        with_peepholes(arrays)
        arrays["P"] = arrays["P"].astype(np.float64)

    model, inputs = node_model(**options | {"change": wide, "dtype": np.float64})
    narrow, narrow_inputs = node_model(**options)
    assert load(model).dtype == np.float64
    for a, b in zip(results(model, inputs), run(narrow, narrow_inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_layout_1() -> None:
    options: dict[str, Any] = {"operator": "LSTM", "clip": 0.5, "change": with_peepholes}
    rows_first, _ = node_model(**options, layout=1)
    steps_first, inputs = node_model(**options)
    layer = load(rows_first)
    assert layer.batch_first
    y, *states = outputs(layer, inputs["X"].swapaxes(0, 1))
    assert_same([y.swapaxes(0, 1), *states], outputs(load(steps_first), inputs["X"]))
