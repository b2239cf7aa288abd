from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

class Tape:
    used: bool

class Packed:
    def __init__(self, weight: Array, bias: Array | None) -> None: ...
    def __call__(self, x: Any, threads: int) -> Array | None: ...

def forward(
    x: Array, weight: Array, bias: Array | None, need_tape: bool, threads: int
) -> tuple[Array, Tape | None]: ...
def backward(tape: Tape, dy: Array, threads: int) -> tuple[Array, Array, Array]: ...
