"""Fast recurrent networks on the CPU: RNN, GRU, LSTM and cells of your own, forward and backward.

`rnnfast.cells`, `rnnfast.training`, `rnnfast.estimators`, `rnnfast.torch`, `rnnfast.jax` and
`rnnfast.onnx` are imported when they are first used.
"""

from typing import TYPE_CHECKING

try:
    from ._core.config import MAX_THREADS as _MAX_THREADS  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "rnnfast._core.config":
        raise
    raise ImportError(
        "rnnfast is imported from its source folder, where it is not compiled: leave that folder, "
        "or install with `pip install -e .`"
    ) from error
from . import functional, interop, reference
from ._core.threads import config, get_num_threads, num_threads, set_num_threads, show_config
from ._generic import Recurrent
from ._modules import Last
from ._saving import load, save
from ._sequential import Sequential
from ._version import __version__
from .layers import GRU, LSTM, RNN
from .step_cells import GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Last",
    "RNNCell",
    "Recurrent",
    "Sequential",
    "__version__",
    "config",
    "functional",
    "get_num_threads",
    "interop",
    "load",
    "num_threads",
    "reference",
    "save",
    "set_num_threads",
    "show_config",
]

_PARTS = {
    "cells": "numpy",
    "estimators": "sklearn",
    "jax": "jax",
    "onnx": "onnx",
    "torch": "torch",
    "training": "numpy",
}  # and the package each needs

if TYPE_CHECKING:
    from . import cells as cells
    from . import estimators as estimators
    from . import jax as jax
    from . import onnx as onnx
    from . import torch as torch
    from . import training as training
else:  # or type checkers would take any name

    def __getattr__(name: str) -> object:
        """Import a part at its first use; that sets the attribute, so this runs once."""
        if name not in _PARTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """All that is there. A part without its package is not, or `help` would fail."""
    from importlib.util import find_spec

    parts = {part for part, package in _PARTS.items() if find_spec(package)}
    return sorted((globals().keys() | parts) - {"TYPE_CHECKING"})
