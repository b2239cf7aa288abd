"""Windows, splits and standardised features."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    Standardizer,
    length_mask,
    pad,
    sliding_windows,
    split_at_random,
    split_by_time,
)


def normal(*shape: int, rng: int = 0) -> Any:
    return np.random.default_rng(rng).standard_normal(shape)


# ------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("trailing", [(), (3,), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2, 5, 100])
@pytest.mark.parametrize("steps", [12, 13, 29])
def test_windows_are_the_steps_and_those_after_them(
    steps: int, stride: int, trailing: tuple[int, ...]
) -> None:
    series = normal(steps, *trailing)
    inputs, targets = sliding_windows(series, 7, 5, stride)
    count = (steps - 12) // stride + 1
    assert inputs.shape == (7, count, *trailing)
    assert targets.shape == (5, count, *trailing)
    for n in range(count):
        np.testing.assert_array_equal(inputs[:, n], series[n * stride : n * stride + 7])
        np.testing.assert_array_equal(targets[:, n], series[n * stride + 7 : n * stride + 12])
    assert (count - 1) * stride + 12 <= steps < count * stride + 12
    firsts = sliding_windows(series, 7, 5, stride, batch_first=True)
    for first, plain in zip(firsts, (inputs, targets), strict=True):
        np.testing.assert_array_equal(first.swapaxes(0, 1), plain)


def test_windows_take_no_memory_and_cannot_be_written_to() -> None:
    series = normal(1000, 2)
    for windows in sliding_windows(series, 100, 10):
        assert np.shares_memory(windows, series)
        assert not windows.flags.writeable


@pytest.mark.parametrize("dtype", [np.int16, np.float32, bool, "U3"])
def test_windows_of_any_dtype_and_layout(dtype: Any) -> None:
    series = np.arange(40).reshape(20, 2).astype(dtype)[::2]
    inputs, targets = sliding_windows(series, 3, 2)
    assert inputs.dtype == targets.dtype == series.dtype
    np.testing.assert_array_equal(targets[1, 4], series[8])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(4), 3, 2), ValueError, r"series has shape \(4,\), .* window \+ horizon = 5"),
        ((np.ones(()), 3, 2), ValueError, r"series has shape \(\), expected"),
        ((np.ones((0, 3)), 1, 1), ValueError, r"series has shape \(0, 3\), expected"),
        (([1.0, 2.0], 1, 1), TypeError, "series has type list"),
        ((np.ones(9), 0, 2), ValueError, "window is 0"),
        ((np.ones(9), 3, 0), ValueError, "horizon is 0"),
        ((np.ones(9), 3, 2, 0), ValueError, "stride is 0"),
        ((np.ones(9), 3.0, 2), TypeError, "window has type float"),
    ],
)
def test_wrong_windows(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        sliding_windows(*arguments)


# ------------------------------------------------------------------------------------------- splits


def test_parts_by_time_follow_each_other() -> None:
    x, y = normal(23, 4, 2), np.arange(23)
    parts = split_by_time(x, y, fractions=(0.6, 0.3, 0.1))
    assert [len(y) for _, y in parts] == [14, 7, 2]
    for whole, part in zip((x, y), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(part), whole)
        assert all(np.shares_memory(p, whole) for p in part)
    first, second = split_by_time(normal(3, 10), fractions=(0.5, 0.5), axis=1)
    assert first.shape == second.shape == (3, 5)
    (x_past, y_past), _ = split_by_time(normal(3, 10), np.arange(10), axis=(1, 0))
    assert x_past.shape == (3, 8)
    assert y_past.shape == (8,)


@pytest.mark.parametrize("stratified", [False, True])
def test_parts_at_random_have_each_example_once(stratified: bool) -> None:
    count = 97
    x, y = np.arange(3 * count).reshape(3, count), np.arange(count)
    classes = y % 5 if stratified else None
    parts = split_at_random(x, y, fractions=(0.5, 0.3, 0.2), axis=(1, 0), rng=0, stratify=classes)
    assert [len(y) for _, y in parts] == [48, 30, 19]
    for x_part, y_part in parts:
        np.testing.assert_array_equal(x_part, x[:, y_part])
        assert (np.diff(y_part) < 0).any(), "in random order"
    np.testing.assert_array_equal(np.sort(np.concatenate([y for _, y in parts])), y)
    train, _ = split_at_random(x, axis=1, rng=0)
    assert train.shape == (3, 78)


def test_a_seed_gives_the_same_parts_and_another_one_others() -> None:
    y = np.arange(50)
    one, same, other = (split_at_random(y, axis=0, rng=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(split_at_random(y, axis=0, rng=generator)[0], one)
    assert set(split_at_random(y, axis=0, rng=generator)[0]) != set(one)


def test_every_example_may_come_into_every_part() -> None:
    y, labels = np.arange(10), np.arange(10) % 3
    for stratify in (None, labels):
        held = [split_at_random(y, axis=0, rng=s, stratify=stratify)[1] for s in range(200)]
        counts = np.bincount(np.concatenate(held), minlength=10)
        assert counts.min() > 10


def test_stratified_parts_have_their_share_of_each_class() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = rng.choice(["a", "b", "c"], 211, p=[0.7, 0.25, 0.05])
        parts = split_at_random(
            labels, fractions=(0.7, 0.2, 0.1), axis=0, rng=seed, stratify=labels
        )
        assert [len(part) for part in parts] == [148, 42, 21]
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            for part, fraction in zip(parts, (0.7, 0.2, 0.1), strict=True):
                assert abs((part == label).sum() - fraction * count) < 2


@pytest.mark.parametrize("split", [split_by_time, split_at_random])
@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ([], {"axis": 0}, ValueError, "arrays is empty"),
        ([[1, 2]], {"axis": 0}, TypeError, r"arrays\[0\] has type list"),
        ([np.ones((3, 3)), np.ones(3)], {"axis": 1}, ValueError, r"arrays\[1\] .* no axis 1; axis"),
        ([np.ones((3, 3))], {"axis": -1}, ValueError, "axis is -1"),
        ([np.ones((3, 3))], {"axis": 0.5}, TypeError, "axis has type float"),
        ([np.ones((3, 3))], {"axis": (0, 1)}, ValueError, r"axis is \(0, 1\), expected one for"),
        ([np.ones(3), np.ones(4)], {"axis": 0}, ValueError, r"arrays have \[3, 4\] entries along"),
        ([np.ones(9)], {"axis": 0, "fractions": (0.5, 0.6)}, ValueError, "whose sum is 1"),
        ([np.ones(9)], {"axis": 0, "fractions": (1.5, -0.5)}, ValueError, "numbers above 0"),
        ([np.ones(9)], {"axis": 0, "fractions": ()}, ValueError, "whose sum is 1"),
        ([np.ones(9)], {"axis": 0, "fractions": 0.8}, TypeError, "fractions has type float"),
        ([np.ones(9)], {"axis": 0, "fractions": ("a", 1)}, TypeError, r"fractions\[0\] has type"),
        ([np.ones(2)], {"axis": 0, "fractions": (0.9, 0.1)}, ValueError, "a part of 2 entries"),
        ([np.ones(0)], {"axis": 0}, ValueError, "a part of 0 entries empty"),
    ],
)
def test_wrong_splits(split: Any, arrays: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        split(*arrays, **options)


def test_wrong_classes_to_stratify_by() -> None:
    with pytest.raises(ValueError, match=r"stratify has shape \(4,\), expected \(N,\) = \(5,\)"):
        split_at_random(np.ones(5), axis=0, stratify=np.ones(4))


# ------------------------------------------------------------------------------------ standardiser


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_get_mean_0_and_deviation_1(dtype: Any) -> None:
    x = (5 + normal(13, 7, 3) * [1, 1e-3, 1e4]).astype(dtype)
    before = x.copy()
    standardizer = Standardizer().fit(x)
    z = standardizer.transform(x)
    assert z.dtype == dtype
    np.testing.assert_allclose(z.mean(axis=(0, 1), dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=(0, 1), dtype=float), 1, rtol=1e-6)
    back = standardizer.inverse_transform(z)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, x, rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(standardizer.transform(x[0, 0]), z[0, 0])


def test_float32_is_computed_in_float64() -> None:
    """In float32 the deviation of numbers far from zero would be lost."""
    x = (1e6 + np.arange(8)).astype(np.float32)[:, None]
    standardizer = Standardizer().fit(x)
    assert standardizer.mean is not None
    assert standardizer.mean[0] == 1e6 + 3.5
    assert standardizer.scale[0] == np.std(np.arange(8.0))
    expected = (np.arange(8) - 3.5) / np.std(np.arange(8.0))
    np.testing.assert_allclose(standardizer.transform(x)[:, 0], expected, rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 1e-300])
def test_a_feature_that_is_always_the_same_becomes_zero(value: float) -> None:
    x = normal(10007, 2)
    x[:, 1] = value
    standardizer = Standardizer().fit(x)
    assert standardizer.scale[1] == 1
    z = standardizer.transform(x)
    assert not z[:, 1].any()
    np.testing.assert_array_equal(standardizer.inverse_transform(z)[:, 1], x[:, 1])


def test_fit_and_transform_in_one_call() -> None:
    x, lengths = normal(7, 4, 2), [7, 1, 3, 5]
    mask, weight = x[..., 0] > -0.5, np.abs(x[..., 1])
    for given in {}, {"lengths": lengths}, {"mask": mask}, {"weight": weight}:
        one, other = Standardizer(), Standardizer()
        z = one.fit_transform(x, **given)
        np.testing.assert_array_equal(z, other.fit(x, **given).transform(x))
        np.testing.assert_array_equal(one.mean, other.mean)


def test_padding_is_not_read() -> None:
    x, lengths = normal(11, 5, 3), np.array([11, 3, 0, 7, 1])
    mask = length_mask(lengths, 11)
    expected = Standardizer().fit(x[mask])
    x[~mask] = np.nan
    by_time = x.swapaxes(0, 1)
    for found in (
        Standardizer().fit(x, lengths=lengths),
        Standardizer().fit(x, mask=mask),
        Standardizer().fit(by_time, mask=mask.T),
    ):
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-14)
    assert np.isnan(found.transform(x)[~mask]).all()


def test_steps_of_weight_2_count_as_two_of_them() -> None:
    x, weight = normal(11, 5, 3), np.random.default_rng(1).integers(0, 4, (11, 5))
    expected = Standardizer().fit(np.repeat(x.reshape(55, 3), weight.ravel(), axis=0))
    x[weight == 0] = np.nan
    found = Standardizer().fit(x, weight=weight)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-13)
    lengths, by_step = np.array([11, 3, 0, 7, 1]), np.arange(11)
    x = normal(11, 5, 3)
    found = Standardizer().fit(x, lengths=lengths, weight=by_step)
    both = by_step[:, None] * length_mask(lengths, 11)
    np.testing.assert_array_equal(found.mean, Standardizer().fit(x, weight=both).mean)
    x[:, :, 1] = 0.1
    assert Standardizer().fit(x, weight=both).scale[1] == 1
    with pytest.raises(ValueError, match="weight has 55 entries that are negative"):
        Standardizer().fit(x, weight=np.full((11, 5), -1))


def test_a_series_is_one_feature() -> None:
    series = 3 + 2 * normal(53)
    standardizer = Standardizer().fit(series)
    expected = Standardizer().fit(series[:, None])
    assert standardizer.mean == expected.mean[0]
    windows, _ = sliding_windows(series, 10, 1)
    np.testing.assert_array_equal(
        standardizer.transform(windows), sliding_windows(standardizer.transform(series), 10, 1)[0]
    )


def test_a_fitted_standardizer_can_be_kept(tmp_path: Path) -> None:
    for x in (normal(11, 3), normal(11)):
        standardizer = Standardizer().fit(x)
        np.savez(tmp_path / "s.npz", mean=standardizer.mean, scale=standardizer.scale)
        with np.load(tmp_path / "s.npz") as stored:
            loaded = Standardizer(**stored)
        for other in (loaded, pickle.loads(pickle.dumps(standardizer))):
            np.testing.assert_array_equal(other.transform(x), standardizer.transform(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Standardizer().transform(np.ones((2, 3))), ValueError, "is not fitted: call fit"),
        (lambda: Standardizer().inverse_transform(np.ones((2, 3))), ValueError, "is not fitted: "),
        (lambda: Standardizer().fit(np.ones((2, 3), int)), TypeError, "x has dtype int64"),
        (lambda: Standardizer().fit(np.ones(())), ValueError, r"x has shape \(\), expected"),
        (lambda: Standardizer().fit(np.ones((0, 3))), ValueError, "no positions"),
        (lambda: Standardizer().fit(np.ones((3, 0))), ValueError, "at least one feature"),
        (
            lambda: Standardizer().fit(np.ones((2, 3)), mask=np.zeros(2, bool)),
            ValueError,
            "no positions",
        ),
        (
            lambda: Standardizer().fit(np.ones((2, 3)), mask=np.ones((2, 3), bool)),
            ValueError,
            r"mask has shape \(2, 3\), expected \(2,\)",
        ),
        (lambda: Standardizer().fit(np.full((2, 3), np.nan)), ValueError, "x has NaN or infinity"),
        (lambda: Standardizer().fit(np.full((2, 3), np.inf)), ValueError, "x has NaN or infinity"),
        (
            lambda: Standardizer().fit(np.ones((2, 3)), lengths=[1, 1]),
            ValueError,
            r"x has shape \(2, 3\), expected \(T, B, C\) with lengths",
        ),
        (
            lambda: Standardizer().fit(np.ones((2, 3, 1)), lengths=[1, 1]),
            ValueError,
            r"lengths has shape \(2,\), expected \(B,\) = \(3,\)",
        ),
        (
            lambda: Standardizer().fit(
                np.ones((2, 3, 1)), lengths=[1, 1, 1], mask=np.ones(2, bool)
            ),
            ValueError,
            "lengths and mask are both given",
        ),
        (
            lambda: Standardizer().fit(normal(5, 3)).transform(np.ones((5, 2))),
            ValueError,
            r"x has shape \(5, 2\), expected \(\.\.\., C\) = \(\.\.\., 3\)",
        ),
        (lambda: Standardizer(mean=np.ones(2)), ValueError, "mean and scale belong together"),
        (lambda: Standardizer(np.ones(2), np.ones(3)), ValueError, r"scale has shape \(3,\)"),
        (lambda: Standardizer(np.ones(2), np.zeros(2)), ValueError, "scale is .*, expected numb"),
        (lambda: Standardizer(np.ones((2, 2)), np.ones((2, 2))), ValueError, "mean has shape"),
        (lambda: Standardizer(np.ones(1), [np.nan]), TypeError, "scale has type list"),
        (lambda: Standardizer(np.ones(1), np.array([np.inf])), ValueError, "scale is .*, expec"),
    ],
)
def test_wrong_arguments_of_the_standardizer(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [0, -1.5])
def test_padding_and_its_mask_may_have_the_batch_first(value: float) -> None:
    sequences = [np.arange(2.0 * n).reshape(n, 2) for n in (3, 5, 1)]
    padded, lengths = pad(sequences, value)
    rows, same = pad(sequences, value, batch_first=True)
    np.testing.assert_array_equal(rows, padded.swapaxes(0, 1), strict=True)
    np.testing.assert_array_equal(same, lengths)
    assert rows.flags.c_contiguous
    assert padded.flags.c_contiguous
    mask = length_mask(lengths, 5, batch_first=True)
    np.testing.assert_array_equal(mask, length_mask(lengths, 5).T, strict=True)
    assert (rows[~mask] == value).all()
