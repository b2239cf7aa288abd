"""Use the installed package: an LSTM's forward and backward against the NumPy reference."""

import os
import sys

import numpy as np

import rnnfast
from rnnfast import functional, reference

assert rnnfast.__file__.startswith(sys.prefix), f"not the installed package: {rnnfast.__file__}"
if "RNNFAST_NO_OPENMP" in os.environ:
    assert not rnnfast.config()["openmp"]

T, B, I, H = 7, 5, 3, 11
rng = np.random.default_rng(0)
shapes = (T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)
inputs = [rng.standard_normal(shape) for shape in shapes]
upstream = [rng.standard_normal(shape) for shape in ((T, B, H), (B, H), (B, H))]
for threads in (None, 1, 2):
    *got, tape = functional.lstm_forward(*inputs, threads=threads)
    *expected, reference_tape = reference.lstm_forward(*inputs)
    got += functional.lstm_backward(tape, *upstream, threads=threads)[:-1]  # w_hr is None
    expected += reference.lstm_backward(reference_tape, *upstream)[:-1]
    for array, exact in zip(got, expected, strict=True):
        np.testing.assert_allclose(array, exact, rtol=0, atol=1e-12 * np.abs(exact).max())
print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}")
rnnfast.show_config()
