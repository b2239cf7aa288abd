"""Groups of units with clock rates of their own generate a long signal; a plain RNN cannot.

In a Clockwork RNN the group of period p moves at every p-th step, and keeps its state in between. A
group sees itself and all slower ones (Koutnik et al. 2014):

    h_p = tanh(sum_{q >= p} U_pq h_q' + b_p)  if p divides t, else h_p'
    y_t = w h_t + c

A slow group passes few steps between a cause and its effect far later, so that the gradient of its
weights does not vanish on the way. The task is to generate a signal of 320 samples, a sum of five
sines with periods from 9 to 160, from no input: all of it must be in the weights and in the initial
state, which are learned by backpropagation through all steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import RNN, Recurrent
from rnnfast.cells import clock, clockwork
from rnnfast.training import Adam, Linear, join, mean_squared_error, new_figure

from ._demo import Demo, Options, Result, at_least, at_most, train

STEPS = 320
SINES = 160, 80, 37, 19, 9  # periods
PERIODS = tuple(2**n for n in range(9))  # of the groups
UNITS = 4  # of a group
RNN_UNITS = 27
EPOCHS, LR = 30, 0.006  # an epoch has 20 updates


def signal(rng: np.random.Generator) -> Any:
    """Sines of random size and phase, `(STEPS, 1, 1)`."""
    t = np.arange(STEPS)[:, None]
    size, phase = rng.uniform(0.1, 0.4, len(SINES)), rng.uniform(0, 2 * np.pi, len(SINES))
    waves = size * np.sin(2 * np.pi * t / np.array(SINES) + phase)
    return waves.sum(axis=1, dtype=np.float32)[:, None, None]


class Generator:
    """A recurrent layer without input, its initial state, and a linear output."""

    def __init__(self, rng: np.random.Generator, clocked: bool) -> None:
        self.clocked = clocked
        if clocked:
            self.layer: Any = Recurrent(clockwork(PERIODS), 1, UNITS, rng=rng)
            sizes = [UNITS] * len(PERIODS)
        else:
            self.layer = RNN(1, RNN_UNITS, rng=rng)
            sizes = [RNN_UNITS]
        self.out = Linear(sum(sizes), 1, rng=rng)
        self.start = {
            f"h{n}": rng.uniform(-0.5, 0.5, (1, 1, size)).astype(np.float32)
            for n, size in enumerate(sizes)
        }
        self.params = join(layer=self.layer, out=self.out, start=self.start)
        self.x = np.zeros((STEPS, 1, 1), np.float32)
        self.options = {"extra": clock(PERIODS, STEPS)} if clocked else {}

    def _state(self) -> Any:
        state = tuple(self.start.values())
        return state if self.clocked else state[0]

    def __call__(self) -> Any:
        """The generated signal `(STEPS, 1, 1)`."""
        return self.out(self.layer(self.x, self._state(), **self.options)[0])

    def loss_and_grads(self, target: Any) -> tuple[float, dict[str, Any]]:
        """Mean squared error and its gradients, those of the initial state too."""
        h, _, tape = self.layer.forward(self.x, self._state(), **self.options)
        y, out_tape = self.out.forward(h)
        loss, dy = mean_squared_error(y, target)
        out = self.out.backward(out_tape, dy)
        layer = self.layer.backward(tape, out.input)
        states = layer.state if self.clocked else [layer.state]
        start = dict(zip(self.start, states, strict=True))
        return loss, join(layer=layer.params, out=out.params, start=start)


def main(options: Options) -> Result:
    """Train both on the same signal and let them generate it."""
    target = signal(np.random.default_rng([options.seed, 1]))
    epochs = 10 if options.quick else EPOCHS
    histories, generated, errors = {}, {}, {}
    for name, clocked in (("Clockwork RNN", True), ("RNN", False)):
        model = Generator(np.random.default_rng([options.seed, 2]), clocked)
        histories[name] = train(
            model.loss_and_grads,
            Adam(model.params, lr=LR),
            lambda rng: [target] * 20,
            epochs=epochs,
            clip_norm=1.0,
            label=f"clockwork, {name}",
        )
        generated[name] = model()
        errors[name], _ = mean_squared_error(generated[name], target)

    return Result(
        [
            at_most("mean squared error, Clockwork RNN", errors["Clockwork RNN"], 0.02),
            at_least("mean squared error, RNN", errors["RNN"], 0.05),
            at_least("variance of the signal", target.var(), 0.05),
        ],
        lambda: plot(target, generated, histories),
        {"histories": {name: history.as_dict() for name, history in histories.items()}},
    )


def plot(target: Any, generated: dict[str, Any], histories: dict[str, Any]) -> Any:
    """The signals, and the errors during training."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    left.plot(target.ravel(), "k", lw=2, label="signal")
    for name, y in generated.items():
        left.plot(y.ravel(), lw=1.2, label=name)
    left.set(xlabel="time step", ylabel="y", title="generated after training")
    left.set_ylim(top=1.4 * target.max())
    left.legend(loc="upper right", ncols=3)
    for name, history in histories.items():
        right.semilogy(20 * np.arange(1, history.epochs + 1), history.loss, label=name)
    right.axhline(target.var(), color="gray", linestyle=":", label="variance of the signal")
    right.set(xlabel="update", ylabel="mean squared error", title="learning")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


demo = Demo(main)
