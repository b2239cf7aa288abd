"""How a function is timed, and in what order several of them take turns."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

Run: TypeAlias = Callable[[], tuple[Any, ...]]
Key = TypeVar("Key")
Item = TypeVar("Item")


def seconds_of(run: Run, repeats: int) -> float:
    """Duration of `repeats` calls, without pauses for garbage collection."""
    gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        for _ in range(repeats):
            run()
        return perf_counter() - start
    finally:
        gc.enable()


def repeats_for(run: Run, seconds: float) -> int:
    """How often to call `run` so that one measurement lasts at least about `seconds`."""
    repeats = 1
    while (elapsed := seconds_of(run, repeats)) < seconds:
        wanted = 1.1 * repeats * seconds / max(elapsed, 1e-9)
        repeats = min(max(2 * repeats, int(wanted)), 10 * repeats)
    return repeats


def seconds_per_call(run: Run, repeats: int) -> float:
    """Warm up with a tenth of the calls, then time them.

    While others have their turn caches go cold, and the host of a virtual machine takes back memory
    that was freed: the first call of a long case can take twice the time.
    """
    seconds_of(run, math.ceil(repeats / 10))
    return seconds_of(run, repeats) / repeats


def turns(items: Iterable[Item], number: int) -> list[Item]:
    """The order of round `number`.

    In as many rounds as there are items each has every place once. With an even number of items
    each also comes once after every other one, so that no one always follows the same.
    """
    items = list(items)
    n = len(items)
    zigzag = sorted(range(n), key=lambda k: min(2 * k - 1, 2 * (n - k)))  # 0, 1, n-1, 2, n-2, ...
    return [items[(k + number) % n] for k in zigzag]


def fastest(runs: Mapping[Key, Run], rounds: int = 3, seconds: float = 0.02) -> Key:
    """The function whose best round is the shortest; an equal one that comes first wins."""
    repeats = {key: repeats_for(run, seconds) for key, run in runs.items()}
    best = dict.fromkeys(runs, math.inf)
    for number in range(rounds):
        for key in turns(runs, number):
            best[key] = min(best[key], seconds_per_call(runs[key], repeats[key]))
    return min(best, key=lambda key: best[key])
