"""Modules of the training kit and several layers in one file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_files import with_header

import rnnfast
from rnnfast import GRU, LSTM, RNN
from rnnfast.training import Embedding, Linear, join


@pytest.fixture(params=["model", "model.npz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path of either format."""
    name: str = request.param
    if not name.endswith(".npz"):
        pytest.importorskip("safetensors", reason="files in its format need it")
    return tmp_path / name


def assert_same(layer: Any, expected: Any) -> None:
    """Class, options and the parameters' bits."""
    assert type(layer) is type(expected)
    for name, value in vars(expected).items():
        if isinstance(value, int | str | np.dtype):
            assert getattr(layer, name) == value, name
    assert list(layer.params) == list(expected.params)
    for name, param in expected.params.items():
        np.testing.assert_array_equal(layer.params[name], param, strict=True)
        assert layer.params[name].flags.writeable


MODULES = [
    Linear(3, 5, rng=0),
    Linear(4, 700, bias=False, dtype=np.float64, rng=0),
    Linear(1, 1, rng=0),
    Embedding(7, 4, rng=0),
    Embedding(2, 1, dtype=np.float64, rng=0),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_a_module_comes_back(path: Path, module: Any) -> None:
    module.save(path)
    again = rnnfast.load(path)
    assert_same(again, module)
    x: Any = np.ones((2, 4), int)
    if isinstance(module, Linear):
        x = np.ones((2, module.input_size), module.params["weight"].dtype)
    y, tape = again.forward(x)
    np.testing.assert_array_equal(y, module(x), strict=True)
    again.backward(tape, y)


STEPS = [
    rnnfast.RNNCell(3, 4, nonlinearity="relu", rng=0),
    rnnfast.GRUCell(3, 4, reset_after=False, dtype=np.float64, rng=0),
    rnnfast.LSTMCell(3, 5, proj_size=2, bias=False, rng=0),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_cell_of_one_step_comes_back(path: Path, step: Any) -> None:
    step.save(path)
    again = rnnfast.load(path)
    assert_same(again, step)
    x = np.ones((2, 3), step.dtype)
    for found, expected in zip(again(x), step(x), strict=True):  # (h, c), or the rows of h
        np.testing.assert_array_equal(found, expected, strict=True)
    rnnfast.save(path, {"one": step, "layer": GRU(3, 4)})
    assert_same(rnnfast.load(path)["one"], step)


def test_a_dict_of_layers_comes_back_in_its_order(path: Path) -> None:
    layers = {
        "out": Linear(10, 3, rng=0),
        "encoder": LSTM(4, 5, 2, bidirectional=True, rng=0),
        "a.b": GRU(3, 5, rng=0),
        "a": RNN(3, 5, bias=False, rng=0),
        "": Embedding(6, 4, rng=0),
        "../größe 量/\\": Linear(2, 2, dtype=np.float64, rng=0),
        "__metadata__": Embedding(2, 2, rng=0),
    }
    rnnfast.save(path, layers)
    again = rnnfast.load(path)
    assert list(again) == list(layers)
    for name, layer in layers.items():
        assert_same(again[name], layer)


def test_a_dict_of_no_layers_and_a_single_layer(path: Path) -> None:
    rnnfast.save(path, {})
    assert rnnfast.load(path) == {}
    rnnfast.save(path, GRU(3, 5, rng=0))
    one = path.read_bytes()
    GRU(3, 5, rng=0).save(path)
    assert path.read_bytes() == one


def test_other_readers_find_the_names_of_a_state_dict(tmp_path: Path) -> None:
    layers = {"encoder": GRU(3, 5, rng=0), "out": Linear(5, 2, rng=0)}
    named = join(encoder=layers["encoder"].params, out=layers["out"].params)
    rnnfast.save(tmp_path / "model.npz", layers)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert set(file.files) == {*named, "rnnfast.json"}
    numpy_reader = pytest.importorskip("safetensors.numpy")
    rnnfast.save(tmp_path / "model", layers)
    assert numpy_reader.load_file(tmp_path / "model").keys() == named.keys()


# ----------------------------------------------------------------------------------- wrong calls


class Dotted(Linear):
    """Stands in for a layer whose parameters have dots in their names."""


def changed(module: Any, **params: Any) -> Any:
    module.params.update(params)
    return module


WRONG: list[tuple[Any, type[Exception], str]] = [
    (3, TypeError, "layer has type int, expected RNN, GRU, LSTM, Recurrent, RNNCell, GRUCell"),
    (None, TypeError, "layer has type NoneType"),
    ({"a": {"b": GRU(3, 5)}}, TypeError, "layers['a'] has type dict, expected RNN"),
    ({"a": Dotted(3, 5)}, TypeError, "layers['a'] has type Dotted"),
    ({"a": GRU(3, 5), 1: GRU(3, 5)}, TypeError, "layers has the name 1, expected str"),
    ({"a\0b": GRU(3, 5)}, ValueError, "without NUL"),
    ({"a\ud800": GRU(3, 5)}, ValueError, "cannot be stored"),
    ({"a" * 70_000: GRU(3, 5)}, ValueError, "at most 60000 bytes"),
    (changed(Linear(3, 5), more=np.zeros(2)), ValueError, "unexpected keys ['more']"),
    (
        changed(Linear(3, 5), weight=[1.0]),
        TypeError,
        "weight has type list, expected",
    ),
    (changed(Linear(3, 5), weight=np.zeros(3)), ValueError, "weight has shape (3,), expected 2"),
    (
        changed(Linear(3, 5), weight=np.zeros((5, 4), "f4")),
        ValueError,
        "layer has params for input_size 4, expected 3",
    ),
    (
        changed(Linear(3, 5), bias=np.zeros(5)),
        TypeError,
        "['bias'] has dtype float64",
    ),
    (
        changed(Linear(3, 5), bias=np.zeros(4, "f4")),
        ValueError,
        "['bias'] has shape (4,)",
    ),
    (
        changed(Embedding(3, 5), weight=np.zeros((3, 4))),
        ValueError,
        "params for size 4, expected 5",
    ),
    (changed(Embedding(3, 5), weight=np.zeros((3, 5), int)), TypeError, "weight has dtype int64"),
]


@pytest.mark.parametrize(("layers", "error", "message"), WRONG)
def test_what_cannot_be_saved_is_refused_before_the_work(
    path: Path, layers: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        rnnfast.save(path, layers)
    assert not any(path.parent.iterdir())


def test_two_parameters_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers of today have no dots in their parameters' names, so one is made up."""
    monkeypatch.setattr(Linear, "_options", staticmethod(lambda params: {}))
    dotted = Linear(3, 5, bias=False)
    dotted.params = {"b.weight": dotted.params["weight"]}
    with pytest.raises(ValueError, match=r"would be called 'a\.b\.weight', rename 'a\.b'"):
        rnnfast.save(tmp_path / "model.npz", {"a": dotted, "a.b": Linear(3, 5)})


# -------------------------------------------------------------------------------------- bad files


DAMAGE: list[tuple[Any, str]] = [
    (lambda h: h.update(layers=[]), "its layers are [], expected a JSON object"),
    (lambda h: h.pop("layers"), "its layers are None"),
    (lambda h: h.update(layers={}), "belongs to no layer"),
    (lambda h: h["layers"].pop("e"), "its array 'e.weight' belongs to no layer"),
    (lambda h: h["layers"].update(e=3), "layer 'e': its params are None"),
    (lambda h: h["layers"]["e"].update(params="weight"), "layer 'e': its params are 'weight'"),
    (lambda h: h["layers"]["e"].update(params=["w"]), "layer 'e': its array 'e.w' is missing"),
    (lambda h: h["layers"]["e"].update(params=[[]]), "layer 'e': its array 'e.[]' is missing"),
    (lambda h: h["layers"].update({"out": h["layers"]["e"]}), "layer 'out': option"),
    (lambda h: h["layers"].update({"new": h["layers"]["e"]}), "layer 'new': its array"),
    (lambda h: h["layers"]["e"].update({"class": "Adam"}), "its class is 'Adam', expected one"),
    (lambda h: h["layers"]["e"].update(options=[1]), "its options are [1]"),
    (lambda h: h["layers"]["e"]["options"].pop("size"), "expected count, size, dtype"),
    (lambda h: h["layers"]["e"]["options"].update(count=10**12), "option count is 1000000000000"),
    (lambda h: h["layers"]["e"]["options"].update(count=7.0), "option count is 7.0, expected 7"),
    (lambda h: h["layers"]["e"]["options"].update(dtype="float64"), "option dtype is 'float64'"),
    (lambda h: h["layers"]["out"]["options"].update(bias=False), "option bias is False"),
    (lambda h: h["layers"]["out"].update(params=["weight"]), "option bias is True, expected False"),
    (
        lambda h: h["layers"]["out"].update(params=["bias"]),
        "['bias'], expected 'weight' among",
    ),
    (lambda h: h["layers"]["rnn"]["options"].update(hidden_size=10**9), "layer 'rnn': arrays["),
]


@pytest.mark.parametrize(("change", "reason"), DAMAGE)
def test_what_is_not_right_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    path = tmp_path / "model.npz"
    rnnfast.save(path, {"e": Embedding(7, 4), "rnn": RNN(4, 5), "out": Linear(5, 2)})
    with_header(path, lambda header: None)
    assert len(rnnfast.load(path)) == 3
    with_header(path, change)
    prefix = f"cannot load layer {os.fspath(path)!r}: "
    with pytest.raises(ValueError, match=re.escape(prefix)) as raised:
        rnnfast.load(path)
    assert reason in str(raised.value), str(raised.value)


def test_a_layer_is_loaded_without_the_training_kit(tmp_path: Path) -> None:
    GRU(3, 5).save(tmp_path / "layer.npz")
    program = """
        import sys, rnnfast
        rnnfast.load("layer.npz").save("again.npz")
        assert not any(name.startswith("rnnfast.training") for name in sys.modules)
        """
    environment = os.environ | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
    command = [sys.executable, "-c", "if True:" + program]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)


@pytest.mark.filterwarnings("error")
def test_what_was_said_when_a_layer_was_made_is_not_said_again(path: Path) -> None:
    with pytest.warns(UserWarning, match="dropout=0.2"):
        layer = GRU(3, 4, dropout=0.2)
    layer.save(path)
    assert rnnfast.load(path).dropout == 0.2
