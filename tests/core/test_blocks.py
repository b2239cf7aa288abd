"""The kernels' own blocks of memory: none is lost, failures are told, what is kept is bounded.

`config.memory_now()` counts exactly: one block lost in one call shows.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, assert_same_bits, backward, forward, product, run, variants, with_dtype

import rnnfast
from rnnfast import functional
from rnnfast._core import arrays, config, passes

OPTIONS = product(lengths=(False, True), resets=(False, True), reverse=(False, True))
CASES = [replace(case, **o) for case in variants(T=6, B=4, H=19) for o in OPTIONS]
# One step of one row, which needs no packed weights; none of something; work for several threads.
CASES += with_dtype([*variants(T=1, B=1), *variants(T=0), *variants(B=0)])
SHARED = [replace(case, lengths=n) for case in variants(T=60, B=37, I=33, H=70) for n in (0, 1)]
WIDE = variants(T=2, B=2, I=1200, H=40)  # weight gradients in several stretches of columns
CASES += WIDE
per_case = pytest.mark.parametrize("case", [*CASES, *SHARED], ids=str)


def used() -> int:
    """Bytes of our own blocks in use."""
    return config.memory_now()[0]


@pytest.fixture(autouse=True)
def nothing_lost() -> Iterator[None]:
    """Whatever a test does, in the end as much is in use as before it."""
    before = used()
    yield
    config.refuse_memory(0)
    assert used() == before


# ------------------------------------------------------------------------------ every kind of call


@per_case
def test_a_pass_without_a_tape(case: Case) -> None:
    before, problem = used(), case.problem()
    for threads in (1, 2):
        results, _ = forward(functional, problem, need_tape=False, threads=threads)
        least = own(results)  # a kept block for them may be a quarter larger
        assert before + least <= used() <= before + least + least // 4
        del results
        assert used() == before


OWN_BYTES = 128 << 10  # a smaller result has memory of its own (rnnfast/_core/arrays.pyx)


def own(results: dict[str, Any]) -> int:
    """Bytes of the blocks that results lie in: those that refer to one, and all large ones must."""
    found = [a for a in results.values() if a is not None]
    assert all(a.base is not None for a in found if a.nbytes >= OWN_BYTES)
    arrays = {id(a.base): a for a in found if a.base is not None}
    return sum(a.nbytes + 64 for a in arrays.values())


@per_case
def test_a_tape_that_is_never_used(case: Case) -> None:
    before, problem = used(), case.problem()
    for threads in (1, 2):
        results, tape = forward(functional, problem, threads=threads)
        assert used() > before
        del results, tape
        assert used() == before


@per_case
def test_a_tape_that_is_used_and_used_again(case: Case) -> None:
    before, problem = used(), case.problem()
    for threads in (1, 2):
        results, tape = forward(functional, problem, threads=threads)
        grads = backward(functional, problem, tape, threads=threads)
        with pytest.raises(RuntimeError, match="tape was used"):
            backward(functional, problem, tape, threads=threads)
        del results, tape, grads
        assert used() == before


@pytest.mark.parametrize("case", with_dtype(variants(lengths=True)), ids=str)
def test_wrong_arguments(case: Case) -> None:
    """Each array in turn too long by one, so that all before it are already taken."""

    def longer(array: Any) -> Any:
        return np.concatenate([array, array[..., :1]], -1)

    before, problem = used(), case.problem()
    wrong = 0
    for name, array in problem.forward.items():
        if isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="shape"):
                forward(functional, problem.using(**{name: longer(array)}))
            wrong += 1
            assert used() == before
    _, tape = forward(functional, problem)
    held = used()
    for name, array in problem.upstream.items():
        with pytest.raises(ValueError, match="shape"):
            backward(functional, problem.using(**{name: longer(array)}), tape)
        wrong += 1
        assert used() == held
    assert wrong >= 8


def test_plain_arrays_of_wrong_shape_behind_right_ones() -> None:
    """The second direction is refused when the first has its results and its tape."""
    before, x = used(), np.zeros((300, 16, 8), np.float32)
    good = [np.zeros(shape, np.float32) for shape in ((64, 8), (64, 64), (64,))]
    bad = [np.zeros(shape, np.float32) for shape in ((64, 8), (64, 64), (63,))]

    def call(weights: Any, reverse: bool = False) -> passes.ForwardCall:
        w = passes.Weights(*weights)
        return passes.ForwardCall(config.RNN, 0, x, None, None, w, None, None, reverse, True)

    calls = [call(good), call(bad, reverse=True)]
    with pytest.raises(ValueError, match=r"b_ih has shape \(63,\)"):
        passes.run_forward(calls, 1)
    del calls
    assert used() == before
    narrow = call(good)
    narrow.y, narrow.h_n = np.zeros((300, 16, 64), np.float32), np.zeros((15, 64), np.float32)
    with pytest.raises(ValueError, match="does not fit"):
        passes.run_forward([narrow], 1)
    fixed = call(good)
    fixed.y = np.zeros((300, 16, 64), np.float32)
    fixed.y.flags.writeable = False
    with pytest.raises(ValueError, match="does not fit"):
        passes.run_forward([fixed], 1)
    del narrow, fixed
    assert used() == before


def test_a_tape_whose_memory_is_lent() -> None:
    """The memory holds the tape; by its address the tape is found, and only while there is one."""
    before = used()
    _, tape = forward(functional, Case(cell="lstm").problem())
    memory = tape.memory
    address = memory.ctypes.data
    assert passes.tape_at(address) is tape
    held = used()
    del tape
    assert used() == held > before + memory.nbytes
    assert passes.tape_at(address) is not None
    del memory
    assert used() == before
    assert passes.tape_at(address) is None


def layers() -> list[Any]:
    options = product(num_layers=(1, 3), bidirectional=(False, True), batch_first=(False, True))
    kinds: list[tuple[Any, dict[str, Any]]] = [(rnnfast.RNN, {}), (rnnfast.GRU, {})]
    kinds += [(rnnfast.GRU, {"reset_after": False}), (rnnfast.LSTM, {})]
    kinds += [(rnnfast.LSTM, {"proj_size": 5})]
    return [(kind, o | own) for (kind, own), o in itertools.product(kinds, options)]


@pytest.mark.parametrize(("kind", "options"), layers(), ids=str)
def test_layers(kind: Any, options: dict[str, Any]) -> None:
    before, layer = used(), kind(6, 17, rng=0, **options)
    x = np.ones((5, 4, 6), np.float32)
    lengths = [2, 4, 0, 3, 1] if options["batch_first"] else [5, 1, 0, 3]
    for more in ({}, {"lengths": np.array(lengths)}, {"threads": 2}):
        y, state = layer(x, **more)
        y, state, tape = layer.forward(x, state, **more)
        grads = layer.backward(tape, y, state, threads=more.get("threads"))
        layer.forward(x, **more)
        with pytest.raises(ValueError, match="x has shape"):
            layer.forward(x[..., :5], **more)
        with pytest.raises(RuntimeError, match="tape has been used"):
            layer.backward(tape)
        del y, state, tape, grads
        assert used() == before


@pytest.mark.parametrize(
    ("kind", "options"), [p for p in layers() if not p[1]["bidirectional"]], ids=str
)
def test_streams(kind: Any, options: dict[str, Any]) -> None:
    before, layer = used(), kind(6, 17, rng=0, **options)
    stream = layer.stream(4)
    held = used()
    assert held > before
    x, out = np.ones((4, 3, 6), np.float32), np.empty((4, options.get("proj_size", 17)), np.float32)
    for _ in range(3):
        stream.step(x[:, 0])
        stream.step(x[:, 0], out=out)
        stream.run(x if options["batch_first"] else x.swapaxes(0, 1))
        stream.reset()
        with pytest.raises(ValueError, match="x has shape"):
            stream.step(x[:3, 0])
        with pytest.raises(ValueError, match="x has shape"):
            stream.run(x[:1])
        assert used() == held
    del stream
    assert used() == before


def test_python_threads() -> None:
    """Blocks that threads take and give back at the same time; results as of one thread."""
    problems = [case.problem() for case in SHARED]
    want = [run(functional, p, threads=1) for p in problems]
    before = used()
    with ThreadPoolExecutor(4) as pool:
        for got, exact in zip(
            pool.map(lambda p: run(functional, p, threads=2), problems * 3), want * 3, strict=True
        ):
            assert_same_bits(got, exact)
            del got
    assert used() == before


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch_cases import KINDS, data, pair, train

    before = used()
    for kind, bidirectional in itertools.product(KINDS, (False, True)):
        _, fast = pair(kind, num_layers=2, bidirectional=bidirectional)
        x, state = data(fast, 5, 3)
        train(fast, x, state)
        fast(x, state)  # a graph that nothing runs back through
        with torch.no_grad():
            fast(x, state)
        with pytest.raises(RuntimeError):
            fast(x[..., :1], state)
    del fast
    assert used() == before


# ---------------------------------------------------------------------------------- without memory


def each_failure(call: Callable[[], Any], same: Callable[[Any], None]) -> int:
    """Let one allocation after the other fail; return how many there are.

    The call must then raise MemoryError and lose nothing, and with memory give what is `same`.
    """
    for n in itertools.count(1):
        before = used()
        config.refuse_memory(n)
        results = None
        with contextlib.suppress(MemoryError):
            results = call()
        told, failed = results is None, config.refuse_memory(0) <= 0
        assert told == failed, f"allocation {n}"
        if not failed:
            same(results)
            return n - 1
        assert used() == before, f"lost with the failure of allocation {n}"
        same(call())
    raise AssertionError


@pytest.mark.parametrize("threads", [1, 2])
@per_case
def test_every_allocation_may_fail(case: Case, threads: int) -> None:
    problem = case.problem()
    want = run(functional, problem, threads=threads)
    count = each_failure(
        lambda: run(functional, problem, threads=threads), lambda got: assert_same_bits(got, want)
    )
    # Two packed weights, the tape, forward's and backward's scratch, the products'.
    assert count >= 5


@pytest.mark.parametrize(("kind", "options"), layers(), ids=str)
def test_every_allocation_of_a_layer_may_fail(kind: Any, options: dict[str, Any]) -> None:
    layer, x = kind(6, 17, rng=0, **options), np.ones((5, 4, 6), np.float32)

    def step() -> dict[str, Any]:
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, y)
        return {"y": y, "x": grads.input} | grads.params

    want = step()
    assert each_failure(step, lambda got: assert_same_bits(got, want)) >= 5


@pytest.mark.parametrize("num_layers", [1, 3])
def test_every_allocation_of_a_stream_may_fail(num_layers: int) -> None:
    layer, x = rnnfast.LSTM(6, 17, num_layers, rng=0), np.ones((5, 4, 6), np.float32)

    def steps() -> dict[str, Any]:
        stream = layer.stream(4)
        return {"step": stream.step(x[0]), "run": stream.run(x)}

    want = steps()
    assert each_failure(steps, lambda got: assert_same_bits(got, want)) >= 4


def test_more_than_there_is() -> None:
    """What the system refuses, without any help."""
    huge = np.broadcast_to(np.float64(0), (1 << 43,))
    with pytest.raises(MemoryError):
        arrays.copied(huge)
