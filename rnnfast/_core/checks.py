"""Every check of an array argument, and so every message about one.

Where a wrong argument has a remedy, its message ends with it, as code (`remedies.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import config, ragged
from .remedies import cast, converted, is_tensor, mapping_of, remedy
from .rows import ragged_of

Array = NDArray[Any]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = _FLOAT32, _FLOAT64

# ------------------------------------------------------------------------------- as they are given


def plain(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Refuse what is no ndarray, or a masked one; the remedy makes one of `dtype`, or of floats."""
    if type(value) is np.ndarray:
        return value
    if not isinstance(value, np.ndarray):
        kind = type(value).__name__
        fix = converted(name, value, dtype)
        if is_tensor(value):
            fix += ", or a layer of rnnfast.torch, which takes tensors"
        raise TypeError(f"{name} has type {kind}, expected numpy.ndarray{remedy(name, fix)}")
    if isinstance(value, np.ma.MaskedArray):
        fix = remedy(name, f"{name}.filled(0)")
        raise TypeError(f"{name} is a masked array, expected a plain numpy.ndarray{fix}")
    return value


def of_dtype(name: str, value: Any, dtype: np.dtype[Any], like: str = "") -> Array:
    """Refuse an array of another dtype: that of the argument `like`, or else of the layer."""
    if type(value) is np.ndarray and value.dtype is dtype:
        return value
    found = plain(name, value, dtype).dtype
    if found != dtype:
        raise _wrong_dtype(name, value, found, dtype, like)
    return value  # type: ignore[no-any-return]


def of_floats(name: str, value: Any) -> Array:
    """Refuse an array that is neither float32 nor float64."""
    found = plain(name, value).dtype
    if found is not _FLOAT32 and found is not _FLOAT64 and found not in FLOATS:
        fix = remedy(name, cast(name, value, found, _FLOAT32))
        raise TypeError(f"{name} has dtype {found}, expected float32 or float64{fix}")
    return value  # type: ignore[no-any-return]


def of_shape(name: str, value: Array, shape: tuple[int, ...], dims: str = "") -> None:
    """Refuse an array of another shape; `dims` spells the expected one, as in ``(B, H)``."""
    if value.shape != shape:
        expected = f"{dims} = {shape}" if dims else shape
        raise ValueError(f"{name} has shape {value.shape}, expected {expected}")


def exact(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dims: str = "",
    like: str = "",
) -> None:
    """Refuse an array of another dtype or shape."""
    if type(value) is not np.ndarray or value.dtype is not dtype or value.shape != shape:
        of_shape(name, of_dtype(name, value, dtype, like), shape, dims)


def names(what: str, arrays: Any, expected: Mapping[str, Any]) -> None:
    """Refuse anything but a mapping with exactly the expected names."""
    if not isinstance(arrays, Mapping):
        kind, fix = type(arrays).__name__, remedy(what, mapping_of(what, arrays))
        raise TypeError(f"{what} has type {kind}, expected a dict of arrays{fix}")
    if arrays.keys() != expected.keys():
        missing = [key for key in expected if key not in arrays]
        unexpected = [key for key in arrays if key not in expected]
        raise ValueError(f"{what} has missing keys {missing} and unexpected keys {unexpected}")


def named(
    what: str,
    arrays: Any,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype[Any],
    writeable: bool = False,
) -> None:
    """Refuse anything but a mapping with the names, the shapes and the dtype of a layer's."""
    names(what, arrays, shapes)
    for key, shape in shapes.items():
        value = arrays[key]
        if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
            exact(f"{what}[{key!r}]", value, dtype, shape)
        if writeable and not value.flags.writeable:
            of_writeable(f"{what}[{key!r}]", value)


def of_writeable(name: str, value: Array) -> None:
    """Refuse a read-only array."""
    if not value.flags.writeable:
        fix = remedy(name, f"{name}.copy()")
        raise ValueError(f"{name} is read-only, expected a writeable array{fix}")


def readable(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return what NumPy reads as an array, in its own dtype, which is to be `dtype`."""
    if isinstance(value, np.ndarray):
        array = plain(name, value)
    else:
        try:
            # A copy, for PyTorch could not resize the memory of `value` itself any more.
            array = np.asarray(value.clone() if is_tensor(value) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            fix = remedy(name, converted(name, value, dtype))
            kind, reason = type(value).__name__, str(error).rstrip(".")
            raise TypeError(f"{name} has type {kind}, which is no array: {reason}{fix}") from error
    if dtype is not None and array.dtype != dtype:
        raise _wrong_dtype(name, value, array.dtype, dtype)
    return array


def _wrong_dtype(
    name: str, value: Any, found: np.dtype[Any], dtype: np.dtype[Any], like: str = ""
) -> TypeError:
    fix = cast(name, value, found, dtype)
    if fix and found in FLOATS:
        other = f"{like}.astype({{}})" if like else "make the layer with dtype={}"
        fix += f", or {other.format(f'np.{found}')}"
    wanted = f"{dtype} like {like}" if like else dtype
    return TypeError(f"{name} has dtype {found}, expected {wanted}{remedy(name, fix)}")


# --------------------------------------------------------------------------- as the kernels take it

# These return an aligned, C-contiguous ndarray, copied only where the argument is not one already.


def array(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    dims: str,
    shape: tuple[int, ...],
    like: str = "",
) -> Array:
    """Check an argument of known dtype and shape; `dims` and `like` as above."""
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
        if value.flags.carray:
            return value
    else:
        exact(name, value, dtype, shape, dims, like)
    return _contiguous(name, value)


def optional(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    dims: str,
    shape: tuple[int, ...],
    like: str = "",
) -> Any:
    """Like `array`, but None stays None."""
    return None if value is None else array(name, value, dtype, dims, shape, like)


def floating(name: str, value: Any, dims: str, ndim: int) -> Array:
    """Check the argument that decides the dtype and the sizes."""
    if of_floats(name, value).ndim != ndim:
        raise ValueError(f"{name} has shape {value.shape}, expected {ndim} dimensions {dims}")
    return _contiguous(name, value)


def sizes(gates: int, dtype: np.dtype[Any], w_ih: Any, w_hh: Any, w_hr: Any) -> tuple[int, int]:
    """Return (H, P) as the weights have them; their dtype is checked later."""
    for name, value in ("w_ih", w_ih), ("w_hh", w_hh), ("w_hr", w_hr):
        if (name != "w_hr" or value is not None) and plain(name, value, dtype).ndim != 2:
            raise ValueError(f"{name} has shape {value.shape}, expected 2 dimensions")
    rows = w_hh.shape[0]
    if rows == 0 or rows % gates:
        dims = f"(G*H, {'H' if w_hr is None else 'P'})"
        raise ValueError(f"w_hh has shape {w_hh.shape}, expected {dims} with G = {gates}")
    H = rows // gates
    if w_hr is None:
        return H, H
    if not 0 < w_hr.shape[0] <= H:
        raise ValueError(f"w_hr has shape {w_hr.shape}, expected (P, H) with 1 <= P <= H = {H}")
    return H, w_hr.shape[0]


def lengths(value: Any, T: int, B: int) -> NDArray[np.intp]:
    """Check `lengths`: integers in [0, T], one per row."""
    given = value
    if not isinstance(value, np.ndarray):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            fix = remedy("lengths", converted("lengths", value, np.dtype(np.intp)))
            kind = type(value).__name__
            raise TypeError(f"lengths has type {kind}, expected integers of shape (B,){fix}")
        value = np.asarray(value if len(value) else np.empty(0, np.intp))
    integers("lengths", plain("lengths", value), given)
    of_shape("lengths", value, (B,), "(B,)")
    checked: NDArray[np.intp] = value.astype(np.intp)  # beyond its range becomes negative
    least, greatest = ragged.extremes(checked)
    if least < 0 or greatest > T:
        raise ValueError(
            f"lengths has values from {value.min()} to {value.max()}, expected 0 to T = {T}"
        )
    return checked


def no_lengths(value: Any, shape: tuple[int, ...]) -> None:
    """Refuse `lengths` beside an x, of this shape, without a batch axis."""
    if value is not None:
        raise ValueError(f"lengths is given, but x with shape {shape} has no batch axis")


def integers(name: str, value: Array, given: Any) -> None:
    """Refuse an array, read from `given`, that is not of integers."""
    if value.dtype.kind not in "iu":
        fix = remedy(name, cast(name, given, value.dtype, np.dtype(np.intp)))
        raise TypeError(f"{name} has dtype {value.dtype}, expected integers{fix}")


def booleans(name: str, value: Any) -> Array:
    """Refuse an array that is not bool."""
    dtype = np.dtype(np.bool_)
    if plain(name, value, dtype).dtype != dtype:
        fix = remedy(name, cast(name, value, value.dtype, dtype))
        raise TypeError(f"{name} has dtype {value.dtype}, expected dtype bool{fix}")
    return value  # type: ignore[no-any-return]


def mask(name: str, value: Any, dims: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Check a bool array, such as `resets` of shape (T, B)."""
    of_shape(name, booleans(name, value), shape, dims)
    checked: NDArray[np.bool_] = np.array(value, subok=False)  # a tape keeps it
    return checked


def _contiguous(name: str, value: Array) -> Array:
    if not value.flags.aligned:
        raise ValueError(f"{name} is not aligned to its dtype {value.dtype}, pass a copy")
    return np.ascontiguousarray(value).view(np.ndarray)


# ------------------------------------------------------------------------------ calls of a kernel

# `passes` and `streaming` ask these when an argument is not the plain array that they expect.


def make_forward_plain(call: Any) -> None:
    """Replace the arguments of a `ForwardCall` by what the kernels take, or raise."""
    x = floating("x", call.x, "(T, B, I)", 3)
    T, B, I = x.shape
    gates, dtype, w = config.gates_of(call.cell), x.dtype, call.weights
    H, P = sizes(gates, dtype, w.w_ih, w.w_hh, w.w_hr)
    if I == 0:
        raise ValueError(f"x has shape {x.shape}, expected (T, B, I) with I >= 1")
    batch = B if call.ragged is None else len(call.ragged.order)
    dims = "(B, P)" if P != H else "(B, H)"
    h0 = optional("h0", call.h0, dtype, dims, (batch, P), "x")
    c0 = optional("c0", call.c0, dtype, "(B, H)", (batch, H), "x")
    dims = "(G*H, P)" if w.w_hr is not None else "(G*H, H)"
    weights = type(w)(
        array("w_ih", w.w_ih, dtype, "(G*H, I)", (gates * H, I), "x"),
        array("w_hh", w.w_hh, dtype, dims, (gates * H, P), "x"),
        optional("b_ih", w.b_ih, dtype, "(G*H,)", (gates * H,), "x"),
        optional("b_hh", w.b_hh, dtype, "(G*H,)", (gates * H,), "x"),
        optional("w_hr", w.w_hr, dtype, "(P, H)", (P, H), "x"),
    )
    _make_rows(call, T, B)
    call.x, call.h0, call.c0, call.weights = x, h0, c0, weights


def _make_rows(call: Any, T: int, B: int) -> None:
    """Turn lengths and resets into `ragged` and `flags`."""
    if call.resets is not None:
        flags = mask("resets", call.resets, "(T, B)", (T, B))
        call.flags = flags.view(np.uint8).reshape(-1)
    if call.lengths is not None:
        checked = lengths(call.lengths, T, B)
        if B and ragged.extremes(checked)[0] < T:
            call.ragged = ragged_of(checked, T, call.reverse)
            call.reverse = False
            if call.flags is not None:
                call.flags = call.flags[call.ragged.rows]
    call.lengths = call.resets = None


def make_backward_plain(call: Any, is_tape: bool) -> None:
    """Replace the arguments of a `BackwardCall` by what the kernels take, or raise."""
    tape = call.tape
    if not is_tape:
        raise TypeError(f"tape has type {type(tape).__name__}, expected the tape of a forward call")
    found, expected = config.name_of(tape.cell), config.name_of(call.cell)
    if found != expected:
        raise TypeError(f"tape is of {_article(found)}, expected one of {_article(expected)}")
    if tape.used:
        raise RuntimeError(
            "tape was used by an earlier backward, which works in the tape's own memory"
        )
    T, B, _, H, P = tape.shape
    batch = B if tape.ragged is None else len(tape.ragged.order)
    dims = f"(T, B, {'2' * (tape.directions - 1)}{'P' if P != H else 'H'})"
    call.dy = optional("dy", call.dy, tape.dtype, dims, (T, B, tape.directions * P), "x")
    dims = "(B, P)" if P != H else "(B, H)"
    call.dh_n = optional("dh_n", call.dh_n, tape.dtype, dims, (batch, P), "x")
    call.dc_n = optional("dc_n", call.dc_n, tape.dtype, "(B, H)", (batch, H), "x")


def _article(name: str) -> str:
    return f"{'a' if name == 'GRU' else 'an'} {name}"


def step_input(x: Any, dtype: np.dtype[Any], B: int, I: int) -> Array:
    """Return the input of one step of a stream: (B, I), or (I,) if B is 1."""
    one = B == 1 and getattr(x, "ndim", 2) == 1
    return array("x", x, dtype, "(I,)" if one else "(B, I)", (I,) if one else (B, I))


def chunk_input(x: Any, dtype: np.dtype[Any], B: int, I: int, rows_first: bool) -> Array:
    """Return a chunk of a stream as (T, B, I), also of a `batch_first` layer, or as (T, I)."""
    ndim = getattr(x, "ndim", 0)
    if ndim == 2 and B == 1:
        return array("x", x, dtype, "(T, I)", (len(x), I))
    T = x.shape[int(rows_first and ndim == 3)] if ndim in (2, 3) else -1
    dims, shape = ("(B, T, I)", (B, T, I)) if rows_first else ("(T, B, I)", (T, B, I))
    x = array("x", x, dtype, dims, shape)
    return np.ascontiguousarray(x.swapaxes(0, 1)) if rows_first else x


def refuse_step_output(out: Any, dtype: np.dtype[Any], ndim: int, B: int, P: int) -> None:
    """Say what is wrong with the `out` of a step."""
    array("out", out, dtype, "(P,)" if ndim == 1 else "(B, P)", (P,) if ndim == 1 else (B, P))
    raise ValueError("out is not a C-contiguous, writeable numpy.ndarray")


def refuse_overlap(name: str, other: str) -> None:
    """Refuse an array that shares memory with another."""
    raise ValueError(f"{name} overlaps {other}, expected memory of its own")


# ---------------------------------------------------------------------------------- plain numbers


def choice(name: str, value: Any, among: Collection[str]) -> None:
    """Check an option given by name."""
    if value not in among:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, among))}")


def integer(name: str, value: Any, least: int) -> int:
    """Check a count."""
    try:
        count = operator.index(value) if not isinstance(value, bool) else None
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"{name} has type {type(value).__name__}, expected an integer")
    if count < least:
        raise ValueError(f"{name} is {count}, expected at least {least}")
    return count


def real(name: str, value: Any) -> float:
    """Check that an option is a number."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a number")
    return float(value)


def probability(name: str, value: float) -> float:
    """Check a share that is less than all."""
    if not 0 <= real(name, value) < 1:
        raise ValueError(f"{name} is {value}, expected a number in [0, 1)")
    return float(value)


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Check the option `dtype` of a layer."""
    for known in FLOATS:
        if dtype is not None and known == dtype:  # NumPy reads None as float64
            return known
    raise TypeError(f"dtype is {dtype!r}, expected float32 or float64")
