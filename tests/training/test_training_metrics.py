"""Metrics: their definition, scikit-learn's figures, what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    accuracy,
    f1_score,
    l1_loss,
    mean_absolute_error,
    mean_squared_error,
    root_mean_squared_error,
    softmax,
)

AVERAGES = ["macro", "micro", "weighted"]


def classes(count: int, shape: Any = (13, 3), rng: int = 0) -> tuple[Any, Any]:
    """Predictions of which about half are right, and targets."""
    generator = np.random.default_rng(rng)
    right = generator.integers(0, count, shape)
    told = np.where(generator.random(shape) < 0.4, right, generator.integers(0, count, shape))
    return told, right


def test_accuracy_is_the_share_of_the_right_ones() -> None:
    assert accuracy(np.array([1, 2, 0, 2]), np.array([1, 0, 0, 2])) == 0.75
    assert accuracy(np.array([True, False]), np.array([1, 1])) == 0.5
    assert accuracy([1, 0], [1, 0]) == 1
    assert type(accuracy([1, 0], [1, 0])) is float


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_stand_for_the_class_with_the_highest(dtype: Any) -> None:
    told, right = classes(5)
    logits = np.random.default_rng(1).standard_normal((13, 3, 5)).astype(dtype)
    np.put_along_axis(logits, told[..., None], 9, axis=-1)
    for scores in (logits, softmax(logits)):
        assert accuracy(scores, right) == accuracy(told, right) == (told == right).mean()
        for average in AVERAGES:
            expected = f1_score(told, right, average=average)
            assert f1_score(scores, right, average=average) == expected


def test_f1_by_hand() -> None:
    told, right = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 1, 0, 1, 0, 0])
    assert f1_score(told, right) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert f1_score(told.astype(bool), right.astype(bool)) == f1_score(told, right)
    told, right = np.array([0, 0, 1, 2, 2, 2, 7]), np.array([0, 1, 1, 2, 0, 2, 2])
    by_class = np.array([2 / 4, 2 / 3, 4 / 6, 0])  # of 0, 1, 2 and 7, which no target has
    assert f1_score(told, right, average="macro") == pytest.approx(by_class.mean())
    weighted = (by_class * [2, 2, 3, 0]).sum() / 7
    assert f1_score(told, right, average="weighted") == pytest.approx(weighted)
    assert f1_score(told, right, average="micro") == pytest.approx(accuracy(told, right)) == 4 / 7


def test_f1_where_nothing_is_positive() -> None:
    zeros, ones = np.zeros(3, int), np.ones(3, int)
    assert f1_score(zeros, zeros) == f1_score(zeros, ones) == f1_score(ones, zeros) == 0
    assert f1_score(ones, ones) == 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [2, 3, 11])
def test_figures_are_those_of_scikit_learn(count: int, weighted: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="a witness, if installed")
    for seed in range(5):
        told, right = classes(count, (7, 5), seed)
        weight = np.random.default_rng(seed).random((7, 5)) + 0.1 if weighted else None
        options = {"sample_weight": None if weight is None else weight.ravel()}
        expected = metrics.accuracy_score(right.ravel(), told.ravel(), **options)
        assert accuracy(told, right, weight=weight) == pytest.approx(expected, rel=1e-14)
        for average in AVERAGES if count > 2 else [*AVERAGES, "binary"]:
            ours = f1_score(told, right, average=average, weight=weight)
            expected = metrics.f1_score(
                right.ravel(), told.ravel(), average=average, zero_division=0, **options
            )
            assert ours == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("average", [*AVERAGES, "accuracy"])
def test_what_does_not_count_is_not_read(average: str) -> None:
    def figure(*arguments: Any, **options: Any) -> float:
        if average == "accuracy":
            return accuracy(*arguments, **options)
        return f1_score(*arguments, average=average, **options)

    told, right = classes(4)
    mask = np.random.default_rng(2).random((13, 3)) < 0.6
    weight = np.random.default_rng(3).integers(0, 3, (13, 3))
    expected = figure(told[mask], right[mask], weight=weight[mask])
    dead = ~mask | (weight == 0)
    told[dead], right[dead] = 99, -3
    assert figure(told, right, mask=mask, weight=weight) == pytest.approx(expected, rel=1e-14)
    times = np.where(dead, 0, weight).ravel()
    told, right = (np.repeat(a.ravel(), times) for a in (told, right))
    assert figure(told, right) == pytest.approx(expected, rel=1e-14)
    scores = np.eye(4)[np.clip(classes(4)[0], 0, 3)]
    scores[dead] = np.nan
    right = np.where(dead, -3, classes(4)[1])
    assert figure(scores, right, mask=mask, weight=weight) == pytest.approx(expected, rel=1e-14)


def test_masks_of_fewer_axes() -> None:
    told, right = classes(3)
    steps = np.arange(13) > 4
    assert accuracy(told, right, mask=steps) == pytest.approx((told == right)[steps].mean())
    expected = f1_score(told[steps], right[steps], average="macro")
    assert f1_score(told, right, average="macro", mask=steps) == pytest.approx(expected)
    weight = np.arange(13)
    expected = accuracy(told, right, weight=np.broadcast_to(weight[:, None], (13, 3)))
    assert accuracy(told, right, weight=weight) == expected


def test_errors_of_numbers() -> None:
    y, t = np.random.default_rng(0).standard_normal((2, 11, 3)).astype(np.float32)
    mask, weight = y > 0, np.arange(11)
    options = {"mask": mask, "weight": weight}
    assert mean_absolute_error(y, t) == pytest.approx(np.abs(y - t).mean(), rel=1e-6)
    assert mean_absolute_error(y, t, **options) == l1_loss(y, t, **options)[0]
    squared = mean_squared_error(y, t, **options)[0]
    assert root_mean_squared_error(y, t, **options) == np.sqrt(squared)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1, 0], [1.0, 0.0]), {}, TypeError, "targets has dtype float64, expected integers"),
        (([1, 0], [1, 0, 1]), {}, ValueError, r"predictions has shape \(2,\), expected \(3,\)"),
        ((np.zeros(2), [1, 0]), {}, ValueError, r"predictions has dtype float64 and shape \(2,\)"),
        ((np.zeros((3, 2)), [1, 0]), {}, ValueError, r"shape \(3, 2\), expected \(\.\.\., C\)"),
        ((np.zeros((2, 0)), [1, 0]), {}, ValueError, "with C >= 1"),
        ((np.full((2, 3), np.nan), [1, 0]), {}, ValueError, "predictions has scores that are NaN"),
        ((["a", "b"], [1, 0]), {}, TypeError, "predictions has dtype <U1, expected integers"),
        ((np.zeros(0, int), np.zeros(0, int)), {}, ValueError, "no positions"),
        (([1, 0], [1, 0]), {"mask": np.zeros(2, bool)}, ValueError, "no positions"),
        (([1, 0], [1, 0]), {"weight": [0, 0]}, ValueError, "no positions"),
        (([1, 0], [1, 0]), {"weight": [0, -1]}, ValueError, "weight has 1 entries"),
        (([1, 0], [1, 0]), {"mask": [True, False]}, TypeError, "mask has type list"),
    ],
)
def test_wrong_arguments(arguments: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        accuracy(*arguments, **options)
    with pytest.raises(error, match=message):
        f1_score(*arguments, average="macro", **options)


def test_wrong_averages() -> None:
    with pytest.raises(ValueError, match="average is 'samples', expected one of 'binary', 'macro'"):
        f1_score([1, 0], [1, 0], average="samples")
    with pytest.raises(ValueError, match=r"there are the classes \[0, 1, 2\], expected 0 and 1"):
        f1_score([1, 0, 2], [1, 0, 0])


@pytest.mark.parametrize("figure", [accuracy, f1_score])
def test_scores_of_one_class_and_classes_without_scores_are_refused(figure: Any) -> None:
    with pytest.raises(ValueError, match=r"scores of one class, .* predictions\[\.\.\., 0\] > 0"):
        figure(np.array([[5.0], [-5.0]]), np.array([1, 0]))
    with pytest.raises(ValueError, match="targets has entries from 0 to 7, expected 0 to 1"):
        figure(np.zeros((2, 2)), np.array([7, 0]))
    assert accuracy(np.zeros((2, 2)), np.array([0, 7]), mask=np.array([True, False])) == 1
