"""A linear recurrent unit learns to count the ones in a sequence.

    s_t = w_x x_t + w_rec s_{t-1},    s_0 = 0,    loss = mean (s_T - number of ones)^2

The solution is obvious, `w_x = w_rec = 1`, and the way there is not: the gradient of the state,
`ds_T / ds_t = w_rec^(T-t)`, vanishes for `|w_rec| < 1` and explodes beyond, so the cost surface is
a plain with a cliff in it. Rprop, which looks at the gradient's sign alone, walks over both.

After part 1 of Peter Roelants' tutorial on recurrent networks; Rprop: Riedmiller & Braun 1993;
vanishing and exploding gradients: Bengio, Simard & Frasconi 1994.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import RNN
from rnnfast.training import (
    Rprop,
    gradcheck,
    gradient_through_time,
    mean_squared_error,
    new_figure,
)

from ._demo import Demo, Options, Result, at_most, near, train

STEPS, SEQUENCES = 10, 20
COMPARED = [(2, 1), (1, 2), (1, -2), (1, 0), (1, 0.5), (1, -0.5)]  # (w_x, w_rec)
EXAMPLE = [0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1]


class Counter:
    """The unit, its 20 sequences and its loss."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rnn = RNN(1, 1, nonlinearity="identity", bias=False, dtype=np.float64)
        self.x = rng.integers(0, 2, (STEPS, SEQUENCES, 1)).astype(np.float64)
        self.target = self.x.sum(axis=0)

    def set_weights(self, w_x: float, w_rec: float) -> None:
        """Put the unit at a point of the cost surface."""
        self.rnn.params["weight_ih_l0"].fill(w_x)
        self.rnn.params["weight_hh_l0"].fill(w_rec)

    def weights(self) -> tuple[float, float]:
        """`(w_x, w_rec)`."""
        return self.rnn.params["weight_ih_l0"].item(), self.rnn.params["weight_hh_l0"].item()

    def loss(self) -> float:
        """The mean squared error of the last state."""
        return mean_squared_error(self.rnn(self.x)[1][0], self.target)[0]

    def loss_and_grads(self, batch: None = None) -> tuple[float, dict[str, Any]]:
        """The loss and its gradients by backpropagation through time."""
        _, state, tape = self.rnn.forward(self.x)
        loss, d_last = mean_squared_error(state[0], self.target)
        return loss, self.rnn.backward(tape, dstate=d_last[None]).params

    def surface(self, w_x: Any, w_rec: Any) -> Any:
        """The loss at every point of a grid, `(len(w_rec), len(w_x))`."""
        values = np.empty((len(w_rec), len(w_x)))
        for row, column in np.ndindex(values.shape):
            self.set_weights(w_x[column], w_rec[row])
            values[row, column] = self.loss()
        return values

    def gradient_of_state(self, w_x: float, w_rec: float) -> Any:
        """The gradient of the loss with respect to the state after every step, `(T+1,)`."""
        self.set_weights(w_x, w_rec)
        d_last = mean_squared_error(self.rnn(self.x)[1][0], self.target)[1]
        return gradient_through_time(self.rnn, self.x, dstate=d_last[None]).h.sum(axis=(1, 2, 3))


def main(options: Options) -> Result:
    """Check the gradient, train with Rprop, count a new sequence."""
    counter = Counter(np.random.default_rng(options.seed))
    counter.set_weights(1.2, 1.2)
    errors = gradcheck(counter.loss, counter.rnn.params, counter.loss_and_grads()[1])
    print("gradient check at w = (1.2, 1.2):", ", ".join(f"{e:.1e}" for e in errors.values()))

    counter.set_weights(-1.5, 2.0)
    path = [counter.weights()]

    def step(batch: None) -> tuple[float, dict[str, Any]]:
        path.append(counter.weights())
        return counter.loss_and_grads()

    train(
        step,
        Rprop(counter.rnn.params, lr=0.001, etas=(0.5, 1.2)),
        lambda rng: [None] * 50,
        epochs=10,
        label="count-ones, 50 steps per epoch",
    )
    w_x, w_rec = counter.weights()
    example = np.array(EXAMPLE, np.float64).reshape(-1, 1, 1)
    counted = counter.rnn(example)[1].item()
    print(f"weights ({w_x:.4f}, {w_rec:.4f})")
    print(f"the ones in {' '.join(map(str, EXAMPLE))}: {counted:.3f}")
    return Result(
        [
            at_most("gradient check, relative error", max(errors.values()), 1e-6),
            near("w_x", w_x, 1, 0.01),
            near("w_rec", w_rec, 1, 0.01),
            near("ones counted in the example", counted, sum(EXAMPLE), 0.05),
        ],
        lambda: plot(counter, np.array(path)),
        {"weights": [w_x, w_rec]},
    )


def plot(counter: Counter, path: Any, points: int = 121) -> Any:
    """The cost surface, overview and zoom, with Rprop's path; the gradient through time."""
    figure = new_figure(11, 3.6)
    overview, zoom, through_time = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for axes, size, centre in ((overview, 3.0, (0.0, 0.0)), (zoom, 0.3, (1.0, 1.0))):
        w_x, w_rec = (np.linspace(middle - size, middle + size, points) for middle in centre)
        cost = np.log10(np.maximum(counter.surface(w_x, w_rec), 1e-6))
        picture = axes.contourf(w_x, w_rec, cost, levels=16)
        figure.colorbar(picture, ax=axes, label="log10(mean squared error)")
        axes.plot(*path.T, "w.-", markersize=3, linewidth=0.8, label="Rprop")
        axes.plot(*path[-1], "r*", markersize=9, label="end")
        axes.set(xlim=w_x[[0, -1]], ylim=w_rec[[0, -1]], xlabel="w_x", ylabel="w_rec")
        axes.legend(loc="lower left", framealpha=0.6, fontsize=8)
    overview.set_title("cost surface")
    zoom.set_title("near the solution")
    for weights in COMPARED:
        gradient = counter.gradient_of_state(*weights)
        through_time.plot(gradient, ".-", label=f"({weights[0]:g}, {weights[1]:g})")
    through_time.set_yscale("symlog", linthresh=1e-3)
    through_time.set(xlabel="time step t", ylabel="d loss / d s(t)", title="gradient through time")
    through_time.xaxis.get_major_locator().set_params(integer=True)
    through_time.legend(
        title="(w_x, w_rec)", fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    through_time.grid(alpha=0.3)
    return figure


demo = Demo(main)
