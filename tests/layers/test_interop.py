"""Keras weights: the same results as Keras, whose own are in fixtures/keras.npz."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import product

from rnnfast import GRU, LSTM, RNN
from rnnfast.interop import from_keras, to_keras

Array = np.ndarray[Any, np.dtype[Any]]

with np.load(Path(__file__).parents[1] / "fixtures" / "keras.npz") as fixtures:
    FIXTURES = dict(fixtures)
NAMES = sorted({name.partition("/")[0] for name in FIXTURES})
CLASSES: dict[str, Any] = {"SimpleRNN": RNN, "GRU": GRU, "LSTM": LSTM}


def arrays(case: str, part: str) -> list[Array]:
    """The numbered arrays of a case, in order."""
    names = [name for name in FIXTURES if name.startswith(f"{case}/{part}/")]
    return [FIXTURES[f"{case}/{part}/{i}"] for i in range(len(names))]


def options_of(case: str) -> dict[str, Any]:
    """What the Keras layer was."""
    return json.loads(str(FIXTURES[f"{case}/options"]))


def from_fixture(case: str) -> Any:
    """The layer made of a case's weights, by Keras's name and with no more than is needed."""
    facts = options_of(case)
    options: dict[str, Any] = {"batch_first": True}
    if "activation" in facts:
        options["nonlinearity"] = {"linear": "identity"}.get(
            facts["activation"], facts["activation"]
        )
    if not facts["bias"] and "reset_after" in facts:
        options["reset_after"] = facts["reset_after"]
    return from_keras(facts["kind"], arrays(case, "weights"), **options)


def ours(kind: str, states: list[Array]) -> Any:
    """Keras's states, forward direction first, each h or h and c, as ours."""
    if kind != "LSTM":
        return np.stack(states)
    return np.stack(states[::2]), np.stack(states[1::2])


def test_the_fixtures_are_what_they_should_be() -> None:
    found = [options_of(case) for case in NAMES]
    for kind, bias, two in [(k, b, d) for k in CLASSES for b in (0, 1) for d in (0, 1)]:
        like = {"kind": kind, "bias": bool(bias), "bidirectional": bool(two)}
        assert any(like.items() <= facts.items() for facts in found), like
    assert {facts.get("activation") for facts in found} >= {"tanh", "relu", "sigmoid", "linear"}
    assert {facts.get("reset_after") for facts in found} == {True, False, None}
    for name, value in FIXTURES.items():
        if "/weights/" in name or "/states/" in name:
            assert np.all(value != 0), name


@pytest.mark.parametrize("case", NAMES)
def test_results_are_those_of_keras(case: str) -> None:
    facts, layer = options_of(case), from_fixture(case)
    assert type(layer) is CLASSES[facts["kind"]]
    assert layer.bias == facts["bias"]
    assert layer.bidirectional == facts["bidirectional"]
    x, states = FIXTURES[f"{case}/x"], ours(facts["kind"], arrays(case, "states"))
    y, finals = layer(x, states, lengths=facts.get("lengths"))
    expected = ours(facts["kind"], arrays(case, "finals"))
    got = np.concatenate([y.ravel(), np.ravel(finals)])
    want = np.concatenate([FIXTURES[f"{case}/y"].ravel(), np.ravel(expected)])
    assert got.dtype == want.dtype == layer.dtype
    allowed = 20 * np.finfo(np.float32).eps * np.max(np.abs(want))
    np.testing.assert_allclose(got, want, rtol=0, atol=allowed)


@pytest.mark.parametrize("case", NAMES)
def test_weights_go_back_unchanged(case: str) -> None:
    weights, layer = arrays(case, "weights"), from_fixture(case)
    back = to_keras(layer)
    for got, want in zip(back, weights, strict=True):
        np.testing.assert_array_equal(got, want, strict=True)
        assert got.flags.c_contiguous
        got[...] = 0  # a copy
    for got, want in zip(to_keras(layer), weights, strict=True):
        np.testing.assert_array_equal(got, want)
    weights[0][...] = 0  # and so is the layer
    assert np.all(layer.params["weight_ih_l0"] != 0)


@pytest.mark.parametrize(
    "case", ["tanh-bias-masked", "reset_before-bias-masked", "lstm-bias-masked"]
)
def test_one_bias_becomes_bias_ih(case: str) -> None:
    params = from_fixture(case).params
    assert np.all(params["bias_ih_l0"] != 0)
    assert np.all(params["bias_hh_l0"] == 0)


def test_the_class_will_do_for_the_name() -> None:
    weights = arrays("gru-bias-masked", "weights")
    expected = from_keras("GRU", weights).params
    for kind in (GRU, "gru"):
        for name, value in from_keras(kind, tuple(weights)).params.items():
            np.testing.assert_array_equal(value, expected[name])
    assert type(from_keras("rnn", arrays("tanh-bias-masked", "weights"))) is RNN


def test_without_a_bias_keras_defaults_are_assumed() -> None:
    assert from_keras("GRU", arrays("gru", "weights")).reset_after is True
    assert from_keras("SimpleRNN", arrays("tanh", "weights")).nonlinearity == "tanh"
    assert from_keras("GRU", arrays("gru", "weights")).batch_first is False


@pytest.mark.parametrize(
    "options",
    product(
        kind=("rnn", "gru", "reset_before", "lstm"),
        bias=(True, False),
        bidirectional=(True, False),
        dtype=("float32", "float64"),
    ),
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_layer_survives_the_way_through_keras(options: dict[str, Any]) -> None:
    options = dict(options)
    kind = options.pop("kind")
    kinds: dict[str, Any] = {"rnn": RNN, "gru": GRU, "reset_before": GRU, "lstm": LSTM}
    variant = {"reset_after": kind == "gru"} if kinds[kind] is GRU else {}
    layer = kinds[kind](3, 5, rng=0, **variant, **options)
    again = from_keras(kinds[kind], to_keras(layer), **variant)
    assert repr(again) == repr(layer)
    x = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(layer.dtype)
    allowed = 20 * np.finfo(layer.dtype).eps
    np.testing.assert_allclose(again(x)[0], layer(x)[0], rtol=0, atol=allowed)


# --------------------------------------------------------------------------------------- errors

GRU_WEIGHTS = {
    "kernel": np.zeros((3, 15), np.float32),
    "recurrent": np.zeros((5, 15), np.float32),
    "bias": np.zeros((2, 15), np.float32),
}


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"kind": "RNN2"}, ValueError, "kind is 'RNN2', expected 'SimpleRNN', 'GRU', 'LSTM'"),
        ({}, {"kind": dict}, ValueError, "kind is <class 'dict'>, expected"),
        ({}, {"nonlinearity": "relu"}, ValueError, "nonlinearity is 'relu', but kind is GRU"),
        ({}, {"kind": "LSTM", "reset_after": True}, ValueError, "reset_after is True, but kind is"),
        (
            {},
            {"reset_after": False},
            ValueError,
            r"weights[2] has shape (2, 15), expected (3*H,) = (15,)",
        ),
        (
            {"bias": np.zeros(15, np.float32)},
            {"reset_after": True},
            ValueError,
            "weights[2] has shape (15,), expected (2, 3*H) = (2, 15)",
        ),
        (
            {"bias": np.zeros(20, np.float32)},
            {},
            ValueError,
            "weights[2] has shape (20,), expected (2, 3*H) = (2, 15) or (3*H,) = (15,)",
        ),
        (
            {},
            {"kind": "LSTM"},
            ValueError,
            "weights[0] has shape (3, 15), expected (I, G*H) = (3, 20)",
        ),
        (
            {},
            {"kind": "SimpleRNN"},
            ValueError,
            "weights[0] has shape (3, 15), expected (I, G*H) = (3, 5)",
        ),
        (
            {"recurrent": np.zeros((5, 14), np.float32)},
            {},
            ValueError,
            "weights[1] has shape (5, 14), expected (H, G*H) = (5, 15)",
        ),
        (
            {"kernel": np.zeros(3, np.float32)},
            {},
            ValueError,
            "weights[0] has shape (3,), expected",
        ),
        (
            {"kernel": [[1.0]]},
            {},
            TypeError,
            "weights[0] has type list, expected numpy.ndarray; np.asarray(weights[0], np.float32)",
        ),
        (
            {"kernel": np.zeros((3, 15), np.float16)},
            {},
            TypeError,
            "weights[0] has dtype float16, expected float32 or float64; "
            "weights[0].astype(np.float32)",
        ),
        (
            {"bias": np.zeros((2, 15))},
            {},
            TypeError,
            "weights[2] has dtype float64, expected float32 like weights[0]; "
            "weights[2].astype(np.float32), or weights[0].astype(np.float64)",
        ),
        (
            {"more": np.zeros(1), "yet": np.zeros(1)},
            {},
            ValueError,
            "weights has 5 arrays, expected 2 or 3 (without or with a bias) for each direction; "
            "load each of several layers by itself",
        ),
        (
            {"more": np.zeros(1), "yet": np.zeros(1)},
            {"bidirectional": True},
            ValueError,
            "weights has 5 arrays, expected 4 or 6 with bidirectional=True",
        ),
        (
            {},
            {"bidirectional": True},
            ValueError,
            "weights has 3 arrays, expected 4 or 6 with bidirectional=True",
        ),
    ],
)
def test_errors_say_what_came_and_what_was_expected(
    change: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    weights = list((GRU_WEIGHTS | change).values())
    with pytest.raises(error, match=re.escape(message)):
        from_keras(**{"kind": "GRU", "weights": weights} | options)


def test_weights_of_the_second_direction_are_checked() -> None:
    weights = [*GRU_WEIGHTS.values()] * 2
    weights[4] = np.zeros((5, 12), np.float32)
    with pytest.raises(ValueError, match=r"weights\[4\] has shape \(5, 12\), expected \(H, G\*H\)"):
        from_keras("GRU", weights)
    with pytest.raises(TypeError, match="weights has type dict, expected a list of arrays"):
        from_keras("GRU", GRU_WEIGHTS)  # type: ignore[arg-type]


def test_a_keras_layer_is_not_its_weights() -> None:
    class KerasLayer:
        def get_weights(self) -> list[Array]:
            return list(GRU_WEIGHTS.values())

    message = r"weights has type KerasLayer, expected a list of arrays; weights\.get_weights\(\)$"
    with pytest.raises(TypeError, match=message):
        from_keras("GRU", KerasLayer())  # type: ignore[arg-type]


@pytest.mark.parametrize("arrays_each", [2, 3])
def test_stacked_layers_are_told_from_two_directions(arrays_each: int) -> None:
    """By the caller: their weights look alike."""
    one = [np.zeros((5, 15), np.float32), *list(GRU_WEIGHTS.values())[1:]][:arrays_each]
    assert from_keras("GRU", one * 2).bidirectional
    assert from_keras("GRU", one * 2, bidirectional=True).bidirectional
    assert not from_keras("GRU", one, bidirectional=False).bidirectional
    for layers in (2, 3):
        message = (
            f"weights has {layers * arrays_each} arrays, expected 2 or 3 with bidirectional=False; "
            "load each of several layers by itself"
        )
        with pytest.raises(ValueError, match=message):
            from_keras("GRU", one * layers, bidirectional=False)


def test_stacked_layers_of_other_inputs_are_no_two_directions() -> None:
    first = list(GRU_WEIGHTS.values())
    second = [np.zeros((5, 15), np.float32), *first[1:]]
    message = (
        r"weights\[3\] has shape \(5, 15\), expected \(I, G\*H\) = \(3, 15\); "
        "load each of several layers by itself"
    )
    with pytest.raises(ValueError, match=message):
        from_keras("GRU", first + second)


def test_what_keras_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="layer has num_layers=2, a Keras layer has num_layers=1"):
        to_keras(GRU(3, 5, 2))
    with pytest.raises(ValueError, match="layer has proj_size=2, a Keras layer has proj_size=0"):
        to_keras(LSTM(3, 5, proj_size=2))
    with pytest.raises(TypeError, match="layer has type list, expected RNN, GRU or LSTM"):
        to_keras([])  # type: ignore[arg-type]
