"""Real-time recurrent learning: the gradient of backpropagation through time, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast import LSTM, RNN, functional
from rnnfast.training import RTRL, SGD, sigmoid_cross_entropy

T, B, I, H = 25, 2, 3, 7


def layer_of(nonlinearity: str = "sigmoid", bias: bool = True, dtype: Any = np.float64) -> RNN:
    return RNN(I, H, nonlinearity=nonlinearity, bias=bias, dtype=dtype, rng=0)


def sequence(dtype: Any = np.float64) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    return x.astype(dtype), dy.astype(dtype)


def by_bptt(layer: RNN, x: Any, dy: Any) -> tuple[Any, dict[str, Any]]:
    """Outputs and gradients of `rnnfast.functional`."""
    w_ih, w_hh, *biases = layer.params.values()
    y, _, tape = functional.rnn_forward(
        x, None, w_ih, w_hh, *biases, nonlinearity=layer.nonlinearity
    )
    grads = functional.rnn_backward(tape, dy)
    found = {"weight_ih_l0": grads.w_ih, "weight_hh_l0": grads.w_hh}
    if biases:
        found |= {"bias_ih_l0": grads.b_ih, "bias_hh_l0": grads.b_hh}
    return y, found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh", "relu", "identity"])
def test_the_sum_over_the_steps_is_the_gradient_of_bptt(nonlinearity: str, bias: bool) -> None:
    layer, (x, dy) = layer_of(nonlinearity, bias), sequence()
    y, wanted = by_bptt(layer, x, dy)
    online = RTRL(layer, batch_size=B)
    total = {name: np.zeros_like(p) for name, p in layer.params.items()}
    for t in range(T):
        np.testing.assert_allclose(online.step(x[t]), y[t], rtol=1e-12, atol=1e-13)
        for name, g in online.gradient(dy[t]).items():
            total[name] += g
    assert total.keys() == wanted.keys()
    for name, g in wanted.items():
        assert np.abs(total[name] - g).max() <= 1e-12 * max(1, np.abs(g).max()), name


def test_each_step_has_the_gradient_of_its_own_loss() -> None:
    layer, (x, dy) = layer_of(), sequence()
    online = RTRL(layer, batch_size=B)
    for t in range(T):
        online.step(x[t])
        alone = np.zeros((t + 1, B, H))
        alone[t] = dy[t]
        for name, g in by_bptt(layer, x[: t + 1], alone)[1].items():
            np.testing.assert_allclose(online.gradient(dy[t])[name], g, rtol=0, atol=1e-13)


def test_a_gradient_before_the_activation_is_that_of_the_cross_entropy() -> None:
    layer, (x, _) = layer_of(), sequence()
    target = np.random.default_rng(2).integers(0, 2, (T, B, H)).astype(float)
    online = RTRL(layer, batch_size=B)
    for t in range(T):
        y = online.step(x[t])
        logits = np.log(y / (1 - y))
        _, da = sigmoid_cross_entropy(logits, target[t])
        before = online.gradient((y - target[t]) / (B * H), preactivation=True)
        after = online.gradient(da / (y * (1 - y)))
        for name in before:
            np.testing.assert_allclose(before[name], after[name], rtol=1e-10, atol=1e-15)


def test_one_row_needs_no_batch_axis() -> None:
    layer, (x, dy) = layer_of(), sequence()
    one, row = RTRL(layer), RTRL(layer)
    for t in range(3):
        h = one.step(x[t, 0])
        assert h.shape == (H,)
        np.testing.assert_array_equal(row.step(x[t, :1]), h[None])
        for name, g in one.gradient(dy[t, 0]).items():
            np.testing.assert_array_equal(row.gradient(dy[t, :1])[name], g)
    assert one.state.shape == (1, H)


def test_after_a_reset_it_is_as_new() -> None:
    layer, (x, dy) = layer_of("tanh"), sequence()  # whose slope at 0 is not 0
    online, new = RTRL(layer, batch_size=B), RTRL(layer, batch_size=B)
    for t in range(4):
        online.step(x[t])
    online.reset()
    assert not online.state.any()
    np.testing.assert_array_equal(online.step(x[9]), new.step(x[9]))
    for name, g in online.gradient(dy[0]).items():
        np.testing.assert_array_equal(new.gradient(dy[0])[name], g)


def test_results_are_copies_and_weights_are_read_anew() -> None:
    layer, (x, dy) = layer_of(), sequence()
    online, other = RTRL(layer, batch_size=B), RTRL(layer, batch_size=B)
    for run in (online, other):
        run.step(x[0])
    h, grads = online.step(x[1]), online.gradient(dy[0])
    h.fill(np.nan)
    for g in grads.values():
        g.fill(np.nan)
    other.step(x[1])
    optimizer = SGD(layer, lr=0.5)
    optimizer.step(other.gradient(dy[0]))
    np.testing.assert_array_equal(online.step(x[2]), other.step(x[2]))
    assert np.isfinite(online.state).all()
    expected = 1 / (1 + np.exp(-(x[3] @ layer.params["weight_ih_l0"].T
        + online.state @ layer.params["weight_hh_l0"].T
        + layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"])))  # fmt: skip
    np.testing.assert_allclose(online.step(x[3]), expected, rtol=1e-13)


def test_float32_stays_float32() -> None:
    layer, (x, dy) = layer_of(dtype=np.float32), sequence(np.float32)
    online = RTRL(layer, batch_size=B)
    assert online.step(x[0]).dtype == np.float32
    assert {g.dtype for g in online.gradient(dy[0]).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RTRL(LSTM(I, H)), TypeError, "layer has type LSTM, expected rnnfast.RNN"),  # type: ignore[arg-type]
        (lambda: RTRL(RNN(I, H, 2)), ValueError, "num_layers=2, bidirectional=False, expected one"),
        (lambda: RTRL(RNN(I, H, bidirectional=True)), ValueError, "bidirectional=True"),
        (lambda: RTRL(layer_of(), 0), ValueError, "batch_size is 0, expected at least 1"),
        (lambda: RTRL(layer_of(), 1.0), TypeError, "batch_size has type float"),  # type: ignore[arg-type]
        (lambda: RTRL(layer_of()).step([0.0] * I), TypeError, "x has type list"),  # type: ignore[arg-type]
        (lambda: RTRL(layer_of()).step(np.zeros(I, "f4")), TypeError, "x has dtype float32"),
        (lambda: RTRL(layer_of()).step(np.zeros(2)), ValueError, r"x has shape \(2,\), .*\(I,\)"),
        (lambda: RTRL(layer_of(), 2).step(np.zeros(I)), ValueError, r"expected \(B, I\) = \(2, 3"),
        (lambda: RTRL(layer_of()).gradient(np.zeros(2)), ValueError, r"dh has shape \(2,\)"),
    ],
)
def test_wrong_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
