"""Backpropagation through time: truncated, and the gradient on its way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast import GRU, LSTM, RNN
from rnnfast.training import (
    GradientThroughTime,
    gradient_through_time,
    numerical_gradient,
    plot_gradient_through_time,
    streams,
    windows,
)

T, B, I, H = 5, 3, 2, 4
DOUBLE = {"dtype": np.float64, "rng": 0}


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_gradient_through_time_is_the_central_difference(kind: Any) -> None:
    """Displace the state after step t, run on from there, and see the loss move."""
    layer, x, dy = kind(I, H, 2, **DOUBLE), normal(T, B, I), normal(T, B, H, seed=1)
    gradient = gradient_through_time(layer, x, dy)
    assert gradient.norm.shape == (T + 1, 2, B)
    for t in range(T + 1):
        zeros = np.zeros((2, 2, B, H))
        state = layer(x[:t])[1] if t else (zeros[0] if kind is not LSTM else tuple(zeros))
        parts = list(state) if kind is LSTM else [state]

        def loss(t: int = t, parts: Any = parts) -> float:
            # the output of step t is the last layer's h, so it moves with the state
            own = np.vdot(dy[t - 1], parts[0][-1]) if t else 0.0
            if t == T:
                return float(own)
            y, _ = layer(x[t:], tuple(parts) if kind is LSTM else parts[0])
            return float(np.vdot(dy[t:], y) + own)

        given = [gradient.h[t]] if gradient.c is None else [gradient.h[t], gradient.c[t]]
        for part, expected in zip(parts, given, strict=True):
            np.testing.assert_allclose(numerical_gradient(loss, part), expected, atol=1e-8)


def test_gradient_of_a_linear_unit_grows_as_the_power_of_its_weight() -> None:
    layer = RNN(1, 1, nonlinearity="identity", bias=False, **DOUBLE)
    layer.params["weight_hh_l0"].fill(1.5)
    norm = gradient_through_time(layer, np.zeros((8, 1, 1)), dstate=np.ones((1, 1, 1))).norm
    np.testing.assert_allclose(norm[:, 0, 0], 1.5 ** np.arange(8, -1, -1), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_norm_of_a_vanishing_or_exploding_gradient(dtype: str, factor: float) -> None:
    """To the smallest and the largest numbers of the dtype, whose squares are none."""
    layer = RNN(1, 2, nonlinearity="identity", bias=False, dtype=dtype, rng=0)
    layer.params["weight_hh_l0"][...] = factor * np.eye(2)
    info = np.finfo(dtype)
    T = (-info.minexp if factor < 1 else info.maxexp) - 4
    dstate = np.array([[[3.0, 4.0]]], dtype)
    norm = gradient_through_time(layer, np.zeros((T, 1, 1), dtype), dstate=dstate).norm
    assert norm.dtype == np.float64
    expected = np.ldexp(5.0, np.arange(T, -1, -1) * (1 if factor > 1 else -1))
    np.testing.assert_allclose(norm[:, 0, 0], expected, rtol=1e-15)


def test_the_norm_is_of_h_and_c_together_and_of_what_is_not_finite() -> None:
    h, c = normal(3, 2, 4, 5), 1e-3 * normal(3, 2, 4, 5, seed=1)
    h[0, 0, 0], c[0, 0, 0] = 0, 0
    expected = np.sqrt((h**2).sum(axis=-1) + (c**2).sum(axis=-1))
    np.testing.assert_array_equal(GradientThroughTime(h, c).norm, expected)
    np.testing.assert_array_equal(GradientThroughTime(h, None).norm, np.sqrt((h**2).sum(axis=-1)))
    h[1, 1, 1, 1], c[2, 1, 1, 1] = np.inf, np.nan
    norm = GradientThroughTime(h, c).norm
    assert norm[1, 1, 1] == np.inf
    assert np.isnan(norm[2, 1, 1])
    assert np.isfinite(norm).sum() == norm.size - 2


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_gradient_through_time_is_that_of_one_call(kind: Any) -> None:
    """From a given state, with both upstream gradients; entry 0 is the initial state's."""
    layer, x, dy = kind(I, H, 2, **DOUBLE), normal(T, B, I), normal(T, B, H, seed=1)
    states = normal(4, 2, B, H, seed=2)
    state, dstate = (tuple(s) if kind is LSTM else s[0] for s in (states[:2], states[2:]))
    kept = [np.copy(a) for a in (x, dy, states)]
    gradient = gradient_through_time(layer, x, dy, dstate, state=state)
    whole = layer.backward(layer.forward(x, state)[2], dy, dstate).state
    parts = whole if kind is LSTM else (whole,)
    given = (gradient.h, gradient.c) if kind is LSTM else (gradient.h,)
    for part, track in zip(parts, given, strict=True):
        assert track is not None
        np.testing.assert_allclose(track[0], part, rtol=1e-12, atol=1e-14)
    last = states[2].copy()
    last[-1] += dy[-1]
    np.testing.assert_array_equal(gradient.h[-1], last)
    for before, after in zip(kept, (x, dy, states), strict=True):
        np.testing.assert_array_equal(before, after)


def test_gradient_through_time_refuses_what_it_cannot_follow() -> None:
    x = np.zeros((2, 1, 1), np.float32)
    with pytest.raises(ValueError, match="bidirectional=True"):
        gradient_through_time(GRU(1, 2, bidirectional=True), x, dy=x)
    with pytest.raises(ValueError, match="batch_first=True"):
        gradient_through_time(GRU(1, 2, batch_first=True), x, dy=x)
    with pytest.raises(ValueError, match=r"dropout=0\.5"):
        gradient_through_time(GRU(1, 2, 2, dropout=0.5), x, dy=x)
    with pytest.raises(ValueError, match="dy and dstate are both None"):
        gradient_through_time(GRU(1, 2), x)


def test_plot_of_the_gradient_through_time(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    layer, x = GRU(I, H, **DOUBLE), normal(T, B, I)
    norm = gradient_through_time(layer, x, dstate=np.ones((1, B, H))).norm
    figure = plot_gradient_through_time({"GRU": norm}, tmp_path / "plot.png")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "time step t"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.exp(np.log(norm).mean(axis=(1, 2))))
    gone = plot_gradient_through_time({"a": np.array([0.0, 1.0]), "b": np.float32([4, 9])}).axes[0]
    np.testing.assert_allclose(gone.lines[0].get_ydata(), [0, 1])
    np.testing.assert_allclose(gone.lines[1].get_ydata(), [4, 9], rtol=1e-14)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_streams_and_windows() -> None:
    pieces = streams(np.arange(11), 3)
    np.testing.assert_array_equal(pieces.T, [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    assert pieces.flags.c_contiguous
    cut = list(windows(2, pieces, 10 * pieces))
    assert [len(a) for a, _ in cut] == [2, 1]
    np.testing.assert_array_equal(np.concatenate([b for _, b in cut]), 10 * pieces)
    with pytest.raises(ValueError, match="batch is 12, expected 1 to 11"):
        streams(np.arange(11), 12)
    for batch, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match=r"^batch "):
            streams(np.arange(11), batch)
    with pytest.raises(ValueError, match="length is 0"):
        next(windows(0, pieces))
    with pytest.raises(TypeError, match="length has type float, expected an integer"):
        next(windows(2.0, pieces))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"arrays have \[3, 2\] steps"):
        next(windows(2, pieces, pieces[:2]))


def test_truncated_bptt_over_one_window_is_the_whole_gradient() -> None:
    """Windows with the carried state give the same outputs; the gradient is cut at their edges."""
    layer, x, dy = LSTM(I, H, **DOUBLE), normal(T, B, I), normal(T, B, H, seed=1)
    whole = layer.forward(x)
    full = layer.backward(whole[2], dy).params
    for length, same in ((T, True), (2, False)):
        state, outputs, total = None, [], {n: np.zeros_like(p) for n, p in layer.params.items()}
        for x_part, dy_part in windows(length, x, dy):
            y, state, tape = layer.forward(x_part, state)
            layer.backward(tape, dy_part, accumulate=total)
            outputs.append(y)
        np.testing.assert_allclose(np.concatenate(outputs), whole[0], rtol=1e-12)
        assert np.allclose(total["weight_hh_l0"], full["weight_hh_l0"], rtol=1e-9) == same
