"""The benchmark's parent: what it asks the workers, in what order, and what it makes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from rnnfast.bench import machine, report, run
from rnnfast.bench.cases import DIRECTIONS, SHAPES, Case

LIBRARIES = ("rnnfast", "numpy", "torch", "jax")
Answer = Callable[[str, dict[str, Any], int], dict[str, Any]]


class Workers:
    """In place of the processes: every question is noted, `answer` may answer it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        self.cpus: list[int] = []
        self.threads: list[int] = []
        self.answer: Answer = lambda library, question, number: {}
        monkeypatch.setattr(run, "PAUSE", 0)
        monkeypatch.setattr(run, "expected", lambda case, arrays: [0.0] * len(case.results))
        workers = self

        class Worker:
            def __init__(self, library: str, threads: int, folder: Any) -> None:
                self.library, self.count = library, 0
                workers.threads.append(threads)
                workers.cpus.append(machine.cpus())

            def __enter__(self) -> Worker:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def ask(self, question: dict[str, Any]) -> dict[str, Any]:
                do = question["do"]
                workers.asked.append((do, self.library))
                usual = {
                    "hello": {"version": "1"},
                    "prepare": {"threads": 1, "notes": {}},
                    "time": {"us": 10.0},
                    "check": {},
                    "peak": {"gflops": 50.0},
                }
                self.count += do == "time"
                return usual[do] | workers.answer(self.library, question, self.count)

        monkeypatch.setattr(run, "Worker", Worker)

    def of(self, *kinds: str) -> list[tuple[str, str]]:
        return [entry for entry in self.asked if entry[0] in kinds]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(monkeypatch)


def measured(**changes: Any) -> dict[str, Any]:
    """The record of one case, or of what `changes` says."""
    settings = {
        "threads": 1,
        "libraries": LIBRARIES,
        "cells": ("gru",),
        "shapes": ("tiny",),
        "directions": ("training",),
        "rounds": 4,
    }
    return run.measure(run.Settings(**settings | changes))


def test_all_are_checked_before_anything_is_timed_and_again_afterwards(workers: Workers) -> None:
    measured(rounds=1)
    kinds = [kind for kind, _ in workers.asked]
    assert kinds == ["hello"] * 4 + ["prepare"] * 4 + ["time"] * 4 + ["peak"] + ["check"] * 4
    for kind in ("hello", "prepare", "check"):
        assert [library for _, library in workers.of(kind)] == list(LIBRARIES)


def test_every_timing_waits_until_idle_threads_are_asleep(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PAUSE", 0.03)
    monkeypatch.setattr(
        run.time, "sleep", lambda seconds: workers.asked.append(("sleep", str(seconds)))
    )
    measured(rounds=2)
    timings = [k for k, (kind, _) in enumerate(workers.asked) if kind in ("time", "peak")]
    assert len(timings) == 2 * 4 + 1
    assert all(workers.asked[k - 1] == ("sleep", "0.03") for k in timings)


@pytest.mark.parametrize("cells", [("gru",), ("rnn", "lstm")])
def test_each_case_is_compared_with_its_own_expected_results(
    cells: tuple[str, ...], workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expected(case: Case, arrays: dict[str, Any]) -> list[Any]:
        assert arrays["x"].dtype == case.dtype
        return [[*case.sizes, len(case.cell), k] for k, _ in enumerate(case.results)]

    def answer(library: str, question: dict[str, Any], number: int) -> dict[str, Any]:
        if question["do"] == "prepare":
            case = Case(**question["case"])
            right = np.load(question["expected"])
            for k, name in enumerate(Case(case.cell, case.shape, "training").results):
                assert right[name].tolist() == [*case.sizes, len(case.cell), k]
            seen.append(case)
        return {}

    seen: list[Case] = []
    monkeypatch.setattr(run, "expected", expected)
    workers.answer = answer
    measured(directions=DIRECTIONS, rounds=1, shapes=("step", "tiny"), cells=cells)
    assert len(set(seen)) == 4 * len(cells)
    assert len(seen) == 4 * len(cells) * len(LIBRARIES)


def test_the_libraries_change_places_and_the_record_has_them(workers: Workers) -> None:
    record = measured()
    order = [library for _, library in workers.of("time")]
    rounds = [order[k : k + 4] for k in range(0, 16, 4)]
    assert rounds[0][0] == "rnnfast"
    assert len({tuple(names) for names in rounds}) == 4
    for result in record["results"]:
        name = result["library"]
        assert sorted(result["places"]) == [0, 1, 2, 3]
        assert result["places"] == [names.index(name) for names in rounds]


def test_the_best_round_counts_unscaled_and_all_are_kept(workers: Workers) -> None:
    times = {"rnnfast": [12.0, 10.0, 14.0], "numpy": [50.0, 40.0, 44.0]}
    workers.answer = lambda library, question, n: (
        {"us": times[library][n - 1]} if question["do"] == "time" else {}
    )
    mine, numpy = measured(libraries=("rnnfast", "numpy"), rounds=3)["results"]
    assert (mine["us"], mine["rounds_us"], mine["spread"]) == (10, [12, 10, 14], pytest.approx(0.4))
    assert (numpy["us"], numpy["spread"]) == (40, pytest.approx(0.25))
    flops = Case("gru", "tiny", "training").flops
    assert mine["gflops"] == pytest.approx(flops / 10e-6 / 1e9)
    assert numpy["gflops"] == pytest.approx(flops / 40e-6 / 1e9)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_per_cent_are_of_the_best_peak_of_all_threads(
    threads: int, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But of no more threads than there are CPUs."""
    monkeypatch.setattr(machine, "cpus", lambda: 2)
    peaks = iter([20.0, 80.0, 40.0])
    workers.answer = lambda library, question, n: (
        {"gflops": next(peaks)} if question["do"] == "peak" else {}
    )
    record = measured(threads=threads, shapes=("step", "tiny", "small"))
    assert {library for _, library in workers.of("peak")} == {"rnnfast"}
    assert record["peak_gflops"] == {"one_core": 80.0, "all_threads": 80.0 * min(threads, 2)}
    for result in record["results"]:
        share = result["gflops"] / record["peak_gflops"]["all_threads"]
        assert result["percent_of_peak"] == pytest.approx(100 * share)


def test_every_library_gets_the_same_threads_and_cpus(workers: Workers) -> None:
    measured(threads=2)
    assert workers.threads == [2] * 4
    assert workers.cpus == [min(2, machine.cpus())] * 4
    workers.cpus.clear()
    measured(threads=1)
    if hasattr(os, "sched_setaffinity"):
        assert workers.cpus == [1] * 4


def test_every_variable_that_names_threads_has_the_same_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the user's own environment says."""
    for name in ("RNNFAST_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    for threads in (1, 2):
        env = run.environment(threads)
        counts = {k: v for k, v in env.items() if k.endswith(("_NUM_THREADS", "NPROC"))}
        assert {"RNNFAST_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= set(counts)
        assert {"MKL_NUM_THREADS", "NPROC"} <= set(counts)
        assert set(counts.values()) == {str(threads)}
        assert env["JAX_PLATFORMS"] == "cpu"
        assert 1 << int(env["OPENBLAS_THREAD_TIMEOUT"]) < run.PAUSE * 1e9, "asleep after the pause"
        assert ("XLA_FLAGS" in env) == (threads == 1 or "XLA_FLAGS" in os.environ)


def test_what_a_library_says_of_itself_is_recorded(workers: Workers) -> None:
    said = {"jax": {"threads": 1, "notes": {"unroll": 16}}, "numpy": {"threads": None}}
    workers.answer = lambda library, question, n: (
        said.get(library, {}) if question["do"] == "prepare" else {}
    )
    results = {r["library"]: r for r in measured()["results"]}
    assert {name: r["threads"] for name, r in results.items()} == dict.fromkeys(LIBRARIES, 1) | {
        "numpy": None
    }
    assert results["jax"]["notes"] == {"unroll": 16}
    assert results["torch"]["notes"] == {}


REASON = "it has 1 threads, not the 2 asked for"


@pytest.mark.parametrize("when", ["prepare", "check"])
def test_who_is_refused_is_named_with_the_reason_and_has_no_result(
    when: str, workers: Workers
) -> None:
    workers.answer = lambda library, question, n: (
        {"skip": REASON} if (library, question["do"]) == ("torch", when) else {}
    )
    record = measured(directions=("forward", "training"))
    names = ["rnnfast", "numpy", "jax"]
    assert [r["library"] for r in record["results"]] == names * 2
    assert len(workers.of("time")) == 2 * 4 * (4 if when == "check" else 3)
    cases = [asdict(Case("gru", "tiny", d)) for d in ("forward", "training")]
    assert record["skipped"] == [{**case, "library": "torch", "reason": REASON} for case in cases]
    text = report.table(record)
    assert f"not timed: PyTorch: tiny gru forward, tiny gru training: {REASON}" in text


@pytest.mark.parametrize("when", ["prepare", "time", "check"])
def test_who_ends_on_the_way_is_named_once_and_takes_no_further_part(
    when: str, workers: Workers
) -> None:
    def answer(library: str, question: dict[str, Any], number: int) -> dict[str, Any]:
        if (library, question["do"]) == ("torch", when) and number in (0, 2, 4):
            raise run.BenchError("its process ended with code -9")
        return {}

    workers.answer = answer
    record = measured(directions=("forward", "training"))
    assert [r["library"] for r in record["results"]] == ["rnnfast", "numpy", "jax"] * 2
    [entry] = record["skipped"]
    assert entry == asdict(Case("gru", "tiny", "forward")) | {
        "library": "torch",
        "reason": "its process ended with code -9",
    }
    assert all(len(r["rounds_us"]) == len(r["places"]) == 4 for r in record["results"])


def test_every_case_is_measured_for_every_library(workers: Workers) -> None:
    everything = {"cells": ("rnn", "gru", "lstm"), "directions": ("forward", "training")}
    record = measured(shapes=tuple(SHAPES), rounds=1, **everything)
    keys = report.times(record)
    assert len(keys) == len(record["results"]) == 9 * 3 * 2 * 4
    assert math.isclose(sum(keys.values()), 10.0 * len(keys))
    assert record["skipped"] == []
