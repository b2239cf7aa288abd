"""Seven regular languages learned from examples: networks that multiply input and state.

Tomita's languages over 0 and 1, from "only ones" to "two blocks of zeros and ones". A network reads
a string and an end symbol, then accepts or rejects it. It has seen 1,000 strings of at most 12
symbols, half of them in the language; the test has 600 of 20 to 40. A finite automaton goes from
state to state by a table of state and symbol, and so does, softly, a second-order network:

    s = tanh(W (s' x) + b),    all products of a unit and an input; s_1 > 0 accepts

In Pollack's sequential cascaded network the state makes the weights that the input sees:

    [y; z] = sigmoid((C z' + C_0) [x; 1]),    y > 1/2 accepts

Harder are near misses, long strings that one symbol keeps out of the language.

Tomita 1982; Giles et al. 1992; Pollack 1991.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import Recurrent
from rnnfast.cells import Expression, cascaded, cell, linear, outer, tanh
from rnnfast.training import Adam, mean_squared_error, minibatches, new_figure, pad

from ._demo import Demo, Options, Result, at_least, train
from ._reader import at_last

# Of each automaton: its name, the state after each state by 0 and by 1 (it starts in 0), and the
# states in which it accepts.
TOMITA: dict[int, tuple[str, list[tuple[int, int]], set[int]]] = {
    1: ("only 1s", [(1, 0), (1, 1)], {0}),
    2: ("10 repeated", [(2, 1), (0, 2), (2, 2)], {0}),
    3: ("no odd 0s after odd 1s", [(0, 1), (2, 0), (3, 4), (2, 1), (4, 4)], {0, 1, 3}),
    4: ("no 000", [(1, 0), (2, 0), (3, 0), (3, 3)], {0, 1, 2}),
    5: ("even 0s, even 1s", [(1, 2), (0, 3), (3, 0), (2, 1)], {0}),
    6: ("as many 0s as 1s, modulo 3", [(1, 2), (2, 0), (0, 1)], {0}),
    7: ("0s, 1s, 0s, 1s", [(0, 1), (2, 1), (2, 3), (4, 3), (4, 4)], {0, 1, 2, 3}),
}
LONGEST, TEST_LENGTHS = 12, (20, 40)
LR = 0.03
STARTS, LEARNED = 3, 0.05  # mean squared error of the examples
BOUNDS = {  # of the languages 1 to 7
    "second order": (0.99, 0.99, 0.95, 0.99, 0.99, 0.99, 0.95),
    "cascaded": (0.97, 0.97, 0.97, 0.97, None, None, 0.93),
}


# -------------------------------------------------------------------------------------- strings


def in_language(number: int, text: Any) -> bool:
    """Whether a string of 0 and 1 is in a language."""
    _, table, accepting = TOMITA[number]
    state = 0
    for symbol in text:
        state = table[state][symbol]
    return state in accepting


def ways(number: int, inside: bool, longest: int) -> Any:
    """How many strings lead from each state into the language or out of it, `(length, state)`."""
    _, table, accepting = TOMITA[number]
    counts = np.zeros((longest + 1, len(table)))
    counts[0] = [(state in accepting) == inside for state in range(len(table))]
    for length in range(longest):
        counts[length + 1] = counts[length][np.array(table)].sum(axis=1)
    return counts


def draw(rng: np.random.Generator, number: int, counts: Any, length: int) -> list[int]:
    """A string of that length, each that `ways` counted as likely as any other."""
    text, state, table = [], 0, TOMITA[number][1]
    for left in range(length - 1, -1, -1):
        by_0, by_1 = (counts[left][following] for following in table[state])
        text.append(int(rng.random() * (by_0 + by_1) >= by_0))
        state = table[state][text[-1]]
    return text


def strings(
    rng: np.random.Generator, number: int, inside: bool, count: int, shortest: int, longest: int
) -> list[list[int]]:
    """Strings in a language or out of it; each length that has some is as likely as any other."""
    counts = ways(number, inside, longest)
    lengths = [n for n in range(shortest, longest + 1) if counts[n, 0]]
    return [draw(rng, number, counts, length) for length in rng.choice(lengths, count)]


def near_misses(rng: np.random.Generator, number: int, texts: list[list[int]]) -> list[list[int]]:
    """The strings with one symbol changed so that they leave the language, where one can be."""
    missed = []
    for text in texts:
        for place in rng.permutation(len(text)):
            changed = [*text[:place], 1 - text[place], *text[place + 1 :]]
            if not in_language(number, changed):
                missed.append(changed)
                break
    return missed


def examples(rng: np.random.Generator, number: int) -> tuple[list[list[int]], Any]:
    """500 short strings of a language and 500 others, about half of those near misses; labels."""
    good, bad = (strings(rng, number, inside, 500, 0, LONGEST) for inside in (True, False))
    missed = near_misses(rng, number, strings(rng, number, True, 250, 0, LONGEST))
    return good + missed + bad[len(missed) :], np.repeat([1, 0], 500)


def encode(texts: list[list[int]]) -> tuple[Any, Any]:
    """One-hot symbols with an end symbol `(T, B, 3)`, and how many each row has `(B,)`."""
    symbols, lengths = pad([np.array([*text, 2]) for text in texts])
    return np.eye(3, dtype=np.float32)[symbols], lengths


# ------------------------------------------------------------------------------------- networks


@cell(state="s")
def second_order(x: Expression, s: Expression) -> Expression:
    """The second-order network with tanh."""
    return tanh(linear("a", products=outer(s, x)))


class Acceptor:
    """A cell whose first output, after the end symbol, accepts: from -1 (no) to 1 (yes)."""

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.cascaded = name == "cascaded"
        self.units = 5 if self.cascaded else 6
        self.layer = Recurrent(cascaded if self.cascaded else second_order, 3, self.units)
        self.params = self.layer.params
        for param, p in self.params.items():
            p[...] = 0 if "bias" in param else rng.normal(0, self.units**-0.5, p.shape)

    def start(self, rows: int) -> Any:
        """The first state: 1/2 in all units, or 1 in the first and 0 in the others."""
        if self.cascaded:
            return np.full((1, rows, self.units), 0.5, np.float32)
        return np.broadcast_to(np.eye(1, self.units, dtype=np.float32), (1, rows, self.units))

    def __call__(self, x: Any, lengths: Any) -> Any:
        """Per string a number above 0 if it is accepted, `(B,)`."""
        y = self.layer(x, self.start(len(lengths)), lengths=lengths)[0]
        return self.answer(at_last(y[:, :, 0], lengths))

    def answer(self, y: Any) -> Any:
        """From -1 to 1, what the first output says."""
        return 2 * y - 1 if self.cascaded else y

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Mean squared error of the answers to -1 or 1, and its gradients."""
        x, lengths, label = batch
        y, _, tape = self.layer.forward(x, self.start(len(lengths)), lengths=lengths)
        answer = self.answer(at_last(y[:, :, 0], lengths))
        loss, d_answer = mean_squared_error(answer, (2 * label - 1).astype(np.float32))
        dy = np.zeros_like(y)
        dy[lengths - 1, np.arange(len(lengths)), 0] = d_answer * (2 if self.cascaded else 1)
        return loss, self.layer.backward(tape, dy).params


def main(options: Options) -> Result:
    """Train both networks on every language."""
    right: dict[str, list[float]] = {name: [] for name in BOUNDS}
    missed: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for number in TOMITA:
        rng = np.random.default_rng([options.seed, number])
        training = examples(rng, number)
        good, bad = (strings(rng, number, inside, 300, *TEST_LENGTHS) for inside in (True, False))
        test, close = encode(good + bad), encode(near_misses(rng, number, good))
        for name in BOUNDS:
            acceptor = learned(options, number, name, *training)
            right[name].append(float(np.mean((acceptor(*test) > 0) == np.repeat([1, 0], 300))))
            missed[name].append(float(np.mean(acceptor(*close) <= 0)))

    print(f"{'':31}{'right':>14}{'near misses rejected':>30}")
    print(f"{'language':<31}" + 2 * "second order  cascaded      ")
    rows = zip(TOMITA, *right.values(), *missed.values(), strict=True)
    for number, second, pollack, second_missed, pollack_missed in rows:
        print(f"{number} {TOMITA[number][0]:<29}{second:>12.3f}{pollack:>10.3f}", end="")
        print(f"{second_missed:>18.3f}{pollack_missed:>10.3f}")
    return Result(
        [
            at_least(f"{number}, {name}", share, bound)
            for name, shares in right.items()
            for number, share, bound in zip(TOMITA, shares, BOUNDS[name], strict=True)
            if bound is not None
        ],
        lambda: plot(right, missed),
        {"right": right, "near_misses_rejected": missed},
    )


def learned(
    options: Options, number: int, name: str, texts: list[list[int]], labels: Any
) -> Acceptor:
    """A network trained on examples, from another start if it has not learned them."""

    def batches(rng: np.random.Generator) -> Any:
        for rows in minibatches(len(texts), 64, rng):
            yield *encode([texts[row] for row in rows]), labels[rows]

    tried: list[tuple[float, Acceptor]] = []
    while len(tried) < (1 if options.quick else STARTS) and not any(e < LEARNED for e, _ in tried):
        acceptor = Acceptor(name, np.random.default_rng([options.seed, number, 1, len(tried)]))
        history = train(
            acceptor.loss_and_grads,
            Adam(acceptor.params, lr=LR),
            batches,
            epochs=4 if options.quick else 25,
            rng=np.random.default_rng([options.seed, number, 2]),
            clip_norm=1.0,
            label=f"grammars, {number}, {name}, start {len(tried) + 1}",
        )
        tried.append((history.loss[-1], acceptor))
    return min(tried, key=lambda each: each[0])[1]


def plot(right: dict[str, list[float]], missed: dict[str, list[float]]) -> Any:
    """Bars: the share of long strings judged right, and of near misses rejected."""
    figure = new_figure(10, 4)
    places = np.arange(len(TOMITA))
    titles = "600 strings of 20 to 40 symbols", "long strings with one symbol wrong"
    panels = figure.subplots(1, 2, sharey=True)
    for axes, shares, title in zip(panels, (right, missed), titles, strict=True):
        for shift, name in zip((-0.2, 0.2), BOUNDS, strict=True):
            bars = axes.barh(places + shift, shares[name], 0.38, label=name)
            axes.bar_label(bars, [f"{share:.3f}" for share in shares[name]], padding=3, size=8)
        axes.set(xlabel="share judged right", title=title, xlim=(0, 1.15))
    panels[0].set_yticks(places, [f"{number}: {TOMITA[number][0]}" for number in TOMITA])
    panels[0].set_ylabel("language")
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


demo = Demo(main)
