"""Activations and dropout as layers; the sigmoid and the softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    Activation,
    Dropout,
    Linear,
    gradcheck_layer,
    join,
    sigmoid,
    softmax,
)
from rnnfast.training.activations import FUNCTIONS, ActivationTape

names = pytest.mark.parametrize("name", FUNCTIONS)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(5)

# --------------------------------------------------------------------------------------- Activation


@names
def test_the_gradient_is_the_central_difference(name: str) -> None:
    errors = gradcheck_layer(Activation(name), 3 * normal(5, 3, 2))
    assert set(errors) == {"input"}
    assert errors["input"] < 1e-8


@names
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    theirs = {"identity": lambda x: x * 1, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    function = theirs.get(name) or getattr(torch.nn.functional, name)
    x = np.concatenate([4 * normal(200), [0.0, -0.0, 1e-20, -1e-20, 50, -50, 700, -700]])
    activation, dy = Activation(name), normal(208, seed=1)
    y, tape = activation.forward(x)
    witness = torch.tensor(x, requires_grad=True)
    expected = function(witness)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-300)
    dx = activation.backward(tape, dy).input
    np.testing.assert_allclose(dx, witness.grad.numpy(), rtol=1e-11, atol=2e-15)


@names
def test_float32_stays_float32_and_no_number_overflows(name: str) -> None:
    activation = Activation(name)
    x = np.array([-1e30, -1e3, -1, 0, 1, 1e3, 1e30], np.float32)
    before = x.copy()
    with np.errstate(all="raise", under="ignore"):
        y, tape = activation.forward(x)
        dx, params = activation.backward(tape, np.ones_like(x))
    assert y.dtype == dx.dtype == np.float32
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert params == {}
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(activation(x), y)


@names
def test_nan_is_passed_on(name: str) -> None:
    y = Activation(name)(np.array([np.nan, 1.0]))
    assert np.isnan(y[0])
    assert not np.isnan(y[1])


@names
def test_arrays_of_any_layout_and_of_no_numbers(name: str) -> None:
    activation, x = Activation(name), normal(7, 4, 6)[::2, :, ::-3]
    x.flags.writeable = False
    y, tape = activation.forward(x)
    dx = activation.backward(tape, x).input
    copied, tape = activation.forward(x.copy())
    np.testing.assert_array_equal(y, copied)
    np.testing.assert_array_equal(dx, activation.backward(tape, x.copy()).input)
    y, tape = activation.forward(np.zeros((3, 0, 2)))
    assert y.shape == activation.backward(tape, y).input.shape == (3, 0, 2)


def test_identity_is_a_copy() -> None:
    x = normal(3)
    assert not np.shares_memory(Activation("identity")(x), x)


def test_layers_without_parameters_join_others() -> None:
    model = join(out=Linear(2, 3, rng=0), tanh=Activation("tanh"), dropout=Dropout(0.1))
    assert set(model) == {"out.weight", "out.bias"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Activation("gelu"),
            ValueError,
            "name is 'gelu', expected one of 'elu', 'identity'",
        ),
        (lambda: Activation("tanh")(np.zeros(2, int)), TypeError, r"x.astype\(np.float32\)$"),
        (lambda: Activation("tanh").forward([1.0]), TypeError, "x has type list"),
        (
            lambda: Activation("relu").backward(ActivationTape(X, X), normal(2)),
            ValueError,
            r"dy has shape \(2,\), expected \(5,\)",
        ),
        (lambda: Dropout()(np.zeros(2, int)), TypeError, "x has dtype int64"),
        (lambda: Dropout(-0.1), ValueError, r"p is -0.1, expected a number in \[0, 1\)"),
        (lambda: Dropout(np.nan), ValueError, "p is nan"),
        (
            lambda: Dropout().backward(np.ones(3), np.ones(3, np.float32)),
            TypeError,
            "dy has dtype float32, expected float64",
        ),
        (lambda: gradcheck_layer(Dropout(0.2), normal(3)), ValueError, "layer.p is 0.2, expected"),
        (lambda: sigmoid([0.0]), TypeError, "z has type list"),
        (lambda: softmax(np.zeros(2, int)), TypeError, "z has dtype int64"),
    ],
)
def test_wrong_arguments(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------ Dropout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_leaves_out_or_scales_up_and_backward_has_the_same_mask(dtype: Any) -> None:
    x = np.ones((200, 11, 13), dtype)
    dropout = Dropout(0.25, rng=0)
    y, tape = dropout.forward(x)
    assert y.dtype == dtype
    left_out = y == 0
    assert left_out.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(y[~left_out], 1 / 0.75, rtol=1e-6)
    dy = normal(*x.shape).astype(dtype)
    dx, params = dropout.backward(tape, dy)
    np.testing.assert_array_equal(dx, dy * y)
    assert dx.dtype == dtype
    assert params == {}
    assert (dropout.forward(x)[0] != y).any()


def test_dropout_of_a_prediction_and_with_p_0_changes_nothing() -> None:
    x = normal(3, 5)
    dropout = Dropout(0.9, rng=0)
    state = dropout.rng.bit_generator.state
    np.testing.assert_array_equal(dropout(x), x)
    assert dropout.rng.bit_generator.state == state
    nothing = Dropout(0)
    np.testing.assert_array_equal(nothing.forward(x)[0], x)
    assert gradcheck_layer(nothing, x)["input"] < 1e-9


def test_the_same_seed_draws_the_same_masks() -> None:
    x = np.ones((50, 3))
    first, second = Dropout(0.5, rng=7), Dropout(0.5, rng=np.random.default_rng(7))
    for _ in range(2):
        np.testing.assert_array_equal(first.forward(x)[0], second.forward(x)[0])


# ------------------------------------------------------------------------------ sigmoid and softmax


def test_sigmoid_and_softmax_against_their_definitions() -> None:
    z = 5 * normal(4, 3, 5)
    np.testing.assert_allclose(sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-13)
    for axis in (-1, 0, 1):
        expected = np.exp(z) / np.exp(z).sum(axis=axis, keepdims=True)
        np.testing.assert_allclose(softmax(z, axis), expected, rtol=1e-13)
    np.testing.assert_array_equal(softmax(z), softmax(z, axis=2))


def test_far_out_they_neither_overflow_nor_lose_accuracy() -> None:
    z = np.array([-1e30, -700, -40, 0, 40, 1e30])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(
            sigmoid(z), [0, np.exp(-700), np.exp(-40), 0.5, 1, 1], rtol=1e-14
        )
        np.testing.assert_array_equal(softmax(np.array([1e30, -1e30, 1e30])), [0.5, 0, 0.5])
        np.testing.assert_array_equal(softmax(np.array([-np.inf, 3, -np.inf])), [0, 1, 0])
    assert sigmoid(z.astype(np.float32)).dtype == softmax(z.astype(np.float32)).dtype == np.float32
    assert softmax(np.zeros((2, 0))).shape == (2, 0)
