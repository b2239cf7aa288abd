"""An echo state network: a random recurrent network that stays as it is, and a trained readout.

    h_t = (1 - a) h_{t-1} + a tanh(U h_{t-1} + W x_t + b),    y_t = w h_t + c

U is sparse and random, scaled so that its largest eigenvalue has a given size: below about 1, what
happened long ago fades (the echo). Only w and c are learned, in one step, by ridge regression over
the states after the first ones. Three tasks:

NARMA10, a driven system with ten steps of memory and a product:

    y_{t+1} = 0.3 y_t + 0.05 y_t sum_{i=0..9} y_{t-i} + 1.5 u_{t-9} u_t + 0.1

Mackey-Glass, a chaotic equation with a delay of 17, squashed by tanh(x - 1). The network predicts
one step, and then runs on freely: each prediction is its next input.

    dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)

Memory: with white noise as input, how well the input of k steps ago can be read from the state. The
squared correlations, summed over k, are at most the number of units.

Source: Jaeger 2001, GMD reports 148 and 152; Atiya & Parlos 2000 for NARMA10.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import RNN, Recurrent, cells
from rnnfast.training import Linear, Progress, new_figure, ridge, root_mean_squared_error

from ._demo import Demo, Options, Result, at_least, at_most, near

WASHOUT, TRAIN, TEST = 200, 3000, 2000
RESERVOIRS = 5  # whose errors are averaged
SCORED, FREE_STEPS, STARTS = 84, 600, 20
DELAYS = 100


def recurrent_weight(rng: np.random.Generator, units: int, radius: float, density: float) -> Any:
    """A sparse random matrix whose largest eigenvalue has that size."""
    weight = rng.uniform(-1, 1, (units, units)) * (rng.random((units, units)) < density)
    return weight * (radius / np.abs(np.linalg.eigvals(weight)).max())


class Reservoir:
    """Leaky tanh units with random weights."""

    def __init__(
        self, rng: np.random.Generator, units: int, radius: float, leak: float, scale: float
    ) -> None:
        self.layer = Recurrent(cells.leaky_rnn, 1, units, dtype=np.float64)
        self.layer.params["a.weight_h_l0"][...] = recurrent_weight(rng, units, radius, 0.1)
        self.layer.params["a.weight_x_l0"][...] = rng.uniform(-scale, scale, (units, 1))
        self.layer.params["a.bias_l0"][...] = rng.uniform(-0.1, 0.1, units)
        self.leak = {"k": np.array([leak])}

    def __call__(self, u: Any) -> Any:
        """The states `(T, units)` that an input `(T,)` drives it through."""
        return self.layer(u[:, None], extra=self.leak)[0]


def narma(rng: np.random.Generator, steps: int) -> tuple[Any, Any]:
    """Input and output of NARMA10, `(steps,)` each: `y[t]` comes of the inputs up to `u[t]`."""
    u, y = rng.uniform(0, 0.5, steps), np.zeros(steps + 1)
    for t in range(9, steps):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    return u, y[1:]


def mackey_glass(rng: np.random.Generator, steps: int) -> Any:
    """The squashed series `(steps,)`, by Euler's method in steps of 0.1."""
    delay, per_step = 170, 10
    x = np.empty(delay + (steps + 500) * per_step)
    x[:delay] = 1.2 + 0.2 * rng.uniform(-1, 1)
    for t in range(delay, len(x)):
        late = x[t - delay]
        x[t] = x[t - 1] + 0.1 * (0.2 * late / (1 + late**10) - 0.1 * x[t - 1])
    return np.tanh(x[-steps * per_step :: per_step] - 1)


def error(y: Any, target: Any) -> float:
    """Root of the mean squared error, over the target's standard deviation."""
    return float(root_mean_squared_error(y, target) / np.std(target))


def narma_task(rng: np.random.Generator, units: int = 300) -> tuple[float, float, Any, Any]:
    """NRMSE on fresh steps, of the network and of ten linear taps; the network's output, target."""
    u, target = narma(rng, WASHOUT + TRAIN + TEST)
    fit, test = slice(WASHOUT, WASHOUT + TRAIN), slice(WASHOUT + TRAIN, None)
    taps = np.stack([np.roll(u, k) for k in range(10)], axis=1)
    outputs = []
    for features in Reservoir(rng, units, radius=0.95, leak=1.0, scale=0.5)(u), taps:
        readout = ridge(features[fit], target[fit, None], 1e-8)
        outputs.append(readout(features[test])[:, 0])
    return *(error(y, target[test]) for y in outputs), outputs[0], target[test]


def mackey_glass_task(rng: np.random.Generator, units: int = 400) -> dict[str, Any]:
    """Errors of one step and of free runs from `STARTS` places, and these runs."""
    series = mackey_glass(rng, WASHOUT + TRAIN + TEST + 1)
    network = Reservoir(rng, units, radius=1.1, leak=0.8, scale=1.0)
    states, target = network(series[:-1]), series[1:]
    fit, test = slice(WASHOUT, WASHOUT + TRAIN), slice(WASHOUT + TRAIN, None)
    readout = ridge(states[fit], target[fit, None], 1e-9)
    starts = np.linspace(WASHOUT + TRAIN, len(target) - FREE_STEPS - 1, STARTS).astype(int)
    runs = free_run(network, readout, states[starts], FREE_STEPS)
    truth = target[starts + np.arange(FREE_STEPS)[:, None]]
    return {
        "one step": error(readout(states[test])[:, 0], target[test]),
        "free": error(runs[:SCORED], truth[:SCORED]),
        "runs": runs,
        "truth": truth,
    }


def free_run(network: Reservoir, readout: Linear, states: Any, steps: int) -> Any:
    """Predictions `(steps, B)` from B states on, each prediction being the next input."""
    stream = network.layer.stream(batch_size=len(states), state=states[None])
    y = [readout(states)]
    for _ in range(steps - 1):
        y.append(readout(stream.step(y[-1], extra=network.leak)))
    return np.stack(y)[..., 0]


def memory(rng: np.random.Generator, nonlinearity: str, units: int = 50) -> Any:
    """The squared correlation of the readout with the input of k = 1 to `DELAYS` steps ago."""
    layer = RNN(1, units, nonlinearity=nonlinearity, bias=False, dtype=np.float64)
    layer.params["weight_hh_l0"][...] = recurrent_weight(rng, units, 0.9, 1.0)
    layer.params["weight_ih_l0"][...] = rng.uniform(-0.1, 0.1, (units, 1))
    u = rng.uniform(-1, 1, WASHOUT + TRAIN + TEST)
    states = layer(u[:, None])[0]
    past = np.stack([np.roll(u, k) for k in range(1, DELAYS + 1)], axis=1)
    fit, test = slice(WASHOUT, WASHOUT + TRAIN), slice(WASHOUT + TRAIN, None)
    y = ridge(states[fit], past[fit], 1e-12)(states[test])
    return np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(y.T, past[test].T, strict=True)])


def main(options: Options) -> Result:
    """Run the three tasks."""
    generators = [np.random.default_rng([options.seed, k]) for k in range(RESERVOIRS + 2)]
    errors, memories = [], {}
    with Progress(RESERVOIRS + 3, "echo-state, networks") as progress:
        for rng in generators[:RESERVOIRS]:
            network, linear, y, target = narma_task(rng)
            errors.append((network, linear))
            progress.update(narma=network)
        chaos = mackey_glass_task(generators[-2])
        progress.update(mackey_glass=chaos["free"])
        for name in "identity", "tanh":
            memories[name] = memory(generators[-1], name)
            progress.update(memory=memories[name].sum())

    network, linear = np.mean(errors, axis=0)
    return Result(
        [
            at_most("NARMA10, error of the network", network, 0.25),
            at_least("NARMA10, error of ten linear taps", linear, 0.5),
            at_most("Mackey-Glass, error of one step", chaos["one step"], 1e-3),
            at_most(f"Mackey-Glass, error of {SCORED} free steps", chaos["free"], 0.1),
            near("inputs that 50 linear units remember", memories["identity"].sum(), 40, 10),
            at_most("inputs that 50 tanh units remember", memories["tanh"].sum(), 30),
        ],
        lambda: plot(y, target, chaos, memories),
        {"narma_errors": [network for network, _ in errors]},
    )


def plot(y: Any, target: Any, chaos: dict[str, Any], memories: dict[str, Any]) -> Any:
    """One panel for each task, and one for the growth of the error of free runs."""
    figure = new_figure(10, 6)
    (narma_axes, memory_axes), (chaos_axes, error_axes) = figure.subplots(2, 2)
    narma_axes.plot(target[:150], "k", lw=1, label="system")
    narma_axes.plot(y[:150], "tab:orange", lw=1, label="network")
    narma_axes.set(xlabel="time step", ylabel="y", title="NARMA10, 150 fresh steps", ylim=(0, 1.05))
    for name, values in memories.items():
        memory_axes.plot(np.arange(1, DELAYS + 1), values, label=f"{name}, sum {values.sum():.1f}")
    memory_axes.set(xlabel="delay k", ylabel="squared correlation", title="memory of 50 units")
    chaos_axes.plot(chaos["truth"][:, 0], "k", lw=1, label="equation")
    chaos_axes.plot(chaos["runs"][:, 0], "tab:orange", lw=1, label="network, running freely")
    chaos_axes.set(xlabel="free step", ylabel="tanh(x - 1)", title="Mackey-Glass")
    chaos_axes.set_ylim(-0.95, 0.5)
    difference = np.sqrt(np.mean((chaos["runs"] - chaos["truth"]) ** 2, axis=1))
    error_axes.semilogy(difference / chaos["truth"].std(), label=f"mean of {STARTS} runs")
    error_axes.axvline(SCORED, color="gray", linestyle=":", label=f"{SCORED} steps")
    error_axes.set(xlabel="free step", ylabel="error", title="Mackey-Glass, growth of the error")
    for axes in figure.axes:
        axes.legend(loc="upper right" if axes in (narma_axes, memory_axes) else "lower right")
        axes.grid(alpha=0.3)
    return figure


demo = Demo(main)
