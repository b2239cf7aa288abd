"""torch.fx takes an accelerated layer as a whole, as torch.nn's, and so does quantization by it.

Other tools of torch.ao.quantization go by the exact class: docs/howto/pytorch.md says to restore
first.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch_cases import B, H, I, T, assert_close, data, pair, train  # noqa: E402

import rnnfast.torch  # noqa: E402
from rnnfast.torch import accelerate, report, restore  # noqa: E402

LENGTHS = torch.tensor([2, T, 0])
HOOKED: list[str] = []


class Model(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first = nn.Linear(I, I, dtype=layer.weight_ih_l0.dtype)
        self.layer = layer

    def forward(self, x):  # no annotations, which torch.fx would write into files
        y, _ = self.layer(self.first(x))
        return y.sin()


class Options(Model):
    def forward(self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None) -> Any:
        return self.layer(self.first(x), hx=state, lengths=lengths, resets=resets)[0]


class Packed(Model):
    def forward(self, packed: Any) -> Any:
        return self.layer(packed)[0].data


class Tracer(torch.fx.Tracer):
    """A user's own."""

    def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
        return bool(super().is_leaf_module(m, module_qualified_name))


def note(*_: Any) -> None:
    HOOKED.append("hook")


def modules_called(graph: Any) -> list[str]:
    return [node.target for node in graph.graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "projected"])
@pytest.mark.parametrize("way", ["accelerated", "made", "parametrized"])
def test_layers_are_leaves_of_symbolic_traces(kind: str, way: str) -> None:
    plain, fast = pair(kind)
    model = Model(fast if way == "made" else accelerate(plain))
    if way == "parametrized":
        nn.utils.parametrizations.weight_norm(model.layer, "weight_hh_l0")
    x, _ = data(model.layer, T, B)
    graphs = [
        torch.fx.symbolic_trace(model),
        torch.fx.GraphModule(model, Tracer().trace(model)),
        copy.deepcopy(torch.fx.symbolic_trace(model)),
    ]
    if way != "parametrized":
        graphs.append(pickle.loads(pickle.dumps(graphs[1])))
    for graph in graphs:
        assert modules_called(graph) == ["first", "layer"]
        assert type(graph.layer) is type(model.layer)
        assert torch.equal(graph(x + 1), model(x + 1))
    assert type(model.layer).__module__ in ("rnnfast.torch.layers", "torch.nn.utils.parametrize")


def test_graphs_can_be_accelerated_and_restored() -> None:
    plain, _ = pair("gru")
    graph = torch.fx.symbolic_trace(Model(plain))
    x, _ = data(plain, T, B)
    want = graph(x)
    assert list(report(accelerate(graph)).replaced) == ["layer"]
    torch.testing.assert_close(graph(x), want)
    again = torch.fx.symbolic_trace(graph)
    torch.testing.assert_close(again(x), want)
    restore(again)
    assert torch.equal(again(x), want)
    assert torch.equal(torch.fx.symbolic_trace(again)(x), want)


def test_options_states_hooks_and_packed_sequences_in_graphs() -> None:
    model = Options(accelerate(pair("lstm")[0]))
    x, state = data(model.layer, T, B)
    resets = torch.arange(T * B).reshape(T, B) % 4 == 1
    graph = torch.fx.symbolic_trace(model)
    for options in {}, {"lengths": LENGTHS}, {"resets": resets}, {"state": state}:
        assert torch.equal(graph(x, **options), model(x, **options))
    handle = model.layer.register_forward_hook(note)
    HOOKED.clear()
    graph = torch.fx.symbolic_trace(model)
    assert not HOOKED
    graph(x)
    assert HOOKED == ["hook"]
    handle.remove()
    packing = Packed(model.layer)
    graph = torch.fx.symbolic_trace(packing)
    packed = pack_padded_sequence(x, [T, 4, 2])
    assert torch.equal(graph(packed), packing(packed))


def test_traced_layers_learn() -> None:
    plain, _ = pair("gru", num_layers=2)
    traced = torch.fx.symbolic_trace(Packed(accelerate(copy.deepcopy(plain)))).layer
    x, state = data(plain, T, B)
    assert_close(train(traced, x, state), train(plain, x, state))


def test_a_users_own_class_is_taken_as_that_of_torch_is() -> None:
    """Tools go by __module__: a class that a user derives is the user's, from either layer."""

    class Own(nn.GRU):
        pass

    class Fast(rnnfast.torch.GRU):
        pass

    assert rnnfast.torch.GRU(I, H).__module__ == nn.GRU(I, H).__module__
    for layer in Own(I, H), accelerate(Own(I, H)), Fast(I, H):
        assert layer.__module__ == __name__
    assert "__module__" not in restore(accelerate(nn.GRU(I, H))).__dict__


# ------------------------------------------------------------------------------------ quantization


@pytest.mark.filterwarnings("ignore")  # PyTorch's announcements
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_quantization_of_a_traced_model_leaves_the_layer_as_it_is(kind: Any) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    from torch.ao.quantization import quantize_fx

    model = accelerate(Model(kind(I, H)).eval())
    x, _ = data(model.layer, T, B)
    mapping = quantization.get_default_qconfig_mapping()
    prepared = quantize_fx.prepare_fx(copy.deepcopy(model), mapping, (x,))
    prepared(x)
    converted = quantize_fx.convert_fx(prepared)
    for made in prepared, converted:
        assert type(made.layer) is type(model.layer)
    torch.testing.assert_close(converted(x), model(x), atol=0.1, rtol=0)
    assert report(converted).kernels["layer"] >= 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_dynamic_quantization_finds_layers_that_were_restored(kind: Any) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    model = accelerate(Model(kind(I, H)).eval())
    x, _ = data(model.layer, T, B)
    classes = {kind, nn.Linear}
    missed = quantization.quantize_dynamic(model, classes)
    assert type(missed.layer) is type(model.layer)  # by its class, as the documentation says
    found = quantization.quantize_dynamic(restore(copy.deepcopy(model)), classes)
    assert "quantized" in type(found.layer).__module__
    torch.testing.assert_close(found(x), model(x), atol=0.1, rtol=0)
    # The linear layers alone, and rnnfast for the rest: in either order.
    first = accelerate(quantization.quantize_dynamic(restore(copy.deepcopy(model)), {nn.Linear}))
    for mixed in missed, first:
        assert "quantized" in type(mixed.first).__module__
        assert list(report(mixed).replaced) == ["layer"]
        torch.testing.assert_close(mixed(x), model(x), atol=0.1, rtol=0)
