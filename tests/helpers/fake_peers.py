"""Stand-ins for libraries and clocks, so that the benchmark's own logic is tested without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class Clock:
    """`time.perf_counter` that moves only when a function from `lasting` is called."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def lasting(self, name: str, *seconds: float) -> Callable[[], tuple[Any, ...]]:
        """A function whose calls take these times, further ones the last of them."""
        left = list(seconds)

        def run() -> tuple[Any, ...]:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return ()

        return run


class Pending:
    """A result of a jitted function: nothing can be read before `block_until_ready`."""

    def __init__(self, value: Any) -> None:
        self.value = value


def fake_jax(unrolls: list[int]) -> dict[str, ModuleType]:
    """JAX's modules, as far as the benchmark uses them, by PyTorch; `unrolls` collects scans."""
    import torch

    def scan(step: Any, state: Any, xs: Any, unroll: int = 1) -> Any:
        unrolls.append(unroll)
        ys = []
        for x in xs:
            state, y = step(state, x)
            ys.append(y)
        return state, torch.stack(ys)

    def jit(function: Any) -> Any:
        return lambda *args: Pending(function(*args))

    jax, nn, numpy = (ModuleType(name) for name in ("jax", "jax.nn", "jax.numpy"))
    config = {"jax_enable_x64": False}
    jax.config = SimpleNamespace(update=config.__setitem__)
    jax.lax = SimpleNamespace(scan=scan)
    jax.vjp, jax.jit, jax.nn, jax.numpy = torch.func.vjp, jit, nn, numpy
    jax.block_until_ready = lambda pending: pending.value
    nn.sigmoid, numpy.tanh = torch.sigmoid, torch.tanh
    numpy.asarray = lambda array: torch.tensor(
        array, dtype=torch.float64 if config["jax_enable_x64"] else torch.float32
    )
    numpy.split = torch.chunk
    return {"jax": jax, "jax.nn": nn, "jax.numpy": numpy}


def fake_openvino(most_threads: int) -> ModuleType:
    """OpenVINO, as far as the benchmark uses it, by `rnnfast.onnx`; it takes `most_threads`."""
    import rnnfast.onnx

    class Request:
        def __init__(self, layer: Any) -> None:
            self.layer, self.inputs, self.y = layer, {}, None

        def set_tensor(self, name: str, tensor: Any) -> None:
            self.inputs[name] = tensor

        def get_output_tensor(self, index: int) -> Any:
            T, B, _ = self.inputs["x"].shape
            self.y = np.zeros((T, 1, B, self.layer.hidden_size), np.float32)
            return SimpleNamespace(data=self.y)

        def infer(self) -> None:
            inputs = dict(self.inputs)
            x, states = inputs.pop("x"), tuple(inputs.values())
            self.y[:, 0] = self.layer(x, states if len(states) > 1 else states[0])[0]

    class Compiled:
        def __init__(self, layer: Any, settings: dict[str, Any]) -> None:
            self.layer, self.settings = layer, settings

        def get_property(self, name: str) -> Any:
            assert name == "INFERENCE_NUM_THREADS"
            return min(self.settings[name], most_threads)

        def create_infer_request(self) -> Request:
            return Request(self.layer)

    class Core:
        def read_model(self, model: bytes) -> Any:
            return rnnfast.onnx.load(model)

        def compile_model(self, layer: Any, device: str, settings: dict[str, Any]) -> Compiled:
            assert device == "CPU"
            assert settings["INFERENCE_PRECISION_HINT"] == "f32"
            return Compiled(layer, settings)

    module = ModuleType("openvino")
    module.Core, module.Tensor = Core, lambda array: array
    return module
