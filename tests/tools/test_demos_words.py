"""What the demonstrations with words claim: the test is held out, answers are not fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from demo_cases import figures, recorded, same

from rnnfast.demos import (
    sentiment,
    seq2seq,
    tagger,
)
from rnnfast.training import softmax_cross_entropy

# ------------------------------------------------------------------------------------------ seq2seq


def greedy(model: Any, source: Any) -> list[int]:
    """Decode one string by running the decoder over all that it wrote, from the start each time."""
    _, state = model.encoder(model.embedding(np.array(source)[:, None]))
    written = [seq2seq.GO]
    while len(written) <= seq2seq.LONGEST + 1:
        y, _ = model.decoder(model.embedding(np.array(written)[:, None]), state)
        written.append(int(model.out(y[-1])[0].argmax()))
        if written[-1] == seq2seq.END:
            return written[1:-1]
    return written[1:]


def test_the_decoder_reads_what_it_wrote_itself() -> None:
    rng = np.random.default_rng(4)
    model = seq2seq.Translator(rng)
    for p in (*model.out.params.values(), *model.decoder.params.values()):
        p *= 5  # weights whose symbols differ from step to step
    sources = seq2seq.strings(rng, 30, held_out=True)
    answers = model(sources)
    assert answers == [greedy(model, source) for source in sources]
    assert len({tuple(answer) for answer in answers}) > 10
    assert model(sources[:1]) == answers[:1]


def test_in_training_the_decoder_reads_the_answer_one_behind() -> None:
    rng = np.random.default_rng(0)
    model = seq2seq.Translator(rng)
    sources = seq2seq.strings(rng, 6, held_out=False)
    read: list[Any] = []
    forward = model.embedding.forward

    def spy(ids: Any) -> Any:
        read.append(ids)
        return forward(ids)

    model.embedding.forward = spy  # type: ignore[method-assign]
    loss, _ = model.loss_and_grads(sources)
    source_ids, told = read
    nll, count = 0.0, 0
    for b, source in enumerate(sources):
        n = len(source)
        np.testing.assert_array_equal(source_ids[:n, b], source)
        np.testing.assert_array_equal(told[: n + 1, b], [seq2seq.GO, *source[::-1]])
        _, state = model.encoder(forward(source[:, None])[0])
        y, _ = model.decoder(forward(told[: n + 1, b : b + 1])[0], state)
        wanted = np.array([*source[::-1], seq2seq.END])
        nll += softmax_cross_entropy(model.out(y[:, 0]), wanted)[0] * (n + 1)
        count += n + 1
    assert loss == pytest.approx(nll / count, rel=1e-5)


def test_exact_is_the_string_turned_around_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = seq2seq.Translator(np.random.default_rng(0))
    source = np.array([1, 2, 3])
    answers = [[3, 2, 1], [1, 2, 3], [3, 2], [3, 2, 1, 0], []]
    monkeypatch.setattr(seq2seq.Translator, "__call__", lambda self, sources: answers)
    np.testing.assert_array_equal(model.exact([source] * 5), [True, False, False, False, False])


def test_seq2seq_is_tested_on_strings_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested: list[Any] = []

    def some_right(self: Any, sources: list[Any]) -> list[list[int]]:
        """Turn around what has fewer than five digits."""
        tested.append(sources)
        return [s[::-1].tolist() if len(s) < 5 else [0] for s in sources]

    monkeypatch.setattr(seq2seq.Translator, "__call__", some_right)
    (call,), result = recorded("seq2seq", monkeypatch)
    trained = {tuple(s) for batch in call.batches for s in batch}
    assert {len(batch) for batch in call.batches} == {seq2seq.BATCH} == {128}
    assert len(call.batches) * call.options["epochs"] == 1000
    assert call.options["clip_norm"] == 1.0
    test = tested[0]
    assert len(test) == 2000
    assert not trained & {tuple(s) for sources in tested for s in sources}
    right = np.mean([len(s) < 5 for s in test])
    assert figures(result) == {"held-out strings that are exact": right}
    assert call.figure == pytest.approx(1 - right)
    shares = result.details["exact_by_length"]
    assert shares == {n: float(n < 5) for n in range(1, 9)}
    rates = [call.options["schedule"](epoch) for epoch in range(call.options["epochs"])]
    assert rates == pytest.approx(np.linspace(0.003, 0.0003, 10))


# ------------------------------------------------------------------------------------------- tagger


def test_both_taggers_get_the_same_texts_and_others_for_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested: list[Any] = []
    forward = tagger.Tagger.__call__

    def spy(self: Any, words: Any, lengths: Any) -> Any:
        tested.append((words, lengths))
        return forward(self, words, lengths)

    monkeypatch.setattr(tagger.Tagger, "__call__", spy)
    (one, both), result = recorded("tagger", monkeypatch)
    assert (one.model[1].bidirectional, both.model[1].bidirectional) == (False, True)
    for first, second in zip(one.batches, both.batches, strict=True):
        assert same(first, second)
    names = ("epochs", "clip_norm")
    assert [one.options[n] for n in names] == [both.options[n] for n in names]
    assert one.rates == both.rates
    assert all(same(tested[0], other) for other in tested)
    words, lengths = tested[0]
    trained = {tuple(w[:n, b]) for w, _, ls in one.batches for b, n in enumerate(ls)}
    test = [tuple(words[:n, b]) for b, n in enumerate(lengths)]
    assert len(test) == 500
    assert not trained & set(test)
    # tags by a person's reading, and the shares of those that the models name
    tags: list[list[int]] = []
    for row in test:
        own: list[int] = []
        for t, word in enumerate(row):
            if word >= tagger.FIRST_END:
                tag = 2 * (word - tagger.FIRST_END) + (row[len(own)] == tagger.NO)
                own += [int(tag)] * (t + 1 - len(own))
        tags.append(own)
    values = list(figures(result).values())
    for call, value in ((both, values[0]), (one, values[1])):
        named = forward(call.model, words, lengths).argmax(axis=2)
        right = [named[t, b] == tag for b, row in enumerate(tags) for t, tag in enumerate(row)]
        assert value == pytest.approx(np.mean(right))
        assert call.figure == pytest.approx(1 - value)
    ends = np.mean([word >= tagger.FIRST_END for row in test for word in row])
    assert f"<= {ends + (1 - ends) / 3 + 0.05:.4g}" == result.figures[1].goal


def test_only_the_bidirectional_tagger_sees_what_comes_later() -> None:
    words, _, lengths = tagger.texts(np.random.default_rng(0), 6)
    changed = words.copy()
    changed[3:] = (changed[3:] + 1) % len(tagger.WORDS)
    for bidirectional in (False, True):
        model = tagger.Tagger(bidirectional, np.random.default_rng(1))
        before, after = model(words, lengths)[:3], model(changed, lengths)[:3]
        assert np.array_equal(before, after) != bidirectional


# ---------------------------------------------------------------------------------------- sentiment


def test_both_readers_get_the_same_sentences_and_the_twins_for_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested: list[Any] = []
    for kind in (sentiment.Reader, sentiment.BagOfWords):

        def spy(self: Any, sentences: Any, forward: Any = kind.__call__) -> Any:
            tested.append(sentences)
            return forward(self, sentences)

        monkeypatch.setattr(kind, "__call__", spy)
    (bag, reader), result = recorded("sentiment", monkeypatch)
    sets = [
        sorted((w, int(y)) for b in c.batches for w, y in zip(*b, strict=True))
        for c in (bag, reader)
    ]
    assert sets[0] == sets[1]
    assert len(sets[0]) == 1000
    tests = [sentences for sentences in tested if len(sentences) > 1]
    assert all(sentences == tests[0] for sentences in tests)
    assert len(tests[0]) == 1000
    trained = {tuple(words) for words, _ in sets[0]}
    assert not trained & {tuple(words) for words in tests[0]}
    assert figures(result)["accuracy of a bag of words on them"] == 0.5  # twins: one of two
    named = reader.model(tests[0]).argmax(axis=1)
    movie = sentiment.WORDS.index("movie")
    good = {sentiment.WORDS.index(word) for word in sentiment.GOOD}
    negations = {sentiment.WORDS.index(word) for word in ("not", "never")}
    the = sentiment.WORDS.index("the")
    right = []
    for words, answer in zip(tests[0], named, strict=True):
        clause = words[words.index(movie) :]
        clause = clause[: clause.index(the)] if the in clause else clause
        praise = bool(good & set(clause)) != bool(negations & set(clause))
        right.append(praise == answer)
    value = figures(result)["accuracy of the LSTM on the twins"]
    assert value == pytest.approx(np.mean(right))
    assert reader.figure == pytest.approx(1 - value)
    assert reader.rates == bag.rates
    assert reader.options["epochs"] == bag.options["epochs"]


def test_the_bag_of_words_counts_words_and_sees_no_order() -> None:
    bag = sentiment.BagOfWords(np.random.default_rng(0))
    counts = bag.counts([[1, 2, 1], [0]])
    assert counts.shape == (2, len(sentiment.WORDS))
    assert (counts[0, 1], counts[0, 2], counts[1, 0], counts.sum()) == (2, 1, 1, 4)
    np.testing.assert_array_equal(bag([[1, 2, 3]]), bag([[3, 1, 2]]))


def test_the_reader_goes_by_each_sentences_own_last_word() -> None:
    reader = sentiment.Reader(np.random.default_rng(0))
    sentences = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    together = reader(sentences)
    for sentence, logits in zip(sentences, together, strict=True):
        np.testing.assert_allclose(reader([sentence])[0], logits, rtol=1e-6)
