"""How many calls of a layer ran in the kernels, and how many in PyTorch, and why.

Only calls outside the graphs of `torch.compile` are counted. Threads may lose a count to each
other, which a lock would cost too much to prevent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

DTYPES = (torch.float32, torch.float64)
PLAIN = (Tensor, torch.nn.Parameter)  # other subclasses of Tensor have their own rules


class Calls:
    """The counts of one layer. Its copies, in files too, count afresh."""

    __slots__ = ("kernels", "pytorch")

    def __init__(self) -> None:
        self.kernels = 0
        self.pytorch: dict[str, int] = {}

    def __reduce__(self) -> Any:
        return Calls, ()

    def add(self, reason: str) -> None:
        """Count a call that ran in PyTorch."""
        self.pytorch[reason] = self.pytorch.get(reason, 0) + 1


def reason(x: Tensor, states: Sequence[Any], weights: Sequence[Sequence[Tensor]]) -> str:
    """Return why a call that PyTorch can do was none for the kernels."""
    if torch._C._are_functorch_transforms_active():
        return "torch.func"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    if torch.jit.is_tracing():
        return "torch.jit.trace"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a dispatch mode"
    if torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch):
        return "make_fx"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    for tensor in chain((x,), states, *weights):
        if type(tensor) not in PLAIN:
            return f"{type(tensor).__name__} tensors"
        if not tensor.is_cpu:
            return f"tensors on {tensor.device.type}"
        if tensor.layout != torch.strided:
            return f"{tensor.layout} tensors".removeprefix("torch.")
        if tensor.dtype not in DTYPES:
            return f"{tensor.dtype} tensors".removeprefix("torch.")
    return "tensors of several dtypes" if x.numel() else "an empty input"
