"""`rnnfast.Recurrent`: layers of a cell of the user's own, and their promises."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import some_cells
from some_cells import CELLS, gradients, problem

import rnnfast
from rnnfast import functional
from rnnfast.cells import Cell, linear, vector

Array = np.ndarray[Any, Any]
ids = {"ids": lambda value: value.name if isinstance(value, Cell) else None}


def layer_of(cell: Cell, I: int, H: int, **options: Any) -> rnnfast.Recurrent:
    return rnnfast.Recurrent(cell, I, H, rng=0, **options)


def assert_same(found: Any, expected: Any) -> None:
    """The same bits."""
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    else:
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------ beside the built-in cells


def copy_gates(layer: rnnfast.Recurrent, built_in: Any, gates: list[str]) -> None:
    """Give a cell's parameters, in the built-in layer's order of gates, that layer's values."""
    H = layer.hidden_size
    for suffix in ("_l0", "_l0_reverse")[: 1 + layer.bidirectional]:
        for g, name in enumerate(gates):
            rows = slice(g * H, (g + 1) * H)
            own, params = built_in.params, layer.params
            x, h = own[f"weight_ih{suffix}"][rows], own[f"weight_hh{suffix}"][rows]
            b_ih, b_hh = own[f"bias_ih{suffix}"][rows], own[f"bias_hh{suffix}"][rows]
            if f"{name}.weight_x{suffix}" in params:
                params[f"{name}.weight_x{suffix}"][...] = x
                source = "gated" if f"{name}.weight_gated{suffix}" in params else "h"
                params[f"{name}.weight_{source}{suffix}"][...] = h
                params[f"{name}.bias{suffix}"][...] = b_ih + b_hh
            else:
                params[f"{name}_x.weight_x{suffix}"][...] = x
                params[f"{name}_x.bias{suffix}"][...] = b_ih
                params[f"{name}_h.weight_h{suffix}"][...] = h
                params[f"{name}_h.bias{suffix}"][...] = b_hh


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("cell", "kind", "gates"),
    [
        (some_cells.rnn, rnnfast.RNN, ["a"]),
        (some_cells.lstm, rnnfast.LSTM, ["i", "f", "g", "o"]),
        (some_cells.gru, rnnfast.GRU, ["r", "z", "n"]),
        (some_cells.gru_reset_before, rnnfast.GRU, ["r", "z", "n"]),
    ],
    **ids,
)
def test_built_in_cells_written_as_cells(
    cell: Cell, kind: Any, gates: list[str], bidirectional: bool
) -> None:
    T, B, I, H = 9, 11, 5, 21
    more = {"reset_after": False} if cell is some_cells.gru_reset_before else {}
    both = {"dtype": np.float64, "bidirectional": bidirectional}
    built_in = kind(I, H, rng=1, **both, **more)
    layer = layer_of(cell, I, H, **both)
    copy_gates(layer, built_in, gates)
    x = np.random.default_rng(2).standard_normal((T, B, I))
    lengths = np.random.default_rng(3).integers(0, T + 1, B)
    y, state, tape = layer.forward(x, lengths=lengths)
    expected, final, own_tape = built_in.forward(x, lengths=lengths)
    np.testing.assert_allclose(y, expected, atol=1e-13)
    parts = final if isinstance(final, tuple) else (final,)
    for a, b in zip(state if isinstance(state, tuple) else (state,), parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    dy = np.random.default_rng(4).standard_normal(y.shape)
    found, right = layer.backward(tape, dy), built_in.backward(own_tape, dy)
    np.testing.assert_allclose(found.input, right.input, atol=1e-12)
    sums = copy.deepcopy(layer)
    copied = type("Gradients", (), {"params": right.params})
    copy_gates(sums, copied, gates)
    for name, value in found.params.items():
        if ".weight" in name:
            np.testing.assert_allclose(value, sums.params[name], atol=1e-11, err_msg=name)


# ---------------------------------------------------------------------------------- what layers do


@pytest.mark.parametrize("cell", [some_cells.peephole, some_cells.gru_reset_before], **ids)
def test_stacked_and_bidirectional(cell: Cell) -> None:
    """The same as single cells, one after the other."""
    T, B, I, H = 6, 4, 3, 10
    layer = layer_of(cell, I, H, num_layers=2, bidirectional=True, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    lengths = np.array([6, 2, 0, 5])
    y, state, tape = layer.forward(x, lengths=lengths)
    states = state if isinstance(state, tuple) else (state,)
    inputs, k = x, 0
    for l in range(2):
        outputs = []
        for reverse in (False, True):
            suffix = f"_l{l}" + "_reverse" * reverse
            names = [n for n in layer.params if n.endswith(suffix)]
            params = {n.removesuffix(suffix): layer.params[n] for n in names}
            out, final, _ = functional.cell_forward(
                cell, inputs, None, params, lengths=lengths, reverse=reverse
            )
            outputs.append(out)
            for part, whole in zip(final, states, strict=True):
                assert_same(whole[k], part)
            k += 1
        inputs = np.concatenate(outputs, axis=2)
    assert_same(y, inputs)
    grads = layer.backward(tape, np.ones_like(y))
    assert set(grads.params) == set(layer.params)
    assert all(grads.params[n].shape == p.shape for n, p in layer.params.items())


def test_batch_first_and_unbatched() -> None:
    layer = layer_of(some_cells.with_inputs, 3, 8, dtype=np.float64)
    first = layer_of(some_cells.with_inputs, 3, 8, dtype=np.float64, batch_first=True)
    rng = np.random.default_rng(0)
    x, k, m = rng.standard_normal((5, 2, 3)), rng.random((5, 2, 1)), rng.random((2, 8))
    y, state, tape = layer.forward(x, extra={"k": k, "m": m})
    swapped = {"k": k.swapaxes(0, 1), "m": m}
    y_first, state_first, tape_first = first.forward(x.swapaxes(0, 1), extra=swapped)
    assert_same(y_first.swapaxes(0, 1), y)
    assert_same(state_first, state)
    grads, grads_first = layer.backward(tape, y), first.backward(tape_first, y_first)
    assert_same(grads_first.extra["k"].swapaxes(0, 1), grads.extra["k"])
    assert_same(grads_first.extra["m"], grads.extra["m"])
    one, _ = layer(x[:, 0], extra={"k": k[:, :1], "m": m[0]})
    assert_same(one, layer(x[:, :1], extra={"k": k[:, :1], "m": m[0]})[0][:, 0])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS, **ids)
def test_the_same_bits_for_threads_batch_and_chunks(cell: Cell, dtype: Any) -> None:
    T, B, H = 12, 37, 19
    I = H if cell.name == "without_linear" else 6
    given = problem(cell, T, B, I, H, np.dtype(dtype).name)
    extra = {n: np.broadcast_to(e, (T, B, e.shape[-1])).copy() for n, e in given["extra"].items()}
    arguments = given["x"], given["state"], given["params"]
    y, state, tape = functional.cell_forward(cell, *arguments, extra=extra, threads=1)
    upstream = gradients(y, state)
    grads = functional.cell_backward(tape, **upstream, threads=1)
    for threads in (2, 3):
        other, final, tape = functional.cell_forward(cell, *arguments, extra=extra, threads=threads)
        assert_same((other, final), (y, state))
        assert_same(
            tuple(functional.cell_backward(tape, **upstream, threads=threads)), tuple(grads)
        )
    for rows in (slice(0, 1), slice(5, 9), slice(30, 37)):
        part = {n: e[:, rows].copy() for n, e in extra.items()}
        states = tuple(s[rows].copy() for s in given["state"])
        other, final, tape = functional.cell_forward(
            cell, given["x"][:, rows].copy(), states, given["params"], extra=part
        )
        assert_same((other, final), (y[:, rows], tuple(s[rows] for s in state)))
        few = functional.cell_backward(
            tape, upstream["dy"][:, rows].copy(), tuple(d[rows].copy() for d in upstream["dstate"])
        )
        assert_same((few.x, few.state), (grads.x[:, rows], tuple(s[rows] for s in grads.state)))
    at, carried, outputs = 0, given["state"], []
    for n in (1, 4, 0, 7):
        chunk = {name: e[at : at + n].copy() for name, e in extra.items()}
        out, carried, _ = functional.cell_forward(
            cell, given["x"][at : at + n].copy(), carried, given["params"], extra=chunk
        )
        outputs.append(out)
        at += n
    assert_same((np.concatenate(outputs), carried), (y, state))


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize(
    "cell", [c for c in CELLS if c.name not in ("several_stages", "without_linear")], **ids
)
def test_streams(cell: Cell, B: int) -> None:
    T, I, H = 7, 4, 9
    layer = layer_of(cell, I, H, num_layers=2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, I), dtype=np.float32)
    extra = {n: rng.random((T, B, 1), dtype=np.float32) for n in cell.extra}
    y, state = layer(x, extra=extra)
    stream = layer.stream(batch_size=B)
    found = [stream.step(x[t], extra={n: e[t] for n, e in extra.items()}) for t in range(3)]
    stream = copy.deepcopy(stream)
    found += [*stream.run(x[3:], extra={n: e[3:] for n, e in extra.items()})]
    assert_same(np.stack(found), y)
    assert_same(stream.state, state)
    stream.reset()
    assert_same(stream.run(x, extra=extra), y)
    mask = np.arange(B) == 0
    stream.reset(mask)
    parts = stream.state if isinstance(stream.state, tuple) else (stream.state,)
    assert all(not part[:, 0].any() for part in parts)


def test_a_row_with_nan_does_not_touch_others() -> None:
    for cell in CELLS[:-1]:
        given = problem(cell, 5, 4, 3, 9)
        extra = {
            n: np.broadcast_to(e, (5, 4, e.shape[-1])).copy() for n, e in given["extra"].items()
        }
        arguments = given["state"], given["params"]
        y, _, _ = functional.cell_forward(cell, given["x"], *arguments, extra=extra)
        x = given["x"].copy()
        x[2, 1] = np.nan
        other, _, tape = functional.cell_forward(cell, x, *arguments, extra=extra)
        keep = [0, 2, 3]
        assert_same(other[:, keep], y[:, keep])
        dx = functional.cell_backward(tape, np.ones_like(other)).x
        assert np.isfinite(dx[:, keep]).all()


# --------------------------------------------------------------------------------- parameters


def test_names_and_initial_values() -> None:
    layer = layer_of(some_cells.layer_norm, 3, 5, num_layers=2, bidirectional=True)
    assert list(layer.params)[:5] == [
        "a.weight_x_l0", "a.weight_h_l0", "a.bias_l0", "gain_l0", "shift_l0",
    ]  # fmt: skip
    assert layer.params["a.weight_x_l1_reverse"].shape == (5, 10)
    assert (layer.params["gain_l1"] == 1).all()
    assert np.abs(layer.params["a.bias_l0"]).max() <= 5**-0.5
    without = layer_of(some_cells.layer_norm, 3, 5, bias=False)
    assert "a.bias_l0" not in without.params
    assert repr(without) == "Recurrent(layer_norm, 3, 5, bias=False)"


def test_vectors_that_begin_at_random() -> None:
    def init(rng: np.random.Generator, size: int) -> Array:
        return rng.uniform(2, 3, size)

    @rnnfast.cells.cell(state="h")
    def scaled(x, h):
        return (
            linear("a", x) + vector("v", init=init) * h + vector("w", 1, lambda rng, n: np.ones(n))
        )

    layer = layer_of(scaled, 3, 50, num_layers=2)
    first, second = layer.params["v_l0"], layer.params["v_l1"]
    assert first.dtype == np.float32
    assert 2 <= first.min() < first.max() <= 3
    assert (first != second).all()
    assert layer.params["w_l0"] == 1
    assert_same(layer_of(scaled, 3, 50, num_layers=2).params, layer.params)
    before = layer_of(rnnfast.cells.indrnn, 3, 50)  # numbers draw nothing
    assert_same(before.params["a.weight_x_l0"], layer.params["a.weight_x_l0"])

    @rnnfast.cells.cell(state="h")
    def too_many(x, h):
        return h * vector("v", init=lambda rng, size: np.ones(size + 1))

    with pytest.raises(ValueError, match="shape"):
        layer_of(too_many, 3, 50)


def test_backward_has_the_parameters_of_forward() -> None:
    layer = layer_of(some_cells.peephole, 3, 5)
    x = np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)
    dy = np.ones((4, 2, 5), np.float32)
    grads = layer.backward(layer.forward(x)[2], dy)
    tape = layer.forward(x)[2]
    for value in layer.params.values():
        value += 1
    assert_same(tuple(layer.backward(tape, dy)), tuple(grads))


def test_accumulate() -> None:
    layer = layer_of(some_cells.peephole, 3, 5)
    x = np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)
    grads = layer.backward(layer.forward(x)[2], np.ones((4, 2, 5), np.float32))
    twice = {name: value.copy() for name, value in grads.params.items()}
    again = layer.backward(layer.forward(x)[2], np.ones((4, 2, 5), np.float32), accumulate=twice)
    assert again.params is twice
    for name, value in grads.params.items():
        assert_same(twice[name], value + value)
