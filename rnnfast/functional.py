"""One layer, one direction: forward and backward of the RNN, the GRU and the LSTM.

Letters: T time steps, B batch rows, I input size, H hidden size, P output size (H unless an LSTM
is projected), G gates (RNN 1, GRU 3, LSTM 4). Arrays are time-major and float32 or float64, one
dtype per call. Any aligned ndarray is taken; one that is not C-contiguous is copied.

Every function checks all its arguments before it does anything, allocates its results and calls
the kernels (`_kernels.pyx`, then `csrc/`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check, _kernels
from ._threads import resolve
from .reference import GRUGrads, LSTMGrads, RNNGrads

__all__ = [
    "GRUGrads",
    "LSTMGrads",
    "RNNGrads",
    "Tape",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]

Array = NDArray[Any]
Tape = _kernels.Tape

_CTYPE = {"f": "float", "d": "double"}
_FORWARD = {char: _kernels.forward[ctype] for char, ctype in _CTYPE.items()}
_BACKWARD = {char: _kernels.backward[ctype] for char, ctype in _CTYPE.items()}
_CELLS = {
    _kernels.RNN: "an RNN",
    _kernels.GRU: "a GRU",
    _kernels.GRU_RESET_BEFORE: "a GRU",
    _kernels.LSTM: "an LSTM",
}


class _Packing(NamedTuple):
    """Sequences of different length without their padding, longest first, step after step."""

    order: NDArray[np.intp]  # (B,) which row of the caller stands where
    rows: NDArray[np.intp]  # (N,) index into (T*B) of each packed row
    active: NDArray[np.intp]  # rows of each step
    offset: NDArray[np.intp]  # first packed row of each step


def _packing(lengths: NDArray[np.intp], B: int, reverse: bool) -> _Packing:
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    steps = np.arange(ordered[0])
    active = B - np.searchsorted(ordered[::-1], steps, side="right")
    offset = np.cumsum(active) - active
    step = np.repeat(steps, active)
    place = np.arange(len(step)) - offset[step]
    time = ordered[place] - 1 - step if reverse else step
    return _Packing(order, time * B + order[place], active, offset)


def _forward(
    cell: int,
    act: int,
    gates: int,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_hr: Any,
    lengths: Any,
    resets: Any,
    reverse: bool,
    need_tape: bool,
    threads: int | None,
) -> tuple[Array, Array, Array | None, Tape | None]:
    x = _check.floating("x", x, "(T, B, I)", 3)
    T, B, I = x.shape
    dtype = x.dtype
    H, P = _check.sizes(gates, w_ih, w_hh, w_hr)
    if I == 0:
        raise ValueError(f"x has shape {x.shape}, expected (T, B, I) with I >= 1")
    h0 = _check.optional("h0", h0, dtype, "(B, P)" if P != H else "(B, H)", (B, P))
    c0 = _check.optional("c0", c0, dtype, "(B, H)", (B, H))
    w_ih = _check.array("w_ih", w_ih, dtype, "(G*H, I)", (gates * H, I))
    w_hh = _check.array(
        "w_hh", w_hh, dtype, "(G*H, P)" if w_hr is not None else "(G*H, H)", (gates * H, P)
    )
    b_ih = _check.optional("b_ih", b_ih, dtype, "(G*H,)", (gates * H,))
    b_hh = _check.optional("b_hh", b_hh, dtype, "(G*H,)", (gates * H,))
    w_hr = _check.optional("w_hr", w_hr, dtype, "(P, H)", (P, H))
    packing = active = offset = None
    if lengths is not None:
        lengths = _check.lengths(lengths, T, B)
        if B and lengths.min() < T:
            packing = _packing(lengths, B, reverse)
    if resets is not None:
        resets = _check.mask("resets", resets, "(T, B)", (T, B)).view(np.uint8).reshape(-1)
    threads = resolve(threads)

    rows, steps = x.reshape(T * B, I), T
    if packing is not None:
        _, at, active, offset = packing
        rows, steps, reverse = rows.take(at, 0), len(active), False
        h0 = None if h0 is None else h0[packing.order]
        c0 = None if c0 is None else c0[packing.order]
        resets = None if resets is None else resets[at]
    y, h_n = np.empty((len(rows), P), dtype), np.empty((B, P), dtype)
    c_n = np.empty((B, H), dtype) if cell == _kernels.LSTM else None
    tape = _FORWARD[dtype.char](
        cell, act, steps, rows, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, active, offset, resets,
        reverse, need_tape, threads, y, h_n, c_n,
    )  # fmt: skip
    if tape is not None:
        tape.packing = packing, T
    if packing is not None:
        y, h_n, c_n = _scatter(y, at, T * B), _unsort(h_n, packing), _unsort(c_n, packing)
    return y.reshape(T, B, P), h_n, c_n, tape


def _backward(
    cells: tuple[int, ...],
    gates: int,
    tape: Any,
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    threads: int | None,
) -> tuple[Array | None, ...]:
    if not isinstance(tape, Tape):
        raise TypeError(f"tape has type {type(tape).__name__}, expected the tape of a forward call")
    if tape.cell not in cells:
        raise TypeError(f"tape is of {_CELLS[tape.cell]}, expected one of {_CELLS[cells[0]]}")
    if tape.used:
        raise RuntimeError(
            "tape was used by an earlier backward, which works in the tape's own memory"
        )
    _, B, N, I, H, P = tape.shape
    packing, T = tape.packing
    dtype = np.dtype(tape.dtype)
    dy = _check.optional("dy", dy, dtype, "(T, B, P)" if P != H else "(T, B, H)", (T, B, P))
    dh_n = _check.optional("dh_n", dh_n, dtype, "(B, P)" if P != H else "(B, H)", (B, P))
    dc_n = _check.optional("dc_n", dc_n, dtype, "(B, H)", (B, H))
    threads = resolve(threads)

    if dy is not None:
        dy = dy.reshape(T * B, P)
    if packing is not None:
        dy = None if dy is None else dy.take(packing.rows, 0)
        dh_n = None if dh_n is None else dh_n[packing.order]
        dc_n = None if dc_n is None else dc_n[packing.order]
    lstm = tape.cell == _kernels.LSTM
    dx, dh0 = np.empty((N, I), dtype), np.empty((B, P), dtype)
    dc0 = np.empty((B, H), dtype) if lstm else None
    dw_ih, dw_hh = np.empty((gates * H, I), dtype), np.empty((gates * H, P), dtype)
    db_ih = np.empty(gates * H, dtype) if tape.b_ih else None
    db_hh = np.empty(gates * H, dtype) if tape.b_hh else None
    dw_hr = np.empty((P, H), dtype) if tape.w_hr else None
    _BACKWARD[dtype.char](
        tape, dy, dh_n, dc_n, threads, dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh, dw_hr
    )
    if packing is not None:
        dx, dh0, dc0 = (
            _scatter(dx, packing.rows, T * B),
            _unsort(dh0, packing),
            _unsort(dc0, packing),
        )
    return dx.reshape(T, B, I), dh0, dc0, dw_ih, dw_hh, db_ih, db_hh, dw_hr


def _scatter(packed: Array, rows: NDArray[np.intp], n: int) -> Array:
    padded = np.zeros((n, packed.shape[1]), packed.dtype)
    padded[rows] = packed
    return padded


def _unsort(state: Any, packing: _Packing) -> Any:
    if state is None:
        return None
    unsorted = np.empty_like(state)
    unsorted[packing.order] = state
    return unsorted


def rnn_forward(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    resets: NDArray[np.bool_] | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, Tape | None]:
    """Run an Elman RNN [1]_ over a batch of sequences: ``h = act(w_ih x + b_ih + w_hh h' + b_hh)``.

    Parameters
    ----------
    x : ndarray, shape (T, B, I)
        Input. The tape refers to it: do not modify it before the backward pass.
    h0 : ndarray, shape (B, H), or None
        Initial state; None means zeros.
    w_ih, w_hh : ndarray, shapes (H, I), (H, H)
    b_ih, b_hh : ndarray, shape (H,), optional
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
    lengths : integers, shape (B,), optional
        Row b has ``lengths[b]`` steps, 0 to T. Beyond them its outputs are 0, its final state is
        the one after its last valid step, no gradient flows, and next to no time is spent.
    resets : ndarray of bool, shape (T, B), optional
        Where true, the row's state is set to zero before the step; no gradient crosses.
    reverse : bool
        Run each row from its last valid step to step 0.
    need_tape : bool
        Save what `rnn_backward` needs.
    threads : int, optional
        From 1 to 256; None: see `rnnfast.set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : ndarray, shape (T, B, H)
    h_n : ndarray, shape (B, H)
    tape : Tape or None

    Raises
    ------
    TypeError
        An argument is not an ndarray, or its dtype is not that of `x`, float32 or float64.
    ValueError
        A shape or a value does not fit; the message names the argument.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
    """
    _check.choice("nonlinearity", nonlinearity, list(_kernels.ACTIVATIONS))
    act = _kernels.ACTIVATIONS[nonlinearity]
    y, h_n, _, tape = _forward(
        _kernels.RNN, act, 1, x, h0, None, w_ih, w_hh, b_ih, b_hh, None,
        lengths, resets, reverse, need_tape, threads,
    )  # fmt: skip
    return y, h_n, tape


def gru_forward(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: Any = None,
    resets: NDArray[np.bool_] | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, Tape | None]:
    """Run a gated recurrent unit [1]_ [2]_ over a batch of sequences.

    Gates in the order r, z, n: ``r, z = sigmoid(w x + b_i + u h' + b_h)``,
    ``n = tanh(w_n x + b_in + r (u_n h' + b_hn))`` and ``h = (1-z) n + z h'``. With
    ``reset_after=False``, as in [1]_, ``n = tanh(w_n x + b_in + u_n (r h') + b_hn)``.

    Parameters
    ----------
    x : ndarray, shape (T, B, I)
        Input. The tape refers to it: do not modify it before the backward pass.
    h0 : ndarray, shape (B, H), or None
        Initial state; None means zeros.
    w_ih, w_hh : ndarray, shapes (3*H, I), (3*H, H)
    b_ih, b_hh : ndarray, shape (3*H,), optional
    reset_after : bool
        Whether r multiplies the product with u_n (PyTorch, cuDNN) or the state before it.
    lengths, resets, reverse, need_tape, threads
        As in `rnn_forward`.

    Returns
    -------
    y : ndarray, shape (T, B, H)
    h_n : ndarray, shape (B, H)
    tape : Tape or None
        For `gru_backward`.

    Raises
    ------
    TypeError, ValueError
        As in `rnn_forward`.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] J. Chung et al., "Empirical evaluation of gated recurrent neural networks on sequence
       modeling", arXiv:1412.3555, 2014.
    """
    cell = _kernels.GRU if reset_after else _kernels.GRU_RESET_BEFORE
    y, h_n, _, tape = _forward(
        cell, 0, 3, x, h0, None, w_ih, w_hh, b_ih, b_hh, None,
        lengths, resets, reverse, need_tape, threads,
    )  # fmt: skip
    return y, h_n, tape


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
    lengths: Any = None,
    resets: NDArray[np.bool_] | None = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, Array, Array, Tape | None]:
    """Run a long short-term memory [1]_ with forget gate [2]_ over a batch of sequences.

    Gates in the order i, f, g, o, with ``a = w_ih x + b_ih + w_hh h' + b_hh``:
    ``i, f, o = sigmoid(a)``, ``g = tanh(a)``, ``c = f c' + i g``, ``h = o tanh(c)``; with a
    projection [3]_ then ``h = w_hr h``.

    Parameters
    ----------
    x : ndarray, shape (T, B, I)
        Input. The tape refers to it: do not modify it before the backward pass.
    h0, c0 : ndarray, shapes (B, P), (B, H), or None
        Initial states; None means zeros.
    w_ih, w_hh : ndarray, shapes (4*H, I), (4*H, P)
    b_ih, b_hh : ndarray, shape (4*H,), optional
    w_hr : ndarray, shape (P, H), optional
        Projection; without it P = H.
    lengths, resets, reverse, need_tape, threads
        As in `rnn_forward`.

    Returns
    -------
    y : ndarray, shape (T, B, P)
    h_n, c_n : ndarray, shapes (B, P), (B, H)
    tape : Tape or None
        For `lstm_backward`.

    Raises
    ------
    TypeError, ValueError
        As in `rnn_forward`.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    .. [2] F. Gers et al., "Learning to forget: continual prediction with LSTM", Neural Computation
       12(10), 2000.
    .. [3] H. Sak et al., "Long short-term memory based recurrent neural network architectures for
       large vocabulary speech recognition", arXiv:1402.1128, 2014.
    """
    y, h_n, c_n, tape = _forward(
        _kernels.LSTM, 0, 4, x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr,
        lengths, resets, reverse, need_tape, threads,
    )  # fmt: skip
    assert c_n is not None
    return y, h_n, c_n, tape


def rnn_backward(
    tape: Tape | None,
    dy: Array | None = None,
    dh_n: Array | None = None,
    *,
    threads: int | None = None,
) -> RNNGrads:
    """Backpropagate through time [1]_: the gradients of everything `rnn_forward` was given.

    Parameters
    ----------
    tape : Tape
        From `rnn_forward`. It serves once: the backward pass works in its memory.
    dy, dh_n : ndarray, shapes (T, B, H), (B, H), or None
        Gradients of `y` and `h_n`; None means zeros.
    threads : int, optional
        As in `rnn_forward`. Results do not depend on it.

    Returns
    -------
    RNNGrads
        Named like the arguments; None for a bias that was None, never for a state.

    Raises
    ------
    TypeError
        `tape` is not the tape of an RNN, or a gradient is not an ndarray of its dtype.
    ValueError
        A shape does not fit.
    RuntimeError
        The tape was used before.

    References
    ----------
    .. [1] P. Werbos, "Backpropagation through time: what it does and how to do it",
       Proceedings of the IEEE 78(10), 1990.
    """
    dx, dh0, _, *rest, _ = _backward((_kernels.RNN,), 1, tape, dy, dh_n, None, threads)
    return RNNGrads(dx, dh0, *rest)  # type: ignore[arg-type]


def gru_backward(
    tape: Tape | None,
    dy: Array | None = None,
    dh_n: Array | None = None,
    *,
    threads: int | None = None,
) -> GRUGrads:
    """Backpropagate through time: the gradients of everything `gru_forward` was given.

    Parameters, results and errors are those of `rnn_backward`, with a tape of `gru_forward`.
    """
    cells = _kernels.GRU, _kernels.GRU_RESET_BEFORE
    dx, dh0, _, *rest, _ = _backward(cells, 3, tape, dy, dh_n, None, threads)
    return GRUGrads(dx, dh0, *rest)  # type: ignore[arg-type]


def lstm_backward(
    tape: Tape | None,
    dy: Array | None = None,
    dh_n: Array | None = None,
    dc_n: Array | None = None,
    *,
    threads: int | None = None,
) -> LSTMGrads:
    """Backpropagate through time: the gradients of everything `lstm_forward` was given.

    Parameters, results and errors are those of `rnn_backward`, with a tape of `lstm_forward`;
    `dc_n`, shape (B, H), is the gradient of `c_n`. Shapes have P for H where there is a projection.
    """
    return LSTMGrads(*_backward((_kernels.LSTM,), 4, tape, dy, dh_n, dc_n, threads))  # type: ignore[arg-type]
