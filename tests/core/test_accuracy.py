"""Accuracy at working sizes and with saturated gates; the vector tanh and sigmoid in ULP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import (
    GATES,
    Array,
    Case,
    Problem,
    assert_accurate,
    run,
    tolerance,
    variants,
    with_dtype,
)

from rnnfast import functional, reference
from rnnfast._core import config

pytestmark = pytest.mark.usefixtures("isa")

SIZES: tuple[dict[str, Any], ...] = (
    {"T": 64, "B": 32, "I": 128, "H": 128},
    {"T": 200, "B": 4, "I": 64, "H": 128},
    {"T": 10, "B": 16, "I": 256, "H": 512},
    {"T": 1000, "B": 1, "I": 1, "H": 32},
    {"T": 3, "B": 50, "I": 700, "H": 900},
)
# Without relu, whose gradient jumps where a rounded pre-activation changes its sign.
CASES = [c for c in with_dtype(variants()) if c.nonlinearity in ("tanh", "sigmoid")]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_working_sizes(case: Case, sizes: dict[str, Any]) -> None:
    case = replace(case, **sizes)
    if case.P:
        case = replace(case, P=case.H // 2)
    problem = case.problem()
    assert_accurate(case, run(functional, problem), run(reference, problem.astype("float64")))


@pytest.mark.parametrize("height", [5.0, 30.0, 300.0, 1e6])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_saturated_gates(case: Case, height: float) -> None:
    """Biases hold a third of the units open, a third shut; the rest live between."""
    case = replace(case, T=50, B=6, I=9, H=31, bias="ih")
    problem = case.problem()
    b_ih = problem.forward["b_ih"]
    b_ih += np.random.default_rng(1).choice([-height, 0, height], b_ih.shape).astype(case.dtype)
    assert_accurate(case, run(functional, problem), run(reference, problem.astype("float64")))


def without_cancellation(case: Case) -> Problem:
    """Only positive numbers, activations far from 1, units of different orders of magnitude."""
    order = 2.0 ** -(4 + np.arange(case.H) % 13)

    def change(name: str, value: Any) -> Any:
        if not (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            return value
        value = np.abs(value)
        if name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            scale = np.tile(order, GATES[case.cell])
            value *= (scale if value.ndim == 1 else scale[:, None]).astype(value.dtype)
        elif name == "h0" and case.cell == "gru":
            value += 2  # above any candidate n, from which backward takes it
        return value

    return case.problem().map(change)


@pytest.mark.parametrize("B", [1, 13])
@pytest.mark.parametrize("case", with_dtype(variants(T=2, I=9, H=29)), ids=str)
def test_each_element_by_its_own_size(case: Case, B: int) -> None:
    """Where nothing cancels, every element of every result is right to some units of its own."""
    problem = without_cancellation(replace(case, B=B))
    got, want = run(functional, problem), run(reference, problem.astype("float64"))
    for name, array in want.items():
        if array is not None:
            error = np.abs(got[name] - array) / np.abs(array)
            assert np.max(error) <= tolerance(case, name), name


EXACT: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def exact(name: str, x: Array) -> Array:
    """The function in the next wider precision."""
    with np.errstate(over="ignore", under="ignore"):
        return EXACT[name](x.astype(np.float64 if x.dtype == np.float32 else np.longdouble))


def ulps(got: Array, want: Array) -> Array:
    """Error in units of the last place of the exact value.

    Kernels may flush subnormal numbers to zero: below the normal numbers the unit is their least.
    """
    info = np.finfo(got.dtype)
    _, exponent = np.frexp(np.maximum(np.abs(want), info.smallest_normal))
    unit = np.ldexp(want.dtype.type(info.eps), exponent - 1)
    below = np.abs(want) < info.smallest_normal
    unit = np.where(below, want.dtype.type(info.smallest_normal), unit)
    return np.abs(got - want) / unit


# Largest error in ULP, and where it is promised: beyond, a result is below the least normal number.
LIMITS = {
    ("tanh", "float32"): (2.0, -np.inf, np.inf),
    ("sigmoid", "float32"): (2.5, -87.0, np.inf),
    ("tanh", "float64"): (3.0, -np.inf, np.inf),
    ("sigmoid", "float64"): (3.0, -708.0, np.inf),
}
per_function = pytest.mark.parametrize(("name", "dtype"), LIMITS)


def check_ulps(name: str, x: Array) -> None:
    """All finite `x` within the promised range keep the limit."""
    limit, low, high = LIMITS[name, x.dtype.name]
    x = x[(x > low) & (x < high)]
    if x.size:
        error = ulps(config.vmath(name, x), exact(name, x))
        worst = int(np.argmax(error))
        assert error[worst] <= limit, f"{name}({x[worst]!r}) is {error[worst]:.2f} ULP off"


def edges(dtype: Any) -> Array:
    """Where ranges, powers of two and roundings meet, with neighbours on both sides."""
    info = np.finfo(dtype)
    points = np.concatenate(
        [
            2.0 ** np.arange(-40, 11),
            np.arange(1, 2049) * (np.log(2) / 2),  # where exp reduces its argument
            [0.625, 9.0, 9.0109, 19.06, 88.0, 709.0, 0.0],
            [info.smallest_normal, info.smallest_subnormal, info.eps, info.max / 2],
        ]
    ).astype(dtype)
    below, above = np.nextafter(points, dtype(0)), np.nextafter(points, info.max)
    points = np.concatenate([points, below, above])
    return np.concatenate([points, -points])


# Where errors come near the limit: of float32 the default run tests every number there.
WORST = {
    ("tanh", "float32"): [(0.125, 0.75), (-0.125, -0.75)],
    ("sigmoid", "float32"): [(-1.0, -4.0), (-16.0, -17.4)],
    ("tanh", "float64"): [(0.125, 8.0), (-0.125, -8.0)],
    ("sigmoid", "float64"): [(-1.0, -4.0), (-36.0, -38.0)],
}


def floats(start: float, stop: float) -> Array:
    """All float32 from `start` to `stop`, away from zero."""
    first, last = np.array([start, stop], np.float32).view(np.uint32)
    return np.arange(first, last, dtype=np.uint32).view(np.float32)


@per_function
def test_ulps(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    if dtype == "float32":
        bits = np.arange(0, 2**32, 1021, dtype=np.uint64).astype(np.uint32)
        check_ulps(name, bits.view(np.float32))
    for start, stop in WORST[name, dtype]:
        if dtype == "float32":
            check_ulps(name, floats(start, stop))
        else:
            check_ulps(name, rng.uniform(*sorted((start, stop)), 2_000_000))
    magnitudes = 2.0 ** rng.uniform(-60, 10.5, 300_000)
    check_ulps(name, (rng.choice([-1, 1], 300_000) * magnitudes).astype(dtype))
    check_ulps(name, rng.uniform(-12, 12, 300_000).astype(dtype))
    check_ulps(name, edges(np.dtype(dtype).type))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_ulps_of_all_floats(name: str) -> None:
    for start in range(0, 2**32, 2**24):
        bits = np.arange(start, start + 2**24, dtype=np.uint64).astype(np.uint32)
        check_ulps(name, bits.view(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "low"), [("tanh", -1.0), ("sigmoid", 0.0)])
def test_saturation(name: str, low: float, dtype: str) -> None:
    """Never beyond the asymptotes and never NaN; far out and at infinity on them."""
    least = 2 * np.finfo(dtype).smallest_normal  # a tail may end there
    x = np.concatenate([np.linspace(-2000, 2000, 400_001), [-np.inf, np.inf]]).astype(dtype)
    x = np.concatenate([x, edges(x.dtype.type)])
    got = config.vmath(name, x)
    assert ((got >= low) & (got <= 1)).all()
    assert (got[x > 50] == 1).all()
    assert (got[x < -750] - low <= least).all()


@per_function
def test_special_values(name: str, dtype: str) -> None:
    at_zero = {"tanh": 0.0, "sigmoid": 0.5}[name]
    got = config.vmath(name, np.array([0.0, -0.0, np.nan, -np.nan], dtype))
    np.testing.assert_array_equal(got, np.array([at_zero, at_zero, np.nan, np.nan], dtype))


@per_function
def test_every_lane_alike(name: str, dtype: str) -> None:
    """The place in the vector and the length of the array change nothing."""
    x = np.random.default_rng(2).uniform(-20, 20, 67).astype(dtype)
    want = config.vmath(name, x)
    for n in range(68):
        assert config.vmath(name, x[:n].copy()).tobytes() == want[:n].tobytes()
        assert config.vmath(name, x[n:].copy()).tobytes() == want[n:].tobytes()
