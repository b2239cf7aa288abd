"""Dropout as a layer of its own, to stand between others."""

from __future__ import annotations

import numpy as np

from .._core import checks
from .._described import Module
from .._recurrent import dropout_mask
from ._array import Array
from .modules import ModuleGrads


class Dropout(Module):
    """Leave out numbers at random in training: `y = mask x`, the mask 0 or `1 / (1 - p)`.

    As in the recurrent layers, `forward` draws a new mask, and a plain call returns its input: it
    is the prediction, from which nothing is left out.

    Parameters
    ----------
    p : float
        The probability of leaving a number out, `0 <= p < 1`.
    rng : int or numpy.random.Generator, optional
        Where the masks come from. None: fresh entropy.

    Attributes
    ----------
    p : float
    rng : numpy.random.Generator
    params : dict
        Empty.

    Raises
    ------
    TypeError
        `p` is no number.
    ValueError
        `p` is not in that range.

    Notes
    -----
    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting
    (2014).
    """

    _always_shown = ("p",)

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None) -> None:
        self.p = checks.probability("p", p)
        self.rng = np.random.default_rng(rng)
        self.params: dict[str, Array] = {}

    def __call__(self, x: Array) -> Array:
        """`x` itself."""
        return checks.of_floats("x", x)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Output and tape.

        Parameters
        ----------
        x : ndarray, any shape, float32 or float64

        Returns
        -------
        y : ndarray, the shape of x
        tape : opaque
            For `backward`.
        """
        x = checks.of_floats("x", x)
        mask = dropout_mask(self.rng, self.p, x.shape, x.dtype)
        return x * mask, mask

    def backward(self, tape: Array, dy: Array) -> ModuleGrads:
        """Gradient of the input, `dx = mask dy`; `params` is empty.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray, the shape of x

        Returns
        -------
        grads : ModuleGrads
        """
        checks.exact("dy", dy, tape.dtype, tape.shape)
        return ModuleGrads(dy * tape, {})
