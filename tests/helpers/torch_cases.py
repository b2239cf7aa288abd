"""Layers of PyTorch and rnnfast.torch with the same weights, and all that a training step gives."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import rnnfast.torch  # noqa: E402

T, B, I, H, P = 5, 3, 2, 11, 7
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": P}),
}
Results = dict[str, Any]


def pair(kind: str, dtype: Any = torch.float64, **options: Any) -> tuple[Any, Any]:
    """A layer of torch.nn and the same of rnnfast.torch."""
    torch.manual_seed(0)
    name, defaults = KINDS[kind]
    options = defaults | {"dtype": dtype} | options
    plain = getattr(torch.nn, name)(I, H, **options)
    fast = getattr(rnnfast.torch, name)(I, H, **options)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def parts(state: Any) -> list[Any]:
    """The tensors of a state."""
    return list(state) if isinstance(state, tuple) else [state]


def random_like(tensor: Any, seed: int) -> Any:
    """The same numbers for the same shape and seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def data(layer: Any, *lead: int, seed: int = 0) -> tuple[Any, Any]:
    """An input with the leading axes `lead`, T and B or B and T or T, and a state to go with it."""
    weight = next(layer.parameters())
    x = random_like(weight.new_empty(*lead, layer.input_size), seed)
    batch = lead[:1] if layer.batch_first else lead[1:]
    cells = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    state = [random_like(weight.new_empty(cells, *batch, n), seed + 1) for n in sizes]
    if len(lead) == 1:
        state = [random_like(weight.new_empty(cells, n), seed + 1) for n in sizes]
    return x, tuple(state) if layer.mode == "LSTM" else state[0]


def train(layer: Any, x: Any, state: Any, pack: Any = None, **options: Any) -> Results:
    """Results and gradients by name, with a gradient of every result; `pack` makes the input."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in [x, *parts(state)]]
    hx = tuple(leaves[1:]) if layer.mode == "LSTM" else leaves[1]
    given = leaves[0] if pack is None else pack(leaves[0])
    y, final = layer(given, hx, **options)
    if pack is not None:
        assert all(a is b for a, b in zip(y[1:], given[1:], strict=True))
        y = y.data
    outputs = [y, *parts(final)]
    layer.zero_grad()
    sum((t * random_like(t, 10 + i)).sum() for i, t in enumerate(outputs)).backward()
    names = ["y", *(f"state{i}" for i in range(len(outputs) - 1))]
    found = {name: tensor.detach() for name, tensor in zip(names, outputs, strict=True)}
    inputs = dict(zip(["x", *names[1:]], leaves, strict=True)) | dict(layer.named_parameters())
    grads = {f"d{n}": torch.zeros_like(t) if t.grad is None else t.grad for n, t in inputs.items()}
    return found | {name: grad.clone() for name, grad in grads.items()}


def assert_close(got: Results, want: Results) -> None:
    """Equal up to rounding, relative to the largest element of each tensor."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].shape == value.shape, name
        allowed = 400 * torch.finfo(value.dtype).eps * max(float(value.abs().max()), 1e-2)
        torch.testing.assert_close(got[name], value, rtol=0, atol=allowed, msg=name)


class Outputs(torch.utils.data.Dataset):  # type: ignore[misc]
    """What a layer makes of inputs, computed wherever the items are asked for."""

    def __init__(self, layer: Any, inputs: Any) -> None:
        self.layer, self.inputs = layer, inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        with torch.no_grad():
            return self.layer(self.inputs[index])[0]
