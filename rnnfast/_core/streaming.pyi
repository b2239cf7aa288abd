from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .passes import Weights

Array = NDArray[Any]

class LayerState:
    h: Array
    c: Any  # an array, or None
    H: int
    P: int
    def __init__(
        self, cell: int, act: int, weights: Weights, B: int, zeros: Callable[..., Array]
    ) -> None: ...

class Steps:
    layers: list[LayerState]
    dtype: np.dtype[Any]
    turn: int
    threads: int
    rows_first: bool
    def __new__(
        cls,
        layers: list[LayerState],
        batch_size: int,
        threads: int,
        dtype: np.dtype[Any],
        rows_first: bool,
    ) -> Self: ...
    def step(self, x: Array, out: Array | None = None) -> Array: ...
    def run(self, x: Array) -> Array: ...
