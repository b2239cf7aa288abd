"""What the runners of all libraries have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

from .cases import Arrays, Case
from .timing import Run


class UnsupportedError(Exception):
    """The library offers no such computation."""


def nothing() -> None:
    """For a run that leaves nothing behind."""


@dataclass
class Work:
    """A case made ready by a library.

    Parameters
    ----------
    run : function
        What is timed. It returns the case's `results` in the library's own arrays.
    threads : int or None
        How many threads the library itself says it has; None if it does not say.
    restart : function
        Undoes what a run has left behind: the next one gives the first one's results.
    notes : dict
        What the record should say of the way that was chosen.
    """

    run: Run
    threads: int | None
    restart: Callable[[], None] = nothing
    notes: dict[str, Any] = field(default_factory=dict)


Runner: TypeAlias = Callable[[Case, Arrays, int], Work]


def load(library: str) -> ModuleType:
    """Import a library. OpenVINO would tell its makers over the network: it is kept from that."""
    if library == "openvino":
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return import_module(library)
