"""Ctrl-C at any moment, except in the middle of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class InterruptGuard:
    """While active, SIGINT is as ever outside `hold()` and waits for its end inside.

    The handler that was installed before (Python's own, which raises `KeyboardInterrupt`, or
    another) is the one that runs. Outside the main thread, where signals never arrive, and where
    SIGINT is ignored, nothing is done.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._holding = self._pending = False

    def __enter__(self) -> InterruptGuard:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let nothing interrupt the block: a SIGINT inside it acts at its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            if self._pending:
                self._pending = False
                self._on_signal(signal.SIGINT, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._pending = True
        elif self._handler is not None:
            self._handler(number, frame)
