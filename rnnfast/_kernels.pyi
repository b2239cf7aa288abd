from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

RNN: int
GRU: int
GRU_RESET_BEFORE: int
LSTM: int
ACTIVATIONS: dict[str, int]
SERIAL_FLOPS: float

class Tape:
    dtype: np.dtype[Any]
    used: bool
    b_ih: bool
    b_hh: bool
    w_hr: bool
    packing: Any
    @property
    def cell(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int, int, int]: ...

_Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, Tape | None]

def run_forward(calls: list[tuple[Any, ...]], threads: int) -> list[_Outputs] | None: ...
def run_backward(
    calls: list[tuple[Any, ...]], threads: int
) -> list[tuple[NDArray[Any] | None, ...]] | None: ...
def build_info() -> dict[str, Any]: ...
def omp_max_threads() -> int: ...
def pause_openmp() -> None: ...
def forked_child() -> None: ...
def vmath(name: str, x: NDArray[Any]) -> NDArray[Any]: ...
def fma_peak(precision: str, seconds: float) -> float: ...

class Packed: ...

def pack(
    cell: int, act: int, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any
) -> tuple[Packed, int]: ...

class Steps:
    dtype: np.dtype[Any]
    turn: int
    def __new__(
        cls, layers: list[dict[str, Any]], batch_size: int, threads: int, dtype: np.dtype[Any]
    ) -> Self: ...
    def step(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def run(self, x: NDArray[Any]) -> NDArray[Any]: ...
