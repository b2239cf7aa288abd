"""Recurrent networks as scikit-learn estimators: classify, regress and forecast sequences.

Needs scikit-learn (``pip install rnnfast[sklearn]``), and nothing of PyTorch.

>>> from rnnfast.estimators import SequenceClassifier
>>> classifier = SequenceClassifier(hidden_size=64, random_state=0).fit(X, y)
>>> probabilities = classifier.predict_proba(X_new)

X is an array (n, T, I) of n sequences, an array (n, T) of series of one feature, or a list of
arrays (T_i, I) of different length. `Forecaster` learns from one series and continues it:

>>> from rnnfast.estimators import Forecaster
>>> forecast = Forecaster(horizon=24, random_state=0).fit(series).predict()

Everything is computed in the dtype of X. float32 takes half to two thirds of the time of float64.
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    message = "rnnfast.estimators needs scikit-learn: pip install rnnfast[sklearn]"
    raise ModuleNotFoundError(message, name=error.name) from error
from ._forecaster import Forecaster
from ._sequences import SequenceClassifier, SequenceRegressor

__all__ = ["Forecaster", "SequenceClassifier", "SequenceRegressor"]
