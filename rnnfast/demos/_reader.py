"""What the demonstrations of automata and languages share: a network that answers at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnfast import Recurrent, Sequential
from rnnfast.cells import Cell
from rnnfast.training import Linear, length_mask, new_figure, softmax_cross_entropy


class Reader(Sequential):
    """A recurrent layer and a softmax at every step.

    A call gives the logits of every step's classes, `(T, B, classes)`.
    """

    def __init__(
        self,
        cell: Cell,
        inputs: int,
        hidden: int,
        classes: int,
        rng: np.random.Generator,
        num_layers: int = 1,
    ) -> None:
        self.layer = Recurrent(cell, inputs, hidden, num_layers, rng=rng)
        super().__init__(self.layer, Linear(hidden, classes, rng=rng))

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy over all steps, padding left out, and its gradients.

        A batch is x `(T, B, I)`, the right classes `(T, B)` and perhaps the lengths.
        """
        x, target, lengths = batch if len(batch) == 3 else (*batch, None)
        logits, tape = self.forward(x, lengths)
        mask = None if lengths is None else length_mask(lengths, len(x))
        loss, d_logits = softmax_cross_entropy(logits, target, mask=mask)
        return loss, self.backward(tape, d_logits).params


def at_last(values: Any, lengths: Any) -> Any:
    """The values `(T, B, ...)` of each row's last step, `(B, ...)`."""
    return values[lengths - 1, np.arange(values.shape[1])]


def decayed(lr: float, epochs: int) -> Callable[[int], float]:
    """A learning rate that falls to a tenth of itself, along a line."""
    return lambda epoch: lr * (1 - 0.9 * epoch / epochs)


def orthogonal(rng: np.random.Generator, size: int) -> Any:
    """A random orthogonal matrix, by the QR decomposition of one of normal numbers."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def start_rnn(layer: Recurrent, rng: np.random.Generator) -> None:
    """Start for RNNs of one-hot symbols: orthogonal square weights, input weights from -1 to 1."""
    for name, p in layer.params.items():
        if ".weight_x_l0" in name:
            p[...] = rng.uniform(-1, 1, p.shape)
        elif ".weight_" in name:
            p[...] = orthogonal(rng, len(p))


def right(reader: Reader, test: tuple[Any, Any]) -> Any:
    """The share of right answers after each step, `(T,)`."""
    return np.mean(reader(test[0]).argmax(axis=2) == test[1], axis=1)


def plot_walks(
    shares: Mapping[str, list[float]],
    curves: Mapping[str, list[float]],
    trained: int,
    ylabel: str,
    chance: float,
) -> Any:
    """The share of right answers over the steps, and at the last one over the training.

    `trained` is the longest sequence of the training, a point of a curve is 20 batches.
    """
    figure = new_figure(9, 4.4)
    left, over = figure.subplots(1, 2, sharey=True)
    for number, (name, share) in enumerate(shares.items()):
        width = 1.2 + 0.9 * (len(shares) - 1 - number)  # equal lines show all their colours
        left.plot(range(1, len(share) + 1), share, linewidth=width, label=name)
        over.plot(20 * np.arange(1, len(curves[name]) + 1), curves[name], linewidth=width)
    left.axvline(trained, color="gray", linestyle=":")
    left.text(trained, 0.02, " longer than in training", color="gray")
    left.set(xlabel="step", ylabel=ylabel, ylim=(0, 1.05), title="after training")
    over.set(xlabel="batches of 64", ylabel=ylabel, title=f"at step {len(share)}")
    for axes in (left, over):
        axes.axhline(chance, color="gray", linewidth=0.8)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
