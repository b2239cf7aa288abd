"""CTC: against an enumeration of all paths, central differences and PyTorch; ugly cases."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from rnnfast.training import ctc_decode, ctc_loss, gradcheck, pad


def case(T: int, B: int, C: int, S: int, blank: int = 0, seed: int = 0) -> tuple[Any, Any]:
    """Logits and targets without blanks."""
    rng = np.random.default_rng(seed)
    labels = np.array([c for c in range(C) if c != blank])
    return 2 * rng.standard_normal((T, B, C)), rng.choice(labels, (S, B))


def spelt(path: Any, blank: int) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != blank]


def enumerated(logits: Any, labels: Any, blank: int) -> float:
    """Minus the log of the summed probabilities of all paths (T, C) that spell the labels."""
    y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    paths = itertools.product(range(logits.shape[1]), repeat=len(logits))
    chosen = [p for p in paths if spelt(p, blank) == list(labels)]
    with np.errstate(divide="ignore"):
        return -float(np.log(sum(np.prod([y[t, c] for t, c in enumerate(p)]) for p in chosen)))


# ------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("T", [0, 1, 2, 5])
def test_values_are_those_of_all_paths(T: int, blank: int) -> None:
    """All targets of up to three labels, repeated ones and those that do not fit among them."""
    others = [c for c in range(3) if c != blank]
    for S in range(4):
        targets = np.array(list(itertools.product(others, repeat=S)), int).reshape(2**S, S).T
        logits, _ = case(T, 2**S, 3, 0, seed=S)
        for b in range(2**S):
            row = slice(b, b + 1)
            value, dlogits = ctc_loss(logits[:, row], targets[:, row], blank=blank)
            expected = enumerated(logits[:, b], targets[:, b], blank)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert np.isfinite(dlogits).all()
            assert dlogits.any() == (expected < np.inf and T > 0)


def test_the_loss_is_the_mean_over_the_sequences() -> None:
    logits, targets = case(6, 5, 4, 2)
    rows = [ctc_loss(logits[:, [b]], targets[:, [b]]) for b in range(5)]
    value, dlogits = ctc_loss(logits, targets)
    assert value == pytest.approx(np.mean([row[0] for row in rows]), rel=1e-14)
    for b, (_, alone) in enumerate(rows):
        np.testing.assert_allclose(dlogits[:, [b]], alone / 5, rtol=1e-12, atol=1e-16)


# ---------------------------------------------------------------------------------------- gradients

LENGTHS, COUNTS = np.array([7, 3, 5, 1, 7, 0, 6]), np.array([3, 2, 0, 1, 1, 0, 3])


@pytest.mark.parametrize("blank", [0, 3])
def test_the_gradient_is_the_central_difference(blank: int) -> None:
    logits, targets = case(7, 7, 4, 3, blank)
    targets[:, 6] = targets[0, 6]  # three times the same
    value, dlogits = ctc_loss(logits, targets, LENGTHS, COUNTS, blank=blank)
    assert np.isfinite(value)

    def loss() -> float:
        return ctc_loss(logits, targets, LENGTHS, COUNTS, blank=blank)[0]

    assert np.abs(dlogits).max() > 1e-2
    assert gradcheck(loss, {"z": logits}, {"z": dlogits})["z"] < 1e-8
    np.testing.assert_allclose(dlogits.sum(axis=2), 0, atol=1e-15)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_values_and_gradients_are_those_of_torch(zero_infinity: bool) -> None:
    """But for sequences that do not fit: without zero_infinity theirs have gradients of NaN."""
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    T, B, C, S = 41, 13, 6, 11
    for blank in (0, 4):
        logits, targets = case(T, B, C, S, blank, seed=3)
        rng = np.random.default_rng(2)
        lengths, counts = rng.integers(1, T + 1, B), rng.integers(0, S + 1, B)
        lengths[:3], counts[:3] = (2, 9, T), (3, S, S)  # the first two cannot be spelt
        theirs = torch.tensor(logits, requires_grad=True)
        losses = torch.nn.functional.ctc_loss(
            theirs.log_softmax(2),
            torch.tensor(targets.T.copy()),
            torch.tensor(lengths),
            torch.tensor(counts),
            blank=blank,
            reduction="none",
            zero_infinity=zero_infinity,
        )
        losses.mean().backward()
        value, dlogits = ctc_loss(
            logits, targets, lengths, counts, blank=blank, zero_infinity=zero_infinity
        )
        possible = np.isfinite(losses.detach().numpy()) & (losses.detach().numpy() != 0)
        assert 5 < possible.sum() <= B - 2
        assert value == pytest.approx(losses.mean().item(), rel=1e-12)
        assert np.isinf(value) == (not zero_infinity)
        compared = slice(None) if zero_infinity else possible
        expected = theirs.grad.numpy()[:, compared]
        np.testing.assert_allclose(dlogits[:, compared], expected, rtol=1e-8, atol=1e-14)
        assert not dlogits[:, ~possible].any()


# -------------------------------------------------------------------------------------- ugly cases


def test_a_sequence_that_does_not_fit_is_infinite_or_counts_as_zero() -> None:
    """Two equal labels need a blank between them, so three steps; others keep their gradients."""
    logits, _ = case(2, 2, 3, 0)
    targets = np.array([[1, 1], [1, 2]])
    value, dlogits = ctc_loss(logits, targets)
    assert value == np.inf
    assert not dlogits[:, 0].any()
    assert dlogits[:, 1].all()
    second = ctc_loss(logits[:, 1:], targets[:, 1:])
    value, zeroed = ctc_loss(logits, targets, zero_infinity=True)
    assert value == pytest.approx(second[0] / 2, rel=1e-14)
    np.testing.assert_array_equal(zeroed, dlogits)
    np.testing.assert_allclose(zeroed[:, 1:], second[1] / 2, rtol=1e-13)


def test_padding_is_not_read() -> None:
    logits, targets = case(7, 7, 4, 3)
    wanted = ctc_loss(logits, targets, LENGTHS, COUNTS)
    padding = np.arange(7)[:, None] >= LENGTHS
    logits[padding] = np.nan
    targets[np.arange(3)[:, None] >= COUNTS] = 0  # the blank, as `pad` writes it
    value, dlogits = ctc_loss(logits, targets, LENGTHS, COUNTS)
    assert value == wanted[0]
    np.testing.assert_array_equal(dlogits, wanted[1])
    assert not dlogits[padding].any()
    targets[np.arange(3)[:, None] >= COUNTS] = -99
    assert ctc_loss(logits, targets, LENGTHS, COUNTS)[0] == value


def test_more_padding_changes_nothing() -> None:
    logits, targets = case(7, 7, 4, 3)
    value, dlogits = ctc_loss(logits, targets, LENGTHS, COUNTS)
    longer = np.concatenate([logits, logits]), np.concatenate([targets, targets])
    more, dlonger = ctc_loss(*longer, LENGTHS, COUNTS)
    assert more == value
    np.testing.assert_array_equal(dlonger[:7], dlogits)
    assert not dlonger[7:].any()


def test_extreme_logits_neither_overflow_nor_warn() -> None:
    """Also a path whose probability no float64 holds: 300 labels that the network rules out."""
    z = np.full((600, 1, 3), -1e4)
    z[:, :, 0] = 1e4
    targets = np.tile([[1], [2]], (150, 1))
    with np.errstate(all="raise", under="ignore"):
        value, dlogits = ctc_loss(z, targets)
        assert value == pytest.approx(300 * 2e4 - ways(600, 300), rel=1e-9)
        assert np.isfinite(dlogits).all()
        value, _ = ctc_loss(z.astype(np.float32), targets)
        assert value == pytest.approx(300 * 2e4 - ways(600, 300), rel=1e-9)


def ways(T: int, S: int) -> float:
    """Log of the number of paths that name each of S labels once: their places among T."""
    return float(np.log(np.arange(T - S + 1, T + 1) / np.arange(1, S + 1)).sum())


def test_a_class_that_is_ruled_out() -> None:
    logits, targets = case(5, 2, 4, 2)
    targets[:] = [[1, 1], [2, 3]]
    logits[2, :, 3] = -np.inf
    with np.errstate(all="raise", under="ignore"):
        value, dlogits = ctc_loss(logits, targets)
    np.testing.assert_array_equal(dlogits[2, :, 3], 0)
    expected = [enumerated(logits[:, b], targets[:, b], 0) for b in range(2)]
    assert value == pytest.approx(np.mean(expected), rel=1e-12)
    logits[:, 1, 3] = -np.inf
    value, dlogits = ctc_loss(logits, targets)
    assert value == np.inf
    assert not dlogits[:, 1].any()


def test_nan_is_passed_on() -> None:
    logits, targets = case(5, 2, 4, 2)
    logits[3, 0, 1] = np.nan
    with np.errstate(invalid="ignore"):
        value, dlogits = ctc_loss(logits, targets)
    assert np.isnan(value)
    assert np.isnan(dlogits[:, 0]).any()
    assert np.isfinite(dlogits[:, 1]).all()


def test_float32_has_sums_in_float64_and_arguments_are_left_as_they_are() -> None:
    logits, targets = case(300, 3, 5, 40)
    logits = logits.astype(np.float32)
    before, labels = logits.copy(), targets.copy()
    logits.flags.writeable = targets.flags.writeable = False
    value, dlogits = ctc_loss(logits, targets)
    assert dlogits.dtype == np.float32
    assert type(value) is float
    exact, gradient = ctc_loss(logits.astype(np.float64), targets)
    assert value == exact
    np.testing.assert_array_equal(dlogits, gradient.astype(np.float32))
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(targets, labels)
    strided = np.asfortranarray(logits)
    assert ctc_loss(strided, np.asfortranarray(targets))[0] == value


def test_targets_as_pad_makes_them_and_of_small_integers() -> None:
    logits, _ = case(8, 3, 5, 0)
    targets, counts = pad([np.array([1, 2, 3]), np.array([4]), np.array([2, 2])])
    value = ctc_loss(logits, targets, target_lengths=counts)[0]
    rows = [([1, 2, 3], 0), ([4], 1), ([2, 2], 2)]
    alone = [ctc_loss(logits[:, [b]], np.array([labels]).T)[0] for labels, b in rows]
    assert value == pytest.approx(np.mean(alone), rel=1e-14)
    for dtype in (np.uint8, np.int8, np.uint64):
        assert ctc_loss(logits, targets.astype(dtype), target_lengths=counts)[0] == value
    assert ctc_loss(logits, targets.tolist(), target_lengths=counts.tolist())[0] == value


Z, LABELS = np.zeros((5, 3, 4)), np.ones((2, 3), int)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1.0], LABELS), {}, TypeError, "logits has type list"),
        ((Z.astype(int), LABELS), {}, TypeError, "logits has dtype int64"),
        ((Z[0], LABELS), {}, ValueError, r"logits has shape \(3, 4\), expected \(T, B, C\)"),
        ((Z[:, :, :0], LABELS), {}, ValueError, r"expected \(T, B, C\) with C >= 1"),
        ((Z[:, :0], LABELS[:, :0]), {}, ValueError, "expected at least one sequence"),
        ((Z, LABELS.astype(float)), {}, TypeError, "targets has dtype float64, expected integers"),
        ((Z, LABELS.T), {}, ValueError, r"targets has shape \(3, 2\), expected \(S, B\) ="),
        ((Z, LABELS[0]), {}, ValueError, r"targets has shape \(3,\), expected"),
        ((Z, 4 * LABELS), {}, ValueError, "targets has entries from 4 to 4, expected 0 to 3"),
        ((Z, -LABELS), {}, ValueError, "targets has entries from -1 to -1, expected 0 to 3"),
        ((Z, 0 * LABELS), {}, ValueError, "targets has the blank, 0, among its labels"),
        ((Z, LABELS), {"blank": 1}, ValueError, "targets has the blank, 1, among its labels"),
        ((Z, LABELS), {"blank": 4}, ValueError, "blank is 4, expected a class from 0 to 3"),
        ((Z, LABELS), {"blank": -1}, ValueError, "blank is -1, expected at least 0"),
        ((Z, LABELS), {"blank": 1.0}, TypeError, "blank has type float"),
        ((Z, LABELS, [5, 5]), {}, ValueError, r"lengths has shape \(2,\), expected \(B,\) ="),
        ((Z, LABELS, [5, 5, 6]), {}, ValueError, "lengths has entries from 5 to 6, expected 0 to"),
        ((Z, LABELS, [5.0, 5, 5]), {}, TypeError, "lengths has dtype float64, expected integers"),
        (
            (Z, LABELS),
            {"target_lengths": [1, 2, 3]},
            ValueError,
            "target_lengths has entries from 1 to 3, expected 0 to 2",
        ),
        (
            (Z, LABELS),
            {"target_lengths": [[1, 2, 2]]},
            ValueError,
            r"target_lengths has shape \(1, 3\), expected",
        ),
    ],
)
def test_wrong_arguments(arguments: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ctc_loss(*arguments, **options)


# ------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("blank", [0, 2])
def test_decoding_spells_the_likeliest_path(blank: int) -> None:
    logits, _ = case(23, 11, 3, 0, seed=5)
    lengths = np.random.default_rng(0).integers(0, 24, 11)
    answers = ctc_decode(logits, lengths, blank=blank)
    for b, n in enumerate(lengths):
        assert answers[b] == spelt(logits[:n, b].argmax(axis=1), blank)
        assert all(type(label) is int for label in answers[b])
    assert max(map(len, answers)) > 5
    assert ctc_decode(logits, blank=blank)[0] == spelt(logits[:, 0].argmax(axis=1), blank)


def test_decoding_of_a_path_that_was_written_down() -> None:
    paths = [[0, 1, 1, 0, 1, 2, 2], [3, 3, 3, 3, 3, 3, 3], [0] * 7]
    y = np.eye(4)[np.transpose(paths)]
    assert ctc_decode(y) == [[1, 1, 2], [3], []]
    assert ctc_decode(y[:0]) == [[], [], []]
    assert ctc_decode(y[:, :0]) == []


def test_a_sequence_that_was_learnt_is_decoded() -> None:
    """Descending the loss makes the likeliest path spell the targets."""
    logits, targets = case(12, 4, 5, 4)
    counts = np.array([4, 2, 0, 3])
    for _ in range(500):
        loss, dlogits = ctc_loss(logits, targets, target_lengths=counts)
        logits -= 4 * dlogits
    assert loss < 0.05
    answers = ctc_decode(logits)
    assert answers == [targets[:n, b].tolist() for b, n in enumerate(counts)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z[0],), ValueError, "logits has shape"),
        ((Z, [1, 2]), ValueError, "lengths has shape"),
        ((Z, [1, 2, 9]), ValueError, "lengths has entries from 1 to 9, expected 0 to 5"),
    ],
)
def test_wrong_arguments_of_decoding(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ctc_decode(*arguments)
