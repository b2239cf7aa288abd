"""Cells for irregular and long times: what they do where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from some_cells import gru_reset_before, lstm, problem

import rnnfast
from rnnfast import cells, functional
from rnnfast.cells import _timed

Array = np.ndarray[Any, Any]


def forward(cell: cells.Cell, given: dict[str, Any], **extra: Any) -> tuple[Array, Any, Any]:
    arguments = given["x"], given["state"], given["params"]
    return functional.cell_forward(cell, *arguments, extra=extra)


# ------------------------------------------------------------------------------- missing values


def test_gru_d_with_all_values_is_a_gru() -> None:
    T, B, I, H = 6, 4, 3, 7
    given = problem(cells.gru_d, T, B, I, H)
    params = given["params"]
    params["decay_h.bias"][...] = -np.abs(params["decay_h.bias"])  # no decay: relu(b) = 0
    y, (h, last), _ = forward(
        cells.gru_d, given, m=np.ones((T, B, I), bool), delta=np.zeros((T, B, I))
    )
    own = {n: p for n, p in params.items() if not n.startswith("decay") and n != "mean"}
    for name in "rzn":
        own[f"{name}.bias"] = own[f"{name}.bias"] + own.pop(f"{name}.weight_m").sum(axis=1)
    own["z.weight_x"], own["z.weight_h"] = -own["z.weight_x"], -own["z.weight_h"]
    own["z.bias"] = -own["z.bias"]  # 1 - z is the other one's z
    expected = functional.cell_forward(gru_reset_before, given["x"], given["state"][:1], own)
    np.testing.assert_allclose(y, expected[0], atol=1e-14)
    np.testing.assert_array_equal(last, given["x"][-1])
    np.testing.assert_array_equal(h, y[-1])


def test_gru_d_does_not_read_what_is_missing() -> None:
    T, B, I, H = 9, 5, 3, 7
    given, rng = problem(cells.gru_d, T, B, I, H), np.random.default_rng(0)
    seen, delta = rng.random((T, B, I)) < 0.5, rng.uniform(0, 2, (T, B, I))
    found = []
    for missing in (0.0, np.nan, 1e300):
        given["x"][~seen] = missing
        y, state, tape = forward(cells.gru_d, given, m=seen, delta=delta)
        grads = functional.cell_backward(tape, np.ones_like(y))
        assert (grads.x[~seen] == 0).all()
        found.append([y, *state, grads.x, *grads.state, *grads.params.values()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_gru_d_layer_has_the_sizes_of_its_input() -> None:
    layer = rnnfast.Recurrent(cells.gru_d, 3, 8, rng=0)
    x = np.ones((4, 2, 3), np.float32)
    extra = {"m": np.ones((4, 2, 3), bool), "delta": np.ones(1, np.float32)}
    y, (h, last), tape = layer.forward(x, extra=extra)
    assert (h.shape, last.shape) == ((1, 2, 8), (1, 2, 3))
    grads = layer.backward(tape, np.ones_like(y))
    assert grads.params["decay_x_l0"].shape == (3,)
    stream = layer.stream(2)
    np.testing.assert_array_equal(stream.run(x, extra=extra), y)
    with pytest.raises(
        ValueError, match=r"num_layers is 2, expected 1: last has the size of x, wh"
    ):
        rnnfast.Recurrent(cells.gru_d, 3, 8, 2)
    assert rnnfast.Recurrent(cells.gru_d, 8, 8, 2).num_layers == 2  # the sizes are equal


def test_sizes_that_are_none() -> None:
    for size, message in ((0, "is 0, expected at least 1"), ("y", "has type str"), (2.0, "float")):
        with pytest.raises((TypeError, ValueError), match=rf"sizes\['m'\] .*{message}"):
            rnnfast.Recurrent(cells.gru_d, 3, 8, sizes={"m": size})


# ----------------------------------------------------------------------------------- clocks


def test_t_lstm_without_a_gap_is_an_lstm() -> None:
    given = problem(cells.t_lstm, 6, 4, 3, 7)
    y, _, _ = forward(cells.t_lstm, given, gap=np.zeros(1))
    own = {n: p for n, p in given["params"].items() if not n.startswith("short")}
    expected, _, _ = functional.cell_forward(lstm, given["x"], given["state"], own)
    np.testing.assert_allclose(y, expected, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_are_exact(dtype: Any) -> None:
    @cells.cell(state="h", extra="v", sizes={"v": 1, "h": 1})
    def fraction(x, h, v):
        return _timed._fraction(v)

    rng = np.random.default_rng(0)
    parts = [2.0 ** rng.uniform(-30, 20, 5000), np.arange(4096), 2.0 ** np.arange(20), [0.0]]
    v = np.concatenate(parts).astype(dtype)
    v = np.concatenate([v, np.nextafter(v[v > 0], dtype(0)), [dtype(2) ** 20 - dtype(0.125)]])
    x = np.zeros((len(v), 1, 1), dtype)
    y, _, tape = functional.cell_forward(fraction, x, None, {}, extra={"v": v[:, None, None]})
    np.testing.assert_array_equal(y.ravel(), np.mod(v, 1))
    grads = functional.cell_backward(tape, np.ones_like(y))
    assert (grads.extra["v"] == 1).all()
    below = -rng.uniform(0, 64, 1000).astype(dtype)
    x = np.zeros((1000, 1, 1), dtype)
    y, _, _ = functional.cell_forward(fraction, x, None, {}, extra={"v": below[:, None, None]})
    np.testing.assert_allclose(y.ravel(), np.mod(below, 1), atol=64 * np.finfo(dtype).eps)


def phased_problem(phase: Array, r_on: float) -> dict[str, Any]:
    given = problem(cells.phased_lstm(), len(phase), 3, 2, 5)
    given["params"]["tau"][...], given["params"]["shift"][...] = 4, 0
    given["params"]["r_on"][...] = r_on
    return given


def test_phased_lstm_that_is_open_is_an_lstm() -> None:
    phase = np.full(6, 0.5) + np.arange(6)  # in the middle of the opening, at r_on / 2
    given = phased_problem(phase, 1.0)
    y, _, _ = forward(cells.phased_lstm(), given, t=4 * phase[:, None, None], leaking=np.ones(1))
    own = {n: p for n, p in given["params"].items() if "." in n}
    expected, _, _ = functional.cell_forward(lstm, given["x"], given["state"], own)
    np.testing.assert_allclose(y, expected, atol=1e-14)


def test_phased_lstm_opens_and_shuts() -> None:
    """The share of the new state at each phase, with r_on = 0.4."""
    layer = rnnfast.Recurrent(cells.phased_lstm(4.0, 4.0), 2, 5, rng=0, dtype=np.float64)
    layer.params["shift_l0"][...], layer.params["r_on_l0"][...] = 0.0, 0.4
    phases = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.9])
    for run, leak in ((layer.forward, 0.001), (layer.__call__, 0.0)):
        for phase, k in zip(phases, [0, 0.5, 1, 0.5, 0.5 * leak, 0.9 * leak], strict=True):
            x, state = np.ones((1, 1, 2)), (np.full((1, 1, 5), 0.7), np.full((1, 1, 5), -0.3))
            extra = {"t": np.array([4 * (phase + 3)])}
            h, c = run(x, state, extra=extra)[1]
            full = run(x, state, extra={"t": np.array([4 * 7.2])})[1]  # wide open
            np.testing.assert_allclose(h, k * full[0] + (1 - k) * 0.7, atol=1e-12)
            np.testing.assert_allclose(c, k * full[1] - (1 - k) * 0.3, atol=1e-12)


def test_periods_begin_log_uniformly() -> None:
    layer = rnnfast.Recurrent(cells.phased_lstm(2.0, 200.0), 1, 999, rng=0)
    share = np.log(layer.params["tau_l0"] / 2) / np.log(100)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=4 * 0.29 / 999**0.5)
    shift = layer.params["shift_l0"]
    assert shift.mean() == pytest.approx(0.5, abs=4 * 0.29 / 999**0.5)
    assert (layer.params["r_on_l0"] == np.float32(0.05)).all()
    same = rnnfast.Recurrent(cells.phased_lstm(2.0, 200.0), 1, 999, rng=0)
    np.testing.assert_array_equal(same.params["tau_l0"], layer.params["tau_l0"])
    for shortest, longest in ((0, 1), (2, 1), (-1, 1), (math.nan, 1)):
        with pytest.raises(ValueError, match="expected 0 < shortest <= longest"):
            cells.phased_lstm(shortest, longest)


# ------------------------------------------------------------------------------ linear recurrence


def poles(layer: rnnfast.Recurrent) -> Array:
    nu, theta = (layer.params[f"{name}_l0"].astype(float) for name in ("nu", "theta"))
    return np.exp(-np.exp(nu) + 2j * np.arctan(np.exp(theta)))


def test_eigenvalues_begin_in_the_ring() -> None:
    layer = rnnfast.Recurrent(cells.lru(0.5, 0.9, 0.3), 2, 999, rng=0)
    a = poles(layer)
    assert np.abs(a).min() >= 0.5 - 1e-6
    assert np.abs(a).max() <= 0.9 + 1e-6
    assert np.angle(a).min() > 0
    assert np.angle(a).max() <= 0.3 + 1e-6
    share = (np.abs(a) ** 2 - 0.25) / 0.56  # of the ring's area
    for values in (share, np.angle(a) / 0.3):
        assert values.mean() == pytest.approx(0.5, abs=4 * 0.29 / 999**0.5)


def test_an_impulse_rings_with_the_eigenvalues() -> None:
    T, H = 200, 7
    layer = rnnfast.Recurrent(cells.lru(0.9, 0.999), 1, H, rng=0, dtype=np.float64)
    x = np.zeros((T, 1, 1))
    x[0] = 1
    a = poles(layer)
    B = layer.params["b_re.weight_x_l0"][:, 0] + 1j * layer.params["b_im.weight_x_l0"][:, 0]
    C = layer.params["y.weight_re_l0"] - 1j * layer.params["y.weight_im_l0"]
    z = a ** np.arange(T)[:, None] * np.sqrt(1 - np.abs(a) ** 2) * B
    expected = (z @ C.T).real
    expected[0] += layer.params["y.weight_x_l0"][:, 0]
    y, (re, im) = layer(x)
    np.testing.assert_allclose(y[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(re[0, 0] + 1j * im[0, 0], z[-1], atol=1e-12)


@pytest.mark.parametrize("nu", [-40.0, -20.0, 5.0])
@pytest.mark.parametrize("theta", [-30.0, 0.0, 30.0])
def test_gradients_stay_finite_at_the_rims(nu: float, theta: float) -> None:
    """In float32 the radius is 1 from nu = -17 down."""
    layer = rnnfast.Recurrent(cells.lru(), 2, 5, rng=0)
    layer.params["nu_l0"][...], layer.params["theta_l0"][...] = nu, theta
    x = np.ones((9, 2, 2), np.float32)
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    for name, value in {"y": y, "x": grads.input, **grads.params}.items():
        assert np.isfinite(value).all(), name


def test_radii_and_angles_that_are_none() -> None:
    for r_min, r_max in ((0.5, 0.5), (-0.1, 1), (0, 1.1), (math.nan, 1)):
        with pytest.raises(ValueError, match="expected 0 <= r_min < r_max <= 1"):
            cells.lru(r_min, r_max)
    for angle in (0, 3.2, -1, math.nan):
        with pytest.raises(ValueError, match="max_angle is"):
            cells.lru(max_angle=angle)
    with pytest.raises(TypeError, match="r_max has type str"):
        cells.lru(r_max="1")
