"""Layers in files: a layer with its options, or several layers under names.

What a file says is checked against its arrays before a layer is made, so that nothing larger than
the file is allocated for it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from . import _files
from ._core import checks
from ._files import Array, Path

_LAYER, _LAYERS = "rnnfast layer 1", "rnnfast layers 1"
_MODULES = {  # where a class is; the training kit is imported only when a file asks for it
    "RNN": "rnnfast.layers",
    "GRU": "rnnfast.layers",
    "LSTM": "rnnfast.layers",
    "Recurrent": "rnnfast._generic",
    "RNNCell": "rnnfast.step_cells",
    "GRUCell": "rnnfast.step_cells",
    "LSTMCell": "rnnfast.step_cells",
    "Linear": "rnnfast.training.modules",
    "Embedding": "rnnfast.training.modules",
    "Dropout": "rnnfast.training.dropout",
    "Activation": "rnnfast.training.activations",
    "Attention": "rnnfast.training.attention",
    "Last": "rnnfast._modules",
    "Sequential": "rnnfast._sequential",
}
_NAMES = ", ".join(_MODULES)


def save(path: Path, layers: Any) -> None:
    """Write a layer, or several under names, to a file for `load`.

    Parameters
    ----------
    path : path
        In `.npz` the file is NumPy's and needs no further package; else it is a safetensors file.
        Replaced if it exists, in one step: nobody sees half a file.
    layers : layer or dict of str to layer
        `RNN`, `GRU`, `LSTM`, `Recurrent`, `RNNCell`, `GRUCell`, `LSTMCell`, `Last`, `Sequential`,
        `training.Linear`, `Embedding`, `Dropout`, `Activation` or `Attention`. In the file of a
        dict the parameters are called ``name.parameter``, as in a `state_dict` of PyTorch. Not
        saved: `rng`, the function of a cell, and that layers share arrays.

    Raises
    ------
    ImportError
        The path does not end in `.npz`, and safetensors is not installed (`pip install
        rnnfast[files]`).
    OSError
        The file cannot be written; an older one is left as it was.
    TypeError, ValueError
        Something is no such layer, its parameters do not fit it, or a name cannot be stored.

    Examples
    --------
    >>> rnnfast.save("model.npz", {"encoder": lstm, "out": linear})
    >>> model = rnnfast.load("model.npz")
    >>> y, state = model["encoder"](x)
    """
    if not isinstance(layers, Mapping):
        description = _description("layer", layers)
        _files.write(path, layers.params, {"format": _LAYER, **description})
        return
    arrays: dict[str, Array] = {}
    descriptions = {}
    for name, layer in layers.items():
        if not isinstance(name, str):
            raise TypeError(f"layers has the name {name!r}, expected str")
        descriptions[name] = _description(f"layers[{name!r}]", layer) | {"params": [*layer.params]}
        joined = {f"{name}.{parameter}": value for parameter, value in layer.params.items()}
        if both := arrays.keys() & joined.keys():
            raise ValueError(f"two parameters would be called {min(both)!r}, rename {name!r}")
        arrays |= joined
    _files.write(path, arrays, {"format": _LAYERS, "layers": descriptions})


def load(path: Path, cells: Iterable[Any] = ()) -> Any:
    """Read a layer, or several, from a file that `save` has written.

    Parameters
    ----------
    path : path
        The file's content, not its name, tells its format.
    cells : iterable of Cell, optional
        The cells of your own that layers of the file were made of. Those of `rnnfast.cells` are
        known.

    Returns
    -------
    layer or dict of str to layer
        What was saved, a dict in the same order. Each layer has the parameters, sizes, options and
        dtype of the saved one. Its `rng`, from which dropout draws, is a fresh one: random states
        are not saved.

    Raises
    ------
    ImportError
        It is a safetensors file, and safetensors is not installed.
    OSError
        The file cannot be read.
    ValueError
        It is damaged, or holds no layer of rnnfast, or a cell is not known or has other equations
        than the saved one. Nothing in it is run, and nothing larger than the file is allocated
        before all of it has been checked.

    Examples
    --------
    >>> layer.save("layer.npz")
    >>> same = rnnfast.load("layer.npz")
    """
    with _files.reading("layer", path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dropout=")  # it was said when the layer was made
        header, arrays = _files.read(path, [_LAYER, _LAYERS])
        own = {cell.name: cell for cell in cells}
        read = _layer if header["format"] == _LAYER else _layers
        return read(header, arrays, own)


def _layers(
    header: dict[str, Any], arrays: dict[str, Array], own: Mapping[str, Any]
) -> dict[str, Any]:
    descriptions = header.get("layers")
    if not isinstance(descriptions, dict):
        raise ValueError(f"its layers are {descriptions!r}, expected a JSON object")
    unused, found = set(arrays), {}
    for name, description in descriptions.items():
        try:
            parameters = description["params"] if isinstance(description, dict) else None
            if not isinstance(parameters, list):
                raise ValueError(f"its params are {parameters!r}, expected a JSON array")
            full = {f"{name}.{parameter}": parameter for parameter in parameters}
            if missing := full.keys() - unused:
                raise ValueError(f"its array {min(missing)!r} is missing")
            unused -= full.keys()
            found[name] = _layer(description, {full[key]: arrays[key] for key in full}, own)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"layer {name!r}: {error}") from error
    if unused:
        raise ValueError(f"its array {min(unused)!r} belongs to no layer")
    return found


def _layer(description: dict[str, Any], arrays: dict[str, Array], own: Mapping[str, Any]) -> Any:
    kind, options = _class(description.get("class")), description.get("options")
    if not isinstance(options, dict):
        raise ValueError(f"its options are {options!r}, expected a JSON object")
    expected = _option_names(kind)
    if options.keys() != set(expected):
        raise ValueError(f"its options are {', '.join(options)}, expected {', '.join(expected)}")
    if kind.__name__ == "Sequential":
        return kind(*_chained(options["layers"], arrays, own))
    if "cell" in options:
        options = options | {"cell": _cell(options["cell"], own)}
    if _is_recurrent(kind):
        _check_recurrent(kind, options, arrays)
    elif hasattr(kind, "_options"):
        _check_options(options, kind._options(arrays))
    else:
        checks.names("arrays", arrays, {})
        _check_options(options, _plain_options(kind(**options)))
    layer = kind(**options)
    for name, value in arrays.items():
        np.copyto(layer.params[name], value)
    return layer


def _chained(descriptions: Any, arrays: dict[str, Array], own: Mapping[str, Any]) -> Iterator[Any]:
    """The layers of a `Sequential`, whose arrays are called by their numbers."""
    if not isinstance(descriptions, list):
        raise ValueError(f"its layers are {descriptions!r}, expected a JSON array")
    parts: dict[str, dict[str, Array]] = {str(i): {} for i in range(len(descriptions))}
    for name, value in arrays.items():
        number, _, parameter = name.partition(".")
        if number not in parts:
            raise ValueError(f"its array {name!r} belongs to no layer")
        parts[number][parameter] = value
    for number, description in zip(parts, descriptions, strict=True):
        try:
            if not isinstance(description, dict):
                raise ValueError(f"it is {description!r}, expected a JSON object")
            yield _layer(description, parts[number], own)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"layer {number}: {error}") from error


# ------------------------------------------------------------------------------- what a layer is


def _class(name: object) -> Any:
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(f"its class is {name!r}, expected one of {_NAMES}")
    return getattr(import_module(_MODULES[name]), name)


def _is_recurrent(kind: Any) -> bool:
    recurrent = "rnnfast.layers", "rnnfast._generic", "rnnfast.step_cells"
    return _MODULES[kind.__name__] in recurrent


def _description(name: str, layer: Any) -> dict[str, Any]:
    """The class and the options of a layer whose parameters fit it."""
    kind = type(layer)
    if _MODULES.get(kind.__name__) != kind.__module__:
        raise TypeError(f"{name} has type {kind.__name__}, expected {_NAMES}")
    if _is_recurrent(kind):
        layer._check_named("params", layer.params)
        return {"class": kind.__name__, "options": _recurrent_options(layer)}
    if kind.__name__ == "Sequential":
        described = [_description(f"{name}[{i}]", part) for i, part in enumerate(layer)]
        return {"class": kind.__name__, "options": {"layers": described}}
    if not hasattr(kind, "_options"):
        checks.names("params", layer.params, {})
        return {"class": kind.__name__, "options": _plain_options(layer)}
    options = kind._options(layer.params)
    for option, value in options.items():
        if (own := getattr(layer, option, value)) != value:
            raise ValueError(f"{name} has params for {option} {value}, expected {own}")
    return {"class": kind.__name__, "options": options}


def _option_names(kind: Any) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name != "rng"]


def _plain_options(layer: Any) -> dict[str, Any]:
    """Of a layer without parameters."""
    return {name: getattr(layer, name) for name in _option_names(type(layer))}


def _recurrent_options(layer: Any) -> dict[str, Any]:
    options = {name: getattr(layer, name) for name in _option_names(type(layer))}
    if "cell" in options:
        options["cell"] = _cell_option(layer.cell)
    return options | {"dtype": layer.dtype.name}


def _cell_option(cell: Any) -> list[Any]:
    """The name and a fingerprint; then, if a function made the cell, its name and arguments."""
    made = [cell.made.factory.__name__, cell.made.arguments] if cell.made else []
    return [cell.name, _equations(cell), *made]


def _equations(cell: Any) -> str:
    """A fingerprint of what a cell computes."""
    return hashlib.sha256(str(cell).encode()).hexdigest()


def _cell(saved: Any, own: Mapping[str, Any]) -> Any:
    """Find the cell of a saved layer, by its name and equations."""
    from .cells import named

    made: tuple[Any, ...]
    match saved:
        case [str(name), equations]:
            made = (name,)
        case [str(name), equations, str(factory), dict(arguments)]:
            made = factory, arguments
        case _:
            raise ValueError(f"its cell is {saved!r}, expected a name and a fingerprint")
    cell = own.get(name) or named(*made)
    if cell is None:
        raise ValueError(
            f"its cell is {name!r}, which is not in rnnfast.cells: give it by "
            f"rnnfast.load(path, cells=[{name}])"
        )
    if _equations(cell) != equations:
        raise ValueError(f"its cell {name!r} has other equations than the one that was saved")
    return cell


def _check_recurrent(kind: Any, options: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Raise unless the options are what a layer of that class with these arrays would store."""
    layers = options.get("num_layers", 1)
    given = options | ({"cell": _cell_option(options["cell"])} if "cell" in options else {})
    if isinstance(layers, int) and layers > len(arrays):
        raise ValueError(f"num_layers is {layers}, but there are {len(arrays)} arrays")
    # A layer without values: whether the arrays fit is known before anything is allocated.
    empty = type("Empty", (kind,), {"_initial_values": lambda self: {}})(**options)
    _check_options(given, _recurrent_options(empty))
    empty._check_named("arrays", arrays)


def _check_options(options: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if json.dumps(value) != json.dumps(options[name]):  # 1 is not true, "no" is not false
            raise ValueError(f"option {name} is {options[name]!r}, expected {value!r}")
