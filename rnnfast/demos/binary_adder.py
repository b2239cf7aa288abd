"""A two-layer LSTM adds two numbers bit by bit, least significant bit first.

At every step the network reads one bit of each number and gives one bit of the sum. What it must
remember from step to step is the carry, and nobody tells it that there is such a thing.

    y = LSTM_2(LSTM_1([a_t, b_t])),    s_t = sigmoid(w y_t + b),    loss = mean (s_t - bit_t)^2

LSTM: Hochreiter & Schmidhuber 1997, Gers 2000; Adam: Kingma & Ba 2015.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import LSTM
from rnnfast.training import Adam, Linear, join, mean_squared_error, plot_history

from ._demo import Demo, Options, Result, at_least, at_most, steps, train
from ._torch import OPTION, compare, torch_adder

BITS = 8
HIDDEN = 20
BATCH = 64
LR = 0.001


def bits(numbers: Any) -> Any:
    """`(BITS, B, 1)` zeros and ones, least significant first."""
    return (numbers[None, :, None] >> np.arange(BITS)[:, None, None] & 1).astype(np.float32)


def is_held_out(numbers: Any) -> Any:
    """Whether pairs of numbers `(2, B)` are kept for the test: one in ten, by a rule of both."""
    return (7 * numbers[0] + 11 * numbers[1]) % 10 == 3


def sums(rng: np.random.Generator, count: int, held_out: bool = False) -> tuple[Any, Any, Any]:
    """Random sums, all held out or none: numbers `(2, B)`, their bits `(BITS, B, 2)`, the sum's
    `(BITS, B, 1)`."""
    numbers = np.empty((2, 0), np.int64)
    while numbers.shape[1] < count:
        drawn = rng.integers(0, 2 ** (BITS - 1), (2, count))
        numbers = np.append(numbers, drawn[:, is_held_out(drawn) == held_out], axis=1)
    numbers = numbers[:, :count]
    x = np.concatenate([bits(numbers[0]), bits(numbers[1])], axis=2)
    return numbers, x, bits(numbers.sum(axis=0))


class Adder:
    """LSTM, linear layer, sigmoid."""

    def __init__(self, dropout: float, rng: np.random.Generator) -> None:
        self.lstm = LSTM(2, HIDDEN, num_layers=2, dropout=dropout, rng=rng)
        self.out = Linear(HIDDEN, 1, rng=rng)
        self.params = join(lstm=self.lstm.params, out=self.out.params)

    def __call__(self, x: Any) -> Any:
        """The probability of a one for each bit of the sum."""
        return 1 / (1 + np.exp(-self.out(self.lstm(x)[0])))

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Mean squared error and its gradients, back through sigmoid, linear layer and LSTM."""
        _, x, target = batch
        y, _, tape = self.lstm.forward(x)
        z, out_tape = self.out.forward(y)
        s = 1 / (1 + np.exp(-z))
        loss, ds = mean_squared_error(s, target)
        out = self.out.backward(out_tape, ds * s * (1 - s))
        lstm = self.lstm.backward(tape, out.input)
        return loss, join(lstm=lstm.params, out=out.params)


def main(options: Options) -> Result:
    """Train on random sums and test on others."""
    rng = np.random.default_rng(options.seed)
    adder = Adder(options.dropout, rng)
    numbers, x, target = sums(np.random.default_rng([options.seed, 1]), 1000, held_out=True)

    history = train(
        adder.loss_and_grads,
        Adam(adder.params, lr=LR),
        lambda rng: (sums(rng, BATCH) for _ in range(100)),
        epochs=20,
        rng=rng,
        evaluate=lambda: mean_squared_error(adder(x), target)[0],
        label="binary-adder, 100 steps per epoch",
    )

    s = adder(x)
    for n in range(4):
        print_sum(numbers[:, n], s[:, n, 0])
    return Result(
        [
            at_most("mean squared error of 1,000 held-out sums", history.held_out[-1], 0.003),
            at_least("share of their bits that are right", np.mean((s > 0.5) == target), 1),
        ],
        lambda: plot_history(history, unit="mean squared error", held_out="1,000 sums held out"),
        {"history": history.as_dict()} | (beside_torch(options) if options.compare else {}),
    )


def beside_torch(options: Options) -> dict[str, Any]:
    """The time of the training steps, in PyTorch and here."""
    rng = np.random.default_rng(options.seed)
    adder = Adder(options.dropout, rng)
    rounds = 2 if options.quick else 20
    batches = [sums(rng, BATCH) for _ in range(1 + 100 * rounds)]
    theirs = torch_adder(adder, LR)
    ours = steps(adder.loss_and_grads, Adam(adder.params, lr=LR))
    what = f"2 x {HIDDEN} LSTM, batch {BATCH}, {BITS} steps"
    return compare(what, ours, theirs, batches, rounds, options.threads)


def print_sum(numbers: Any, s: Any) -> None:
    """One sum, in binary as the network sees it and in decimal."""
    total = int((s > 0.5) @ 2 ** np.arange(BITS))
    for sign, number in zip(" +=", (*numbers, total), strict=True):
        print(f"  {sign} {number:0{BITS}b}  ({number})")
    print(f"    network, last bit first: {' '.join(f'{bit:.2f}' for bit in s)}\n")


demo = Demo(
    main,
    {
        "--compare": OPTION,
        "--dropout": {
            "type": float,
            "default": 0.0,
            "metavar": "P",
            "help": "dropout between the two layers (0)",
        },
    },
)
