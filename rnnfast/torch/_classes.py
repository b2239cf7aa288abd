"""Which classes of layers rnnfast can stand in for, and the classes that do.

A class derived from `torch.nn`'s may be replaced if it leaves alone what its layers compute. Then
the class that takes its place derives from rnnfast's layer and from it. A parametrized layer has a
class of its own, made by `torch.nn.utils.parametrize`, with a property per tensor. PyTorch removes
those properties, and goes back to the first base when all are gone. So a replaced layer must have
that class on top: it is made anew, on another base.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import parametrize

from .layers import GRU, LSTM, RNN, Recurrent

_RELIED = (  # what torch.nn's `forward` goes by, and what files and copies do
    *("forward", "all_weights", "_update_flat_weights", "_weights_have_changed"),
    *("_init_flat_weights", "check_forward_args", "check_input", "check_hidden_size"),
    *("get_expected_hidden_size", "get_expected_cell_size", "permute_hidden"),
    *("__reduce__", "__reduce_ex__"),
)
_OURS = {name for name in vars(Recurrent) if not name.startswith("__")} - {"forward"}
_OURS |= {"_plain", "_calls", "_accelerated"}
_NAMES = {"RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"}


def is_recurrent(module: Any) -> bool:
    """Whether a module is a recurrent layer or cell of PyTorch, scripted and quantized ones too."""
    if isinstance(module, torch.jit.ScriptModule):
        name = getattr(module, "original_name", "")
        return name in _NAMES and not any(module.children())
    if isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
        return True
    kind = type(module)
    return kind.__module__.startswith("torch.ao.nn") and kind.__name__ in _NAMES


def obstacle(module: Any) -> str:
    """Return why a recurrent module cannot be replaced, or nothing."""
    kind = parametrize.type_before_parametrizations(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "is scripted: a compiled program, which runs PyTorch's layer"
    if isinstance(module, torch.nn.RNNCellBase):
        return f"{kind.__name__} takes single steps, rnnfast.torch has layers for whole sequences"
    plain = next((k._plain for k in (RNN, GRU, LSTM) if isinstance(module, k._plain)), None)
    if plain is None:
        return f"{_named(kind)} may compute something else than torch.nn's layers"
    changed = next((n for n in _RELIED if _differs(kind, module, plain, n)), None)
    if changed is not None:
        owner = "it has" if changed in module.__dict__ else f"{_named(kind)} has"
        return f"{owner} a {changed} of its own, so it may compute something else than torch.nn's"
    for name in sorted(_OURS):
        if _differs(kind, module, plain, name):
            return f"has an attribute {name}, which rnnfast's layers need themselves"
    for parameter in module.parameters():
        where, dtype = parameter.device.type, str(parameter.dtype).removeprefix("torch.")
        if where != "cpu" or dtype not in ("float32", "float64"):
            return f"has {dtype} parameters on {where}, rnnfast takes float32 and float64 on cpu"
    return ""


def _differs(kind: Any, module: Any, plain: Any, name: str) -> bool:
    """Whether a module or its class has an attribute that `torch.nn`'s layer has not."""
    return name in module.__dict__ or getattr(kind, name, None) is not getattr(plain, name, None)


def _named(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# --------------------------------------------------------------------------------------- classes


def fast_class(plain: Any) -> Any:
    """Return the class that takes the place of `plain`."""
    for kind in plain.__subclasses__():
        if vars(kind).get("_plain") is plain:
            return kind
    base = next(k for k in (RNN, GRU, LSTM) if issubclass(plain, k._plain))
    names = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "__reduce_ex__": _reduced,
        "_plain": plain,
    }
    return types.new_class(
        plain.__name__, (base, plain), exec_body=lambda space: space.update(names)
    )


def plain_class(kind: Any) -> Any:
    """Return the class whose place `kind` takes, below what other tools derived from that."""
    return kind._plain if "_plain" in vars(kind) else on_other_base(kind, plain_class)


def was_replaced(module: Any) -> bool:
    """Whether a layer is rnnfast's by `accelerate`, and was not made so."""
    kind = next(k for k in type(module).__mro__ if "_plain" in vars(k))
    return kind not in (RNN, GRU, LSTM) or "_accelerated" in module.__dict__


def fast_class_of(module: Any) -> Any:
    """Return the class that takes the place of a module's own."""
    kind = type(module)
    parametrized = parametrize.is_parametrized(module)
    return on_other_base(kind, fast_class) if parametrized else fast_class(kind)


def on_other_base(kind: Any, changed: Callable[[Any], Any]) -> Any:
    """Make the same class again, on `changed(layer)` for the class of layers it derives from."""
    names = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    bases = (changed(b) if issubclass(b, torch.nn.RNNBase) else b for b in kind.__bases__)
    return types.new_class(kind.__name__, tuple(bases), exec_body=lambda space: space.update(names))


def _reduced(self: Any, protocol: Any) -> Any:
    """Be pickled and copied by the class whose place this one takes: only that has a name."""
    return _made, (self._plain,), self.__getstate__()


def _made(plain: Any) -> Any:  # this name stands in files
    kind = fast_class(plain)
    return kind.__new__(kind)
