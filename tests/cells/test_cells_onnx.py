"""The cells of ONNX's operators: values written out in NumPy, gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from some_cells import gradients, problem

from rnnfast import cells, functional, reference
from rnnfast.cells import onnx_gru, onnx_lstm, onnx_rnn

Array = np.ndarray[Any, Any]
nan = np.nan


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def tanh_slope(v: Array) -> Array:
    return 1 - np.tanh(v) ** 2


# Value and derivative with the defaults of ONNX's text, and then with other numbers.
PLAIN: dict[str, tuple[Callable[[Array], Any], Callable[[Array], Any]]] = {
    "Relu": (lambda v: np.maximum(v, 0), lambda v: v > 0),
    "Tanh": (np.tanh, tanh_slope),
    "Sigmoid": (sigmoid, lambda v: sigmoid(v) * sigmoid(-v)),
    "Softsign": (lambda v: v / (1 + abs(v)), lambda v: 1 / (1 + abs(v)) ** 2),
    "Softplus": (lambda v: np.logaddexp(v, 0), sigmoid),
    "LeakyRelu": (lambda v: np.where(v < 0, 0.01 * v, v), lambda v: np.where(v < 0, 0.01, 1)),
    "ThresholdedRelu": (lambda v: v * (v > 1), lambda v: v > 1),
    "HardSigmoid": (
        lambda v: np.clip(0.2 * v + 0.5, 0, 1),
        lambda v: np.where(abs(0.2 * v) <= 0.5, 0.2, 0),
    ),
    "Elu": (
        lambda v: np.where(v < 0, np.expm1(np.minimum(v, 0)), v),
        lambda v: np.exp(np.minimum(v, 0)),
    ),
}
NUMBERS: list[tuple[str, list[float], list[float], Any, Any]] = [
    ("Affine", [0.3], [], lambda v: 0.3 * v, lambda v: 0.3 + 0 * v),
    ("Affine", [-2.0], [0.7], lambda v: 0.7 - 2 * v, lambda v: -2 + 0 * v),
    ("LeakyRelu", [-0.4], [], lambda v: np.where(v < 0, -0.4 * v, v),
     lambda v: np.where(v < 0, -0.4, 1)),
    ("ThresholdedRelu", [-1.5], [], lambda v: v * (v > -1.5), lambda v: v > -1.5),
    ("ScaledTanh", [1.7], [0.6], lambda v: 1.7 * np.tanh(0.6 * v),
     lambda v: 1.02 * tanh_slope(0.6 * v)),
    ("HardSigmoid", [0.25], [], lambda v: np.clip(0.25 * v + 0.5, 0, 1),
     lambda v: np.where(abs(v) <= 2, 0.25, 0)),
    ("Elu", [0.3], [], lambda v: np.where(v < 0, 0.3 * np.expm1(np.minimum(v, 0)), v),
     lambda v: np.where(v < 0, 0.3 * np.exp(np.minimum(v, 0)), 1)),
]  # fmt: skip
POINTS = [-1e4, -100, -3.2, -2, -1.5, -0.6, -1e-3, 0.0, 1e-3, 0.6, 1.0, 2, 3.2, 100, 1e4]


def on_points(cell: cells.Cell, dtype: Any) -> tuple[Array, Array]:
    """f and its derivative at the points, of the cell of an RNN."""
    x = np.array(POINTS, dtype)[:, None, None]
    one = np.ones((1, 1), dtype)
    params = {"a.weight_x": one, "a.weight_h": 0 * one, "a.bias": one[0] * 0}
    y, _, tape = functional.cell_forward(cell, x, None, params)
    return y.ravel(), functional.cell_backward(tape, np.ones_like(y)).x.ravel()


@pytest.mark.usefixtures("isa")
@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_and_their_derivatives(dtype: Any) -> None:
    v, eps = np.array(POINTS), float(np.finfo(dtype).eps)
    cases = [(n, [], [], *both) for n, both in PLAIN.items()] + NUMBERS
    assert len({name for name, *_ in cases}) == 11
    for name, alpha, beta, value, slope in cases:
        y, dx = on_points(onnx_rnn([name], alpha, beta), dtype)
        np.testing.assert_allclose(y, value(v), rtol=4 * eps, atol=4 * eps, err_msg=name)
        np.testing.assert_allclose(dx, slope(v), rtol=16 * eps, atol=16 * eps, err_msg=name)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_stays() -> None:
    for name in (*PLAIN, "Affine", "ScaledTanh"):
        given = ([1.0], [1.0]) if name in ("Affine", "ScaledTanh") else ([], [])
        for cell in (onnx_rnn([name], *given), onnx_rnn([name], *given, clip=2.0)):
            x = np.full((1, 1, 1), nan)
            params = {"a.weight_x": x[0], "a.weight_h": x[0]}
            y, _, _ = functional.cell_forward(cell, x, None, params)
            assert np.isnan(y) or name == "ThresholdedRelu", name


# ------------------------------------------------------------------------------ a step in NumPy


def products(p: dict[str, Array], name: str, x: Array, h: Array) -> Array:
    return x @ p[f"{name}.weight_x"].T + h @ p[f"{name}.weight_h"].T + p[f"{name}.bias"]


def step(cell: cells.Cell) -> tuple[dict[str, Any], tuple[Array, ...]]:
    """Arguments for a step of a cell, and what it makes of them."""
    given = problem(cell, 1, 5, 3, 7)
    del given["extra"]
    y, state, _ = functional.cell_forward(cell, **given)
    np.testing.assert_array_equal(y[0], state[0])
    return given, state


def assert_equal(got: tuple[Array, ...], *want: Array) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("input_forget", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("limit", [None, 0.3])
def test_the_equations_of_the_lstm(input_forget: bool, peepholes: bool, limit: Any) -> None:
    names = ("HardSigmoid", "Softsign", "Affine")
    cell = onnx_lstm(names, (0.3, 3.0), (0.4, 0.1), limit, input_forget, peepholes)
    given, got = step(cell)
    p, x, (h, c) = given["params"], given["x"][0], given["state"]
    assert ("f.weight_x" in p, "p_f" in p) == (not input_forget, peepholes and not input_forget)
    assert ("p_i" in p, "p_o" in p) == (peepholes, peepholes)

    def clipped(v: Array) -> Array:
        return v if limit is None else np.clip(v, -limit, limit)

    def gate(name: str, seen: Array) -> Array:
        a = products(p, name, x, h) + (p[f"p_{name}"] * seen if peepholes else 0)
        return np.clip(0.3 * clipped(a) + 0.4, 0, 1)

    i = gate("i", c)
    f = 1 - i if input_forget else gate("f", c)
    g = clipped(products(p, "g", x, h))
    new = f * c + i * g / (1 + abs(g))
    assert_equal(got, gate("o", new) * (3 * new + 0.1), new)


@pytest.mark.parametrize("linear_before_reset", [False, True])
@pytest.mark.parametrize("limit", [None, 0.3])
def test_the_equations_of_the_gru(linear_before_reset: bool, limit: Any) -> None:
    cell = onnx_gru(["softplus", "LEAKYRELU"], [-0.3], [], limit, linear_before_reset)
    given, (got,) = step(cell)
    p, x, (h,) = given["params"], given["x"][0], given["state"]

    def clipped(v: Array) -> Array:
        return v if limit is None else np.clip(v, -limit, limit)

    r, z = (np.logaddexp(clipped(products(p, name, x, h)), 0) for name in "rz")
    if linear_before_reset:
        n = x @ p["n_x.weight_x"].T + p["n_x.bias"]
        n += r * (h @ p["n_h.weight_h"].T + p["n_h.bias"])
    else:
        n = x @ p["n.weight_x"].T + p["n.bias"] + (r * h) @ p["n.weight_gated"].T
    n = clipped(n)
    assert_equal((got,), (1 - z) * np.where(n < 0, -0.3 * n, n) + z * h)


def test_the_equation_of_the_rnn() -> None:
    given, got = step(onnx_rnn(["ScaledTanh"], [1.5], [0.5], clip=0.6))
    a = products(given["params"], "a", given["x"][0], *given["state"])
    assert_equal(got, 1.5 * np.tanh(0.5 * np.clip(a, -0.6, 0.6)))


# ------------------------------------------------------------------------------------ gradients


ALPHA = {"Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu"}
BETA = {"Affine", "HardSigmoid", "ScaledTanh"}


def random_cell(seed: int) -> cells.Cell:
    """A cell with random options."""
    rng = np.random.default_rng(seed)
    count = 1 + seed % 3
    names = [str(name) for name in rng.choice([*PLAIN, "Affine", "ScaledTanh"], count)]
    alpha = [float(rng.uniform(-0.5, 1.5)) for name in names if name in ALPHA]
    beta = [float(rng.uniform(-0.5, 1.5)) for name in names if name in BETA]
    clip = float(rng.uniform(0.3, 1.5)) if rng.integers(2) else None
    flags = [bool(flag) for flag in rng.integers(2, size=2)][: count - 1]
    return (onnx_rnn, onnx_gru, onnx_lstm)[count - 1](names, alpha, beta, clip, *flags)


def along(given: dict[str, Any], move: dict[str, Any], step: float) -> dict[str, Any]:
    """Arguments of `cell_forward`, moved."""
    pairs = zip(given["state"], move["state"], strict=True)
    return {
        "x": given["x"] + step * move["x"],
        "state": tuple(s + step * m for s, m in pairs),
        "params": {n: p + step * move["params"][n] for n, p in given["params"].items()},
    }


def products_with(grads: Any, move: dict[str, Any]) -> float:
    pairs = [(grads.x, move["x"]), *zip(grads.state, move["state"], strict=True)]
    pairs += [(grads.params[n], m) for n, m in move["params"].items()]
    return float(sum((a * b).sum() for a, b in pairs))


@pytest.mark.parametrize("seed", range(48))
def test_gradients_agree_with_finite_differences(seed: int) -> None:
    cell = random_cell(seed)
    given = problem(cell, 4, 3, 3, 5, seed=seed)
    del given["extra"]
    options = {"lengths": [4, 2, 0], "reverse": bool(seed % 2)}
    y, state, tape = reference.cell_forward(cell, **given, **options)
    upstream = gradients(y, state)
    grads = reference.cell_backward(tape, **upstream)
    rng, sides = np.random.default_rng(seed), []
    move = {
        "x": rng.standard_normal(given["x"].shape),
        "state": tuple(rng.standard_normal(s.shape) for s in given["state"]),
        "params": {n: rng.standard_normal(p.shape) for n, p in given["params"].items()},
    }
    for sign in (1, -1):
        y, state, _ = reference.cell_forward(cell, **along(given, move, sign * 1e-6), **options)
        pairs = [(y, upstream["dy"]), *zip(state, upstream["dstate"], strict=True)]
        sides.append(sum((a * b).sum() for a, b in pairs))
    expected = products_with(grads, move)
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(expected, rel=2e-6, abs=2e-6)

    y, state, tape = functional.cell_forward(cell, **given, **options)
    found = functional.cell_backward(tape, **upstream)
    for a, b in ((found.x, grads.x), *zip(found.state, grads.state, strict=True)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    for name, gradient in grads.params.items():
        scale = max(1, abs(gradient).max())
        np.testing.assert_allclose(found.params[name], gradient, rtol=0, atol=1e-10 * scale)


# --------------------------------------------------------------------------------------- errors


def test_arguments_that_do_not_fit_are_named() -> None:
    rows: list[tuple[Any, Any, str]] = [
        (TypeError, lambda: onnx_rnn("Tanh"), "activations has type str, expected a tuple of str"),
        (TypeError, lambda: onnx_rnn([3]), "activations has a int, expected strings"),
        (ValueError, lambda: onnx_rnn(["Swish"]), "'Swish', expected names among Affine, Elu, Ha"),
        (ValueError, lambda: onnx_gru(["Tanh"]), "activations has 1 names, expected 2"),
        (ValueError, lambda: onnx_lstm(["Tanh"] * 6), "activations has 6 names, expected 3"),
        (ValueError, lambda: onnx_rnn(["Affine"]), "'Affine', but alpha has no number for it"),
        (ValueError, lambda: onnx_rnn(["ScaledTanh"], [1]), "'ScaledTanh', but beta has no number"),
        (ValueError, lambda: onnx_rnn(alpha=[1]), "alpha has 1 numbers, of which Tanh use 0"),
        (ValueError, lambda: onnx_rnn(["Elu"], [1], [2]), "beta has 1 numbers, of which Elu use 0"),
        (ValueError, lambda: onnx_rnn(["Elu"], [nan]), "alpha has nan, expected finite numbers"),
        (TypeError, lambda: onnx_rnn(["Elu"], ["1"]), "alpha has a str, expected numbers"),
        (TypeError, lambda: onnx_rnn(["Elu"], 1.0), "alpha has type float, expected a tuple of nu"),
        (ValueError, lambda: onnx_gru(clip=0), "clip is 0, expected a number above 0"),
        (ValueError, lambda: onnx_gru(clip=nan), "clip is nan, expected a number above 0"),
        (TypeError, lambda: onnx_gru(clip=True), "clip has type bool, expected a number or None"),
    ]
    for error, call, message in rows:
        with pytest.raises(error, match=message):
            call()


def test_they_are_found_in_the_library() -> None:
    assert {"onnx_rnn", "onnx_gru", "onnx_lstm", "mgu"} <= set(dir(cells))
    assert cells.named("onnx_lstm") is None  # a function that makes cells
    assert cells.named("mgu") is cells.mgu
    with pytest.raises(AttributeError, match=r"'rnnfast\.cells' has no attribute 'onnx_mlp'"):
        cells.onnx_mlp  # noqa: B018
