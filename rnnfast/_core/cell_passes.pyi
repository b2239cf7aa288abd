from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cell_plans import Plan

Array = NDArray[Any]

class Tape:
    used: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    @property
    def plan(self) -> Any: ...

class StreamCell:
    states: list[Array]
    def __init__(
        self, compiled: Plan, params: dict[str, Array], B: int, dtype: np.dtype[Any]
    ) -> None: ...

class StreamCells:
    cells: list[StreamCell]
    def __init__(
        self, cells: list[StreamCell], B: int, dtype: np.dtype[Any], threads: int
    ) -> None: ...
    def step(
        self, x: Array, out: Array | None, extra: list[tuple[Array, int, int]]
    ) -> Array: ...
    def run(self, x: Array, y: Array, T: int, extra: list[tuple[Array, int, int]]) -> None: ...

def forward(
    compiled: Any,
    x: Array,
    states: list[Array | None],
    params: dict[str, Array],
    extra: list[tuple[Array, int, int]],
    ragged: Any,
    flags: Array | None,
    reverse: bool,
    need_tape: bool,
    threads: int,
    y: Array,
    column: int,
) -> tuple[list[Array], Tape]: ...
def backward(
    tape: Tape, dy: Array | None, column: int, dstates: list[Array | None], threads: int
) -> tuple[Array, list[Array], dict[str, Array], Array]: ...
