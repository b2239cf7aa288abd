"""benchmarks/compare_versions: a bit that differs and a case that is slower are both reported."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rnnfast

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "compare_versions"
ARGUMENTS = argparse.Namespace(threads=1, rounds=2, slower=3.0)


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("compare_versions_main", FOLDER / "__main__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


class Fake:
    """A version, and a process of it, at a given speed; it runs only the sets it has."""

    def __init__(
        self,
        bits: dict[str, str],
        seconds: Sequence[float] = (1e-3,),
        isas: Sequence[str] = ("avx2",),
    ) -> None:
        self.bits, self.seconds, self.isas = bits, itertools.cycle(seconds), isas
        self.closed = 0

    def start(self, isa: str, cpus: int | None = None) -> Fake:
        if isa and isa not in self.isas:
            raise SystemExit("a process of compare_versions ended before it answered")
        return self

    def ask(self, what: str, *arguments: Any) -> Any:
        answers = {"isas": lambda: self.isas, "bits": lambda: self.bits}
        if what == "time":
            return next(self.seconds) * arguments[1]
        return answers.get(what, lambda: None)()

    def close(self) -> None:
        self.closed += 1


def test_a_difference_is_reported(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = {"lstm y": "1", "lstm h": "2", "lost": "3"}
    assert tool.compare_bits([Fake(old), Fake(dict(old))]) == 0
    assert tool.compare_bits([Fake(old), Fake({"lstm y": "1", "lstm h": "x", "new": "3"})]) == 3
    output = capsys.readouterr().out
    assert "avx2: 3 results, 0 differ" in output
    assert "  lstm h\n  lost\n  new\n" in output
    assert "avx512: cannot run here, not compared" in output


@pytest.mark.parametrize(
    ("seconds", "slower"),
    [([1e-3], 0), ([1.02e-3], 0), ([1.1e-3], 1), ([0.5e-3], 0), ([1.1e-3] * 2 + [1e-3] * 50, 0)],
)
def test_a_slower_case_is_measured_again(
    tool: Any, capsys: pytest.CaptureFixture[str], seconds: list[float], slower: int
) -> None:
    """In as many words: what is slow in one run only, is not slower."""
    versions = [Fake({}), Fake({}, seconds)]
    case = tool.Case("forward", "lstm", (1, 1, 2, 3), "some")
    assert tool.compare_times([case], versions, ARGUMENTS) == slower
    output = capsys.readouterr().out
    assert ("SLOWER" in output) == bool(slower)
    assert "1 cases, geometric mean" in output
    assert all(version.closed for version in versions)


def test_the_child_gives_hashes_and_times() -> None:
    """With this very version; a case of each kind of work can be timed."""
    package = Path(rnnfast.__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, str(FOLDER / "child.py"), str(ROOT / "tests" / "helpers"), str(package)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(package), "PATH": ""},
    )
    requests: list[list[Any]] = [["isas"], ["threads", 1], ["bits"]]
    for kind in ("forward", "training", "step", "run"):
        requests += [["prepare", kind, kind, "gru", [3, 1, 4, 5], {}], ["time", kind, 2]]
    output, _ = child.communicate("".join(json.dumps(r) + "\n" for r in requests))
    answers = [json.loads(line) for line in output.splitlines()]
    assert answers[0] == rnnfast.config()["isas"]
    assert len(answers[2]) > 5000
    assert len(set(answers[2].values())) > 3000
    assert all(0 < seconds < 1 for seconds in answers[4::2])


def test_every_cell_and_direction_is_timed(tool: Any) -> None:
    cases = tool.timed_cases()
    assert len({str(case) for case in cases}) == len(cases)
    for cell in ("rnn", "gru", "lstm"):
        kinds = {case.kind for case in cases if case.cell == cell}
        assert kinds == {"forward", "training", "step", "run"}
