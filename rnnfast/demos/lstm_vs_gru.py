"""How far back can RNN, LSTM and GRU learn to remember?

Delayed recall: the first of `T` symbols must be named at the end; all those between are noise. The
three networks get the same data, the same number of units and the same number of steps. Between
the first symbol and the answer lie `T` Jacobians: those of the plain RNN shrink the gradient at
every step, so that beyond some delay nothing of it arrives and nothing is learned. The gates of
LSTM and GRU can let the state, and with it the gradient, pass unchanged.

Bengio, Simard & Frasconi 1994; Hochreiter & Schmidhuber 1997; Chung et al. 2014. A gate that keeps
a share `f` of the state remembers for about `1 / (1 - f)` steps; its bias starts at `log(u - 1)`,
with `u` spread over the delays of interest (Tallec & Ollivier 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import GRU, LSTM, RNN
from rnnfast.training import (
    Adam,
    Linear,
    accuracy,
    gradient_through_time,
    join,
    new_figure,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, at_most, train

SYMBOLS = 4  # to be remembered, and as many others as noise
HIDDEN = 32
BATCH = 32
MEMORY = 160  # steps, at most, that the gates are set to remember at first
KINDS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}


def recall(rng: np.random.Generator, steps: int, count: int) -> tuple[Any, Any]:
    """One-hot input `(T, B, 8)` and the symbol to recall `(B,)`."""
    symbols = rng.integers(SYMBOLS, 2 * SYMBOLS, (steps, count))
    symbols[0] -= SYMBOLS
    return np.eye(2 * SYMBOLS, dtype=np.float32)[symbols], symbols[0]


class Recaller:
    """A recurrent layer and a softmax on its last output."""

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.layer: Any = KINDS[kind](2 * SYMBOLS, HIDDEN, rng=rng)
        self.out = Linear(HIDDEN, SYMBOLS, rng=rng)
        self.params = join(layer=self.layer.params, out=self.out.params)
        if kind != "RNN":
            bias = self.layer.params["bias_ih_l0"].reshape(-1, HIDDEN)  # a row per gate
            bias[1] = np.log(rng.uniform(1, MEMORY, HIDDEN))  # LSTM: f of i f g o, GRU: z of r z n
            if kind == "LSTM":
                bias[0] = -bias[1]  # i = 1 - f, as in the GRU

    def __call__(self, x: Any) -> Any:
        """The logits of the symbol to recall, `(B, 4)`."""
        return self.out(self.layer(x)[0][-1])

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of the answer, and its gradients back to the first step."""
        x, target = batch
        y, _, tape = self.layer.forward(x)
        logits, out_tape = self.out.forward(y[-1])
        loss, d_logits = softmax_cross_entropy(logits, target)
        out = self.out.backward(out_tape, d_logits)
        dy = np.zeros_like(y)
        dy[-1] = out.input
        return loss, join(layer=self.layer.backward(tape, dy).params, out=out.params)

    def gradient_norm(self, x: Any, target: Any) -> Any:
        """The norm of the loss's gradient with respect to the state after every step."""
        y = self.layer(x)[0]
        logits, tape = self.out.forward(y[-1])
        dy = np.zeros_like(y)
        dy[-1] = self.out.backward(tape, softmax_cross_entropy(logits, target)[1]).input
        return gradient_through_time(self.layer, x, dy).norm


def main(options: Options) -> Result:
    """Train every kind at every length."""
    lengths = [5, 20, 80] if options.quick else [5, 10, 20, 40, 80, 160]
    recalled: dict[str, list[float]] = {kind: [] for kind in KINDS}
    gradients = {}
    for kind in KINDS:
        for steps in lengths:
            rng = np.random.default_rng([options.seed, steps])  # the data's alone: all get the same
            model = Recaller(kind, np.random.default_rng([options.seed, steps, 1]))
            test = recall(rng, steps, 1000)
            if steps == lengths[-1]:
                gradients[kind] = model.gradient_norm(*recall(rng, steps, BATCH))

            def error_rate(model: Recaller = model, test: Any = test) -> float:
                return 1 - accuracy(model(test[0]), test[1])

            train(
                model.loss_and_grads,
                Adam(model.params, lr=0.003),
                lambda rng, steps=steps: (recall(rng, steps, BATCH) for _ in range(100)),
                epochs=2 if options.quick else 8,
                rng=rng,
                evaluate=error_rate,
                goal=0.0,
                clip_norm=1.0,
                label=f"{kind}, {steps} steps",
            )
            recalled[kind].append(1 - error_rate())

    print("share of symbols recalled (by chance 0.25)")
    print("steps", *(f"{steps:>6}" for steps in lengths))
    for kind, shares in recalled.items():
        print(f"{kind:5}", *(f"{share:6.2f}" for share in shares))

    def plot() -> Any:
        figure = new_figure(9, 4)
        left, right = figure.subplots(1, 2)
        for (kind, shares), style, size in zip(
            recalled.items(), ("^-", "s-", "o--"), (7, 10, 5), strict=True
        ):
            left.plot(lengths, shares, style, markersize=size, label=kind)
            right.semilogy(gradients[kind].mean(axis=(1, 2)), style[1:], label=kind)
        left.axhline(1 / SYMBOLS, color="gray", linestyle=":", label="chance")
        left.set_xscale("log", base=2)
        left.set_xticks(lengths, map(str, lengths))
        left.set(xlabel="steps from symbol to answer", ylabel="share recalled", ylim=(0, 1.05))
        left.set_title("after the same training")
        right.set(xlabel="time step t", ylabel="norm of d loss / d state(t)", ylim=(1e-36, 1))
        right.set_title("gradient through time, before training")
        for axes in (left, right):
            axes.legend()
            axes.grid(alpha=0.3)
        return figure

    longest = lengths[-1]
    return Result(
        [
            at_least("RNN, shortest sequences", recalled["RNN"][0], 0.99),
            at_most(f"RNN, {longest} steps", recalled["RNN"][-1], 0.5),
            at_least(f"LSTM, {longest} steps", recalled["LSTM"][-1], 0.99),
            at_least(f"GRU, {longest} steps", recalled["GRU"][-1], 0.99),
        ],
        plot,
        {"lengths": lengths, "accuracy": recalled},
    )


demo = Demo(main)
