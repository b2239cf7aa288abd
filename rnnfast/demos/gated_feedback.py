"""Upper layers that talk back to lower ones, through gates that one can watch.

The automaton of `permutations`: five states, and three symbols that each permute them. In a stack
of RNNs a layer hears of the layer below. In a gated feedback network it hears of all layers at the
step before, and of each as much as a gate lets through. The gate is one number, from 0 to 1:

    h_j = tanh(W_j x_j + sum_i g_ij U_ij h_i' + b_j),    x_1 = x,  x_j = h_(j-1)
    g_ij = sigmoid(w_ij x_j + u_ij [h_1', h_2', h_3'])

With all gates at 1 and U_ij = 0 for i != j that is a stack of RNNs, to the last bit: the first
figure. Most stacks learn this task too, later. The picture shows what the gates do meanwhile.

Chung et al. 2015, arXiv:1502.02367.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import Recurrent
from rnnfast.cells import deep_transition, gated_feedback
from rnnfast.training import Adam, new_figure

from ._automata import STATES, SYMBOLS, TEST_STEPS, automaton, batches, walks
from ._demo import Demo, Options, Result, at_least, at_most, train
from ._reader import Reader, decayed, orthogonal, right, start_rnn

LAYERS = 3
FEEDBACK, STACK = 16, 27  # units in a layer, about as many parameters
LR = 0.008
OPEN = 60  # whose sigmoid is 1
rnn = deep_transition(1)


def feedback_reader(rng: np.random.Generator) -> Reader:
    """The gated feedback network: what comes from the layer itself starts strong, the rest weak."""
    reader = Reader(gated_feedback(LAYERS), SYMBOLS, FEEDBACK, STATES, rng)
    for name, p in reader.layer.params.items():
        linear, _, source = name.removesuffix("_l0").partition(".weight_")
        if linear.startswith("n_") and source.startswith("h"):
            p[...] = orthogonal(rng, FEEDBACK) * (1 if source[1:] == linear[2:] else 0.1)
        elif source == "x":
            p[...] = rng.uniform(-1, 1, p.shape)
    return reader


def stack_reader(rng: np.random.Generator) -> Reader:
    """The stack of RNNs."""
    reader = Reader(rnn, SYMBOLS, STACK, STATES, rng, LAYERS)
    start_rnn(reader.layer, rng)
    return reader


def difference_to_stack(rng: np.random.Generator) -> float:
    """The largest difference of outputs between a stack and a feedback network that is one.

    A unit of the first layer stays 1 and is all that the gates see: each is 1.
    """
    feedback = Recurrent(gated_feedback(LAYERS), SYMBOLS, FEEDBACK, rng=rng)
    stack = Recurrent(rnn, SYMBOLS, FEEDBACK, LAYERS, rng=rng)
    for p in feedback.params.values():
        p[...] = 0
    for name, p in stack.params.items():  # a1.weight_x_l0, ...
        kind, _, layer = name.removeprefix("a1.").rpartition("_l")
        if layer == "0":
            p[0] = OPEN if kind == "bias" else 0
        j = int(layer) + 1
        source = {"weight_x": "weight_below" if j > 1 else "weight_x", "weight_h": f"weight_h{j}"}
        feedback.params[f"n_{j}.{source.get(kind, kind)}_l0"][...] = p
        for i in range(1, LAYERS + 1):
            feedback.params[f"g_h{i}_{j}.weight_h1_l0"][0, 0] = OPEN
    x = np.eye(SYMBOLS, dtype=np.float32)[rng.integers(SYMBOLS, size=(TEST_STEPS, 10))]
    h0 = rng.uniform(-1, 1, (LAYERS, 10, FEEDBACK)).astype(np.float32)
    h0[0, :, 0] = 1
    y = feedback(x, tuple(h[None] for h in h0))[0]
    return float(np.abs(y - stack(x, h0)[0]).max())


def gates(reader: Reader, x: Any) -> Any:
    """The gates that a row of symbols `(T, 1, 3)` opens: `(T, from, to)`."""
    stream = reader.layer.stream()
    params = {name.removesuffix("_l0"): p for name, p in reader.layer.params.items()}
    values = np.empty((len(x), LAYERS, LAYERS))
    before = [np.zeros(FEEDBACK, np.float32)] * LAYERS
    for t, row in enumerate(x[:, 0]):
        stream.step(row)
        after = [np.ravel(h) for h in stream.state]
        for i in range(LAYERS):
            for j in range(LAYERS):
                gate = f"g_h{i + 1}_{j + 1}.weight_"
                a = params[f"{gate}below"] @ after[j - 1] if j else params[f"{gate}x"] @ row
                a = a + sum(params[f"{gate}h{k + 1}"] @ h for k, h in enumerate(before))
                values[t, i, j] = 1 / (1 + np.exp(-a.item()))
        before = after
    return values


def main(options: Options) -> Result:
    """Train both on the same walks."""
    permutations = automaton(options.seed)
    test = walks(permutations, np.random.default_rng([options.seed, 1]), TEST_STEPS, 500)
    epochs = 8 if options.quick else 75
    readers, shares, curves = {}, {}, {}
    for name, make in (("gated feedback", feedback_reader), ("stack", stack_reader)):
        reader = readers[name] = make(np.random.default_rng([options.seed, 2]))
        history = train(
            reader.loss_and_grads,
            Adam(reader.params, lr=LR),
            lambda rng: batches(permutations, rng, 20),
            epochs=epochs,
            rng=np.random.default_rng(options.seed),  # the walks' alone: both get the same
            evaluate=lambda reader=reader: float(1 - right(reader, test)[-1]),
            schedule=decayed(LR, epochs),
            clip_norm=1.0,
            label=f"gated-feedback, {name}",
        )
        shares[name] = right(reader, test).tolist()
        curves[name] = [1 - error for error in history.held_out]

    for name, reader in readers.items():
        size, share = reader.num_parameters, shares[name][-1]
        print(f"{name:<14}  {size} parameters  right at step 64: {share:.3f}")
    watched = gates(readers["gated feedback"], test[0][:, :1])
    same = difference_to_stack(np.random.default_rng([options.seed, 3]))
    return Result(
        [
            at_most("difference to a stack, gates at 1", same, 0),
            at_least("gated feedback, 64 steps", shares["gated feedback"][-1], 0.99),
        ],
        lambda: plot(curves, watched),
        {"shares": shares, "curves": curves, "gates": watched.round(4).tolist()},
    )


def plot(curves: dict[str, list[float]], watched: Any) -> Any:
    """Learning, and the gates over the steps of one walk."""
    figure = new_figure(9, 4.4)
    left, right_ = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(20 * np.arange(1, len(curve) + 1), curve, label=name)
    left.set(xlabel="batches of 64 walks", ylabel="share of right states", ylim=(0, 1.05))
    left.set_title("at step 64 of 500 walks")
    left.legend(loc="lower right")
    left.grid(alpha=0.3)
    rows = watched.transpose(2, 1, 0).reshape(LAYERS * LAYERS, -1)  # to layer 1 from 1, 2, 3, ...
    image = right_.imshow(rows, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    names = [f"{i} to {j}" for j in range(1, LAYERS + 1) for i in range(1, LAYERS + 1)]
    right_.set_yticks(range(len(rows)), names)
    right_.set(xlabel="step of one walk", ylabel="from layer to layer", title="gates")
    figure.colorbar(image, label="open (1) or shut (0)")
    return figure


demo = Demo(main)
