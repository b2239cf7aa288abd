"""Plans: an input that does not change makes a sequence, by what the network has done before.

Each of three plans is a one-hot input, held for eight steps, in which the network must say
AAABAAAB, ABCABCAB or AABBCCAA. A Jordan network is fed back its own output, as a trace that fades:

    a = tanh(U x + R s + b),    y = sigmoid(O a + c),    s_next = mu s + y

With mu = 0 the state is the last output, and nothing tells the first A from the third. With
mu = 0.5 the trace has counted them. An Elman network is fed back its hidden units instead.

Teacher forcing puts the right outputs in the place of y in the trace. Then all traces are known
before, there is no recurrence left to train through, and all steps are one batch: the cell makes
one step of 24 rows. In the test the network runs by itself.

Jordan 1986; Elman 1990.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import RNN, Recurrent, Sequential
from rnnfast.cells import Cell, Expression, cell, linear, sigmoid, tanh
from rnnfast.training import Adam, Linear, new_figure, sigmoid_cross_entropy

from ._demo import Demo, Options, Result, at_least, at_most, train

PLANS = "AAABAAAB", "ABCABCAB", "AABBCCAA"
LETTERS = "ABC"
STEPS = len(PLANS[0])
HIDDEN = 12
LR = 0.02
STARTS = 5
INPUT = np.broadcast_to(np.eye(3, dtype=np.float32), (STEPS, 3, 3))  # (T, plans, 3)
TARGET = np.array([[[c == k for k in LETTERS] for c in plan] for plan in PLANS], np.float32)
TARGET = TARGET.transpose(1, 0, 2)  # (T, plans, 3)


def jordan(mu: float) -> Cell:
    """A Jordan network with a trace of its outputs; y is the output before the sigmoid."""

    @cell(state="s")
    def jordan_trace(x: Expression, s: Expression) -> dict[str, Expression]:
        y = linear("out", a=tanh(linear("a", x, s)), size=s.size)
        return {"s": mu * s + sigmoid(y), "y": y}

    return jordan_trace


def traces(mu: float) -> Any:
    """The traces of the right outputs before each step, `(T, plans, 3)`."""
    s = np.zeros_like(TARGET)
    for t in range(1, STEPS):
        s[t] = mu * s[t - 1] + TARGET[t - 1]
    return s


class Jordan:
    """Plans by a Jordan network, trained through time or by teacher forcing."""

    def __init__(self, mu: float, taught: bool, rng: np.random.Generator) -> None:
        self.layer = Recurrent(jordan(mu), 3, HIDDEN, sizes={"s": 3}, rng=rng)
        self.params = self.layer.params
        rows = (1, -1, 3)  # one step of all rows
        self.x, self.target = (a.reshape(rows) if taught else a for a in (INPUT, TARGET))
        self.start = traces(mu).reshape(rows) if taught else np.zeros((1, 3, 3), np.float32)

    def __call__(self) -> Any:
        """The outputs of a run by itself, `(T, plans, 3)`."""
        return 1 / (1 + np.exp(-self.layer(INPUT)[0]))

    def loss_and_grads(self, batch: None) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of all outputs and its gradients."""
        y, _, tape = self.layer.forward(self.x, self.start)
        loss, dy = sigmoid_cross_entropy(y, self.target)
        return loss, self.layer.backward(tape, dy).params


class Elman:
    """Plans by an RNN and a linear layer."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.model = Sequential(RNN(3, HIDDEN, rng=rng), Linear(HIDDEN, 3, rng=rng))
        self.params = self.model.params

    def __call__(self) -> Any:
        """The outputs, `(T, plans, 3)`."""
        return 1 / (1 + np.exp(-self.model(INPUT)))

    def loss_and_grads(self, batch: None) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of all outputs and its gradients."""
        logits, tape = self.model.forward(INPUT)
        loss, d_logits = sigmoid_cross_entropy(logits, TARGET)
        return loss, self.model.backward(tape, d_logits).params


NETWORKS: dict[str, Any] = {
    "trace, taught": lambda rng: Jordan(0.5, True, rng),
    "trace, through time": lambda rng: Jordan(0.5, False, rng),
    "last output, taught": lambda rng: Jordan(0, True, rng),
    "last output, through time": lambda rng: Jordan(0, False, rng),
    "Elman": Elman,
}


def main(options: Options) -> Result:
    """Train every network from several starts, and let it run by itself."""
    outputs: dict[str, list[Any]] = {name: [] for name in NETWORKS}
    for name, make in NETWORKS.items():
        for start in range(1 if options.quick else STARTS):
            network = make(np.random.default_rng([options.seed, start]))
            train(
                network.loss_and_grads,
                Adam(network.params, lr=LR),
                lambda rng: [None] * 100,
                epochs=3 if options.quick else 15,
                label=f"jordan, {name}, start {start + 1}",
            )
            outputs[name].append(network())
    errors = {name: [np.abs(y - TARGET).max() for y in each] for name, each in outputs.items()}
    exact = {name: int(np.sum(np.array(each) < 0.5)) for name, each in errors.items()}

    print(f"{'network':<26} all plans right  largest error")
    for name, each in errors.items():
        print(f"{name:<26} {exact[name]:>6} of {STARTS} {max(each):>18.3f}")
        for plan, y in zip(PLANS, outputs[name][0].transpose(1, 0, 2), strict=True):
            print(f"   {plan} -> {''.join(LETTERS[k] for k in y.argmax(axis=1))}")
    right = f"starts right, of {STARTS}"
    return Result(
        [
            at_least(f"{right}: trace, taught", exact["trace, taught"], STARTS),
            at_most("its largest error", max(errors["trace, taught"]), 0.05),
            at_most(f"{right}: last output, taught", exact["last output, taught"], 0),
            at_least(f"{right}: Elman", exact["Elman"], STARTS),
        ],
        lambda: plot(outputs, exact),
        {"exact": exact, "errors": {name: list(map(float, e)) for name, e in errors.items()}},
    )


def plot(outputs: dict[str, list[Any]], exact: dict[str, int]) -> Any:
    """What each network says from its first start: plans and letters down, steps across."""
    figure = new_figure(11, 4)
    panels = figure.subplots(1, len(outputs), sharey=True)
    for axes, (name, each) in zip(panels, outputs.items(), strict=True):
        rows = each[0].transpose(1, 2, 0).reshape(-1, STEPS)
        image = axes.imshow(rows, aspect="auto", vmin=0, vmax=1, cmap="Blues")
        for t, plan, letter in zip(*np.nonzero(TARGET), strict=True):
            axes.plot(t, 3 * plan + letter, "o", color="tab:orange", markersize=4)
        for line in (2.5, 5.5):
            axes.axhline(line, color="black", linewidth=0.8)
        axes.set(xlabel="step", xticks=range(STEPS), xticklabels=range(1, STEPS + 1))
        axes.set(yticks=range(9), yticklabels=list(3 * LETTERS))
        axes.set_title(f"{name}\n{exact[name]} of {STARTS} right".replace(", ", ",\n"), size=10)
    panels[0].set_ylabel("unit (dots: the plans' letters)")
    figure.colorbar(image, label="output")
    return figure


demo = Demo(main)
