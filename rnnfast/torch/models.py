"""Make the recurrent layers of a model fast, and undo it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .layers import GRU, LSTM, RNN, Recurrent

_FAST = {fast._plain: fast for fast in (RNN, GRU, LSTM)}
_NAMES = {"RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"}


@dataclass
class Report:
    """What `accelerate` did; print it.

    Attributes
    ----------
    replaced : dict of str to str
        The layers that rnnfast computes now, and what they are.
    kept : dict of str to str
        The other recurrent layers, and why they are as before.

    Both go by the names of `model.named_modules()`, where "" is the model itself.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"replaced  {n or '(the model)'}: {what}" for n, what in self.replaced.items()]
        lines += [f"kept      {n or '(the model)'}: {why}" for n, why in self.kept.items()]
        return "\n".join(lines) or "no recurrent layers"


def accelerate(model: Any) -> Report:
    """Let rnnfast compute every RNN, GRU and LSTM of a model that it can, in place.

    The modules stay the same objects, the model itself included: only their class changes. So
    parameters, hooks, optimisers and other references to them stay valid.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    Report
        What was replaced, what was not, and why.
    """
    report = Report()
    for name, module in model.named_modules():
        if not _is_recurrent(module):
            continue
        reason = _obstacle(module)
        if reason:
            report.kept[name] = reason
        else:
            module.__class__ = _FAST[type(module)]
            module._accelerated = True
            report.replaced[name] = str(module)
    return report


def restore(model: Any) -> None:
    """Undo `accelerate`. Layers made as `rnnfast.torch`'s stay so."""
    for module in model.modules():
        if type(module) in _FAST.values() and module.__dict__.pop("_accelerated", False):
            module.__class__ = module._plain


def _is_recurrent(module: Any) -> bool:
    name = getattr(module, "original_name", type(module).__name__)  # of a scripted module
    return isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)) or name in _NAMES


def _obstacle(module: Any) -> str:
    """Return why a recurrent module cannot be replaced, or nothing."""
    kind = type(module)
    if isinstance(module, Recurrent):
        return "is rnnfast's already"
    if isinstance(module, torch.nn.RNNCellBase):
        return f"{kind.__name__} takes single steps, rnnfast.torch has layers for whole sequences"
    if kind not in _FAST:
        return f"{kind.__module__}.{kind.__qualname__} may compute something else than torch.nn's"
    if "forward" in module.__dict__:
        return "its forward has been replaced"
    for parameter in module.parameters():
        where, dtype = parameter.device.type, str(parameter.dtype).removeprefix("torch.")
        if where != "cpu" or dtype not in ("float32", "float64"):
            return f"has {dtype} parameters on {where}, rnnfast takes float32 and float64 on cpu"
    return ""
