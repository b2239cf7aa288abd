"""`Sequential`: a chain of layers as one model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _saving
from ._chain import Chain, Link, Options, link, predict
from ._core import checks
from ._core.passes import NO_COPY_OF_A_TAPE
from ._core.threads import num_threads, resolve
from ._model_stream import ModelStream
from ._modules import Array, Last, ModuleGrads


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
        self._chain = Chain(list(_linked(layers)))

    @property
    def batch_first(self) -> bool:
        """Whether the batch is the first axis, as the recurrent layers say.

        A model without layers along time has it first.
        """
        return self._chain.batch_first

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
            for one in self._chain.links
            for name, array in one.layer.params.items()
        }

    @property
    def num_parameters(self) -> int:
        """The numbers in all parameters; arrays that layers share count once."""
        return sum({id(array): array.size for array in self.params.values()}.values())

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        return {name: value.copy() for name, value in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy values into the parameters' arrays.

        Parameters
        ----------
        state_dict : mapping of str to ndarray
            Exactly the model's parameters, each with its shape and dtype. What NumPy reads as an
            array, such as a tensor, will do.

        Raises
        ------
        TypeError
            A value is no array of that dtype.
        ValueError
            A name is missing or unexpected, or a shape differs.
        """
        params = self.params
        checks.names("state_dict", state_dict, params)
        values = {}
        for name, p in params.items():
            label = f"state_dict[{name!r}]"
            values[name] = checks.readable(label, state_dict[name], p.dtype).copy()
            checks.of_shape(label, values[name], p.shape)
            checks.of_writeable(f"params[{name!r}]", p)
        for name, value in values.items():
            np.copyto(params[name], value)

    def __repr__(self) -> str:
        lines = [f"Sequential(  # {_counted(self.num_parameters)}"]
        for number, layer in enumerate(self.layers):
            kind: Any = type(layer)
            text = f"{kind.__name__}()" if kind.__repr__ is object.__repr__ else repr(layer)
            if layer.params and not isinstance(layer, Sequential):
                text += f"  # {_counted(sum(array.size for array in layer.params.values()))}"
            lines.append(f"  ({number}): {text}".replace("\n", "\n  "))
        return "\n".join([*lines, ")"])

    # ----------------------------------------------------------------------------------- passes

    def __call__(
        self, x: Any, lengths: Any = None, resets: Any = None, threads: int | None = None
    ) -> Array:
        """Return the prediction, without dropout. Arguments and errors as in `forward`."""
        options = self._chain.checked(x, lengths, resets, threads)
        y: Any = x
        with _limit(threads):
            for one in self._chain.links:
                try:
                    y = self._predict(one, y, options)
                except (TypeError, ValueError) as error:
                    self._chain.fail(one, error)
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
        options = self._chain.checked(x, lengths, resets, threads)
        y: Any = x
        tapes = []
        with _limit(threads):
            for one in self._chain.links:
                try:
                    y, tape = self._forward(one, y, options)
                except (TypeError, ValueError) as error:
                    self._chain.fail(one, error)
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
            for one in reversed(self._chain.links):
                found = one.layer.backward(tape.tapes.pop(), dy)
                dy, grads[one.name] = found.input, found.params
        params = {f"{o.name}.{n}": g for o in self._chain.links for n, g in grads[o.name].items()}
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
        axis, shape = self._chain.batch_axis("x", x), x.shape
        lengths = self._chain.checked(x, lengths, None, threads).get("lengths")
        before = (slice(None),) * axis
        pieces = []
        for start in range(0, max(shape[axis], 1), batch_size):
            rows = slice(start, start + batch_size)
            own = None if lengths is None else lengths[rows]
            pieces.append(self(x[*before, rows], own, None, threads))
        axis = 0 if self._chain.ends_in_rows else axis
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)

    def stream(self, batch_size: int = 1, threads: int | None = None) -> ModelStream:
        """Return a stream: a snapshot of the weights that takes steps and carries the state."""
        return ModelStream(self._chain, batch_size, threads)

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
        return predict(one.layer, x, **given)

    def _forward(self, one: Link, x: Any, options: Options) -> tuple[Any, Any]:
        if isinstance(one.layer, Last):
            return one.layer._run(x, options.get("lengths"), self.batch_first)
        given = {name: options[name] for name in options if name in one.forward_takes}
        y, *_, tape = one.layer.forward(x, **given)  # a recurrent layer has its state between
        return y, tape

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
            yield link(name, layer)


def _counted(parameters: int) -> str:
    return f"{parameters:,} parameters"


def _limit(threads: int | None) -> AbstractContextManager[None]:
    """The number of threads, also for layers that have no argument for it."""
    return nullcontext() if threads is None else num_threads(resolve(threads))
