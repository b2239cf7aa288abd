"""What holds for every test: how Hypothesis searches, which tests wait, which ISAs are run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# The threads of the reference's BLAS would wait, spinning, on the cores that the kernels' threads
# want. NumPy reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from scripts import Script, run_script

from rnnfast._core import config, threads

settings.register_profile("local", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def number_of_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test sets for the whole process ends with it, also OpenMP's limit, by PyTorch."""
    monkeypatch.setattr(threads, "_process_wide", threads._process_wide)
    before = config.omp_max_threads()
    yield
    if before != config.omp_max_threads():
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture(params=config.ISAS, scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the tests of a module, all of them numerical, with every instruction set in turn."""
    before = config.build_info()["isa"]
    config.use_isa(request.param)
    yield request.param
    config.use_isa(before)


def pytest_configure(config: pytest.Config) -> None:
    """Register the one marker of the suite; `-m slow` runs what it marks."""
    config.addinivalue_line("markers", "slow: minutes long; run with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out unless a marker expression asks for some set of tests."""
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a script in a process of its own and give its output, see `scripts.run_script`."""
    return partial(run_script, tmp_path)


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of garbage collections, of which each would take 0.3 s."""
    gc.freeze()
