"""What the demonstrations with several time scales claim: the data, and the fair comparison."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from demo_cases import figures, recorded, same

from rnnfast import GRU, RNN, Recurrent
from rnnfast.demos import clockwork, hierarchical
from rnnfast.training import Embedding, Linear, gradcheck

# ------------------------------------------------------------------------------------- hierarchical


def test_a_documents_label_is_what_most_of_its_sentences_say() -> None:
    words, lengths, labels = hierarchical.documents(np.random.default_rng(0), 200)
    assert words.shape == (7, 15, 200)
    assert set(np.unique(lengths)) == {5, 6, 7}
    for b in range(200):
        positive = 0
        for n in range(15):
            text = " ".join(hierarchical.WORDS[w] for w in words[: lengths[n, b], n, b])
            pattern = r"the (film|plot|cast) was (not )?((very|rather) )?(good|great|bad|dull) \."
            found = re.fullmatch(pattern, text)
            assert found, text
            positive += (found[5] in ("good", "great")) != bool(found[2])
        assert labels[b] == (positive > 7.5)
    assert 0.4 < labels.mean() < 0.6


def test_the_flat_network_reads_the_same_words_in_order() -> None:
    words, lengths, _ = hierarchical.documents(np.random.default_rng(0), 30)
    flat, total = hierarchical.flattened(words, lengths)
    assert len(flat) == total.max()
    for b in range(30):
        expected = np.concatenate([words[: lengths[n, b], n, b] for n in range(15)])
        np.testing.assert_array_equal(flat[: total[b], b], expected)


def test_the_hierarchy_is_one_network_for_each_sentence_and_one_above() -> None:
    words, lengths, _ = hierarchical.documents(np.random.default_rng(0), 3)
    model = hierarchical.Model(np.random.default_rng(1), 16, 16)
    lower, upper = model.levels
    for b in range(3):
        sentences = []
        for n in range(15):
            own = words[: lengths[n, b], n, b]
            sentences.append(lower(model.embedding(own))[1][0])
        expected = model.out(upper(np.stack(sentences))[1][0])
        assert model.forward(words, lengths)[0][b] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("sizes", [(3, 4), (5,)])
def test_the_gradients_of_both_readers_are_exact(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (GRU, Linear, Embedding):
        monkeypatch.setattr(hierarchical, kind.__name__, partial(kind, dtype=np.float64))
    model = hierarchical.Model(np.random.default_rng(0), *sizes)
    batch = hierarchical.documents(np.random.default_rng(1), 4)
    _, grads = model.loss_and_grads(batch)
    assert grads.keys() == model.params.keys()
    found = gradcheck(lambda: model.loss_and_grads(batch)[0], model.params, grads)
    assert max(found.values()) < 1e-6


def test_both_readers_have_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, result = recorded("hierarchical", monkeypatch)
    first, second = calls
    assert [sum(p.size for p in call.start.values()) for call in calls] == [3001, 2939]
    assert first.rates == second.rates
    assert all(same(a, b) for a, b in zip(first.batches, second.batches, strict=True))
    assert len(first.batches) * first.options["epochs"] == 300
    assert list(figures(result).values())[:2] == [1 - first.figure, 1 - second.figure]


# ---------------------------------------------------------------------------------------- clockwork


def test_the_signal_has_the_five_periods() -> None:
    y = clockwork.signal(np.random.default_rng(0))
    assert y.shape == (320, 1, 1)
    assert y.dtype == np.float32
    t = np.arange(320)
    waves = [f(2 * np.pi * t / p) for p in (160, 80, 37, 19, 9) for f in (np.sin, np.cos)]
    basis = np.stack(waves, axis=1)
    size, *_ = np.linalg.lstsq(basis, y[:, 0, 0].astype(float), rcond=None)
    np.testing.assert_allclose(basis @ size, y[:, 0, 0], atol=1e-6)
    sizes = np.hypot(size[::2], size[1::2])
    assert (sizes > 0.09).all()
    assert (sizes < 0.41).all()


def test_both_generators_have_one_training_and_as_many_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, result = recorded("clockwork", monkeypatch)
    clocked, plain = calls
    inert = {"layer.weight_ih_l0", "layer.bias_hh_l0"}  # of no input; a second bias
    inert |= {name for name in clocked.start if ".weight_x_" in name}
    sizes = [sum(p.size for n, p in call.start.items() if n not in inert) for call in calls]
    assert sizes == [829, 811]
    assert clocked.rates == plain.rates
    assert len(clocked.batches) * clocked.options["epochs"] == 600
    assert plain.options["epochs"] == clocked.options["epochs"]
    target = clocked.batches[0]
    assert all(np.array_equal(b, target) for call in calls for b in call.batches)
    expected = [np.mean((call.model() - target) ** 2) for call in calls]
    assert list(figures(result).values()) == pytest.approx([*expected, target.var()], rel=1e-5)


@pytest.mark.parametrize("clocked", [True, False])
def test_the_gradients_of_the_generators_are_exact(
    clocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The initial state is a parameter too."""
    for kind in (RNN, Recurrent, Linear):
        monkeypatch.setattr(clockwork, kind.__name__, partial(kind, dtype=np.float64))
    monkeypatch.setattr(clockwork, "STEPS", 21)
    monkeypatch.setattr(clockwork, "PERIODS", (1, 2, 8))
    monkeypatch.setattr(clockwork, "RNN_UNITS", 5)
    model = clockwork.Generator(np.random.default_rng(0), clocked)
    model.x = model.x.astype(float)
    for name, value in model.start.items():
        model.start[name] = value.astype(float)
        model.params[f"start.{name}"] = model.start[name]
    target = clockwork.signal(np.random.default_rng(1)).astype(float)
    _, grads = model.loss_and_grads(target)
    assert grads.keys() == model.params.keys()
    assert all(np.abs(grads[name]).max() > 1e-6 for name in grads if name.startswith("start."))
    found = gradcheck(lambda: model.loss_and_grads(target)[0], model.params, grads)
    assert max(found.values()) < 1e-6
