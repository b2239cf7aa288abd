"""`fit`: training on batches of any kind, or of a model on arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Unpack, overload

from .._sequential import Sequential
from ._loop import Batch, Batches, LossAndGrads, Options, fit_batches
from ._model_fit import Loss, Validation, fit_model
from .history import History
from .optim import Optimizer


@overload
def fit(
    loss_and_grads: LossAndGrads[Batch],
    optimizer: Optimizer,
    batches: Batches[Batch],
    *,
    epochs: int,
    **options: Unpack[Options],
) -> History: ...


@overload
def fit(
    model: Sequential,
    loss: Loss,
    X: Any,
    y: Any,
    *,
    epochs: int,
    lengths: Any = None,
    weight: Any = None,
    batch_size: int = 32,
    optimizer: Optimizer | None = None,
    validation: Validation | None = None,
    **options: Unpack[Options],
) -> History: ...


def fit(*arguments: Any, **options: Any) -> History:
    """Train: for every batch of every epoch, compute gradients, clip them, step.

    ``fit(loss_and_grads, optimizer, batches, *, epochs, ...)`` trains whatever the function
    computes. ``fit(model, loss, X, y, *, epochs, ...)`` trains a `Sequential` on arrays, in random
    batches.

    Parameters
    ----------
    loss_and_grads : callable
        `loss_and_grads(batch) -> (loss, grads)`: forward and backward of the model; `grads` as
        `optimizer.step` takes them. It may keep something from one batch to the next, such as the
        state in truncated BPTT.
    optimizer : Optimizer
        Holds the live parameters and moves them. With a model by default `Adam(model)`.
    batches : callable or iterable
        `batches(rng) -> iterable of batches`, called at the start of every epoch; or a list of
        batches, or whatever else can be gone through again in every epoch, in its own order. A
        generator is good for one epoch. What a batch is is between this and `loss_and_grads`.
    model : Sequential
    loss : callable
        `loss(predictions, targets) -> (loss, gradient)`, such as
        `training.softmax_cross_entropy`. With `lengths` it also gets `mask`, the valid steps, if
        the predictions have a time axis; with `weight` it gets `weight`.
    X : ndarray
        What the model takes, with all sequences on its batch axis.
    y : ndarray
        The targets: with one row per sequence on the first axis, or a target for every step, with
        the first two axes of X.
    epochs : int
        Epochs in all, at least 1, those of a resumed checkpoint included.
    lengths : ndarray of int, (n,), optional
        The steps of each sequence, from 1 to T. A batch then holds sequences of similar length,
        and is cut to the longest of them.
    weight : ndarray, optional
        How much each sequence counts, (n,), or each step, with the first two axes of X. Sequences
        of weight 0 are left out.
    batch_size : int, default 32
        The sequences of a batch; the last one may have fewer.
    validation : (X, y) or (X, y, lengths), optional
        Held-out arrays: the held-out figure is the loss on them, if there is no `evaluate`.
    rng : int or numpy.random.Generator, optional
        Given to `batches`, or where the order of the sequences comes from. In the first form, let
        this be the one Generator that everything draws from, dropout included: only then can a
        training be resumed bit for bit. With a model a checkpoint also keeps the random states of
        its layers, as their `rng`.
    evaluate : callable, optional
        `evaluate() -> float`, a held-out figure after every epoch; lower is better.
    maximize : bool
        The held-out figure is better when it is higher.
    goal : float, optional
        Stop as soon as the held-out figure is at the goal, or better.
    patience : int, optional
        Stop after so many epochs without a better held-out figure, and end with the parameters of
        the best epoch. NaN is never better; if all figures are NaN, no epoch is the best.
    clip_norm, clip_value : float, optional
        Clip the gradients, see `training.clip_norm` and `training.clip_value` (norm first). The
        norm is that of the gradients which the optimiser sums up, see `Optimizer.summed`.
    schedule : callable, optional
        `schedule(epoch) -> lr`, applied at the start of every epoch (from 0). If it has a method
        `observe`, that is called with the history first.
    callbacks : list of callable
        `callback(history)`, called after every epoch, and after its checkpoint is written. If one
        returns True the training ends; a later call with the checkpoint goes on.
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
        function nor an iterable. Or `model` is no `Sequential`, or an array of the wrong kind.
    ValueError
        A combination of arguments makes no sense, or an epoch has no batches. Or the checkpoint is
        damaged, belongs to another model or holds more than `epochs`. Or the arrays do not fit the
        model or each other.

    Notes
    -----
    Ctrl-C ends the training as soon as the running kernel returns, with `history.interrupted`
    set and the parameters of the last completed step: an update is never cut in half.

    Examples
    --------
    >>> history = fit(model, softmax_cross_entropy, X, y, epochs=20, validation=(X_test, y_test),
    ...               patience=3, rng=0)
    """
    with_model = len(arguments) == 4 or not options.keys().isdisjoint(("model", "loss", "X", "y"))
    if with_model or (arguments and hasattr(arguments[0], "backward")):
        _check_call(fit_model, arguments, options)
        return fit_model(*arguments, **options)
    _check_call(fit_batches, arguments, options)
    return fit_batches(*arguments, **options)


def _check_call(form: Callable[..., Any], arguments: tuple[Any, ...], options: Any) -> None:
    """Refuse arguments that this form of `fit` does not have, or lacks, by the name of `fit`."""
    signature = inspect.signature(form)
    known = {*signature.parameters, *Options.__annotations__} - {"options", "generators"}
    for name in options.keys() - known:
        close = get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else f", expected one of {sorted(known)}"
        raise TypeError(f"fit got the unknown argument {name!r}{hint}")
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise TypeError(f"fit: {error}") from None
