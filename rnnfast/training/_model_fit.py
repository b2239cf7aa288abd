"""`fit` of a model on arrays: what the batches are, and the loss on held-out arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

import numpy as np

from .._core import checks
from .._sequential import Sequential
from ._array import Array, check_ids
from ._loop import Options, fit_batches
from ._positions import reals
from .data import minibatches
from .history import History
from .losses import length_mask
from .optim import Adam, Optimizer

Loss: TypeAlias = Callable[..., tuple[float, Array]]
Validation: TypeAlias = tuple[Any, Any] | tuple[Any, Any, Any]


def fit_model(
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
) -> History:
    """`fit` in its second form."""
    if not isinstance(model, Sequential):
        kind = type(model).__name__
        fix = f"; rnnfast.Sequential({kind}(...))" if hasattr(model, "backward") else ""
        raise TypeError(f"model has type {kind}, expected rnnfast.Sequential{fix}")
    if not callable(loss):
        raise TypeError(
            f"loss has type {type(loss).__name__}, expected a function such as "
            "training.softmax_cross_entropy"
        )
    size = checks.integer("batch_size", batch_size, 1)
    examples = Examples.of(model, X, y, lengths, weight)
    optimizer = _optimizer(model, optimizer)
    if validation is not None:
        held_out = _held_out(model, validation, lengths is not None)
        if options.get("evaluate") is None:
            if options.get("maximize"):
                raise ValueError(
                    "maximize is True, but the held-out figure is the loss on validation, which is "
                    "better when it is lower: give evaluate"
                )
            options["evaluate"] = lambda: held_out.loss(loss, size)

    def loss_and_grads(rows: Array) -> tuple[float, Any]:
        x, target, own, extra = examples.batch(rows)
        predictions, tape = model.forward(x, own)
        value, gradient = _of(loss, predictions, target, extra)
        return value, model.backward(tape, gradient)

    counted = examples.counted()
    own_lengths = None if examples.lengths is None else examples.lengths[counted]

    def batches(rng: np.random.Generator) -> Iterator[Array]:
        return (counted[i] for i in minibatches(len(counted), size, rng, lengths=own_lengths))

    return fit_batches(
        loss_and_grads, optimizer, batches, epochs=epochs,
        generators=_generators(model, options.get("rng")), **options,
    )  # fmt: skip


@dataclass
class Examples:
    """Arrays that fit a model and each other. Axes: of sequences in X and y, of time in X."""

    model: Sequential
    X: Array
    y: Array
    lengths: Array | None
    weight: Array | None

    @classmethod
    def of(
        cls, model: Sequential, X: Any, y: Any, lengths: Any, weight: Any, names: str = "{}"
    ) -> Examples:
        """Check them; `names` makes the names of the arguments."""
        X, y = checks.readable(names.format("X"), X), checks.readable(names.format("y"), y)
        _check_inputs(model, names.format("X"), X)
        self = cls(model, X, y, None, None)
        if self.count == 0:
            raise ValueError(f"{names.format('X')} has shape {X.shape}, expected some sequences")
        self._check_targets(names.format("X"), names.format("y"))
        if lengths is not None:
            self.lengths = self._checked_lengths(names.format("lengths"), lengths)
        if weight is not None:
            self.weight = self._checked_weight(weight)
        return self

    @property
    def count(self) -> int:
        """How many sequences there are."""
        count: int = self.X.shape[self._axis]
        return count

    def counted(self) -> Array:
        """The sequences that have some weight; a batch of the others would have no mean."""
        if self.weight is None:
            return np.arange(self.count)
        counts: Array = self.weight != 0
        if counts.ndim == 2:  # of steps
            counts = counts if self._axis == 0 else counts.T
            if self.lengths is not None:
                counts = counts & length_mask(self.lengths, counts.shape[1], batch_first=True)
            counts = np.logical_or.reduce(counts, axis=1)
        rows = np.flatnonzero(counts)
        if not rows.size:
            raise ValueError("weight is 0 for every sequence, expected some that count")
        return rows

    @property
    def _axis(self) -> int:
        return 0 if self.model._chain.batch_first else 1

    @property
    def _steps(self) -> int:
        """The padded length, of a model along time."""
        steps: int = self.X.shape[1 - self._axis]
        return steps

    @property
    def _timed(self) -> bool:
        """Whether the predictions have a time axis."""
        return self.model._chain.along_time and not self.model._chain.ends_in_rows

    def batch(self, rows: Array) -> tuple[Array, Array, Array | None, dict[str, Array]]:
        """Of some sequences x, y, lengths and what else the loss takes."""
        lengths = None if self.lengths is None else self.lengths[rows]
        steps = None if lengths is None else int(lengths.max())
        x = self._taken(self.X, rows, self._axis, steps)
        if not self._timed:
            extra = {} if self.weight is None else {"weight": self.weight[rows]}
            return x, self.y[rows], lengths, extra
        y = self._taken(self.y, rows, self._axis, steps)
        extra = {}
        if lengths is not None:
            extra["mask"] = self._mask(lengths, y)
        if self.weight is not None:
            extra["weight"] = self._weight_of_steps(rows, steps, y)
        return x, y, lengths, extra

    def loss(self, loss: Loss, batch_size: int) -> float:
        """The loss on all of them."""
        predictions = self.model.predict(self.X, max(batch_size, 256), self.lengths)
        extra = {}
        if self._timed and self.lengths is not None:
            extra["mask"] = self._mask(self.lengths, self.y)
        return float(_of(loss, predictions, self.y, extra)[0])

    # ------------------------------------------------------------------------------------ parts

    def _taken(self, a: Array, rows: Array, axis: int, steps: int | None) -> Array:
        if steps is not None:
            a = a[:, :steps] if axis == 0 else a[:steps]
        return np.take(a, rows, axis)

    def _mask(self, lengths: Array, y: Array) -> Array:
        return length_mask(lengths, y.shape[1 - self._axis], batch_first=self._axis == 0)

    def _weight_of_steps(self, rows: Array, steps: int | None, y: Array) -> Array:
        assert self.weight is not None
        if self.weight.ndim == 2:
            return self._taken(self.weight, rows, self._axis, steps)
        own = self.weight[rows]
        by_step = own[:, None] if self._axis == 0 else own
        return np.broadcast_to(by_step, y.shape[:2]).copy()

    # ----------------------------------------------------------------------------------- checks

    def _check_targets(self, X_name: str, name: str) -> None:
        """Refuse targets of another number of sequences or steps."""
        shape, (first, second) = self.y.shape, (*self.X.shape, 0)[:2]
        wanted = f"a first axis of {self.count}"
        if self._timed:
            axes = "T, B" if self._axis else "B, T"
            wanted = f"({axes}, ...) = ({first}, {second}, ...)"
        if shape[: 1 + self._timed] != ((first, second) if self._timed else (self.count,)):
            raise ValueError(
                f"{name} has shape {shape}, expected {wanted}: {X_name} with shape {self.X.shape} "
                f"has {self.count} sequences{self._hint(X_name, name)}"
            )

    def _hint(self, X_name: str, name: str) -> str:
        """What to do where one of the two has its axes the other way round."""
        if self._timed:
            if self.y.shape[:2] == self.X.shape[1::-1]:
                return f"; give {name}.swapaxes(0, 1) or {X_name}.swapaxes(0, 1)"
            one_each = self.y.shape[:1] == (self.count,)
            return "; for one target of each sequence add rnnfast.Last()" if one_each else ""
        if not self.model._chain.along_time or self.y.shape[:1] != (self._steps,):
            return ""
        kinds = "batch-first", "time-major"
        now, other = kinds if self._axis == 0 else kinds[::-1]
        return (
            f" in a {now} model; if it is {other}, make the recurrent layers with "
            f"batch_first={self._axis == 1}, or give {X_name}.swapaxes(0, 1)"
        )

    def _checked_lengths(self, name: str, lengths: Any) -> Array:
        if not self.model._chain.along_time:
            raise ValueError(f"{name} is given, but no layer of the model takes it")
        checked: Array = checks.lengths(lengths, self._steps, self.count)
        if checked.min() == 0:
            at = int(np.argmin(checked))
            raise ValueError(
                f"{name} is 0 at {at}, expected at least 1; leave out sequences without steps"
            )
        return checked

    def _checked_weight(self, given: Any) -> Array:
        weight = reals("weight", given)
        shapes = [(self.count,), *([self.y.shape[:2]] if self._timed else [])]
        if weight.shape not in shapes:
            expected = " or ".join(map(str, shapes))
            raise ValueError(f"weight has shape {weight.shape}, expected {expected}")
        return weight


def _check_inputs(model: Sequential, name: str, X: Array) -> None:
    """Refuse what the first layer would refuse in the middle of an epoch."""
    model._chain.check_input(name, X)
    if model._chain.takes_ids:
        check_ids(name, X, model._chain.links[0].layer.count)
    model._chain.batch_axis(name, X)


def _held_out(model: Sequential, validation: Any, with_lengths: bool) -> Examples:
    if not isinstance(validation, tuple | list):
        kind = type(validation).__name__
        raise TypeError(f"validation has type {kind}, expected (X, y) or (X, y, lengths)")
    if len(validation) not in (2, 3):
        raise ValueError(
            f"validation has {len(validation)} entries, expected (X, y) or (X, y, lengths)"
        )
    X, y, lengths = (*validation, None)[:3]
    if with_lengths and lengths is None:
        raise ValueError(
            "validation is (X, y), expected (X, y, lengths), because lengths is given: padding "
            "would count as steps"
        )
    return Examples.of(model, X, y, lengths, None, "validation's {}")


def _optimizer(model: Sequential, optimizer: Optimizer | None) -> Optimizer:
    """The given optimiser, which is to hold arrays of the model, or a new one."""
    if optimizer is None:
        return Adam(model)
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer has type {kind}, expected Optimizer; Adam(model)")
    params = model.params
    for name, array in optimizer.params.items():
        if params.get(name) is not array:
            raise ValueError(
                f"optimizer holds {name!r}, which is no array of the model; Adam(model)"
            )
    return optimizer


def _generators(model: Sequential, rng: Any) -> dict[str, np.random.Generator]:
    """The generators of the layers by the first one's name, but for the one that `fit` has."""
    found: dict[int, tuple[str, np.random.Generator]] = {}
    for one in model._chain.links:
        own = getattr(one.layer, "rng", None)
        if isinstance(own, np.random.Generator) and own is not rng:
            found.setdefault(id(own), (one.name, own))
    return dict(found.values())


def _of(loss: Loss, predictions: Array, target: Array, extra: dict[str, Array]) -> Any:
    """The loss and its gradient."""
    try:
        found = loss(predictions, target, **extra)
    except (TypeError, ValueError) as error:
        error.add_note("In fit, targets are the rows of y that belong to a batch of X.")
        raise
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"loss returned {type(found).__name__}, expected (loss, gradient)")
    return found
