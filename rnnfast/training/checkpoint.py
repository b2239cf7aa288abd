"""Checkpoints: parameters, optimiser state and random state in one file, npz or safetensors.

They are written and read by `rnnfast._files`: nothing in them runs, and whoever reads the path
finds the old checkpoint or the new one, never half of one. A path in `.npz` needs no further
package; any other is safetensors and needs that one (`pip install rnnfast[files]`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _files
from .._core import checks
from ._array import Array, Arrays, Named, check_like, join, named
from ._ties import ties
from .optim import Optimizer

_FORMAT = "rnnfast checkpoint 1"


def save_checkpoint(
    path: str | os.PathLike[str],
    params: Named,
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
    *,
    extra: Arrays | None = None,
    info: Any = None,
) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : path
        Replaced if it exists. In `.npz` it gets NumPy's format, else that of safetensors.
    params : dict, or object with one as `params`
        The parameters.
    optimizer : Optimizer, optional
        Its state, step count and learning rate are stored.
    rng : numpy.random.Generator, optional
        Its state is stored.
    extra : dict, optional
        Further arrays.
    info : optional
        Anything JSON can hold; returned by `load_checkpoint`.

    Raises
    ------
    ImportError
        The file is of safetensors' format, and safetensors is not installed.
    OSError
        The file cannot be written; an older one is left as it was.
    TypeError, ValueError
        An array, a name or the info is nothing such a file can hold.
    """
    header: dict[str, Any] = {"format": _FORMAT, "info": info}
    parts: dict[str, Arrays] = {"params": named("params", params), "extra": extra or {}}
    if optimizer is not None:
        parts["optimizer"] = optimizer.state_arrays()
        header["optimizer"] = [type(optimizer).__name__, optimizer.steps, optimizer.lr]
    if rng is not None:
        header["rng"] = rng.bit_generator.state
    _files.write(path, join(**parts), header)


def load_checkpoint(
    path: str | os.PathLike[str],
    params: Named,
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
    *,
    extra: Arrays | None = None,
) -> Any:
    """Read a checkpoint into the live arrays of a model, and into whatever else is given.

    Everything is checked first: after an error nothing has changed.

    Parameters
    ----------
    path : path
    params : dict, or object with one as `params`
        Live arrays to fill; names, dtypes and shapes must be the file's.
    optimizer : Optimizer, optional
        Of the same class and for the same parameters as the stored one.
    rng : numpy.random.Generator, optional
        With the same kind of bit generator as the stored one.
    extra : dict, optional
        Live arrays to fill from the further arrays.

    Returns
    -------
    info
        What `save_checkpoint` was given.

    Raises
    ------
    ImportError
        The file is of safetensors' format, and safetensors is not installed.
    OSError
        The file cannot be read.
    ValueError
        It is damaged, is no checkpoint, or belongs to another model, optimiser or generator.
    """
    wanted: dict[str, Arrays] = {"params": named("params", params), "extra": extra or {}}
    if optimizer is not None:
        wanted["optimizer"] = optimizer.state_arrays()
    with _files.reading("checkpoint", path):
        header, arrays = _read(path, [name for name, part in wanted.items() if part])
        for part, like in wanted.items():
            check_like(part, arrays[part], like)
            _check_ties(part, arrays[part], like)
        if optimizer is not None:
            steps, lr = _optimizer_numbers(header, optimizer)
        if rng is not None:
            _check_rng_state(header.get("rng"), rng)
        if optimizer is not None:
            optimizer.load_state(steps, lr, arrays["optimizer"])
    if rng is not None:
        rng.bit_generator.state = header["rng"]
    for part in ("params", "extra"):
        for name, array in wanted[part].items():
            np.copyto(array, arrays[part][name])
    return header["info"]


def stored_info(path: str | os.PathLike[str]) -> Any:
    """What `save_checkpoint` was given as `info`; errors as in `load_checkpoint`."""
    with _files.reading("checkpoint", path):
        return _read(path, [])[0]["info"]


def _read(
    path: str | os.PathLike[str], parts: list[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
    """The header and the arrays of the wanted parts; ValueError for whatever is not right."""
    header, joined = _files.read(path, [_FORMAT], lambda name: name.partition(".")[0] in parts)
    if "info" not in header:
        raise ValueError("its info is missing")
    arrays: dict[str, dict[str, Array]] = {"params": {}, "extra": {}, "optimizer": {}}
    for key, array in joined.items():
        part, _, name = key.partition(".")
        arrays[part][name] = array
    return header, arrays


def _check_ties(what: str, arrays: Arrays, like: Arrays) -> None:
    """Refuse two arrays that are to go into one, and differ."""
    for name, first in ties(like).items():
        if not np.array_equal(arrays[name], arrays[first], equal_nan=True):
            raise ValueError(f"{what} {name!r} is the array {first!r}, but the file has two")


def _optimizer_numbers(header: dict[str, Any], optimizer: Optimizer) -> tuple[int, float]:
    match header.get("optimizer"):
        case [str(kind), int(steps), int() | float() as lr] if steps >= 0:
            if kind != type(optimizer).__name__:
                raise ValueError(f"it holds a {kind}, expected {type(optimizer).__name__}")
            return steps, float(lr)
    raise ValueError("it holds no state of an optimizer")


def check_random_states(
    path: str, states: Any, generators: Mapping[str, np.random.Generator]
) -> None:
    """Refuse states, those of a model's layers, that do not fit these generators."""
    with _files.reading("checkpoint", path):
        checks.names("its random states of layers", states, generators)
        for name, rng in generators.items():
            _check_rng_state(states[name], rng)


def _check_rng_state(state: Any, rng: np.random.Generator) -> None:
    """Try the stored state on a generator of the same kind, which refuses what does not fit."""
    if not isinstance(state, dict):
        raise ValueError("it holds no state of a random generator")
    try:
        type(rng.bit_generator)().state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"its random state does not fit the generator: {error}") from error
