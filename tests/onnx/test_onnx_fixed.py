"""ONNX: layers of nodes that fix a direction, initial states or lengths."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import (
    LENGTHS,
    Array,
    B,
    H,
    T,
    assert_close,
    assert_same,
    data,
    node_model,
    outputs,
    run,
)

import rnnfast
from rnnfast.onnx import export, load


@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_reverse_runs_backward_through_time(operator: str) -> None:
    model, inputs = node_model(operator, direction="reverse")
    layer: Any = load(model)
    names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
    weights = {short: layer.params[f"{name}_l0"] for short, name in names.items()}
    options: dict[str, Any] = {"lengths": LENGTHS, "reverse": True}
    options |= {"reset_after": False} if operator == "GRU" else {}
    start = [None] * (1 + (operator == "LSTM"))
    functions = rnnfast.functional
    forward = getattr(functions, f"{operator.lower()}_forward")
    y, *_, tape = forward(inputs["X"], *start, **weights, **options)
    grads = getattr(functions, f"{operator.lower()}_backward")(tape, y)
    y_layer, _, tape = layer.forward(inputs["X"], lengths=LENGTHS)
    assert_same([y_layer], [y])
    got = layer.backward(tape, y)
    want = [getattr(grads, short) for short in names]
    assert_same([got.input, *got.params.values()], [grads.x, *want])


def fixed_layer() -> Any:
    """An LSTM with constant states and lengths, in reverse."""
    return load(node_model("LSTM", direction="reverse", state="constant", lengths="constant")[0])


def test_what_a_call_passes_comes_first() -> None:
    layer, plain = fixed_layer(), load(node_model("LSTM", direction="reverse")[0])
    x, state = data(layer)
    options = {"state": state, "lengths": LENGTHS}
    assert_same(outputs(layer, x, **options), outputs(plain, x, **options))
    fixed = outputs(plain, x, layer.initial_state, lengths=layer.lengths)
    assert_same(outputs(layer, x), fixed)
    assert not np.array_equal(fixed[0], outputs(plain, x)[0])
    with pytest.raises(ValueError, match=r"initial_state\[0\] has shape \(1, 3, 11\), .* \(1, 2,"):
        layer(x[:, :2], lengths=LENGTHS[:2])


def test_its_own_state_and_lengths_are_named_where_they_do_not_fit() -> None:
    x, _ = data(load(node_model("LSTM")[0]), rows=5)
    layer: Any = load(node_model("LSTM", state="constant")[0])
    own = r"it is the loaded node's own, pass a state to start elsewhere"
    shapes = r"has shape \(1, 3, 11\), expected \(L\*D, B, P\) = \(1, 5, 11\)"
    for call in (layer, layer.forward, lambda x: layer.stream(5)):
        with pytest.raises(ValueError, match=rf"^initial_state\[0\] {shapes}: {own}"):
            call(x)
    assert layer(x, (None, None))[0].shape == (T, 5, H)
    only_c, _ = node_model("LSTM", state="constant", change=lambda a: a.pop("initial_h"))
    with pytest.raises(ValueError, match=rf"^initial_state\[1\] {shapes.replace('P', 'H')}: {own}"):
        load(only_c)(x)
    gru = load(node_model("GRU", state="constant")[0])
    with pytest.raises(ValueError, match=f"^initial_state {shapes}: {own}"):
        gru(x)
    with pytest.raises(
        ValueError, match=r"^initial_state .* expected \(L\*D, P\) = \(1, 11\): it is"
    ):
        gru(x[:, 0])


def test_its_own_lengths_are_named_where_they_do_not_fit() -> None:
    layer = load(node_model("GRU", lengths="constant")[0])
    x, _ = data(load(node_model("GRU")[0]), rows=5)
    own = "they are the loaded node's own, pass lengths to replace them"
    with pytest.raises(ValueError, match=rf"^lengths has shape \(3,\), .* \(5,\): {own}"):
        layer(x)
    with pytest.raises(ValueError, match=f"^lengths has values from 1 to 5, .* T = 2: {own}"):
        layer(x[:2, :3])
    with pytest.raises(
        ValueError, match=r"lengths is the loaded node's own, but x with shape \(5, 7\)"
    ):
        layer(x[:, 0])
    assert layer(x, lengths=[1, 2, 3, 4, 5])[0].shape == (T, 5, H)


def test_its_own_state_of_one_row_serves_input_without_batch_axis() -> None:
    def first(arrays: dict[str, Array]) -> None:
        arrays.update({n: a[:, :1] for n, a in arrays.items() if n.startswith("initial")})

    for operator in ("GRU", "LSTM"):
        layer = load(node_model(operator, state="constant", change=first)[0])
        x, _ = data(layer, rows=1)
        y, *states = outputs(layer, x)
        assert_same(outputs(layer, x[:, 0]), [y[:, 0], *(part[:, 0] for part in states)])


def test_it_is_exported_as_it_was(tmp_path: Path) -> None:
    for options in (
        {"operator": "LSTM", "direction": "reverse", "state": "constant", "lengths": "constant"},
        {"operator": "GRU", "direction": "forward", "state": "constant"},
        {"operator": "RNN", "direction": "bidirectional", "lengths": "constant"},
        {"operator": "LSTM", "state": "constant", "lengths": "constant",
         "change": lambda arrays: arrays.pop("initial_c")},
    ):  # fmt: skip
        model, inputs = node_model(**options)
        layer = load(model)
        export(layer, tmp_path / "m.onnx")
        want = outputs(layer, inputs["X"])
        assert_close(run(tmp_path / "m.onnx", {"x": inputs["X"]}), want)
        assert_same(outputs(load(tmp_path / "m.onnx"), inputs["X"]), want)


def test_it_is_copied_and_pickled_as_it_is() -> None:
    layer = fixed_layer()
    x, _ = data(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(outputs(twin, x), outputs(layer, x))


def test_streams() -> None:
    layer: Any = load(node_model("LSTM", state="constant")[0])
    x, state = data(layer)
    assert_same([layer.stream(B).run(x)], [layer(x)[0]])
    assert_same([layer.stream(B, state).run(x)], [layer(x, state)[0]])
    with pytest.raises(ValueError, match="layer runs in reverse"):
        fixed_layer().stream(B)
    with pytest.raises(ValueError, match="layer has lengths of its own"):
        load(node_model("GRU", lengths="constant")[0]).stream(B)
