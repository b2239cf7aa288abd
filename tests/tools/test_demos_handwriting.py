"""What the demonstration of handwriting claims: its pen, its words, its loss and its errors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import assert_drawn, recorded, result

from rnnfast.demos import _demo, handwriting
from rnnfast.training import ctc_loss


def small(seed: int = 0) -> tuple[handwriting.Reader, handwriting.Words]:
    """A reader and a few words."""
    rng = np.random.default_rng(seed)
    return handwriting.Reader(rng), handwriting.words(rng, 6, (1, 2, 3))


# -------------------------------------------------------------------------------------- running it


@pytest.mark.slow
def test_handwriting_reaches_its_figures(tmp_path: Path) -> None:
    content = result("handwriting", tmp_path, "--seed", "1")
    assert content["reached"], content["figures"]
    assert content["seconds"] < 120


def test_handwriting_quick_learns_and_draws(tmp_path: Path) -> None:
    outcome = handwriting.demo.main(_demo.parse("handwriting", "", ["--quick"], handwriting.demo))
    first, last = outcome.details["history"]["held_out"]
    assert last < first
    assert last < 0.8
    assert_drawn(outcome, tmp_path / "plot.png")


# ------------------------------------------------------------------------------------------ the pen


def test_a_curve_goes_from_the_first_corner_to_the_last_and_stays_near_the_others() -> None:
    assert len(handwriting.LETTERS) == 17
    for strokes in handwriting.STROKES.values():
        for corners in strokes:
            given = np.array([[int(c[0]), int(c[1])] for c in corners.split()])
            line, along = handwriting.curve(corners)
            np.testing.assert_array_equal(line[[0, -1]], given[[0, -1]])
            lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
            np.testing.assert_allclose(np.diff(along), lengths)
            distances = np.linalg.norm(given[:, None] - line, axis=2).min(axis=1)
            assert distances.max() < 1.5


class Still:
    """A pen without chance: of every distribution the middle."""

    def normal(self, mean: float, deviation: float, shape: Any = ()) -> Any:
        return np.full(shape, float(mean))

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def test_each_stroke_begins_with_a_move_through_the_air() -> None:
    still: Any = Still()
    for letter, strokes in enumerate(handwriting.STROKES.values()):
        points, air = handwriting.write([letter], still)
        assert air[0]
        assert air.sum() == len(strokes)
        begins = [[int(c) for c in corners.split()[0]] for corners in strokes]
        np.testing.assert_allclose(points[air], begins)
        gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert gaps[~air[1:]].max() < 1.5, "on paper the pen moves by small steps"


def test_the_letters_of_a_word_stand_side_by_side() -> None:
    still: Any = Still()
    alone = [handwriting.write([letter], still) for letter in range(3)]
    points, air = handwriting.write([0, 1, 2], still)
    np.testing.assert_array_equal(air, np.concatenate([a for _, a in alone]))
    starts = np.cumsum([0, *(len(p) for p, _ in alone)])
    right = -np.inf
    for (form, _), start, end in zip(alone, starts, starts[1:], strict=False):
        moved = points[start:end] - form
        np.testing.assert_allclose(moved - moved[0], 0, atol=1e-12)
        assert points[start:end, 0].min() > right
        right = points[start:end, 0].max()


def test_the_network_reads_moves_of_the_pen_and_not_where_it_is() -> None:
    rng = np.random.default_rng(0)
    points, air = handwriting.write([3, 4], rng)
    x = handwriting.steps(points, air)
    assert x.dtype == np.float32
    assert not x[0, :2].any()
    np.testing.assert_allclose(x[:, :2].cumsum(axis=0), points - points[0], atol=1e-4)
    np.testing.assert_array_equal(x[:, 2], air)
    np.testing.assert_allclose(handwriting.steps(points + 100, air), x, atol=1e-5)


def test_no_two_ways_of_writing_a_letter_are_the_same() -> None:
    rng = np.random.default_rng(0)
    lengths = {len(handwriting.write([5], rng)[0]) for _ in range(30)}
    assert len(lengths) > 2, "the speed varies"


# ---------------------------------------------------------------------------------------- the claim


def test_the_test_words_are_longer_than_any_that_were_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (call,), result = recorded("handwriting", monkeypatch)
    lengths = [len(word) for letters, _, _ in call.batches for word in letters]
    assert set(lengths) == {1, 2, 3}
    assert len(lengths) == 4000, "each word once in an epoch"
    assert call.options["epochs"] == 6
    used = {letter for letters, _, _ in call.batches for word in letters for letter in word}
    assert used == set(range(17))
    for letters, x, counts in call.batches:
        assert x.shape == (max(counts), len(letters), 3)
    assert call.figure is not None
    assert call.figure > 0.8, "untrained, it reads hardly a letter"
    assert not any(figure.reached for figure in result.figures)


def test_the_reader_descends_the_loss_of_words_taken_one_by_one() -> None:
    model, known = small()
    batch = known.batch(range(6))

    def loss() -> float:
        losses = []
        for letters, moves in zip(known.letters, known.moves, strict=True):
            logits = model(moves[:, None], [len(moves)])
            losses.append(ctc_loss(logits, letters[:, None], blank=handwriting.BLANK)[0])
        return float(np.mean(losses))

    value, grads = model.loss_and_grads(batch)
    assert value == pytest.approx(loss(), rel=1e-5)
    assert grads.keys() == model.params.keys()
    for name, p in model.params.items():
        norm = np.linalg.norm(grads[name])
        start, step = p.copy(), 1e-2 * grads[name] / norm
        p += step
        above = loss()
        p[...] = start - step
        below = loss()
        p[...] = start
        assert (above - below) / 2e-2 == pytest.approx(norm, rel=2e-2), name


def test_a_word_is_read_alike_alone_and_in_a_batch() -> None:
    model, known = small(3)
    for p in model.params.values():
        p *= 5  # weights that name some letters
    _, x, lengths = known.batch(range(6))
    answers = model.read(x, lengths)
    assert len({tuple(answer) for answer in answers}) > 3
    for moves, answer in zip(known.moves, answers, strict=True):
        assert model.read(moves[:, None], [len(moves)]) == [answer]


@lru_cache
def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Levenshtein's distance as it is defined."""
    if not a or not b:
        return len(a) + len(b)
    replaced = distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(replaced, distance(a[1:], b) + 1, distance(a, b[1:]) + 1)


def test_edits_are_counted_as_defined() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = (tuple(rng.integers(0, 3, rng.integers(0, 6)).tolist()) for _ in "ab")
        assert handwriting.edits(a, b) == distance(a, b)
    assert handwriting.edits([1, 2, 3], [1, 3]) == 1
    assert handwriting.edits([], [1, 2]) == handwriting.edits([1, 2], []) == 2


def test_the_figures_are_shares_of_letters_and_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that leaves out the last letter of every other word."""
    test = handwriting.words(np.random.default_rng([0, 1]), 500, (4,))
    answers = [[*word[: 4 - i % 2]] for i, word in enumerate(test.letters)]
    monkeypatch.setattr(handwriting.Reader, "read", lambda self, x, lengths: answers)
    _, result = recorded("handwriting", monkeypatch)
    assert [figure.value for figure in result.figures] == [0.125, 0.5]
