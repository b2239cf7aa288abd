"""The recurrent layers in plain NumPy: forward passes and backpropagation through time.

The functions take and return what their namesakes in `rnnfast.functional` do; `threads` is accepted
and ignored, and arguments are trusted rather than checked.

Letters: `T` time steps, `B` batch rows, `I` input size, `H` hidden size, `P` output size (`H`,
except in a projected LSTM), `G` gates. A prime marks the previous step, `*` is element-wise, `a` is
a pre-activation and `dX` the gradient of `X`.

Parameters of several functions:

x
    (T, B, I), float32 or float64. All other arrays and all results have its dtype.
h0, c0
    (B, P) and (B, H), the states before the first step. None means zeros.
w_ih, w_hh
    (G*H, I) and (G*H, P), the gates stacked in the order each function names.
b_ih, b_hh
    (G*H,) each, or None.
lengths
    (B,) of int in [0, T]. Row `b` has `lengths[b]` steps; what follows is padding, whose inputs
    have no effect, whose outputs are 0, and through which no gradient flows.
resets
    (T, B) of bool. Where true, the state of row `b` is set to zero before step `t`.
reverse
    Run each row from its last valid step to step 0.
need_tape
    Whether to return what the backward pass needs. The tape refers to `x` (do not modify `x` before
    the backward pass) and owns everything else.
dy, dh_n, dc_n
    Gradients of the forward pass's results, in their shapes. None means zeros.

Results:

y
    (T, B, P), the state `h` after every step.
h_n, c_n
    (B, P) and (B, H), the states after each row's last step, the initial ones without steps.
tape
    For the backward pass, which leaves it as it was; None if not `need_tape`.
gradients
    Named and shaped as the arguments. That of a bias or `w_hr` that was None is None; that of an
    initial state is an array even where the state was None.

Literature:

- Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
  translation", EMNLP 2014, arXiv:1406.1078.
- Chung, Gulcehre, Cho, Bengio, "Empirical evaluation of gated recurrent neural networks on sequence
  modeling", 2014, arXiv:1412.3555.
- Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
- Gers, Schmidhuber, Cummins, "Learning to forget: continual prediction with LSTM", Neural
  Computation 12(10), 2000.
- Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
- Sak, Senior, Beaufays, "Long short-term memory based recurrent neural network architectures for
  large vocabulary speech recognition", 2014, arXiv:1402.1128.
- Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78(10), 1990.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._reference_cells import cell_backward, cell_forward

__all__ = [
    "GRUGrads",
    "LSTMGrads",
    "RNNGrads",
    "cell_backward",
    "cell_forward",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]

Array = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
_EVERY_STEP = slice(None)


class RNNGrads(NamedTuple):
    """Gradients of the arguments of `rnn_forward`."""

    x: Array
    h0: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None


class GRUGrads(NamedTuple):
    """Gradients of the arguments of `gru_forward`."""

    x: Array
    h0: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None


class LSTMGrads(NamedTuple):
    """Gradients of the arguments of `lstm_forward`."""

    x: Array
    h0: Array
    c0: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None


# ------------------------------------------------------------------- what all cells have in common


class _Steps(NamedTuple):
    """What `lengths`, `resets` and `reverse` do to a recurrence.

    The cells run over steps 0 to T-1 in processing order; `flip` turns time into it and back. In a
    reversed run padding comes first, and a row keeps its initial state until its own steps begin.
    """

    T: int
    B: int
    flip: slice
    valid: Bools | None  # (T, B) in processing order; None: no padding
    resets: Bools | None  # (T, B) in processing order; None: no resets

    def start(self, state: Array | None, size: int, dtype: DTypeLike) -> Array:
        """Room for the states (T+1, B, size) before and after every step; the first is set."""
        states = np.empty((self.T + 1, self.B, size), dtype)
        states[0] = 0 if state is None else state
        return states

    def enter(self, t: int | slice, state: Array) -> Array:
        """The state that step `t` sees."""
        return state if self.resets is None else np.where(self.resets[t, ..., None], 0, state)

    def leave(self, t: int, state: Array, new: Array) -> Array:
        """The state after step `t`: `new`, but in padding still the one before."""
        return new if self.valid is None else np.where(self.valid[t, :, None], new, state)

    def back(self, t: int, dnew: Array, dseen: Array) -> Array:
        """Gradient of the state before step `t`, from those after it and of what it saw."""
        return self.leave(t, dnew, self.enter(t, dseen))

    def in_order(self, a: Array) -> Array:
        """View of (T, B, N), given in time, in processing order."""
        return a[self.flip]

    def in_time(self, a: Array) -> Array:
        """The array (T, B, N), given in processing order, in time."""
        return np.ascontiguousarray(a[self.flip])

    def without_padding(self, a: Array) -> Array:
        """Copy of (T, B, N) with 0 in padding."""
        out = np.zeros(a.shape, a.dtype)
        np.copyto(out, a, where=True if self.valid is None else self.valid[..., None])
        return out

    def upstream(self, dy: Array | None, h: Array) -> Array:
        """`dy` in processing order, zeros for None; owned, to add ``dh`` of later steps."""
        if dy is None:
            return np.zeros(h.shape, h.dtype)
        return self.without_padding(self.in_order(dy))

    def rows(self, a: Array) -> Array:
        """(T, B, N) as the matrix (T*B, N) of its rows, those of padding left out."""
        return a.reshape(self.T * self.B, a.shape[2]) if self.valid is None else a[self.valid]

    def matmul(self, a: Array, w: Array) -> Array:
        """(T, B, N) times (N, M) as one product; 0 in padding."""
        product = self.rows(a) @ w
        if self.valid is None:
            return product.reshape(self.T, self.B, w.shape[1])
        out = np.zeros((self.T, self.B, w.shape[1]), product.dtype)
        out[self.valid] = product
        return out

    def dw(self, da: Array, v: Array) -> Array:
        """Gradient of w in ``a = w v``: the sum of ``da v^T`` over all steps and rows."""
        return self.rows(da).T @ self.rows(v)

    def db(self, da: Array, has_bias: bool) -> Array | None:
        """Gradient of b in ``a = w v + b``, or None."""
        return self.rows(da).sum(axis=0) if has_bias else None


def _steps(x: Array, lengths: ArrayLike | None, resets: ArrayLike | None, reverse: bool) -> _Steps:
    T, B = x.shape[:2]
    flip = slice(None, None, -1 if reverse else 1)
    valid = None if lengths is None else (np.arange(T)[:, None] < np.asarray(lengths))[flip]
    fresh = None if resets is None else np.array(resets, bool)[flip]
    return _Steps(T, B, flip, valid, fresh)


def _copy(a: Array | None, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Copy of `a`, zeros for None."""
    return np.zeros(shape, dtype) if a is None else np.array(a, order="C")


def _split(a: Array, gates: int) -> Array:
    """View of (T, B, G*H) as (G, T, B, H): one array per gate."""
    T, B, GH = a.shape
    return a.reshape(T, B, gates, GH // gates).transpose(2, 0, 1, 3)


def _sigmoid(a: Array) -> Array:
    """``1 / (1 + exp(-a))`` as ``(1 + tanh(a / 2)) / 2``, which cannot overflow."""
    s: Array = 0.5 * np.tanh(0.5 * a) + 0.5
    return s


# ------------------------------------------------------------------------------------- simple RNN

# Each activation, and its derivative in terms of its value h.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "relu": (lambda a: np.maximum(a, 0), lambda h: (h > 0).astype(h.dtype)),
    "sigmoid": (_sigmoid, lambda h: h * (1 - h)),
    "identity": (lambda a: a, np.ones_like),
}


class _RNNTape(NamedTuple):
    steps: _Steps
    x: Array
    h: Array  # (T+1, B, H), states in processing order
    w_ih: Array
    w_hh: Array
    biases: tuple[bool, bool]
    derivative: Callable[[Array], Array]


def rnn_forward(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, _RNNTape | None]:
    """Simple recurrent layer, ``h = act(w_ih x + b_ih + w_hh h' + b_hh)`` (Elman 1990).

    Parameters
    ----------
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
        The activation ``act``. All else is described at the top of the module.

    Returns
    -------
    y, h_n, tape

    Raises
    ------
    ValueError
        If `nonlinearity` is none of the four.
    """
    if nonlinearity not in _ACTIVATIONS:
        raise ValueError(f"nonlinearity is {nonlinearity!r}, expected one of {[*_ACTIVATIONS]}")
    act, derivative = _ACTIVATIONS[nonlinearity]
    H = w_hh.shape[1]
    steps = _steps(x, lengths, resets, reverse)
    x = steps.in_order(x)

    h = steps.start(h0, H, x.dtype)
    a = steps.matmul(x, w_ih.T)
    a += _copy(b_ih, (H,), x.dtype) + _copy(b_hh, (H,), x.dtype)
    for t in range(steps.T):
        a[t] += steps.enter(t, h[t]) @ w_hh.T
        h[t + 1] = steps.leave(t, h[t], act(a[t]))

    tape = None
    if need_tape:
        biases = (b_ih is not None, b_hh is not None)
        tape = _RNNTape(steps, x, h, w_ih.copy(), w_hh.copy(), biases, derivative)
    y = steps.in_time(steps.without_padding(h[1:]))
    return y, h[-1].copy(), tape


def rnn_backward(
    tape: _RNNTape,
    dy: Array | None = None,
    dh_n: Array | None = None,
    *,
    threads: int | None = None,
) -> RNNGrads:
    """Gradients of `rnn_forward`: ``da = act'(a) * dh``, ``dh' = w_hh^T da`` (Werbos 1990).

    Parameters and results are described at the top of the module.
    """
    steps, x, h, w_ih, w_hh, biases, derivative = tape
    h_in = steps.enter(_EVERY_STEP, h[:-1])
    dh_all = steps.upstream(dy, h[1:])
    dh = _copy(dh_n, h.shape[1:], h.dtype)

    da = derivative(h[1:])  # act'(a) of all steps at once; times dh in the loop
    for t in reversed(range(steps.T)):
        dh_all[t] += dh
        da[t] *= dh_all[t]
        dh = steps.back(t, dh_all[t], da[t] @ w_hh)

    return RNNGrads(
        x=steps.in_time(steps.matmul(da, w_ih)),
        h0=dh,
        w_ih=steps.dw(da, x),
        w_hh=steps.dw(da, h_in),
        b_ih=steps.db(da, biases[0]),
        b_hh=steps.db(da, biases[1]),
    )


# -------------------------------------------------------------------------- gated recurrent unit


class _GRUTape(NamedTuple):
    steps: _Steps
    x: Array
    h: Array  # (T+1, B, H), states in processing order
    gates: Array  # (T, B, 3*H): r, z, n
    u: Array  # (T, B, H): u_n h' + b_hn, or r h' if the reset comes first
    w_ih: Array
    w_hh: Array
    biases: tuple[bool, bool]
    reset_after: bool


def gru_forward(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, _GRUTape | None]:
    """Gated recurrent unit (Cho et al. 2014, Chung et al. 2014).

    The gates are stacked as r (reset), z (update) and n (new state). With ``w_r`` the first third
    of ``w_ih``, ``u_r`` that of ``w_hh``, and so on::

        r = sigmoid(w_r x + b_ir + u_r h' + b_hr)
        z = sigmoid(w_z x + b_iz + u_z h' + b_hz)
        n = tanh(w_n x + b_in + r * (u_n h' + b_hn))    if reset_after
        n = tanh(w_n x + b_in + u_n (r * h') + b_hn)    if not, as first published
        h = (1 - z) * n + z * h'

    Parameters
    ----------
    reset_after : bool
        Whether r scales the product with ``u_n`` or the state before it. All else is described at
        the top of the module.

    Returns
    -------
    y, h_n, tape
    """
    H = w_hh.shape[1]
    steps = _steps(x, lengths, resets, reverse)
    x = steps.in_order(x)
    b_h = _copy(b_hh, (3 * H,), x.dtype)
    b_hn = b_h[2 * H :]

    h = steps.start(h0, H, x.dtype)
    gates = steps.matmul(x, w_ih.T)  # pre-activations, turned into gates step by step
    gates += _copy(b_ih, (3 * H,), x.dtype)
    gates[..., : 2 * H] += b_h[: 2 * H]
    r, z, n = _split(gates, 3)
    u = np.empty_like(h[1:])
    for t in range(steps.T):
        h_in = steps.enter(t, h[t])
        rz = gates[t, :, : 2 * H]
        if reset_after:
            uh = h_in @ w_hh.T
            rz[:] = _sigmoid(rz + uh[:, : 2 * H])
            u[t] = uh[:, 2 * H :] + b_hn
            n[t] = np.tanh(n[t] + r[t] * u[t])
        else:
            rz[:] = _sigmoid(rz + h_in @ w_hh[: 2 * H].T)
            u[t] = r[t] * h_in
            n[t] = np.tanh(n[t] + u[t] @ w_hh[2 * H :].T + b_hn)
        h[t + 1] = steps.leave(t, h[t], (1 - z[t]) * n[t] + z[t] * h_in)

    tape = None
    if need_tape:
        biases = (b_ih is not None, b_hh is not None)
        tape = _GRUTape(steps, x, h, gates, u, w_ih.copy(), w_hh.copy(), biases, reset_after)
    y = steps.in_time(steps.without_padding(h[1:]))
    return y, h[-1].copy(), tape


def gru_backward(
    tape: _GRUTape,
    dy: Array | None = None,
    dh_n: Array | None = None,
    *,
    threads: int | None = None,
) -> GRUGrads:
    """Gradients of `gru_forward`, by the chain rule (Werbos 1990).

    Parameters and results are described at the top of the module.
    """
    steps, x, h, gates, u, w_ih, w_hh, biases, reset_after = tape
    H = w_hh.shape[1]
    r, z, n = _split(gates, 3)
    h_in = steps.enter(_EVERY_STEP, h[:-1])
    dh_all = steps.upstream(dy, h[1:])
    dh = _copy(dh_n, h.shape[1:], h.dtype)

    # First the derivatives of h by a_z and a_n, and of what r scales by a_r, of all steps at once;
    # times the incoming gradient in the loop.
    scaled_by_r = u if reset_after else h_in
    local = [scaled_by_r * r * (1 - r), (h_in - n) * z * (1 - z), (1 - z) * (1 - n * n)]
    da = np.concatenate(local, axis=-1)
    da_r, da_z, da_n = _split(da, 3)
    du = np.empty_like(da) if reset_after else da  # the recurrent part of da
    for t in reversed(range(steps.T)):
        dh_all[t] += dh
        da_z[t] *= dh_all[t]
        da_n[t] *= dh_all[t]
        if reset_after:
            da_r[t] *= da_n[t]
            du[t] = da[t]
            du[t, :, 2 * H :] *= r[t]
            dh = dh_all[t] * z[t] + du[t] @ w_hh
        else:
            drh = da_n[t] @ w_hh[2 * H :]
            da_r[t] *= drh
            dh = dh_all[t] * z[t] + drh * r[t] + da[t, :, : 2 * H] @ w_hh[: 2 * H]
        dh = steps.back(t, dh_all[t], dh)

    if reset_after:
        dw_hh = steps.dw(du, h_in)
    else:
        dw_hh = np.concatenate([steps.dw(da[..., : 2 * H], h_in), steps.dw(da_n, u)])
    return GRUGrads(
        x=steps.in_time(steps.matmul(da, w_ih)),
        h0=dh,
        w_ih=steps.dw(da, x),
        w_hh=dw_hh,
        b_ih=steps.db(da, biases[0]),
        b_hh=steps.db(du, biases[1]),
    )


# ------------------------------------------------------------------------- long short-term memory


class _LSTMTape(NamedTuple):
    steps: _Steps
    x: Array
    h: Array  # (T+1, B, P), states in processing order
    c: Array  # (T+1, B, H), likewise
    gates: Array  # (T, B, 4*H): i, f, g, o
    w_ih: Array
    w_hh: Array
    w_hr: Array | None
    biases: tuple[bool, bool]


def lstm_forward(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    w_hr: Array | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, Array, _LSTMTape | None]:
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    The gates are stacked as i (input), f (forget; Gers et al. 2000), g (cell) and o (output)::

        a_i, a_f, a_g, a_o = w_ih x + b_ih + w_hh h' + b_hh
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);   g = tanh(a_g)
        c = f * c' + i * g
        m = o * tanh(c)
        h = m, or w_hr m if projected

    Parameters
    ----------
    w_hr : (P, H), optional
        The projection (Sak et al. 2014). All else is described at the top of the module.

    Returns
    -------
    y, h_n, c_n, tape
    """
    H4, P = w_hh.shape
    H = H4 // 4
    steps = _steps(x, lengths, resets, reverse)
    x = steps.in_order(x)

    h, c = steps.start(h0, P, x.dtype), steps.start(c0, H, x.dtype)
    gates = steps.matmul(x, w_ih.T)  # pre-activations, turned into gates step by step
    gates += _copy(b_ih, (H4,), x.dtype) + _copy(b_hh, (H4,), x.dtype)
    i, f, g, o = _split(gates, 4)
    for t in range(steps.T):
        h_in, c_in = steps.enter(t, h[t]), steps.enter(t, c[t])
        gates[t] += h_in @ w_hh.T
        i_f = gates[t, :, : 2 * H]
        i_f[:] = _sigmoid(i_f)
        g[t] = np.tanh(g[t])
        o[t] = _sigmoid(o[t])
        c_out = f[t] * c_in + i[t] * g[t]
        h_out = o[t] * np.tanh(c_out)
        if w_hr is not None:
            h_out = h_out @ w_hr.T
        h[t + 1] = steps.leave(t, h[t], h_out)
        c[t + 1] = steps.leave(t, c[t], c_out)

    tape = None
    if need_tape:
        biases = (b_ih is not None, b_hh is not None)
        w_hr = None if w_hr is None else w_hr.copy()
        tape = _LSTMTape(steps, x, h, c, gates, w_ih.copy(), w_hh.copy(), w_hr, biases)
    y = steps.in_time(steps.without_padding(h[1:]))
    return y, h[-1].copy(), c[-1].copy(), tape


def lstm_backward(
    tape: _LSTMTape,
    dy: Array | None = None,
    dh_n: Array | None = None,
    dc_n: Array | None = None,
    *,
    threads: int | None = None,
) -> LSTMGrads:
    """Gradients of `lstm_forward`, by the chain rule (Werbos 1990).

    Parameters and results are described at the top of the module.
    """
    steps, x, h, c, gates, w_ih, w_hh, w_hr, biases = tape
    i, f, g, o = _split(gates, 4)
    h_in, c_in = steps.enter(_EVERY_STEP, h[:-1]), steps.enter(_EVERY_STEP, c[:-1])
    tanh_c = np.tanh(c[1:])
    dh_all = steps.upstream(dy, h[1:])
    dh, dc = _copy(dh_n, h.shape[1:], h.dtype), _copy(dc_n, c.shape[1:], c.dtype)

    # First the derivatives of c by a_i, a_f, a_g and of m by a_o, of all steps at once; times dc
    # and dm in the loop.
    local = [g * i * (1 - i), c_in * f * (1 - f), i * (1 - g * g), tanh_c * o * (1 - o)]
    da = np.concatenate(local, axis=-1)
    da_ifg, da_o = _split(da, 4)[:3], _split(da, 4)[3]
    dm_dc = o * (1 - tanh_c * tanh_c)
    for t in reversed(range(steps.T)):
        dh_all[t] += dh
        dm = dh_all[t] if w_hr is None else dh_all[t] @ w_hr
        dc_out = dc + dm * dm_dc[t]
        da_ifg[:, t] *= dc_out
        da_o[t] *= dm
        dh = steps.back(t, dh_all[t], da[t] @ w_hh)
        dc = steps.back(t, dc, dc_out * f[t])

    return LSTMGrads(
        x=steps.in_time(steps.matmul(da, w_ih)),
        h0=dh,
        c0=dc,
        w_ih=steps.dw(da, x),
        w_hh=steps.dw(da, h_in),
        b_ih=steps.db(da, biases[0]),
        b_hh=steps.db(da, biases[1]),
        w_hr=None if w_hr is None else steps.dw(dh_all, o * tanh_c),
    )
