"""One layer, one direction: forward and backward of the RNN, the GRU and the LSTM.

Letters: T time steps, B batch rows, I input size, H hidden size, G gates (RNN 1, GRU 3, LSTM 4);
P output size, which is H unless an LSTM is projected. Arrays are time-major and float32 or float64,
one dtype per call. Any aligned ndarray is taken; one that is not C-contiguous is copied.

Every function checks all its arguments before it does anything (`_core/checks.py`). Then the
kernels run (`_core/passes.pyx`, `csrc/`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._cell_calls import CellGrads, cell_backward, cell_forward
from ._core import checks, config
from ._core.passes import BackwardCall, ForwardCall, Tape, Weights, run_backward, run_forward
from ._core.threads import resolve
from .reference import GRUGrads, LSTMGrads, RNNGrads

__all__ = [
    "CellGrads",
    "GRUGrads",
    "LSTMGrads",
    "RNNGrads",
    "Tape",
    "cell_backward",
    "cell_forward",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]

Array = NDArray[Any]


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
        Row b has ``lengths[b]`` steps, 0 to T. Beyond them its outputs are 0, no gradient flows,
        and next to no time is spent. Its final state is the one after its last valid step.
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
    act = config.ACTIVATIONS.get(nonlinearity, -1)
    if act < 0:
        checks.choice("nonlinearity", nonlinearity, config.ACTIVATIONS)
    weights = Weights(w_ih, w_hh, b_ih, b_hh)
    call = ForwardCall(config.RNN, act, x, h0, None, weights, lengths, resets, reverse, need_tape)
    run_forward([call], resolve(threads))
    return call.y, call.h_n, call.tape


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
    cell = config.GRU if reset_after else config.GRU_RESET_BEFORE
    weights = Weights(w_ih, w_hh, b_ih, b_hh)
    call = ForwardCall(cell, 0, x, h0, None, weights, lengths, resets, reverse, need_tape)
    run_forward([call], resolve(threads))
    return call.y, call.h_n, call.tape


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
    weights = Weights(w_ih, w_hh, b_ih, b_hh, w_hr)
    call = ForwardCall(config.LSTM, 0, x, h0, c0, weights, lengths, resets, reverse, need_tape)
    run_forward([call], resolve(threads))
    return call.y, call.h_n, call.c_n, call.tape


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
    call = BackwardCall(config.RNN, tape, dy, dh_n, None)
    run_backward([call], resolve(threads))
    dw = call.dweights
    return RNNGrads(call.dx, call.dh0, dw.w_ih, dw.w_hh, dw.b_ih, dw.b_hh)


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
    call = BackwardCall(config.GRU, tape, dy, dh_n, None)
    run_backward([call], resolve(threads))
    dw = call.dweights
    return GRUGrads(call.dx, call.dh0, dw.w_ih, dw.w_hh, dw.b_ih, dw.b_hh)


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
    call = BackwardCall(config.LSTM, tape, dy, dh_n, dc_n)
    run_backward([call], resolve(threads))
    dw = call.dweights
    return LSTMGrads(call.dx, call.dh0, call.dc0, dw.w_ih, dw.w_hh, dw.b_ih, dw.b_hh, dw.w_hr)
