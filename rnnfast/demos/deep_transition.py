"""A transition that one layer learns badly: sums of products, modulo 3.

At every step come two numbers a and b from 0 to 2, one-hot. The network keeps s = (s' + a b) mod 3
and says what it is. The product makes it hard: neither a nor b alone says by how much s changes. A
deep transition has a second layer between the old state and the new one:

    RNN:    h = tanh(W x + U h' + b)
    DT:     h = tanh(U_2 tanh(W x + U h' + b) + b_2)
    DT(S):  h = tanh(U_2 tanh(W x + U h' + b) + S h' + b_2)
    DOT(S): DT(S) with a layer before the answer, y = tanh(V h + c)

All have about 2,500 parameters and the same 700 batches of 1 to 12 steps. The test has 24 steps.

Pascanu et al. 2014, arXiv:1312.6026.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.cells import Expression, cell, deep_transition, linear, tanh
from rnnfast.training import Adam

from ._demo import Demo, Options, Result, at_least, at_most, train
from ._reader import Reader, decayed, plot_walks, right, start_rnn

STEPS = 12  # at most, in training
TEST_STEPS = 24
LR = 0.004
with_skip = deep_transition(2, skip=True)


@cell(state="h")
def deep_output(x: Expression, h: Expression) -> dict[str, Expression]:
    """DOT(S): a deep transition with skip, and a layer on its state."""
    h = with_skip(x, h)
    return {"h": h, "y": tanh(linear("out", deep=h))}


NETWORKS: dict[str, tuple[Any, int]] = {
    "RNN": (deep_transition(1), 46),
    "DT": (deep_transition(2), 32),
    "DT(S)": (with_skip, 26),
    "DOT(S)": (deep_output, 22),
}


def sums(rng: np.random.Generator, steps: int, count: int) -> tuple[Any, Any]:
    """One-hot a and b `(T, B, 6)`, and the sum of all products so far, modulo 3, `(T, B)`."""
    a, b = rng.integers(3, size=(2, steps, count))
    one_hot = np.eye(3, dtype=np.float32)
    return np.concatenate([one_hot[a], one_hot[b]], axis=2), (a * b).cumsum(axis=0) % 3


def reader_of(name: str, rng: np.random.Generator) -> Reader:
    """One of the networks. Input weights from -2 to 2 helped all of them; the skip starts weak."""
    cell, hidden = NETWORKS[name]
    reader = Reader(cell, 6, hidden, 3, rng)
    start_rnn(reader.layer, rng)
    for param, p in reader.layer.params.items():
        if param == "a1.weight_x_l0":
            p *= 2
        elif param == "a2.weight_h_l0":
            p *= 0.1
    return reader


def main(options: Options) -> Result:
    """Train all networks on the same numbers."""
    test = sums(np.random.default_rng([options.seed, 1]), TEST_STEPS, 500)
    epochs = 10 if options.quick else 35
    shares, curves, sizes = {}, {}, {}
    for name in NETWORKS:
        reader = reader_of(name, np.random.default_rng([options.seed, 2]))
        history = train(
            reader.loss_and_grads,
            Adam(reader.params, lr=LR),
            lambda rng: (sums(rng, int(rng.integers(1, STEPS + 1)), 64) for _ in range(20)),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),  # the numbers' alone: all get the same
            evaluate=lambda reader=reader: float(1 - right(reader, test)[-1]),
            schedule=decayed(LR, epochs),
            clip_norm=1.0,
            label=f"deep-transition, {name}",
        )
        shares[name] = right(reader, test).tolist()
        curves[name] = [1 - error for error in history.held_out]
        sizes[name] = reader.num_parameters

    print("network  parameters  right at step 1    12    24")
    for name, share in shares.items():
        print(f"{name:<7}  {sizes[name]:>10}  {share[0]:>15.3f} {share[11]:.3f} {share[-1]:.3f}")
    return Result(
        [
            at_least("DT, 24 steps", shares["DT"][-1], 0.99),
            at_most("RNN, 24 steps", shares["RNN"][-1], 0.8),
        ],
        lambda: plot_walks(shares, curves, STEPS, "share of right sums", 1 / 3),
        {"parameters": sizes, "shares": shares, "curves": curves},
    )


demo = Demo(main)
