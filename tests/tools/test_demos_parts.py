"""What the demonstrations are built of does what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast import Sequential
from rnnfast.demos._ngram import ngram_bits
from rnnfast.demos.binary_adder import sums
from rnnfast.demos.char_lm import RARE, UNKNOWN, Alphabet
from rnnfast.demos.count_ones import Counter
from rnnfast.demos.lstm_vs_gru import recall
from rnnfast.demos.sentiment import GOOD, OPENERS, WORDS, Grammar, Reader
from rnnfast.demos.seq2seq import LONGEST, Translator, is_held_out, strings
from rnnfast.demos.tagger import FIRST_END, NO, Tagger, texts
from rnnfast.training import gradcheck, join


def test_ngram_bits_are_those_of_the_formula() -> None:
    """Against a direct, slow transcription with dicts."""
    rng = np.random.default_rng(0)
    training, test = rng.integers(0, 4, 300), rng.integers(0, 5, 50)  # 4 is never seen

    def p(n: int, history: tuple[int, ...], w: int) -> float:
        if n == 0:
            return 1 / 5
        context = history[len(history) - (n - 1) :]
        places = [i for i in range(2, 300) if tuple(training[i - n + 1 : i]) == context]
        followers = [int(training[i]) for i in places]
        below = p(n - 1, history, w)
        if not followers:
            return below
        kinds = len(set(followers))
        return (followers.count(w) + kinds * below) / (len(followers) + kinds)

    bits = [-np.log2(p(3, (int(test[i - 2]), int(test[i - 1])), test[i])) for i in range(2, 50)]
    assert ngram_bits(training, test, order=3) == pytest.approx(np.mean(bits), rel=1e-12)
    total = sum(p(3, (1, 2), w) for w in range(5))
    assert total == pytest.approx(1)


def test_alphabet() -> None:
    text = "ab\u00e9\U0001f600" * RARE + "z"
    alphabet = Alphabet(text)
    assert alphabet.size == 5
    decoded = alphabet.decode(alphabet.encode("ba\u00e9\U0001f600zA\uffff\x00"))
    assert decoded == "ba\u00e9\U0001f600" + 4 * UNKNOWN


def test_sums() -> None:
    numbers, x, target = sums(np.random.default_rng(0), 50)
    powers = 2 ** np.arange(8)
    np.testing.assert_array_equal(np.einsum("tbi,t->ib", x, powers), numbers)
    np.testing.assert_array_equal(np.einsum("tbi,t->b", target, powers), numbers.sum(axis=0))
    assert numbers.max() < 128


def test_twins_have_the_same_words_other_labels_and_unseen_pairs() -> None:
    grammar = Grammar(np.random.default_rng(0))
    training, twins = grammar.training(500), grammar.twins(200)
    for (first, one), (second, two) in zip(twins[::2], twins[1::2], strict=True):
        assert sorted(first) == sorted(second)
        assert {one, two} == {0, 1}
    assert {label for _, label in training} == {0, 1}
    assert not {tuple(words) for words, _ in training} & {tuple(words) for words, _ in twins}
    adjectives = {WORDS.index(word) for pair in grammar.held_out for word in pair}

    def pair(words: list[int]) -> frozenset[str]:
        return frozenset(WORDS[w] for w in words if w in adjectives)

    assert all(pair(words) in grammar.held_out for words, _ in twins)
    assert not any(pair(words) in grammar.held_out for words, _ in training)


def test_labels_of_sentences_a_person_can_read() -> None:
    grammar = Grammar(np.random.default_rng(1))
    openers = sorted(filter(None, OPENERS), key=len, reverse=True)
    for words, label in grammar.training(200) + grammar.twins(100):
        text = " ".join(WORDS[w] for w in words)
        for opener in openers:
            text = text.removeprefix(opener + " ")
        about_movie = text[text.index("the movie was") :].split(" the ", 1)[0].split()
        praise = bool(set(GOOD) & set(about_movie))
        assert label == (praise != bool({"not", "never"} & set(about_movie))), text


def test_tags_say_the_sentences_end_and_beginning() -> None:
    words, tags, lengths = texts(np.random.default_rng(0), 20)
    for b, length in enumerate(lengths):
        start = 0
        for t in range(length):
            if words[t, b] >= FIRST_END:
                end, no = words[t, b] - FIRST_END, words[start, b] == NO
                assert set(tags[start : t + 1, b]) == {2 * end + no}
                start = t + 1
        assert start == length


def test_strings_are_held_out_by_their_digits() -> None:
    rng = np.random.default_rng(0)
    training, test = strings(rng, 300, held_out=False), strings(rng, 300, held_out=True)
    assert {len(s) for s in test} == set(range(1, LONGEST + 1))
    assert {digit for s in training + test for digit in s} == set(range(10))
    assert not {tuple(s) for s in training} & {tuple(s) for s in test}
    shares = [is_held_out(rng.integers(0, 10, 6)) for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


def test_recall_puts_the_answer_first_and_only_there() -> None:
    x, target = recall(np.random.default_rng(0), 7, 50)
    assert x.shape == (7, 50, 8)
    np.testing.assert_array_equal(x.sum(axis=2), 1)
    np.testing.assert_array_equal(x[0].argmax(axis=1), target)
    assert not x[1:, :, :4].any()


def test_gradients_of_whole_models() -> None:
    """Central differences through embedding, encoder, decoder, softmax and masks at once."""
    rng = np.random.default_rng(0)
    count = Counter(rng)
    count.set_weights(0.9, 1.1)
    assert max(gradcheck(count.loss, count.rnn.params, count.loss_and_grads()[1]).values()) < 1e-7

    sentences = [[1, 2, 3], [4], [2, 2, 5, 6]]
    models: list[tuple[Any, Any]] = [
        (Translator(rng), [np.array(s) for s in sentences]),
        (Reader(rng), (sentences, np.array([0, 1, 1]))),
        (Tagger(True, rng), texts(rng, 3)),
    ]
    for model, batch in models:
        in_float64(model)
        grads = model.loss_and_grads(batch)[1]
        some = model.params
        directions = {name: rng.standard_normal(p.shape) for name, p in some.items()}
        position = np.zeros(1)
        start = {name: p.copy() for name, p in some.items()}

        def loss(
            model: Any = model,
            batch: Any = batch,
            some: Any = some,
            start: Any = start,
            directions: Any = directions,
            position: Any = position,
        ) -> float:
            for name, p in some.items():
                p[...] = start[name] + position[0] * directions[name]
            value: float = model.loss_and_grads(batch)[0]
            return value

        along = sum(np.vdot(grads[name], directions[name]) for name in some)
        error = gradcheck(loss, {"along": position}, {"along": np.array([along])}, eps=1e-5)
        assert error["along"] < 1e-7


def in_float64(model: Any) -> None:
    """Turn a model's parameters, and so all it computes, to float64."""
    chain = getattr(model, "model", model)
    parts = dict(enumerate(chain)) if isinstance(chain, Sequential) else vars(model)
    parts = {n: part for n, part in parts.items() if isinstance(getattr(part, "params", 0), dict)}
    for part in parts.values():
        for name, p in part.params.items():
            part.params[name] = p.astype(np.float64)
        if hasattr(part, "dtype"):
            part.dtype = np.dtype(np.float64)
    if chain is not model:
        model.params = chain.params
    elif not isinstance(model, Sequential):
        model.params = join(**{name: part.params for name, part in parts.items()})
