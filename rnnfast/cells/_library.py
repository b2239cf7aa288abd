"""Cells from the literature, each in a few lines.

In the equations a prime marks the value of the step before, and W, U and b are the parameters of a
`linear`.
"""

from __future__ import annotations

from typing import Any

from ._cell import Cell, cell
from ._factory import factory, with_states
from ._functions import exp, maximum, normalize, outer, relu, sigmoid, tanh
from ._trace import Expression, linear, vector

__all__ = [
    "ctrnn", "gru_relu", "indrnn", "janet", "jordan", "layer_norm_gru", "layer_norm_lstm",
    "leaky_rnn", "ligru", "lstm_variant", "mgu", "min_gru", "min_lstm", "multiplicative_lstm",
    "multiplicative_rnn", "peephole_lstm", "second_order", "slstm", "sru", "ugrnn",
]  # fmt: skip

Pair = tuple[Expression, Expression]


@cell(state="h c")
def peephole_lstm(x: Expression, h: Expression, c: Expression) -> Pair:
    """LSTM whose gates see the cell state (Gers & Schmidhuber 2000).

    i and f see c', o sees the new c, each by a weight per unit.
    """
    i = sigmoid(linear("i", x, h) + vector("p_i") * c)
    f = sigmoid(linear("f", x, h) + vector("p_f") * c)
    c = f * c + i * tanh(linear("g", x, h))
    o = sigmoid(linear("o", x, h) + vector("p_o") * c)
    return o * tanh(c), c


VARIANTS = "vanilla", "NP", "CIFG", "NIG", "NFG", "NOG", "NIAF", "NOAF", "FGR"


@factory
def lstm_variant(name: str) -> Cell:
    """Return a variant of the LSTM as Greff et al. (2017, arXiv:1503.04069) name it.

    vanilla: with peepholes. NP: without them. CIFG: f = 1 - i. NIG, NFG, NOG: without the input,
    forget or output gate. NIAF, NOAF: no activation of g, of c. FGR: gates see all gates of the
    step before.
    """
    if name not in VARIANTS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(VARIANTS)}")
    peepholes, full = name != "NP", name == "FGR"

    def gate(which: str, x: Expression, h: Expression, c: Expression, *gates: Expression) -> Any:
        if name == {"i": "NIG", "f": "NFG", "o": "NOG"}[which]:
            return 1.0
        a = linear(which, x, h, *gates)
        return sigmoid(a + vector(f"p_{which}") * c if peepholes else a)

    def step(x: Expression, h: Expression, c: Expression, *gates: Expression) -> Any:
        i = gate("i", x, h, c, *gates)
        f = 1 - i if name == "CIFG" else gate("f", x, h, c, *gates)
        g = linear("g", x, h)
        c = f * c + i * (g if name == "NIAF" else tanh(g))
        o = gate("o", x, h, c, *gates)
        h = o * (c if name == "NOAF" else tanh(c))
        return (h, c, i, f, o) if full else (h, c)

    return with_states(f"lstm_{name}", ["h", "c", "i", "f", "o"] if full else ["h", "c"], step)


@cell(state="h c")
def multiplicative_lstm(x: Expression, h: Expression, c: Expression) -> Pair:
    """LSTM fed back m = (W_mx x) (W_mh h') instead of h' (Krause et al. 2016, arXiv:1609.07959)."""
    m = linear("m_x", x) * linear("m_h", h, bias=False)
    i, f = sigmoid(linear("i", x, m=m)), sigmoid(linear("f", x, m=m))
    c = f * c + i * tanh(linear("g", x, m=m))
    return sigmoid(linear("o", x, m=m)) * tanh(c), c


@cell(state="h")
def multiplicative_rnn(x: Expression, h: Expression) -> Expression:
    """h = tanh(W x + U m + b), m = (W_m x) (U_m h') (Sutskever, Martens & Hinton 2011)."""
    m = linear("m_x", x, bias=False) * linear("m_h", h, bias=False)
    return tanh(linear("h", x, m=m))


@cell(state="h c")
def layer_norm_lstm(x: Expression, h: Expression, c: Expression) -> Pair:
    """LSTM with layer normalisation of the products and of c (Ba et al. 2016, arXiv:1607.06450).

    Each gate is normalised by itself.
    """

    def gate(name: str) -> Expression:
        from_x = normalize(linear(f"{name}_x", x, bias=False)) * vector(f"{name}_gain_x", init=1.0)
        from_h = normalize(linear(f"{name}_h", h, bias=False)) * vector(f"{name}_gain_h", init=1.0)
        return from_x + from_h + vector(f"{name}_b")

    i, f, g, o = sigmoid(gate("i")), sigmoid(gate("f")), tanh(gate("g")), sigmoid(gate("o"))
    c = f * c + i * g
    return o * tanh(normalize(c) * vector("c_gain", init=1.0) + vector("c_b")), c


@cell(state="h")
def layer_norm_gru(x: Expression, h: Expression) -> Expression:
    """GRU, reset after the product, with layer normalisation of the products (Ba et al. 2016)."""

    def normal(name: str, source: Expression) -> Expression:
        return normalize(linear(name, source, bias=False)) * vector(f"{name}_gain", init=1.0)

    r = sigmoid(normal("r_x", x) + normal("r_h", h) + vector("r_b"))
    z = sigmoid(normal("z_x", x) + normal("z_h", h) + vector("z_b"))
    n = tanh(normal("n_x", x) + vector("n_bx") + r * (normal("n_h", h) + vector("n_bh")))
    return (1 - z) * n + z * h


@cell(state="h")
def indrnn(x: Expression, h: Expression) -> Expression:
    """Independently recurrent: h = relu(W x + b + u h') (Li et al. 2018, arXiv:1803.04831)."""
    return relu(linear("a", x) + vector("u", init=1.0) * h)


@cell(state="h")
def mgu(x: Expression, h: Expression) -> Expression:
    """Minimal gated unit, one gate f (Zhou et al. 2016, arXiv:1603.09420)."""
    f = sigmoid(linear("f", x, h))
    return (1 - f) * h + f * tanh(linear("n", x, gated=f * h))


@cell(state="h")
def ligru(x: Expression, h: Expression) -> Expression:
    """Light GRU: no reset gate, relu candidate (Ravanelli et al. 2018, arXiv:1803.10225).

    Without the batch normalisation of the paper.
    """
    z = sigmoid(linear("z", x, h))
    return z * h + (1 - z) * relu(linear("n", x, h))


@cell(state="h")
def ugrnn(x: Expression, h: Expression) -> Expression:
    """Update gate RNN: h = g h' + (1 - g) n (Collins et al. 2017, arXiv:1611.09913)."""
    g = sigmoid(linear("g", x, h))
    return g * h + (1 - g) * tanh(linear("n", x, h))


@cell(state="h")
def janet(x: Expression, h: Expression) -> Expression:
    """Just another network: an LSTM with a forget gate only, and beta = 1.

    h = f h' + (1 - sigmoid(s - 1)) tanh(.), f = sigmoid(s) (van der Westhuizen & Lasenby 2018,
    arXiv:1804.04849).
    """
    s = linear("f", x, h)
    return sigmoid(s) * h + (1 - sigmoid(s - 1)) * tanh(linear("g", x, h))


@cell(state="h")
def gru_relu(x: Expression, h: Expression) -> Expression:
    """GRU, reset before the product, with a relu candidate, as in RNNoise (Valin 2018)."""
    r, z = sigmoid(linear("r", x, h)), sigmoid(linear("z", x, h))
    return (1 - z) * relu(linear("n", x, gated=r * h)) + z * h


@cell(state="h", extra="k", sizes={"k": 1})
def leaky_rnn(x: Expression, h: Expression, k: Expression) -> Expression:
    """h = (1 - k) h' + k tanh(W x + U h' + b), the unit of an echo state network (Jaeger 2001).

    k is the leak, an extra input: one number, or one for each step.
    """
    return (1 - k) * h + k * tanh(linear("a", x, h))


@cell(state="v", extra="k", sizes={"k": 1})
def ctrnn(x: Expression, v: Expression, k: Expression) -> Any:
    """Continuous-time RNN by Euler's method: v += k (-v + W x + U y' + b), y = sigmoid(v).

    k is the step over the time constant (Beer 1995).
    """
    v = v + k * (linear("a", x, y=sigmoid(v)) - v)
    return {"v": v, "y": sigmoid(v)}


@factory
def jordan(trace: float = 0.0) -> Cell:
    """Return a Jordan network, whose hidden units see a trace of the outputs (Jordan 1986).

    y = sigmoid(W a + b) with a = tanh(U x + R s' + b_a), and s = trace s' + y. Without a trace, s
    is the last output.
    """
    if not 0 <= trace < 1:
        raise ValueError(f"trace is {trace}, expected from 0 to less than 1")

    def step(x: Expression, s: Expression) -> dict[str, Expression]:
        y = sigmoid(linear("y", a=tanh(linear("a", x, s)), size=s.size))
        return {"s": trace * s + y, "y": y}

    step.__name__ = f"jordan_{trace:g}"
    return cell(state="s")(step)


@cell(state="h")
def second_order(x: Expression, h: Expression) -> Expression:
    """h = sigmoid(W p + b), p all products of an input and a unit (Giles et al. 1992)."""
    return sigmoid(linear("a", products=outer(h, x)))


@cell(state="h")
def min_gru(x: Expression, h: Expression) -> Expression:
    """Minimal GRU whose gates see only x (Feng et al. 2024, arXiv:2410.01201)."""
    z = sigmoid(linear("z", x))
    return (1 - z) * h + z * linear("n", x)


@cell(state="h")
def min_lstm(x: Expression, h: Expression) -> Expression:
    """Minimal LSTM whose gates see only x and add up to 1 (Feng et al. 2024, arXiv:2410.01201)."""
    f, i = sigmoid(linear("f", x)), sigmoid(linear("i", x))
    return (f * h + i * linear("n", x)) / (f + i)


@cell(state="h c")
def sru(x: Expression, h: Expression, c: Expression) -> Pair:
    """Simple recurrent unit without its highway (Lei et al. 2018, arXiv:1709.02755).

    f and r see x, and c' by a weight per unit; h = r c.
    """
    f = sigmoid(linear("f", x) + vector("v_f") * c)
    r = sigmoid(linear("r", x) + vector("v_r") * c)
    c = f * c + (1 - f) * linear("n", x, bias=False)
    return r * c, c


@cell(state="h c n m")
def slstm(x: Expression, h: Expression, c: Expression, n: Expression, m: Expression) -> Any:
    """LSTM with exponential gates (Beck et al. 2024, arXiv:2405.04517).

    n normalises, m keeps the exponentials in range.
    """
    i, f = linear("i", x, h), linear("f", x, h)
    new_m = maximum(f + m, i)
    i, f = exp(i - new_m), exp(f + m - new_m)
    c, n = f * c + i * tanh(linear("z", x, h)), f * n + i
    return sigmoid(linear("o", x, h)) * c / n, c, n, new_m
