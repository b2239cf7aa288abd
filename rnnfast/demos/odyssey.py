"""Eight changes to the LSTM, one at a time: which parts does it need?

An embedded Reber string is `B`, then `T` or `P`, a string of Reber's grammar, the same `T` or `P`
again, and `E`. The grammar is a small automaton with two loops. Reading a string, the network says
which symbol comes next. The last but one is the second of the string, from before all that lies
between: only memory can tell.

    i = sigmoid(W_i x + R_i h' + p_i c' + b_i)        g = tanh(W_g x + R_g h' + b_g)
    f = sigmoid(W_f x + R_f h' + p_f c' + b_f)        c = f c' + i g
    o = sigmoid(W_o x + R_o h' + p_o c  + b_o)        h = o tanh(c)

NP has no peepholes p. CIFG has f = 1 - i. NIG, NFG and NOG have no input, forget or output gate.
NIAF and NOAF have no tanh of g, of c. FGR lets the gates see all gates of the step before.

Greff et al. 2017, "LSTM: a search space odyssey"; Hochreiter & Schmidhuber 1997 (the task).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.cells import lstm_variant
from rnnfast.training import Adam, length_mask, new_figure, pad, softmax_cross_entropy

from ._demo import Demo, Options, Result, at_least, train
from ._reader import Reader, at_last

VARIANTS = "vanilla", "NP", "CIFG", "NIG", "NFG", "NOG", "NIAF", "NOAF", "FGR"
SYMBOLS = "BTPSXVE"
# From each state of Reber's grammar: the symbol of an arrow and the state it leads to.
GRAMMAR = {
    0: [("T", 1), ("P", 2)],
    1: [("S", 1), ("X", 3)],
    2: [("T", 2), ("V", 4)],
    3: [("X", 2), ("S", 5)],
    4: [("P", 3), ("V", 5)],
}
END = 5
HIDDEN = 20
BATCH = 32
TEST_SEED = 12345


def reber(rng: np.random.Generator) -> str:
    """A string of Reber's grammar; each arrow out of a state is as likely as the other."""
    text, state = "B", 0
    while state != END:
        symbol, state = GRAMMAR[state][rng.integers(2)]
        text += symbol
    return text + "E"


def embedded(rng: np.random.Generator) -> str:
    """A string of the embedded grammar."""
    marker = "TP"[rng.integers(2)]
    return "B" + marker + reber(rng) + marker + "E"


def strings(rng: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    """One-hot symbols `(T, B, 7)`, the next symbols `(T, B)` and lengths `(B,)`."""
    texts = [[SYMBOLS.index(symbol) for symbol in embedded(rng)] for _ in range(count)]
    read, lengths = pad([np.array(text[:-1]) for text in texts])
    return (
        np.eye(7, dtype=np.float32)[read],
        pad([np.array(text[1:]) for text in texts])[0],
        lengths,
    )


def remembered(reader: Reader, test: tuple[Any, Any, Any]) -> Any:
    """Per string whether its last but one symbol was the most likely one."""
    x, target, lengths = test
    right = reader(x, lengths).argmax(axis=2) == target
    return at_last(right, lengths - 1)


def main(options: Options) -> Result:
    """Train all variants on the same strings."""
    test = strings(np.random.default_rng(TEST_SEED), 1000)
    mask = length_mask(test[2], len(test[0]))
    rng = np.random.default_rng(options.seed)
    epochs = 4 if options.quick else 30
    drawn = [[strings(rng, BATCH) for _ in range(20)] for _ in range(epochs)]
    accuracy, nats, curves = {}, {}, {}
    for name in VARIANTS:
        reader = Reader(lstm_variant(name), 7, HIDDEN, 7, np.random.default_rng([options.seed, 1]))
        for param, p in reader.layer.params.items():
            if ".bias" in param:
                p[...] = 0

        def error_rate(reader: Reader = reader) -> float:
            return float(1 - remembered(reader, test).mean())

        batches = iter(drawn)  # the same for all
        history = train(
            reader.loss_and_grads,
            Adam(reader.params, lr=0.02),
            lambda rng, batches=batches: next(batches),
            epochs=epochs,
            evaluate=error_rate,
            clip_norm=1.0,
            label=f"odyssey, {name}",
        )
        curves[name] = [1 - error for error in history.held_out]
        accuracy[name] = curves[name][-1]
        nats[name] = softmax_cross_entropy(reader(test[0], test[2]), test[1], mask=mask)[0]

    print("variant   remembered   nats per symbol")
    for name in VARIANTS:
        print(f"{name:8}  {accuracy[name]:10.3f}   {nats[name]:10.4f}")
    bounds = {name: 0.99 if name == "vanilla" else 0.95 for name in VARIANTS}
    return Result(
        [at_least(f"remembered, {name}", accuracy[name], bounds[name]) for name in VARIANTS],
        lambda: plot(curves),
        {"accuracy": accuracy, "nats": nats, "curves": curves},
    )


def plot(curves: dict[str, list[float]]) -> Any:
    """A small picture for each variant, with the others behind it in grey."""
    figure = new_figure(9, 6)
    for axes, (name, curve) in zip(
        figure.subplots(3, 3, sharex=True, sharey=True).flat, curves.items(), strict=True
    ):
        steps = 20 * np.arange(1, len(curve) + 1)
        for other in curves.values():
            axes.plot(steps, other, color="lightgray", linewidth=0.8)
        axes.plot(steps, curve, color="tab:blue")
        axes.set(title=name, ylim=(0.3, 1.05), xlabel="batches of 32", ylabel="remembered")
        axes.label_outer()
    return figure


demo = Demo(main)
