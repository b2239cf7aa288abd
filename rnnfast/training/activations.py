"""Functions of each number, as layers without parameters and as functions: tanh, relu, sigmoid."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._core import checks
from .._described import Module
from ._array import Array
from .modules import ModuleGrads


def sigmoid(z: Array) -> Array:
    """`1 / (1 + exp(-z))`, without overflow for any `z`.

    Parameters
    ----------
    z : ndarray, any shape, float32 or float64

    Returns
    -------
    probabilities : ndarray, the shape and dtype of `z`
    """
    z = checks.of_floats("z", z)
    decay = np.exp(-np.abs(z))
    probabilities: Array = np.where(z >= 0, 1, decay) / (1 + decay)
    return probabilities


def softmax(z: Array, axis: int = -1) -> Array:
    """`exp(z_k) / sum_j exp(z_j)` over one axis, without overflow for any finite `z`.

    Parameters
    ----------
    z : ndarray, float32 or float64
    axis : int
        The axis of the classes.

    Returns
    -------
    probabilities : ndarray, the shape and dtype of `z`
        The largest `z` is subtracted first. A class with `z = -inf` has probability 0, unless all
        have.
    """
    z = checks.of_floats("z", z)
    p: Array = np.exp(z - z.max(axis=axis, keepdims=True, initial=-np.inf))
    p /= p.sum(axis=axis, keepdims=True)
    return p


class Function(NamedTuple):
    """An activation `y = value(x)` and its derivative, computed from x and y."""

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]


LEAK = 0.01  # of leaky_relu, as PyTorch's

# At a kink the slope is the one that PyTorch takes: 0 for relu, the leak for leaky_relu.
FUNCTIONS = {
    "elu": Function(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
                    lambda x, y: np.where(x > 0, 1, y + 1)),
    "identity": Function(np.copy, lambda x, y: np.ones_like(x)),
    "leaky_relu": Function(lambda x: np.where(x > 0, x, LEAK * x),
                           lambda x, y: np.where(x > 0, 1, LEAK)),
    "relu": Function(lambda x: np.maximum(x, 0), lambda x, y: x > 0),
    "sigmoid": Function(sigmoid, lambda x, y: y * (1 - y)),
    "silu": Function(lambda x: x * sigmoid(x), lambda x, y: sigmoid(x) * (1 + x - y)),
    "softplus": Function(lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
                         lambda x, y: sigmoid(x)),
    "tanh": Function(np.tanh, lambda x, y: 1 - y * y),
}  # fmt: skip


class ActivationTape(NamedTuple):
    """What `Activation.forward` leaves for `backward`."""

    x: Array
    y: Array


class Activation(Module):
    """A function of each number, as a layer: `y = f(x)`.

    Parameters
    ----------
    name : str
        "elu", "identity", "leaky_relu" (slope 0.01 below zero), "relu", "sigmoid", "silu"
        (`x sigmoid(x)`), "softplus" (`log(1 + exp(x))`) or "tanh".

    Attributes
    ----------
    name : str
    params : dict
        Empty.

    Raises
    ------
    ValueError
        There is no function of that name.

    Examples
    --------
    >>> relu = Activation("relu")
    >>> y, tape = relu.forward(np.array([-1.0, 2.0]))
    >>> relu.backward(tape, np.ones(2)).input
    array([0., 1.])
    """

    def __init__(self, name: str) -> None:
        checks.choice("name", name, FUNCTIONS)
        self.name = name
        self.params: dict[str, Array] = {}

    def __call__(self, x: Array) -> Array:
        """`f(x)`, in the shape and the dtype of x."""
        return FUNCTIONS[self.name].value(checks.of_floats("x", x))

    def forward(self, x: Array) -> tuple[Array, ActivationTape]:
        """Output and tape.

        Parameters
        ----------
        x : ndarray, any shape, float32 or float64
            Neither x nor y may be modified before `backward`: the tape refers to them.

        Returns
        -------
        y : ndarray, the shape of x
        tape : opaque
            For `backward`.
        """
        y = self(x)
        return y, ActivationTape(x, y)

    def backward(self, tape: ActivationTape, dy: Array) -> ModuleGrads:
        """Gradient of the input, `dx = dy f'(x)`; `params` is empty.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray, the shape of x

        Returns
        -------
        grads : ModuleGrads
        """
        checks.exact("dy", dy, tape.x.dtype, tape.x.shape)
        dx = dy * FUNCTIONS[self.name].slope(tape.x, tape.y)
        return ModuleGrads(dx.astype(dy.dtype, copy=False), {})
