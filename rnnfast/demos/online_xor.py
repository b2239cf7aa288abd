"""A network learns while it runs, from a sequence without end: real-time recurrent learning.

Two random bits come in at every step. Unit 0 must give the exclusive or of those of d steps ago:

    z_t = [y_{t-1}; x_t; 1],    y_t = sigmoid(W z_t),    target of y_t[0]: x_{t-d}[0] xor x_{t-d}[1]

One layer of units cannot compute it in a single step. So they must learn to work in stages, and to
hand results on, and no one tells them what to do with the other units. The weights change at every
step. The gradient comes with it, for the derivative of every unit by every weight is carried along
(Williams & Zipser 1989):

    S_t[k, i, j] = da_k / dW_ij = sum_l W_kl y'_l S_{t-1}[l, i, j] + [k = i] z_j,    a = W z

With the cross-entropy of unit 0 the gradient of a step is `(y_0 - target) S[0]`. With weights that
stay as they are, the sum over a sequence is the gradient of backpropagation through time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from rnnfast import RNN, functional
from rnnfast.training import RTRL, SGD, new_figure

from ._demo import Demo, Options, Result, at_least, at_most, train

TASKS = {1: (6, 3_000), 2: (6, 8_000), 3: (8, 12_000)}  # delay: units, steps
LR, SCORED = 0.5, 500  # the last steps, each answered before its update


def fully_recurrent(rng: np.random.Generator, inputs: int, units: int) -> RNN:
    """Sigmoid units, all connected; the last input is a constant 1 for the biases."""
    layer = RNN(inputs + 1, units, nonlinearity="sigmoid", bias=False, dtype=np.float64)
    for p in layer.params.values():
        p[...] = rng.uniform(-1, 1, p.shape)
    return layer


def stream(rng: np.random.Generator, delay: int) -> Iterator[tuple[Any, float]]:
    """Inputs `(3,)`, two bits and a 1, and targets, without end; zeros came before."""
    latest = deque([(0, 0)] * delay)
    while True:
        latest.append(tuple(rng.integers(0, 2, 2)))
        first, second = latest.popleft()
        yield np.array([*latest[-1], 1.0]), float(first ^ second)


class Online:
    """A network that answers, and has the gradient of its answer at once."""

    def __init__(self, rng: np.random.Generator, units: int) -> None:
        self.layer = fully_recurrent(rng, 2, units)
        self.rtrl = RTRL(self.layer)
        self.right: list[bool] = []

    def loss_and_grads(self, step: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of unit 0 in this step, and its gradients."""
        x, target = step
        y = self.rtrl.step(x)
        self.right.append((y[0] > 0.5) == (target > 0.5))
        da = np.zeros_like(y)
        da[0] = y[0] - target
        loss = -np.log(y[0] if target else 1 - y[0])
        return float(loss), self.rtrl.gradient(da, preactivation=True)


def difference(rng: np.random.Generator, units: int = 7, inputs: int = 2, steps: int = 25) -> float:
    """How far RTRL's gradient is from that of backpropagation through time, relative to it."""
    layer = fully_recurrent(rng, inputs, units)
    x, dy = rng.standard_normal((steps, 1, inputs + 1)), rng.standard_normal((steps, 1, units))
    w_ih, w_hh = layer.params.values()
    _, _, tape = functional.rnn_forward(x, None, w_ih, w_hh, nonlinearity="sigmoid")
    bptt = functional.rnn_backward(tape, dy)
    rtrl = RTRL(layer)
    total = {name: np.zeros_like(p) for name, p in layer.params.items()}
    for t in range(steps):
        rtrl.step(x[t])
        for name, g in rtrl.gradient(dy[t]).items():
            total[name] += g
    pairs = (total["weight_ih_l0"], bptt.w_ih), (total["weight_hh_l0"], bptt.w_hh)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main(options: Options) -> Result:
    """Learn the task at each delay, from one sequence."""
    right = {}
    for delay, (units, steps) in TASKS.items():
        steps = min(steps, 2000) if options.quick else steps
        model = Online(np.random.default_rng([options.seed, delay]), units)
        endless = stream(np.random.default_rng([options.seed, delay, 1]), delay)
        train(
            model.loss_and_grads,
            SGD(model.layer, lr=LR),
            lambda rng, endless=endless: islice(endless, 1000),
            epochs=steps // 1000,
            label=f"online-xor, delay {delay}",
        )
        right[delay] = np.array(model.right)

    gradients = difference(np.random.default_rng(options.seed))
    return Result(
        [
            at_most("gradient, relative difference from BPTT", gradients, 1e-12),
            *(
                at_least(f"delay {delay}, last {SCORED} answers right", r[-SCORED:].mean(), 0.99)
                for delay, r in right.items()
            ),
        ],
        lambda: plot(right),
        {"right": {str(delay): [int(answer) for answer in r] for delay, r in right.items()}},
    )


def plot(right: dict[int, Any]) -> Any:
    """The share of right answers in stretches of 250 steps."""
    figure = new_figure()
    axes = figure.subplots()
    for delay, r in right.items():
        shares = r.reshape(-1, 250).mean(axis=1)
        axes.plot(250 * np.arange(1, len(shares) + 1), shares, label=f"delay {delay}")
    axes.axhline(0.5, color="gray", linestyle=":", label="guessing")
    axes.set(xlabel="time step", ylabel="share of answers right", title="learning while running")
    axes.set_ylim(0.4, 1.02)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


demo = Demo(main)
