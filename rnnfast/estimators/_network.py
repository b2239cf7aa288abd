"""What the estimators share: how the network is made and trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from .. import GRU, LSTM, RNN, Last, Recurrent, Sequential, cells
from .._core import checks
from ..training import Adam, AdamW, Dropout, Linear, fit, l1_loss, mean_squared_error
from ..training._array import check_positive
from ._parts import Examples
from ._read import Array

Loss: TypeAlias = Callable[..., tuple[float, Array]]
LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
LOSSES: dict[str, Loss] = {"squared_error": mean_squared_error, "absolute_error": l1_loss}


class Network(BaseEstimator):  # type: ignore[misc]
    """An estimator around a network that its parameters describe."""

    def _check_options(self) -> None:
        """Refuse what would be refused later under another name."""
        for name in "max_iter", "batch_size", "n_iter_no_change":
            checks.integer(name, getattr(self, name), 1)
        for name in "bidirectional", "early_stopping":
            if not isinstance(given := getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name} is {given!r}, expected True or False")
        check_positive(learning_rate=self.learning_rate)
        checks.probability("dropout", self.dropout)
        if not 0 < checks.real("validation_fraction", self.validation_fraction) < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}, expected a number in (0, 1)"
            )

    def _rng(self) -> np.random.Generator:
        """The one source of all random numbers of a fit."""
        return np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))

    def _network(
        self,
        examples: Examples,
        outputs: int,
        rng: np.random.Generator,
        every_step: bool = False,
    ) -> Sequential:
        """The untrained network: one row of outputs for each sequence, or for `every_step`."""
        dtype = examples.x.dtype
        recurrent = _layer(self.cell)(
            examples.x.shape[-1],
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            bidirectional=self.bidirectional,
            dtype=dtype,
            rng=rng,
        )
        layers: list[Any] = [recurrent]
        if not every_step:
            layers.append(Last(both_ends=self.bidirectional))
        if self.dropout:
            layers.append(Dropout(self.dropout, rng=rng))
        width = recurrent(examples.x[:1, :1])[0].shape[-1]
        return Sequential(*layers, Linear(width, outputs, dtype=dtype, rng=rng))

    def _train(
        self,
        model: Sequential,
        loss: Loss,
        examples: Examples,
        held_out: Examples | None,
        rng: np.random.Generator,
    ) -> None:
        """Train the network, and set `model_`, `history_` and `n_iter_`."""
        self.history_ = fit(
            model,
            loss,
            examples.x,
            examples.y,
            epochs=self.max_iter,
            lengths=examples.lengths,
            weight=examples.weight,
            batch_size=self.batch_size,
            optimizer=self._optimizer(model),
            rng=rng,
            clip_norm=self.clip_norm,
            progress=bool(self.verbose),
            label=type(self).__name__,
            **self._stopping(model, loss, held_out),
        )
        if self.history_.interrupted:
            warnings.warn("the training was interrupted by Ctrl-C", stacklevel=3)
        self.model_, self.n_iter_ = model, self.history_.epochs

    def _optimizer(self, model: Sequential) -> Adam:
        if self.weight_decay:
            return AdamW(model, lr=self.learning_rate, weight_decay=self.weight_decay)
        return Adam(model, lr=self.learning_rate)

    def _stopping(self, model: Sequential, loss: Loss, held_out: Examples | None) -> dict[str, Any]:
        """The options of `fit` that end a training by the loss of the examples held out."""
        if held_out is None:
            return {}
        weight = {} if held_out.weight is None else {"weight": held_out.weight}

        def evaluate() -> float:
            outputs = model.predict(held_out.x, lengths=held_out.lengths)
            return loss(outputs, held_out.y, **weight)[0]

        return {"evaluate": evaluate, "patience": self.n_iter_no_change}


def _layer(cell: Any) -> Callable[..., Any]:
    """The class of the layers of a cell, which is given by name or as it is."""
    if isinstance(cell, str):
        if cell in LAYERS:
            return LAYERS[cell]
        found = cells.named(cell)
        if found is None:
            names = ", ".join(map(repr, LAYERS))
            raise ValueError(
                f"cell is {cell!r}, expected one of {names} or the name of a cell in rnnfast.cells"
            )
        cell = found
    return partial(Recurrent, cell)
