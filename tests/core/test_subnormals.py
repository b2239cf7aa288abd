"""Kernels count subnormal numbers as zero, and leave the arithmetic of all others as it was.

That is a setting of each processor thread: flush to zero and denormals are zero on x86, flush to
zero on ARM. A call changes it for the time of its kernels, on the caller's thread and on OpenMP's,
which other libraries use in turn.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, assert_same_bits, backward, forward, run, variants, with_dtype

import rnnfast
from rnnfast import functional
from rnnfast._core import config

MACHINE = platform.machine()
# What flushes, and what only records what has happened.
FLUSH, RECORDS = {"x86_64": (0x8040, 0x3F), "aarch64": (1 << 24, 0)}.get(MACHINE, (0, 0))
pytestmark = [
    pytest.mark.usefixtures("isa"),
    pytest.mark.skipif(not FLUSH, reason=f"{MACHINE} has no such setting that is known here"),
]
THREADS = 2 if rnnfast.config()["openmp"] else 1


def states() -> list[int]:
    """The setting of the caller's thread and of OpenMP's other one."""
    return [state & ~RECORDS for state in config.float_states(THREADS)]


def flushes() -> bool:
    """Whether NumPy's arithmetic here takes subnormal numbers, or gives them, as zeros."""
    found = set()
    for dtype, tiny in (("float32", 1e-40), ("float64", 1e-310)):
        subnormal, least = np.array([tiny], dtype), np.array([np.finfo(dtype).tiny])
        half = np.array([0.5], dtype)
        found |= {bool((a * half)[0] == 0) for a in (subnormal, least.astype(dtype))}
    assert len(found) == 1
    return found.pop()


@pytest.fixture(params=["as it is", "flushing"])
def setting(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """The caller's own setting, on every thread: that of the process, and its opposite."""
    before = states()
    assert not any(state & FLUSH for state in before)
    if request.param == "flushing":
        config.float_states(THREADS, before[0] | FLUSH)
    try:
        wanted = states()
        assert flushes() == (request.param == "flushing")
        yield wanted
        assert states() == wanted
        assert flushes() == (request.param == "flushing")
    finally:
        config.float_states(THREADS, before[0])


SMALL = with_dtype(variants(T=4, B=3))
SHARED = with_dtype(replace(c, lengths=n) for c in variants(T=60, B=37, I=33, H=70) for n in (0, 1))
EMPTY = [*variants(T=0), *variants(B=0), *variants(T=1, B=1)]


@pytest.mark.parametrize("case", [*SMALL, *SHARED, *EMPTY], ids=str)
def test_functions(case: Case, setting: list[int]) -> None:
    problem = case.problem()
    for threads in (1, THREADS):
        results, tape = forward(functional, problem, threads=threads)
        assert states() == setting
        results |= backward(functional, problem, tape, threads=threads)
        assert states() == setting
        forward(functional, problem, threads=threads, need_tape=False)
        assert states() == setting


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [rnnfast.RNN, rnnfast.GRU, rnnfast.LSTM])
def test_layers(kind: Any, bidirectional: bool, setting: list[int]) -> None:
    for B, H in ((2, 5), (40, 70)):
        layer = kind(9, H, 2, bidirectional=bidirectional, rng=0)
        x = np.ones((60, B, 9), np.float32)
        y, _ = layer(x, threads=THREADS)
        assert states() == setting
        y, _, tape = layer.forward(x, threads=THREADS)
        assert states() == setting
        layer.backward(tape, y, threads=THREADS)
        assert states() == setting


@pytest.mark.parametrize("kind", [rnnfast.RNN, rnnfast.GRU, rnnfast.LSTM])
def test_streams(kind: Any, setting: list[int]) -> None:
    for B, H in ((1, 5), (70, 200)):
        stream = kind(90, H, 2, rng=0).stream(B, threads=THREADS)
        assert states() == setting
        stream.step(np.ones((B, 90), np.float32))
        assert states() == setting
        stream.run(np.ones((20, B, 90), np.float32))
        assert states() == setting
        with pytest.raises(ValueError, match="x has shape"):
            stream.step(np.ones((B, 91), np.float32))
        config.refuse_memory(1)
        with pytest.raises(MemoryError):
            stream.run(np.ones((20, B, 90), np.float32))
        assert states() == setting


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "identity"])
def test_functions_of_one_number(name: str, setting: list[int]) -> None:
    for dtype in ("float32", "float64"):
        config.vmath(name, np.linspace(-9, 9, 50, dtype=dtype))
    config.fma_peak("float32", 0)
    assert states() == setting


def test_torch(setting: list[int]) -> None:
    torch = pytest.importorskip("torch")
    import rnnfast.torch

    for kind, size in ((rnnfast.torch.LSTM, 5), (rnnfast.torch.GRU, 70), (rnnfast.torch.RNN, 200)):
        layer, x = kind(9, size, 2), torch.ones(60, 40, 9)
        with torch.no_grad():
            layer(x)
        layer(x)[0].sum().backward()
        assert states() == setting


def failures(case: Case) -> Iterator[tuple[type[Exception], Callable[[], Any]]]:
    """Calls that raise: wrong shapes, a tape used before, and no memory for each block in turn."""
    problem = case.problem()
    wrong = problem.using(w_hh=problem.forward["w_hh"][:-1])
    yield ValueError, lambda: forward(functional, wrong)
    yield TypeError, lambda: forward(functional, problem.using(x=[1.0]))
    _, tape = forward(functional, problem)
    short = problem.using(dy=problem.upstream["dy"][:-1])
    yield ValueError, lambda: backward(functional, short, tape)
    backward(functional, problem, tape)
    yield RuntimeError, lambda: backward(functional, problem, tape)
    for threads in (1, THREADS):
        for n in range(1, 9 if case.T > 4 else 6):

            def refused(n: int = n, threads: int = threads) -> None:
                config.refuse_memory(n)
                try:
                    run(functional, problem, threads=threads)
                finally:
                    config.refuse_memory(0)

            yield MemoryError, refused


@pytest.mark.parametrize("case", [*SMALL, *SHARED[::2]], ids=str)
def test_exceptions(case: Case, setting: list[int]) -> None:
    for error, call in failures(case):
        with pytest.raises(error):
            call()
        assert states() == setting


# ------------------------------------------------------------------------------ within the kernels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, THREADS])
def test_a_state_that_decays_ends_in_zeros(dtype: str, threads: int) -> None:
    """h = h / 2 of every unit, from the least normal number on: the next one would be subnormal."""
    B, H = 37, 70  # work for several threads
    tiny = np.finfo(dtype).tiny
    h0 = np.full((B, H), 4 * tiny, dtype)
    x, w_ih = np.zeros((60, B, 33), dtype), np.zeros((H, 33), dtype)
    half = (np.eye(H) / 2).astype(dtype)
    args = x, h0, w_ih, half
    y, h_n, tape = functional.rnn_forward(*args, nonlinearity="identity", threads=threads)
    assert [float(y[t].max() / tiny) for t in range(4)] == [2, 1, 0, 0]
    assert not h_n.any()
    grads = functional.rnn_backward(tape, dh_n=h0, threads=threads)
    assert not grads.h0.any()
    layer = rnnfast.RNN(33, H, dtype=dtype, bias=False, nonlinearity="relu", rng=0)
    layer.load_state_dict({"weight_ih_l0": w_ih, "weight_hh_l0": half})
    stream = layer.stream(B, h0[None], threads=threads)
    steps = np.stack([stream.step(x[0]) for _ in range(4)])
    assert np.array_equal(steps, y[:4])


@pytest.mark.parametrize("case", [*SMALL, *SHARED[::4], *EMPTY], ids=str)
def test_bits_do_not_depend_on_the_setting(case: Case) -> None:
    """Nor on the number of threads, of inputs and weights that are subnormal in part."""

    def change(name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            value = value.copy()
            least = np.finfo(value.dtype).tiny
            value.flat[::3] *= least  # subnormal, or nearly so
        return value

    problem = case.problem().map(change)
    before = states()[0]
    want = run(functional, problem, threads=1)
    try:
        for new in (before, before | FLUSH):
            config.float_states(THREADS, new)
            for threads in (1, THREADS):
                got = run(functional, problem, threads=threads)
                config.float_states(1, before)  # or the comparison itself would flush
                assert_same_bits(got, want)
                config.float_states(1, new)
    finally:
        config.float_states(THREADS, before)
