"""Show how far the benchmark is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from .cases import Case


def progress(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield the cases: with a bar on a terminal, else with a line whenever the shape changes."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            yield from _lines(cases)
            return
        with tqdm(cases, unit="case", leave=False) as bar:
            for case in bar:
                bar.set_description_str(f"{case.shape} {case.cell} {case.direction}")
                yield case
    else:
        yield from _lines(cases)


def _lines(cases: Sequence[Case]) -> Iterator[Case]:
    shape = ""
    for number, case in enumerate(cases, 1):
        if case.shape != shape:
            shape = case.shape
            print(f"[{number}/{len(cases)}] {shape}", file=sys.stderr, flush=True)
        yield case
