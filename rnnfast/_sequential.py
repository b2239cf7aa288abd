"""`Sequential`: a chain of layers as one model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from . import _chain, _saving
from ._chain import Link
from ._core import checks
from ._core.passes import NO_COPY_OF_A_TAPE
from ._core.threads import num_threads
from ._model_stream import ModelStream
from ._modules import Array, Last, ModuleGrads

Options = dict[str, Any]  # those of lengths, resets and threads that are given


@dataclass(slots=True, eq=False)
class ModelTape:
    """What `Sequential.forward` leaves for one `backward`."""

    model: Sequential
    y_shape: tuple[int, ...]
    y_dtype: np.dtype[Any]
    tapes: list[Any]  # of each layer; emptied by backward

    def __reduce__(self) -> Any:
        raise TypeError(NO_COPY_OF_A_TAPE)


class Sequential:
    """Layers in a chain, each fed by the one before, as one model.

    Parameters
    ----------
    *layers
        `RNN`, `GRU`, `LSTM`, `Recurrent`, `Last`, `training.Embedding`, `Linear`, `Dropout` and
        `Activation`, another `Sequential`, or an object of your own with `forward(x) -> y, tape`,
        `backward(tape, dy)` that returns `input` and `params`, and `params`. Such a layer predicts
        by its `__call__`, or else by `forward`. It gets those of `lengths`, `resets` and `threads`
        that its methods take.

    Attributes
    ----------
    layers : tuple
        The layers; `model[i]`, `len(model)` and iteration work too.
    batch_first : bool
        Whether the batch is the first axis, as the recurrent layers say. A model without layers
        along time has it first.

    Raises
    ------
    TypeError
        Something is no layer.
    ValueError
        There are no layers, they do not fit each other, or a layer with parameters stands in two
        places.

    Notes
    -----
    The bits of a row's results depend neither on the threads nor on the other rows of the batch.
    In a stream they do not depend on how the steps are cut into chunks.

    Examples
    --------
    >>> from rnnfast.training import Embedding, Linear
    >>> model = rnnfast.Sequential(
    ...     Embedding(1000, 16), rnnfast.LSTM(16, 32), rnnfast.Last(), Linear(32, 2)
    ... )
    >>> logits = model(ids, lengths=lengths)  # (B, 2) for ids (T, B)
    """

    def __init__(self, *layers: Any) -> None:
        if not layers:
            raise ValueError("layers is empty, expected at least one layer")
        self.layers = layers
        self._links = list(_linked(layers))
        _chain.each_once(self._links)
        _chain.check_order(self._links)
        given = _chain.layout(self._links)
        self.batch_first = given is not False
        self._port = _chain.check_ports(self._links)
        self._takes_ids = _chain.takes_ids(self._links[0].layer)
        self._along_time = given is not None
        self._ends_in_rows = any(isinstance(one.layer, Last) for one in self._links)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Any:
        return self.layers[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    # ------------------------------------------------------------------------------- parameters

    @property
    def params(self) -> dict[str, Array]:
        """The live parameters of all layers, ``0.weight_ih_l0`` and so on, in a new dict.

        Change the arrays in place. Other arrays go into the `params` of the layer.
        """
        return {
            f"{one.name}.{name}": array
            for one in self._links
            for name, array in one.layer.params.items()
        }

    # ----------------------------------------------------------------------------------- passes

    def __call__(
        self, x: Any, lengths: Any = None, resets: Any = None, threads: int | None = None
    ) -> Array:
        """Return the prediction, without dropout. Arguments and errors as in `forward`."""
        options = self._checked(x, lengths, resets, threads)
        y: Any = x
        with _limit(threads):
            for one in self._links:
                try:
                    y = self._predict(one, y, options)
                except (TypeError, ValueError) as error:
                    self._name(one, error)
        return y  # type: ignore[no-any-return]

    def forward(
        self, x: Any, lengths: Any = None, resets: Any = None, threads: int | None = None
    ) -> tuple[Array, ModelTape]:
        """Run the model for training, with dropout.

        Parameters
        ----------
        x : ndarray
            What the first layer takes: (T, B, I), or (B, T, I) if the model is `batch_first`, or
            (T, I); for an `Embedding` ids without the last axis. Not to be modified before
            `backward`.
        lengths : ndarray of int, (B,), optional
            The steps of each row, from 0 to T; the rest is padding. For the recurrent layers and
            `Last`.
        resets : ndarray of bool, (T, B), or (B, T), optional
            Where true, the states of the row are set to zero before that step.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        y : ndarray
            The output of the last layer.
        tape : opaque
            For one call of `backward`.

        Raises
        ------
        TypeError
            An argument has another type or dtype.
        ValueError
            A shape or a value does not fit, or no layer takes the `lengths` or `resets`.
        """
        options = self._checked(x, lengths, resets, threads)
        y: Any = x
        tapes = []
        with _limit(threads):
            for one in self._links:
                try:
                    y, tape = self._forward(one, y, options)
                except (TypeError, ValueError) as error:
                    self._name(one, error)
                tapes.append(tape)
        return y, ModelTape(self, y.shape, y.dtype, tapes)

    def backward(
        self,
        tape: ModelTape,
        dy: Array,
        accumulate: dict[str, Array] | None = None,
        threads: int | None = None,
    ) -> ModuleGrads:
        """Backpropagate through the `forward` that returned `tape`.

        Parameters
        ----------
        tape : opaque
            From this model's `forward`. It can be used once.
        dy : ndarray, the shape and dtype of y
            Gradient of the output.
        accumulate : dict of str to ndarray, optional
            Arrays like the parameters, under their names, to which the gradients are added; it is
            returned as `params`.
        threads : int, optional
            As in `forward`.

        Returns
        -------
        grads : ModuleGrads
            `input`, which is None for ids, and `params`, under the names of the parameters.

        Raises
        ------
        TypeError
            `tape` is no tape of a model, or `dy` no array of that dtype.
        ValueError
            A shape or a name does not fit, or the tape is of another model.
        RuntimeError
            The tape has been used.
        """
        if not isinstance(tape, ModelTape):
            raise TypeError(f"tape has type {type(tape).__name__}, expected what forward returned")
        if tape.model is not self:
            raise ValueError("tape is from another model, expected one from this")
        if not tape.tapes:
            raise RuntimeError("tape has been used: it serves one backward")
        checks.exact("dy", dy, tape.y_dtype, tape.y_shape, "y.shape")
        if accumulate is not None:
            self._check_like("accumulate", accumulate)
        grads: dict[str, dict[str, Array]] = {}
        with _limit(threads):
            for one in reversed(self._links):
                found = one.layer.backward(tape.tapes.pop(), dy)
                dy, grads[one.name] = found.input, found.params
        params = {f"{o.name}.{n}": g for o in self._links for n, g in grads[o.name].items()}
        if accumulate is not None:
            for name, gradient in params.items():
                np.add(accumulate[name], gradient, out=accumulate[name])
            params = accumulate
        return ModuleGrads(dy, params)

    def predict(
        self, x: Any, batch_size: int = 256, lengths: Any = None, threads: int | None = None
    ) -> Array:
        """Return the prediction for many rows, computed in pieces of the batch to save memory.

        Parameters
        ----------
        x : ndarray
            As in `forward`, with a batch axis.
        batch_size : int
            The rows of a piece.
        lengths, threads
            As in `forward`.

        Returns
        -------
        ndarray
            The same bits as `model(x, lengths)`.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit.
        """
        batch_size = checks.integer("batch_size", batch_size, 1)
        x = checks.readable("x", x)
        axis, shape = self._batch_axis("x", x), x.shape
        lengths = self._checked(x, lengths, None, threads).get("lengths")
        before = (slice(None),) * axis
        pieces = []
        for start in range(0, max(shape[axis], 1), batch_size):
            rows = slice(start, start + batch_size)
            own = None if lengths is None else lengths[rows]
            pieces.append(self(x[*before, rows], own, None, threads))
        axis = 0 if self._ends_in_rows else axis
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)

    def stream(self, batch_size: int = 1, threads: int | None = None) -> ModelStream:
        """Return a stream: a snapshot of the weights that takes steps and carries the state."""
        return ModelStream(self._links, self.batch_first, batch_size, threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, for `rnnfast.load`; as `save` of the recurrent layers.

        Not saved: `rng` of layers, and that two layers share arrays.
        """
        _saving.save(path, self)

    # ------------------------------------------------------------------------------ single layers

    def _predict(self, one: Link, x: Any, options: Options) -> Any:
        if isinstance(one.layer, Last):
            return one.layer._run(x, options.get("lengths"), self.batch_first)[0]
        given = {name: options[name] for name in options if name in one.call_takes}
        return _chain.predict(one.layer, x, **given)

    def _forward(self, one: Link, x: Any, options: Options) -> tuple[Any, Any]:
        if isinstance(one.layer, Last):
            return one.layer._run(x, options.get("lengths"), self.batch_first)
        given = {name: options[name] for name in options if name in one.forward_takes}
        y, *_, tape = one.layer.forward(x, **given)  # a recurrent layer has its state between
        return y, tape

    def _name(self, one: Link, error: Exception) -> NoReturn:
        """Say which layer an error is from; what the first one says is about the model's input."""
        if one is self._links[0]:
            raise error
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{one.label}, {type(one.layer).__name__}: {error}") from error

    # ----------------------------------------------------------------------------------- checks

    def _checked(self, x: Any, lengths: Any, resets: Any, threads: int | None) -> Options:
        """Check the arguments of a pass before anything is done; return the options given."""
        given = {"lengths": lengths, "resets": resets, "threads": threads}
        options = {name: value for name, value in given.items() if value is not None}
        for name in options.keys() - {"threads"}:
            if not any(name in one.forward_takes for one in self._links):
                raise ValueError(f"{name} is given, but no layer of the model takes it")
        self._check_input("x", x)
        shape, ndim = np.shape(x), self._input_ndim
        if ndim is None or not options.keys() - {"threads"}:
            return options
        if len(shape) < ndim:
            checks.no_lengths(lengths, shape)
        elif lengths is not None:
            T, B = shape[:2][:: -1 if self.batch_first else 1]
            options["lengths"] = checks.lengths(lengths, T, B)
        if resets is not None:
            axes = shape[: ndim - 1] if len(shape) == ndim else shape[:1]
            options["resets"] = checks.mask("resets", resets, "", axes[:2])
        return options

    @property
    def _input_ndim(self) -> int | None:
        """The axes of a batch, where the first layer is known and reads along time."""
        if not self._along_time or not (self._takes_ids or self._port):
            return None
        return 2 if self._takes_ids else 3

    def _check_input(self, name: str, x: Any) -> None:
        """Refuse an x that the first layers will refuse, before they do anything."""
        ndim, port = self._input_ndim, self._port
        if port is not None:
            checks.of_dtype(name, x, port.dtype)
        shape = np.shape(x)
        fits = ndim is None or len(shape) in (ndim, ndim - 1)
        if not fits or (port is not None and shape[-1:] != (port.size,)):
            raise ValueError(f"{name} has shape {shape}, expected {self._dims()}")

    def _dims(self, unbatched: bool = True) -> str:
        """The expected axes, as a message has them."""
        if not self._along_time:
            dims = "(..., I)"
        else:
            axes = "B, T" if self.batch_first else "T, B"
            dims = f"({axes})" if self._takes_ids else f"({axes}, I)"
            if unbatched:
                dims += " or (T,)" if self._takes_ids else " or (T, I)"
        return dims if self._port is None else f"{dims} with I = {self._port.size}"

    def _batch_axis(self, name: str, x: Array) -> int:
        """Return the batch axis of the input, which is to have one."""
        axis, ndim = 0 if self.batch_first else 1, self._input_ndim
        if x.ndim <= axis or (ndim is not None and x.ndim != ndim):
            raise ValueError(f"{name} has shape {x.shape}, expected {self._dims(False)}")
        return axis

    def _check_like(self, what: str, arrays: Mapping[str, Array]) -> None:
        """Raise unless these are writeable arrays like the parameters."""
        params = self.params
        checks.names(what, arrays, params)
        for name, p in params.items():
            checks.exact(f"{what}[{name!r}]", arrays[name], p.dtype, p.shape)
            checks.of_writeable(f"{what}[{name!r}]", arrays[name])


def _linked(layers: tuple[Any, ...], prefix: str = "") -> Iterator[Link]:
    """The layers with those of nested models in their place."""
    for number, layer in enumerate(layers):
        name = f"{prefix}{number}"
        if isinstance(layer, Sequential):
            yield from _linked(layer.layers, f"{name}.")
        else:
            yield _chain.link(name, layer)


def _limit(threads: int | None) -> AbstractContextManager[None]:
    """The number of threads, also for layers that have no argument for it."""
    return nullcontext() if threads is None else num_threads(threads)
