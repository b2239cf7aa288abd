"""How each library computes a case.

A runner takes `(case, arrays, threads)`, does everything that can be done once (weights, sessions,
compilation, room for the results where the library can use it) and returns a function of no
arguments: the work to be timed. That function returns `(y,)` or, for training,
`(y, dx, dw_ih, dw_hh)` in the library's own arrays. Libraries are imported inside their runners,
because each lives in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .cases import GATES, Arrays, Case

Run: TypeAlias = Callable[[], tuple[Any, ...]]
Runner: TypeAlias = Callable[[Case, Arrays, int], Run]


class UnsupportedError(Exception):
    """The library offers no such computation."""


def load(library: str) -> ModuleType:
    """Import a library. OpenVINO would tell its makers over the network: it is kept from that."""
    if library == "openvino":
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return import_module(library)


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
        return outputs[0], grads.x, grads.w_ih, grads.w_hh

    return run_forward if case.direction == "forward" else run_training


def expected(case: Case, arrays: Arrays) -> tuple[Any, ...]:
    """What every library should return, from the reference in float64."""
    from rnnfast import reference

    return from_module(reference, case, {k: v.astype(np.float64) for k, v in arrays.items()})()


def on_rnnfast(case: Case, arrays: Arrays, threads: int) -> Run:
    """Training by the functions, which pack the weights in every call; inference by a stream, which
    has packed them once. The state that it carries on stands in for the given one after the first
    call: the work is the same."""
    import rnnfast

    if threads != rnnfast.get_num_threads():  # a default number gives way on a busy machine
        rnnfast.set_num_threads(threads)
    if case.direction == "training":
        return from_module(rnnfast.functional, case, arrays)
    layer: Any = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}[case.cell]
    layer = layer(*case.sizes[2:], dtype=case.dtype)
    layer.load_state_dict({name: arrays[short] for short, name in layer._cells[0]})
    state = [arrays[name][None] for name in ("h0", "c0") if name in arrays]
    stream = layer.stream(case.sizes[1], state if case.cell == "lstm" else state[0])
    return lambda: (stream.run(arrays["x"]),)


def on_numpy(case: Case, arrays: Arrays, threads: int) -> Run:
    from rnnfast import reference

    return from_module(reference, case, arrays)


def on_torch(case: Case, arrays: Arrays, threads: int) -> Run:
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
        dx, *dstate_dw = torch.autograd.grad(y, leaves, t["dy"])
        dw_ih, dw_hh = dstate_dw[len(state) : len(state) + 2]
        return y.detach(), dx, dw_ih, dw_hh

    if case.direction == "forward":
        return run_forward
    leaves = [t["x"], *state, *(getattr(module, name) for name in weights)]
    for leaf in leaves:
        leaf.requires_grad_()
    return run_training


def on_jax(case: Case, arrays: Arrays, threads: int) -> Run:
    import jax

    jax.config.update("jax_enable_x64", case.dtype == "float64")
    *args, dy = (jax.numpy.asarray(value) for value in arrays.values())
    cell = jax_cell(case.cell)

    def forward(x: Any, *rest: Any) -> Any:
        *state, w_ih, w_hh, b_ih, b_hh = rest

        def step(state: Any, ax: Any) -> Any:
            state = cell(state, ax, state[0] @ w_hh.T + b_hh)
            return state, state[0]

        return jax.lax.scan(step, tuple(state), x @ w_ih.T + b_ih)[1]

    def training(*args: Any) -> Any:
        y, backward = jax.vjp(forward, *args)
        return y, backward(dy)

    compiled = jax.jit(forward if case.direction == "forward" else training)

    def run_forward() -> tuple[Any, ...]:
        return (jax.block_until_ready(compiled(*args)),)

    def run_training() -> tuple[Any, ...]:
        y, grads = jax.block_until_ready(compiled(*args))
        return y, grads[0], grads[-4], grads[-3]

    return run_forward if case.direction == "forward" else run_training


def jax_cell(name: str) -> Callable[[Any, Any, Any], tuple[Any, ...]]:
    """One step: `(state, w_ih x + b_ih, w_hh h + b_hh)` to the next state, `h` first."""
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    def rnn(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        return (tanh(ax + ah),)

    def gru(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        (rx, zx, nx), (rh, zh, nh) = split(ax, 3, -1), split(ah, 3, -1)
        r, z = sigmoid(rx + rh), sigmoid(zx + zh)
        return ((1 - z) * tanh(nx + r * nh) + z * state[0],)

    def lstm(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        i, f, g, o = split(ax + ah, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[name]


def onnx_model(case: Case, arrays: Arrays) -> bytes:
    """A graph of one ONNX operator, inputs `x` and the states, output `Y (T, 1, B, H)`."""
    from onnx import TensorProto, helper, numpy_helper

    T, B, I, H = case.sizes
    # ONNX orders gates z r n and i o f g where PyTorch has r z n and i f g o.
    order = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}[case.cell]

    def reordered(*names: str) -> np.ndarray[Any, Any]:
        blocks = [np.split(arrays[name], GATES[case.cell]) for name in names]
        return np.concatenate([block[gate] for block in blocks for gate in order])[None]

    weights = {"W": reordered("w_ih"), "R": reordered("w_hh"), "B": reordered("b_ih", "b_hh")}
    states = {"h0": "initial_h", "c0": "initial_c"} if case.cell == "lstm" else {"h0": "initial_h"}
    node = helper.make_node(
        case.cell.upper(),
        ["x", *weights, "", *states],
        ["Y"],
        hidden_size=H,
        **({"linear_before_reset": 1} if case.cell == "gru" else {}),
    )
    shapes = {"x": (T, B, I)} | dict.fromkeys(states, (1, B, H))
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, 1, B, H))],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in weights.items()],
    )
    opset = helper.make_opsetid("", 14)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def onnx_feeds(case: Case, arrays: Arrays) -> Arrays:
    """The inputs of `onnx_model`; refuses what inference engines do not compute."""
    if case.direction != "forward":
        raise UnsupportedError("inference only")
    if case.dtype != "float32":
        raise UnsupportedError("float32 only")
    return {"x": arrays["x"]} | {k: arrays[k][None] for k in ("h0", "c0") if k in arrays}


def on_onnxruntime(case: Case, arrays: Arrays, threads: int) -> Run:
    feeds = onnx_feeds(case, arrays)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        onnx_model(case, arrays), options, providers=["CPUExecutionProvider"]
    )
    # Bound arrays make it a third faster than `session.run` at the smallest sizes. The binding does
    # not own them, `run` does.
    buffers = {**feeds, "Y": np.empty_like(arrays["dy"])[:, None]}
    binding = session.io_binding()
    for name in feeds:
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(buffers[name]))
    binding.bind_ortvalue_output("Y", ort.OrtValue.ortvalue_from_numpy(buffers["Y"]))

    def run() -> tuple[Any, ...]:
        session.run_with_iobinding(binding)
        return (buffers["Y"][:, 0],)

    return run


def on_openvino(case: Case, arrays: Arrays, threads: int) -> Run:
    feeds = onnx_feeds(case, arrays)
    ov: Any = load("openvino")
    core = ov.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # the default may be bfloat16
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(onnx_model(case, arrays)), "CPU", settings)
    request = compiled.create_infer_request()
    for name, value in feeds.items():
        request.set_tensor(name, ov.Tensor(np.ascontiguousarray(value)))
    y = request.get_output_tensor(0).data

    def run() -> tuple[Any, ...]:
        request.infer()
        return (y[:, 0],)

    return run


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
