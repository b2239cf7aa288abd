from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NO_COPY_OF_A_TAPE: str
TAPES: dict[int, int]

def tape_at(address: int) -> Tape | None: ...
def tape_size(cell: int, dtype: Any, T: int, B: int, H: int, P: int) -> int: ...

class Weights:
    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any
    w_hr: Any
    def __init__(
        self, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, w_hr: Any = None
    ) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...

class Tape:
    memory: NDArray[np.uint8]
    dtype: np.dtype[Any]
    used: bool
    b_ih: bool
    b_hh: bool
    w_hr: bool
    ragged: Any
    @property
    def cell(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int, int, int]: ...
    @property
    def directions(self) -> int: ...

class ForwardCall:
    cell: int
    act: int
    x: Any
    h0: Any
    c0: Any
    weights: Weights
    lengths: Any
    resets: Any
    ragged: Any
    flags: Any
    saved: NDArray[np.uint8] | None
    reverse: bool
    need_tape: bool
    y: Any
    h_n: Any
    c_n: Any
    tape: Tape | None
    def __init__(
        self,
        cell: int,
        act: int,
        x: Any,
        h0: Any,
        c0: Any,
        weights: Weights,
        lengths: Any,
        resets: Any,
        reverse: Any,
        need_tape: Any,
    ) -> None: ...

class BackwardCall:
    cell: int
    tape: Any
    dy: Any
    dh_n: Any
    dc_n: Any
    dx: Any
    dh0: Any
    dc0: Any
    dweights: Weights
    def __init__(self, cell: int, tape: Any, dy: Any, dh_n: Any, dc_n: Any) -> None: ...

def run_forward(calls: list[ForwardCall], threads: int) -> None: ...
def run_backward(calls: list[BackwardCall], threads: int) -> None: ...
