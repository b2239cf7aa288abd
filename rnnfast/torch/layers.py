"""`torch.nn`'s RNN, GRU and LSTM, by rnnfast's kernels where they can.

Letters: T time steps, B batch rows, I input size, P output size, L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from itertools import chain
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._C._dynamo.eval_frame import get_eval_frame_callback as _compiler
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from .._core import checks
from ._autograd import recurrence
from ._counts import DTYPES, PLAIN, Calls, reason
from ._dense import dense
from ._formulas import composite
from ._layer import split
from ._lengths import as_array, direction_of, lengths_of_packed, lengths_of_padded
from ._operator import operator

_REMEDY = {
    "lengths": "Give pack_padded_sequence(input, lengths) instead; torch.export follows lengths",
    "resets": "torch.export follows them",
}

Run: TypeAlias = Callable[..., Sequence[Tensor]]  # of x, h0, c0 and the weights of a layer

_IN_GRAPHS = (*PLAIN, FakeTensor, FunctionalTensor)  # what stands for plain tensors in a recording
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch  # `make_fx(pre_dispatch=True)` has its own modes
_UNBATCHED = "lengths is given, but input has no batch axis"


def own_attributes(kind: Any) -> dict[str, Any]:
    """Return what a layer of rnnfast.torch has and PyTorch's has not.

    Tools such as `torch.fx` take a layer as a whole if `layer.__module__` is PyTorch's. The class
    itself keeps its own `__module__`, by which pickle finds it.
    """
    own: dict[str, Any] = {"_calls": Calls()}
    if "_plain" in vars(kind):  # not one that users derive, which is theirs for these tools, too
        own["__module__"] = kind._plain.__module__
    return own


class Recurrent(torch.nn.RNNBase):  # type: ignore[misc]
    """What the three have in common."""

    _plain: ClassVar[Any]  # the class whose place it takes, PyTorch's own or one derived from that
    _calls: Calls

    def __init_subclass__(cls, **options: Any) -> None:
        if "_plain" not in vars(cls):  # else it stands in for a class, and nobody is to know it
            super().__init_subclass__(**options)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__new__(cls)
        module.__dict__.update(own_attributes(cls))
        return module

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
    ) -> Any:
        """Run the layer.

        Parameters
        ----------
        input : Tensor or PackedSequence
            (T, B, I), or (B, T, I) if `batch_first`, or (T, I) unbatched.
        hx : Tensor, for the LSTM a pair (h_0, c_0), optional
            The states before the first step, (L*D, B, .), or (L*D, .) if unbatched.
        lengths : Tensor, ndarray or sequence of int, (B,), optional
            Row ``b`` has ``lengths[b]`` steps, from 0 to T; the rest is padding, where the output
            is 0. The returned state is the one after the last valid step. For padded input only.
        resets : Tensor or ndarray of bool, optional
            With the axes of `input` but the last; for a PackedSequence with those it has when
            padded. Where true, the row's state is set to zero before that step, in both directions.

        Returns
        -------
        output : Tensor or PackedSequence
            (T, B, D*P), with the axes of `input`.
        state : Tensor, for the LSTM a pair
            The states after the last step, with the axes of `hx`.

        Raises
        ------
        RuntimeError, ValueError
            What `torch.nn`'s layer raises, if `input` or `hx` do not fit it.
        TypeError, ValueError
            If `lengths` or `resets` do not fit `input`.
        """
        if torch.compiler.is_compiling():
            return self._in_graph(input, hx, lengths, resets)
        if _compiler() is not None:  # it must not look into what follows
            return self._eager(input, hx, lengths, resets)
        return self._call(input, hx, lengths, resets)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _eager(self, input: Any, hx: Any, lengths: Any, resets: Any) -> Any:
        return self._call(input, hx, lengths, resets)

    def _call(self, input: Any, hx: Any, lengths: Any, resets: Any) -> Any:
        states, flat = self._states(hx), self._weights()
        transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
        observed = transformed or is_recorded() or torch.is_autocast_enabled("cpu")
        ordinary = lengths is None and resets is None
        if ordinary and not observed:
            result = dense(self, input, states, flat)
            if result is not None:
                self._calls.kernels += 1
                return result
        packed = input if isinstance(input, PackedSequence) else None
        x = input if packed is None else packed.data
        weights = split(flat, self.num_layers * len(self._directions))
        fast = not observed and self._kernels_can(x, states, weights)
        if not (fast or ordinary) and _keeps_values(x, lengths, resets):
            return self._recorded_call(input, hx, lengths, resets)
        if ordinary and not ((fast or transformed) and x.numel()):
            result = super().forward(input, hx)
            self._calls.add(reason(x, states, weights))
            return result
        if not self._fits(x, states, packed):
            return super().forward(input, hx)  # says what does not fit

        batched, order = packed is not None or x.dim() == 3, None
        if packed is not None:
            if lengths is not None:
                raise ValueError("lengths is given, but input is a PackedSequence: it has its own")
            lengths, order = lengths_of_packed(packed)
            T, B = len(packed.batch_sizes), len(lengths)
        else:
            x, states = self._time_major(x, batched), self._batched(states, batched)
            T, B = x.shape[:2]
            if lengths is not None:
                if not batched:
                    raise ValueError(_UNBATCHED)
                lengths = lengths_of_padded(lengths, T, B)
        flags = None if resets is None else self._resets(resets, T, B, batched)
        if fast:
            self._calls.kernels += 1
            run = recurrence
        else:
            self._calls.add(reason(x, states, weights))
            run = composite
        directions = [
            direction_of(self.mode, reverse, T, lengths, order, flags)
            for reverse in self._directions
        ]
        y, final = self._stack(partial(run, directions), x, states, weights)
        if packed is not None:
            return packed._replace(data=y), self._joined(final)
        return self._as_given(y, final, batched)

    def _in_graph(self, input: Any, hx: Any, lengths: Any, resets: Any) -> Any:
        """Be an operator per layer in the graph of `torch.compile`, if the kernels can do it."""
        ordinary = lengths is None and resets is None
        if ordinary and torch.compiler.is_exporting():
            return super().forward(input, hx)  # what is exported shall not need rnnfast
        if isinstance(input, PackedSequence) or torch._C._are_functorch_transforms_active():
            return self._eager(input, hx, lengths, resets)
        if self._operator_can(input, hx):
            return self._by_operator(input, hx, lengths, resets)
        if ordinary:
            return super().forward(input, hx)
        return self._eager(input, hx, lengths, resets)

    def _operator_can(self, input: Tensor, hx: Any) -> bool:
        states = self._states(hx)
        return self._kernels_can(input, states, self.all_weights, _IN_GRAPHS) and self._fits(
            input, states, None
        )

    def _by_operator(self, input: Tensor, hx: Any, lengths: Any, resets: Any) -> Any:
        """Run an operator per layer, which reads `lengths` and `resets` whenever it is run."""
        states, weights, batched = self._states(hx), self.all_weights, input.dim() == 3
        x, states = self._time_major(input, batched), self._batched(states, batched)
        if lengths is not None:
            if not batched:
                raise ValueError(_UNBATCHED)
            lengths = torch.as_tensor(lengths)
        if resets is not None:
            resets = self._time_major(torch.as_tensor(resets), batched)
        run = partial(operator, self.mode, lengths, resets)
        return self._as_given(*self._stack(run, x, states, weights), batched)

    def _recorded_call(self, input: Any, hx: Any, lengths: Any, resets: Any) -> Any:
        """Be operators while a program is recorded that shall serve other lengths and resets."""
        name = "resets" if lengths is None else "lengths"
        if torch.jit.is_tracing():
            raise RuntimeError(
                f"{name} is given while torch.jit.trace (or torch.onnx.export with dynamo=False) "
                f"records: the program would use these {name} for every input. {_REMEDY[name]}"
            )
        transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
        packed = isinstance(input, PackedSequence)
        if not (packed or self._fits(input, self._states(hx), None)):
            return super().forward(input, hx)  # says what does not fit
        if packed or transformed or not self._operator_can(input, hx):
            raise RuntimeError(
                f"{name} is given while operations are recorded: the program would use these "
                f"{name} for every input. It can follow them for padded float32 and float64 input "
                "on the CPU, without torch.func and autocast"
            )
        return self._by_operator(input, hx, lengths, resets)

    def _stack(
        self, run: Run, x: Tensor, states: Sequence[Tensor], weights: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Run each layer on the output of the one before; return the last output and all states."""
        D = len(self._directions)
        if self.num_layers == 1:
            h0, c0 = (*states, None, None)[:2]
            x, *final = run(x, h0, c0, weights)
            return x, final
        starts = [state.split(D) for state in states]
        finals = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout, self.training)
            h0, c0 = (*(start[layer] for start in starts), None, None)[:2]
            x, *final = run(x, h0, c0, weights[layer * D : (layer + 1) * D])
            finals.append(final)
        return x, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        state.pop("_calls", None)  # a copy counts afresh, and files are free of it
        return state

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_calls", Calls())  # pickle's old protocols pass by __new__

    def __prepare_scriptable__(self) -> Any:
        """Give `torch.jit.script` PyTorch's layer with the same parameters."""
        plain = copy(self)
        plain.__class__ = self._plain
        for name in own_attributes(type(self)):
            plain.__dict__.pop(name, None)
        return plain

    def _weights(self) -> list[Any]:
        """Return the weights of all cells.

        They may be no parameters now: `torch.func` and others put tensors or properties there.
        """
        parameters, others = self._parameters, self.__dict__
        found = []
        for name in self._flat_weights_names:
            weight = others.get(name)
            if weight is None:
                weight = parameters.get(name)
            if weight is None:
                return [getattr(self, name) for name in self._flat_weights_names]
            found.append(weight)
        return found

    # -------------------------------------------------------------------------------------- axes

    @property
    def _directions(self) -> tuple[bool, ...]:
        """Whether each direction is the reverse one."""
        return (False, True) if self.bidirectional else (False,)

    def _states(self, hx: Any) -> Sequence[Any]:
        if hx is None:
            return ()
        return hx if self.mode == "LSTM" and isinstance(hx, (tuple, list)) else (hx,)

    def _time_major(self, a: Any, batched: bool) -> Any:
        """View (B, T, ...) as (T, B, ...) if `batch_first`, and (T, ...) as (T, 1, ...)."""
        if not batched:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _batched(self, states: Sequence[Tensor], batched: bool) -> Sequence[Tensor]:
        return states if batched else [state[:, None] for state in states]

    def _as_given(self, y: Tensor, final: list[Tensor], batched: bool) -> tuple[Tensor, Any]:
        """Undo `_time_major`, and give the final states the form of `hx`."""
        if not batched:
            return y[:, 0], self._joined([state[:, 0] for state in final])
        return self._time_major(y, batched), self._joined(final)

    def _joined(self, final: list[Tensor]) -> Any:
        return tuple(final) if self.mode == "LSTM" else final[0]

    # ----------------------------------------------------------------------------------- checks

    def _kernels_can(
        self,
        x: Tensor,
        states: Sequence[Any],
        weights: Sequence[Sequence[Tensor]],
        plain: Any = PLAIN,
    ) -> bool:
        """Whether all are ordinary tensors on the CPU of one dtype, float32 or float64."""
        dtype = x.dtype
        if dtype not in DTYPES or torch.is_autocast_enabled("cpu"):
            return False
        for tensor in chain((x,), states, *weights):
            if type(tensor) not in plain or tensor.dtype != dtype:
                return False
            if not tensor.is_cpu or tensor.layout != torch.strided:
                return False
        return True

    def _fits(self, x: Tensor, states: Sequence[Tensor], packed: PackedSequence | None) -> bool:
        """Whether the input and the states have the axes and sizes they must have."""
        axes = x.dim()
        if axes not in ((2, 3) if packed is None else (2,)) or x.shape[-1] != self.input_size:
            return False
        if not states:
            return True
        if packed is not None:
            batch = [int(packed.batch_sizes[0])]
        else:
            batch = [x.shape[0 if self.batch_first else 1]] if axes == 3 else []
        cells = self.num_layers * len(self._directions)
        sizes = [self.proj_size or self.hidden_size, self.hidden_size][: 1 + (self.mode == "LSTM")]
        return [tuple(state.shape) for state in states] == [(cells, *batch, n) for n in sizes]

    def _resets(self, resets: Any, T: int, B: int, batched: bool) -> NDArray[np.uint8]:
        """Return them as (T, B)."""
        shape: tuple[int, ...] = (B, T) if self.batch_first else (T, B)
        dims = "(B, T)" if self.batch_first else "(T, B)"
        if not batched:
            dims, shape = "(T,)", (T,)
        flags = checks.mask("resets", as_array(resets), dims, shape).view(np.uint8)
        time_major: NDArray[np.uint8] = self._time_major(flags, batched)
        return time_major


def is_recorded() -> bool:
    """Whether operations are being traced, or seen by a mode of `torch.utils._python_dispatch`."""
    return bool(
        torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
    )


def _keeps_values(*values: Any) -> bool:
    """Whether what is computed now is recorded, or has no values: it must not depend on them."""
    mode, key = torch._C._get_dispatch_mode, torch._C._TorchDispatchModeKey
    modes = key.PROXY, key.FAKE, key.FUNCTIONAL
    return (
        bool(torch.jit.is_tracing())
        or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
        or any(mode(one) is not None for one in modes)
        or any(isinstance(value, (FakeTensor, FunctionalTensor)) for value in values)
    )


class RNN(Recurrent, torch.nn.RNN):  # type: ignore[misc]
    """`torch.nn.RNN`, with `lengths` and `resets` as further arguments of a call.

    Constructor, parameters, `state_dict` and results are those of `torch.nn.RNN`. rnnfast computes
    float32 and float64 on the CPU, PyTorch everything else.
    """

    _plain = torch.nn.RNN


class GRU(Recurrent, torch.nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU`, with `lengths` and `resets` as further arguments of a call; see `RNN`."""

    _plain = torch.nn.GRU


class LSTM(Recurrent, torch.nn.LSTM):  # type: ignore[misc]
    """`torch.nn.LSTM`, with `lengths` and `resets` as further arguments of a call; see `RNN`."""

    _plain = torch.nn.LSTM
