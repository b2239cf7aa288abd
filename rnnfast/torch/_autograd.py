"""The kernels as a function that autograd differentiates, any number of times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.passes import tape_at
from ._formulas import composite
from ._layer import CellWeights, Direction, Maybe, backward, forward, split


def recurrence(
    directions: Sequence[Direction], x: Tensor, h0: Maybe, c0: Maybe, weights: CellWeights
) -> Sequence[Tensor]:
    """Return y, h_n and an LSTM's c_n."""
    flat = [weight for own in weights for weight in own]
    if torch.is_grad_enabled():
        for tensor in (x, h0, c0, *flat):
            if tensor is not None and tensor.requires_grad:
                results: Sequence[Tensor] = Recurrence.apply(directions, None, x, h0, c0, *flat)
                return results
    return forward(directions, x, h0, c0, flat, need_tape=False)[0]


class Recurrence(torch.autograd.Function):  # type: ignore[misc]
    """`recurrence` with tapes.

    The graph saves the memory of each tape as a tensor. So what treats saved tensors in its own way
    does the same to tapes: activation checkpointing drops them, and brings those of a second
    forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        directions: Sequence[Direction],
        given: Sequence[Any] | None,
        x: Tensor,
        h0: Maybe,
        c0: Maybe,
        *weights: Tensor,
    ) -> Any:
        results, tapes = forward(directions, x, h0, c0, weights, True, given)
        memory = [torch.from_numpy(tape.memory) for tape in tapes]
        ctx.directions = directions
        ctx.save_for_backward(x, h0, c0, *weights, *memory)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: Maybe) -> Any:
        directions, needs = ctx.directions, ctx.needs_input_grad[2:]
        saved = ctx.saved_tensors
        inputs, memory = saved[: len(needs)], saved[len(needs) :]
        if torch.is_grad_enabled() or transformed(upstream):

            def formulas(x: Tensor, h0: Maybe, c0: Maybe, *weights: Tensor) -> Sequence[Tensor]:
                return composite(directions, x, h0, c0, split(weights, len(directions)))

            return None, None, *differentiable(formulas, inputs, needs, upstream)
        tapes = [tape_at(tensor.data_ptr()) for tensor in memory]
        for tape in tapes:
            if tape is None or tape.used:  # a graph may run more than once
                x, h0, c0, *weights = inputs
                tapes = forward(directions, x, h0, c0, weights, True)[1]
                break
        return None, None, *backward(directions, tapes, inputs, needs, upstream)


def transformed(upstream: Sequence[Maybe]) -> bool:
    """Whether gradients come from `torch.func`, or many at once (`is_grads_batched`)."""
    if torch._C._are_functorch_transforms_active():
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor
    return any(dy is not None and batched(dy) for dy in upstream)


def differentiable(
    formulas: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Maybe],
    needs: Sequence[bool],
    upstream: Sequence[Maybe],
) -> list[Maybe]:
    """Return the gradients that are needed, computed so that they have gradients themselves."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, lest the gradient of one input go on to another, from which that was computed.
        views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        pairs = zip(formulas(*views), upstream, strict=True)
        used = [(y, dy) for y, dy in pairs if dy is not None]
        found = torch.autograd.grad(
            [y for y, _ in used],
            [view for view, need in zip(views, needs, strict=True) if need],
            [dy for _, dy in used],
            create_graph=create_graph,
            allow_unused=True,
        )
    grads = iter(found)
    return [next(grads) if need else None for need in needs]
