"""What users of scikit-learn pass as X, as one padded array."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from ..training import pad

Array: TypeAlias = NDArray[Any]
FLOATS = [np.float64, np.float32]  # kept as they are; other numbers become the first


def read_sequences(estimator: Any, X: Any, *, reset: bool) -> tuple[Array, Array | None]:
    """Return X as (n, T, I), and the lengths of its sequences if they are not all T.

    `reset` notes the number and the names of the features on the estimator, as `fit` does. Without
    it they are compared with those noted. An X (n, T) has T of them for scikit-learn, and for the
    network one.
    """
    X = _stacked(X)
    if isinstance(X, list):
        return _read_list(estimator, X, reset)
    ndim = getattr(X, "ndim", 2)
    if ndim > 3:
        raise ValueError(f"X has shape {X.shape}, expected (n, T, I) or (n, T)")
    if reset:
        estimator._one_feature = ndim < 3
    if ndim == 3 or (ndim == 2 and not estimator._one_feature):
        x = np.asarray(X)
        shape = x.shape if ndim == 3 else (*x.shape, 1)
        if 0 in shape:
            raise ValueError(f"X has shape {x.shape}, expected sequences with steps and features")
        return _rows(estimator, x.reshape(-1, shape[2]), reset).reshape(shape), None
    return _rows(estimator, X, reset)[:, :, None], None


def _stacked(X: Any) -> Any:
    """One array instead of a list of sequences, or a list of them if their shapes differ."""
    objects = isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object
    if not (objects or isinstance(X, list | tuple)):
        return X
    shapes = {np.shape(sequence) for sequence in X}
    if len(shapes) > 1:
        return list(X)
    if shapes <= {()}:
        return X
    stacked = np.asarray(list(X))
    rows = all(isinstance(sequence, list | tuple) for sequence in X)  # as of X.tolist()
    return stacked if stacked.ndim != 2 or rows else stacked[:, :, None]  # (T_i,), all of one T


def _read_list(estimator: Any, sequences: list[Any], reset: bool) -> tuple[Array, Array]:
    if not sequences:
        raise ValueError("X is empty, expected at least one sequence")
    arrays = [np.asarray(sequence) for sequence in sequences]
    features = arrays[0].shape[1:]
    for i, array in enumerate(arrays):
        if array.ndim not in (1, 2) or array.shape[1:] != features:
            raise ValueError(
                f"X[{i}] has shape {array.shape}, expected (T_i, I) with one I for all, or (T_i,) "
                f"for all; X[0] has shape {arrays[0].shape}"
            )
        if not len(array):
            raise ValueError(f"X[{i}] has shape {array.shape}, expected at least one step")
    if reset:
        estimator._one_feature = False
    rows = np.concatenate(arrays)
    rows = _rows(estimator, rows if features else rows[:, None], reset)
    ends = np.cumsum([len(array) for array in arrays])
    padded, lengths = pad(np.split(rows, ends[:-1]))
    return padded.swapaxes(0, 1), lengths


def _rows(estimator: Any, rows: Any, reset: bool) -> Array:
    """Numbers (n, features), finite, checked and noted as scikit-learn does."""
    checked: Array = validate_data(estimator, rows, reset=reset, dtype=FLOATS)
    return checked
