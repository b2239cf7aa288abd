"""The loop: it learns, stops, resumes to the same bits, survives Ctrl-C and hostile files."""

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

from rnnfast import GRU
from rnnfast.training import (
    SGD,
    Adam,
    History,
    Linear,
    Progress,
    fit,
    join,
    length_mask,
    load_checkpoint,
    mean_squared_error,
    minibatches,
    pad,
    plot_history,
    save_checkpoint,
)


class Summer:
    """A GRU with dropout that learns the running sum of sequences of different length."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.gru = GRU(1, 8, 2, dropout=0.2, rng=self.rng)
        self.out = Linear(8, 1, rng=self.rng)
        self.params = join(gru=self.gru.params, out=self.out.params)
        data = np.random.default_rng(1)
        lengths = data.integers(1, 7, 40)
        self.sequences = [data.random((n, 1), dtype=np.float32) - 0.5 for n in lengths]

    def batches(self, rng: np.random.Generator) -> Any:
        lengths = np.array([len(s) for s in self.sequences])
        for chosen in minibatches(len(lengths), 8, rng, lengths=lengths):
            yield pad([self.sequences[i] for i in chosen])

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        x, lengths = batch
        y, _, tape = self.gru.forward(x, lengths=lengths)
        prediction, out_tape = self.out.forward(y)
        mask = length_mask(lengths, len(x))
        loss, d_prediction = mean_squared_error(prediction, x.cumsum(axis=0), mask=mask)
        out = self.out.backward(out_tape, d_prediction)
        return loss, join(gru=self.gru.backward(tape, out.input).params, out=out.params)

    def evaluate(self) -> float:
        x, lengths = pad(self.sequences)
        prediction = self.out(self.gru(x, lengths=lengths)[0])
        mask = length_mask(lengths, len(x))
        return mean_squared_error(prediction, x.cumsum(axis=0), mask=mask)[0]

    def fit(self, epochs: int, optimizer: Any = None, **options: Any) -> History:
        optimizer = optimizer or Adam(self.params, lr=0.02)
        options = {"evaluate": self.evaluate, "progress": False, "rng": self.rng} | options
        return fit(self.loss_and_grads, optimizer, self.batches, epochs=epochs, **options)


def quadratic(start: float = 1.0) -> tuple[dict[str, Any], Any]:
    """One weight and the loss of its square: the smallest model there is."""
    params = {"w": np.array([start])}
    return params, lambda batch: (float(params["w"][0] ** 2), {"w": 2 * params["w"]})


def one_batch(rng: np.random.Generator) -> list[int]:
    return [0]


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
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 1, "goal": 0.5}, "goal and patience need evaluate"),
        ({"epochs": 1, "patience": 0, "evaluate": float}, "patience is 0"),
    ],
)
def test_wrong_arguments(options: Any, message: str) -> None:
    params, step = quadratic()
    with pytest.raises(ValueError, match=message):
        fit(step, SGD(params), one_batch, progress=False, **options)


def test_no_batches() -> None:
    params, step = quadratic()
    with pytest.raises(ValueError, match="batches gave no batch"):
        fit(step, SGD(params), lambda rng: [], epochs=1, progress=False)


# ------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def _safetensors() -> None:
    pytest.importorskip("safetensors", reason="checkpoints are an extra")


@pytest.mark.usefixtures("_safetensors")
@pytest.mark.parametrize("patience", [None, 3])
def test_resume_continues_bit_for_bit(tmp_path: Path, patience: int | None) -> None:
    whole = Summer()
    expected = whole.fit(6, patience=patience)
    path = tmp_path / "model.safetensors"
    Summer().fit(3, patience=patience, checkpoint=path)
    resumed = Summer(seed=99)  # other weights, other random state: all of it comes from the file
    history = resumed.fit(6, patience=patience, checkpoint=path)
    assert history.loss == expected.loss
    assert history.held_out == expected.held_out
    for name, p in whole.params.items():
        np.testing.assert_array_equal(p, resumed.params[name])
    assert whole.rng.bit_generator.state == resumed.rng.bit_generator.state


@pytest.mark.usefixtures("_safetensors")
@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_any_bit_generator_is_restored(tmp_path: Path, kind: str) -> None:
    params, _ = quadratic()
    path = tmp_path / "checkpoint"
    rng = np.random.Generator(getattr(np.random, kind)(1))
    rng.random(3)
    save_checkpoint(path, params, rng=rng, info={"note": [1, 2.5]})
    expected = rng.random(5)
    other = np.random.Generator(getattr(np.random, kind)(2))
    assert load_checkpoint(path, params, rng=other) == {"note": [1, 2.5]}
    np.testing.assert_array_equal(other.random(5), expected)


def damaged_files(good: bytes) -> dict[str, bytes]:
    """Files that must be refused, made from a good one."""
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])

    def rebuilt(new_header: Any) -> bytes:
        text = new_header if isinstance(new_header, bytes) else json.dumps(new_header).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    def with_text(change: dict[str, Any]) -> bytes:
        text = json.dumps(json.loads(header["__metadata__"]["rnnfast"]) | change)
        return rebuilt(header | {"__metadata__": {"rnnfast": text}})

    w = header["params.w"]
    start, end = w["data_offsets"]
    random_state = json.loads(header["__metadata__"]["rnnfast"])["rng"]
    deep = rebuilt(header | {"__metadata__": {"rnnfast": "[" * 100_000}})
    return {
        "empty": b"",
        "text": b"not a checkpoint at all",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "truncated": good[:-3],
        "cut header": good[:20],
        "huge header": (2**62).to_bytes(8, "little") + good[8:],
        "offsets outside": rebuilt(header | {"params.w": w | {"data_offsets": [start, 2**40]}}),
        "offsets turned": rebuilt(header | {"params.w": w | {"data_offsets": [end, start]}}),
        "huge shape": rebuilt(header | {"params.w": w | {"shape": [2**40, 2**40]}}),
        "other shape": rebuilt(header | {"params.w": w | {"shape": [1, 1]}}),
        "other dtype": rebuilt(header | {"params.w": w | {"dtype": "I64"}}),
        "no metadata": rebuilt({k: v for k, v in header.items() if k != "__metadata__"}),
        "metadata of another": rebuilt(header | {"__metadata__": {"format": "pt"}}),
        "metadata not JSON": rebuilt(header | {"__metadata__": {"rnnfast": "{"}}),
        "metadata too deep": deep,
        "metadata a list": rebuilt(header | {"__metadata__": {"rnnfast": "[]"}}),
        "other format": with_text({"format": "rnnfast checkpoint 2"}),
        "other optimizer": with_text({"optimizer": ["Adam", 1, 0.1]}),
        "optimizer steps": with_text({"optimizer": ["SGD", -1, 0.1]}),
        "optimizer rate": with_text({"optimizer": ["SGD", 1, float("nan")]}),
        "optimizer text": with_text({"optimizer": "SGD"}),
        "random state missing": with_text({"rng": None}),
        "random state of another kind": with_text({"rng": {"bit_generator": "MT19937"}}),
        "random state too large": with_text(
            {"rng": random_state | {"state": {"state": 2**200, "inc": 1}}}
        ),
        "random state text": with_text({"rng": random_state | {"state": "x"}}),
    }


@pytest.mark.usefixtures("_safetensors")
def test_damaged_and_hostile_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    params, step = quadratic()
    optimizer, rng = SGD(params, lr=0.1, momentum=0.9), np.random.default_rng(0)
    optimizer.step(step(0)[1])
    save_checkpoint(path, params, optimizer, rng)
    good = path.read_bytes()
    load_checkpoint(path, params, optimizer, rng)
    params["w"][0], optimizer.state["momentum"]["w"][0] = 7.0, 8.0
    state = rng.bit_generator.state
    for name, content in damaged_files(good).items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot load checkpoint") as raised:
            load_checkpoint(path, params, optimizer, rng)
        assert len(str(raised.value)) > len(f"cannot load checkpoint {os.fspath(path)!r}: "), name
        assert params["w"][0] == 7.0, name
        assert optimizer.state["momentum"]["w"][0] == 8.0, name
        assert optimizer.steps == 1, name
        assert rng.bit_generator.state == state, name


@pytest.mark.usefixtures("_safetensors")
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    params, _ = quadratic()
    save_checkpoint(path, params)
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match="cannot load checkpoint"):
            load_checkpoint(path, params)


@pytest.mark.usefixtures("_safetensors")
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"w": np.zeros(3), "b": np.zeros(2)})
    for params, message in [
        ({"w": np.zeros(3)}, r"params: missing \[\], unknown \['b'\]"),
        ({"w": np.zeros(3), "b": np.zeros(4)}, r"params 'b' has shape \(2,\), expected \(4,\)"),
        ({"w": np.zeros(3), "b": np.zeros(2, np.float32)}, "params 'b' has dtype float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path, params)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none", {})


@pytest.mark.usefixtures("_safetensors")
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    params, _ = quadratic()
    save_checkpoint(path, params)
    good = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    params["w"][0] = 5.0
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, params)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("_safetensors")
def test_a_damaged_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for info in (None, {"loss": ["x"]}, History([1.0], [], [], []).as_dict()):
        params, step = quadratic()
        optimizer = SGD(params)
        rng = np.random.default_rng(0)
        save_checkpoint(path, params, optimizer, rng, info=info)
        with pytest.raises(ValueError, match="stored history"):
            fit(step, optimizer, one_batch, epochs=1, checkpoint=path, progress=False)


def test_without_safetensors_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install rnnfast\[files\]"):
        save_checkpoint(tmp_path / "checkpoint", quadratic()[0])


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


# -------------------------------------------------------------------------- progress, plots


def test_progress_lines_without_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(Progress, "seconds_between_lines", -1.0)
    params, step = quadratic()
    fit(step, SGD(params, lr=0.1), one_batch, epochs=3, evaluate=lambda: 0.125, label="demo")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "demo: 1 in 0 s  epoch 1, loss 1"
    assert lines[-1] == "demo: 3/3 in 0 s  epoch 3, loss 0.4096, held out 0.125"


def test_progress_bar_with_tqdm(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="bars are an extra")
    params, step = quadratic()
    fit(step, SGD(params, lr=0.1), one_batch, epochs=3, label="demo")
    out, err = capsys.readouterr()
    assert out == ""
    assert "demo: 100%" in err
    assert "3/3" in err


def test_no_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    params, step = quadratic()
    fit(step, SGD(params), one_batch, epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_plot_of_a_history(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    history = Summer().fit(3)
    figure = plot_history(history, tmp_path / "plot.png", unit="squared error")
    left, right = figure.axes
    assert left.get_ylabel() == "squared error"
    np.testing.assert_array_equal(left.lines[0].get_ydata(), history.loss)
    np.testing.assert_array_equal(left.lines[1].get_ydata(), history.held_out)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), history.gradient_norm)
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
