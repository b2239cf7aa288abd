"""Whatever the shapes, strides, lengths and resets: the results are the float64 reference's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import (
    BIASES,
    CELLS,
    DTYPES,
    Array,
    Case,
    Problem,
    assert_accurate,
    assert_same_bits,
    run,
)
from hypothesis import given
from hypothesis import strategies as st

from rnnfast import functional, reference

pytestmark = pytest.mark.usefixtures("isa")

sizes = st.integers(1, 40)
flags = st.booleans()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any call but relu's, whose gradient jumps where a rounded pre-activation changes its sign."""
    cell = draw(st.sampled_from(CELLS))
    H = draw(sizes)
    return Case(
        cell=cell,
        dtype=draw(st.sampled_from(DTYPES)),
        T=draw(st.integers(0, 20)),
        B=draw(st.integers(0, 20)),
        I=draw(sizes),
        H=H,
        P=draw(st.integers(0, H)) if cell == "lstm" else 0,
        bias=draw(st.sampled_from(BIASES)),
        nonlinearity=draw(st.sampled_from(["tanh", "sigmoid", "identity"])),
        reset_after=draw(flags),
        reverse=draw(flags),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def check(problem: Problem) -> None:
    want = run(reference, problem.astype("float64"))
    assert_accurate(problem.case, run(functional, problem), want)


@given(case=cases(), lengths=flags, resets=flags, threads=st.sampled_from([None, 1, 2, 5]))
def test_any_shape(case: Case, lengths: bool, resets: bool, threads: int | None) -> None:
    problem = replace(case, lengths=lengths, resets=resets).problem()
    want = run(reference, problem.astype("float64"))
    assert_accurate(case, run(functional, problem, threads=threads), want)


@given(case=cases(), data=st.data())
def test_any_lengths_and_resets(case: Case, data: st.DataObject) -> None:
    T, B = case.T, case.B
    problem = case.problem()
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    if lengths is not None:
        dtype = data.draw(st.sampled_from(["i1", "i8", "u4"]))
        problem.forward["lengths"] = np.array(lengths, dtype)
    rows = st.lists(flags, min_size=B, max_size=B)
    resets = data.draw(st.none() | st.lists(rows, min_size=T, max_size=T))
    if resets is not None:
        problem.forward["resets"] = np.array(resets, bool).reshape(T, B)
    check(problem)


@st.composite
def layouts(draw: st.DrawFn, array: Array) -> Array:
    """The same values in memory of any order, with any strides and offset."""
    axes = draw(st.permutations(range(array.ndim)))
    steps = draw(st.tuples(*[st.sampled_from([1, 2, 3, -1, -2])] * array.ndim))
    offsets = draw(st.tuples(*[st.integers(0, 3)] * array.ndim))
    stops = [o + array.shape[a] * abs(s) for a, s, o in zip(axes, steps, offsets, strict=True)]
    room = np.full(stops, np.nan, array.dtype)
    within = tuple(slice(o, None, abs(s)) for s, o in zip(steps, offsets, strict=True))
    turned = tuple(slice(None, None, 1 if s > 0 else -1) for s in steps)
    view = room[within][turned].transpose(np.argsort(axes))
    view[...] = array
    view.flags.writeable = draw(flags)
    return view


@given(case=cases(), data=st.data())
def test_any_strides(case: Case, data: st.DataObject) -> None:
    problem = replace(case, T=min(case.T, 5), B=min(case.B, 5)).problem()

    def lay_out(_: str, value: Any) -> Any:
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        return data.draw(layouts(value)) if floats else value

    assert_same_bits(run(functional, problem.map(lay_out)), run(functional, problem))


@given(case=cases(), data=st.data())
def test_any_cut(case: Case, data: st.DataObject) -> None:
    """Two calls with the carried state are one call, wherever it is cut."""
    case = replace(case, reverse=False, resets=data.draw(flags), lengths=data.draw(flags))
    problem = case.problem()
    whole = run(functional, problem)
    cut = data.draw(st.integers(0, case.T))
    states = ("h", "c") if case.cell == "lstm" else ("h",)
    first = run(functional, problem.steps(0, cut))
    second = problem.steps(cut, case.T).using(**{f"{s}0": first[f"{s}_n"] for s in states})
    got = run(functional, second)
    got["y"] = np.concatenate([first["y"], got["y"]])
    assert_same_bits(got, whole, ["y", "h_n", "c_n"])
