"""Real-time recurrent learning: the exact gradient of every step, as it comes, without a tape.

Backpropagation through time needs the sequence's end. This carries the derivative of every unit by
every weight along instead, so that the weights can change at each step of a sequence without end:

    online = RTRL(layer)
    for x, target in steps:
        y = online.step(x)
        optimizer.step(online.gradient(y - target))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import checks
from .._described import Described
from ..layers import RNN
from ..reference import _ACTIVATIONS
from ._array import Array


class RTRL(Described):
    """Real-time recurrent learning of an RNN (Williams & Zipser 1989).

    With `z = [h'; x; 1]`, `a = W z` and `h = act(a)`, the derivative of unit k before its
    activation is `S[k, i, j] = da_k / dW_ij`. A step carries it on:
    `S = W_hh diag(act'(a')) S' + [k = i] z_j`. The gradient of a loss of this step alone is
    `dW = sum_k dh_k act'(a_k) S[k]`. It is exact as long as W stays as it is. Where W changes from
    step to step, it is close for small changes.

    A step of H units takes O(H^3 (H + I)) operations for each batch row, and S has H^2 (H + I + 1)
    numbers: this is for small networks.

    Parameters
    ----------
    layer : RNN
        One layer, one direction. Its `params` are read anew at every step; best in float64.
    batch_size : int
        B.

    Attributes
    ----------
    state : ndarray (B, H)
        h after the last step.

    Raises
    ------
    TypeError
        `layer` is no RNN, or `batch_size` no integer.
    ValueError
        `layer` has several layers or two directions, or `batch_size` is below 1.

    Examples
    --------
    >>> layer = rnnfast.RNN(2, 6, nonlinearity="sigmoid", dtype=np.float64, rng=0)
    >>> online, optimizer = RTRL(layer), SGD(layer, lr=0.1)
    >>> for x, target in [([0.0, 1.0], 1.0), ([1.0, 1.0], 0.0)]:
    ...     y = online.step(np.array(x))
    ...     dy = np.zeros(6)
    ...     dy[0] = y[0] - target
    ...     optimizer.step(online.gradient(dy))
    """

    def __init__(self, layer: RNN, batch_size: int = 1) -> None:
        if not isinstance(layer, RNN):
            raise TypeError(f"layer has type {type(layer).__name__}, expected rnnfast.RNN")
        if layer.num_layers > 1 or layer.bidirectional:
            raise ValueError(
                f"layer has num_layers={layer.num_layers}, bidirectional={layer.bidirectional}, "
                "expected one layer and one direction"
            )
        self.layer = layer
        self._batch = checks.integer("batch_size", batch_size, 1)
        self._activation, self._slope = _ACTIVATIONS[layer.nonlinearity]
        self._unit = np.arange(layer.hidden_size)
        sources = layer.hidden_size + layer.input_size + layer.bias
        self._z = np.ones((self._batch, sources), layer.dtype)
        self.reset()

    def _option(self, name: str) -> Any:
        return self._batch if name == "batch_size" else self.layer

    def reset(self) -> None:
        """Start again: the state and its derivatives become zero."""
        B, H, dtype = self._batch, self.layer.hidden_size, self.layer.dtype
        self.state: Array = np.zeros((B, H), dtype)
        self._derivatives: Array = np.zeros((B, H, H * self._z.shape[1]), dtype)  # S
        self._spare: Array = np.empty_like(self._derivatives)

    def step(self, x: Array) -> Array:
        """Take one step.

        Parameters
        ----------
        x : ndarray (B, I), or (I,) if B is 1

        Returns
        -------
        h : ndarray (B, H), or (H,)

        Raises
        ------
        TypeError, ValueError
            `x` has another dtype or shape.
        """
        H, I = self.layer.hidden_size, self.layer.input_size
        x, batched = self._rows("x", x, I, "I")
        w_ih, w_hh, *biases = (p for p in self.layer._check_params()[0] if p is not None)
        self._z[:, :H], self._z[:, H : H + I] = self.state, x
        through = w_hh * self._slope(self.state)[:, None, :]
        new = np.matmul(through, self._derivatives, out=self._spare)
        new.reshape(-1, H, H, self._z.shape[1])[:, self._unit, self._unit] += self._z[:, None, :]
        self._derivatives, self._spare = new, self._derivatives
        a = x @ w_ih.T + self.state @ w_hh.T + sum(biases)
        self.state = self._activation(a)
        return self.state.copy() if batched else self.state[0].copy()

    def gradient(self, dh: Array, *, preactivation: bool = False) -> dict[str, Array]:
        """Return the gradients of a loss of the last step.

        Parameters
        ----------
        dh : ndarray (B, H), or (H,) if B is 1
            The gradient of the loss by the output of the last step; zero for units without target.
        preactivation : bool
            Whether it is that by the units' values before the activation. For the cross-entropy of
            a sigmoid unit that is output minus target.

        Returns
        -------
        grads : dict of str to ndarray
            By the names of `layer.params`, summed over the batch.

        Raises
        ------
        TypeError, ValueError
            `dh` has another dtype or shape.
        """
        H, I = self.layer.hidden_size, self.layer.input_size
        da, _ = self._rows("dh", dh, H, "H")
        if not preactivation:
            da = da * self._slope(self.state)
        w = (da.reshape(-1) @ self._derivatives.reshape(da.size, -1)).reshape(H, -1)
        grads = {"weight_ih_l0": w[:, H : H + I].copy(), "weight_hh_l0": w[:, :H].copy()}
        if self.layer.bias:
            grads |= {"bias_ih_l0": w[:, -1].copy(), "bias_hh_l0": w[:, -1].copy()}
        return grads

    def _rows(self, name: str, value: Any, size: int, letter: str) -> tuple[Array, bool]:
        """Check an argument, as (B, size), and say whether it had the batch axis."""
        checks.of_dtype(name, value, self.layer.dtype)
        batched = value.ndim != 1 or self._batch != 1
        shape = (self._batch, size) if batched else (size,)
        checks.of_shape(name, value, shape, f"(B, {letter})" if batched else f"({letter},)")
        return value.reshape(self._batch, size), batched
