"""Stages: which linears are computed side by side, and by which products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ._graph import Graph, Value, weight_name
from ._program import Place, padded


@dataclass
class Source:
    """What a stage multiplies by weights: x itself (no place), or what is in a place."""

    value: Value
    place: Place | None = None  # without a tape
    taped: Place | None = None  # with one
    back: Place | None = None  # where its gradient by way of this stage goes


class Factor(NamedTuple):
    """A source of a group, and the weights that it is multiplied by: one matrix per linear."""

    source: Source
    weights: list[str]


@dataclass
class Group:
    """Linears of the same sources, side by side: one product of several factors."""

    linears: list[str]
    first: list[int]  # the column of each, counted from the group's first one
    sizes: list[int]
    factors: list[Factor]
    start: int  # the group's first column in the stage
    columns: int
    saved: Place | None = None  # where its sums go at once in the tape


@dataclass
class Stage:
    """Linears whose products do not wait for each other: their results are columns of one array."""

    groups: list[Group]
    columns: int
    sources: list[Source]
    sums: int = 0  # where the columns are in the scratch of the block
    dz: int = 0  # where their gradient is in a row of dz
    linears: list[str] = field(init=False)
    first: list[int] = field(init=False)  # the column of each

    def __post_init__(self) -> None:
        self.linears = [name for group in self.groups for name in group.linears]
        self.first = [group.start + first for group in self.groups for first in group.first]


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
    sources: dict[int, Source] = {}
    members: dict[tuple[int, ...], list[Value]] = {}
    for value in linears:
        own = _ordered(graph, value)
        for _, source in own:
            sources.setdefault(id(source), Source(source))
        members.setdefault(tuple(id(source) for _, source in own), []).append(value)
    groups = []
    columns = 0
    for key, values in members.items():
        group = _group(graph, values, [sources[k] for k in key], columns, lanes)
        groups.append(group)
        columns += group.columns
    return Stage(groups, columns, list(sources.values()))


def _ordered(graph: Graph, linear: Value) -> list[tuple[str, Value]]:
    """The sources of a linear by their labels, x first: its product can be computed ahead."""
    sources = graph.linears[linear.name].sources.items()
    return sorted(sources, key=lambda item: item[1].kind != "x")


def _group(
    graph: Graph, linears: list[Value], sources: list[Source], start: int, lanes: int
) -> Group:
    names = [value.name for value in linears]
    labels = [[label for label, _ in _ordered(graph, value)] for value in linears]
    first, columns = [], 0
    for value in linears:
        first.append(columns)
        columns += padded(value.size, lanes)
    factors = [
        Factor(source, [weight_name(n, own[i]) for n, own in zip(names, labels, strict=True)])
        for i, source in enumerate(sources)
    ]
    return Group(names, first, [value.size for value in linears], factors, start, columns)
