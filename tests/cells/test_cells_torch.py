"""PyTorch's autograd, a third derivation of every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_cells import CELLS, gradients, library, problem, random_cell

from rnnfast import functional
from rnnfast.cells import Cell
from rnnfast.cells._graph import Graph, Value, in_order

torch = pytest.importorskip("torch")
F = torch.nn.functional

NAMES = (
    *("add", "sub", "mul", "div", "neg", "minimum", "maximum"),
    *("sigmoid", "tanh", "relu", "exp", "log", "sqrt", "abs"),
)
OPERATIONS: dict[str, Any] = {name: getattr(torch, name) for name in NAMES} | {
    "softplus": F.softplus,
    "less": lambda a, b: (a < b).to(a),
    "less_equal": lambda a, b: (a <= b).to(a),
    "equal": lambda a, b: (a == b).to(a),
    "not_equal": lambda a, b: (a != b).to(a),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "outer": lambda a, b: (a[:, :, None] * b[:, None, :]).flatten(1),
    "total": lambda a: a.sum(1, keepdim=True),
    "largest": lambda a: a.detach().amax(1, keepdim=True),
    "inverse_deviation": lambda a, e: torch.rsqrt(a.var(1, correction=0, keepdim=True) + e),
    "normalized": lambda a, scale: (a - a.mean(1, keepdim=True)) * scale,
}


def step(graph: Graph, leaves: dict[str, Any], params: dict[str, Any]) -> dict[int, Any]:
    """The values of one step, as tensors."""
    values: dict[int, Any] = {}

    def of(value: Value) -> Any:
        if value.kind in ("x", "state", "extra"):
            return leaves[value.name]
        if value.kind == "vector":
            return params[value.name].expand(len(leaves["x"]), -1)
        if value.kind == "const":
            return torch.full_like(leaves["x"][:, :1], value.number)
        if value.kind == "linear":
            linear = graph.linears[value.name]
            total: Any = params[f"{value.name}.bias"] if linear.bias else 0
            for label, source in linear.sources.items():
                wide = values[id(source)].expand(-1, source.size)
                total = total + wide @ params[f"{value.name}.weight_{label}"].T
            return total
        operands = [values[id(a)] for a in value.args]
        if value.kind == "outer":
            operands = [o.expand(-1, a.size) for o, a in zip(operands, value.args, strict=True)]
        return OPERATIONS[value.kind](*operands)

    for value in in_order([*graph.new.values(), graph.output]):
        values[id(value)] = of(value)
    return values


def by_torch(cell: Cell, given: dict[str, Any]) -> list[tuple[str, Any]]:
    """Outputs and gradients, named as those of `cell_forward` and `cell_backward`."""
    T, B, I = given["x"].shape
    H = given["state"][0].shape[1]
    graph = cell.graph(I, H)
    leaf = lambda a: torch.tensor(a, requires_grad=True)  # noqa: E731
    x, state = leaf(given["x"]), [leaf(s) for s in given["state"]]
    params = {n: leaf(p) for n, p in given["params"].items()}
    extra = {n: leaf(e) for n, e in given["extra"].items()}
    now, outputs = list(state), []
    for t in range(T):
        leaves = {"x": x[t], **dict(zip(cell.states, now, strict=True))}
        for name, value in extra.items():
            wide = value.expand(T, B, value.shape[-1])[t]
            leaves[name] = wide.expand(B, graph.extra[name].size)
        values = step(graph, leaves, params)
        now = [values[id(v)].expand(B, v.size) for v in graph.new.values()]
        outputs.append(values[id(graph.output)].expand(B, graph.output.size))
    y = torch.stack(outputs)
    upstream = gradients(y.detach().numpy(), tuple(s.detach().numpy() for s in now))
    loss = (y * torch.tensor(upstream["dy"])).sum()
    for s, d in zip(now, upstream["dstate"], strict=True):
        loss = loss + (s * torch.tensor(d)).sum()
    loss.backward()
    grad = lambda a: np.zeros(a.shape) if a.grad is None else a.grad.numpy()  # noqa: E731
    found = [("y", y.detach().numpy()), ("x", grad(x))]
    found += [(f"state {i}", s.detach().numpy()) for i, s in enumerate(now)]
    found += [(f"dstate {i}", grad(s)) for i, s in enumerate(state)]
    found += [(n, grad(p)) for n, p in params.items()]
    return found + [(n, grad(e)) for n, e in extra.items() if n not in cell.masks]


def check(cell: Cell, given: dict[str, Any], bound: float) -> None:
    extra = {"extra": given["extra"]} if given["extra"] else {}
    y, state, tape = functional.cell_forward(
        cell, given["x"], given["state"], given["params"], **extra
    )
    grads = functional.cell_backward(tape, **gradients(y, state))
    assert grads.extra.keys() == given["extra"].keys() - cell.masks.keys()
    found = {"y": y, "x": grads.x, **grads.params, **grads.extra}
    found |= {f"state {i}": s for i, s in enumerate(state)}
    found |= {f"dstate {i}": s for i, s in enumerate(grads.state)}
    for name, expected in by_torch(cell, given):
        scale = max(np.abs(expected).max(initial=0), 1e-2)
        assert np.abs(found[name] - expected).max(initial=0) <= bound * scale, name


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("cell", [*CELLS, *library()], ids=lambda c: c.name)
def test_cells(cell: Cell) -> None:
    I, H = (7, 7) if cell.name == "without_linear" else (4, 7)
    given = problem(cell, 5, 3, I, H)
    if cell.name == "slstm":  # n is a sum of exponentials
        given["state"][2][...] = np.abs(given["state"][2]) + 0.5
    if cell.name == "phased_lstm":  # periods and openings are positive
        for name in ("tau", "r_on"):
            given["params"][name][...] = np.abs(given["params"][name]) + 0.1
    check(cell, given, 1e-11)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_cells(data: st.DataObject) -> None:
    cell = random_cell(lambda n: data.draw(st.integers(0, n - 1)))
    check(cell, problem(cell, 3, 2, 3, 6), 1e-9)
