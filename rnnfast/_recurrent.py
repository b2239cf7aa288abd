"""The passes of a layer: stacked cells, directions, dropout between layers, batch axes.

What is the same for built-in cells (`_builtin.py`) and those of the user's own (`_generic.py`).
Letters and cells as in `rnnfast._parameters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._core import checks
from ._core.passes import NO_COPY_OF_A_TAPE
from ._core.threads import resolve
from ._parameters import Array, Parameters

GivenState = Array | Sequence[Array | None] | None
CellState = tuple[Array | None, ...]  # the states of one cell, (B, .); None: zeros


@dataclass(slots=True, eq=False)
class Tape:
    """What `forward` leaves for one `backward`."""

    layer: RecurrentLayer
    batch: tuple[int, ...]  # (B,), or () if the input was unbatched
    y_shape: tuple[int, ...]
    cells: list[Any]  # of each cell the tape of its forward; emptied by backward
    masks: list[Array | None]  # of each stacked layer the dropout mask on its input

    def __reduce__(self) -> Any:
        raise TypeError(NO_COPY_OF_A_TAPE)


class RecurrentLayer(Parameters):
    """The passes through stacked layers.

    A subclass says how one of them runs, in all of its directions: `_forward_calls` and
    `_backward_calls`. They return the calls of its cells. A forward call has `y`, the output of all
    directions, and `tape`; a backward call has `dx`.
    """

    _reverse = False  # whether the first direction is the one from the end

    def _forward_calls(
        self,
        cells: list[tuple[int, int]],
        x: Array,
        states: Sequence[CellState],
        lengths: Array | None,
        resets: Array | None,
        extra: Any,
        training: bool,
        threads: int,
    ) -> list[Any]:
        """Run the cells of a stacked layer, (direction, number) each; `extra` as they take it."""
        raise NotImplementedError

    def _backward_calls(
        self,
        cells: list[tuple[int, int]],
        tapes: list[Any],
        dy: Array | None,
        dstates: Sequence[CellState],
        threads: int,
    ) -> list[Any]:
        """Run them back; tapes and gradients of states are those of all cells, by number."""
        raise NotImplementedError

    def _run_forward(
        self,
        x: Array,
        state: GivenState,
        lengths: Array | None,
        resets: Array | None,
        threads: int | None,
        *,
        training: bool,
        extra: Any = None,
    ) -> tuple[Array, list[Any], Tape]:
        """Return y, the calls of all cells and the tape."""
        batch = self._check_input(x, lengths)
        states = self._check_state("state", state, batch)
        if resets is not None:
            resets = checks.mask("resets", resets, "x.shape[:-1]", x.shape[:-1])
            resets = self._time_major(resets, batch)
        x = self._time_major(x, batch)
        count = resolve(threads)
        done: list[Any] = []  # of each cell
        masks: list[Array | None] = []
        for layer, cells in enumerate(self._stack):
            mask = self._dropout_mask(x.shape) if training and layer else None
            if mask is not None:
                x = x * mask
            masks.append(mask)
            calls = self._forward_calls(cells, x, states, lengths, resets, extra, training, count)
            done += calls
            x = calls[-1].y
        y = self._as_given(x, batch)
        tapes = [call.tape for call in done]
        tape: Any = Tape(self, batch, y.shape, tapes, masks) if training else None
        return y, done, tape

    def _run_backward(
        self, tape: Tape, dy: Array | None, dstate: GivenState, threads: int | None
    ) -> tuple[Array, list[Any]]:
        """Return dx and the calls of all cells; the tape is used up."""
        dout, dstates = self._check_upstream(tape, dy, dstate)
        count = resolve(threads)
        done: list[Any] = []  # of each cell
        for layer in range(self.num_layers - 1, -1, -1):
            calls = self._backward_calls(self._stack[layer], tape.cells, dout, dstates, count)
            done = calls + done
            dout = calls[0].dx
            if len(calls) == 2:
                dout += calls[1].dx
            if tape.masks[layer] is not None:
                dout *= tape.masks[layer]
        tape.cells, tape.masks = [], []
        return self._as_given(dout, tape.batch), done

    # ------------------------------------------------------------------------------------ steps

    def _dropout_mask(self, shape: tuple[int, ...]) -> Array | None:
        if not self.dropout:
            return None
        return dropout_mask(self.rng, self.dropout, shape, self.dtype)

    def _time_major(self, a: Array, batch: tuple[int, ...]) -> Array:
        """Return the user's (T, B, ...), (B, T, ...) or (T, ...) as (T, B, ...) in C order, so that
        no direction needs a copy of its own."""
        if not batch:
            return a[:, None]
        return np.ascontiguousarray(a.swapaxes(0, 1)) if self.batch_first else a

    def _as_given(self, a: Array, batch: tuple[int, ...]) -> Array:
        """Undo `_time_major`."""
        if not batch:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    # ----------------------------------------------------------------------------------- checks

    def _check_input(self, x: Array, lengths: Array | None) -> tuple[int, ...]:
        """Return (B,), or () for unbatched input."""
        if type(x) is not np.ndarray or x.dtype is not self.dtype:
            checks.of_dtype("x", x, self.dtype)
        shape = x.shape
        if len(shape) == 3 and shape[2] == self.input_size:
            return (shape[0 if self.batch_first else 1],)
        if len(shape) != 2 or shape[1] != self.input_size:
            batched = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ValueError(
                f"x has shape {shape}, expected {batched} or (T, I) with I = {self.input_size}"
            )
        checks.no_lengths(lengths, shape)
        return ()

    def _check_state(
        self, name: str, state: GivenState, batch: tuple[int, ...]
    ) -> Sequence[CellState]:
        """Return each cell's part of a state or its gradient."""
        count = len(self._sizes)
        if state is None:
            return [(None,) * count] * len(self._stack) * self._directions
        given: Any = (state,) if count == 1 else state
        names = ", ".join(self._state_names)
        expected = f"a pair ({names})" if count == 2 else f"a tuple ({names})"
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{name} has type {type(state).__name__}, expected {expected}")
        if len(given) != count:
            raise ValueError(f"{name} has length {len(given)}, expected {expected}")
        cells = len(self._stack) * self._directions
        parts: list[Any] = [(None,) * cells] * count
        for i, part in enumerate(given):
            if part is None:
                continue
            label = name if count == 1 else f"{name}[{i}]"
            letter = self._state_letters[i] if self._state_letters else self._sizes[i]
            dims = f"(L*D, {'B, ' if batch else ''}{letter})"
            checks.exact(label, part, self.dtype, (cells, *batch, self._sizes[i]), dims)
            parts[i] = part if batch else part[:, None]
        return list(zip(*parts, strict=True))

    def _check_upstream(
        self, tape: Tape, dy: Array | None, dstate: GivenState
    ) -> tuple[Any, Sequence[CellState]]:
        """Return dy (T, B, D*P) and each cell's part of dstate."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape has type {type(tape).__name__}, expected what forward returned")
        if tape.layer is not self:
            raise ValueError(f"tape is from another layer, {tape.layer}, expected one from {self}")
        if not tape.cells:
            raise RuntimeError("tape has been used: it serves one backward")
        if dy is not None:
            checks.exact("dy", dy, self.dtype, tape.y_shape, "y.shape")
            dy = self._time_major(dy, tape.batch)
        return dy, self._check_state("dstate", dstate, tape.batch)


def stacked(parts: Sequence[Array], batched: bool) -> Array:
    """Stack the states of all cells, (B, .) each; unbatched, (1, .) as (.)."""
    if len(parts) == 1:  # a view; unbatched, (1, .) is (L*D, .)
        return parts[0][None] if batched else parts[0]
    states = np.array(parts)
    return states if batched else states[:, 0]


def dropout_mask(
    rng: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Inverted dropout: 0 with probability p, else 1 / (1 - p)."""
    mask: Array = rng.random(shape, dtype=dtype.type)
    np.greater_equal(mask, p, out=mask)
    mask *= 1 / (1 - p)
    return mask
