"""NaN and infinity: they stay in their row, reach its later steps, saturate gates; hygiene."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    DTYPES,
    PER_ROW,
    Array,
    Case,
    assert_same_bits,
    forward,
    run,
    variants,
    with_dtype,
)

import rnnfast
from rnnfast import functional

pytestmark = pytest.mark.usefixtures("isa")

SIZES = {"T": 9, "B": 14, "I": 6, "H": 18}
CASES = [c for v in variants(**SIZES) for c in with_dtype([v, replace(v, reverse=True)])]
per_case = pytest.mark.parametrize("case", CASES, ids=str)
ROW, STEP = 5, 4


def around(case: Case) -> tuple[list[int], list[int]]:
    """The steps processed before STEP and those after it."""
    before, after = list(range(STEP)), list(range(STEP + 1, case.T))
    return (after, before) if case.reverse else (before, after)


def others(results: dict[str, Any], case: Case) -> dict[str, Array]:
    """The results of all rows but ROW."""
    rows = np.delete(np.arange(case.B), ROW)
    names = [n for n in PER_ROW if n in results]
    return {n: results[n].take(rows, 1 if n in ("y", "dx") else 0) for n in names}


@per_case
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x", "h0", "c0", "dy", "dh_n", "dc_n"])
def test_stays_in_its_row(case: Case, name: str, bad: float) -> None:
    problem = case.problem()
    arguments = problem.upstream if name.startswith("d") else problem.forward
    if name not in arguments:
        assert name in ("c0", "dc_n")
        return
    want = others(run(functional, problem), case)
    array = arguments[name]
    array[(STEP, ROW, 2) if array.ndim == 3 else (ROW, 2)] = bad
    assert_same_bits(others(run(functional, problem), case), want)


@per_case
def test_nan_in_x_reaches_later_steps(case: Case) -> None:
    problem = case.problem()
    clean = run(functional, problem)
    problem.forward["x"][STEP, ROW, 2] = np.nan
    got = run(functional, problem)
    before, after = around(case)
    assert np.isnan(got["y"][[STEP, *after], ROW]).all()
    assert all(np.isnan(got[n][ROW]).all() for n in ("h_n", "c_n") if n in got)
    assert_same_bits({"y": got["y"][before, ROW]}, {"y": clean["y"][before, ROW]})
    assert np.isnan(got["dw_ih"]).any(), "the weight gradients hide the NaN"


@per_case
def test_nan_in_dy_reaches_earlier_steps(case: Case) -> None:
    """Backward goes the other way: the NaN reaches `dx` of the step and of all processed before."""
    problem = case.problem()
    if case.nonlinearity == "relu":
        problem.forward["b_ih"] += 100  # every unit is on
    clean = run(functional, problem)
    problem.upstream["dy"][STEP, ROW, 2] = np.nan
    got = run(functional, problem)
    before, after = around(case)
    assert np.isnan(got["dx"][[STEP, *before], ROW]).all()
    assert np.isnan(got["dh0"][ROW]).all()
    assert_same_bits({"dx": got["dx"][after, ROW]}, {"dx": clean["dx"][after, ROW]})
    assert_same_bits(got, clean, ["y", "h_n", "c_n"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_infinite_x_saturates(dtype: str, sign: float) -> None:
    """With positive weights each gate is at its end, whichever the infinity."""
    for case in variants(**SIZES, dtype=dtype):
        if case.nonlinearity in ("relu", "identity"):
            continue
        problem = case.problem()
        forward_ = problem.forward
        forward_["w_ih"][:] = np.abs(forward_["w_ih"]) + 0.01
        forward_["x"][STEP, ROW] = sign * np.inf
        y = forward(functional, problem)[0]["y"]
        assert np.isfinite(y).all(), case
        before = y[STEP - 1, ROW]
        want: Any
        if case.cell == "rnn":
            want = np.tanh(sign * np.inf) if case.nonlinearity == "tanh" else (sign + 1) / 2
        elif case.cell == "gru":
            want = before if sign > 0 else np.full_like(before, -1)  # z is 1 or 0, n is -1
        elif case.P:
            continue  # h is a product with w_hr: finite is all
        else:
            c = forward(functional, problem.steps(0, STEP))[0]["c_n"][ROW]
            want = np.tanh(c + 1) if sign > 0 else np.zeros_like(c)  # c = c' + 1, or 0
        np.testing.assert_allclose(y[STEP, ROW], want, rtol=1e-5, atol=1e-6, err_msg=str(case))


@per_case
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_is_not_read(case: Case, bad: float) -> None:
    """Beyond the lengths x and dy may hold anything; it reaches nothing, not even dw."""
    case = replace(case, lengths=True)
    problem = case.problem()
    want = run(functional, problem)
    padding = np.arange(case.T)[:, None] >= problem.forward["lengths"]
    assert padding.any()
    problem.forward["x"][padding] = bad
    problem.upstream["dy"][padding] = bad
    assert_same_bits(run(functional, problem), want)


@per_case
def test_reset_stops_nan(case: Case) -> None:
    """A reset makes the state zero whatever it was, and no gradient crosses it: not even NaN."""
    case = replace(case, resets=True)
    problem = case.problem()
    problem.forward["resets"][STEP - 1 if case.reverse else STEP + 1, ROW] = True
    before, after = around(case)
    clean = run(functional, problem)

    def poison(*names: str) -> dict[str, Any]:
        def spoil(name: str, value: Any) -> Any:
            if name in names:
                value = value.copy()
                value[ROW] = np.nan
            return value

        return run(functional, problem.map(spoil))

    got = poison("h0", "c0")
    for name in ("y", "dx"):
        assert_same_bits({name: got[name][after, ROW]}, {name: clean[name][after, ROW]})
    got = poison("dh_n", "dc_n")
    assert_same_bits({"dx": got["dx"][before, ROW]}, {"dx": clean["dx"][before, ROW]})
    assert_same_bits({"dh0": got["dh0"][ROW]}, {"dh0": clean["dh0"][ROW]})


@pytest.mark.parametrize("case", variants(**SIZES), ids=str)
def test_subnormal_arithmetic_survives(case: Case) -> None:
    """A kernel may flush subnormals within itself, not in the caller's arithmetic after it."""
    problem = case.problem()
    problem.forward["x"] *= 1e-40
    assert np.isfinite(run(functional, problem, threads=2)["y"]).all()
    assert np.float32(1e-40) * np.float32(0.5) > 0
    assert np.float64(1e-310) * 0.5 > 0


def resident() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_memory_does_not_grow() -> None:
    """400 calls of 100 shapes, with and without tape, leave no memory behind."""
    rng = np.random.default_rng(0)

    def calls(count: int) -> None:
        for _ in range(count):
            T, B, I, H = (int(n) for n in rng.integers(5, 40, 4))
            case = variants(T=T, B=B, I=I, H=H, lengths=True)[rng.integers(8)]
            problem = case.problem()
            run(functional, problem)
            forward(functional, problem, need_tape=True)  # a tape that nothing consumes
            forward(functional, problem, need_tape=False)

    calls(40)
    gc.collect()
    before = resident()
    calls(100)
    gc.collect()
    grown = resident() - before
    assert grown < 8 << 20, f"grew by {grown >> 10} KiB"


def test_large_results_are_arrays_of_their_own() -> None:
    """Their memory is kept for the next call, but not before the last view of them is gone."""
    layer = rnnfast.RNN(1, 256)
    x = np.zeros((128, 256, 1), np.float32)
    y, _ = layer(x)
    assert y.nbytes == 32 << 20
    assert y.flags.writeable
    assert y.flags.c_contiguous
    last, expected, address = y[-1:], y[-1].copy(), y.ctypes.data
    y[:-1] = np.nan
    del y
    second, _ = layer(x)
    assert not np.shares_memory(second, last)
    assert np.array_equal(last[0], expected)
    assert np.isfinite(second).all()
    del last
    assert layer(x)[0].ctypes.data == address


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_memory_that_is_not_needed_again_is_given_back() -> None:
    layer, small = rnnfast.RNN(1, 256), np.zeros((1, 1, 1), np.float32)
    for _ in range(2):
        layer.forward(np.zeros((768, 256, 1), np.float32))  # y 192 MiB, tape twice that
    kept = resident()
    for _ in range(2000):
        layer(small)
    assert kept - resident() > 256 << 20
