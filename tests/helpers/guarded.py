"""Run in a process of its own by test_guard_pages: calls whose every array borders on a page that
nobody may touch, so that to read or write past it ends the process. The last line printed says
which call that was.

    python guarded.py end|start ISA
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from cases import OPTIONS_OF_CELLS, Array, Case, Problem, cover, run, variants, with_dtype

import rnnfast
from rnnfast import functional, stream
from rnnfast._core import config, passes, ragged

PAGE = mmap.PAGESIZE
EDGE, ISA = sys.argv[1:]
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def empty(shape: Any, dtype: Any) -> Array:
    """An array with a forbidden page right behind it, or right before it."""
    dtype = np.dtype(dtype)
    bytes_ = int(np.prod(shape)) * dtype.itemsize
    room = -(-bytes_ // PAGE) * PAGE
    memory = mmap.mmap(-1, room + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + PAGE + room):
        assert protect(page, PAGE, 0) == 0
    offset = PAGE if EDGE == "start" else PAGE + room - bytes_
    return np.ndarray(shape, dtype, memory, offset)


def guarded(array: Any) -> Any:
    """A copy at a forbidden page; whatever is no array as it is."""
    if not isinstance(array, np.ndarray):
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class GuardedZeros:
    """NumPy for `rnnfast.stream`, which makes the arrays of a stream's state by `zeros`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, shape: Any, dtype: Any) -> Array:
        return guarded(np.zeros(shape, dtype))


run_forward, run_backward = passes.run_forward, passes.run_backward
order_by_length = ragged.order_by_length


def forward_into_guarded(calls: list[Any], threads: int) -> None:
    for call in calls:
        (T, B), P = call.x.shape[:2], call.weights.w_hh.shape[1]
        H = P if call.weights.w_hr is None else call.weights.w_hr.shape[1]
        call.y, call.h_n = empty((T, B, P), call.x.dtype), empty((B, P), call.x.dtype)
        if call.cell == config.LSTM:
            call.c_n = empty((B, H), call.x.dtype)
    run_forward(calls, threads)


def backward_into_guarded(calls: list[Any], threads: int) -> None:
    for call in calls:
        (T, B, I, H, P), dtype = call.tape.shape, call.tape.dtype
        rows = H * config.gates_of(call.tape.cell)
        call.dx, call.dh0, call.dc0 = empty((T, B, I), dtype), empty((B, P), dtype), None
        if call.tape.cell == config.LSTM:
            call.dc0 = empty((B, H), dtype)
        shapes = (rows, I), (rows, P), (rows,), (rows,), (P, H)
        call.dweights = passes.Weights(*(empty(shape, dtype) for shape in shapes))
    run_backward(calls, threads)


def guarded_order(*arguments: Any) -> tuple[Array, ...]:
    return tuple(map(guarded, order_by_length(*arguments)))


def problem_of(case: Case) -> Problem:
    return case.problem().map(lambda _, value: guarded(value))


def cases() -> list[Case]:
    """Sizes with every remainder of lanes, tiles and panels, all options; then large ones."""
    found = []
    for seed, case in enumerate(with_dtype(variants())):
        found += [
            replace(case, P=min(case.P, choice["H"]), **choice)
            for choice in cover(
                70, seed, H=range(1, 71), I=range(1, 36), B=(1, 2, 3, 4, 5, 6, 7, 8, 13, 25),
                T=(1, 2, 3, 5), **OPTIONS_OF_CELLS,
            )
        ]  # fmt: skip
    found += variants(T=2, B=3, I=1205, H=37) + variants(T=300, B=1, I=3, H=131)
    return found + variants(T=60, B=37, I=33, H=70, lengths=True)  # for two threads


def streams(kind: Any, **options: Any) -> None:
    for H, B in ((1, 1), (5, 2), (16, 1), (19, 7), (33, 1), (70, 13), (200, 80)):
        for dtype in ("float32", "float64"):
            print("stream", kind.__name__, options, H, B, dtype, flush=True)
            layer = kind(H + 3, H, 2, dtype=dtype, rng=0, **options)
            for name, value in layer.params.items():
                layer.params[name] = guarded(value)
            steps = layer.stream(B, threads=2)
            x = guarded(np.ones((3, B, H + 3), dtype))
            for _ in range(2):
                steps.step(guarded(x[0]), out=empty((B, layer.proj_size or H), dtype)
                           if hasattr(layer, "proj_size") else empty((B, H), dtype))  # fmt: skip
            steps.run(x)


def main() -> None:
    config.use_isa(ISA)
    config.hold_kept_memory(True)  # every block is a new one, with a border of its own
    functional.run_forward, functional.run_backward = forward_into_guarded, backward_into_guarded
    ragged.order_by_length, stream.np = guarded_order, GuardedZeros()
    for case in cases():
        print(case, flush=True)
        run(functional, problem_of(case), threads=2)
    for kind, options in (
        (rnnfast.RNN, {}), (rnnfast.GRU, {}), (rnnfast.GRU, {"reset_after": False}),
        (rnnfast.LSTM, {}),
    ):  # fmt: skip
        streams(kind, **options)
    for n in range(70):
        for dtype in ("float32", "float64"):
            for name in config.ACTIVATIONS if n else ():
                print(name, n, dtype, flush=True)
                config.vmath(name, guarded(np.ones(n, dtype)))
    print("all", flush=True)


if __name__ == "__main__":
    main()
