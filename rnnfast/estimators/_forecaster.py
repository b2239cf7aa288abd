"""`Forecaster`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_array, check_is_fitted

from .._core import checks
from ..training import quantile_loss
from ._network import LOSSES, Loss, Network
from ._parts import Examples
from ._read import FLOATS, Array
from ._windows import Windows

STRATEGIES = ("direct", "recursive")
SCALINGS = ("window", "series", "none")


class Forecaster(Network):
    """Forecast a series by a recurrent network that reads its last values.

    The network learns from every stretch of the series, `window` steps and what comes next.

    Parameters
    ----------
    horizon : int
        How many steps to forecast, h.
    window : int or None
        How many steps the network reads, W; None: twice the horizon.
    strategy : {"direct", "recursive"}
        Direct: the network predicts all steps at once. Recursive: it predicts one step, then the
        next one from the window moved on by its own prediction.
    quantiles : sequence of float or None
        Which quantiles to predict, rising, each in (0, 1), instead of one value; direct only.
    loss : {"squared_error", "absolute_error"}
        What the training makes small without quantiles: the mean is predicted, or the median.
    scaling : {"window", "series", "none"}
        Series: each variable is scaled to mean 0 and variance 1 over the series. Window: each
        window is moved to mean 0 first, which suits a series whose level moves.
    hidden_size, cell, num_layers, bidirectional, dropout
        As in `SequenceClassifier`.
    learning_rate, weight_decay, clip_norm, batch_size, max_iter
        As in `SequenceClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, random_state, verbose
        As in `SequenceClassifier`, but for the part held out, which is the end of the series.

    Attributes
    ----------
    horizon_, window_ : int
        h and W.
    quantiles_ : sequence of float or None
    model_ : rnnfast.Sequential
        The network, batch first, between the scaled windows and the scaled forecasts.
    history_, n_iter_
        As in `SequenceClassifier`.

    Notes
    -----
    Quantiles are learned by the pinball loss (Koenker & Bassett 1978). Where two of them cross in a
    forecast they are put in order (Chernozhukov, Fernández-Val & Galichon 2010).

    Exogenous inputs are numbers that are known for the steps to come as well, such as the hour of
    the day. The network then goes on through these steps, where it reads the exogenous inputs only.

    Examples
    --------
    >>> series = np.sin(np.arange(300) / 5)
    >>> forecast = Forecaster(horizon=10, random_state=0).fit(series).predict()
    >>> bool(np.abs(forecast - np.sin(np.arange(300, 310) / 5)).max() < 0.2)
    True
    """

    def __init__(
        self,
        horizon: int = 24,
        *,
        window: int | None = None,
        strategy: str = "direct",
        quantiles: Sequence[float] | None = None,
        loss: str = "squared_error",
        scaling: str = "window",
        hidden_size: int = 32,
        cell: Any = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: int = 64,
        max_iter: int = 30,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.horizon = horizon
        self.window = window
        self.strategy = strategy
        self.quantiles = quantiles
        self.loss = loss
        self.scaling = scaling
        self.hidden_size = hidden_size
        self.cell = cell
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, series: Any, exog: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        series : array_like (T,) or (T, K)
            One variable or several, at equal steps of time, the last one at the end.
        exog : array_like (T,) or (T, E), optional
            Exogenous inputs, which `predict` will need for the steps to come.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            An array has NaN, infinity or a shape that does not fit, the series is shorter than
            window and horizon, or a parameter of the forecaster does not fit.
        """
        self._check_options()
        columns = {"series": _columns(series), "exog": _columns(exog)}
        values = self._read("series", series, FLOATS)
        self._one_variable = values.ndim == 1
        values = values.reshape(len(values), -1)
        self._exogenous: int | None = None
        if exog is not None:
            exog = self._read("exog", exog, values.dtype)
            self._exogenous = 1 if exog.ndim == 1 else exog.shape[1]
        known = self._read_exog("exog", exog, len(values), values.dtype)
        self.horizon_, self.quantiles_ = self.horizon, self.quantiles
        self.window_ = 2 * self.horizon if self.window is None else self.window
        steps = 1 if self.strategy == "recursive" else self.horizon
        if len(values) < self.window_ + steps:
            raise ValueError(
                f"series has {len(values)} steps, expected at least {self.window_ + steps}, "
                f"window + {'1' if steps == 1 else 'horizon'}"
            )
        self._fitted_columns = columns | {"exog_future": columns["exog"]}
        self._windows = Windows(values, known, self.window_, steps, self.scaling)
        self._end = values[-self.window_ :], None if known is None else known[-self.window_ :]
        self._learn(self._windows.examples(values, known))
        return self

    def _learn(self, examples: Examples) -> None:
        """Train the network on all windows, or on all but the last ones."""
        rng = self._rng()
        steps = self._windows.steps
        outputs = self._windows.variables * (1 if self.quantiles is None else len(self.quantiles))
        if self._exogenous:
            model = self._network(examples, outputs, rng, every_step=True)
        else:
            model = self._network(examples, outputs * steps, rng)
        held_out = None
        if self.early_stopping:
            first = len(examples.x) - math.ceil(self.validation_fraction * len(examples.x))
            # Without those windows of which a step to come is held out too.
            examples, held_out = examples[: max(first - steps + 1, 0)], examples[first:]
            if not (len(examples.x) and len(held_out.x)):
                raise ValueError(
                    f"validation_fraction is {self.validation_fraction}, which leaves nothing to "
                    f"train on or to hold out of {first + len(held_out.x)} windows"
                )
        self._train(model, self._loss(), examples, held_out, rng)

    def _loss(self) -> Loss:
        """The loss of the network's outputs, which have no axes of variables and quantiles."""
        base, last = LOSSES[self.loss], list[int]()
        if self.quantiles is not None:
            base, last = partial(quantile_loss, quantiles=self.quantiles), [len(self.quantiles)]

        def loss(outputs: Array, targets: Array, **weight: Array) -> tuple[float, Array]:
            value, slope = base(outputs.reshape(*targets.shape, *last), targets, **weight)
            return value, slope.reshape(outputs.shape)

        return loss

    def predict(self, series: Any = None, exog: Any = None, exog_future: Any = None) -> Array:
        """Forecast the `horizon` steps after a series.

        Parameters
        ----------
        series : array_like (T,) or (T, K), optional
            The series to go on from, at least `window_` steps; that of `fit` if omitted.
        exog : array_like (T,) or (T, E), optional
            The exogenous inputs beside it, if there were some in `fit`.
        exog_future : array_like (h,) or (h, E), optional
            The exogenous inputs of the steps to come, if there were some in `fit`.

        Returns
        -------
        forecast : ndarray (h,) or (h, K)
            With quantiles (h, Q) or (h, K, Q).

        Raises
        ------
        TypeError, ValueError
            An array has NaN, infinity or a shape that does not fit, exogenous inputs are given or
            missing otherwise than in `fit`, or a table has other columns or another order of them.
        """
        check_is_fitted(self, "model_")
        for name, table in ("series", series), ("exog", exog), ("exog_future", exog_future):
            fitted, given = self._fitted_columns[name], _columns(table)
            if fitted and given and fitted != given:
                raise ValueError(f"{name} has the columns {given}, expected {fitted} as in fit")
        past, known = self._past(series, exog)
        known = self._with_future(known, exog_future)
        steps = self._windows.steps
        parts = []
        for start in range(0, self.horizon_, steps):
            around = None if known is None else known[start : start + self.window_ + steps]
            parts.append(self._forecast(past, around))
            past = np.concatenate([past, parts[-1][..., 0]])[-self.window_ :]
        forecast = np.sort(np.concatenate(parts), axis=-1)
        forecast = forecast[..., 0] if self.quantiles_ is None else forecast
        return forecast[:, 0] if self._one_variable else forecast

    def _forecast(self, past: Array, known: Array | None) -> Array:
        """The next S steps (S, K, Q) after `past` (W, K), with exogenous inputs (W + S, E)."""
        x = self._windows.inputs(past[None], None if known is None else known[None])
        outputs = self.model_.predict(x)
        if known is not None:
            outputs = outputs[:, self.window_ :]
        outputs = outputs.reshape(self._windows.steps, self._windows.variables, -1)
        return self._windows.forecast(past, outputs)

    def _past(self, series: Any, exog: Any) -> tuple[Array, Array | None]:
        """The window to go on from, (W, K), and the exogenous inputs beside it, (W, E)."""
        if series is None:
            if exog is not None:
                raise ValueError("exog is given without series, beside which it stands")
            return self._end
        dtype = self._end[0].dtype
        values = self._read("series", series, dtype)
        expected = () if self._one_variable else (self._windows.variables,)
        if values.shape[1:] != expected:
            axes = "(T,)" if self._one_variable else f"(T, {self._windows.variables})"
            hint = "; exogenous inputs of the steps to come are exog_future" * bool(self._exogenous)
            raise ValueError(f"series has shape {values.shape}, expected {axes} as in fit{hint}")
        if len(values) < self.window_:
            raise ValueError(
                f"series has {len(values)} steps, expected at least window = {self.window_}"
            )
        values = values.reshape(len(values), -1)
        known = self._read_exog("exog", exog, len(values), dtype)
        return values[-self.window_ :], None if known is None else known[-self.window_ :]

    def _with_future(self, known: Array | None, exog_future: Any) -> Array | None:
        """The exogenous inputs of the window and of the steps to come, (W + h, E)."""
        future = self._read_exog("exog_future", exog_future, self.horizon_, self._end[0].dtype)
        return None if known is None or future is None else np.concatenate([known, future])

    def _read(self, name: str, value: Any, dtype: Any) -> Array:
        """Finite numbers (T,) or (T, F)."""
        array: Array = check_array(
            value, ensure_2d=False, dtype=dtype, input_name=name, estimator=self
        )
        return array

    def _read_exog(self, name: str, value: Any, steps: int, dtype: Any) -> Array | None:
        """Exogenous inputs as (steps, E), with E as in fit; None if fit had none."""
        if value is None and self._exogenous is None:
            return None
        if value is None or self._exogenous is None:
            there = "missing, but fit had some" if value is None else "given, but fit had none"
            raise ValueError(f"{name} is {there}")
        array = self._read(name, value, dtype)
        array = array.reshape(len(array), -1)
        if array.shape != (steps, self._exogenous):
            raise ValueError(f"{name} has shape {array.shape}, expected {(steps, self._exogenous)}")
        return array

    def _check_options(self) -> None:
        super()._check_options()
        checks.integer("horizon", self.horizon, 1)
        if self.window is not None:
            checks.integer("window", self.window, 1)
        checks.choice("strategy", self.strategy, STRATEGIES)
        checks.choice("loss", self.loss, LOSSES)
        checks.choice("scaling", self.scaling, SCALINGS)
        if self.quantiles is None:
            return
        if self.strategy == "recursive":
            raise ValueError("quantiles need strategy='direct': no quantile can be fed back")
        q = np.asarray(self.quantiles, float)
        if q.ndim != 1 or not q.size or not (q[0] > 0 and q[-1] < 1 and (np.diff(q) > 0).all()):
            raise ValueError(f"quantiles is {self.quantiles}, expected rising numbers in (0, 1)")


def _columns(value: Any) -> list[Any] | None:
    """The names of a table's columns, in their order; None of what is no table with such names."""
    columns = list(getattr(value, "columns", ()))
    return columns if columns and all(isinstance(name, str) for name in columns) else None
