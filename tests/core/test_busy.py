"""Threads on a machine that has other work: how many are taken, and what that costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rnnfast
from rnnfast._core import config
from rnnfast._core import threads as _threads

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
shared = pytest.mark.skipif(
    CPUS < 2 or not rnnfast.config()["openmp"], reason="needs two CPUs and OpenMP"
)

# A program that trains beside four busy processes per CPU, then alone. It prints the mean time of a
# step with one thread and with the default number, and the fewest threads of a call. Last comes
# how long it takes until a call has all threads again.
PROGRAM = """
import subprocess, sys, time
import numpy as np
import rnnfast
from rnnfast._core import config

layer = rnnfast.GRU(32, 64, rng=0)
x = np.ones((32, 64, 32), np.float32)
dy = np.ones((32, 64, 64), np.float32)

cpus = fewest = int(sys.argv[1])

def mean(threads, seconds):
    global fewest
    n, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        tape = layer.forward(x, threads=threads)[2]
        layer.backward(tape, dy, threads=threads)
        n += 1
        fewest = min(fewest, config.paying_threads(cpus))
    return (time.perf_counter() - start) / n

busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * cpus)]
try:
    mean(1, 0.5)
    one, default = zip(*[(mean(1, 1), mean(None, 1)) for _ in range(2)])
finally:
    for process in busy:
        process.kill()
        process.wait()
start = time.perf_counter()
while config.paying_threads(cpus) < cpus and time.perf_counter() < start + 5:
    time.sleep(0.01)
print(sum(one), sum(default), fewest, time.perf_counter() - start)
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder: Path = tmp_path_factory.mktemp("busy")
    clean = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    command = [sys.executable, "-c", PROGRAM, str(CPUS)]
    output = subprocess.check_output(command, cwd=folder, env=clean, text=True, timeout=60)
    return list(map(float, output.split()))


@shared
def test_the_default_is_no_slower_than_one_thread(figures: list[float]) -> None:
    """With all threads, whatever the machine does, a step here takes four to ten times as long."""
    one, default, _, _ = figures
    assert default < 2 * one


@shared
def test_all_threads_are_tried_again_within_a_second(figures: list[float]) -> None:
    *_, fewer, seconds = figures
    assert fewer < CPUS, "all threads were still in use beside the busy processes"
    assert seconds < 1


def test_only_the_default_number_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a number of threads gets it. To the kernels a negative one is at most so many."""
    monkeypatch.setattr(_threads, "_process_wide", None)
    monkeypatch.delenv("RNNFAST_NUM_THREADS", raising=False)
    assert _threads.resolve(None) == -rnnfast.get_num_threads() < 0
    assert _threads.resolve(2) == 2
    with rnnfast.num_threads(3):
        assert _threads.resolve(None) == 3
    monkeypatch.setattr(_threads, "_process_wide", None)
    monkeypatch.setenv("RNNFAST_NUM_THREADS", "3")
    assert _threads.resolve(None) == 3
    rnnfast.set_num_threads(4)
    assert _threads.resolve(None) == 4
    assert 1 <= config.paying_threads(4) <= 4
