"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .._core import checks
from ._array import Arrays, Named, check_positive
from .checkpoint import load_checkpoint, save_checkpoint, stored_info
from .clip import clip_value as clip_to_value
from .clip import global_norm, scale_to_norm
from .history import History
from .interrupt import InterruptGuard
from .optim import Optimizer
from .progress import Progress

Batch = TypeVar("Batch")
LossAndGrads: TypeAlias = Callable[[Batch], tuple[float, Named]]
Batches: TypeAlias = Callable[[np.random.Generator], Iterable[Batch]] | Iterable[Batch]


def fit(
    loss_and_grads: LossAndGrads[Batch],
    optimizer: Optimizer,
    batches: Batches[Batch],
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
        `loss_and_grads(batch) -> (loss, grads)`: forward and backward of the model; `grads` as
        `optimizer.step` takes them. It may keep something from one batch to the next, such as the
        state in truncated BPTT.
    optimizer : Optimizer
        Holds the live parameters and moves them.
    batches : callable or iterable
        `batches(rng) -> iterable of batches`, called at the start of every epoch; or a list of
        batches, or whatever else can be gone through again in every epoch, in its own order. A
        generator is good for one epoch. What a batch is is between this and `loss_and_grads`.
    epochs : int
        Epochs in all, at least 1, those of a resumed checkpoint included.
    rng : int or numpy.random.Generator, optional
        Given to `batches`. For a training that can be resumed bit for bit let this be the one
        Generator that everything draws from, dropout included.
    evaluate : callable, optional
        `evaluate() -> float`, a held-out figure after every epoch; lower is better.
    goal : float, optional
        Stop as soon as the held-out figure is at or below it.
    patience : int, optional
        Stop after so many epochs without a better held-out figure, and end with the parameters of
        the best epoch. NaN is never better; if all figures are NaN, no epoch is the best.
    clip_norm, clip_value : float, optional
        Clip the gradients, see `training.clip_norm` and `training.clip_value` (norm first). The
        norm is that of the gradients which the optimiser sums up, see `Optimizer.summed`.
    schedule : callable, optional
        `schedule(epoch) -> lr`, applied at the start of every epoch (from 0).
    checkpoint : path, optional
        Written after every epoch. If the file exists, training continues from it, and ends with
        the same bits as if it had never stopped. If it holds all `epochs`, or has reached the goal
        or the end of the patience, model and history are those of the file.
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
    TypeError
        `epochs` or `patience` is no integer, `goal` or a limit no number, or `batches` neither a
        function nor an iterable.
    ValueError
        A combination of arguments makes no sense, or an epoch has no batches. Or the checkpoint is
        damaged, belongs to another model or holds more than `epochs`.

    Notes
    -----
    Ctrl-C ends the training as soon as the running kernel returns, with `history.interrupted`
    set and the parameters of the last completed step: an update is never cut in half.
    """
    epochs = checks.integer("epochs", epochs, 1)
    if evaluate is None and (goal is not None or patience is not None):
        raise ValueError("goal and patience need evaluate, a held-out figure to go by")
    if patience is not None:
        patience = checks.integer("patience", patience, 1)
    if goal is not None:
        checks.real("goal", goal)
    for name, limit in ("clip_norm", clip_norm), ("clip_value", clip_value):
        if limit is not None:
            check_positive(**{name: limit})
    batches_of = _each_epoch(batches)
    rng = np.random.default_rng(rng)
    best = {name: p.copy() for name, p in optimizer.params.items()} if patience else {}
    history = History()
    if checkpoint is not None and os.path.exists(checkpoint):
        history = _stored_history(checkpoint, epochs)
        load_checkpoint(checkpoint, optimizer.params, optimizer, rng, extra=best)
    start = history.epochs
    progress = progress and start < epochs and not _enough(history, goal, patience)

    with Progress(None, label, progress) as bar, InterruptGuard() as guard:
        try:
            for epoch in range(start, epochs):
                if _enough(history, goal, patience):
                    break
                started = time.perf_counter()
                if schedule is not None:
                    optimizer.lr = schedule(epoch)
                latest = {"held_out": history.held_out[-1]} if history.held_out else {}
                losses, norms = [], []
                given = batches_of(rng)
                for loss, grads, norm in _gradients(
                    loss_and_grads, given, optimizer, clip_norm, clip_value
                ):
                    with guard.hold():
                        optimizer.step(grads)
                    losses.append(loss)
                    norms.append(norm)
                    bar.update(epoch=epoch + 1, loss=loss, **latest)
                if not losses:
                    raise ValueError(_no_batch(given, epoch, again=epoch > start))
                bar.total = bar.done + len(losses) * (epochs - epoch - 1)
                figure = None if evaluate is None else float(evaluate())
                with guard.hold():
                    seconds = time.perf_counter() - started
                    history.add(_mean(losses), _mean(norms), figure, seconds)
                if patience and history.best_epoch == epoch:
                    _copy(optimizer.params, best)
                if checkpoint is not None:
                    info = history.as_dict()
                    save_checkpoint(
                        checkpoint, optimizer.params, optimizer, rng, extra=best, info=info
                    )
        except KeyboardInterrupt:
            history.interrupted = True
            return history
    if patience and history.best_epoch is not None:
        _copy(best, optimizer.params)
    return history


def _each_epoch(batches: Batches[Batch]) -> Callable[[np.random.Generator], Iterable[Batch]]:
    """Return `batches` as a function of the random generator."""
    if callable(batches):
        return batches
    if not isinstance(batches, Iterable):
        raise TypeError(
            f"batches has type {type(batches).__name__}, expected a list of batches, or a function "
            "of a random generator that returns one"
        )
    return lambda rng: batches


def _no_batch(batches: Any, epoch: int, again: bool) -> str:
    """What to say of an epoch without batches; `again`: an earlier one had some."""
    message = f"batches gave no batch in epoch {epoch + 1}"
    if again and isinstance(batches, Iterator):
        kind = type(batches).__name__
        message += f": a {kind} serves one epoch; give a list, or a function that makes a {kind}"
    return message


def _stored_history(checkpoint: str | os.PathLike[str], epochs: int) -> History:
    """Return the history in a checkpoint, before anything else is read."""
    history = History.from_dict(stored_info(checkpoint))
    if history.epochs > epochs:
        raise ValueError(
            f"checkpoint {os.fspath(checkpoint)!r} holds {history.epochs} epochs, expected at most "
            f"epochs = {epochs}; load_checkpoint loads it"
        )
    return history


def _gradients(
    loss_and_grads: LossAndGrads[Batch],
    batches: Iterable[Batch],
    optimizer: Optimizer,
    clip_norm: float | None,
    clip_value: float | None,
) -> Iterator[tuple[float, Named, float]]:
    """Of every batch the loss, the clipped gradients and their norm before clipping."""
    for number, batch in enumerate(batches):
        loss, grads = loss_and_grads(batch)
        norm = global_norm(optimizer.summed(grads))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(f"loss {loss}, gradient norm {norm} at batch {number}")
        if clip_norm is not None:
            scale_to_norm(grads, clip_norm, norm)
        if clip_value is not None:
            clip_to_value(grads, clip_value)
        yield loss, grads, norm


def _enough(history: History, goal: float | None, patience: int | None) -> bool:
    """Whether the held-out figure has reached the goal, or has not improved for too long."""
    best = history.best_epoch
    reached = goal is not None and best is not None and history.held_out[best] <= goal
    without = history.epochs if best is None else history.epochs - 1 - best
    return reached or (patience is not None and without >= patience)


def _mean(figures: list[float]) -> float:
    return float(np.mean(figures, dtype=np.float64))


def _copy(source: Arrays, target: Arrays) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)
