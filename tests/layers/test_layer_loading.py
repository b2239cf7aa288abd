"""What `load_state_dict` takes: arrays, and what NumPy reads as such; and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import ArrayLike

from rnnfast import GRU, LSTM


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_numpy_reads_as_an_array_is_loaded(dtype: str) -> None:
    layer, other = GRU(3, 4, dtype=dtype, rng=0), GRU(3, 4, dtype=dtype, rng=1)
    layer.load_state_dict({name: ArrayLike(a) for name, a in other.params.items()})
    assert all(np.array_equal(a, other.params[name]) for name, a in layer.params.items())


def test_tensors_are_loaded() -> None:
    torch = pytest.importorskip("torch", reason="tensors are what is loaded")
    layer, theirs = LSTM(3, 4, 2, bidirectional=True), torch.nn.LSTM(3, 4, 2, bidirectional=True)
    layer.load_state_dict(theirs.state_dict())
    assert all(p.untyped_storage().resizable() for p in theirs.parameters())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(layer.params[name], value.numpy())
        assert not np.shares_memory(layer.params[name], value.numpy())


TENSORS = [
    (lambda t: t.requires_grad_(), r"type Tensor.*\w; {}\.detach\(\)\.numpy\(\)$"),
    (lambda t: t.bfloat16(), r"type Tensor.*; {}\.to\(torch\.float32\)\.numpy\(\)$"),
    (lambda t: t.half(), r"dtype float16, expected float32; np\.asarray\({}, np\.float32\)$"),
    (lambda t: t.double(), r"dtype float64, .*; np\.asarray\({}, np\.float32\), or make the layer"),
    (lambda t: t.to("meta"), r"type Tensor.*; {}\.cpu\(\)\.numpy\(\)$"),
]


@pytest.mark.parametrize(("change", "message"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    torch = pytest.importorskip("torch", reason="tensors are what is refused")
    layer = GRU(3, 4, rng=0)
    before = layer.state_dict()
    bad = {name: torch.zeros(a.shape) for name, a in before.items()}
    bad["bias_hh_l0"] = change(bad["bias_hh_l0"])
    name = r"state_dict\['bias_hh_l0'\]"
    with pytest.raises(TypeError, match=f"^{name} has {message.format(name)}"):
        layer.load_state_dict(bad)
    assert all(np.array_equal(a, before[n]) for n, a in layer.params.items())


class Module:
    """As PyTorch's."""

    def state_dict(self) -> dict[str, Any]:
        return {}


CALL = r"; state_dict\.state_dict\(\)"


def test_names_are_checked() -> None:
    layer = GRU(3, 4, rng=0)
    values = layer.state_dict()
    values["weight_hr_l0"] = values.pop("bias_hh_l0")
    message = r"missing keys \['bias_hh_l0'\] and unexpected keys \['weight_hr_l0'\]"
    with pytest.raises(ValueError, match="^state_dict has " + message):
        layer.load_state_dict(values)
    message = "^state_dict has type {}, expected a dict of arrays{}$"
    for bad, fix in (
        ([*values.items()], ""),
        (GRU(3, 4), r"; state_dict\.params"),
        (Module(), CALL),
    ):
        with pytest.raises(TypeError, match=message.format(type(bad).__name__, fix)):
            layer.load_state_dict(bad)
