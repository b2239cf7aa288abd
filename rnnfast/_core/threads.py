"""How many threads a call may use, what a fork needs, and the configuration report.

The number of threads of a call is, in this order: its `threads` argument; the innermost
`num_threads` block; `set_num_threads`; the environment variable `RNNFAST_NUM_THREADS`; the
smallest of OpenMP's own limit, the CPUs in the affinity mask and the control group's CPU quota.

A number that somebody names is used as it is. The last one, which nobody named, is the most that a
call takes: while other programs keep the CPUs busy it takes fewer (`csrc/parallel.c`).
"""

from __future__ import annotations

import operator
import os
from contextvars import ContextVar
from typing import SupportsIndex, TypedDict

from .._version import __version__
from . import config as core

MAX_THREADS = core.MAX_THREADS
_EXPECTED = f"expected an integer from 1 to {MAX_THREADS}"

# The open `num_threads` blocks of this context, innermost first: (count, enclosing blocks).
_Blocks = tuple[int, "_Blocks"] | None
_blocks: ContextVar[_Blocks] = ContextVar("rnnfast_num_threads", default=None)
# set_num_threads, else the default once somebody has asked for it: negative, for "at most so many"
_process_wide: int | None = None


class Config(TypedDict):
    version: str
    isa: str
    isas: list[str]
    openmp: bool
    compiler: str
    threads: int


def resolve(threads: SupportsIndex | None) -> int:
    """Return the number of threads of one call whose `threads` argument is given.

    A negative number means at most so many, as many as pay.
    """
    if threads is not None:
        return _checked("threads", threads)
    blocks = _blocks.get()
    if blocks is not None:
        return blocks[0]
    return _process_wide or _first_default()


def set_num_threads(n: SupportsIndex) -> None:
    """Set the number of threads of every later call in this process.

    A `threads` argument and a `num_threads` block still go first.

    Parameters
    ----------
    n : int
        From 1 to 256. It may exceed the number of CPUs.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.
    """
    global _process_wide
    _process_wide = _checked("n", n)


def get_num_threads() -> int:
    """Return the number of threads a call made here would use if it passed no `threads`.

    Where nobody has set one it is the most that a call uses: fewer while the CPUs are busy.

    Raises
    ------
    ValueError
        If the environment variable `RNNFAST_NUM_THREADS` decides and is not an integer from 1 to
        256. (An empty one counts as unset.)
    """
    return abs(resolve(None))


class num_threads:  # noqa: N801 - a context manager, used like a function
    """Context manager: use `n` threads inside the block.

    It acts on the current context (thread or asyncio task) only, blocks nest, and one object may
    be entered more than once.

    Parameters
    ----------
    n : int
        From 1 to 256. It may exceed the number of CPUs.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.

    Examples
    --------
    >>> with rnnfast.num_threads(1):
    ...     y, state = layer(x)
    """

    def __init__(self, n: SupportsIndex) -> None:
        self._n = _checked("n", n)

    def __enter__(self) -> None:
        _blocks.set((self._n, _blocks.get()))

    def __exit__(self, *exc_info: object) -> None:
        blocks = _blocks.get()
        assert blocks is not None
        _blocks.set(blocks[1])


def config() -> Config:
    """Return version, instruction sets, OpenMP, compiler and number of threads as a dict.

    `isa` is the instruction set in use, `isas` those compiled in that this machine can run.
    """
    build = core.build_info()
    return {
        "version": __version__,
        "isa": build["isa"],
        "isas": build["isas"],
        "openmp": build["openmp"],
        "compiler": build["compiler"],
        "threads": get_num_threads(),
    }


def show_config() -> None:
    """Print what `config` returns, one line each."""
    for name, value in config().items():
        print(f"{name:<9}", ", ".join(value) if isinstance(value, list) else value)


def _checked(name: str, n: SupportsIndex) -> int:
    if not isinstance(n, bool):
        try:
            count = operator.index(n)
        except TypeError:
            pass
        else:
            if 1 <= count <= MAX_THREADS:
                return count
            raise ValueError(f"{name} is {count}, {_EXPECTED}")
    raise TypeError(f"{name} has type {type(n).__name__}, {_EXPECTED}")


def _first_default() -> int:
    global _process_wide
    _process_wide = _default_threads()
    return _process_wide


def _default_threads() -> int:
    """Return what the environment says, else minus the smallest limit."""
    wish = os.environ.get("RNNFAST_NUM_THREADS")
    if wish:
        try:
            return _checked("RNNFAST_NUM_THREADS", int(wish))
        except ValueError:
            raise ValueError(f"RNNFAST_NUM_THREADS is {wish!r}, {_EXPECTED}") from None
    limits = core.omp_max_threads(), _affinity(), _cpu_quota(), MAX_THREADS
    return -max(1, min(limits))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int:
    """Return the CPUs the control groups of this process grant, rounded up.

    A group's quota binds its descendants, so the smallest on the way to the root counts. Formats:
    Linux, Documentation/admin-guide/cgroup-v2.rst (`cpu.max`) and scheduler/sched-bwc.rst (version
    1, `cpu.cfs_quota_us`).
    """
    smallest = MAX_THREADS
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group = root
        elif "cpu" in controllers.split(","):
            group = f"{root}/cpu"
        else:
            continue
        for child in [".", *path.strip("/").split("/")]:
            group = f"{group}/{child}"
            limit = _read(f"{group}/cpu.max").split() or [
                *_read(f"{group}/cpu.cfs_quota_us").split(),
                *_read(f"{group}/cpu.cfs_period_us").split(),
            ]
            if len(limit) == 2 and limit[0].isdecimal():  # else "max" or -1: no limit
                quota, period = map(int, limit)
                smallest = min(smallest, -(-quota // period))
    return smallest


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# A child forked while libgomp keeps idle threads would wait for them for ever: let them go first.
# The child itself computes on the calling thread only.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=core.pause_openmp, after_in_child=core.forked_child)
