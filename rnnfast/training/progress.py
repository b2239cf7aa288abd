"""Progress of long work on standard error: a tqdm bar if tqdm is installed, plain lines if not."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

# tqdm cuts a line at the terminal's edge, so the figures stand first and the bar last. Without a
# total there is no bar, but its place keeps tqdm cutting.
WITH_TOTAL = "{desc}  {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}] |{bar}|"
WITHOUT_TOTAL = "{desc}  {n_fmt} [{elapsed}, {rate_fmt}] {bar}"
LABEL = 24  # columns that a label always gets: three figures have room beside it in 80
COUNTS = 40  # columns that the counts, the times and the bar should have, where there are more


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
        """Count one step more and show `figures`: `loss=0.5`, say, with four digits."""
        self.done += 1
        if not self.enabled:
            return
        if figures:
            self._text = ", ".join(
                f"{name.replace('_', ' ')} {value if isinstance(value, int) else f'{value:.4g}'}"
                for name, value in figures.items()
            )
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.bar_format = _bar_format(self.total)
            self._bar.set_description_str(self._described(self._bar.ncols), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._printed > self.seconds_between_lines:
            self._print_line()

    def close(self) -> None:
        """Show the last state."""
        if self._bar is not None:
            self._bar.close()
        elif self.enabled:
            self._print_line()

    def _described(self, columns: int | None) -> str:
        """The label, shortened where the terminal's columns are too few for it, and the figures."""
        label = self.label
        room = len(label) if not columns else max(LABEL, columns - len(self._text) - COUNTS)
        return f"{label if len(label) <= room else label[: room - 3] + '...'}: {self._text}"

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
    return tqdm(
        total=total,
        desc=f"{label}:",
        file=sys.stderr,
        mininterval=0.2,
        dynamic_ncols=True,
        bar_format=_bar_format(total),
    )


def _bar_format(total: int | None) -> str:
    return WITHOUT_TOTAL if total is None else WITH_TOTAL
