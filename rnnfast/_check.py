"""Every check of an array argument, and so every message about one.

Each function returns the array as the kernels take it: an aligned, C-contiguous `ndarray` of the
call's dtype, copied only where the argument is not one already.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _kernels

Array = NDArray[Any]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def array(name: str, value: Any, dtype: np.dtype[Any], dims: str, shape: tuple[int, ...]) -> Array:
    """Check an argument of known dtype and shape; `dims` spells the shape, as in ``(B, H)``."""
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
        if value.flags.carray:
            return value
    elif _kind(name, value).dtype != dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, expected {dtype} like x")
    elif value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {dims} = {_text(shape)}")
    return _contiguous(name, value)


def optional(name: str, value: Any, dtype: np.dtype[Any], dims: str, shape: tuple[int, ...]) -> Any:
    """Like `array`, but None stays None."""
    return None if value is None else array(name, value, dtype, dims, shape)


def floating(name: str, value: Any, dims: str, ndim: int) -> Array:
    """Check the argument that decides the dtype and the sizes."""
    dtype = _kind(name, value).dtype
    if dtype != _FLOAT32 and dtype != _FLOAT64:
        raise TypeError(f"{name} has dtype {dtype}, expected float32 or float64")
    if value.ndim != ndim:
        raise ValueError(f"{name} has shape {value.shape}, expected {ndim} dimensions {dims}")
    return _contiguous(name, value)


def sizes(gates: int, w_ih: Any, w_hh: Any, w_hr: Any) -> tuple[int, int]:
    """Return (H, P) as the weights have them."""
    for name, value in ("w_ih", w_ih), ("w_hh", w_hh), ("w_hr", w_hr):
        if (name != "w_hr" or value is not None) and _kind(name, value).ndim != 2:
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
    if not isinstance(value, np.ndarray):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise TypeError(
                f"lengths has type {type(value).__name__}, expected integers of shape (B,)"
            )
        value = np.asarray(value if len(value) else np.empty(0, np.intp))
    if _kind("lengths", value).dtype.kind not in "iu":
        raise TypeError(f"lengths has dtype {value.dtype}, expected integers")
    if value.shape != (B,):
        raise ValueError(f"lengths has shape {value.shape}, expected (B,) = ({B},)")
    checked: NDArray[np.intp] = value.astype(np.intp)  # beyond its range becomes negative
    least, greatest = _kernels.extremes(checked)
    if least < 0 or greatest > T:
        raise ValueError(
            f"lengths has values from {value.min()} to {value.max()}, expected 0 to T = {T}"
        )
    return checked


def mask(name: str, value: Any, dims: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Check a bool array, such as `resets` of shape (T, B)."""
    if _kind(name, value).dtype != np.bool_:
        raise TypeError(f"{name} has dtype {value.dtype}, expected dtype bool")
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {dims} = {_text(shape)}")
    checked: NDArray[np.bool_] = np.array(value, subok=False)  # a tape keeps it
    return checked


def choice(name: str, value: Any, among: Collection[str]) -> None:
    """Check an option given by name."""
    if value not in among:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, among))}")


def _kind(name: str, value: Any) -> Array:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} has type {type(value).__name__}, expected numpy.ndarray")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, expected a plain numpy.ndarray")
    return value


def _contiguous(name: str, value: Array) -> Array:
    if not value.flags.aligned:
        raise ValueError(f"{name} is not aligned to its dtype {value.dtype}, pass a copy")
    return np.ascontiguousarray(value).view(np.ndarray)


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


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
