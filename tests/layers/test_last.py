"""`Last`: the output at each row's last valid step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from some_models import last_by_hand

import rnnfast
from rnnfast import Last
from rnnfast.training import gradcheck

LENGTHS = [None, [4, 1, 0, 3, 2], [0, 0, 0, 0, 0], [4, 4, 4, 4, 4]]


def drawn(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_last_valid_step(lengths: Any, dtype: Any) -> None:
    x = drawn(4, 5, 3, dtype=dtype)
    expected = last_by_hand(x, lengths)
    for array in (lengths, None if lengths is None else np.array(lengths, np.uint8)):
        np.testing.assert_array_equal(Last()(x, lengths=array), expected, strict=True)
    rows_first = Last(batch_first=True)(x.swapaxes(0, 1), lengths=lengths)
    np.testing.assert_array_equal(rows_first, expected, strict=True)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_both_ends_are_the_states_of_a_bidirectional_layer(lengths: Any, batch_first: bool) -> None:
    layer = rnnfast.GRU(3, 4, bidirectional=True, batch_first=batch_first, dtype="f8", rng=0)
    x = drawn(5, 4, 3) if batch_first else drawn(4, 5, 3)
    y, state = layer(x, lengths=lengths)
    expected = np.concatenate(list(state), axis=1)
    ends = Last(batch_first, both_ends=True)
    np.testing.assert_array_equal(ends(y, lengths=lengths), expected)
    if lengths is None:
        np.testing.assert_array_equal(ends(y[:, 0] if not batch_first else y[0]), expected[0])
    model = rnnfast.Sequential(layer, Last(both_ends=True))
    np.testing.assert_array_equal(model(x, lengths=lengths), expected)
    assert repr(Last(both_ends=True)) == "Last(both_ends=True)"


def test_both_ends_need_two_halves() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5, 3\), expected an even number of units"):
        Last(both_ends=True)(drawn(4, 5, 3))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both_ends", [False, True])
def test_gradcheck(lengths: Any, batch_first: bool, both_ends: bool) -> None:
    layer = Last(batch_first, both_ends=both_ends)
    x = drawn(5, 4, 6) if batch_first else drawn(4, 5, 6)
    target = drawn(5, 6)
    y, tape = layer.forward(x, lengths=lengths)
    grads = layer.backward(tape, y - target)
    assert grads.params == {}
    error = gradcheck(
        lambda: float(np.sum((layer(x, lengths=lengths) - target) ** 2) / 2),
        {"x": x},
        {"x": grads.input},
    )
    assert error["x"] < 1e-7


def test_no_nan_of_the_padding_reaches_the_output() -> None:
    x = drawn(4, 5, 3)
    lengths = np.array([4, 1, 0, 3, 2])
    expected = Last()(x, lengths=lengths)
    x[np.arange(4)[:, None] >= lengths] = np.nan
    np.testing.assert_array_equal(Last()(x, lengths=lengths), expected)


@pytest.mark.parametrize(("T", "B", "F"), [(0, 3, 2), (3, 0, 2), (0, 0, 2), (1, 1, 1), (3, 2, 0)])
def test_sizes_of_nothing(T: int, B: int, F: int) -> None:
    x = np.ones((T, B, F), np.float32)
    for lengths in (None, [T] * B):
        y, tape = Last().forward(x, lengths=lengths)
        np.testing.assert_array_equal(y, np.full((B, F), float(T > 0)))
        dx = Last().backward(tape, np.ones_like(y)).input
        assert dx.shape == x.shape
        assert dx.sum() == B * F * (T > 0)


def test_without_a_batch_axis_and_on_views() -> None:
    x = drawn(4, 5, 3)
    np.testing.assert_array_equal(Last()(x[:, 2]), x[3, 2], strict=True)
    np.testing.assert_array_equal(Last(batch_first=True)(x[:, 2]), x[3, 2], strict=True)
    view = x[::-1, ::2, 1:]
    view.flags.writeable = False
    y, tape = Last().forward(view, lengths=[1, 2, 3])
    np.testing.assert_array_equal(y, last_by_hand(view, [1, 2, 3]))
    y[:] = 0  # a copy, though its rows came from a read-only view
    dx = Last().backward(tape, np.ones_like(y)).input
    np.testing.assert_array_equal(dx.any(axis=2), np.arange(4)[:, None] == [0, 1, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Last()([[1.0]]), TypeError, "x has type list"),
        (lambda: Last()(np.ones((2, 2), int)), TypeError, "x has dtype int64, expected float32 or"),
        (lambda: Last()(np.ones(3)), ValueError, r"x has shape \(3,\), expected \(T, B, F\) or"),
        (lambda: Last(True)(np.ones((1, 1, 1, 1))), ValueError, r"expected \(B, T, F\) or \(T, F"),
        (lambda: Last()(drawn(4, 5, 3), lengths=[1]), ValueError, r"lengths has shape \(1,\)"),
        (lambda: Last()(drawn(4, 5, 3), lengths=[5] * 5), ValueError, "expected 0 to T = 4"),
        (lambda: Last()(drawn(4, 5, 3), lengths=[1.0] * 5), TypeError, "lengths has dtype float"),
        (lambda: Last()(drawn(4, 5), lengths=[1]), ValueError, "has no batch axis"),
        (
            lambda: Last().backward(Last().forward(drawn(4, 5, 3))[1], drawn(4, 3)),
            ValueError,
            r"dy has shape \(4, 3\), expected \(5, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_it_shows_its_layout() -> None:
    assert [repr(Last(b)) for b in (None, False, True)] == [
        "Last()", "Last(batch_first=False)", "Last(batch_first=True)",
    ]  # fmt: skip
    assert Last().num_parameters == 0
