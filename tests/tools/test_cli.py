"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rnnfast
from rnnfast.__main__ import main
from rnnfast._core import threads as _threads

COMMAND = [sys.executable, "-m", "rnnfast"]
ENVIRONMENT = dict(os.environ) | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # with which argparse itself is silent at closed pipes
ONE_CASE = ["--shapes", "tiny", "--cells", "gru", "--peers", "numpy", "--threads", "1"]


def rnnfast_command(
    *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT | variables,
        timeout=120,
        check=False,
    )


def test_info(tmp_path: Path) -> None:
    done = rnnfast_command("info", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["version"] == rnnfast.__version__
    assert lines["isa"] == rnnfast.config()["isa"]
    assert list(lines) == INFO


INFO = [
    "version",
    "isa",
    "isas",
    "openmp",
    "compiler",
    "threads",
    "python",
    "numpy",
    "system",
    "cpu",
]


def test_info_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_process_wide", None)  # as in a new process
    done = rnnfast_command("info", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert list(found) == INFO
    assert found | rnnfast.config() == found
    lines = rnnfast_command("info", cwd=tmp_path).stdout.splitlines()
    for name, line in zip(INFO, lines, strict=True):
        value = found[name]
        text = ", ".join(value) if isinstance(value, list) else str(value)
        assert line.split(maxsplit=1) == [name, text]

    again = rnnfast_command("info", "--json", "info.json", cwd=tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert json.loads((tmp_path / "info.json").read_text()) == found
    assert rnnfast_command("info", "--json", "-", cwd=tmp_path).stdout == done.stdout
    wrong = rnnfast_command("info", "--json", "no/info.json", cwd=tmp_path)
    message = "rnnfast info: --json no/info.json: there is no directory no\n"
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", message)


def test_alone_it_prints_its_help(tmp_path: Path) -> None:
    done = rnnfast_command(cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == rnnfast_command("--help", cwd=tmp_path).stdout
    assert {"bench", "info", "demo"} <= set(done.stdout.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "-V"):
        with pytest.raises(SystemExit) as raised:
            main([option])
        assert raised.value.code == 0
        assert capsys.readouterr().out == f"rnnfast {rnnfast.__version__}\n"


def test_a_wrong_environment_is_said_in_one_line(tmp_path: Path) -> None:
    done = rnnfast_command("info", cwd=tmp_path, RNNFAST_NUM_THREADS="many")
    message = "rnnfast: RNNFAST_NUM_THREADS is 'many', expected an integer from 1 to 256\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_bench_and_compare(tmp_path: Path) -> None:
    short = ["--rounds", "1", "--seconds", "0", "--json", "a.json"]
    done = rnnfast_command("bench", *ONE_CASE, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[1/2] tiny\n"
    assert done.stdout.startswith("tiny: T 16, B 1, I 8, H 20\ncell  direction  rnnfast us")
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["schema"] == 1
    assert [(r["cell"], r["direction"], r["library"]) for r in record["results"]] == [
        ("gru", direction, library)
        for direction in ("forward", "training")
        for library in ("rnnfast", "numpy")
    ]

    done = rnnfast_command("bench", "compare", "a.json", "a.json", cwd=tmp_path)
    assert done.returncode == 0
    assert "rnnfast  1.00x\nNumPy    1.00x\n" in done.stdout

    done = rnnfast_command("bench", *ONE_CASE, *short[:-1], "-", cwd=tmp_path)
    assert json.loads(done.stdout)["settings"] == record["settings"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


RECORD: dict[str, Any] = {
    "schema": 1,
    "machine": {"cpu": "A CPU", "isa": "avx2", "compiler": "GCC", "python": "3.12", "versions": {}},
    "settings": {"threads": 1, "cells": [], "directions": [], "dtype": "float32", "rounds": 1},
    "peak_gflops": {"one_core": 50.0, "all_threads": 100.0},
    "results": [],
    "skipped": [],
}


def test_a_result_that_cannot_be_saved_is_printed_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(settings: object) -> dict[str, Any]:
        path.mkdir()  # after the check
        return RECORD

    path = tmp_path / "a.json"
    monkeypatch.setattr("rnnfast.bench.command.measure", measure)
    assert main(["bench", "--json", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "A CPU, 1 thread" in out
    assert err.startswith("rnnfast bench: [Errno 21] Is a directory")
    assert err.count("\n") == 1


# ---------------------------------------------------------------------------- output that is cut


def cut_off(arguments: list[str], folder: Path, both: bool = False) -> tuple[int, bytes]:
    """Status and errors of a command whose output nobody reads; with `both`, nor its errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=writer,
            stderr=writer if both else subprocess.PIPE,
            cwd=folder,
            env=ENVIRONMENT,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or b""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["info"],
        ["info", "--json"],
        ["demo"],
        ["demo", "list"],
        ["demo", "--help"],
        ["demo", "next-symbol", "--help"],
        ["bench", "--help"],
        ["bench", "compare", "--help"],
        ["bench", "compare", "a.json", "a.json"],
    ],
    ids=" ".join,
)
def test_a_closed_pipe_ends_a_command_quietly(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RECORD))
    assert cut_off(arguments, tmp_path) == (141, b"")


def test_a_closed_pipe_ends_long_work_quietly(tmp_path: Path) -> None:
    short = ["--rounds", "1", "--seconds", "0", "--json", "a.json"]
    status, errors = cut_off(["bench", *ONE_CASE, *short], tmp_path)
    assert (status, errors) == (141, b"[1/2] tiny\n")
    assert json.loads((tmp_path / "a.json").read_text())["results"]
    assert cut_off(["bench", *ONE_CASE, *short], tmp_path, both=True)[0] == 141
    assert cut_off(["demo", "next-symbol", "--quick"], tmp_path, both=True)[0] == 141


def test_the_first_line_of_a_pipe_can_be_read(tmp_path: Path) -> None:
    command = f"{shlex.join([*COMMAND, 'demo'])} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=True,
    )
    line, status = done.stdout.splitlines()
    assert line == "first steps:"
    assert status in ("0", "141")  # 0 where all was written before head ended
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=ENVIRONMENT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"rnnfast: [Errno 28] No space left on device\n")


# --------------------------------------------------------------------------------------- demos


def test_demo_lists_and_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(name: str, argv: list[str]) -> int:
        calls.append((name, argv))
        return 7

    names = {"add": "adds numbers", "subtract": "does not"}
    demos = SimpleNamespace(THEMES={"sums": names}, DEMOS=names, run=run)
    monkeypatch.setattr(rnnfast, "demos", demos, raising=False)
    monkeypatch.setitem(sys.modules, "rnnfast.demos", demos)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "sums:\n  add       adds numbers\n  subtract  does not\n"
    assert main(["demo", "add", "--seed", "3", "--help"]) == 7
    assert calls == [("add", ["--seed", "3", "--help"])]
    assert main(["demo", "multiply"]) == 2
    message = "rnnfast demo: there is no 'multiply', expected one of add, subtract\n"
    assert capsys.readouterr().err == message
    assert main(["demo", "substract", "--quick"]) == 2
    assert "there is no 'substract', did you mean subtract? Expected" in capsys.readouterr().err
    assert main(["demo", "list"]) == 0
    assert capsys.readouterr().out == "sums:\n  add       adds numbers\n  subtract  does not\n"


def test_demo_lists_the_real_ones(tmp_path: Path) -> None:
    from rnnfast.demos import DEMOS, THEMES

    done = rnnfast_command("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(DEMOS)
    themes = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert themes == [f"{theme}:" for theme in THEMES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (
            ["--verison"],
            "rnnfast: error: unrecognized arguments: --verison (did you mean --version?)",
        ),
        (["info", "x"], "rnnfast info: error: unrecognized arguments: x"),
        (["info", "--jsno"], "unrecognized arguments: --jsno (did you mean --json?)"),
        (["demo", "--quick"], "unrecognized arguments: --quick (a NAME comes first)"),
        (["bench", "x"], "unrecognized arguments: x (expected options, or compare A.json B.json)"),
        (["bench", "--qick"], "rnnfast bench: error: unrecognized arguments: --qick (did you mean"),
        (["bench", "--secnds", "3"], "arguments: --secnds 3 (did you mean --seconds?)"),
        (["bench", "--quick", "compare", "a", "b"], "(expected options, or compare A.json B.json)"),
        (["bench", "compare", "a", "b", "c"], "rnnfast bench compare: error: unrecognized argum"),
        (["bench", "--cells", "rnn,gnu"], "--cells: 'gnu' is not one of rnn, gru, lstm"),
        (["bench", "--shapes", "huge"], "--shapes: 'huge' is not one of step, tiny"),
        (["bench", "--peers", "cudnn"], "--peers: 'cudnn' is not one of numpy, torch"),
        (["bench", "--directions", "back"], "'back' is not one of forward, training"),
        (["bench", "--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
        (["bench", "--threads", "0"], "--threads: '0' is not an integer from 1 to 256"),
        (["bench", "--threads", "two"], "--threads: 'two' is not an integer from 1 to 256"),
        (["bench", "--rounds", "0"], "--rounds: '0' is not an integer from 1 to 1000"),
        (["bench", "--seconds", "nan"], "--seconds: 'nan' is not a number from 0 to 60"),
        (["bench", "compare", "a.json"], "the following arguments are required: B.json"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "."], "--json .: it is a directory"),
        (["--json", "nowhere/a.json"], "--json nowhere/a.json: there is no directory nowhere"),
        (["--plot", "nowhere/a.png"], "--plot nowhere/a.png: there is no directory nowhere"),
        (["--plot", "figure.doc"], "--plot figure.doc: expected a suffix among"),
        (["compare", "a.json", "b.json"], "No such file or directory: 'a.json'"),
    ],
)
def test_what_cannot_work_is_said_before_the_work(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if "figure.doc" in arguments:
        pytest.importorskip("matplotlib", reason="its list of formats is asked")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rnnfast bench: ")
    assert message in err
    assert err.count("\n") == 1


def test_plot_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--plot", str(tmp_path / "a.png")]) == 2
    message = "rnnfast bench: --plot needs matplotlib: pip install 'rnnfast[plot]'\n"
    assert capsys.readouterr().err == message


def test_a_peer_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnfast.bench.command.missing", lambda library: [library, "onnx"])
    with pytest.raises(SystemExit):
        main(["bench", "--peers", "openvino"])
    assert "--peers: openvino: openvino and onnx not installed" in capsys.readouterr().err


def children(pid: int) -> set[int]:
    """Processes whose parent is `pid`."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_ends_the_benchmark_and_its_processes(tmp_path: Path) -> None:
    long = ["--seconds", "60", "--rounds", "9", "--json", "a.json"]
    with subprocess.Popen(
        [*COMMAND, "bench", *ONE_CASE, *long],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        # Under a shell's `&` SIGINT is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "[1/2] tiny\n"
            workers = children(process.pid)
            assert len(workers) == 2
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - sent < 5
    assert process.returncode == 130
    assert (out, err) == ("", "rnnfast: interrupted\n")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (tmp_path / "a.json").exists()
