"""How layers, optimisers and their like show themselves: as the call that makes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Described:
    """An object whose options are attributes under the names of its constructor's arguments.

    What must be given is shown by its place, and an option by its name where it is not the default
    or one of `_always_shown`. What a subclass takes and does not keep is not shown.
    """

    _never_shown: ClassVar[tuple[str, ...]] = ("params", "rng", "state")
    _always_shown: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        words = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            if name in self._never_shown:
                continue
            value = self._option(name)
            if value is argument.empty:
                continue
            if argument.default is argument.empty:
                words.append(_text(value))
            elif name in self._always_shown or value != argument.default:
                words.append(f"{name}={_text(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _option(self, name: str) -> Any:
        """The value of an option; `inspect.Parameter.empty` if it is not known."""
        return getattr(self, name, inspect.Parameter.empty)


class Module(Described):
    """A layer with named parameters, or without any."""

    params: Mapping[str, NDArray[Any]]

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters have."""
        return sum(array.size for array in self.params.values())


def _text(value: Any) -> str:
    if isinstance(value, np.dtype):
        return str(value)
    return repr(float(value)) if isinstance(value, float) else repr(value)  # NumPy's too
