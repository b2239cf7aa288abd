"""Every kernel against the float64 reference: all cells, dtypes and options, on awkward shapes.

The shapes straddle what a kernel is likely to treat apart: vector lanes (2 to 16), tile heights,
panels and blocks, one of something, none of something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import (
    BIASES,
    DTYPES,
    OPTIONS_OF_CELLS,
    Case,
    assert_accurate,
    cover,
    product,
    run,
    variants,
    with_dtype,
)

from rnnfast import functional, reference

pytestmark = pytest.mark.usefixtures("isa")

STATES = ("h0", "c0", "dy", "dh_n", "dc_n")
H = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130)
B = (0, 1, 2, 3, 5, 6, 7, 13, 33)
OTHERS: dict[str, Any] = {
    "T": (1, 2, 5, 17),
    "I": (1, 3, 8, 17),
} | OPTIONS_OF_CELLS
OWN: dict[str, dict[str, Any]] = {
    "rnn": {"nonlinearity": ("tanh", "relu", "sigmoid", "identity")},
    "gru": {"reset_after": (True, False)},
    "lstm": {"P": (0, 0, 1, 4, 19)},
}


def shapes() -> list[Case]:
    """Every H with every B, the rest spread evenly over them."""
    cases = []
    for seed, (cell, dtype) in enumerate((c, d) for c in OWN for d in DTYPES):
        sizes = product(H=H, B=B)
        rest = cover(len(sizes), seed, **OTHERS, **OWN[cell])
        cases += [Case(cell=cell, dtype=dtype, **s, **r) for s, r in zip(sizes, rest, strict=True)]
    return [replace(case, P=min(case.P, case.H)) for case in cases]


def combinations() -> list[Case]:
    """Every combination of options on one shape of distinct primes."""
    options = product(
        bias=BIASES, lengths=(False, True), resets=(False, True), reverse=(False, True)
    )
    return with_dtype(
        replace(v, **o) for v in variants(T=7, B=5, I=3, H=11, seed=1) for o in options
    )


def empty() -> list[Case]:
    """No time steps, no rows, neither."""
    sizes = product(T=(0, 4), B=(0, 3), lengths=(False, True), resets=(False, True))[:-4]
    return with_dtype(replace(v, **s) for v in variants() for s in sizes)


def blocks() -> list[Case]:
    """Sizes past the blocks: many steps, many rows, wide inputs, T * B over several blocks."""
    sizes: tuple[dict[str, Any], ...] = (
        {"T": 263, "B": 1, "I": 5, "H": 19},
        {"T": 131, "B": 5, "I": 67, "H": 37, "lengths": True},
        {"T": 3, "B": 131, "I": 259, "H": 67, "resets": True},
        {"T": 4, "B": 3, "I": 601, "H": 263, "reverse": True},
    )
    return with_dtype(replace(v, **s) for v in variants() for s in sizes)


def left_over() -> list[Case]:
    """Every number of units left over in the last vector, for one row and for several tiles."""
    sizes = product(H=range(17, 32), B=(1, 13)) + product(H=range(32, 48), B=(1,))
    return with_dtype(replace(v, **s) for v in variants(T=3, I=5) for s in sizes)


CASES = [*shapes(), *combinations(), *empty(), *blocks(), *left_over()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_reference(case: Case) -> None:
    problem = case.problem()
    assert_accurate(case, run(functional, problem), run(reference, problem.astype("float64")))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("row", [None, 0, 2, 4])
@pytest.mark.parametrize("case", with_dtype(variants(T=1, I=5, H=18)), ids=str)
def test_one_data_row(case: Case, row: int | None, reset: bool, reverse: bool) -> None:
    """A single step of one row, alone or the only one in its batch that has a step."""
    case = replace(case, B=1 if row is None else 5, reverse=reverse)
    problem = case.problem()
    if row is not None:
        problem.forward["lengths"] = (np.arange(5) == row).astype(int)
    problem.forward["resets"] = np.full((1, case.B), reset)
    assert_accurate(case, run(functional, problem), run(reference, problem.astype("float64")))


@pytest.mark.parametrize("case", with_dtype(variants(T=4, B=3, I=5, H=10)), ids=str)
def test_none_is_zero(case: Case) -> None:
    """States and upstream gradients that are None, each alone and all together."""
    problem = case.problem()
    arrays = {n: v for n, v in (problem.forward | problem.upstream).items() if n in STATES}
    for names in [*([name] for name in arrays), [*arrays]]:
        nones = problem.using(**dict.fromkeys(names))
        zeros = problem.using(**{n: np.zeros_like(arrays[n]) for n in names}).astype("float64")
        assert_accurate(case, run(functional, nones), run(reference, zeros))
