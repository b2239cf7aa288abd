"""Deep transitions, gated feedback and the cascaded network: against loops in PyTorch, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_cells import gradients, lstm, problem, rnn

from rnnfast import Recurrent, cells, functional
from rnnfast.cells import Cell

Step = Callable[[Any, list[Any], dict[str, Any]], tuple[list[Any], Any]]


# ------------------------------------------------------------------- one step each, as tensors


def cascaded_step(x: Any, state: list[Any], p: dict[str, Any]) -> tuple[list[Any], Any]:
    """Pollack's own form: the state makes a matrix, which the input and a 1 are multiplied by."""
    torch = pytest.importorskip("torch")
    (z,), (batch, inputs) = state, x.shape
    ones = torch.ones(batch, 1, dtype=x.dtype)

    def rows(name: str) -> Any:
        products = p[f"{name}.weight_products"]
        C = torch.cat(  # (rows, Z, K + 1): its last column is that of the 1
            [
                products.reshape(len(products), z.shape[1], inputs),
                p[f"{name}.weight_z"][:, :, None],
            ],
            2,
        )
        C_0 = torch.cat([p[f"{name}.weight_x"], p[f"{name}.bias"][:, None]], 1)
        W = torch.einsum("rzk,bz->brk", C, z) + C_0
        return torch.sigmoid(torch.einsum("brk,bk->br", W, torch.cat([x, ones], 1)))

    return [rows("z")], rows("y")


def deep_step(layers: int, skip: bool) -> Step:
    torch = pytest.importorskip("torch")

    def step(x: Any, state: list[Any], p: dict[str, Any]) -> tuple[list[Any], Any]:
        (h,) = state
        a = torch.tanh(x @ p["a1.weight_x"].T + h @ p["a1.weight_h"].T + p["a1.bias"])
        for i in range(2, layers + 1):
            s = a @ p[f"a{i}.weight_below"].T + p[f"a{i}.bias"]
            a = torch.tanh(s + h @ p[f"a{i}.weight_h"].T if skip and i == layers else s)
        return [a], a

    return step


def feedback_step(layers: int, kind: str) -> Step:
    torch = pytest.importorskip("torch")

    def gate(name: str, p: dict[str, Any], source: str, below: Any, h: Any) -> Any:
        a = below @ p[f"{name}.weight_{source}"].T + h @ p[f"{name}.weight_h"].T
        return torch.sigmoid(a + p[f"{name}.bias"])

    def step(x: Any, state: list[Any], p: dict[str, Any]) -> tuple[list[Any], Any]:
        h, c = state[:layers], state[layers:]
        all_h, below, source = torch.cat(h, 1), x, "x"
        new_h, new_c = [], []
        for j in range(1, layers + 1):
            candidate = f"u_{j}" if kind == "gru" else f"n_{j}"
            total = 0
            for i in range(1, layers + 1):
                w = p[f"g_h{i}_{j}.weight_{source}"]
                u = torch.cat([p[f"g_h{i}_{j}.weight_h{k}"] for k in range(1, layers + 1)], 1)
                g = torch.sigmoid(below @ w.T + all_h @ u.T)
                total = total + g * (h[i - 1] @ p[f"{candidate}.weight_h{i}"].T)
            a = below @ p[f"n_{j}.weight_{source}"].T + p[f"n_{j}.bias"]
            if kind == "tanh":
                new = torch.tanh(a + total)
            elif kind == "gru":
                r, z = (gate(f"{n}_{j}", p, source, below, h[j - 1]) for n in "rz")
                n = torch.tanh(a + r * total)
                new = (1 - z) * n + z * h[j - 1]
            else:
                i, f, o = (gate(f"{n}_{j}", p, source, below, h[j - 1]) for n in "ifo")
                new_c.append(f * c[j - 1] + i * torch.tanh(a + total))
                new = o * torch.tanh(new_c[-1])
            new_h.append(new)
            below, source = new, "below"
        return new_h + new_c, below

    return step


def by_hand(step: Step, given: dict[str, Any]) -> dict[str, Any]:
    """Outputs and all gradients of a loop over time."""
    torch = pytest.importorskip("torch")
    leaf = lambda a: torch.tensor(a, requires_grad=True)  # noqa: E731
    x, state = leaf(given["x"]), [leaf(s) for s in given["state"]]
    params = {name: leaf(p) for name, p in given["params"].items()}
    now, outputs = state, []
    for t in range(len(x)):
        now, y = step(x[t], now, params)
        outputs.append(y)
    y = torch.stack(outputs)
    last = tuple(s.detach().numpy() for s in now)
    upstream = gradients(y.detach().numpy(), last)
    loss = (y * torch.tensor(upstream["dy"])).sum()
    for s, d in zip(now, upstream["dstate"], strict=True):
        loss = loss + (s * torch.tensor(d)).sum()
    loss.backward()
    found = {"y": y.detach().numpy(), "x": x.grad.numpy()}
    found |= {f"state {i}": s for i, s in enumerate(last)}
    found |= {f"dstate {i}": s.grad.numpy() for i, s in enumerate(state)}
    return found | {name: p.grad.numpy() for name, p in params.items()}


DEEP = [(1, False), (2, False), (2, True), (3, False), (4, True)]
FEEDBACK = [(layers, kind) for layers in (1, 2, 3) for kind in ("tanh", "lstm", "gru")]


def compare(cell: Cell, step: Step, isa_bound: float = 1e-11) -> None:
    given = problem(cell, 5, 3, 4, 7)
    y, state, tape = functional.cell_forward(cell, given["x"], given["state"], given["params"])
    grads = functional.cell_backward(tape, **gradients(y, state))
    found = {"y": y, "x": grads.x, **grads.params}
    found |= {f"state {i}": s for i, s in enumerate(state)}
    found |= {f"dstate {i}": s for i, s in enumerate(grads.state)}
    expected = by_hand(step, given)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-2)
        assert np.abs(found[name] - value).max() <= isa_bound * scale, name


@pytest.mark.usefixtures("isa")
def test_cascaded_is_the_network_whose_state_makes_the_weights() -> None:
    compare(cells.cascaded, cascaded_step)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("layers", "skip"), DEEP)
def test_deep_transition_is_the_loop(layers: int, skip: bool) -> None:
    compare(cells.deep_transition(layers, skip), deep_step(layers, skip))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("layers", "kind"), FEEDBACK)
def test_gated_feedback_is_the_loop(layers: int, kind: str) -> None:
    compare(cells.gated_feedback(layers, kind), feedback_step(layers, kind))


# ------------------------------------------------------------------------- exact relations


@cells.cell(state="h")
def gru_of_feedback(x: Any, h: Any) -> Any:
    """A GRU, reset after the product, with one bias of the candidate."""
    r = cells.sigmoid(cells.linear("r", x, h))
    z = cells.sigmoid(cells.linear("z", x, h))
    n = cells.tanh(cells.linear("n", x) + r * cells.linear("u", h, bias=False))
    return (1 - z) * n + z * h


STACKED: dict[str, tuple[Cell, dict[str, str]]] = {
    "tanh": (rnn, {"a": "n"}),
    "lstm": (lstm, {"i": "i", "f": "f", "g": "n", "o": "o"}),
    "gru": (gru_of_feedback, {"r": "r", "z": "z", "n": "n", "u": "u"}),
}
# Biases that make a unit's new value 1 when its weights are 0. The LSTM's c begins at 40.
CONSTANT = {"tanh": {"n": 40}, "lstm": {"i": -900, "f": 40, "o": 40, "n": 0}, "gru": {"z": 40}}


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gated_feedback_with_open_gates_and_no_cross_weights_is_the_stacked_network(
    kind: str, layers: int
) -> None:
    """A unit of the first layer stays 1, and is all that a gate sees: each gate is exactly 1."""
    T, B, I, H = 6, 3, 4, 5
    layer = Recurrent(cells.gated_feedback(layers, kind), I, H, dtype="float64", rng=0)
    for j in range(1, layers + 1):
        for i in range(1, layers + 1):
            gate = f"g_h{i}_{j}.weight_"
            for name, p in layer.params.items():
                if name.startswith(gate):
                    p[...] = 0
            layer.params[f"{gate}h1_l0"][0, 0] = 60
            if i != j:
                layer.params[f"{'u' if kind == 'gru' else 'n'}_{j}.weight_h{i}_l0"][...] = 0
    for name, bias in CONSTANT[kind].items():
        for source in ("x", "h", "h1"):
            if f"{name}_1.weight_{source}_l0" in layer.params:
                layer.params[f"{name}_1.weight_{source}_l0"][0] = 0
        layer.params[f"{name}_1.bias_l0"][0] = bias

    reference, names = STACKED[kind]
    stacked = Recurrent(reference, I, H, layers, dtype="float64")
    for name, p in stacked.params.items():
        linear, _, rest = name.rpartition("_l")[0].partition(".")
        j = int(name.rpartition("_l")[2]) + 1
        source = rest.removeprefix("weight_")
        if source == "h" and names[linear] == ("u" if kind == "gru" else "n"):
            source = f"h{j}"
        if source == "x" and j > 1:
            source = "below"
        rest = rest if rest == "bias" else f"weight_{source}"
        p[...] = layer.params[f"{names[linear]}_{j}.{rest}_l0"]

    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, B, I))
    h0 = rng.uniform(-1, 1, (layers, B, H))
    h0[0, :, 0] = 1
    c0 = rng.uniform(-1, 1, (layers, B, H))
    c0[0, :, 0] = 40
    both = kind == "lstm"
    each = [a[None] for a in (*h0, *c0)] if both else [a[None] for a in h0]
    state = each[0] if len(each) == 1 else tuple(each)
    y, after, tape = layer.forward(x, state)
    expected, last, stacked_tape = stacked.forward(x, (h0, c0) if both else h0)
    np.testing.assert_array_equal(y, expected)
    after = after if isinstance(after, tuple) else (after,)
    last = (*last[0], *last[1]) if both else (*last,)
    for found, wanted in zip(after, last, strict=True):
        np.testing.assert_array_equal(found[0], wanted)

    dy = rng.standard_normal(y.shape)
    dx, stacked_dx = layer.backward(tape, dy).input, stacked.backward(stacked_tape, dy).input
    np.testing.assert_allclose(dx, stacked_dx, rtol=0, atol=1e-13)


def test_one_layer_of_deep_transition_is_the_rnn() -> None:
    given = problem(rnn, 5, 3, 4, 7)
    y = functional.cell_forward(rnn, given["x"], given["state"], given["params"])[0]
    params = {name.replace("a.", "a1."): p for name, p in given["params"].items()}
    deep = cells.deep_transition(1)
    found = functional.cell_forward(deep, given["x"], given["state"], params)[0]
    np.testing.assert_array_equal(found, y)


def test_two_layers_of_deep_transition_are_a_jordan_network_with_tanh() -> None:
    """Its output is what it feeds back; sigmoid(2a) = (1 + tanh(a)) / 2 makes one of the other."""
    deep = problem(cells.deep_transition(2), 5, 3, 4, 7)
    p = deep["params"]
    jordan = {
        "a.weight_x": p["a1.weight_x"],
        "a.weight_s": 2 * p["a1.weight_h"],
        "a.bias": p["a1.bias"] - p["a1.weight_h"].sum(axis=1),
        "y.weight_a": 2 * p["a2.weight_below"],
        "y.bias": 2 * p["a2.bias"],
    }
    (h,) = deep["state"]
    expected = functional.cell_forward(cells.deep_transition(2), deep["x"], (h,), p)[0]
    y = functional.cell_forward(cells.jordan(), deep["x"], ((1 + h) / 2,), jordan)[0]
    np.testing.assert_allclose(2 * y - 1, expected, rtol=0, atol=1e-13)


# ----------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cells.deep_transition(0), "layers is 0, expected 1 to 64$"),
        (lambda: cells.deep_transition(1, skip=True), "layers is 1, expected 2 to 64 with skip"),
        (lambda: cells.gated_feedback(0), "layers is 0, expected 1 to 64$"),
        (lambda: cells.gated_feedback(65), "layers is 65, expected 1 to 64$"),
        (lambda: cells.jordan(1), "trace is 1, expected from 0 to less than 1$"),
        (lambda: cells.gated_feedback(2, "rnn"), "kind is 'rnn', expected one of tanh, lstm, gru"),
    ],
)
def test_wrong_values(make: Callable[[], Cell], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [cells.deep_transition, cells.gated_feedback])
def test_wrong_types(make: Any) -> None:
    with pytest.raises(TypeError, match="layers has type float, expected an integer"):
        make(2.0)
    with pytest.raises(TypeError, match="layers has type bool, expected an integer"):
        make(True)


def test_names_of_states_and_of_the_library() -> None:
    assert cells.gated_feedback(2, "lstm").states == ("h1", "h2", "c1", "c2")
    assert cells.gated_feedback(3, "gru").states == ("h1", "h2", "h3")
    assert cells.named("cascaded") is cells.cascaded
    assert cells.named("mgu") is cells.mgu
    assert cells.named("gated_feedback") is None
    assert cells.named("KINDS") is None
    assert {"cascaded", "deep_transition", "gated_feedback", "mgu"} <= set(dir(cells))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cells.nonsense  # noqa: B018
