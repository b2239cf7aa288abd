"""Problems for the tests: inputs for every cell and option, how to run and how to compare them."""

from __future__ import annotations

import itertools
import math
import platform
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Results = dict[str, Any]  # arrays by name; None where there is no bias or no projection

# What is compiled for this processor's architecture; `config.ISAS` is what it can run.
ISAS = {"x86_64": ("avx512", "avx2", "baseline"), "aarch64": ("neon", "baseline")}.get(
    platform.machine(), ("baseline",)
)
CELLS = ("rnn", "gru", "lstm")
DTYPES = ("float32", "float64")
BIASES = ("none", "ih", "hh", "both")
NONLINEARITIES = ("tanh", "relu", "sigmoid", "identity")
GATES = {"rnn": 1, "gru": 3, "lstm": 4}

# What every cell can be asked for beside its own options, in the shares that tests take.
OPTIONS_OF_CELLS: dict[str, tuple[Any, ...]] = {
    "bias": BIASES,
    "lengths": (False, False, True),
    "resets": (False, False, True),
    "reverse": (False, True),
}

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")
ROW_AXIS = {"x": 1, "dy": 1, "resets": 1, "lengths": 0}
ROW_AXIS |= dict.fromkeys(("h0", "c0", "dh_n", "dc_n"), 0)
PER_ROW = ("y", "h_n", "c_n", "dx", "dh0", "dc0")  # results that belong to rows of the batch


@dataclass(frozen=True, kw_only=True)
class Case:
    """The sizes and options of one call; `P` is 0 without projection."""

    cell: str
    dtype: str = "float32"
    T: int = 5
    B: int = 3
    I: int = 7
    H: int = 11
    P: int = 0
    bias: str = "both"
    nonlinearity: str = "tanh"
    reset_after: bool = True
    lengths: bool = False
    resets: bool = False
    reverse: bool = False
    seed: int = 0

    def __str__(self) -> str:
        words = [self.cell, self.dtype, f"T{self.T}-B{self.B}-I{self.I}-H{self.H}"]
        words += [f"P{self.P}"] * bool(self.P) + [f"bias_{self.bias}"]
        words += [self.nonlinearity] * (self.cell == "rnn")
        words += ["reset_before"] * (self.cell == "gru" and not self.reset_after)
        words += [n for n in ("lengths", "resets", "reverse") if getattr(self, n)]
        return "-".join(words)

    def problem(self) -> Problem:
        """Random inputs: states, upstream gradients and all that is present are non-zero."""
        T, B, I, H, P = self.T, self.B, self.I, self.H, self.P or self.H
        rows = GATES[self.cell] * H
        rng = np.random.default_rng([self.seed, T, B, I, H, P])

        def weight(*shape: int) -> Array:
            return rng.uniform(-(H**-0.5), H**-0.5, shape)

        forward: dict[str, Any] = {
            "x": rng.standard_normal((T, B, I)),
            "h0": rng.uniform(-1, 1, (B, P)),
            "w_ih": weight(rows, I),
            "w_hh": weight(rows, P),
        }
        forward |= {n: weight(rows) for n in ("b_ih", "b_hh") if self.bias in (n[2:], "both")}
        upstream = {"dy": rng.standard_normal((T, B, P)), "dh_n": rng.standard_normal((B, P))}
        if self.cell == "lstm":
            forward["c0"] = rng.uniform(-1, 1, (B, H))
            upstream["dc_n"] = rng.standard_normal((B, H))
        if self.P:
            forward["w_hr"] = weight(P, H)
        problem = Problem(self, forward, upstream).astype(self.dtype)

        forward = problem.forward
        if self.cell == "rnn":
            forward["nonlinearity"] = self.nonlinearity
        if self.cell == "gru":
            forward["reset_after"] = self.reset_after
        if self.lengths:
            forward["lengths"] = rng.integers(0, T + 1, B)
            if B > 2:
                forward["lengths"][rng.permutation(B)[:2]] = 0, T
        if self.resets:
            forward["resets"] = rng.random((T, B)) < 0.25
        if self.reverse:
            forward["reverse"] = True
        return problem


@dataclass(frozen=True)
class Problem:
    """The arguments of a forward call by name, and the upstream gradients of its backward."""

    case: Case
    forward: dict[str, Any]
    upstream: dict[str, Array]

    def map(self, change: Callable[[str, Any], Any]) -> Problem:
        """The same problem with `change(name, value)` in place of every argument."""
        forward = {n: change(n, v) for n, v in self.forward.items()}
        return Problem(self.case, forward, {n: change(n, v) for n, v in self.upstream.items()})

    def astype(self, dtype: str) -> Problem:
        """Cast the floating-point arrays."""

        def cast(_: str, v: Any) -> Any:
            return v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v

        return self.map(cast)

    def rows(self, which: Sequence[int] | Array) -> Problem:
        """Only these rows of the batch, in this order."""
        return self.map(lambda n, v: np.take(v, which, ROW_AXIS[n]) if n in ROW_AXIS else v)

    def steps(self, start: int, stop: int) -> Problem:
        """Only these time steps; the states stay."""

        def cut(name: str, v: Any) -> Any:
            if name == "lengths":
                return np.clip(v - start, 0, stop - start)
            return v[start:stop].copy() if name in ("x", "dy", "resets") else v

        return self.map(cut)

    def using(self, **arguments: Any) -> Problem:
        """The same problem with some arguments replaced."""
        return self.map(lambda n, v: arguments.get(n, v))


class ArrayLike:
    """Not an array, but NumPy can read it as one."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array


def forward(functions: Any, problem: Problem, **options: Any) -> tuple[Results, Any]:
    """Outputs by name, and the tape."""
    *outputs, tape = getattr(functions, f"{problem.case.cell}_forward")(
        **problem.forward, **options
    )
    return dict(zip(("y", "h_n", "c_n"), outputs, strict=False)), tape


def backward(functions: Any, problem: Problem, tape: Any, **options: Any) -> Results:
    """Gradients by name, with a `d` in front."""
    grads = getattr(functions, f"{problem.case.cell}_backward")(tape, **problem.upstream, **options)
    return {f"d{n}": g for n, g in grads._asdict().items()}


def run(functions: Any, problem: Problem, **options: Any) -> Results:
    """All that one forward and its backward give, by name."""
    outputs, tape = forward(functions, problem, **options)
    return outputs | backward(functions, problem, tape, **options)


def cover(count: int, seed: int, **choices: Iterable[Any]) -> list[dict[str, Any]]:
    """`count` combinations in which every value of every choice stands equally often."""
    rng = random.Random(seed)
    columns = []
    for values in choices.values():
        column = list(itertools.islice(itertools.cycle(values), count))
        rng.shuffle(column)
        columns.append(column)
    return [dict(zip(choices, row, strict=True)) for row in zip(*columns, strict=True)]


def tolerance(case: Case, name: str) -> float:
    """The error allowed in the result `name`, as a fraction of what `scales` gives for it.

    oneDNN's formula for its recurrent primitives, but for every element: forward
    `4 eps ceil(log2(K T))` with K = I + H, backward twice that, weight gradients
    `ceil(log2(T B))` times that.
    """

    def log2(n: int) -> int:
        return max(1, math.ceil(math.log2(max(n, 1))))

    allowed = 4 * float(np.finfo(case.dtype).eps) * log2((case.I + case.H) * case.T)
    if name.startswith("d"):
        allowed *= 2
    if name[1:] in WEIGHTS:
        allowed *= log2(case.T * case.B)
    return allowed


MANY = 32  # values, of which not all are small by chance


def least_scale(case: Case) -> float:
    """The scale below which a largest |reference| is taken as chance.

    All inputs are of order one. With a few units only, every value of a result may be the small
    difference of such numbers by chance, or lie behind a saturated unit. No rounding could follow
    then.
    """
    return 1 / 4 if min(case.H, case.P or case.H) * case.B < 32 else 0.0


def error_ratios(case: Case, got: Results, want: Results) -> dict[str, float]:
    """Largest error of each result over the error allowed; checks names, shapes and dtypes."""
    assert got.keys() == want.keys()
    ratios = {}
    for name, expected in want.items():
        result = got[name]
        if expected is None or result is None:
            assert result is expected, f"{name}: one of them is None"
            continue
        assert type(result) is np.ndarray, f"{name} is a {type(result)}"
        assert result.dtype == case.dtype, f"{name} has dtype {result.dtype}"
        assert result.shape == expected.shape, f"{name} has shape {result.shape}"
        error, allowed = (
            np.abs(result - expected),
            tolerance(case, name) * scales(case, name, expected),
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0.0, error / allowed)
        ratios[name] = float(np.max(ratio, initial=0.0))
    return ratios


def scales(case: Case, name: str, expected: Array) -> Array:
    """What errors are measured by: the largest value of each row, of each gate of the weights.

    So a step, a row of the batch or a gate whose values are small must be right by its own measure.
    What is all zero, such as padding, has to be zero. A few values may all be small by chance,
    as differences of larger ones: then it is the largest value of the whole result.
    """
    size = expected.shape[-1]
    if name[1:] in ("w_ih", "w_hh") and case.H >= MANY:
        gates = expected.reshape(GATES[case.cell], case.H * size)
        largest = np.max(np.abs(gates), axis=1).repeat(case.H)
        return largest[:, None]
    if name in PER_ROW and min(size, case.H) >= MANY:
        return np.max(np.abs(expected), axis=-1, keepdims=True)
    return np.max(np.abs(expected), initial=least_scale(case))


def assert_accurate(case: Case, got: Results, want: Results) -> None:
    """Every element of every result within its tolerance (NaN is not)."""
    bad = {n: f"{r:.3g}" for n, r in error_ratios(case, got, want).items() if not r <= 1.0}
    assert not bad, f"errors over the errors allowed: {bad} in {case}"


def assert_same_bits(
    got: Mapping[str, Any], want: Mapping[str, Any], names: Iterable[str] | None = None
) -> None:
    """The results `names` (all by default) are equal bit by bit; NaN equals itself."""
    for name in want.keys() if names is None else [n for n in names if n in want]:
        a, b = got[name], want[name]
        if a is None or b is None:
            assert a is b, f"{name}: one of them is None"
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        if a.tobytes() != b.tobytes():
            with np.errstate(invalid="ignore"):
                far = np.max(np.abs(a - b))
            where = np.argwhere((a != b) | (np.signbit(a) != np.signbit(b)))
            raise AssertionError(
                f"{name} differs in {len(where)} of {a.size} elements, first at "
                f"{where[:1].tolist()}, by at most {far:.3g}"
            )


def product(**choices: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the choices."""
    rows = itertools.product(*choices.values())
    return [dict(zip(choices, row, strict=True)) for row in rows]


def variants(**common: Any) -> list[Case]:
    """Each kind of cell once: four RNNs, two GRUs, the LSTM without and with projection."""
    cases = [Case(cell="rnn", nonlinearity=n, **common) for n in NONLINEARITIES]
    cases += [Case(cell="gru", reset_after=r, **common) for r in (True, False)]
    return cases + [Case(cell="lstm", P=p, **common) for p in (0, 5)]


def with_dtype(cases: Iterable[Case]) -> list[Case]:
    """Every case in float32 and in float64."""
    return [replace(c, dtype=d) for c in cases for d in DTYPES]


def shared(work: Callable[[], Any]) -> tuple[int, int, int]:
    """Calls that were shared among threads, their tasks and the threads that did one, in `work`."""
    from rnnfast._core import config  # older versions, with which this one is compared, lack it

    before = config.shared_so_far()
    work()
    calls, tasks, takers = (b - a for a, b in zip(before, config.shared_so_far(), strict=True))
    return calls, tasks, takers
