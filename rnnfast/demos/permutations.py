"""Each symbol is a different function of the state: networks whose transition the input chooses.

An automaton has five states, and each of its three symbols permutes them in its own way. Reading
random symbols, the network says in which state the automaton is after each. An RNN adds something
for the symbol to W h' before its tanh. A multiplicative RNN has a matrix of its own for each
symbol instead, U diag(W_m x) U_m, which is just what a permutation is:

    m = (W_m x) * (U_m h'),    h = tanh(W x + U m + b)

The multiplicative LSTM has m in place of h' in all gates. All networks have about 1,350 parameters,
the same walks and the same 400 batches of walks of 2 to 16 steps. The test has walks of 64.

Sutskever, Martens & Hinton 2011; Krause et al. 2016, arXiv:1609.07959.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import cells
from rnnfast.training import Adam

from ._automata import STATES, SYMBOLS, TEST_STEPS, TRAINED, automaton, batches, walks
from ._demo import Demo, Options, Result, at_least, at_most, train
from ._reader import Reader, decayed, plot_walks, right, start_rnn

# Name, cell, units, layers.
NETWORKS: dict[str, tuple[Any, int, int]] = {
    "multiplicative RNN": (cells.multiplicative_rnn, 24, 1),
    "multiplicative LSTM": (cells.multiplicative_lstm, 14, 1),
    "LSTM": (cells.lstm_variant("NP"), 16, 1),
    "RNN": (cells.deep_transition(1), 32, 1),
    "2 stacked RNNs": (cells.deep_transition(1), 20, 2),
    "deep transition": (cells.deep_transition(2), 24, 1),
}
LR = 0.005


def reader_of(name: str, rng: np.random.Generator) -> Reader:
    """One of the networks, started as suits it: nothing flows through m where W_m is near 0."""
    cell, hidden, layers = NETWORKS[name]
    reader = Reader(cell, SYMBOLS, hidden, STATES, rng, layers)
    if name.startswith("multiplicative"):
        w = reader.layer.params["m_x.weight_x_l0"]
        w[...] = rng.uniform(-1, 1, w.shape) + (name == "multiplicative RNN")
    elif name != "LSTM":
        start_rnn(reader.layer, rng)
    return reader


def main(options: Options) -> Result:
    """Train all networks on the same walks."""
    permutations = automaton(options.seed)
    for symbol, states in zip("abc", permutations, strict=True):
        print(f"  {symbol}: 0 1 2 3 4 -> {' '.join(map(str, states))}")
    test = walks(permutations, np.random.default_rng([options.seed, 1]), TEST_STEPS, 500)
    epochs = 4 if options.quick else 20
    shares, curves, sizes = {}, {}, {}
    for name in NETWORKS:
        reader = reader_of(name, np.random.default_rng([options.seed, 2]))
        history = train(
            reader.loss_and_grads,
            Adam(reader.params, lr=LR),
            lambda rng: batches(permutations, rng, 20),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),  # the walks' alone: all get the same
            evaluate=lambda reader=reader: float(1 - right(reader, test)[-1]),
            schedule=decayed(LR, epochs),
            clip_norm=1.0,
            label=f"permutations, {name}",
        )
        shares[name] = right(reader, test).tolist()
        curves[name] = [1 - error for error in history.held_out]
        sizes[name] = reader.num_parameters

    print(f"\n{'network':<20} parameters  right after step 16    64")
    for name, share in shares.items():
        print(f"{name:<20} {sizes[name]:>10}  {share[15]:>19.3f} {share[-1]:.3f}")
    return Result(
        [
            at_least("multiplicative RNN, 64 steps", shares["multiplicative RNN"][-1], 0.99),
            at_least("multiplicative LSTM, 64 steps", shares["multiplicative LSTM"][-1], 0.99),
            at_most("LSTM, 64 steps", shares["LSTM"][-1], 0.5),
        ],
        lambda: plot_walks(shares, curves, TRAINED, "share of right states", 1 / STATES),
        {"parameters": sizes, "shares": shares, "curves": curves},
    )


demo = Demo(main)
