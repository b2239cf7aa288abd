"""After a fork: the child computes, whatever its parent did, and so does the parent.

Each measure that rnnfast takes has a test that only it satisfies. The parent's idle threads end
before the fork. The child computes on the calling thread. A lock that the fork has left taken holds
nobody up.
"""

from __future__ import annotations

import os

import pytest
from scripts import Script, linux

import rnnfast

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_fork_after_a_parallel_call(script: Script) -> None:
    text = """
        expected = work(threads=2)
        for threads in (2, 3, None):
            assert in_child(lambda: work(threads) == expected)
            assert work(threads) == expected
    """
    script(text)


def test_fork_before_the_first_call(script: Script) -> None:
    text = """
        assert in_child(lambda: work(threads=2) == work(threads=1))
        assert work(threads=2) == work(threads=1)
    """
    script(text)


def test_grandchild(script: Script) -> None:
    text = """
        expected = work(threads=2)
        assert in_child(lambda: work(2) == expected and in_child(lambda: work(2) == expected))
    """
    script(text)


def test_python_threads_of_a_forked_child(script: Script) -> None:
    text = """
        from concurrent.futures import ThreadPoolExecutor

        def in_threads():
            with ThreadPoolExecutor(4) as pool:
                return set(pool.map(work, [2, 3] * 4))

        expected = work(threads=2)
        assert in_child(lambda: in_threads() == {expected})
    """
    script(text)


def test_fork_while_other_threads_compute(script: Script) -> None:
    text = """
        import threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        expected, wrong, stop = work(threads=2), [], threading.Event()

        def compute():
            while not stop.is_set():
                if work(threads=2) != expected:
                    wrong.append(1)

        threads = [threading.Thread(target=compute) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert all(in_child(lambda: work(threads=2) == expected) for _ in range(10))
        finally:
            stop.set()
        for thread in threads:
            thread.join()
        assert not wrong
    """
    script(text)


def test_multiprocessing_pool(script: Script) -> None:
    text = """
        import multiprocessing
        expected = work(threads=2)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert all(result == expected for result in pool.map(work, [1, 2, 3, None] * 2))
        assert work(threads=2) == expected
    """
    script(text)


# -------------------------------------------------------------------- the measures, one by one


@linux
def test_a_child_computes_on_the_calling_thread(script: Script) -> None:
    """Forward, backward and streams; also where OpenMP would start threads, and a child's child."""
    text = """
        layer = rnnfast.GRU(I, H, num_layers=2, bidirectional=True, rng=0)
        one_way = rnnfast.LSTM(I, H, rng=0)
        stream = one_way.stream(batch_size=B, threads=3)

        def alone():
            before = tasks()
            with rnnfast.num_threads(3):
                y, _, tape = layer.forward(arguments[0])
                layer.backward(tape, y)
                one_way.stream(batch_size=B).run(arguments[0])
            stream.run(arguments[0])
            rnnfast.set_num_threads(2)
            return work(threads=3) == work() == expected and tasks() == before == 1

        expected = work(threads=1)
        assert in_child(alone)
        work(threads=3)
        assert in_child(alone)
        assert in_child(lambda: in_child(alone))
    """
    script(text)


@linux
def test_the_parents_idle_threads_end_before_a_fork(script: Script) -> None:
    """And start again with its next call."""
    if not rnnfast.config()["openmp"]:
        pytest.skip("built without OpenMP")
    text = """
        alone = tasks()
        expected = work(threads=3)
        assert tasks() == alone + 2
        assert in_child(lambda: True)
        assert tasks() == alone
        assert work(threads=3) == expected
        assert tasks() == alone + 2
    """
    script(text)


@linux
def test_a_child_may_use_openmp_for_itself(script: Script) -> None:
    """As another library does that shares its run-time, which waits for the parent's threads."""
    text = """
        import ctypes, signal
        loaded = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp.so" in line}
        own = [path for path in loaded if "torch" not in path]
        libgomp, libc = ctypes.CDLL(own[0]) if own else None, ctypes.CDLL(None)

        def elsewhere():
            signal.alarm(20)  # the end of a child that waits
            libgomp.GOMP_parallel(libc.getpid, None, 2, 0)
            return True

        if libgomp is None:
            print("none")
        else:
            work(threads=3)
            assert in_child(elsewhere)
            assert in_child(lambda: work(threads=3) and elsewhere())
            assert elsewhere()
    """
    if script(text) == "none\n":
        pytest.skip("not GNU's OpenMP")


@linux
def test_a_lock_that_a_fork_leaves_taken_holds_nobody_up(script: Script) -> None:
    """Other threads take and give back memory all the time, some in the moment of a fork."""
    text = """
        import signal, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        layer, stop = rnnfast.RNN(1, 4, rng=0), threading.Event()
        x = np.ones((1, 1 << 15, 1), np.float32)  # many blocks of rows, with scratch for each
        expected = layer(x[:, :99])[0].tobytes()

        def compute():
            while not stop.is_set():
                layer(x, threads=1)

        def child():
            signal.alarm(20)  # the end of a child that waits
            return layer(x[:, :99])[0].tobytes() == expected

        threads = [threading.Thread(target=compute) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert all(in_child(child) for _ in range(80))
        finally:
            stop.set()
        for thread in threads:
            thread.join()
    """
    script(text)
