"""Recurrent cells of your own: write the equations, get forward, exact gradients and streams.

A cell is a function of one time step, decorated with `cell`. `rnnfast.Recurrent` makes layers of
it, `rnnfast.functional.cell_forward` and `cell_backward` run it. Here are the functions that it may
call, and cells from the literature, such as `peephole_lstm`.
"""

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
from ._trace import Expression, TraceError, linear, vector

__all__ = [
    "Cell",
    "Expression",
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

if TYPE_CHECKING:
    from ._library import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """Make the cells of the library at the first use of one: tracing them takes a moment."""
        from importlib import import_module

        library = import_module(f"{__name__}._library")
        if name not in library.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(library, name)


def named(name: str) -> Cell | None:
    """Return the cell of the library with that name, or None."""
    from . import _library

    if name in (f"lstm_{variant}" for variant in _library.VARIANTS):
        return _library.lstm_variant(name.removeprefix("lstm_"))
    found = getattr(_library, name, None) if name in _library.__all__ else None
    return found if isinstance(found, Cell) else None


def __dir__() -> list[str]:
    from ._library import __all__ as library

    return sorted({*__all__, *library})
