"""What the demonstrations of memory claim: the same for all, figures of texts never seen."""

from __future__ import annotations

import sysconfig
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import figures, recorded, same

from rnnfast.demos import (
    char_lm,
    lstm_vs_gru,
)
from rnnfast.training import softmax_cross_entropy

# -------------------------------------------------------------------------------------- lstm-vs-gru


def test_all_three_get_the_same_data_steps_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[tuple[str, Any]] = []
    forward = lstm_vs_gru.Recaller.__call__

    def spy(self: Any, x: Any) -> Any:
        tested.append((type(self.layer).__name__, x))
        return forward(self, x)

    monkeypatch.setattr(lstm_vs_gru.Recaller, "__call__", spy)
    calls, result = recorded("lstm-vs-gru", monkeypatch, "--quick")
    kinds = [type(call.model.layer).__name__ for call in calls]
    assert kinds == ["RNN"] * 3 + ["LSTM"] * 3 + ["GRU"] * 3
    steps = [len(call.batches[0][0]) for call in calls]
    assert steps == [5, 20, 80] * 3
    for first, *others in zip(calls[:3], calls[3:6], calls[6:], strict=True):
        for other in others:
            for a, b in zip(first.batches, other.batches, strict=True):
                assert same(a, b)
            assert other.model.layer.hidden_size == first.model.layer.hidden_size == 32
            assert other.rates == first.rates
            assert [other.options[n] for n in ("epochs", "clip_norm", "goal")] == [
                first.options[n] for n in ("epochs", "clip_norm", "goal")
            ]
    tests = {(kind, len(x)): x for kind, x in tested}
    for n in (5, 20, 80):
        assert tests["RNN", n].shape == (n, 1000, 8)
        assert np.array_equal(tests["RNN", n], tests["LSTM", n])
        assert np.array_equal(tests["RNN", n], tests["GRU", n])
    accuracy = result.details["accuracy"]
    for call, kind, n in zip(calls, kinds, steps, strict=True):
        x = tests[kind, n]
        right = np.mean(forward(call.model, x).argmax(axis=1) == x[0].argmax(axis=1))
        assert accuracy[kind][[5, 20, 80].index(n)] == pytest.approx(right)
        assert call.figure == pytest.approx(1 - right)
    assert list(figures(result).values()) == [
        accuracy["RNN"][0], accuracy["RNN"][2], accuracy["LSTM"][2], accuracy["GRU"][2],
    ]  # fmt: skip
    assert [figure.name for figure in result.figures] == [
        "RNN, shortest sequences", "RNN, 80 steps", "LSTM, 80 steps", "GRU, 80 steps",
    ]  # fmt: skip


def test_gates_start_with_the_memory_that_is_stated() -> None:
    rng = np.random.default_rng(0)
    rnn, lstm, gru = (lstm_vs_gru.Recaller(kind, rng).layer for kind in ("RNN", "LSTM", "GRU"))
    for layer, gates in ((lstm, 4), (gru, 3)):
        bias = layer.params["bias_ih_l0"].reshape(gates, 32)
        memory = 1 + np.exp(bias[1])  # of a gate that keeps sigmoid(bias)
        assert memory.min() >= 2
        assert 120 < memory.max() <= 161
        assert np.abs(bias[2:]).max() <= 32**-0.5
    bias = lstm.params["bias_ih_l0"].reshape(4, 32)
    np.testing.assert_array_equal(bias[0], -bias[1])
    assert np.abs(gru.params["bias_ih_l0"][:32]).max() <= 32**-0.5
    assert np.abs(rnn.params["bias_ih_l0"]).max() <= 32**-0.5


def test_the_recaller_answers_at_the_end_and_its_gradient_goes_to_the_start() -> None:
    rng = np.random.default_rng(0)
    x, target = lstm_vs_gru.recall(rng, 6, 4)
    for kind in lstm_vs_gru.KINDS:
        model = lstm_vs_gru.Recaller(kind, rng)
        logits = model(x)
        y, _ = model.layer(x)
        np.testing.assert_array_equal(logits, model.out(y[-1]))
        loss, grads = model.loss_and_grads((x, target))
        assert loss == pytest.approx(softmax_cross_entropy(logits, target)[0], rel=1e-6)
        assert grads["layer.weight_ih_l0"][:, :4].any()  # of the symbol to recall
        norm = model.gradient_norm(x, target)
        assert norm.shape == (7, 1, 4)
        assert (norm > 0).all()


# ------------------------------------------------------------------------------------------ char-lm


def test_files_are_trained_on_or_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"m{i:02}": f"<text {i:02}>\n" for i in range(45)}
    for name, content in contents.items():
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    training, held_out = char_lm.read_files(np.random.default_rng(0))
    assert len(held_out.splitlines()) == 3
    together = training.splitlines() + held_out.splitlines()
    assert sorted(line + "\n" for line in together) == sorted(contents.values())
    other = char_lm.read_files(np.random.default_rng(1))
    assert other[1] != held_out


def test_the_language_model_is_tested_on_the_text_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is in a batch, in the alphabet or in the counts of the 3-gram model."""
    path = tmp_path / "text"
    first, last = "ab" * 45_000, "cb" * 5_000
    path.write_text(first + last)
    seen: list[Any] = []
    ngram_bits, bits = char_lm.ngram_bits, char_lm.LanguageModel.bits

    def ngram(training: Any, test: Any, order: int) -> float:
        seen.append((training, test, order))
        return ngram_bits(training, test, order)

    def spy(self: Any, text: Any) -> float:
        seen.append(text)
        return bits(self, text)

    monkeypatch.setattr(char_lm, "ngram_bits", ngram)
    monkeypatch.setattr(char_lm.LanguageModel, "bits", spy)
    (call,), result = recorded("char-lm", monkeypatch, "--quick", "--text", str(path))
    (training, test, order), *evaluated = seen
    assert order == 3
    assert training.size == len(first)
    assert set(training) == {0, 1}
    assert set(test) == {1, 2}  # the b, and a character that is UNKNOWN, the last of three
    assert call.model.embedding.count == 3
    assert evaluated
    assert all(text is test for text in evaluated)
    assert {i for batch in call.batches for part in batch for i in part.flat} == {0, 1}
    assert figures(result)["held-out bits per character (3-gram)"] == call.figure
    assert result.details["baseline_bits"] == ngram_bits(training, test, 3)
    assert result.figures[0].goal == f"<= {result.details['baseline_bits']:.4g}"


def test_targets_are_the_next_characters_and_the_state_goes_on() -> None:
    rng = np.random.default_rng(0)
    model = char_lm.LanguageModel(7, 0.0, rng)
    text = rng.integers(0, 7, 2 * 200 + 1)
    pieces = char_lm.streams(text, 2)
    model.state = "of an earlier round"
    parts = []
    for read, wanted in islice(model.windows(text, 2), 4):
        assert model.state is None or len(parts)
        model.state = model.state or "carried"
        parts.append((read, wanted))
    read, wanted = (np.concatenate(part) for part in zip(*parts, strict=True))
    np.testing.assert_array_equal(read, pieces[:-1])
    np.testing.assert_array_equal(wanted, pieces[1:])
    windows = model.windows(text, 2)
    for _ in range(4):
        next(windows)
    model.state = "at the end"
    np.testing.assert_array_equal(next(windows)[0], pieces[:64])
    assert model.state is None


def test_training_carries_the_state_from_window_to_window() -> None:
    rng = np.random.default_rng(0)
    model = char_lm.LanguageModel(7, 0.0, rng)
    windows = list(islice(model.windows(rng.integers(0, 7, 1000), 2), 2))
    for read, wanted in windows:
        model_loss = model.loss_and_grads((read, wanted))[0]
    whole = np.concatenate([read for read, _ in windows])
    y, state = model.rnn(model.embedding(whole))
    expected = softmax_cross_entropy(model.out(y[64:]), windows[1][1])[0]
    assert model_loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(model.state, state, rtol=1e-4, atol=1e-6)


def test_bits_are_the_mean_of_minus_log2_p_with_the_state_carried() -> None:
    rng = np.random.default_rng(0)
    model = char_lm.LanguageModel(7, 0.5, rng)
    text = rng.integers(0, 7, 64 * 150)
    pieces = char_lm.streams(text, 64)
    logits = model.out(model.rnn(model.embedding(pieces[:-1]))[0]).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.log2(np.take_along_axis(p, pieces[1:, :, None], axis=2)).mean()
    model.state = "of the training"
    assert model.bits(text) == pytest.approx(expected, rel=1e-5)
    assert model.state == "of the training"


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_sample_is_drawn_from_the_model_and_fed_back(temperature: float) -> None:
    """Against a model that reads all that was written from the start, each time."""
    model = char_lm.LanguageModel(7, 0.5, np.random.default_rng(0))
    for p in model.out.params.values():
        p *= 10
    start = np.array([3, 1, 4])
    written = model.write(start, 30, temperature, np.random.default_rng(5))
    rng, expected = np.random.default_rng(5), list(start)
    for _ in range(30):
        y, _ = model.rnn(model.embedding(np.array(expected)[:, None]))
        z = model.out(y[-1, 0]).astype(np.float64) / temperature
        p = np.exp(z - z.max())
        expected.append(int(rng.choice(7, p=p / p.sum())))
    np.testing.assert_array_equal(written, expected)
    assert len(set(written)) > 3
