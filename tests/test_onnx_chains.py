"""ONNX: chains of nodes as the stacked layers of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _cases import cover
from _onnx_models import (
    KINDS,
    LENGTHS,
    H,
    I,
    assert_same,
    data,
    make,
    node_model,
    outputs,
)

from rnnfast.onnx import export, load

LAYERS = cover(
    80,
    seed=1,
    kind=KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, False),
    dtype=(np.float32, np.float64),
    state=(False, True),
    lengths=(False, True),
)


def assert_identical(got: Any, want: Any) -> None:
    """The same class, options, parameters and results."""
    assert type(got) is type(want)
    assert repr(got) == repr(want)
    assert got.params.keys() == want.params.keys()
    assert_same(list(got.params.values()), list(want.params.values()))
    x, state = data(want)
    assert_same(outputs(got, x), outputs(want, x))
    assert_same(outputs(got, x, state, lengths=LENGTHS), outputs(want, x, state, lengths=LENGTHS))


@pytest.mark.parametrize(
    "options", LAYERS, ids=lambda o: "-".join(getattr(v, "__name__", str(v)) for v in o.values())
)
def test_load_undoes_export(options: dict[str, Any], tmp_path: Path) -> None:
    options = dict(options)
    flags = {name: options.pop(name) for name in ("state", "lengths")}
    layer = make(**options)
    export(layer, tmp_path / "m.onnx", **flags)
    assert_identical(load(tmp_path / "m.onnx"), layer)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("fixed", ["reverse", "state", "c", "lengths", "all"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_load_undoes_export_of_what_nodes_fix(
    num_layers: int, fixed: str, batch_first: bool, tmp_path: Path
) -> None:
    model, _ = node_model(
        "LSTM",
        direction="reverse" if fixed in ("reverse", "all") else "forward",
        state="constant" if fixed in ("state", "c", "all") else "absent",
        lengths="constant" if fixed in ("lengths", "all") else "absent",
        change=(lambda arrays: arrays.pop("initial_h")) if fixed == "c" else None,
    )
    one: Any = load(model)
    plain = make("lstm", num_layers=num_layers, batch_first=batch_first, bidirectional=False)
    layer = type(one)(I, H, num_layers, batch_first=batch_first, rng=3)
    assert type(layer) is not type(plain)
    layer._reverse, layer.lengths = one.reverse, one.lengths
    if one.initial_state is not None:
        layer.initial_state = tuple(
            None if part is None else np.concatenate([part * (k + 1) for k in range(num_layers)])
            for part in one.initial_state
        )
    export(layer, tmp_path / "m.onnx")
    same: Any = load(tmp_path / "m.onnx")
    assert_identical(same, layer)
    assert same.reverse == layer.reverse
    for name in ("initial_state", "lengths"):
        assert (getattr(same, name) is None) == (getattr(layer, name) is None)
