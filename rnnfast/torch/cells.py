"""Layers of a cell of one's own as a PyTorch module.

Letters: T time steps, B batch rows, I input size, L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import _cell_calls
from .._core import checks
from .._generic import Recurrent as Layer
from ..cells import Cell
from ..cells._graph import Graph

_DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


class _Call(NamedTuple):
    """One cell's part of a call, but for its tensors."""

    layer: Layer
    number: int  # of the cell
    reverse: bool
    lengths: Any
    resets: Any
    extra: tuple[str, ...]

    def run(self, x: Any, tensors: Sequence[Tensor | None], need_tape: bool) -> Any:
        """Call the kernels with x, the states, the parameters and the extra inputs."""
        layer = self.layer
        graph, arrays = layer._graphs[self.number // layer._directions], _arrays(tensors)
        count, names = len(layer.cell.states), [own for own, _ in layer._cells[self.number]]
        params = dict(zip(names, arrays[count:], strict=False))
        given = dict(zip(self.extra, arrays[count + len(names) :], strict=True))
        T, B = x.shape[:2]
        extra = _cell_calls.extra_inputs(layer.cell, graph, given, layer.dtype, T, B)
        return _cell_calls.run_forward(
            layer.cell, graph, _array(x), arrays[:count], params, extra, self.lengths,
            self.resets, self.reverse, need_tape, -torch.get_num_threads(),
        )  # fmt: skip


def _array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().numpy())


def _arrays(tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if tensor is None else _array(tensor) for tensor in tensors]


class _Recurrence(torch.autograd.Function):  # type: ignore[misc]
    """One cell over a sequence: y and the final states."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, *tensors: Tensor | None) -> Any:
        y, final, tape = call.run(x, tensors, True)
        ctx.call, ctx.tape = call, tape
        ctx.save_for_backward(x, *tensors)
        ctx.set_materialize_grads(False)
        return tuple(map(torch.from_numpy, (y, *final)))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor | None, *dstates: Tensor | None) -> Any:
        x, *tensors = ctx.saved_tensors
        tape, call = ctx.tape, ctx.call
        if tape.passed.used:  # a second backward, by retain_graph
            tape = call.run(x, tensors, True)[2]
        dy = None if dy is None else _array(dy)
        grads = _cell_calls.run_backward(tape, dy, 0, _arrays(dstates), -torch.get_num_threads())
        found: list[Any] = [*grads.state, *grads.params.values()]
        found += [grads.extra.get(name) for name in call.extra]
        wanted = ctx.needs_input_grad[2:]
        return (
            None,
            torch.from_numpy(grads.x),
            *(
                torch.from_numpy(g) if want and g is not None else None
                for g, want in zip(found, wanted, strict=True)
            ),
        )


class Recurrent(torch.nn.Module):  # type: ignore[misc]
    """Stacked layers of a cell of your own, differentiated by autograd, on the CPU.

    Parameters
    ----------
    cell : Cell
        Made by `rnnfast.cells.cell`, or one of the library in `rnnfast.cells`.
    input_size, hidden_size, num_layers, sizes, bias, batch_first, dropout, bidirectional
        As in `rnnfast.Recurrent`, whose parameters have the same names.
    dtype : torch.dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.
    TraceError
        The cell cannot have these sizes (`rnnfast.cells.TraceError`).

    Examples
    --------
    >>> layer = rnnfast.torch.Recurrent(rnnfast.cells.mgu, 8, 32)
    >>> output, state = layer(torch.randn(100, 16, 8))
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        sizes: Mapping[str, int | str] | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise TypeError(f"dtype is {dtype}, expected torch.float32 or torch.float64")
        seed = int(torch.randint(2**31, ()))
        self._layer = Layer(
            cell,
            input_size,
            hidden_size,
            num_layers,
            sizes=sizes,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=_DTYPES[dtype],
            rng=seed,
        )
        for name, value in self._layer.params.items():
            self._register(name, torch.nn.Parameter(torch.from_numpy(value.copy())))
        self._layer.params = {}  # the module has them

    def _register(self, name: str, parameter: Tensor) -> None:
        """Register ``linear.weight_x_l0`` as the parameter of a module named after the linear."""
        *path, last = name.split(".")
        module = self
        for part in path:
            if part not in module._modules:
                if hasattr(module, part):
                    raise ValueError(
                        f"the cell has a linear {part!r}, which is an attribute of every module: "
                        "rename it"
                    )
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, parameter)

    def extra_repr(self) -> str:
        """Return what `repr` shows between the parentheses."""
        return repr(self._layer).partition("(")[2][:-1]

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        extra: Mapping[str, Any] | None = None,
        lengths: Any = None,
        resets: Any = None,
    ) -> Any:
        """Run the layer.

        Parameters
        ----------
        input : Tensor or PackedSequence
            (T, B, I), or (B, T, I) if `batch_first`, or (T, I) unbatched.
        hx : Tensor, or tuple of Tensor if there are several states, optional
            The states before the first step, (L*D, B, size), or (L*D, size) if unbatched.
        extra : dict of str to Tensor, optional
            The cell's extra inputs, as in `rnnfast.Recurrent`; time-major for a PackedSequence.
            Masks are drawn from PyTorch's generator in training.
        lengths : Tensor, ndarray or sequence of int, (B,), optional
            Row ``b`` has ``lengths[b]`` steps. For padded input only.
        resets : Tensor or ndarray of bool, optional
            With the axes of `input` but the last; for a PackedSequence (T, B).

        Returns
        -------
        output : Tensor or PackedSequence
            (T, B, D*size), with the axes of `input`.
        state : Tensor, or tuple of Tensor
            The states after the last step, with the axes of `hx`.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths is given, but input is a PackedSequence: it has its own")
            x, lengths = pad_packed_sequence(input)
            y, state = self._run(x, hx, extra, lengths, resets, batched=True)
            is_sorted = input.sorted_indices is None
            return pack_padded_sequence(y, lengths, enforce_sorted=is_sorted), state
        batched = input.dim() == 3
        swap = batched and self._layer.batch_first
        x = input.swapaxes(0, 1) if swap else input if batched else input[:, None]
        if resets is not None:
            resets = torch.as_tensor(resets)
            resets = resets.swapaxes(0, 1) if swap else resets if batched else resets[:, None]
        if swap and extra is not None:
            extra = {n: e.swapaxes(0, 1) if e.dim() == 3 else e for n, e in extra.items()}
        if not batched and lengths is not None:
            raise ValueError("lengths is given, but input has no batch axis")
        y, state = self._run(x, hx, extra, lengths, resets, batched=batched)
        return y.swapaxes(0, 1) if swap else y if batched else y[:, 0], state

    def _run(
        self, x: Tensor, hx: Any, extra: Any, lengths: Any, resets: Any, *, batched: bool
    ) -> tuple[Tensor, Any]:
        """Run all layers on (T, B, I)."""
        layer = self._layer
        dtype = next(iter(self.parameters()), x).dtype
        if x.dim() != 3 or x.shape[2] != layer.input_size or x.dtype != dtype or not x.is_cpu:
            raise ValueError(
                f"input has shape {tuple(x.shape)}, dtype {x.dtype} and device {x.device}, "
                f"expected (T, B, {layer.input_size}), {dtype} and cpu"
            )
        T, B = x.shape[:2]
        states = self._states(hx, B, batched)
        if lengths is not None:
            lengths = checks.lengths(np.asarray(lengths), T, B)
        if resets is not None:
            resets = checks.mask("resets", np.asarray(resets), "(T, B)", (T, B))
        given = {name: torch.as_tensor(value) for name, value in (extra or {}).items()}
        checks.names("extra", given, _cell_calls.expected_inputs(layer.cell, given))
        weights = dict(self.named_parameters())
        finals: list[list[Tensor]] = []
        for cells in layer._stack:
            if finals and layer.dropout:
                x = dropout(x, layer.dropout, self.training)
            outputs = []
            for direction, k in cells:
                call = _Call(layer, k, direction == 1, lengths, resets, layer.cell.extra)
                own = [weights[name] for _, name in layer._cells[k]]
                starts = [None if state is None else state[k] for state in states]
                inputs = self._inputs(given, layer._graphs[k // layer._directions], x)
                y, *final = _Recurrence.apply(call, x, *starts, *own, *inputs)
                outputs.append(y)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        joined = tuple(torch.stack(part) for part in zip(*finals, strict=True))
        if not batched:
            joined = tuple(part[:, 0] for part in joined)
        return x, joined[0] if len(joined) == 1 else joined

    def _inputs(self, given: Mapping[str, Tensor], graph: Graph, x: Tensor) -> list[Tensor]:
        """The extra inputs in order; masks that are not given are drawn, or else their means."""
        T, B, _ = x.shape
        inputs = []
        for name, leaf in graph.extra.items():
            if name in given:
                inputs.append(given[name])
                continue
            mask = self._layer.cell.masks[name]
            if self.training:
                uniform = torch.rand(mask.shape(T, B, leaf.size), dtype=x.dtype)
                inputs.append(mask.of(uniform))
            else:
                inputs.append(torch.full((leaf.size,), mask.expected, dtype=x.dtype))
        return inputs

    def _states(self, hx: Any, B: int, batched: bool) -> list[Tensor | None]:
        """Check the states and return (L*D, B, size) of each."""
        layer = self._layer
        count = len(layer._sizes)
        if hx is None:
            return [None] * count
        parts = (hx,) if count == 1 else hx
        if not isinstance(parts, tuple | list) or len(parts) != count:
            names = ", ".join(layer.cell.states)
            raise TypeError(f"hx has type {type(hx).__name__}, expected a tuple ({names})")
        cells, found = len(layer._cells), []
        for part, size in zip(parts, layer._sizes, strict=True):
            shape = (cells, B, size) if batched else (cells, size)
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"hx has shape {tuple(part.shape)}, expected {shape}")
            found.append(part if batched or part is None else part[:, None])
        return found
