"""Arrays under several names: one step, one state, and no way to a silent second one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast import GRU
from rnnfast.training import (
    SGD,
    Adam,
    AdamW,
    Embedding,
    Linear,
    RMSprop,
    Rprop,
    clip_norm,
    clip_value,
    fit,
    global_norm,
    join,
    load_checkpoint,
    save_checkpoint,
    softmax_cross_entropy,
)

KINDS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (Rprop, {"lr": 0.02}),
    (RMSprop, {"lr": 0.03}),
    (Adam, {"lr": 0.05, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.05, "weight_decay": 0.3}),
]
kinds = pytest.mark.parametrize(("kind", "options"), KINDS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Ways to the same entries in the same places, through the same object or another.
VIEWS: dict[str, Callable[[Any], Any]] = {
    "the object": lambda w: w,
    "a view": lambda w: w[:],
    "a slice of all": lambda w: w[:, 0 : w.shape[1]],
    "turned twice": lambda w: w.T.T,
    "another shape and back": lambda w: w.reshape(-1).reshape(w.shape),
}


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_tied_names_take_one_step() -> None:
    a = {"w": np.ones(3, np.float32)}
    a["v"] = a["w"]
    grads = {"w": np.full(3, 0.1, np.float32), "v": np.full(3, 0.2, np.float32)}
    Adam(a, 0.1).step(grads)
    np.testing.assert_allclose(a["w"], 0.9, rtol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
@dtypes
@kinds
def test_a_tied_array_steps_as_one_alone(kind: Any, options: Any, dtype: Any, view: str) -> None:
    alone = {"w": normal(4, 5, dtype=dtype), "b": normal(3, seed=1, dtype=dtype)}
    tied = {name: p.copy() for name, p in alone.items()}
    tied = {"w": tied["w"], "b": tied["b"], "v": VIEWS[view](tied["w"])}
    one, both = kind(alone, **options), kind(tied, **options)
    for step in range(4):
        g, h, b = (normal(*s, seed=9 * step + i) for i, s in enumerate([(4, 5), (4, 5), (3,)]))
        g, h, b = g.astype(dtype), h.astype(dtype), b.astype(dtype)
        kept = g.copy()
        one.step({"w": g + h, "b": b})
        both.step({"w": g, "b": b, "v": h})
        np.testing.assert_array_equal(g, kept)
        for name, p in alone.items():
            np.testing.assert_array_equal(tied[name], p)
        np.testing.assert_array_equal(tied["v"], alone["w"])
    assert both.state_arrays().keys() == one.state_arrays().keys()
    for name, array in one.state_arrays().items():
        np.testing.assert_array_equal(both.state_arrays()[name], array)


def test_three_names_and_two_tied_arrays() -> None:
    w, b, f = np.ones(2), np.ones(3), np.ones(2, np.float32)
    params = {"w": w, "b": b, "w again": w, "f": f, "b again": b, "w once more": w, "f again": f}
    SGD(params, lr=1.0).step({name: np.full_like(p, 0.25) for name, p in params.items()})
    np.testing.assert_array_equal(w, 0.25)
    np.testing.assert_array_equal(b, 0.5)
    np.testing.assert_array_equal(f, 0.5)


# Ways to memory that two parameters share in part, or in another order.
OVERLAPS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda w: w.T,
    "flat": lambda w: w.reshape(-1),
    "an axis more": lambda w: w[None],
    "reversed": lambda w: w[::-1],
    "a part": lambda w: w[1:],
    "a column": lambda w: w[:, 2],
    "every other row": lambda w: w[::2],
    "one entry": lambda w: w[3, 3],
    "other dtype": lambda w: w.view(np.float32),
}


@pytest.mark.parametrize("kind", [SGD, Rprop, RMSprop, Adam, AdamW])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_other_overlaps_are_refused(kind: Any, overlap: str) -> None:
    w = normal(4, 4)
    other = OVERLAPS[overlap](w)
    other = w[3:, 3:].reshape(()) if overlap == "one entry" else other
    for params in ({"w": w, "b": np.ones(3), "v": other}, {"v": other, "w": w}):
        with pytest.raises(ValueError, match=r"^params\['.'\] shares memory with params\['.'\]"):
            kind(params)


def test_overlapping_slices_are_refused() -> None:
    memory = np.ones(100)
    with pytest.raises(ValueError, match=r"^params\['c'\] shares memory with params\['a'\]"):
        SGD({"a": memory[:60], "b": memory[60:], "c": memory[50:60]})


def test_an_array_that_overlaps_itself_is_refused() -> None:
    memory = np.ones(10)
    window = np.lib.stride_tricks.sliding_window_view(memory, 3, writeable=True)
    repeated = np.lib.stride_tricks.as_strided(memory, (4, 10), (0, 8))
    for p in (window, repeated):
        with pytest.raises(ValueError, match=r"^params\['w'\] has entries that share memory"):
            SGD({"w": p})


def test_neighbours_in_one_memory_are_no_overlap() -> None:
    """Halves, columns side by side, every other entry, and arrays without entries."""
    memory = np.ones((6, 8))
    params = {"left": memory[:, :3], "even": memory[:, 4::2], "odd": memory[::-1, 5::2]}
    params |= {"column": memory[:, 3], "none": memory[:0], "none again": memory[:0]}
    SGD(params, lr=1.0).step({name: np.full(p.shape, 0.5) for name, p in params.items()})
    np.testing.assert_array_equal(memory, 0.5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_keeps_the_tie_or_says_that_it_is_lost(copied: Any) -> None:
    w = np.ones(2)
    grads = {"w": np.ones(2), "v": np.ones(2)}
    twin = copied(SGD({"w": w, "v": w}, lr=0.25))
    twin.step(grads)
    np.testing.assert_array_equal(twin.params["w"], 0.5)
    assert twin.params["v"] is twin.params["w"]
    twin = copied(SGD({"w": w, "v": w[:]}, lr=0.25))  # two arrays in the copy
    with pytest.raises(ValueError, match=r"params has the ties {}, expected .*{'v': 'w'}; make a"):
        twin.step(grads)
    np.testing.assert_array_equal(twin.params["w"], 1.0)


def test_a_tie_that_comes_or_goes_is_refused() -> None:
    optimizer = SGD({"w": np.ones(2), "v": np.ones(2)}, lr=0.25)
    optimizer.params["v"] = optimizer.params["w"]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"params has the ties {'v': 'w'}, expected .*{}; make"):
        optimizer.step({"w": np.ones(2), "v": np.ones(2)})
    optimizer.params["v"] = np.ones(2)  # type: ignore[index]
    optimizer.step({"w": np.ones(2), "v": np.ones(2)})
    np.testing.assert_array_equal(optimizer.params["v"], 0.75)


def test_every_tied_name_needs_its_gradient() -> None:
    w = np.ones(2)
    optimizer = SGD({"w": w, "v": w})
    for name in ("w", "v"):
        with pytest.raises(ValueError, match=f"grads has no entry '{name}'"):
            optimizer.step({"wv".replace(name, ""): np.ones(2)})
        with pytest.raises(ValueError, match=f"grads has no entry '{name}'"):
            optimizer.summed({"wv".replace(name, ""): np.ones(2)})
        with pytest.raises(ValueError, match=rf"grads\['{name}'\] has shape \(3,\)"):
            optimizer.summed({"w": np.ones(2), "v": np.ones(2)} | {name: np.ones(3)})
    assert optimizer.steps == 0


# --------------------------------------------------------------------------------- norms, clipping


def test_the_norm_that_counts_is_that_of_the_sum() -> None:
    w = np.ones(2)
    optimizer = SGD({"w": w, "v": w, "b": np.ones(1)})
    grads = {"w": np.array([3.0, 0.0]), "v": np.array([1.0, 0.0]), "b": np.array([3.0])}
    assert global_norm(grads) == pytest.approx(19**0.5)
    assert global_norm(optimizer.summed(grads)) == pytest.approx(5.0)
    np.testing.assert_array_equal(grads["w"], [3.0, 0.0])
    untied = SGD({name: np.ones_like(g) for name, g in grads.items()})
    assert untied.summed(grads) is grads


def test_fit_clips_by_the_norm_of_the_sum() -> None:
    w, b = np.zeros(2), np.zeros(1)
    grads = {"w": np.array([3.0, 0.0]), "v": np.array([1.0, 0.0]), "b": np.array([3.0])}
    history = fit(
        lambda batch: (1.0, {name: g.copy() for name, g in grads.items()}),
        SGD({"w": w, "v": w, "b": b}, lr=1.0),
        [0],
        epochs=1,
        clip_norm=1.0,
        progress=False,
    )
    assert history.gradient_norm == pytest.approx([5.0])
    np.testing.assert_allclose([*w, *b], [-0.8, 0.0, -0.6], rtol=1e-6)


def test_an_array_under_two_names_is_clipped_once() -> None:
    g = np.array([3.0, 4.0])
    assert clip_norm({"w": g, "v": g}, 1.0) == pytest.approx(50**0.5)
    np.testing.assert_allclose(g, np.array([3.0, 4.0]) / 50**0.5, rtol=1e-6)
    clip_value({"w": g, "v": g}, 0.5)
    np.testing.assert_allclose(g, [3 / 50**0.5, 0.5], rtol=1e-6)


# ------------------------------------------------------------------------------------- checkpoints


class Tied:
    """A model of symbols that reads and writes with the same vectors."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.embedding = Embedding(7, 5, rng=self.rng)
        self.gru = GRU(5, 5, 2, dropout=0.2, rng=self.rng)
        self.out = Linear(5, 7, rng=self.rng)
        self.out.params["weight"] = self.embedding.params["weight"]
        self.params = join(embedding=self.embedding, gru=self.gru, out=self.out)

    def batches(self, rng: np.random.Generator) -> Any:
        return [rng.integers(0, 7, (6, 4)) for _ in range(3)]

    def loss_and_grads(self, ids: Any) -> tuple[float, dict[str, Any]]:
        x, ids_tape = self.embedding.forward(ids[:-1])
        y, _, tape = self.gru.forward(x)
        logits, out_tape = self.out.forward(y)
        loss, d_logits = softmax_cross_entropy(logits, ids[1:])
        out = self.out.backward(out_tape, d_logits)
        gru = self.gru.backward(tape, out.input)
        embedding = self.embedding.backward(ids_tape, gru.input)
        return loss, join(embedding=embedding, gru=gru, out=out)

    def fit(self, epochs: int, **options: Any) -> Any:
        optimizer = AdamW(self, lr=0.02)
        options = {"rng": self.rng, "progress": False, "clip_norm": 0.5} | options
        return fit(self.loss_and_grads, optimizer, self.batches, epochs=epochs, **options)


@pytest.mark.parametrize("patience", [None, 9])
def test_a_tied_model_resumes_bit_for_bit(tmp_path: Path, patience: int | None) -> None:
    pytest.importorskip("safetensors", reason="checkpoints are an extra")
    options: Any = {"patience": patience, "evaluate": lambda: 1.0} if patience else {}
    whole, path = Tied(), tmp_path / "model.safetensors"
    expected = whole.fit(4, **options)
    Tied().fit(2, checkpoint=path, **options)
    resumed = Tied(seed=9)
    history = resumed.fit(4, checkpoint=path, **options)
    assert history.loss == expected.loss
    assert resumed.out.params["weight"] is resumed.embedding.params["weight"]
    for name, p in whole.params.items():
        np.testing.assert_array_equal(p, resumed.params[name])


def test_a_checkpoint_holds_the_state_of_a_tied_array_once(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy", reason="checkpoints are an extra")
    path = tmp_path / "model.safetensors"
    model = Tied()
    optimizer = Adam(model)
    optimizer.step(model.loss_and_grads(model.batches(model.rng)[0])[1])
    save_checkpoint(path, model, optimizer)
    stored = numpy_files.load_file(path)
    slots = {name for name in stored if name.startswith("optimizer.")}
    assert {name for name in slots if "weight" in name and "gru" not in name} == {
        "optimizer.exp_avg.embedding.weight",
        "optimizer.exp_avg_sq.embedding.weight",
    }
    other = Tied(seed=1)
    load_checkpoint(path, other, Adam(other))
    for name, p in model.params.items():
        np.testing.assert_array_equal(other.params[name], p)


def test_two_arrays_are_not_loaded_into_one(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="checkpoints are an extra")
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"w": np.ones(2), "v": np.zeros(2)})
    w = np.full(2, 5.0)
    with pytest.raises(ValueError, match=r"params 'v' is the array 'w', but the file has two"):
        load_checkpoint(path, {"w": w, "v": w[:]})
    np.testing.assert_array_equal(w, 5.0)
    save_checkpoint(path, {"w": np.array([1.0, np.nan]), "v": np.array([1.0, np.nan])})
    load_checkpoint(path, {"w": w, "v": w})
    np.testing.assert_array_equal(w, [1.0, np.nan])
