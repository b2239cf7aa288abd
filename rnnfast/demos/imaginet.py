"""Sentences that find the picture they describe: a GRU learns to imagine it.

A scene has two objects, as "a small red square above a big blue star". Its picture is a vector, as
the last layer of an image network gives one. Each of the 22 properties (the first object is small,
it is red ...) has a fixed random vector, and the picture is their sum plus noise. Two GRUs share
the vectors of the words. One predicts the next word, the last state of the other the picture:

    t_t = GRU_T(E w_t, t_{t-1}),    p(w_{t+1}) = softmax(W_T t_t)
    v_t = GRU_V(E w_t, v_{t-1}),    i^ = W_V v_n
    loss = alpha mean(-log p(w_{t+1})) + (1 - alpha) mean(1 - cos(i^, i))

The test has 300 scenes that were never trained on. Of their pictures, a sentence is to find its
own: the one with the largest cosine. What the next word costs is to be close to the entropy of the
grammar, which leaves nothing but the choice of the properties open.

Chrupala, Kadar & Alishahi 2015, arXiv 1506.03694.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from rnnfast import GRU
from rnnfast.training import (
    Adam,
    Embedding,
    Linear,
    cosine_distance,
    join,
    new_figure,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, at_most, train

SIZES, COLOURS = ["small", "big"], ["red", "blue", "green", "yellow"]
SHAPES, RELATIONS = ["square", "star", "circle", "cross"], ["above", "below"]
SLOTS = [["a"], SIZES, COLOURS, SHAPES, RELATIONS, ["a"], SIZES, COLOURS, SHAPES]  # of a sentence
CHOSEN = [slot for slot, words in enumerate(SLOTS) if len(words) > 1]
GO, END = "<go>", "<end>"
WORDS = [GO, "a", *SIZES, *COLOURS, *SHAPES, *RELATIONS, END]
ENTROPY = np.array([np.log(len(words)) for words in SLOTS] + [0.0])  # of each word, and the end

PICTURE, NOISE = 30, 0.3
TEST, BATCH, HIDDEN = 300, 64, 48
ALPHA = 0.3


class World:
    """All 2,048 scenes, of which some are kept for the test, and their pictures."""

    def __init__(self, rng: np.random.Generator) -> None:
        texts = list(product(*SLOTS))
        self.scenes = np.array([[WORDS.index(word) for word in text] for text in texts])
        order = rng.permutation(len(self.scenes))
        self.test, self.training = order[:TEST], order[TEST:]
        looks = rng.standard_normal((len(SLOTS), len(WORDS), PICTURE))
        self.looks = looks * np.isin(np.arange(len(SLOTS)), CHOSEN)[:, None, None]

    def pictures(self, scenes: Any, rng: np.random.Generator) -> Any:
        """A picture of each scene (B, 9), no two with the same noise."""
        clean = self.looks[np.arange(len(SLOTS)), scenes].sum(axis=1)
        noise = NOISE * rng.standard_normal(clean.shape)
        return (clean + noise).astype(np.float32)

    def batch(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """Sentences (9, B) for training and their pictures."""
        scenes = self.scenes[rng.choice(self.training, BATCH)]
        return scenes.T, self.pictures(scenes, rng)


class Imaginet:
    """Shared word vectors, a GRU for the next word, and one for the picture."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.embedding = Embedding(len(WORDS), 16, rng=rng)
        self.text = GRU(16, HIDDEN, rng=rng)
        self.visual = GRU(16, HIDDEN, rng=rng)
        self.next_word = Linear(HIDDEN, len(WORDS), rng=rng)
        self.picture = Linear(HIDDEN, PICTURE, rng=rng)
        parts = ("embedding", "text", "visual", "next_word", "picture")
        self.params = join(**{part: getattr(self, part) for part in parts})

    def imagine(self, words: Any) -> Any:
        """The picture of each sentence (9, B)."""
        _, state = self.visual(self.embedding(read(words)))
        return self.picture(state[-1])

    def word_losses(self, words: Any) -> list[float]:
        """What each word of the sentences (9, B), and the end, costs: (10,), in nats."""
        y, _ = self.text(self.embedding(read(words)))
        logits = self.next_word(y)
        return [softmax_cross_entropy(z, t)[0] for z, t in zip(logits, told(words), strict=True)]

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """The weighted sum of both losses, and its gradients."""
        words, pictures = batch
        x, words_tape = self.embedding.forward(read(words))
        y, _, text_tape = self.text.forward(x)
        logits, next_tape = self.next_word.forward(y)
        _, state, visual_tape = self.visual.forward(x)
        imagined, picture_tape = self.picture.forward(state[-1])
        text_loss, d_logits = softmax_cross_entropy(logits, told(words))
        visual_loss, d_imagined = cosine_distance(imagined, pictures)

        next_word = self.next_word.backward(next_tape, ALPHA * d_logits)
        text = self.text.backward(text_tape, next_word.input)
        picture = self.picture.backward(picture_tape, (1 - ALPHA) * d_imagined)
        visual = self.visual.backward(visual_tape, dstate=picture.input[None])
        embedding = self.embedding.backward(words_tape, text.input + visual.input)
        return ALPHA * text_loss + (1 - ALPHA) * visual_loss, join(
            embedding=embedding, text=text, visual=visual, next_word=next_word, picture=picture
        )


def read(words: Any) -> Any:
    """The input: the sentences (9, B) after a start symbol."""
    return np.concatenate([np.full((1, words.shape[1]), WORDS.index(GO)), words])


def told(words: Any) -> Any:
    """The words to predict: the sentences and an end symbol."""
    return np.concatenate([words, np.full((1, words.shape[1]), WORDS.index(END))])


def cosines(rows: Any, columns: Any) -> Any:
    """Of every vector among the rows with every one among the columns."""
    rows, columns = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (rows, columns))
    return rows @ columns.T


def main(options: Options) -> Result:
    """Train on most scenes, look for the pictures of the others."""
    rng = np.random.default_rng(options.seed)
    world, model = World(rng), Imaginet(rng)
    scenes = world.scenes[world.test]
    pictures = world.pictures(scenes, np.random.default_rng([options.seed, 1]))

    def found() -> Any:
        """Of each test sentence the picture with the largest cosine."""
        return cosines(model.imagine(scenes.T), pictures).argmax(axis=1)

    def batches(rng: np.random.Generator) -> Iterator[Any]:
        return (world.batch(rng) for _ in range(20))

    history = train(
        model.loss_and_grads,
        Adam(model.params, lr=0.005),
        batches,
        epochs=5 if options.quick else 20,
        rng=rng,
        evaluate=lambda: float(np.mean(found() != np.arange(TEST))),
        clip_norm=1.0,
        label="imaginet, 20 batches per epoch",
    )
    answers, losses = found(), np.array(model.word_losses(scenes.T))
    for scene, answer in list(zip(scenes, answers, strict=True))[:3]:
        print(f"  {' '.join(WORDS[w] for w in scene)}")
        print(f"    finds the picture of {' '.join(WORDS[w] for w in scenes[answer])}")

    return Result(
        [
            at_least(f"right picture first of {TEST}", np.mean(answers == np.arange(TEST)), 0.98),
            at_most("next word, nats", losses.mean(), 0.78),
        ],
        lambda: plot(history, losses),
        {
            "entropy": float(ENTROPY.mean()),
            "word_losses": losses.tolist(),
            "history": history.as_dict(),
        },
    )


def plot(history: Any, losses: Any) -> Any:
    """How often the picture is found over the epochs, and what each word costs."""
    figure = new_figure(8.5)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.plot(range(1, history.epochs + 1), 1 - np.array(history.held_out), ".-")
    left.set(xlabel="epoch (20 batches of 64)", ylabel="share of right pictures first")
    left.set(ylim=(0, 1.05), title=f"sentences find their picture of {TEST}")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.grid(alpha=0.3)
    right.bar(range(len(losses)), losses, label="GRU")
    right.plot(range(len(losses)), ENTROPY, "k_", markersize=22, label="entropy of the grammar")
    names = ["a", "size", "colour", "shape", "relation", "a", "size", "colour", "shape", "end"]
    right.set_xticks(range(len(names)), names, rotation=45)
    right.set(xlabel="next word", ylabel="nats", ylim=(0, 1.75), title="what each word costs")
    right.legend(loc="upper right")
    return figure


demo = Demo(main)
