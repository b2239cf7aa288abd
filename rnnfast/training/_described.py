"""How objects of the kit show themselves: as the call that makes them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np


class Described:
    """An object whose options are attributes under the names of its constructor's arguments.

    What must be given is shown by its place, other options by name where they are not the default.
    A source of random numbers is not shown.
    """

    def __repr__(self) -> str:
        words = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            value = self._option(name)
            if name == "rng" or value is argument.default or value == argument.default:
                continue
            text = str(value) if isinstance(value, np.dtype) else repr(value)
            given = argument.default is argument.empty
            words.append(text if given else f"{name}={text}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _option(self, name: str) -> Any:
        """The value of an option."""
        return getattr(self, name)
