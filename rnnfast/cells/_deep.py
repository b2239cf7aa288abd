"""Cells from the literature with several layers in one step, or weights that the state makes.

In the equations a prime marks the value of the step before, and W, U and b are the parameters of a
`linear`.
"""

from __future__ import annotations

from typing import Any

from ._cell import Cell, cell
from ._factory import factory, with_states
from ._functions import outer, sigmoid, tanh
from ._trace import Expression, linear

__all__ = ["cascaded", "deep_transition", "gated_feedback"]

KINDS = "tanh", "lstm", "gru"
MOST_LAYERS = 64  # a bound for what a file can ask for
Named = dict[str, Any]  # expressions by the names of their weights or states


@cell(state="z")
def cascaded(x: Expression, z: Expression) -> Named:
    """Sequential cascaded network, whose state makes the weights of the input (Pollack 1991).

    [y; z] = sigmoid(W [x; 1]) with W = C z' + C_0. The output y is one unit. Pollack's z begins as
    0.5, which is given as the initial state.
    """

    def unit(name: str, size: int) -> Expression:
        """(C z' + C_0) [x; 1], written out: C has weight_products and weight_z."""
        return sigmoid(linear(name, x, z, products=outer(z, x), size=size))

    return {"z": unit("z", z.size), "y": unit("y", 1)}


@factory
def deep_transition(layers: int = 2, skip: bool = False) -> Cell:
    """Return an RNN whose transition is a multilayer perceptron (Pascanu 2014, arXiv:1312.6026).

    The first layer is a_1 = tanh(W x + U h' + b), the further ones a_i = tanh(U_i a_(i-1) + b_i),
    and the last is h. With `skip` the last one sees h' too: the paper's DT(S)-RNN.
    """
    least = 2 if skip else 1
    _check_layers(layers, least, "with skip" if skip else "")

    def step(x: Expression, h: Expression) -> Expression:
        a = tanh(linear("a1", x, h))
        for layer in range(2, layers + 1):
            shortcut = (h,) if skip and layer == layers else ()
            a = tanh(linear(f"a{layer}", *shortcut, below=a))
        return a

    step.__name__ = f"deep_transition_{layers}{'_skip' if skip else ''}"
    return cell(state="h")(step)


@factory
def gated_feedback(layers: int = 2, kind: str = "tanh") -> Cell:
    """Return a gated feedback network (Chung et al. 2015, arXiv:1502.02367).

    In layer j the sum over all layers i, ``sum_i g_ij U_ij h_i'``, replaces U h' of the stacked
    network. The gate is one number: g_ij = sigmoid(w x_j + u [h_1', ..., h_L']). x_j is what the
    layer reads: x, or the new h_(j-1).

    kind "tanh" has h_j = tanh(W x_j + sum + b). "lstm" and "gru" have the sum in the candidate
    alone; the GRU's is reset after the product. The output is h_L.
    """
    _check_layers(layers, 1)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    numbers = range(1, layers + 1)

    def step(x: Expression, *states: Expression) -> Named:
        before: Named = {f"h{i}": states[i - 1] for i in numbers}
        new: Named = {}
        for j in numbers:
            below: Named = {"below": new[f"h{j - 1}"]} if j > 1 else {"x": x}
            gated: Named = {
                name: sigmoid(linear(f"g_{name}_{j}", size=1, bias=False, **below, **before)) * h
                for name, h in before.items()
            }
            if kind == "lstm":
                new |= _lstm_layer(j, below, before[f"h{j}"], states[layers + j - 1], gated)
            elif kind == "gru":
                new |= _gru_layer(j, below, before[f"h{j}"], gated)
            else:
                new[f"h{j}"] = tanh(linear(f"n_{j}", **below, **gated))
        return new | {"y": new[f"h{layers}"]}

    names = [f"{letter}{j}" for letter in ("hc" if kind == "lstm" else "h") for j in numbers]
    return with_states(f"gated_feedback_{layers}_{kind}", names, step)


def _lstm_layer(j: int, below: Named, h: Expression, c: Expression, gated: Named) -> Named:
    """One layer's new h and c."""
    i, f, o = (sigmoid(linear(f"{gate}_{j}", **below, h=h)) for gate in "ifo")
    c = f * c + i * tanh(linear(f"n_{j}", **below, **gated))
    return {f"h{j}": o * tanh(c), f"c{j}": c}


def _gru_layer(j: int, below: Named, h: Expression, gated: Named) -> Named:
    """One layer's new h."""
    r, z = (sigmoid(linear(f"{gate}_{j}", **below, h=h)) for gate in "rz")
    n = tanh(linear(f"n_{j}", **below) + r * linear(f"u_{j}", bias=False, **gated))
    return {f"h{j}": (1 - z) * n + z * h}


def _check_layers(layers: int, least: int, when: str = "") -> None:
    if isinstance(layers, bool) or not isinstance(layers, int):
        raise TypeError(f"layers has type {type(layers).__name__}, expected an integer")
    if not least <= layers <= MOST_LAYERS:
        bounds = f"{least} to {MOST_LAYERS} {when}".rstrip()
        raise ValueError(f"layers is {layers}, expected {bounds}")
