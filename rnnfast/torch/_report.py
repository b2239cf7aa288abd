"""What rnnfast computes of a model, and why it does not compute the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ._classes import is_recurrent, obstacle
from ._counts import Calls
from .layers import Recurrent
from .step_cells import StepCell


@dataclass
class Report:
    """What rnnfast computes of a model; print it.

    All go by the names of `model.named_modules()`, where "" is the model itself. The calls are
    those of layers, since `accelerate`. A layer without any does not stand among the calls, nor do
    calls of cells and calls inside the graphs of `torch.compile`.

    Attributes
    ----------
    replaced : dict of str to str
        The layers and cells that are rnnfast's, and what they are.
    kept : dict of str to str
        The other recurrent layers, and why they are as before.
    kernels : dict of str to int
        How many calls of a layer the kernels computed.
    pytorch : dict of str to dict of str to int
        How many calls of a layer PyTorch's own operations computed, by the reason.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    pytorch: dict[str, dict[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [("replaced", name, what) for name, what in self.replaced.items()]
        rows += [("kept", name, why) for name, why in self.kept.items()]
        rows += [("calls", name, text) for name in self.replaced if (text := self._calls(name))]
        width = max((len(_shown(name)) for _, name, _ in rows), default=0)
        lines = [f"{label:8}  {_shown(name):{width}}  {text}" for label, name, text in rows]
        return "\n".join(lines) or "no recurrent layers"

    def _calls(self, name: str) -> str:
        """Return how often a layer was called, or nothing."""
        parts = [f"{self.kernels[name]} by rnnfast"] if name in self.kernels else []
        reasons = self.pytorch.get(name, {})
        parts += [f"{n} by PyTorch ({reason})" for reason, n in reasons.items()]
        return ", ".join(parts)


def report(model: Any) -> Report:
    """Say what rnnfast computes of a model, and why it does not compute the rest.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    Report
        The recurrent layers, and who has computed their calls so far; print it.

    Raises
    ------
    TypeError
        If `model` is not a module.
    """
    check_module(model)
    found = Report()
    for name, module in model.named_modules():
        if isinstance(module, Recurrent):
            found.replaced[name] = _on_a_line(module)
            calls: Calls = module._calls
            if calls.kernels:
                found.kernels[name] = calls.kernels
            if calls.pytorch:
                found.pytorch[name] = dict(calls.pytorch)
        elif isinstance(module, StepCell):
            found.replaced[name] = _on_a_line(module)
        elif is_recurrent(module):
            found.kept[name] = obstacle(module) or "is torch.nn's: accelerate(model) replaces it"
    return found


def check_module(model: Any) -> None:
    """Refuse what is no module."""
    if isinstance(model, torch.nn.Module):
        return
    kind = type(model).__name__
    if isinstance(model, type):
        what, remedy = f"the class {model.__name__}", ": make one of it first"
    elif isinstance(model, (list, tuple, dict)):
        what, remedy = f"a {kind}", ": give each model by itself, or all in a torch.nn.ModuleList"
    else:
        what, remedy = kind, ""
    raise TypeError(f"model is {what}, expected a torch.nn.Module{remedy}")


def _on_a_line(module: Any) -> str:
    """Return what a layer is, without the parametrizations that stand below it."""
    return f"{module._get_name()}({module.extra_repr()})"


def _shown(name: str) -> str:
    return name or "(the model)"
