"""A hierarchical network reads sentences, and then the document of them.

A document has 15 sentences such as "the film was not very good .". A sentence is for or against it,
and "not" turns it around. The document's label is what most of its sentences say. Two levels of
recurrent networks, of words and of sentences:

    s_n = last state of GRU over the words of sentence n
    d = last state of GRU' over s_1 .. s_15,    P(for) = sigmoid(w d + b)

The sentences of all documents are the rows of one batch for the lower network. Beside it stands one
GRU that reads the document word by word, with as many parameters and the same training. It must
carry a count over some ninety words, and the hierarchy over fifteen sentences.

Source: Lin et al. 2015; Yang et al. 2016, here without attention; El Hihi & Bengio 1995 for time
scales.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import GRU
from rnnfast.training import Adam, Embedding, Linear, join, sigmoid_cross_entropy

from ._demo import Demo, Options, Result, at_least, at_most, plot_shares, train

WORDS = [
    "the", "film", "plot", "cast", "was", "not", "very", "rather", "good", "great", "bad", "dull",
    ".",
]  # fmt: skip
ID = {word: n for n, word in enumerate(WORDS)}
SENTENCES, LONGEST = 15, 7
BATCH, EPOCHS, LR = 48, 15, 0.015  # an epoch has 20 batches
NETWORKS = {"hierarchical": (16, 16), "flat": (26,)}  # 3,001 and 2,939 parameters


def documents(rng: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    """Words `(LONGEST, SENTENCES, count)`, padded, lengths `(SENTENCES, count)`, labels."""
    shape = SENTENCES, count
    subject = rng.choice([ID["film"], ID["plot"], ID["cast"]], shape)
    negated = rng.random(shape) < 0.5
    degree = rng.choice([-1, ID["very"], ID["rather"]], shape)  # -1: no word
    verdict = rng.choice([ID["good"], ID["great"], ID["bad"], ID["dull"]], shape)
    turn = np.where(negated, ID["not"], -1)
    slots: list[Any] = [ID["the"], subject, ID["was"], turn, degree, verdict, ID["."]]
    words = np.stack([np.broadcast_to(slot, shape) for slot in slots])
    positive = (verdict <= ID["great"]) != negated
    return *together(words), positive.sum(axis=0) > SENTENCES / 2


def together(words: Any) -> tuple[Any, Any]:
    """Move the gaps, -1, behind the words of axis 0, as padding; words, and how many there are."""
    order = np.argsort(words < 0, axis=0, kind="stable")
    words = np.take_along_axis(words, order, axis=0)
    return np.maximum(words, 0), np.sum(words >= 0, axis=0)


def flattened(words: Any, lengths: Any) -> tuple[Any, Any]:
    """The documents word by word: words `(T, B)`, padded, and lengths `(B,)`."""
    gaps = np.where(np.arange(LONGEST)[:, None, None] < lengths, words, -1)
    words, lengths = together(gaps.swapaxes(0, 1).reshape(-1, words.shape[2]))
    return words[: lengths.max()], lengths


class Model:
    """An embedding, levels of GRUs of the given sizes, and a decision."""

    def __init__(self, rng: np.random.Generator, *sizes: int) -> None:
        self.embedding = Embedding(len(WORDS), 8, rng=rng)
        self.levels = [GRU(i, h, rng=rng) for i, h in zip((8, *sizes), sizes, strict=False)]
        self.out = Linear(sizes[-1], 1, rng=rng)
        levels = {f"level{n}": level for n, level in enumerate(self.levels)}
        self.params = join(embedding=self.embedding, out=self.out, **levels)

    def forward(self, words: Any, lengths: Any) -> tuple[Any, list[Any]]:
        """Log-odds `(B,)` and tapes. The lower of two levels has the sentences as its rows."""
        if len(self.levels) == 1:
            words, lengths = flattened(words, lengths)
        tape: Any
        x, tape = self.embedding.forward(words.reshape(len(words), -1))
        tapes = [tape]
        _, state, tape = self.levels[0].forward(x, lengths=lengths.reshape(-1))
        tapes.append(tape)
        for level in self.levels[1:]:
            _, state, tape = level.forward(state.reshape(SENTENCES, -1, level.input_size))
            tapes.append(tape)
        z, tape = self.out.forward(state[0])
        return z[:, 0], [*tapes, tape]

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy and its gradients, level by level from the top."""
        words, lengths, labels = batch
        z, tapes = self.forward(words, lengths)
        loss, dz = sigmoid_cross_entropy(z, labels)
        grads: dict[str, Any] = {"out": self.out.backward(tapes.pop(), dz[:, None])}
        d = grads["out"].input
        for n, level in reversed(list(enumerate(self.levels))):
            grads[f"level{n}"] = level.backward(tapes.pop(), None, d.reshape(1, -1, d.shape[-1]))
            d = grads[f"level{n}"].input
        grads["embedding"] = self.embedding.backward(tapes.pop(), d)
        return loss, join(**grads)


def main(options: Options) -> Result:
    """Train both on the same documents and compare them on fresh ones."""
    *test, labels = documents(np.random.default_rng([options.seed, 1]), 1000)
    epochs = 8 if options.quick else EPOCHS
    histories = {}
    for name, sizes in NETWORKS.items():
        model = Model(np.random.default_rng([options.seed, 2]), *sizes)

        def error_rate(model: Model = model) -> float:
            return float(np.mean((model.forward(*test)[0] > 0) != labels))

        histories[name] = train(
            model.loss_and_grads,
            Adam(model.params, lr=LR),
            lambda rng: (documents(rng, BATCH) for _ in range(20)),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),
            evaluate=error_rate,
            clip_norm=1.0,
            schedule=lambda epoch: LR * min(1, 2 * (1 - epoch / epochs)),
            label=f"hierarchical, {name}",
        )

    right = {name: 1 - np.array(history.held_out) for name, history in histories.items()}
    gain = np.mean(right["hierarchical"]) - np.mean(right["flat"])
    return Result(
        [
            at_least("documents right, hierarchical", right["hierarchical"][-1], 0.99),
            at_most("documents right, flat", right["flat"][-1], right["hierarchical"][-1]),
            at_least("mean over the training, how far above flat", gain, 0.05),
        ],
        lambda: plot_shares(
            histories,
            f"epoch (20 batches of {BATCH} documents)",
            "share of documents right",
            "1,000 fresh documents",
            (0.5, "guessing"),
        ),
        {"histories": {name: history.as_dict() for name, history in histories.items()}},
    )


demo = Demo(main)
