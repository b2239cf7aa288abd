"""A linear readout in closed form: ridge regression."""

from __future__ import annotations

import numpy as np

from .._core import checks
from ._array import Array, check_positive
from .modules import Linear


def ridge(features: Array, targets: Array, penalty: float) -> Linear:
    """Fit a linear layer to targets by ridge regression, such as the readout of a fixed network.

    It minimises `sum |targets - W features - b|^2 + penalty |W|^2`. The bias b is free, so
    `W = Y^T X (X^T X + penalty)^-1` with X and Y centred. All of it is computed in float64.

    Parameters
    ----------
    features : ndarray (..., I), float32 or float64
        Every leading index, such as a time step and a batch row, is a sample.
    targets : ndarray (..., O), real numbers
        With the leading axes of `features`.
    penalty : float
        Above 0. The larger it is, the smaller the weights are.

    Returns
    -------
    layer : Linear
        In the dtype of `features`.

    Raises
    ------
    TypeError
        `features` is no array of floats, `targets` not of real numbers, or `penalty` no number.
    ValueError
        The shapes do not fit, a number is not finite, there is no sample, or the penalty is not
        above 0.

    Notes
    -----
    Source: Hoerl & Kennard 1970. scikit-learn's `Ridge` has the same penalty as `alpha`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((100, 3))
    >>> targets = features @ [[1.0], [2.0], [3.0]] + 5
    >>> layer = ridge(features, targets, 1e-9)
    >>> layer.params["weight"].round(6), layer.params["bias"].round(6)
    (array([[1., 2., 3.]]), array([5.]))
    """
    check_positive(penalty=penalty)
    x = _samples("features", checks.of_floats("features", features))
    targets = checks.readable("targets", targets)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets has dtype {targets.dtype}, expected real numbers")
    y = _samples("targets", targets)
    if features.shape[:-1] != targets.shape[:-1]:
        raise ValueError(
            f"targets has shape {targets.shape}, expected {(*features.shape[:-1], 'O')} with the "
            "leading axes of features"
        )
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x -= x_mean
    y -= y_mean
    weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y).T
    layer = Linear(x.shape[1], y.shape[1], dtype=features.dtype, rng=0)
    layer.params["weight"][...] = weight
    layer.params["bias"][...] = y_mean - weight @ x_mean
    return layer


def _samples(name: str, value: Array) -> Array:
    """A copy in float64 with one row for each sample; refuse what is not finite or empty."""
    if value.ndim == 0 or value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}, expected at least one sample")
    samples: Array = value.astype(np.float64).reshape(-1, value.shape[-1])
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise ValueError(f"{name} has {bad} numbers that are not finite, expected none")
    return samples
