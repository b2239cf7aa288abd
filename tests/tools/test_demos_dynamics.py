"""What the demonstrations of dynamic systems claim: the data, the held-out tests, the rivals."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
from demo_cases import figures, recorded, same

from rnnfast import RNN
from rnnfast.demos import ctrnn, echo_state, hopfield, online_xor, plant
from rnnfast.training import Linear, gradcheck, ridge

# --------------------------------------------------------------------------------------- echo-state


def test_narma_is_the_system_that_it_states() -> None:
    u, target = echo_state.narma(np.random.default_rng(0), 60)
    assert 0 <= u.min() < u.max() <= 0.5
    y = [0.0] * 10
    for t in range(9, 60):
        y.append(
            0.3 * y[t]
            + 0.05 * y[t] * sum(y[t - i] for i in range(10))
            + 1.5 * u[t - 9] * u[t]
            + 0.1
        )
    np.testing.assert_allclose(target, y[1:], rtol=1e-12)


def test_mackey_glass_solves_its_equation() -> None:
    """The change over one step is the mean of the slopes at both ends, nearly."""
    series = echo_state.mackey_glass(np.random.default_rng(0), 400)
    x = np.arctanh(series) + 1
    slope = 0.2 * x[:-17] / (1 + x[:-17] ** 10) - 0.1 * x[17:]
    np.testing.assert_allclose(np.diff(x[17:]), (slope[1:] + slope[:-1]) / 2, atol=0.01)
    assert np.abs(np.diff(x)).max() > 0.05
    assert 0.2 < x.std() < 0.3


def test_the_recurrent_weight_is_sparse_and_has_its_spectral_radius() -> None:
    weight = echo_state.recurrent_weight(np.random.default_rng(0), 200, 0.95, 0.1)
    assert np.abs(np.linalg.eigvals(weight)).max() == pytest.approx(0.95, rel=1e-9)
    assert np.mean(weight != 0) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("task", ["narma_task", "mackey_glass_task", "memory"])
def test_readouts_are_fitted_and_scored_on_different_steps(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = 0

    def spy(features: Any, targets: Any, penalty: float) -> Any:
        assert len(features) == len(targets) == echo_state.TRAIN
        readout, fitted = ridge(features, targets, penalty), set(map(bytes, features))

        def call(features: Any) -> Any:
            nonlocal scored
            scored += len(features)
            assert fitted.isdisjoint(map(bytes, np.ascontiguousarray(features)))
            return readout(features)

        return call

    monkeypatch.setattr(echo_state, "ridge", spy)
    arguments = ("tanh", 20) if task == "memory" else (20,)
    getattr(echo_state, task)(np.random.default_rng(3), *arguments)
    assert scored >= echo_state.TEST


def test_a_free_run_has_only_its_own_predictions() -> None:
    """Against the equation, written out."""
    rng = np.random.default_rng(0)
    network = echo_state.Reservoir(rng, 30, radius=0.9, leak=0.3, scale=1.0)
    states, targets = rng.standard_normal((40, 30)), rng.standard_normal((40, 1))
    readout = ridge(states, targets, 1.0)
    runs = echo_state.free_run(network, readout, states[:3], 7)
    w_x, w_h, b = (network.layer.params[f"a.{n}_l0"] for n in ("weight_x", "weight_h", "bias"))
    h = states[:3]
    for t in range(7):
        y = h @ readout.params["weight"].T + readout.params["bias"]
        np.testing.assert_allclose(runs[t], y[:, 0], rtol=1e-10)
        h = 0.7 * h + 0.3 * np.tanh(y @ w_x.T + h @ w_h.T + b)


def test_the_delays_of_the_memory_end_before_the_sequence_begins() -> None:
    assert echo_state.DELAYS <= echo_state.WASHOUT
    perfect = echo_state.memory(np.random.default_rng(0), "identity", 50)
    assert perfect.shape == (echo_state.DELAYS,)
    assert perfect[0] > 0.999
    assert perfect[60:].max() < 0.02


# -------------------------------------------------------------------------------------------- ctrnn


def beer(y: Any) -> Any:
    """The slopes of Beer's equation, tau 1 and no input."""
    return -y + ctrnn.WEIGHTS @ (1 / (1 + np.exp(-(y + ctrnn.THETA))))


def test_the_cell_is_eulers_method_on_beers_equation() -> None:
    dt, y = 0.2, np.zeros(2)
    expected = []
    for _ in range(200):
        y = y + dt * beer(y)
        expected.append(1 / (1 + np.exp(-(y + ctrnn.THETA))))
    np.testing.assert_allclose(ctrnn.oscillate(dt, 40.0), expected, rtol=1e-9)


def test_the_equation_has_the_period_and_the_range_that_are_stated() -> None:
    """By the method of Runge and Kutta, of fourth order."""
    dt, y, outputs = 0.05, np.zeros(2), []
    for _ in range(9000):
        a = beer(y)
        b = beer(y + dt / 2 * a)
        c = beer(y + dt / 2 * b)
        y = y + dt / 6 * (a + 2 * b + 2 * c + beer(y + dt * c))
        outputs.append(1 / (1 + np.exp(-(y + ctrnn.THETA))))
    found = np.array(outputs)
    assert ctrnn.period(found, dt) == pytest.approx(29.0, abs=1e-3)
    assert found[4500:].min() == pytest.approx(0.18906, abs=1e-4)
    assert found[4500:].max() == pytest.approx(0.81094, abs=1e-4)


def test_a_period_is_measured_between_the_samples() -> None:
    time = 0.1 * np.arange(1000)
    wave = 0.5 + 0.3 * np.sin(2 * np.pi * time / 7.03 + 1)
    assert ctrnn.period(np.stack([wave, wave], axis=1), 0.1) == pytest.approx(7.03, abs=1e-3)


def test_flip_flops_hold_the_last_pulse_of_their_line() -> None:
    x, target = ctrnn.flip_flops(np.random.default_rng(0), 50)
    assert set(np.unique(x)) == {-1, 0, 1}
    assert np.mean(x != 0) == pytest.approx(ctrnn.PULSES, abs=0.01)
    for b in range(50):
        for line in range(3):
            last = 0.0
            for t in range(60):
                last = x[t, b, line] or last
                assert target[t, b, line] == last


def test_only_bits_that_a_pulse_has_set_are_scored() -> None:
    target = np.array([0.0, 1.0, -1.0, 1.0])
    assert ctrnn.share_right(np.array([-5.0, 0.2, 0.3, 2.0]), target) == pytest.approx(2 / 3)


def test_both_forms_are_their_equations_and_have_the_same_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, _ = recorded("ctrnn", monkeypatch)
    first, second = calls
    assert first.rates == second.rates
    assert len(first.batches) == len(second.batches) == 100
    assert first.options["epochs"] == second.options["epochs"]
    assert all(same(a, b) for a, b in zip(first.batches, second.batches, strict=True))
    x, target = first.batches[0]
    for call, form in zip(calls, ctrnn.FORMS, strict=True):
        model = call.model
        w_x, b = (model.layer.params[f"a.{n}_l0"] for n in ("weight_x", "bias"))
        w_h = model.layer.params["a.weight_h_l0"]
        s = np.zeros((ctrnn.BATCH, ctrnn.HIDDEN))
        for t in range(4):
            if form == "rate":
                s = h = 0.8 * s + 0.2 * np.tanh(s @ w_h.T + x[t] @ w_x.T + b)
            else:
                s = 0.8 * s + 0.2 * (np.tanh(s) @ w_h.T + x[t] @ w_x.T + b)
                h = np.tanh(s)
            np.testing.assert_allclose(model(x[: t + 1])[t], model.out(h.astype("f4")), atol=1e-4)
        loss, _ = model.loss_and_grads((x, target))
        assert loss == pytest.approx(np.mean((model(x) - target) ** 2), rel=1e-5)


# ----------------------------------------------------------------------------------------- hopfield


def patterns_of(rng: np.random.Generator, count: int, units: int) -> Any:
    return rng.choice([-1.0, 1.0], (count, units))


def test_a_unit_takes_the_sign_of_its_field_and_the_energy_never_rises() -> None:
    """Turn by turn against the formulas; some fields are 0."""
    rng, ties = np.random.default_rng(0), 0
    for count, units in ((11, 47), (4, 12), (2, 9), (2, 10)):
        patterns, start = patterns_of(rng, count, units), patterns_of(rng, 1, units)
        weight = sum(np.outer(x, x) for x in patterns) / units * (1 - np.eye(units))
        network, states = hopfield.Hopfield(patterns), start.copy()
        s, energy = start[0].copy(), np.inf
        for i in np.random.default_rng(5).permutation(units):
            field = weight[i] @ s
            ties += abs(field) < 1e-12
            s[i] = np.sign(field) if abs(field) > 1e-12 else s[i]
            below = -0.5 * s @ weight @ s
            assert below <= energy + 1e-12
            energy = below
        flips = network.sweep(states, np.random.default_rng(5))
        np.testing.assert_array_equal(states[0], s)
        assert flips == np.count_nonzero(states != start)
        assert network.energy(states)[0] == pytest.approx(energy, rel=1e-12)
    assert ties


def test_recall_ends_where_no_unit_would_change_and_leaves_its_start() -> None:
    rng = np.random.default_rng(1)
    patterns = patterns_of(rng, 9, 60)
    network, starts = hopfield.Hopfield(patterns), patterns_of(rng, 7, 60)
    before = starts.copy()
    states, energies = network.recall(starts, rng)
    np.testing.assert_array_equal(starts, before)
    assert (states @ network.weight * states >= 0).all()
    assert energies.shape[1] == 7
    assert (np.diff(energies, axis=0) <= 0).all()
    alone, _ = network.recall(states, rng)
    np.testing.assert_array_equal(alone, states)


def test_the_exact_share_of_each_pattern_is_flipped() -> None:
    rng = np.random.default_rng(0)
    patterns = patterns_of(rng, 13, 80)
    noisy = hopfield.flipped(patterns, 0.25, rng)
    np.testing.assert_array_equal((noisy != patterns).sum(axis=1), 20)
    assert len({row.tobytes() for row in noisy != patterns}) == 13
    np.testing.assert_array_equal(hopfield.flipped(patterns, 0.0, rng), patterns)


# -------------------------------------------------------------------------------------------- plant


def test_the_plant_is_the_system_that_it_states() -> None:
    u = np.random.default_rng(0).uniform(-2, 2, (30, 4))
    y = plant.plant(u)
    before, now = np.zeros(4), np.zeros(4)
    for t in range(30):
        before, now = now, now * before * (now + 2.5) / (1 + now**2 + before**2) + u[t]
        np.testing.assert_allclose(y[t], now, rtol=1e-12)
    sine, target = plant.sine()
    np.testing.assert_allclose(sine[:, 0, 0], np.sin(0.08 * np.pi * np.arange(100)), atol=1e-6)
    np.testing.assert_allclose(target, plant.plant(sine.astype(float)), rtol=1e-5, atol=1e-6)


def test_the_gradients_of_the_cascade_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (RNN, Linear):
        monkeypatch.setattr(plant, kind.__name__, partial(kind, dtype=np.float64))
    rng = np.random.default_rng(0)
    model = plant.Cascade(rng, (3, 4), (5, 2))
    assert list(model.parts) == ["perceptron0", "recurrent0", "perceptron1", "recurrent1", "out"]
    batch = rng.standard_normal((2, 7, 3, 1))
    _, grads = model.loss_and_grads(batch)
    assert grads.keys() == model.params.keys()
    found = gradcheck(lambda: model.loss_and_grads(batch)[0], model.params, grads)
    assert max(found.values()) < 1e-7


def test_both_imitators_have_one_training_and_as_many_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, result = recorded("plant", monkeypatch)
    cascade, simple = calls
    sizes = [sum(p.size for p in call.start.values()) for call in calls]
    assert sizes == pytest.approx([1940, 1940], abs=10)
    assert cascade.rates == simple.rates
    assert len(cascade.batches) == 100
    assert all(same(a, b) for a, b in zip(cascade.batches, simple.batches, strict=True))
    assert cascade.batches[0][0].shape == (60, 64, 1)
    for call, value in zip(calls, list(figures(result).values())[:2], strict=True):
        u, target = plant.series(np.random.default_rng([0, 1]), 500)
        assert value == call.figure == plant.error(call.model(u), target)
        later = u.copy()
        later[30:] += 1
        np.testing.assert_array_equal(call.model(later)[:30], call.model(u)[:30])


# --------------------------------------------------------------------------------------- online-xor


@pytest.mark.parametrize("delay", [1, 3])
def test_the_target_is_the_exclusive_or_of_the_bits_before_the_delay(delay: int) -> None:
    steps = list(islice(online_xor.stream(np.random.default_rng(0), delay), 400))
    bits, targets = np.array([x for x, _ in steps]), np.array([target for _, target in steps])
    assert (bits[:, 2] == 1).all()
    assert set(np.unique(bits[:, :2])) == {0, 1}
    np.testing.assert_array_equal(targets[delay:], bits[:-delay, 0] != bits[:-delay, 1])
    assert not targets[:delay].any()
    # An answer with the bits of another time is no better than guessing.
    for other in {0, 1, 2, 3, 4} - {delay}:
        xor = bits[:, 0] != bits[:, 1]
        assert abs(np.mean(targets[4:] == xor[4 - other : 400 - other]) - 0.5) < 0.1


def test_a_step_is_answered_before_its_gradient_which_is_that_of_the_cross_entropy() -> None:
    """The loss after t steps with weights that stay, against the central difference."""
    steps = list(islice(online_xor.stream(np.random.default_rng(0), 2), 9))

    def run() -> tuple[float, dict[str, Any]]:
        model.rtrl.reset()
        return [model.loss_and_grads(step) for step in steps][-1]

    model = online_xor.Online(np.random.default_rng(1), 4)
    _, grads = run()
    assert len(model.right) == 9
    assert max(gradcheck(lambda: run()[0], model.layer.params, grads).values()) < 1e-7
    x = np.stack([x for x, _ in steps])[:, None]
    y = model.layer(x)[0][:, 0, 0]
    wanted = [(answer > 0.5) == (target == 1) for answer, (_, target) in zip(y, steps, strict=True)]
    assert model.right[:9] == wanted


def test_the_last_answers_are_scored_and_each_task_has_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answered(call: Any) -> None:
        call.model.right += [False] * 500 + [True] * 400 + [False] * 100

    calls, result = recorded("online-xor", monkeypatch, before=answered)
    difference, *shares = figures(result).values()
    assert 0 < difference < 1e-12
    assert shares == [0.8] * 3
    for call, (units, steps) in zip(calls, online_xor.TASKS.values(), strict=True):
        assert call.rates == ("SGD", 0.5)
        assert call.model.layer.hidden_size == units
        assert len(call.batches) * call.options["epochs"] == steps
    expected = list(islice(online_xor.stream(np.random.default_rng([0, 1, 1]), 1), 1000))
    assert all(same(a, b) for a, b in zip(calls[0].batches, expected, strict=True))
