"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

import numpy as np

from ._array import Array
from .checkpoint import load_checkpoint, save_checkpoint
from .clip import clip_norm as clip_to_norm
from .clip import clip_value as clip_to_value
from .clip import global_norm
from .history import History
from .interrupt import InterruptGuard
from .optim import Optimizer
from .progress import Progress

Batch = TypeVar("Batch")
LossAndGrads: TypeAlias = Callable[[Batch], tuple[float, dict[str, Array]]]


def fit(
    loss_and_grads: LossAndGrads[Batch],
    optimizer: Optimizer,
    batches: Callable[[np.random.Generator], Iterable[Batch]],
    *,
    epochs: int,
    rng: int | np.random.Generator | None = None,
    evaluate: Callable[[], float] | None = None,
    goal: float | None = None,
    patience: int | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    schedule: Callable[[int], float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    label: str = "fit",
) -> History:
    """Train: for every batch of every epoch, compute gradients, clip them, step.

    Parameters
    ----------
    loss_and_grads : callable
        `loss_and_grads(batch) -> (loss, grads)`: forward and backward of the model. It may keep
        something from one batch to the next, such as the state in truncated BPTT.
    optimizer : Optimizer
        Holds the live parameters and moves them.
    batches : callable
        `batches(rng) -> iterable of batches`, called at the start of every epoch. What a batch is
        is between this and `loss_and_grads`.
    epochs : int
        Epochs in all, those of a resumed checkpoint included.
    rng : int or numpy.random.Generator, optional
        Given to `batches`. For a training that can be resumed bit for bit let this be the one
        Generator that everything draws from, dropout included.
    evaluate : callable, optional
        `evaluate() -> float`, a held-out figure after every epoch; lower is better.
    goal : float, optional
        Stop as soon as the held-out figure is at or below it.
    patience : int, optional
        Stop after so many epochs without a better held-out figure, and end with the parameters of
        the best epoch.
    clip_norm, clip_value : float, optional
        Clip the gradients, see `training.clip_norm` and `training.clip_value` (norm first).
    schedule : callable, optional
        `schedule(epoch) -> lr`, applied at the start of every epoch (from 0).
    checkpoint : path, optional
        Written after every epoch. If the file exists, training continues from it, and ends with
        the same bits as if it had never stopped.
    progress : bool
        Show a bar or lines on standard error.
    label : str
        What to call the work there.

    Returns
    -------
    history : History

    Raises
    ------
    FloatingPointError
        The loss or the gradients' norm is not finite; the parameters are those before that batch.
    ValueError
        A combination of arguments makes no sense, there are no batches, or the checkpoint is
        damaged or belongs to another model.

    Notes
    -----
    Ctrl-C ends the training as soon as the running kernel returns, with `history.interrupted`
    set and the parameters of the last completed step: an update is never cut in half.
    """
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}, expected >= 0")
    if evaluate is None and (goal is not None or patience is not None):
        raise ValueError("goal and patience need evaluate, a held-out figure to go by")
    if patience is not None and patience < 1:
        raise ValueError(f"patience is {patience}, expected >= 1")
    rng = np.random.default_rng(rng)
    params = optimizer.params
    best = {name: p.copy() for name, p in params.items()} if patience else {}
    history = History()
    if checkpoint is not None and os.path.exists(checkpoint):
        stored = load_checkpoint(checkpoint, params, optimizer, rng, extra=best)
        history = History.from_dict(stored)

    with Progress(None, label, progress) as bar, InterruptGuard() as guard:
        try:
            for epoch in range(history.epochs, epochs):
                if _enough(history, goal, patience):
                    break
                started = time.perf_counter()
                if schedule is not None:
                    optimizer.lr = schedule(epoch)
                latest = {"held_out": history.held_out[-1]} if history.held_out else {}
                losses, norms = [], []
                for loss, grads, norm in _gradients(
                    loss_and_grads, batches(rng), clip_norm, clip_value
                ):
                    with guard.hold():
                        optimizer.step(grads)
                    losses.append(loss)
                    norms.append(norm)
                    bar.update(epoch=epoch + 1, loss=loss, **latest)
                bar.total = bar.done + len(losses) * (epochs - epoch - 1)
                figure = None if evaluate is None else float(evaluate())
                with guard.hold():
                    seconds = time.perf_counter() - started
                    history.add(float(np.mean(losses)), float(np.mean(norms)), figure, seconds)
                if patience and history.best_epoch == epoch:
                    _copy(params, best)
                if checkpoint is not None:
                    info = history.as_dict()
                    save_checkpoint(checkpoint, params, optimizer, rng, extra=best, info=info)
        except KeyboardInterrupt:
            history.interrupted = True
            return history
    if patience:
        _copy(best, params)
    return history


def _gradients(
    loss_and_grads: LossAndGrads[Batch],
    batches: Iterable[Batch],
    clip_norm: float | None,
    clip_value: float | None,
) -> Iterator[tuple[float, dict[str, Array], float]]:
    """Of every batch the loss, the clipped gradients and their norm before clipping."""
    number = -1
    for number, batch in enumerate(batches):
        loss, grads = loss_and_grads(batch)
        norm = global_norm(grads) if clip_norm is None else clip_to_norm(grads, clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(f"loss {loss}, gradient norm {norm} at batch {number}")
        if clip_value is not None:
            clip_to_value(grads, clip_value)
        yield loss, grads, norm
    if number < 0:
        raise ValueError("batches gave no batch")


def _enough(history: History, goal: float | None, patience: int | None) -> bool:
    """Whether the held-out figure has reached the goal, or has not improved for too long."""
    best = history.best_epoch
    if best is None:
        return False
    reached = goal is not None and history.held_out[best] <= goal
    return reached or (patience is not None and history.epochs - 1 - best >= patience)


def _copy(source: dict[str, Array], target: dict[str, Array]) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)
