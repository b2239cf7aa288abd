"""Streams of models: a step or a chunk at a time, with the states of all layers inside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._chain import Chain, Link, predict
from ._core import checks
from ._core.threads import num_threads, resolve
from ._modules import Array, Last


class ModelStream:
    """A model's weights, as they were, and the states that steps and chunks carry on.

    Made by `Sequential.stream`. Later changes of the parameters do not reach it. There is no
    dropout, and `Last` lets every step pass: each gives the prediction so far. Cutting a sequence
    into steps and chunks does not change a bit of the result. A layer of your own that has no
    `stream` is called for each step or chunk by itself, so it is not to look along time. One
    stream serves one thread at a time. It can be copied and pickled if the layers can.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit, or a layer is bidirectional.
    """

    def __init__(self, chain: Chain, batch_size: int, threads: int | None) -> None:
        self._batch_size = checks.integer("batch_size", batch_size, 0)
        resolve(threads)
        self._threads = threads
        self._parts = [  # (whether it is the stream of a layer, that or a copy of the layer)
            _part(one, self._batch_size, threads)
            for one in chain.links
            if not isinstance(one.layer, Last)
        ]
        self._bind()

    def __repr__(self) -> str:
        parts = ", ".join(type(part).__name__ for _, part in self._parts)
        return f"ModelStream({parts}, batch_size={self._batch_size})"

    @property
    def _streams(self) -> list[Any]:
        return [part for is_stream, part in self._parts if is_stream]

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _parts=[(s, copy.copy(p)) for s, p in self._parts])
        twin._bind()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in self.__dict__.items() if n not in ("_steps", "_runs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def _bind(self) -> None:
        """Look up once what steps and chunks call."""
        functions = [None if is_stream else _function(part) for is_stream, part in self._parts]
        parts = [part for _, part in self._parts]
        self._steps = [f or p.step for f, p in zip(functions, parts, strict=True)]
        self._runs = [f or p.run for f, p in zip(functions, parts, strict=True)]

    def step(self, x: Any) -> Array:
        """Take one time step and return the model's output for it.

        Parameters
        ----------
        x : ndarray
            (B, I), or (I,) if the batch size is 1; for an `Embedding` ids (B,), or a single one.

        Returns
        -------
        ndarray
            (B, .), or (.).

        Raises
        ------
        TypeError, ValueError
            `x` has another dtype or shape.
        """
        return self._through(x, self._steps)

    def run(self, x: Any) -> Array:
        """Take a chunk of steps, going on from the states and carrying them further.

        Parameters
        ----------
        x : ndarray
            (T, B, I), or (B, T, I) if the model is `batch_first`, or (T, I) if the batch size is 1;
            for an `Embedding` ids without the last axis.

        Returns
        -------
        ndarray
            The model's output for every step, with the axes of x.

        Raises
        ------
        TypeError, ValueError
            `x` has another dtype or shape.
        """
        return self._through(x, self._runs)

    @property
    def state(self) -> tuple[Any, ...]:
        """The states of the recurrent layers, in their order: copies.

        It can be set, to such a tuple or None for zeros, also of single layers.
        """
        return tuple(stream.state for stream in self._streams)

    @state.setter
    def state(self, state: Any) -> None:
        streams = self._streams
        given = (None,) * len(streams) if state is None else state
        if not isinstance(given, tuple | list):
            kind = type(state).__name__
            raise TypeError(f"state has type {kind}, expected a tuple, an entry per layer")
        if len(given) != len(streams):
            raise ValueError(
                f"state has length {len(given)}, expected {len(streams)}, one per recurrent layer"
            )
        before = self.state
        for i, (stream, part) in enumerate(zip(streams, given, strict=True)):
            try:
                stream.state = part
            except (TypeError, ValueError) as error:
                for changed, own in zip(streams[:i], before, strict=False):
                    changed.state = own
                as_type = TypeError if isinstance(error, TypeError) else ValueError
                raise as_type(f"state[{i}]: {error}") from error

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Set the states to zero: of all rows, or of those where `mask`, bool (B,), is true.

        Raises
        ------
        TypeError, ValueError
            `mask` is not a bool array of that shape.
        """
        if mask is not None:
            mask = checks.mask("mask", mask, "(B,)", (self._batch_size,))
        for stream in self._streams:
            stream.reset(mask)

    def _through(self, x: Any, functions: list[Callable[[Any], Any]]) -> Array:
        if self._threads is not None:
            with num_threads(self._threads):
                return _pass(x, functions)
        return _pass(x, functions)


def _pass(x: Any, functions: list[Callable[[Any], Any]]) -> Array:
    for function in functions:
        x = function(x)
    return x  # type: ignore[no-any-return]


def _function(layer: Any) -> Callable[[Any], Any]:
    """What a layer without a state computes."""
    if "_frozen" in vars(type(layer)):  # of a subclass, its own call counts
        return layer._frozen()  # type: ignore[no-any-return]
    return partial(predict, layer)


def _part(one: Link, batch_size: int, threads: int | None) -> tuple[bool, Any]:
    if not hasattr(one.layer, "stream"):
        return False, copy.deepcopy(one.layer)
    if getattr(one.layer, "bidirectional", False):
        raise ValueError(
            f"{one.label} is bidirectional, and its reverse direction starts from a sequence's "
            "end: call the model on whole sequences, or make it with bidirectional=False"
        )
    return True, one.layer.stream(batch_size, threads=threads)
