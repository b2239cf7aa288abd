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
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast.bench import run, worker
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
        assert r["rounds_us"] == [r["us"]]
        assert r["spread"] == 0


def test_the_best_round_counts_and_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"rnnfast": iter([12.0, 10.0, 14.0]), "numpy": iter([50.0, 40.0, 40.0])}

    def ask(side: run.Worker, question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "time":
            return {"us": next(times[side.library])}
        return {"gflops": 1.0, "version": "1"}

    monkeypatch.setattr(run.Worker, "ask", ask)
    monkeypatch.setattr(run, "PAUSE", 0)
    changes = {"rounds": 3, "cells": ("gru",), "directions": ("forward",)}
    record = run.measure(run.Settings(**asdict(FAST) | changes))
    mine, numpy = record["results"]
    assert (mine["us"], mine["rounds_us"]) == (10.0, [12.0, 10.0, 14.0])
    assert mine["spread"] == pytest.approx(0.4)
    assert numpy["spread"] == pytest.approx(0.25)


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
