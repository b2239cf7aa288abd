"""The passes as JAX sees them: shapes, and callbacks that give the numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.experimental.buffer_callback import buffer_callback

from .._core import checks
from .._core.threads import resolve
from ._host import (
    Arguments,
    Backward,
    Forward,
    ForwardAndSave,
    Kind,
    differentiable,
    forward_call,
    shapes_of_results,
    size_of_tape,
)


def recurrence(kind: Kind, given: Arguments) -> Any:
    """Check the arguments and return y, h_n and an LSTM's c_n."""
    resolve(kind.threads)
    _check(kind, given)
    if isinstance(given.lengths, list | tuple):
        given = given._replace(lengths=np.asarray(given.lengths, np.intp))
    return _recurrence(kind, Arguments(*(None if a is None else jnp.asarray(a) for a in given)))


def _check(kind: Kind, given: Arguments) -> None:
    """Raise what the kernels would; in a trace only shapes and dtypes are known."""
    known = Arguments(*map(_stand_in, given))
    if not isinstance(given.lengths, jax.core.Tracer | None):
        is_array = isinstance(given.lengths, jax.Array)
        known = known._replace(lengths=np.asarray(given.lengths) if is_array else given.lengths)
    checks.make_forward_plain(forward_call(kind, known, need_tape=False))


def _stand_in(value: Any) -> Any:
    """Return an array of zeros for one of JAX's or NumPy's. It takes no memory until it is read."""
    if isinstance(value, jax.Array | np.ndarray) and isinstance(value.dtype, np.dtype):
        return np.zeros(value.shape, value.dtype)
    return value


def _forward(kind: Kind, given: Arguments) -> Any:
    """Return y, h_n and an LSTM's c_n."""
    callback = buffer_callback(Forward(kind), _results(kind, given), vmap_method="expand_dims")
    return callback(given)


def _results(kind: Kind, given: Arguments) -> tuple[jax.ShapeDtypeStruct, ...]:
    shapes, dtype = shapes_of_results(kind, given), given.x.dtype
    return tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)


def _forward_and_save(kind: Kind, given: Arguments) -> Any:
    """Return what `_recurrence` does, and what its gradient needs: the arguments and the tape."""
    (*results, _), kept = _tape_and_save(kind, given)
    return tuple(results), kept


def _backward(kind: Kind, kept: tuple[Arguments, Any], upstream: Any) -> tuple[Arguments]:
    """Return the gradients; None is JAX's zero, for what has none."""
    found = _gradients(kind, *kept, upstream)
    return (Arguments(*(found.get(name) for name in Arguments._fields)),)


def _results_and_tape(kind: Kind, given: Arguments) -> Any:
    results = *_results(kind, given), jax.ShapeDtypeStruct((size_of_tape(kind, given),), np.uint8)
    return buffer_callback(ForwardAndSave(kind), results, vmap_method="expand_dims")(given)


def _tape_and_save(kind: Kind, given: Arguments) -> Any:
    found = _with_tape(kind, given)
    return found, (given, found[-1])


def _backward_of_tape(kind: Kind, kept: tuple[Arguments, Any], upstream: Any) -> tuple[Arguments]:
    return _backward(kind, kept, upstream[:-1])  # bytes have no gradient


def _gradients_by_callback(kind: Kind, given: Arguments, saved: Any, upstream: Any) -> Any:
    grads = {n: jax.ShapeDtypeStruct(v.shape, v.dtype) for n, v in differentiable(given).items()}
    callback = buffer_callback(Backward(kind), grads, vmap_method="expand_dims")
    return callback(given, saved, upstream)


def _refuse(*_: Any) -> Any:
    raise NotImplementedError(
        "rnnfast.jax has first derivatives only, and a second one is asked for: write the layer "
        "with jax.lax.scan for that"
    )


_recurrence = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_recurrence.defvjp(_forward_and_save, _backward)
# The forward pass of a gradient has a gradient of its own: `jax.vjp` returns its results too.
_with_tape = jax.custom_vjp(_results_and_tape, nondiff_argnums=(0,))
_with_tape.defvjp(_tape_and_save, _backward_of_tape)
_gradients = jax.custom_jvp(_gradients_by_callback, nondiff_argnums=(0,))
_gradients.defjvp(_refuse)
