from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

class Tape:
    used: bool

def forward(
    x: Array, weight: Array, bias: Array | None, need_tape: bool, threads: int
) -> tuple[Array, Tape | None]: ...
def backward(tape: Tape, dy: Array, threads: int) -> tuple[Array, Array, Array]: ...
