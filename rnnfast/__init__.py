"""Fast recurrent networks on the CPU: RNN, GRU and LSTM, forward and backward through time."""

try:
    from . import _kernels  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "rnnfast is imported from its source folder, where it is not compiled: leave that folder, "
        "or install with `pip install -e .`"
    ) from error
from . import functional, interop, reference
from ._saving import load, save
from ._threads import config, get_num_threads, num_threads, set_num_threads, show_config
from ._version import __version__
from .layers import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
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
