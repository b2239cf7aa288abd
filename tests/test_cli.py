"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import rnnfast
from rnnfast.__main__ import main

COMMAND = [sys.executable, "-m", "rnnfast"]
ENVIRONMENT = dict(os.environ) | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
ONE_CASE = ["--shapes", "tiny", "--cells", "gru", "--peers", "numpy", "--threads", "1"]


def rnnfast_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )


def test_info(tmp_path: Path) -> None:
    done = rnnfast_command("info", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["version"] == rnnfast.__version__
    assert lines["isa"] == rnnfast.config()["isa"]
    assert set(lines) >= {"threads", "openmp", "compiler", "python", "numpy", "cpu"}


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
    assert done.stdout.endswith("rnnfast  1.00x\nNumPy    1.00x\n")


def test_demo_lists_and_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(name: str, argv: list[str]) -> int:
        calls.append((name, argv))
        return 7

    demos = SimpleNamespace(DEMOS={"add": "adds numbers", "subtract": "does not"}, run=run)
    monkeypatch.setattr(rnnfast, "demos", demos, raising=False)
    monkeypatch.setitem(sys.modules, "rnnfast.demos", demos)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "add       adds numbers\nsubtract  does not\n"
    assert main(["demo", "add", "--seed", "3", "--help"]) == 7
    assert calls == [("add", ["--seed", "3", "--help"])]
    assert main(["demo", "multiply"]) == 2
    message = "rnnfast demo: there is no 'multiply', expected one of add, subtract\n"
    assert capsys.readouterr().err == message


def test_demo_lists_the_real_ones(tmp_path: Path) -> None:
    from rnnfast.demos import DEMOS

    done = rnnfast_command("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(DEMOS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
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
