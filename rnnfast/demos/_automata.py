"""Symbols that permute the states of an automaton: data of `permutations` and `gated-feedback`."""

from __future__ import annotations

from typing import Any

import numpy as np

SYMBOLS, STATES = 3, 5
TRAINED, TEST_STEPS = 16, 64  # the longest walks


def automaton(seed: int) -> Any:
    """What each symbol makes of each state, `(SYMBOLS, STATES)`: three random permutations."""
    return np.array(
        [np.random.default_rng(100 + 10 * seed + k).permutation(STATES) for k in range(SYMBOLS)]
    )


def walks(permutations: Any, rng: np.random.Generator, steps: int, count: int) -> tuple[Any, Any]:
    """Random one-hot symbols `(T, B, 3)` and the state after each, from state 0, `(T, B)`."""
    symbols = rng.integers(SYMBOLS, size=(steps, count))
    states = np.zeros((steps + 1, count), np.int64)
    for t, read in enumerate(symbols):
        states[t + 1] = permutations[read, states[t]]
    return np.eye(SYMBOLS, dtype=np.float32)[symbols], states[1:]


def batches(permutations: Any, rng: np.random.Generator, count: int) -> Any:
    """Batches of 64 walks, each batch of 2 to 16 steps."""
    return (walks(permutations, rng, int(rng.integers(2, TRAINED + 1)), 64) for _ in range(count))
