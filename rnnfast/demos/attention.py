"""Attention: long strings of digits turned around, with and without a look back at the source.

An encoder reads a string of 1 to 20 digits in both directions, a decoder writes it backwards. Where
the encoder's last state is all that the decoder gets, the whole string has to fit in it. Attention
gives each output of the decoder, h_t, a look at all outputs of the encoder, e_s:

    e = [GRU(E x), GRU'(E x)],    h_t = GRU_dec(E y_{t-1}, h_{t-1}) from the last states of both
    a_ts = softmax over s of h_t . e_s,    c_t = sum_s a_ts e_s
    p(y_t) = softmax(W tanh(V [c_t, h_t] + b))

The other model has no c_t and is the same in all else: sizes, strings, number of steps.

Luong, Pham & Manning 2015, arXiv 1508.04025: the score "dot", without input feeding. So the decoder
runs all steps in one call, and attention comes after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import GRU
from rnnfast.training import (
    Activation,
    Adam,
    Attention,
    Embedding,
    Linear,
    join,
    length_mask,
    new_figure,
    pad,
    softmax_cross_entropy,
)

from ._demo import Demo, Options, Result, at_least, at_most, train

LONG, LONGEST = 15, 20  # the shortest that count as long, and the longest
GO, END = 10, 11  # after the ten digits
BATCH = 64
ENCODER, DECODER = 16, 32  # units of each direction, and of the decoder: two times as many


def strings(rng: np.random.Generator, count: int, shortest: int = 1) -> list[Any]:
    """Random strings of digits; those of 15 and more hardly ever come twice."""
    return [rng.integers(0, 10, n) for n in rng.integers(shortest, LONGEST + 1, count)]


class Read(NamedTuple):
    """What the encoder made of the sources."""

    lengths: Any
    outputs: Any  # (S, B, 32), of both directions
    start: Any  # (1, B, 32), the decoder's first state


class Translator:
    """An encoder and a decoder, with attention between them or without."""

    def __init__(self, attends: bool, rng: np.random.Generator) -> None:
        self.embedding = Embedding(12, 16, rng=rng)
        self.encoder = GRU(16, ENCODER, bidirectional=True, rng=rng)
        self.decoder = GRU(16, DECODER, rng=rng)
        self.attention = Attention() if attends else None
        self.mix = Linear(2 * DECODER if attends else DECODER, DECODER, rng=rng)
        self.tanh = Activation("tanh")
        self.out = Linear(DECODER, 12, rng=rng)
        parts = ("embedding", "encoder", "decoder", "mix", "out")
        self.params = join(**{part: getattr(self, part) for part in parts})

    def loss_and_grads(self, sources: list[Any]) -> tuple[float, dict[str, Any]]:
        """Cross-entropy of the right answers, teacher-forced, and its gradients."""
        answers = [source[::-1] for source in sources]
        read, lengths = pad(sources)
        told, _ = pad([[GO, *answer] for answer in answers])
        wanted, _ = pad([[*answer, END] for answer in answers])

        x, read_tape = self.embedding.forward(read)
        e, state, encoder_tape = self.encoder.forward(x, lengths=lengths)
        s, told_tape = self.embedding.forward(told)
        h, _, decoder_tape = self.decoder.forward(s, side_by_side(state), lengths=lengths + 1)
        seen = h
        if self.attention:
            c, attention_tape = self.attention.forward(h, e, e, lengths)
            seen = np.concatenate([c, h], axis=2)
        mixed, mix_tape = self.mix.forward(seen)
        y, tanh_tape = self.tanh.forward(mixed)
        logits, out_tape = self.out.forward(y)
        mask = length_mask(lengths + 1, len(wanted))
        loss, d_logits = softmax_cross_entropy(logits, wanted, mask=mask)

        out = self.out.backward(out_tape, d_logits)
        mix = self.mix.backward(mix_tape, self.tanh.backward(tanh_tape, out.input).input)
        dh, de = mix.input[:, :, -DECODER:], None
        if self.attention:
            dc = mix.input[:, :, :-DECODER]
            attention = self.attention.backward(attention_tape, dc)
            dh, de = dh + attention.queries, attention.keys + attention.values
        decoder = self.decoder.backward(decoder_tape, dh)
        encoder = self.encoder.backward(encoder_tape, de, dstate=two(decoder.state))
        embedding = self.embedding.backward(told_tape, decoder.input).params
        self.embedding.backward(read_tape, encoder.input, accumulate=embedding)
        return loss, join(embedding=embedding, encoder=encoder, decoder=decoder, mix=mix, out=out)

    def __call__(self, sources: list[Any]) -> tuple[list[list[int]], Any]:
        """The decoder's own answers, and where it looked: (steps, B, S), or no step."""
        read, lengths = pad(sources)
        e, state = self.encoder(self.embedding(read), lengths=lengths)
        stream = self.decoder.stream(len(sources), side_by_side(state))
        symbols, written, looks = np.full(len(sources), GO), [], []
        for _ in range(LONGEST + 1):
            seen = h = stream.step(self.embedding(symbols))
            if self.attention:
                c, tape = self.attention.forward(h[None], e, e, lengths)
                seen = np.concatenate([c[0], h], axis=1)
                looks.append(tape.weights[:, 0])
            symbols = self.out(self.tanh(self.mix(seen))).argmax(axis=1)
            written.append(symbols)
        rows = np.transpose(written).tolist()
        return [row[: row.index(END)] if END in row else row for row in rows], np.array(looks)

    def exact(self, sources: list[Any]) -> Any:
        """Which strings it turns around without a mistake."""
        answers = zip(self(sources)[0], sources, strict=True)
        return np.array([answer == source[::-1].tolist() for answer, source in answers])


def side_by_side(state: Any) -> Any:
    """The last states of both directions (2, B, 16) as one (1, B, 32)."""
    return np.concatenate(list(state), axis=1)[None]


def two(state: Any) -> Any:
    """Undo `side_by_side`."""
    return np.stack(np.split(state[0], 2, axis=1))


def by_length(exact: Any, sources: list[Any]) -> list[float]:
    """The share of exact strings of each length, from 1 on."""
    lengths = np.array([len(source) for source in sources])
    return [float(np.mean(exact[lengths == n])) for n in range(1, LONGEST + 1)]


def main(options: Options) -> Result:
    """Train both models on the same strings and compare them on fresh ones."""
    test_rng = np.random.default_rng([options.seed, 1])
    test, long = strings(test_rng, 2000), strings(test_rng, 500, LONG)
    epochs, histories, models = 2 if options.quick else 10, {}, {}
    for name, attends in (("without attention", False), ("with attention", True)):
        rng = np.random.default_rng(options.seed)  # the strings' alone, so that they are the same
        model = models[name] = Translator(attends, np.random.default_rng([options.seed, 2]))
        histories[name] = train(
            model.loss_and_grads,
            Adam(model.params),
            lambda rng: (strings(rng, BATCH) for _ in range(80)),
            epochs=epochs,
            rng=rng,
            evaluate=lambda model=model: 1 - float(np.mean(model.exact(long))),
            clip_norm=1.0,
            schedule=lambda epoch: 0.01 * (1 - epoch / epochs),
            label=f"attention, {name}",
        )

    for name, model in models.items():
        print(f"  {name}")
        for source, answer in zip(long[:2], model(long[:2])[0], strict=True):
            print(f"  {''.join(map(str, source)):>{LONGEST}} -> {''.join(map(str, answer))}")
    shares = {name: by_length(model.exact(test), test) for name, model in models.items()}
    exact = {name: np.mean(model.exact(long)) for name, model in models.items()}
    what = f"exact strings of {LONG} to {LONGEST} digits"
    return Result(
        [
            at_least(f"{what}, with attention", exact["with attention"], 0.75),
            at_most(f"{what}, without", exact["without attention"], 0.05),
        ],
        lambda: plot(shares, models["with attention"], max(long, key=len)),
        {
            "exact_by_length": shares,
            "histories": {name: history.as_dict() for name, history in histories.items()},
        },
    )


def plot(shares: dict[str, list[float]], model: Translator, source: Any) -> Any:
    """The share of exact strings by length, and where the decoder looks while it writes one."""
    answers, looks = model([source])
    answer = [*map(str, answers[0]), "end"][: len(looks)]
    figure = new_figure(9.0)
    left, right = figure.subplots(1, 2)
    for name, by_length in shares.items():
        left.plot(range(1, LONGEST + 1), by_length, ".-", label=name)
    left.set(xlabel="length of the string", ylabel="share of exact strings", ylim=(0, 1.05))
    left.set_title("2,000 random strings")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(loc="center right")
    left.grid(alpha=0.3)
    image = right.imshow(looks[: len(answer), 0], cmap="Greys", vmin=0, vmax=1)
    right.set_xticks(range(len(source)), map(str, source))
    right.set_yticks(range(len(answer)), answer)
    right.set(xlabel="digit read", ylabel="symbol written", title="where the decoder looks")
    figure.colorbar(image, ax=right, label="weight")
    return figure


demo = Demo(main)
