"""The Clockwork RNN against the paper's equations, written out in PyTorch with a masked weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_cells import gradients

import rnnfast
from rnnfast import cells, functional

PERIODS = 1, 2, 5
T, B, I, N = 13, 3, 4, 7  # N units in each group
H = N * len(PERIODS)


def weights(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = cells.clockwork(PERIODS).graph(I, N).shapes()
    return {name: rng.uniform(-0.6, 0.6, shape) for name, shape in shapes.items()}


def inputs(seed: int = 1) -> tuple[Any, tuple[Any, ...]]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((T, B, I)), tuple(rng.uniform(-1, 1, (3, B, N)))


def run(start: int = 0) -> tuple[Any, ...]:
    """Output, final states and gradients of the cell."""
    x, state = inputs()
    y, final, tape = functional.cell_forward(
        cells.clockwork(PERIODS), x, state, weights(), extra=cells.clock(PERIODS, T, start)
    )
    return y, final, functional.cell_backward(tape, **gradients(y, final))


def by_torch(start: int = 0) -> tuple[Any, ...]:
    """The same from one weight U for all groups, whose connections to slower ones are masked."""
    torch = pytest.importorskip("torch")
    x, state = inputs()
    group = np.repeat(np.arange(3), N)
    period = torch.tensor(np.repeat(PERIODS, N))
    mask = torch.tensor(group[None] >= group[:, None])
    given, u = weights(), np.full((H, H), np.nan)
    for i, p in enumerate(PERIODS):
        for j, q in list(enumerate(PERIODS))[i:]:
            u[i * N : i * N + N, j * N : j * N + N] = given[f"group_{p}.weight_h{q}"]
    w = np.concatenate([given[f"group_{p}.weight_x"] for p in PERIODS])
    b = np.concatenate([given[f"group_{p}.bias"] for p in PERIODS])
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, np.hstack(state), w, u, b)]
    x, h, w, u, b = leaves
    outputs = []
    for t in range(start, start + T):
        a = x[t - start] @ w.T + h @ torch.where(mask, u, 0).T + b
        h = torch.where(t % period == 0, torch.tanh(a), h)
        outputs.append(h)
    y = torch.stack(outputs)
    final = tuple(h.detach().numpy().reshape(B, 3, N).swapaxes(0, 1))
    upstream = gradients(y.detach().numpy(), final)
    dstate = np.hstack(upstream["dstate"])
    ((y * torch.tensor(upstream["dy"])).sum() + (h * torch.tensor(dstate)).sum()).backward()
    return y.detach().numpy(), h.detach().numpy(), [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("start", [0, 3])
def test_outputs_and_all_gradients_are_those_of_the_masked_network(start: int) -> None:
    y, final, grads = run(start)
    y_, h_, (dx, dh, dw, du, db) = by_torch(start)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)  # noqa: E731
    close(y, y_)
    close(np.hstack(final), h_)
    close(grads.x, dx)
    close(np.hstack(grads.state), dh)
    assert np.abs(dh).min() > 0
    for i, p in enumerate(PERIODS):
        rows = slice(i * N, i * N + N)
        close(grads.params[f"group_{p}.weight_x"], dw[rows])
        close(grads.params[f"group_{p}.bias"], db[rows])
        for j, q in list(enumerate(PERIODS))[i:]:
            close(grads.params[f"group_{p}.weight_h{q}"], du[rows, j * N : j * N + N])


def test_connections_from_faster_groups_have_no_parameters() -> None:
    blocks = [n for n in weights() if ".weight_h" in n]
    assert blocks == [
        f"group_{p}.weight_h{q}" for i, p in enumerate(PERIODS) for q in PERIODS[i:]
    ]  # fmt: skip
    x, state = inputs()
    extra = cells.clock(PERIODS, T)
    y = functional.cell_forward(cells.clockwork(PERIODS), x, state, weights(), extra=extra)[0]
    faster = (state[0] + 1, state[1] - 1, state[2])
    other = functional.cell_forward(cells.clockwork(PERIODS), x, faster, weights(), extra=extra)[0]
    np.testing.assert_array_equal(other[..., 2 * N :], y[..., 2 * N :])
    assert (other[0, :, :N] != y[0, :, :N]).all()


def test_a_group_keeps_its_bits_between_the_steps_that_its_period_divides() -> None:
    y, final, _ = run()
    for i, p in enumerate(PERIODS):
        own = y[..., i * N : i * N + N]
        np.testing.assert_array_equal(own[-1], final[i])
        for t in range(1, T):
            same = (own[t] == own[t - 1]).all()
            assert same == (t % p != 0), (p, t)


def test_chunks_that_say_where_they_start_make_up_the_sequence() -> None:
    layer = rnnfast.Recurrent(cells.clockwork(PERIODS), I, N, 2, rng=0)
    x = np.random.default_rng(2).standard_normal((T, B, I), dtype=np.float32)
    y, state = layer(x, extra=cells.clock(PERIODS, T))
    assert y.shape == (T, B, H)
    parts, now, at = [], None, 0
    for length in (4, 0, 7, 2):
        extra = cells.clock(PERIODS, length, start=at)
        part, now = layer(x[at : at + length], now, extra=extra)
        parts.append(part)
        at += length
    np.testing.assert_array_equal(np.concatenate(parts), y)
    for mine, whole in zip(now, state, strict=True):
        np.testing.assert_array_equal(mine, whole)


def test_a_stream_takes_the_clock_of_each_step() -> None:
    layer = rnnfast.Recurrent(cells.clockwork(PERIODS), I, N, 2, rng=0)
    x = np.random.default_rng(2).standard_normal((T, B, I), dtype=np.float32)
    y, _ = layer(x, extra=cells.clock(PERIODS, T))
    stream = layer.stream(B)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(x[t], extra=cells.clock(PERIODS, 1, t)), y[t])


def test_a_layer_with_the_batch_first_has_a_clock_of_its_form() -> None:
    first, second = (
        rnnfast.Recurrent(cells.clockwork(PERIODS), I, N, batch_first=batch_first, rng=0)
        for batch_first in (False, True)
    )
    x = np.random.default_rng(2).standard_normal((T, B, I), dtype=np.float32)
    y, _ = first(x, extra=cells.clock(PERIODS, T, 3))
    extra = cells.clock(PERIODS, T, 3, batch_first=True)
    assert extra["active"].shape == (1, T, 3)
    other, _ = second(np.ascontiguousarray(x.swapaxes(0, 1)), extra=extra)
    np.testing.assert_array_equal(other.swapaxes(0, 1), y)


def test_a_file_is_read_with_the_cell_of_the_same_periods(tmp_path: Path) -> None:
    layer = rnnfast.Recurrent(cells.clockwork(PERIODS), I, N, rng=0)
    layer.save(tmp_path / "layer.npz")
    same = rnnfast.load(tmp_path / "layer.npz", cells=[cells.clockwork(PERIODS)])
    x, extra = np.ones((T, B, I), np.float32), cells.clock(PERIODS, T)
    np.testing.assert_array_equal(same(x, extra=extra)[0], layer(x, extra=extra)[0])


def test_one_group_of_period_1_is_an_rnn() -> None:
    layer = rnnfast.Recurrent(cells.clockwork([1]), I, N, rng=0, dtype=np.float64)
    w_ih, w_hh, b = layer.params.values()
    x, _ = inputs()
    y, _ = layer(x, extra=cells.clock([1], T))
    expected = functional.rnn_forward(x, None, w_ih, w_hh, b)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cells.clockwork([]), ValueError, r"periods is \[\], expected 1 to 64 numbers"),
        (lambda: cells.clockwork([1, 1]), ValueError, r"periods is \[1, 1\], .* each above"),
        (lambda: cells.clockwork([4, 2]), ValueError, r"periods is \[4, 2\]"),
        (lambda: cells.clockwork([0, 2]), ValueError, r"periods\[0\] is 0, expected at least 1"),
        (lambda: cells.clockwork([1, 2.0]), TypeError, r"periods\[1\] has type float"),
        (lambda: cells.clock([2, 1], 3), ValueError, r"periods is \[2, 1\]"),
        (lambda: cells.clock([1], -1), ValueError, "steps is -1, expected at least 0"),
        (lambda: cells.clock([1], 3.0), TypeError, "steps has type float"),
        (lambda: cells.clock([1], 3, -1), ValueError, "start is -1, expected at least 0"),
    ],
)
def test_wrong_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_clock_of_other_periods_is_refused() -> None:
    layer = rnnfast.Recurrent(cells.clockwork(PERIODS), I, N, rng=0)
    x = np.zeros((T, B, I), np.float32)
    with pytest.raises(ValueError, match=r"extra\['active'\] has shape \(13, 1, 2\)"):
        layer(x, extra=cells.clock([1, 2], T))
