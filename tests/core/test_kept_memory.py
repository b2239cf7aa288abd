"""What csrc/memory.c promises of the blocks that it keeps for later calls.

Every test starts in a process of its own, in which nothing is kept yet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import rnnfast

PACKAGE = Path(rnnfast.__file__).parents[1]
# A block takes HEADER bytes more than it has; MiB of the kept ones are always welcome.
PROLOGUE = """
import os
import numpy as np
import rnnfast
from rnnfast._core import arrays, config, passes, streaming

HEADER, PLACES, WELCOME, MOST = 64, 64, 128 << 20, 1 << 30

def used():
    return config.memory_now()[0]

def kept():
    return config.memory_now()[1]

def blocks():
    return config.memory_now()[2]

def take(size):
    # A result of so many bytes, which are not written.
    return arrays.copied(np.broadcast_to(np.uint8(0), (size,)))

def keep(*sizes):
    held = [take(size) for size in sizes]
    while held:
        held.pop(0)

def size_of(make):
    # The bytes of the block that `make` takes, and what it made.
    before = used()
    made = make()
    return used() - before - HEADER, made

def scratch():
    # Packed weights are like all scratch: 2048 bytes here, with vectors of any length.
    return streaming.LayerState(config.RNN, 0, passes.Weights(*weights), 0, np.zeros)

weights = np.zeros((16, 15), np.float32), np.zeros((16, 16), np.float32)

def work():
    layer = rnnfast.LSTM(31, 83, rng=0)
    x = np.ones((19, 67, 31), np.float32)
    y, _, tape = layer.forward(x, threads=2)
    grads = layer.backward(tape, y, threads=2)
    return y.tobytes() + b"".join(g.tobytes() for g in grads.params.values())

assert config.memory_now() == (0, 0, 0)
"""

Script = Callable[[str], None]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def run(text: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + dedent(text)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(PACKAGE)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    return run


def test_a_block_of_the_same_size_is_taken_again(script: Script) -> None:
    script("""
        first = take(1000)
        address = first.ctypes.data
        del first
        assert (used(), kept(), blocks()) == (0, 1000, 1)
        again = take(1000)
        assert again.ctypes.data == address
        assert (used(), kept(), blocks()) == (1000 + HEADER, 0, 0)
    """)


def test_the_smallest_block_that_fits_is_taken(script: Script) -> None:
    script("""
        for sizes in ((1000, 1100, 1200), (1200, 1100, 1000), (1100, 1000, 1200)):
            held = [take(size) for size in sizes]  # all of them, before one is kept
            del held
            size, block = size_of(lambda: take(1050))
            assert size == 1100
            del block
            assert blocks() == 3
    """)


@pytest.mark.parametrize(("kept", "taken"), [(1250, 1250), (1251, 1000), (999, 1000)])
def test_a_result_takes_at_most_a_quarter_more(script: Script, kept: int, taken: int) -> None:
    script(f"""
        keep({kept})
        assert size_of(lambda: take(1000))[0] == {taken}
    """)


@pytest.mark.parametrize(("kept", "taken"), [(4096, 4096), (4097, 2048), (2047, 2048)])
def test_scratch_takes_at_most_twice_its_size(script: Script, kept: int, taken: int) -> None:
    script(f"""
        keep({kept})
        assert size_of(scratch)[0] == {taken}
    """)


def test_blocks_are_aligned(script: Script) -> None:
    script("""
        held = [take(size) for size in range(1, 200)]
        assert not any(block.ctypes.data % 64 for block in held)
        large = [take((4 << 20) + more) for more in range(3)]
        assert not any((block.ctypes.data - HEADER) % (2 << 20) for block in large)  # huge pages'
    """)


def test_the_blocks_freed_last_are_kept(script: Script) -> None:
    script("""
        sizes = [1000 * n for n in range(1, 101)]
        keep(*sizes)
        assert blocks() == PLACES
        assert kept() == sum(sizes[-PLACES:])
        size, block = size_of(lambda: take(sizes[-PLACES]))
        assert size == sizes[-PLACES]
        assert blocks() == PLACES - 1
        assert kept() == sum(sizes[1 - PLACES:])
    """)


def test_what_is_kept_has_at_most_a_quarter_more_than_was_in_use(script: Script) -> None:
    script("""
        MiB = 1 << 20
        keep(*[20 * MiB] * 10)  # 200 at once
        assert kept() == 200 * MiB
        # In use again and partly kept: never more than 250 together; less as blocks are freed.
        held = [take(25 * MiB) for _ in range(4)]
        assert used() == 4 * (25 * MiB + HEADER)
        small = take(100)
        del small
        assert kept() <= 250 * MiB - used()
        for _ in range(3000):
            take(100)
        assert WELCOME - 25 * MiB < kept() <= WELCOME
        del held
        assert WELCOME - 25 * MiB < kept() <= WELCOME
    """)


def test_a_gibibyte_is_the_most_that_is_kept(script: Script) -> None:
    """Of 1.9 that a call has. It fails for want of memory, so that none of it is written."""
    script("""
        weights = np.zeros((256, 1), np.float32), np.zeros((256, 256), np.float32), None, None, None
        x = np.zeros((1, 600_000, 1), np.float32)
        weights = passes.Weights(*weights)
        call = passes.ForwardCall(config.RNN, 0, x, None, None, weights, None, None, False, True)
        call.h_n = np.empty((600_000, 256), np.float32)
        config.refuse_memory(5)  # two packed weights, y, the tape, then the scratch
        try:
            passes.run_forward([call], 1)
        except MemoryError:
            pass
        else:
            raise AssertionError("the fifth block is not the scratch")
        del call
        assert used() == 0
        assert 600_000 * 1024 <= kept() <= MOST
    """)


def test_many_threads(script: Script) -> None:
    script("""
        from concurrent.futures import ThreadPoolExecutor
        want = work()
        before = used()
        with ThreadPoolExecutor(4) as pool:
            assert all(got == want for got in pool.map(lambda _: work(), range(40)))
        assert used() == before == 0
        assert 0 < blocks() <= PLACES
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_the_lock_was_held(script: Script) -> None:
    """It computes without what is kept, and gives back to the system what it frees."""
    script("""
        import resource
        want = work()
        config.hold_kept_memory(True)
        before = config.memory_now()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert work() == want
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                for _ in range(300):
                    np.add(take(1 << 20), 1)
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
                assert grown < 50 << 10, grown  # KiB
                assert config.memory_now() == before
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        config.hold_kept_memory(False)
        assert work() == want
        assert size_of(lambda: take(1000))[0] >= 1000
        assert blocks() > 0
    """)
