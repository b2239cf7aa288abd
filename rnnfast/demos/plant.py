"""A recurrent multilayer perceptron learns to imitate a plant, from its inputs alone.

The plant is a nonlinear system of second order (Narendra & Parthasarathy 1990, example 1):

    y_{t+1} = y_t y_{t-1} (y_t + 2.5) / (1 + y_t^2 + y_{t-1}^2) + u_t

The network sees u_t, never y, so that it must run a model of the plant's state. It is a cascade of
perceptrons whose last layer alone is fed back to itself (Puskorius & Feldkamp 1994):

    a = tanh(A u_t),  h_t = tanh(B a + U h_{t-1}),  b = tanh(C h_t),  g_t = tanh(D b + V g_{t-1}),
    y_{t+1} = w g_t                                         (biases are left out here)

It is trained on random inputs, and tested on fresh ones and on a sine. Beside it stands a simple
recurrent network with as many parameters and the same training. It does as well: this plant does
not need the cascade.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import RNN
from rnnfast.training import (
    Adam,
    Linear,
    join,
    mean_squared_error,
    new_figure,
    root_mean_squared_error,
)

from ._demo import Demo, Options, Result, at_most, train

STEPS, BATCH = 60, 64
PERIOD = 25  # of the sine
EPOCHS, LR = 5, 0.01  # of 100 batches
# Sizes of the perceptrons (0: none) and the recurrent layers; both have about 1,940 parameters.
NETWORKS = {"cascade": ((10, 20), (20, 20)), "simple network": ((0,), (42,))}


def plant(u: Any) -> Any:
    """The outputs of the plant, each one step after its input `(T, B)`; it starts at rest."""
    y = np.zeros((len(u) + 2, *u.shape[1:]))
    for t in range(len(u)):
        now, before = y[t + 1], y[t]
        y[t + 2] = now * before * (now + 2.5) / (1 + now**2 + before**2) + u[t]
    return y[2:]


def series(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Random inputs from -2 to 2 and the plant's outputs, `(STEPS, count, 1)` each."""
    u = rng.uniform(-2, 2, (STEPS, count, 1))
    return u.astype(np.float32), plant(u).astype(np.float32)


def sine() -> tuple[Any, Any]:
    """One long sine as input, and the plant's output."""
    u = np.sin(2 * np.pi * np.arange(4 * PERIOD) / PERIOD)[:, None, None]
    return u.astype(np.float32), plant(u).astype(np.float32)


class Cascade:
    """Perceptrons and recurrent layers in turn, as their sizes say, and a linear output."""

    def __init__(self, rng: np.random.Generator, perceptrons: Any, recurrent: Any) -> None:
        self.parts: dict[str, Any] = {}
        size = 1
        for n, (hidden, units) in enumerate(zip(perceptrons, recurrent, strict=True)):
            if hidden:
                self.parts[f"perceptron{n}"] = Linear(size, hidden, rng=rng)
            self.parts[f"recurrent{n}"] = RNN(hidden or size, units, rng=rng)
            size = units
        self.parts["out"] = Linear(size, 1, rng=rng)
        self.params = join(**self.parts)

    def __call__(self, u: Any) -> Any:
        """The imitated outputs `(T, B, 1)`."""
        return self.forward(u)[0]

    def forward(self, u: Any) -> tuple[Any, dict[str, Any]]:
        """Output, and for each part its tape and its output."""
        values, tapes = u, {}
        for name, part in self.parts.items():
            values, *_, tape = part.forward(values)
            if name.startswith("perceptron"):
                values = np.tanh(values)
            tapes[name] = tape, values
        return values, tapes

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Mean squared error and its gradients, part by part from the last."""
        u, target = batch
        y, tapes = self.forward(u)
        loss, d = mean_squared_error(y, target)
        grads = {}
        for name, part in reversed(self.parts.items()):
            tape, values = tapes[name]
            if name.startswith("perceptron"):
                d = d * (1 - values * values)
            grads[name] = part.backward(tape, d)
            d = grads[name].input
        return loss, join(**grads)


def error(y: Any, target: Any) -> float:
    """Root of the mean squared error, over the target's standard deviation."""
    return float(root_mean_squared_error(y, target) / np.std(target))


def main(options: Options) -> Result:
    """Train both networks on the same series and test them on fresh ones and on the sine."""
    tests = {
        "fresh random input": series(np.random.default_rng([options.seed, 1]), 500),
        "sine": sine(),
    }
    epochs = 2 if options.quick else EPOCHS
    histories, errors, outputs = {}, {}, {}
    for name, sizes in NETWORKS.items():
        model = Cascade(np.random.default_rng([options.seed, 2]), *sizes)

        def random_error(model: Cascade = model) -> float:
            u, target = tests["fresh random input"]
            return error(model(u), target)

        histories[name] = train(
            model.loss_and_grads,
            Adam(model.params, lr=LR),
            lambda rng: (series(rng, BATCH) for _ in range(100)),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),
            evaluate=random_error,
            schedule=lambda epoch: LR * (1 - epoch / epochs),
            label=f"plant, {name}",
        )
        outputs[name] = {test: model(u) for test, (u, _) in tests.items()}
        errors[name] = {test: error(outputs[name][test], y) for test, (_, y) in tests.items()}

    bounds = {"cascade": (0.17, 0.15), "simple network": (0.2, 0.2)}
    return Result(
        [
            at_most(f"error of the {name}, {test}", errors[name][test], bounds[name][n])
            for n, test in enumerate(tests)
            for name in NETWORKS
        ],
        lambda: plot(tests, outputs),
        {"histories": {name: history.as_dict() for name, history in histories.items()}},
    )


def plot(tests: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """The plant and both networks: on a random input and on the sine."""
    figure = new_figure(10, 4)
    for axes, (test, (_, target)) in zip(figure.subplots(1, 2), tests.items(), strict=True):
        axes.plot(target[:, 0, 0], "k", lw=2, label="plant")
        for name, values in outputs.items():
            axes.plot(values[test][:, 0, 0], lw=1, label=name)
        axes.set(xlabel="time step", ylabel="y", title=test)
        axes.set_ylim(top=1.45 * target[:, 0].max())
        axes.legend(loc="upper right", ncols=3, fontsize="small")
        axes.grid(alpha=0.3)
    return figure


demo = Demo(main)
