"""Cells that functions of the library make: equal arguments, one cell, in pickles and files too."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_cells import library

import rnnfast
from rnnfast import _files, cells
from rnnfast.cells._factory import factory


@factory
def leaky(rate: float = 0.5, *, inputs: Any = ("x",)) -> cells.Cell:
    """A cell of the tests."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected 0 to 1")

    @cells.cell(state="h")
    def leaky(x, h):
        sources = {name: x * (i + 1) for i, name in enumerate(inputs)}
        return (1 - rate) * h + rate * cells.linear("a", **sources)

    return leaky


def test_equal_arguments_give_the_same_cell() -> None:
    assert leaky() is leaky(0.5) is leaky(rate=np.float64(0.5)) is leaky(inputs=["x"])
    assert leaky(np.float32(0.25)) is leaky(0.25)
    assert leaky(0.25) is not leaky()
    assert cells.lstm_variant("NP") is cells.lstm_variant(name="NP")


def test_numbers_and_bools_that_are_equal_are_told_apart() -> None:
    made: list[object] = []

    @factory
    def own(option: Any) -> cells.Cell:
        made.append(option)
        return cells.cell(state="h")(lambda x, h: h)

    assert len({id(own(option)) for option in (1, True, 1.0, "1", None, (1,), ((1,),))}) == 7
    assert [type(option) for option in made[:3]] == [int, bool, float]


def test_the_function_keeps_its_name_and_text() -> None:
    assert leaky.__name__ == "leaky"
    assert leaky.__doc__ == "A cell of the tests."
    assert leaky().made is not None
    assert cells.mgu.made is None


@pytest.mark.parametrize("value", [np.zeros(3), {"a": 1}, b"x", 1j, (1, [object()])], ids=repr)
def test_arguments_that_no_file_holds_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^inputs has type \w+, expected .* tuple"):
        leaky(inputs=value)


def test_errors_of_the_function_pass_and_nothing_is_kept() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="rate is 2"):
            leaky(2)


@pytest.mark.parametrize("which", [cells.lstm_variant("NP"), leaky(0.3, inputs=("x", "y"))])
def test_pickles_and_copies_are_the_same_cell(which: cells.Cell) -> None:
    assert pickle.loads(pickle.dumps(which)) is which
    assert copy.deepcopy(which) is which
    layer = rnnfast.Recurrent(which, 3, 5, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    same = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(same(x)[0], layer(x)[0])
    stream = pickle.loads(pickle.dumps(layer.stream(2)))
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])


@pytest.mark.parametrize("which", list(library()), ids=lambda cell: cell.name)
def test_every_cell_of_the_library_is_found_again(which: cells.Cell, tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(which)) is which
    rnnfast.Recurrent(which, 3, 5).save(tmp_path / "layer.npz")
    assert rnnfast.load(tmp_path / "layer.npz").cell is which
    assert which.name in str(which)


def test_a_file_says_which_function_made_a_cell_of_what(tmp_path: Path) -> None:
    rnnfast.Recurrent(cells.lstm_variant("CIFG"), 3, 5).save(tmp_path / "layer.npz")
    header, _ = _files.read(tmp_path / "layer.npz", ["rnnfast layer 1"])
    assert header["options"]["cell"][0] == "lstm_CIFG"
    assert header["options"]["cell"][2:] == ["lstm_variant", {"name": "CIFG"}]
    assert rnnfast.load(tmp_path / "layer.npz").cell is cells.lstm_variant("CIFG")


def rewritten(path: Path, cell: Any) -> Path:
    """A file whose layer says that its cell is that one."""
    header, arrays = _files.read(path, ["rnnfast layer 1"])
    header["options"]["cell"] = cell
    _files.write(path, arrays, json.loads(json.dumps(header)))
    return path


def test_files_with_no_more_than_a_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "layer.npz"
    for which in (cells.lstm_variant("FGR"), cells.peephole_lstm):
        rnnfast.Recurrent(which, 3, 5).save(path)
        name, equations = _files.read(path, ["rnnfast layer 1"])[0]["options"]["cell"][:2]
        assert rnnfast.load(rewritten(path, [name, equations])).cell is which


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (["lstm_variant", {"name": "none"}], "name is 'none', expected one of vanilla"),
        (["lstm_variant", {"name": "NP", "title": 1}], "unexpected keyword argument .title."),
        (["lstm_variant", {"name": [[{}]]}], "name has type dict"),
        (["lstm_variant", {"name": "CIFG"}], "other equations"),
        (["lstm_variant", ["NP"]], "expected a name and a fingerprint"),
        (["lstm_variant"], "expected a name and a fingerprint"),
        (["linear", {"name": "NP"}], "not in rnnfast.cells"),
        (["named", {"name": "NP"}], "not in rnnfast.cells"),
        (["mgu", {}], "not in rnnfast.cells"),
        (["VARIANTS", {}], "not in rnnfast.cells"),
    ],
)
def test_what_else_a_file_says_is_refused(end: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "layer.npz"
    rnnfast.Recurrent(cells.lstm_variant("NP"), 3, 5).save(path)
    name, equations = _files.read(path, ["rnnfast layer 1"])[0]["options"]["cell"][:2]
    with pytest.raises(ValueError, match=message):
        rnnfast.load(rewritten(path, [name, equations, *end]))


def test_a_function_of_ones_own_is_no_part_of_the_library(tmp_path: Path) -> None:
    layer = rnnfast.Recurrent(leaky(0.3), 3, 5)
    layer.save(tmp_path / "layer.npz")
    with pytest.raises(ValueError, match=r"rnnfast\.load\(path, cells=\[leaky\]\)"):
        rnnfast.load(tmp_path / "layer.npz")
    assert rnnfast.load(tmp_path / "layer.npz", cells=[leaky(0.3)]).cell is leaky(0.3)
    with pytest.raises(ValueError, match="other equations"):
        rnnfast.load(tmp_path / "layer.npz", cells=[leaky(0.4)])
