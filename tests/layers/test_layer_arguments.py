"""Parameters of the layers: names, initial values, copies; and what the layers refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnfast import GRU, LSTM, RNN, _builtin, functional
from rnnfast._core import passes

LAYERS = (RNN, GRU, LSTM)


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape, dtype)


# -------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(("layer", "gates"), [(RNN, 1), (GRU, 3), (LSTM, 4)])
def test_names_shapes_and_initial_values(layer: Any, gates: int) -> None:
    params = layer(30, 25, 2, bidirectional=True, rng=1).params
    shapes = {}
    for end, inputs in (("l0", 30), ("l0_reverse", 30), ("l1", 50), ("l1_reverse", 50)):
        shapes |= {f"weight_ih_{end}": (gates * 25, inputs), f"weight_hh_{end}": (gates * 25, 25)}
        shapes |= {f"bias_ih_{end}": (gates * 25,), f"bias_hh_{end}": (gates * 25,)}
    assert [*shapes.items()] == [(name, a.shape) for name, a in params.items()]
    for a in params.values():
        assert a.dtype == np.float32
        assert -0.2 <= a.min() < -0.1 < 0.1 < a.max() <= 0.2  # uniform(-1/sqrt(25), 1/sqrt(25))
    assert params["weight_ih_l0"].min() < -0.198
    assert params["weight_ih_l0"].max() > 0.198
    assert len({a.flat[0] for a in params.values()}) == len(params)


def test_projection_and_no_bias() -> None:
    params = LSTM(3, 7, 2, proj_size=2, bias=False, bidirectional=True).params
    assert [(name, a.shape) for name, a in params.items() if "l1" in name] == [
        ("weight_ih_l1", (28, 4)),
        ("weight_hh_l1", (28, 2)),
        ("weight_hr_l1", (2, 7)),
        ("weight_ih_l1_reverse", (28, 4)),
        ("weight_hh_l1_reverse", (28, 2)),
        ("weight_hr_l1_reverse", (2, 7)),
    ]


def test_a_projection_starts_as_the_hidden_units_do() -> None:
    """By the hidden size, as PyTorch's: +-0.2 for 25 units, whatever the projection's size."""
    params = LSTM(30, 25, 2, proj_size=4, rng=0).params
    for name, a in params.items():
        assert -0.2 <= a.min() < -0.17 < 0.17 < a.max() <= 0.2, name


@pytest.mark.parametrize("kind", LAYERS)
def test_parameters_in_any_layout_give_the_same_bits(kind: Any) -> None:
    """Fortran order, strides and read-only arrays, in a call, in training and in a stream."""
    x = np.random.default_rng(1).standard_normal((5, 2, 3), np.float32)
    plain = kind(3, 4, 2, rng=0)
    y, _, tape = plain.forward(x)
    grads = plain.backward(tape, y)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], np.array):
        layer = kind(3, 4, 2, rng=0)
        for name, a in layer.params.items():
            layer.params[name] = change(a)
            layer.params[name].flags.writeable = False
        np.testing.assert_array_equal(layer(x)[0], y)
        np.testing.assert_array_equal(layer.stream(2).run(x), y)
        others = layer.backward(layer.forward(x)[2], y)
        np.testing.assert_array_equal(others.input, grads.input)
        for name, gradient in grads.params.items():
            np.testing.assert_array_equal(others.params[name], gradient)


@pytest.mark.parametrize("kind", LAYERS)
def test_numpy_integers_and_numbers_are_as_good_as_pythons(kind: Any) -> None:
    """They become Python's, which a file can hold."""
    layer = kind(np.int64(3), np.uint8(4), np.int32(2), dropout=np.float32(0.5), rng=np.int64(0))
    plain = kind(3, 4, 2, dropout=0.5, rng=0)
    assert repr(layer) == repr(plain)
    sizes = layer.input_size, layer.hidden_size, layer.num_layers, layer.dropout
    assert [type(size) for size in sizes] == [int, int, int, float]
    for name, a in plain.params.items():
        np.testing.assert_array_equal(layer.params[name], a)
    assert layer.stream(np.int64(2)).state[0].shape == plain.stream(2).state[0].shape


@pytest.mark.parametrize("layer", LAYERS)
def test_rng_is_a_seed_or_a_generator(layer: Any) -> None:
    one, two = (layer(3, 4, rng=rng).params for rng in (7, np.random.default_rng(7)))
    assert all(np.array_equal(a, two[name]) for name, a in one.items())
    for other in (layer(3, 4, rng=8), layer(3, 4)):
        assert not np.array_equal(one["weight_ih_l0"], other.params["weight_ih_l0"])


def test_params_are_live() -> None:
    layer = GRU(3, 4)
    x = ones(5, 2, 3)
    before = layer(x)[0]
    layer.params["weight_ih_l0"] *= 2
    after = layer(x)[0]
    assert not np.array_equal(before, after)
    layer.params["weight_ih_l0"] = layer.params["weight_ih_l0"] / 2  # another array
    np.testing.assert_array_equal(layer(x)[0], before)
    # the same arrays in the same order under other names
    weight_ih, weight_hh, bias_ih, bias_hh = layer.params.values()
    bias_hh[...] = 0
    outside = layer(x)[0]
    names = "weight_ih_l0", "weight_hh_l0", "bias_hh_l0", "bias_ih_l0"
    values = weight_ih, weight_hh, bias_ih, bias_hh
    layer.params = dict(zip(names, values, strict=True))
    assert not np.array_equal(layer(x)[0], outside)  # a GRU's b_hn stands inside r * (...)


def test_state_dict_copies_and_loads_in_place() -> None:
    layer, other = LSTM(3, 4, 2, rng=0), LSTM(3, 4, 2, rng=1)
    arrays = dict(layer.params)
    saved = layer.state_dict()
    assert not any(np.shares_memory(a, arrays[name]) for name, a in saved.items())
    layer.load_state_dict(other.state_dict())
    for name, a in layer.params.items():
        assert a is arrays[name]
        assert a is not other.params[name]
        np.testing.assert_array_equal(a, other.params[name])
        assert not np.array_equal(a, saved[name])

    swapped = dict(layer.params, weight_hh_l0=layer.params["weight_hh_l1"])
    swapped["weight_hh_l1"] = layer.params["weight_hh_l0"]
    want = {name: a.copy() for name, a in swapped.items()}
    layer.load_state_dict(swapped)
    assert all(np.array_equal(a, want[name]) for name, a in layer.params.items())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(layer: Any, clone: Callable[[Any], Any]) -> None:
    original = layer(3, 4, 2, dropout=0.5, bidirectional=True, dtype="float64", rng=2)
    twin = clone(original)
    assert repr(twin) == repr(original)
    x = ones(5, 2, 3, dtype=float)
    want = original.forward(x)[0]  # with a mask
    np.testing.assert_array_equal(twin.forward(x)[0], want)
    original.params["weight_ih_l0"][...] = 0
    assert twin.params["weight_ih_l0"].all()


def test_repr() -> None:
    assert repr(GRU(3, 4)) == "GRU(3, 4)"
    layer = LSTM(3, 4, 2, proj_size=2, bias=False, batch_first=True, dropout=0.5, dtype="float64")
    options = "num_layers=2, proj_size=2, bias=False, batch_first=True, dropout=0.5, dtype=float64"
    assert repr(layer) == f"LSTM(3, 4, {options})"
    assert repr(RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity='relu')"
    assert repr(GRU(3, 4, reset_after=False)) == "GRU(3, 4, reset_after=False)"


# ------------------------------------------------------------------------------------------ errors

CONSTRUCTORS = [
    (lambda: RNN(3.0, 4), TypeError, r"input_size has type float, expected an integer"),
    (lambda: RNN(3, "4"), TypeError, r"hidden_size has type str, expected an integer"),
    (lambda: LSTM(True, 4), TypeError, r"input_size has type bool, expected an integer"),
    (lambda: GRU(3, 4, 1.0), TypeError, r"num_layers has type float, expected an integer"),
    (lambda: LSTM(3, 4, proj_size=2.0), TypeError, r"proj_size has type float, expected an int"),
    (lambda: LSTM(3, 4, proj_size=5), ValueError, r"proj_size is 5, .* hidden_size 4"),
    (lambda: GRU(3, 4, 2, dropout=-0.1), ValueError, r"dropout is -0\.1, expected .* \[0, 1\)"),
    (lambda: GRU(0, 4), ValueError, r"input_size is 0, expected at least 1"),
    (lambda: GRU(3, -4), ValueError, r"hidden_size is -4, expected at least 1"),
    (lambda: GRU(3, 4, 0), ValueError, r"num_layers is 0, expected at least 1"),
    (lambda: LSTM(3, 4, proj_size=4), ValueError, r"proj_size is 4, .* hidden_size 4"),
    (lambda: LSTM(3, 4, proj_size=-1), ValueError, r"proj_size is -1, expected at least 0"),
    (lambda: RNN(3, 4, dropout=1.0), ValueError, r"dropout is 1\.0, expected .* \[0, 1\)"),
    (lambda: RNN(3, 4, dropout=np.nan), ValueError, r"dropout is nan"),
    (lambda: RNN(3, 4, dropout="0"), TypeError, r"dropout has type str, expected a number"),
    (lambda: RNN(3, 4, dtype="float16"), TypeError, r"dtype is 'float16', expected float32 or"),
    (lambda: RNN(3, 4, dtype=None), TypeError, r"dtype is None, expected float32 or float64"),
    (lambda: RNN(3, 4, dtype=">f4"), TypeError, r"dtype is '>f4', expected"),
    (lambda: RNN(3, 4, nonlinearity="selu"), ValueError, r"nonlinearity is 'selu', expected one"),
    (lambda: RNN(3, 4, 1, "relu"), TypeError, r"positional"),
]


@pytest.mark.parametrize(("call", "error", "message"), CONSTRUCTORS)
def test_constructors_refuse(call: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# (T, B, I) = (5, 2, 3), H = 4, L*D = 4; a GRU, a batch-first GRU and a projected LSTM
DEEP: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "dropout": 0.5, "rng": 0}
CASTS = r"x.astype\(np.float32\), or make the layer with dtype=np.float64$"
X, H0, HP, C0 = ones(5, 2, 3), ones(4, 2, 4), ones(4, 2, 2), ones(4, 2, 4)

INPUTS = [
    ("gru", {"x": X.tolist()}, TypeError, r"x has type list, .*; np.asarray\(x, np.float32\)$"),
    ("gru", {"x": 1.0}, TypeError, r"x has type float, .*; np.asarray\(x, np.float32\)$"),
    ("gru", {"x": np.ma.array(X)}, TypeError, r"x is a masked array, expected a plain"),
    ("gru", {"x": X.astype(float)}, TypeError, r"^x has dtype float64, expected float32; " + CASTS),
    ("double", {"x": X}, TypeError, r"float64; x.astype\(np.float64\), or make .*=np.float32$"),
    ("gru", {"x": X.astype(int)}, TypeError, r"^x has dtype int64, .*; x.astype\(np.float32\)$"),
    ("gru", {"x": X.astype(complex)}, TypeError, r"^x has dtype complex128, expected float32$"),
    ("gru", {"x": X.astype(">f4")}, TypeError, r"x has dtype >f4, expected float32"),
    ("gru", {"x": X.astype(object)}, TypeError, r"x has dtype object, expected float32"),
    ("gru", {"x": X[0, 0]}, ValueError, r"x has shape \(3,\), expected \(T, B, I\) or \(T, I\)"),
    ("gru", {"x": X[..., :2]}, ValueError, r"x has shape \(5, 2, 2\), expected .* I = 3"),
    ("batch_first", {"x": X[..., :2]}, ValueError, r"expected \(B, T, I\) or \(T, I\) with I = 3"),
    ("gru", {"state": H0[:3]}, ValueError, r"^state has shape .* \(L\*D, B, P\) = \(4, 2, 4\)"),
    ("gru", {"state": H0[:, :1]}, ValueError, r"^state has shape \(4, 1, 4\), expected"),
    ("gru", {"state": (H0, H0)}, TypeError, r"^state has type tuple, expected numpy.ndarray"),
    ("gru", {"state": H0.astype(float)}, TypeError, r"^state .* float32; state.astype"),
    ("gru", {"x": X[:, 0], "state": H0}, ValueError, r"state .* \(L\*D, P\) = \(4, 4\)"),
    ("batch_first", {"state": H0}, ValueError, r"state has shape .* = \(4, 5, 4\)"),
    ("lstm", {"state": HP}, TypeError, r"^state has type ndarray, expected a pair \(h, c\)"),
    ("lstm", {"state": (HP,)}, ValueError, r"^state has length 1, expected a pair \(h, c\)"),
    ("lstm", {"state": (C0, C0)}, ValueError, r"state\[0\] .* \(L\*D, B, P\) = \(4, 2, 2\)"),
    ("lstm", {"state": (HP, HP)}, ValueError, r"state\[1\] .* \(L\*D, B, H\) = \(4, 2, 4\)"),
    ("lstm", {"state": (None, [0])}, TypeError, r"state\[1\] .*asarray\(state\[1\], np.f"),
    ("gru", {"resets": ones(5, 2)}, TypeError, r"resets has dtype float32, expected .* bool"),
    (
        "gru",
        {"resets": ones(2, 5, dtype=bool)},
        ValueError,
        r"resets has shape \(2, 5\), .*\(5, 2\)",
    ),
    ("gru", {"lengths": np.array([5, 6])}, ValueError, r"lengths"),
    ("gru", {"lengths": np.array([5, 5, 5])}, ValueError, r"lengths"),
    ("gru", {"x": X[:, 0], "lengths": np.array([5])}, ValueError, r"lengths .* no batch axis"),
    ("gru", {"threads": 0}, ValueError, r"threads is 0, expected"),
]


def layers() -> dict[str, Any]:
    return {
        "gru": GRU(3, 4, **DEEP),
        "batch_first": GRU(3, 4, batch_first=True, **DEEP),
        "double": GRU(3, 4, dtype=float, **DEEP),
        "lstm": LSTM(3, 4, proj_size=2, **DEEP),
    }


@pytest.mark.parametrize(("kind", "arguments", "error", "message"), INPUTS)
def test_passes_refuse(kind: str, arguments: dict[str, Any], error: Any, message: str) -> None:
    layer, untouched = layers()[kind], layers()[kind]
    for call in (layer, layer.forward):
        with pytest.raises(error, match=message):
            call(**{"x": X} | arguments)
    x = X.astype(layer.dtype)
    np.testing.assert_array_equal(layer.forward(x)[0], untouched.forward(x)[0])  # the same mask


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (ones(12, 4), ValueError, r"has shape \(12, 4\), expected \(12, 3\)"),
        (
            ones(12, 3, dtype=float),
            TypeError,
            r"has dtype float64, .*; params\['weight_ih_l0'\].astype\(np.float32\), or make",
        ),
        (None, TypeError, r"has type NoneType, expected numpy.ndarray"),
    ],
)
def test_replaced_parameters_are_checked(value: Any, error: Any, message: str) -> None:
    layer = GRU(3, 4)
    layer.params["weight_ih_l0"] = value
    with pytest.raises(error, match=r"^params\['weight_ih_l0'\] " + message):
        layer(X)


def test_parameters_that_change_are_checked_again() -> None:
    layer = GRU(3, 4, rng=0)
    y = layer(X)[0]
    layer.params = dict(reversed(layer.params.items()))
    np.testing.assert_array_equal(layer(X)[0], y)
    layer.params["weight_ih_l0"] = layer.params["weight_ih_l0"] * 2
    assert not np.array_equal(layer(X)[0], y)
    layer.params["bias"] = layer.params.pop("bias_hh_l0")
    with pytest.raises(ValueError, match=r"missing keys \['bias_hh_l0'\] and unexpected keys"):
        layer(X)


UPSTREAM = [
    (
        {"dy": ones(5, 2, 4)},
        ValueError,
        r"^dy has shape \(5, 2, 4\), expected y.shape = \(5, 2, 8\)",
    ),
    ({"dy": ones(5, 2, 8, dtype=float)}, TypeError, r"^dy has dtype float64, expected float32"),
    ({"dy": 1.0}, TypeError, r"^dy has type float, .*; np.asarray\(dy, np.float32\)$"),
    ({"dstate": H0[:1]}, ValueError, r"^dstate has shape .* \(L\*D, B, P\) = \(4, 2, 4\)"),
    ({"dstate": (H0, H0)}, TypeError, r"^dstate has type tuple, expected numpy.ndarray"),
    ({"threads": 0}, ValueError, r"threads is 0, expected"),
    (
        {"accumulate": GRU(3, 4)},
        TypeError,
        r"accumulate has type GRU, expected a dict of arrays; accumulate\.params$",
    ),
    ({"accumulate": 1}, TypeError, r"accumulate has type int, expected a dict of arrays"),
    ({"accumulate": {}}, ValueError, r"accumulate has missing keys \['weight_ih_l0', .* keys \[\]"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), UPSTREAM)
def test_backward_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    layer = GRU(3, 4, **DEEP)
    tape = layer.forward(X)[2]
    total = {name: np.zeros_like(a) for name, a in layer.params.items()}
    with pytest.raises(error, match=message):
        layer.backward(tape, **{"dy": ones(5, 2, 8), "accumulate": total} | arguments)
    assert not any(a.any() for a in total.values())
    layer.backward(tape, ones(5, 2, 8))  # the tape is as it was


BAD_ARRAYS = [
    (lambda a: a.T, ValueError, r"has shape \(3, 12\), expected \(12, 3\)"),
    (lambda a: a.astype(float), TypeError, r"has dtype float64, expected float32; .*\.astype\("),
    (lambda a: a.tolist(), TypeError, r"has type list, .*; np.asarray\(.*, np.float32\)$"),
    (np.ma.masked_array, TypeError, r"is a masked array, expected a plain numpy.ndarray; .*filled"),
    (lambda a: None, TypeError, r"has type NoneType, expected numpy.ndarray$"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_ARRAYS)
def test_named_arrays_are_checked(change: Callable[[Any], Any], error: Any, message: str) -> None:
    """In `load_state_dict` and in `accumulate` alike; then nothing has been stored."""
    layer = GRU(3, 4, rng=0)
    before = layer.state_dict()
    bad = {name: np.zeros_like(a) for name, a in before.items()}
    name = "weight_ih_l0"
    bad[name] = change(bad[name])
    with pytest.raises(error, match=rf"^state_dict\['{name}'\] " + message):
        layer.load_state_dict(bad)
    tape = layer.forward(X)[2]
    with pytest.raises(error, match=rf"^accumulate\['{name}'\] " + message):
        layer.backward(tape, ones(5, 2, 4), accumulate=bad)
    assert all(np.array_equal(a, before[n]) for n, a in layer.params.items())
    assert not any(a.any() for n, a in bad.items() if n != name)


def test_a_tape_serves_once_and_its_own_layer() -> None:
    layer = LSTM(3, 4)
    tape = layer.forward(X)[2]
    with pytest.raises(ValueError, match=r"tape is from another layer, GRU\(3, 4\), expected one"):
        layer.backward(GRU(3, 4).forward(X)[2])
    with pytest.raises(TypeError, match=r"tape has type int, expected what forward returned"):
        layer.backward(3)
    layer.backward(tape)
    with pytest.raises(RuntimeError, match=r"tape has been used"):
        layer.backward(tape)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, pickle.dumps])
def test_tapes_are_not_copied(clone: Callable[[Any], Any]) -> None:
    """Neither a layer's nor a function's; and both still serve."""
    layer = GRU(3, 4)
    x, h0 = np.zeros((5, 2, 3), np.float32), np.zeros((2, 4), np.float32)
    weights = [layer.params[f"weight_{kind}_l0"] for kind in ("ih", "hh")]
    tapes = layer.forward(x)[2], functional.gru_forward(x, h0, *weights)[2]
    for tape in tapes:
        with pytest.raises(TypeError, match=r"tape cannot be pickled or copied.*forward"):
            clone(tape)
    layer.backward(tapes[0])
    functional.gru_backward(tapes[1])


def test_only_training_saves_a_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    saved, run = [], passes.run_forward

    def spy(calls: Any, threads: int) -> None:
        run(calls, threads)
        saved.append(calls[0].tape is not None)

    monkeypatch.setattr(_builtin, "run_forward", spy)
    layer = GRU(3, 4)
    layer(X)
    layer.forward(X)
    assert saved == [False, True]


def test_read_only_arrays_are_not_written() -> None:
    layer = GRU(3, 4, rng=0)
    total = layer.state_dict()
    total["bias_ih_l0"].flags.writeable = False
    message = r"^accumulate\['bias_ih_l0'\] is read-only, expected a writeable array"
    with pytest.raises(ValueError, match=message):
        layer.backward(layer.forward(X)[2], accumulate=total)
