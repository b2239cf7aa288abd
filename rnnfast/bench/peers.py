"""How each library computes a case.

A runner takes `(case, arrays, threads)` and does everything that can be done once: weights,
sessions, compilation, room for the results where the library can use it. Libraries are imported
inside their runners, because each lives in a process of its own.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .cases import Arrays, Case
from .peer_jax import on_jax
from .peer_onnx import on_onnxruntime, on_openvino
from .timing import Run
from .work import Runner, Work


def from_module(module: ModuleType, case: Case, arrays: Arrays) -> Run:
    """`module` is `rnnfast.functional` or its twin `rnnfast.reference`."""
    *args, dy = arrays.values()
    forward = getattr(module, f"{case.cell}_forward")
    backward = getattr(module, f"{case.cell}_backward")

    def run_forward() -> tuple[Any, ...]:
        return (forward(*args, need_tape=False)[0],)

    def run_training() -> tuple[Any, ...]:
        outputs = forward(*args)
        grads = backward(outputs[-1], dy)
        return outputs[0], *grads[: len(args)]

    return run_forward if case.direction == "forward" else run_training


def expected(case: Case, arrays: Arrays) -> tuple[Any, ...]:
    """What every library should return, from the reference in float64."""
    from rnnfast import reference

    return from_module(reference, case, {k: v.astype(np.float64) for k, v in arrays.items()})()


def on_rnnfast(case: Case, arrays: Arrays, threads: int) -> Work:
    """Training by the functions, which pack the weights in every call; inference by a stream, which
    has packed them once. The state that it carries on stands in for the given one after the first
    call: the work is the same."""
    import rnnfast

    if threads != rnnfast.get_num_threads():  # a default number gives way on a busy machine
        rnnfast.set_num_threads(threads)
    if case.direction == "training":
        run = from_module(rnnfast.functional, case, arrays)
        return Work(run, rnnfast.get_num_threads())
    layer: Any = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}[case.cell]
    layer = layer(*case.sizes[2:], dtype=case.dtype)
    layer.load_state_dict({name: arrays[short] for short, name in layer._cells[0]})
    states = [arrays[name][None] for name in ("h0", "c0") if name in arrays]
    state = states if case.cell == "lstm" else states[0]
    stream = layer.stream(case.sizes[1], state)

    def restart() -> None:
        stream.state = state

    # A default number, which gives way on a busy machine, is negative there.
    return Work(lambda: (stream.run(arrays["x"]),), abs(stream.threads), restart)


def on_numpy(case: Case, arrays: Arrays, threads: int) -> Work:
    from rnnfast import reference

    return Work(from_module(reference, case, arrays), blas_threads())


def blas_threads() -> int | None:
    """What the OpenBLAS of NumPy's own wheels says; None where NumPy has another library."""
    for path in Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"):
        for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_"):
            if function := getattr(ctypes.CDLL(str(path)), name, None):
                return int(function())
    return None


def on_torch(case: Case, arrays: Arrays, threads: int) -> Work:
    import torch

    torch.set_num_threads(threads)
    t = {name: torch.from_numpy(value) for name, value in arrays.items()}
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case.cell]
    module = layer(*case.sizes[2:], dtype=t["x"].dtype)
    weights = {
        "weight_ih_l0": t["w_ih"],
        "weight_hh_l0": t["w_hh"],
        "bias_ih_l0": t["b_ih"],
        "bias_hh_l0": t["b_hh"],
    }
    module.load_state_dict(weights)
    state = [t[name].unsqueeze(0) for name in ("h0", "c0") if name in t]
    hx = tuple(state) if case.cell == "lstm" else state[0]

    def run_forward() -> tuple[Any, ...]:
        with torch.inference_mode():
            return (module(t["x"], hx)[0],)

    def run_training() -> tuple[Any, ...]:
        y, _ = module(t["x"], hx)
        dx, *rest = torch.autograd.grad(y, leaves, t["dy"])
        dstate, dweights = rest[: len(state)], rest[len(state) :]
        return y.detach(), dx, *(d[0] for d in dstate), *dweights

    if case.direction == "forward":
        return Work(run_forward, torch.get_num_threads())
    leaves = [t["x"], *state, *(getattr(module, name) for name in weights)]
    for leaf in leaves:
        leaf.requires_grad_()
    return Work(run_training, torch.get_num_threads())


RUNNERS: dict[str, Runner] = {
    "rnnfast": on_rnnfast,
    "numpy": on_numpy,
    "torch": on_torch,
    "onnxruntime": on_onnxruntime,
    "jax": on_jax,
    "openvino": on_openvino,
}
NEEDS = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}


def missing(library: str) -> list[str]:
    """The packages `library` needs and this Python has not."""
    return [name for name in NEEDS.get(library, (library,)) if find_spec(name) is None]
