"""What the messages of `checks` end with: the code that makes a wrong argument right."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

_FLOATS = "float32", "float64"


def remedy(name: str, fix: str) -> str:
    """The end of a message.

    A name with a space in it, such as that of an array inside a file, is no expression that a
    reader could use: it gets no remedy.
    """
    return f"; {fix}" if fix and " " not in name else ""


def cast(name: str, value: Any, found: np.dtype[Any], dtype: np.dtype[Any]) -> str:
    """Code for an array of `dtype` from what NumPy reads as `found`; "" if numbers would suffer."""
    if found.kind not in "biuf":
        return ""
    if not isinstance(value, np.ndarray):
        return f"np.asarray({name}, np.{dtype})"
    return f"{name}.astype(np.{dtype})"


def converted(name: str, value: Any, dtype: np.dtype[Any] | None) -> str:
    """How to make an ndarray of what is none, of `dtype` or else of floats; "" if there is none."""
    if isinstance(value, list | tuple) and _differ_in_length(value):
        return "training.pad makes an array of sequences of different length, and their lengths"
    if is_tensor(value):
        own = str(value.dtype).removeprefix("torch.")
        wanted = str(dtype or (own if own in _FLOATS else _FLOATS[0]))
        to = "" if own == wanted else f".to(torch.{wanted})"
        detach = ".detach()" if value.requires_grad else ""
        cpu = "" if value.device.type == "cpu" else ".cpu()"
        return f"{name}{detach}{cpu}{to}.numpy()"
    if isinstance(value, list | tuple | Real) or hasattr(type(value), "__array__"):
        return f"np.asarray({name}, np.{dtype or _FLOATS[0]})"
    return ""


def _differ_in_length(sequences: Any) -> bool:
    arrays = (s for s in sequences if not isinstance(s, np.ndarray) or s.ndim)
    return len({len(a) for a in arrays if isinstance(a, list | tuple | np.ndarray)}) > 1


def mapping_of(name: str, value: Any) -> str:
    """Code for the dict of arrays that a layer, gradients or a module of PyTorch has, or ""."""
    if isinstance(getattr(value, "params", None), Mapping):
        return f"{name}.params"
    return f"{name}.state_dict()" if hasattr(value, "state_dict") else ""


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of PyTorch, which need not be here."""
    root = type(value).__module__.partition(".")[0]
    return root == "torch" and hasattr(value, "requires_grad")
