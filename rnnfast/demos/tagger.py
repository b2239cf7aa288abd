"""A tag for every word that depends on what comes later: bidirectional against unidirectional.

A text is a row of short sentences. A word's tag says how its sentence ends (. ? or !) and whether
it began with a "no": the first is to the word's right, the second to its left.

    h_t = GRU(x_t, h_{t-1}),  g_t = GRU'(x_t, g_{t+1}),    p_t = softmax(W [h_t, g_t] + b)

Without `g` one can only guess how the sentence will end, right one time in three.
Bidirectional networks: Schuster & Paliwal 1997.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import GRU, Sequential
from rnnfast.training import (
    Adam,
    Embedding,
    Linear,
    accuracy,
    length_mask,
    pad,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, at_most, plot_shares, train

WORDS = [*"abcdefgh", "no", ".", "?", "!"]
NO, FIRST_END = WORDS.index("no"), WORDS.index(".")
TAGS = 6


def text(rng: np.random.Generator) -> tuple[Any, Any]:
    """Two to six sentences of two to eight words: the words' numbers and their tags."""
    words: list[int] = []
    tags: list[int] = []
    for _ in range(rng.integers(2, 7)):
        length, end, begins_with_no = rng.integers(2, 9), rng.integers(3), rng.integers(2)
        sentence = [*rng.integers(0, NO, length), FIRST_END + end]
        if begins_with_no:
            sentence[0] = NO
        words += sentence
        tags += [int(2 * end + begins_with_no)] * len(sentence)
    return np.array(words), np.array(tags)


def texts(rng: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    """Padded words `(T, B)`, tags `(T, B)` and lengths `(B,)`."""
    all_words, all_tags = zip(*(text(rng) for _ in range(count)), strict=True)
    words, lengths = pad(all_words)
    return words, pad(all_tags)[0], lengths


class Tagger(Sequential):
    """Embedding, GRU in one direction or both, and a softmax at every step.

    A call gives the logits of every word's tags, `(T, B, 6)`.
    """

    def __init__(self, bidirectional: bool, rng: np.random.Generator) -> None:
        super().__init__(
            Embedding(len(WORDS), 16, rng=rng),
            GRU(16, 32, bidirectional=bidirectional, rng=rng),
            Linear(64 if bidirectional else 32, TAGS, rng=rng),
        )

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy over the words, padding left out, and its gradients."""
        words, tags, lengths = batch
        logits, tape = self.forward(words, lengths)
        mask = length_mask(lengths, len(words))
        loss, d_logits = softmax_cross_entropy(logits, tags, mask=mask)
        return loss, self.backward(tape, d_logits).params


def main(options: Options) -> Result:
    """Train both on the same texts and compare them on fresh ones."""
    test_words, test_tags, test_lengths = texts(np.random.default_rng([options.seed, 1]), 500)
    mask = length_mask(test_lengths, len(test_words))
    ends = np.mean(test_words[mask] >= FIRST_END)
    guessed = ends + (1 - ends) / 3  # the end itself is seen, before it there are three

    histories, accuracies = {}, {}
    for name, bidirectional in (("unidirectional", False), ("bidirectional", True)):
        rng = np.random.default_rng(options.seed)  # the texts' alone, so that they are the same
        model = Tagger(bidirectional, np.random.default_rng([options.seed, 2]))

        def error_rate(model: Tagger = model) -> float:
            return 1 - accuracy(model(test_words, test_lengths), test_tags, mask=mask)

        histories[name] = train(
            model.loss_and_grads,
            Adam(model, lr=0.01),
            lambda rng: (texts(rng, 32) for _ in range(10)),
            epochs=30,
            rng=rng,
            evaluate=error_rate,
            clip_norm=1.0,
            label=f"tagger, {name}",
        )
        accuracies[name] = 1 - error_rate()

    words, tags = test_words[:, 0], model(test_words, test_lengths)[:, 0].argmax(axis=1)
    print("  words", *(f"{WORDS[w]:>2}" for w in words[: test_lengths[0]]))
    print("  end  ", *(f"{WORDS[FIRST_END + tag // 2]:>2}" for tag in tags[: test_lengths[0]]))
    print("  no   ", *(f"{tag % 2:>2}" for tag in tags[: test_lengths[0]]))

    return Result(
        [
            at_least("tags right, bidirectional", accuracies["bidirectional"], 0.99),
            at_most("tags right, unidirectional", accuracies["unidirectional"], guessed + 0.05),
        ],
        lambda: plot_shares(
            histories,
            "epoch (10 batches of 32 texts)",
            "share of tags right",
            "500 fresh texts",
            (guessed, "sentence ends guessed"),
        ),
        {"histories": {name: history.as_dict() for name, history in histories.items()}},
    )


demo = Demo(main)
