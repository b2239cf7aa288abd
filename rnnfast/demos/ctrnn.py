"""A continuous-time recurrent network: an oscillator, and a memory of three bits.

    tau_i dy_i/dt = -y_i + sum_j w_ij sigmoid(y_j + theta_j) + I_i

(Beer 1995). Euler's method with steps of dt makes a recurrent cell of it. With v = y + theta and
k = dt / tau that is

    v_t = v_{t-1} + k (W sigmoid(v_{t-1}) + theta + I_t - v_{t-1}),    output sigmoid(v_t)

1. Two units with Beer's weights oscillate. The period of the cell nears that of the equation as dt
   becomes smaller: with half the step, half the error.
2. A flip-flop of three bits (Sussillo & Barak 2013): short pulses of +1 and -1 come in on three
   lines, and each output must show the last pulse of its line. Two cells with tanh learn it. The
   state of the first is the potential, as above, that of the second the rate:

    v_t = (1 - k) v_{t-1} + k (W tanh(v_{t-1}) + U x_t + b),    output tanh(v_t)
    h_t = (1 - k) h_{t-1} + k tanh(W h_{t-1} + U x_t + b),      output h_t
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import Recurrent, cells
from rnnfast.training import Adam, Linear, accuracy, join, mean_squared_error, new_figure

from ._demo import Demo, Options, Result, at_least, near, train

# The oscillator: the row is the receiving unit.
WEIGHTS = np.array([[4.5, 1.0], [-1.0, 4.5]])
THETA = np.array([-2.75, -1.75])
PERIOD = 29.0  # of the equation, by an integrator of relative accuracy 1e-10
STEP_SIZES = 0.5, 0.2, 0.1, 0.05, 0.01

# The flip-flop.
BITS, HIDDEN, STEPS, BATCH = 3, 48, 60, 32
PULSES = 0.05  # the probability of one, at each step of each line
LEAK = 0.2  # k
GAIN, INPUT_SCALE = 1.5, 3.0  # of the initial weights
EPOCHS, LR = 5, 0.01


@cells.cell(state="v", extra="k", sizes={"k": 1})
def potential(x: Any, v: Any, k: Any) -> Any:
    """Units whose state is their potential."""
    v = v + k * (cells.linear("a", x, h=cells.tanh(v)) - v)
    return {"v": v, "y": cells.tanh(v)}


FORMS = {"potential": potential, "rate": cells.leaky_rnn}


def oscillate(dt: float, duration: float) -> Any:
    """The outputs `(T, 2)` of the oscillator, computed by the cell."""
    layer = Recurrent(cells.ctrnn, 1, 2, dtype=np.float64)
    layer.params["a.weight_x_l0"].fill(0)
    layer.params["a.weight_y_l0"][...] = WEIGHTS
    layer.params["a.bias_l0"][...] = THETA
    x = np.zeros((round(duration / dt), 1))
    return layer(x, THETA[None].copy(), extra={"k": np.array([dt])})[0]


def period(y: Any, dt: float) -> float:
    """The time between upward crossings of one half by the first unit, after the first half."""
    y = y[len(y) // 2 :, 0] - 0.5
    before = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    times = dt * (before + y[before] / (y[before] - y[before + 1]))
    return float((times[-1] - times[0]) / (len(times) - 1))


def flip_flops(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Pulses `(STEPS, count, BITS)`, and the last one on each line, 0 before the first."""
    x = np.where(rng.random((STEPS, count, BITS)) < PULSES, 1.0, 0.0)
    x *= rng.choice([-1.0, 1.0], x.shape)
    target = x.copy()
    for t in range(1, STEPS):
        target[t] = np.where(x[t] == 0, target[t - 1], x[t])
    return x.astype(np.float32), target.astype(np.float32)


class Memory:
    """One of the two cells, and a linear layer."""

    def __init__(self, form: str, rng: np.random.Generator) -> None:
        self.layer = Recurrent(FORMS[form], BITS, HIDDEN, rng=rng)
        for name, scale in ("h", GAIN / np.sqrt(HIDDEN)), ("x", INPUT_SCALE):
            weight = self.layer.params[f"a.weight_{name}_l0"]
            weight[...] = scale * rng.standard_normal(weight.shape)
        self.out = Linear(HIDDEN, BITS, rng=rng)
        self.params = join(layer=self.layer, out=self.out)
        self.extra = {"k": np.array([LEAK], np.float32)}

    def __call__(self, x: Any) -> Any:
        """What it shows, `(T, B, BITS)`."""
        return self.out(self.layer(x, extra=self.extra)[0])

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Mean squared error and its gradients."""
        x, target = batch
        y, _, tape = self.layer.forward(x, extra=self.extra)
        shown, out_tape = self.out.forward(y)
        loss, d_shown = mean_squared_error(shown, target)
        out = self.out.backward(out_tape, d_shown)
        layer = self.layer.backward(tape, out.input)
        return loss, join(layer=layer.params, out=out.params)


def share_right(shown: Any, target: Any) -> float:
    """The share of bits shown right, of those that a pulse has set."""
    return accuracy(shown > 0, target > 0, mask=target != 0)


def main(options: Options) -> Result:
    """Measure the oscillator's period, and train both cells on the same pulses."""
    periods = {dt: period(oscillate(dt, 20 * PERIOD), dt) for dt in STEP_SIZES}
    orbit = oscillate(STEP_SIZES[-1], 2 * PERIOD)
    ratio = (periods[0.1] - PERIOD) / (periods[0.05] - PERIOD)

    x, target = flip_flops(np.random.default_rng([options.seed, 1]), 500)
    shares, shown, histories = {}, {}, {}
    epochs = 2 if options.quick else EPOCHS
    for form in FORMS:
        model = Memory(form, np.random.default_rng([options.seed, 2]))

        def wrong(model: Memory = model) -> float:
            return 1 - share_right(model(x), target)

        histories[form] = train(
            model.loss_and_grads,
            Adam(model.params, lr=LR),
            lambda rng: (flip_flops(rng, BATCH) for _ in range(100)),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),
            evaluate=wrong,
            schedule=lambda epoch: LR * (1 - epoch / epochs),
            label=f"ctrnn, {form}",
        )
        shown[form] = model(x[:, :1])[:, 0]
        shares[form] = 1 - wrong()

    return Result(
        [
            near("period with dt = 0.01", periods[0.01], PERIOD, 0.02),
            near("error at dt = 0.1 over that at 0.05", ratio, 2, 0.1),
            *(at_least(f"bits right, {form} form", shares[form], 0.97) for form in FORMS),
        ],
        lambda: plot(orbit, periods, shown, target[:, 0]),
        {
            "periods": {str(dt): value for dt, value in periods.items()},
            "histories": {form: history.as_dict() for form, history in histories.items()},
        },
    )


def plot(orbit: Any, periods: dict[float, float], shown: dict[str, Any], target: Any) -> Any:
    """The oscillator and its period above, one row of flip-flops below."""
    figure = new_figure(10, 6)
    upper, lower = figure.subfigures(2, 1)
    left, right = upper.subplots(1, 2)
    time = STEP_SIZES[-1] * np.arange(1, len(orbit) + 1)
    for unit in (0, 1):
        left.plot(time, orbit[:, unit], label=f"unit {unit + 1}")
    left.set(xlabel="time", ylabel="output", title="Beer's oscillator", ylim=(0, 1.25))
    left.legend(loc="upper right", ncols=2)
    errors = [periods[dt] - PERIOD for dt in STEP_SIZES]
    right.loglog(STEP_SIZES, errors, "o-", label="cell")
    right.loglog(
        STEP_SIZES, [dt * errors[0] / STEP_SIZES[0] for dt in STEP_SIZES], "k:", label="~ dt"
    )
    right.set(xlabel="dt", ylabel="period - 29", title="error of the period")
    right.legend()
    axes = lower.subplots(1, BITS, sharey=True)
    for bit, panel in enumerate(axes):
        panel.step(range(STEPS), target[:, bit], "k", where="mid", lw=1, label="last pulse")
        for form, values in shown.items():
            panel.plot(values[:, bit], label=form)
        panel.set(xlabel="time step", ylabel="output", title=f"bit {bit + 1}", ylim=(-1.6, 2.7))
    axes[0].legend(loc="upper right", ncols=2, fontsize="small")
    for panel in figure.axes:
        panel.grid(alpha=0.3)
    return figure


demo = Demo(main)
