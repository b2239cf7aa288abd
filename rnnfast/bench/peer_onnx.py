"""How the inference engines compute a case: ONNX Runtime and OpenVINO, from the same graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import GATES, Arrays, Case
from .work import UnsupportedError, Work, load


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


def on_onnxruntime(case: Case, arrays: Arrays, threads: int) -> Work:
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

    return Work(run, session.get_session_options().intra_op_num_threads)


def on_openvino(case: Case, arrays: Arrays, threads: int) -> Work:
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

    return Work(run, int(compiled.get_property("INFERENCE_NUM_THREADS")))
