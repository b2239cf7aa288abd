"""`torch.nn`'s RNNCell, GRUCell and LSTMCell, by rnnfast's kernels where they can.

Letters: B batch rows, I input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._core.passes import ForwardCall, run_forward
from ._autograd import Recurrence
from ._layer import KINDS, Direction, arrays, arrays_of, threads, unpacked
from .layers import is_recorded

_STEPS = {mode: (Direction(mode, False),) for mode in KINDS}


class StepCell(torch.nn.RNNCellBase):  # type: ignore[misc]
    """What the three have in common: a step is a sequence of length 1."""

    _plain: ClassVar[Any]  # PyTorch's class

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__new__(cls)
        if "_plain" in vars(cls):  # then torch.fx takes it as a whole, as it does PyTorch's
            module.__dict__["__module__"] = cls._plain.__module__
        return module

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Take a step.

        Parameters
        ----------
        input : Tensor
            (B, I) or (I,).
        hx : Tensor, for the LSTM a pair (h_0, c_0), optional
            The state before the step, (B, H) or (H,); zeros by default.

        Returns
        -------
        state : Tensor, for the LSTM a pair
            The state after the step, shaped as `hx`.

        Raises
        ------
        RuntimeError, ValueError
            What `torch.nn`'s cell raises, if `input` or `hx` do not fit it.
        """
        if not (torch.compiler.is_compiling() or _observed()):
            found = self._by_kernels(input, hx)
            if found is not None:
                return found
        return super().forward(input, hx)

    def _by_kernels(self, input: Any, hx: Any) -> Any:
        """Return the state after the step, or None for what PyTorch has to compute or refuse."""
        mode = self._mode()
        pair = mode == "LSTM"
        states = (
            () if hx is None else tuple(hx) if pair and isinstance(hx, (tuple, list)) else (hx,)
        )
        weights = [self.weight_ih, self.weight_hh]
        if self.bias:
            weights += [self.bias_ih, self.bias_hh]
        tensors = input, *states, *weights
        given = arrays(tensors) if mode in KINDS else None
        if given is None or not self._fits(given, len(states), 1 + pair):
            return None
        batched = input.dim() == 2
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            found = _training(mode, tensors, given, len(states), batched)
        else:
            found = _inference(mode, input, given, len(states), batched)
        return found if pair else found[0]

    def _fits(self, given: Sequence[Any], states: int, expected: int) -> bool:
        """Whether x, the states and the weights have their sizes, and there are rows."""
        x, H = given[0], self.hidden_size
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size or not x.size:
            return False
        if states not in (0, expected):
            return False
        if any(state.shape != (*x.shape[:-1], H) for state in given[1 : 1 + states]):
            return False
        w_ih, w_hh, *biases = given[1 + states :]
        rows = w_ih.shape[0]
        fit = w_ih.shape == (rows, self.input_size) and w_hh.shape == (rows, H)
        return fit and all(bias.shape == (rows,) for bias in biases)

    def _mode(self) -> str:
        raise NotImplementedError

    def __prepare_scriptable__(self) -> Any:
        """Give `torch.jit.script` PyTorch's cell with the same parameters."""
        plain = copy(self)
        plain.__class__ = self._plain
        plain.__dict__.pop("__module__", None)
        return plain


def _observed() -> bool:
    """Whether something sees or changes single operations, which PyTorch's cell consists of."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or is_recorded()
        or torch.is_autocast_enabled("cpu")
    )


def _inference(
    mode: str, input: Tensor, given: Sequence[Any], states: int, batched: bool
) -> tuple[Tensor, ...]:
    x, *rest = given if batched else [*(a[None] for a in given[: 1 + states]), *given[1 + states :]]
    h, c = (*rest[:states], None, None)[:2]
    own = unpacked(rest[states:])
    shape = (x.shape[0], own.w_hh.shape[1])
    results = [input.new_empty(shape) for _ in range(1 + (mode == "LSTM"))]
    call = ForwardCall(*KINDS[mode], x[None], h, c, own, None, None, False, False)
    call.h_n, call.c_n = (*arrays_of(results), None)[:2]
    run_forward([call], threads())
    return tuple(results if batched else (result[0] for result in results))


def _training(
    mode: str, tensors: Sequence[Tensor], given: Sequence[Any], states: int, batched: bool
) -> tuple[Tensor, ...]:
    """Take the step as a function of autograd."""
    if batched:
        inputs = [tensor.unsqueeze(0) for tensor in tensors[: 1 + states]]
        known = [array[None] for array in given[: 1 + states]]
    else:
        inputs = [tensor[None, None] for tensor in tensors[: 1 + states]]
        known = [array[None, None] for array in given[: 1 + states]]
    x, h, c = (*inputs, None, None)[:3]
    known = [*(*known, None, None)[:3], *given[1 + states :]]
    _, *final = Recurrence.apply(_STEPS[mode], known, x, h, c, *tensors[1 + states :])
    return tuple(state.squeeze(0) if batched else state.view(-1) for state in final)


class RNNCell(StepCell, torch.nn.RNNCell):  # type: ignore[misc]
    """`torch.nn.RNNCell`: the same constructor, parameters, `state_dict` and results.

    rnnfast computes float32 and float64 on the CPU, PyTorch everything else.
    """

    _plain = torch.nn.RNNCell

    def _mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"


class GRUCell(StepCell, torch.nn.GRUCell):  # type: ignore[misc]
    """`torch.nn.GRUCell`; see `RNNCell`."""

    _plain = torch.nn.GRUCell

    def _mode(self) -> str:
        return "GRU"


class LSTMCell(StepCell, torch.nn.LSTMCell):  # type: ignore[misc]
    """`torch.nn.LSTMCell`; see `RNNCell`."""

    _plain = torch.nn.LSTMCell

    def _mode(self) -> str:
        return "LSTM"
