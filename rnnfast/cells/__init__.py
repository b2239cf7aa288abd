"""Recurrent cells of your own: write the equations, get forward, exact gradients and streams.

A cell is a function of one time step, decorated with `cell`. `rnnfast.Recurrent` makes layers of
it, `rnnfast.functional.cell_forward` and `cell_backward` run it. Here are the functions that it may
call, and cells from the literature, such as `peephole_lstm`.
"""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from ._cell import Cell, cell
from ._functions import (
    abs,
    clip,
    exp,
    log,
    maximum,
    mean,
    minimum,
    normalize,
    outer,
    relu,
    sigmoid,
    softmax,
    softplus,
    sqrt,
    tanh,
    total,
    where,
)
from ._mask import Mask
from ._trace import Expression, TraceError, linear, vector

__all__ = [
    "Cell",
    "Expression",
    "Mask",
    "TraceError",
    "abs",
    "cell",
    "clip",
    "exp",
    "linear",
    "log",
    "maximum",
    "mean",
    "minimum",
    "normalize",
    "outer",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "sqrt",
    "tanh",
    "total",
    "vector",
    "where",
]

# The modules that have the cells of the library.
_LIBRARY = "_library", "_clocked", "_deep", "_onnx", "_regularized", "_timed"

if TYPE_CHECKING:
    from ._clocked import *  # noqa: F403
    from ._deep import *  # noqa: F403
    from ._library import *  # noqa: F403
    from ._onnx import *  # noqa: F403
    from ._regularized import *  # noqa: F403
    from ._timed import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """Make the cells of the library at the first use of one: tracing them takes a moment."""
        for module in _modules():
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _modules() -> Iterator[ModuleType]:
    """Import the modules of the library, one after the other."""
    from importlib import import_module

    for module in _LIBRARY:
        yield import_module(f"{__name__}.{module}")


def named(name: str, arguments: Mapping[str, object] | None = None) -> Cell | None:
    """Return the cell of the library with that name, or that its function makes of arguments.

    None if there is no such cell or function.
    """
    from ._factory import is_factory
    from ._library import VARIANTS

    if arguments is None and name in (f"lstm_{variant}" for variant in VARIANTS):  # older files
        name, arguments = "lstm_variant", {"name": name.removeprefix("lstm_")}
    found = next((getattr(m, name) for m in _modules() if name in m.__all__), None)
    if arguments is None:
        return found if isinstance(found, Cell) else None
    return found(**arguments) if found is not None and is_factory(found) else None


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for module in _modules() for name in module.__all__)})
