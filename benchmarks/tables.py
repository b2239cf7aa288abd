"""Print the tables of README.md and docs/performance.md, as Markdown, from the records.

python benchmarks/tables.py                                # of the machine of the pages
python benchmarks/tables.py benchmarks/records/epyc-zen4   # -1.json, -2.json and -claims.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES
from rnnfast.bench.report import Record, geometric_mean, load, number, speedups, times

RECORDS = Path(__file__).parent / "records"
MACHINE, OTHER = "epyc-zen4", "xeon-avx512"
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


def summary(record: Record) -> str:
    """README: geometric mean and least of the speed-ups over the fastest library."""
    ratios = speedups(record, "fastest")
    parts = []
    for direction in DIRECTIONS:
        values = [ratio for (_, _, way), ratio in ratios.items() if way == direction]
        mean = geometric_mean(values)
        parts.append(f"{direction}: geometric mean {mean:.2f}, least {min(values):.2f}")
    peak = number(record["peak_gflops"]["one_core"])
    return f"over the fastest library, {'; '.join(parts)}; peak {peak} GFLOP/s per core"


# ------------------------------------------------------------------------------------- the claims


def marked(result: Result, text: str) -> str:
    """In italics what misses its goal."""
    return f"*{text}*" if result["met"] is False else text


def two_digits(result: Result) -> str:
    return marked(result, f"{result['measured']:.2f}")


def goals(results: list[Result], others: list[Result]) -> list[str]:
    """How many goals each group meets, on the machine and on another one."""
    lines = head("group", "goals", "met", "on a Xeon")
    for group in dict.fromkeys(r["group"] for r in results):
        met, met_there = (
            [r["met"] for r in some if r["group"] == group and r["met"] is not None]
            for some in (results, others)
        )
        lines.append(row(group, str(len(met)), str(sum(met)), str(sum(met_there))))
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


def claims(record: Record, other: Record) -> Iterator[tuple[str, list[str]]]:
    """docs/performance.md: a title and a table each."""
    results = record["results"]
    yield "goals", goals(results, other["results"])
    for group in dict.fromkeys(r["group"] for r in results):
        yield group, TABLES.get(group, listing)([r for r in results if r["group"] == group])


def main(prefix: str) -> None:
    for threads in (1, 2):
        record = load(f"{prefix}-{threads}.json")
        print(f"## {threads} thread(s) {summary(record)}", "", *libraries(record), "", sep="\n")
    other = load(str(RECORDS / f"{OTHER}-claims.json"))
    for title, lines in claims(load(f"{prefix}-claims.json"), other):
        print(f"## {title}", "", *lines, "", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:] or [str(RECORDS / MACHINE)])
