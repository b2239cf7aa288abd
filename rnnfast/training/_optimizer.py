"""What all optimisers share: the parameters, their ties, state and checks.

Letters: `p` parameter, `g` gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .._core import arrays as core_arrays
from .._core import checks
from .._described import Described
from ._array import Array, Arrays, Named, check_like, check_positive, named
from ._flat import Flat
from ._ties import check_overlaps, summed, ties


class Optimizer(Described):
    """What all optimisers share: parameters, learning rate, state and its checks.

    Parameters
    ----------
    params : dict, or object with one as `params`
        The live arrays to move, float32 or float64. A dict is copied, the arrays are not. Of an
        object, such as a layer, those arrays are moved that it has when a step is taken: others
        may be put there, of the same names, shapes and dtypes.
    lr : float
        The learning rate, > 0.

    Attributes
    ----------
    lr : float
    steps : int
        Steps taken.

    Raises
    ------
    TypeError, ValueError
        An array or a number does not fit, or two arrays share memory and are not tied.

    Notes
    -----
    One array under several names, as the weights of an embedding and of an output layer may be, is
    tied. It takes one step, against the sum of the gradients under its names, and its state is kept
    once, under the first of them.
    """

    _always_shown = ("lr",)
    slots: ClassVar[tuple[str, ...]] = ()
    weight_decay = 0.0  # of the optimisers whose rule reads the parameters

    def __init__(self, params: Named, lr: float) -> None:
        arrays = dict(named("params", params))
        if not arrays:
            raise ValueError("params is empty, expected at least one array")
        for name, p in arrays.items():
            checks.of_floats(f"params[{name!r}]", p)
        check_positive(lr=lr)
        self._holder = arrays if isinstance(params, Mapping) else params
        self._like = {name: (p.dtype, p.shape) for name, p in arrays.items()}
        self._tied = ties(arrays)  # each further name of an array: the first
        self._arrays: dict[str, Array] = {}  # what was in `params`, when it was found right
        self._current()
        self.lr = lr
        self.steps = 0
        self._flats = []
        alone = {name: p for name, p in arrays.items() if name not in self._tied}
        for dtype in dict.fromkeys(p.dtype for p in alone.values()):
            shapes = {name: p.shape for name, p in alone.items() if p.dtype == dtype}
            size = sum(alone[name].size for name in shapes)
            state = {slot: np.zeros(size, dtype) for slot in self.slots}
            self._flats.append(Flat(shapes, dtype, state))

    @property
    def params(self) -> Arrays:
        """The mapping of the live arrays: a copy of the dict, or what the object has now."""
        return named("params", self._holder)

    @property
    def num_parameters(self) -> int:
        """How many numbers it moves; tied ones count once."""
        shapes = [shape for name, (_, shape) in self._like.items() if name not in self._tied]
        return sum(map(math.prod, shapes))

    @property
    def state(self) -> dict[str, dict[str, Array]]:
        """`state[slot][name]`: live arrays shaped like the parameters (momenta and the like)."""
        return {
            slot: {n: a for flat in self._flats for n, a in flat.split(flat.state[slot]).items()}
            for slot in self.slots
        }

    def step(self, grads: Named) -> None:
        """Move every parameter against its gradient.

        Parameters
        ----------
        grads : dict, or object with one as `params`
            A gradient under the name of every parameter, with its shape and dtype; not modified.
            Other names are ignored, so that an optimiser may hold a part of a model. What the
            `backward` of a layer returns will do.

        Raises
        ------
        TypeError, ValueError
            Before anything is changed.
        """
        params = self._current()
        if type(grads) is not dict:
            grads = named("grads", grads)
        for name, p in params.items():
            g = grads.get(name)
            if type(g) is not np.ndarray or g.dtype is not p.dtype or g.shape != p.shape:
                _check_gradient(name, grads, p)
        if self._tied:
            grads = self.summed(grads)
        self.steps += 1
        for flat in self._flats:
            np.concatenate([grads[name] for name in flat.parts], axis=None, out=flat.moves)
            if self.weight_decay:
                held = [params[name] for name in flat.parts]
                np.concatenate(held, axis=None, out=flat.params)
            for block in flat.blocks:
                self._update(*block)
            for name, move in flat.parts.items():
                p = params[name]
                np.subtract(p, move, out=p)

    def summed(self, grads: Named) -> Arrays:
        """Return the gradients by parameter: those of tied names added up, under the first name.

        What a step goes by, and what a norm should be taken of. Where no names are tied, these are
        the gradients as they are.
        """
        grads = named("grads", grads)
        if not self._tied:
            return grads
        params = self._current()
        for name in {*self._tied, *self._tied.values()}:
            _check_gradient(name, grads, params[name])
        return summed(grads, self._tied)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        """Turn the gradients into what to subtract from the parameters, in place.

        All arrays are flat and of one length. `p` holds the parameters where there is
        `weight_decay`, `s` is scratch.
        """
        raise NotImplementedError

    def _current(self) -> dict[str, Array]:
        """Return the arrays to move, checked unless they are the very arrays of last time."""
        held = self._holder
        params = held if type(held) is dict else self.params
        if not core_arrays.same(params, self._arrays):
            checks.names("params", params, self._like)
            arrays = {name: params[name] for name in self._like}
            for name, (dtype, shape) in self._like.items():
                checks.exact(f"params[{name!r}]", arrays[name], dtype, shape)
                checks.of_writeable(f"params[{name!r}]", arrays[name])
            self._check_ties(arrays)
            self._arrays = arrays
        return self._arrays

    def _check_ties(self, arrays: dict[str, Array]) -> None:
        """Refuse other ties than those the state was made for, and whatever else overlaps."""
        found = ties(arrays)
        if found != self._tied:
            raise ValueError(
                f"params has the ties {found}, expected those of when the optimizer was made, "
                f"{self._tied}; make a new one"
            )
        check_overlaps("params", {name: p for name, p in arrays.items() if name not in found})

    def __getstate__(self) -> dict[str, Any]:
        # The arrays of a copy are checked again: two views of one array are two arrays there.
        return self.__dict__ | {"_arrays": {}}

    def state_arrays(self) -> dict[str, Array]:
        """The live state arrays under flat names, `slot.parameter`, as a checkpoint holds them."""
        return {f"{s}.{name}": a for s, slot in self.state.items() for name, a in slot.items()}

    def load_state(self, steps: int, lr: float, arrays: Arrays) -> None:
        """Take over a state: the step count, the rate and the arrays of `state_arrays`.

        Raises
        ------
        TypeError, ValueError
            Before anything is changed, if an array's name, dtype or shape or a number is wrong.
        """
        check_like("optimizer state", arrays, self.state_arrays())
        check_positive(lr=lr)
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps is {steps!r}, expected an int >= 0")
        self.steps, self.lr = steps, lr
        for name, array in self.state_arrays().items():
            np.copyto(array, arrays[name])


def _check_gradient(name: str, grads: Arrays, p: Array) -> None:
    """Refuse a gradient that is not there or not like its parameter."""
    if name not in grads:
        raise ValueError(f"grads has no entry {name!r}")
    checks.exact(f"grads[{name!r}]", grads[name], p.dtype, p.shape, "", f"params[{name!r}]")
