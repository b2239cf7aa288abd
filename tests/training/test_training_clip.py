"""Gradient norms and clipping, against their definition and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import clip_norm, clip_value, global_norm
from rnnfast.training.clip import SMALL


def test_clip_norm_scales_all_gradients_together() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert clip_norm(grads, 10.0) == pytest.approx(5.0)
    np.testing.assert_array_equal(grads["a"], [3.0, 0.0])
    assert clip_norm(grads, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(grads["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(grads["b"], [[0.8]], rtol=1e-6)


def test_norm_survives_what_would_overflow_float32() -> None:
    grads = {"a": np.full(4, 1e30, np.float32)}
    assert global_norm(grads) == pytest.approx(2e30, rel=1e-6)
    clip_norm(grads, 2.0)
    np.testing.assert_allclose(grads["a"], 1.0, rtol=1e-6)
    grads = {"a": np.array([np.nan, 1.0])}
    assert np.isnan(clip_norm(grads, 0.5))
    assert grads["a"][1] == 1.0


@pytest.mark.parametrize("size", [3, SMALL, SMALL + 1, 3 * SMALL])
@pytest.mark.parametrize("value", [1e-30, 1e-45, 1e-20, 1e20, 3e38])
def test_norm_of_vanishing_and_exploding_float32(value: float, size: int) -> None:
    """The squares are below or above all that float32 can hold, in small arrays and in large."""
    g = np.full(size, value, np.float32)
    expected = float(g[0]) * size**0.5
    assert global_norm({"g": g}) == pytest.approx(expected, rel=1e-12)
    assert global_norm({"g": g.reshape(-1, 1), "one": g[:1]}) == pytest.approx(
        float(g[0]) * (size + 1) ** 0.5, rel=1e-12
    )


@pytest.mark.parametrize("size", [4096, 4 * SMALL])
def test_norm_is_summed_in_float64(size: int) -> None:
    """Of entries that float32 would lose beside the first."""
    g = np.full(size, 8.0, np.float32)
    g[0] = 2.0**15
    assert global_norm({"g": g}) == (2**30 + 64 * (size - 1)) ** 0.5
    parts = {str(i): part for i, part in enumerate(np.split(g, 64))}
    assert global_norm(parts) == (2**30 + 64 * (size - 1)) ** 0.5


@pytest.mark.parametrize("value", [1e-30, 1e-45])
def test_vanishing_gradients_are_not_clipped(value: float) -> None:
    g = np.full(5, value, np.float32)
    kept = g.copy()
    assert clip_norm({"g": g}, 1e-6) == pytest.approx(float(g[0]) * 5**0.5)
    np.testing.assert_array_equal(g, kept)


def test_gradients_of_zero_have_no_norm_and_stay() -> None:
    g = np.zeros(5, np.float32)
    with np.errstate(all="raise"):
        assert clip_norm({"g": g}, 1.0) == 0
        clip_value({"g": g}, 1.0)
    assert not g.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_are_left_as_they_are(value: float) -> None:
    grads = {"a": np.array([value, 3.0]), "b": np.array([5.0])}
    assert not np.isfinite(clip_norm(grads, 1.0))
    np.testing.assert_array_equal(grads["a"], [value, 3])
    assert grads["b"][0] == 5


def test_a_norm_at_the_limit_is_left() -> None:
    grads = {"a": np.array([3.0, 4.0])}
    clip_norm(grads, 5.00001)
    np.testing.assert_array_equal(grads["a"], [3, 4])
    clip_norm(grads, 5.0)
    np.testing.assert_allclose(grads["a"], np.array([3.0, 4.0]) * 5 / (5 + 1e-6), rtol=1e-15)


def test_the_norm_leaves_the_gradients_and_their_dtypes_as_they_are() -> None:
    rng = np.random.default_rng(0)
    grads: dict[str, Any] = {"a": rng.standard_normal(5).astype("f4"), "b": rng.standard_normal(3)}
    kept = {name: g.copy() for name, g in grads.items()}
    global_norm(grads)
    for name, g in grads.items():
        np.testing.assert_array_equal(g, kept[name])
    clip_norm(grads, 0.1)
    clip_value(grads, 0.01)
    assert [g.dtype for g in grads.values()] == [np.float32, np.float64]


@pytest.mark.parametrize("clip", [clip_norm, clip_value])
@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "is 0, expected a finite number > 0"),
        (-1.0, ValueError, "is -1.0, expected a finite number > 0"),
        (np.nan, ValueError, "is nan, expected a finite number > 0"),
        (np.inf, ValueError, "is inf, expected a finite number > 0"),
        ("1", TypeError, "has type str, expected a number"),
        (None, TypeError, "has type NoneType, expected a number"),
    ],
)
def test_wrong_limits(clip: Any, limit: Any, error: Any, message: str) -> None:
    grads = {"a": np.array([3.0, 4.0])}
    with pytest.raises(error, match=f"^max_{clip.__name__.removeprefix('clip_')} {message}"):
        clip(grads, limit)
    np.testing.assert_array_equal(grads["a"], [3, 4])


def test_norm_of_small_and_large_arrays_together() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3,), (200, 300), (), (0, 5), (20_000,), (4, 5)]
    grads: dict[str, Any] = {str(s): rng.standard_normal(s).astype(np.float32) for s in shapes}
    grads["turned"] = rng.standard_normal((150, 200)).T
    expected = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    assert global_norm(grads) == pytest.approx(expected, rel=1e-12)
    assert global_norm({}) == 0


def test_clip_value() -> None:
    grads = {"a": np.array([-3.0, 0.2, 5.0])}
    clip_value(grads, 0.5)
    np.testing.assert_array_equal(grads["a"], [-0.5, 0.2, 0.5])
    with pytest.raises(ValueError, match="max_value is 0"):
        clip_value(grads, 0)


def test_clip_norm_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="the semantics promised are torch's")
    rng = np.random.default_rng(1)
    grads = {"w": rng.standard_normal((5, 3)), "b": rng.standard_normal(7)}
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads.values()]
    for p, g in zip(theirs, grads.values(), strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    assert clip_norm(grads, 0.7) == pytest.approx(norm.item(), rel=1e-12)
    for p, g in zip(theirs, grads.values(), strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ([np.ones(2)], TypeError, "grads has type list, expected a dict of arrays, or a layer or"),
        (np.ones(2), TypeError, "grads has type ndarray, expected a dict of arrays"),
        (
            {"w": [1.0]},
            TypeError,
            r"grads\['w'\] has type list, expected numpy.ndarray; np.asarray",
        ),
        ({"w": np.ma.ones(2)}, TypeError, r"grads\['w'\] is a masked array"),
        ({"w": np.ones(2, int)}, TypeError, r"grads\['w'\] has dtype int64, expected float32 or"),
        ({"w": np.broadcast_to(1.0, 3)}, ValueError, r"grads\['w'\] is read-only, expected a wr"),
    ],
)
def test_gradients_that_cannot_be_clipped_are_refused(grads: Any, error: Any, message: str) -> None:
    good = np.full(2, 9.0)
    given = {"a": good} | grads if isinstance(grads, dict) else grads
    for clip in (clip_norm, clip_value):
        with pytest.raises(error, match=message):
            clip(given, 1.0)
    np.testing.assert_array_equal(good, 9.0)
