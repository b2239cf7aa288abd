"""Every error that a public docstring states has its row here, and the call raises it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import errors

import rnnfast
from rnnfast import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    Last,
    LSTMCell,
    Recurrent,
    RNNCell,
    Sequential,
    cells,
    demos,
    functional,
    interop,
    reference,
    training,
)

X = np.ones((4, 2, 3), np.float32)
W = np.ones((12, 3), np.float32), np.ones((12, 4), np.float32)
OPTIMIZERS = training.SGD, training.Rprop, training.RMSprop, training.Adam, training.AdamW


def rnn_tape() -> Any:
    return functional.rnn_forward(X, None, W[0][:4], W[1][:4])[2]


def used_tape() -> Any:
    tape = rnn_tape()
    functional.rnn_backward(tape)
    return tape


def backward(*arguments: Any, times: int = 1) -> None:
    layer = GRU(3, 4)
    tape = layer.forward(X)[2]
    for _ in range(times):
        layer.backward(tape, *arguments)


@cells.cell(state="h")
def added(x: Any, h: Any) -> Any:
    """I must be H."""
    return x + h


def cell_backward(*arguments: Any, times: int = 1) -> None:
    tape = functional.cell_forward(added, X, (X[0],), {})[2]
    for _ in range(times):
        functional.cell_backward(tape, *arguments)


def recurrent_backward(*arguments: Any, times: int = 1) -> None:
    layer = Recurrent(added, 3, 3)
    tape = layer.forward(X)[2]
    for _ in range(times):
        layer.backward(tape, *arguments)


def model_backward(*arguments: Any, times: int = 1) -> None:
    model = Sequential(GRU(3, 4))
    y, tape = model.forward(X)
    for _ in range(times):
        model.backward(tape, *(arguments or (y,)))


def step_backward(*arguments: Any, times: int = 1) -> None:
    cell = GRUCell(3, 4)
    tape = cell.forward(X[0])[1]
    for _ in range(times):
        cell.backward(tape, *arguments)


def fit(loss: float = 1.0, **options: Any) -> None:
    given = {"batches": [0], "epochs": 1, "progress": False} | options
    optimizer = training.SGD({"w": np.zeros(1)})
    training.fit(lambda batch: (loss, {"w": np.zeros(1)}), optimizer, **given)


def interrupted() -> None:
    def main(options: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demos, "load", lambda name: demos.Demo(main))
        demos.run("count-ones")


def environment() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rnnfast._core.threads, "_process_wide", None)
        patch.setenv("RNNFAST_NUM_THREADS", "many")
        rnnfast.get_num_threads()


def step(grads: Any) -> None:
    for kind in OPTIMIZERS:
        kind({"w": np.zeros(2)}).step(grads)


def load_state(*arguments: Any) -> None:
    training.SGD({"w": np.zeros(2)}).load_state(*arguments)


FORWARDS: dict[str, Callable[..., Any]] = {
    "rnn": lambda *a, **o: functional.rnn_forward(*a, W[0][:4], W[1][:4], **o),
    "gru": lambda *a, **o: functional.gru_forward(*a, *W, **o),
    "lstm": lambda x, h0, **o: functional.lstm_forward(
        x, h0, None, np.ones((16, 3), "f4"), np.ones((16, 4), "f4"), **o
    ),
}
Row = tuple[str, type[BaseException], Callable[[], Any], str]
STATE, GONE = np.ones((1, 2, 4), np.float32), "/no/such/folder/x.npz"
ROWS: list[Row] = [
    ("Recurrent", TypeError, lambda: Recurrent(len, 3, 3), "cell has type builtin"),
    ("Recurrent", ValueError, lambda: Recurrent(added, 3, 3, sizes={"q": 1}), "unexpected name"),
    ("Recurrent", cells.TraceError, lambda: Recurrent(added, 3, 4), "do not fit each other"),
    ("Recurrent.forward", TypeError, lambda: Recurrent(added, 3, 3).forward([1.0]), "x has type"),
    ("Recurrent.forward", ValueError, lambda: Recurrent(added, 3, 3).forward(X[..., 1:]), "x has"),
    ("Recurrent.backward", TypeError, lambda: recurrent_backward([1.0]), "dy has type list"),
    ("Recurrent.backward", ValueError, lambda: recurrent_backward(X[1:]), "dy has shape"),
    ("Recurrent.backward", RuntimeError, lambda: recurrent_backward(times=2), "has been used"),
    (
        "functional.cell_forward",
        TypeError,
        lambda: functional.cell_forward(added, X, X, {}),
        "expected a tuple of 1",
    ),
    (
        "functional.cell_forward",
        ValueError,
        lambda: functional.cell_forward(added, X, (X[0],), {"w": X}),
        "unexpected keys",
    ),
    (
        "functional.cell_forward",
        cells.TraceError,
        lambda: functional.cell_forward(added, X[..., 1:].copy(), (X[0],), {}),
        "do not fit each other",
    ),
    ("functional.cell_backward", TypeError, lambda: functional.cell_backward(None), "tape has"),
    ("functional.cell_backward", ValueError, lambda: cell_backward(X[1:]), "dy has shape"),
    ("functional.cell_backward", RuntimeError, lambda: cell_backward(times=2), "has been used"),
    ("Last.forward", TypeError, lambda: Last().forward([1.0]), "x has type list"),
    ("Last.forward", ValueError, lambda: Last().forward(X, lengths=[5, 5]), "lengths has values"),
    ("Sequential", TypeError, lambda: Sequential(len), r"layers\[0\] has type builtin"),
    ("Sequential", ValueError, lambda: Sequential(GRU(3, 4), GRU(3, 4)), "takes 3 numbers per st"),
    ("Sequential.forward", TypeError, lambda: Sequential(GRU(3, 4)).forward([1.0]), "x has type"),
    (
        "Sequential.forward",
        ValueError,
        lambda: Sequential(training.Linear(3, 4)).forward(X, lengths=[4, 4]),
        "lengths is given, but no layer of the model takes it",
    ),
    ("Sequential.backward", TypeError, lambda: model_backward([1.0]), "dy has type list"),
    ("Sequential.backward", ValueError, lambda: model_backward(X), "dy has shape"),
    ("Sequential.backward", RuntimeError, lambda: model_backward(times=2), "has been used"),
    ("Sequential.predict", TypeError, lambda: Sequential(GRU(3, 4)).predict(X, 2.0), "batch_size"),
    ("Sequential.predict", ValueError, lambda: Sequential(GRU(3, 4)).predict(X[0]), "x has shape"),
    (
        "Sequential.load_state_dict",
        TypeError,
        lambda: Sequential(GRU(3, 4)).load_state_dict(Sequential(GRU(3, 4, dtype=float)).params),
        r"state_dict\['0.weight_ih_l0'\] has dtype float64",
    ),
    (
        "Sequential.load_state_dict",
        ValueError,
        lambda: Sequential(GRU(3, 4)).load_state_dict(GRU(3, 4).params),
        "unexpected keys",
    ),
    *(
        row
        for name, kind in (("RNN", RNN), ("GRU", GRU), ("LSTM", LSTM))
        for row in (
            (name, TypeError, lambda kind=kind: kind(3, 4.0), "hidden_size has type float"),
            (name, TypeError, lambda kind=kind: kind(3, 4, dropout="x"), "dropout has type str"),
            (name, TypeError, lambda kind=kind: kind(3, 4, dtype=int), "dtype is <class 'int'>"),
            (name, ValueError, lambda kind=kind: kind(3, 4, 2, dropout=1.5), "dropout is 1.5"),
            (name, ValueError, lambda kind=kind: kind(0, 4), "input_size is 0"),
        )
    ),
    *(
        row
        for kind in (RNNCell, GRUCell, LSTMCell)
        for row in (
            (kind.__name__, TypeError, lambda kind=kind: kind(3, 4.0), "hidden_size has type"),
            (kind.__name__, TypeError, lambda kind=kind: kind(3, 4, dtype=int), "dtype is <class"),
            (kind.__name__, ValueError, lambda kind=kind: kind(0, 4), "input_size is 0"),
        )
    ),
    ("StepCell.forward", TypeError, lambda: GRUCell(3, 4).forward([1.0]), "x has type list"),
    ("StepCell.forward", ValueError, lambda: GRUCell(3, 4).forward(X), "x has shape"),
    ("StepCell.backward", TypeError, lambda: GRUCell(3, 4).backward(None), "tape has type None"),
    ("StepCell.backward", TypeError, lambda: step_backward([1.0]), "dh has type list"),
    ("StepCell.backward", ValueError, lambda: step_backward(X[0]), "dh has shape"),
    ("StepCell.backward", RuntimeError, lambda: step_backward(times=2), "tape was used by"),
    ("BuiltIn.forward", TypeError, lambda: GRU(3, 4).forward([1.0]), "x has type list"),
    ("BuiltIn.forward", TypeError, lambda: GRU(3, 4).forward(X.astype(float)), "x has dtype"),
    ("BuiltIn.forward", ValueError, lambda: GRU(3, 4).forward(X[:, :, 1:]), "x has shape"),
    ("BuiltIn.forward", ValueError, lambda: GRU(3, 4).forward(X, lengths=[5, 1]), "lengths has"),
    ("BuiltIn.backward", TypeError, lambda: GRU(3, 4).backward(None), "tape has type NoneType"),
    ("BuiltIn.backward", TypeError, lambda: backward([1.0]), "dy has type list"),
    ("BuiltIn.backward", ValueError, lambda: backward(X), "dy has shape"),
    (
        "BuiltIn.backward",
        ValueError,
        lambda: GRU(3, 4).backward(GRU(3, 4).forward(X)[2]),
        "tape is from another layer",
    ),
    ("BuiltIn.backward", RuntimeError, lambda: backward(times=2), "tape has been used"),
    (
        "Parameters.load_state_dict",
        TypeError,
        lambda: GRU(3, 4).load_state_dict(GRU(3, 4, dtype=float).params),
        r"state_dict\['weight_ih_l0'\] has dtype float64",
    ),
    (
        "Parameters.load_state_dict",
        ValueError,
        lambda: GRU(3, 4).load_state_dict(GRU(3, 4, 2).params),
        "unexpected keys",
    ),
    ("Parameters.save", OSError, lambda: GRU(3, 4).save(GONE), "No such file"),
    ("save", OSError, lambda: rnnfast.save(GONE, GRU(3, 4)), "No such file"),
    ("save", TypeError, lambda: rnnfast.save("x.npz", 3), "layer has type int"),
    ("save", ValueError, lambda: rnnfast.save("x.npz", {"a\0": GRU(3, 4)}), "cannot be stored"),
    ("load", OSError, lambda: rnnfast.load(GONE), "No such file"),
    ("load", ValueError, lambda: rnnfast.load(__file__), "cannot load .* neither a safetensors"),
    ("get_num_threads", ValueError, environment, "RNNFAST_NUM_THREADS is 'many', expected an"),
    ("set_num_threads", TypeError, lambda: rnnfast.set_num_threads(1.0), "n has type float"),
    ("set_num_threads", ValueError, lambda: rnnfast.set_num_threads(0), "n is 0, expected"),
    ("num_threads", TypeError, lambda: rnnfast.num_threads("2"), "n has type str"),
    ("num_threads", ValueError, lambda: rnnfast.num_threads(257), "n is 257, expected"),
    *(
        row
        for name, call in FORWARDS.items()
        for row in (
            (f"functional.{name}_forward", TypeError, lambda c=call: c([1.0], None), "x has type"),
            (
                f"functional.{name}_forward",
                TypeError,
                lambda c=call: c(X.astype(float), None),
                "w_ih has dtype float32, expected float64 like x",
            ),
            (f"functional.{name}_forward", ValueError, lambda c=call: c(X[0], None), "x has shape"),
            (f"functional.{name}_forward", ValueError, lambda c=call: c(X, X[0]), "h0 has shape"),
        )
    ),
    ("functional.rnn_backward", TypeError, lambda: functional.rnn_backward(1), "tape has type int"),
    (
        "functional.rnn_backward",
        TypeError,
        lambda: functional.gru_backward(rnn_tape()),
        "tape is of an RNN, expected one of a GRU",
    ),
    (
        "functional.rnn_backward",
        TypeError,
        lambda: functional.rnn_backward(rnn_tape(), [1.0]),
        "dy has type list",
    ),
    (
        "functional.rnn_backward",
        ValueError,
        lambda: functional.rnn_backward(rnn_tape(), X),
        "dy has shape",
    ),
    (
        "functional.rnn_backward",
        RuntimeError,
        lambda: functional.rnn_backward(used_tape()),
        "tape was used by an earlier backward",
    ),
    (
        "reference.rnn_forward",
        ValueError,
        lambda: reference.rnn_forward(X, None, W[0][:4], W[1][:4], nonlinearity="selu"),
        "nonlinearity is 'selu'",
    ),
    ("interop.from_keras", TypeError, lambda: interop.from_keras("gru", W[0]), "weights has type"),
    ("interop.from_keras", ValueError, lambda: interop.from_keras("x", [*W]), "kind is 'x', exp"),
    ("interop.to_keras", TypeError, lambda: interop.to_keras(3), "layer has type int"),
    ("interop.to_keras", ValueError, lambda: interop.to_keras(GRU(3, 4, 2)), "num_layers=2"),
    ("stream.Stream", TypeError, lambda: GRU(3, 4).stream(1.0), "batch_size has type float"),
    ("stream.Stream", TypeError, lambda: GRU(3, 4).stream(threads="2"), "threads has type str"),
    ("stream.Stream", TypeError, lambda: GRU(3, 4).stream(2, [1.0]), "state has type list"),
    ("stream.Stream", ValueError, lambda: GRU(3, 4).stream(-1), "batch_size is -1"),
    ("stream.Stream", ValueError, lambda: GRU(3, 4).stream(threads=0), "threads is 0"),
    ("stream.Stream", ValueError, lambda: GRU(3, 4).stream(3, STATE), "state has shape"),
    ("stream.Stream", ValueError, lambda: LSTM(3, 4, bidirectional=True).stream(), "bidirectional"),
    ("Stream.reset", TypeError, lambda: GRU(3, 4).stream().reset([True]), "mask has type list"),
    ("Stream.reset", ValueError, lambda: GRU(3, 4).stream().reset(np.ones(2, bool)), "mask has sh"),
    ("demos.run", ValueError, lambda: demos.run("x"), "name is 'x', expected one of"),
    ("demos.run", KeyboardInterrupt, interrupted, "^$"),
    ("training.Optimizer", TypeError, lambda: training.SGD([1.0]), "params has type list"),
    ("training.Optimizer", ValueError, lambda: training.Adam(GRU(3, 4), lr=0), "lr is 0"),
    (
        "training.Optimizer",
        ValueError,
        lambda: training.Rprop({"a": W[0], "b": W[0][1:]}),
        "shares memory",
    ),
    ("Optimizer.step", TypeError, lambda: step({"w": [1.0]}), r"grads\['w'\] has type list"),
    ("Optimizer.step", ValueError, lambda: step({}), "grads has no entry 'w'"),
    ("Optimizer.load_state", TypeError, lambda: load_state(1, 0.1, None), "state has type None"),
    ("Optimizer.load_state", ValueError, lambda: load_state(1, 0.1, {}), "has missing keys"),
    ("training.fit", FloatingPointError, lambda: fit(np.inf), "loss inf"),
    ("training.fit", TypeError, lambda: fit(epochs=1.0), "epochs has type float"),
    ("training.fit", TypeError, lambda: fit(evaluate=float, patience=1.0), "patience has type"),
    ("training.fit", TypeError, lambda: fit(evaluate=float, goal="x"), "goal has type str"),
    ("training.fit", TypeError, lambda: fit(batches=1), "batches has type int"),
    ("training.fit", TypeError, lambda: training.fit(len, len, X, X, epochs=1), "model has type"),
    ("training.fit", ValueError, lambda: fit(patience=1), "goal and patience need evaluate"),
    ("training.fit", ValueError, lambda: fit(batches=[]), "batches gave no batch"),
    ("training.fit", ValueError, lambda: fit(checkpoint=__file__), "cannot load checkpoint"),
    (
        "training.gradcheck_layer",
        ValueError,
        lambda: training.gradcheck_layer(GRU(3, 4, 2, dropout=0.5), X),
        "layer.dropout is 0.5",
    ),
    (
        "training.gradient_through_time",
        ValueError,
        lambda: training.gradient_through_time(GRU(3, 4, bidirectional=True), X, X),
        "layer has bidirectional=True",
    ),
    (
        "training.gradient_through_time",
        ValueError,
        lambda: training.gradient_through_time(GRU(3, 4), X),
        "dy and dstate are both None",
    ),
    ("training.numerical_gradient", TypeError, lambda: training.numerical_gradient(float, X), "fl"),
    ("training.save_checkpoint", OSError, lambda: training.save_checkpoint(GONE, {}), "No such"),
    ("training.save_checkpoint", TypeError, lambda: training.save_checkpoint("x.npz", 1), "params"),
    (
        "training.save_checkpoint",
        ValueError,
        lambda: training.save_checkpoint("x.npz", {"a\0": X}),
        "cannot be stored",
    ),
    ("training.load_checkpoint", OSError, lambda: training.load_checkpoint(GONE, {}), "No such"),
    (
        "training.load_checkpoint",
        ValueError,
        lambda: training.load_checkpoint(__file__, {}),
        "neither a safetensors nor an npz file",
    ),
    ("training.Activation", ValueError, lambda: training.Activation("x"), "name is 'x', expected"),
    ("training.Dropout", TypeError, lambda: training.Dropout("0.1"), "p has type str"),
    ("training.Dropout", ValueError, lambda: training.Dropout(1.0), "p is 1.0, expected"),
    (
        "Attention.forward",
        TypeError,
        lambda: training.Attention().forward(X, X.astype(float), X),
        "keys has dtype float64, expected float32 like queries",
    ),
    (
        "Attention.forward",
        ValueError,
        lambda: training.Attention().forward(X, X[:, :, 1:], X),
        r"keys has shape \(4, 2, 2\), expected \(S, B, H\) = \(4, 2, 3\)",
    ),
    ("training.ctc_loss", TypeError, lambda: training.ctc_loss(X, X[0]), "targets has dtype"),
    (
        "training.ctc_loss",
        ValueError,
        lambda: training.ctc_loss(X, np.array([[1, 3]])),
        "targets has entries from 1 to 3, expected 0 to 2",
    ),
    ("training.ctc_decode", TypeError, lambda: training.ctc_decode([1.0]), "logits has type list"),
    (
        "training.ctc_decode",
        ValueError,
        lambda: training.ctc_decode(X, blank=3),
        "blank is 3, expected a class from 0 to 2",
    ),
    ("training.ridge", TypeError, lambda: training.ridge([1.0], X, 1), "features has type list"),
    ("training.ridge", ValueError, lambda: training.ridge(X, X, 0), "penalty is 0, expected"),
    ("training.RTRL", TypeError, lambda: training.RTRL(GRU(3, 4)), "layer has type GRU"),  # type: ignore[arg-type]
    ("training.RTRL", ValueError, lambda: training.RTRL(RNN(3, 4, 2)), "layer has num_layers=2"),
    *(
        row
        for method in ("step", "gradient")
        for call in (lambda x, method=method: getattr(training.RTRL(RNN(3, 4)), method)(x),)
        for row in (
            (f"RTRL.{method}", TypeError, lambda c=call: c([1.0]), "has type list"),
            (f"RTRL.{method}", ValueError, lambda c=call: c(X[0]), "has shape"),
        )
    ),
    *(
        row
        for loss in (
            "softmax_cross_entropy",
            "sigmoid_cross_entropy",
            "mean_squared_error",
            "cosine_distance",
            "l1_loss",
            "huber_loss",
        )
        for call in (getattr(training, loss),)
        for row in (
            (f"training.{loss}", TypeError, lambda c=call: c([1.0], [1]), "has type list"),
            (f"training.{loss}", ValueError, lambda c=call: c(X, X[0]), "targets has shape"),
            (f"training.{loss}", ValueError, lambda c=call: c(X[:0], X[:0, :, 0]), "over no pos"),
        )
    ),
    ("training.quantile_loss", TypeError, lambda: training.quantile_loss(X, X, "x"), "quantiles"),
    ("training.quantile_loss", ValueError, lambda: training.quantile_loss(X, X, [0.5]), "quantil"),
    ("training.gaussian_nll", TypeError, lambda: training.gaussian_nll([1.0], X), "has type list"),
    ("training.gaussian_nll", ValueError, lambda: training.gaussian_nll(X, X), "predictions has"),
    *(
        row
        for metric in ("mean_absolute_error", "root_mean_squared_error")
        for call in (getattr(training, metric),)
        for row in (
            (f"training.{metric}", TypeError, lambda c=call: c([1.0], [1]), "has type list"),
            (f"training.{metric}", ValueError, lambda c=call: c(X, X[0]), "targets has shape"),
        )
    ),
    *(
        row
        for metric in ("accuracy", "f1_score")
        for call in (getattr(training, metric),)
        for row in (
            (f"training.{metric}", TypeError, lambda c=call: c([1], [1.0]), "targets has dtype"),
            (f"training.{metric}", ValueError, lambda c=call: c([1], [1, 0]), "predictions has sh"),
        )
    ),
    *(
        row
        for kind, arguments in (
            (training.StepDecay, (0,)),
            (training.CosineDecay, (0,)),
            (training.WarmUp, (0,)),
            (training.Plateau, (2,)),
        )
        for name, call in ((f"training.{kind.__name__}", kind),)
        for row in (
            (name, TypeError, lambda c=call, a=arguments: c("x", *a), "has type str"),
            (name, ValueError, lambda c=call, a=arguments: c(0.1, *a), "is [02], expected"),
        )
    ),
    ("training.sliding_windows", TypeError, lambda: training.sliding_windows([1.0], 1, 1), "seri"),
    ("training.sliding_windows", ValueError, lambda: training.sliding_windows(X, 4, 1), "= 5 step"),
    *(
        row
        for name in ("split_by_time", "split_at_random")
        for call in (getattr(training, name),)
        for row in (
            (f"training.{name}", TypeError, lambda c=call: c([1.0], axis=0), "type list"),
            (f"training.{name}", ValueError, lambda c=call: c(X, axis=0, fractions=(0.9,)), "sum"),
        )
    ),
    ("training.Standardizer", TypeError, lambda: training.Standardizer([1], [1]), "has type list"),
    ("training.Standardizer", ValueError, lambda: training.Standardizer(X), "belong together"),
    *(
        row
        for method in ("fit", "fit_transform", "transform", "inverse_transform")
        for call in (lambda x, method=method: getattr(training.Standardizer().fit(X), method)(x),)
        for row in (
            (f"Standardizer.{method}", TypeError, lambda c=call: c([1.0]), "has type list"),
            (f"Standardizer.{method}", ValueError, lambda c=call: c(X[:0, :, 1:]), "has|no pos"),
        )
    ),
]
SAFETENSORS = {  # what needs that package, and does without it say what to install
    "Parameters.save": lambda path: GRU(3, 4).save(path),
    "save": lambda path: rnnfast.save(path, GRU(3, 4)),
    "load": rnnfast.load,
    "training.save_checkpoint": lambda path: training.save_checkpoint(path, {"w": X}),
    "training.load_checkpoint": lambda path: training.load_checkpoint(path, {"w": X}),
}


def test_every_documented_error_has_its_row() -> None:
    rows = {(name, error.__name__) for name, error, _, _ in ROWS}
    assert rows | {(name, "ImportError") for name in SAFETENSORS} == errors()


@pytest.mark.parametrize(("name", "error", "call", "message"), ROWS)
def test_the_error_is_raised(name: str, error: Any, call: Any, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        call()
    assert raised.type is error or issubclass(error, OSError)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_what_needs_safetensors_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if "load" in name:
        path.write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install rnnfast\[files\]"):
        SAFETENSORS[name](path)  # type: ignore[operator]
