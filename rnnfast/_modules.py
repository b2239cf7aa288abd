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
    steps: Array | None  # (B,), the last valid step of each row, -1 where there is none


class Last:
    """The output at each row's last valid step: many steps in, one row out.

    Parameters
    ----------
    batch_first : bool, optional
        Whether x is (B, T, F) instead of (T, B, F). None: as the recurrent layers of the
        `Sequential` that it is in, and (T, B, F) where it stands alone.

    Attributes
    ----------
    params : dict
        Empty.

    Notes
    -----
    A row without steps gets zeros, and a gradient of zero. Behind a bidirectional layer the half of
    the reverse direction has read the last step alone.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2, 1)  # 3 steps of 2 rows
    >>> rnnfast.Last()(x, lengths=[3, 1]).ravel()
    array([4., 1.])
    """

    def __init__(self, batch_first: bool | None = None) -> None:
        self.batch_first = None if batch_first is None else bool(batch_first)
        self.params: dict[str, Array] = {}

    def __repr__(self) -> str:
        return "Last()" if self.batch_first is None else f"Last(batch_first={self.batch_first})"

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
            A wrong dtype or shape, or a length out of range.
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
        T = len(by_step)
        steps = None
        if lengths is not None:
            steps = checks.lengths(lengths, T, by_step.shape[1]) - 1
        if T == 0:
            y = np.zeros(by_step.shape[1:], x.dtype)
        elif steps is None:
            y = by_step[-1].copy()
        else:
            y = by_step[steps, np.arange(len(steps))]  # -1, of no steps, is the last one here
            y[steps < 0] = 0
        return y, LastTape(x.shape, x.dtype, batch_first, steps)

    def backward(self, tape: LastTape, dy: Array) -> ModuleGrads:
        """Gradient of the input: `dy` at each row's last valid step, zero elsewhere.

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
        if tape.steps is not None:
            (rows,) = np.nonzero(tape.steps >= 0)
            by_step[tape.steps[rows], rows] = dy[rows]
        elif len(by_step):
            by_step[-1] = dy
        return ModuleGrads(dx, {})


def _by_step(x: Array, batch_first: bool) -> Array:
    """A view with the steps on the first axis."""
    return x.swapaxes(0, 1) if batch_first and x.ndim == 3 else x
