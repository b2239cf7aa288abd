"""Make the recurrent layers of a model fast, and undo it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch.nn.utils import parametrize

from ._classes import fast_class_of, is_recurrent, obstacle, plain_class, was_replaced
from ._report import check_module
from .layers import Recurrent, own_attributes

Model = TypeVar("Model")


def accelerate(model: Model) -> Model:
    """Let rnnfast compute every RNN, GRU and LSTM of a model that it can, in place.

    The modules stay the same objects, the model itself included: only their class changes. So
    parameters, hooks, optimisers and other references to them stay valid. `report` says what was
    replaced, and why the rest was not.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        The same `model`.

    Raises
    ------
    TypeError
        If `model` is not a module, or a scripted one.
    """
    modules = _modules(model, "accelerate")
    for module in modules:
        if is_recurrent(module) and not isinstance(module, Recurrent) and not obstacle(module):
            module.__class__ = fast_class_of(module)
            kind = parametrize.type_before_parametrizations(module)
            module.__dict__.update(own_attributes(kind), _accelerated=True)
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate`, in place. Layers made as `rnnfast.torch`'s stay so.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        The same `model`.

    Raises
    ------
    TypeError
        If `model` is not a module, or a scripted one.
    """
    for module in _modules(model, "restore"):
        if isinstance(module, Recurrent) and was_replaced(module):
            module.__class__ = plain_class(type(module))
            for name in "_accelerated", "_calls", "__module__":
                module.__dict__.pop(name, None)
    return model


def _modules(model: Any, verb: str) -> list[Any]:
    """Return the modules of a model, which must be one that can be changed."""
    check_module(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"model is a {type(model).__name__}, a compiled program of torch.jit that cannot be "
            f"changed: {verb} the model that it was made of"
        )
    return list(model.modules())
