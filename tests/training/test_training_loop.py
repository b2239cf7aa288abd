"""What `fit` calls, in which order, with what, and what it makes of the figures."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from training_cases import one_batch, quadratic

from rnnfast.training import SGD, History, Progress, fit
from rnnfast.training.interrupt import InterruptGuard


def test_the_calls_come_in_order() -> None:
    calls: list[Any] = []

    class Recorder(SGD):
        def step(self, grads: Any) -> None:
            calls.append(("step", self.lr))
            super().step(grads)

    def batches(rng: np.random.Generator) -> Iterator[str]:
        calls.append("batches")
        yield from "ab"

    def schedule(epoch: int) -> float:
        calls.append(("schedule", epoch))
        return 0.1 * (1 + epoch)

    def loss_and_grads(batch: str) -> tuple[float, Any]:
        calls.append(batch)
        return 1.0, {"w": np.ones(1)}

    def evaluate() -> float:
        calls.append("evaluate")
        return 0.0

    options: Any = {"schedule": schedule, "evaluate": evaluate, "progress": False, "epochs": 2}
    fit(loss_and_grads, Recorder({"w": np.zeros(1)}), batches, **options)
    expected: list[Any] = []
    for epoch, lr in ((0, 0.1), (1, 0.2)):
        expected += [("schedule", epoch), "batches"]
        expected += ["a", ("step", lr), "b", ("step", lr), "evaluate"]
    assert calls == expected


@pytest.mark.parametrize("seed", [5, np.random.default_rng(5)])
def test_the_batches_get_the_generator_or_one_of_that_seed(seed: Any) -> None:
    drawn = []

    def batches(rng: np.random.Generator) -> list[int]:
        drawn.append(rng.random())
        return [0]

    params, step = quadratic()
    fit(step, SGD(params), batches, epochs=3, rng=seed, progress=False)
    np.testing.assert_array_equal(drawn, np.random.default_rng(5).random(3))


def test_the_history_has_the_means_of_each_epoch() -> None:
    losses, norms = [1.0, 2.0, 6.0, 7.0, 0.5, 0.25], [3.0, 5.0, 4.0, 2.0, 1.0, 9.0]
    figures = zip(losses, norms, strict=True)

    def loss_and_grads(batch: int) -> tuple[float, Any]:
        loss, norm = next(figures)
        return loss, {"w": np.array([0.6 * norm, 0.8 * norm])}

    optimizer = SGD({"w": np.zeros(2)})
    history = fit(loss_and_grads, optimizer, range(3), epochs=2, progress=False)
    assert history.loss == pytest.approx([3, 7.75 / 3])
    assert history.gradient_norm == pytest.approx([4, 4])
    assert history.held_out == []
    assert optimizer.steps == 6


def test_means_are_in_float64_whatever_the_losses_are() -> None:
    losses = iter([2.0**30] + [64.0] * 63)
    params, _ = quadratic()
    history = fit(
        lambda batch: (np.float32(next(losses)), {"w": np.zeros(1)}),
        SGD(params),
        range(64),
        epochs=1,
        progress=False,
    )
    assert history.loss == [(2**30 + 63 * 64) / 64]
    assert type(history.loss[0]) is float


def test_the_time_of_an_epoch_has_the_evaluation_in_it() -> None:
    params, step = quadratic()

    def evaluate() -> float:
        time.sleep(0.04)
        return 0.0

    def slow(batch: int) -> tuple[float, Any]:
        time.sleep(0.02)
        return step(batch)

    started = time.perf_counter()
    options: Any = {"epochs": 3, "evaluate": evaluate, "progress": False}
    history = fit(slow, SGD(params), [0, 1], **options)
    assert min(history.seconds) >= 0.08
    assert sum(history.seconds) <= time.perf_counter() - started


def test_the_norm_is_clipped_first_and_then_the_values() -> None:
    w = np.zeros(2)
    options: Any = {"clip_norm": 2.5, "clip_value": 1.6, "epochs": 1, "progress": False}
    grads = {"w": np.array([3.0, -4.0])}
    history = fit(lambda batch: (1.0, grads), SGD({"w": w}, lr=1.0), [0], **options)
    np.testing.assert_allclose(w, [-1.5, 1.6], rtol=1e-6)
    assert history.gradient_norm == [5.0]


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
def test_each_limit_does_without_the_other(name: str) -> None:
    w, expected = np.zeros(2), {"clip_norm": [-0.6, 0.8], "clip_value": [-1, 1]}
    options: Any = {name: 1.0, "epochs": 1, "progress": False}
    fit(lambda batch: (1.0, {"w": np.array([3.0, -4.0])}), SGD({"w": w}, lr=1.0), [0], **options)
    np.testing.assert_allclose(w, expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "gradient", "message"),
    [
        (np.nan, 1.0, "loss nan, gradient norm 1.0 at batch 1"),
        (np.inf, 1.0, "loss inf, gradient norm 1.0 at batch 1"),
        (1.0, np.nan, "loss 1.0, gradient norm nan at batch 1"),
        (1.0, -np.inf, "loss 1.0, gradient norm inf at batch 1"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 9.0}, {"clip_value": 9.0}])
def test_what_is_not_finite_stops_before_the_step(
    loss: float, gradient: float, message: str, options: Any
) -> None:
    batches = iter([(1.0, 1.0), (loss, gradient)])

    def loss_and_grads(batch: int) -> tuple[float, Any]:
        value, g = next(batches)
        return value, {"w": np.array([g, 0.0])}

    optimizer = SGD({"w": np.zeros(2)}, lr=0.5)
    with pytest.raises(FloatingPointError, match=message):
        fit(loss_and_grads, optimizer, [0, 1, 2], epochs=2, progress=False, **options)
    np.testing.assert_array_equal(optimizer.params["w"], [-0.5, 0])
    assert optimizer.steps == 1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_gradients_beyond_the_squares_of_float32_are_trained_with(scale: float) -> None:
    w = np.zeros(4, np.float32)
    options: Any = {"epochs": 1, "clip_norm": 1.0, "progress": False}
    grads = {"w": np.full(4, scale, np.float32)}
    history = fit(lambda batch: (1.0, grads), SGD({"w": w}, lr=1.0), [0], **options)
    assert history.gradient_norm == pytest.approx([2 * scale], rel=1e-6)
    np.testing.assert_allclose(w, -min(scale, 0.5), rtol=1e-6)


def test_gradients_of_zero_are_no_error() -> None:
    params, _ = quadratic()
    options: Any = {"epochs": 1, "clip_norm": 1.0, "progress": False}
    history = fit(lambda batch: (1.0, {"w": np.zeros(1)}), SGD(params), [0], **options)
    assert history.gradient_norm == [0.0]
    assert params["w"][0] == 1.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patience": 3}, ValueError, "goal and patience need evaluate, a held-out figure"),
        ({"goal": "low", "evaluate": float}, TypeError, "goal has type str, expected a number"),
        ({"clip_norm": "1"}, TypeError, "clip_norm has type str, expected a number"),
        ({"clip_norm": np.inf}, ValueError, "clip_norm is inf, expected a finite number > 0"),
        ({"clip_value": -1}, ValueError, "clip_value is -1, expected a finite number > 0"),
        ({"patience": True, "evaluate": float}, TypeError, "patience has type bool, expected"),
        ({"batches": 5.0}, TypeError, "batches has type float, expected a list of batches"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_called(
    options: Any, error: Any, message: str
) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("called")

    given = {"batches": never, "epochs": 1, "schedule": never, "progress": False} | options
    with pytest.raises(error, match=message):
        fit(never, SGD({"w": np.zeros(1)}), **given)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [1.0],
        {"loss": [1.0], "gradient_norm": [1.0], "held_out": []},
        {"loss": [1.0], "gradient_norm": [1.0], "held_out": [], "seconds": ["x"]},
        {"loss": 1.0, "gradient_norm": [1.0], "held_out": [], "seconds": [1.0]},
        {"loss": [1.0], "gradient_norm": [], "held_out": [], "seconds": [1.0]},
        {"loss": [1.0], "gradient_norm": [1.0], "held_out": [], "seconds": []},
        {"loss": [1.0, 2], "gradient_norm": [1.0, 2], "held_out": [1.0], "seconds": [1.0, 2]},
    ],
)
def test_what_is_no_history_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match="stored history"):
        History.from_dict(stored)


# ---------------------------------------------------------------------------------- progress


def lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: Any,
    **options: Any,
) -> list[str]:
    """What a training prints without tqdm, a line per batch."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(Progress, "seconds_between_lines", -1.0)
    fit(*arguments, **options)
    return capsys.readouterr().err.splitlines()


def test_progress_counts_batches_and_knows_the_rest_after_an_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params, step = quadratic()
    figures = iter([0.5, 0.25, 0.125])
    options: Any = {"epochs": 3, "evaluate": lambda: next(figures), "label": "demo"}
    printed = lines(monkeypatch, capsys, step, SGD(params, lr=0.1), [0, 1], **options)
    starts = ["1 in", "2 in", "3/6 in", "4/6 in", "5/6 in", "6/6 in", "6/6 in"]
    assert [line.removeprefix("demo: ").split(" 0 s")[0] for line in printed] == starts
    assert "held out" not in "".join(printed[:2])
    for line, epoch, figure in zip(printed[2:], (2, 2, 3, 3, 3), "553..", strict=True):
        assert f"epoch {epoch}, loss " in line
        assert line.endswith("held out 0.5" if figure == "5" else "held out 0.25")


def test_progress_lines_come_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Progress(None, "work") as progress:
        for loss in (0.5, 0.25, 0.125):
            progress.update(loss=loss)
        progress.update()
    assert capsys.readouterr().err == "work: 4 in 0 s  loss 0.125\n"


# ------------------------------------------------------------------------------------ Ctrl-C


def test_the_handler_that_was_there_is_the_one_that_runs() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with InterruptGuard() as guard:
            signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
            with guard.hold():
                signal.raise_signal(signal.SIGINT)
                assert seen == [signal.SIGINT]
            assert seen == [signal.SIGINT] * 2
            with guard.hold():
                pass
            assert seen == [signal.SIGINT] * 2
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT] * 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_inside_is_no_end_of_the_handler() -> None:
    """What was held back acts, and the handler is given back."""

    def fails(signals: int) -> None:
        with InterruptGuard() as guard, guard.hold():
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
            raise KeyError

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for signals, error in ((1, KeyboardInterrupt), (0, KeyError)):
            with pytest.raises(error):
                fails(signals)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_sigint_is_ignored_it_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard, guard.hold():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_evaluation_keeps_the_epochs_before() -> None:
    params, step = quadratic()
    figures = iter([1.0, KeyboardInterrupt])

    def evaluate() -> float:
        figure: Any = next(figures)
        if figure is KeyboardInterrupt:
            raise KeyboardInterrupt
        return figure

    options: Any = {"epochs": 3, "evaluate": evaluate, "progress": False}
    history = fit(step, SGD(params), one_batch, **options)
    assert history.interrupted
    assert history.epochs == 1
