"""From a graph to what the driver runs: stages of products with programs between them.

A step is: program 0, products of stage 1, program 1, products of stage 2, and so on. Backward goes
the other way round: program 0, products of the last stage, program 1, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ._gradient import Gradient, gradient, order_of, stages_of
from ._graph import LEAVES, Graph, Value, in_order
from ._products import AllProducts, Products, Table, table
from ._program import (
    AFTER,
    BEFORE,
    BLOCK,
    CONSTANTS,
    DZ,
    GRADIENTS,
    NEXT,
    PREVIOUS,
    SAVED,
    Code,
    Instruction,
    Layout,
    Place,
    Target,
    put_off,
    state_array,
)
from ._stages import Stage, stages_in

# What backward computes again from what it has anyway, instead of reading it from the tape.
CHEAP = {
    "add", "sub", "mul", "neg", "minimum", "maximum", "less", "less_equal", "equal", "not_equal",
    "relu", "abs", "where", "spread",
}  # fmt: skip
VECTORS_AT_A_TIME = 64  # of one instruction: enough to hide the cost of its dispatch


@dataclass
class Programs:
    """The programs of a pass, one table after the other, and what they need."""

    table: NDArray[np.int32]  # (instructions, 16)
    ends: list[int]  # of each segment, in rows of the table
    local: int  # reals of a row of local scratch
    rows: int  # at a time
    block: int  # reals of a row of the block's scratch
    inputs: dict[str, Place]  # what the driver copies there: x, the extra inputs by name, dy
    products: Products = field(init=False)


@dataclass
class Plan:
    """All that the driver needs to know of a cell with known sizes.

    `forward` keeps nothing for backward, `taped` does.
    """

    graph: Graph
    lanes: int
    stages: list[Stage]
    states: list[int]  # their sizes
    output: Place
    output_taped: Place
    forward: Programs
    taped: Programs
    backward: Programs
    numbers: list[tuple[int, float]]  # constants of the programs: places, which are whole vectors
    parameters: list[str]
    vectors: Table  # (parameter, place, size): those that are constants of the programs
    biases: Table  # the same of the biases of the products, which lie behind them
    given: int  # reals of both
    saved: int  # reals of a row
    dz: int
    vector_dz: dict[str, int]
    gradients: int
    extra_gradients: dict[str, int]
    x_gradient: int | None


class Planner:
    """Makes a plan."""

    def __init__(self, graph: Graph, lanes: int, resets: bool) -> None:
        self.graph, self.lanes, self.resets = graph, lanes, resets
        self.order = order_of(graph)
        self.gradient: Gradient = gradient(graph)
        self.backward_order = list(in_order(self.gradient.values()))
        self.stage = stages_of(self.order)
        self.constants = Layout(lanes, CONSTANTS)
        self.leaf_places: dict[int, Place] = {}
        self.constant_values: list[Value] = []
        self.stages = stages_in(graph, self.order, self.stage, lanes)

    def plan(self) -> Plan:
        saved = Layout(self.lanes, SAVED)
        saved_places = {id(v): saved.add(v.size) for v in self._to_save()}
        forward, output = self._forward(None)
        taped, output_taped = self._forward(saved_places)
        dz, gradients = self._dz_layout(), Layout(self.lanes, GRADIENTS)
        extra = {name: gradients.add(v.size) for name, v in self.gradient.extra.items()}
        x = gradients.add(self.gradient.x.size) if self.gradient.x is not None else None
        backward, vectors = self._backward(saved_places, dz, extra, x)
        products = AllProducts(self.graph, self.stages, self.lanes, self.constants.used)
        forward.products = products.forward(taped=False)
        taped.products = products.forward(taped=True)
        backward.products = products.backward()
        return Plan(
            self.graph, self.lanes, self.stages, [s.size for s in self.graph.states.values()],
            output, output_taped, forward, taped, backward, self._numbers(),
            list(products.parameters), self._vectors(products.parameters), products.biases(),
            self.constants.used + sum(stage.columns for stage in self.stages), saved.used,
            dz.used, vectors, gradients.used, {n: p.offset for n, p in extra.items()},
            None if x is None else x.offset,
        )  # fmt: skip

    def _numbers(self) -> list[tuple[int, float]]:
        values = [v for v in self.constant_values if v.kind == "const"]
        return [(self.leaf_places[id(v)].offset, v.number) for v in values]

    def _vectors(self, parameters: dict[str, int]) -> Table:
        places = [(v, self.leaf_places[id(v)].offset) for v in self.constant_values]
        rows = [[parameters[v.name], at, v.size] for v, at in places if v.kind == "vector"]
        return table(rows, 3)

    # -------------------------------------------------------------------------------- forward

    def _leaf(self, value: Value) -> Place | None:
        """The place of a constant or parameter, which is the same in every step."""
        if value.kind not in ("const", "vector"):
            return None
        if id(value) not in self.leaf_places:
            self.leaf_places[id(value)] = self.constants.add(value.size)
            self.constant_values.append(value)
        return self.leaf_places[id(value)]

    def _forward(self, saved: dict[int, Place] | None) -> tuple[Programs, Place]:
        graph, block = self.graph, Layout(self.lanes, BLOCK)
        places: dict[int, Place] = {}
        inputs: dict[str, Place] = {}
        used = self._used_by_elements(self.order)
        for i, state in enumerate(graph.states.values()):
            places[id(state)] = Place(state_array(i, BEFORE), 0, state.size)
        for value in self.order:
            leaf = self._leaf(value)
            if leaf is not None:
                places[id(value)] = leaf
        for name, value in {"x": graph.x, **graph.extra}.items():
            is_source = value.kind == "extra" and self._is_source(value)
            if id(value) in used or is_source:
                inputs[name] = places[id(value)] = block.add(value.size)
        for stage in self.stages:
            stage.sums = block.used
            for name in stage.linears:
                value = graph.linear(graph.linears[name])
                places[id(value)] = block.add(value.size)
            for group in stage.groups if saved else ():
                value = graph.linear(graph.linears[group.linears[0]])
                if saved and len(group.linears) == 1 and id(value) in saved:
                    places[id(value)] = group.saved = saved[id(value)]
        targets = [
            Target(value, Place(state_array(i, AFTER), 0, value.size))
            for i, value in enumerate(graph.new.values())
        ]
        direct = [group.saved for stage in self.stages for group in stage.groups]
        targets += [
            Target(v, saved[id(v)])
            for v in self.order
            if saved and id(v) in saved and saved[id(v)] not in direct
        ]
        targets += self._kept_in_block(places, targets, block)
        programs = self._programs(self.order, places, self.stage, targets, block, len(self.stages))
        programs.inputs = inputs
        for stage in self.stages:
            for source in stage.sources:
                place = None if source.value.kind == "x" else places[id(source.value)]
                if saved is None:
                    source.place = place
                else:
                    source.taped = saved.get(id(source.value), place)
        return programs, places[id(graph.output)]

    def _used_by_elements(self, values: list[Value]) -> set[int]:
        """What operations other than products read, and what is returned as it is."""
        used = {id(a) for v in values if v.kind != "linear" for a in v.args}
        return used | {id(v) for v in [*self.graph.new.values(), self.graph.output]}

    def _is_source(self, value: Value) -> bool:
        return any(source.value is value for stage in self.stages for source in stage.sources)

    def _kept_in_block(
        self, places: dict[int, Place], targets: list[Target], block: Layout
    ) -> list[Target]:
        """Values that outlive their segment and are not stored elsewhere."""
        stored = {id(t.value) for t in targets} | places.keys()
        kept: dict[int, Value] = {}
        for value in self.order:
            for argument in value.args:
                later = self.stage[id(value)] > self.stage[id(argument)] or value.kind == "linear"
                if later and id(argument) not in stored:
                    kept[id(argument)] = argument
        if id(self.graph.output) not in stored:
            kept[id(self.graph.output)] = self.graph.output
        return [Target(v, block.add(v.size)) for v in kept.values() if v is not self.graph.x]

    def _programs(
        self,
        values: list[Value],
        places: dict[int, Place],
        segment: dict[int, int],
        targets: list[Target],
        block: Layout,
        segments: int,
    ) -> Programs:
        code = Code(self.lanes, places, targets)
        instructions: list[Instruction] = []
        ends = []
        given = dict(places)
        for s in range(segments + 1):
            here = [v for v in values if segment[id(v)] == s and id(v) not in given]
            here = [v for v in here if v.kind not in LEAVES]  # x, where only products read it
            instructions += self._copies(code, given, targets, segment, s)
            instructions += code.segment_code(here)
            ends.append(len(instructions))
        table = np.array([i.numbers() for i in instructions], np.int32).reshape(-1, 16)
        rows = max(1, VECTORS_AT_A_TIME * self.lanes // code.widest)
        return Programs(table, ends, code.scratch.used, rows, block.used, {})

    def _copies(
        self, code: Code, given: dict[int, Place], targets: list[Target],
        segment: dict[int, int], s: int,
    ) -> list[Instruction]:  # fmt: skip
        """What is to be stored without being computed: leaves and results of products."""
        return [
            code.copy(given[id(t.value)], t)
            for t in targets
            if id(t.value) in given and segment[id(t.value)] == s
        ]

    # ------------------------------------------------------------------------------- backward

    def _to_save(self) -> list[Value]:
        """The values of the forward pass that backward reads and does not compute again."""
        forward = {id(v): v for v in self.order}
        free = {id(v) for v in self.order if v.kind in ("x", "state", "extra", "vector", "const")}
        free -= {id(v) for v in self.order if v.kind == "extra" and self._is_source(v)}
        if not self.resets:
            free |= {id(v) for v in self.graph.new.values()}
        needed: dict[int, Value] = {}
        own = [v for v in self.backward_order if id(v) not in forward]
        for value in [*own, *self.gradient.values()]:
            for argument in (value, *value.args):
                if id(argument) in forward:
                    needed[id(argument)] = argument
        for stage in self.stages:  # weight gradients read the sources of a product
            for source in stage.sources:
                needed[id(source.value)] = source.value
        sources = {id(source.value) for stage in self.stages for source in stage.sources}
        saved: dict[int, Value] = {}
        for value in self.order:
            again = value.kind in CHEAP and id(value) not in sources
            if id(value) not in needed or id(value) in free:
                continue
            if not (again and all(id(a) in free or id(a) in saved for a in value.args)):
                saved[id(value)] = value
        return list(saved.values())

    def _dz_layout(self) -> Layout:
        dz = Layout(self.lanes, DZ)
        for stage in self.stages:
            stage.dz = dz.used
            dz.used += stage.columns
        return dz

    def _backward(
        self, saved: dict[int, Place], dz: Layout, extra: dict[str, Place], x: Place | None
    ) -> tuple[Programs, dict[str, int]]:
        graph, gradient_, block = self.graph, self.gradient, Layout(self.lanes, BLOCK)
        places = dict(saved)
        inputs: dict[str, Place] = {}
        for i, (name, state) in enumerate(graph.states.items()):
            size = state.size
            places[id(state)] = Place(state_array(i, BEFORE), 0, size)
            places.setdefault(id(graph.new[name]), Place(state_array(i, AFTER), 0, size))
            next_ = graph.leaf("given", f"next:{name}", size)
            places[id(next_)] = Place(state_array(i, NEXT), 0, size)
        dy = graph.leaf("given", "dy", graph.output.size)
        inputs["dy"] = places[id(dy)] = block.add(dy.size)
        self._back_products(places, block)
        needed = self._cut(self.backward_order, places)
        for value in needed:
            leaf = self._leaf(value)
            if leaf is not None:
                places[id(value)] = leaf
        for name, value in {"x": graph.x, **graph.extra}.items():
            if any(value is v for v in needed):
                inputs[name] = places[id(value)] = block.add(value.size)
        vectors = {name: dz.add(v.size) for name, v in gradient_.vectors.items()}
        targets = self._gradient_targets(places, extra, x, vectors)
        segment = self._segments(needed, places, targets)
        targets += self._across(needed, segment, places, targets, block)
        programs = self._programs(needed, places, segment, targets, block, len(self.stages))
        programs.inputs = inputs
        return programs, {name: place.offset for name, place in vectors.items()}

    def _back_products(self, places: dict[int, Place], block: Layout) -> None:
        whole = {id(value): i for i, value in enumerate(self._state_gradients())}
        for name, (stage, source) in self.gradient.back.items():
            given = id(self.graph.leaf("given", name, source.size))
            if given in whole:  # it is all of a state's gradient, and goes there
                place = Place(state_array(whole[given], PREVIOUS), 0, source.size)
            else:
                place = block.add(source.size)
            places[id(self.graph.leaf("given", name, source.size))] = place
            for operand in self.stages[stage - 1].sources:
                if operand.value is source:
                    operand.back = place

    def _cut(self, values: list[Value], places: dict[int, Place]) -> list[Value]:
        """The values that are needed if those with a place are there."""
        needed: set[int] = set()
        for value in reversed(values):
            wanted = id(value) in needed or any(value is v for v in self.gradient.values())
            if wanted:
                needed.add(id(value))
                if id(value) not in places:
                    needed |= {id(a) for a in value.args}
        return [v for v in values if id(v) in needed]

    def _state_gradients(self) -> list[Value]:
        return [self.gradient.states[name] for name in self.graph.states]

    def _gradient_targets(
        self, places: dict[int, Place], extra: dict[str, Place], x: Place | None,
        vectors: dict[str, Place],
    ) -> list[Target]:  # fmt: skip
        targets = []
        for stage in self.stages:
            for name, first in zip(stage.linears, stage.first, strict=True):
                value = self.gradient.dz[name]
                targets.append(Target(value, Place(DZ, stage.dz + first, value.size), masked=True))
        for i, value in enumerate(self._state_gradients()):
            place = Place(state_array(i, PREVIOUS), 0, value.size)
            if places.get(id(value)) != place:
                targets.append(Target(value, place))
        targets += [Target(self.gradient.extra[name], place) for name, place in extra.items()]
        targets += [Target(self.gradient.vectors[name], place) for name, place in vectors.items()]
        if x is not None and self.gradient.x is not None:
            targets.append(Target(self.gradient.x, x))
        return targets

    def _segments(
        self, values: list[Value], places: dict[int, Place], targets: list[Target]
    ) -> dict[int, int]:
        """After how many products each value can be computed."""
        segment: dict[int, int] = {}
        for value in values:
            if value.kind == "given" and value.name in self.gradient.back:
                segment[id(value)] = len(self.stages) + 1 - self.gradient.back[value.name][0]
            else:
                segment[id(value)] = max((segment.get(id(a), 0) for a in value.args), default=0)
        put_off(values, segment, places, targets)
        return segment

    def _across(
        self, values: list[Value], segment: dict[int, int], places: dict[int, Place],
        targets: list[Target], block: Layout,
    ) -> list[Target]:  # fmt: skip
        """Values that a later segment reads and that are not stored elsewhere."""
        stored = {id(t.value) for t in targets} | places.keys()
        across: dict[int, Value] = {}
        for value in values:
            for a in value.args if id(value) not in places else ():
                if segment[id(value)] > segment[id(a)] and id(a) not in stored:
                    across[id(a)] = a
        return [Target(v, block.add(v.size)) for v in across.values()]


def make_plan(graph: Graph, lanes: int, resets: bool = False) -> Plan:
    """Plan the passes of a cell for vectors of so many lanes.

    With `resets` the tape keeps the new states that backward reads. Those of the next step, which
    are the same rows, are set to zero where an episode begins.
    """
    return Planner(graph, lanes, resets).plan()
