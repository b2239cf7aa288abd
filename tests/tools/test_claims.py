"""`python benchmarks/claims` measures, prints and records; `--quick` says nothing about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnnfast.bench.run import pinned

CLAIMS = Path(__file__).parents[2] / "benchmarks" / "claims"


def claims(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLAIMS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_table_record_and_figure(tmp_path: Path) -> None:
    json_path, plot_path = tmp_path / "claims.json", tmp_path / "growth.png"
    groups = ["stream", "latency", "growth"]
    done = claims("--quick", *groups, "--json", str(json_path), "--plot", str(plot_path))
    assert done.returncode == 0, done.stderr
    record = json.loads(json_path.read_text())
    assert record["schema"] == 1
    assert set(record) == {"schema", "machine", "settings", "peak_gflops", "results", "skipped"}
    assert record["settings"] == {"groups": groups, "quick": True, "threads": 2}
    assert {"cpu", "isa", "compiler", "versions"} <= set(record["machine"])
    assert record["peak_gflops"] > 0
    assert record["skipped"] == {}
    results = record["results"]
    assert [name for name in groups if name in {r["group"] for r in results}] == groups
    for result in results:
        assert result["measured"] > 0
        assert result["met"] == (result["measured"] <= result["goal"])
        assert result["what"] in done.stdout
        assert result["what"].removesuffix(", per step") in done.stderr  # the progress
    assert [sorted(map(int, r["curve"])) for r in results if r["curve"]] == [[16, 32]] * 2
    assert plot_path.read_bytes().startswith(b"\x89PNG")


def test_per_cent_of_the_peak(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    done = claims("--quick", "peak", "--json", str(path))
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())["results"]
    assert [(r["what"], r["goal"]) for r in results] == [
        ("small RNN forward", 65), ("small RNN training", 60), ("small GRU forward", 75),
        ("small GRU training", 71), ("small LSTM forward", 80), ("small LSTM training", 76),
    ]  # fmt: skip
    assert all(0 < r["measured"] < 100 for r in results)


def test_layers_inside_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the group measures PyTorch's layers")
    path = tmp_path / "claims.json"
    done = claims("--quick", "modules", "--json", str(path))
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())["results"]
    names = ["small RNN", "medium RNN float64", "packed GRU", "classifier, with Adam"]
    assert [result["what"] for result in results[:4]] == names
    few = [result["what"] for result in results[4:]]
    assert len(few) == 8
    assert few[0] == "few steps RNN, 1 layer, inference"
    assert few[7] == "few steps RNN, 2 layers, both directions, training"
    assert all(result["met"] == (result["measured"] >= result["goal"]) for result in results)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be pinned here")
def test_more_threads_than_cpus_are_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    with pinned(1):
        done = claims("--quick", "threads", "--threads", "2", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "2 threads need as many CPUs" in json.loads(path.read_text())["skipped"]["threads"]
    assert "threads: not measured" in done.stdout


def test_arguments_are_checked_first(tmp_path: Path) -> None:
    for arguments, message in (
        (["streams"], "'streams' is not one of peak, stream"),
        (["stream", "--plot", "a.png"], "--plot draws the group growth"),
        (["stream", "--json", str(tmp_path / "missing" / "a.json")], "no directory"),
    ):
        done = claims("--quick", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
