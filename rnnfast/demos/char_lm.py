"""A language model: what character comes next?

The text is Python's own standard library (or `--text FILE`), read character by character:

    x_t = E[s_t],    h_t = GRU_2(GRU_1(x_t)),    p(s_{t+1}) = softmax(V h_t + b)

One long text has no natural end to backpropagate from, so BPTT is truncated: the text is cut into
windows, the state is carried from each window to the next and the gradient is not (Williams & Peng
1990). Adam, gradient clipping and dropout between the layers (Zaremba et al. 2014) do the rest.

The measure is bits per character on files that were kept aside: the mean of `-log2 p`. Beside it
stands a 3-gram model of the same text (Witten & Bell 1991), which sees two characters back. At the
end the model writes: each character is drawn from its own prediction and fed back to it.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rnnfast import GRU, LSTM
from rnnfast.training import (
    Adam,
    Embedding,
    Linear,
    join,
    new_figure,
    softmax_cross_entropy,
    streams,
    windows,
)

from ._demo import Demo, Options, Result, at_most, steps, train
from ._ngram import ngram_bits
from ._torch import OPTION, compare, torch_language_model

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
RARE = 20  # characters that occur less often are all UNKNOWN
BATCH, WINDOW = 16, 64
TEST_BATCH = 64
HIDDEN, EMBEDDED = 192, 48
LR, CLIP_NORM = 0.005, 1.0


def read_files(rng: np.random.Generator) -> tuple[str, str]:
    """The standard library's top-level modules in random order: training and held-out text."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))
    texts = [files[i].read_text("utf-8", errors="replace") for i in rng.permutation(len(files))]
    cut = len(texts) // 15
    return "".join(texts[cut:]), "".join(texts[:cut])


def long_text(path: str) -> str:
    """The content of a file, for `--text`."""
    try:
        text = Path(path).read_text("utf-8", errors="replace")
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if len(text) < 20_000:
        raise argparse.ArgumentTypeError(
            f"{path} has {len(text):,} characters, expected at least 20,000"
        )
    return text


class Alphabet:
    """Characters and their numbers."""

    def __init__(self, text: str) -> None:
        points, counts = np.unique(code_points(text), return_counts=True)
        self.points = np.append(points[counts >= RARE], ord(UNKNOWN))
        self.size = len(self.points)

    def encode(self, text: str) -> Any:
        """The characters' numbers, that of UNKNOWN for those not in the alphabet."""
        points = code_points(text)
        found = np.searchsorted(self.points[:-1], points).clip(max=self.size - 2)
        return np.where(self.points[found] == points, found, self.size - 1)

    def decode(self, ids: Any) -> str:
        """The text of some numbers."""
        return "".join(map(chr, self.points[ids]))


def code_points(text: str) -> Any:
    """The Unicode code point of every character."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)


class LanguageModel:
    """Embedding, two GRU layers with dropout between them, softmax; the state is carried."""

    def __init__(
        self,
        size: int,
        dropout: float,
        rng: np.random.Generator,
        kind: type[GRU | LSTM] = GRU,
        hidden: int = HIDDEN,
    ) -> None:
        self.embedding = Embedding(size, EMBEDDED, rng=rng)
        self.rnn = kind(EMBEDDED, hidden, num_layers=2, dropout=dropout, rng=rng)
        self.out = Linear(hidden, size, rng=rng)
        self.params = join(
            embedding=self.embedding.params, rnn=self.rnn.params, out=self.out.params
        )
        self.state: Any = None

    def windows(self, text: Any, batch: int = BATCH) -> Iterator[Any]:
        """Inputs and targets, window by window, over and over; a new round, a new state."""
        pieces = streams(text, batch)
        while True:
            self.state = None
            yield from windows(WINDOW, pieces[:-1], pieces[1:])

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        """Cross-entropy over one window, and its gradients within the window."""
        read, wanted = batch
        x, read_tape = self.embedding.forward(read)
        y, self.state, tape = self.rnn.forward(x, self.state)
        logits, out_tape = self.out.forward(y)
        loss, d_logits = softmax_cross_entropy(logits, wanted)
        out = self.out.backward(out_tape, d_logits)
        rnn = self.rnn.backward(tape, out.input)  # no gradient comes from the next window
        embedding = self.embedding.backward(read_tape, rnn.input)
        return loss, join(embedding=embedding.params, rnn=rnn.params, out=out.params)

    def bits(self, text: Any) -> float:
        """Bits per character of a text: the mean of -log2 p."""
        state: Any = None
        total, pieces = 0.0, streams(text, TEST_BATCH)
        for read, wanted in windows(WINDOW, pieces[:-1], pieces[1:]):
            y, state = self.rnn(self.embedding(read), state)
            total += softmax_cross_entropy(self.out(y), wanted)[0] * wanted.size
        return float(total / pieces[1:].size / np.log(2))

    def write(self, start: Any, count: int, temperature: float, rng: np.random.Generator) -> Any:
        """Continue a text: draw a character, read it, draw the next."""
        stream, written = self.rnn.stream(), list(start)
        for read in start[:-1]:
            stream.step(self.embedding(read))
        for _ in range(count):
            logits = self.out(stream.step(self.embedding(written[-1]))).astype(np.float64)
            p = np.exp((logits - logits.max()) / temperature)
            written.append(int(rng.choice(p.size, p=p / p.sum())))
        return np.array(written)


def main(options: Options) -> Result:
    """Train, measure beside the 3-gram model, write a sample."""
    rng = np.random.default_rng(options.seed)
    if options.text is None:
        training, held_out = read_files(rng)
    else:
        cut = len(options.text) * 9 // 10
        training, held_out = options.text[:cut], options.text[cut:]
    alphabet = Alphabet(training)
    text, test = alphabet.encode(training), alphabet.encode(held_out)
    if options.quick:
        text = text[:300_000]
    # at most 100,000 characters from 64 places of the held-out text, end to end
    test = streams(test, TEST_BATCH)[: 10_000 // TEST_BATCH if options.quick else 1600].T.ravel()
    print(
        f"{text.size:,} characters to train on, {test.size:,} held out, {alphabet.size} different"
    )
    baseline = ngram_bits(text, test, order=3)
    print(f"3-gram model: {baseline:.3f} bits per character")

    model = LanguageModel(alphabet.size, options.dropout, rng)
    epochs, count = (3, 100) if options.quick else (10, 200)
    pieces = model.windows(text)
    started = time.perf_counter()
    history = train(
        model.loss_and_grads,
        Adam(model.params),
        lambda rng: (next(pieces) for _ in range(count)),
        epochs=epochs,
        evaluate=lambda: model.bits(test),
        clip_norm=CLIP_NORM,
        schedule=lambda epoch: LR * (1 - epoch / epochs),
        label=f"char-lm, {count * BATCH * WINDOW:,} characters per epoch",
    )
    tokens_per_second = epochs * count * BATCH * WINDOW / (time.perf_counter() - started)
    print("held-out bits per character:", *(f"{value:.2f}" for value in history.held_out))
    print(f"{tokens_per_second:,.0f} tokens (characters) per second, evaluation included\n")
    sample = alphabet.decode(model.write(alphabet.encode("\ndef "), 400, 0.7, rng))
    for line in sample.strip().splitlines():
        print("   ", line.encode("ascii", "backslashreplace").decode())
    times = beside_torch(text, alphabet.size, options) if options.compare else {}

    def plot() -> Any:
        figure = new_figure()
        axes = figure.subplots()
        seen = np.arange(1, epochs + 1) * count * BATCH * WINDOW / 1e6
        axes.plot(seen, np.array(history.loss) / np.log(2), ".-", label="training (with dropout)")
        axes.plot(seen, history.held_out, ".-", label="held out")
        axes.axhline(baseline, color="gray", linestyle=":", label="3-gram model, held out")
        axes.set(xlabel="characters read (millions)", ylabel="bits per character")
        axes.set_title("bits per character of a text never seen")
        axes.legend()
        axes.grid(alpha=0.3)
        return figure

    return Result(
        [
            at_most("held-out bits per character (3-gram)", history.held_out[-1], baseline),
            at_most(
                "  after the last epoch (the first)", history.held_out[-1], history.held_out[0]
            ),
        ],
        plot,
        {
            "baseline_bits": baseline,
            "tokens_per_second": tokens_per_second,
            "sample": sample,
            "history": history.as_dict(),
            **times,
        },
    )


def beside_torch(text: Any, size: int, options: Options) -> dict[str, Any]:
    """The time of some training steps, in PyTorch and here; and of a larger model's."""
    rounds = 5 if options.quick else 20

    def time_of(kind: type[GRU | LSTM], hidden: int, batch: int) -> dict[str, Any]:
        rng = np.random.default_rng(options.seed)
        model = LanguageModel(size, options.dropout, rng, kind, hidden)
        batches = list(islice(model.windows(text, batch), 1 + 2 * rounds))
        theirs = torch_language_model(model, LR, CLIP_NORM)
        ours = steps(model.loss_and_grads, Adam(model.params, lr=LR), clip_norm=CLIP_NORM)
        what = f"2 x {hidden} {kind.__name__}, batch {batch}, {WINDOW} steps"
        return compare(what, ours, theirs, batches, rounds, options.threads)

    return time_of(GRU, HIDDEN, BATCH) | {"larger_lstm": time_of(LSTM, 256, 32)}


demo = Demo(
    main,
    {
        "--compare": OPTION,
        "--text": {
            "type": long_text,
            "metavar": "FILE",
            "help": "a text to learn from (the standard library)",
        },
        "--dropout": {
            "type": float,
            "default": 0.1,
            "metavar": "P",
            "help": "dropout between the two layers (0.1)",
        },
    },
)
