"""The functions: their arguments, checked while JAX traces.

Letters: T time steps, B batch rows, I input size, H hidden size; P output size, which is H unless
an LSTM is projected.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from .._core import checks, config
from ._host import Arguments, Kind
from ._traced import recurrence

Array: TypeAlias = Any  # a jax.Array or a numpy.ndarray


def rnn(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    resets: Array | None = None,
    reverse: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Run an Elman RNN [1]_ over a batch of sequences: ``h = act(w_ih x + b_ih + w_hh h' + b_hh)``.

    Parameters
    ----------
    x : jax.Array or ndarray, shape (T, B, I)
        Input, float32 or float64 (``jax.config.update("jax_enable_x64", True)``).
    h0 : jax.Array or ndarray, shape (B, H), or None
        Initial state; None means zeros.
    w_ih, w_hh : jax.Array or ndarray, shapes (H, I), (H, H)
    b_ih, b_hh : jax.Array or ndarray, shape (H,), optional
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
    lengths : integers, shape (B,), optional
        Row b has ``lengths[b]`` steps, 0 to T. Beyond them its outputs are 0 and no gradient flows.
        Its final state is the one after its last valid step.
    resets : jax.Array or ndarray of bool, shape (T, B), optional
        Where true, the row's state is set to zero before the step; no gradient crosses.
    reverse : bool
        Run each row from its last valid step to step 0.
    threads : int, optional
        From 1 to 256; None: see `rnnfast.set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : jax.Array, shape (T, B, H)
    h_n : jax.Array, shape (B, H)

    Raises
    ------
    TypeError
        An argument is not an array, or its dtype is not that of `x`, float32 or float64.
    ValueError
        A shape or a value does not fit; the message names the argument.
    jax.errors.JaxRuntimeError
        Values of `lengths` that were not known when the function was traced do not fit.
    NotImplementedError
        A second derivative is asked for.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
    """
    checks.choice("nonlinearity", nonlinearity, config.ACTIVATIONS)
    kind = Kind(config.RNN, config.ACTIVATIONS[nonlinearity], bool(reverse), threads)
    arrays = Arguments(x, h0, None, w_ih, w_hh, b_ih, b_hh, None, lengths, resets)
    return recurrence(kind, arrays)  # type: ignore[no-any-return]


def gru(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: Any = None,
    resets: Array | None = None,
    reverse: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Run a gated recurrent unit [1]_ [2]_ over a batch of sequences.

    Gates in the order r, z, n; the equations are those of `rnnfast.functional.gru_forward`.

    Parameters
    ----------
    x : jax.Array or ndarray, shape (T, B, I)
    h0 : jax.Array or ndarray, shape (B, H), or None
        Initial state; None means zeros.
    w_ih, w_hh : jax.Array or ndarray, shapes (3*H, I), (3*H, H)
    b_ih, b_hh : jax.Array or ndarray, shape (3*H,), optional
    reset_after : bool
        Whether r multiplies the product with u_n (PyTorch, cuDNN) or the state before it.
    lengths, resets, reverse, threads
        As in `rnn`.

    Returns
    -------
    y : jax.Array, shape (T, B, H)
    h_n : jax.Array, shape (B, H)

    Raises
    ------
    TypeError, ValueError, jax.errors.JaxRuntimeError, NotImplementedError
        As in `rnn`.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] J. Chung et al., "Empirical evaluation of gated recurrent neural networks on sequence
       modeling", arXiv:1412.3555, 2014.
    """
    cell = config.GRU if reset_after else config.GRU_RESET_BEFORE
    kind = Kind(cell, 0, bool(reverse), threads)
    arrays = Arguments(x, h0, None, w_ih, w_hh, b_ih, b_hh, None, lengths, resets)
    return recurrence(kind, arrays)  # type: ignore[no-any-return]


def lstm(
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
    resets: Array | None = None,
    reverse: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array, Array]:
    """Run a long short-term memory [1]_ with forget gate [2]_ over a batch of sequences.

    Gates in the order i, f, g, o; the equations are those of `rnnfast.functional.lstm_forward`.

    Parameters
    ----------
    x : jax.Array or ndarray, shape (T, B, I)
    h0, c0 : jax.Array or ndarray, shapes (B, P), (B, H), or None
        Initial states; None means zeros.
    w_ih, w_hh : jax.Array or ndarray, shapes (4*H, I), (4*H, P)
    b_ih, b_hh : jax.Array or ndarray, shape (4*H,), optional
    w_hr : jax.Array or ndarray, shape (P, H), optional
        Projection; without it P = H.
    lengths, resets, reverse, threads
        As in `rnn`.

    Returns
    -------
    y : jax.Array, shape (T, B, P)
    h_n, c_n : jax.Array, shapes (B, P), (B, H)

    Raises
    ------
    TypeError, ValueError, jax.errors.JaxRuntimeError, NotImplementedError
        As in `rnn`.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    .. [2] F. Gers et al., "Learning to forget: continual prediction with LSTM", Neural Computation
       12(10), 2000.
    """
    kind = Kind(config.LSTM, 0, bool(reverse), threads)
    arrays = Arguments(x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, lengths, resets)
    return recurrence(kind, arrays)  # type: ignore[no-any-return]
