"""Streams of models: steps and chunks give the bits of the whole sequence."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_models import ONE_WAY, Doubled, at_every_step, both_ways, from_ids, given, of_many

from rnnfast import GRU, LSTM, Last, Sequential
from rnnfast.training import Linear

Make = Callable[..., Sequential]
models = pytest.mark.parametrize("make", ONE_WAY)
layouts = pytest.mark.parametrize("batch_first", [False, True])


def without_last(model: Sequential) -> Sequential:
    """The same layers, with an output for every step."""
    return Sequential(*(layer for layer in model if not isinstance(layer, Last)))


def steps_of(model: Sequential, x: Any) -> list[Any]:
    """A step at a time, each (B, ...)."""
    return [*(x.swapaxes(0, 1) if model.batch_first else x)]


@models
@layouts
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("B", [1, 3, 20])
def test_steps_and_chunks_have_the_bits_of_the_whole(
    make: Make, batch_first: bool, dtype: Any, B: int
) -> None:
    model = make(batch_first=batch_first, dtype=dtype)
    x = given(model, 11, B)
    expected = without_last(model)(x)
    stream = model.stream(B)
    axis = 1 if batch_first else 0
    steps = np.stack([stream.step(x_t) for x_t in steps_of(model, x)], axis)
    np.testing.assert_array_equal(steps, expected)
    for cut in ([], [4], [1, 2, 10], [0, 5, 5, 11]):
        stream = model.stream(B, threads=2)
        chunks = [stream.run(part) for part in np.split(x, cut, axis)]
        np.testing.assert_array_equal(np.concatenate(chunks, axis), expected)


@models
def test_the_last_step_is_what_the_model_predicts(make: Make) -> None:
    model = make()
    x, lengths = given(model, 9, 6), [9, 1, 4, 9, 2, 7]
    y, stream = model(x, lengths), model.stream(6)
    for t, x_t in enumerate(x):
        now = stream.step(x_t)
        for b in np.nonzero(np.array(lengths) == t + 1)[0]:
            np.testing.assert_array_equal(y[b] if y.ndim == 2 else y[t, b], now[b])


def test_one_row_without_the_batch_axis() -> None:
    for make in (from_ids, at_every_step, of_many):
        model = make()
        x = given(model, 5, 1)
        expected = without_last(model)(x)[:, 0]
        stream = model.stream()
        steps = [stream.step(x_t) for x_t in x[:, 0]]
        np.testing.assert_array_equal(np.stack(steps), expected)
        stream.reset()
        np.testing.assert_array_equal(stream.run(x[:, 0]), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linear_layer_takes_steps_of_every_layout(dtype: Any) -> None:
    layer = Linear(3, 5, dtype=dtype, rng=1)
    x = np.random.default_rng(2).standard_normal((4, 2, 3)).astype(dtype)
    one, two = Sequential(layer).stream(), Sequential(layer).stream(2)
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    read_only = x.copy()
    read_only.flags.writeable = False
    for array in x, strided, read_only:
        np.testing.assert_array_equal(two.run(array), layer(x))
        np.testing.assert_array_equal(two.step(array[0]), layer(x)[0])
        np.testing.assert_array_equal(one.step(array[0, 0]), layer(x)[0, 0])
    assert two.run(x[:0]).shape == (0, 2, 5)
    assert two.step(x[0, :0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 4), np.float32), r"x has shape \(2, 4\), expected \(..., I\) .*3"),
        (np.zeros((2, 3)), "x has dtype float64, expected float32"),
        (np.float32(0), "x has "),
        ([[0.0, 0.0, 0.0]], "x has type list"),
    ],
)
def test_a_linear_layer_says_what_is_wrong_with_a_step(x: Any, message: str) -> None:
    stream = Sequential(Linear(3, 5)).stream(2)
    with pytest.raises((TypeError, ValueError), match=message):
        stream.step(x)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("weight", np.ones((5, 3), np.float16), r"params\['weight'\] has dtype float16"),
        ("weight", np.ones((5, 3), int), r"params\['weight'\] has dtype int64"),
        ("weight", np.ones((5, 3), ">f4"), r"has dtype >f4"),
        ("weight", np.ones((7, 3), np.float32), r"has shape \(7, 3\), expected \(5, 3\)"),
        ("weight", np.ones((5, 2), np.float32), r"has shape \(5, 2\), expected \(5, 3\)"),
        ("bias", np.ones(4, np.float32), r"has shape \(4,\), expected \(5,\)"),
        ("bias", np.ones(5), "has dtype float64, expected float32"),
    ],
)
def test_arrays_that_do_not_fit_a_linear_layer_are_never_read(
    name: str, array: Any, message: str
) -> None:
    layer, x = Linear(3, 5), np.ones((2, 3), np.float32)
    layer.params[name] = array
    for use in layer.forward, layer, lambda _: Sequential(layer).stream(2):
        with pytest.raises((TypeError, ValueError), match=message):
            use(x)


class Scaled(Linear):
    """A subclass with a call of its own."""

    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


def test_the_call_of_a_subclass_and_attributes_of_a_stream_are_kept() -> None:
    layer, x = Scaled(3, 5, rng=1), np.ones((2, 3), np.float32)
    stream = Sequential(layer).stream(2)
    stream.name = "left"  # type: ignore[attr-defined]
    for one in stream, copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream)):
        np.testing.assert_array_equal(one.step(x), layer(x))
        assert one.name == "left"


def test_a_stream_keeps_the_weights_of_a_linear_layer_as_they_were() -> None:
    layer, x = Linear(3, 5, rng=1), np.ones((2, 3), np.float32)
    stream, before, frozen = Sequential(layer).stream(2), layer(x), layer._frozen()
    layer.params["weight"] += 1
    layer.params["bias"][:] = 7
    for one in stream, copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream)):
        np.testing.assert_array_equal(one.step(x), before)
    np.testing.assert_array_equal(frozen(x), before)


@models
def test_the_state_can_be_taken_and_set(make: Make) -> None:
    model = make()
    x = given(model, 8, 3)
    stream = model.stream(3)
    stream.run(x[:5])
    state = stream.state
    expected = stream.run(x[5:])
    other = model.stream(3)
    other.state = state
    np.testing.assert_array_equal(other.run(x[5:]), expected)
    other.state = list(state)
    np.testing.assert_array_equal(other.run(x[5:]), expected)  # so it was a copy
    other.state = None
    np.testing.assert_array_equal(other.run(x), model.stream(3).run(x))


def test_the_state_has_an_entry_for_each_recurrent_layer() -> None:
    stream = of_many().stream(2)
    shapes = [[part.shape for part in (s if isinstance(s, tuple) else (s,))] for s in stream.state]
    assert shapes == [[(1, 2, 6)], [(1, 2, 17)], [(2, 2, 5), (2, 2, 13)], [(1, 2, 9)]]
    h = np.ones((1, 2, 6), np.float32)
    stream.state = h, None, None, None
    np.testing.assert_array_equal(stream.state[0], h)
    assert not any(np.any(part) for part in stream.state[2])


@models
def test_rows_are_reset_by_a_mask(make: Make) -> None:
    model = without_last(make())
    x = given(model, 6, 4)
    mask = np.array([True, False, True, False])
    resets = np.zeros((6, 4), bool)
    resets[3] = mask
    stream = model.stream(4)
    first = stream.run(x[:3])
    stream.reset(mask)
    np.testing.assert_array_equal(
        np.concatenate([first, stream.run(x[3:])]), model(x, None, resets)
    )
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), model.stream(4).run(x))


@models
@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))]
)
def test_a_copy_goes_on_from_the_same_state_by_itself(make: Make, twin: Any) -> None:
    model = make()
    x = given(model, 7, 3)
    stream = model.stream(3, threads=1)
    stream.run(x[:4])
    other = twin(stream)
    expected = model.stream(3).run(x)[4:]
    np.testing.assert_array_equal(other.run(x[4:]), expected)
    np.testing.assert_array_equal(stream.run(x[4:]), expected)  # it has not moved


@models
def test_later_weights_do_not_reach_it(make: Make) -> None:
    model = make()
    x = given(model, 5, 2)
    expected, stream = model.stream(2).run(x), model.stream(2)
    for p in model.params.values():
        p *= 0.5
    np.testing.assert_array_equal(stream.run(x), expected)


def test_layers_of_ones_own() -> None:
    class WithStream(Doubled):
        """Adds what it has seen."""

        def stream(self, batch_size: int, threads: Any = None) -> Any:
            return Sum(batch_size)

    class Sum:
        def __init__(self, batch_size: int) -> None:
            self.state: Any = np.zeros(batch_size)

        def step(self, x: Any) -> Any:
            self.state = self.state + x.sum(axis=-1)
            return x + self.state[:, None]

        def run(self, x: Any) -> Any:
            return np.stack([self.step(x_t) for x_t in x])

        def reset(self, mask: Any = None) -> None:
            self.state = np.zeros_like(self.state)

    model = Sequential(Doubled(), WithStream())
    stream, x = model.stream(2), np.ones((4, 2, 3))
    np.testing.assert_array_equal(stream.run(x)[:, 0, 0], [8, 14, 20, 26])
    assert stream.state[0].tolist() == [24, 24]
    stream.reset(np.array([True, False]))
    assert stream.step(x[0])[0, 0] == 8


# ---------------------------------------------------------------------------------- wrong calls


def nested(bidirectional: bool) -> Sequential:
    gru = GRU(4, 4, bidirectional=bidirectional)
    return Sequential(LSTM(3, 4), Sequential(gru, Linear(8 if bidirectional else 4, 2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: both_ways().stream(),
            ValueError,
            r"layers\[0\] is bidirectional, and its reverse",
        ),
        (lambda: nested(True).stream(), ValueError, r"layers\[1\]\[0\] is bidirectional"),
        (lambda: from_ids().stream(-1), ValueError, "batch_size is -1, expected at least 0"),
        (lambda: from_ids().stream(2.0), TypeError, "batch_size has type float"),
        (lambda: from_ids().stream(threads=0), ValueError, "threads is 0, expected"),
        (lambda: nested(False).stream(2).step(np.ones((3, 3), "f4")), ValueError, "x has shape"),
        (lambda: nested(False).stream(2).run(np.ones((5, 3), "f4")), ValueError, "x has shape"),
        (lambda: nested(False).stream(2).run(np.ones((5, 2, 3))), TypeError, "x has dtype float64"),
        (lambda: from_ids().stream(2).step(np.array([0.0, 1.0])), TypeError, "ids has dtype"),
        (lambda: from_ids().stream(2).step([0, 9]), ValueError, "ids has entries from 0 to 9"),
        (lambda: from_ids().stream(2).reset([True, True]), TypeError, "mask has type list"),
        (lambda: from_ids().stream(2).reset(np.ones(3, bool)), ValueError, "mask has shape"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_after_an_error_nothing_has_changed() -> None:
    model = nested(False)
    stream, x = model.stream(2), given_floats(4, 2, 3)
    stream.run(x)
    before = stream.state
    h, c = before[0]
    for state, error, message in (
        (
            (before[0], np.ones((1, 2, 5), "f4")),
            ValueError,
            r"^state\[1\]: state has shape \(1, 2, 5\)",
        ),
        (((2 * h, c), [1.0]), TypeError, r"^state\[1\]: state has type list"),
        ((h,), ValueError, "state has length 1, expected 2, one per recurrent layer"),
        (np.ones((1, 2, 4)), TypeError, "state has type ndarray, expected a tuple, an entry per"),
    ):
        with pytest.raises(error, match=message):
            stream.state = state
    for call in (lambda: stream.step(x[0, :1]), lambda: stream.run(x.astype(float))):
        with pytest.raises((TypeError, ValueError)):
            call()
    for now, then in zip(stream.state[0], before[0], strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(stream.state[1], before[1])


def given_floats(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_it_shows_its_parts() -> None:
    model = Sequential(GRU(3, 4), Last(), Linear(4, 1))
    assert repr(model.stream(7)) == "ModelStream(Stream, Linear, batch_size=7)"
