"""Group: cells of one's own beside the same equations in JAX and PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
from clock import Clock, Row, Run, Sizes, SkipError, must_agree, one_thread_for_torch

import rnnfast
from rnnfast import cells as library
from rnnfast.bench.cases import DIRECTIONS, SHAPES
from rnnfast.bench.peers import missing

# Goals by shape and direction: how many times as fast as the fastest of the others.
GATED = {
    ("small", "forward"): 3.0, ("small", "training"): 3.0,
    ("medium", "forward"): 1.5, ("medium", "training"): 1.5,
}  # fmt: skip
GOALS = {
    "peephole_lstm": GATED,
    "layer_norm_lstm": GATED,
    "multiplicative_lstm": GATED,
    "mgu": {(s, d): {"forward": 1.2, "training": 1.5}[d] for s, d in GATED},
    "indrnn": dict.fromkeys(GATED, 1.0),
}

# A layer norm in every step makes differences grow: both libraries are some 1e-4 from float64.
GROWTH = {"layer_norm_lstm": 10}

# The equations, for any library. `p` has the weights of gates side by side, (sources, units);
# `ahead` computes what needs no state, for all steps at once; `step` returns the new states.


def peephole_ahead(o: Any, p: Any, x: Any) -> Any:
    return x @ p.x + p.bias


def peephole_step(o: Any, p: Any, a: Any, h: Any, c: Any) -> Any:
    i, f, g, out = o.split(a + h @ p.h, 4)
    i, f = o.sigmoid(i + p.p_i * c), o.sigmoid(f + p.p_f * c)
    c = f * c + i * o.tanh(g)
    return o.sigmoid(out + p.p_o * c) * o.tanh(c), c


def normalized(o: Any, a: Any, gain: Any) -> Any:
    """Each of four gates by itself."""
    return [o.normalize(part) * gain[k] for k, part in enumerate(o.split(a, 4))]


def layer_norm_ahead(o: Any, p: Any, x: Any) -> Any:
    return o.join([n + p.bias[k] for k, n in enumerate(normalized(o, x @ p.x, p.gain_x))])


def layer_norm_step(o: Any, p: Any, a: Any, h: Any, c: Any) -> Any:
    from_h = normalized(o, h @ p.h, p.gain_h)
    i, f, g, out = (x + n for x, n in zip(o.split(a, 4), from_h, strict=True))
    c = o.sigmoid(f) * c + o.sigmoid(i) * o.tanh(g)
    return o.sigmoid(out) * o.tanh(o.normalize(c) * p.c_gain + p.c_b), c


def multiplicative_step(o: Any, p: Any, a: Any, h: Any, c: Any) -> Any:
    m_x, *_ = parts = o.split(a, 5)
    gates = o.split((m_x * (h @ p.m_h)) @ p.h, 4)
    i, f, g, out = (x + n for x, n in zip(parts[1:], gates, strict=True))
    c = o.sigmoid(f) * c + o.sigmoid(i) * o.tanh(g)
    return o.sigmoid(out) * o.tanh(c), c


def mgu_step(o: Any, p: Any, a: Any, h: Any) -> Any:
    a_f, a_n = o.split(a, 2)
    f = o.sigmoid(a_f + h @ p.f_h)
    return ((1 - f) * h + f * o.tanh(a_n + (f * h) @ p.n_h),)


def indrnn_step(o: Any, p: Any, a: Any, h: Any) -> Any:
    return (o.relu(a + p.u * h),)


LINEARS = {
    "peephole_lstm": "i f g o",
    "multiplicative_lstm": "m_x i f g o",
    "mgu": "f n",
    "indrnn": "a",
}


def side_by_side(params: Any, names: str, end: str) -> Any:
    """Parameters of several linears in one array, weights transposed."""
    parts = [params[f"{name}{end}"] for name in names.split()]
    return np.concatenate([part.T for part in parts], axis=-1)


def weights_of(cell: str, params: Any) -> dict[str, Any]:
    """The arrays that the equations above take, from a layer's parameters without suffix."""
    if cell == "layer_norm_lstm":
        gates = "ifgo"
        return {
            "x": side_by_side(params, "i_x f_x g_x o_x", ".weight_x"),
            "h": side_by_side(params, "i_h f_h g_h o_h", ".weight_h"),
            "gain_x": np.stack([params[f"{g}_gain_x"] for g in gates]),
            "gain_h": np.stack([params[f"{g}_gain_h"] for g in gates]),
            "bias": np.stack([params[f"{g}_b"] for g in gates]),
            "c_gain": params["c_gain"],
            "c_b": params["c_b"],
        }
    names = LINEARS[cell]
    own = {end: side_by_side(params, names, f".{end}") for end in ("weight_x", "bias")}
    own["x"] = own.pop("weight_x")
    if cell == "peephole_lstm":
        peepholes = {name: params[name] for name in ("p_i", "p_f", "p_o")}
        return own | {"h": side_by_side(params, names, ".weight_h")} | peepholes
    if cell == "multiplicative_lstm":
        m_h = params["m_h.weight_h"].T.copy()
        return own | {"h": side_by_side(params, "i f g o", ".weight_m"), "m_h": m_h}
    if cell == "mgu":
        f, n = params["f.weight_h"], params["n.weight_gated"]
        return own | {"f_h": f.T.copy(), "n_h": n.T.copy()}
    return own | {"u": params["u"]}


EQUATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "peephole_lstm": (peephole_ahead, peephole_step, 2),
    "layer_norm_lstm": (layer_norm_ahead, layer_norm_step, 2),
    "multiplicative_lstm": (peephole_ahead, multiplicative_step, 2),
    "mgu": (peephole_ahead, mgu_step, 1),
    "indrnn": (peephole_ahead, indrnn_step, 1),
}


def cell_peers(clock: Clock) -> Iterator[Row]:
    """Speed of cells over the faster of JAX and PyTorch, the latter as it is and compiled."""
    found = [name for name in ("jax", "torch") if not missing(name)]
    if not found:
        raise SkipError("neither JAX nor PyTorch is installed")
    if "torch" in found:
        one_thread_for_torch()
    for cell, shape, direction in product(clock.some(list(GOALS)), ("small", "medium"), DIRECTIONS):
        yield beside(clock, cell, shape, direction, found)


def beside(clock: Clock, cell: str, shape: str, direction: str, others: list[str]) -> Row:
    what = f"{shape} {cell} {direction}"
    layer, x, dy = case(cell, SHAPES[shape])
    runs: dict[str, Run] = {"rnnfast": our_run(layer, x, dy, direction)}
    if "jax" in others:
        for unroll in (1, 16):
            runs[f"JAX, unroll {unroll}"] = jax_run(cell, layer, x, dy, direction, unroll)
    if "torch" in others:
        runs["PyTorch"] = torch_run(cell, layer, x, dy, direction, compiled=False)
        runs["PyTorch, compiled"] = torch_run(cell, layer, x, dy, direction, compiled=True)
    ours = runs["rnnfast"]()
    for name, run in runs.items():
        theirs = [np.asarray(part) for part in run()[:2]]
        must_agree(f"{what}, {name}", ours[:2], theirs, GROWTH.get(cell, 1))
    times = clock.best(what, runs, pause=0.03)
    fastest = min((name for name in times if name != "rnnfast"), key=lambda name: times[name])
    note = ", ".join(f"{name} {1e3 * t:.3g} ms" for name, t in times.items())
    goal = GOALS[cell][shape, direction]
    return Row(what, times[fastest] / times["rnnfast"], "x", goal, at_least=True, note=note)


def case(cell: str, sizes: Sizes) -> tuple[Any, Any, Any]:
    """A layer, its input, and the gradient of its output."""
    T, B, I, H = sizes
    layer = rnnfast.Recurrent(getattr(library, cell), I, H, rng=0)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, B, I), dtype=np.float32)
    return layer, x, rng.standard_normal((T, B, H), dtype=np.float32)


def our_run(layer: Any, x: Any, dy: Any, direction: str) -> Run:
    if direction == "forward":
        stream = layer.stream(x.shape[1])

        def inference() -> tuple[Any, ...]:
            stream.reset()
            return (stream.run(x),)

        return inference

    def training() -> tuple[Any, ...]:
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, dy)
        return y, grads.input, *grads.params.values()

    return training


def given(cell: str, layer: Any) -> dict[str, Any]:
    return weights_of(cell, {name.removesuffix("_l0"): p for name, p in layer.params.items()})


def jax_run(cell: str, layer: Any, x: Any, dy: Any, direction: str, unroll: int) -> Run:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    import jax
    from jax import numpy as jnp

    def normalize(v: Any) -> Any:
        centred = v - v.mean(axis=-1, keepdims=True)
        return centred / jnp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)

    def split(v: Any, n: int) -> Any:
        return jnp.split(v, n, axis=-1)

    o = SimpleNamespace(
        sigmoid=jax.nn.sigmoid, tanh=jnp.tanh, relu=jax.nn.relu, split=split, normalize=normalize,
        join=lambda parts: jnp.concatenate(parts, axis=-1),
    )  # fmt: skip
    ahead, step, states = EQUATIONS[cell]
    weights = {name: jnp.asarray(w) for name, w in given(cell, layer).items()}

    def forward(x: Any, weights: Any) -> Any:
        p = SimpleNamespace(**weights)
        zeros = (jnp.zeros((x.shape[1], layer.hidden_size), x.dtype),) * states

        def one(state: Any, a: Any) -> Any:
            state = step(o, p, a, *state)
            return state, state[0]

        return jax.lax.scan(one, zeros, ahead(o, p, x), unroll=unroll)[1]

    def training(x: Any, weights: Any, dy: Any) -> Any:
        y, backward = jax.vjp(forward, x, weights)
        return y, *backward(dy)

    x, dy = jnp.asarray(x), jnp.asarray(dy)
    if direction == "forward":
        inference = jax.jit(lambda x: forward(x, weights))  # the weights as constants
        return lambda: (jax.block_until_ready(inference(x)),)
    compiled = jax.jit(training)
    return lambda: tuple(jax.block_until_ready(compiled(x, weights, dy)))


def torch_run(cell: str, layer: Any, x: Any, dy: Any, direction: str, compiled: bool) -> Run:
    import torch

    def normalize(v: Any) -> Any:
        return torch.nn.functional.layer_norm(v, v.shape[-1:], eps=1e-5)

    o = SimpleNamespace(
        sigmoid=torch.sigmoid, tanh=torch.tanh, relu=torch.relu, normalize=normalize,
        split=lambda v, n: v.chunk(n, dim=-1), join=lambda parts: torch.cat(parts, dim=-1),
    )  # fmt: skip
    ahead, equations, states = EQUATIONS[cell]
    train = direction == "training"
    weights = {
        name: torch.from_numpy(np.array(w)).requires_grad_(train)
        for name, w in given(cell, layer).items()
    }
    p = SimpleNamespace(**weights)

    def one(a: Any, *state: Any) -> Any:
        return equations(o, p, a, *state)

    step = one
    if compiled:
        torch._dynamo.reset()  # what was compiled for another cell does not fit this one
        step = torch.compile(one)
    x, dy = torch.from_numpy(x.copy()).requires_grad_(train), torch.from_numpy(dy)

    def forward() -> Any:
        state = (torch.zeros(x.shape[1], layer.hidden_size),) * states
        y = []
        for a in ahead(o, p, x).unbind():
            state = step(a, *state)
            y.append(state[0])
        return torch.stack(y)

    def inference() -> tuple[Any, ...]:
        with torch.inference_mode():
            return (forward(),)

    def training() -> tuple[Any, ...]:
        y = forward()
        return y.detach(), *torch.autograd.grad(y, [x, *weights.values()], dy)

    return training if train else inference
