"""Demonstrations: small systems, each written the way a tutorial would write it.

`python -m rnnfast demo NAME [--seed N] [--json PATH] [--plot PATH] [--quick]` trains one, prints
its figures next to those it should reach, and exits with 0 if it reaches them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from ._demo import Demo, parse, report

THEMES: dict[str, dict[str, str]] = {
    "first steps": {
        "next-symbol": "one sigmoid unit fed back to itself predicts a repeating sequence",
        "count-ones": "a linear unit learns to count: gradient check, Rprop, exploding gradients",
        "binary-adder": "a two-layer LSTM adds binary numbers bit by bit",
        "lstm-vs-gru": "how far back RNN, LSTM and GRU can learn to remember",
    },
    "language": {
        "sentiment": "words in, one label out: what a 'not' belongs to matters",
        "char-lm": "a language model of Python source, character by character, with a sample",
        "tagger": "tags that need the right context: bidirectional against unidirectional",
        "seq2seq": "an encoder and a decoder turn a string of digits around",
        "attention": "long strings turned around, with and without a look back at the source",
        "hierarchical": "words make sentences, sentences a document: two levels against one",
        "imaginet": "sentences find the picture they describe, and predict their next word",
        "handwriting": "pen strokes in, letters out, without being told which part is which (CTC)",
    },
    "memory and automata": {
        "odyssey": "eight changes to the LSTM: which of its parts are needed to remember",
        "permutations": "each symbol its own function of the state: multiplicative RNN and LSTM",
        "deep-transition": "sums of products, modulo 3: a second layer inside the loop helps",
        "gated-feedback": "upper layers talk back to lower ones, through gates that one can watch",
        "grammars": "seven regular languages: second-order and cascaded networks are soft automata",
        "jordan": "plans: a network that is fed back its own outputs makes sequences",
        "online-xor": "learning at every step of an endless sequence: real-time recurrent learning",
    },
    "dynamics and signals": {
        "echo-state": "a random network that stays as it is, and a readout learned in one step",
        "ctrnn": "an oscillator in continuous time with its equation's period, a 3-bit flip-flop",
        "plant": "a cascade of perceptrons and recurrent layers imitates a nonlinear system",
        "clockwork": "groups of units with their own clock rates generate a long signal",
        "hopfield": "patterns stored in weights, recalled from a part, lost beyond the capacity",
    },
    "all": {"all": "all of these, one after the other; --plot then names a folder"},
}
DEMOS = {name: what for theme in THEMES.values() for name, what in theme.items()}


def load(name: str) -> Demo:
    """The demonstration of that name."""
    module: Any = import_module(f"{__name__}.{name.replace('-', '_')}")
    demo: Demo = module.demo
    return demo


def run(name: str, argv: Sequence[str] = ()) -> int:
    """Run a demonstration.

    Parameters
    ----------
    name : str
        A key of `DEMOS`.
    argv : sequence of str
        Its options: `--seed N`, `--json PATH`, `--plot PATH`, `--quick` and what it adds.

    Returns
    -------
    status : int
        0 if every figure is reached (or `--quick`, which promises nothing), 1 if not.

    Raises
    ------
    ValueError
        There is no such demonstration.
    KeyboardInterrupt
        Ctrl-C.
    """
    if name not in DEMOS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(DEMOS)}")
    names = [other for other in DEMOS if other != "all"] if name == "all" else [name]
    demos = [(each, load(each)) for each in names]
    parsed = [parse(name, DEMOS[name], argv, demo) for _, demo in demos]  # all before the work
    path = parsed[0].json
    results = []
    with redirect_stdout(sys.stderr) if path == "-" else nullcontext():
        for (each, demo), options in zip(demos, parsed, strict=True):
            if name == "all" and options.plot is not None:
                folder = Path(options.plot)
                folder.mkdir(exist_ok=True)
                options.plot = str(folder / f"{each}.png")
            results.append(report(each, DEMOS[each], demo, options))
    text = json.dumps(results if name == "all" else results[0], indent=1) + "\n"
    if path == "-":
        print(text, end="")
    elif path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return 0 if parsed[0].quick or all(result["reached"] for result in results) else 1
