"""Progress of long work on standard error: a tqdm bar if tqdm is installed, plain lines if not."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts steps and shows them with the latest figures.

    Parameters
    ----------
    total : int or None
        Steps in all, if known; the attribute may be set later.
    label : str
        What is being done.
    enabled : bool
        False shows nothing.

    Examples
    --------
    >>> with Progress(2, "work", enabled=False) as progress:
    ...     for loss in (0.5, 0.25):
    ...         progress.update(loss=loss)
    """

    seconds_between_lines = 2.0

    def __init__(self, total: int | None, label: str, enabled: bool = True) -> None:
        self.total, self.label, self.enabled = total, label, enabled
        self.done = 0
        self._started = self._printed = time.monotonic()
        self._bar = _tqdm_bar(total, label) if enabled else None
        self._text = ""

    def update(self, **figures: float) -> None:
        """Count one step more and show `figures`, such as `loss=0.5`, with four digits."""
        self.done += 1
        if not self.enabled:
            return
        if figures:
            self._text = ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items()
            )
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix_str(self._text, refresh=False)
            self._bar.update()
        elif time.monotonic() - self._printed > self.seconds_between_lines:
            self._print_line()

    def close(self) -> None:
        """Show the last state."""
        if self._bar is not None:
            self._bar.close()
        elif self.enabled:
            self._print_line()

    def _print_line(self) -> None:
        self._printed = time.monotonic()
        of_total = "" if self.total is None else f"/{self.total}"
        seconds = self._printed - self._started
        line = f"{self.label}: {self.done}{of_total} in {seconds:.0f} s  {self._text}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _tqdm_bar(total: int | None, label: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=label, file=sys.stderr, mininterval=0.2)
