"""Reading handwriting as the pen moves: which letters, without being told which part is which.

A word is a row of pen points. Each step has three numbers: how far the pen has moved in x and in y,
and whether it moved through the air. A bidirectional LSTM names a letter or "nothing yet" at each:

    h_t = LSTM(x_t, h_{t-1}),  g_t = LSTM'(x_t, g_{t+1}),    y_t = softmax(W [h_t, g_t] + b)

The training has the letters of a word but not their places. So the loss is minus the logarithm of
the summed probabilities of all paths y_1 ... y_T that spell the word (connectionist temporal
classification, `ctc_loss`). A path spells what remains when repeated names count once and "nothing
yet" is left out. The network is trained on words of one to three letters and reads words of four.

Graves et al., Connectionist temporal classification (2006); Graves et al., A novel connectionist
system for unconstrained handwriting recognition (2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import LSTM, Sequential
from rnnfast.training import (
    Adam,
    Linear,
    ctc_decode,
    ctc_loss,
    minibatches,
    new_figure,
    pad,
    softmax,
)

from ._demo import Demo, Options, Result, at_least, at_most, train

# The strokes of each letter, as a pen draws them, by their corners: a digit for x, one for y. The
# letters stand on y = 2. Small ones reach up to 6, tall ones to 9, and tails down to 0.
STROKES = {
    "a": ["45 36 16 05 03 12 32 44 46 42"],
    "c": ["45 36 16 05 03 12 32 43"],
    "d": ["45 36 16 05 03 12 32 44 49 49 42"],
    "e": ["04 44 45 36 16 05 03 12 32 43"],
    "g": ["45 36 16 05 03 12 32 44 46 41 30 10 01"],
    "h": ["09 02 04 16 36 45 42"],
    "i": ["16 13 22", "18 17"],
    "l": ["19 13 22 32"],
    "m": ["06 02 05 16 26 35 32 35 46 56 65 62"],
    "n": ["06 02 04 16 36 45 42"],
    "o": ["26 16 05 03 12 32 43 45 36 26"],
    "r": ["06 02 04 16 26 35"],
    "s": ["45 36 16 05 14 34 43 32 12 03"],
    "t": ["29 23 32 42", "06 46"],
    "u": ["06 03 12 32 44 46 42"],
    "w": ["06 12 35 52 66"],
    "y": ["06 23", "46 00"],
}
LETTERS = [*STROKES]
BLANK = len(LETTERS)  # "nothing yet"
HIDDEN, BATCH = 48, 32


def curve(corners: str) -> Any:
    """A stroke as a smooth line: its points (n, 2) and how far along it each is."""
    points: Any = np.array([list(map(int, corner)) for corner in corners.split()], float)
    for _ in range(3):  # cut the corners (Chaikin)
        cut = np.stack([points[:-1] * 3 + points[1:], points[:-1] + points[1:] * 3], axis=1) / 4
        points = np.concatenate([points[:1], cut.reshape(-1, 2), points[-1:]])
    steps = np.hypot(*np.diff(points, axis=0).T)
    return points, np.concatenate([[0.0], np.cumsum(steps)])


CURVES = [[curve(corners) for corners in STROKES[letter]] for letter in LETTERS]


def write(letters: Sequence[int], rng: np.random.Generator) -> tuple[Any, Any]:
    """Write a word: the pen's points (T, 2), and whether it came to each through the air (T,)."""
    slant, speed, start = rng.normal(0, 0.2), rng.uniform(0.9, 1.4), 0.0
    points: list[Any] = []
    air: list[bool] = []
    for letter in letters:
        form = np.eye(2) + rng.normal(0, 0.08, (2, 2)) + [[0, slant], [0, 0]]
        place = np.array([start, rng.normal(0, 0.3)])
        for line, along in CURVES[letter]:
            count = 1 + max(1, round(along[-1] / speed))
            at = np.linspace(0, along[-1], count)
            stroke = np.stack([np.interp(at, along, axis) for axis in line.T], axis=1)
            points.append(stroke @ form.T + place)
            air += [True] + [False] * (count - 1)
        start += max(line[:, 0].max() for line, _ in CURVES[letter]) + rng.uniform(1, 2.5)
    all_points = np.concatenate(points)
    return all_points + rng.normal(0, 0.08, all_points.shape), np.array(air)


def steps(points: Any, air: Any) -> Any:
    """What the network reads of a word, (T, 3): two differences and the pen-up flag."""
    moves = np.diff(points, axis=0, prepend=points[:1])
    return np.column_stack([moves, air]).astype(np.float32)


class Words(NamedTuple):
    """Random words, and what the pen did to write each."""

    letters: list[Any]
    moves: list[Any]

    def batch(self, chosen: Any) -> tuple[list[Any], Any, Any]:
        """The letters of some of them, the padded steps (T, B, 3) and how many there are (B,)."""
        return [self.letters[i] for i in chosen], *pad([self.moves[i] for i in chosen])


def words(rng: np.random.Generator, count: int, lengths: Sequence[int]) -> Words:
    """Words of random letters, each of one of the lengths, written one after the other."""
    letters = [rng.integers(0, len(LETTERS), rng.choice(lengths)) for _ in range(count)]
    return Words(letters, [steps(*write(word, rng)) for word in letters])


class Reader(Sequential):
    """A bidirectional LSTM and a softmax over the letters and the blank.

    A call gives the logits of every step, (T, B, 18).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(
            LSTM(3, HIDDEN, bidirectional=True, rng=rng),
            Linear(2 * HIDDEN, len(LETTERS) + 1, rng=rng),
        )

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """The loss over all alignments, and its gradients."""
        letters, x, lengths = batch
        logits, tape = self.forward(x, lengths)
        labels, counts = pad(letters)
        loss, d_logits = ctc_loss(logits, labels, lengths, counts, blank=BLANK)
        return loss, self.backward(tape, d_logits).params

    def read(self, x: Any, lengths: Any) -> list[list[int]]:
        """The letters of each word."""
        return ctc_decode(self(x, lengths), lengths, blank=BLANK)


def edits(answer: Sequence[int], wanted: Sequence[int]) -> int:
    """How many letters must be put in, left out or replaced (Levenshtein 1966)."""
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(answer, 1):
        above, row = row, [i]
        for j, w in enumerate(wanted, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != w)))
    return row[-1]


def spell(letters: Sequence[int]) -> str:
    """The letters as text."""
    return "".join(LETTERS[letter] for letter in letters)


def main(options: Options) -> Result:
    """Train on words of one to three letters, read words of four."""
    rng = np.random.default_rng(options.seed)
    model, known = Reader(rng), words(rng, 4000, (1, 2, 3))
    test = words(np.random.default_rng([options.seed, 1]), 500, (4,))
    wanted, x, lengths = test.batch(range(500))
    pen_steps = np.array([len(moves) for moves in known.moves])
    epochs = 2 if options.quick else 6

    def batches(rng: np.random.Generator) -> Iterator[Any]:
        chosen = minibatches(len(pen_steps), BATCH, rng, lengths=pen_steps)
        return (known.batch(indices) for indices in chosen)

    def wrong_letters() -> float:
        answers = zip(model.read(x, lengths), wanted, strict=True)
        return sum(edits(*pair) for pair in answers) / sum(map(len, wanted))

    history = train(
        model.loss_and_grads,
        Adam(model.params),
        batches,
        epochs=epochs,
        rng=rng,
        evaluate=wrong_letters,
        clip_norm=1.0,
        schedule=lambda epoch: 0.008 * (1 - epoch / epochs),
        label="handwriting",
    )
    answers = model.read(x, lengths)
    exact = float(np.mean([edits(*pair) == 0 for pair in zip(answers, wanted, strict=True)]))
    for word, answer in list(zip(wanted, answers, strict=True))[:4]:
        print(f"  written {spell(word)}, read {spell(answer)}")
    return Result(
        [
            at_most("wrong letters in words of four", wrong_letters(), 0.02),
            at_least("words of four without a mistake", exact, 0.95),
        ],
        lambda: plot(history, model, x[: lengths[0], :1]),
        {"history": history.as_dict()},
    )


def plot(history: Any, model: Reader, x: Any) -> Any:
    """The errors over the epochs; a word as it was written, and the network's outputs below it."""
    y = softmax(model(x, [len(x)]))[:, 0]
    best = y.argmax(axis=1)
    moves, air = x[:, 0, :2].cumsum(axis=0), x[:, 0, 2] > 0

    figure = new_figure(10.0)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 5))
    errors = left.subplots()
    errors.semilogy(range(1, history.epochs + 1), np.maximum(history.held_out, 1e-4), ".-")
    errors.axhline(0.02, color="gray", linestyle=":", label="0.02")
    errors.set(xlabel="epoch (4,000 words)", ylabel="share of wrong letters", title="new words")
    errors.legend()
    errors.grid(alpha=0.3)

    page, outputs = right.subplots(2, 1)
    for stroke in np.split(moves, np.flatnonzero(air)[1:]):
        page.plot(*stroke.T, ".-", color="black", markersize=4)
    for letter in dict.fromkeys(best[best != BLANK]):
        (line,) = outputs.plot(y[:, letter], label=LETTERS[letter])
        page.plot(*moves[best == letter].T, "o", color=line.get_color(), markersize=9, alpha=0.7)
    outputs.plot(y[:, BLANK], ":", color="gray", label="nothing yet")
    page.set(xlabel="x of the pen", ylabel="y of the pen", aspect="equal")
    page.set_title("where the network names a letter")
    outputs.set(xlabel="step", ylabel="output", ylim=(0, 1.05))
    outputs.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


demo = Demo(main)
