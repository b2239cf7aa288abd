"""An encoder reads a string of digits, a decoder writes it backwards.

The encoder's final state is all that the decoder gets: a vector in which the whole string must
stand. While training, the decoder reads the right answer one symbol behind (teacher forcing);
afterwards it reads what it wrote itself, always the likeliest symbol (greedy decoding).

    (h, c) = LSTM_enc(E x),    y_t = LSTM_dec(E s_{t-1}, y_{t-1}) from (h, c),
    p(s_t) = softmax(W y_t + b)

Sutskever, Vinyals & Le 2014; Cho et al. 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import LSTM
from rnnfast.training import (
    Adam,
    Embedding,
    Linear,
    join,
    length_mask,
    new_figure,
    pad,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, train

LONGEST = 8
GO, END = 10, 11  # after the ten digits
BATCH = 128
HIDDEN = 128


def is_held_out(digits: Any) -> bool:
    """Whether a string is kept for the test: one in ten, by a rule that looks at all of it."""
    return int(np.dot(digits, np.arange(7, 7 + len(digits)))) % 10 == 3


def strings(rng: np.random.Generator, count: int, held_out: bool) -> list[Any]:
    """Random strings of 1 to `LONGEST` digits, all held out or none."""
    chosen: list[Any] = []
    while len(chosen) < count:
        digits = rng.integers(0, 10, rng.integers(1, LONGEST + 1))
        if is_held_out(digits) == held_out:
            chosen.append(digits)
    return chosen


class Translator:
    """Two LSTMs that share an embedding, and a softmax over the twelve symbols."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.embedding = Embedding(12, 16, rng=rng)
        self.encoder = LSTM(16, HIDDEN, rng=rng)
        self.decoder = LSTM(16, HIDDEN, rng=rng)
        self.out = Linear(HIDDEN, 12, rng=rng)
        self.parts = ("embedding", "encoder", "decoder", "out")
        self.params = join(**{part: getattr(self, part).params for part in self.parts})

    def loss_and_grads(self, sources: list[Any]) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of the right answers, teacher-forced, and its gradients."""
        answers = [source[::-1] for source in sources]
        read, lengths = pad(sources)
        told, _ = pad([[GO, *answer] for answer in answers])
        wanted, _ = pad([[*answer, END] for answer in answers])

        x, read_tape = self.embedding.forward(read)
        _, state, encoder_tape = self.encoder.forward(x, lengths=lengths)
        s, told_tape = self.embedding.forward(told)
        y, _, decoder_tape = self.decoder.forward(s, state, lengths=lengths + 1)
        logits, out_tape = self.out.forward(y)
        mask = length_mask(lengths + 1, len(wanted))
        loss, d_logits = softmax_cross_entropy(logits, wanted, mask=mask)

        out = self.out.backward(out_tape, d_logits)
        decoder = self.decoder.backward(decoder_tape, out.input)
        encoder = self.encoder.backward(encoder_tape, dstate=decoder.state)
        embedding = self.embedding.backward(told_tape, decoder.input).params
        self.embedding.backward(read_tape, encoder.input, accumulate=embedding)
        return loss, join(
            embedding=embedding, encoder=encoder.params, decoder=decoder.params, out=out.params
        )

    def __call__(self, sources: list[Any]) -> list[list[int]]:
        """The decoder's own answers."""
        read, lengths = pad(sources)
        _, state = self.encoder(self.embedding(read), lengths=lengths)
        stream = self.decoder.stream(len(sources), state)
        symbols, written = np.full(len(sources), GO), []
        for _ in range(LONGEST + 1):
            symbols = self.out(stream.step(self.embedding(symbols))).argmax(axis=1)
            written.append(symbols)
        rows = np.transpose(written).tolist()
        return [row[: row.index(END)] if END in row else row for row in rows]

    def exact(self, sources: list[Any]) -> Any:
        """Which strings it turns around without a mistake."""
        answers = zip(self(sources), sources, strict=True)
        return np.array([answer == source[::-1].tolist() for answer, source in answers])


def main(options: Options) -> Result:
    """Train on some strings, test on others."""
    rng = np.random.default_rng(options.seed)
    model = Translator(rng)
    test = strings(np.random.default_rng([options.seed, 1]), 2000, held_out=True)
    epochs = 5 if options.quick else 10

    history = train(
        model.loss_and_grads,
        Adam(model.params),
        lambda rng: (strings(rng, BATCH, held_out=False) for _ in range(100)),
        epochs=epochs,
        rng=rng,
        evaluate=lambda: 1 - float(np.mean(model.exact(test))),
        clip_norm=1.0,
        schedule=lambda epoch: 0.003 * (1 - epoch / epochs),
        label="seq2seq, 100 batches per epoch",
    )

    exact, lengths = model.exact(test), np.array([len(digits) for digits in test])
    by_length = {n: float(np.mean(exact[lengths == n])) for n in range(1, LONGEST + 1)}
    shown = sorted(test, key=len)[-4:]
    for source, answer in zip(shown, model(shown), strict=True):
        print(f"  {''.join(map(str, source)):>{LONGEST}} -> {''.join(map(str, answer))}")
    print("  exact by length:", ", ".join(f"{n}: {share:.3f}" for n, share in by_length.items()))

    def plot() -> Any:
        figure = new_figure()
        left, right = figure.subplots(1, 2)
        left.plot(range(1, history.epochs + 1), 1 - np.array(history.held_out))
        left.set(xlabel="epoch (100 batches)", ylabel="share of exact strings", title="held out")
        left.grid(alpha=0.3)
        right.bar(list(by_length), list(by_length.values()))
        right.axhline(0.99, color="gray", linestyle=":", label="0.99")
        right.set(xlabel="length of the string", ylabel="share of exact strings", ylim=(0, 1.15))
        right.set_title("at the end, by length")
        right.legend(loc="upper right")
        return figure

    return Result(
        [at_least("held-out strings that are exact", np.mean(exact), 0.99)],
        plot,
        {"exact_by_length": by_length, "history": history.as_dict()},
    )


demo = Demo(main)
