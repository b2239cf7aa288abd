"""The callbacks: the kernels in the memory of XLA's buffers.

JAX puts an axis in front of all arrays for each `jax.vmap` around the call, of size 1 for an array
that is not mapped. `lead` has the sizes of these axes.

Nothing here may call JAX or wait for one of its arrays. A thread of XLA waits for the callback, and
it may be the one that JAX needs for that. So it is `buffer_callback`: `jax.pure_callback` copies
large arguments on XLA's threads and hangs when all of them are in callbacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import config
from .._core.passes import (
    BackwardCall,
    ForwardCall,
    Weights,
    run_backward,
    run_forward,
    tape_size,
)
from .._core.threads import resolve


@dataclass(frozen=True)
class Kind:
    """What a call computes, apart from its arrays."""

    cell: int
    act: int
    reverse: bool
    threads: int | None


class Arguments(NamedTuple):
    """The arrays of a call; for JAX a tree, in which None has no leaves."""

    x: Any
    h0: Any
    c0: Any
    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any
    w_hr: Any
    lengths: Any
    resets: Any

    def weights(self) -> Weights:
        return Weights(self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)


def shapes_of_results(kind: Kind, given: Arguments) -> list[tuple[int, ...]]:
    """The shapes of y, h_n and an LSTM's c_n, for one element of a batch of `jax.vmap`."""
    T, B, H, P = _sizes(given)
    return [(T, B, P), (B, P), (B, H)][: 2 + (kind.cell == config.LSTM)]


def size_of_tape(kind: Kind, given: Arguments) -> int:
    """How many bytes backward needs of forward, for one element of a batch of `jax.vmap`."""
    return tape_size(kind.cell, given.x.dtype, *_sizes(given))


def _sizes(given: Arguments) -> tuple[int, int, int, int]:
    """T, B, H and P, without the axes of `jax.vmap`."""
    T, B, _ = given.x.shape[-3:]
    P = given.w_hh.shape[-1]
    return T, B, P if given.w_hr is None else given.w_hr.shape[-1], P


def differentiable(given: Arguments) -> dict[str, Any]:
    """The arrays that have gradients."""
    arrays = given._asdict().items()
    return {n: v for n, v in arrays if v is not None and n not in ("lengths", "resets")}


@dataclass(frozen=True)
class Forward:
    """The callback of a forward pass. JAX compiles once for callbacks that are equal."""

    kind: Kind

    def __call__(self, _: Any, results: Sequence[Any], given: Arguments) -> None:
        results, given = _arrays(results), Arguments(*_arrays(given))
        lead = _lead(given)
        if not lead:
            self._run(results, given)
        elif any(w is not None and _is_mapped(w, lead) for w in given.weights()):
            for i in np.ndindex(lead):
                self._run(_element(results, i), Arguments(*_element(given, i)))
        else:
            self._run_folded(results, given, lead)

    def _run_folded(
        self, results: Sequence[NDArray[Any]], given: Arguments, lead: tuple[int, ...]
    ) -> None:
        rows = _folded(given, lead)
        found = [np.empty(s, given.x.dtype) for s in shapes_of_results(self.kind, rows)]
        self._run(found, rows)
        for k, (result, value) in enumerate(zip(results, found, strict=True)):
            result[...] = _unfolded(value, lead, 0 if k else 1)

    def _run(self, results: Sequence[NDArray[Any]], given: Arguments) -> None:
        call = forward_call(self.kind, given, need_tape=False)
        call.y, call.h_n, call.c_n = (*results, None)[:3]
        run_forward([call], resolve(self.kind.threads))


@dataclass(frozen=True)
class ForwardAndSave:
    """The callback of a forward pass of which the gradient is wanted. The last result is the tape.

    JAX keeps the tape as bytes. Elements of a batch of `jax.vmap` go one by one: each has its own.
    """

    kind: Kind

    def __call__(self, _: Any, results: Sequence[Any], given: Arguments) -> None:
        results, given = _arrays(results), Arguments(*_arrays(given))
        lead = _lead(given)
        if not lead:
            self._run(results, given)
            return
        for i in np.ndindex(lead):
            self._run(_element(results, i), Arguments(*_element(given, i)))

    def _run(self, results: Sequence[NDArray[Any]], given: Arguments) -> None:
        call = forward_call(self.kind, given, need_tape=True)
        *states, saved = results
        call.y, call.h_n, call.c_n = (*states, None)[:3]
        run_forward([call], resolve(self.kind.threads))
        assert call.tape is not None
        memory = call.tape.memory
        saved[: memory.size] = memory  # with lengths there is less than JAX has room for
        saved[memory.size :] = 0


@dataclass(frozen=True)
class Backward:
    """The callback of a backward pass, with the tape's bytes as forward has saved them.

    It works in a copy, for JAX may use them again. Elements of a batch of `jax.vmap` go one by
    one: each has weight gradients of its own.
    """

    kind: Kind

    def __call__(
        self, _: Any, grads: dict[str, Any], given: Arguments, saved: Any, upstream: Sequence[Any]
    ) -> None:
        given, upstream = Arguments(*_arrays(given)), _arrays([saved, *upstream])
        to = Arguments(*_arrays([grads.get(name) for name in Arguments._fields]))
        lead = _lead(given, upstream)
        if not lead:
            self._run(to, given, *upstream)
            return
        for i in np.ndindex(lead):
            own, element = Arguments(*_element(to, i)), Arguments(*_element(given, i))
            self._run(own, element, *_element(upstream, i))

    def _run(
        self, to: Arguments, given: Arguments, saved: NDArray[Any], *upstream: NDArray[Any]
    ) -> None:
        threads = resolve(self.kind.threads)
        forward = forward_call(self.kind, given, need_tape=True)
        forward.saved = saved
        run_forward([forward], threads)
        call = BackwardCall(self.kind.cell, forward.tape, *(*upstream, None)[:3])
        call.dx, call.dh0, call.dc0, call.dweights = to.x, to.h0, to.c0, to.weights()
        run_backward([call], threads)


def forward_call(kind: Kind, given: Arguments, need_tape: bool) -> ForwardCall:
    """The kernels' view of a call."""
    states, w, rows = (given.h0, given.c0), given.weights(), (given.lengths, given.resets)
    return ForwardCall(kind.cell, kind.act, given.x, *states, w, *rows, kind.reverse, need_tape)


def _arrays(buffers: Sequence[Any]) -> list[Any]:
    """Return arrays that share the memory of XLA's buffers, None for None."""
    return [None if buffer is None else np.asarray(buffer) for buffer in buffers]


def _lead(given: Arguments, upstream: Sequence[Any] = ()) -> tuple[int, ...]:
    count = given.x.ndim - 3
    if not count:
        return ()
    return np.broadcast_shapes(*(v.shape[:count] for v in (*given, *upstream) if v is not None))


def _is_mapped(value: NDArray[Any], lead: tuple[int, ...]) -> bool:
    return any(size != 1 for size in value.shape[: len(lead)])


def _element(arrays: Sequence[Any], index: tuple[int, ...]) -> list[Any]:
    """Take element `index` of each array. Axes of size 1 are shared by all elements."""
    return [
        None if a is None else a[tuple(min(i, n - 1) for i, n in zip(index, a.shape, strict=False))]
        for a in arrays
    ]


_ROW_AXIS = {"x": 1, "h0": 0, "c0": 0, "lengths": 0, "resets": 1}


def _folded(given: Arguments, lead: tuple[int, ...]) -> Arguments:
    """Make rows of all elements. The weights are shared, and what is in other rows changes none."""
    count = len(lead)
    found = {n: None if v is None else v[(0,) * count] for n, v in given._asdict().items()}
    for name, axis in _ROW_AXIS.items():
        value = getattr(given, name)
        if value is not None:
            own = value.shape[count:]
            value = np.broadcast_to(value, lead + own)
            value = np.moveaxis(value, range(count), range(axis, axis + count))
            rows = math.prod(lead) * own[axis]
            found[name] = value.reshape(*own[:axis], rows, *own[axis + 1 :])
    return Arguments(**found)


def _unfolded(value: NDArray[Any], lead: tuple[int, ...], axis: int) -> NDArray[Any]:
    """Undo `_folded` in a result."""
    shape, count = value.shape, len(lead)
    rows = shape[axis] // max(1, math.prod(lead))
    value = value.reshape(*shape[:axis], *lead, rows, *shape[axis + 1 :])
    return np.moveaxis(value, range(axis, axis + count), range(count))
