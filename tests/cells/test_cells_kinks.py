"""Where functions have kinks, limits or no value: each operation by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnfast import cells, functional
from rnnfast.cells import cell

pytestmark = pytest.mark.usefixtures("isa")
Array = np.ndarray[Any, Any]
inf, nan = np.inf, np.nan


def apply(function: Callable[[Any, Any], Any], a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The value of a function of two states, and its derivatives by both."""

    @cell(state="a b")
    def step(x: Any, a: Any, b: Any) -> Any:
        return {"a": a, "b": b, "y": function(a, b)}

    x = np.zeros((1, len(a), 1), a.dtype)
    y, _, tape = functional.cell_forward(step, x, (a, b), {})
    grads = functional.cell_backward(tape, np.ones_like(y))
    return y[0], *grads.state


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_and_kinks(dtype: Any) -> None:
    a, b = (
        np.array([[1.0, -2.0, 0.0, 3.0, -0.0]], dtype),
        np.array([[1.0, 5.0, 0.0, 2.0, 0.0]], dtype),
    )
    y, da, db = apply(cells.maximum, a, b)
    np.testing.assert_array_equal(y, np.maximum(a, b))
    np.testing.assert_array_equal(da, [[0.5, 0, 0.5, 1, 0.5]])
    np.testing.assert_array_equal(db, [[0.5, 1, 0.5, 0, 0.5]])
    y, da, db = apply(cells.minimum, a, b)
    np.testing.assert_array_equal(da, [[0.5, 1, 0.5, 0, 0.5]])
    np.testing.assert_array_equal(db, [[0.5, 0, 0.5, 1, 0.5]])
    _, da, _ = apply(lambda a, b: cells.relu(a), a, b)
    np.testing.assert_array_equal(da, [[1, 0, 0, 1, 0]])
    _, da, _ = apply(lambda a, b: abs(a), a, b)
    np.testing.assert_array_equal(da, [[1, -1, 0, 1, 0]])
    _, da, _ = apply(lambda a, b: cells.clip(a, -2, 1), a, b)
    np.testing.assert_array_equal(da, [[1, 1, 1, 0, 1]])
    y, da, db = apply(lambda a, b: cells.where(a < b, a * 2, b * 3), a, b)
    np.testing.assert_array_equal(y, [[3, -4, 0, 6, 0]])
    np.testing.assert_array_equal(da, [[0, 2, 0, 0, 0]])
    np.testing.assert_array_equal(db, [[3, 0, 3, 3, 3]])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_passes(dtype: Any) -> None:
    a, b = np.array([[nan, 1.0, nan]], dtype), np.array([[1.0, nan, nan]], dtype)
    for function in (cells.maximum, cells.minimum, lambda a, b: a + b):
        assert np.isnan(apply(function, a, b)[0]).all()
    one = np.array([[nan, 1.0]], dtype)
    names = "relu", "exp", "log", "sqrt", "softplus", "abs", "tanh", "sigmoid"
    unary = [getattr(cells, name) for name in names]
    unary.append(lambda v: cells.clip(v, -1, 1))
    for function in unary:
        y = apply(lambda a, b, f=function: f(a), one, one)[0]
        assert np.isnan(y[0, 0])
        assert np.isfinite(y[0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_over_their_range(dtype: Any) -> None:
    """As NumPy has them; what is too small for a normal number may be 0."""
    least, limit = np.finfo(dtype).tiny, np.log(np.finfo(dtype).max)
    spread = np.concatenate([np.linspace(-limit * 1.2, limit * 1.2, 997), np.linspace(-3, 3, 501)])
    v = spread.astype(dtype)[None]
    expected = {
        cells.exp: np.exp(v.astype(np.float64)) if dtype is np.float32 else np.exp(v),
        cells.softplus: np.logaddexp(v.astype(np.float64), 0),
        cells.sqrt: np.sqrt(v.astype(np.float64)),
        cells.log: np.log(v.astype(np.float64)),
    }
    with np.errstate(all="ignore"):
        for function, right in expected.items():
            right = right.astype(dtype)
            y = apply(lambda a, b, f=function: f(a), v, v)[0]
            near = np.abs(y - right) <= 4 * np.finfo(dtype).eps * np.abs(right)
            small = (np.abs(right) < 2 * least) & (np.abs(y) < 2 * least)
            assert (near | small | (y == right) | (np.isnan(y) & np.isnan(right))).all(), function
    ends = np.array([[inf, -inf]], dtype)
    np.testing.assert_array_equal(apply(lambda a, b: cells.exp(a), ends, ends)[0], [[inf, 0]])
    np.testing.assert_array_equal(apply(lambda a, b: cells.softplus(a), ends, ends)[0], [[inf, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("H", [1, 3, 5, 17])
def test_what_is_beyond_the_units_touches_nothing(H: int, dtype: Any) -> None:
    """Lanes beyond the units are 0 / 0 here, and the gradient of a product must not see them."""

    @cell(state="h")
    def step(x: Any, h: Any) -> Any:
        share = h / cells.total(h)
        return cells.tanh(cells.linear("a", x, share=share / (h / h)))

    rng = np.random.default_rng(0)
    x, h = rng.random((4, 3, 2)).astype(dtype), (rng.random((3, H)) + 1).astype(dtype)
    params = {n: rng.random(s).astype(dtype) for n, s in step.graph(2, H).shapes().items()}
    y, _, tape = functional.cell_forward(step, x, (h,), params)
    grads = functional.cell_backward(tape, np.ones_like(y))
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in [grads.x, *grads.state, *grads.params.values()])
    total = apply(lambda a, b: cells.total(a) + 0 * a, h, h)[0]
    np.testing.assert_allclose(total, np.broadcast_to(h.sum(1, keepdims=True), h.shape), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("H", [1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 65, 131])
def test_rows_of_any_size_are_normalised(H: int, dtype: Any) -> None:
    """Sums run over four vectors at a time: every remainder counts. Far from 0 nothing is lost."""
    rng = np.random.default_rng(H)
    a, b = (rng.standard_normal((3, H)).astype(dtype) + dtype(k) for k in (30, 0))
    y, da, db = apply(lambda a, b: cells.normalize(a, 0.1) * b, a, b)
    exact, weight = a.astype(np.float64), b.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 0.1)
    slope = (weight * centred).mean(axis=1, keepdims=True) * scale**2
    expected = (weight - weight.mean(axis=1, keepdims=True) - slope * centred) * scale
    bound = 3e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(db, centred * scale, rtol=0, atol=bound)
    np.testing.assert_allclose(y, centred * scale * weight, rtol=0, atol=bound)
    np.testing.assert_allclose(da, expected, rtol=0, atol=bound)
    total = apply(lambda a, b: cells.total(a) + 0 * b, a, b)[0]
    np.testing.assert_allclose(total[:, 0], exact.sum(axis=1), rtol=1e-6)
    weights = np.exp(centred - centred.max(axis=1, keepdims=True))
    y, _, _ = apply(lambda a, b: cells.softmax(a) + 0 * b, a, b)
    np.testing.assert_allclose(y, weights / weights.sum(axis=1, keepdims=True), rtol=0, atol=bound)


@pytest.mark.parametrize("H", [1, 5, 40])
def test_normalised_nan_stays_in_its_row(H: int) -> None:
    a = np.random.default_rng(0).standard_normal((3, H))
    a[1, H // 2] = nan
    y, da, _ = apply(lambda a, b: cells.normalize(a) * b, a, np.ones_like(a))
    assert np.isnan(y[1]).all()
    assert np.isnan(da[1]).all()
    assert np.isfinite(y[[0, 2]]).all()
    assert np.isfinite(da[[0, 2]]).all()
