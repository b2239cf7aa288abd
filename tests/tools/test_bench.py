"""The benchmark: what it measures, how it refuses wrong results, what it reports."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast.bench import run, worker
from rnnfast.bench.cases import (
    CELLS,
    DIRECTIONS,
    DTYPES,
    SHAPES,
    Case,
    all_cases,
    arguments,
    inputs,
)
from rnnfast.bench.peer_onnx import onnx_feeds
from rnnfast.bench.peers import RUNNERS, expected, missing
from rnnfast.bench.progress import progress
from rnnfast.bench.work import UnsupportedError, Work

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
    assert tuple(arrays)[:-1] == arguments(Case(cell, "small", "forward"))
    assert {a.dtype.name for a in arrays.values()} == {dtype}
    assert arrays["x"].shape == (32, 16, 32)
    assert arrays["dy"].shape == (32, 16, 64)
    assert all(np.any(a != 0) for a in arrays.values())
    again = inputs(Case(cell, "small", "forward", dtype))
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_keep_gates_between_saturation_and_death(cell: str) -> None:
    """As PyTorch draws them: evenly up to one over the root of H, either sign."""
    arrays = inputs(Case(cell, "medium", "forward"))
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        bound = 128**-0.5
        assert 0.95 * bound < np.max(np.abs(arrays[name])) <= bound
        assert abs(np.mean(arrays[name])) < 0.1 * bound
    assert np.std(arrays["x"]) == pytest.approx(1, abs=0.02)


def test_the_shapes_are_those_that_are_documented() -> None:
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page, re.M)
    assert {name: tuple(map(int, sizes)) for name, *sizes in rows} == SHAPES
    assert [name for name, *_ in rows] == list(SHAPES)


def test_inference_engines_refuse_training_and_float64() -> None:
    for case in (Case("gru", "tiny", "training"), Case("gru", "tiny", "forward", "float64")):
        with pytest.raises(UnsupportedError, match="only"):
            onnx_feeds(case, inputs(case))


# ----------------------------------------------------------------------------------- worker side


def saved(case: Case, folder: Path, name: str = "y", change: float = 0.0) -> str:
    """A file of the results expected for `case`, one off by a share of its largest value."""
    both = Case(case.cell, case.shape, "training", case.dtype)
    right = dict(zip(both.results, expected(both, inputs(both)), strict=True))
    right[name].flat[-1] += change * np.max(np.abs(right[name]))
    path = folder / "expected.npz"
    np.savez(path, **right)
    return str(path)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("library", ["rnnfast", "numpy"])
def test_right_results_are_timed(
    cell: str, dtype: str, direction: str, library: str, tmp_path: Path
) -> None:
    case = Case(cell, "tiny", direction, dtype)
    threads = RUNNERS[library](case, inputs(case), 1).threads or 1
    side = worker.Worker(library, threads)
    reply = side.prepare(asdict(case), saved(case, tmp_path), 0.001)
    assert "skip" not in reply, reply
    for _ in range(2):
        assert 0 < side.time()["us"] < 1e6
    assert side.check() == {}, "a stream starts anew"
    assert side.check() == {}


@pytest.mark.parametrize(("dtype", "change"), [("float32", 2e-4), ("float64", 2e-12)])
@pytest.mark.parametrize("name", Case("lstm", "tiny", "training").results)
def test_every_wrong_result_is_refused(
    name: str, dtype: str, change: float, tmp_path: Path
) -> None:
    case = Case("lstm", "tiny", "training", dtype)
    threads = RUNNERS["numpy"](case, inputs(case), 1).threads or 1
    side = worker.Worker("numpy", threads)
    reply = side.prepare(asdict(case), saved(case, tmp_path, name, change), 0.001)
    about = f"wrong result: {name} differs from the reference by {change:.1e} of its largest"
    assert reply["skip"].startswith(about)
    assert side.work is None


def tampered(changes: dict[str, Any]) -> Any:
    """A runner that computes another thing than asked for."""

    def runner(case: Case, arrays: Any, threads: int) -> Work:
        return RUNNERS["numpy"](case, arrays | {n: f(arrays[n]) for n, f in changes.items()}, 1)

    return runner


@pytest.mark.parametrize("shape", ["step", "tiny", "audio"])
@pytest.mark.parametrize(
    ("cell", "changes"),
    [
        *(("lstm", {name: np.zeros_like}) for name in arguments(Case("lstm", "tiny", "forward"))),
        ("gru", {"h0": np.zeros_like}),
        ("gru", {name: lambda a: np.roll(a, len(a) // 3, 0) for name in ("w_ih", "w_hh")}),
        ("gru", {"b_ih": lambda a: a + 0.01, "b_hh": lambda a: a - 0.01}),
        ("lstm", {name: lambda a: np.roll(a, len(a) // 4, 0) for name in ("w_ih", "b_ih")}),
        ("rnn", {"x": lambda a: np.concatenate([a[:-1], 0 * a[-1:]])}),
    ],
)
def test_a_library_that_ignores_or_confuses_an_input_is_refused(
    cell: str, changes: dict[str, Any], shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(cell, shape, "forward")
    monkeypatch.setitem(RUNNERS, "jax", tampered(changes))
    threads = RUNNERS["numpy"](case, inputs(case), 1).threads or 1
    reply = worker.Worker("jax", threads).prepare(asdict(case), saved(case, tmp_path), 0)
    assert reply["skip"].startswith("wrong result: y differs")


def of_numpy(change: Any, threads: int | None = 3) -> Any:
    """A runner whose results are those of NumPy after `change`."""

    def runner(case: Case, arrays: Any, asked: int) -> Work:
        run = RUNNERS["numpy"](case, arrays, 1).run
        return Work(lambda: change(run()), threads, notes={"unroll": 16})

    return runner


def test_a_gradient_that_a_library_leaves_out_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("gru", "tiny", "training")
    monkeypatch.setitem(RUNNERS, "jax", of_numpy(lambda results: results[:-1]))
    reply = worker.Worker("jax", 3).prepare(asdict(case), saved(case, tmp_path), 0)
    assert reply["skip"] == (
        "wrong result: 6 results, expected y, dx, dh0, dw_ih, dw_hh, db_ih, db_hh"
    )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_library_with_another_number_of_threads_is_not_timed(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("gru", "tiny", "training")
    monkeypatch.setitem(RUNNERS, "jax", of_numpy(lambda results: results, threads))
    reply = worker.Worker("jax", 3).prepare(asdict(case), saved(case, tmp_path), 0)
    assert reply["skip"] == f"it has {threads} threads, not the 3 asked for"


@pytest.mark.parametrize("threads", [3, None])
def test_threads_and_notes_are_told(
    threads: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the library does not say. The record shows it."""
    case = Case("gru", "tiny", "training")
    monkeypatch.setitem(RUNNERS, "jax", of_numpy(lambda results: results, threads))
    reply = worker.Worker("jax", 3).prepare(asdict(case), saved(case, tmp_path), 0)
    assert reply == {"threads": threads, "notes": {"unroll": 16}}


def test_what_computes_wrong_results_later_is_found_after_it_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, calls = Case("gru", "tiny", "forward"), iter(range(100))
    runner = of_numpy(lambda results: tuple(a * (next(calls) < 4) for a in results))
    monkeypatch.setitem(RUNNERS, "jax", runner)
    side = worker.Worker("jax", 3)
    assert "skip" not in side.prepare(asdict(case), saved(case, tmp_path), 0)
    side.time()
    side.time()
    assert side.check()["skip"].startswith("wrong result after it was timed: y differs")


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


def test_peak_is_in_gflops() -> None:
    assert 0.1 < worker.Worker("rnnfast", 1).peak("float32", 0.01)["gflops"] < 1e4


# ----------------------------------------------------------------------------------- parent side


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
        assert r["places"] == [0 if r["library"] == "rnnfast" else 1]
        assert r["threads"] in (1, None)


def test_every_installed_peer_agrees_with_the_reference(tmp_path: Path) -> None:
    installed = tuple(library for library in RUNNERS if not missing(library))
    record = run.measure(run.Settings(**asdict(FAST) | {"libraries": installed}))
    reasons = {(s["library"], s["reason"]) for s in record["skipped"]}
    assert reasons <= {("onnxruntime", "inference only"), ("openvino", "inference only")}
    assert {r["library"] for r in record["results"]} == set(installed)
    for r in record["results"]:
        assert r["threads"] in ((1, None) if r["library"] in ("numpy", "jax") else (1,))


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
