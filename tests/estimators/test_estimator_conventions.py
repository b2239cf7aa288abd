"""The estimators follow scikit-learn: its own checks, pipelines, searches, clones, pickles."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rnnfast import cells
from rnnfast.estimators import Forecaster, SequenceClassifier, SequenceRegressor

ALL = SequenceClassifier, SequenceRegressor, Forecaster


@parametrize_with_checks([SequenceClassifier(), SequenceRegressor()])
def test_scikit_learn_finds_nothing_wrong(estimator: Any, check: Any) -> None:
    check(estimator)


def test_scikit_learn_knows_what_they_are() -> None:
    assert is_classifier(SequenceClassifier())
    assert is_regressor(SequenceRegressor())
    assert not is_classifier(Forecaster())
    assert not is_regressor(Forecaster())


@pytest.mark.parametrize("kind", ALL)
def test_a_clone_has_every_parameter(kind: Any) -> None:
    values = {name: object() for name in kind().get_params()} | {"cell": cells.mgu}
    estimator = kind(**values)
    assert estimator.get_params() == values
    copy = clone(kind(cell=cells.mgu, random_state=3))
    assert copy.cell is cells.mgu
    assert copy.random_state == 3
    assert copy.set_params(hidden_size=7).hidden_size == 7


@pytest.mark.parametrize("kind", ALL)
def test_without_fit_there_is_no_prediction(kind: Any) -> None:
    with pytest.raises(NotFittedError):
        kind().predict(np.zeros((5, 4)))


def sequences(n: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences of different length, and whether their sum is above zero."""
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((rng.integers(1, 12), 2)).astype(np.float32) for _ in range(n)]
    return X, np.array(["low", "high"])[[int(x[:, 0].sum() > 0) for x in X]]


def test_a_pickled_estimator_gives_the_same_bits() -> None:
    X, y = sequences(30)
    classifier = SequenceClassifier(5, max_iter=2, random_state=0, cell=cells.mgu).fit(X, y)
    copy = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(copy.predict_proba(X), classifier.predict_proba(X))
    series = np.sin(np.arange(40.0))
    forecaster = Forecaster(3, max_iter=1, quantiles=(0.1, 0.9)).fit(series)
    copy = pickle.loads(pickle.dumps(forecaster))
    np.testing.assert_array_equal(copy.predict(), forecaster.predict())


def test_a_search_over_sequences_of_different_length() -> None:
    X, y = sequences(60)
    grid = {"hidden_size": [1, 8], "cell": ["gru", "mgu"]}
    start = SequenceClassifier(max_iter=20, random_state=0)
    search = GridSearchCV(start, grid, cv=3).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.75
    assert search.score(X, y) > 0.8


def test_in_a_pipeline() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 7)) + 100
    y = X[:, 2:].sum(axis=1)
    flat = make_pipeline(StandardScaler(), SequenceRegressor(8, max_iter=40, random_state=0))
    assert cross_val_score(flat, X, y, cv=2).min() > 0.5
    cut = make_pipeline(
        FunctionTransformer(lambda X: X[:, 2:, None]),
        SequenceRegressor(8, max_iter=40, random_state=0),
    )
    assert cut.fit(X, y).score(X, y) > 0.8
    assert cut[-1].n_features_in_ == 1


def test_sample_weight_reaches_the_last_step_of_a_pipeline() -> None:
    X, y = sequences(20)
    classifier = SequenceClassifier(3, max_iter=1, random_state=0)
    weight = np.arange(20)
    steps = make_pipeline(FunctionTransformer(lambda X: X), clone(classifier))
    steps.fit(X, y, sequenceclassifier__sample_weight=weight)
    alone = classifier.fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(steps.predict_proba(X), alone.predict_proba(X))


def test_names_of_features_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).random((20, 3)), columns=["a", "b", "c"])
    regressor = SequenceRegressor(3, max_iter=1).fit(frame, frame["a"])
    assert list(regressor.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        regressor.predict(frame[["b", "a", "c"]])
    regressor.fit(frame.to_numpy(), frame["a"])
    assert not hasattr(regressor, "feature_names_in_")
