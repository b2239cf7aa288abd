"""Optimisers against their formulas and, step by step, against torch; gradient clipping."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    SGD,
    Adam,
    AdamW,
    RMSprop,
    Rprop,
    clip_norm,
    clip_value,
    global_norm,
)
from rnnfast.training._flat import BLOCK

CASES = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (Rprop, {"lr": 0.02}),
    (Rprop, {"lr": 0.02, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.05)}),
    (RMSprop, {"lr": 0.03}),
    (RMSprop, {"lr": 0.03, "alpha": 0.8, "eps": 1e-3}),
    (Adam, {"lr": 0.05}),
    (Adam, {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.05}),
    (AdamW, {"lr": 0.05, "betas": (0.7, 0.9), "weight_decay": 0.3}),
]
cases = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{k.__name__}{i}" for i, (k, _) in enumerate(CASES)]
)


def parameters(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(s).astype(dtype) for name, s in [("w", (5, 3)), ("b", (7,))]}


def gradients(step: int, dtype: Any = np.float64) -> dict[str, Any]:
    """Gradients whose signs change here and there, some exactly zero."""
    rng = np.random.default_rng(100 + step // 2)
    grads = {
        n: (rng.standard_normal(p.shape) * (rng.random(p.shape) > 0.1)).astype(dtype)
        for n, p in parameters().items()
    }
    return {n: g if step % 3 else -g for n, g in grads.items()}


@cases
def test_steps_are_those_of_torch(kind: Any, options: Any) -> None:
    torch = pytest.importorskip("torch", reason="the semantics promised are torch's")
    ours = parameters()
    theirs = {name: torch.tensor(p, requires_grad=True) for name, p in ours.items()}
    optimizer = kind(ours, **options)
    witness = getattr(torch.optim, kind.__name__)(theirs.values(), **options)
    for step in range(40):
        grads = gradients(step)
        for name, p in theirs.items():
            p.grad = torch.tensor(grads[name])
        optimizer.step(grads)
        witness.step()
        for name, p in theirs.items():
            np.testing.assert_allclose(ours[name], p.detach().numpy(), rtol=1e-11, atol=1e-13)


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


def test_an_array_under_two_names_takes_both_steps() -> None:
    shared = np.ones(2)
    SGD({"here": shared, "there": shared}, lr=0.5).step({"here": np.ones(2), "there": np.ones(2)})
    np.testing.assert_array_equal(shared, 0)


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


def test_wrong_gradients_change_nothing() -> None:
    params = parameters()
    optimizer = Adam(params)
    good = gradients(0)
    wrong = [
        ({"w": good["w"]}, ValueError, "grads has no entry 'b'"),
        (
            good | {"b": good["b"][:3]},
            ValueError,
            r"grads\['b'\] has shape \(3,\), expected \(7,\)",
        ),
        (good | {"b": good["b"].astype(np.float32)}, TypeError, "dtype float32, expected float64"),
        (good | {"b": [0.0] * 7}, TypeError, "is list, expected ndarray"),
    ]
    for grads, error, message in wrong:
        with pytest.raises(error, match=message):
            optimizer.step(grads)
    assert optimizer.steps == 0
    for name, p in parameters().items():
        np.testing.assert_array_equal(params[name], p)


def test_wrong_options() -> None:
    params = parameters()
    wrong = [
        (lambda: SGD({}), "params is empty"),
        (lambda: SGD(params, lr=0.0), "lr is 0.0"),
        (lambda: SGD(params, momentum=1.0), "momentum is 1.0"),
        (lambda: Adam(params, lr=float("nan")), "lr is nan"),
        (lambda: Adam(params, betas=(0.9, 1.0)), "beta2 is 1.0"),
        (lambda: Adam(params, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: Rprop(params, etas=(1.2, 0.5)), "etas is"),
        (lambda: Rprop(params, step_sizes=(1.0, 0.5)), "step_sizes is"),
        (lambda: RMSprop(params, eps=0.0), "eps is 0.0"),
    ]
    for make, message in wrong:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"params\['w'\] has dtype int64"):
        SGD({"w": np.zeros(3, np.int64)})


def test_clip_norm_scales_all_gradients_together() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert clip_norm(grads, 10.0) == pytest.approx(5.0)
    np.testing.assert_array_equal(grads["a"], [3.0, 0.0])
    assert clip_norm(grads, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(grads["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(grads["b"], [[0.8]], rtol=1e-6)


def test_norm_survives_what_would_overflow_float32() -> None:
    grads = {"a": np.full(4, 1e30, np.float32)}
    assert global_norm(grads) == pytest.approx(2e30, rel=1e-6)
    clip_norm(grads, 2.0)
    np.testing.assert_allclose(grads["a"], 1.0, rtol=1e-6)
    grads = {"a": np.array([np.nan, 1.0])}
    assert np.isnan(clip_norm(grads, 0.5))
    assert grads["a"][1] == 1.0


def test_norm_of_small_and_large_arrays_together() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3,), (200, 300), (), (0, 5), (20_000,), (4, 5)]
    grads: dict[str, Any] = {str(s): rng.standard_normal(s).astype(np.float32) for s in shapes}
    grads["turned"] = rng.standard_normal((150, 200)).T
    expected = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    assert global_norm(grads) == pytest.approx(expected, rel=1e-12)
    assert global_norm({}) == 0


def test_clip_value() -> None:
    grads = {"a": np.array([-3.0, 0.2, 5.0])}
    clip_value(grads, 0.5)
    np.testing.assert_array_equal(grads["a"], [-0.5, 0.2, 0.5])
    with pytest.raises(ValueError, match="max_value is 0"):
        clip_value(grads, 0)


def test_clip_norm_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="the semantics promised are torch's")
    grads = gradients(1)
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads.values()]
    for p, g in zip(theirs, grads.values(), strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    assert clip_norm(grads, 0.7) == pytest.approx(norm.item(), rel=1e-12)
    for p, g in zip(theirs, grads.values(), strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=1e-12)
