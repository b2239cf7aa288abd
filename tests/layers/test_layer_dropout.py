"""Dropout between layers: how much of it, whence, and where it does nothing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from rnnfast import GRU, RNN


def mask_layer(dropout: float, rng: Any, **options: Any) -> Any:
    """Two layers whose output is the dropout mask between them: the first gives ones."""
    layer = RNN(1, 50, 2, nonlinearity="identity", dropout=dropout, rng=rng, **options)
    for value in layer.params.values():
        value[...] = 0
    layer.params["bias_ih_l0"][...] = 1
    layer.params["weight_ih_l1"][...] = np.eye(50)
    return layer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.25, 0.9])
def test_dropout(p: float, dtype: Any) -> None:
    x = np.ones((40, 20, 1), dtype)
    layer = mask_layer(p, 3, dtype=dtype)
    mask, _, _ = layer.forward(x)
    np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - p)], rtol=1e-6)
    error = 4 * np.sqrt(p * (1 - p) / mask.size)  # four standard deviations
    assert np.mean(mask == 0) == pytest.approx(p, abs=error)
    assert np.mean(mask) == pytest.approx(1, abs=error / (1 - p))

    assert not np.array_equal(layer.forward(x)[0], mask)
    same = mask_layer(p, np.random.default_rng(3), dtype=dtype)
    same(x)  # inference draws no mask
    np.testing.assert_array_equal(same.forward(x)[0], mask)
    np.testing.assert_array_equal(layer(x)[0], np.ones_like(mask))


def test_dropout_warns_where_it_does_nothing() -> None:
    with pytest.warns(UserWarning, match=r"dropout=0\.5 .* num_layers=1") as caught:
        layer = GRU(3, 4, dropout=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GRU(3, 4), GRU(3, 4, 2), GRU(3, 4, 2, dropout=0.5)
    x = np.ones((2, 3, 3), np.float32)
    np.testing.assert_array_equal(layer.forward(x)[0], layer(x)[0])


@pytest.mark.parametrize("layers", [2, 3])
def test_dropout_is_between_layers_only(layers: int) -> None:
    """Neither on the input nor on the output: of ones, `layers - 1` masks in a row are left."""
    layer = RNN(50, 50, layers, nonlinearity="identity", dropout=0.5, rng=0, dtype=float)
    for name, value in layer.params.items():
        value[...] = np.eye(50) if name.startswith("weight_ih") else 0
    y, _, _ = layer.forward(np.ones((40, 20, 50)))
    assert set(np.unique(y)) == {0, 2.0 ** (layers - 1)}
    assert np.mean(y > 0) == pytest.approx(0.5 ** (layers - 1), abs=0.02)


def test_dropout_of_unbatched_and_batch_first_input() -> None:
    """The mask has the shape of the outputs that it acts on, and backward goes by the same one."""
    for options, lead in (({}, (40,)), ({"batch_first": True}, (20, 40))):
        layer = mask_layer(0.5, 3, dtype=float, **options)
        y, _, tape = layer.forward(np.ones((*lead, 1)))
        assert y.shape == (*lead, 50)
        assert set(np.unique(y)) == {0, 2}
        if len(lead) == 2:
            assert (y[0] != y[1]).any()
        assert (y[..., 0, :] != y[..., 1, :]).any()
        grads = layer.backward(tape, np.ones_like(y))
        assert grads.params["bias_ih_l0"].sum() == y.sum()
