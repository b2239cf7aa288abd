"""Stages: which linears are computed side by side, and by which products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ._graph import Graph, Value
from ._program import Place, padded


@dataclass
class Source:
    """What a stage multiplies by weights: x itself (no place), or what is in a place."""

    value: Value
    place: Place | None = None  # without a tape
    taped: Place | None = None  # with one
    back: Place | None = None  # where its gradient by way of this stage goes


class Run(NamedTuple):
    """Columns side by side of linears that have the same source: one product."""

    source: Source
    first: int
    columns: int
    begins: bool  # no earlier run has these columns: their sums begin with the bias
    begins_back: (
        bool  # in backward, which takes runs from the last on: no earlier one of the source
    )


@dataclass
class Stage:
    """Linears side by side: their results are columns of one array."""

    linears: list[str]
    first: list[int]  # the column of each
    columns: int
    sums: int  # where they are in the scratch of the block
    dz: int  # where their gradient is in a row of dz
    sources: list[Source] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


def stages_in(
    graph: Graph, order: list[Value], stage: Mapping[int, int], lanes: int
) -> list[Stage]:
    """Return the stages; `stage` has the number of each value, from 1 on for linears."""
    linears = [v for v in order if v.kind == "linear"]
    count = max((stage[id(v)] for v in linears), default=0)
    return [
        _lay_out(graph, [v for v in linears if stage[id(v)] == s + 1], lanes) for s in range(count)
    ]


def _lay_out(graph: Graph, linears: list[Value], lanes: int) -> Stage:
    """Put the linears that share a source beside each other."""
    sources: dict[int, Source] = {}
    for value in linears:
        for source in graph.linears[value.name].sources.values():
            sources.setdefault(id(source), Source(source))

    def has(value: Value) -> list[bool]:
        own = {id(s) for s in graph.linears[value.name].sources.values()}
        return [key in own for key in sources]

    # Of two sources: linears with the first alone, with both, with the second alone.
    ordered = sorted(linears, key=lambda v: [h == bool(i % 2) for i, h in enumerate(has(v))])
    stage = Stage([v.name for v in ordered], [], 0, 0, 0, list(sources.values()))
    for value in ordered:
        stage.first.append(stage.columns)
        stage.columns += padded(value.size, lanes)
    stage.runs = _runs_of(stage, [has(v) for v in ordered])
    return stage


def _runs_of(stage: Stage, has: list[list[bool]]) -> list[Run]:
    """The products of a stage; `has` says which linear has which source."""
    runs: list[Run] = []
    begun = [False] * len(stage.linears)
    ends = [*stage.first[1:], stage.columns]
    for i, source in enumerate(stage.sources):
        own: list[Run] = []
        for number, (first, end) in enumerate(zip(stage.first, ends, strict=True)):
            if not has[number][i]:
                continue
            run = Run(source, first, end - first, not begun[number], False)
            last = own[-1] if own else None
            if last and last.first + last.columns == first and last.begins == run.begins:
                own[-1] = last._replace(columns=last.columns + run.columns)
            else:
                own.append(run)
            begun[number] = True
        own[-1] = own[-1]._replace(begins_back=True)
        runs += own
    return runs
