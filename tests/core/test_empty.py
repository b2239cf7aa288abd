"""Sizes of zero, wherever a public call takes an array: results are empty, and nothing crashes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cases import Case, product, run, variants, with_dtype

import rnnfast
from rnnfast import training

pytestmark = pytest.mark.usefixtures("isa")

SIZES = [(0, 0), (0, 3), (4, 0)]  # T, B
OPTIONS = product(lengths=(False, True), resets=(False, True), reverse=(False, True))


@pytest.mark.parametrize("case", with_dtype(variants()), ids=str)
def test_functions(case: Case) -> None:
    """Forward and backward are as the reference's, whatever the options and threads."""
    for (T, B), options, threads in itertools.product(SIZES, OPTIONS, (1, 3)):
        problem = replace(case, T=T, B=B, **options).problem()
        want = run(rnnfast.reference, problem)
        got = run(rnnfast.functional, problem, threads=threads)
        for name, array in want.items():
            if array is not None:
                np.testing.assert_array_equal(got[name], array, strict=True, err_msg=name)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_layers(kind: str, sizes: tuple[int, int]) -> None:
    T, B = sizes
    for batch_first, bidirectional in itertools.product((False, True), repeat=2):
        layer = getattr(rnnfast, kind)(
            3, 4, 2, batch_first=batch_first, bidirectional=bidirectional, dropout=0.5
        )
        shape = (B, T) if batch_first else (T, B)
        x = np.zeros((*shape, 3), np.float32)
        y, state, tape = layer.forward(
            x, lengths=np.zeros(B, int), resets=np.zeros(shape, bool), threads=2
        )
        assert y.shape == (*shape, 4 + 4 * bidirectional)
        grads = layer.backward(tape, y, state)
        assert grads.input.shape == x.shape
        assert not any(g.any() for g in grads.params.values())


def test_training_kit() -> None:
    """Layers of it without rows."""
    empty = np.zeros((0, 5), np.float32)
    linear, embedding = training.Linear(5, 3, rng=0), training.Embedding(7, 5, rng=0)
    y, tape = linear.forward(empty)
    assert y.shape == (0, 3)
    grads = linear.backward(tape, y)
    assert grads.input.shape == (0, 5)
    assert not grads.params["weight"].any()
    y, tape = embedding.forward(np.zeros((4, 0), int))
    assert y.shape == (4, 0, 5)
    assert not embedding.backward(tape, y).params["weight"].any()
