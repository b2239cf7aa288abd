"""The kernels as a function that autograd differentiates, any number of times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ._formulas import composite
from ._layer import Direction, Maybe, Weights, backward, forward, split


def recurrence(
    directions: Sequence[Direction], x: Tensor, h0: Maybe, c0: Maybe, weights: Weights
) -> Sequence[Tensor]:
    """Return y, h_n and an LSTM's c_n."""
    if torch.is_grad_enabled():
        for tensor in chain((x, h0, c0), *weights):
            if tensor is not None and tensor.requires_grad:
                results: Sequence[Tensor] = Recurrence.apply(
                    directions, x, h0, c0, *chain(*weights)
                )
                return results
    return forward(directions, x, h0, c0, weights, need_tape=False)[0]


# By the address of its memory, each tape that a graph keeps. The graph saves that memory as a tensor,
# so whatever treats saved tensors in its own way treats tapes so too: activation checkpointing drops
# them and brings those of a second forward.
_tapes: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Recurrence(torch.autograd.Function):  # type: ignore[misc]
    """`recurrence` with tapes."""

    @staticmethod
    def forward(
        ctx: Any, directions: Sequence[Direction], x: Tensor, h0: Maybe, c0: Maybe, *weights: Tensor
    ) -> Any:
        results, tapes = forward(directions, x, h0, c0, split(weights, len(directions)), True)
        memory = [torch.from_numpy(tape.memory) for tape in tapes]
        _tapes.update(zip(map(Tensor.data_ptr, memory), tapes, strict=True))
        ctx.directions = directions
        ctx.save_for_backward(x, h0, c0, *weights, *memory)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: Maybe) -> Any:
        directions, needs = ctx.directions, ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        inputs, memory = saved[: len(needs)], saved[len(needs) :]
        if torch.is_grad_enabled() or _transformed(upstream):
            return None, *_differentiable(directions, inputs, needs, upstream)
        tapes = [_tapes.get(bytes.data_ptr()) for bytes in memory]
        if any(tape is None or tape.used for tape in tapes):  # a graph may run more than once
            x, h0, c0, *weights = inputs
            tapes = forward(directions, x, h0, c0, split(weights, len(directions)), True)[1]
        return None, *backward(directions, tapes, inputs, needs, upstream)


def _transformed(upstream: Sequence[Maybe]) -> bool:
    """Whether gradients come from `torch.func`, or many at once (`is_grads_batched`)."""
    batched = torch._C._functorch.is_legacy_batchedtensor
    return torch._C._are_functorch_transforms_active() or any(
        dy is not None and batched(dy) for dy in upstream
    )


def _differentiable(
    directions: Sequence[Direction],
    inputs: Sequence[Maybe],
    needs: Sequence[bool],
    upstream: Sequence[Maybe],
) -> list[Maybe]:
    """Return the gradients that are needed, computed so that they have gradients themselves."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, lest the gradient of one input go on to another, from which that was computed.
        views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        x, h0, c0, *weights = views
        results = composite(directions, x, h0, c0, split(weights, len(directions)))
        used = [(y, dy) for y, dy in zip(results, upstream, strict=True) if dy is not None]
        found = torch.autograd.grad(
            [y for y, _ in used],
            [view for view, need in zip(views, needs, strict=True) if need],
            [dy for _, dy in used],
            create_graph=create_graph,
            allow_unused=True,
        )
    grads = iter(found)
    return [next(grads) if need else None for need in needs]
