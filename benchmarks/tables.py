"""Print benchmarks/results.md, the tables of all machines, from the records.

python benchmarks/tables.py > benchmarks/results.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES
from rnnfast.bench.report import Record, geometric_mean, load, number, speedups, times

RECORDS = Path(__file__).parent / "records"
# The names of the records, those of the present version first, and what there is to say of them.
MACHINES = {
    "epyc-zen3": "AMD EPYC (Zen 3, AVX2), two cores of a virtual machine.",
    "epyc-zen4": (
        "AMD EPYC (Zen 4, AVX-512), two cores of a virtual machine. Version b1779fa, measured"
        " by older rules: four rounds in a fixed order; JAX with `unroll` 1 and the weights "
        "as arguments."
    ),
    "xeon-avx512": (
        "Intel Xeon (Granite Rapids, AVX-512), two cores of a virtual machine. An earlier "
        "version, measured by the same older rules."
    ),
}
MACHINE = next(iter(MACHINES))
Result = dict[str, Any]
Show = Callable[[Result], str]
Label = Callable[[str, Result], str]
COLUMNS = [f"{cell.upper()} {direction}" for cell in CELLS for direction in DIRECTIONS]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*names: str, left: int = 1) -> list[str]:
    """The first line of a table and the one below it: `left` columns flush left, others right."""
    return [row(*names), "|" + "---|" * left + "--:|" * (len(names) - left)]


# --------------------------------------------------------------------------------- the libraries


def duration(us: float) -> str:
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{value:.3g} {unit}"


def factor(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 2 else 2}f}x"


def libraries(record: Record) -> list[str]:
    """README: rnnfast's time, its speed-up over PyTorch and over the fastest library."""
    us, torch, fastest = times(record), speedups(record, "torch"), speedups(record, "fastest")
    lines = head("shape (T, B, I, H)", "", *(cell.upper() for cell in CELLS), left=2)
    for shape, sizes in SHAPES.items():
        for direction in DIRECTIONS:
            cases = [(shape, cell, direction) for cell in CELLS]
            first = f"{shape} {sizes}" if direction == DIRECTIONS[0] else ""
            entries = (
                " · ".join(
                    [duration(us[*case, "rnnfast"]), factor(torch[case]), factor(fastest[case])]
                )
                for case in cases
            )
            lines.append(row(first, direction, *entries))
    return lines


def glance(record: Record) -> list[str]:
    """README: time, speed-up over PyTorch and per cent of the peak, of GRU and LSTM."""
    us, torch = times(record), speedups(record, "torch")
    peak = {
        (r["shape"], r["cell"], r["direction"]): f"{r['percent_of_peak']:.0f} %"
        for r in record["results"]
        if r["library"] == "rnnfast"
    }
    columns = [(cell, direction) for cell in ("gru", "lstm") for direction in DIRECTIONS]
    lines = head("shape (T, B, I, H)", *(f"{c.upper()} {d}" for c, d in columns))
    for shape, sizes in SHAPES.items():
        cases = [(shape, cell, direction) for cell, direction in columns]
        entries = (
            " · ".join([duration(us[*case, "rnnfast"]), factor(torch[case]), peak[case]])
            for case in cases
        )
        lines.append(row(f"{shape} {sizes}", *entries))
    return lines


def summary(record: Record) -> str:
    """Geometric mean and least of the speed-ups over the fastest library."""
    ratios = speedups(record, "fastest")
    parts = []
    for direction in DIRECTIONS:
        values = [ratio for (_, _, way), ratio in ratios.items() if way == direction]
        mean = geometric_mean(values)
        parts.append(f"{direction} {mean:.2f}, least {min(values):.2f}")
    peak = number(record["peak_gflops"]["one_core"])
    return (
        f"Geometric mean over the fastest library: {'; '.join(parts)}. "
        f"Multiply-add peak {peak} GFLOP/s per core."
    )


# ------------------------------------------------------------------------------------- the claims


def marked(result: Result, text: str) -> str:
    """In italics what misses its goal."""
    return f"*{text}*" if result["met"] is False else text


def two_digits(result: Result) -> str:
    return marked(result, f"{result['measured']:.2f}")


def goals(results: list[Result]) -> list[str]:
    """How many goals each group meets."""
    lines = head("group", "goals", "met")
    for group in dict.fromkeys(r["group"] for r in results):
        met = [r["met"] for r in results if r["group"] == group and r["met"] is not None]
        lines.append(row(group, str(len(met)), str(sum(met))))
    return lines


def matrix(results: list[Result], label: Label, show: Show, first: str = "") -> list[str]:
    """A row for each shape, a column for each cell and direction."""
    found: dict[str, dict[str, str]] = {}
    for result in results:
        for column in COLUMNS:
            name = result["what"].replace(column, "").strip()
            if name != result["what"]:
                found.setdefault(label(name, result), {})[column] = show(result)
    lines = head(first, *COLUMNS)
    return lines + [row(name, *(r.get(c, "-") for c in COLUMNS)) for name, r in found.items()]


def peak(results: list[Result]) -> list[str]:
    def entry(r: Result) -> str:
        bound = r["note"].removeprefix("at most ").partition(" ")[0]
        return " / ".join([marked(r, f"{r['measured']:.0f}"), f"{r['goal']:g}", *bound.split()])

    def label(shape: str, _: Result) -> str:
        return f"{shape} {SHAPES.get(shape, (30, 16, 1024, 1024))}"

    return matrix(results, label, entry, "shape (T, B, I, H)")


def ratios(results: list[Result]) -> list[str]:
    whole = [r for r in results if r["what"] != "multiply-add peak"]
    return matrix(whole, lambda name, _: name, two_digits, "shape")


def odd(results: list[Result]) -> list[str]:
    def entry(r: Result) -> str:
        return marked(r, f"{r['note'].partition(' ')[0]} ({r['measured']:.1f})")

    return matrix(results, lambda name, r: f"{name}, beside {r['note'].split(' at ')[1]}", entry)


def growth(results: list[Result]) -> list[str]:
    def label(name: str, r: Result) -> str:
        span, fixed = r["note"].partition(":")[0].split(" at ")
        return f"{name[-1]} from {span}, {fixed}"

    return matrix(results, label, two_digits)


def latency(results: list[Result]) -> list[str]:
    """A row for each shape and direction, a column for each cell."""
    lines = head("", *(cell.upper() for cell in CELLS), "goal")
    for k in range(0, len(results), len(CELLS)):
        three = results[k : k + len(CELLS)]
        shape, _, direction = three[0]["what"].split()
        times = [marked(r, f"{r['measured']:.3g}") for r in three]
        goal = f"≤ {three[0]['goal']:g} µs"
        lines.append(row(f"{shape} {SHAPES[shape]} {direction}", *times, goal))
    return lines


def modules(results: list[Result]) -> list[str]:
    lines = head("", "torch.nn", "rnnfast", "speed-up", "goal")
    for r in results:
        ours, theirs = r["note"].split(": ")[-1].split(", ")[-2:]
        theirs = theirs.removeprefix("PyTorch ")
        speed = marked(r, f"{r['measured']:.2f} x")
        lines.append(row(r["what"], theirs, ours, speed, f"≥ {r['goal']:g} x"))
    return lines


def listing(results: list[Result]) -> list[str]:
    """A row for each result, beside its goal."""
    lines = head("", "measured", "goal")
    for r in results:
        unit = f" {r['unit']}" if r["unit"] else ""
        goal = "-" if r["goal"] is None else f"{'≥' if r['at_least'] else '≤'} {r['goal']:g}{unit}"
        note = f" ({r['note']})" if r["note"] else ""
        entries = r["what"] + note, marked(r, number(r["measured"]) + unit), goal
        lines.append(row(*entries).replace("->", " → ").replace(" us", " µs"))
    return lines


TABLES = {
    "peak": peak,
    "latency": latency,
    "modules": modules,
    "float64": ratios,
    "isa": ratios,
    "threads": ratios,
    "odd": odd,
    "growth": growth,
}


WHAT = {
    "goals": (
        "Goals, set beforehand for a Zen 4, and how many are met. What misses its goal is in "
        "italics below."
    ),
    "peak": (
        "Per cent of the peak, forward through a stream and training of a layer: measured / "
        "goal / what the activations leave if all their operations need the ports of the "
        "multiply-adds."
    ),
    "stream": (
        "One row, weights packed once: `stream.step` from Python, `stream.run` of 1000 steps."
    ),
    "latency": "Microseconds of a whole call: `layer(x)`, or `layer.forward` and `layer.backward`.",
    "lengths": "Lengths drawn from 1 to T = 100, B = 32, I = H = 128.",
    "cells": "RNN, GRU and LSTM written as cells: speed over that of the built-in layers.",
    "modules": (
        "The layers of `rnnfast.torch` against those of `torch.nn`: forward and backward "
        "through autograd."
    ),
    "float64": "Speed in float64 over float32; a vector holds half as many numbers.",
    "isa": "Speed of the AVX2 path over the default one.",
    "threads": "Speed of two threads over one.",
    "odd": (
        "Per cent of the peak at sizes that fill no vectors or tiles, and in brackets the "
        "points below the size beside it. T = 50, I = H."
    ),
    "growth": "Time per row and step at I = H = 128: the longest over the shortest.",
    "memory": (
        "Resident memory: a training step of an LSTM at B = 64, I = H = 512; what 1000 calls "
        "leave behind."
    ),
}


def claims(record: Record) -> Iterator[tuple[str, list[str]]]:
    """A title and a table for each group."""
    results = record["results"]
    yield "goals", goals(results)
    for group in dict.fromkeys(r["group"] for r in results):
        yield group, TABLES.get(group, listing)([r for r in results if r["group"] == group])


def page() -> str:
    """All of results.md."""
    lines = [
        "# Results",
        "",
        "Made from [records/](records) by `python benchmarks/tables.py`.",
        "[README.md](README.md) has the method. The first machine has the present version,",
        "the others keep what was measured there.",
    ]
    for name, note in MACHINES.items():
        lines += ["", f"## {name}", "", note]
        for threads in (1, 2):
            if not (RECORDS / f"{name}-{threads}.json").exists():
                continue
            record = load(str(RECORDS / f"{name}-{threads}.json"))
            lines += ["", f"### Against other libraries, {threads} thread{'s' * (threads > 1)}", ""]
            lines += [
                "Time · speed-up over PyTorch · speed-up over the fastest library. "
                + summary(record),
                "",
            ]
            lines += libraries(record)
        if (path := RECORDS / f"{name}-claims.json").exists():
            for title, table in claims(load(str(path))):
                lines += ["", f"### {title}", "", WHAT[title], "", *table]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
