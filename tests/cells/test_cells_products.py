"""Products of cells: many factors, long sums, single rows, and x multiplied ahead of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import some_cells

from rnnfast import Recurrent, functional, reference
from rnnfast.cells import Cell, cell, linear, sigmoid, tanh


@cell(state="h", extra="a b c")
def five_sources(x, h, a, b, c):
    z = sigmoid(linear("z", x, h, a, b, c))
    return (1 - z) * h + z * tanh(linear("n", x, a, b, c, gated=z * h) + linear("s", h, size=1))


CELLS = [some_cells.rnn, some_cells.lstm, some_cells.gru, some_cells.gru_reset_before, five_sources]
SIZES = [
    (9, 3, 40, 96),  # weights beyond the first-level cache: x is multiplied ahead
    (9, 1, 40, 96),
    (4, 2, 1100, 7),  # a sum that is cut
    (5, 1, 9, 20),  # panels of fewer vectors
    (3, 25, 12, 52),
]


def arguments(cell: Cell, sizes: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    """x, states, parameters and extra inputs."""
    T, B, I, H = sizes
    rng = np.random.default_rng(sum(sizes))
    x = rng.standard_normal((T, B, I)).astype(dtype)
    params = Recurrent(cell, I, H, rng=0, dtype=dtype).params
    state = tuple(rng.standard_normal((B, H)).astype(dtype) for _ in cell.states)
    extra = {name: rng.standard_normal((T, B, H)).astype(dtype) for name in cell.extra}
    return x, state, {name.removesuffix("_l0"): p for name, p in params.items()}, extra


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_all_ways_agree_with_the_reference(
    cell: Cell, sizes: tuple[int, ...], reverse: bool
) -> None:
    T, B, _, H = sizes
    x, state, params, extra = arguments(cell, sizes, np.float64)
    options: dict[str, Any] = {"extra": extra, "reverse": reverse}
    options["lengths"] = np.random.default_rng(1).integers(0, T + 1, B)
    dy = np.random.default_rng(2).standard_normal((T, B, H))
    y, last, tape = functional.cell_forward(cell, x, state, params, **options)
    expected_y, expected_last, expected_tape = reference.cell_forward(
        cell, x, state, params, **options
    )
    np.testing.assert_allclose(y, expected_y, rtol=1e-11, atol=1e-12)
    for found, expected in zip(last, expected_last, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    grads = functional.cell_backward(tape, dy)
    expected_grads = reference.cell_backward(expected_tape, dy)
    np.testing.assert_allclose(grads.x, expected_grads.x, rtol=1e-10, atol=1e-11)
    for group in ("params", "extra"):
        for name, expected in getattr(expected_grads, group).items():
            found = getattr(grads, group)[name]
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_a_row_alone_has_the_bits_that_it_has_among_others(cell: Cell) -> None:
    """Alone and in threes x is multiplied ahead, among 40 it is not."""
    T, B, I, H = 9, 40, 40, 96
    x, state, params, extra = arguments(cell, (T, B, I, H), np.float32)
    whole = functional.cell_forward(cell, x, state, params, extra=extra)
    for rows in (slice(0, 1), slice(3, 6), slice(20, 39)):
        part = functional.cell_forward(
            cell,
            np.ascontiguousarray(x[:, rows]),
            tuple(s[rows] for s in state),
            params,
            extra={name: e[:, rows] for name, e in extra.items()},
        )
        np.testing.assert_array_equal(part[0], whole[0][:, rows])
        dy = np.ones_like(part[0])
        again = functional.cell_backward(part[2], dy)
        assert np.isfinite(again.x).all()


def test_gradients_do_not_share_memory_with_the_parameters() -> None:
    """They are views of a few arrays; changing one changes nothing else."""
    layer = Recurrent(some_cells.lstm, 5, 7, rng=0)
    x = np.ones((3, 2, 5), np.float32)
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y)).params
    copies = {name: g.copy() for name, g in grads.items()}
    for name, g in grads.items():
        g += 1
        copies[name] += 1
    for name, g in grads.items():
        np.testing.assert_array_equal(g, copies[name])
        assert g.flags.c_contiguous
        assert g.flags.writeable
        assert not any(np.may_share_memory(g, p) for p in layer.params.values())
