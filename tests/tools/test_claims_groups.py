"""What each group of `benchmarks/claims` times, divides and holds against its goal."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_claims import CLAIMS, Scripted, load_claims, spy_on_layers

import rnnfast
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES, Case
from rnnfast.bench.work import Work


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    return load_claims()


def test_stream(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand steps of one row in each call: the time is told per step."""
    calls: list[tuple[Any, ...]] = []

    def layer_of(cell: str) -> Any:
        def layer(I: int, H: int, rng: int) -> Any:
            def step(x: Any, out: Any) -> None:
                assert (x.shape, out.shape, x.dtype) == ((I,), (H,), np.float32)
                calls.append(("step", cell, I, H))

            def run(x: Any) -> None:
                assert x.dtype == np.float32
                calls.append(("run", cell, *x.shape, H))

            return SimpleNamespace(stream=lambda: SimpleNamespace(step=step, run=run))

        return layer

    monkeypatch.setattr(claims.speed, "LAYERS", {cell: layer_of(cell) for cell in CELLS})
    scripted = Scripted(claims, lambda what, key: 2e-3)
    rows = {row.what: row for row in claims.speed.stream(scripted.clock)}
    for what, row in rows.items():
        way, cell, sizes = what.removesuffix(", per step").split()
        I, H = map(int, sizes.split("->"))
        scripted.timed[what][what]()
        if way == "stream.step":
            assert calls == [("step", cell.lower(), I, H)] * 1000
            assert (row.measured, row.unit) == (2.0, "us")
        else:
            assert calls == [("run", cell.lower(), 1000, I, H)]
            assert (row.measured, row.unit) == (2000.0, "ns")
        assert (row.at_least, row.note) == (False, "")
        calls.clear()
    goals = {what: row.goal for what, row in rows.items()}
    assert goals["stream.step LSTM 128->128"] == 5
    assert goals["stream.run GRU 32->64, per step"] == 550
    assert len(goals) == 10


def test_latency(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy_on_layers(monkeypatch, claims.speed)
    scripted = Scripted(claims, lambda what, key: 7e-6)
    rows = list(claims.speed.latency(scripted.clock))
    for row in rows:
        shape, cell, direction = row.what.split()
        run = scripted.timed[row.what][row.what]
        assert run == (cell.lower(), SHAPES[shape], direction, {}, {})
        goal = {("tiny", "forward"): 8, ("tiny", "training"): 25, ("step", "training"): 15}
        assert (row.goal, row.at_least) == (goal[shape, direction], False)
        assert (row.measured, row.unit) == (pytest.approx(7.0), "us")
    assert len(rows) == 9


def test_lengths(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy_on_layers(monkeypatch, claims.speed)
    monkeypatch.setattr(claims.speed, "missing", lambda library: [library])
    scripted = Scripted(claims, lambda what, key: {"dense": 8.0, "ours": 4.0}[key])
    rows = list(claims.speed.lengths(scripted.clock))
    assert [row.what.split(",")[0] for row in rows] == [
        f"{cell.upper()} {direction}" for cell, direction in product(CELLS, DIRECTIONS)
    ]
    for row in rows:
        assert (row.measured, row.goal, row.at_least) == (0.5, 0.6, False)
        cell, direction = row.what.partition(",")[0].lower().split()
        runs = scripted.timed[row.what]
        assert runs["dense"] == (cell, (100, 32, 128, 128), direction, {}, {})
        lengths = runs["ours"][3].pop("lengths")
        assert runs["ours"] == runs["dense"]
        assert lengths.min() >= 1
        assert lengths.max() <= 100
        assert row.note == f"{lengths.sum() / 32:.0f} % of the steps"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lengths_against_pytorch(
    claims: Any, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="its packed LSTM is compared")
    monkeypatch.setattr(claims.speed, "BOTH", ())
    monkeypatch.setattr(claims.speed, "DIRECTIONS", (direction,))
    scripted = Scripted(claims, lambda what, key: {"theirs": 6e-3, "ours": 2e-3}[key])
    before = torch.get_num_threads()
    try:
        [row] = claims.speed.lengths(scripted.clock)
        assert torch.get_num_threads() == 1
        assert row.what == f"LSTM {direction}, speed over PyTorch packed"
        assert (row.measured, row.goal, row.at_least) == (pytest.approx(3), 4, True)
        assert row.note == "2.0 ms, PyTorch 6.0 ms"
        ours, theirs = (scripted.timed[row.what][key]() for key in ("ours", "theirs"))
        assert len(ours) == len(theirs) == (6 if direction == "training" else 1)
        run_of = claims.speed.run_of
        for wrong in range(len(ours)):

            def other(*args: Any, wrong: int = wrong) -> Any:
                return lambda: [a * (1 + (k == wrong)) for k, a in enumerate(run_of(*args)())]

            monkeypatch.setattr(claims.speed, "run_of", other)
            with pytest.raises(SystemExit, match="results differ"):
                next(claims.speed.lengths(scripted.clock))
    finally:
        torch.set_num_threads(before)


def test_pytorch_with_other_threads_is_not_compared(
    claims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="its threads are read back")
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for group in (claims.modules.modules, claims.speed.lengths):
        monkeypatch.setattr(claims.speed, "BOTH", ())
        with pytest.raises(SystemExit, match="PyTorch has 4 threads, not the 1 asked for"):
            next(group(Scripted(claims, lambda what, key: 1.0).clock))
    assert asked == [1, 1]


def test_float64(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy_on_layers(monkeypatch, claims.speed)
    scripted = Scripted(claims, lambda what, key: {"float32": 2.0, "float64": 5.0}[key])
    rows = list(claims.speed.float64(scripted.clock))
    assert len(rows) == 3 * 6
    for row in rows:
        assert (row.measured, row.goal, row.at_least) == (0.4, 0.45, True)
        shape, cell, direction = row.what.split()
        for dtype, run in scripted.timed[row.what].items():
            assert run == (cell.lower(), SHAPES[shape], direction, {}, {"dtype": dtype})


def test_isa(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 takes 4 us where the default takes 3; its peak is half of the other."""
    monkeypatch.setattr(rnnfast, "config", lambda: {"isa": "avx512", "isas": ["avx2", "avx512"]})

    class Worker:
        def __init__(self, library: str, threads: int, folder: Path) -> None:
            assert (library, threads) == ("rnnfast", 1)
            self.isa = os.environ["RNNFAST_ISA"]

        def ask(self, question: dict[str, Any]) -> dict[str, float]:
            assert question["do"] == "peak"
            return {"gflops": {"avx2": 30.0, "avx512": 60.0}[self.isa]}

        def __enter__(self) -> Worker:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    class Bench:
        def __init__(self, settings: Any, folder: Path) -> None:
            self.workers, self.results, self.skipped = {}, [], []

        def measure(self, case: Case) -> None:
            for key, worker in self.workers.items():
                where = {"shape": case.shape, "cell": case.cell, "direction": case.direction}
                us = {"avx2": 4.0, "avx512": 3.0}[worker.isa]
                self.results.append({**where, "library": key, "us": us})

    monkeypatch.setattr(claims.speed, "Worker", Worker)
    monkeypatch.setattr(claims.speed, "Bench", Bench)
    clock = Scripted(claims, None).clock
    bound, *rows = claims.speed.isa(clock)
    assert (bound.measured, bound.goal) == (0.5, None)
    assert clock.peak == 60.0
    assert len(rows) == 4 * 6
    assert {(row.measured, row.goal, row.at_least, row.note) for row in rows} == {
        (0.75, 0.92, True, "1.50 of the peaks' ratio")
    }


def test_peak(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward through a stream, training of a layer; half of 50 GFLOP/s are 50 per cent."""
    spy_on_layers(monkeypatch, claims.scaling)

    def layer_of(cell: str) -> Any:
        def layer(I: int, H: int, rng: int) -> Any:
            def stream(B: int) -> Any:
                return SimpleNamespace(run=lambda x: (cell, *x.shape, H, x.shape[1] == B))

            return SimpleNamespace(stream=stream)

        return layer

    monkeypatch.setattr(claims.scaling, "LAYERS", {cell: layer_of(cell) for cell in CELLS})
    scripted = Scripted(claims, lambda what, case: case.flops / 25e9)
    rows = {row.what: row for row in claims.scaling.peak(scripted.clock)}
    assert len(rows) == 7 * 6
    for what, row in rows.items():
        shape, cell, direction = what.split()
        assert (row.measured, row.unit, row.at_least) == (pytest.approx(50), "%", True)
        [(case, run)] = scripted.timed[what].items()
        sizes = SHAPES.get(shape, (30, 16, 1024, 1024))
        assert (case.cell, case.sizes, case.direction) == (cell.lower(), sizes, direction)
        if direction == "training":
            assert run == (cell.lower(), sizes, direction, {}, {})
        else:
            assert run() == (cell.lower(), *sizes, True)
    goals = {what: row.goal for what, row in rows.items()}
    assert [goals[f"medium {c} forward"] for c in ("RNN", "GRU", "LSTM")] == [87, 89, 91]
    assert [goals[f"medium {c} training"] for c in ("RNN", "GRU", "LSTM")] == [84, 86, 88]
    assert rows["small LSTM forward"].note == "at most 78 % beside its activations"


@pytest.mark.parametrize(("n", "goal"), [(2, 1.85), (3, None)])
def test_threads(claims: Any, n: int, goal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy_on_layers(monkeypatch, claims.scaling)
    monkeypatch.setattr(claims.scaling, "cpus", lambda: n)
    monkeypatch.setattr(claims.scaling, "fma_peak", lambda dtype, seconds: 40e9)
    scripted = Scripted(claims, lambda what, t: {1: 6.0, n: 4.0}[t], threads=n)
    *rows, peak = claims.scaling.threads(scripted.clock)
    assert len(rows) == 5 * 6 + 2
    for row in rows:
        assert (row.measured, row.goal, row.at_least) == (1.5, goal, True)
        *shape, cell, direction = row.what.split()
        for t, run in scripted.timed[row.what].items():
            both = shape[-1] == "bidirectional"
            sizes = (1000, 1, 64, 128) if both else SHAPES[shape[0]]
            options = {"bidirectional": True} if both else {}
            assert run == (cell.lower(), sizes, direction, {"threads": t}, options)
        assert set(scripted.timed[row.what]) == {1, n}
    assert peak.measured == pytest.approx(n * 40 / 50)


def test_odd(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The odd size has 60 per cent, the one beside it 80: it is 20 points below."""
    spy_on_layers(monkeypatch, claims.scaling)
    odd = {"50 32 100 100", "50 32 130 130", "50 32 257 257", "50 7 128 128", "50 33 128 128"}

    def find(what: str, case: Any) -> float:
        return float(case.flops / (30e9 if case.shape in odd else 40e9))

    scripted = Scripted(claims, find)
    rows = list(claims.scaling.odd(scripted.clock))
    assert len(rows) == 5 * 6
    for row, (what, runs) in zip(rows, scripted.timed.items(), strict=True):
        assert row.measured == pytest.approx(20)
        assert (row.unit, row.goal, row.at_least) == ("points", 10, False)
        assert row.note.startswith("60.0 % of peak; 80.0 % at")
        for case, run in runs.items():
            assert run == (case.cell, case.sizes, case.direction, {}, {})
            assert what.endswith(f"{case.cell.upper()} {case.direction}")
        assert {case.shape for case in runs} & odd == {" ".join(what.split()[:4])}
    assert rows[0].what == "B 32, H 100 RNN forward"


def test_growth(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row and step takes 5 ns, in the longest and largest runs 6."""
    spy_on_layers(monkeypatch, claims.scaling)

    def find(what: str, n: int) -> float:
        slow = n == {"T": 4096, "B": 512}[what[-1]]
        return n * 32 * (6e-9 if slow else 5e-9)

    scripted = Scripted(claims, find)
    rows = list(claims.scaling.growth(scripted.clock))
    assert len(rows) == 2 * 6
    for row in rows:
        assert (row.goal, row.at_least) == (1.1, False)
        assert row.measured == pytest.approx(1.2)
        cell, direction, _, letter = row.what.split()
        assert list(row.curve)[-1] == {"T": 4096, "B": 512}[letter]
        assert list(row.curve.values())[:-1] == pytest.approx([5.0] * (len(row.curve) - 1))
        for n, run in scripted.timed[row.what].items():
            sizes = (n, 32, 128, 128) if letter == "T" else (32, n, 128, 128)
            assert run == (cell.lower(), sizes, direction, {}, {})


def test_memory(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(function: Any, *args: Any) -> float:
        if function is claims.memory.left_by_calls:
            assert args[:2] == (200, 1000)
            return 3.0
        library, sizes = args
        T, B, I, H = map(int, sizes.split())
        assert (function, B, I, H) == (claims.memory.peak_of_step, 64, 512, 512)
        return 1.25 * T if library == "torch" else 25.0 + T

    monkeypatch.setattr(claims.memory, "measured", measured)
    monkeypatch.setattr(claims.memory, "missing", lambda library: [])
    monkeypatch.setattr(claims.memory, "PROC", CLAIMS)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    over, growth, *left = claims.memory.memory(Scripted(claims, None).clock)
    assert (over.measured, over.goal, over.at_least) == (75 / 62.5, 1, False)
    assert (growth.measured, growth.goal) == (pytest.approx(1), 1.1)
    assert growth.note.startswith("16.00 to 16.00 KiB")
    assert {(row.measured, row.unit, row.goal, row.at_least) for row in left} == {
        (3.0, "MiB", 5, False)
    }


def test_memory_that_calls_leave_is_the_difference_of_two_means(
    claims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred calls each: a MiB more after every call makes 800 from call 200 to 1000."""
    mib, trimmed, runs = iter(range(3000)), [], []
    monkeypatch.setattr(claims.memory, "resident", lambda kind: next(mib))
    monkeypatch.setattr(claims.memory, "TRIM", trimmed.append)

    def run_of(cell: str, sizes: Any, direction: str) -> Any:
        return lambda: runs.append((cell, *sizes, direction))

    monkeypatch.setattr(claims.memory, "run_of", run_of)
    assert claims.memory.left_by_calls(200, 1000, False) == 800
    assert (len(trimmed), len(runs)) == (0, 1000)
    assert claims.memory.left_by_calls(200, 300, True) == 100
    assert (len(trimmed), len(runs)) == (300, 1300)
    assert {cell for cell, *_ in runs} == set(CELLS)
    assert {direction for *_, direction in runs} == {"training"}
    assert len(set(runs)) > 900, "of random sizes"


@pytest.mark.parametrize("library", ["rnnfast", "torch"])
def test_a_step_s_peak_is_what_it_adds_to_what_was_resident_before(
    claims: Any, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def resident(kind: str) -> float:
        events.append(kind)
        return {"VmRSS": 100.0, "VmHWM": 130.0}[kind]

    def runner(case: Any, arrays: Any, threads: int) -> Work:
        assert (case.cell, case.direction, threads) == ("lstm", "training", 1)
        return Work(lambda: (events.append(case.shape),), 1)

    monkeypatch.setattr(claims.memory, "resident", resident)
    monkeypatch.setattr(claims.memory, "PROC", tmp_path)
    monkeypatch.setitem(claims.memory.RUNNERS, library, runner)
    assert claims.memory.peak_of_step(library, "5 2 3 4") == 30
    assert events == ["VmRSS", "2 2 3 5", "VmHWM", "VmRSS", "5 2 3 4", "VmHWM"]
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_resident_memory_is_in_mib(
    claims: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  4096 kB\nVmRSS:\t  2048 kB\n")
    monkeypatch.setattr(claims.memory, "PROC", tmp_path)
    assert (claims.memory.resident("VmHWM"), claims.memory.resident("VmRSS")) == (4, 2)
