"""What the demonstrations of automata claim; all long ones of languages too reach their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import figures, recorded, result, same, values

from rnnfast.demos import (
    _automata,
    _reader,
    deep_transition,
    gated_feedback,
    odyssey,
    permutations,
)

LONG = ["odyssey", "grammars", "gated-feedback", "jordan"]


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_ones_reach_their_figures_and_draw_them(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    plot = tmp_path / "plot.png"
    content = result(name, tmp_path, "--seed", "1", "--plot", str(plot))
    assert content["reached"], content["figures"]
    assert plot.stat().st_size > 10_000


@pytest.mark.parametrize("name", LONG)
def test_long_ones_run_quickly_too(name: str, tmp_path: Path) -> None:
    content = result(name, tmp_path, "--quick")
    assert content["quick"]
    assert all(np.isfinite(value) for value in values(content).values())


def test_all_networks_are_trained_on_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("odyssey", "permutations", "deep-transition", "gated-feedback"):
        (first, *others), _ = recorded(name, monkeypatch, "--quick")
        assert len(first.batches) == 20
        for call in others:
            assert call.rates == first.rates
            assert call.options["epochs"] == first.options["epochs"]
            for one, other in zip(first.batches, call.batches, strict=True):
                assert same(one, other)


# ------------------------------------------------------------------------------------------ reader


def test_the_reader_leaves_padding_out() -> None:
    rng = np.random.default_rng(0)
    reader = _reader.Reader(odyssey.lstm_variant("NP"), 7, 5, 7, rng)
    x, target, lengths = odyssey.strings(rng, 9)
    loss, grads = reader.loss_and_grads((x, target, lengths))
    changed_x, changed_target = x.copy(), target.copy()
    for row, length in enumerate(lengths):
        changed_x[length:, row] = 3
        changed_target[length:, row] = 6
    again, same_grads = reader.loss_and_grads((changed_x, changed_target, lengths))
    assert again == loss
    for name, grad in grads.items():
        np.testing.assert_array_equal(same_grads[name], grad)
    assert reader.num_parameters == 4 * 5 * (7 + 5 + 1) + 7 * (5 + 1)


def test_a_last_value_is_that_before_the_length() -> None:
    values = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(_reader.at_last(values, np.array([4, 1, 2])), [9, 1, 5])


def test_a_rate_decays_along_a_line_to_a_tenth() -> None:
    rates = [_reader.decayed(0.5, 9)(epoch) for epoch in range(10)]
    np.testing.assert_allclose(np.diff(rates), -0.05)
    assert rates[0] == 0.5
    assert rates[-1] == pytest.approx(0.05)


def test_an_orthogonal_matrix_keeps_lengths() -> None:
    w = _reader.orthogonal(np.random.default_rng(0), 11)
    np.testing.assert_allclose(w @ w.T, np.eye(11), atol=1e-14)


# ----------------------------------------------------------------------------------------- odyssey


def is_reber(text: str) -> bool:
    """Whether a walk through the published diagram spells the string."""
    edges = {
        ("a", "T"): "b", ("a", "P"): "c", ("b", "S"): "b", ("b", "X"): "d", ("c", "T"): "c",
        ("c", "V"): "e", ("d", "X"): "c", ("d", "S"): "f", ("e", "P"): "d", ("e", "V"): "f",
    }  # fmt: skip
    if not text.startswith("B") or not text.endswith("E"):
        return False
    node = "a"
    for symbol in text[1:-1]:
        node = edges.get((node, symbol), "")
    return node == "f"


def test_embedded_reber_strings_are_of_the_grammar() -> None:
    rng = np.random.default_rng(0)
    texts = {odyssey.embedded(rng) for _ in range(2000)}
    for text in texts:
        assert text[0] + text[-1] == "BE"
        assert text[1] == text[-2]
        assert text[1] in "TP"
        assert is_reber(text[2:-2]), text
    assert {text[2:-2] for text in texts} > {"BTXSE", "BPVVE", "BTSSXXTVVE", "BPTVPXVVE"}


def test_odyssey_reads_all_symbols_but_the_last_and_has_the_next_as_target() -> None:
    x, target, lengths = odyssey.strings(np.random.default_rng(3), 50)
    rng = np.random.default_rng(3)
    for row, length in enumerate(lengths):
        text = odyssey.embedded(rng)
        read = "".join(odyssey.SYMBOLS[k] for k in x[:length, row].argmax(axis=1))
        following = "".join(odyssey.SYMBOLS[k] for k in target[:length, row])
        assert read == text[:-1]
        assert following == text[1:]
    assert (x.sum(axis=2) == 1).all()


def test_odyssey_counts_last_but_one_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a reader that always says T: right where the second symbol is one."""
    test = odyssey.strings(np.random.default_rng(odyssey.TEST_SEED), 1000)

    def says_t(x: Any, lengths: Any) -> Any:
        logits = np.zeros(x.shape)
        logits[..., odyssey.SYMBOLS.index("T")] = 1
        return logits

    found = odyssey.remembered(says_t, test)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, test[0][1, :, odyssey.SYMBOLS.index("T")] == 1)
    assert found.mean() == pytest.approx(0.5, abs=0.05)

    calls, outcome = recorded("odyssey", monkeypatch, "--quick")
    assert [call.options["label"] for call in calls] == [
        f"odyssey, {name}" for name in odyssey.VARIANTS
    ]
    by_hand = [1 - odyssey.remembered(call.model, test).mean() for call in calls]
    assert [call.figure for call in calls] == by_hand
    assert len(figures(outcome)) == 9
    for call in calls:
        biases = [p for name, p in call.model.layer.params.items() if ".bias" in name]
        assert biases
        assert not any(p.any() for p in biases)


# -------------------------------------------------------------------- permutations, gated-feedback


@pytest.mark.parametrize("seed", range(5))
def test_the_symbols_permute_the_states_and_walks_follow_them(seed: int) -> None:
    table = _automata.automaton(seed)
    assert table.shape == (3, 5)
    assert (np.sort(table, axis=1) == np.arange(5)).all()
    x, states = _automata.walks(table, np.random.default_rng(7), 20, 11)
    assert x.shape == (20, 11, 3)
    for row in range(11):
        state = 0
        for t in range(20):
            state = table[x[t, row].tolist().index(1)][state]
            assert states[t, row] == state


def test_batches_of_walks_are_short_and_the_test_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[Any] = []
    share = _reader.right

    def spy(reader: Any, test: Any) -> Any:
        tested.append(test)
        return share(reader, test)

    monkeypatch.setattr(permutations, "right", spy)
    calls, outcome = recorded("permutations", monkeypatch)
    steps = [len(x) for x, _ in calls[0].batches]
    assert min(steps) >= 2
    assert max(steps) <= 16
    assert len(calls[0].batches) * calls[0].options["epochs"] == 400
    assert all(x.shape == (64, 500, 3) for x, _ in tested)
    assert len(calls) == 6
    sizes = [sum(p.size for p in call.start.values()) for call in calls]
    assert min(sizes) > 0.9 * max(sizes)
    assert max(figures(outcome).values()) < 0.4  # untrained


def test_shares_are_counted_step_by_step() -> None:
    target = np.array([[0, 1, 2], [2, 1, 0]])

    def answers(x: Any) -> Any:
        return np.eye(3)[[[0, 1, 1], [2, 1, 0]]]

    found = _reader.right(answers, (None, target))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, [2 / 3, 1])


def test_the_difference_to_a_stack_is_nothing_only_with_open_gates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gated_feedback.difference_to_stack(np.random.default_rng(5)) == 0
    monkeypatch.setattr(gated_feedback, "OPEN", 1)
    assert gated_feedback.difference_to_stack(np.random.default_rng(5)) > 0.01


def test_the_gates_shown_are_those_that_the_network_used() -> None:
    """Put in the sums as numbers, they give the network's own states."""
    rng = np.random.default_rng(0)
    reader = gated_feedback.feedback_reader(rng)
    x = np.eye(3, dtype=np.float32)[rng.integers(3, size=(12, 1))]
    g = gated_feedback.gates(reader, x)
    assert g.shape == (12, 3, 3)
    assert g.std() > 0.05
    p = {name.removesuffix("_l0"): value for name, value in reader.layer.params.items()}
    before = [np.zeros(16)] * 3
    for t, row in enumerate(x[:, 0]):
        now: list[Any] = []
        for j in range(3):
            a = p[f"n_{j + 1}.weight_below"] @ now[-1] if j else p["n_1.weight_x"] @ row
            for i in range(3):
                a = a + g[t, i, j] * (p[f"n_{j + 1}.weight_h{i + 1}"] @ before[i])
            now.append(np.tanh(a + p[f"n_{j + 1}.bias"]))
        before = now
    y = reader.layer(x)[0][-1, 0]
    np.testing.assert_allclose(before[-1], y, rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------- deep-transition


def test_sums_of_products_modulo_3() -> None:
    x, target = deep_transition.sums(np.random.default_rng(0), 9, 40)
    assert x.shape == (9, 40, 6)
    for row in range(40):
        total = 0
        for t in range(9):
            a, b = x[t, row, :3].tolist().index(1), x[t, row, 3:].tolist().index(1)
            total += a * b
            assert target[t, row] == total % 3


def test_deep_transition_compares_networks_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _ = recorded("deep-transition", monkeypatch)
    assert len(calls) == 4
    assert len(calls[0].batches) * calls[0].options["epochs"] == 700
    assert max(len(x) for x, _ in calls[0].batches) <= 12 < deep_transition.TEST_STEPS
    sizes = {call.options["label"]: sum(p.size for p in call.start.values()) for call in calls}
    assert max(sizes.values()) == sizes["deep-transition, RNN"] < 1.2 * min(sizes.values())
