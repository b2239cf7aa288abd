"""The recurrent layers of a PyTorch model, computed by rnnfast on the CPU.

`RNN`, `GRU` and `LSTM` are `torch.nn`'s modules of the same names, with the same constructors,
parameters and results. A call has two more arguments, `lengths` and `resets`. `accelerate` turns
the layers of an existing model into them, `report` says which, `restore` turns them back:

>>> import rnnfast.torch
>>> model = torch.nn.ModuleDict({"gru": torch.nn.GRU(8, 64)})
>>> model = rnnfast.torch.accelerate(model)
>>> print(rnnfast.torch.report(model))
replaced  gru  GRU(8, 64)

`RNNCell`, `GRUCell` and `LSTMCell` are `torch.nn`'s single steps in the same way. `accelerate`
leaves cells alone: where there are many weights and few rows, PyTorch's may be faster.

`Recurrent` makes a module of a cell of your own (`rnnfast.cells`), on the CPU.

float32 and float64 tensors on the CPU go to rnnfast's kernels, by autograd too. All else gives the
same results by PyTorch's own operations: other devices and dtypes, autocast, `torch.func`,
forward-mode differentiation, gradients of gradients. The number of threads is PyTorch's,
`torch.get_num_threads()`.
"""

from __future__ import annotations

try:
    import torch
except ModuleNotFoundError as error:
    message = "rnnfast.torch needs PyTorch: pip install rnnfast[torch]"
    raise ModuleNotFoundError(message, name=error.name) from error
if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(f"rnnfast.torch needs PyTorch 2.10 or newer, found {torch.__version__}")
from ._report import Report, report
from .cells import Recurrent
from .layers import GRU, LSTM, RNN
from .models import accelerate, restore
from .step_cells import GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "Report",
    "accelerate",
    "report",
    "restore",
]
