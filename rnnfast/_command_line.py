"""What the commands share: a parser that says what was meant, and where results may go."""

from __future__ import annotations

import argparse
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that reports the arguments it does not know itself, and not the one above it.

    `hint` is what to say of them. `actions` are parsers for those who begin with a certain word.
    """

    hint = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.actions: dict[str, argparse.ArgumentParser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args and args[0] in self.actions:
            return self.actions[args[0]].parse_known_args(args[1:], namespace)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        hint = self.hint
        if unknown[0].startswith("-"):
            options = re.findall(r"--[\w-]+", self.format_help())
            if close := get_close_matches(unknown[0].partition("=")[0], options, n=1, cutoff=0.75):
                hint = f"did you mean {close[0]}?"
        self.error(f"unrecognized arguments: {' '.join(unknown)}" + (hint and f" ({hint})"))


def why_not_writable(path: str) -> str | None:
    """Why no file can be written to a path, to be asked before the work; None if it can."""
    target = Path(path)
    if target.is_dir():
        return "it is a directory"
    if not target.parent.is_dir():
        return f"there is no directory {target.parent}"
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        return "no permission to write there"
    return None
