"""`Forecaster`: horizons, strategies, quantiles, exogenous inputs, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnfast

pytest.importorskip("sklearn")
from rnnfast.estimators import Forecaster

T = np.arange(203.0)
SINE = np.sin(T / 3) + 2
SMALL: dict[str, Any] = {"hidden_size": 8, "max_iter": 2, "batch_size": 19, "random_state": 0}


def forecaster(horizon: int = 5, **options: Any) -> Forecaster:
    return Forecaster(horizon, **(SMALL | {"window": 11} | options))


# ------------------------------------------------------------------------------------- forecasts


@pytest.mark.parametrize("scaling", ["window", "series"])
@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_it_continues_a_sine(strategy: str, scaling: str) -> None:
    found = forecaster(7, strategy=strategy, scaling=scaling, max_iter=40, hidden_size=16)
    forecast = found.fit(SINE).predict()
    assert forecast.shape == (7,)
    np.testing.assert_allclose(forecast, np.sin(np.arange(203, 210) / 3) + 2, atol=0.15)


def test_the_window_is_twice_the_horizon_unless_given() -> None:
    assert Forecaster(6, max_iter=1).fit(SINE).window_ == 12
    assert Forecaster(6, window=4, max_iter=1).fit(SINE).window_ == 4
    assert Forecaster().horizon == 24


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_only_the_last_window_of_a_series_counts(strategy: str) -> None:
    found = forecaster(strategy=strategy).fit(SINE)
    np.testing.assert_array_equal(found.predict(), found.predict(SINE))
    np.testing.assert_array_equal(found.predict(), found.predict(SINE[-11:]))
    longer = np.concatenate([T, SINE])
    np.testing.assert_array_equal(found.predict(), found.predict(longer))
    assert not np.array_equal(found.predict(), found.predict(SINE[:-1]))


def test_recursive_is_one_step_after_the_other() -> None:
    exog = np.cos(np.arange(208) / 5)
    found = forecaster(strategy="recursive").fit(SINE, exog[:203])
    forecast = found.predict(exog_future=exog[203:])
    series = SINE
    for step in range(5):
        future = np.concatenate([exog[203 + step :], np.zeros(step)])
        first = found.predict(series, exog[: 203 + step], future)[0]
        assert first == forecast[step]
        series = np.append(series, first)


def test_a_trend_goes_on() -> None:
    """Each window is moved to mean 0, so a level beyond all levels of the past is no surprise."""
    series = 0.5 * T + np.sin(T)
    ahead = np.arange(203, 208)
    forecast = forecaster(max_iter=40).fit(series).predict()
    np.testing.assert_allclose(forecast, 0.5 * ahead + np.sin(ahead), atol=1)
    moved = forecaster(max_iter=5).fit(series + 1000).predict()
    plain = forecaster(max_iter=5).fit(series).predict()
    np.testing.assert_allclose(moved, plain + 1000, rtol=1e-9)
    scaled = forecaster(max_iter=5).fit(series * 1e6).predict()
    np.testing.assert_allclose(scaled, plain * 1e6, rtol=1e-8)


def test_without_scaling_the_network_reads_the_numbers_themselves() -> None:
    found = forecaster(scaling="none").fit(SINE)
    np.testing.assert_array_equal(found.predict(), found.model_(SINE[None, -11:, None])[0])


def test_several_variables_are_forecast_together() -> None:
    series = np.stack([SINE, 100 * np.cos(T / 3), np.ones(203)], axis=1)
    ahead = np.arange(203, 208)
    forecast = forecaster(max_iter=60, hidden_size=16).fit(series).predict()
    assert forecast.shape == (5, 3)
    np.testing.assert_allclose(forecast[:, 0], np.sin(ahead / 3) + 2, atol=0.3)
    np.testing.assert_allclose(forecast[:, 1], 100 * np.cos(ahead / 3), atol=30)
    np.testing.assert_allclose(forecast[:, 2], 1, atol=0.3)
    found = forecaster(quantiles=[0.2, 0.8]).fit(series)
    assert found.predict().shape == (5, 3, 2)
    column, flat = forecaster().fit(SINE[:, None]), forecaster().fit(SINE)
    np.testing.assert_array_equal(column.predict()[:, 0], flat.predict())


# ------------------------------------------------------------------------------------- quantiles


def test_quantiles_hold_their_share() -> None:
    noise = np.random.default_rng(0).gumbel(size=2000)
    quantiles = (0.1, 0.5, 0.9)
    found = forecaster(2, quantiles=quantiles, max_iter=10, learning_rate=0.003).fit(noise)
    forecast = found.predict()
    assert forecast.shape == (2, 3)
    assert (np.diff(forecast) >= 0).all()
    np.testing.assert_allclose(forecast, [np.quantile(noise, quantiles)] * 2, atol=0.35)
    one = forecaster(2, quantiles=[0.5]).fit(SINE).predict()
    assert one.shape == (2, 1)


def test_quantiles_that_cross_are_put_in_order() -> None:
    found = forecaster(quantiles=(0.1, 0.5, 0.9), scaling="none").fit(SINE)
    bias = found.model_.params["2.bias"]
    bias[...] = np.tile([3.0, -3.0, 0.0], 5)
    scores = found.model_(SINE[None, -11:, None]).reshape(5, 3)
    assert (np.diff(scores) < 0).any()
    np.testing.assert_array_equal(found.predict(), np.sort(scores))


# -------------------------------------------------------------------------------- exogenous inputs


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_inputs_known_ahead_are_used(strategy: str) -> None:
    exog = np.random.default_rng(0).standard_normal((408, 2))
    series = exog @ [2.0, -1.0]
    found = forecaster(strategy=strategy, max_iter=30).fit(series[:403], exog[:403])
    forecast = found.predict(exog_future=exog[403:])
    np.testing.assert_allclose(forecast, series[403:], atol=0.8)
    other = found.predict(exog_future=-exog[403:])
    np.testing.assert_allclose(other, -series[403:], atol=0.8)
    given = found.predict(series[:403], exog[:403], exog[403:])
    np.testing.assert_array_equal(given, forecast)


def test_exogenous_inputs_with_quantiles_of_several_variables() -> None:
    series = np.stack([SINE, T], axis=1)
    found = forecaster(quantiles=(0.25, 0.75), bidirectional=True).fit(series, T)
    assert found.predict(exog_future=np.arange(203, 208)).shape == (5, 2, 2)
    assert found.model_[0].input_size == 2 + 1 + 1
    assert found.model_[-1].output_size == 4


def test_the_future_is_not_seen_in_training() -> None:
    """What the network reads of the steps to come is the exogenous inputs, not the values."""
    found = forecaster(scaling="none").fit(SINE, T)
    examples = found._windows.examples(SINE[:, None], T[:, None])
    assert examples.x.shape == (203 - 15, 16, 3)
    np.testing.assert_array_equal(examples.x[3, :, 0], [*SINE[3:14], 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(examples.x[3, :, 1], [0] * 11 + [1] * 5)
    np.testing.assert_array_equal(examples.x[3, :, 2], T[3:19])
    np.testing.assert_array_equal(examples.y[3, :, 0], SINE[3:19])
    np.testing.assert_array_equal(examples.weight[3], [0] * 11 + [1] * 5)


# ------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2, "quantiles": (0.1, 0.9)}])
def test_a_random_state_gives_the_same_bits_for_any_threads(options: Any) -> None:
    def forecast(state: int, threads: int) -> np.ndarray:
        with rnnfast.num_threads(threads):
            return forecaster(random_state=state, hidden_size=40, **options).fit(SINE).predict()

    np.testing.assert_array_equal(forecast(1, 1), forecast(1, 2))
    assert not np.array_equal(forecast(1, 1), forecast(2, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_is_computed_in_the_dtype_of_the_series(dtype: Any) -> None:
    found = forecaster(strategy="recursive").fit(SINE.astype(dtype), list(T))
    forecast = found.predict(SINE.tolist(), T.astype(int), np.arange(5))
    assert forecast.dtype == dtype
    assert found.model_.params["0.weight_hh_l0"].dtype == dtype


def test_parameters_set_after_fit_wait_for_the_next_one() -> None:
    found = forecaster().fit(SINE)
    before = found.predict()
    found.set_params(horizon=3, window=2, quantiles=(0.5,), strategy="recursive")
    np.testing.assert_array_equal(found.predict(), before)
    found.set_params(quantiles=None).fit(SINE)
    assert found.predict().shape == (3,)


def test_the_part_held_out_is_the_end_and_shares_no_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(Forecaster, "_train", lambda self, *parts: given.extend(parts[2:4]))
    forecaster(early_stopping=True, validation_fraction=0.2, scaling="none").fit(T)
    examples, held_out = given
    assert len(held_out.x) == np.ceil(0.2 * (203 - 15))
    assert held_out.y.max() == 202
    assert examples.y.min() == 11
    assert examples.y.max() == held_out.y.min() - 1


def test_early_stopping_ends_the_training() -> None:
    noise = np.random.default_rng(0).standard_normal(100)
    found = forecaster(early_stopping=True, n_iter_no_change=3, max_iter=99).fit(noise)
    assert found.n_iter_ == found.history_.best_epoch + 4 < 99
    exog = forecaster(early_stopping=True, max_iter=2).fit(noise, noise)
    assert len(exog.history_.held_out) == 2


# --------------------------------------------------------------------------------------- refusals


def nan_at(array: np.ndarray, index: int) -> np.ndarray:
    array = array.copy()
    array[index] = np.nan
    return array


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 0}, ValueError, "horizon is 0"),
        ({"horizon": 2.0}, TypeError, "horizon has type float"),
        ({"window": 0}, ValueError, "window is 0"),
        ({"strategy": "both"}, ValueError, "strategy is 'both', expected one of 'direct', 'rec"),
        ({"loss": "l1"}, ValueError, "loss is 'l1', expected one of 'squared_error', 'absol"),
        ({"scaling": None}, ValueError, "scaling is None, expected one of 'window', 'series'"),
        ({"quantiles": (0.9, 0.1)}, ValueError, r"quantiles is \(0.9, 0.1\), expected rising"),
        ({"quantiles": (0.0, 0.5)}, ValueError, "quantiles is"),
        ({"quantiles": (0.5, 1.0)}, ValueError, "quantiles is"),
        ({"quantiles": ()}, ValueError, "quantiles is"),
        ({"quantiles": 0.5}, ValueError, "quantiles is"),
        ({"quantiles": (0.5,), "strategy": "recursive"}, ValueError, "need strategy='direct'"),
        ({"horizon": 100, "window": 104}, ValueError, "203 steps, expected at least 204, window +"),
        ({"early_stopping": True, "validation_fraction": 0.99}, ValueError, "leaves nothing"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0"),
    ],
)
def test_parameters_are_checked_in_fit(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        forecaster(**options).fit(SINE)


def test_the_shortest_series_has_one_window() -> None:
    found = forecaster().fit(SINE[:16])
    assert found.predict().shape == (5,)
    with pytest.raises(ValueError, match="15 steps, expected at least 16"):
        forecaster().fit(SINE[:15])
    assert forecaster(strategy="recursive").fit(SINE[:12]).predict().shape == (5,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nan_at(SINE, 3),), "Input series contains NaN"),
        ((SINE, nan_at(T, 3)), "Input exog contains NaN"),
        ((SINE, T[:-1]), r"exog has shape \(202, 1\), expected \(203, 1\)"),
        ((SINE[:, None, None],), "dim 3"),
    ],
)
def test_what_fit_refuses(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster().fit(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SINE[:10], T[:10], T[:5]), "series has 10 steps, expected at least window = 11"),
        ((SINE[:, None], T, T[:5]), r"series has .* as in fit; .* are exog_fut"),
        ((nan_at(SINE, 3), T, T[:5]), "Input series contains NaN"),
        ((SINE, None, T[:5]), "exog is missing, but fit had some"),
        ((SINE, T[:5], T[:5]), r"exog has shape \(5, 1\), expected \(203, 1\)"),
        ((SINE, T), "exog_future is missing, but fit had some"),
        ((None, None, T[:4]), r"exog_future has shape \(4, 1\), expected \(5, 1\)"),
        ((None, None, nan_at(T[:5], 1)), "Input exog_future contains NaN"),
        ((None, T, T[:5]), "exog is given without series"),
    ],
)
def test_what_predict_refuses(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster().fit(SINE, T).predict(*arguments)


def test_exogenous_inputs_that_fit_had_not_are_refused() -> None:
    found = forecaster().fit(SINE)
    with pytest.raises(ValueError, match="exog_future is given, but fit had none"):
        found.predict(exog_future=T[:5])
    with pytest.raises(ValueError, match="exog is given, but fit had none"):
        found.predict(SINE, T)


def test_tables_must_have_the_columns_of_fit() -> None:
    pandas = pytest.importorskip("pandas")
    exog = pandas.DataFrame({"rain": T, "sun": SINE})
    found = forecaster(max_iter=2).fit(pandas.DataFrame({"load": SINE}), exog)
    future = exog[:5]
    expected = found.predict(exog_future=future)
    np.testing.assert_array_equal(found.predict(exog_future=future.to_numpy()), expected)
    message = r"exog_future has the columns \['sun', 'rain'\], expected \['rain', 'sun'\] as in fit"
    with pytest.raises(ValueError, match=message):
        found.predict(exog_future=future[["sun", "rain"]])
    with pytest.raises(ValueError, match="exog has the columns"):
        found.predict(pandas.DataFrame({"load": SINE}), exog.rename(columns=str.upper), future)
    message = r"series has the columns \['price'\], expected \['load'\]"
    with pytest.raises(ValueError, match=message):
        found.predict(pandas.DataFrame({"price": SINE}), exog, future)
    with pytest.raises(ValueError, match="contains NaN"):
        found.fit(pandas.DataFrame({"price": nan_at(SINE, 3)}), exog)
    series = pandas.DataFrame({"load": SINE})
    np.testing.assert_array_equal(found.predict(series, exog, future), expected)
    numbered = pandas.DataFrame({0: SINE, np.nan: SINE})  # names that are no strings say nothing
    assert forecaster(max_iter=1).fit(numbered).predict(numbered[[np.nan, 0]]).shape == (5, 2)
