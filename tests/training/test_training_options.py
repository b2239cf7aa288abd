"""What the optimisers take, what they refuse, and what they are by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from training_cases import assert_steps_of_torch, cases, gradients, parameters

from rnnfast.training import SGD, Adam, AdamW, RMSprop, Rprop

KINDS = [SGD, Rprop, RMSprop, Adam, AdamW]


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        (SGD, {"lr": 0.01, "momentum": 0}),
        (Rprop, {"lr": 0.01, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50)}),
        (RMSprop, {"lr": 0.01, "alpha": 0.99, "eps": 1e-8}),
        (Adam, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}),
        (AdamW, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
    ],
)
def test_defaults(kind: Any, defaults: dict[str, Any]) -> None:
    """Of every option, as the documentation has them, and as the steps go by them."""
    optimizer = kind(parameters())
    assert {name: getattr(optimizer, name) for name in defaults} == defaults
    given, none = parameters(), parameters()
    first, second = kind(given, **defaults), kind(none)
    for step in range(3):
        first.step(gradients(step))
        second.step(gradients(step))
    for name, p in given.items():
        np.testing.assert_array_equal(p, none[name])


# Of every option a value under which the third step is another.
OTHERS: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {"lr": 0.02}),
    (SGD, {"momentum": 0.5}),
    (Rprop, {"lr": 0.02}),
    (Rprop, {"etas": (0.4, 1.2)}),
    (Rprop, {"etas": (0.5, 1.3)}),
    (Rprop, {"step_sizes": (0.009, 50)}),
    (Rprop, {"step_sizes": (1e-6, 0.011)}),
    (RMSprop, {"lr": 0.02}),
    (RMSprop, {"alpha": 0.9}),
    (RMSprop, {"eps": 0.1}),
    *((kind, {"lr": 0.02}) for kind in (Adam, AdamW)),
    *((kind, {"betas": (0.8, 0.999)}) for kind in (Adam, AdamW)),
    *((kind, {"betas": (0.9, 0.99)}) for kind in (Adam, AdamW)),
    *((kind, {"eps": 0.1}) for kind in (Adam, AdamW)),
    *((kind, {"weight_decay": 0.3}) for kind in (Adam, AdamW)),
]


@pytest.mark.parametrize(("kind", "options"), OTHERS)
def test_every_option_acts(kind: Any, options: dict[str, Any]) -> None:
    usual, other = parameters(), parameters()
    first, second = kind(usual), kind(other, **options)
    for step in (0, 3, 1):
        first.step(gradients(step))
        second.step(gradients(step))
    assert not np.allclose(usual["w"], other["w"], rtol=1e-5)


@cases
def test_a_rate_set_between_steps_is_that_of_the_next(kind: Any, options: Any) -> None:
    """But for Rprop, which has step sizes of its own from the first."""
    assert_steps_of_torch(kind, options, [options["lr"], 0.01, 0.3, 0.02])


@cases
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e15])
def test_steps_of_extreme_float32_gradients(kind: Any, options: Any, value: float) -> None:
    """Gradients of zero, and those whose squares vanish or are large: finite steps downhill."""
    p = np.ones(3, np.float32)
    optimizer = kind({"p": p}, **options | {"weight_decay": 0} if "betas" in options else options)
    optimizer.weight_decay = 0.0
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for _ in range(3):
            optimizer.step({"p": np.full(3, value, np.float32)})
    assert np.isfinite(p).all()
    assert (p <= 1).all()
    assert (p == 1).all() == (value == 0 or (value < 1e-9 and kind is not Rprop))


def test_decay_acts_without_a_gradient() -> None:
    """AdamW's multiplies the parameters, Adam's is a part of the gradient."""
    zero = {"p": np.zeros(1)}
    p, q = np.array([2.0]), np.array([2.0])
    AdamW({"p": p}, lr=0.1, weight_decay=0.5).step(zero)
    assert p[0] == pytest.approx(2 * (1 - 0.05), rel=1e-15)
    Adam({"p": q}, lr=0.1, weight_decay=0.5).step(zero)
    assert q[0] == pytest.approx(1.9, rel=1e-7)


def test_steps_are_counted_and_states_are_live() -> None:
    optimizer = SGD({"w": np.zeros(2)}, lr=1.0, momentum=0.5)
    assert optimizer.steps == 0
    optimizer.step({"w": np.ones(2)})
    optimizer.state["momentum"]["w"][0] = 8.0
    optimizer.step({"w": np.ones(2)})
    assert optimizer.steps == 2
    np.testing.assert_array_equal(optimizer.params["w"], [-6, -2.5])
    assert optimizer.state_arrays().keys() == {"momentum.w"}


def test_without_decay_the_parameters_are_not_read() -> None:
    """A parameter that is no number keeps to itself, and costs the others nothing."""
    p = np.array([np.nan, 1.0])
    SGD({"p": p}, lr=0.5).step({"p": np.ones(2)})
    np.testing.assert_array_equal(p, [np.nan, 0.5])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps is -1, expected an int >= 0"),
        ({"steps": 1.0}, ValueError, "steps is 1.0, expected an int >= 0"),
        ({"lr": 0.0}, ValueError, "lr is 0.0, expected a finite number > 0"),
        ({"lr": "x"}, TypeError, "lr has type str, expected a number"),
        ({"arrays": {}}, ValueError, r"optimizer state has missing keys \['momentum.w'\]"),
        ({"arrays": [1.0]}, TypeError, "optimizer state has type list, expected a dict of arrays"),
        ({"arrays": {"momentum.w": np.ones(3)}}, ValueError, r"'momentum.w' has shape \(3,\)"),
        ({"arrays": {"momentum.w": np.ones(2, "f4")}}, TypeError, "'momentum.w' has dtype float32"),
    ],
)
def test_wrong_states_change_nothing(change: Any, error: Any, message: str) -> None:
    optimizer = SGD({"w": np.zeros(2)}, lr=0.5)
    good: dict[str, Any] = {"steps": 3, "lr": 0.25, "arrays": {"momentum.w": np.ones(2)}}
    with pytest.raises(error, match=message):
        optimizer.load_state(**good | change)
    assert (optimizer.steps, optimizer.lr) == (0, 0.5)
    assert not optimizer.state["momentum"]["w"].any()
    optimizer.load_state(**good)
    assert (optimizer.steps, optimizer.lr) == (3, 0.25)
    assert optimizer.state["momentum"]["w"].all()


def test_wrong_gradients_change_nothing() -> None:
    params = parameters()
    optimizer = Adam(params)
    good = gradients(0)
    wrong = [
        ({"w": good["w"]}, ValueError, "grads has no entry 'b'"),
        (
            good | {"b": good["b"][:3]},
            ValueError,
            r"grads\['b'\] has shape \(3,\), expected \(7,\)",
        ),
        (
            good | {"b": good["b"].astype(np.float32)},
            TypeError,
            r"grads\['b'\] has dtype float32, expected float64 like params\['b'\]; "
            r"grads\['b'\].astype\(np.float64\), or params\['b'\].astype\(np.float32\)$",
        ),
        (good | {"b": [0.0] * 7}, TypeError, r"grads\['b'\] has type list, .*; np.asarray\(grads"),
        (good | {"b": np.ma.array(good["b"])}, TypeError, r"grads\['b'\] is a masked array"),
        ([*good.values()], TypeError, "grads has type list, expected a dict of arrays, or a layer"),
    ]
    for grads, error, message in wrong:
        with pytest.raises(error, match=message):
            optimizer.step(grads)
    assert optimizer.steps == 0
    for name, p in parameters().items():
        np.testing.assert_array_equal(params[name], p)


def test_wrong_options() -> None:
    params = parameters()
    wrong = [
        (lambda: SGD({}), "params is empty"),
        (lambda: SGD(params, lr=0.0), "lr is 0.0"),
        (lambda: SGD(params, lr=-0.1), "lr is -0.1, expected a finite number > 0"),
        (lambda: SGD(params, lr=np.inf), "lr is inf"),
        (lambda: SGD(params, momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(params, momentum=-0.1), "momentum is -0.1, expected 0 <= momentum < 1"),
        (lambda: SGD(params, momentum=np.nan), "momentum is nan"),
        (lambda: RMSprop(params, alpha=1.0), "alpha is 1.0, expected 0 <= alpha < 1"),
        (lambda: RMSprop(params, alpha=-0.1), "alpha is -0.1"),
        (lambda: Adam(params, betas=(1.0, 0.9)), "beta1 is 1.0"),
        (lambda: Adam(params, betas=(0.9, 0.9, 0.9)), "betas is .*, expected a pair of numbers"),
        (lambda: Adam(params, eps=0.0), "eps is 0.0"),
        (lambda: Adam(params, weight_decay=np.inf), "weight_decay is inf, expected a finite"),
        (lambda: AdamW(params, weight_decay=np.nan), "weight_decay is nan"),
        (lambda: Rprop(params, etas=(0.0, 1.2)), "etas is .*, expected 0 < eta_minus < 1"),
        (lambda: Rprop(params, etas=(0.5, 1.0)), "etas is"),
        (lambda: Rprop(params, etas=(0.5,)), "etas is .*, expected a pair of numbers"),
        (lambda: Rprop(params, step_sizes=(0.0, 0.5)), "step_sizes is .*, expected 0 < smallest"),
        (lambda: Adam(params, lr=float("nan")), "lr is nan"),
        (lambda: Adam(params, betas=(0.9, 1.0)), "beta2 is 1.0"),
        (lambda: Adam(params, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: Rprop(params, etas=(1.2, 0.5)), "etas is"),
        (lambda: Rprop(params, step_sizes=(1.0, 0.5)), "step_sizes is"),
        (lambda: RMSprop(params, eps=0.0), "eps is 0.0"),
    ]
    for make, message in wrong:
        with pytest.raises(ValueError, match=message):
            make()
    kinds: list[tuple[Any, str]] = [
        (lambda: SGD(params, lr="0.1"), "lr has type str, expected a number"),
        (lambda: SGD(params, momentum=None), "momentum has type NoneType, expected a number"),
        (lambda: RMSprop(params, eps="x"), "eps has type str, expected a number"),
        (lambda: Adam(params, betas=0.9), "betas has type float, expected a pair of numbers"),
        (lambda: Adam(params, betas=(0.9, "x")), r"betas\[1\] has type str, expected a number"),
        (lambda: Adam(params, weight_decay="x"), "weight_decay has type str, expected a number"),
        (lambda: Rprop(params, etas="ab"), "etas has type str, expected a pair of numbers"),
    ]
    for make, message in kinds:
        with pytest.raises(TypeError, match=message):
            make()
    weights = np.zeros(3)
    weights.flags.writeable = False
    for wrong_params, error, message in [
        (
            {"w": np.zeros(3, int)},
            TypeError,
            r"params\['w'\] has dtype int64, .*\.astype\(np.float32",
        ),
        ({"w": [0.0]}, TypeError, r"params\['w'\] has type list, expected numpy.ndarray; np.asarr"),
        ({"w": np.ma.zeros(3)}, TypeError, r"params\['w'\] is a masked array"),
        (
            {"w": weights},
            ValueError,
            r"params\['w'\] is read-only, expected a writeable array; par",
        ),
        ([np.zeros(3)], TypeError, "params has type list, expected a dict of arrays, or a layer"),
        (None, TypeError, "params has type NoneType, expected a dict of arrays, or a layer"),
    ]:
        with pytest.raises(error, match=message):
            SGD(wrong_params)
