"""The sanitizer step: an error, a lost block and a process that ends early all fail it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import sanitize

OVERRUN = """=================================================================
==41==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000010
READ of size 32 at 0x602000000010 thread T0
    #0 0x7f in few_tile csrc/gemm.h:180
"""
LEAKS = """
==41==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 64 byte(s) in 1 object(s) allocated from:
    #0 0x7f in posix_memalign
    #1 0x7f in rnnfast_alloc csrc/memory.c:86

Direct leak of 32 byte(s) in 1 object(s) allocated from:
    #0 0x7f in malloc
    #1 0x7f in PyObject_Malloc
"""


@pytest.mark.parametrize(
    ("report", "found"),
    [
        ("", []),
        (OVERRUN, ["heap-buffer-overflow"]),
        (LEAKS, ["rnnfast_alloc"]),
        (OVERRUN + LEAKS, ["heap-buffer-overflow", "rnnfast_alloc"]),
        (LEAKS.replace("rnnfast_alloc csrc/memory.c", "PyMem_Malloc"), []),
    ],
)
def test_reports(tmp_path: Path, report: str, found: list[str]) -> None:
    """Errors anywhere count, but leaks of our own blocks only: Python itself leaks a little."""
    (tmp_path / "report.41").write_text(report)
    reports = sanitize.reports(tmp_path)
    assert len(reports) == len(found)
    assert all(word in text for word, text in zip(found, reports, strict=True))


@pytest.mark.parametrize(
    ("code", "status", "report", "passed"),
    [
        (0, "0", "", True),
        (0, None, "", False),  # what AddressSanitizer ends has its exit code, 0 here
        (0, "0", OVERRUN, False),  # in a child
        (0, "0", LEAKS, False),
        (1, "1", "", False),
        (0, "5", "", False),  # no test was run
    ],
)
def test_what_fails_the_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, status: str | None, report: str,
    passed: bool,
) -> None:  # fmt: skip
    def run(command: list[str], cwd: Path, env: dict[str, str]) -> SimpleNamespace:
        if status is not None:
            Path(env["RNNFAST_STATUS"]).write_text(status)
        (cwd / "report.7").write_text(report)
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(sanitize, "library", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    for everything in (False, True):
        (tmp_path / "status").unlink(missing_ok=True)
        assert sanitize.tests(tmp_path, "address", everything) == passed
