"""`SequenceClassifier` and `SequenceRegressor`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from .._core import checks
from ..training import softmax, softmax_cross_entropy
from ._network import LOSSES, Loss, Network
from ._parts import Examples, standardizer
from ._read import Array, read_sequences


class SequenceEstimator(Network):
    """What a classifier and a regressor of sequences share."""

    def _examples(self, X: Any, y: Array, sample_weight: Any, factors: Array | None) -> Examples:
        """What `fit` is given, checked and scaled; examples of weight 0 are left out."""
        x, lengths = read_sequences(self, X, reset=True)
        check_consistent_length(x, y)
        weight = factors
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=float, ensure_non_negative=True)
            weight = weight if factors is None else weight * factors
        examples = Examples(x, y, lengths, weight)
        if weight is not None:
            (rows,) = np.nonzero(weight)
            if not len(rows):
                raise ValueError("the weight of every example is zero, expected one above zero")
            examples = examples[rows]
        self.standardizer_ = standardizer(examples.x, examples.step_weight(), self.standardize)
        examples.x = self.standardizer_.transform(examples.x)
        return examples

    def _fit(self, examples: Examples, loss: Loss, outputs: int, strata: Array | None) -> None:
        """Train on the examples, or on all but a part that is held out."""
        rng = self._rng()
        held_out = None
        if self.early_stopping:
            rows, held = train_test_split(
                np.arange(len(examples.x)),
                test_size=self.validation_fraction,
                random_state=int(rng.integers(2**31)),
                stratify=strata,
            )
            examples, held_out = examples[rows], examples[held]
        model = self._network(examples, outputs, rng)
        self._train(model, loss, examples, held_out, rng)

    def _outputs(self, X: Any) -> Array:
        """What the network makes of each sequence."""
        check_is_fitted(self, "model_")
        x, lengths = read_sequences(self, X, reset=False)
        x = x.astype(next(iter(self.model_.params.values())).dtype, copy=False)
        outputs: Array = self.model_.predict(self.standardizer_.transform(x), lengths=lengths)
        return outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class SequenceClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify sequences by a recurrent network.

    The network reads a sequence, and a linear layer makes class probabilities of its last output.

    Parameters
    ----------
    hidden_size : int
        The units of each recurrent layer.
    cell : {"gru", "lstm", "rnn"}, name of a cell in `rnnfast.cells`, or Cell
        What the recurrent layers are made of.
    num_layers : int
        How many of them are stacked.
    bidirectional : bool
        Whether each also reads from the end.
    dropout : float
        The share of outputs, in [0, 1), that training leaves out between layers and before the
        linear one.
    standardize : bool
        Whether each feature is scaled to mean 0 and variance 1 over the steps of the training data.
    class_weight : dict, "balanced" or None
        How much the examples of each class count, as `sklearn.utils.class_weight` has it.
    learning_rate, weight_decay : float
        Of the optimiser, Adam; with weight decay AdamW.
    clip_norm : float or None
        The largest norm of a gradient; larger ones are scaled to it.
    batch_size : int
        Examples for each step of the optimiser.
    max_iter : int
        Epochs of training, at most.
    early_stopping : bool
        Whether part of the examples is held out, to end the training when the loss on it has not
        improved for `n_iter_no_change` epochs. The parameters of the best epoch are kept.
    validation_fraction : float
        The share that is held out, with the same mixture of classes.
    n_iter_no_change : int
    random_state : int, RandomState or None
        Where the initial parameters, the batches, dropout and the part held out come from. The same
        integer gives the same bits, whatever the number of threads.
    verbose : int
        1 shows the progress of the training.

    Attributes
    ----------
    classes_ : ndarray (C,)
        The labels, sorted.
    n_features_in_ : int
        I; T for an X (n, T).
    feature_names_in_ : ndarray of str
        If X was a data frame with such names.
    model_ : rnnfast.Sequential
        The network, batch first: ``softmax(model_(standardizer_.transform(X)))`` is
        ``predict_proba(X)`` for an X (n, T, I).
    standardizer_ : rnnfast.training.Standardizer
    history_ : rnnfast.training.History
        Loss and time of each epoch.
    n_iter_ : int
        The epochs trained.

    Notes
    -----
    An X (n, T) is n series of one feature. Others are (n, T, I), or a list of arrays (T_i, I).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((rng.integers(5, 20), 1)) for _ in range(200)]
    >>> y = ["up" if x.sum() > 0 else "down" for x in X]
    >>> classifier = SequenceClassifier(random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        cell: Any = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        standardize: bool = True,
        class_weight: Any = None,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: int = 64,
        max_iter: int = 50,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell = cell
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.standardize = standardize
        self.class_weight = class_weight
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array (n, T, I) or (n, T), or list of n arrays (T_i, I) or (T_i,)
        y : array_like (n,)
            The labels, of any kind.
        sample_weight : array_like (n,), optional
            How much each example counts, >= 0: one of weight 2 as two of weight 1.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            X or y has NaN, infinity or a shape that does not fit, or a parameter of the estimator
            does not.
        """
        self._check_options()
        y = validate_data(self, y=y)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        factors = None if self.class_weight is None else compute_sample_weight(self.class_weight, y)
        examples = self._examples(X, targets, sample_weight, factors)
        self._fit(examples, softmax_cross_entropy, len(self.classes_), strata=examples.y)
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n, C), for X as in `fit`."""
        return softmax(self._outputs(X))

    def predict(self, X: Any) -> Array:
        """The most probable label of each sequence, (n,)."""
        best = self._outputs(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels


class SequenceRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """Predict numbers from sequences by a recurrent network.

    The network reads a sequence, and a linear layer makes the prediction of its last output.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error"}
        What the training makes small: the mean is predicted, or the median.
    standardize : bool
        Whether each feature, and each target, is scaled to mean 0 and variance 1 over the training
        data. Predictions are scaled back.
    hidden_size, cell, num_layers, bidirectional, dropout
        As in `SequenceClassifier`.
    learning_rate, weight_decay, clip_norm, batch_size, max_iter
        As in `SequenceClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, random_state, verbose
        As in `SequenceClassifier`.

    Attributes
    ----------
    model_ : rnnfast.Sequential
        The network, batch first, from the standardised X to the standardised targets.
    standardizer_, target_standardizer_ : rnnfast.training.Standardizer
    n_features_in_, feature_names_in_, history_, n_iter_
        As in `SequenceClassifier`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.random((200, 20, 1))
    >>> y = X.max(axis=(1, 2))
    >>> regressor = SequenceRegressor(random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.8
    True
    """

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        cell: Any = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        loss: str = "squared_error",
        standardize: bool = True,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: int = 64,
        max_iter: int = 50,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell = cell
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.loss = loss
        self.standardize = standardize
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array (n, T, I) or (n, T), or list of n arrays (T_i, I) or (T_i,)
        y : array_like (n,) or (n, K)
            One target for each sequence, or several.
        sample_weight : array_like (n,), optional
            How much each example counts, >= 0: one of weight 2 as two of weight 1.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            X or y has NaN, infinity or a shape that does not fit, or a parameter of the estimator
            does not.
        """
        self._check_options()
        checks.choice("loss", self.loss, LOSSES)
        y = validate_data(self, y=y, multi_output=True, y_numeric=True)
        self._one_target = y.ndim == 1
        examples = self._examples(X, y.reshape(len(y), -1).astype(float), sample_weight, None)
        self.target_standardizer_ = standardizer(examples.y, examples.weight, self.standardize)
        examples.y = self.target_standardizer_.transform(examples.y).astype(examples.x.dtype)
        self._fit(examples, LOSSES[self.loss], examples.y.shape[1], strata=None)
        return self

    def predict(self, X: Any) -> Array:
        """The predictions, (n,) or (n, K) as y was, for X as in `fit`."""
        outputs = self._outputs(X)
        predictions = self.target_standardizer_.inverse_transform(outputs.astype(np.float64))
        return predictions[:, 0] if self._one_target else predictions

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
