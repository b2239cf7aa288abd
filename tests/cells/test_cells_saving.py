"""Layers of cells in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import some_cells

import rnnfast
from rnnfast import cells
from rnnfast.cells import cell


@pytest.mark.parametrize("which", [cells.peephole_lstm, cells.lstm_variant("CIFG")], ids=str)
def test_cells_of_the_library_are_found_by_name(which: cells.Cell, tmp_path: Path) -> None:
    layer = rnnfast.Recurrent(which, 3, 5, 2, bidirectional=True, bias=False, dtype=np.float64)
    layer.save(tmp_path / "layer.npz")
    same = rnnfast.load(tmp_path / "layer.npz")
    assert repr(same) == repr(layer)
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    np.testing.assert_array_equal(same(x)[0], layer(x)[0])


def test_cells_of_ones_own_are_given(tmp_path: Path) -> None:
    path = tmp_path / "layers.npz"
    layer = rnnfast.Recurrent(some_cells.several_stages, 3, 5)
    rnnfast.save(path, {"first": layer, "second": rnnfast.GRU(5, 4)})
    with pytest.raises(ValueError, match=r"rnnfast\.load\(path, cells=\[several_stages\]\)"):
        rnnfast.load(path)
    same = rnnfast.load(path, cells=[some_cells.several_stages])["first"]
    np.testing.assert_array_equal(same.params["q.bias_l0"], layer.params["q.bias_l0"])

    @cell(state="h q", sizes={"q": 3})
    def several_stages(x, h, q):
        return h, q

    with pytest.raises(ValueError, match="other equations"):
        rnnfast.load(path, cells=[several_stages])
