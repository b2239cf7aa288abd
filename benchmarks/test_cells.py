"""Every cell at every shape, forward and training, next to the NumPy reference."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from rnnfast import get_num_threads
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES, Case, all_cases, inputs
from rnnfast.bench.peers import RUNNERS, expected
from rnnfast.bench.worker import wrong_results


def name(case: Case) -> str:
    return f"{case.shape}-{case.cell}-{case.direction}"


@lru_cache(maxsize=1)
def reference(cell: str, shape: str) -> dict[str, Any]:
    """What all four tests of a cell at a shape should return."""
    case = Case(cell, shape, "training")
    return dict(zip(case.results, expected(case, inputs(case)), strict=True))


@pytest.mark.parametrize("library", ["rnnfast", "numpy"])
@pytest.mark.parametrize("case", all_cases(CELLS, SHAPES, DIRECTIONS, "float32"), ids=name)
def test_cell(benchmark: BenchmarkFixture, case: Case, library: str) -> None:
    work = RUNNERS[library](case, inputs(case), get_num_threads())
    right = reference(case.cell, case.shape)
    assert not wrong_results(work, case, right), "before it is timed"
    benchmark.group = case.shape
    benchmark.extra_info["flops"] = case.flops
    benchmark(work.run)
    assert not wrong_results(work, case, right), "after it was timed"
