"""The benchmark: what it measures, how it refuses wrong results, what it reports."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast.bench import report, run, worker
from rnnfast.bench.cases import CELLS, DIRECTIONS, DTYPES, SHAPES, Case, all_cases, inputs
from rnnfast.bench.peers import RUNNERS, UnsupportedError, expected, missing, onnx_feeds
from rnnfast.bench.progress import progress

FAST = run.Settings(
    threads=1, libraries=("rnnfast", "numpy"), shapes=("tiny",), rounds=1, seconds=0.0
)


# ------------------------------------------------------------------------------------------ cases


@pytest.mark.parametrize(
    ("cell", "shape", "flops"),
    [
        ("rnn", "step", 2 * 64 * (32 + 64)),
        ("gru", "tiny", 2 * 16 * 3 * 20 * (8 + 20)),
        ("lstm", "medium", 536_870_912),
        ("lstm", "xxl", 42_949_672_960),
    ],
)
def test_flops(cell: str, shape: str, flops: int) -> None:
    assert Case(cell, shape, "forward").flops == flops
    assert Case(cell, shape, "training").flops == 3 * flops


def test_cases_are_grouped_by_shape_then_cell() -> None:
    cases = all_cases(CELLS, SHAPES, DIRECTIONS, "float64")
    assert len(cases) == len(set(cases)) == 9 * 3 * 2
    assert [c.shape for c in cases] == [s for s in SHAPES for _ in range(6)]
    assert [(c.cell, c.direction) for c in cases[:3]] == [
        ("rnn", "forward"),
        ("rnn", "training"),
        ("gru", "forward"),
    ]
    assert {c.dtype for c in cases} == {"float64"}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_are_the_arguments_of_the_forward_function(cell: str, dtype: str) -> None:
    arrays = inputs(Case(cell, "small", "training", dtype))
    signature = inspect.signature(getattr(rnnfast.functional, f"{cell}_forward"))
    assert list(arrays) == [*list(signature.parameters)[: len(arrays) - 1], "dy"]
    assert {a.dtype.name for a in arrays.values()} == {dtype}
    assert arrays["x"].shape == (32, 16, 32)
    assert arrays["dy"].shape == (32, 16, 64)
    assert all(np.any(a != 0) for a in arrays.values())
    again = inputs(Case(cell, "small", "forward", dtype))
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_inference_engines_refuse_training_and_float64() -> None:
    for case in (Case("gru", "tiny", "training"), Case("gru", "tiny", "forward", "float64")):
        with pytest.raises(UnsupportedError, match="only"):
            onnx_feeds(case, inputs(case))


# ----------------------------------------------------------------------------------- worker side


def saved(case: Case, folder: Path, change: float = 0.0) -> str:
    """A file of the results expected for `case`, `dw_hh` off by a share of its largest value."""
    right = dict(zip(worker.RESULTS, expected(case, inputs(case)), strict=True))
    right["dw_hh"][0, 0] += change * np.max(np.abs(right["dw_hh"]))
    path = folder / "expected.npz"
    np.savez(path, **right)
    return str(path)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["rnnfast", "numpy"])
def test_right_results_are_timed(cell: str, dtype: str, library: str, tmp_path: Path) -> None:
    case = Case(cell, "tiny", "training", dtype)
    side = worker.Worker(library, 1)
    assert side.prepare(asdict(case), saved(case, tmp_path), 0.001) == {}
    assert 0 < side.time()["us"] < 1e6


def test_wrong_results_are_refused(tmp_path: Path) -> None:
    case = Case("lstm", "tiny", "training")
    side = worker.Worker("numpy", 1)
    reply = side.prepare(asdict(case), saved(case, tmp_path, change=2e-4), 0.001)
    assert re.fullmatch(
        "wrong result: dw_hh differs from the reference by 2.0e-04 .*", reply["skip"]
    )
    assert side.run is None


def test_a_library_that_raises_is_skipped_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(RUNNERS, "numpy", broken)
    reply = worker.Worker("numpy", 1).prepare(asdict(Case("rnn", "tiny", "forward")), "", 0.001)
    assert reply == {"skip": "RuntimeError: out of luck"}


def test_disagreement() -> None:
    right = [np.array([1.0, -4.0]), np.array([2.0])]
    assert worker.disagreement((right[0] + [0.5, 0], right[1]), right) == [0.125, 0.0]
    nan, other_shape = np.array([1.0, np.nan]), np.array([2.0, 2.0])
    assert worker.disagreement((nan, other_shape), right) == [float("inf")] * 2


def test_repeats_fill_the_wanted_time() -> None:
    def nap() -> tuple[Any, ...]:
        time.sleep(0.002)
        return ()

    assert 4 <= worker.repeats_for(nap, 0.04) <= 40
    assert worker.repeats_for(nap, 0.001) == 1


def test_peak_is_in_gflops() -> None:
    assert 0.1 < worker.Worker("rnnfast", 1).peak("float32", 0.01)["gflops"] < 1e4


# ----------------------------------------------------------------------------------- parent side


def test_every_library_gets_the_same_threads() -> None:
    env = run.environment(3)
    names = ["RNNFAST", "OMP", "OPENBLAS", "MKL"]
    assert {env[f"{name}_NUM_THREADS"] for name in names} | {env["NPROC"]} == {"3"}
    assert "multi_thread_eigen=false" in run.environment(1)["XLA_FLAGS"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_pinning_ends_with_the_block() -> None:
    before = os.sched_getaffinity(0)
    with run.pinned(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_a_peer_that_does_not_start_is_reported_and_the_rest_is_measured() -> None:
    settings = run.Settings(
        **asdict(FAST) | {"libraries": ("rnnfast", "no_such_library"), "cells": ("gru",)}
    )
    record = run.measure(settings)
    assert {r["library"] for r in record["results"]} == {"rnnfast"}
    [entry] = record["skipped"]
    assert entry["library"] == "no_such_library"
    assert re.search("code 1: ModuleNotFoundError: .*no_such_library", entry["reason"])


def test_without_rnnfast_there_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNFAST_ISA", "none-such")
    with pytest.raises(run.BenchError, match="rnnfast: its process ended with code 1: ValueError"):
        run.measure(FAST)


def test_record() -> None:
    record = run.measure(FAST)
    assert set(record) == {"schema", "machine", "settings", "peak_gflops", "results", "skipped"}
    assert record["schema"] == 1
    assert record["skipped"] == []
    assert json.loads(json.dumps(record))["settings"]["shapes"] == ["tiny"]
    assert record["machine"]["isa"] == rnnfast.config()["isa"]
    assert record["machine"]["versions"] == {
        "rnnfast": rnnfast.__version__,
        "numpy": np.__version__,
    }
    peak = record["peak_gflops"]
    assert 0 < peak["one_core"] == peak["all_threads"]
    seen = {(r["cell"], r["direction"], r["library"]) for r in record["results"]}
    assert len(seen) == len(record["results"]) == 3 * 2 * 2
    for r in record["results"]:
        assert list(r)[:4] == ["cell", "shape", "direction", "dtype"]
        assert (r["T"], r["B"], r["I"], r["H"]) == SHAPES["tiny"]
        flops = Case(r["cell"], "tiny", r["direction"]).flops
        assert r["gflops"] == pytest.approx(flops / (1e3 * r["us"]))
        assert r["percent_of_peak"] == pytest.approx(100 * r["gflops"] / peak["one_core"])


def test_every_installed_peer_agrees_with_the_reference(tmp_path: Path) -> None:
    installed = tuple(library for library in RUNNERS if not missing(library))
    record = run.measure(run.Settings(**asdict(FAST) | {"libraries": installed}))
    reasons = {(s["library"], s["reason"]) for s in record["skipped"]}
    assert reasons <= {("onnxruntime", "inference only"), ("openvino", "inference only")}
    assert {r["library"] for r in record["results"]} == set(installed)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("tqdm", ["installed", "missing"])
def test_progress_on_a_terminal(tqdm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if tqdm == "installed":
        pytest.importorskip("tqdm", reason="draws the bar")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    cases = all_cases(["gru"], ["tiny", "xl"], DIRECTIONS, "float32")
    assert list(progress(cases)) == cases
    if tqdm == "installed":
        assert "xl gru training" in terminal.getvalue()
    else:
        assert terminal.getvalue() == "[1/4] tiny\n[3/4] xl\n"


# ----------------------------------------------------------------------------------------- report


def made_up(factor: float = 1.0, peers: dict[str, float] | None = None) -> dict[str, Any]:
    """A record in which rnnfast takes 10 us (times `factor`) and each peer a multiple of that."""
    peers = {"numpy": 8.0, "torch": 2.0, "onnxruntime": 4.0} if peers is None else peers
    results = []
    for i, case in enumerate(all_cases(CELLS, SHAPES, DIRECTIONS, "float32")):
        for library, ratio in {"rnnfast": 1.0, **peers}.items():
            if library == "onnxruntime" and case.direction == "training":
                continue
            us = 10.0 * factor * ratio * (1 + i)
            rates = {"gflops": case.flops / us / 1e3, "percent_of_peak": 12.5}
            results.append({**asdict(case), "library": library, "us": us, **rates})
    return {
        "schema": 1,
        "machine": {"cpu": "A CPU", "isa": "avx2", "compiler": "GCC 12", "python": "3.12.1"}
        | {"versions": {"rnnfast": "1.0", "numpy": "2.0"}},
        "settings": asdict(run.Settings(threads=2, libraries=("rnnfast", *peers))),
        "peak_gflops": {"one_core": 50.0, "all_threads": 100.0},
        "results": results,
        "skipped": [{"library": "torch", "reason": "wrong result: y differs", "shape": "xl"}],
    }


def test_speedups_and_means() -> None:
    record = made_up()
    assert list(report.speedups(record, "numpy").values()) == pytest.approx([8.0] * 54)
    assert list(report.speedups(record, "best").values()) == pytest.approx([2.0] * 54)
    forward_only = {(*case, "forward"): 4.0 for case in product(SHAPES, CELLS)}
    assert report.speedups(record, "onnxruntime") == pytest.approx(forward_only)
    slow = made_up(peers={"numpy": 0.5, "jax": 3.0})
    assert min(report.speedups(slow, "best").values()) > 2.9, "NumPy is not among the peers"
    assert report.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert report.geometric_mean([]) is None


def test_table_has_every_case_in_aligned_columns() -> None:
    text = report.table(made_up())
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0].partition(":")[0] for block in blocks[:9]] == list(SHAPES)
    assert blocks[4][0] == "medium: T 64, B 32, I 128, H 128"
    for title, *rows in blocks[:10]:
        ends = [[m.end() for m in re.finditer(r"\S+( \S+)*", row)][2:] for row in rows]
        starts = [[m.start() for m in re.finditer(r"\S+( \S+)*", row)][:2] for row in rows]
        assert len(rows) in (7, 9), title
        assert all(end == ends[0] for end in ends), title
        assert all(start == starts[0] for start in starts), title
    assert blocks[0][1].split("  ")[0] == "cell"
    assert re.search(r"^all +forward +8.00x +2.00x +4.00x +2.00x$", text, re.M)
    assert re.search(r"^all +training +8.00x +2.00x +- +2.00x$", text, re.M)
    assert "not timed: PyTorch: xl: wrong result: y differs" in text
    assert text.splitlines()[-1] == (
        "A CPU, 2 threads, avx2, GCC 12, Python 3.12.1, rnnfast 1.0, NumPy 2.0"
    )


def test_table_without_peers() -> None:
    text = report.table(made_up(peers={}))
    assert "best peer" not in text
    assert "speed-up" not in text
    assert "12.5" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.1234, "0.12"), (12.34, "12.3"), (4321.9, "4322")]
)
def test_number(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_compare_shows_the_change_and_the_drift() -> None:
    before, after = made_up(), made_up(factor=0.5, peers={"numpy": 16.0})
    text = report.compare(before, after)
    assert re.search(r"^step +rnn +forward +10.0 +5.00 +2.00x$", text, re.M)
    assert text.endswith("rnnfast  2.00x\nNumPy    1.00x")
    after["results"] = []
    assert report.compare(before, after) == "the two records have no case in common"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[1]", "schema 1"), ('{"schema": 2}', "schema 1")],
)
def test_load_refuses_what_is_no_record(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        report.load(str(path))


@pytest.mark.parametrize("peers", [None, {}])
def test_plot(peers: dict[str, float] | None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    from rnnfast.bench.plot import plot

    path = tmp_path / "figure.svg"
    plot(made_up(peers=peers), str(path))
    words = set(re.findall("<!-- (.*?) -->", path.read_text()))  # matplotlib names its texts so
    assert {"% of multiply-add peak", "xxl", "LSTM"} <= words
    drawn = {"NumPy", "PyTorch", "ONNX Runtime", "their time / rnnfast's"} & words
    assert len(drawn) == (4 if peers is None else 0)


def hello(library: str, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a worker answers when `source` is what it imports as `library`."""
    (folder / f"{library}.py").write_text(source)
    env = run.environment(1)
    env["PYTHONPATH"] = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-P", "-m", "rnnfast.bench.worker", library, "1"],
        input='{"do": "hello"}\n',
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        check=True,
    )


def test_what_a_library_prints_stays_out_of_the_replies(tmp_path: Path) -> None:
    done = hello("chatty", "print('good morning'); __version__ = '1.2-x'", tmp_path)
    assert done.stdout == '{"version": "1.2"}\n'
    assert "good morning" in done.stderr


def test_openvino_does_not_call_home(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("")
    source = """
        try:
            import openvino_telemetry
            __version__ = "reports"
        except ImportError:
            __version__ = "keeps quiet"
        """
    assert hello("openvino", dedent(source), tmp_path).stdout == '{"version": "keeps quiet"}\n'
