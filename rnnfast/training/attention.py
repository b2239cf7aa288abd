"""Attention: each query looks at all keys and gets the mean of the values that they point to."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._core import checks
from .._described import Module
from ._array import Array, check_lengths
from .activations import softmax


class AttentionTape(NamedTuple):
    """What `Attention.forward` leaves for `backward`: its arguments, batch first; the weights."""

    queries: Array
    keys: Array
    values: Array
    weights: Array


class AttentionGrads(NamedTuple):
    """Gradients of the arguments, in their shapes; `params` is empty."""

    queries: Array
    keys: Array
    values: Array
    params: dict[str, Array]


class Attention(Module):
    """Dot-product attention: `y_t = sum_s a_ts v_s`, `a_t = softmax over s of q_t . k_s`.

    In a translator the decoder's outputs are the queries, and the encoder's outputs are keys and
    values. Their gradients are then the sum of `grads.keys` and `grads.values`.

    Attributes
    ----------
    params : dict
        Empty: what the queries and the keys see of a state is up to a `Linear` before.

    Notes
    -----
    Source: Luong, Pham & Manning, Effective approaches to attention-based neural machine
    translation (2015), arXiv 1508.04025, the score "dot".

    Examples
    --------
    >>> attention, rng = Attention(), np.random.default_rng(0)
    >>> read, written = rng.standard_normal((7, 2, 4)), rng.standard_normal((5, 2, 4))
    >>> attention(written, read, read, lengths=np.array([7, 3])).shape
    (5, 2, 4)
    """

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}

    def __call__(self, queries: Array, keys: Array, values: Array, lengths: Any = None) -> Array:
        """`y (T, B, V)`; arguments and errors as of `forward`."""
        return self.forward(queries, keys, values, lengths)[0]

    def forward(
        self, queries: Array, keys: Array, values: Array, lengths: Any = None
    ) -> tuple[Array, AttentionTape]:
        """Output and tape.

        Parameters
        ----------
        queries : ndarray (T, B, H), float32 or float64
        keys : ndarray (S, B, H), the dtype of `queries`
        values : ndarray (S, B, V), the dtype of `queries`
        lengths : ndarray (B,), integer, optional
            The keys of each row, `0 <= lengths <= S`; all `S` if omitted. Those beyond are padding
            and are not read.

        Returns
        -------
        y : ndarray (T, B, V)
            Zero in a row without keys.
        tape : opaque
            For `backward`, with `tape.weights (B, T, S)`. The arguments are not to be modified
            before: the tape refers to them.

        Raises
        ------
        TypeError, ValueError
            A wrong dtype or shape, or a length out of range.
        """
        _check_arguments(queries, keys, values)
        S, B = keys.shape[:2]
        valid = np.arange(S) < check_lengths("lengths", lengths, S, B)[:, None]
        if not valid.all():
            keys, values = (np.where(valid.T[:, :, None], a, 0) for a in (keys, values))
        q, k, v = (a.swapaxes(0, 1) for a in (queries, keys, values))
        weights = _masked_softmax(q @ k.swapaxes(1, 2), valid)
        return _time_major(weights @ v), AttentionTape(q, k, v, weights)

    def backward(self, tape: AttentionTape, dy: Array) -> AttentionGrads:
        """Gradients of queries, keys and values.

        `dv_s = sum_t a_ts dy_t`, and with `e_ts = a_ts (v_s - y_t) . dy_t`, the gradient of the
        scores, `dq_t = sum_s e_ts k_s` and `dk_s = sum_t e_ts q_t`.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray (T, B, V)

        Returns
        -------
        grads : AttentionGrads
            Zero in the padding.
        """
        q, k, v, weights = tape
        B, T, _ = q.shape
        checks.exact("dy", dy, q.dtype, (T, B, v.shape[2]), "(T, B, V)")
        dy = dy.swapaxes(0, 1)
        dv = weights.swapaxes(1, 2) @ dy
        d_weights = dy @ v.swapaxes(1, 2)
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=2, keepdims=True))
        dq, dk = d_scores @ k, d_scores.swapaxes(1, 2) @ q
        return AttentionGrads(_time_major(dq), _time_major(dk), _time_major(dv), {})


def _time_major(batch_first: Array) -> Array:
    return np.ascontiguousarray(batch_first.swapaxes(0, 1))


def _check_arguments(queries: Array, keys: Array, values: Array) -> None:
    checks.of_floats("queries", queries)
    checks.of_dtype("keys", keys, queries.dtype, "queries")
    checks.of_dtype("values", values, queries.dtype, "queries")
    for name, array, dims in (
        ("queries", queries, "(T, B, H)"),
        ("keys", keys, "(S, B, H)"),
        ("values", values, "(S, B, V)"),
    ):
        if array.ndim != 3:
            raise ValueError(f"{name} has shape {array.shape}, expected 3 dimensions {dims}")
    S, B, H = len(keys), *queries.shape[1:]
    checks.of_shape("keys", keys, (S, B, H), "(S, B, H)")
    checks.of_shape("values", values, (S, B, values.shape[2]), "(S, B, V)")


def _masked_softmax(scores: Array, valid: Array) -> Array:
    """The softmax of scores (B, T, S) over the valid (B, S); zeros where there is none."""
    scores = np.where(valid[:, None], scores, -np.inf)
    some = valid.any(axis=1)
    weights = np.zeros_like(scores)
    weights[some] = softmax(scores[some])
    return weights
