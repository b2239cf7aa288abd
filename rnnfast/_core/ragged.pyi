import numpy as np
from numpy.typing import NDArray

def extremes(lengths: NDArray[np.intp]) -> tuple[int, int]: ...
def order_by_length(
    lengths: NDArray[np.intp], T: int, reverse: bool
) -> tuple[NDArray[np.intp], ...]: ...
