"""How `benchmarks/claims` takes times, judges goals, and what a layer's run does."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_claims import CLAIMS, NAMES, Scripted, load_claims
from fake_peers import Clock as Time

import rnnfast
from rnnfast.bench import machine, timing
from rnnfast.bench.cases import CELLS, DIRECTIONS


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    return load_claims()


def faked(claims: Any, monkeypatch: pytest.MonkeyPatch, peaks: Any = (1e9,)) -> Time:
    now, peaks = Time(), list(peaks)
    monkeypatch.setattr(timing, "perf_counter", now)
    monkeypatch.setattr(timing.gc, "collect", lambda: None)  # it takes long, and there are many
    clock_module = SimpleNamespace(perf_counter=now, sleep=lambda seconds: None)
    monkeypatch.setattr(claims.clock, "time", clock_module)
    take = lambda *_: peaks.pop(0) if len(peaks) > 1 else peaks[0]  # noqa: E731
    monkeypatch.setattr(claims.clock, "fma_peak", take)
    return now


def test_the_best_of_the_rounds_counts(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` is best in its third round, after a slow warm-up; its first, last and mean are worse."""
    now = faked(claims, monkeypatch)
    a = now.lasting("a", 9, *[90, 7, 90, 6, 90, 2, 90, 8])
    found = claims.clock.Clock(False, 1).best("x", {"a": a, "b": now.lasting("b", 3)})
    assert found == {"a": 2, "b": 3}


def test_who_is_compared_changes_places(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = faked(claims, monkeypatch)
    runs = {"a": now.lasting("a", 1), "b": now.lasting("b", 1)}
    claims.clock.Clock(False, 1).best("x", runs)
    rounds = "".join(now.calls)[2:]
    assert rounds == "aabbbbaa" * (len(rounds) // 8)
    assert len(rounds) >= 7 * 4


def test_rounds_go_on_for_a_while(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = faked(claims, monkeypatch)
    claims.clock.Clock(False, 1).time("x", now.lasting("a", 0.05))
    assert now.now >= 1.5
    now.calls.clear()
    claims.clock.Clock(True, 1).time("x", now.lasting("a", 0.01))
    assert len(now.calls) == 1 + 2 * 2


def test_the_peak_is_the_best_on_the_way(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = faked(claims, monkeypatch, [2e9, 7e9, 3e9])
    clock = claims.clock.Clock(False, 1)
    clock.time("x", now.lasting("a", 1))
    assert clock.peak == 7.0
    clock.time("x", now.lasting("a", 1))
    assert clock.peak == 7.0


def test_a_spread_takes_the_best_of_three_passes(claims: Any) -> None:
    found = iter([5.0, 2.0, 4.0])
    asked = []

    def find(what: str, key: str) -> float:
        asked.append(what)
        return next(found) if key == "a" else 9.0

    scripted = Scripted(claims, find)
    cases = {"one": lambda: {"a": None}, "two": lambda: {"b": None}}
    assert scripted.clock.spread(cases) == {"one": {"a": 2.0}, "two": {"b": 9.0}}
    assert asked == ["one", "two"] * 3
    quick = Scripted(claims, lambda what, key: 1.0, quick=True)
    assert quick.clock.spread(cases) == {"one": {"a": 1.0}, "two": {"b": 1.0}}


@pytest.mark.parametrize(
    ("measured", "goal", "at_least", "met"),
    [
        (1.0, 2.0, False, True),
        (2.0, 2.0, False, True),
        (2.1, 2.0, False, False),
        (2.1, 2.0, True, True),
        (2.0, 2.0, True, True),
        (1.0, 2.0, True, False),
        (1.0, None, True, None),
        (1.0, 0, False, False),
    ],
)
def test_a_goal_is_met(
    claims: Any, measured: float, goal: float | None, at_least: bool, met: bool | None
) -> None:
    assert claims.clock.Row("x", measured, "", goal, at_least).met is met


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_s_run_does_the_work_that_is_named(
    claims: Any, cell: str, direction: str, dtype: str
) -> None:
    lengths = np.array([3, 1])
    options = {"bidirectional": True, "dtype": dtype}
    y, *grads = claims.clock.run_of(
        cell, (3, 2, 4, 5), direction, {"lengths": lengths}, **options
    )()
    assert y.shape == (3, 2, 10)
    assert y.dtype == dtype
    assert (y != 0).any(axis=2).sum(axis=0).tolist() == [3, 1]
    shapes = [p.shape for p in claims.clock.LAYERS[cell](4, 5, bidirectional=True).params.values()]
    assert [g.shape for g in grads] == ([(3, 2, 4), *shapes] if direction == "training" else [])
    assert all(np.any(g != 0) for g in grads)


def test_a_layer_s_run_takes_the_threads_it_is_told(
    claims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Layer(rnnfast.GRU):
        def forward(self, *args: Any, threads: Any = None, **options: Any) -> Any:
            seen.append(threads)
            return super().forward(*args, threads=threads, **options)

        def backward(self, *args: Any, threads: Any = None, **options: Any) -> Any:
            seen.append(threads)
            return super().backward(*args, threads=threads, **options)

        def __call__(self, *args: Any, threads: Any = None, **options: Any) -> Any:
            seen.append(threads)
            return super().__call__(*args, threads=threads, **options)

    monkeypatch.setitem(claims.clock.LAYERS, "gru", Layer)
    for direction, calls in (("forward", 1), ("training", 2)):
        claims.clock.run_of("gru", (3, 2, 4, 5), direction, {"threads": 2})()
        assert seen == [2] * calls
        seen.clear()


@pytest.mark.parametrize(("dtype", "error"), [("float32", 2e-4), ("float64", 2e-12)])
def test_who_computes_something_else_is_not_compared(claims: Any, dtype: str, error: float) -> None:
    right = [np.ones(3, dtype), np.full(2, 2, dtype)]
    claims.clock.must_agree("x", [a.copy() for a in right], right)
    for k in range(2):
        wrong = [a.copy() for a in right]
        wrong[k][0] *= 1 + error
        with pytest.raises(SystemExit, match="x: results differ by"):
            claims.clock.must_agree("x", wrong, right)
    with pytest.raises(SystemExit, match="differ by inf"):
        claims.clock.must_agree("x", [right[0] * np.nan, right[1]], right)


def main_of(monkeypatch: pytest.MonkeyPatch, groups: dict[str, Any], *arguments: str) -> Any:
    """`benchmarks/claims/__main__.py`, with `groups` in place of what it measures, run."""
    spec = importlib.util.spec_from_file_location("claims_main", CLAIMS / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(CLAIMS)
    spec.loader.exec_module(module)
    for name in NAMES:
        del sys.modules[name]
    monkeypatch.setattr(module, "GROUPS", groups)
    monkeypatch.setattr(module, "TITLES", dict.fromkeys(groups, "title"))
    monkeypatch.setattr(sys, "argv", ["claims", *arguments])
    monkeypatch.setattr(rnnfast._core.threads, "_process_wide", None)
    module.main()
    return module


def test_every_group_has_one_thread_on_one_cpu_but_threads(
    claims: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def group_of(name: str) -> Any:
        def group(clock: Any) -> Iterator[Any]:
            seen[name] = rnnfast.get_num_threads(), machine.cpus(), clock.threads
            yield claims.clock.Row(f"a {name}", 3.0, "us", 2.0, at_least=name == "threads")

        return group

    main_of(monkeypatch, {n: group_of(n) for n in ("stream", "threads")}, "--threads", "2")
    one = 1 if hasattr(os, "sched_setaffinity") else machine.cpus()
    assert seen == {"stream": (1, one, 2), "threads": (1, min(2, machine.cpus()), 2)}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "stream", "3.00", "us", "<=", "2", "no"] in lines
    assert ["a", "threads", "3.00", "us", ">=", "2", "yes"] in lines
