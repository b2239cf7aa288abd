"""On small integers an RNN rounds nothing: any wrong, missing or doubled term shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Case, Problem, Results, run, with_dtype

from rnnfast import functional, reference

pytestmark = pytest.mark.usefixtures("isa")

SIZES: tuple[dict[str, Any], ...] = (
    {"T": 4, "B": 3, "I": 5, "H": 1},
    {"T": 6, "B": 1, "I": 3, "H": 8},
    {"T": 5, "B": 7, "I": 9, "H": 17},
    {"T": 3, "B": 13, "I": 17, "H": 33},
    {"T": 7, "B": 2, "I": 1, "H": 65},
    {"T": 2, "B": 31, "I": 67, "H": 130},
    {"T": 3, "B": 131, "I": 5, "H": 9},
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"lengths": True},
    {"resets": True},
    {"reverse": True},
    {"lengths": True, "resets": True, "reverse": True, "bias": "ih"},
)
CASES = with_dtype(
    Case(cell="rnn", nonlinearity=nonlinearity, **sizes, **options)
    for sizes in SIZES
    for options in OPTIONS
    for nonlinearity in ("identity", "relu")
)


def small_integers(case: Case) -> Problem:
    """The case with small integers for its numbers; `w_hh` sparse, so that states stay small."""
    rng = np.random.default_rng(case.seed)

    def draw(name: str, value: Any) -> Any:
        if not (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            return value
        integers = rng.integers(-2, 3, value.shape)
        if name == "w_hh":
            integers = np.sign(integers) * (rng.random(value.shape) < 2 / case.H)
        return integers.astype(case.dtype)

    return case.problem().map(draw)


def integer_rnn(a: dict[str, Any]) -> Results:
    """Forward and backward of the RNN in integers, one row and one step after the other."""
    x, w_ih, w_hh, dy = a["x"], a["w_ih"], a["w_hh"], a["dy"]
    T, B, _ = x.shape
    bias = a.get("b_ih", 0) + a.get("b_hh", 0)
    lengths, resets = a.get("lengths", np.full(B, T)), a.get("resets", np.zeros((T, B), bool))
    y, h_n, dh0 = np.zeros_like(dy), a["h0"].copy(), a["dh_n"].copy()
    dx, dw_ih, dw_hh, db = (np.zeros_like(v) for v in (x, w_ih, w_hh, w_hh[:, 0]))
    for b in range(B):
        steps = range(lengths[b])[:: -1 if a.get("reverse") else 1]
        before = {}
        for t in steps:
            before[t] = h_n[b] * (not resets[t, b])
            y[t, b] = w_ih @ x[t, b] + w_hh @ before[t] + bias
            if a["nonlinearity"] == "relu":
                y[t, b] *= y[t, b] > 0
            h_n[b] = y[t, b]
        for t in reversed(steps):
            da = dy[t, b] + dh0[b]
            if a["nonlinearity"] == "relu":
                da *= y[t, b] > 0
            dx[t, b] = da @ w_ih
            dw_ih += np.outer(da, x[t, b])
            dw_hh += np.outer(da, before[t])
            db += da
            dh0[b] = da @ w_hh * (not resets[t, b])
    results = {"y": y, "h_n": h_n, "dx": dx, "dh0": dh0, "dw_ih": dw_ih, "dw_hh": dw_hh}
    return results | {"d" + n: db if n in a else None for n in ("b_ih", "b_hh")}


def as_integers(problem: Problem, *, magnitudes: bool = False) -> dict[str, Any]:
    """Every argument of the problem, int64; without signs and relu they bound all partial sums."""
    arguments = problem.forward | problem.upstream
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            arguments[name] = (np.abs(value) if magnitudes else value).astype(np.int64)
    return arguments | ({"nonlinearity": "identity"} if magnitudes else {})


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("functions", [functional, reference], ids=["kernels", "reference"])
def test_exact(functions: Any, case: Case) -> None:
    problem = small_integers(case)
    bounds = integer_rnn(as_integers(problem, magnitudes=True)).values()
    largest = max(int(np.max(bound)) for bound in bounds if bound is not None)
    assert largest < 2 / np.finfo(case.dtype).eps, "the integers do not fit the mantissa"

    got, want = run(functions, problem), integer_rnn(as_integers(problem))
    assert got.keys() == want.keys()
    for name, exact in want.items():
        if exact is None:
            assert got[name] is None, name
        else:
            np.testing.assert_array_equal(got[name], exact, err_msg=name)
