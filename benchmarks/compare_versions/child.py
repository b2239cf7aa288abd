"""Runs one version of rnnfast for `compare_versions`: hashes of results, and times.

Only public names of rnnfast are used, so that old versions can be compared too. The arguments are
the folder of the tests, for their problems, and the folder from which rnnfast must come.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain, product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

TESTS, VERSION = sys.argv[1:]
sys.path.append(TESTS)

import cases  # noqa: E402

import rnnfast  # noqa: E402
from rnnfast import functional  # noqa: E402

# (T, B, I, H): primes, sizes about a vector and a panel, one row, beyond the first-level cache.
SIZES = [
    (1, 1, 32, 64), (2, 1, 1, 1), (16, 1, 8, 20), (7, 1, 1, 33), (5, 3, 7, 11), (3, 2, 5, 16),
    (4, 13, 3, 17), (3, 29, 31, 32), (2, 6, 300, 257), (9, 5, 64, 128), (23, 4, 19, 47),
    (2, 64, 48, 96),
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reverse": True, "bias": "ih"},
    {"lengths": True, "resets": True, "bias": "hh"},
    {"lengths": True, "reverse": True, "bias": "none"},
]
LAYERS: dict[str, Any] = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}
KINDS: list[tuple[str, dict[str, Any]]] = [
    *(("rnn", {"nonlinearity": name}) for name in cases.NONLINEARITIES),
    *(("gru", {"reset_after": after}) for after in (True, False)),
    *(("lstm", {"proj_size": size}) for size in (0, 5)),
]


def functions() -> Iterator[tuple[str, Any]]:
    """All that the functions give, with and without what backward needs."""
    for sizes, options, dtype in product(SIZES, OPTIONS, cases.DTYPES):
        shape = dict(zip("TBIH", sizes, strict=True))
        if shape["H"] < 5:
            kinds = [kind for kind in KINDS if not kind[1].get("proj_size")]
        else:
            kinds = KINDS
        for cell, own in kinds:
            own = {{"proj_size": "P"}.get(name, name): value for name, value in own.items()}
            case = cases.Case(cell=cell, dtype=dtype, **shape, **options, **own)
            problem = case.problem()
            yield from ((f"{case} {n}", a) for n, a in cases.run(functional, problem).items())
            outputs, _ = cases.forward(functional, problem, need_tape=False)
            yield from ((f"{case} without tape {name}", a) for name, a in outputs.items())


def layers() -> Iterator[tuple[str, Any]]:
    """Stacked layers of both directions, two passes whose gradients add up."""
    for (cell, own), dtype in product(KINDS, cases.DTYPES):
        layer = LAYERS[cell](7, 19, 2, bidirectional=True, dropout=0.3, dtype=dtype, rng=3, **own)
        rng = np.random.default_rng(4)
        x = rng.standard_normal((6, 5, 7)).astype(dtype)
        what = f"layer {cell} {own} {dtype}"
        gradients = {name: np.zeros_like(array) for name, array in layer.params.items()}
        for number in range(2):
            y, state, tape = layer.forward(x, lengths=[6, 0, 3, 5, 1])
            grads = layer.backward(tape, y, accumulate=gradients)
            parts = state if isinstance(state, tuple) else (state,)
            arrays = enumerate((y, *parts, grads.input))
            yield from ((f"{what} {number} {i}", array) for i, array in arrays)
        yield from ((f"{what} {name}", array) for name, array in gradients.items())


def streams() -> Iterator[tuple[str, Any]]:
    """Steps and chunks, with a reset between."""
    shapes = [(1, 1, 32), (1, 32, 64), (3, 7, 19), (64, 64, 128)]
    for (cell, own), dtype, (B, I, H) in product(KINDS, cases.DTYPES, shapes):
        layer = LAYERS[cell](I, H, 2, dtype=dtype, rng=5, **own)
        x = np.random.default_rng(6).standard_normal((9, B, I)).astype(dtype)
        stream = layer.stream(batch_size=B)
        what = f"stream {cell} {own} {dtype} {B} {I} {H}"
        yield from ((f"{what} step {t}", stream.step(x[t]).copy()) for t in range(3))
        yield f"{what} run", stream.run(x)
        stream.reset(np.arange(B) % 2 == 0)
        yield f"{what} after reset", stream.run(x)


def digest(array: Any) -> str:
    if array is None:
        return "none"
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def bits() -> dict[str, str]:
    """The hash of every result by its name."""
    hashes: dict[str, str] = {}
    for name, array in chain(functions(), layers(), streams()):
        assert name not in hashes, f"two results are called {name}"
        hashes[name] = digest(array)
    return hashes


def work(kind: str, cell: str, sizes: list[int], options: dict[str, Any]) -> Callable[[], Any]:
    """What is timed: `forward` and `training` of the functions, `step` and `run` of a stream."""
    T, B, I, H = sizes
    dtype = options.get("dtype", "float32")
    if kind in ("step", "run"):
        layer = LAYERS[cell](I, H, dtype=dtype, rng=0)
        stream = layer.stream(batch_size=B)
        x = np.random.default_rng(1).standard_normal((T, B, I)).astype(dtype)
        if kind == "run":
            return lambda: stream.run(x)
        row, out = x[0], np.empty((B, H), dtype)
        return lambda: stream.step(row, out=out)
    problem = cases.Case(cell=cell, T=T, B=B, I=I, H=H, **options).problem()
    forward = getattr(functional, f"{cell}_forward")
    if kind == "forward":
        return lambda: forward(**problem.forward, need_tape=False)
    backward = getattr(functional, f"{cell}_backward")

    def train() -> None:
        *_, tape = forward(**problem.forward)
        backward(tape, **problem.upstream)

    return train


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Time of `repeats` calls, after a tenth of them to warm up."""
    for _ in range(1 + repeats // 10):
        run()
    gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        for _ in range(repeats):
            run()
        return perf_counter() - start
    finally:
        gc.enable()


def main() -> None:
    found = Path(rnnfast.__file__).parents[1]
    assert found == Path(VERSION), f"rnnfast comes from {found}, not from {VERSION}"
    runs: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer: Any = None
        if what == "isas":
            answer = rnnfast.config()["isas"]
        elif what == "bits":
            answer = bits()
        elif what == "threads":
            rnnfast.set_num_threads(*arguments)
        elif what == "prepare":
            name, *case = arguments
            runs = {name: work(*case)}
        else:
            name, repeats = arguments
            answer = seconds(runs[name], repeats)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
