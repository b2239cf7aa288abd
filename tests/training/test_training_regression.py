"""Losses of numbers: values against their definition, where they are least, their kinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    gaussian_nll,
    huber_loss,
    l1_loss,
    mean_squared_error,
    numerical_gradient,
    quantile_loss,
)


def normal(*shape: int, rng: int = 0) -> Any:
    return np.random.default_rng(rng).standard_normal(shape)


def test_the_huber_loss_is_squared_inside_and_absolute_outside() -> None:
    y, t = 3 * normal(53), normal(53, rng=1)
    small, error = np.abs(y - t) <= 0.7, np.abs(y - t)
    assert 5 < small.sum() < 48
    expected = np.where(small, error**2 / 2, 0.7 * (error - 0.35)).mean()
    assert huber_loss(y, t, delta=0.7)[0] == pytest.approx(expected, rel=1e-14)
    value, dy = huber_loss(y, t, delta=100.0)
    squared, d_squared = mean_squared_error(y, t)
    assert value == pytest.approx(squared / 2, rel=1e-14)
    np.testing.assert_allclose(dy, d_squared / 2, rtol=1e-14)
    value, dy = huber_loss(y, t, delta=1e-9)
    assert value * 1e9 == pytest.approx(l1_loss(y, t)[0], rel=1e-7)
    np.testing.assert_allclose(dy * 1e9, l1_loss(y, t)[1], rtol=1e-7)


def test_quantile_loss_is_that_of_the_definition() -> None:
    y, t, q = normal(4, 3, 2), normal(4, 3, rng=1), [0.1, 0.8]
    total = 0.0
    for index in np.ndindex(y.shape):
        error = t[index[:2]] - y[index]
        total += max(q[index[2]] * error, (q[index[2]] - 1) * error)
    assert quantile_loss(y, t, q)[0] == pytest.approx(total / 24, rel=1e-14)
    absolute = l1_loss(y[..., 0], t)
    value, dy = quantile_loss(y[..., :1].copy(), t, [0.5])
    assert value == pytest.approx(absolute[0] / 2, rel=1e-14)
    np.testing.assert_allclose(dy[..., 0], absolute[1] / 2, rtol=1e-14)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.9])
def test_the_quantile_is_where_the_loss_is_least(q: float) -> None:
    t = normal(1001)
    guesses = np.linspace(-3, 3, 601)
    values = [quantile_loss(np.full((1001, 1), guess), t, [q])[0] for guess in guesses]
    assert guesses[np.argmin(values)] == pytest.approx(np.quantile(t, q), abs=0.02)


def test_the_normal_distribution_is_where_the_likelihood_is_greatest() -> None:
    t = 3 + 0.5 * normal(997)
    found = np.array([t.mean(), np.log(t.var())])
    best, gradient = gaussian_nll(np.tile(found, (997, 1)), t)
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-14)
    assert best == pytest.approx((1 + np.log(2 * np.pi * t.var())) / 2, rel=1e-12)
    for step in ([0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]):
        assert gaussian_nll(np.tile(found + step, (997, 1)), t)[0] > best


def test_at_a_kink_the_gradient_is_zero() -> None:
    y = np.array([1.0, 2.0])
    assert not l1_loss(y, y)[1].any()
    assert not quantile_loss(y[:, None], y, [0.3])[1].any()
    assert l1_loss(y, y)[0] == quantile_loss(y[:, None], y, [0.3])[0] == 0


@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_gradients_near_the_border_of_the_huber_loss(delta: float) -> None:
    y = np.array([delta - 1e-3, delta + 1e-3, -delta + 1e-3, -delta - 1e-3])
    dy = huber_loss(y, np.zeros(4), delta=delta)[1]
    expected = numerical_gradient(lambda: huber_loss(y, np.zeros(4), delta=delta)[0], y)
    np.testing.assert_allclose(dy, expected, rtol=1e-8)


def test_float32_stays_float32_and_targets_are_converted() -> None:
    y, t = normal(5, 2).astype(np.float32), np.arange(5)
    for value, dy in (quantile_loss(y, t, np.array([0.25, 0.75])), gaussian_nll(y, t)):
        assert type(value) is float
        assert dy.dtype == np.float32
        assert dy.shape == (5, 2)
    for delta in (0.3, np.float64(0.3), 1):
        assert huber_loss(y, np.zeros((5, 2)), delta=delta)[1].dtype == np.float32


def test_narrow_and_wide_distributions_neither_overflow_nor_warn() -> None:
    y = np.array([[1, -80], [1, 80], [1e18, 60]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        value, dy = gaussian_nll(y, np.ones(3))
    assert np.isfinite(value)
    assert np.isfinite(dy).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: l1_loss([1.0], [1.0]), TypeError, "predictions has type list"),  # type: ignore[arg-type]
        (lambda: l1_loss(np.ones(2), np.ones(3)), ValueError, r"targets has shape \(3,\)"),
        (lambda: l1_loss(np.ones((0, 2)), np.ones((0, 2))), ValueError, "no positions"),
        (lambda: huber_loss(np.ones(2), np.ones(2), delta=0), ValueError, "delta is 0, expected"),
        (lambda: huber_loss(np.ones(2), np.ones(2), delta=np.inf), ValueError, "delta is inf"),
        (lambda: huber_loss(np.ones(2), np.ones(2), delta="x"), TypeError, "delta has type str"),  # type: ignore[arg-type]
        (
            lambda: quantile_loss(np.ones((2, 3)), np.ones(2), [0.5]),
            ValueError,
            r"quantiles has shape \(1,\), expected \(Q,\) = \(3,\)",
        ),
        (
            lambda: quantile_loss(np.ones((2, 1)), np.ones((2, 1)), [0.5]),
            ValueError,
            r"targets has shape \(2, 1\), expected \(2,\)",
        ),
        (
            lambda: quantile_loss(np.ones((2, 2)), np.ones(2), [0.5, 1.0]),
            ValueError,
            r"quantiles is \[0.5 1. \], expected 0 < q < 1",
        ),
        (
            lambda: quantile_loss(np.ones((2, 1)), np.ones(2), [np.nan]),
            ValueError,
            "quantiles is",
        ),
        (lambda: quantile_loss(np.ones((2, 1)), np.ones(2), 0.5), ValueError, "quantiles has sh"),
        (lambda: quantile_loss(np.ones((0, 1)), np.ones(0), [0.5]), ValueError, "no positions"),
        (lambda: quantile_loss(np.ones((2, 0)), np.ones(2), []), ValueError, "with C >= 1"),
        (
            lambda: gaussian_nll(np.ones((2, 3)), np.ones(2)),
            ValueError,
            r"predictions has shape \(2, 3\), expected \(\.\.\., 2\)",
        ),
        (lambda: gaussian_nll(np.ones((2, 2)), np.ones(3)), ValueError, "targets has shape"),
        (lambda: gaussian_nll(np.ones((0, 2)), np.ones(0)), ValueError, "no positions"),
    ],
)
def test_wrong_arguments(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
