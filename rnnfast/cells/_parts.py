"""What several cells of the library share."""

from __future__ import annotations

from collections.abc import Sequence

from ._functions import sigmoid, tanh
from ._trace import Expression, linear

Pair = tuple[Expression, Expression]


def lstm_step(x: Expression, seen: Sequence[Expression], c: Expression) -> Pair:
    """The new h and c of an LSTM; `seen` has what i, f, g and o see of h by their weights."""
    a = [linear(name, x, h=h) for name, h in zip("ifgo", seen, strict=True)]
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), tanh(a[2]), sigmoid(a[3])
    c = f * c + i * g
    return o * tanh(c), c


def gru_step(x: Expression, seen: Sequence[Expression], h: Expression) -> Expression:
    """The new h of a GRU, reset after the product; `seen` has what r, z and n see of the old h."""
    r, z = (sigmoid(linear(name, x, h=own)) for name, own in zip("rz", seen[:2], strict=True))
    n = tanh(linear("n_x", x) + r * linear("n_h", h=seen[2]))
    return (1 - z) * n + z * h
