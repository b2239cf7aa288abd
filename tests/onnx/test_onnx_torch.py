"""ONNX: models that PyTorch exports, as layers."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import pytest
from cases import cover
from onnx_models import H, I, onnx, outputs

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

from rnnfast.onnx import load  # noqa: E402

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
}
T, B = 6, 4


class Wrapped(torch.nn.Module):  # type: ignore[misc]
    """A recurrent layer, which must not be the module itself to be exported with a state."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any, *state: Any) -> Any:
        given = state if len(state) == 2 else next(iter(state), None)
        return self.layer(x, given)


def exported(module: Any, *args: Any, dynamic: bool = True, **options: Any) -> Any:
    """The ModelProto that PyTorch writes."""
    file = io.BytesIO()
    axes = {"x": {0: "a", 1: "b"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), args, file, dynamo=False, input_names=["x"], dynamic_axes=axes, **options
        )
    return onnx.load_model_from_string(file.getvalue())


def torch_layer(kind: str, **options: Any) -> tuple[Any, Any, list[Any]]:
    """A layer of torch.nn, an x and a state."""
    torch.manual_seed(0)
    name, defaults = KINDS[kind]
    layer = getattr(torch.nn, name)(I, H, **defaults | options)
    x = torch.randn(B, T, I) if layer.batch_first else torch.randn(T, B, I)
    cells = layer.num_layers * (1 + layer.bidirectional)
    return layer, x, [torch.randn(cells, B, H) for _ in range(1 + (name == "LSTM"))]


def assert_equals_torch(got: Any, layer: Any, x: Any, state: list[Any]) -> None:
    """The options, and results with a state and without."""
    for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "bias"):
        assert getattr(got, name) == getattr(layer, name), name
    for given in ([], state):
        joined = tuple(given) if len(given) == 2 else next(iter(given), None)
        with torch.no_grad():
            y, last = layer(x, joined)
        want = [y, *(last if isinstance(last, tuple) else (last,))]
        arrays = [part.numpy() for part in given]
        start = tuple(arrays) if len(arrays) == 2 else next(iter(arrays), None)
        for a, b in zip(outputs(got, x.numpy(), start), want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-5)


OPTIONS = cover(
    40,
    seed=0,
    kind=KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    fold=(False, True),
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_a_layer_comes_back(options: dict[str, Any]) -> None:
    options = dict(options)
    fold = options.pop("fold")
    layer, x, state = torch_layer(**options)
    model = exported(Wrapped(layer), x, do_constant_folding=fold)
    assert_equals_torch(load(model), layer, x, state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_without_bias_with_states_and_with_fixed_sizes(
    kind: str, given: bool, dynamic: bool
) -> None:
    layer, x, state = torch_layer(kind, num_layers=2, bias=False, batch_first=True)
    args = (x, *state) if given else (x,)
    model = exported(Wrapped(layer), *args, dynamic=dynamic, do_constant_folding=False)
    assert_equals_torch(load(model), layer, x, state)


@pytest.mark.parametrize("opset", [9, 12, 13, 18])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_form_of_the_operators(opset: int, bidirectional: bool) -> None:
    layer, x, state = torch_layer("lstm", num_layers=2, bidirectional=bidirectional)
    model = exported(Wrapped(layer), x, do_constant_folding=False, opset_version=opset)
    assert_equals_torch(load(model), layer, x, state)


def test_dropout_between_the_layers_of_an_exported_layer() -> None:
    layer, x, state = torch_layer("gru", num_layers=3, dropout=0.5)
    assert_equals_torch(load(exported(Wrapped(layer), x)), layer.eval(), x, state)


class Apart(torch.nn.Module):  # type: ignore[misc]
    """Two layers with a dropout of their own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.GRU(I, H), torch.nn.GRU(H, H)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return self.second(self.dropout(self.first(x)[0]))[0]


@pytest.mark.parametrize("mode", ["PRESERVE", "TRAINING"])
def test_a_dropout_keeps_nodes_apart_only_if_it_is_active(mode: str) -> None:
    training = getattr(torch.onnx.TrainingMode, mode)
    module, x = Apart(), torch.randn(T, B, I)
    model = exported(module, x, training=training, do_constant_folding=False)
    if mode == "TRAINING":
        assert "Dropout" in {node.op_type for node in model.graph.node}
        with pytest.raises(ValueError, match=r"node is None, expected one of .*/first/GRU"):
            load(model)
    else:
        with torch.no_grad():
            want = module.eval()(x).numpy()
        np.testing.assert_allclose(load(model)(x.numpy())[0], want, rtol=0, atol=1e-5)


class Classifier(torch.nn.Module):  # type: ignore[misc]
    """What people build around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10, I)
        self.layer = torch.nn.LSTM(I, H, 2, batch_first=True, bidirectional=True)
        self.out = torch.nn.Linear(2 * H, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(self.embedding(x))[0][:, -1])


def test_a_layer_inside_a_model() -> None:
    torch.manual_seed(0)
    model = Classifier()
    layer = load(exported(model, torch.zeros(B, T, dtype=torch.long)))
    x = torch.randn(B, T, I)
    with torch.no_grad():
        want = model.layer(x)[0].numpy()
    np.testing.assert_allclose(layer(x.numpy())[0], want, rtol=0, atol=1e-5)


class Packed(torch.nn.Module):  # type: ignore[misc]
    """Rows of different length."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layer = torch.nn.LSTM(I, H, 2, batch_first=batch_first, bidirectional=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        rows = self.layer.batch_first
        y, (h, c) = self.layer(pack_padded_sequence(x, lengths, batch_first=rows))
        return pad_packed_sequence(y, batch_first=rows)[0], h, c


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_layer_of_packed_sequences(batch_first: bool) -> None:
    torch.manual_seed(0)
    module, lengths = Packed(batch_first), torch.tensor([T, 5, 3, 1])
    x = torch.randn(B, T, I) if batch_first else torch.randn(T, B, I)
    layer = load(exported(module, x, lengths, dynamic=False))
    assert layer.batch_first == batch_first
    with torch.no_grad():
        want = module(x, lengths)
    for a, b in zip(outputs(layer, x.numpy(), lengths=lengths.numpy()), want, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-5)


class LastState(torch.nn.Module):  # type: ignore[misc]
    """A model that does not use y, so that the exported one does not make it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = torch.nn.GRU(I, H, 2, batch_first=True), torch.nn.Linear(H, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x)[1][-1])


def test_a_layer_whose_last_state_alone_is_used() -> None:
    torch.manual_seed(0)
    module = LastState()
    layer = load(exported(module, torch.randn(B, T, I)))
    assert_equals_torch(layer, module.layer, torch.randn(B, T, I), [torch.randn(2, B, H)])


class TwoRates(torch.nn.Module):  # type: ignore[misc]
    """One network for each of two sampling rates, as in models that detect voices."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = torch.nn.LSTM(I, H, 2), torch.nn.LSTM(I, H, 2)

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        if rate == 16000:  # noqa: SIM108
            y = self.fast(x)[0]
        else:
            y = self.slow(x)[0]
        return y


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("fold", [False, True])
def test_layers_in_the_branches_of_an_if(fold: bool) -> None:
    torch.manual_seed(0)
    module = TwoRates().eval()
    x = torch.randn(T, B, I)
    model = exported(torch.jit.script(module), x, 16000, do_constant_folding=fold)
    assert "If" in {node.op_type for node in model.graph.node}
    with pytest.raises(ValueError, match=r"then_branch of If .*else_branch of If") as info:
        load(model)
    nodes = re.findall(r"'([^']*)' \(LSTM in", str(info.value))
    assert len(nodes) == 4
    for half, layer in ((nodes[:2], module.fast), (nodes[2:], module.slow)):
        y = x.numpy()
        for name in half:
            y = load(model, name)(y)[0]
        with torch.no_grad():
            np.testing.assert_allclose(y, layer(x)[0].numpy(), rtol=0, atol=1e-5)
