"""Every cell at every shape, forward and training, next to the NumPy reference."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from rnnfast import get_num_threads
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES, Case, all_cases, inputs
from rnnfast.bench.peers import RUNNERS, expected
from rnnfast.bench.worker import TOLERANCE, disagreement


def name(case: Case) -> str:
    return f"{case.shape}-{case.cell}-{case.direction}"


@pytest.mark.parametrize("library", ["rnnfast", "numpy"])
@pytest.mark.parametrize("case", all_cases(CELLS, SHAPES, DIRECTIONS, "float32"), ids=name)
def test_cell(benchmark: BenchmarkFixture, case: Case, library: str) -> None:
    arrays = inputs(case)
    benchmark.group = case.shape
    benchmark.extra_info["flops"] = case.flops
    results = benchmark(RUNNERS[library](case, arrays, get_num_threads()))
    right = expected(case, arrays)
    assert max(disagreement(results, right[: len(results)])) < TOLERANCE[case.dtype]
