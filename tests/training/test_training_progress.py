"""What `fit` shows of its progress: lines, or a bar that keeps its figures in a narrow terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast.training import SGD, Progress, fit


def quadratic() -> tuple[dict[str, Any], Any]:
    """One weight and the loss of its square."""
    params = {"w": np.array([1.0])}
    return params, lambda batch: (float(params["w"][0] ** 2), {"w": 2 * params["w"]})


def one_batch(rng: np.random.Generator) -> list[int]:
    return [0]


def test_progress_lines_without_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(Progress, "seconds_between_lines", -1.0)
    params, step = quadratic()
    fit(step, SGD(params, lr=0.1), one_batch, epochs=3, evaluate=lambda: 0.125, label="demo")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "demo: 1 in 0 s  epoch 1, loss 1"
    assert lines[-1] == "demo: 3/3 in 0 s  epoch 3, loss 0.4096, held out 0.125"


def test_progress_bar_with_tqdm(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="bars are an extra")
    params, step = quadratic()
    fit(step, SGD(params, lr=0.1), one_batch, epochs=3, label="demo")
    out, err = capsys.readouterr()
    assert out == ""
    assert "demo: epoch 3, loss 0.4096  100% 3/3" in err


def test_no_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    params, step = quadratic()
    fit(step, SGD(params), one_batch, epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


PROGRAM = """
import sys
from rnnfast.training import Progress

with Progress(None, sys.argv[1]) as bar:
    bar._bar.mininterval = 0
    for step in range(30):
        if step == 10:
            bar.total = 12345
        held_out = {"held_out": -4.321e-05} if step > 9 else {}
        bar.update(epoch=12345, loss=-1.234e-05, **held_out)
"""


def drawn(columns: int, label: str, folder: Path) -> list[str]:
    """The lines that a bar draws in a terminal so many columns wide."""
    pty, fcntl = pytest.importorskip("pty"), pytest.importorskip("fcntl")
    termios = pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, np.array([24, columns, 0, 0], np.uint16).tobytes())
    command = [sys.executable, "-c", PROGRAM, label]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder):
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
    text = b"".join(parts).decode()
    assert text.count("\n") == 1, text  # every line stays a line, drawn over the one before
    return [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.mark.parametrize("label", ["fit", "seq2seq, 100 batches per epoch", "label " * 30])
@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_figures_are_complete_in_a_terminal(columns: int, label: str, tmp_path: Path) -> None:
    pytest.importorskip("tqdm", reason="bars are an extra")
    before, *lines = drawn(columns, label, tmp_path)
    assert before.startswith(label[:24])
    assert len(lines) > 20
    for number, line in enumerate(lines):
        held_out = ", held out -4.321e-05" if number > 9 else ""
        assert f": epoch 12345, loss -1.234e-05{held_out}  " in line, line
        assert len(line) < columns
    if columns == 200:
        assert lines[-1].startswith(f"{label[:97]}")
        assert re.search(r"  0% 30/12345 \[\d\d:\d\d<", lines[-1])
