"""The loop: it learns, stops, takes batches in any form, and survives Ctrl-C."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import Summer, one_batch, quadratic

from rnnfast.training import (
    SGD,
    Adam,
    History,
    Linear,
    fit,
    mean_squared_error,
    plot_history,
)


def test_it_learns_and_keeps_a_history() -> None:
    history = Summer().fit(30, clip_norm=1.0)
    assert history.held_out[-1] < 0.2 * history.held_out[0]
    assert history.epochs == len(history.gradient_norm) == len(history.seconds) == 30
    assert min(history.gradient_norm) > 0
    assert History.from_dict(json.loads(json.dumps(history.as_dict()))) == history


def test_same_seed_same_bits() -> None:
    first, second = Summer(), Summer()
    first.fit(3)
    second.fit(3)
    for name, p in first.params.items():
        np.testing.assert_array_equal(p, second.params[name])


def test_goal_and_patience() -> None:
    params, step = quadratic()
    history = fit(
        step,
        SGD(params, lr=0.1),
        one_batch,
        epochs=100,
        evaluate=lambda: float(params["w"][0]),
        goal=0.5,
        progress=False,
    )
    assert history.held_out[-1] <= 0.5 < history.held_out[-2]

    params, step = quadratic()
    figures = iter([3.0, 2.0, float("nan"), 4.0, 5.0, 1.0])
    seen = []

    def evaluate() -> float:
        seen.append(params["w"].copy())
        return next(figures)

    options: Any = {"epochs": 100, "evaluate": evaluate, "patience": 3, "progress": False}
    history = fit(step, SGD(params, lr=0.1), one_batch, **options)
    assert history.epochs == 5
    assert history.best_epoch == 1
    np.testing.assert_array_equal(params["w"], seen[1])


def test_best_epoch() -> None:
    nan = float("nan")
    assert History(held_out=[nan, 2.0, 1.0, nan, 1.0]).best_epoch == 2
    assert History(held_out=[nan]).best_epoch is None
    assert History().best_epoch is None


def test_clipping_and_schedule() -> None:
    params, step = quadratic(start=8.0)
    rates: list[int] = []

    def schedule(epoch: int) -> float:
        rates.append(epoch)
        return 0.5 if epoch else 0.25

    options: Any = {"epochs": 2, "schedule": schedule, "progress": False}
    history = fit(step, SGD(params), one_batch, clip_norm=2.0, clip_value=1.0, **options)
    assert params["w"][0] == pytest.approx(8 - 0.25 - 0.5)
    assert history.gradient_norm == pytest.approx([16.0, 15.5])  # before clipping
    assert rates == [0, 1]


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    params, _ = quadratic()
    values = iter([1.0, float("nan")])
    message = "loss nan, gradient norm 1.0 at batch 1"
    with pytest.raises(FloatingPointError, match=message):
        fit(
            lambda batch: (next(values), {"w": np.ones(1)}),
            SGD(params, lr=0.5),
            lambda rng: range(2),
            epochs=1,
            progress=False,
        )
    assert params["w"][0] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs is -1, expected at least 1"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"epochs": 1.0}, "epochs has type float, expected an integer"),
        ({"goal": 0.5}, "goal and patience need evaluate"),
        ({"patience": 0, "evaluate": float}, "patience is 0, expected at least 1"),
        ({"patience": 1.5, "evaluate": float}, "patience has type float, expected an integer"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0, expected a finite number > 0"),
        ({"clip_value": float("nan")}, "clip_value is nan, expected a finite number > 0"),
        ({"batches": 3}, "batches has type int, expected a list of batches, or a function of a"),
        ({"batches": []}, "batches gave no batch in epoch 1$"),
        ({"batches": iter([])}, "batches gave no batch in epoch 1$"),
        ({"batches": lambda rng: []}, "batches gave no batch in epoch 1$"),
    ],
)
def test_wrong_arguments(options: Any, message: str) -> None:
    params, step = quadratic()
    arguments = {"batches": one_batch, "epochs": 1, "progress": False} | options
    with pytest.raises((TypeError, ValueError), match=message):
        fit(step, SGD(params), **arguments)
    assert params["w"][0] == 1.0


# ----------------------------------------------------------------------------------- batches


class Loader:
    """Batches that can be gone through again, as a data loader's; neither a list nor a function."""

    def __iter__(self) -> Iterator[int]:
        yield from (0, 1)


@pytest.mark.parametrize("batches", [[0, 1], (0, 1), np.arange(2), Loader(), range(2)])
def test_batches_that_can_be_gone_through_again_serve_every_epoch(batches: Any) -> None:
    params, step = quadratic()
    expected = fit(step, SGD(params), lambda rng: [0, 1], epochs=3, progress=False)
    params, step = quadratic()
    assert fit(step, SGD(params), batches, epochs=3, progress=False).loss == expected.loss


def test_a_generator_serves_one_epoch() -> None:
    params, step = quadratic()
    assert fit(step, SGD(params), (b for b in [0, 1]), epochs=1, progress=False).epochs == 1
    spent = (b for b in [0, 1])
    kinds: list[Any] = [(b for b in [0, 1]), lambda rng: spent]
    for batches in kinds:
        params, step = quadratic()
        message = (
            "batches gave no batch in epoch 2: a generator serves one epoch; give a list, or a"
        )
        with pytest.raises(ValueError, match=message):
            fit(step, SGD(params), batches, epochs=3, progress=False)
        assert params["w"][0] < 1.0  # that of the first epoch


def test_what_backward_returns_will_do_for_the_gradients() -> None:
    out = Linear(2, 1, rng=0)
    x = np.random.default_rng(0).random((8, 2), dtype=np.float32)

    def loss_and_grads(batch: Any) -> tuple[float, Any]:
        y, tape = out.forward(batch)
        loss, dy = mean_squared_error(y, batch.sum(axis=1, keepdims=True))
        return loss, out.backward(tape, dy)

    options: Any = {"epochs": 50, "clip_norm": 1.0, "clip_value": 0.5, "progress": False}
    history = fit(loss_and_grads, Adam(out, lr=0.1), [x], **options)
    assert history.loss[-1] < 0.01 * history.loss[0]


# ---------------------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def sigint() -> Iterator[None]:
    """SIGINT as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def interrupt_after(seconds: float) -> Iterator[list[float]]:
    """Send this process SIGINT later; the list receives the moment it was sent."""
    sent: list[float] = []

    def send() -> None:
        time.sleep(seconds)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        with suppress(KeyboardInterrupt):
            thread.join()


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_returns_at_once_and_leaves_the_model_usable() -> None:
    model = Summer()
    before = signal.getsignal(signal.SIGINT)
    with interrupt_after(0.3) as sent:
        history = model.fit(10**9)
        assert time.perf_counter() - sent[0] < 0.2
    assert history.interrupted
    assert history.epochs == len(history.held_out) == len(history.seconds) > 0
    assert signal.getsignal(signal.SIGINT) is before
    assert np.isfinite(model.evaluate())
    assert not model.fit(1).interrupted


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_does_not_cut_an_update_in_half() -> None:
    class Slow(SGD):
        def step(self, grads: Any) -> None:
            super().step({"a": grads["a"], "b": np.zeros(1)})
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler runs here, if it is not held back
            super().step({"a": np.zeros(1), "b": grads["b"]})

    params = {"a": np.zeros(1), "b": np.zeros(1)}
    grads = {"a": np.ones(1), "b": np.ones(1)}
    history = fit(
        lambda batch: (1.0, grads), Slow(params, lr=1.0), one_batch, epochs=9, progress=False
    )
    assert history.interrupted
    assert params["a"][0] == params["b"][0] == -1.0


def test_fit_works_outside_the_main_thread() -> None:
    model = Summer()
    histories: list[History] = []
    thread = threading.Thread(target=lambda: histories.append(model.fit(1)))
    thread.start()
    thread.join()
    assert histories[0].epochs == 1


# ------------------------------------------------------------------------------------- plots


def test_plot_of_a_history(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    history = Summer().fit(3)
    figure = plot_history(history, tmp_path / "plot.png", unit="squared error")
    left, right = figure.axes
    assert left.get_ylabel() == "squared error"
    np.testing.assert_array_equal(left.lines[0].get_ydata(), history.loss)
    np.testing.assert_array_equal(left.lines[1].get_ydata(), history.held_out)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), history.gradient_norm)
    for line in (*left.lines, *right.lines):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["training", "held out"]
    assert right.get_yscale() == "log"
    zero = plot_history(History([1.0], [0.0], [], [1.0])).axes
    assert zero[1].get_yscale() == "linear"  # a norm of zero has no logarithm
    assert len(zero[0].lines) == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install rnnfast\[plot\]"):
        plot_history(History([1.0], [1.0], [], [1.0]))


@pytest.mark.parametrize("module", ["", ".gradcheck", ".progress"])
def test_examples_in_the_documentation(module: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module("rnnfast.training" + module))
    assert failed == 0 < attempted
