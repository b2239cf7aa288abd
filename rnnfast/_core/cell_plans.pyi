from typing import Any

import numpy as np
from numpy.typing import NDArray

class Plan:
    plan: Any
    def __init__(self, plan: Any) -> None: ...

def lanes_of(dtype: np.dtype[Any]) -> int: ...
def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
