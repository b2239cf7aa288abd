"""The products of a pass as tables of whole numbers, which the driver reads (`_core/cells.pxd`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ._graph import Graph, bias_name
from ._program import BLOCK, DZ, Place, padded
from ._stages import Group, Source, Stage

Table = NDArray[np.intp]


@dataclass
class AllProducts:
    """The products of all passes."""

    graph: Graph
    stages: list[Stage]
    lanes: int
    first_bias: int  # biases lie behind the constants of the programs

    def __post_init__(self) -> None:
        self.parameters = {name: i for i, name in enumerate(self.graph.shapes())}

    def forward(self, taped: bool) -> Products:
        products, bias = Products(self.lanes, self.parameters), self.first_bias
        for number, stage in enumerate(self.stages):
            for group in stage.groups:
                to = Place(BLOCK, stage.sums + group.start, group.columns)
                if taped and group.saved is not None:
                    to = group.saved
                products.add_forward(number, group, to, bias + group.start, taped)
            bias += stage.columns
        return products

    def backward(self) -> Products:
        """Those of the last stage come first, and at the very end the one that gives dx."""
        products = Products(self.lanes, self.parameters)
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            for source in stage.sources:
                if source.back is not None:
                    products.add_back(number, source.back, source, [stage])
        products.add_back(-1, Place(BLOCK, 0, 0), Source(self.graph.x), self.stages)
        return products

    def biases(self) -> Table:
        """Where the bias of each linear goes: (parameter, place, size)."""
        rows, at = [], self.first_bias
        for stage in self.stages:
            for name, first in zip(stage.linears, stage.first, strict=True):
                linear = self.graph.linears[name]
                if linear.bias:
                    rows.append([self.parameters[bias_name(name)], at + first, linear.size])
            at += stage.columns
        return table(rows, 3)


@dataclass
class Products:
    """The products of a pass by stage, in the order of their computation.

    Each has a number of factors, and each factor a number of parts: the weights of one linear.
    """

    lanes: int
    numbers: dict[str, int]  # of the parameters
    products: list[list[int]] = field(default_factory=list)
    factors: list[list[int]] = field(default_factory=list)
    parts: list[list[int]] = field(default_factory=list)
    weights: int = 0  # reals that are packed
    projected: int = 0  # columns that x alone has a part in

    def add_forward(self, stage: int, group: Group, to: Place, bias: int, taped: bool) -> None:
        """Add the product of a group. It begins with the bias."""
        projected = -1
        if group.factors and group.factors[0].source.value.kind == "x":
            projected = self.projected
            self.projected += group.columns
        self._begin(stage, to, group.columns, bias, projected, len(group.factors))
        for source, weights in group.factors:
            place = source.taped if taped else source.place
            K = source.value.size
            self._add_factor(place, K, group.columns * K, weights, group)

    def add_back(self, stage: int, to: Place, source: Source, stages: Iterable[Stage]) -> None:
        """Add the product that gives the gradient of a source."""
        found = [
            (of, group, factor.weights)
            for of in stages
            for group in of.groups
            for factor in group.factors
            if factor.source.value is source.value
        ]
        K = source.value.size
        self._begin(stage, to, K, -1, -1, len(found))
        for of, group, weights in found:
            place = Place(DZ, of.dz + group.start, group.columns)
            reals = group.columns * padded(K, self.lanes)
            self._add_factor(place, group.columns, reals, weights, group)

    def _begin(
        self, stage: int, to: Place, columns: int, bias: int, projected: int, factors: int
    ) -> None:
        first = len(self.factors)
        row = [stage, to.array, to.offset, columns, bias, projected, first, factors]
        self.products.append(row)

    def _add_factor(
        self, place: Place | None, K: int, reals: int, weights: list[str], group: Group
    ) -> None:
        array, offset = (-1, 0) if place is None else (place.array, place.offset)
        self.factors.append([array, offset, K, self.weights, len(self.parts), len(weights)])
        self.weights += padded(reals, self.lanes)
        for name, first, size in zip(weights, group.first, group.sizes, strict=True):
            self.parts.append([self.numbers[name], first, size])

    def tables(self) -> tuple[Table, Table, Table]:
        return table(self.products, 8), table(self.factors, 6), table(self.parts, 3)


def table(rows: list[list[int]], columns: int) -> Table:
    return np.array(rows, np.intp).reshape(-1, columns)
