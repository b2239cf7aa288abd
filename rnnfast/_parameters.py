"""What a layer is, apart from its passes: options, parameters and their names.

Letters as in `rnnfast.layers`. A cell is one stacked layer in one direction; cell ``k = layer * D +
direction`` is row ``k`` of every state.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _saving
from ._core import arrays, checks
from ._core.passes import Weights

Array = NDArray[Any]
Seed = int | np.random.Generator | None

_DEFAULTS = {  # what a layer's repr leaves out
    "num_layers": 1,
    "nonlinearity": "tanh",
    "reset_after": True,
    "proj_size": 0,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "dtype": np.float32,
}


_ORDER = "w_ih", "w_hh", "b_ih", "b_hh", "w_hr"


class Parameters:
    """Options and named parameters of a layer. A subclass describes its cell."""

    _gates: ClassVar[int]
    _state_letters: tuple[str, ...] = ()  # last axis of each part of the state, P or H
    _state_names: tuple[str, ...]  # what messages call these parts

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: DTypeLike,
        rng: Seed,
        proj_size: int = 0,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, 1)
        self.hidden_size = checks.integer("hidden_size", hidden_size, 1)
        self.num_layers = checks.integer("num_layers", num_layers, 1)
        self.proj_size = checks.integer("proj_size", proj_size, 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size is {proj_size}, expected less than hidden_size {hidden_size}"
            )
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = checks.probability("dropout", dropout)
        self.bidirectional = bool(bidirectional)
        self.dtype = checks.float_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        if self.dropout and self.num_layers == 1:
            message = f"dropout={dropout} acts between layers and has no effect with num_layers=1"
            warnings.warn(message, stacklevel=3)

        self._directions = 2 if bidirectional else 1
        self._sizes = self._state_sizes()
        self._cells: list[tuple[tuple[str, str], ...]] = []  # (functional's name, parameter's name)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._names: list[tuple[str, ...]] = []  # the same in the kernels' order, "" if it has none
        self._stack = [  # (direction, cell) of each stacked layer's cells
            [(d, layer * self._directions + d) for d in range(self._directions)]
            for layer in range(self.num_layers)
        ]
        self._checked: dict[str, Array] = {}  # `params`, when they were found right
        self._weights: list[Weights] = []  # each cell's, then
        self._name_parameters()
        self.params = self._initial_values()

    def _state_sizes(self) -> tuple[int, ...]:
        """Return the size of each part of the state."""
        sizes = {"P": self.proj_size or self.hidden_size, "H": self.hidden_size}
        return tuple(sizes[letter] for letter in self._state_letters)

    def _name_parameters(self) -> None:
        rows, out = self._gates * self.hidden_size, self._sizes[0]
        for layer in range(self.num_layers):
            inputs = self._directions * out if layer else self.input_size
            shapes: dict[str, tuple[int, ...]] = {"w_ih": (rows, inputs), "w_hh": (rows, out)}
            if self.bias:
                shapes |= {"b_ih": (rows,), "b_hh": (rows,)}
            if self.proj_size:
                shapes |= {"w_hr": (out, self.hidden_size)}
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self._directions]:
                kinds = {"w": "weight", "b": "bias"}
                names = {short: f"{kinds[short[0]]}{short[1:]}{suffix}" for short in shapes}
                self._cells.append(tuple(names.items()))
                self._names.append(tuple(names.get(short, "") for short in _ORDER))
                self._shapes |= {name: shapes[short] for short, name in names.items()}

    def _initial_values(self) -> dict[str, Array]:
        bound = self.hidden_size**-0.5
        return {
            name: self.rng.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in self._shapes.items()
        }

    def __repr__(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, default)
            if value != default:
                words.append(f"{name}={value}" if name == "dtype" else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters have."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def _snapshot(self) -> Self:
        """Return a layer that is the same, but has the parameters' values of now for itself."""
        copy = object.__new__(type(self))
        params = {name: arrays.copied(value) for name, value in self.params.items()}
        copy.__dict__.update(self.__dict__, params=params, _checked={})
        return copy

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        return {name: value.copy() for name, value in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy values into the parameters' arrays.

        Parameters
        ----------
        state_dict : mapping of str to ndarray
            Exactly the layer's parameters, each with its shape and dtype. What NumPy reads as an
            array, such as a tensor, will do. The names and shapes are PyTorch's, so that
            ``torch_layer.state_dict()`` fits.

        Raises
        ------
        TypeError
            If a value is not an array of the layer's dtype, or NumPy cannot read it (a tensor that
            requires a gradient).
        ValueError
            If a name is missing or unexpected, or a shape differs.
        """
        self._check_named("params", self.params, writeable=True)
        checks.names("state_dict", state_dict, self._shapes)
        arrays = {name: self._readable(name, state_dict[name]) for name in self._shapes}
        self._check_named("state_dict", arrays)
        values = {name: value.copy() for name, value in arrays.items()}  # may overlap params
        for name, value in values.items():
            self.params[name][...] = value

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters and the options to a file, for `rnnfast.load`.

        The parameters have their own names in it, so that other readers of the format get what
        `state_dict` gives. Not saved: `rng`.

        Parameters
        ----------
        path : path
            In `.npz` the file is NumPy's and needs no further package; else it is a safetensors
            file. Replaced if it exists, in one step: nobody sees half a file.

        Raises
        ------
        ImportError
            The path does not end in `.npz`, and safetensors is not installed (`pip install
            rnnfast[files]`).
        OSError
            The file cannot be written; an older one is left as it was.
        """
        _saving.save(path, self)

    def _readable(self, name: str, value: Any) -> Any:
        """Return what NumPy reads as an array, such as a tensor, as one; all else as it is."""
        if isinstance(value, np.ndarray) or not hasattr(type(value), "__array__"):
            return value
        return checks.readable(f"state_dict[{name!r}]", value, self.dtype)

    def _check_named(self, name: str, arrays: Mapping[str, Array], writeable: bool = False) -> None:
        """Raise unless `arrays` has the parameters' names, shapes and dtype."""
        checks.named(name, arrays, self._shapes, self.dtype, writeable)
