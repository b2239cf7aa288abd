"""What stands between recurrent layers and needs nothing of the training kit: `Last`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._core import checks

Array = NDArray[Any]


class ModuleGrads(NamedTuple):
    """Gradients of a module: of its input, an array (`None` for ids), and of its parameters."""

    input: Any
    params: dict[str, Array]


class LastTape(NamedTuple):
    """What `Last.forward` leaves for `backward`: of x the shape, the dtype and which steps."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batch_first: bool
    from_start: slice  # the units that are taken at the first step
    steps: Array | None  # (B,), the last valid step of each row, -1 where there is none


class Last:
    """The output at each row's last valid step: many steps in, one row out.

    Parameters
    ----------
    batch_first : bool, optional
        Whether x is (B, T, F) instead of (T, B, F). None: as the recurrent layers of the
        `Sequential` that it is in, and (T, B, F) where it stands alone.
    both_ends : bool
        For the output of a bidirectional layer: take the second half of the units at the first
        step, where the reverse direction has read the whole row. Without it that half has read the
        last step alone.

    Attributes
    ----------
    params : dict
        Empty.

    Notes
    -----
    A row without steps gets zeros, and a gradient of zero.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2, 1)  # 3 steps of 2 rows
    >>> rnnfast.Last()(x, lengths=[3, 1]).ravel()
    array([4., 1.])
    """

    def __init__(self, batch_first: bool | None = None, *, both_ends: bool = False) -> None:
        self.batch_first = None if batch_first is None else bool(batch_first)
        self.both_ends = bool(both_ends)
        self.params: dict[str, Array] = {}

    def __repr__(self) -> str:
        options = [] if self.batch_first is None else [f"batch_first={self.batch_first}"]
        options += ["both_ends=True"] if self.both_ends else []
        return f"Last({', '.join(options)})"

    @property
    def num_parameters(self) -> int:
        """0: there are none."""
        return 0

    def __call__(self, x: Array, *, lengths: Any = None) -> Array:
        """`y (B, F)`. Arguments and errors as of `forward`."""
        return self.forward(x, lengths=lengths)[0]

    def forward(self, x: Array, *, lengths: Any = None) -> tuple[Array, LastTape]:
        """Output and tape.

        Parameters
        ----------
        x : ndarray (T, B, F), or (B, T, F) if `batch_first`, or (T, F); float32 or float64
        lengths : ndarray of int (B,), optional
            The steps of each row, from 0 to T; all T if omitted. Not with x (T, F).

        Returns
        -------
        y : ndarray (B, F), or (F,)
        tape : opaque
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            A wrong dtype or shape, a length out of range, or `both_ends` with an odd F.
        """
        return self._run(x, lengths, bool(self.batch_first))

    def _run(self, x: Array, lengths: Any, batch_first: bool) -> tuple[Array, LastTape]:
        checks.of_floats("x", x)
        if x.ndim not in (2, 3):
            dims = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(f"x has shape {x.shape}, expected {dims} or (T, F)")
        if x.ndim == 2:
            checks.no_lengths(lengths, x.shape)
        by_step = _by_step(x, batch_first)
        T, F = len(by_step), x.shape[-1]
        if self.both_ends and F % 2:
            raise ValueError(
                f"x has shape {x.shape}, expected an even number of units for both_ends: those of "
                "a bidirectional layer"
            )
        steps = None
        if lengths is not None:
            steps = checks.lengths(lengths, T, by_step.shape[1]) - 1
        if T == 0:
            y = np.zeros(by_step.shape[1:], x.dtype)
        elif steps is None:
            y = by_step[-1].copy()
        else:
            y = by_step[steps, np.arange(len(steps))]  # -1, of no steps, is the last one here
        from_start = slice(F // 2 if self.both_ends else F, F)
        if T:
            y[..., from_start] = by_step[0][..., from_start]
        if steps is not None:
            y[steps < 0] = 0
        return y, LastTape(x.shape, x.dtype, batch_first, from_start, steps)

    def backward(self, tape: LastTape, dy: Array) -> ModuleGrads:
        """Gradient of the input: `dy` where the output was taken, zero elsewhere.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray, the shape of y

        Returns
        -------
        grads : ModuleGrads
            `params` is empty.
        """
        dx = np.zeros(tape.shape, tape.dtype)
        by_step = _by_step(dx, tape.batch_first)
        checks.exact("dy", dy, tape.dtype, by_step.shape[1:])
        at_end, at_start = slice(tape.from_start.start), tape.from_start
        if not len(by_step):
            return ModuleGrads(dx, {})
        if tape.steps is not None:
            (rows,) = np.nonzero(tape.steps >= 0)
            by_step[tape.steps[rows], rows, at_end] = dy[rows, at_end]
            by_step[0, rows, at_start] = dy[rows, at_start]
        else:
            by_step[-1][..., at_end] = dy[..., at_end]
            by_step[0][..., at_start] = dy[..., at_start]
        return ModuleGrads(dx, {})


def _by_step(x: Array, batch_first: bool) -> Array:
    """A view with the steps on the first axis."""
    return x.swapaxes(0, 1) if batch_first and x.ndim == 3 else x
