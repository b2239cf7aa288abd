"""Weights of positions and of classes, smoothed labels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    cosine_distance,
    ctc_loss,
    gaussian_nll,
    gradcheck,
    huber_loss,
    l1_loss,
    mean_squared_error,
    quantile_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)

quantiles = partial(quantile_loss, quantiles=[0.1, 0.5, 0.8])
weighted_classes = partial(softmax_cross_entropy, class_weight=[0.5, 2, 0, 1, 3])
smoothed = partial(softmax_cross_entropy, label_smoothing=0.2)
smoothed_classes = partial(weighted_classes, label_smoothing=0.2)
rare = partial(sigmoid_cross_entropy, pos_weight=[0.5, 2, 1, 4, 3])
BY_CLASS = [softmax_cross_entropy, weighted_classes, smoothed, smoothed_classes]
LOSSES = [
    *BY_CLASS, sigmoid_cross_entropy, rare, cosine_distance, mean_squared_error, l1_loss,
    huber_loss, quantiles, gaussian_nll,
]  # fmt: skip


def case(loss: Any, rng: int = 0) -> tuple[Any, Any, Any]:
    """Predictions and targets with leading axes (7, 3), and weights of which some are 0."""
    generator = np.random.default_rng(rng)
    last = {quantiles: 3, gaussian_nll: 2}.get(loss, 5)
    z = 2 * generator.standard_normal((7, 3, last))
    weight = generator.integers(0, 4, (7, 3))
    if loss in BY_CLASS:
        return z, generator.integers(0, 5, (7, 3)), weight
    if loss in (quantiles, gaussian_nll):
        return z, generator.standard_normal((7, 3)), weight
    return z, generator.random((7, 3, 5)), weight


@pytest.mark.parametrize("loss", LOSSES)
def test_an_example_of_weight_2_counts_as_two_of_them(loss: Any) -> None:
    z, t, weight = case(loss)
    times = weight.ravel()
    assert set(times) == {0, 1, 2, 3}
    value, dz = loss(z, t, weight=weight)
    flat, dflat = (a.reshape(21, -1) for a in (z, dz))
    targets = t.reshape(21, *t.shape[2:])
    expected, dtimes = loss(np.repeat(flat, times, axis=0), np.repeat(targets, times, axis=0))
    assert value == pytest.approx(expected, rel=1e-13)
    sums = np.zeros_like(dflat)
    np.add.at(sums, np.repeat(np.arange(21), times), dtimes)
    np.testing.assert_allclose(dflat, sums, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_central_difference(loss: Any, masked: bool) -> None:
    z, t, weight = case(loss)
    options = {"weight": weight + 0.5, "mask": weight != 2 if masked else None}
    _, dz = loss(z, t, **options)
    assert gradcheck(lambda: loss(z, t, **options)[0], {"z": z}, {"z": dz})["z"] < 1e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_equal_weights_change_no_bit(loss: Any, dtype: Any) -> None:
    z, t, _ = case(loss)
    z = z.astype(dtype)
    expected, dexpected = loss(z, t)
    for equal in (np.ones((7, 3)), np.ones((7, 3), bool), np.full((7, 3), 2.0**1000)):
        value, dz = loss(z, t, weight=equal)
        assert value == expected
        assert dz.dtype == dtype
        np.testing.assert_array_equal(dz, dexpected)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_weighs_nothing_is_not_read(loss: Any) -> None:
    z, t, weight = case(loss)
    mask = np.random.default_rng(3).random((7, 3)) < 0.7
    expected, dexpected = loss(z, t, weight=weight, mask=mask)
    dead = ~mask | (weight == 0)
    assert (mask & dead).any()
    z[dead] = np.nan
    t[dead] = -7
    given = np.where(mask, weight, np.nan)
    value, dz = loss(z, t, weight=given, mask=mask)
    assert value == expected
    np.testing.assert_array_equal(dz, dexpected)
    assert not dz[dead].any()
    given = np.where(mask, weight, -1)
    assert loss(z, t, weight=given, mask=mask)[0] == expected


@pytest.mark.parametrize("loss", [mean_squared_error, sigmoid_cross_entropy, l1_loss, huber_loss])
def test_mask_and_weight_may_have_different_axes(loss: Any) -> None:
    z, t, _ = case(loss)
    steps, mask = np.arange(7.0), np.random.default_rng(3).random(z.shape) < 0.7
    full = np.broadcast_to(steps[:, None, None], z.shape)
    expected = loss(z, t, weight=full, mask=mask)
    value = loss(z, t, weight=steps, mask=mask)
    assert value[0] == expected[0]
    np.testing.assert_array_equal(value[1], expected[1])
    full, rows = np.random.default_rng(4).random(z.shape), steps > 2
    value = loss(z, t, weight=full, mask=rows)
    expected = loss(z[rows], t[rows], weight=full[rows])
    assert value[0] == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(value[1][rows], expected[1], rtol=1e-13)
    assert not value[1][~rows].any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.zeros((7, 3)), ValueError, "no positions: .* or every weight is 0"),
        (np.full((7, 3), -1.0), ValueError, "weight has 21 entries that are negative .* -1.0"),
        (np.full((7, 3), np.nan), ValueError, "weight has 21 entries .* not finite, such as nan"),
        (np.full((7, 3), np.inf), ValueError, "weight has 21 entries .* not finite, such as inf"),
        (np.ones((3, 7)), ValueError, r"weight has shape \(3, 7\), expected \(7, 3\)"),
        (np.ones((7, 3), complex), TypeError, "weight has dtype complex128, expected real"),
        (np.ma.ones((7, 3)), TypeError, "weight is a masked array"),
        ("x", TypeError, "weight has dtype <U1, expected real"),
    ],
)
def test_wrong_weights(loss: Any, weight: Any, error: Any, message: str) -> None:
    z, t, _ = case(loss)
    with pytest.raises(error, match=message):
        loss(z, t, weight=weight)


def test_weights_that_only_count_behind_the_mask_count_for_nothing() -> None:
    z = np.ones((2, 3))
    with pytest.raises(ValueError, match="no positions"):
        mean_squared_error(z, z, mask=np.array([True, False]), weight=np.array([0, 1]))


@pytest.mark.parametrize("loss", LOSSES)
def test_arguments_stay_as_they_are_and_may_be_read_only_and_strided(loss: Any) -> None:
    z, t, weight = case(loss)
    expected = loss(z, t, weight=weight)
    arrays = [np.repeat(a, 2, axis=0)[::2] for a in (z, t, weight)]
    copies = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    value = loss(arrays[0], arrays[1], weight=arrays[2])
    assert value[0] == pytest.approx(expected[0], rel=1e-15)
    np.testing.assert_array_equal(value[1], expected[1])
    for a, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def test_the_weight_of_a_sequence_in_ctc() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((11, 3, 5)), rng.integers(1, 5, (3, 3))
    weight = np.array([2, 0, 1])
    value, gradient = ctc_loss(logits, targets, weight=weight)
    rows = [0, 0, 2]
    expected, dexpected = ctc_loss(logits[:, rows], targets[:, rows])
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient[:, 0], 2 * dexpected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(gradient[:, 2], dexpected[:, 2], rtol=1e-12)
    assert not gradient[:, 1].any()
    plain = ctc_loss(logits, targets)
    ones = ctc_loss(logits, targets, weight=[1, 1, 1])
    assert ones[0] == plain[0]
    np.testing.assert_array_equal(ones[1], plain[1])
    # A sequence that cannot be spelt has an infinite loss, which counts unless its weight is 0.
    lengths = [11, 1, 11]
    assert ctc_loss(logits, targets, lengths, weight=[1, 1, 1])[0] == np.inf
    assert ctc_loss(logits, targets, lengths, weight=weight)[0] == pytest.approx(value, rel=1e-13)
    with pytest.raises(ValueError, match=r"weight has shape \(2,\), expected \(3,\)"):
        ctc_loss(logits, targets, weight=[1, 1])


# ---------------------------------------------------------------------------- classes and smoothing


@pytest.mark.parametrize("weight", [None, [0.3, 2.0, 0, 1, 5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_class_weights_and_smoothing_are_those_of_torch(weight: Any, smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    z, t, _ = case(softmax_cross_entropy, rng=5)
    theirs = torch.tensor(z, requires_grad=True)
    value = torch.nn.functional.cross_entropy(
        theirs.reshape(21, 5),
        torch.tensor(t.ravel()),
        weight=None if weight is None else torch.tensor(weight, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    value.backward()
    ours, dz = softmax_cross_entropy(z, t, class_weight=weight, label_smoothing=smoothing)
    assert ours == pytest.approx(value.item(), rel=1e-13)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("weight", [3.0, [0.3, 2.0, 1e-3, 1, 5]])
def test_pos_weight_is_that_of_torch(weight: Any) -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    z, t, _ = case(sigmoid_cross_entropy, rng=5)
    theirs = torch.tensor(z, requires_grad=True)
    value = torch.nn.functional.binary_cross_entropy_with_logits(
        theirs, torch.tensor(t), pos_weight=torch.tensor(weight, dtype=torch.float64)
    )
    value.backward()
    ours, dz = sigmoid_cross_entropy(z, t, pos_weight=weight)
    assert ours == pytest.approx(value.item(), rel=1e-13)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-16)


def test_a_class_weight_is_the_weight_of_its_positions() -> None:
    z, t, weight = case(softmax_cross_entropy)
    by_class = np.array([0.5, 2, 0, 1, 3])
    value, dz = softmax_cross_entropy(z, t, weight=weight, class_weight=by_class)
    expected, dexpected = softmax_cross_entropy(z, t, weight=weight * by_class[t])
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(dz, dexpected, rtol=1e-12, atol=1e-17)


def test_large_logits_with_class_weights_and_smoothing_neither_overflow_nor_warn() -> None:
    z = np.array([[1e30, -1e30], [-1e30, 1e30]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        value, dz = softmax_cross_entropy(
            z, np.array([0, 0]), class_weight=[1, 3], label_smoothing=0.5
        )
        assert np.isfinite(value)
        np.testing.assert_allclose(dz, [[0.375, -0.375], [-0.375, 0.375]])
        value, dz = sigmoid_cross_entropy(z, np.ones((2, 2)), pos_weight=2)
        assert value == pytest.approx(1e30, rel=1e-6)
        np.testing.assert_array_equal(dz, [[0, -0.5], [-0.5, 0]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"class_weight": [1, 2]}, ValueError, r"class_weight has shape \(2,\), expected \(C,\)"),
        ({"class_weight": [1, 2, -1]}, ValueError, "class_weight is .*, expected finite numbers"),
        ({"class_weight": [1, 2, np.nan]}, ValueError, "class_weight is .*, expected finite"),
        ({"class_weight": [0, 0, 1]}, ValueError, "class_weight is 0 for every target"),
        ({"class_weight": "balanced"}, TypeError, "class_weight has dtype <U8, expected real"),
        ({"label_smoothing": 1}, ValueError, "label_smoothing is 1, expected 0 <= label_smoothing"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing is -0.1"),
        ({"label_smoothing": "x"}, TypeError, "label_smoothing has type str"),
    ],
)
def test_wrong_options_of_classes(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        softmax_cross_entropy(np.zeros((2, 3)), np.array([0, 1]), **options)


@pytest.mark.parametrize("weight", [0, -1, np.inf, np.nan, [1, 1, 0]])
def test_wrong_pos_weight(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"pos_weight is .*, expected finite numbers > 0"):
        sigmoid_cross_entropy(np.zeros((2, 3)), np.zeros((2, 3)), pos_weight=weight)
    with pytest.raises(ValueError, match=r"pos_weight has shape \(2,\), expected \(C,\) = \(3,\)"):
        sigmoid_cross_entropy(np.zeros((2, 3)), np.zeros((2, 3)), pos_weight=[1, 1])
