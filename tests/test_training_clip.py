"""Gradient norms and clipping, against their definition and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import clip_norm, clip_value, global_norm


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
