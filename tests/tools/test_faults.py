"""The lists of faults: every one still fits the code, and the command finds what it should."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from planting import ROOT, Copy, Fault, listed

FAULTS = listed()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fits_the_code(fault: Fault) -> None:
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.find) == 1, "the text to find must occur once"
    assert fault.find != fault.replace
    assert bool(fault.tests) != bool(fault.equivalent), "either tests or a reason why none can tell"
    for argument in fault.tests:
        if argument.startswith("tests/"):
            assert (ROOT / argument.partition("::")[0]).is_file(), f"there is no {argument}"


def test_all_layers_have_some() -> None:
    places = Counter(str(Path(fault.file).parent) for fault in FAULTS if not fault.equivalent)
    assert sum(places.values()) >= 80
    assert sum(fault.compiled for fault in FAULTS if not fault.equivalent) >= 30
    for place in ("csrc", "rnnfast", "rnnfast/training", "rnnfast/bench", "rnnfast/demos"):
        assert places[place] >= 5, place


def test_no_fault_twice() -> None:
    assert len(set(FAULTS)) == len(FAULTS)
    assert len({str(fault) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize(
    ("replace", "verdict"),
    [("a - b", "found"), ("b + a", "SURVIVED"), ("a +", "ERROR"), ("os.abort()", "found")],
)
def test_verdicts(tmp_path: Path, replace: str, verdict: str) -> None:
    """A fault is found if a test fails or the process crashes, not if nothing can be run."""
    text = "import os\n\ndef add(a, b):\n    return a + b\n"
    test = "import add\n\ndef test_add():\n    assert add.add(1, 2) == 3\n"
    (tmp_path / "add.py").write_text(text)
    (tmp_path / "test_add.py").write_text(test)
    copy = Copy.__new__(Copy)
    copy.folder = tmp_path
    fault = Fault(file="add.py", what="", find="a + b", replace=replace, tests=("test_add.py",))
    outcome = copy.look_for(fault, "")
    assert outcome.verdict == verdict, outcome.output
    assert (tmp_path / "add.py").read_text() == text
