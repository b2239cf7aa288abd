"""Turn records into text: the table of one run, the comparison of two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

from .cases import CELLS, DIRECTIONS, SHAPES

Record = dict[str, Any]
Key = tuple[str, str, str, str]  # shape, cell, direction, library
Case = tuple[str, str, str]  # without the library: a row of the table
SPREAD_LIMIT = 0.3  # rounds further apart tell more of the machine's other work than of a library
WIDTH = 100  # columns of a table that shows the spread of every row
NAMES = {
    "rnnfast": "rnnfast",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "jax": "JAX",
    "openvino": "OpenVINO",
}


def load(path: str) -> Record:
    """Read a record.

    Raises
    ------
    ValueError
        If the file holds no record of schema 1.
    OSError
        If it cannot be read.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise ValueError(f"{path} is not a benchmark record of schema 1")
    return record


def dumps(record: Record) -> str:
    """Return a record as JSON: a line for each entry, and in `results` one for each result."""
    lines = []
    for key, value in record.items():
        text = json.dumps(value)
        if key == "results":
            text = "[" + ",".join(f"\n  {json.dumps(result)}" for result in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def times(record: Record) -> dict[Key, float]:
    """Microseconds by `(shape, cell, direction, library)`."""
    return {
        (r["shape"], r["cell"], r["direction"], r["library"]): r["us"] for r in record["results"]
    }


def peers_of(record: Record) -> list[str]:
    """The libraries other than rnnfast that have results, in the order of `NAMES`."""
    present = {r["library"] for r in record["results"]}
    return [library for library in NAMES if library in present and library != "rnnfast"]


def rows_of(record: Record) -> dict[Case, dict[str, Any]]:
    """rnnfast's results by `(shape, cell, direction)`: a row of the table each."""
    return {
        (r["shape"], r["cell"], r["direction"]): r
        for r in record["results"]
        if r["library"] == "rnnfast"
    }


def speedups(record: Record, library: str) -> dict[Case, float]:
    """Time of `library` over time of rnnfast by `(shape, cell, direction)`.

    The library `fastest` is, case by case, the fastest of all others. NumPy is one of them.
    """
    us = times(record)
    others = peers_of(record) if library == "fastest" else [library]
    ratios = {}
    for shape, cell, direction, name in us:
        theirs = [us[key] for p in others if (key := (shape, cell, direction, p)) in us]
        if name == "rnnfast" and theirs:
            case = shape, cell, direction
            ratios[case] = min(theirs) / us[*case, "rnnfast"]
    return ratios


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs)) if logs else None


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits without exponent; a dash for None."""
    if value is None:
        return "-"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f}{unit}"


def align(rows: Sequence[Sequence[str]], left: int = 2) -> list[str]:
    """Lay rows out in columns, the first `left` of them flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def spreads(record: Record) -> dict[Case, tuple[float, str]]:
    """How far the rounds of a row of the table lie apart: the most of all libraries, and which.

    Nothing is known of a single round, nor from records of earlier versions.
    """
    widest: dict[Case, tuple[float, str]] = dict.fromkeys(rows_of(record), (-1.0, ""))
    for r in record["results"]:
        row = r["shape"], r["cell"], r["direction"]
        if row in widest and len(r.get("rounds_us", ())) > 1:
            widest[row] = max(widest[row], (r["spread"], r["library"]))
    return {row: found for row, found in widest.items() if found[1]}


def with_spread(rows: list[list[str]], values: Sequence[float | None]) -> list[list[str]]:
    """Add the column of spreads; to a wide table only if some are too large, and only those."""
    marks = [value is not None and value > SPREAD_LIMIT for value in values]
    cells = [
        "" if value is None else f"{'! ' if mark else ''}{100 * value:.0f} %"
        for value, mark in zip(values, marks, strict=True)
    ]
    whole = [[*row, cell] for row, cell in zip(rows, ["spread", *cells], strict=True)]
    if max(map(len, align(whole))) > WIDTH:
        cells = [cell if mark else "" for cell, mark in zip(cells, marks, strict=True)]
        whole = [[*row, cell] for row, cell in zip(rows, ["spread", *cells], strict=True)]
    return whole if any(cells) else rows


def warning(record: Record) -> list[str]:
    """Say that a run cannot be trusted if rounds of the same work took different times."""
    busy = {row: s for row, s in spreads(record).items() if s[0] > SPREAD_LIMIT}
    if not busy:
        return []
    worst = max(busy, key=lambda row: busy[row])
    spread, library = busy[worst]
    return [
        f"NOT RELIABLE: in {len(busy)} of {len(rows_of(record))} rows, marked !, rounds differ by "
        f"more than {100 * SPREAD_LIMIT:.0f} %,",
        f"most of all by {100 * spread:.0f} %: {' '.join(worst)}, {NAMES[library]}.",
        "The machine was busy with other work. Measure again when it is idle.",
    ]


def machine_line(record: Record) -> str:
    """The machine, the threads and the versions in one line."""
    m, threads = record["machine"], record["settings"]["threads"]
    versions = ", ".join(f"{NAMES[k]} {v}" for k, v in m["versions"].items())
    return (
        f"{m['cpu']}, {threads} thread{'s' if threads > 1 else ''}, {m['isa']}, {m['compiler']}, "
        f"Python {m['python']}, {versions}"
    )


def table(record: Record) -> str:
    """One run for people: times by shape, geometric means, the machine."""
    peers = peers_of(record)
    vs = (["numpy"] if "numpy" in peers else []) + (["fastest"] if set(peers) - {"numpy"} else [])
    rows = [
        ["cell", "direction", "rnnfast us", "GFLOP/s", "% peak"]
        + [f"{NAMES[peer]} us" for peer in peers]
        + [f"vs {NAMES.get(name, name)}" for name in vs]
    ]
    ratios = {name: speedups(record, name) for name in vs}
    us = times(record)
    cases = rows_of(record)
    for case, r in cases.items():
        rows.append(
            [*case[1:], number(r["us"]), number(r["gflops"]), number(r["percent_of_peak"])]
            + [number(us.get((*case, peer))) for peer in peers]
            + [number(ratios[name].get(case), "x") for name in vs]
        )
    apart = spreads(record)
    rows = with_spread(rows, [apart[case][0] if case in apart else None for case in cases])
    text = by_shape([shape for shape, _, _ in cases], align(rows))
    text += ["", *means(record, [*peers, "fastest"] if "fastest" in vs else peers)]
    text += ["", *skipped_lines(record), peak_line(record), machine_line(record)]
    if lines_of_warning := warning(record):
        text += ["", *lines_of_warning]
    return "\n".join(text).lstrip("\n")


def by_shape(shapes: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The lines of a table under titles, a shape's each with the table's head."""
    head, *lines = lines
    text, last = [], ""
    for shape, line in zip(shapes, lines, strict=True):
        if shape != last:
            T, B, I, H = SHAPES[shape]
            text += ["", f"{shape}: T {T}, B {B}, I {I}, H {H}", head]
            last = shape
        text.append(line)
    return text


def means(record: Record, libraries: Sequence[str]) -> list[str]:
    """Geometric means over the shapes of the speed-up over each library."""
    if not libraries:
        return []
    rows = [["cell", "direction"] + [f"vs {NAMES.get(name, name)}" for name in libraries]]
    ratios = [speedups(record, name) for name in libraries]
    present = [c for c in CELLS if c in record["settings"]["cells"]]
    for cells in [*((c,) for c in present), tuple(present)]:
        for direction in DIRECTIONS:
            if direction in record["settings"]["directions"]:
                selected = [
                    geometric_mean(v for (_, c, d), v in r.items() if c in cells and d == direction)
                    for r in ratios
                ]
                name = cells[0] if len(cells) == 1 else "all"
                rows.append([name, direction, *(number(mean, "x") for mean in selected)])
    return ["speed-up of rnnfast, geometric mean over the shapes", *align(rows)]


def skipped_lines(record: Record) -> list[str]:
    """What was not timed and why, the cases of one reason in one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for s in record["skipped"]:
        case = " ".join(s[key] for key in ("shape", "cell", "direction") if key in s)
        groups.setdefault((s["library"], s["reason"]), []).append(case)
    lines = []
    for (library, reason), cases in groups.items():
        which = ", ".join(filter(None, cases)) if len(cases) <= 3 else f"{len(cases)} cases"
        lines.append(": ".join(filter(None, ["not timed", NAMES[library], which, reason])))
    return lines


def peak_line(record: Record) -> str:
    """The measured peak that the percentages refer to."""
    settings, peak = record["settings"], record["peak_gflops"]
    return (
        f"{settings['dtype']}, best of {settings['rounds']} rounds; measured multiply-add peak "
        f"{number(peak['one_core'])} GFLOP/s per core, {number(peak['all_threads'])} together"
    )


def compare(before: Record, after: Record) -> str:
    """What two records have in common, as ratios before / after: above 1 the second is faster.

    The other libraries show how much the machine itself has changed between the two.
    """
    a, b = times(before), times(after)
    common = [key for key in a if key in b]
    if not common:
        return "the two records have no case in common"
    keys = [key for key in common if key[3] == "rnnfast"]
    rows = [["shape", "cell", "direction", "A us", "B us", "A/B"]]
    rows += [[*key[:3], number(a[key]), number(b[key]), f"{a[key] / b[key]:.2f}x"] for key in keys]
    apart = spreads(before), spreads(after)
    widest = [max((s[key[:3]][0] for s in apart if key[:3] in s), default=None) for key in keys]
    rows = with_spread(rows, widest)
    text = [f"A: {machine_line(before)}", f"B: {machine_line(after)}", ""]
    text += [*align(rows, left=3), "", "A/B, geometric mean over all common cases"]
    mean_rows = []
    for library in NAMES:
        mean = geometric_mean(a[key] / b[key] for key in common if key[3] == library)
        if mean is not None:
            mean_rows.append([NAMES[library], f"{mean:.2f}x"])
    text += align(mean_rows, left=1)
    for name, record in (("A", before), ("B", after)):
        if lines := warning(record):
            text += ["", f"{name}: {lines[0]}", *lines[1:]]
    return "\n".join(text)
