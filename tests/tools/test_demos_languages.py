"""What the demonstrations of Tomita's languages and of Jordan's plans claim."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from demo_cases import figures, recorded

from rnnfast.demos import grammars, jordan

# ---------------------------------------------------------------------------------------- grammars

LANGUAGES = {
    1: lambda s: "0" not in s,
    2: lambda s: re.fullmatch("(10)*", s) is not None,
    3: lambda s: not re.search("(^|0)1(11)*0(00)*(1|$)", s),
    4: lambda s: "000" not in s,
    5: lambda s: s.count("0") % 2 == s.count("1") % 2 == 0,
    6: lambda s: (s.count("0") - s.count("1")) % 3 == 0,
    7: lambda s: re.fullmatch("0*1*0*1*", s) is not None,
}


def written(text: Any) -> str:
    return "".join(map(str, text))


@pytest.mark.parametrize("number", LANGUAGES)
def test_the_automata_are_tomitas_languages(number: int) -> None:
    for length in range(11):
        texts = list(itertools.product((0, 1), repeat=length))
        inside = [grammars.in_language(number, text) for text in texts]
        assert inside == [LANGUAGES[number](written(text)) for text in texts]
        for which in (True, False):
            assert grammars.ways(number, which, 10)[length, 0] == inside.count(which)


@pytest.mark.parametrize("number", LANGUAGES)
def test_the_examples_have_their_labels_and_the_test_is_longer(number: int) -> None:
    rng = np.random.default_rng(0)
    texts, labels = grammars.examples(rng, number)
    assert labels.tolist() == 500 * [1] + 500 * [0]
    assert len(texts) == 1000
    assert max(map(len, texts)) == 12
    assert [LANGUAGES[number](written(text)) for text in texts] == labels.tolist()
    for inside in (True, False):
        long = grammars.strings(rng, number, inside, 50, 20, 40)
        assert all(20 <= len(text) <= 40 for text in long)
        assert all(LANGUAGES[number](written(text)) == inside for text in long)


def test_every_string_of_a_language_is_as_likely_as_the_others() -> None:
    rng = np.random.default_rng(0)
    texts = [written(text) for text in grammars.strings(rng, 4, True, 20_000, 5, 5)]
    expected = [s for s in map("".join, itertools.product("01", repeat=5)) if "000" not in s]
    counts = [texts.count(s) for s in expected]
    assert sum(counts) == len(texts)
    np.testing.assert_allclose(counts, len(texts) / len(expected), rtol=0.15)


def test_near_misses_are_one_symbol_away() -> None:
    rng = np.random.default_rng(0)
    good = grammars.strings(rng, 7, True, 100, 6, 12)
    missed = grammars.near_misses(rng, 7, good)
    assert 50 < len(missed) <= 100
    for text in missed:
        assert not LANGUAGES[7](written(text))
        assert any(
            len(text) == len(other) and sum(a != b for a, b in zip(text, other, strict=True)) == 1
            for other in good
        )


def test_strings_end_with_the_end_symbol() -> None:
    x, lengths = grammars.encode([[0, 1, 1], [], [1]])
    np.testing.assert_array_equal(lengths, [4, 1, 2])
    np.testing.assert_array_equal(x[:4, 0].argmax(axis=1), [0, 1, 1, 2])
    np.testing.assert_array_equal(x[0, 1], [0, 0, 1])
    assert x.shape == (4, 3, 3)


@pytest.mark.parametrize("name", grammars.BOUNDS)
def test_the_gradient_of_an_acceptor_is_that_of_its_loss(name: str) -> None:
    rng = np.random.default_rng(0)
    acceptor = grammars.Acceptor(name, rng)
    x, lengths = grammars.encode([[0, 1, 1], [], [1, 0, 1, 0, 0]])
    batch = x, lengths, np.array([1, 0, 1])
    loss, grads = acceptor.loss_and_grads(batch)
    answers = acceptor(x, lengths)
    assert loss == pytest.approx(np.mean((answers - [1, -1, 1]) ** 2), rel=1e-5)
    for param, p in acceptor.params.items():
        direction = np.sign(grads[param])
        start, eps = p.copy(), 1e-2
        p += eps * direction
        above = acceptor.loss_and_grads(batch)[0]
        p[...] = start - eps * direction
        below = acceptor.loss_and_grads(batch)[0]
        p[...] = start
        slope = np.abs(grads[param]).sum()
        assert (above - below) / (2 * eps) == pytest.approx(slope, rel=0.02), param


def test_acceptors_start_as_their_authors_say() -> None:
    second, pollack = (grammars.Acceptor(n, np.random.default_rng(0)) for n in grammars.BOUNDS)
    np.testing.assert_array_equal(second.start(2)[0], [[1, 0, 0, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(pollack.start(2)[0], np.full((2, 5), 0.5))


# ------------------------------------------------------------------------------------------ jordan


def test_plans_are_held_and_their_letters_are_the_targets() -> None:
    for plan, text in enumerate(jordan.PLANS):
        assert (jordan.INPUT[:, plan] == np.eye(3)[plan]).all()
        assert "".join("ABC"[k] for k in jordan.TARGET[:, plan].argmax(axis=1)) == text
    assert (jordan.TARGET.sum(axis=2) == 1).all()


def test_traces_fade_by_half_and_teacher_forcing_is_the_run_with_right_outputs() -> None:
    """Where the outputs are forced the unrolled network sees those very states."""
    traces = jordan.traces(0.5)
    np.testing.assert_array_equal(traces[:4, 0, 0], [0, 1, 1.5, 1.75])
    np.testing.assert_array_equal(jordan.traces(0)[1:], jordan.TARGET[:-1])
    network = jordan.Jordan(0.5, True, np.random.default_rng(0))
    loss, _ = network.loss_and_grads(None)
    p = {name.removesuffix("_l0"): value for name, value in network.params.items()}
    losses = []
    for plan in range(3):
        s = np.zeros(3)
        for t in range(8):
            x = jordan.INPUT[t, plan]
            a = np.tanh(p["a.weight_x"] @ x + p["a.weight_s"] @ s + p["a.bias"])
            z = p["out.weight_a"] @ a + p["out.bias"]
            d = jordan.TARGET[t, plan]
            losses.append(np.log1p(np.exp(z)) - d * z)
            s = 0.5 * s + d
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_jordan_network_that_runs_by_itself_is_fed_its_own_outputs() -> None:
    network = jordan.Jordan(0.5, True, np.random.default_rng(0))
    y = network()
    p = {name.removesuffix("_l0"): value for name, value in network.params.items()}
    s = np.zeros((3, 3))
    for t in range(8):
        a = np.tanh(jordan.INPUT[t] @ p["a.weight_x"].T + s @ p["a.weight_s"].T + p["a.bias"])
        expected = 1 / (1 + np.exp(-(a @ p["out.weight_a"].T + p["out.bias"])))
        np.testing.assert_allclose(y[t], expected, rtol=0, atol=1e-5)
        s = 0.5 * s + expected


def test_jordan_compares_five_networks_with_the_same_number_of_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, outcome = recorded("jordan", monkeypatch)
    assert len(calls) == 5 * jordan.STARTS
    assert {call.rates for call in calls} == {("Adam", 0.02)}
    assert {len(call.batches) * call.options["epochs"] for call in calls} == {1500}
    assert figures(outcome)["starts right, of 5: trace, taught"] == 0  # untrained
    assert outcome.details["errors"]["Elman"][0] > 0.4
