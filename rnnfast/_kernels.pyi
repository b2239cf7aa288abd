from collections.abc import Callable, Mapping
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
    dtype: str
    used: bool
    b_ih: bool
    b_hh: bool
    w_hr: bool
    packing: Any
    @property
    def cell(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int, int, int, int]: ...

def build_info() -> dict[str, Any]: ...
def omp_max_threads() -> int: ...
def pause_openmp() -> None: ...
def forked_child() -> None: ...
def vmath(name: str, x: NDArray[Any]) -> NDArray[Any]: ...
def fma_peak(dtype: str, seconds: float) -> float: ...

class Packed: ...

class Steps:
    dtype: np.dtype[Any]
    turn: int
    def __new__(
        cls,
        layers: list[dict[str, Any]],
        batch_size: int,
        threads: int,
        dtype: np.dtype[Any],
        ndarray: type,
        empty: Callable[..., NDArray[Any]],
    ) -> Self: ...
    def step(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...

# Indexed by "float" or "double": the arguments are not looked at to choose.
forward: Mapping[str, Callable[..., Tape | None]]
backward: Mapping[str, Callable[..., None]]
pack: Mapping[str, Callable[..., tuple[Packed, int]]]
run_packed: Mapping[str, Callable[..., None]]
