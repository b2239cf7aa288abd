"""What the functions refuse, with which error and which words, and what they accept."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import Array, ArrayLike, Case, Problem, assert_same_bits, backward, forward, run

from rnnfast import functional, reference

SIZES: dict[str, Any] = {"T": 5, "B": 4, "I": 3, "H": 7, "lengths": True, "resets": True}
CASES = [
    Case(cell="rnn", **SIZES),
    Case(cell="gru", **SIZES),
    Case(cell="lstm", **SIZES),
    Case(cell="lstm", P=6, **SIZES),
]
FLOATS = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "dy", "dh_n", "dc_n")
per_case = pytest.mark.parametrize("case", CASES, ids=["rnn", "gru", "lstm", "projected"])


def arguments(problem: Problem) -> dict[str, Any]:
    """All arrays of the problem by name, upstream gradients included."""
    everything = problem.forward | problem.upstream
    return {n: v for n, v in everything.items() if isinstance(v, np.ndarray)}


def refused(problem: Problem, name: str, bad: Any, error: type[Exception], message: str) -> None:
    """`bad` in place of the argument `name` is refused, and nothing has changed."""
    arrays = arguments(problem)
    kept = {n: v.copy() for n, v in arrays.items()}
    seen = bad.tobytes() if isinstance(bad, np.ndarray) else repr(bad)
    want = run(functional, problem)
    if name in problem.upstream:
        _, tape = forward(functional, problem)
        with pytest.raises(error, match=message):
            backward(functional, problem.using(**{name: bad}), tape)
        grads = backward(functional, problem, tape)  # the tape is still good
        assert_same_bits(grads, want, grads)
    else:
        replaced = Problem(problem.case, problem.forward | {name: bad}, problem.upstream)
        with pytest.raises(error, match=message):
            forward(functional, replaced)
    assert_same_bits(arrays, kept)
    assert seen == (bad.tobytes() if isinstance(bad, np.ndarray) else repr(bad))


def misaligned(a: Array) -> Array:
    """A copy one byte past an aligned address."""
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    assert not raw.flags.aligned
    return raw


def tensor(a: Array, **options: Any) -> Any:
    torch = pytest.importorskip("torch", reason="a tensor is what is refused")
    return torch.tensor(a, **options)


AS_ARRAY = r"expected numpy\.ndarray; np\.asarray\({name}, np\.float32\)$"
AS_FLOAT = r"expected float32( like x|\b.*); {name}\.astype\(np\.float32\)$"
WRONG_KINDS: dict[str, tuple[Callable[[Array], Any], type[Exception], str]] = {
    "list": (lambda a: a.tolist(), TypeError, r"^{name} has type list, " + AS_ARRAY),
    "number": (lambda a: 1.0, TypeError, r"^{name} has type float, " + AS_ARRAY),
    "scalar": (lambda a: a.dtype.type(1), TypeError, r"^{name} has type float32, " + AS_ARRAY),
    "array-like": (ArrayLike, TypeError, r"^{name} has type ArrayLike, " + AS_ARRAY),
    "word": (lambda a: "ones", TypeError, r"^{name} has type str, expected numpy\.ndarray$"),
    "tensor": (
        tensor,
        TypeError,
        r"^{name} has type Tensor, .*; {name}\.numpy\(\), or.*rnnfast\.torch",
    ),
    "tensor of another dtype": (
        lambda a: tensor(a.astype(int)),
        TypeError,
        r"^{name} has type Tensor, .*; {name}\.to\(torch\.float32\)\.numpy\(\), or",
    ),
    "parameter": (
        lambda a: tensor(a, requires_grad=True),
        TypeError,
        r"^{name} has type Tensor, .*; {name}\.detach\(\)\.numpy\(\), or",
    ),
    "int": (lambda a: a.astype(int), TypeError, r"^{name} has dtype int64, " + AS_FLOAT),
    "half": (lambda a: a.astype("f2"), TypeError, r"^{name} has dtype float16, " + AS_FLOAT),
    "complex": (
        lambda a: a.astype("c8"),
        TypeError,
        r"{name}\b.*complex64.*float(32|64)( like x)?$",
    ),
    "bool": (lambda a: a.astype(bool), TypeError, r"^{name} has dtype bool, " + AS_FLOAT),
    "object": (lambda a: a.astype(object), TypeError, r"{name}\b.*object.*float32"),
    "record": (lambda a: a.view([("re", "f4")]), TypeError, r"{name}\b.*re.*float32"),
    "other float": (
        lambda a: a.astype("f8"),
        TypeError,
        r"^(?!x)(\w+) has dtype float(64|32), expected float(32|64) like x; "
        r"\1\.astype\(np\.float\3\), or x\.astype\(np\.float\2\)$",
    ),
    "swapped": (
        lambda a: a.astype(a.dtype.newbyteorder()),
        TypeError,
        r"^{name} has dtype [<>]f4, " + AS_FLOAT,
    ),
    "masked": (np.ma.masked_array, TypeError, r"^{name} is a masked .*; {name}\.filled\(0\)$"),
    "misaligned": (misaligned, ValueError, r"{name}\b.*align"),
}


@per_case
@pytest.mark.parametrize("kind", WRONG_KINDS)
@pytest.mark.parametrize("name", FLOATS)
def test_wrong_kinds(case: Case, name: str, kind: str) -> None:
    problem = case.problem()
    array = arguments(problem).get(name)
    if array is None:
        assert name in ("c0", "w_hr", "dc_n")
        return
    change, error, message = WRONG_KINDS[kind]
    refused(problem, name, change(array), error, message.format(name=name))


# An argument that other arguments depend on may be the one named, or one of those.
NAMED = {"x": "x|h0|w_ih|lengths|resets", "w_ih": "w_ih|w_hh|x"}
NAMED |= dict.fromkeys(("w_hh", "w_hr"), "h0|c0|w_ih|w_hh|w_hr")


@per_case
@pytest.mark.parametrize("name", FLOATS)
def test_wrong_shapes(case: Case, name: str) -> None:
    problem = case.problem()
    array = arguments(problem).get(name)
    if array is None:
        assert name in ("c0", "w_hr", "dc_n")
        return
    for axis in range(array.ndim):
        for bad in (np.repeat(array, 2, axis), np.delete(array, 0, axis)):
            if name in NAMED:
                message = rf"^({NAMED[name]}) has .*\d.*, expected .*\d"
            else:
                got, wanted = re.escape(str(bad.shape)), re.escape(str(array.shape))
                message = rf"^{name} has shape {got}, expected \(.*\) = {wanted}"
            refused(problem, name, bad, ValueError, message)
    for bad in (array[None], array[..., None], array.ravel(), array.ravel()[:1].reshape(())):
        if bad.ndim == array.ndim:
            continue  # a bias
        got = re.escape(str(bad.shape))
        refused(problem, name, bad, ValueError, rf"^{name} has shape {got}, expected ")


@per_case
@pytest.mark.parametrize(("size", "names"), [("I", "x|w_ih"), ("H", "w_hh|w_ih|h0"), ("P", "w_hr")])
def test_no_size_is_zero(case: Case, size: str, names: str) -> None:
    """Only T and B may be 0."""
    if size == "P" and not case.P:
        assert "w_hr" not in case.problem().forward
        return
    axes = {
        "I": {"x": 2, "w_ih": 1},
        "H": {"w_ih": 0, "w_hh": 0, "b_ih": 0, "b_hh": 0, "c0": 1, "w_hr": 1},
        "P": {"w_hr": 0, "w_hh": 1, "h0": 1},
    }
    axes["H"] |= {} if case.P else {"h0": 1}

    def empty(name: str, value: Any) -> Any:
        return value.take([], axes[size][name]) if name in axes[size] else value

    with pytest.raises(ValueError, match=rf"^({names}) has shape .*0.*, expected"):
        forward(functional, case.problem().map(empty))


def test_projection_is_no_larger_than_the_state() -> None:
    with pytest.raises(ValueError, match=r"^w_hr has shape \(8, 7\), expected"):
        forward(functional, Case(cell="lstm", P=8, H=7).problem())


@per_case
@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh"])
def test_not_optional(case: Case, name: str) -> None:
    refused(case.problem(), name, None, TypeError, rf"{name}\b.*None")


LENGTHS: dict[str, tuple[Any, Any, str]] = {
    "too few": (np.array([1, 2, 3]), ValueError, r"\(3,\).*\(4,\)"),
    "too many": ([1, 2, 3, 4, 5], ValueError, r"\(5,\).*\(4,\)"),
    "column": (np.ones((4, 1), int), ValueError, r"\(4, 1\).*\(4,\)"),
    "one for all": (np.array(3), ValueError, r"\(\).*\(4,\)"),
    "a number": (3, (TypeError, ValueError), r""),
    "negative": (np.array([1, -1, 2, 3]), ValueError, r"-1\b.*\b5\b"),
    "beyond T": ([1, 5, 6, 3], ValueError, r"\b6\b.*\b5\b"),
    "far beyond": (np.array([1, 2, 2**40, 3]), ValueError, r"\b1099511627776\b.*\b5\b"),
    "wraps around": (np.array([1, 2, 2**64 - 1, 3], np.uint64), ValueError, r"\b5\b"),
    "wraps to valid": (np.array([1, 2, 2**32 + 3, 3]), ValueError, r"\b4294967299\b.*\b5\b"),
    "float": (np.array([1.0, 2, 3, 4]), TypeError, r"float64.*; lengths\.astype\(np\.int"),
    "floats": ([1.0, 2.0, 3.0, 4.0], TypeError, r"float.*; np\.asarray\(lengths, np\.int"),
    "array-like": (ArrayLike(np.arange(4)), TypeError, r"int.*; np\.asarray\(lengths, np\.int"),
    "bool": (np.array([True, False, True, True]), TypeError, r"bool.*int"),
    "bools": ([True, False, True, True], TypeError, r"bool.*int"),
    "object": (np.array([1, 2, 3, 4], object), TypeError, r"object.*int"),
    "words": (["1", "2", "3", "4"], TypeError, r"int"),
    "masked": (np.ma.masked_equal([1, 2, 3, 4], 4), TypeError, r"[Mm]asked"),
}
RESETS: dict[str, tuple[Any, type[Exception], str]] = {
    "transposed": (np.zeros((4, 5), bool), ValueError, r"\(4, 5\).*\(5, 4\)"),
    "one step": (np.zeros(4, bool), ValueError, r"\(4,\).*\(5, 4\)"),
    "column": (np.zeros((5, 4, 1), bool), ValueError, r"\(5, 4, 1\).*\(5, 4\)"),
    "bytes": (np.zeros((5, 4), np.uint8), TypeError, r"uint8.*bool; resets\.astype\(np\.bool\)"),
    "float": (np.zeros((5, 4), "f4"), TypeError, r"float32.*bool"),
    "object": (np.zeros((5, 4), object), TypeError, r"object.*bool"),
    "list": (
        np.zeros((5, 4), bool).tolist(),
        TypeError,
        r"list.*; np\.asarray\(resets, np\.bool\)",
    ),
    "number": (False, TypeError, r"bool"),
    "masked": (np.ma.masked_array(np.zeros((5, 4), bool)), TypeError, r"[Mm]asked"),
}


@per_case
@pytest.mark.parametrize("kind", LENGTHS)
def test_wrong_lengths(case: Case, kind: str) -> None:
    bad, error, message = LENGTHS[kind]
    refused(case.problem(), "lengths", bad, error, rf"lengths\b.*{message}")


@per_case
def test_lengths_and_resets_are_no_tensors(case: Case) -> None:
    torch = pytest.importorskip("torch", reason="a tensor is what is refused")
    problem = case.problem()
    for name, call in (("lengths", "numpy"), ("resets", r"to\(torch\.bool\)\.numpy")):
        bad = torch.tensor(problem.forward[name].astype(int))
        message = rf"^{name} has type Tensor, .*; {name}\.{call}\(\)"
        refused(problem, name, bad, TypeError, message)


@per_case
@pytest.mark.parametrize("kind", RESETS)
def test_wrong_resets(case: Case, kind: str) -> None:
    bad, error, message = RESETS[kind]
    refused(case.problem(), "resets", bad, error, rf"resets\b.*{message}")


@per_case
@pytest.mark.parametrize("bad", [0, -1, 257, 10**30, 1.5, "2", True])
def test_wrong_threads(case: Case, bad: Any) -> None:
    error = ValueError if type(bad) is int else TypeError
    refused(case.problem(), "threads", bad, error, "threads")
    problem = case.problem()
    _, tape = forward(functional, problem)
    with pytest.raises(error, match="threads"):
        backward(functional, problem, tape, threads=bad)
    backward(functional, problem, tape)


@pytest.mark.parametrize("bad", ["Tanh", "", "gelu", None, 1])
def test_wrong_nonlinearity(bad: Any) -> None:
    error = ValueError if isinstance(bad, str) else (TypeError, ValueError)
    message = "nonlinearity.*tanh.*relu.*sigmoid.*identity"
    refused(CASES[0].problem(), "nonlinearity", bad, error, message)  # type: ignore[arg-type]


@per_case
def test_wrong_tapes(case: Case) -> None:
    problem = case.problem()
    _, foreign = forward(reference, problem)
    tapes = [forward(functional, c.problem())[1] for c in CASES if c.cell != case.cell]
    for tape in (None, (), foreign, *tapes):
        with pytest.raises(TypeError, match="tape"):
            backward(functional, problem, tape)
    for tape, owner in zip(tapes, [c for c in CASES if c.cell != case.cell], strict=True):
        backward(functional, owner.problem(), tape)  # not consumed by the refusal


@per_case
def test_tape_is_consumed(case: Case) -> None:
    problem = case.problem()
    _, tape = forward(functional, problem)
    backward(functional, problem, tape)
    with pytest.raises(RuntimeError, match="tape"):
        backward(functional, problem, tape)


class Subclass(np.ndarray[Any, np.dtype[Any]]):
    """An ndarray by another name."""


def strided(a: Array) -> Array:
    wide = np.full([2 * n for n in a.shape], 99, a.dtype)
    wide[(slice(None, None, 2),) * a.ndim] = a
    return wide[(slice(None, None, 2),) * a.ndim]


def backwards(a: Array) -> Array:
    every = (slice(None, None, -1),) * a.ndim
    return a[every].copy()[every]


def offset(a: Array) -> Array:
    """Aligned to its own size but to no vector."""
    shifted = np.full(a.size + 1, 99, a.dtype)[1:].reshape(a.shape)
    shifted[...] = a
    return shifted


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


ACCEPTED: dict[str, Callable[[Array], Array]] = {
    "read-only": read_only,
    "strided": strided,
    "backwards": backwards,
    "Fortran": np.asfortranarray,
    "permuted": lambda a: np.moveaxis(np.moveaxis(a, -1, 0).copy(), 0, -1),
    "offset": offset,
    "subclass": lambda a: a.copy().view(Subclass),
    "memmap-like": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@per_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted_arrays(case: Case, dtype: str, kind: str) -> None:
    problem = case.problem().astype(dtype)
    want = run(functional, problem)

    def change(_: str, value: Any) -> Any:
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        return ACCEPTED[kind](value) if floats else value

    changed = problem.map(change)
    got = run(functional, changed)
    assert_same_bits(got, want)
    assert all(type(v) is np.ndarray for v in got.values() if v is not None)
    kept = {n: v.copy() for n, v in arguments(problem).items()}
    assert_same_bits({n: np.asarray(v) for n, v in arguments(changed).items()}, kept)


@per_case
def test_broadcast_arrays(case: Case) -> None:
    """Strides of 0: one row, one step and one gradient for all."""
    problem = case.problem()
    views = problem.map(
        lambda n, v: np.broadcast_to(v[..., :1, :], v.shape) if n in ("x", "h0", "dy") else v
    )
    copies = views.map(lambda _, v: v.copy() if isinstance(v, np.ndarray) else v)
    assert views.forward["x"].strides[1] == 0
    assert_same_bits(run(functional, views), run(functional, copies))


@per_case
@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", ">i4", "i8", "u8", "list", "tuple"])
def test_accepted_lengths(case: Case, dtype: str) -> None:
    problem = case.problem()
    lengths = problem.forward["lengths"]
    other = {"list": lengths.tolist(), "tuple": tuple(lengths)}
    given = other[dtype] if dtype in other else strided(lengths.astype(dtype))
    assert_same_bits(run(functional, problem.using(lengths=given)), run(functional, problem))


@per_case
@pytest.mark.parametrize("kind", ["read-only", "strided", "backwards", "Fortran", "subclass"])
def test_accepted_resets(case: Case, kind: str) -> None:
    problem = case.problem()
    given = ACCEPTED[kind](problem.forward["resets"])
    assert_same_bits(run(functional, problem.using(resets=given)), run(functional, problem))
