from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

def same(a: Any, b: dict[str, Any]) -> bool: ...
def copied(array: NDArray[Any]) -> NDArray[Any]: ...
def by_name(
    names: list[tuple[str, ...]], groups: list[Iterable[Any]]
) -> dict[str, NDArray[Any]]: ...
