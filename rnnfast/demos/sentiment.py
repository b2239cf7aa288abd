"""Many words in, one label out: is the movie good or bad?

The sentences come from a small grammar, as "the movie was not very good but the book was great".
The question is about the movie alone, so the reader must know what a "not" belongs to and which
adjective is the movie's.

    x_t = E[word_t],    h_t = LSTM(x_t, h_{t-1}),    p = softmax(W h_T + b)

Every test sentence has a twin with the same words in another order and the other label. So no bag
of words can score more than half. And it pairs two adjectives that no training sentence pairs.
Sentences differ in length: `lengths` makes `h_T` the state after each one's own last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from rnnfast import LSTM, Last, Sequential
from rnnfast.training import (
    Adam,
    Embedding,
    Linear,
    accuracy,
    minibatches,
    pad,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, at_most, plot_shares, train

GOOD = ["good", "great", "funny", "moving", "brilliant", "charming"]
BAD = ["bad", "awful", "boring", "stupid", "terrible", "clumsy"]
OTHERS = ["book", "music", "food", "weather"]
OPENERS = ["", "honestly", "i think", "my friend says", "as far as i know"]
NEGATIONS = ["", "", "not", "never"]
DEGREES = ["", "very", "really", "quite"]
CONNECTORS = ["but", "and", "while", "although"]
LABELS = ["bad", "good"]
WORDS = sorted(
    set(" ".join(GOOD + BAD + OTHERS + OPENERS + NEGATIONS + DEGREES + CONNECTORS).split())
    | {"the", "movie", "was"}
)

Predicate: TypeAlias = tuple[str, str, str]  # negation, degree, adjective
Example: TypeAlias = tuple[list[int], int]  # words, and 1 for good, 0 for bad


class Grammar:
    """Draws sentences; a quarter of the pairs of adjectives is kept for the test."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        pairs = [(a, b) for a in GOOD + BAD for b in GOOD + BAD if a < b]
        kept = rng.permutation(len(pairs))[: len(pairs) // 4]
        self.held_out = {frozenset(pairs[i]) for i in kept}

    def draw(self, options: list[str]) -> str:
        """One of them."""
        return options[self.rng.integers(len(options))]

    def two_predicates(self, held_out: bool) -> tuple[Predicate, Predicate]:
        """Such as ("not", "very", "good") and ("", "", "awful")."""
        while True:
            p, q = ((self.draw(NEGATIONS), self.draw(DEGREES), self.draw(GOOD + BAD)) for _ in "pq")
            if (frozenset((p[2], q[2])) in self.held_out) == held_out:
                return p, q

    def training(self, count: int) -> list[Example]:
        """Sentences about the movie and, mostly, something else."""
        examples = []
        for _ in range(count):
            p, q = self.two_predicates(held_out=False)
            clauses = [("movie", p), (self.draw(OTHERS), q)]
            clauses = clauses[: self.rng.integers(1, 4)]  # one time in three the movie alone
            self.rng.shuffle(clauses)
            words = sentence(self.draw(OPENERS), self.draw(CONNECTORS), clauses)
            examples.append((words, label(p)))
        return examples

    def twins(self, count: int) -> list[Example]:
        """Pairs of sentences with exchanged predicates: the same words, the other label."""
        examples: list[Example] = []
        while len(examples) < count:
            p, q = self.two_predicates(held_out=True)
            if label(p) != label(q):
                opener, connector = self.draw(OPENERS), self.draw(CONNECTORS)
                first, second = self.rng.permutation(["movie", self.draw(OTHERS)])
                for one, two in ((p, q), (q, p)):
                    words = sentence(opener, connector, [(first, one), (second, two)])
                    examples.append((words, label(one if first == "movie" else two)))
        return examples


def sentence(opener: str, connector: str, clauses: Iterable[tuple[str, Predicate]]) -> list[int]:
    """The numbers of the words."""
    texts = [f"the {subject} was {' '.join(predicate)}" for subject, predicate in clauses]
    text = f"{opener} {f' {connector} '.join(texts)}"
    return [WORDS.index(word) for word in text.split()]


def label(predicate: Predicate) -> int:
    """1 if it is praise: a good adjective, or a bad one negated."""
    negation, _, adjective = predicate
    return int((adjective in GOOD) != (negation != ""))


class Reader:
    """Embedding, LSTM, and a softmax on the last state."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.model = Sequential(
            Embedding(len(WORDS), 16, rng=rng),
            LSTM(16, 32, rng=rng),
            Last(),
            Linear(32, 2, rng=rng),
        )
        self.params = self.model.params

    def __call__(self, sentences: list[list[int]]) -> Any:
        """The logits of each sentence's two labels, `(B, 2)`."""
        words, lengths = pad(sentences)
        return self.model(words, lengths)

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy, and its gradients from the last state back to the words."""
        sentences, labels = batch
        words, lengths = pad(sentences)
        logits, tape = self.model.forward(words, lengths)
        loss, d_logits = softmax_cross_entropy(logits, labels)
        return loss, self.model.backward(tape, d_logits).params


class BagOfWords:
    """Logistic regression on how often each word occurs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.out = Linear(len(WORDS), 2, rng=rng)
        self.params = self.out.params

    def __call__(self, sentences: list[list[int]]) -> Any:
        """The logits of each sentence's two labels, `(B, 2)`."""
        return self.out(self.counts(sentences))

    def counts(self, sentences: list[list[int]]) -> Any:
        """`(B, V)`."""
        counts = [np.bincount(words, minlength=len(WORDS)) for words in sentences]
        return np.array(counts, np.float32)

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy and its gradients."""
        sentences, labels = batch
        logits, tape = self.out.forward(self.counts(sentences))
        loss, d_logits = softmax_cross_entropy(logits, labels)
        return loss, self.out.backward(tape, d_logits).params


def main(options: Options) -> Result:
    """Train both models on the same sentences and compare them on the twins."""
    rng = np.random.default_rng(options.seed)
    grammar = Grammar(rng)
    training, test = grammar.training(1000), grammar.twins(1000)
    test_words, test_labels = map(list, zip(*test, strict=True))

    def batches(rng: np.random.Generator) -> Any:
        lengths = np.array([len(words) for words, _ in training])
        for chosen in minibatches(len(training), 32, rng, lengths=lengths):
            words, labels = zip(*(training[i] for i in chosen), strict=True)
            yield words, np.array(labels)

    histories, accuracies = {}, {}
    for model in (BagOfWords(rng), Reader(rng)):
        name = type(model).__name__
        histories[name] = train(
            model.loss_and_grads,
            Adam(model.params, lr=0.01),
            batches,
            epochs=20,
            rng=rng,
            evaluate=lambda model=model: 1 - accuracy(model(test_words), test_labels),
            clip_norm=1.0,
            label=f"sentiment, {name}",
        )
        accuracies[name] = accuracy(model(test_words), test_labels)

    for words, wanted in test[:4]:
        text, answer = " ".join(WORDS[w] for w in words), model([words]).argmax()
        print(f"  {LABELS[answer]:4} (is {LABELS[wanted]:4})  {text}")
    return Result(
        [
            at_least("accuracy of the LSTM on the twins", accuracies["Reader"], 0.99),
            at_most("accuracy of a bag of words on them", accuracies["BagOfWords"], 0.5),
        ],
        lambda: plot_shares(
            {"LSTM": histories["Reader"], "bag of words": histories["BagOfWords"]},
            "epoch (1,000 sentences)",
            "share of labels right",
            "1,000 sentences whose twin has the same words",
        ),
        {"histories": {name: history.as_dict() for name, history in histories.items()}},
    )


demo = Demo(main)
