"""A model's training that goes on from its checkpoint ends with the bits of one in one go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_models import SIZE, given

from rnnfast import GRU, Last, Recurrent, Sequential, cells
from rnnfast.training import (
    Adam,
    Dropout,
    Linear,
    fit,
    load_checkpoint,
    mean_squared_error,
)

T, N = 5, 17


def with_own_generators(seed: int) -> tuple[Sequential, Any]:
    """Each layer that draws has a generator, of its own kind, and fit a seed."""
    rng = [np.random.Generator(np.random.MT19937([seed, i])) for i in range(2)]
    model = Sequential(
        Dropout(0.2, rng=rng[0]),
        GRU(SIZE, 6, 2, dropout=0.5, rng=seed),
        Sequential(Dropout(0.5, rng=rng[1]), Last()),
        Linear(6, 2, rng=seed),
    )
    return model, seed


def with_one_generator(seed: int) -> tuple[Sequential, Any]:
    """The same one for the layers and for fit."""
    rng = np.random.default_rng(seed)
    model = Sequential(
        GRU(SIZE, 6, 2, dropout=0.5, rng=rng), Dropout(0.5, rng=rng), Linear(6, 2, rng=rng)
    )
    return model, rng


def with_one_for_the_layers(seed: int) -> tuple[Sequential, Any]:
    """Two layers share one, and fit has another."""
    rng = np.random.default_rng(seed)
    masked = Recurrent(cells.zoneout_lstm(0.3, 0.1), SIZE, 6, rng=rng)
    return Sequential(masked, Dropout(0.5, rng=rng), Linear(6, 2)), np.random.default_rng(seed + 1)


makes = pytest.mark.parametrize(
    "make", [with_own_generators, with_one_generator, with_one_for_the_layers]
)


def trained(make: Any, seed: int = 0, epochs: int = 6, **options: Any) -> Any:
    """The model and its optimiser, its history, and the random states at the end."""
    model, rng = make(seed)
    for name, p in model.params.items():  # of one kind of initial values, but other ones
        p[...] = np.random.default_rng([seed, len(name)]).standard_normal(p.shape) / 3
    X = given(model, T, N)
    y = np.random.default_rng(4).standard_normal(model(X).shape).astype(np.float32)
    optimizer = Adam(model, lr=0.01 * (1 + seed))
    history = fit(
        model, mean_squared_error, X, y, epochs=epochs, optimizer=optimizer, batch_size=4, rng=rng,
        progress=False, lengths=np.random.default_rng(5).integers(1, T + 1, N), **options,
    )  # fmt: skip
    generators = [one.layer.rng for one in model._chain.links if hasattr(one.layer, "rng")]
    states = [json.dumps(g.bit_generator.state, default=np.ndarray.tolist) for g in generators]
    return model, optimizer, history, states


def assert_same(one: Any, other: Any) -> None:
    for name, p in one[0].params.items():
        np.testing.assert_array_equal(other[0].params[name], p, err_msg=name)
    for name, array in one[1].state_arrays().items():
        np.testing.assert_array_equal(other[1].state_arrays()[name], array, err_msg=name)
    assert (one[2].loss, one[2].held_out) == (other[2].loss, other[2].held_out)
    assert one[3] == other[3]


@makes
@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_it_goes_on_after_any_epoch(make: Any, cut: int, kind: str, tmp_path: Path) -> None:
    if kind == "safetensors":
        pytest.importorskip("safetensors", reason="files in its format need it")
    path = tmp_path / f"checkpoint.{kind}"
    whole = trained(make)
    trained(make, epochs=cut, checkpoint=path)
    assert_same(whole, trained(make, seed=7, checkpoint=path))


@makes
def test_it_goes_on_after_ctrl_c_in_an_epoch(make: Any, tmp_path: Path) -> None:
    path, whole = tmp_path / "checkpoint.npz", trained(make)

    class Stopping(Adam):
        left = 12

        def step(self, grads: Any) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            super().step(grads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Adam", Stopping)
        stopped = trained(make, checkpoint=path)[2]
    assert stopped.interrupted
    assert stopped.epochs == 2
    resumed = trained_with(Stopping, make, path)
    assert_same(whole, resumed)


def trained_with(kind: Any, make: Any, path: Path) -> Any:
    """Goes on with an optimiser of that class, whose name the file has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Adam", kind)
        patch.setattr(kind, "left", -1)
        return trained(make, seed=3, checkpoint=path)


@makes
def test_it_goes_on_after_a_callback_has_ended_it(make: Any, tmp_path: Path) -> None:
    path, whole = tmp_path / "checkpoint.npz", trained(make)
    first = trained(make, checkpoint=path, callbacks=[lambda history: history.epochs == 3])[2]
    assert (first.epochs, first.interrupted) == (3, False)
    assert_same(whole, trained(make, seed=7, checkpoint=path))


@makes
def test_it_stops_in_time_and_ends_with_the_best(make: Any, tmp_path: Path) -> None:
    figures = [1.0, 5, 4, 9, 8, 7]

    def options(path: Any) -> dict[str, Any]:
        left = iter(figures)
        return {"evaluate": lambda: next(left), "maximize": True, "patience": 2, "checkpoint": path}

    whole = trained(make, **options(None))
    assert whole[2].held_out == figures
    assert whole[2].best_epoch == 3
    path = tmp_path / "checkpoint.npz"
    trained(make, epochs=3, **options(path))
    resumed_options = options(path)
    for _ in range(3):
        resumed_options["evaluate"]()
    resumed = trained(make, seed=7, **resumed_options)
    assert_same(whole, resumed)
    assert resumed[2].maximize


def test_a_file_with_other_generators_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    trained(with_own_generators, epochs=1, checkpoint=path)

    def other_kind(seed: int) -> Any:
        model, rng = with_own_generators(seed)
        model[0].rng = np.random.default_rng(seed)
        return model, rng

    def shared(seed: int) -> Any:
        model, rng = with_own_generators(seed)
        model[0].rng = model[1].rng
        return model, rng

    for make, message in (
        (other_kind, "its random state does not fit the generator"),
        (shared, r"its random states of layers has missing keys \[\] and unexpected keys \['1'\]"),
    ):
        with pytest.raises(ValueError, match=rf"cannot load checkpoint .*: {message}"):
            trained(make, checkpoint=path)


def test_a_file_of_the_first_form_has_no_random_states_of_layers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    model, _ = with_own_generators(0)
    y, tape = model.forward(given(model, T, N))
    grads = model.backward(tape, y)
    fit(lambda batch: (1.0, grads), Adam(model), [0], epochs=1, checkpoint=path, progress=False)
    assert set(load_checkpoint(path, model, Adam(model))) == {
        "loss", "gradient_norm", "held_out", "seconds", "interrupted",
    }  # fmt: skip
    with pytest.raises(ValueError, match="its random states of layers has missing keys"):
        trained(with_own_generators, checkpoint=path)


def test_maximize_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    trained(with_one_generator, epochs=1, checkpoint=path, evaluate=lambda: 1.0, maximize=True)
    with pytest.raises(ValueError, match="is of a training with maximize=True, expected False"):
        trained(with_one_generator, checkpoint=path, evaluate=lambda: 1.0)
