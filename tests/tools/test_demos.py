"""The demonstrations reach their figures, and run as their command line says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import NAMES, assert_drawn, result, values

from rnnfast import num_threads
from rnnfast.demos import _demo, load, run

# Up to a minute each; they have tests of their own.
LONG = "char-lm", "attention", "handwriting", "odyssey", "grammars", "gated-feedback", "jordan"
SHORT = [name for name in NAMES if name not in LONG]


# ----------------------------------------------------------------------- the figures themselves


@pytest.mark.parametrize("name", SHORT)
def test_reaches_its_figures_and_draws_them(name: str, tmp_path: Path) -> None:
    options = _demo.parse(name, "", ["--seed", "1"], load(name))
    with num_threads(1):
        outcome = load(name).main(options)
    assert all(figure.reached for figure in outcome.figures), outcome.figures
    assert outcome.figures
    json.dumps(outcome.details)
    assert_drawn(outcome, tmp_path / "plot.png")


@pytest.mark.slow
def test_char_lm_reaches_its_figures(tmp_path: Path) -> None:
    content = result("char-lm", tmp_path, "--seed", "1")
    assert content["reached"], content["figures"]
    assert values(content)["held-out bits per character (3-gram)"] < 2.3
    assert content["seconds"] < 120


def test_next_symbol_from_any_start(tmp_path: Path) -> None:
    first, second = (values(result("next-symbol", tmp_path, "--seed", s)) for s in ("2", "3"))
    assert first != second  # the weights did start elsewhere
    assert first == pytest.approx(second, abs=0.03)


def test_char_lm_quick(tmp_path: Path) -> None:
    content = result("char-lm", tmp_path, "--quick")
    first, _, last = content["history"]["held_out"]
    assert last < first < np.log2(100)
    assert content["baseline_bits"] > 2
    assert content["tokens_per_second"] > 0
    assert len(content["sample"]) == len("\ndef ") + 400
    assert content["sample"].startswith("\ndef ")


def test_char_lm_of_a_file_beats_the_3_gram_model_where_memory_pays(tmp_path: Path) -> None:
    """Lines of one repeated letter and their length: only the state can tell where one ends."""
    rng = np.random.default_rng(0)
    lines = ["ab"[rng.integers(2)] * 7 for _ in range(6000)]
    path = tmp_path / "text"
    path.write_text("\n".join(lines))
    content = result("char-lm", tmp_path, "--quick", "--text", str(path))
    bits = content["history"]["held_out"][-1]
    assert content["baseline_bits"] > 0.45
    assert bits < 0.4
    assert set(content["sample"][5:]) <= {"a", "b", "\n"}


# ------------------------------------------------------------------------------- running them


def test_json_plot_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    plot = tmp_path / "plot.png"
    content = result("count-ones", tmp_path, "--quick", "--plot", str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    for figure in content["figures"]:
        assert figure["name"] in out
        assert figure["goal"] in out
    assert "NOT REACHED" not in out


def test_status_1_and_a_mark_where_a_figure_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = _demo.Demo(lambda options: _demo.Result([_demo.at_least("x", 0.5, 1)], lambda: None))
    monkeypatch.setattr("rnnfast.demos.load", lambda name: missed)
    assert result("count-ones", tmp_path)["status"] == 1
    assert "NOT REACHED" in capsys.readouterr().out
    assert result("count-ones", tmp_path, "--quick")["status"] == 0
    out = capsys.readouterr().out
    assert "NOT REACHED" in out
    assert out.endswith(" s, a quick run, short of the goals\n\n")


def test_a_quick_run_is_not_short_of_goals_that_it_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As every demonstration does that has nothing to leave out."""
    assert result("count-ones", tmp_path, "--quick")["reached"]
    assert capsys.readouterr().out.endswith(" s, a quick run\n\n")


def test_json_on_standard_output_stands_there_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = _demo.Demo(lambda options: _demo.Result([_demo.at_least("x", 2, 1)], lambda: None))
    monkeypatch.setattr("rnnfast.demos.load", lambda name: reached)
    assert run("count-ones", ["--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["figures"][0]["value"] == 2
    assert "should be" in err
    assert run("all", ["--json", "-"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == NAMES


def test_all_has_a_help_of_its_own_and_takes_a_folder_for_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        run("all", ["--help"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("usage: rnnfast demo all ")
    (tmp_path / "plots").write_text("a file")
    for name, reason in (("all", "it is no directory"), ("count-ones", "it is a directory")):
        pytest.importorskip("matplotlib", reason="plots are an extra")
        with pytest.raises(SystemExit):
            run(name, ["--plot", str(tmp_path / "plots" if name == "all" else tmp_path)])
        assert f"argument --plot: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seed", "x"], "argument --seed: invalid int value"),
        (["--seed", "-1"], "argument --seed: -1 is negative"),
        (["--threads", "0"], "argument --threads: 0 is not from 1 to 256"),
        (["--json", "/no/such/folder/x"], "argument --json: there is no directory /no/such/folder"),
        (["--json", "/"], "argument --json: it is a directory"),
        (["--text", "/no/such/file"], "argument --text: [Errno 2]"),
        (["--text", __file__], "characters, expected at least 20,000"),
        (["--compare", "jax"], "argument --compare: 'jax' is not torch"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--sed", "3"], "unrecognized arguments: --sed 3 (did you mean --seed?)"),
        (["x"], "unrecognized arguments: x"),
    ],
)
def test_wrong_arguments(argv: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run("char-lm", argv)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="name is 'nonsense', expected one of next-symbol"):
        run("nonsense")


def test_plot_without_matplotlib_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        run("char-lm", ["--plot", str(tmp_path / "plot.png")])
    assert "pip install rnnfast[plot]" in capsys.readouterr().err


def test_ctrl_c_ends_a_demonstration_cleanly() -> None:
    code = "from rnnfast.demos import run; run('seq2seq', [])"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Under a shell's `&` SIGINT is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    seen = b""
    while b"epoch 1" not in seen:  # training has begun
        seen += os.read(process.stderr.fileno(), 1000)
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    process.wait(timeout=10)
    assert time.perf_counter() - sent < 1.0  # the interpreter's own shutdown included
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
def test_all_quick(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    path, plots = tmp_path / "all.json", tmp_path / "plots"
    assert run("all", ["--quick", "--json", str(path), "--plot", str(plots)]) == 0
    assert [content["name"] for content in json.loads(path.read_text())] == NAMES
    assert sorted(plot.stem for plot in plots.iterdir()) == sorted(NAMES)
