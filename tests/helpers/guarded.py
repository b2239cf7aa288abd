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
from rnnfast import _kernels, functional, stream

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


run_forward, run_backward, packing = _kernels.run_forward, _kernels.run_backward, _kernels.packing


def forward_into_guarded(calls: list[Any], threads: int) -> Any:
    outs = []
    for cell, _, x, _, (_, w_hh, _, _, w_hr), *_ in calls:
        (T, B), P = x.shape[:2], w_hh.shape[1]
        H = P if w_hr is None else w_hr.shape[1]
        c_n = empty((B, H), x.dtype) if cell == _kernels.LSTM else None
        outs.append((empty((T, B, P), x.dtype), empty((B, P), x.dtype), c_n))
    return run_forward(calls, threads, outs)


def backward_into_guarded(calls: list[Any], threads: int) -> Any:
    outs = []
    for _, tape, *_ in calls:
        T, B, I, H, P = tape.shape
        rows = H * {_kernels.RNN: 1, _kernels.LSTM: 4}.get(tape.cell, 3)
        shapes = (T, B, I), (B, P), (B, H), (rows, I), (rows, P), (rows,), (rows,), (P, H)
        outs.append(tuple(empty(shape, tape.dtype) for shape in shapes))
    return run_backward(calls, threads, outs)


def guarded_packing(*arguments: Any) -> tuple[Array, ...]:
    return tuple(map(guarded, packing(*arguments)))


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
    _kernels.use_isa(ISA)
    _kernels.hold_kept_memory(True)  # every block is a new one, with a border of its own
    _kernels.run_forward, _kernels.run_backward = forward_into_guarded, backward_into_guarded
    _kernels.packing, stream.np = guarded_packing, GuardedZeros()
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
            for name in _kernels.ACTIVATIONS if n else ():
                print(name, n, dtype, flush=True)
                _kernels.vmath(name, guarded(np.ones(n, dtype)))
    print("all", flush=True)


if __name__ == "__main__":
    main()
