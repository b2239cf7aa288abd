"""Cells of the user's own: finite differences check the reference, and that the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_cells import CELLS, gradients, problem, random_cell

from rnnfast import functional, reference
from rnnfast.cells import Cell

SIZES = [(1, 1, 1, 1), (5, 3, 4, 7), (7, 13, 5, 20), (3, 70, 33, 41), (0, 3, 4, 5), (3, 0, 4, 5)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reverse": True},
    {"lengths": [7, 0, 3, 3, 5]},
    {"lengths": [6, 1, 3, 0, 5], "reverse": True},
    {"resets": np.random.default_rng(1).random((7, 5)) < 0.3},
    {
        "lengths": [6, 1, 3, 3, 5],
        "reverse": True,
        "resets": np.random.default_rng(2).random((7, 5)) < 0.3,
    },
]
ids = {"ids": lambda value: value.name if isinstance(value, Cell) else None}


def input_size(cell: Cell, I: int, H: int) -> int:
    """I, or H for a cell that adds x to its state."""
    return H if cell.name == "without_linear" else I


def results(module: Any, cell: Cell, given: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    """All outputs and gradients, by name."""
    extra = {"extra": given["extra"]} if given["extra"] else {}
    arguments = given["x"], given["state"], given["params"]
    y, state, tape = module.cell_forward(cell, *arguments, **extra, **options)
    grads = module.cell_backward(tape, **gradients(y, state))
    found = [("y", y), ("x", grads.x)]
    found += [(f"state {i}", s) for i, s in enumerate(state)]
    found += [(f"dstate {i}", s) for i, s in enumerate(grads.state)]
    return [*found, *grads.params.items(), *grads.extra.items()]


def assert_close(found: list[Any], expected: list[Any], bound: float) -> None:
    for (name, a), (other, b) in zip(found, expected, strict=True):
        assert name == other
        assert a.shape == b.shape
        assert np.isfinite(a).all(), name
        scale = max(np.abs(b).max(initial=0), 1e-2)
        assert np.abs(a - b).max(initial=0) <= bound * scale, name


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS, **ids)
def test_kernels_agree_with_the_reference(cell: Cell, sizes: tuple[int, ...]) -> None:
    T, B, I, H = sizes
    given = problem(cell, T, B, input_size(cell, I, H), H)
    expected = results(reference, cell, given, {})
    assert_close(results(functional, cell, given, {}), expected, 1e-11)
    narrow = problem(cell, T, B, input_size(cell, I, H), H, "float32")
    assert_close(results(functional, cell, narrow, {}), expected, 2e-4)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("cell", CELLS, **ids)
def test_options(cell: Cell, options: dict[str, Any]) -> None:
    given = problem(cell, 7, 5, input_size(cell, 4, 20), 20)
    assert_close(
        results(functional, cell, given, options), results(reference, cell, given, options), 1e-11
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_cells(data: st.DataObject) -> None:
    cell = random_cell(lambda n: data.draw(st.integers(0, n - 1)))
    T, B, I, H = (data.draw(st.integers(1, n)) for n in (4, 5, 4, 11))
    H += H in (1, 3)  # sizes that tests tell apart
    given = problem(cell, T, B, I, H)
    assert_close(results(functional, cell, given, {}), results(reference, cell, given, {}), 1e-9)


@pytest.mark.parametrize("cell", CELLS, **ids)
def test_the_gradient_of_the_reference(cell: Cell) -> None:
    """Central differences of a weighted sum of all results, in random directions."""
    options = {"lengths": [4, 2, 0], "resets": np.arange(12).reshape(4, 3) % 5 == 4}
    I = input_size(cell, 3, 6)
    given = problem(cell, 4, 3, I, 6)
    extra = given.pop("extra")
    y, state, tape = reference.cell_forward(cell, **given, extra=extra, **options)
    upstream = gradients(y, state)
    grads = reference.cell_backward(tape, **upstream)

    def loss(arguments: dict[str, Any], extra: dict[str, Any]) -> float:
        y, state, _ = reference.cell_forward(cell, **arguments, extra=extra, **options)
        parts = [(y, upstream["dy"]), *zip(state, upstream["dstate"], strict=True)]
        return float(sum((a * b).sum() for a, b in parts))

    rng, step = np.random.default_rng(3), 1e-6
    for _ in range(3):
        move = {
            "x": rng.standard_normal(given["x"].shape),
            "state": tuple(rng.standard_normal(s.shape) for s in given["state"]),
            "params": {n: rng.standard_normal(p.shape) for n, p in given["params"].items()},
        }
        more = {n: rng.standard_normal(e.shape) for n, e in extra.items()}
        sides = []
        for sign in (1, -1):
            arguments = {
                "x": given["x"] + sign * step * move["x"],
                "state": tuple(
                    s + sign * step * m for s, m in zip(given["state"], move["state"], strict=True)
                ),
                "params": {
                    n: p + sign * step * move["params"][n] for n, p in given["params"].items()
                },
            }
            sides.append(loss(arguments, {n: e + sign * step * more[n] for n, e in extra.items()}))
        expected = (grads.x * move["x"]).sum()
        expected += sum((a * b).sum() for a, b in zip(grads.state, move["state"], strict=True))
        expected += sum((grads.params[n] * m).sum() for n, m in move["params"].items())
        expected += sum((grads.extra[n] * m).sum() for n, m in more.items())
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(expected, rel=1e-6, abs=1e-6)
