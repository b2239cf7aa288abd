"""RNNCell, GRUCell and LSTMCell: one step of a layer, with its gradients.

They are for loops that must see each step: attention between steps, a decoder that reads what it
wrote, a state that something else changes. Whole sequences are for the layers, which take all their
steps in one call, and steps without gradients for a `stream`. All three give the same bits.

Letters: B batch rows, I input size, H hidden size, G gates; P output size, which is H unless an
LSTM is projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ._builtin import Gradients, KernelCell, State
from ._core import arrays, checks, config
from ._core.passes import BackwardCall, ForwardCall, run_backward, run_forward
from ._core.passes import Tape as KernelTape
from ._core.threads import resolve
from ._parameters import Array, Seed

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]

GivenState = Array | Sequence[Array | None] | None


class StepTape(NamedTuple):
    """What a cell's `forward` leaves for one `backward`."""

    cell: StepCell[Any]
    batch: tuple[int, ...]  # (B,), or () if the input was unbatched
    kernel: KernelTape


class StepCell(KernelCell, Generic[State]):
    """What the three have in common."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        dtype: DTypeLike,
        rng: Seed,
        proj_size: int = 0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            1,
            bias=bias,
            batch_first=False,
            dropout=0.0,
            bidirectional=False,
            dtype=dtype,
            rng=rng,
            proj_size=proj_size,
        )

    def _name_parameters(self) -> None:
        """Give them the names of a layer's, without the layer's number."""
        super()._name_parameters()
        self._shapes = {_own(name): shape for name, shape in self._shapes.items()}
        self._names = [tuple(map(_own, names)) for names in self._names]
        self._cells = [tuple((short, _own(name)) for short, name in c) for c in self._cells]

    def __call__(self, x: Array, h: GivenState = None, *, threads: int | None = None) -> State:
        """Return the next state. Arguments and errors are those of `forward`."""
        batch, call = self._step(x, h, threads, training=False)
        return self._joined(call.h_n, call.c_n, batch)

    def forward(
        self, x: Array, h: GivenState = None, *, threads: int | None = None
    ) -> tuple[State, StepTape]:
        """Take a step for training.

        Parameters
        ----------
        x : ndarray, (B, I) or (I,)
            The input, in the cell's dtype. Must not be modified before `backward`. Where it has no
            batch axis, neither have the states.
        h : ndarray, (B, P) or (P,); for the LSTM a pair
            The state before the step, zeros by default. The LSTM takes ``(h, c)`` with `c` (B, H)
            or (H,); either may be None.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        h : ndarray or pair of ndarray, shaped as the argument
            The state after the step.
        tape : object
            For one call of `backward`.

        Raises
        ------
        TypeError
            If an argument is not an array, or has another dtype.
        ValueError
            If a shape does not fit.
        """
        batch, call = self._step(x, h, threads, training=True)
        assert call.tape is not None
        return self._joined(call.h_n, call.c_n, batch), StepTape(self, batch, call.tape)

    def backward(
        self,
        tape: StepTape,
        dh: GivenState = None,
        *,
        accumulate: dict[str, Array] | None = None,
        threads: int | None = None,
    ) -> Gradients[State]:
        """Backpropagate through the step that returned `tape`.

        Parameters
        ----------
        tape : object
            From this cell's `forward`. It can be used once.
        dh : ndarray, for the LSTM a pair ``(dh, dc)``, shaped as the returned state, optional
            Gradient of the returned state, zeros by default; in a pair either may be None.
        accumulate : dict of str to ndarray, optional
            Arrays with the names, shapes and dtype of the parameters, to which the parameters'
            gradients are added; it is returned as `params`.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        Gradients
            Named tuple: `input`, shaped as ``x``; `state`, shaped as the state, also where that was
            None; `params`, a dict with the names of the cell's parameters.

        Raises
        ------
        TypeError
            If `tape` is not a tape, or another argument not an array of the cell's dtype.
        ValueError
            If a shape or a name does not fit, or the tape belongs to another cell.
        RuntimeError
            If the tape has been used.
        """
        if not isinstance(tape, StepTape):
            raise TypeError(f"tape has type {type(tape).__name__}, expected what forward returned")
        if tape.cell is not self:
            raise ValueError(f"tape is from another cell, {tape.cell}, expected one from {self}")
        if accumulate is not None:
            self._check_named("accumulate", accumulate, writeable=True)
        upstream = self._check_state("dh", dh, tape.batch)
        call = BackwardCall(self._kind()[0], tape.kernel, None, *upstream)
        run_backward([call], resolve(threads))
        params = arrays.by_name(self._names, [call.dweights])
        dx = call.dx[0] if tape.batch else call.dx[0, 0]
        state = self._joined(call.dh0, call.dc0, tape.batch)
        return Gradients(dx, state, self._accumulated(params, accumulate))

    def _step(
        self, x: Array, h: GivenState, threads: int | None, training: bool
    ) -> tuple[tuple[int, ...], ForwardCall]:
        """Run a sequence of one step."""
        batch = self._check_input(x)
        states, (cell, act) = self._check_state("h", h, batch), self._kind()
        sequence = x[None] if batch else x[None, None]
        weights = self._check_params()[0]
        call = ForwardCall(cell, act, sequence, *states, weights, None, None, False, training)
        run_forward([call], resolve(threads))
        return batch, call

    def _check_input(self, x: Array) -> tuple[int, ...]:
        """Return (B,), or () for unbatched input."""
        checks.of_dtype("x", x, self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"x has shape {x.shape}, expected (B, I) or (I,) with I = {self.input_size}"
            )
        return x.shape[:-1]

    def _check_state(self, name: str, state: GivenState, batch: tuple[int, ...]) -> tuple[Any, Any]:
        """Return h and c, (B, .) each, or their gradients; None for zeros, and where is no c."""
        count = len(self._sizes)
        parts: Any = (None,) * count if state is None else (state,) if count == 1 else state
        if not isinstance(parts, tuple | list):
            raise TypeError(f"{name} has type {type(state).__name__}, expected a pair (h, c)")
        if len(parts) != count:
            raise ValueError(f"{name} has length {len(parts)}, expected a pair (h, c)")
        found = []
        for i, (part, size) in enumerate(zip(parts, self._sizes, strict=True)):
            if part is not None:
                letter = self._state_letters[i] if self.proj_size else "H"
                dims = f"({'B, ' if batch else ''}{letter}{'' if batch else ','})"
                label = name if count == 1 else f"{name}[{i}]"
                checks.exact(label, part, self.dtype, (*batch, size), dims)
            found.append(part if batch or part is None else part[None])
        return found[0], found[1] if count == 2 else None

    def _joined(self, h: Array, c: Any, batch: tuple[int, ...]) -> State:
        """Turn h and c, (B, .), into what the user sees."""
        if not batch:
            h, c = h[0], None if c is None else c[0]
        return h if c is None else (h, c)  # type: ignore[return-value]


def _own(name: str) -> str:
    return name.removesuffix("_l0")


class RNNCell(StepCell[Array]):
    """One step of a simple recurrent layer (Elman 1990).

    ``h = act(w_ih x + b_ih + w_hh h' + b_hh)``

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
        The activation.
    bias : bool
        Whether there are biases.
    dtype : dtype
        float32 or float64: of the parameters and of all floating-point input and output.
    rng : int, numpy.random.Generator or None
        Where the initial parameters come from. None: fresh entropy.

    Attributes
    ----------
    params : dict of str to ndarray
        The live parameters: ``weight_ih (G*H, I)``, ``weight_hh (G*H, P)``, ``bias_ih`` and
        ``bias_hh (G*H)``, with G = 1 and P = H here. They start as uniform(-1/sqrt(H), 1/sqrt(H)).
        Change them in place, or put other arrays of the same shape and dtype there.

    Raises
    ------
    TypeError
        If a size is not an integer, or `dtype` not one of the two.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> cell = rnnfast.RNNCell(8, 16, rng=0)
    >>> h, tape = cell.forward(np.ones((4, 8), np.float32))
    >>> grads = cell.backward(tape, np.ones_like(h))  # grads.input, grads.state, grads.params
    """

    _gates = config.gates_of(config.RNN)
    _state_letters = ("P",)
    _state_names = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        checks.choice("nonlinearity", nonlinearity, config.ACTIVATIONS)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias=bias, dtype=dtype, rng=rng)

    def _kind(self) -> tuple[int, int]:
        return config.RNN, config.ACTIVATIONS[self.nonlinearity]


class GRUCell(StepCell[Array]):
    """One step of a gated recurrent unit (Cho 2014, Chung 2014).

    Gates r, z, n. The equations are those of `GRU`.

    Parameters
    ----------
    reset_after : bool
        Whether r acts on the product, as in PyTorch, or on the state, as in Cho 2014.
    input_size, hidden_size, bias, dtype, rng
        As in `RNNCell`.

    Attributes
    ----------
    params : dict of str to ndarray
        As in `RNNCell`, with G = 3.

    Raises
    ------
    TypeError, ValueError
        As in `RNNCell`.
    """

    _gates = config.gates_of(config.GRU)
    _state_letters = ("P",)
    _state_names = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset_after: bool = True,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(input_size, hidden_size, bias=bias, dtype=dtype, rng=rng)

    def _kind(self) -> tuple[int, int]:
        return config.GRU if self.reset_after else config.GRU_RESET_BEFORE, 0


class LSTMCell(StepCell[tuple[Array, Array]]):
    """One step of long short-term memory (Hochreiter & Schmidhuber 1997, Gers 2000).

    Gates i, f, g, o. The equations are those of `LSTM`; the state is a pair ``(h, c)``.

    Parameters
    ----------
    proj_size : int
        P, less than `hidden_size`; 0 for no projection (Sak 2014).
    input_size, hidden_size, bias, dtype, rng
        As in `RNNCell`.

    Attributes
    ----------
    params : dict of str to ndarray
        As in `RNNCell`, with G = 4; with a projection also ``weight_hr (P, H)``.

    Raises
    ------
    TypeError, ValueError
        As in `RNNCell`.

    Examples
    --------
    >>> cell = rnnfast.LSTMCell(8, 16, rng=0)
    >>> (h, c), tape = cell.forward(np.ones((4, 8), np.float32))
    >>> grads = cell.backward(tape, (np.ones_like(h), None))
    """

    _gates = config.gates_of(config.LSTM)
    _state_letters = ("P", "H")
    _state_names = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        proj_size: int = 0,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias=bias, dtype=dtype, rng=rng, proj_size=proj_size
        )

    def _kind(self) -> tuple[int, int]:
        return config.LSTM, 0
