"""RNN, GRU and LSTM as functions of JAX, computed by rnnfast's kernels on the CPU.

`rnn`, `gru` and `lstm` are `rnnfast.functional`'s forward passes on JAX's arrays: one layer, one
direction. They work under `jax.jit`, `jax.grad`, `jax.vmap` and `jax.checkpoint`:

>>> import rnnfast.jax
>>> loss = lambda w_ih: rnnfast.jax.gru(x, None, w_ih, w_hh)[0].sum()
>>> value, gradient = jax.jit(jax.value_and_grad(loss))(w_ih)

There are first derivatives in reverse mode, no others. The kernels run in callbacks
(`jax.experimental.buffer_callback`), on threads of XLA. A `rnnfast.num_threads` block does not
reach these: `threads` and `rnnfast.set_num_threads` do.
"""

from __future__ import annotations

try:
    import jax
except ModuleNotFoundError as error:
    message = "rnnfast.jax needs JAX: pip install rnnfast[jax]"
    raise ModuleNotFoundError(message, name=error.name) from error
try:
    import jax.experimental.buffer_callback
except ModuleNotFoundError as error:
    raise ImportError(
        f"rnnfast.jax needs JAX 0.6.1 or newer, found {jax.__version__}: pip install rnnfast[jax]"
    ) from error
from ._functions import gru, lstm, rnn

__all__ = ["gru", "lstm", "rnn"]
