"""Streams: the carried state, its reset and assignment, `out=`, snapshot, allocation, errors."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import Array

import rnnfast

pytestmark = pytest.mark.usefixtures("isa")

LAYERS = [
    (rnnfast.RNN, {}),
    (rnnfast.RNN, {"nonlinearity": "relu", "bias": False}),
    (rnnfast.RNN, {"nonlinearity": "sigmoid", "num_layers": 3}),
    (rnnfast.GRU, {}),
    (rnnfast.GRU, {"reset_after": False, "num_layers": 2}),
    (rnnfast.LSTM, {}),
    (rnnfast.LSTM, {"num_layers": 2, "bias": False}),
    (rnnfast.LSTM, {"num_layers": 2, "proj_size": 5}),
]
I, H, T = 7, 18, 9


def name(value: Any) -> str:
    """A readable id."""
    return value.__name__ if isinstance(value, type) else "-".join(map(str, value.values()))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYERS, ids=lambda p: f"{name(p[0])}-{name(p[1])}")
def layer(request: pytest.FixtureRequest, dtype: str) -> Any:
    kind, options = request.param
    return kind(I, H, dtype=dtype, rng=1, **options)


def inputs(layer: Any, *shape: int, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).standard_normal(shape)
    return x.astype(next(iter(layer.params.values())).dtype)


def states(state: Any) -> tuple[Array, ...]:
    """The state as a tuple: (h,) or (h, c)."""
    return state if isinstance(state, tuple) else (state,)


def random_state(layer: Any, B: int) -> Any:
    """A non-zero state of the layer's shapes."""
    shapes = [s.shape for s in states(layer.stream(B).state)]
    arrays = tuple(inputs(layer, *shape, seed=5) for shape in shapes)
    return arrays if isinstance(layer, rnnfast.LSTM) else arrays[0]


def same(a: Any, b: Any) -> None:
    for one, other in zip(states(a), states(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("B", [1, 3])
def test_follows_the_layer(layer: Any, B: int) -> None:
    """Steps and runs in turn, from a given state, are one call of the layer."""
    x, start = inputs(layer, T, B, I), random_state(layer, B)
    y, state = layer(x, start)
    stream = layer.stream(B, start)
    same(stream.state, start)
    got = [stream.step(x[0])[None], stream.run(x[1:4]), stream.run(x[4:4]), stream.step(x[4])[None]]
    got.append(stream.run(x[5:]))
    same(np.concatenate(got), y)
    same(stream.state, state)


def test_starts_from_zero(layer: Any) -> None:
    stream = layer.stream()
    assert all(not s.any() for s in states(stream.state))
    x = inputs(layer, T, 1, I)
    same(stream.run(x), layer(x)[0])


def test_one_row_without_batch_axis(layer: Any) -> None:
    x = inputs(layer, T, I)
    want, state = layer(x[:, None])
    stream = layer.stream()
    got = np.stack([stream.step(x_t) for x_t in x])
    same(got, want[:, 0])
    same(stream.state, state)


def test_one_row_in_any_layout_and_of_a_wrong_size(layer: Any) -> None:
    """With or without a batch axis, and the message says which of the two came."""
    x = inputs(layer, T, 2 * I)[:, ::2]
    want, _ = layer(x[:, None].copy())
    flat, rows = layer.stream(), layer.stream()
    same(np.stack([flat.step(x_t) for x_t in x]), want[:, 0])
    same(np.stack([rows.step(x_t[None]) for x_t in x]), want)
    same(layer.stream().run(x), want[:, 0])
    for bad, message in (
        (x[0, 1:], r"^x has shape \(6,\), expected \(I,\) = \(7,\)"),
        (x[:1, 1:], r"^x has shape \(1, 6\), expected \(B, I\) = \(1, 7\)"),
        (x[:2], r"^x has shape \(2, 7\), expected \(B, I\) = \(1, 7\)"),
    ):
        with pytest.raises(ValueError, match=message):
            flat.step(bad)
    for row, dims in (
        (x[0].copy(), r"\(P,\) = \(\d+,\)"),
        (x[:1].copy(), r"\(B, P\) = \(1, \d+\)"),
    ):
        with pytest.raises(ValueError, match=rf"^out has shape \(.*3.*\), expected {dims}"):
            flat.step(row, out=np.zeros((*row.shape[:-1], 3), layer.dtype))
    with pytest.raises(ValueError, match=r"^x has shape \(9, 6\), expected \(T, I\) = \(9, 7\)"):
        flat.run(x[:, 1:])
    with pytest.raises(ValueError, match=r"^x has shape \(9, 2, 7\), expected \(T, B, I\)"):
        flat.run(np.stack([x, x], axis=1))


def test_out(layer: Any) -> None:
    B = 3
    x = inputs(layer, T, B, I)
    plain, into = layer.stream(B), layer.stream(B)
    out = np.full_like(plain.step(x[0]), 7)
    plain.reset()
    for x_t in x:
        assert into.step(x_t, out=out) is out
        same(out, plain.step(x_t))
    single = layer.stream()
    flat = np.full_like(out[0], 7)
    assert single.step(x[0, 0], out=flat) is flat
    same(flat, layer(x[:1, :1])[0][0, 0])


def test_results_are_the_callers(layer: Any) -> None:
    """A result without `out=` is not written to by later steps."""
    x = inputs(layer, T, 2, I)
    stream = layer.stream(2)
    first = stream.step(x[0])
    kept = first.copy()
    stream.step(x[1])
    same(first, kept)
    first[:] = 1e3  # and writing to it does not reach the stream
    fresh = layer.stream(2)
    fresh.run(x[:2])
    same(stream.state, fresh.state)


def test_state_set_and_get(layer: Any) -> None:
    B = 3
    x, start = inputs(layer, T, B, I), random_state(layer, B)
    stream = layer.stream(B)
    stream.run(x)
    stream.state = start
    same(stream.state, start)
    middle = stream.state
    kept = tuple(s.copy() for s in states(middle))
    same(stream.run(x), layer(x, start)[0])
    for now, then in zip(states(middle), kept, strict=True):
        np.testing.assert_array_equal(now, then, err_msg="the state handed out changed with a run")
    for array in states(start):
        array[:] = 9  # the stream holds a copy of what was assigned
    stream.state = middle
    same(stream.run(x), layer(x, middle)[0])


def test_reset(layer: Any) -> None:
    B = 4
    x = inputs(layer, T, B, I)
    stream = layer.stream(B, random_state(layer, B))
    stream.reset()
    assert all(not s.any() for s in states(stream.state))
    stream.run(x)
    before = tuple(s.copy() for s in states(stream.state))
    mask = np.array([False, True, False, True])
    stream.reset(mask)
    for now, then in zip(states(stream.state), before, strict=True):
        assert now[:, ~mask].any()
        np.testing.assert_array_equal(now[:, ~mask], then[:, ~mask])
        assert not now[:, mask].any()
    y = stream.run(x)
    same(y[:, mask], layer(x)[0][:, mask])


def test_weights_are_a_snapshot(layer: Any) -> None:
    x = inputs(layer, T, 2, I)
    want, _ = layer(x)
    stream = layer.stream(2)
    for array in layer.params.values():
        array *= 2
    same(stream.run(x), want)
    assert not np.array_equal(layer(x)[0], want)
    assert not np.array_equal(layer.stream(2).run(x), want)


def test_inputs_are_not_changed(layer: Any) -> None:
    x, start = inputs(layer, T, 2, I), random_state(layer, 2)
    kept = x.copy(), tuple(s.copy() for s in states(start))
    stream = layer.stream(2, start)
    stream.run(x)
    stream.step(x[0])
    same(x, kept[0])
    same(start, kept[1] if isinstance(start, tuple) else kept[1][0])


def test_strided_input(layer: Any) -> None:
    x = inputs(layer, T, 3, 2 * I)[:, ::-1, ::2]
    assert not x.flags.c_contiguous
    same(layer.stream(3).run(x), layer(x.copy())[0])
    a, b = layer.stream(3), layer.stream(3)
    for x_t in x:
        same(a.step(x_t), b.step(x_t.copy()))


@pytest.mark.parametrize("B", [1, 4])
def test_step_does_not_allocate(layer: Any, B: int) -> None:
    """With `out=` a step leaves nothing and needs no array, not even for a moment."""
    x = inputs(layer, B, I)
    stream = layer.stream(B)
    out = stream.step(x)
    for _ in range(100):
        stream.step(x, out=out)
    tracemalloc.start()
    try:
        stream.step(x, out=out)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(100):
            stream.step(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 256, "steps leave memory behind"
    assert peak - before < 1024, "a step allocates more than small Python objects"


@pytest.mark.parametrize("threads", [1, 2])
def test_no_rows(layer: Any, threads: int) -> None:
    """Without rows steps and chunks are empty arrays, and nothing divides by their number."""
    stream = layer.stream(0, threads=threads)
    shape = (0, states(stream.state)[0].shape[-1])
    got = stream.step(inputs(layer, 0, I))
    assert (got.shape, got.dtype) == (shape, layer.dtype)
    assert stream.step(inputs(layer, 0, I), out=got) is got
    for steps in (0, T):
        assert stream.run(inputs(layer, steps, 0, I)).shape == (steps, *shape)
    stream.reset()
    stream.reset(np.zeros(0, bool))
    stream.state = stream.state
    assert all(part.shape[1] == 0 for part in states(stream.state))


@pytest.mark.parametrize("B", [0, 1, 3, T])  # with B = T, steps could be taken for rows
def test_chunks_of_a_batch_first_layer(layer: Any, B: int) -> None:
    """They have the axes that the layer itself takes and gives, and the same bits."""
    rows_first = copy.copy(layer)
    rows_first.batch_first = True
    x, start = inputs(layer, B, T, I), random_state(layer, B)
    y, state = rows_first(x, start)
    stream = rows_first.stream(B, start)
    parts = [stream.run(x[:, a:b]) for a, b in ((0, 3), (3, 3), (3, T))]
    same(np.concatenate(parts, axis=1), y)
    same(stream.state, state)


def test_a_sequence_of_a_batch_first_layer() -> None:
    layer = rnnfast.GRU(I, H, batch_first=True, rng=0)
    x = inputs(layer, T, I)
    same(layer.stream().run(x), layer(x)[0])
    with pytest.raises(ValueError, match=r"x.*\(9, 2, 7\), expected \(B, T, I\) = \(2, 2, 7\)"):
        layer.stream(2).run(inputs(layer, T, 2, I))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_go_on_by_themselves(layer: Any, how: str) -> None:
    """A copy has the weights and the state of the stream, not those of the layer of now."""
    x = inputs(layer, T, 2, I)
    want, last = layer(x)
    stream = layer.stream(2, threads=1)
    stream.run(x[:3])
    for array in layer.params.values():
        array *= 2
    (clone,) = COPIES[how]([stream]) if how != "copy" else [copy.copy(stream)]
    assert type(clone) is type(stream)
    assert clone.threads == 1
    same(clone.state, stream.state)
    same(clone.run(x[3:]), want[3:])
    same(clone.state, last)
    same(stream.run(x[3:]), want[3:])


def test_a_stream_of_a_layer_that_has_its_own_start() -> None:
    """Copies of it go on from where it is, also from zeros."""
    layer = rnnfast.GRU(I, H, rng=0)
    stream = layer.stream(1, np.ones((1, 1, H), np.float32))
    stream.reset()
    same(copy.deepcopy(stream).state, np.zeros((1, 1, H), np.float32))


def test_the_number_of_threads_is_that_of_when_it_was_made() -> None:
    layer = rnnfast.GRU(I, H, rng=0)
    with rnnfast.num_threads(3):
        stream, given = layer.stream(), layer.stream(threads=5)
        stream.step(inputs(layer, 1, I))
    with rnnfast.num_threads(2):
        stream.step(inputs(layer, 1, I))
        assert layer.stream().threads == 2
        assert copy.copy(given).threads == 5
    assert (stream.threads, given.threads) == (3, 5)


def test_half_a_state_that_does_not_fit_changes_nothing() -> None:
    layer = rnnfast.LSTM(I, H, 2, rng=0)
    stream = layer.stream(2, random_state(layer, 2))
    before = stream.state
    h, c = before
    for state in ((0 * h, c[:1]), (0 * h, c.astype(float)), (0 * h, [1.0]), (0 * h,)):
        with pytest.raises((TypeError, ValueError), match=r"^state"):
            stream.state = state
        same(stream.state, before)
    stream.state = (None, c)
    same(stream.state, (np.zeros_like(h), c))
    stream.state = None
    same(stream.state, (np.zeros_like(h), np.zeros_like(c)))


@pytest.mark.parametrize("kind", [rnnfast.RNN, rnnfast.GRU, rnnfast.LSTM])
def test_bidirectional_is_refused(kind: Any) -> None:
    message = "layer is bidirectional.*whole sequences.*bidirectional=False"
    with pytest.raises(ValueError, match=message):
        kind(I, H, bidirectional=True).stream()


WRONG = {
    "step features": (lambda s, x: s.step(x[0, :, :-1]), ValueError, r"x.*\(2, 6\).*\(2, 7\)"),
    "step rows": (lambda s, x: s.step(x[0, :1]), ValueError, r"x.*\(1, 7\).*\(2, 7\)"),
    "step one row": (lambda s, x: s.step(x[0, 0]), ValueError, r"x.*\(7,\).*\(2, 7\)"),
    "step of a chunk": (lambda s, x: s.step(x), ValueError, r"x.*\(9, 2, 7\).*\(2, 7\)"),
    "step dtype": (lambda s, x: s.step(x[0].astype("f8")), TypeError, "x.*float64.*float32"),
    "step list": (lambda s, x: s.step(x[0].tolist()), TypeError, "x.*list"),
    "run features": (lambda s, x: s.run(x[:, :, 1:]), ValueError, r"x.*\(9, 2, 6\)"),
    "run rows": (lambda s, x: s.run(x[:, :1]), ValueError, r"x.*\(9, 1, 7\)"),
    "run of a step": (lambda s, x: s.run(x[0]), ValueError, r"x.*\(2, 7\)"),
    "run of a row": (lambda s, x: s.run(x[0, 0]), ValueError, r"x.*\(7,\), expected \(T, B, I\)"),
    "run of 4 axes": (lambda s, x: s.run(x[None]), ValueError, r"x.*\(1, 9, 2, 7\)"),
    "run of a number": (lambda s, x: s.run(np.float32(1)), TypeError, "x has type float32"),
    "run list": (lambda s, x: s.run(x.tolist()), TypeError, "x has type list"),
    "run dtype": (lambda s, x: s.run(x.astype("f8")), TypeError, "x.*float64.*float32"),
    "out shape": (lambda s, x: s.step(x[0], out=x[0]), ValueError, r"out.*\(2, 7\).*\(2, 18\)"),
    "out dtype": (lambda s, x: s.step(x[0], out=np.zeros((2, 18))), TypeError, "out.*float64"),
    "out list": (lambda s, x: s.step(x[0], out=[]), TypeError, "out.*list"),
    "mask shape": (lambda s, x: s.reset(np.ones(3, bool)), ValueError, r"mask.*\(3,\).*\(2,\)"),
    "mask dtype": (lambda s, x: s.reset(np.ones(2, int)), TypeError, "mask.*int64.*bool"),
    "state shape": (
        lambda s, x: setattr(s, "state", np.zeros((1, 2, 7), "f4")),
        ValueError,
        r"\(1, 2, 7\).*\(1, 2, 18\)",
    ),
    "state dtype": (lambda s, x: setattr(s, "state", np.zeros((1, 2, 18))), TypeError, "float64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_calls(what: str) -> None:
    """Each is refused by name, and the stream goes on as if it had not happened."""
    call, error, message = WRONG[what]
    layer = rnnfast.GRU(I, H, rng=1)
    x = inputs(layer, T, 2, I)
    stream = layer.stream(2)
    stream.run(x)
    kept = stream.state.copy()
    with pytest.raises(error, match=message):
        call(stream, x)
    same(stream.state, kept)


def test_out_must_be_writable_in_c_order() -> None:
    layer = rnnfast.GRU(I, H, rng=1)
    stream = layer.stream(2)
    x = inputs(layer, 2, I)
    fixed = np.zeros((2, H), np.float32)
    fixed.flags.writeable = False
    for out in (fixed, np.zeros((H, 2), np.float32).T, np.zeros((2, 2 * H), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match="out"):
            stream.step(x, out=out)
        assert not out.any()
    assert not stream.state.any()


@pytest.mark.parametrize("first", [-2 * H, 1 - 2 * H, -1, 0, 1, 2 * I - 1, 2 * I])
def test_out_must_not_overlap_x(first: int) -> None:
    """From the element `first` of x on: just before x, about its ends, just behind it."""
    layer = rnnfast.GRU(I, H, rng=1)
    x = inputs(layer, 2, I)
    memory = np.zeros(4 * H + 2 * I, np.float32)
    given, out = (memory[at:][: 2 * n].reshape(2, n) for at, n in ((2 * H, I), (2 * H + first, H)))
    given[:] = x
    if first in (-2 * H, 2 * I):
        assert layer.stream(2).step(given, out=out) is out
        same(out, layer.stream(2).step(x))
    else:
        with pytest.raises(ValueError, match="out overlaps x"):
            layer.stream(2).step(given, out=out)
    same(given, x)
