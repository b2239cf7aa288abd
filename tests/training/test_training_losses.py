"""Losses: values against their definition, gradients by central differences, masks, extremes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    cosine_distance,
    gaussian_nll,
    gradcheck,
    huber_loss,
    l1_loss,
    length_mask,
    mean_squared_error,
    quantile_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)

MASK = np.array([[True, False, True], [True, True, False], [False, True, True], [True] * 3])


def case(loss: Any, rng: int = 0) -> tuple[Any, Any]:
    """Predictions and targets with leading axes (4, 3)."""
    generator = np.random.default_rng(rng)
    predictions = 3 * generator.standard_normal((4, 3, 5))
    if loss is softmax_cross_entropy:
        return predictions, generator.integers(0, 5, (4, 3))
    if loss is sigmoid_cross_entropy:
        return predictions, generator.random((4, 3, 5))
    if loss is gaussian_nll:
        return predictions[..., :2], generator.standard_normal((4, 3))
    if loss is quantiles:
        return predictions, generator.standard_normal((4, 3))
    return predictions, generator.standard_normal((4, 3, 5))


quantiles = partial(quantile_loss, quantiles=[0.05, 0.3, 0.5, 0.7, 0.95])
SUMS = [softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error, l1_loss]
LOSSES = [*SUMS, cosine_distance, huber_loss, quantiles, gaussian_nll]


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_central_difference(loss: Any, mask: Any) -> None:
    z, t = case(loss)
    _, dz = loss(z, t, mask=mask)
    assert np.abs(dz).max() > 1e-3
    assert gradcheck(lambda: loss(z, t, mask=mask)[0], {"z": z}, {"z": dz})["z"] < 1e-8


def test_values_are_those_of_the_definition() -> None:
    z, t = case(softmax_cross_entropy)
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, t[..., None], -1)).mean()
    assert softmax_cross_entropy(z, t)[0] == pytest.approx(expected, rel=1e-13)
    z, t = case(sigmoid_cross_entropy)
    p = 1 / (1 + np.exp(-z))
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert sigmoid_cross_entropy(z, t)[0] == pytest.approx(expected, rel=1e-12)
    assert mean_squared_error(z, t)[0] == pytest.approx(((z - t) ** 2).mean(), rel=1e-13)
    assert l1_loss(z, t)[0] == pytest.approx(abs(z - t).mean(), rel=1e-13)
    lengths = np.linalg.norm(z, axis=2) * np.linalg.norm(t, axis=2)
    expected = 1 - ((z * t).sum(axis=2) / lengths).mean()
    assert cosine_distance(z, t)[0] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_masked_positions_are_not_read(loss: Any) -> None:
    z, t = case(loss)
    wanted = loss(z[MASK], t[MASK])
    z[~MASK] = np.nan
    t = t.copy()
    t[~MASK] = -7
    value, dz = loss(z, t, mask=MASK)
    assert value == pytest.approx(wanted[0], rel=1e-14)
    np.testing.assert_allclose(dz[MASK], wanted[1], rtol=1e-14)
    assert not dz[~MASK].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_and_inputs_stay_as_they_are(loss: Any) -> None:
    z, t = case(loss)
    z = z.astype(np.float32)
    before, targets = z.copy(), t.copy()
    value, dz = loss(z, t)
    assert dz.dtype == np.float32
    assert type(value) is float
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(t, targets)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_large_logits_neither_overflow_nor_warn(size: float) -> None:
    z = np.array([[size, -size], [-size, size]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        value, dz = softmax_cross_entropy(z, np.array([0, 0]))
        assert value == pytest.approx(size, rel=1e-6)
        np.testing.assert_array_equal(dz, [[0, 0], [-0.5, 0.5]])
        value, dz = sigmoid_cross_entropy(z, np.zeros((2, 2)))
        assert value == pytest.approx(size / 2, rel=1e-6)
        np.testing.assert_array_equal(dz, [[0.25, 0], [0, 0.25]])


def test_sigmoid_gradient_keeps_relative_accuracy_far_out() -> None:
    _, dz = sigmoid_cross_entropy(np.array([-30.0]), np.zeros(1))
    assert dz[0] == pytest.approx(np.exp(-30.0), rel=1e-12)


def spread(loss: Any) -> tuple[Any, Any, float]:
    """Positions of which float32 loses all but the first in a sum; the exact mean of the terms."""
    sizes = np.array([2.0**30] + [64.0] * 4095, np.float32)
    if loss is softmax_cross_entropy:
        logits = np.stack([np.zeros_like(sizes), sizes], axis=1)  # the target is the first
        return logits, np.zeros(4096, int), float(sizes.astype(np.float64).mean())
    if loss in (sigmoid_cross_entropy, l1_loss):
        return sizes, np.zeros(4096), float(sizes.astype(np.float64).mean())
    return np.sqrt(sizes), np.zeros(4096), float(sizes.astype(np.float64).mean())


def test_the_cosine_distance_is_of_directions() -> None:
    """Whatever the lengths, those whose squares leave the range of the dtype included."""
    t = np.array([[3, 4], [3, 4], [4, -3], [-3, -4]], np.float32)
    y = np.array([[3e30, 4e30], [3e-30, 4e-30], [3e-30, 4e-30], [3e30, 4e30]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        for row, expected in enumerate([0, 0, 1, 2]):
            value, dy = cosine_distance(y[row], t[row])
            assert value == pytest.approx(expected, abs=1e-6)
            assert np.isfinite(dy).all()
        value, dy = cosine_distance(y[2], t[2])
        np.testing.assert_allclose(dy * 5e-30, [-0.8, 0.6], rtol=1e-5)


def test_a_vector_of_zeros_has_no_direction() -> None:
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    for y, t in (zeros, ones), (ones, zeros), (zeros, zeros):
        value, dy = cosine_distance(y, t)
        assert value == 1
        assert not dy.any()


@pytest.mark.parametrize("loss", SUMS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_sum_is_in_float64(loss: Any, masked: bool) -> None:
    z, t, expected = spread(loss)
    mask = np.ones(4096, bool)
    assert loss(z, t, mask=mask if masked else None)[0] == expected
    mask[2048:] = False
    exact = (2**30 + 64 * 2047) / 2048
    assert loss(z, t, mask=mask)[0] == exact


@pytest.mark.parametrize("loss", LOSSES)
def test_masks_of_fewer_axes_and_of_one_entry_per_number(loss: Any) -> None:
    """All leading axes, but for classes, which count together."""
    z, t = case(loss)
    rows = np.array([True, False, True, True])
    if loss in (softmax_cross_entropy, cosine_distance):
        with pytest.raises(ValueError, match=r"mask has shape \(4,\), expected \(4, 3\)"):
            loss(z, t, mask=rows)
        with pytest.raises(ValueError, match=r"mask has shape \(4, 3, 5\), expected \(4, 3\)"):
            loss(z, t, mask=np.ones(z.shape, bool))
        return
    value, dz = loss(z, t, mask=rows)
    assert value == pytest.approx(loss(z[rows], t[rows])[0], rel=1e-14)
    assert not dz[1].any()
    single = np.zeros(t.shape, bool)
    single.flat[[0, 7]] = True
    value, dz = loss(z, t, mask=single)
    assert value == pytest.approx(loss(z[single], t[single])[0], rel=1e-14)
    np.testing.assert_allclose(dz[single], loss(z[single], t[single])[1], rtol=1e-14)
    assert not dz[~single].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mask_leaves_the_arguments_as_they_are(loss: Any) -> None:
    z, t = case(loss)
    before, targets, mask = z.copy(), t.copy(), MASK.copy()
    loss(z, t, mask=mask)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(t, targets)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("loss", LOSSES)
def test_infinities_of_masked_positions_are_not_read(loss: Any) -> None:
    z, t = case(loss)
    wanted = loss(z, t, mask=MASK)
    z[~MASK] = np.inf
    with np.errstate(all="raise", under="ignore"):
        value, dz = loss(z, t, mask=MASK)
    assert value == wanted[0]
    np.testing.assert_array_equal(dz, wanted[1])


def test_length_mask() -> None:
    mask = length_mask(np.array([0, 2, 3]), 3)
    np.testing.assert_array_equal(mask.T, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match="lengths has entries from 4 to 4, expected 0 to 3"):
        length_mask(np.array([4]), 3)
    with pytest.raises(ValueError, match="lengths has entries from -1 to 2, expected 0 to 3"):
        length_mask(np.array([-1, 2]), 3)
    with pytest.raises(ValueError, match=r"lengths has shape \(1, 2\), expected \(B,\) = \(2,\)"):
        length_mask(np.array([[1, 2]]), 3)
    with pytest.raises(TypeError, match="lengths has dtype float64, expected integers"):
        length_mask(np.array([1.0]), 3)
    for steps, error in ((2.0, TypeError), (-1, ValueError)):
        with pytest.raises(error, match=r"^steps "):
            length_mask(np.array([0]), steps)
    assert length_mask([1, 2], 2).dtype == bool


@pytest.mark.parametrize(
    ("loss", "arguments", "error", "message"),
    [
        (
            mean_squared_error,
            ([1.0], [1.0]),
            TypeError,
            r"predictions has type list, .*; np.asarray\(predictions, np.float32\)$",
        ),
        (
            mean_squared_error,
            (np.zeros((3, 1)), np.zeros(3)),
            ValueError,
            r"targets has shape \(3,\), expected \(3, 1\)",
        ),
        (
            sigmoid_cross_entropy,
            (np.zeros(2, np.float16), np.zeros(2)),
            TypeError,
            r"logits has dtype float16, expected float32 or float64; logits.astype\(np.float32\)$",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3)), np.array([0, 3])),
            ValueError,
            "targets has entries from 0 to 3, expected 0 to 2",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3)), np.zeros(2)),
            TypeError,
            r"targets has dtype float64, expected integers; targets.astype\(np.int",
        ),
        (softmax_cross_entropy, (np.array(1.0), 0), ValueError, "logits has shape"),
        (cosine_distance, (np.array(1.0), 0), ValueError, "predictions has shape"),
        (cosine_distance, (np.zeros((2, 0)), np.zeros((2, 0))), ValueError, "with C >= 1"),
        (softmax_cross_entropy, (np.zeros((2, 0)), np.zeros(2, int)), ValueError, "with C >= 1"),
        (cosine_distance, (np.zeros(3), np.zeros(2)), ValueError, "targets has shape"),
        (
            sigmoid_cross_entropy,
            (np.zeros(3), np.array([0.0, 1.5, -0.1])),
            ValueError,
            "targets has 2 entries outside 0 to 1, such as 1.5",
        ),
        (
            sigmoid_cross_entropy,
            (np.zeros(3), np.array([0, -1, 1])),
            ValueError,
            "targets has 1 entries outside 0 to 1, such as -1",
        ),
        (
            sigmoid_cross_entropy,
            (np.zeros(2, np.float32), np.array([0.5, np.nan])),
            ValueError,
            "targets has 1 entries outside 0 to 1, such as nan",
        ),
        (
            sigmoid_cross_entropy,
            (np.zeros(2), np.ma.masked_equal([0.0, 1.0], 1)),
            TypeError,
            "targets is a masked array",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3)), np.ma.masked_equal([0, 1], 1)),
            TypeError,
            "targets is a masked array",
        ),
        (
            mean_squared_error,
            (np.zeros(2), np.zeros(2, complex)),
            TypeError,
            "targets has dtype complex128, expected real numbers",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3)), np.array([-1, 0])),
            ValueError,
            "targets has entries from -1 to 0, expected 0 to 2",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3)), np.zeros((2, 1), int)),
            ValueError,
            r"targets has shape \(2, 1\), expected \(2,\)",
        ),
        (
            softmax_cross_entropy,
            (np.zeros((2, 3), int), np.zeros(2, int)),
            TypeError,
            "logits has dtype int64, expected float32 or float64",
        ),
        (
            sigmoid_cross_entropy,
            (np.zeros((3, 1)), np.zeros(3)),
            ValueError,
            r"targets has shape \(3,\), expected \(3, 1\)",
        ),
        (sigmoid_cross_entropy, (np.zeros(0), np.zeros(0)), ValueError, "no positions"),
        (mean_squared_error, (np.zeros((2, 0)), np.zeros((2, 0))), ValueError, "no positions"),
        (mean_squared_error, (np.zeros(2), [0, "x"]), TypeError, "targets has dtype <U"),
        (mean_squared_error, (np.ma.zeros(2), np.zeros(2)), TypeError, "is a masked array"),
        (softmax_cross_entropy, (np.zeros((0, 3)), np.zeros(0, int)), ValueError, "no positions"),
    ],
)
def test_wrong_arguments(loss: Any, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        loss(*arguments)


def test_wrong_masks() -> None:
    z = np.zeros((4, 3))
    with pytest.raises(ValueError, match="no positions"):
        mean_squared_error(z, z, mask=np.zeros((4, 3), bool))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), expected \(4,\)"):
        mean_squared_error(z, z, mask=np.ones(3, bool))
    with pytest.raises(TypeError, match=r"mask has dtype float64, .* bool; mask.astype\(np.bool\)"):
        mean_squared_error(z, z, mask=np.ones((4, 3)))


def test_targets_of_the_edges_and_behind_a_mask_are_no_error() -> None:
    z, t = np.zeros(4), np.array([0.0, 1.0, 7.0, np.nan])
    value, dz = sigmoid_cross_entropy(z, t, mask=np.array([True, True, False, False]))
    assert value == pytest.approx(np.log(2))
    np.testing.assert_array_equal(dz, [0.25, -0.25, 0, 0])
    assert sigmoid_cross_entropy(z, np.array([True, False, True, False]))[0] == value


def test_losses_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    functional = torch.nn.functional
    torch_losses = {
        softmax_cross_entropy: lambda z, t: functional.cross_entropy(z.reshape(-1, 5), t.ravel()),
        sigmoid_cross_entropy: functional.binary_cross_entropy_with_logits,
        mean_squared_error: functional.mse_loss,
        cosine_distance: lambda z, t: (1 - functional.cosine_similarity(z, t, dim=-1)).mean(),
        l1_loss: functional.l1_loss,
        huber_loss: functional.huber_loss,
        partial(huber_loss, delta=0.3): partial(functional.huber_loss, delta=0.3),
        gaussian_nll: lambda z, t: functional.gaussian_nll_loss(
            z[..., 0], t, z[..., 1].exp(), full=True
        ),
    }
    for loss, torch_loss in torch_losses.items():
        z, t = case(loss, rng=1)
        theirs = torch.tensor(z, requires_grad=True)
        value = torch_loss(theirs, torch.tensor(t))
        value.backward()
        ours, dz = loss(z, t)
        assert ours == pytest.approx(value.item(), rel=1e-13)
        np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3), r"of one-hot rows take the ids, targets\.argmax\(axis=-1\)"),
        ((4, 1), r"an id for each position; targets\[\.\.\., 0\]"),
        ((5,), r"targets has shape \(5,\), expected \(4,\), an id for each position$"),
    ],
)
def test_targets_that_are_no_ids_are_told_how_to_be(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_cross_entropy(np.ones((4, 3)), np.ones(shape, int))
