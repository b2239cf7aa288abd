"""The functions that a cell may call besides `linear` and `vector`."""

from __future__ import annotations

from numbers import Real

from ._trace import Expression, Operand, apply, refuse, value_of

__all__ = [
    "abs", "clip", "exp", "log", "maximum", "mean", "minimum", "normalize", "outer", "relu",
    "sigmoid", "softmax", "softplus", "sqrt", "tanh", "total", "where",
]  # fmt: skip


def sigmoid(v: Operand) -> Expression:
    """Return ``1 / (1 + exp(-v))``."""
    return apply("sigmoid", v)


def tanh(v: Operand) -> Expression:
    """Return the hyperbolic tangent."""
    return apply("tanh", v)


def relu(v: Operand) -> Expression:
    """Return ``max(v, 0)``. The derivative at 0 is 0."""
    return apply("relu", v)


def exp(v: Operand) -> Expression:
    """Return e to the power of v."""
    return apply("exp", v)


def log(v: Operand) -> Expression:
    """Return the natural logarithm."""
    return apply("log", v)


def sqrt(v: Operand) -> Expression:
    """Return the square root."""
    return apply("sqrt", v)


def softplus(v: Operand) -> Expression:
    """Return ``log(1 + exp(v))``, which does not overflow."""
    return apply("softplus", v)


def abs(v: Operand) -> Expression:
    """Return the absolute value. The derivative at 0 is 0."""
    return apply("abs", v)


def minimum(a: Operand, b: Operand) -> Expression:
    """Return the smaller of both. Where they are equal each gets half of the gradient."""
    return apply("minimum", a, b)


def maximum(a: Operand, b: Operand) -> Expression:
    """Return the larger of both. Where they are equal each gets half of the gradient."""
    return apply("maximum", a, b)


def clip(v: Operand, lo: float, hi: float) -> Expression:
    """Return v limited to lo .. hi. The gradient passes inside, at both limits too."""
    for name, limit in (("lo", lo), ("hi", hi)):
        if not isinstance(limit, Real):
            refuse(f"clip takes numbers, and {name} is a {type(limit).__name__}; use maximum")
    if lo > hi:
        refuse(f"clip has the limits {lo} and {hi}, expected lo <= hi")
    below = apply("where", apply("less", hi, v), hi, v)  # NaN is not less than anything: it stays
    return apply("where", apply("less", v, lo), lo, below)


def where(condition: Operand, a: Operand, b: Operand) -> Expression:
    """Return a where the condition is not zero, elsewhere b. The condition has no gradient."""
    return apply("where", condition, a, b)


def outer(a: Expression, b: Expression) -> Expression:
    """Return all products of an element of a and one of b, flattened, a's index first."""
    return apply("outer", a, b)


def total(v: Operand) -> Expression:
    """Return the sum over the units of each row, of size 1."""
    return apply("total", v)


def mean(v: Operand) -> Expression:
    """Return the mean over the units of each row, of size 1."""
    return total(v) * (1 / value_of(v).size)


def normalize(v: Expression, eps: float = 1e-5) -> Expression:
    """Return ``(v - mean(v)) / sqrt(variance(v) + eps)`` over the units of each row."""
    return apply("normalized", v, apply("inverse_deviation", v, eps))


def softmax(v: Expression) -> Expression:
    """Return ``exp(v) / total(exp(v))`` over the units of each row, which does not overflow."""
    weights = exp(v - apply("largest", v))
    return weights / total(weights)
