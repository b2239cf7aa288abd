"""`fit` of a model on arrays: what the batches are, what the loss gets, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_models import ALL, at_every_step, both_ways, from_ids, given, of_many

from rnnfast import GRU, Last, Sequential
from rnnfast.training import (
    SGD,
    Activation,
    Adam,
    Dropout,
    Embedding,
    Linear,
    fit,
    length_mask,
    mean_squared_error,
    minibatches,
    softmax_cross_entropy,
)

Make = Callable[..., Sequential]
models = pytest.mark.parametrize("make", ALL)
layouts = pytest.mark.parametrize("batch_first", [False, True])
T, N = 6, 23


def targets_for(model: Sequential, x: Any) -> Any:
    return np.random.default_rng(4).standard_normal(model(x).shape).astype(np.float32)


def lengths_of_all() -> Any:
    return np.random.default_rng(5).integers(1, T + 1, N)


def quiet(*arguments: Any, **options: Any) -> Any:
    return fit(*arguments, **{"progress": False, "epochs": 2, "rng": 3} | options)


def assert_same(one: Sequential, other: Sequential) -> None:
    for name, p in one.params.items():
        np.testing.assert_array_equal(other.params[name], p, err_msg=name)


@models
@layouts
@pytest.mark.parametrize("with_lengths", [False, True])
def test_it_is_the_loop_by_hand(make: Make, batch_first: bool, with_lengths: bool) -> None:
    model, twin = make(batch_first=batch_first), make(batch_first=batch_first)
    X = given(model, T, N)
    y = targets_for(model, X)
    lengths = lengths_of_all() if with_lengths else None
    axis = 0 if batch_first else 1

    def batches(rng: np.random.Generator) -> Any:
        return minibatches(N, 5, rng, lengths=lengths)

    def loss_and_grads(rows: Any) -> tuple[float, Any]:
        steps = T if lengths is None else lengths[rows].max()
        cut = (slice(None), slice(steps)) if batch_first else (slice(steps),)
        x, own = X.take(rows, axis)[cut], None if lengths is None else lengths[rows]
        predictions, tape = twin.forward(x, own)
        timed, options = predictions.ndim == 3, {}
        target = y.take(rows, axis)[cut] if timed else y[rows]
        if timed and own is not None:
            mask = length_mask(own, steps)
            options["mask"] = mask.T if batch_first else mask
        loss, gradient = mean_squared_error(predictions, target, **options)
        return loss, twin.backward(tape, gradient)

    history = quiet(model, mean_squared_error, X, y, lengths=lengths, batch_size=5)
    expected = quiet(loss_and_grads, Adam(twin), batches)
    assert history.loss == expected.loss
    assert history.held_out == []
    assert_same(model, twin)


@models
@layouts
@pytest.mark.parametrize("with_lengths", [False, True])
def test_the_held_out_figure_is_the_loss_on_the_validation(
    make: Make, batch_first: bool, with_lengths: bool
) -> None:
    model = make(batch_first=batch_first)
    X, Xv = given(model, T, N), given(model, T + 2, 7, seed=9)
    y, yv = targets_for(model, X), targets_for(model, Xv)
    lengths = np.array([8, 1, 2, 8, 7, 3, 5]) if with_lengths else None
    seen = []

    def loss(predictions: Any, targets: Any, **options: Any) -> Any:
        return mean_squared_error(predictions, targets, **options)

    def by_hand(history: Any) -> None:
        predictions, options = model(Xv, lengths), {}
        if lengths is not None and predictions.ndim == 3:
            mask = length_mask(lengths, T + 2)
            options["mask"] = mask.T if batch_first else mask
        seen.append(mean_squared_error(predictions, yv, **options)[0])

    given_arrays = (Xv, yv) if lengths is None else (Xv, yv, lengths)
    history = quiet(model, loss, X, y, validation=given_arrays, callbacks=[by_hand])
    assert history.held_out == seen
    assert len(seen) == 2


def test_evaluate_is_taken_instead_of_the_validation() -> None:
    model = from_ids()
    X = given(model, T, N)
    y = targets_for(model, X)
    history = quiet(
        model, mean_squared_error, X, y, validation=(X, y), evaluate=lambda: 7, maximize=True
    )
    assert history.held_out == [7, 7]
    assert history.maximize


@layouts
def test_the_loss_gets_the_weights_of_its_sequences_or_steps(batch_first: bool) -> None:
    seen: list[Any] = []

    def loss(predictions: Any, targets: Any, *, weight: Any, **options: Any) -> Any:
        seen.append((targets, weight, options.get("mask")))
        return mean_squared_error(predictions, targets, **options)

    axis = 0 if batch_first else 1
    for make in (from_ids, at_every_step):
        model = make(batch_first=batch_first)
        X, lengths = given(model, T, N), lengths_of_all()
        y = np.zeros_like(model(X))
        timed = y.ndim == 3
        numbers = np.arange(N, dtype=float)
        if timed:  # so that a target tells its sequence and step
            steps = 100 * np.arange(T)
            codes = numbers[:, None] + steps if batch_first else numbers + steps[:, None]
            y[:] = codes[..., None]
        else:
            y[:] = numbers[:, None]
        quiet(model, loss, X, y, weight=numbers, lengths=lengths, batch_size=4, epochs=1)
        assert len(seen) == 6
        for targets, weight, mask in seen:
            np.testing.assert_array_equal(weight, targets[..., 0] % 100)
            assert weight.all()  # the sequence of weight 0 is in no batch
            assert (mask is not None) == timed
            if timed:
                rows = np.unique(weight).astype(int)
                assert mask.shape == weight.shape
                assert targets.shape[1 - axis] == lengths[rows].max()
                np.testing.assert_array_equal(np.sort(mask.sum(1 - axis)), np.sort(lengths[rows]))
        seen.clear()
        if timed:
            quiet(model, loss, X, y, weight=y[..., 0], batch_size=4, epochs=1)
            for targets, weight, _ in seen:
                np.testing.assert_array_equal(weight, targets[..., 0])
            seen.clear()


@layouts
def test_sequences_without_weight_are_as_if_they_were_not_there(batch_first: bool) -> None:
    """Even where whole batches of them would have no mean; behind its end a step has no weight."""
    axis = 0 if batch_first else 1
    for make in (from_ids, at_every_step):
        fitted = []
        for rows in (slice(None), [2, 11, 22]):
            model = make(batch_first=batch_first)
            X, lengths = given(model, T, N), lengths_of_all()
            y = np.zeros_like(model(X))
            weight = np.zeros(N)
            weight[[2, 11, 22]] = 1, 2, 0.5
            if y.ndim == 3:
                steps = np.arange(T) < lengths[:, None]
                weight = np.where(steps, weight[:, None], 7.0)
                weight = weight if batch_first else weight.T
            which = (slice(None),) * axis
            kept = [a[(*which, rows)] if a.ndim > 1 else a[rows] for a in (X, weight)]
            target = y[(*which, rows)] if y.ndim == 3 else y[rows]
            quiet(model, mean_squared_error, kept[0], target, weight=kept[1],
                  lengths=lengths[rows], batch_size=2, epochs=2)  # fmt: skip
            fitted.append(model.params)
        for name, p in fitted[0].items():
            np.testing.assert_array_equal(p, fitted[1][name])
        with pytest.raises(ValueError, match="weight is 0 for every sequence"):
            quiet(model, mean_squared_error, X, y, weight=np.zeros(N), epochs=1)



@pytest.mark.parametrize("with_lengths", [False, True])
def test_a_batch_size_of_all_and_the_rows_of_an_epoch(with_lengths: bool) -> None:
    model, seen = from_ids(), []

    def loss(predictions: Any, targets: Any) -> Any:
        seen.append(targets[:, 0].astype(int).tolist())
        return mean_squared_error(predictions, targets)

    X, y = given(model, T, N), np.repeat(np.arange(N, dtype=np.float32)[:, None], 2, 1)
    lengths = lengths_of_all() if with_lengths else None
    quiet(model, loss, X, y, batch_size=1000, epochs=1, lengths=lengths)
    assert [sorted(rows) for rows in seen] == [[*range(N)]]
    seen.clear()
    quiet(model, loss, X, y, batch_size=4, epochs=2, lengths=lengths)
    assert [len(rows) for rows in seen].count(4) == 10
    for epoch in (seen[:6], seen[6:]):
        assert sorted(np.concatenate(epoch)) == [*range(N)]
    assert seen[:6] != seen[6:]
    again = seen[:]
    seen.clear()
    quiet(from_ids(), loss, X, y, batch_size=4, epochs=2, lengths=lengths)
    assert seen == again


def test_the_default_optimizer_is_adam_and_another_may_hold_a_part() -> None:
    model, twin, X = from_ids(), from_ids(), given(from_ids(), T, N)
    y = targets_for(model, X)
    quiet(model, mean_squared_error, X, y)
    quiet(twin, mean_squared_error, X, y, optimizer=Adam(twin, lr=1e-3))
    assert_same(model, twin)
    before = model.state_dict()
    head = {name: p for name, p in model.params.items() if name.startswith("3.")}
    quiet(model, mean_squared_error, X, y, optimizer=SGD(head, lr=0.1))
    for name, p in model.params.items():
        assert np.array_equal(p, before[name]) == (name not in head)


def test_it_learns_and_lists_will_do() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 5, (8, 200))
    y = (X == 3).any(axis=0).astype(int)
    model = Sequential(Embedding(5, 4, rng=0), GRU(4, 16, rng=1), Last(), Linear(16, 2, rng=2))
    history = fit(
        model, softmax_cross_entropy, X.tolist(), y.tolist(), epochs=40,
        optimizer=Adam(model, 0.02), validation=(X, y), goal=0.05, rng=0, progress=False,
    )  # fmt: skip
    assert history.held_out[-1] <= 0.05
    assert np.mean(model.predict(X).argmax(axis=1) == y) > 0.98


def test_a_model_without_time_and_by_keywords() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)).astype(np.float32)
    y = X @ np.array([[1.0], [2], [-1]], np.float32)
    model = Sequential(Linear(3, 8, rng=0), Activation("tanh"), Dropout(0.1, rng=2), Linear(8, 1))
    history = quiet(model=model, loss=mean_squared_error, X=X, y=y, epochs=30, weight=None)
    assert history.loss[-1] < history.loss[0]


# ---------------------------------------------------------------------------------- wrong calls

X = np.ones((T, N, 5), np.float32)
IDS = np.ones((T, N), int)
Y, Y_STEPS = np.ones((N, 2), np.float32), np.ones((T, N, 3), np.float32)
RIGHT: dict[Any, tuple[Any, Any]] = {from_ids: (IDS, Y), at_every_step: (X, Y_STEPS)}


def first_rows(x: Any) -> Any:
    return x.swapaxes(0, 1)


@pytest.mark.parametrize(
    ("make", "change", "error", "message"),
    [
        (from_ids, {"X": IDS.astype(float)}, TypeError, "X has dtype float64, expected integers"),
        (from_ids, {"X": IDS + 4}, ValueError, "X has entries from 5 to 5, expected 0 to 4"),
        (from_ids, {"X": X}, ValueError, r"X has shape \(6, 23, 5\), expected \(T, B\)"),
        (from_ids, {"X": IDS[0]}, ValueError, r"X has shape \(23,\), expected \(T, B\)"),
        (from_ids, {"X": IDS[:, :0]}, ValueError, r"X has shape \(6, 0\), expected some sequences"),
        (from_ids, {"X": [[1], [1, 2]]}, TypeError, "X has type list, which .* training.pad makes"),
        (at_every_step, {"X": X.astype(float)}, TypeError, r"X has dtype float64.*X.astype\(np.fl"),
        (at_every_step, {"X": X[..., :4]}, ValueError, r"X has shape \(6, 23, 4\), expected .* 5"),
        (at_every_step, {"X": X[:, 0]}, ValueError, r"X has shape \(6, 5\), expected \(T, B, I\)"),
        (from_ids, {"y": Y[1:]}, ValueError,
         r"y has shape \(22, 2\), expected a first axis of 23: X with shape \(6, 23\) has 23 sequ"),
        (from_ids, {"X": first_rows(IDS)}, ValueError,
         r"y has shape \(23, 2\), expected a first axis of 6: .* has 6 sequences in a time-major "
         r"model; if it is batch-first, make the recurrent layers with batch_first=True, or give "
         r"X.swapaxes\(0, 1\)"),
        (at_every_step, {"y": Y_STEPS[1:]}, ValueError,
         r"y has shape \(5, 23, 3\), expected \(T, B, ...\) = \(6, 23, ...\): X with shape"),
        (at_every_step, {"y": first_rows(Y_STEPS)}, ValueError,
         r"y has shape \(23, 6, 3\), .* has 23 sequences; give y.swapaxes\(0, 1\)"),
        (at_every_step, {"X": first_rows(X)}, ValueError, "has 6 sequences; give y.swapaxes"),
        (at_every_step, {"y": Y_STEPS[-1]}, ValueError, r"y has shape \(23, 3\), expected \(T, B"),
        (from_ids, {"y": [[1], [1, 2]]}, TypeError, "y has type list, which is no array"),
        (from_ids, {"y": Y[:, :1]}, ValueError, r"targets has shape \(23, 1\), expected \(23, 2\)"),
        (from_ids, {"lengths": [T] * 22}, ValueError, r"lengths has shape \(22,\), expected \(B"),
        (from_ids, {"lengths": [7] * N}, ValueError, "lengths has values from 7 to 7, expected"),
        (from_ids, {"lengths": [1.0] * N}, TypeError, "lengths has dtype float64, expected int"),
        (from_ids, {"lengths": [1, 0] + [1] * 21}, ValueError,
         "lengths is 0 at 1, expected at least 1; leave out sequences without steps"),
        (from_ids, {"weight": [1.0] * 22}, ValueError, r"weight has shape \(22,\), expected \(23"),
        (from_ids, {"weight": ["x"] * N}, TypeError, "weight has dtype <U1, expected real numbers"),
        (at_every_step, {"weight": np.ones((N, T))}, ValueError,
         r"weight has shape \(23, 6\), expected \(23,\) or \(6, 23\)"),
        (from_ids, {"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
        (from_ids, {"loss": 3}, TypeError, "loss has type int, expected a function"),
        (from_ids, {"loss": lambda p, t: 1.0}, TypeError, "loss returned float, expected"),
        (from_ids, {"loss": lambda p, t: (1.0, p[1:])}, ValueError, "dy has shape"),
        (from_ids, {"model": GRU(3, 4)}, TypeError,
         r"model has type GRU, expected rnnfast.Sequential; rnnfast.Sequential\(GRU\(...\)\)"),
        (from_ids, {"model": len}, TypeError, "model has type builtin_function_or_method"),
        (from_ids, {"optimizer": 0.1}, TypeError, r"optimizer has type float.*; Adam\(model\)"),
        (from_ids, {"optimizer": Adam(from_ids())}, ValueError,
         "optimizer holds '0.weight', which is no array of the model"),
        (from_ids, {"validation": X}, TypeError, r"validation has type ndarray, expected \(X"),
        (from_ids, {"validation": (X,)}, ValueError, r"validation has 1 entries, expected \(X, y"),
        (from_ids, {"validation": (X, Y)}, ValueError, "validation's X has shape"),
        (from_ids, {"validation": (IDS, Y[1:])}, ValueError, "validation's y has shape"),
        (from_ids, {"validation": (IDS, Y, [0] * N)}, ValueError, "validation's lengths is 0 at 0"),
        (from_ids, {"validation": (IDS, Y), "maximize": True}, ValueError, "better when it is low"),
        (from_ids, {"patience": 1}, ValueError, "goal and patience need evaluate"),
        (from_ids, {"epochs": 0}, ValueError, "epochs is 0, expected at least 1"),
        (from_ids, {"typo": 1}, TypeError, "fit got the unknown argument 'typo', expected one of"),
        (from_ids, {"validation_data": 1}, TypeError,
         "fit got the unknown argument 'validation_data'; did you mean validation"),
        (from_ids, {"loss": "mse"}, TypeError, "expected a function such as training.softmax_"),
        (from_ids, {"lengths": [1] * N, "validation": (X, np.zeros((N, 2)))}, ValueError,
         r"validation is \(X, y\), expected \(X, y, lengths\)"),
    ],
)  # fmt: skip
def test_what_is_mixed_up_is_refused_and_nothing_has_changed(
    make: Make, change: dict[str, Any], error: Any, message: str
) -> None:
    model = make()
    before = model.state_dict()
    arrays = dict(zip("Xy", RIGHT[make], strict=True))
    arguments: Any = {"model": model, "loss": mean_squared_error} | arrays | change
    with pytest.raises(error, match=message):
        quiet(**arguments)
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, before[name])


def test_lengths_need_a_layer_along_time() -> None:
    model = Sequential(Linear(5, 3))
    with pytest.raises(ValueError, match="lengths is given, but no layer of the model takes it"):
        quiet(model, mean_squared_error, X[0], Y_STEPS[0], lengths=[1] * N)


def test_the_two_forms_are_told_apart() -> None:
    model = from_ids()
    with pytest.raises(TypeError, match=r"model has type function, expected rnnfast\.Sequential"):
        quiet(lambda batch: (0.0, {}), mean_squared_error, X, Y)
    with pytest.raises(TypeError, match="fit: missing a required argument: 'y'"):
        quiet(model, mean_squared_error, X)
    with pytest.raises(TypeError, match="fit got the unknown argument 'validation'"):
        quiet(lambda batch: (0.0, {}), Adam(model), [0], validation=(X, Y))
    with pytest.raises(TypeError, match="fit: missing a required"):
        quiet()


def test_a_loss_that_is_not_finite_ends_it_before_the_step() -> None:
    model = both_ways()
    before = model.state_dict()
    with pytest.raises(FloatingPointError, match="loss nan"):
        quiet(model, mean_squared_error, np.full_like(X, np.nan), np.ones((T, N, 2)))
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, before[name])


def test_arrays_are_only_read() -> None:
    model = of_many()
    X = given(model, T, N)
    y, lengths, weight = targets_for(model, X), lengths_of_all(), np.ones(N)
    for array in (X, y, lengths):
        array.flags.writeable = False
    quiet(model, mean_squared_error, X, y, lengths=lengths, validation=(X, y, lengths))
    assert weight.all()
