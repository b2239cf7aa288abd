"""The same bits, whatever the threads, the other rows of the batch and the cuts of the sequence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases import (
    PER_ROW,
    WEIGHTS,
    Case,
    Problem,
    Results,
    assert_same_bits,
    backward,
    forward,
    run,
    variants,
    with_dtype,
)

import rnnfast
from rnnfast import functional
from rnnfast._core import config

pytestmark = pytest.mark.usefixtures("isa")

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"lengths": True, "bias": "hh"},
    {"resets": True, "reverse": True, "bias": "none"},
    {"lengths": True, "resets": True, "reverse": True},
)
SIZES = (
    {"T": 9, "B": 13, "I": 10, "H": 19},
    {"T": 40, "B": 3, "I": 33, "H": 9},
    {"T": 3, "B": 37, "I": 5, "H": 66},
)


def cases(**sizes: int) -> list[Case]:
    """Every kind of cell with every set of options, in both dtypes."""
    return with_dtype(replace(v, **o) for v in variants(**sizes) for o in OPTIONS)


CASES = [case for sizes in SIZES for case in cases(**sizes)]
per_case = pytest.mark.parametrize("case", CASES, ids=str)


# Work enough to be shared out, packing too; more blocks of rows than threads, and fewer.
SHARED = cases(T=60, B=37, I=33, H=70) + cases(T=1500, B=2, I=40, H=48)
SHARED += cases(T=40, B=16, I=90, H=132)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_threads(case: Case) -> None:
    problem = case.problem()
    lengths = problem.forward.get("lengths")
    rows = case.T * case.B if lengths is None else lengths.sum()
    gates = 1 if case.cell == "rnn" else 4
    work = 2 * rows * gates * case.H * (case.I + (case.P or case.H))
    assert work > config.SERIAL_FLOPS, "or everything runs on one thread"
    want = run(functional, problem, threads=1)
    for threads in (2, 3, 8, 2):
        assert_same_bits(run(functional, problem, threads=threads), want)


def test_python_threads() -> None:
    """Calls at the same time from many Python threads do not disturb each other."""
    problems = [c.problem() for c in variants(T=12, B=5, I=20, H=40)]
    want = [run(functional, p, threads=1) for p in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = pool.map(lambda p: run(functional, p, threads=2), problems * 4)
            for g, w in zip(got, want * 4, strict=True):
                assert_same_bits(g, w)


def take(results: Results, which: Any) -> Results:
    """These rows of the results that have rows."""
    rows = {n: results[n] for n in PER_ROW if n in results}
    return {n: v[:, which] if n in ("y", "dx") else v[which] for n, v in rows.items()}


# Input rows so long that their part is projected ahead of the steps; few units in the last vector;
# a single step, which a single row takes with unpacked weights.
ALONE = [*CASES, *cases(T=2, B=14, I=1600, H=5)]
ALONE += [case for H in (6, 16, 37, 64) for case in cases(T=1, B=3, I=19, H=H)]
ALONE += [case for H in (18, 21, 26, 53) for case in cases(T=3, B=13, I=19, H=H)]


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_rows_alone(case: Case) -> None:
    problem = case.problem()
    whole = run(functional, problem)
    for b in range(case.B):
        assert_same_bits(run(functional, problem.rows([b])), take(whole, [b]), PER_ROW)


@per_case
def test_rows_in_other_batches(case: Case) -> None:
    """First rows only, for every tile height; then all in another order, some of them twice."""
    problem = case.problem()
    whole = run(functional, problem)
    order = np.random.default_rng(0).integers(0, case.B, case.B + 3)
    for which in [*(range(n) for n in range(1, min(case.B, 14))), np.argsort(order), order]:
        rows = np.asarray(which) % case.B
        assert_same_bits(run(functional, problem.rows(rows)), take(whole, rows), PER_ROW)


def in_chunks(problem: Problem, cuts: list[int]) -> Results:
    """Forward chunk by chunk with the state carried, then backward with its gradient carried."""
    names = ["h", "c"] if problem.case.cell == "lstm" else ["h"]
    spans = list(pairwise(cuts))
    if problem.forward.get("reverse"):
        spans.reverse()
    state = {f"{n}0": problem.forward[f"{n}0"] for n in names}
    dstate = {f"d{n}_n": problem.upstream[f"d{n}_n"] for n in names}
    y, dx = {}, {}
    tapes: list[Any] = []
    for span in spans:
        outputs, tape = forward(functional, problem.steps(*span).using(**state))
        state = {f"{n}0": outputs[f"{n}_n"] for n in names}
        y[span] = outputs["y"]
        tapes.append(tape)
    for span, tape in zip(reversed(spans), reversed(tapes), strict=True):
        grads = backward(functional, problem.steps(*span).using(**dstate), tape)
        dstate = {f"d{n}_n": grads[f"d{n}0"] for n in names}
        dx[span] = grads["dx"]
    results = {n: np.concatenate([v[s] for s in sorted(v)]) for n, v in (("y", y), ("dx", dx))}
    for n in names:
        results |= {f"{n}_n": state[f"{n}0"], f"d{n}0": dstate[f"d{n}_n"]}
    return results


@per_case
def test_chunks(case: Case) -> None:
    problem = case.problem()
    whole = run(functional, problem)
    middle = case.T // 2
    for cuts in ([0, middle, case.T], [0, 1, case.T], [*range(case.T + 1)]):
        assert_same_bits(in_chunks(problem, cuts), whole, PER_ROW)


@pytest.mark.parametrize("case", CASES[: len(CASES) // len(SIZES)], ids=str)
def test_weight_gradients_of_parts_add_up(case: Case) -> None:
    """Of the batch's rows: up to rounding, since sums of parts have another order."""
    problem = case.problem()
    whole = run(functional, problem)
    parts = [run(functional, problem.rows(rows)) for rows in ([0, 1, 2, 3], range(4, case.B))]
    eps = np.finfo(case.dtype).eps
    for name in (f"d{weight}" for weight in WEIGHTS):
        if whole.get(name) is None:
            continue
        both = parts[0][name] + parts[1][name]
        scale = np.max(np.abs(whole[name]))
        np.testing.assert_allclose(both, whole[name], rtol=0, atol=64 * eps * scale, err_msg=name)


@per_case
def test_without_tape(case: Case) -> None:
    problem = case.problem()
    outputs, tape = forward(functional, problem, need_tape=False)
    assert tape is None
    assert_same_bits(outputs, forward(functional, problem)[0])


@pytest.mark.parametrize("case", [c for c in CASES if c.lengths], ids=str)
def test_lengths_cut(case: Case) -> None:
    """A row of length n in a padded batch is that row cut to n steps, alone."""
    problem = case.problem()
    whole = run(functional, problem)
    for b, n in enumerate(problem.forward["lengths"]):
        alone = problem.rows([b]).steps(0, n)
        alone.forward.pop("lengths")
        padded = take(whole, [b])
        assert not padded["y"][n:].any(), "output in the padding"
        assert not padded["dx"][n:].any(), "gradient in the padding"
        padded |= {name: padded[name][:n] for name in ("y", "dx")}
        assert_same_bits(run(functional, alone), padded, PER_ROW)


@per_case
def test_equal_lengths(case: Case) -> None:
    """Lengths of T are no lengths; lengths of 0 leave states and their gradients as they came."""
    case = replace(case, lengths=True)
    problem = case.problem()
    full = problem.using(lengths=np.full(case.B, case.T))
    problem.forward["lengths"] = None
    assert_same_bits(run(functional, full), run(functional, problem))

    problem.forward["lengths"] = np.zeros(case.B, int)
    got = run(functional, problem)
    for state in ("h", "c") if case.cell == "lstm" else ("h",):
        np.testing.assert_array_equal(got.pop(f"{state}_n"), problem.forward[f"{state}0"])
        np.testing.assert_array_equal(got.pop(f"d{state}0"), problem.upstream[f"d{state}_n"])
    assert not any(v.any() for v in got.values() if v is not None)


@per_case
def test_tape_is_independent(case: Case) -> None:
    """After forward all but `x` may change: weights, states, options and the results themselves."""
    problem = case.problem()
    want = run(functional, problem)
    outputs, tape = forward(functional, problem)
    changeable = {n: v for n, v in problem.forward.items() if n != "x"} | outputs
    for value in changeable.values():
        if isinstance(value, np.ndarray):
            value[...] = ~value if value.dtype == bool else 3
    grads = backward(functional, problem, tape)
    assert_same_bits(grads, want, grads)


@pytest.mark.parametrize("case", CASES[: len(CASES) // len(SIZES)], ids=str)
def test_backward_leaves_no_trace(case: Case) -> None:
    """A second forward and backward give what the first gave; no input is written to."""
    problem = case.problem()
    first = run(functional, problem)
    fresh = case.problem()
    assert_same_bits(problem.upstream, fresh.upstream)
    for name, value in fresh.forward.items():
        np.testing.assert_array_equal(problem.forward[name], value, err_msg=name)
    assert_same_bits(run(functional, problem), first)


@pytest.mark.parametrize("case", with_dtype(variants(T=9, B=13, I=64, H=32)), ids=str)
def test_addresses_of_x(case: Case) -> None:
    """Where `x` begins decides whether weight gradients read it there or in a copy."""
    problem = case.problem()
    x, results = problem.forward["x"], []
    memory = np.zeros(x.nbytes + 128, np.uint8)
    line = -memory.ctypes.data % 64
    for past in (0, x.itemsize, 16, 32):
        there = memory[line + past :][: x.nbytes].view(x.dtype).reshape(x.shape)
        there[...] = x
        results.append(run(functional, problem.using(x=there)))
    for result in results[1:]:
        assert_same_bits(result, results[0])


LAYERS = [
    (rnnfast.RNN, {}),
    (rnnfast.RNN, {"nonlinearity": "relu", "bias": False}),
    (rnnfast.GRU, {}),
    (rnnfast.GRU, {"reset_after": False}),
    (rnnfast.LSTM, {}),
    (rnnfast.LSTM, {"proj_size": 5}),
]


def flat(y: Any, state: Any) -> Results:
    """Output and state of a layer by name."""
    states = state if isinstance(state, tuple) else (state,)
    return {"y": y} | {f"state {i}": s for i, s in enumerate(states)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
@pytest.mark.parametrize("B", [1, 4, 13])
def test_layers_and_streams(kind: Any, options: dict[str, Any], dtype: str, B: int) -> None:
    """`layer(x)`, `layer.forward(x)`, a stream in one run, in chunks and step by step."""
    layer = kind(6, 19, 2, dtype=dtype, rng=3, **options)
    x = np.random.default_rng(B).standard_normal((12, B, 6)).astype(dtype)
    want = flat(*layer(x))
    assert_same_bits(flat(*layer.forward(x)[:2]), want)
    for cuts in ([0, 12], [0, 1, 5, 12], [0, 7, 7, 12]):
        stream = layer.stream(B)
        y = [stream.run(x[a:b]) for a, b in pairwise(cuts)]
        assert_same_bits(flat(np.concatenate(y), stream.state), want)
    stream = layer.stream(B)
    assert_same_bits(flat(np.stack([stream.step(x_t) for x_t in x]), stream.state), want)
