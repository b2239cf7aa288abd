"""Files: arrays and a JSON header in one safetensors file; a layer as such a file.

The format holds arrays and text and nothing that runs, so a file from elsewhere can at worst be
refused. A file is written beside its destination and then moved over it: whoever reads the path
finds the old file or the new one, never half of one.

Needs the `safetensors` package (`pip install rnnfast[files]`).
"""

from __future__ import annotations

import inspect
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ._parameters import Array
from .layers import GRU, LSTM, RNN

Path = str | os.PathLike[str]

_FORMAT = "rnnfast layer 1"
_CLASSES: dict[str, Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}

# ------------------------------------------------------------------------- any file of the package


def write(path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    """Write named arrays and a header, its "format" among others, atomically."""
    text = json.dumps(header, default=lambda array: array.tolist())
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _replace(path, _safetensors().numpy.save(contiguous, {"rnnfast": text}))


def read(
    path: Path, expected_format: str, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header and the arrays with wanted names; ValueError for whatever is not right."""
    safetensors = _safetensors()
    open(path, "rb").close()  # this names the file where it fails
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("rnnfast")
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names if wanted(name)}
        header: Any = None if text is None else json.loads(text)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # safetensors' own errors derive from Exception alone
        raise ValueError(str(error)) from error
    if text is None:
        raise ValueError(
            "it holds arrays without rnnfast's metadata; they go into a layer by load_state_dict"
        )
    found = header.get("format") if isinstance(header, dict) else None
    if found != expected_format:
        raise ValueError(f"its format is {found!r}, expected {expected_format!r}")
    return header, arrays


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into a ValueError that names the file."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot load {what} {os.fspath(path)!r}: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        message = "files need the safetensors package: pip install rnnfast[files]"
        raise ImportError(message) from error
    return safetensors


def _replace(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that the path never shows a part of it."""
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".rnnfast-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


# ----------------------------------------------------------------------------------------- a layer


def save(layer: Any, path: Path) -> None:
    """Write a layer; see its method `save`."""
    if _CLASSES.get(type(layer).__name__) is not type(layer):
        raise TypeError(f"layer has type {type(layer).__name__}, expected {', '.join(_CLASSES)}")
    layer._check_named("params", layer.params)
    header = {"format": _FORMAT, "class": type(layer).__name__, "options": _options(layer)}
    write(path, layer.params, header)


def load(path: Path) -> RNN | GRU | LSTM:
    """Read a layer that its method `save` has written.

    Parameters
    ----------
    path : path

    Returns
    -------
    RNN, GRU or LSTM
        With the parameters, sizes, options and dtype of the saved one. Its `rng`, from which
        dropout draws, is a fresh one: random states are not saved.

    Raises
    ------
    ImportError
        safetensors is not installed.
    OSError
        The file cannot be read.
    ValueError
        It is damaged, or is no layer of rnnfast. Nothing in it is run, and nothing larger than
        the file is allocated before all of it has been checked.

    Examples
    --------
    >>> layer.save("layer.safetensors")
    >>> same = rnnfast.load("layer.safetensors")
    """
    with reading("layer", path):
        header, arrays = read(path, _FORMAT)
        kind: Any = header.get("class")
        options: Any = header.get("options")
        if not isinstance(kind, str) or kind not in _CLASSES:
            raise ValueError(f"its class is {kind!r}, expected one of {', '.join(_CLASSES)}")
        _check_options(_CLASSES[kind], options, arrays)
        layer: RNN | GRU | LSTM = _CLASSES[kind](**options)
        layer.load_state_dict(arrays)
    return layer


def _options(layer: Any) -> dict[str, Any]:
    names = _option_names(type(layer))
    return {name: getattr(layer, name) for name in names} | {"dtype": layer.dtype.name}


def _option_names(kind: Any) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name != "rng"]


def _check_options(kind: Any, options: Any, arrays: dict[str, Array]) -> None:
    """Raise unless the options are what a layer of that class with these arrays would store."""
    if not isinstance(options, dict):
        raise ValueError(f"its options are {options!r}, expected a JSON object")
    expected = _option_names(kind)
    if options.keys() != set(expected):
        raise ValueError(f"its options are {', '.join(options)}, expected {', '.join(expected)}")
    layers = options["num_layers"]
    if isinstance(layers, int) and layers > len(arrays):
        raise ValueError(f"num_layers is {layers}, but there are {len(arrays)} arrays")
    # A layer without values: whether the arrays fit is known before anything is allocated.
    empty = type("Empty", (kind,), {"_initial_values": lambda self: {}})(**options)
    for name, value in _options(empty).items():
        if json.dumps(value) != json.dumps(options[name]):  # 1 is not true, "no" is not false
            raise ValueError(f"option {name} is {options[name]!r}, expected {value!r}")
    empty._check_named("arrays", arrays)
