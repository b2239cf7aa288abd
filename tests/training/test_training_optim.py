"""Optimisers against their formulas and, step by step, against torch; what they take."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
from training_cases import assert_steps_of_torch, cases, gradients, parameters

from rnnfast import GRU
from rnnfast.training import (
    SGD,
    Adam,
    AdamW,
    Linear,
    RMSprop,
    Rprop,
    clip_norm,
    clip_value,
    global_norm,
    join,
)
from rnnfast.training._flat import BLOCK


@cases
def test_steps_are_those_of_torch(kind: Any, options: Any) -> None:
    assert_steps_of_torch(kind, options, [None] * 40)


def test_formulas() -> None:
    """One weight, three steps, computed here by hand from the papers."""
    grads = [2.0, -1.0, 0.5]
    p = b = 1.0
    b, expected = 0.0, []
    for g in grads:
        b = 0.9 * b + g
        p -= 0.1 * b
        expected.append(p)
    assert run(SGD, grads, lr=0.1, momentum=0.9) == pytest.approx(expected, rel=1e-14)

    # Rprop: 0.1 down; the sign turns, so halve and pause; the pause is forgotten, so 0.05 on
    assert run(Rprop, [2.0, -1.0, -1.0, -3.0], lr=0.1) == pytest.approx([0.9, 0.9, 0.95, 1.01])

    p, v, expected = 1.0, 0.0, []
    for g in grads:
        v = 0.9 * v + 0.1 * g * g
        p -= 0.01 * g / (v**0.5 + 1e-8)
        expected.append(p)
    assert run(RMSprop, grads, lr=0.01, alpha=0.9) == pytest.approx(expected, rel=1e-14)

    p, m, v, expected = 1.0, 0.0, 0.0, []
    for t, g in enumerate(grads, 1):
        p *= 1 - 0.01 * 0.5
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        expected.append(p)
    assert run(AdamW, grads, lr=0.01, weight_decay=0.5) == pytest.approx(expected, rel=1e-12)


def run(kind: Any, grads: list[float], **options: Any) -> list[float]:
    """The path of one weight that starts at 1."""
    p = np.array([1.0])
    optimizer, path = kind({"p": p}, **options), []
    for g in grads:
        optimizer.step({"p": np.array([g])})
        path.append(float(p[0]))
    return path


@cases
def test_step_is_in_place_and_keeps_dtype_and_gradients(kind: Any, options: Any) -> None:
    params = parameters(np.float32)
    before, arrays = {n: p.copy() for n, p in params.items()}, dict(params)
    optimizer = kind(params, **options)
    for step in range(3):
        grads = gradients(step, np.float32)
        kept = {n: g.copy() for n, g in grads.items()}
        optimizer.step(grads | {"another": np.zeros(2)})
        for name, g in grads.items():
            np.testing.assert_array_equal(g, kept[name])
    for name, p in params.items():
        assert p is arrays[name]
        assert p.dtype == np.float32
        assert np.all(np.isfinite(p))
        assert (p != before[name]).any()


@cases
def test_arrays_of_any_size_layout_and_dtype_step_as_each_alone(kind: Any, options: Any) -> None:
    """All lie end to end for the step: more than one block, two dtypes, what is not C order."""
    rng = np.random.default_rng(3)
    shapes = {"a": (3,), "long": (2 * BLOCK + 5,), "none": (0, 4), "b": (7, 300), "scalar": ()}
    together: dict[str, Any] = {}
    for name, shape in shapes.items():
        together[name] = rng.standard_normal(shape).astype(np.float32)
        together[name + " double"] = rng.standard_normal(shape)
    together["fortran"] = np.asfortranarray(rng.standard_normal((5, 6)))
    together["strided"] = rng.standard_normal((5, 6))[::2, ::-1]
    alone = {name: p.copy() for name, p in together.items()}
    optimizer = kind(together, **options)
    singles = {name: kind({name: p}, **options) for name, p in alone.items()}
    for _ in range(3):
        grads = {name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in alone.items()}
        grads["b"], grads["strided"] = np.asfortranarray(grads["b"]), grads["strided"][::-1]
        optimizer.step(grads)
        for single in singles.values():
            single.step(grads)
    for name, p in together.items():
        np.testing.assert_array_equal(p, alone[name], err_msg=name)
    for slot, arrays in optimizer.state.items():
        assert set(arrays) == set(together)
        for name, array in arrays.items():
            assert array.dtype == together[name].dtype
            np.testing.assert_array_equal(array, singles[name].state[slot][name])


def pickled(optimizer: Any) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@cases
def test_a_copy_goes_its_own_way(kind: Any, options: Any, copied: Any) -> None:
    first = kind(parameters(), **options)
    first.step(gradients(0))
    second = copied(first)
    for step in range(1, 4):
        first.step(gradients(step))
    for step in range(1, 4):
        second.step(gradients(step))
    for name, p in first.params.items():
        assert second.params[name] is not p
        np.testing.assert_array_equal(p, second.params[name])
    for name, array in first.state_arrays().items():
        np.testing.assert_array_equal(array, second.state_arrays()[name])


def test_adam_step_allocates_nothing_of_the_parameters_size() -> None:
    params = {"w": np.ones((400, 500), np.float32)}
    grads = {"w": np.ones((400, 500), np.float32)}
    optimizer = Adam(params, weight_decay=0.1)
    optimizer.step(grads)
    tracemalloc.start()
    optimizer.step(grads)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


@cases
def test_state_continues_exactly(kind: Any, options: Any) -> None:
    ours, theirs = parameters(), parameters()
    first, second = kind(ours, **options), kind(theirs, **options)
    first.lr = 0.04
    for step in range(5):
        first.step(gradients(step))
    for name, p in theirs.items():
        p[...] = ours[name]
    second.load_state(first.steps, first.lr, first.state_arrays())
    for step in range(5, 10):
        first.step(gradients(step))
        second.step(gradients(step))
    for name, p in theirs.items():
        np.testing.assert_array_equal(p, ours[name])


class Model:
    """Something with `params`, put together anew every time."""

    def __init__(self) -> None:
        self.gru, self.out = GRU(2, 3, rng=0), Linear(3, 1, rng=0)

    @property
    def params(self) -> dict[str, Any]:
        return join(gru=self.gru, out=self.out)


@cases
def test_a_layer_or_a_model_will_do_for_its_parameters(kind: Any, options: Any) -> None:
    for make in (lambda: GRU(2, 3, rng=0), lambda: Linear(2, 3, rng=0), Model):
        ours, theirs = make(), make()
        grads = {name: np.full_like(p, 0.5) for name, p in ours.params.items()}
        first, second = kind(ours, **options), kind(theirs.params, **options)
        for _ in range(2):
            first.step(grads)
            second.step(grads)
        for name, p in ours.params.items():
            np.testing.assert_array_equal(p, theirs.params[name])
        assert {*first.params} == {*ours.params}


def test_the_arrays_that_a_layer_has_now_are_moved() -> None:
    layer = Linear(2, 1, rng=0)
    optimizer = SGD(layer, lr=0.5, momentum=0.5)
    grads = {name: np.ones_like(p) for name, p in layer.params.items()}
    old = layer.params["weight"]
    layer.params["weight"] = np.zeros_like(old)
    kept = old.copy()
    optimizer.step(grads)
    np.testing.assert_array_equal(layer.params["weight"], -0.5)
    np.testing.assert_array_equal(old, kept)
    layer.params = {name: np.zeros_like(p) for name, p in layer.params.items()}
    optimizer.step(grads)  # the momentum stays
    np.testing.assert_array_equal(layer.params["weight"], -0.75)
    np.testing.assert_array_equal(layer.params["bias"], -0.75)
    for bad, error, message in [
        (np.zeros((1, 3), np.float32), ValueError, r"params\['weight'\] has shape \(1, 3\), exp"),
        (np.zeros((1, 2)), TypeError, r"params\['weight'\] has dtype float64, expected float32"),
        (None, TypeError, r"params\['weight'\] has type NoneType"),
    ]:
        layer.params["weight"] = bad
        with pytest.raises(error, match=message):
            optimizer.step(grads)
    del layer.params["weight"]
    with pytest.raises(ValueError, match=r"params has missing keys \['weight'\] and unexpected"):
        optimizer.step(grads)
    assert optimizer.steps == 2


def test_a_dict_is_copied() -> None:
    params = parameters()
    w = params["w"]
    optimizer = SGD(params, lr=1.0)
    grads = {name: np.ones_like(p) for name, p in params.items()}
    params["w"] = np.zeros_like(w)
    before = w.copy()
    optimizer.step(grads)
    np.testing.assert_array_equal(w, before - 1)
    assert not params["w"].any()


def test_what_backward_returns_will_do_for_the_gradients() -> None:
    gru, out = GRU(2, 3, rng=0), Linear(3, 1, rng=0)
    x = np.ones((4, 2, 2), np.float32)
    y, _, tape = gru.forward(x)
    z, out_tape = out.forward(y)
    out_grads = out.backward(out_tape, z)
    gru_grads = gru.backward(tape, out_grads.input)
    joined = join(gru=gru_grads, out=out_grads)
    assert joined.keys() == join(gru=gru, out=out).keys()
    assert all(joined[f"gru.{name}"] is g for name, g in gru_grads.params.items())
    for layer, grads in ((gru, gru_grads), (out, out_grads)):
        norm = global_norm(grads)
        assert norm == global_norm(grads.params) > 0
        assert clip_norm(grads, norm / 2) == norm
        assert global_norm(grads) == pytest.approx(norm / 2, rel=1e-4)
        clip_value(grads, 0.01)
        assert max(abs(g).max() for g in grads.params.values()) <= 0.01
        expected = {
            name: p - g
            for (name, p), g in zip(layer.params.items(), grads.params.values(), strict=True)
        }
        SGD(layer, lr=1.0).step(grads)
        for name, p in layer.params.items():
            np.testing.assert_array_equal(p, expected[name])


def test_parts_that_have_no_arrays_are_not_joined() -> None:
    with pytest.raises(TypeError, match="out has type int, expected a dict of arrays, or a layer"):
        join(gru=GRU(2, 3), out=3)  # type: ignore[arg-type]
