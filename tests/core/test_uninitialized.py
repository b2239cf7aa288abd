"""What no one wrote, no one reads: memory full of NaN in place of fresh memory changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, assert_same_bits, forward, run, variants, with_dtype

import rnnfast
from rnnfast import functional
from rnnfast._core import arrays

pytestmark = pytest.mark.usefixtures("isa")

# Units left over in vectors, in narrow panels and in columns that are summed by themselves; one row
# and several tiles; rows so long that their part is projected ahead.
SIZES: tuple[dict[str, int], ...] = (
    {"T": 3, "B": 5, "I": 3, "H": 5},
    {"T": 4, "B": 1, "I": 1, "H": 13},
    {"T": 4, "B": 1, "I": 9, "H": 18},
    {"T": 3, "B": 13, "I": 17, "H": 34},
    {"T": 3, "B": 13, "I": 2, "H": 37},
    {"T": 2, "B": 3, "I": 129, "H": 100},
    {"T": 1, "B": 1, "I": 5, "H": 21},
    {"T": 5, "B": 2, "I": 601, "H": 65},
    {"T": 60, "B": 9, "I": 33, "H": 41},
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"bias": "none"},
    {"lengths": True, "resets": True, "bias": "hh"},
    {"reverse": True, "bias": "ih"},
)
CASES = with_dtype(replace(v, **o) for s in SIZES for v in variants(**s) for o in OPTIONS)


def leave_nan_behind() -> None:
    """Fill the blocks that the next calls take: those kept by the allocator, and malloc's own."""
    sizes = [int(64 * 1.6**i) for i in range(20)]
    kept = [arrays.copied(np.full(size // 8, np.nan)) for size in sizes for _ in range(2)]
    plain = [np.full(size // 8, np.nan) for size in sizes for _ in range(2)]
    small = [np.full(n, np.nan) for n in range(1, 128) for _ in range(4)]  # which NumPy keeps
    del kept, plain, small


@pytest.mark.parametrize("case", CASES, ids=str)
def test_functions(case: Case) -> None:
    problem = case.problem()
    want = run(functional, problem)
    leave_nan_behind()
    assert_same_bits(run(functional, problem), want)
    leave_nan_behind()
    outputs, _ = forward(functional, problem, need_tape=False)
    assert_same_bits(outputs, {name: want[name] for name in outputs})
    assert not any(np.isnan(v).any() for v in want.values() if v is not None)


@pytest.mark.parametrize("B", [1, 3, 13])
@pytest.mark.parametrize("H", [5, 18, 37, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_and_streams(dtype: str, H: int, B: int) -> None:
    x = np.random.default_rng(0).standard_normal((6, B, 7)).astype(dtype)
    for kind, options in (
        (rnnfast.RNN, {"nonlinearity": "relu"}),
        (rnnfast.GRU, {}),
        (rnnfast.GRU, {"reset_after": False}),
        (rnnfast.LSTM, {}),
        (rnnfast.LSTM, {"proj_size": 4}),
    ):
        layer = kind(7, H, 2, dtype=dtype, rng=1, **options)
        y, _ = layer(x)
        leave_nan_behind()
        stream = layer.stream(B)
        leave_nan_behind()
        got = [stream.step(x[0])[None], stream.run(x[1:4]), stream.step(x[4])[None]]
        leave_nan_behind()
        np.testing.assert_array_equal(np.concatenate([*got, stream.run(x[5:])]), y)
