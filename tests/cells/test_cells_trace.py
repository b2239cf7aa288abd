"""What a cell's function may do, and what is said of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast import cells, functional
from rnnfast.cells import TraceError, cell, linear, vector


def made(function: Callable[..., Any], state: str = "h", **options: Any) -> cells.Cell:
    return cell(state=state, **options)(function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, h: h if h > 0 else -h, "use where"),
        (lambda x, h: math.tanh(h), "functions of math"),
        (lambda x, h: np.tanh(h), "use rnnfast.cells.tanh"),
        (lambda x, h: np.sinh(h), "numpy.sinh cannot be traced"),
        (lambda x, h: np.ones(3) * h, "numpy.multiply cannot be traced"),
        (lambda x, h: h**2, "multiply"),
        (lambda x, h: h[0], "parts of an expression"),
        (lambda x, h: sum(h), "iterated over"),
        (lambda x, h: h @ h, "linear"),
        (lambda x, h: h + "1", "has type str"),
        (lambda x, h: linear("a", h * 2), "by keyword"),
        (lambda x, h: linear("a"), "has no source"),
        (lambda x, h: linear("a", h, h), "one source twice"),
        (lambda x, h: linear("a", h, h=x), "two sources 'h'"),
        (lambda x, h: linear("a", h, again=h), "one source twice"),
        (lambda x, h: linear("a", h) + linear("a", x), "used twice"),
        (lambda x, h: linear("a", h) + vector("a"), "used twice"),
        (lambda x, h: vector("v") + vector("v", 1), "use two names"),
        (lambda x, h: vector("v") + vector("v", init=1), "init 1 here, and .* init 0.0 before"),
        (lambda x, h: linear(3, h), "is not a text"),
        (lambda x, h: linear("a", h, size=0), "at least 1"),
        (lambda x, h: h + linear("a", h, size=7), "do not fit"),
        (lambda x, h: linear("a", h, size=7), "new state 'h' has size 7"),
        (lambda x, h: (h, h), "2 values are returned"),
        (lambda x, h: None, "has type NoneType"),
        (lambda x, h: {"g": h}, "expected h and perhaps y"),
        (lambda x, h: cells.clip(h, x, 1), "use maximum"),
        (lambda x, h: cells.clip(h, 1, 0), "lo <= hi"),
    ],
)
def test_what_cannot_be_traced(function: Any, words: str) -> None:
    with pytest.raises(TraceError, match=words) as error:
        made(function)
    assert "test_cells_trace.py, line" in str(error.value)


def test_arguments_of_the_function() -> None:
    with pytest.raises(TraceError, match=r"expected \(x, h, c\)"):
        made(lambda x, h: h, "h c")
    with pytest.raises(TraceError, match="state is empty"):
        made(lambda x: x, "")
    with pytest.raises(TypeError, match="inside a function that is decorated"):
        linear("a")


def test_size_1_broadcasts_everywhere() -> None:
    one = made(lambda x, h: h * vector("s", size=1) + linear("g", x, size=1) * cells.total(h))
    assert one.graph(3, 5).shapes() == {"g.weight_x": (1, 3), "g.bias": (1,), "s": (1,)}


def test_scalars_of_numpy_are_numbers() -> None:
    def scaled(x: Any, h: Any) -> Any:
        return np.float32(2) * h + h * np.float64(0.5) - np.int64(1)

    graph = made(scaled).graph(2, 3)
    assert {v.number for v in cells._graph.in_order([graph.output]) if v.kind == "const"} == {
        2,
        0.5,
        1,
    }


def test_threads_trace_each_for_itself() -> None:
    def trace(number: int) -> list[str]:
        def many(x: Any, h: Any) -> Any:
            for i in range(50):
                h = cells.tanh(linear(f"a{number}_{i}", h=h))
            return h

        return list(made(many).graph(2, 3).linears)

    with ThreadPoolExecutor(4) as pool:
        for number, names in enumerate(pool.map(trace, range(16))):
            assert names == [f"a{number}_{i}" for i in range(50)]


def test_the_hidden_size_must_be_told() -> None:
    which = made(lambda x, h: h * 0.5)
    with pytest.raises(ValueError, match="give a state of that size"):
        functional.cell_forward(which, np.zeros((2, 3, 4)), None, {})


def test_a_cell_may_call_another() -> None:
    inner = made(lambda x, h: cells.tanh(linear("a", x, h)))

    def outer(x, h, g):
        h = inner(x, h)
        return h, cells.sigmoid(linear("b", n=h)) * g

    assert list(made(outer, "h g").graph(2, 3).linears) == ["a", "b"]


def test_the_graph_has_each_value_once() -> None:
    def twice(x, h):
        a = cells.tanh(h * 2) + cells.tanh(h * 2)
        return a * cells.tanh(2 * h * 1)

    kinds = [v.kind for v in rnnfast.cells._plan.order_of(made(twice).graph(2, 3))]
    assert kinds.count("tanh") <= 2


def test_names_of_sizes_and_arguments() -> None:
    which = made(lambda x, h, k: h * k, extra="k")
    with pytest.raises(ValueError, match="unexpected name 'z'"):
        which.graph(2, 3, {"z": 4})
    with pytest.raises(TraceError, match="do not fit"):
        which.graph(2, 3, {"k": 4})
    x, params = np.zeros((4, 2, 3)), {}
    state = (np.zeros((2, 5)),)
    call = functional.cell_forward
    with pytest.raises(ValueError, match="missing keys"):
        call(which, x, state, params)
    with pytest.raises(ValueError, match=r"extra\['k'\] has shape \(3,\)"):
        call(which, x, state, params, extra={"k": np.zeros(3)})
    with pytest.raises(TypeError, match=r"extra\['k'\] has dtype float32"):
        call(which, x, state, params, extra={"k": np.zeros(5, np.float32)})
    with pytest.raises(TypeError, match="tuple of 1:"):
        call(which, x, state[0], params, extra={"k": np.zeros(5)})
    with pytest.raises(TypeError, match=r"state\[0\] has dtype"):
        call(which, x, (np.zeros((2, 5), np.float32),), params, extra={"k": np.zeros(5)})
    with pytest.raises(TypeError, match=r"what rnnfast\.cells\.cell makes"):
        call(len, x, state, params)  # type: ignore[arg-type]
    _, _, tape = call(which, x, state, params, extra={"k": np.ones(5, bool)})
    assert functional.cell_backward(tape).extra == {}
    with pytest.raises(RuntimeError, match="has been used"):
        functional.cell_backward(tape)
