"""Models and layers without parameters in files: they come back, or the file is refused."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_files import with_header
from some_models import ALL, Doubled, from_ids, given, of_many

import rnnfast
from rnnfast import GRU, Last, Sequential
from rnnfast.training import Activation, Attention, Dropout, Linear


@pytest.fixture(params=["model", "model.npz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path of either format."""
    name: str = request.param
    if not name.endswith(".npz"):
        pytest.importorskip("safetensors", reason="files in its format need it")
    return tmp_path / name


# ---------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "dtype": np.float64}])
def test_a_model_comes_back(path: Path, make: Any, options: dict[str, Any]) -> None:
    model = make(**options)
    model.save(path)
    again = rnnfast.load(path)
    assert repr(again) == repr(model)
    assert list(again.params) == list(model.params)
    for name, p in model.params.items():
        np.testing.assert_array_equal(again.params[name], p, strict=True)
    x = given(model, 4, 3)
    np.testing.assert_array_equal(again(x), model(x), strict=True)
    y, tape = again.forward(x)
    again.backward(tape, y)
    one = path.read_bytes()
    rnnfast.save(path, again)
    assert path.read_bytes() == one


def test_layers_without_parameters_come_back(path: Path) -> None:
    layers = {
        "p": Dropout(0.25), "f": Activation("silu"), "a": Attention(), "l": Last(),
        "first": Last(batch_first=True), "steps": Last(batch_first=False), "0": Dropout(0),
    }  # fmt: skip
    rnnfast.save(path, layers)
    again = rnnfast.load(path)
    assert list(again) == list(layers)
    for name, layer in layers.items():
        found = {n: v for n, v in vars(again[name]).items() if n != "rng"}
        assert type(again[name]) is type(layer)
        assert found == {n: v for n, v in vars(layer).items() if n != "rng"}


def test_models_beside_layers(path: Path) -> None:
    layers = {"model": of_many(), "0": Sequential(Sequential(Last())), "head": Linear(3, 2)}
    rnnfast.save(path, layers)
    again = rnnfast.load(path)
    assert [repr(part) for part in again.values()][:2] == [repr(part) for part in layers.values()][
        :2
    ]
    for name, p in layers["model"].params.items():
        np.testing.assert_array_equal(again["model"].params[name], p, strict=True)


def test_other_readers_find_the_names_of_pytorch(tmp_path: Path) -> None:
    model = of_many()
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert set(file.files) == {*model.params, "rnnfast.json"}
        again = of_many()
        again.load_state_dict({name: file[name] for name in model.params})
    numpy_reader = pytest.importorskip("safetensors.numpy")
    model.save(tmp_path / "model")
    assert numpy_reader.load_file(tmp_path / "model").keys() == model.params.keys()


def test_cells_of_ones_own_are_given_to_load(path: Path) -> None:
    @rnnfast.cells.cell(state="h")
    def own(x: Any, h: Any) -> Any:
        return rnnfast.cells.tanh(rnnfast.cells.linear("a", x, h))

    model = Sequential(rnnfast.Recurrent(own, 3, 4, rng=0), Sequential(Last()))
    model.save(path)
    with pytest.raises(ValueError, match="layer 0: its cell is 'own', which is not in rnnfast"):
        rnnfast.load(path)
    x = np.ones((5, 2, 3), np.float32)
    np.testing.assert_array_equal(rnnfast.load(path, cells=[own])(x), model(x))


def test_a_model_is_loaded_without_the_training_kit(tmp_path: Path) -> None:
    Sequential(GRU(3, 5), Last()).save(tmp_path / "model.npz")
    program = """
        import sys, numpy, rnnfast
        model = rnnfast.load("model.npz")
        y, tape = model.forward(numpy.ones((4, 2, 3), "f4"), [4, 2])
        model.backward(tape, y)
        model.stream(2).run(numpy.ones((4, 2, 3), "f4"))
        model.save("again.npz")
        assert not any(name.startswith("rnnfast.training") for name in sys.modules)
        """
    environment = os.environ | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
    command = [sys.executable, "-c", "if True:" + program]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)


# ----------------------------------------------------------------------------------- wrong calls


class Mine(Sequential):
    """Stands in for a class that the file could not name."""


def changed(model: Sequential, at: int, **params: Any) -> Sequential:
    model[at].params.update(params)
    return model


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Mine(GRU(3, 4)), TypeError, "layer has type Mine, expected RNN, GRU, LSTM"),
        (Sequential(GRU(3, 4), Doubled()), TypeError, r"layer\[1\] has type Doubled, expected"),
        (
            Sequential(GRU(3, 4), Sequential(Last(), Doubled())),
            TypeError,
            r"layer\[1\]\[1\] has type Doubled",
        ),
        (changed(from_ids(), 3, more=np.zeros(2)), ValueError, "unexpected keys"),
        (changed(from_ids(), 2, more=np.zeros(2)), ValueError, r"unexpected keys \['more'\]"),
        (changed(from_ids(), 1, bias_hh_l0=np.zeros(28)), TypeError, "has dtype float64"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_work(
    path: Path, model: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        model.save(path)
    assert not any(path.parent.iterdir())


# -------------------------------------------------------------------------------------- bad files


def layers_of(header: Any) -> Any:
    return header["options"]["layers"]


DAMAGE: list[tuple[Any, str]] = [
    (lambda h: h.update(options={}), "its options are , expected layers"),
    (lambda h: h["options"].update(layers=3), "its layers are 3, expected a JSON array"),
    (lambda h: h["options"].update(layers={}), "its layers are {}, expected a JSON array"),
    (lambda h: h["options"].update(layers=[]), "its array '0.weight' belongs to no layer"),
    (lambda h: layers_of(h).pop(), "its array '5.weight' belongs to no layer"),
    (lambda h: layers_of(h).append(layers_of(h)[0]), "layer 6: params has the keys []"),
    (lambda h: layers_of(h).insert(0, layers_of(h)[0]), "layer 1: params has the keys ['bias_hh"),
    (lambda h: layers_of(h).__setitem__(1, [1]), "layer 1: it is [1], expected a JSON object"),
    (lambda h: layers_of(h)[1].update({"class": "list"}), "layer 1: its class is 'list', exp"),
    (lambda h: layers_of(h)[1].update(options=[1]), "layer 1: its options are [1]"),
    (lambda h: layers_of(h)[1]["options"].update(hidden_size=10**9), "layer 1: arrays["),
    (lambda h: layers_of(h)[1]["options"].update(num_layers=10**9), "layer 1: num_layers is"),
    (lambda h: layers_of(h)[0]["options"].update(count=10**12), "layer 0: option count is"),
    (lambda h: layers_of(h)[2]["options"].update(p=1), "layer 2: p is 1, expected"),
    (lambda h: layers_of(h)[2]["options"].update(p=0), "layer 2: option p is 0, expected 0.0"),
    (lambda h: layers_of(h)[2]["options"].update(p="0.5"), "layer 2: p has type str"),
    (lambda h: layers_of(h)[2]["options"].update(p=False), "layer 2: option p is False"),
    (lambda h: layers_of(h)[2]["options"].update(p=float("nan")), "layer 2: p is nan"),
    (lambda h: layers_of(h)[2]["options"].update(rng=0), "layer 2: its options are p, rng"),
    (lambda h: layers_of(h)[3]["options"]["layers"][0]["options"].update(name="x"),
     "layer 3: layer 0: name is 'x', expected"),
    (lambda h: layers_of(h)[3]["options"]["layers"][0]["options"].update(name=[]),
     "layer 3: layer 0: "),
    (lambda h: layers_of(h)[4]["options"].update(batch_first=0), "layer 4: option batch_first is"),
    (lambda h: layers_of(h)[4]["options"].update(batch_first=[]), "layer 4: option batch_first"),
    (lambda h: layers_of(h).insert(1, layers_of(h).pop(4)), "layer 1: "),
    (lambda h: layers_of(h).__setitem__(3, layers_of(h)[4]), "layers[4], Last, needs a time axis"),
    (lambda h: layers_of(h)[1].update(layers_of(h)[2]), "layer 1: arrays has missing keys []"),
    (lambda h: h["options"].update(layers=[{"class": "Sequential", "options": {"layers": []}}] * 6),
     "layer 0: its array 'weight' belongs to no layer"),
    (lambda h: h["options"].update(more=1), "its options are layers, more, expected layers"),
]  # fmt: skip


def saved(path: Path) -> Sequential:
    layers = [*from_ids()]
    between = [Dropout(0.5), Sequential(Activation("tanh"))]
    model = Sequential(*layers[:2], *between, *layers[2:])
    model.save(path)
    return model


@pytest.mark.parametrize(("change", "reason"), DAMAGE)
def test_what_is_not_right_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    path = tmp_path / "model.npz"
    expected = saved(path)
    with_header(path, lambda header: None)
    assert repr(rnnfast.load(path)) == repr(expected)
    with_header(path, change)
    prefix = f"cannot load layer {os.fspath(path)!r}: "
    with pytest.raises(ValueError, match=re.escape(prefix)) as raised:
        rnnfast.load(path)
    assert reason in str(raised.value), str(raised.value)


def test_models_in_models_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"

    def nest(header: Any) -> None:
        inner = layers_of(header)
        for _ in range(300):
            inner = [{"class": "Sequential", "options": {"layers": inner}}]
        header["options"]["layers"] = inner

    saved(path)
    with_header(path, nest)
    with pytest.raises(ValueError, match="cannot load layer"):
        rnnfast.load(path)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of dicts and lists."""
    for key in range(len(node)) if isinstance(node, list) else list(node):
        yield node, key
        if isinstance(node[key], list | dict):
            yield from places(node[key])


ODD = [None, True, -1, 0, 3, 10**12, 0.5, float("inf"), "", "GRU", "Sequential", [], {}, [[]]]


@pytest.mark.filterwarnings("ignore:dropout")
def test_whatever_the_header_says_a_load_ends_in_a_model_or_a_reason(tmp_path: Path) -> None:
    """Every part of the header replaced by an odd value, taken out, or written twice."""
    path = tmp_path / "model.npz"
    saved(path)
    whole: dict[str, Any] = {}
    with_header(path, whole.update)
    size = path.stat().st_size
    count = len(list(places(whole)))
    rng = np.random.default_rng(0)
    tracemalloc.start()
    rnnfast.load(path)
    for at in range(count):
        for odd in [ODD[rng.integers(len(ODD))], "taken out", "twice"]:
            header = copy.deepcopy(whole)
            node, key = list(places(header))[at]
            if odd == "taken out":
                del node[key]
            elif odd == "twice" and isinstance(node, list):
                node.insert(key, node[key])
            else:
                node[key] = odd
            tried = tmp_path / "tried.npz"
            tried.write_bytes(path.read_bytes())
            with_header(tried, lambda h, header=header: (h.clear(), h.update(header)))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                found = rnnfast.load(tried)
            except ValueError as error:
                assert str(error).startswith("cannot load layer")  # noqa: PT017
            else:
                assert json.dumps(header) == json.dumps(whole) or type(found) is Sequential
            assert tracemalloc.get_traced_memory()[1] - before < 20 * size + 500_000
    tracemalloc.stop()


def test_a_changed_or_cut_byte_is_refused_or_harmless(path: Path) -> None:
    expected = saved(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.permutation(len(content))[:300]:
        changed = bytearray(content)
        changed[at] ^= 1 << rng.integers(8)
        for tried in (bytes(changed), content[:at]):
            path.write_bytes(tried)
            try:
                found = rnnfast.load(path)
            except ValueError as error:
                assert str(error).startswith("cannot load layer")  # noqa: PT017
            else:
                assert found.params.keys() == expected.params.keys()
