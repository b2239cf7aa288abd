"""Cells of the library beside their formulas in PyTorch: outputs and all gradients in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_cells import gradients, problem

from rnnfast import cells, functional, reference

torch = pytest.importorskip("torch")
sig, tanh = torch.sigmoid, torch.tanh

Step = Callable[[dict[str, Any], Any, Any, dict[str, Any]], tuple[Any, tuple[Any, ...]]]


def product(p: dict[str, Any], name: str, **sources: Any) -> Any:
    """A linear: the sum of a weight times each source, plus the bias if there is one."""
    total = p.get(f"{name}.bias", 0)
    for source, value in sources.items():
        total = total + value @ p[f"{name}.weight_{source}"].T
    return total


def lstm(
    p: dict[str, Any], x: Any, h: Any, c: Any, masks: tuple[Any, ...] = (1, 1, 1, 1)
) -> tuple[Any, Any]:
    i, f, g, o = (product(p, n, x=x, h=m * h) for n, m in zip("ifgo", masks, strict=True))
    i, f, g, o = sig(i), sig(f), tanh(g), sig(o)
    c = f * c + i * g
    return o * tanh(c), c


def zoneout(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    h, c = state
    new_h, new_c = lstm(p, x, h, c)
    h = e["d_h"] * h + (1 - e["d_h"]) * new_h
    return h, (h, e["d_c"] * c + (1 - e["d_c"]) * new_c)


def dropout_lstm(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    h, c = lstm(p, x, *state, masks=tuple(e.get("m", e.get(f"m_{n}")) for n in "ifgo"))
    return h, (h, c)


def dropout_gru(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    (h,) = state
    m = {n: e.get("m", e.get(f"m_{n}")) for n in "rzn"}
    r, z = (sig(product(p, n, x=x, h=m[n] * h)) for n in "rz")
    h = (1 - z) * tanh(product(p, "n_x", x=x) + r * product(p, "n_h", h=m["n"] * h)) + z * h
    return h, (h,)


def gru_d(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    (h, last), m, delta = state, e["m"], e["delta"]
    decay = torch.exp(-torch.clamp(p["decay_x"] * delta + p["decay_x_bias"], min=0))
    v = torch.where(m != 0, x, decay * last + (1 - decay) * p["mean"])
    h = torch.exp(-torch.clamp(product(p, "decay_h", delta=delta), min=0)) * h
    r, z = (sig(product(p, name, m=m, x=v, h=h)) for name in "rz")
    h = (1 - z) * h + z * tanh(product(p, "n", m=m, x=v, gated=r * h))
    return h, (h, torch.where(m != 0, x, last))


def t_lstm(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    h, c = state
    short = tanh(product(p, "short", c=c))
    h, c = lstm(p, x, h, (c - short) + short / torch.log(np.e + e["gap"]))
    return h, (h, c)


def phased(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    h, c = state
    phase = torch.remainder(e["t"] - p["shift"] * p["tau"], p["tau"]) / p["tau"]
    r = p["r_on"]
    shut = 0.001 * e["leaking"] * phase
    k = torch.where(phase < r / 2, 2 * phase / r, torch.where(phase < r, 2 - 2 * phase / r, shut))
    new_h, new_c = lstm(p, x, h, c)
    h = k * new_h + (1 - k) * h
    return h, (h, k * new_c + (1 - k) * c)


def lru(p: dict[str, Any], x: Any, state: Any, e: dict[str, Any]) -> Any:
    a = torch.exp(torch.complex(-torch.exp(p["nu"]), 2 * torch.atan(torch.exp(p["theta"]))))
    B = torch.complex(p["b_re.weight_x"], p["b_im.weight_x"])
    C = torch.complex(p["y.weight_re"], -p["y.weight_im"])
    z = a * torch.complex(*state) + torch.sqrt(1 - abs(a) ** 2) * (x.to(B.dtype) @ B.T)
    return (z @ C.T).real + x @ p["y.weight_x"].T, (z.real, z.imag)


def by_loop(step: Step, given: dict[str, Any], masks: Any) -> dict[str, Any]:
    """Outputs and gradients of a loop over time."""
    T, B, _ = given["x"].shape
    leaf = lambda a: torch.tensor(a, requires_grad=True)  # noqa: E731
    x, state = leaf(given["x"]), tuple(map(leaf, given["state"]))
    params = {n: leaf(a) for n, a in given["params"].items()}
    extra = {n: leaf(a) for n, a in given["extra"].items()}
    now, outputs = state, []
    for t in range(T):
        inputs = {n: e.expand(T, B, e.shape[-1])[t] for n, e in extra.items()}
        y, now = step(params, x[t], now, inputs)
        outputs.append(y)
    y = torch.stack(outputs)
    given_back = gradients(y.detach().numpy(), tuple(s.detach().numpy() for s in now))
    loss = (y * torch.tensor(given_back["dy"])).sum()
    for part, d in zip(now, given_back["dstate"], strict=True):
        loss = loss + (part * torch.tensor(d)).sum()
    loss.backward()
    found = {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in params.items()}
    found |= {f"d{i}": s.grad for i, s in enumerate(state)}
    found |= {f"s{i}": s.detach() for i, s in enumerate(now)}
    return found | {n: e.grad for n, e in extra.items() if n not in masks}


def by_module(module: Any, cell: cells.Cell, given: dict[str, Any]) -> dict[str, Any]:
    arguments = given["x"], given["state"], given["params"]
    y, state, tape = module.cell_forward(cell, *arguments, extra=given["extra"])
    grads = module.cell_backward(tape, **gradients(y, state))
    found = {"y": y, "x": grads.x} | grads.params | grads.extra
    found |= {f"d{i}": s for i, s in enumerate(grads.state)}
    return found | {f"s{i}": s for i, s in enumerate(state)}


CASES = [
    (cells.zoneout_lstm(), zoneout),
    (cells.recurrent_dropout_lstm(), dropout_lstm),
    (cells.recurrent_dropout_gru(), dropout_gru),
    (cells.recurrent_dropout_lstm(0.5, per_gate=True), dropout_lstm),
    (cells.recurrent_dropout_gru(0.5, per_gate=True), dropout_gru),
    (cells.gru_d, gru_d),
    (cells.t_lstm, t_lstm),
    (cells.phased_lstm(), phased),
    (cells.lru(), lru),
]


def set_up(cell: cells.Cell, T: int, B: int, I: int, H: int) -> dict[str, Any]:
    """A problem in which the cell does what it is made for."""
    given, rng = problem(cell, T, B, I, H), np.random.default_rng(5)
    extra = given["extra"]
    for name in cell.masks:
        extra[name] = (rng.random((T, B, extra[name].shape[-1])) < 0.5) * 1.0
    if cell.name.startswith("recurrent_dropout"):
        for name in cell.masks:
            extra[name] = (rng.random((B, H)) < 0.5) * 2.0
    if cell.name == "gru_d":
        extra["m"] = (rng.random((T, B, I)) < 0.6) * 1.0
        extra["delta"] = rng.uniform(0, 3, (T, B, I))
    if cell.name == "t_lstm":
        extra["gap"] = rng.uniform(0, 9, (T, B, 1))
    if cell.name == "phased_lstm":
        given["params"]["tau"] = rng.uniform(1, 5, H)
        given["params"]["shift"] = rng.random(H)
        given["params"]["r_on"] = rng.uniform(0.3, 0.6, H)
        extra["t"] = np.sort(rng.uniform(0, 40, (T, B, 1)), axis=0)
    return given


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("sizes", [(11, 5, 3, 7), (7, 13, 5, 17)], ids=str)
@pytest.mark.parametrize(("cell", "step"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_formulas(cell: cells.Cell, step: Step, sizes: tuple[int, int, int, int]) -> None:
    given = set_up(cell, *sizes)
    expected = by_loop(step, given, cell.masks)
    for module in (functional, reference):
        found = by_module(module, cell, given)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            bound = 1e-11 * max(np.abs(value.numpy()).max(initial=0), 1e-2)
            np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=bound, err_msg=name)
