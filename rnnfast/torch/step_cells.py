"""`torch.nn`'s RNNCell, GRUCell and LSTMCell, by rnnfast's kernels where they can.

Letters: B batch rows, I input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._core.passes import BackwardCall, ForwardCall, run_backward, run_forward, tape_at
from ._autograd import differentiable, transformed
from ._formulas import composite
from ._layer import KINDS, Direction, Maybe, array, arrays, arrays_of, threads, unpacked
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
        x, h, c = (*tensors[: 1 + len(states)], None, None)[:3]
        known = [*(*given[: 1 + len(states)], None, None)[:3], *given[1 + len(states) :]]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            found = Step.apply(mode, known, x, h, c, *weights)
        else:
            found = tuple(_run(mode, x, known, need_tape=False)[0])
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


def _run(mode: str, x: Tensor, given: Sequence[Any], need_tape: bool) -> tuple[list[Tensor], Any]:
    """Return the state after the step and the tape; `given` are arrays of x, h, c and weights."""
    own = unpacked(given[3:])
    results = [x.new_empty((*x.shape[:-1], own.w_hh.shape[1])) for _ in range(1 + (mode == "LSTM"))]
    rows, h, c = _rows(given[:3])
    call = ForwardCall(*KINDS[mode], rows[None], h, c, own, None, None, False, need_tape)
    call.h_n, call.c_n = (*_rows(arrays_of(results)), None)[:2]
    run_forward([call], threads())
    return results, call.tape


def _rows(given: Iterable[Any]) -> list[Any]:
    """Return (B, .) for arrays (B, .) or (.), None for None."""
    return [a if a is None or a.ndim == 2 else a[None] for a in given]


class Step(torch.autograd.Function):  # type: ignore[misc]
    """A step with a tape, whose memory the graph saves as `Recurrence` does."""

    @staticmethod
    def forward(
        ctx: Any, mode: str, given: Sequence[Any], x: Tensor, h: Maybe, c: Maybe, *weights: Tensor
    ) -> Any:
        results, tape = _run(mode, x, given, need_tape=True)
        ctx.mode = mode
        ctx.save_for_backward(x, h, c, *weights, torch.from_numpy(tape.memory))
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: Maybe) -> Any:
        mode, needs = ctx.mode, ctx.needs_input_grad[2:]
        *inputs, memory = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed(upstream):
            return None, None, *differentiable(partial(_formulas, mode), inputs, needs, upstream)
        tape = tape_at(memory.data_ptr())
        if tape is None or tape.used:  # a graph may run more than once
            _, tape = _run(mode, inputs[0], list(map(array, inputs)), need_tape=True)
        grads = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) if need else None
            for tensor, need in zip(inputs, needs, strict=True)
        ]
        to = arrays_of(grads)
        call = BackwardCall(KINDS[mode][0], tape, None, *(*_rows(map(array, upstream)), None)[:2])
        dx, call.dh0, call.dc0 = _rows(to[:3])
        call.dx = None if dx is None else dx[None]
        call.dweights = unpacked(to[3:])
        run_backward([call], threads())
        return None, None, *grads


def _formulas(mode: str, x: Tensor, h: Maybe, c: Maybe, *weights: Tensor) -> Sequence[Tensor]:
    """The step in PyTorch's own operations."""
    lead = (None,) if x.dim() == 2 else (None, None)
    h0, c0 = (None if state is None else state[lead] for state in (h, c))
    _, *final = composite(_STEPS[mode], x[lead], h0, c0, [weights])
    return [state.reshape(*x.shape[:-1], -1) for state in final]


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
