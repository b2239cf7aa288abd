"""`Sequential`: the layers of a chain as one model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_models import (
    ALL,
    Doubled,
    by_hand,
    from_ids,
    given,
    of_many,
    rows_of,
    with_dropout,
)

import rnnfast
from rnnfast import GRU, LSTM, Last, Recurrent, Sequential, cells
from rnnfast.training import Activation, Dropout, Linear, gradcheck, gradcheck_layer

Make = Callable[..., Sequential]
models = pytest.mark.parametrize("make", ALL)


def lengths_for(T: int, B: int) -> Any:
    return np.random.default_rng(1).integers(0, T + 1, B)


# ------------------------------------------------------------------------------ what is computed


@models
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_chain_by_hand(
    make: Make, with_lengths: bool, with_resets: bool, dtype: Any
) -> None:
    model = make(dtype=dtype)
    x = given(model, 6, 4)
    lengths = lengths_for(6, 4) if with_lengths else None
    resets = np.random.default_rng(2).random((6, 4)) < 0.3 if with_resets else None
    y = model(x, lengths, resets)
    np.testing.assert_array_equal(y, by_hand(model, x, lengths, resets), strict=True)


@models
def test_batch_first_is_the_same_with_swapped_axes(make: Make) -> None:
    one, other = make(), make(batch_first=True)
    x, lengths = given(one, 6, 4), lengths_for(6, 4)
    resets = np.random.default_rng(2).random((6, 4)) < 0.3
    y, tape = one.forward(x, lengths, resets)
    swapped, its_tape = other.forward(x.swapaxes(0, 1), lengths, resets.T)
    if make is not with_dropout:  # it draws its masks in another order
        expected = y if any(isinstance(layer, Last) for layer in one) else y.swapaxes(0, 1)
        np.testing.assert_array_equal(swapped, expected, strict=True)
        grads = one.backward(tape, np.ones_like(y)), other.backward(its_tape, np.ones_like(swapped))
        for name, gradient in grads[0].params.items():
            np.testing.assert_allclose(grads[1].params[name], gradient, rtol=1e-5, atol=1e-6)
    assert (one.batch_first, other.batch_first) == (False, True)


@models
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradcheck(make: Make, with_lengths: bool, batch_first: bool) -> None:
    small: Any = {"sizes": (2, 3, 3, 2, 3)} if make is of_many else {}
    model = make(dtype=np.float64, batch_first=batch_first, **small)
    model.load_state_dict({n: p * 0.7 + 0.1 for n, p in model.params.items()})
    x, lengths = given(model, 4, 3), lengths_for(4, 3) if with_lengths else None
    generators = [layer.rng for layer in model if hasattr(layer, "rng")]
    states = [rng.bit_generator.state for rng in generators]

    def run() -> tuple[Any, Any]:
        for rng, state in zip(generators, states, strict=True):
            rng.bit_generator.state = state  # the same dropout
        return model.forward(x, lengths)

    y, tape = run()
    target = np.random.default_rng(3).standard_normal(y.shape)
    grads = model.backward(tape, y - target)
    arrays, found = model.params, grads.params
    if grads.input is not None:
        arrays, found = arrays | {"x": x}, found | {"x": grads.input}
    errors = gradcheck(lambda: float(np.sum((run()[0] - target) ** 2) / 2), arrays, found)
    assert max(errors.values()) < 1e-6, errors


def test_gradcheck_layer_takes_it_and_refuses_dropout_in_it() -> None:
    small = of_many((2, 3, 3, 2, 3), dtype=np.float64)
    x = given(small, 4, 3)
    errors = gradcheck_layer(small, x, options={"lengths": [4, 0, 2]})
    assert errors.keys() == {*small.params, "input"}
    assert max(errors.values()) < 1e-6
    for model, message in (
        (Sequential(GRU(3, 4), Sequential(Dropout(0.5))), r"layer\[1\]\[0\].p is 0.5, expected 0"),
        (with_dropout(), r"layer\[0\].p is 0.25, expected 0 for a gradient check"),
        (Sequential(Recurrent(cells.zoneout_lstm(0.1, 0.1), 3, 4)), "has no d_c, d_h, which"),
    ):
        with pytest.raises(ValueError, match=message):
            gradcheck_layer(model, x)


def test_the_parameters_are_live_and_named_as_in_pytorch() -> None:
    model = of_many()
    assert list(model.params)[:4] == [
        "0.weight_ih_l0", "0.weight_hh_l0", "0.bias_ih_l0", "0.bias_hh_l0",
    ]  # fmt: skip
    assert "2.1.weight_hr_l1" in model.params
    assert list(model.params)[-2:] == ["5.0.weight", "5.0.bias"]
    assert model.params["5.0.bias"] is model[5][0].params["bias"]
    model[5][0].params["bias"] = other = np.zeros(4, np.float32)
    assert model.params["5.0.bias"] is other
    assert (len(model), list(model), model.layers) == (6, [*model.layers], tuple(model))
    assert model[-1] is model.layers[5]
    y, tape = model.forward(given(model, 3, 2))
    assert list(model.backward(tape, y).params) == list(model.params)


def test_gradients_are_added_to_those_given() -> None:
    model = of_many()
    x = given(model, 3, 2)
    y, tape = model.forward(x)
    once = model.backward(tape, y).params
    sums = {name: g.copy() for name, g in once.items()}
    assert model.backward(model.forward(x)[1], y, accumulate=sums).params is sums
    for name, g in once.items():
        np.testing.assert_array_equal(sums[name], g + g)


def test_dropout_is_for_training_alone() -> None:
    model = with_dropout()
    x = given(model, 5, 3)
    first, second = model.forward(x)[0], model.forward(x)[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(model(x), model(x))


@models
def test_sizes_of_nothing(make: Make) -> None:
    for T, B in ((0, 3), (3, 0), (0, 0)):
        for batch_first in (False, True):
            model = make(batch_first=batch_first)
            x = given(model, T, B)
            y, tape = model.forward(x, [T] * B)
            np.testing.assert_array_equal(model.predict(x, 2), model(x), strict=True)
            grads = model.backward(tape, np.ones_like(y))
            assert all(np.isfinite(g).all() for g in grads.params.values())


@models
def test_without_a_batch_axis(make: Make) -> None:
    model = make()
    x = given(model, 6, 1)
    y, tape = model.forward(x[:, 0], resets=np.zeros(6, bool))
    if make is not with_dropout:
        np.testing.assert_array_equal(y, np.squeeze(model(x), -2))
    assert model.backward(tape, y).params.keys() == model.params.keys()
    with pytest.raises(ValueError, match=r"lengths is given, but x .* has no batch axis"):
        model(x[:, 0], [6])


def test_layers_of_ones_own_get_what_they_take() -> None:
    seen: list[dict[str, Any]] = []

    class Curious(Doubled):
        def forward(self, x: Any, *, lengths: Any = None, threads: Any = None) -> Any:
            seen.append({"lengths": lengths, "threads": threads})
            return super().forward(x)

        def __call__(self, x: Any, resets: Any = None) -> Any:
            seen.append({"resets": resets})
            return super().forward(x)[0]

    model = Sequential(Doubled(), GRU(3, 4, rng=0), Curious())
    x = np.ones((5, 2, 3), np.float32)
    lengths, resets = np.array([5, 2]), np.zeros((5, 2), bool)
    y, tape = model.forward(x, lengths, resets, threads=1)
    np.testing.assert_array_equal(y, 2 * model[1](2 * x, lengths=lengths, resets=resets)[0])
    np.testing.assert_array_equal(model(x, lengths, resets), y)
    np.testing.assert_array_equal(seen[0]["lengths"], lengths)
    assert seen[0]["threads"] == 1
    np.testing.assert_array_equal(seen[1]["resets"], resets)
    grads = model.backward(tape, np.ones_like(y))
    assert grads.params.keys() == model.params.keys()


def test_without_layers_along_time_the_batch_is_first() -> None:
    model = Sequential(Linear(3, 4, rng=0), Activation("relu"), Dropout(0.5), Linear(4, 2, rng=1))
    assert model.batch_first
    x = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(x, 3), model(x), strict=True)
    np.testing.assert_array_equal(model(x[2]), model(x)[2])
    with pytest.raises(ValueError, match="lengths is given, but no layer of the model takes it"):
        model(x, [1] * 7)


# ------------------------------------------------------------------------------------ same bits


@models
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_bits_do_not_depend_on_the_other_rows(
    make: Make, dtype: Any, batch_first: bool
) -> None:
    model = make(dtype=dtype, batch_first=batch_first)
    x, lengths = given(model, 7, 13), lengths_for(7, 13)
    for own in (lengths, None):
        y = model(x, own)
        for size in (1, 2, 5, 12, 13, 100):
            np.testing.assert_array_equal(model.predict(x, size, own), y, strict=True)
        rows = [11, 0, 4]
        some = model(rows_of(x, rows, model), None if own is None else own[rows])
        axis = 0 if batch_first or y.ndim == 2 else 1
        np.testing.assert_array_equal(some, np.take(y, rows, axis))


@models
def test_the_bits_do_not_depend_on_the_threads(make: Make) -> None:
    found = []
    for threads in (1, 2, 3, 7):
        model = make()
        x, lengths = given(model, 9, 40), lengths_for(9, 40)
        y, tape = model.forward(x, lengths, threads=threads)
        grads = model.backward(tape, y, threads=threads)
        found.append({"y": y, "plain": model(x, lengths, threads=threads)} | grads.params)
        pieces = model.predict(x, 7, lengths, threads)
        np.testing.assert_array_equal(pieces, found[0]["plain"])
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


@pytest.mark.parametrize("name", sorted(rnnfast.training.activations.FUNCTIONS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_activations_do_not_depend_on_the_other_rows(name: str, dtype: Any) -> None:
    model = Sequential(GRU(3, 5, batch_first=True, dtype=dtype, rng=0), Activation(name))
    x = 9 * np.random.default_rng(0).standard_normal((67, 11, 3)).astype(dtype)
    y = model(x)
    for size in (1, 3, 66):
        np.testing.assert_array_equal(model.predict(x, size), y)
    stream = model.stream(67)
    steps = [stream.step(x[:, t]) for t in range(11)]
    np.testing.assert_array_equal(np.stack(steps, 1), y)


# -------------------------------------------------------------------------------------- objects


@models
def test_it_can_be_copied_and_pickled(make: Make) -> None:
    model = make()
    x = given(model, 4, 3)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(x), expected)
        next(iter(twin.params.values()))[...] = 0
        np.testing.assert_array_equal(model(x), expected)
        assert not np.array_equal(twin(x), expected)
        y, tape = twin.forward(x)
        twin.backward(tape, y)
    with pytest.raises(TypeError, match="tape"):
        pickle.dumps(model.forward(x)[1])


def test_state_dicts() -> None:
    model, other = from_ids(), from_ids()
    saved = {name: value + 1 for name, value in model.state_dict().items()}
    other.load_state_dict(saved)
    for name, value in saved.items():
        np.testing.assert_array_equal(other.params[name], value)
        assert not np.array_equal(model.params[name], value)
    before = model.state_dict()
    for change, error, message in (
        ({"3.bias": np.zeros(2)}, TypeError, r"state_dict\['3.bias'\] has dtype float64"),
        ({"3.bias": np.zeros(3, "f4")}, ValueError, r"state_dict\['3.bias'\] has shape \(3,\)"),
        ({"3.more": np.zeros(3, "f4")}, ValueError, r"unexpected keys \['3.more'\]"),
    ):
        with pytest.raises(error, match=message):
            model.load_state_dict(saved | change)
    for name, value in before.items():
        np.testing.assert_array_equal(model.params[name], value)


def test_weights_of_pytorch_go_in_by_their_names() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2))
    model = Sequential(LSTM(3, 4), Linear(4, 2))
    model.load_state_dict({n: v.numpy() for n, v in theirs.state_dict().items()})
    x = torch.randn(5, 2, 3)
    expected = theirs[1](theirs[0](x)[0]).detach().numpy()
    np.testing.assert_allclose(model(x.numpy()), expected, atol=1e-6)


def test_it_prints_a_line_for_each_layer_with_its_size() -> None:
    model = Sequential(GRU(3, 4), Sequential(Doubled(), Last()))
    assert repr(model).splitlines() == [
        "Sequential(  # 109 parameters",
        "  (0): GRU(3, 4)  # 108 parameters",
        "  (1): Sequential(  # 1 parameters",
        "    (0): Doubled()  # 1 parameters",
        "    (1): Last()",
        "  )",
        ")",
    ]
    assert model.num_parameters == 109


def test_arrays_that_layers_share_count_once_and_move_once() -> None:
    first, second = Linear(3, 3, bias=False, rng=0), Linear(3, 3, bias=False)
    second.params["weight"] = first.params["weight"]
    model = Sequential(first, second, GRU(3, 4, rng=0), Linear(4, 3, rng=0))
    assert model.num_parameters == 9 + 108 + 15
    optimizer = rnnfast.training.SGD(model, lr=1)
    x = np.ones((4, 2, 3), np.float32)
    y, tape = model.forward(x)
    grads = model.backward(tape, y)
    expected = model[0].params["weight"] - (grads.params["0.weight"] + grads.params["1.weight"])
    optimizer.step(grads)
    np.testing.assert_allclose(model[0].params["weight"], expected, rtol=1e-6)
