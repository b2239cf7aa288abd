"""What results and steps do with memory."""

import os
import subprocess
import sys

import numpy as np
import pytest

import rnnfast

LARGE = 32, 16, 64, 128  # T, B, I, H with several results of 128 KiB or more


def step(layer, x, dy):
    y, _, tape = layer.forward(x)
    return y, layer.backward(tape, dy)


FAULTS = """
import resource, numpy, rnnfast
rnnfast.set_num_threads(1)
layer = rnnfast.LSTM(256, 256, num_layers=6, rng=0)
x = numpy.ones((8, 16, 256), numpy.float32)
for call in range(12):
    if call == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, x)
    del y, tape, grads
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 8)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_later_steps_take_no_new_pages(tmp_path):
    # glibc then gives large blocks back at once, as otherwise now and then.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    command = [sys.executable, "-c", FAULTS]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=True)
    assert int(result.stdout) < 500  # of 3,500 pages of results


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_large_results_stay_what_they_are(cell):
    T, B, I, H = LARGE
    layer = getattr(rnnfast, cell)(I, H, rng=0)
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((T, B, I), np.float32), rng.standard_normal((T, B, H), np.float32)
    y, grads = step(layer, x, dy)
    kept = [y, grads.input, *grads.params.values()]
    copies = [a.copy() for a in kept]
    assert sum(a.nbytes >= 128 << 10 for a in kept) >= 2
    part, last = y[-1], y[-1].copy()
    for a in kept:
        assert a.flags.carray
    for _ in range(3):
        step(layer, -x, 2 * dy)
    for a, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(a, copy)
    del y, grads, kept, a
    step(layer, -x, 2 * dy)
    np.testing.assert_array_equal(part, last)  # a view keeps the memory alive
