"""What the demonstrations share: options, training that Ctrl-C ends, figures beside their goals."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rnnfast import num_threads
from rnnfast._command_line import Parser, why_not_writable
from rnnfast.training import History, fit, new_figure


@dataclass
class Figure:
    """A measured value, what it should be, and whether it is."""

    name: str
    value: float
    goal: str
    reached: bool


def at_least(name: str, value: float, bound: float) -> Figure:
    """A figure that should not be below a bound."""
    return Figure(name, float(value), f">= {bound:g}", bool(value >= bound))


def at_most(name: str, value: float, bound: float) -> Figure:
    """A figure that should not be above a bound."""
    return Figure(name, float(value), f"<= {bound:.4g}", bool(value <= bound))


def near(name: str, value: float, target: float, tolerance: float) -> Figure:
    """A figure that should be at a target."""
    goal = f"{target:g} +- {tolerance:g}"
    return Figure(name, float(value), goal, bool(abs(value - target) <= tolerance))


@dataclass
class Result:
    """What a demonstration returns: figures, how to draw them, and further numbers for the JSON."""

    figures: list[Figure]
    plot: Callable[[], Any]
    details: dict[str, Any] = field(default_factory=dict)


Options: TypeAlias = argparse.Namespace


@dataclass
class Demo:
    """A demonstration: `main(options)`, and what it adds to the options."""

    main: Callable[[Options], Result]
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


def parse(name: str, description: str, argv: Sequence[str], demo: Demo) -> Options:
    """The options of a demonstration from its arguments; wrong ones end with a usage message."""
    parser = Parser(prog=f"rnnfast demo {name}", description=description)
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="random seed (0)")
    add("--json", type=output, metavar="PATH", help="write the figures there (-: print them alone)")
    where, kind = ("into this folder", folder) if name == "all" else ("there", output)
    add("--plot", type=kind, metavar="PATH", help=f"draw the result {where} (needs matplotlib)")
    add("--quick", action="store_true", help="a few seconds at most; may fall short of the goals")
    add("--threads", type=int, default=1, metavar="N", help="threads (1: the models are small)")
    for option, keywords in demo.options.items():
        add(option, **keywords)
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"argument --seed: {options.seed} is negative")
    if not 1 <= options.threads <= 256:
        parser.error(f"argument --threads: {options.threads} is not from 1 to 256")
    if options.plot is not None:
        try:
            new_figure()
        except ImportError as error:
            parser.error(f"argument --plot: {error}")
    return options


def output(path: str) -> str:
    """A path to write to, refused before the work if that cannot be done."""
    if path != "-" and (reason := why_not_writable(path)):
        raise argparse.ArgumentTypeError(reason)
    return path


def folder(path: str) -> str:
    """A folder that is there or can be made."""
    if Path(path).exists() and not Path(path).is_dir():
        raise argparse.ArgumentTypeError("it is no directory")
    return path if Path(path).is_dir() else output(path)


def report(name: str, description: str, demo: Demo, options: Options) -> dict[str, Any]:
    """Run a demonstration, print its figures, draw its plot; the content of its JSON."""
    print(f"{name}: {description}\n")
    started = time.perf_counter()
    with num_threads(options.threads):
        result = demo.main(options)
    seconds = time.perf_counter() - started

    width = max(len(figure.name) for figure in result.figures)
    print(f"\n{'figure':<{width}}  {'measured':>10}  should be")
    for figure in result.figures:
        verdict = "" if figure.reached else "  NOT REACHED"
        print(f"{figure.name:<{width}}  {figure.value:>10.4g}  {figure.goal}{verdict}")
    reached = all(figure.reached for figure in result.figures)
    remark = ", a quick run" if options.quick else ""
    print(f"{seconds:.1f} s{remark}{', short of the goals' if remark and not reached else ''}\n")
    if options.plot is not None:
        result.plot().savefig(options.plot, dpi=100)
    return {
        "name": name,
        "reached": reached,
        "figures": [vars(figure) for figure in result.figures],
        "seed": options.seed,
        "quick": options.quick,
        "seconds": round(seconds, 3),
        **result.details,
    }


def train(*arguments: Any, **options: Any) -> History:
    """`rnnfast.training.fit`; here Ctrl-C ends the whole demonstration."""
    history = fit(*arguments, **options)
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def steps(
    loss_and_grads: Any, optimizer: Any, **options: Any
) -> Callable[[Sequence[Any]], list[float]]:
    """`train` over given batches, to be timed: the mean loss of every call, as a list."""
    return lambda batches: (
        train(
            loss_and_grads, optimizer, lambda rng: batches, epochs=1, progress=False, **options
        ).loss
    )


def plot_shares(
    histories: Mapping[str, History], xlabel: str, ylabel: str, title: str, line: Any = None
) -> Any:
    """The held-out share of right answers over the epochs, for histories of error rates.

    `line` is a pair of a value and a label, drawn dotted.
    """
    figure = new_figure()
    axes = figure.subplots()
    for label, history in histories.items():
        axes.plot(range(1, history.epochs + 1), 1 - np.array(history.held_out), ".-", label=label)
    if line is not None:
        axes.axhline(line[0], color="gray", linestyle=":", label=line[1])
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, 1.05))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure
