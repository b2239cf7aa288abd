"""Ridge regression against its closed formula, its own minimum and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import Linear, ridge


def problem(*leading: int, inputs: int = 7, outputs: int = 3) -> tuple[Any, Any]:
    """Features far from zero, so that a penalised bias would show, and noisy targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*leading, inputs)) + 5
    y = x @ rng.standard_normal((inputs, outputs)) - 20 + rng.standard_normal((*leading, outputs))
    return x, y


def loss(x: Any, y: Any, weight: Any, bias: Any, penalty: float) -> float:
    return float(np.sum((y - x @ weight.T - bias) ** 2) + penalty * np.sum(weight**2))


@pytest.mark.parametrize("penalty", [1e-8, 0.5, 300.0])
def test_weights_are_those_of_the_formula_and_the_bias_is_free(penalty: float) -> None:
    x, y = problem(53)
    layer = ridge(x, y, penalty)
    # With a column of ones whose penalty is zero, in place of centring.
    z = np.hstack([x, np.ones((53, 1))])
    expected = np.linalg.inv(z.T @ z + np.diag([penalty] * 7 + [0])) @ z.T @ y
    np.testing.assert_allclose(layer.params["weight"], expected[:-1].T, rtol=1e-9)
    np.testing.assert_allclose(layer.params["bias"], expected[-1], rtol=1e-9)


@pytest.mark.parametrize("penalty", [1e-8, 0.5, 300.0])
def test_no_other_weights_have_a_smaller_loss(penalty: float) -> None:
    x, y = problem(53)
    weight, bias = ridge(x, y, penalty).params.values()
    least, rng = loss(x, y, weight, bias, penalty), np.random.default_rng(1)
    for _ in range(20):
        d, e = 1e-3 * rng.standard_normal(weight.shape), 1e-3 * rng.standard_normal(bias.shape)
        assert loss(x, y, weight + d, bias + e, penalty) > least
        assert loss(x, y, weight - d, bias - e, penalty) > least


def test_it_is_scikit_learns_ridge() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = problem(53)
    theirs = linear_model.Ridge(alpha=0.7).fit(x, y)
    weight, bias = ridge(x, y, 0.7).params.values()
    np.testing.assert_allclose(weight, theirs.coef_, rtol=1e-11)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-11)


def test_every_leading_index_is_a_sample() -> None:
    x, y = problem(11, 5)
    flat = ridge(x.reshape(55, 7), y.reshape(55, 3), 0.5).params
    layer = ridge(x, y, 0.5)
    for name, p in layer.params.items():
        np.testing.assert_array_equal(p, flat[name])
    assert isinstance(layer, Linear)
    np.testing.assert_allclose(layer(x), x @ flat["weight"].T + flat["bias"], rtol=1e-12)
    one = ridge(x[0, 0], y[0, 0], 0.5)  # a single sample: the bias alone
    np.testing.assert_array_equal(one.params["weight"], np.zeros((3, 7)))
    np.testing.assert_allclose(one.params["bias"], y[0, 0])


def test_float32_features_are_solved_in_float64() -> None:
    x, y = problem(53)
    x = (x * 100).astype(np.float32)
    layer = ridge(x, y, 1e-6)
    wanted = ridge(x.astype(np.float64), y, 1e-6).params
    for name, p in layer.params.items():
        assert p.dtype == np.float32
        np.testing.assert_array_equal(p, wanted[name].astype(np.float32))


def test_arguments_stay_as_they_are_and_need_no_particular_memory() -> None:
    x, y = problem(53)
    wanted = ridge(x, y, 0.5).params
    wide = np.full((53, 14), np.nan)
    wide[:, ::2] = x
    for a in (wide, y):
        a.flags.writeable = False
    layer = ridge(wide[:, ::2], y, 0.5)
    for name, p in layer.params.items():
        np.testing.assert_array_equal(p, wanted[name])
    np.testing.assert_array_equal(ridge(x, y.tolist(), 0.5).params["bias"], wanted["bias"])


def test_more_features_than_samples() -> None:
    x, y = problem(5, inputs=17)
    layer = ridge(x, y, 1e-6)
    np.testing.assert_allclose(layer(x), y, atol=1e-4)


X, Y = problem(4)
NAN = np.where(np.arange(4)[:, None] == 1, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.tolist(), Y, 1.0), TypeError, "features has type list"),
        ((X.astype(int), Y, 1.0), TypeError, "features has dtype int64"),
        ((X, Y.astype(complex), 1.0), TypeError, "targets has dtype complex128, expected real"),
        ((X, Y, "1"), TypeError, "penalty has type str"),
        ((X, Y, 0.0), ValueError, "penalty is 0.0, expected a finite number > 0"),
        ((X, Y, np.inf), ValueError, "penalty is inf"),
        ((X, Y[1:], 1.0), ValueError, r"targets has shape \(3, 3\), expected \(4, 'O'\)"),
        ((X[:0], Y[:0], 1.0), ValueError, r"features has shape \(0, 7\), expected at least one"),
        ((X, Y[:, :0], 1.0), ValueError, r"targets has shape \(4, 0\)"),
        ((NAN, Y, 1.0), ValueError, "features has 7 numbers that are not finite"),
        ((X, NAN, 1.0), ValueError, "targets has 7 numbers that are not finite"),
    ],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ridge(*arguments)
