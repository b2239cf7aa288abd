"""Point programs: straight-line code for the values of one segment of a step.

A program is a table of whole numbers, which `csrc/program.h` runs on the rows of a block. An
operand is a place: an array, an offset in it, and whether it has a vector of units or one number
for all of them (L equal lanes). What an array is at a given step is up to the driver
(`_core/cells.pyx`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ._graph import REDUCTIONS, Value

# The order of the operations in csrc/rnnfast.h.
OPERATIONS = (
    "spread", "add", "sub", "mul", "div", "minimum", "maximum", "less", "less_equal", "equal",
    "not_equal", "neg", "sigmoid", "tanh", "relu", "exp", "log", "sqrt", "softplus", "abs", "where",
    "multiply_add", "multiply_sub", "subtract_product", "sigmoid_back", "tanh_back",
    "sigmoid_back_product", "tanh_back_product", "outer", "outer_left", "outer_right", "total",
    "largest", "inverse_deviation", "normalized", "normalized_back",
)  # fmt: skip
NUMBER_OF = {name: i for i, name in enumerate(OPERATIONS)}
# The arrays that places are in, of any program; each state adds four (see `state_array`).
LOCAL, BLOCK, CONSTANTS, SAVED, DZ, GRADIENTS, FIRST_STATE_ARRAY = range(7)
BEFORE, AFTER, NEXT, PREVIOUS = range(4)


def state_array(state: int, which: int) -> int:
    """The array of a state: before or after the step, or its gradient from and for other steps."""
    return FIRST_STATE_ARRAY + 4 * state + which


class Place(NamedTuple):
    """Where a value lies. `size` 1 means L equal lanes."""

    array: int
    offset: int
    size: int


@dataclass
class Layout:
    """The vectors of one row of an array, one after another."""

    lanes: int
    array: int
    used: int = 0

    def add(self, size: int) -> Place:
        place = Place(self.array, self.used, size)
        self.used += padded(size, self.lanes)
        return place


def padded(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


@dataclass
class Scratch:
    """Places that are used again when the value in them is no longer needed."""

    lanes: int
    used: int = 0
    free: dict[int, list[int]] = field(default_factory=dict)

    def take(self, size: int) -> Place:
        reals = padded(size, self.lanes)
        if self.free.get(reals):
            return Place(LOCAL, self.free[reals].pop(), size)
        self.used += reals
        return Place(LOCAL, self.used - reals, size)

    def give(self, place: Place) -> None:
        self.free.setdefault(padded(place.size, self.lanes), []).append(place.offset)


class Instruction(NamedTuple):
    """One operation on all rows. `masked`: lanes beyond the size become zero in the result."""

    operation: str
    size: int
    inner: int  # size of the last factor of an outer product
    masked: bool
    result: Place
    operands: tuple[Place, ...]

    def numbers(self) -> list[int]:
        """The row of the table."""
        places = [self.result, *self.operands]
        places += [places[0]] * (4 - len(places))
        masked = self.result.size if self.masked and self.result.size > 1 else 0
        row = [NUMBER_OF[self.operation], self.size, self.inner, masked]
        for place in places:
            row += [place.array, place.offset, int(place.size > 1)]
        return row


@dataclass
class Target:
    """A place that the value of a segment has to be in, besides the one it is computed in."""

    value: Value
    place: Place
    masked: bool = False


class Code:
    """Writes the programs of one pass, segment by segment.

    Parameters
    ----------
    places : dict
        Where values are that need not be computed, by their id; grows with those that are.
    targets : list of Target
        What is to be computed, and where to.
    """

    def __init__(self, lanes: int, places: dict[int, Place], targets: Iterable[Target]) -> None:
        self.places = places
        self.targets: dict[int, list[Target]] = {}
        for target in targets:
            self.targets.setdefault(id(target.value), []).append(target)
        self.scratch = Scratch(lanes)
        self.widest = lanes
        self.lanes = lanes
        self._local: dict[int, Place] = {}

    def segment_code(self, values: list[Value]) -> list[Instruction]:
        """The code of a segment whose values are these, each after its arguments."""
        uses: dict[int, int] = {}
        fused, inner = fusions(values, self.places, self.targets)
        operands = {id(v): fused.get(id(v), (v.kind, v.args)) for v in values}
        values = [v for v in values if id(v) not in inner]
        for value in values:
            for argument in operands[id(value)][1]:
                uses[id(argument)] = uses.get(id(argument), 0) + 1
        code = []
        for value in values:
            operation, args = operands[id(value)]
            code += self._compute(value, operation, args)
            for argument in args:
                self._used(argument, uses)
        return merged(code, self.lanes)

    def _compute(self, value: Value, operation: str, args: tuple[Value, ...]) -> list[Instruction]:
        targets = self.targets.get(id(value), [])
        sources = tuple(self.places[id(a)] for a in args)
        if targets:
            place = targets[0].place
        else:
            place = self._local[id(value)] = self.scratch.take(value.size)
        self.places[id(value)] = place
        size = args[0].size if operation in REDUCTIONS else value.size
        if operation in ("outer_left", "outer_right"):
            size = args[0].size
        inner = args[-1].size if operation in ("outer", "outer_left", "outer_right") else 0
        if operation == "outer_right":  # d (a, b) and a: the last factor is the result
            inner = value.size
        self.widest = max(self.widest, padded(size, self.lanes))
        masked = any(t.masked for t in targets)
        code = [Instruction(operation, size, inner, masked, place, sources)]
        return code + [self.copy(place, t) for t in targets[1:]]

    def copy(self, place: Place, target: Target) -> Instruction:
        self.widest = max(self.widest, padded(target.place.size, self.lanes))
        return Instruction("spread", target.place.size, 0, target.masked, target.place, (place,))

    def _used(self, value: Value, uses: dict[int, int]) -> None:
        """Give back the scratch of a value after its last use in the segment."""
        uses[id(value)] -= 1
        if not uses[id(value)] and id(value) in self._local:
            self.scratch.give(self._local.pop(id(value)))


def put_off(
    values: list[Value], segment: dict[int, int], places: Mapping[int, Place],
    targets: Iterable[Target],
) -> None:  # fmt: skip
    """Move what only later segments need there, if its arguments are stored anyway."""
    wanted = {id(target.value) for target in targets}
    users: dict[int, list[int]] = {}
    for value in values:
        for a in value.args if id(value) not in places else ():
            users.setdefault(id(a), []).append(id(value))
    for value in reversed(values):
        if id(value) in places or id(value) in wanted or not users.get(id(value)):
            continue
        if all(id(a) in places or users[id(a)] == [id(value)] for a in value.args):
            segment[id(value)] = min(segment[user] for user in users[id(value)])


def merged(code: list[Instruction], lanes: int) -> list[Instruction]:
    """Join functions of vectors that lie side by side, such as the activations of gates."""
    result: list[Instruction] = []
    for new in code:
        last = result[-1] if result else new
        places = zip((last.result, *last.operands), (new.result, *new.operands), strict=False)
        follow = len(last.operands) == len(new.operands) == 1 and all(
            b.array == a.array
            and b.offset == a.offset + padded(a.size, lanes)
            and min(a.size, b.size) > 1
            for a, b in places
        )
        plain = not (last.masked or new.masked) and new.operation not in REDUCTIONS
        plain = plain and last.result not in new.operands
        if last is not new and last.operation == new.operation and plain and follow:
            size = padded(last.size, lanes) + new.size
            widened = (last.result._replace(size=size), last.operands[0]._replace(size=size))
            result[-1] = last._replace(size=size, result=widened[0], operands=widened[1:])
        else:
            result.append(new)
    return result


Fused = tuple[str, tuple[Value, ...], list[Value]]


def fusions(
    values: list[Value], places: Mapping[int, Place], targets: Mapping[int, object]
) -> tuple[dict[int, tuple[str, tuple[Value, ...]]], set[int]]:
    """Find sums and products with parts that nothing else needs: one operation for all of it.

    Returns the operation and operands of each, and the parts. A sum with a product has one rounding
    where the processor has that.
    """
    uses: dict[int, int] = {}
    here = {id(v) for v in values}
    for value in values:
        for argument in value.args:
            uses[id(argument)] = uses.get(id(argument), 0) + 1

    taken: dict[int, tuple[str, tuple[Value, ...]]] = {}

    def own(v: Value, kind: str, times: int = 1) -> bool:
        free = id(v) in here and id(v) not in places and id(v) not in targets
        whole = v.kind != "mul" or id(v) not in taken  # not a slope that has become one operation
        return v.kind == kind and free and whole and uses[id(v)] == times

    inner: set[int] = set()
    for value in values:
        found = _slope(value, own) or _sum_with_product(value, own)
        if found:
            taken[id(value)] = found[:2]
            inner |= {id(v) for v in found[2]}
    return taken, inner


Own = Callable[..., bool]  # whether a value is of a kind and used so many times, here alone


def _sum_with_product(value: Value, own: Own) -> Fused | None:
    """Find a b + c, a b - c and c - a b."""
    if value.kind not in ("add", "sub"):
        return None
    a, b = value.args
    if own(a, "mul"):
        return "multiply_add" if value.kind == "add" else "multiply_sub", (*a.args, b), [a]
    if own(b, "mul"):
        return "multiply_add" if value.kind == "add" else "subtract_product", (*b.args, a), [b]
    return None


def _slope(value: Value, own: Own) -> Fused | None:
    """Find the gradients that `_gradient.py` writes for sigmoid and tanh, of d or of a product d.

    They are d (v - v v) and d - d (v v).
    """
    if value.kind == "mul":
        d, slope = value.args
        if own(slope, "sub") and own(slope.args[1], "mul"):
            v, square = slope.args
            if square.args == (v, v):
                return _of_product("sigmoid_back", d, v, [slope, square], own(d, "mul"))
    if value.kind == "sub" and own(value.args[1], "mul"):
        d, product = value.args
        if product.args[0] is d and own(product.args[1], "mul"):
            square = product.args[1]
            if square.args[0] is square.args[1]:
                inner = [product, square]
                return _of_product("tanh_back", d, square.args[0], inner, own(d, "mul", 2))
    return None


def _of_product(kind: str, d: Value, v: Value, inner: list[Value], product: bool) -> Fused:
    if product:
        return f"{kind}_product", (*d.args, v), [*inner, d]
    return kind, (d, v), inner
