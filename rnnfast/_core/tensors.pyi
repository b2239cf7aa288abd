from collections.abc import Iterable
from typing import Any, Self

from numpy.typing import NDArray

class Tensors:
    def __new__(cls, capsule: object, plain: type, parameter: type) -> Self: ...
    def arrays(self, given: Iterable[object]) -> list[NDArray[Any] | None] | None: ...
