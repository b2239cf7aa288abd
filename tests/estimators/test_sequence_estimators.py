"""`SequenceClassifier` and `SequenceRegressor`: what they take, learn and promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnfast

pytest.importorskip("sklearn")
from rnnfast import cells, training
from rnnfast.estimators import SequenceClassifier, SequenceRegressor, _network

RNG = np.random.default_rng(0)
X = RNG.standard_normal((37, 7, 3))
LABELS = np.array(["b", "a", "c"])[RNG.integers(0, 3, 37)]
NUMBERS = X[:, -3:].sum(axis=(1, 2))
RAGGED = [x[: 1 + i % 7] for i, x in enumerate(X)]
SMALL: dict[str, Any] = {"hidden_size": 5, "max_iter": 3, "batch_size": 11, "random_state": 0}


def classifier(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(**(SMALL | options))


def regressor(**options: Any) -> SequenceRegressor:
    return SequenceRegressor(**(SMALL | options))


# ------------------------------------------------------------------------------------- what X is


def test_a_list_of_equal_lengths_is_an_array() -> None:
    one, other = classifier().fit(X, LABELS), classifier().fit(list(X), LABELS)
    np.testing.assert_array_equal(one.predict_proba(list(X)), other.predict_proba(X))


def test_sequences_of_different_length_are_padded_with_lengths() -> None:
    found = classifier(standardize=False).fit(RAGGED, LABELS)
    padded = np.full((37, 7, 3), np.nan)
    lengths = np.array([len(x) for x in RAGGED])
    for row, x in zip(padded, RAGGED, strict=True):
        row[: len(x)] = x
    scores = found.model_(np.nan_to_num(padded, nan=1e3), lengths=lengths)
    np.testing.assert_array_equal(found.predict_proba(RAGGED), training.softmax(scores))
    alone = np.concatenate([found.predict_proba([x, x[:1]])[:1] for x in RAGGED])
    np.testing.assert_array_equal(found.predict_proba(RAGGED), alone)


@pytest.mark.parametrize("given", [X, RAGGED], ids=["array", "list"])
def test_it_is_training_fit_of_a_model(given: Any) -> None:
    """The same bits by hand: nothing but a model, Adam and `training.fit`."""
    found = classifier(standardize=False, dropout=0.2).fit(given, LABELS)
    rng = np.random.default_rng(np.random.RandomState(0).randint(2**31 - 1))
    model = rnnfast.Sequential(
        rnnfast.GRU(3, 5, batch_first=True, dtype=float, rng=rng),
        rnnfast.Last(),
        training.Dropout(0.2, rng=rng),
        training.Linear(5, 3, dtype=float, rng=rng),
    )
    padded, lengths = training.pad(given)
    training.fit(
        model,
        training.softmax_cross_entropy,
        padded.swapaxes(0, 1),
        np.unique(LABELS, return_inverse=True)[1],
        lengths=None if given is X else lengths,
        epochs=3,
        batch_size=11,
        optimizer=training.Adam(model, lr=0.01),
        clip_norm=1.0,
        rng=rng,
        progress=False,
    )
    for name, value in model.params.items():
        np.testing.assert_array_equal(found.model_.params[name], value)


def test_a_series_has_one_feature() -> None:
    flat = X[:, :, 0]
    found = regressor().fit(flat, NUMBERS)
    assert found.n_features_in_ == 7
    assert found.model_[0].input_size == 1
    same = regressor().fit(flat[:, :, None], NUMBERS)
    assert same.n_features_in_ == 1
    np.testing.assert_array_equal(found.predict(flat), same.predict(flat))
    ragged = [x[:, 0] for x in RAGGED]
    found, same = (regressor().fit(r, NUMBERS) for r in (ragged, [x[:, None] for x in ragged]))
    np.testing.assert_array_equal(found.predict(ragged), same.predict(ragged))


def test_a_list_of_series_is_one_whether_or_not_they_are_equally_long() -> None:
    equal = list(X[:, :, 0])
    for given in (equal, np.array([*equal, None], dtype=object)[:-1]):
        found = regressor().fit(given, NUMBERS)
        assert found.n_features_in_ == 1
        same = regressor().fit(X[:, :, :1], NUMBERS)
        np.testing.assert_array_equal(found.predict(equal), same.predict(X[:, :, :1]))
        assert found.predict([equal[0], equal[1][:3]]).shape == (2,)
    assert regressor().fit(X[:, :, 0].tolist(), NUMBERS).n_features_in_ == 7  # as everywhere


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "X is empty, expected at least one sequence"),
        (np.ones((37, 7, 0)), r"X has shape \(37, 7, 0\), expected sequences with steps and feat"),
        (np.ones((37, 0, 3)), r"X has shape \(37, 0, 3\), expected sequences with steps and feat"),
    ],
)
def test_nothing_to_learn_from_is_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().fit(given, LABELS[: len(given)])


@pytest.mark.parametrize("name", ["bidirectional", "early_stopping"])
def test_flags_are_true_or_false(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is 'no', expected True or False"):
        regressor(**{name: "no"}).fit(X, NUMBERS)


def test_sequences_may_be_longer_than_those_of_fit() -> None:
    found = regressor().fit(X, NUMBERS)
    longer = np.concatenate([X, X], axis=1)
    assert found.predict(longer).shape == (37,)
    assert regressor().fit(RAGGED, NUMBERS).predict(longer).shape == (37,)
    with pytest.raises(ValueError, match="X has 9 features, but SequenceRegressor is expecting 7"):
        regressor().fit(X[:, :, 0], NUMBERS).predict(longer[:, :9, 0])


def test_objects_in_an_array_are_sequences() -> None:
    objects = np.empty(37, object)
    objects[:] = RAGGED
    found = regressor().fit(objects, NUMBERS)
    np.testing.assert_array_equal(found.predict(RAGGED), found.predict(objects))


def test_integers_are_taken() -> None:
    counts = RNG.integers(0, 9, (37, 5, 2))
    one, other = (regressor().fit(x, NUMBERS).predict(x) for x in (counts, counts.astype(float)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_is_computed_in_the_dtype_of_x(dtype: Any) -> None:
    found = classifier().fit(X.astype(dtype), LABELS)
    assert {value.dtype for value in found.model_.params.values()} == {np.dtype(dtype)}
    assert found.predict_proba(X).dtype == dtype


def broken(*at: int, value: float = np.nan) -> Any:
    x = X.copy()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (broken(3, 2, 1), "Input X contains NaN"),
        ([*broken(3, 2, 1)[:36], X[0, :2]], "Input X contains NaN"),
        (broken(3, 2, 1, value=np.inf), "Input X contains infinity"),
        ([*RAGGED[:36], X[0, :0]], r"X\[36\] has shape \(0, 3\), expected at least one step"),
        ([*RAGGED[:36], X[0, :, 1:]], r"X\[36\] has shape \(7, 2\), expected \(T_i, I\) with one"),
        ([*RAGGED[:36], X[0, :, 0]], r"X\[36\] has shape \(7,\), expected \(T_i, I\) with one"),
        (X[..., None], r"X has shape \(37, 7, 3, 1\), expected \(n, T, I\) or \(n, T\)"),
        (X[:, 0, 0], "Expected 2D array, got 1D array"),
        (X[:36], "inconsistent numbers of samples"),
    ],
)
def test_what_x_cannot_be(given: Any, message: str) -> None:
    for estimator, y in (classifier(), LABELS), (regressor(), NUMBERS):
        with pytest.raises(ValueError, match=message):
            estimator.fit(given, y)


def test_other_features_than_those_of_fit_are_refused() -> None:
    found = regressor().fit(RAGGED, NUMBERS)
    for given in (X[:, :, :2], [x[:, :2] for x in RAGGED], X[:, :, 0]):
        with pytest.raises(ValueError, match=r"X has [12] features, but .* expecting 3 features"):
            found.predict(given)


# ------------------------------------------------------------------------------------ same bits


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "num_layers": 2, "cell": "lstm"}])
def test_a_random_state_gives_the_same_bits_again(options: Any) -> None:
    def proba(state: Any) -> np.ndarray:
        found = classifier(random_state=state, early_stopping=True, **options)
        return found.fit(RAGGED, LABELS).predict_proba(RAGGED)

    np.testing.assert_array_equal(proba(1), proba(1))
    np.testing.assert_array_equal(proba(1), proba(np.random.RandomState(1)))
    assert not np.array_equal(proba(1), proba(2))


def test_the_bits_do_not_depend_on_threads() -> None:
    found = []
    for threads in (1, 2, 3):
        with rnnfast.num_threads(threads):
            trained = classifier(hidden_size=40, batch_size=37, bidirectional=True).fit(X, LABELS)
            found.append(trained.predict_proba(X))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


# --------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("given", [X, RAGGED], ids=["array", "list"])
def test_a_weight_of_two_is_the_example_twice(given: Any) -> None:
    """In one full batch; with early rounding errors, which training makes larger."""
    weight = np.arange(37) % 3
    rows = np.repeat(np.arange(37), weight)
    twice = [given[i] for i in rows]
    for make, y, predict in (
        (classifier, LABELS, "predict_proba"),
        (regressor, NUMBERS, "predict"),
    ):
        one = make(batch_size=99).fit(given, y, sample_weight=weight)
        other = make(batch_size=99).fit(twice, y[rows])
        expected = getattr(other, predict)(given)
        np.testing.assert_allclose(getattr(one, predict)(given), expected, rtol=1e-9)
        plain = getattr(make(batch_size=99).fit(given, y), predict)(given)
        assert np.abs(plain - expected).max() > 1e-3


def test_a_weight_of_zero_leaves_out() -> None:
    y = LABELS.copy()
    weight = np.ones(37)
    weight[-5:] = 0
    y[-5:] = "c"
    one = classifier().fit(X, y, sample_weight=weight)
    other = classifier().fit(X[:-5], y[:-5], sample_weight=weight[:-5])
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    with pytest.raises(ValueError, match="zero"):
        classifier().fit(X, y, sample_weight=np.zeros(37))
    with pytest.raises(ValueError, match="egative"):
        classifier().fit(X, y, sample_weight=weight - 1)


def test_class_weights_are_weights_of_examples() -> None:
    sizes = dict(zip(*np.unique(LABELS, return_counts=True), strict=True))
    own = np.array([37 / (3 * sizes[label]) for label in LABELS])
    one = classifier(class_weight="balanced").fit(X, LABELS).predict_proba(X)
    other = classifier().fit(X, LABELS, sample_weight=own).predict_proba(X)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    given = {"a": 2, "b": 1, "c": 0.5}
    both = classifier(class_weight=given).fit(X, LABELS, sample_weight=np.arange(37))
    weight = np.arange(37) * [given[label] for label in LABELS]
    product = classifier().fit(X, LABELS, sample_weight=weight)
    np.testing.assert_array_equal(both.predict_proba(X), product.predict_proba(X))


# ------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"], [-7, 3], [False, True], [1.0, 2.0],
        np.array(["x", "yy"], object), np.array([2**40, 2**41]),
    ],
)  # fmt: skip
def test_labels_of_any_kind(labels: Any) -> None:
    labels = np.asarray(labels)
    y = labels[(X[:, -1, 0] > 0).astype(int)]
    found = classifier(max_iter=60).fit(X, y)
    np.testing.assert_array_equal(found.classes_, labels)
    predicted = found.predict(X)
    assert predicted.dtype == y.dtype
    assert found.score(X, y) > 0.9
    proba = found.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(labels[proba.argmax(axis=1)], predicted)


def test_several_targets() -> None:
    y = np.stack([NUMBERS, 1000 - 50 * NUMBERS], axis=1)
    found = regressor(max_iter=150).fit(X, y)
    predicted = found.predict(X)
    assert predicted.shape == (37, 2)
    assert found.score(X, y) > 0.9
    np.testing.assert_allclose(1000 - 50 * predicted[:, 0], predicted[:, 1], atol=100)
    one, column = regressor().fit(X, NUMBERS), regressor().fit(X, NUMBERS[:, None])
    np.testing.assert_array_equal(one.predict(X)[:, None], column.predict(X))


def test_features_and_targets_are_standardized() -> None:
    """Any unit will do: shifts and scales that round nothing change no bit."""
    X_other = X.round(3) * 1024
    one, other = regressor().fit(X_other / 1024, NUMBERS), regressor().fit(X_other, NUMBERS * 64)
    np.testing.assert_allclose(other.predict(X_other), one.predict(X_other / 1024) * 64, rtol=1e-9)
    raw = regressor(standardize=False).fit(X_other, NUMBERS)
    np.testing.assert_array_equal(raw.predict(X_other), raw.model_(X_other)[:, 0])
    constant = X.copy()
    constant[:, :, 1] = 0.1
    assert np.isfinite(regressor().fit(constant, NUMBERS).predict(constant)).all()


def test_padding_does_not_count_for_the_mean() -> None:
    found = regressor().fit([np.full((n, 1), 3.0 * n) for n in (1, 2, 5)], [1, 2, 3])
    assert found.standardizer_.mean == (3 + 2 * 6 + 5 * 15) / 8


def test_the_loss_decides_what_is_predicted() -> None:
    y = np.where(np.arange(37) % 4 == 0, 10.0, 0.0)
    blank = np.zeros((37, 4, 1))
    options = {"max_iter": 300, "batch_size": 37}
    mean = regressor(**options).fit(blank, y).predict(blank[:1])
    median = regressor(loss="absolute_error", **options).fit(blank, y).predict(blank[:1])
    assert abs(mean[0] - y.mean()) < 0.05
    assert abs(median[0]) < 0.3


# ------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn", "mgu", cells.peephole_lstm])
def test_cells_by_name_or_as_they_are(cell: Any) -> None:
    found = regressor(cell=cell, num_layers=2, bidirectional=True, dropout=0.1).fit(X, NUMBERS)
    kinds = {"gru": rnnfast.GRU, "lstm": rnnfast.LSTM, "rnn": rnnfast.RNN}
    assert type(found.model_[0]) is kinds.get(
        cell if isinstance(cell, str) else "", rnnfast.Recurrent
    )
    assert found.model_[0].num_layers == 2
    assert found.predict(X).shape == (37,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cell": "grue"}, ValueError, "cell is 'grue', expected one of 'rnn', 'gru', 'lstm' or"),
        ({"cell": 3}, TypeError, "cell has type int"),
        ({"hidden_size": 0}, ValueError, "hidden_size is 0"),
        ({"max_iter": 0}, ValueError, "max_iter is 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size has type float"),
        ({"dropout": 1.0}, ValueError, "dropout is 1.0"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate is -1.0"),
        ({"clip_norm": 0}, ValueError, "clip_norm is 0"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change is 0"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction is 1.0"),
    ],
)
def test_parameters_are_checked_in_fit(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        regressor(**options).fit(X, NUMBERS)
    with pytest.raises(ValueError, match="loss is 'l2', expected one of"):
        regressor(loss="l2").fit(X, NUMBERS)


def test_weight_decay_makes_weights_small() -> None:
    sizes = [
        np.abs(regressor(max_iter=60, weight_decay=decay).fit(X, NUMBERS).model_.params["2.weight"])
        for decay in (0.0, 5.0)
    ]
    assert sizes[1].mean() < 0.3 * sizes[0].mean()


def test_both_directions_end_where_they_have_read_all() -> None:
    found = regressor(bidirectional=True, standardize=False).fit(RAGGED, NUMBERS)
    x, lengths = training.pad(RAGGED)
    _, state = found.model_[0](x.swapaxes(0, 1), lengths=lengths)
    expected = found.model_[-1](np.concatenate(list(state), axis=1))[:, 0]
    np.testing.assert_array_equal(found.predict(RAGGED), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_network_is_saved_by_itself(bidirectional: bool, tmp_path: Path) -> None:
    found = regressor(bidirectional=bidirectional, standardize=False).fit(RAGGED, NUMBERS)
    found.model_.save(tmp_path / "network.npz")
    x, lengths = training.pad(RAGGED, batch_first=True)
    predicted = rnnfast.load(tmp_path / "network.npz").predict(x, lengths=lengths)[:, 0]
    np.testing.assert_array_equal(found.predict(RAGGED), predicted)


# -------------------------------------------------------------------------------------- training


def test_early_stopping_keeps_the_best_epoch() -> None:
    noise = np.random.default_rng(1).standard_normal(37)
    options = {"early_stopping": True, "n_iter_no_change": 4, "max_iter": 200}
    found = regressor(validation_fraction=0.3, **options).fit(X, noise)
    history = found.history_
    assert found.n_iter_ == history.epochs < 200
    assert history.epochs - 1 - history.best_epoch == 4
    again = regressor(validation_fraction=0.3, **(options | {"max_iter": history.best_epoch + 1}))
    np.testing.assert_array_equal(again.fit(X, noise).predict(X), found.predict(X))


def test_the_part_held_out_has_its_share_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    plain = _network.Network._train

    def train(self: Any, model: Any, loss: Any, examples: Any, held_out: Any, rng: Any) -> None:
        given[:] = examples, held_out
        plain(self, model, loss, examples, held_out, rng)

    monkeypatch.setattr(_network.Network, "_train", train)
    y = np.repeat(["a", "b"], [25, 12])
    weight = np.arange(1, 38.0)
    options = {"early_stopping": True, "validation_fraction": 1 / 3, "max_iter": 1}
    classifier(**options).fit(RAGGED, y, sample_weight=weight)
    examples, held_out = given
    assert np.bincount(held_out.y).tolist() == [9, 4]
    assert sorted([*examples.weight, *held_out.weight]) == weight.tolist()
    np.testing.assert_array_equal(
        held_out.lengths, [len(RAGGED[int(w) - 1]) for w in held_out.weight]
    )


def test_the_figure_held_out_is_weighted() -> None:
    """An example of weight zero in the held-out part counts for nothing, as elsewhere."""
    weight = np.where(np.arange(37) % 2, 1.0, 1e-12)
    y = np.where(np.arange(37) % 2, 0.0, np.random.default_rng(2).standard_normal(37) * 9)
    options = {"early_stopping": True, "validation_fraction": 0.5, "max_iter": 5}
    options["standardize"] = False
    figures = regressor(**options).fit(X, y, sample_weight=weight).history_.held_out
    plain = regressor(**options).fit(X, y).history_.held_out
    assert max(figures) < 1.5
    assert min(plain) > 10


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    regressor().fit(X, NUMBERS)
    assert capsys.readouterr() == ("", "")
    regressor(verbose=1).fit(X, NUMBERS)
    shown = capsys.readouterr()
    assert "SequenceRegressor" in shown.err
    assert shown.out == ""


def test_an_interrupted_training_leaves_an_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(training.Adam):
        def step(self, grads: Any) -> None:
            super().step(grads)
            if self.steps == 6:
                raise KeyboardInterrupt

    monkeypatch.setattr(_network, "Adam", Interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        found = regressor().fit(X, NUMBERS)
    assert found.n_iter_ == 1
    assert found.predict(X).shape == (37,)
