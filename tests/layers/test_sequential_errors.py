"""What a `Sequential` refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_models import SIZE, Doubled, at_every_step, both_ways, from_ids, with_dropout

import rnnfast
from rnnfast import GRU, LSTM, Last, Recurrent, Sequential, cells
from rnnfast.training import Activation, Dropout, Linear

Make = Callable[..., Sequential]

SHARED = GRU(3, 3)


@cells.cell(state="h", extra="k")
def with_input(x: Any, h: Any, k: Any) -> Any:
    return cells.tanh(cells.linear("a", x, h)) + k


class NoBackward:
    params = None

    def forward(self, x: Any) -> Any:
        return x, None


class NeedsMore(Doubled):
    def forward(self, x: Any, gain: float, *, shift: float) -> Any:
        return x, None


class StepCell(Doubled):
    """Stands in for the cells that take one step."""

    hidden_size = 3


StepCell.__module__ = "rnnfast.step_cells"


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, "layers is empty, expected at least one layer"),
        ([GRU(3, 4), np.tanh], TypeError, r"layers\[1\] has type ufunc, expected a layer with"),
        ([GRU(3, 4), None], TypeError, r"layers\[1\] has type NoneType"),
        ([[GRU(3, 4), Last()]], TypeError, r"layers\[0\] has type list"),
        ([GRU(3, 4), Last], TypeError, r"layers\[1\] is the class Last, expected a layer"),
        ([NoBackward()], TypeError, r"layers\[0\] has type NoBackward"),
        ([GRU(3, 3), NeedsMore()], ValueError,
         r"layers\[1\] also needs gain, shift, and a layer of a Sequential gets x alone"),
        ([GRU(3, 3), StepCell()], TypeError,
         r"layers\[1\] has type StepCell, which takes one step .* use Step, and the stream"),
        ([rnnfast.training.Attention()], ValueError, r"layers\[0\] also needs keys, values"),
        ([Recurrent(with_input, 3, 4)], ValueError,
         r"layers\[0\] is of <cell with_input\(x, h, k\)>, which has the extra inputs k; a Seq"),
        ([SHARED, Activation("relu"), SHARED], ValueError,
         r"layers\[2\] is the same layer as layers\[0\]; make a second one, and to share weights"),
        ([SHARED, Sequential(SHARED)], ValueError, r"layers\[1\]\[0\] is the same layer as"),
        ([GRU(3, 4), Last(), GRU(4, 4)], ValueError,
         r"layers\[2\], GRU, needs a time axis, and layers\[1\], Last, leaves none; put Last"),
        ([GRU(3, 4), Sequential(Last()), Last()], ValueError, r"layers\[2\], Last, needs a time"),
        ([Last(), Recurrent(cells.mgu, 4, 4)], ValueError, r"layers\[1\], Recurrent, needs a time"),
        ([GRU(3, 4), GRU(4, 4, batch_first=True)], ValueError,
         r"layers\[1\] has batch_first=True and layers\[0\] has batch_first=False, expected the"),
        ([GRU(3, 4), Last(batch_first=True)], ValueError, r"layers\[1\] has batch_first=True and"),
        ([GRU(3, 4, bidirectional=True), Dropout(), Linear(4, 2)], ValueError,
         r"layers\[2\], Linear, takes 4 numbers per step in float32, but layers\[0\], GRU, giv"),
        ([GRU(3, 4), Sequential(Last(), Linear(4, 2, dtype=float))], ValueError,
         r"layers\[1\]\[1\], Linear, takes 4 .* in float64, but layers\[0\], GRU, gives 4"),
        ([LSTM(3, 4, proj_size=2), GRU(4, 4)], ValueError, "GRU, takes 4 .*, LSTM, gives 2 num"),
        ([rnnfast.training.Embedding(9, 4), LSTM(3, 4)], ValueError, "Embedding, gives 4 numbers"),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused(layers: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Sequential(*layers)


def test_layers_without_parameters_may_stand_in_two_places() -> None:
    relu, dropout = Activation("relu"), Dropout(0.5, rng=0)
    model = Sequential(GRU(3, 4, rng=0), relu, dropout, GRU(4, 4, rng=1), relu, dropout)
    y, tape = model.forward(np.ones((5, 2, 3), np.float32))
    assert model.backward(tape, y).params.keys() == model.params.keys()


X = np.ones((6, 4, SIZE), np.float32)
WRONG: list[tuple[Make, tuple[Any, ...], Any, str]] = [
    (at_every_step, (X.astype(float),), TypeError, "x has dtype float64, expected float32; x.ast"),
    (at_every_step, ([1.0],), TypeError, "x has type list, expected numpy.ndarray"),
    (at_every_step, (X[..., 1:],), ValueError,
     r"x has shape \(6, 4, 4\), expected \(T, B, I\) or \(T, I\) with I = 5"),
    (both_ways, (X[0, 0],), ValueError, r"x has shape \(5,\), expected \(T, B, I\)"),
    (with_dropout, (X[None],), ValueError, r"x has shape \(1, 6, 4, 5\), expected \(T, B, I\)"),
    (from_ids, (np.ones((6, 4)),), TypeError, "ids has dtype float64, expected integers; ids.as"),
    (from_ids, (np.full((6, 4), 5),), ValueError, "ids has entries from 5 to 5, expected 0 to 4"),
    (from_ids, (np.ones((6, 4, 1), int),), ValueError, r"expected \(T, B\) or \(T,\)"),
    (with_dropout, (X, [6, 6, 6]), ValueError, r"lengths has shape \(3,\), expected \(B,\) = \(4"),
    (with_dropout, (X, [6, 6, 6, 7]), ValueError, "lengths has values from 6 to 7, expected 0 to"),
    (with_dropout, (X, 4), TypeError, "lengths has type int, expected integers"),
    (with_dropout, (X, None, np.zeros((4, 6), bool)), ValueError, r"resets has shape \(4, 6\)"),
    (with_dropout, (X, None, np.zeros((6, 4))), TypeError, "resets has dtype float64"),
    (with_dropout, (X, None, None, 0), ValueError, "threads is 0, expected"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "error", "message"), WRONG)
def test_wrong_arguments_are_refused_before_anything_is_drawn(
    make: Make, arguments: Any, error: Any, message: str
) -> None:
    model = make()
    generators = [layer.rng for layer in model if hasattr(layer, "rng")]
    states = repr([rng.bit_generator.state for rng in generators])
    for call in (model, model.forward):
        with pytest.raises(error, match=message):
            call(*arguments)
    assert repr([rng.bit_generator.state for rng in generators]) == states


def test_an_error_inside_names_the_layer() -> None:
    class Cast(Doubled):
        def forward(self, x: Any) -> Any:
            return x.astype(np.float64), x

    model = Sequential(GRU(3, 4), Sequential(Cast(), Linear(4, 2)))
    for call in (model, model.forward):
        with pytest.raises(TypeError, match=r"^layers\[1\]\[1\], Linear: x has dtype float64, exp"):
            call(np.ones((5, 2, 3), np.float32))


def test_what_backward_does_not_take() -> None:
    model, x = from_ids(), np.zeros((6, 4), int)
    y, tape = model.forward(x)
    with pytest.raises(TypeError, match="tape has type tuple, expected what forward returned"):
        model.backward((1, 2), y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tape is from another model, expected one from this"):
        from_ids().backward(tape, y)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 1\), expected y.shape = \(4, 2\)"):
        model.backward(tape, y[:, 1:])
    with pytest.raises(TypeError, match="dy has dtype float64, expected float32"):
        model.backward(tape, y.astype(float))
    with pytest.raises(ValueError, match="accumulate has missing keys"):
        model.backward(tape, y, accumulate={})
    params = model.state_dict()
    params["3.bias"].flags.writeable = False
    with pytest.raises(ValueError, match=r"accumulate\['3.bias'\] is read-only"):
        model.backward(tape, y, accumulate=params)
    model.backward(tape, y)  # after all these it is as it was
    with pytest.raises(RuntimeError, match="tape has been used: it serves one backward"):
        model.backward(tape, y)


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (at_every_step, (X[:, 0],), ValueError, r"x has shape \(6, 5\), expected \(T, B, I\) with"),
        (from_ids, (np.zeros(6, int),), ValueError, r"x has shape \(6,\), expected \(T, B\)$"),
        (at_every_step, (X, 0), ValueError, "batch_size is 0, expected at least 1"),
        (at_every_step, (X, 2.0), TypeError, "batch_size has type float"),
        (
            at_every_step,
            (X, 2, [6]),
            ValueError,
            r"lengths has shape \(1,\), expected \(B,\) = \(4",
        ),
    ],
)
def test_what_predict_does_not_take(make: Make, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make().predict(*arguments)
