"""What the demonstrations with numbers claim: the test is held out, the figures are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from demo_cases import Trained, figures, recorded, same

from rnnfast import functional
from rnnfast.demos import (
    _demo,
    binary_adder,
    count_ones,
    next_symbol,
)

# ----------------------------------------------------------------------------------- figures, seeds


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (lambda: _demo.at_least("x", 1.0, 1), True),
        (lambda: _demo.at_least("x", 0.999, 1), False),
        (lambda: _demo.at_least("x", np.nan, 1), False),
        (lambda: _demo.at_most("x", 1.0, 1), True),
        (lambda: _demo.at_most("x", 1.001, 1), False),
        (lambda: _demo.at_most("x", np.nan, 1), False),
        (lambda: _demo.near("x", 1.25, 1, 0.25), True),
        (lambda: _demo.near("x", 0.75, 1, 0.25), True),
        (lambda: _demo.near("x", 1.3, 1, 0.25), False),
        (lambda: _demo.near("x", 0.7, 1, 0.25), False),
        (lambda: _demo.near("x", np.nan, 1, 0.25), False),
    ],
)
def test_a_figure_is_reached_where_it_is_in_its_bounds(figure: Any, reached: bool) -> None:
    assert figure().reached is reached


@pytest.mark.parametrize("name", ["binary-adder", "tagger", "sentiment", "count-ones"])
def test_the_seed_decides_the_weights_and_the_data(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [recorded(name, monkeypatch, "--seed", seed)[0][-1] for seed in ("1", "1", "2")]
    first, again, other = runs
    for param, p in first.start.items():
        np.testing.assert_array_equal(again.start[param], p)
        assert name == "count-ones" or (p != other.start[param]).any()
    assert same(map(repr, first.batches), map(repr, again.batches))
    assert name == "count-ones" or not same(map(repr, first.batches), map(repr, other.batches))
    assert first.figure == again.figure


# -------------------------------------------------------------------------------------- next-symbol


def test_next_symbol_predicts_the_next_and_has_not_read_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has each symbol beside the one after it, and what the unit made of those before."""
    (call,), result = recorded("next-symbol", monkeypatch)
    _, *rows = capsys.readouterr().out.splitlines()
    table = np.array([row.split() for row in rows], float)
    np.testing.assert_array_equal(table[:, 0], next_symbol.SYMBOLS[:-1])
    np.testing.assert_array_equal(table[:, 1], next_symbol.SYMBOLS[1:])
    assert call.rates == ("SGD", 0.05)
    assert len(call.batches) * call.options["epochs"] == 10_000
    x = next_symbol.SYMBOLS[:-1].reshape(8, 1, 1)
    h, expected = 0.0, []
    w_ih, w_hh, b = (call.start[name].item() for name in ("w_ih", "w_hh", "b_ih"))
    for symbol in x.ravel():
        h = 1 / (1 + np.exp(-(w_ih * symbol + w_hh * h + b)))
        expected.append(h)
    np.testing.assert_allclose(list(figures(result).values())[:8], expected, rtol=1e-12)


def test_next_symbol_descends_the_cross_entropy_that_it_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (call,), _ = recorded("next-symbol", monkeypatch)
    weights, symbols = call.optimizer.params, next_symbol.SYMBOLS

    def loss() -> float:
        x = symbols[:-1].reshape(8, 1, 1)
        y = functional.rnn_forward(x, None, **weights, nonlinearity="sigmoid")[0].ravel()
        return -float(np.sum(symbols[1:] * np.log(y) + (1 - symbols[1:]) * np.log(1 - y)))

    value, grads = call.loss(None)
    assert value == pytest.approx(loss(), rel=1e-12)
    for name, p in weights.items():
        start, eps = p.copy(), 1e-6
        p += eps
        above = loss()
        p -= 2 * eps
        below = loss()
        p[...] = start
        assert grads[name].item() == pytest.approx((above - below) / (2 * eps), rel=1e-6)


# --------------------------------------------------------------------------------------- count-ones


def test_count_ones_counts_a_sequence_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def solved(call: Trained) -> None:
        for p in call.optimizer.params.values():
            p.fill(1.0)

    (call,), result = recorded("count-ones", monkeypatch, before=solved)
    assert call.start["weight_ih_l0"].item() == -1.5
    assert call.start["weight_hh_l0"].item() == 2.0
    assert len(call.batches) * call.options["epochs"] == 500
    assert len(count_ones.EXAMPLE) != count_ones.STEPS
    assert figures(result)["ones counted in the example"] == sum(count_ones.EXAMPLE) == 5
    assert figures(result)["gradient check, relative error"] < 1e-7


def test_the_surface_and_the_gradient_through_time_of_count_ones() -> None:
    """Against the unit written out: s_t = w_x x_t + w_rec s_{t-1}."""
    counter = count_ones.Counter(np.random.default_rng(3))
    assert counter.x.shape == (10, 20, 1)
    assert set(np.unique(counter.x)) == {0, 1}
    np.testing.assert_array_equal(counter.target, counter.x.sum(axis=0))

    def state(w_x: float, w_rec: float) -> Any:
        s = np.zeros(20)
        for x in counter.x[:, :, 0]:
            s = w_x * x + w_rec * s
        return s

    w_x, w_rec = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 1.0])
    target = counter.x.sum(axis=(0, 2))
    expected = [[np.mean((state(a, b) - target) ** 2) for a in w_x] for b in w_rec]
    np.testing.assert_allclose(counter.surface(w_x, w_rec), expected, rtol=1e-12, atol=1e-12)
    for weights in count_ones.COMPARED:
        last = np.sum(2 * (state(*weights) - target)) / 20
        powers = float(weights[1]) ** np.arange(10, -1, -1)
        gradient = counter.gradient_of_state(*weights)
        np.testing.assert_allclose(gradient, last * powers, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------- binary-adder


def test_the_adder_is_tested_on_pairs_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested: list[Any] = []
    forward = binary_adder.Adder.__call__

    def spy(self: Any, x: Any) -> Any:
        tested.append(x)
        return forward(self, x)

    monkeypatch.setattr(binary_adder.Adder, "__call__", spy)
    (call,), result = recorded("binary-adder", monkeypatch)
    powers = 2 ** np.arange(8)
    trained = {tuple(pair) for numbers, _, _ in call.batches for pair in numbers.T}
    for x in tested:
        assert x.shape == (8, 1000, 2)
        pairs = np.einsum("tbi,t->bi", x, powers).astype(int)
        assert not trained & {tuple(pair) for pair in pairs}
        target = binary_adder.bits(pairs.sum(axis=1))
        s = forward(call.model, x)
        mse, right = figures(result).values()
        assert mse == pytest.approx(np.mean((s - target) ** 2), rel=1e-5)
        assert right == np.mean((s > 0.5) == target) < 1
    assert call.figure == pytest.approx(mse)
    assert len(call.batches) == 100
    assert len(trained) > 4000


def test_the_adders_answer_to_a_bit_has_not_seen_later_bits() -> None:
    rng = np.random.default_rng(0)
    adder = binary_adder.Adder(0.0, rng)
    numbers, x, target = binary_adder.sums(rng, 5)
    s = adder(x)
    changed = x.copy()
    changed[4:] = 1 - changed[4:]
    np.testing.assert_array_equal(adder(changed)[:4], s[:4])
    loss, _ = adder.loss_and_grads((numbers, x, target))
    assert loss == pytest.approx(np.mean((s - target) ** 2), rel=1e-5)


@pytest.mark.parametrize("held_out", [False, True])
def test_sums_are_all_held_out_or_none(held_out: bool) -> None:
    numbers, x, _ = binary_adder.sums(np.random.default_rng(0), 500, held_out)
    assert (binary_adder.is_held_out(numbers) == held_out).all()
    assert x.shape == (8, 500, 2)
    share = binary_adder.is_held_out(np.random.default_rng(1).integers(0, 128, (2, 9999))).mean()
    assert share == pytest.approx(0.1, abs=0.02)


def test_a_sum_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    numbers, _, target = binary_adder.sums(np.random.default_rng(0), 1)
    binary_adder.print_sum(numbers[:, 0], target[:, 0, 0])
    a, b = numbers[:, 0]
    lines = capsys.readouterr().out.split("\n")
    assert lines[:3] == [
        f"    {a:08b}  ({a})",
        f"  + {b:08b}  ({b})",
        f"  = {a + b:08b}  ({a + b})",
    ]
