"""The layers of a `Sequential` in a row: their names, what they take, and whether they fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ._cell_calls import expected_inputs
from ._core import checks
from ._modules import Array, Last
from ._recurrent import RecurrentLayer

Options = dict[str, Any]  # those of the following that are given
OPTIONS = "lengths", "resets", "threads"  # what a model hands on to the layers that take it


@dataclass(frozen=True, slots=True)
class Link:
    """A layer that is no `Sequential` itself."""

    name: str  # as PyTorch's: "1", in a nested Sequential "1.0"
    layer: Any
    forward_takes: frozenset[str]
    call_takes: frozenset[str]

    @property
    def label(self) -> str:
        """What messages call it."""
        return label_of(self.name)


class Port(NamedTuple):
    """What a layer takes or gives: so many numbers per step, in a dtype."""

    size: int
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.size} numbers per step in {self.dtype}"


class Chain:
    """What is known of layers in a row before they run, and the checks of what goes in.

    Attributes
    ----------
    links : list of Link
    along_time : bool
        Whether a layer reads along the time axis.
    batch_first : bool
        Whether the batch is the first axis; true without a time axis.
    ends_in_rows : bool
        Whether a `Last` leaves no time axis.
    takes_ids : bool
        Whether an `Embedding` is the first layer.
    port : Port or None
        What the first layer takes, if it is known.
    """

    def __init__(self, links: list[Link]) -> None:
        _check_sharing(links)
        _check_order(links)
        layout = _layout(links)
        self.links = links
        self.along_time, self.batch_first = layout is not None, layout is not False
        self.ends_in_rows = any(isinstance(one.layer, Last) for one in links)
        self.takes_ids = _takes_ids(links[0].layer)
        self.port = _check_ports(links)

    @property
    def ndim(self) -> int | None:
        """The axes of a batch, where the first layer is known and there is time."""
        if not self.along_time or not (self.takes_ids or self.port):
            return None
        return 2 if self.takes_ids else 3

    def checked(self, x: Any, lengths: Any, resets: Any, threads: int | None) -> Options:
        """Check the arguments of a pass before anything is done; return the options given."""
        given = {"lengths": lengths, "resets": resets, "threads": threads}
        options = {name: value for name, value in given.items() if value is not None}
        for name in options.keys() - {"threads"}:
            if not any(name in one.forward_takes for one in self.links):
                raise ValueError(f"{name} is given, but no layer of the model takes it")
        self.check_input("x", x)
        shape, ndim = np.shape(x), self.ndim
        if ndim is None or not options.keys() - {"threads"}:
            return options
        if len(shape) < ndim:
            checks.no_lengths(lengths, shape)
        elif lengths is not None:
            T, B = shape[:2][:: -1 if self.batch_first else 1]
            options["lengths"] = checks.lengths(lengths, T, B)
        if resets is not None:
            axes = shape[:2] if len(shape) == ndim else shape[:1]
            options["resets"] = checks.mask("resets", resets, "the first axes of x", axes)
        return options

    def check_input(self, name: str, x: Any) -> None:
        """Refuse an x that the first layers will refuse, before they do anything."""
        ndim, port = self.ndim, self.port
        if port is not None:
            checks.of_dtype(name, x, port.dtype)
        shape = np.shape(x)
        fits = ndim is None or len(shape) in (ndim, ndim - 1)
        if not fits or (port is not None and shape[-1:] != (port.size,)):
            raise ValueError(f"{name} has shape {shape}, expected {self._dims()}")

    def batch_axis(self, name: str, x: Array) -> int:
        """Return the batch axis of an input that is to have one."""
        axis, ndim = 0 if self.batch_first else 1, self.ndim
        if x.ndim <= axis or (ndim is not None and x.ndim != ndim):
            raise ValueError(f"{name} has shape {x.shape}, expected {self._dims(False)}")
        return axis

    def _dims(self, unbatched: bool = True) -> str:
        """The expected axes, as a message has them."""
        if not self.along_time:
            dims = "(..., I)"
        else:
            axes = "B, T" if self.batch_first else "T, B"
            dims = f"({axes})" if self.takes_ids else f"({axes}, I)"
            if unbatched:
                dims += " or (T,)" if self.takes_ids else " or (T, I)"
        return dims if self.port is None else f"{dims} with I = {self.port.size}"

    def fail(self, one: Link, error: Exception) -> NoReturn:
        """Say which layer an error is from; what the first one says is about the model's input."""
        if one is self.links[0]:
            raise error
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{one.label}, {type(one.layer).__name__}: {error}") from error


def label_of(name: str) -> str:
    """What messages call the layer of that name."""
    return f"layers[{name.replace('.', '][')}]"


def link(name: str, layer: Any) -> Link:
    """Check that a layer can stand in a chain."""
    label = label_of(name)
    is_class = isinstance(layer, type)
    if is_class or not all(hasattr(layer, name) for name in ("forward", "backward", "params")):
        what = f"is the class {layer.__name__}" if is_class else f"has type {type(layer).__name__}"
        fix = "; give the layers one by one, without a list" if isinstance(layer, list) else ""
        raise TypeError(
            f"{label} {what}, expected a layer with forward, backward and params{fix}"
        )
    if _is_own(layer) and hasattr(layer, "hidden_size") and not isinstance(layer, RecurrentLayer):
        kind = type(layer).__name__
        raise TypeError(
            f"{label} has type {kind}, which takes one step from a state that it is given; use "
            f"{kind.removesuffix('Cell')}, and the stream of the model for single steps"
        )
    call = layer if callable(layer) else layer.forward
    takes = _taken(label, layer.forward), _taken(label, call)
    cell = getattr(layer, "cell", None) if isinstance(layer, RecurrentLayer) else None
    if cell is not None and (missing := ", ".join(expected_inputs(cell, None))):
        raise ValueError(
            f"{label} is of {cell!r}, which has the extra inputs {missing}; a Sequential has none "
            "to give: call the layers one by one"
        )
    return Link(name, layer, *takes)


def _taken(label: str, function: Any) -> frozenset[str]:
    """The options of a model that a function takes; refuse one that needs more than x."""
    parameters = list(inspect.signature(function).parameters.values())
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    needed = [p.name for p in parameters[1:] if p.default is p.empty and p.kind not in kinds]
    if needed:
        raise ValueError(
            f"{label} also needs {', '.join(needed)}, and a layer of a Sequential gets x alone"
        )
    return frozenset(OPTIONS) & {p.name for p in parameters[1:]}


def predict(layer: Any, x: Any, **options: Any) -> Any:
    """The output of a layer for a prediction."""
    y = layer(x, **options) if callable(layer) else layer.forward(x, **options)
    return y[0] if isinstance(y, tuple) else y  # a recurrent layer has its state behind


def _check_sharing(links: Iterable[Link]) -> None:
    """Refuse a layer with parameters that stands in two places."""
    first: dict[int, Link] = {}
    for one in links:
        other = first.setdefault(id(one.layer), one)
        if other is not one and one.layer.params:
            raise ValueError(
                f"{one.label} is the same layer as {other.label}; make a second one, and to share "
                "weights put the arrays of one into the params of the other"
            )


def _layout(links: Iterable[Link]) -> bool | None:
    """Whether the batch is the first axis, as the layers along time say; None without such."""
    found: dict[bool, Link] = {}
    along_time = False
    for one in links:
        if _has_time(one.layer):
            along_time = True
            if one.layer.batch_first is not None:
                found.setdefault(one.layer.batch_first, one)
    if len(found) == 2:
        raise ValueError(
            f"{found[True].label} has batch_first=True and {found[False].label} has "
            "batch_first=False, expected the same of all recurrent layers"
        )
    return next(iter(found), False) if along_time else None


def _has_time(layer: Any) -> bool:
    """Whether a layer reads along the time axis."""
    return isinstance(layer, RecurrentLayer | Last)


def _check_order(links: Iterable[Link]) -> None:
    """Refuse a layer along time behind a `Last`, which takes that axis away."""
    last = None
    for one in links:
        if last is not None and _has_time(one.layer):
            kind = type(one.layer).__name__
            raise ValueError(
                f"{one.label}, {kind}, needs a time axis, and {last.label}, Last, leaves none; "
                "put Last behind it"
            )
        if isinstance(one.layer, Last):
            last = one


def _check_ports(links: Iterable[Link]) -> Port | None:
    """Refuse layers that do not fit each other; return what the first one takes, if it is known."""
    given: Port | None = None
    giver: Link | None = None
    first: Port | None = None
    for one, (takes, gives) in _ports(links):
        if given and takes and given != takes:
            assert giver is not None
            raise ValueError(
                f"{one.label}, {type(one.layer).__name__}, takes {takes}, but {giver.label}, "
                f"{type(giver.layer).__name__}, gives {given}"
            )
        if giver is None:
            first = takes
        given, giver = gives, one
    return first


def _ports(links: Iterable[Link]) -> Iterator[tuple[Link, tuple[Port | None, Port | None]]]:
    """What each layer takes and gives, None where unknown. Those that hand on are left out."""
    for one in links:
        layer = one.layer
        if isinstance(layer, Last) or (_is_own(layer) and not layer.params):
            continue  # as Dropout and Activation
        if isinstance(layer, RecurrentLayer):
            takes = Port(layer.input_size, layer.dtype)
            yield one, (takes, Port(layer._directions * _output_size(layer), layer.dtype))
        elif _takes_ids(layer):
            yield one, (None, Port(layer.size, layer.params["weight"].dtype))
        elif _is_own(layer) and hasattr(layer, "output_size"):  # Linear
            dtype = layer.params["weight"].dtype
            yield one, (Port(layer.input_size, dtype), Port(layer.output_size, dtype))
        else:
            yield one, (None, None)


def _takes_ids(layer: Any) -> bool:
    """Whether it is an `Embedding`, without an import of the training kit."""
    return _is_own(layer) and hasattr(layer, "count")


def _is_own(layer: Any) -> bool:
    return type(layer).__module__.startswith("rnnfast.")


def _output_size(layer: RecurrentLayer) -> int:
    """The numbers per step and direction."""
    graphs = getattr(layer, "_graphs", None)  # of a cell, whose output need not be a state
    size: int = graphs[-1].output.size if graphs else layer._sizes[0]
    return size
