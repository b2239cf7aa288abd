"""Which node of a model is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from ._constants import remark
from ._graph import Item
from ._operators import GATES, describe, first_output, is_recurrent


def recurrent(items: Sequence[Item]) -> list[Item]:
    """Return the nodes of the three operators; ValueError if there is none."""
    found = [item for item in items if is_recurrent(item.node)]
    if not found:
        similar = [item for item in items if item.node.op_type.endswith(tuple(GATES))]
        named = ", ".join(map(_described, similar))
        but = f", but {named}{remark(similar[0].node)}" if similar else ""
        raise ValueError(f"model has no RNN, GRU or LSTM node{but}")
    return found


def by_name(items: Sequence[Item], name: str) -> Item:
    """Return the recurrent node with a name, or if none has it an output, or the way, of that name.

    The way to a node is the names of outputs and bodies around it and that of its first output.
    """
    if not isinstance(name, str):
        raise TypeError(f"node has type {type(name).__name__}, expected str")
    found = recurrent(items)
    for kind in _NAMES:
        matching = [item for item in found if name in kind(item)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise ValueError(
                f"node is {name!r}, of which there are {len(matching)}: expected "
                f"{_listed(matching, found, ' or ')}"
            )
    others = [item for item in items if name in _NAMES[0](item) + _NAMES[1](item)]
    what = f", which is {_described(others[0])}" if others else ""
    more = remark(others[0].node) if others else ""
    names = _listed(found, found)
    raise ValueError(f"node is {name!r}{what}, expected one of the model's {names}{more}")


def refuse_to_choose(found: Sequence[Item]) -> NoReturn:
    """Raise ValueError for more than one node where none is named."""
    raise ValueError(f"node is None, expected one of the model's {_listed(found, found)}")


# What a node goes by, best first: its name, its outputs, the way to it.
_NAMES: tuple[Callable[[Item], list[str]], ...] = (
    lambda item: [item.node.name] if item.node.name else [],
    lambda item: [name for name in item.node.output if name],
    lambda item: [item.scope.path + first_output(item.node)],
)


def _listed(items: Iterable[Item], found: Sequence[Item], separator: str = ", ") -> str:
    """Name nodes, each by the best name that chooses it among those found."""
    texts = []
    for item in items:
        names = [name for kind in _NAMES for name in kind(item)]
        best = next((name for name in names if _chooses(name, found)), names[-1])
        texts.append(f"{best!r} ({item.node.op_type}{_where(item)})")
    return separator.join(texts)


def _chooses(name: str, found: Sequence[Item]) -> bool:
    """Whether a name chooses one node, as `by_name` looks it up."""
    counts = (sum(name in kind(item) for item in found) for kind in _NAMES)
    return next(filter(None, counts), 0) == 1


def _described(item: Item) -> str:
    return f"{describe(item.node)}{_where(item)}"


def _where(item: Item) -> str:
    return f" in {item.scope.place}" if item.scope.place else ""
