"""Threads: how many, from many callers at once; and what an import leaves alone."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import CELLS, Case, forward, run, shared
from scripts import Script, linux

import rnnfast
from rnnfast import functional
from rnnfast._core import threads as _threads


@pytest.fixture(autouse=True)
def default_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test from "nobody has set anything yet", and restore what was."""
    monkeypatch.setattr(_threads, "_process_wide", None)
    monkeypatch.delenv("RNNFAST_NUM_THREADS", raising=False)


def small_lstm(seed: int = 0) -> list[np.ndarray]:
    """Return x, h0, c0, w_ih, w_hh, b_ih, b_hh."""
    T, B, I, H = 3, 4, 5, 7
    rng = np.random.default_rng(seed)
    shapes = (T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)
    return [rng.standard_normal(shape) for shape in shapes]


# How many


@pytest.mark.parametrize("n", [1, 2, 256, np.int8(3), np.uint64(4)])
def test_counts_are_honoured(n: int) -> None:
    rnnfast.set_num_threads(n)
    assert rnnfast.get_num_threads() == n
    assert type(rnnfast.get_num_threads()) is int
    assert _threads.resolve(n) == n


@pytest.mark.parametrize(
    ("n", "error", "came"),
    [
        (0, ValueError, "is 0"),
        (-1, ValueError, "is -1"),
        (257, ValueError, "is 257"),
        (10**30, ValueError, f"is {10**30}"),
        (True, TypeError, "has type bool"),
        (np.True_, TypeError, "has type bool"),
        (1.5, TypeError, "has type float"),
        (2.0, TypeError, "has type float"),
        ("2", TypeError, "has type str"),
        (np.array([2]), TypeError, "has type ndarray"),
    ],
)
def test_wrong_counts(n: object, error: type[Exception], came: str) -> None:
    expected = f"{came}, expected an integer from 1 to 256"
    before = rnnfast.get_num_threads()
    arguments = small_lstm()
    *_, tape = functional.lstm_forward(*arguments)
    with pytest.raises(error, match=re.escape(f"threads {expected}")):
        functional.lstm_forward(*arguments, threads=n)
    with pytest.raises(error, match=re.escape(f"threads {expected}")):
        functional.lstm_backward(tape, threads=n)
    for function in (rnnfast.set_num_threads, rnnfast.num_threads):
        with pytest.raises(error, match=re.escape(f"n {expected}")):
            function(n)
    assert rnnfast.get_num_threads() == before
    functional.lstm_backward(tape)  # which the refused call has not used up


def test_none_is_no_count_to_set() -> None:
    with pytest.raises(TypeError, match="n has type NoneType"):
        rnnfast.set_num_threads(None)


def test_blocks_nest_and_restore() -> None:
    rnnfast.set_num_threads(7)
    with rnnfast.num_threads(3) as nothing:
        assert nothing is None
        assert rnnfast.get_num_threads() == 3
        with rnnfast.num_threads(5):
            assert rnnfast.get_num_threads() == 5
            assert _threads.resolve(2) == 2
        rnnfast.set_num_threads(9)
        assert rnnfast.get_num_threads() == 3
    assert rnnfast.get_num_threads() == 9


def test_block_ends_with_an_exception() -> None:
    rnnfast.set_num_threads(7)
    with pytest.raises(KeyError), rnnfast.num_threads(3):
        raise KeyError
    assert rnnfast.get_num_threads() == 7


def test_one_block_object_entered_twice() -> None:
    rnnfast.set_num_threads(7)
    block = rnnfast.num_threads(3)
    with block:
        with rnnfast.num_threads(5), block:
            assert rnnfast.get_num_threads() == 3
        assert rnnfast.get_num_threads() == 3
    assert rnnfast.get_num_threads() == 7


def test_block_acts_on_its_own_thread_only() -> None:
    rnnfast.set_num_threads(7)
    block, entered, seen = rnnfast.num_threads(3), threading.Barrier(2, timeout=30), []

    def other() -> None:
        with block:
            entered.wait()
            seen.append(rnnfast.get_num_threads())
            entered.wait()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    seen.append(rnnfast.get_num_threads())
    entered.wait()
    thread.join()
    assert sorted(seen) == [3, 7]


def test_block_acts_on_its_own_task_only() -> None:
    async def count(n: int) -> int:
        with rnnfast.num_threads(n):
            await asyncio.sleep(0)
            return rnnfast.get_num_threads()

    async def both() -> list[int]:
        return await asyncio.gather(count(3), count(5))

    assert asyncio.run(both()) == [3, 5]


@pytest.mark.parametrize("n", ["1", "3", "256", " 2 "])
def test_environment_variable(monkeypatch: pytest.MonkeyPatch, n: str) -> None:
    monkeypatch.setenv("RNNFAST_NUM_THREADS", n)
    assert rnnfast.get_num_threads() == int(n)
    rnnfast.set_num_threads(5)
    assert rnnfast.get_num_threads() == 5


@pytest.mark.parametrize("n", ["0", "-1", "257", "1.5", "two", "True"])
def test_wrong_environment_variable(monkeypatch: pytest.MonkeyPatch, n: str) -> None:
    monkeypatch.setenv("RNNFAST_NUM_THREADS", n)
    with pytest.raises(ValueError, match=f"RNNFAST_NUM_THREADS is '{re.escape(n)}', expected"):
        functional.lstm_forward(*small_lstm())
    assert _threads.resolve(2) == 2


def test_environment_variable_of_a_process(script: Script) -> None:
    text = "print(rnnfast.get_num_threads(), rnnfast.config()['threads'])"
    assert script(text, RNNFAST_NUM_THREADS="3", OMP_NUM_THREADS="1") == "3 3\n"


def test_openmp_limit(script: Script) -> None:
    text = "print(rnnfast.get_num_threads())"
    assert script(text, OMP_NUM_THREADS="1") == "1\n"
    assert script(text, OMP_NUM_THREADS="1", RNNFAST_NUM_THREADS="") == "1\n"


@linux
def test_affinity(script: Script) -> None:
    text = """
        expected = work(threads=2)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert rnnfast.get_num_threads() == 1
        assert work() == work(threads=3) == expected
    """
    script(text)


@pytest.mark.parametrize("limits", [(2, 4, 8), (4, 2, 8), (4, 8, 2)])
def test_default_is_the_smallest_limit(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int, int]
) -> None:
    openmp, affinity, quota = limits
    monkeypatch.setattr(_threads.core, "omp_max_threads", lambda: openmp)
    monkeypatch.setattr(_threads, "_affinity", lambda: affinity)
    monkeypatch.setattr(_threads, "_cpu_quota", lambda: quota)
    assert rnnfast.get_num_threads() == 2
    assert _threads.resolve(None) == -2  # at most so many: nobody has named the number


def test_a_number_that_is_named_is_none_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNFAST_NUM_THREADS", "3")
    assert _threads.resolve(None) == 3
    rnnfast.set_num_threads(2)
    assert _threads.resolve(None) == 2
    with rnnfast.num_threads(4):
        assert _threads.resolve(None) == 4
        assert _threads.resolve(5) == 5


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 256),
        ("0::/", {}, 256),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/gone", {"cpu.max": "200000 100000"}, 2),
        (
            "12:cpuset:/a\n4:cpu,cpuacct:/a\n0::/",
            {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "4:cpu:/a",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            256,
        ),
        ("", {"cpu.max": "100000 100000"}, 256),
    ],
)
def test_cpu_quota(tmp_path: Path, membership: str, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    cgroup = tmp_path / "membership"
    cgroup.write_text(membership)
    assert _threads._cpu_quota(str(tmp_path / "groups"), str(cgroup)) == cpus


def test_cpu_quota_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert _threads._cpu_quota(str(tmp_path), str(tmp_path / "absent")) == 256


# Many callers


@pytest.mark.skipif(not rnnfast.config()["openmp"], reason="built without OpenMP")
@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_take_part(cell: str, lengths: bool, threads: int) -> None:
    """Packing and the loop over time of dense sequences are cut into a part for each thread.

    Elsewhere a fast thread may take all that is left, which must not happen every time.
    """
    problem = Case(cell=cell, T=60, B=67, I=131, H=131, lengths=lengths).problem()
    for calls, fixed, work in (
        (3, 2 if lengths else 3, lambda: forward(functional, problem, threads=threads)),
        (5, 2 if lengths else 4, lambda: run(functional, problem, threads=threads)),
    ):
        least = fixed * threads + calls - fixed
        for _ in range(100):
            counted, blocks, takers = shared(work)
            assert counted == calls
            assert blocks >= calls * threads
            assert takers >= least
            if takers > least or calls == fixed:
                break
        assert takers > least or calls == fixed


@pytest.mark.parametrize("threads", [1, 2])
def test_one_thread_shares_nothing(threads: int) -> None:
    """Nor does a call whose work is small."""
    sizes = {"T": 30, "B": 67, "H": 131} if threads == 1 else {}
    problem = Case(cell="gru", **sizes).problem()
    assert shared(lambda: run(functional, problem, threads=threads)) == (0, 0, 0)


def test_many_python_threads_at_once(script: Script) -> None:
    text = """
        from concurrent.futures import ThreadPoolExecutor
        expected = work(threads=1)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, [1, 2, 3, None] * 10))
        assert all(result == expected for result in results)
    """
    script(text)


def test_python_threads_keep_their_own_inputs() -> None:
    def outputs(seed: int) -> list[np.ndarray]:
        *results, tape = functional.lstm_forward(*small_lstm(seed))
        return [*results, *functional.lstm_backward(tape, results[0])[:-1]]

    expected = [outputs(seed) for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        for got, exact in zip(pool.map(outputs, range(100)), expected, strict=True):
            for array, other in zip(got, exact, strict=True):
                np.testing.assert_array_equal(array, other)


def test_more_threads_than_rows() -> None:
    arguments = small_lstm()
    one = functional.lstm_forward(*arguments, threads=1)[0]
    many = functional.lstm_forward(*arguments, threads=256)[0]
    np.testing.assert_array_equal(one, many)


# What an import leaves alone


@linux
def test_import_leaves_the_process_alone(script: Script) -> None:
    text = """
        import ctypes, os, signal
        import numpy as np

        def c_environment():
            entries, found = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ"), []
            while entries[len(found)]:
                found.append(entries[len(found)])
            return found

        def state():
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            return (
                dict(os.environ), c_environment(), os.getcwd(), np.geterr(),
                [signal.getsignal(number) for number in sorted(signal.valid_signals())],
                [status[key] for key in ("SigBlk", "SigIgn", "SigCgt", "Threads", "Cpus_allowed")],
            )

        libc = ctypes.CDLL(None)
        before = state()
        import rnnfast
        assert state() == before
    """
    assert script(text, prologue="") == ""


def test_import_prints_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", "import rnnfast"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert result.stdout == result.stderr == b""


def test_subnormals_survive(script: Script) -> None:
    text = """
        from concurrent.futures import ThreadPoolExecutor

        def flushed(*_):  # by a zero input (DAZ) or a zero result (FTZ)
            tiny = np.array([np.finfo(np.float64).tiny, 1e-310])
            small = np.array([np.finfo(np.float32).tiny, 1e-40], dtype=np.float32)
            return not (np.all(tiny * 0.5) and np.all(small * np.float32(0.5)))

        assert not flushed()
        for threads in (1, 2, 3):
            work(threads)
            assert not flushed()
        with ThreadPoolExecutor(4) as pool:
            assert not any(pool.map(lambda n: work(n) and flushed(), [1, 2, 3] * 3))
    """
    script(text)


# The report


def test_config() -> None:
    config = rnnfast.config()
    assert list(config) == ["version", "isa", "isas", "openmp", "compiler", "threads"]
    assert config["version"] == rnnfast.__version__
    assert config["isa"] in config["isas"]
    assert "baseline" in config["isas"] or "neon" in config["isas"]
    assert type(config["openmp"]) is bool
    assert config["compiler"]
    with rnnfast.num_threads(5):
        assert rnnfast.config()["threads"] == 5


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    rnnfast.show_config()
    lines = capsys.readouterr().out.splitlines()
    config = rnnfast.config()
    assert [line.split()[0] for line in lines] == list(config)
    assert lines[0].split() == ["version", rnnfast.__version__]
    assert lines[2].split(maxsplit=1)[1] == ", ".join(config["isas"])
