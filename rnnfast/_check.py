"""Every check of an array argument, and so every message about one.

Where a wrong argument has a remedy, its message ends with it, as code (`_remedy.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _kernels
from ._remedy import cast, converted, is_tensor, mapping_of, remedy

Array = NDArray[Any]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_FLOATS = _FLOAT32, _FLOAT64

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
    if found is not _FLOAT32 and found is not _FLOAT64 and found not in _FLOATS:
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
    if fix and found in _FLOATS:
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
    least, greatest = _kernels.extremes(checked)
    if least < 0 or greatest > T:
        raise ValueError(
            f"lengths has values from {value.min()} to {value.max()}, expected 0 to T = {T}"
        )
    return checked


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
    for known in _FLOATS:
        if dtype is not None and known == dtype:  # NumPy reads None as float64
            return known
    raise TypeError(f"dtype is {dtype!r}, expected float32 or float64")
