"""The errors that the docstrings of the public names state."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import rnnfast
from rnnfast import demos, functional, interop, reference, stream, training


def errors() -> set[tuple[str, str]]:
    """Every public function, class and method beside each error that its docstring has."""
    return {(name, error) for name, docstring in documented() for error in raised(docstring)}


def documented() -> Iterator[tuple[str, str]]:
    """Public names and their docstrings."""
    for module in (rnnfast, functional, interop, reference, stream, training, demos):
        for name in getattr(module, "__all__", ["run"]):
            value: Any = getattr(module, name)
            if inspect.ismodule(value) or not hasattr(value, "__module__"):
                continue
            path = f"{module.__name__.removeprefix('rnnfast').lstrip('.')}.{name}".lstrip(".")
            yield path, value.__doc__ or ""
            if inspect.isclass(value):
                for method, function in inspect.getmembers(value, inspect.isfunction):
                    if not method.startswith("_"):  # an inherited one under its own class
                        yield function.__qualname__, function.__doc__ or ""


def raised(docstring: str) -> list[str]:
    """The types in the section "Raises" of a docstring."""
    text = inspect.cleandoc(docstring)
    _, _, section = text.partition("Raises\n------\n")
    section = re.split(r"\n\n", section)[0]
    heads = [line for line in section.splitlines() if not line.startswith(" ")]
    return [error for head in heads for error in head.split(", ")]
