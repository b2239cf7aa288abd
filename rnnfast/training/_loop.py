"""The training loop: epochs over batches, in whatever form they come."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypedDict, TypeVar

import numpy as np

from .._core import checks
from ._array import Arrays, Named, check_positive
from .checkpoint import check_random_states, load_checkpoint, save_checkpoint, stored_info
from .clip import clip_value as clip_to_value
from .clip import global_norm, scale_to_norm
from .history import History
from .interrupt import InterruptGuard
from .optim import Optimizer
from .progress import Progress

Batch = TypeVar("Batch")
LossAndGrads: TypeAlias = Callable[[Batch], tuple[float, Named]]
Batches: TypeAlias = Callable[[np.random.Generator], Iterable[Batch]] | Iterable[Batch]
Callback: TypeAlias = Callable[[History], Any]
Generators: TypeAlias = Mapping[str, np.random.Generator]


class Options(TypedDict, total=False):
    """What `fit` takes in both of its forms."""

    rng: int | np.random.Generator | None
    evaluate: Callable[[], float] | None
    maximize: bool
    goal: float | None
    patience: int | None
    clip_norm: float | None
    clip_value: float | None
    schedule: Callable[[int], float] | None
    callbacks: Sequence[Callback]
    checkpoint: str | os.PathLike[str] | None
    progress: bool
    label: str


def fit_batches(
    loss_and_grads: LossAndGrads[Batch],
    optimizer: Optimizer,
    batches: Batches[Batch],
    *,
    epochs: int,
    rng: int | np.random.Generator | None = None,
    evaluate: Callable[[], float] | None = None,
    maximize: bool = False,
    goal: float | None = None,
    patience: int | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    schedule: Callable[[int], float] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    label: str = "fit",
    generators: Generators | None = None,
) -> History:
    """`fit` in its first form. Of `generators`, those of layers, a checkpoint keeps the states."""
    epochs = checks.integer("epochs", epochs, 1)
    patience = _check_options(evaluate, maximize, goal, patience, clip_norm, clip_value, callbacks)
    batches_of = _each_epoch(batches)
    rng, generators = np.random.default_rng(rng), generators or {}
    best = {name: p.copy() for name, p in optimizer.params.items()} if patience else {}
    history = History(maximize=bool(maximize))
    if checkpoint is not None and os.path.exists(checkpoint):
        history, states = _stored(checkpoint, epochs, history.maximize, generators)
        load_checkpoint(checkpoint, optimizer.params, optimizer, rng, extra=best)
        for name, state in states.items():
            generators[name].bit_generator.state = state
    start = history.epochs
    progress = progress and start < epochs and not _enough(history, goal, patience)

    with Progress(None, label, progress) as bar, InterruptGuard() as guard:
        try:
            for epoch in range(start, epochs):
                if _enough(history, goal, patience):
                    break
                started = time.perf_counter()
                _set_rate(optimizer, schedule, epoch, history)
                step = _Step(loss_and_grads, optimizer, clip_norm, clip_value, guard, bar)
                losses, norms = step.through(batches_of(rng), history, epochs - epoch - 1)
                figure = None if evaluate is None else float(evaluate())
                with guard.hold():
                    seconds = time.perf_counter() - started
                    history.add(_mean(losses), _mean(norms), figure, seconds)
                if patience and history.best_epoch == epoch:
                    _copy(optimizer.params, best)
                if checkpoint is not None:
                    info = history.as_dict() | _random_states(generators)
                    save_checkpoint(
                        checkpoint, optimizer.params, optimizer, rng, extra=best, info=info
                    )
                if _told_to_stop(callbacks, history):
                    break
        except KeyboardInterrupt:
            history.interrupted = True
            return history
    if patience and history.best_epoch is not None:
        _copy(best, optimizer.params)
    return history


def _check_options(
    evaluate: Any,
    maximize: Any,
    goal: Any,
    patience: Any,
    clip_norm: Any,
    clip_value: Any,
    callbacks: Any,
) -> int | None:
    """Check what `fit` takes in both of its forms; return the patience."""
    if evaluate is None and (goal is not None or patience is not None):
        raise ValueError(
            "goal and patience need evaluate, a held-out figure to go by; with a model validation "
            "will do"
        )
    if evaluate is None and maximize:
        raise ValueError("maximize needs evaluate, a held-out figure to go by")
    waiting = None if patience is None else checks.integer("patience", patience, 1)
    if goal is not None:
        checks.real("goal", goal)
    for name, limit in ("clip_norm", clip_norm), ("clip_value", clip_value):
        if limit is not None:
            check_positive(**{name: limit})
    if not isinstance(callbacks, list | tuple):
        raise TypeError(
            f"callbacks has type {type(callbacks).__name__}, expected a list of functions"
        )
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            kind = type(callback).__name__
            raise TypeError(f"callbacks[{i}] has type {kind}, expected a function of the history")
    return waiting


def _set_rate(
    optimizer: Optimizer, schedule: Callable[[int], float] | None, epoch: int, history: History
) -> None:
    """Set the learning rate of an epoch, of a schedule that may look at the history first."""
    if schedule is not None:
        if observe := getattr(schedule, "observe", None):
            observe(history)
        optimizer.lr = schedule(epoch)


def _told_to_stop(callbacks: Sequence[Callback], history: History) -> bool:
    """Call all of them; whether one of them has returned True."""
    answers = [callback(history) for callback in callbacks]
    return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)


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


def _stored(
    checkpoint: str | os.PathLike[str], epochs: int, maximize: bool, generators: Generators
) -> tuple[History, dict[str, Any]]:
    """The history and the random states of a checkpoint, before anything else is read."""
    info = stored_info(checkpoint)
    history, path = History.from_dict(info), os.fspath(checkpoint)
    if history.epochs > epochs:
        raise ValueError(
            f"checkpoint {path!r} holds {history.epochs} epochs, expected at most "
            f"epochs = {epochs}; load_checkpoint loads it"
        )
    if history.maximize != maximize:
        raise ValueError(
            f"checkpoint {path!r} is of a training with maximize={history.maximize}, "
            f"expected {maximize}"
        )
    states = info.get("generators", {})
    check_random_states(path, states, generators)
    return history, states


def _random_states(generators: Generators) -> dict[str, Any]:
    """What the info of a checkpoint holds of them; nothing where there are none."""
    states = {name: rng.bit_generator.state for name, rng in generators.items()}
    return {"generators": states} if states else {}


@dataclass
class _Step(Generic[Batch]):
    """What is done with every batch."""

    loss_and_grads: LossAndGrads[Batch]
    optimizer: Optimizer
    clip_norm: float | None
    clip_value: float | None
    guard: InterruptGuard
    bar: Progress

    def through(
        self, batches: Iterable[Batch], history: History, to_come: int
    ) -> tuple[list[float], list[float]]:
        """Take the steps of an epoch, before so many more; return losses and norms."""
        epoch = history.epochs
        latest = {"held_out": history.held_out[-1]} if history.held_out else {}
        losses, norms = [], []
        for loss, grads, norm in self._gradients(batches):
            with self.guard.hold():
                self.optimizer.step(grads)
            losses.append(loss)
            norms.append(norm)
            self.bar.update(epoch=epoch + 1, loss=loss, **latest)
        if not losses:
            raise ValueError(_no_batch(batches, epoch, again=self.bar.done > 0))
        self.bar.total = self.bar.done + len(losses) * to_come
        return losses, norms

    def _gradients(self, batches: Iterable[Batch]) -> Iterator[tuple[float, Named, float]]:
        """Of every batch the loss, the clipped gradients and their norm before clipping."""
        for number, batch in enumerate(batches):
            loss, grads = self.loss_and_grads(batch)
            norm = global_norm(self.optimizer.summed(grads))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"loss {loss}, gradient norm {norm} at batch {number}: look for NaN in the "
                    "data, or take a lower learning rate"
                )
            if self.clip_norm is not None:
                scale_to_norm(grads, self.clip_norm, norm)
            if self.clip_value is not None:
                clip_to_value(grads, self.clip_value)
            yield loss, grads, norm


def _no_batch(batches: Any, epoch: int, again: bool) -> str:
    """What to say of an epoch without batches; `again`: an earlier one had some."""
    message = f"batches gave no batch in epoch {epoch + 1}"
    if again and isinstance(batches, Iterator):
        kind = type(batches).__name__
        message += f": a {kind} serves one epoch; give a list, or a function that makes a {kind}"
    return message


def _enough(history: History, goal: float | None, patience: int | None) -> bool:
    """Whether the held-out figure has reached the goal, or has not improved for too long."""
    best = history.best_epoch
    reached = goal is not None and history.reaches(goal)
    without = history.epochs if best is None else history.epochs - 1 - best
    return reached or (patience is not None and without >= patience)


def _mean(figures: list[float]) -> float:
    return float(np.mean(figures, dtype=np.float64))


def _copy(source: Arrays, target: Arrays) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)
