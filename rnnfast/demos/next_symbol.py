"""The smallest recurrent network there is: one sigmoid unit, fed back to itself.

It reads a sequence of zeros and ones and predicts the next symbol; its hidden value is the
prediction:

    y_t = sigmoid(w_rec y_{t-1} + w_in x_t + b),    y_0 = 0

With the cross-entropy `-sum_t [x_{t+1} log y_t + (1 - x_{t+1}) log(1 - y_t)]` the error at the
pre-activation is simply `y_t - x_{t+1}`, plus what backpropagation through time brings back from
later steps (Werbos 1990). Three weights, plain gradient descent.

A single unit cannot count to three, so the predictions that remain are not quite 0 and 1: whether
the second zero is followed by a one it sees only in the fading of its own last value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import functional
from rnnfast.training import SGD, new_figure

from ._demo import Demo, Options, Result, near, train

SYMBOLS = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1], np.float64)
EXPECTED = [0.204, 0.933, 0.004, 0.215, 0.946, 0.005, 0.219, 0.949]


def main(options: Options) -> Result:
    """Train the unit and compare its eight predictions."""
    rng = np.random.default_rng(options.seed)
    x, target = SYMBOLS[:-1].reshape(8, 1, 1), SYMBOLS[1:].reshape(8, 1, 1)  # (T, B, I)
    weights: dict[str, Any] = {
        "w_ih": rng.uniform(-0.5, 0.5, (1, 1)),
        "w_hh": rng.uniform(-0.5, 0.5, (1, 1)),
        "b_ih": rng.uniform(-0.5, 0.5, 1),
    }

    def loss_and_grads(batch: None) -> tuple[float, dict[str, Any]]:
        y, _, tape = functional.rnn_forward(x, None, **weights, nonlinearity="sigmoid")
        loss = -np.sum(target * np.log(y) + (1 - target) * np.log(1 - y))
        dy = (y - target) / (y * (1 - y))  # which makes y - target of it at the pre-activation
        grads = functional.rnn_backward(tape, dy)
        return float(loss), {name: getattr(grads, name) for name in weights}

    history = train(
        loss_and_grads,
        SGD(weights, lr=0.05),
        lambda rng: [None] * 100,
        epochs=100,
        label="next-symbol, 100 steps per epoch",
    )
    y = functional.rnn_forward(x, None, **weights, nonlinearity="sigmoid", need_tape=False)[0]
    predictions = y.ravel()

    print("input  target  prediction")
    for symbol, wanted, prediction in zip(x.ravel(), target.ravel(), predictions, strict=True):
        print(f"{symbol:5.0f}  {wanted:6.0f}  {prediction:10.3f}")

    def plot() -> Any:
        figure = new_figure()
        left, right = figure.subplots(1, 2)
        steps = np.arange(1, 9)
        left.bar(steps, predictions, color="tab:blue", alpha=0.6, label="prediction")
        left.plot(steps, target.ravel(), "ko", label="next symbol")
        left.set(xlabel="time step t", ylabel="probability of a one", title="after training")
        left.legend(loc="upper left")
        left.set_ylim(-0.05, 1.3)
        right.plot(100 * np.arange(1, history.epochs + 1), history.loss)
        right.set(xlabel="gradient steps", ylabel="cross-entropy (nats, 8 steps)", title="learning")
        right.grid(alpha=0.3)
        return figure

    figures = [
        near(f"prediction {t}", value, EXPECTED[t - 1], 0.01)
        for t, value in enumerate(predictions, 1)
    ]
    figures += [
        near("recurrent weight", weights["w_hh"].item(), 19.6, 0.2),
        near("input weight", weights["w_ih"].item(), -22.6, 0.2),
        near("bias", weights["b_ih"].item(), -1.36, 0.02),
    ]
    return Result(figures, plot, {"loss": history.loss})


demo = Demo(main)
