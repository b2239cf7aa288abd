"""The report counts the calls of each layer, by who computed them and why."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_cases import B, H, I, T, data, pair  # noqa: E402

import rnnfast.torch  # noqa: E402
from rnnfast.torch import accelerate, report  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


class Subclass(torch.Tensor):
    pass


def autocast(layer: Any, x: Any, **options: Any) -> None:
    with torch.autocast("cpu"):
        layer(x, **options)


def flops(layer: Any, x: Any, **options: Any) -> None:
    with FlopCounterMode(display=False):
        layer(x, **options)


def forward_mode(layer: Any, x: Any, **options: Any) -> None:
    with forward_ad.dual_level():
        layer(forward_ad.make_dual(x, x), **options)


def traced(layer: Any, x: Any) -> None:
    torch.jit.trace(layer, x, check_trace=False)


def vmapped(layer: Any, x: Any, **options: Any) -> None:
    torch.vmap(lambda x: layer(x, **options)[0])(x[None])


def half(layer: Any, x: Any, **options: Any) -> None:
    layer.to(torch.bfloat16)(x.to(torch.bfloat16), **options)


def meta(layer: Any, x: Any, **options: Any) -> None:
    layer.to("meta")(x.to("meta"), **options)


def subclass(layer: Any, x: Any, **options: Any) -> None:
    layer(x.as_subclass(Subclass), **options)


WAYS = {
    "autocast": autocast,
    "a dispatch mode": flops,
    "forward-mode differentiation": forward_mode,
    "torch.jit.trace": traced,
    "torch.func": vmapped,
    "bfloat16 tensors": half,
    "tensors on meta": meta,
    "Subclass tensors": subclass,
    "an empty input": lambda layer, x: layer(x[:, :0]),
}


CASES = [(reason, True) for reason in WAYS]  # and those that take lengths, too
CASES += [(reason, False) for reason in set(WAYS) - {"torch.jit.trace", "an empty input"}]


@pytest.mark.parametrize(("reason", "ordinary"), sorted(CASES))
def test_calls_that_pytorch_computes_are_counted_by_reason(reason: str, ordinary: bool) -> None:
    layer = pair("gru", torch.float32)[1]
    x, _ = data(layer, T, B)
    options = {} if ordinary else {"lengths": [T, 1, 2]}
    layer(x)
    layer(pack_padded_sequence(x, [T, 4, 2]))
    assert (report(layer).kernels, report(layer).pytorch) == ({"": 2}, {})
    for n in 1, 2:
        WAYS[reason](layer, x, **options)
        assert report(layer).pytorch == {"": {reason: n}}
    assert report(layer).kernels == {"": 2}


def test_calls_that_are_refused_are_not_counted() -> None:
    layer = rnnfast.torch.GRU(I, H)
    with pytest.raises(ValueError, match="dtype"):
        layer(torch.zeros(T, B, I, dtype=torch.float64))
    with pytest.raises(ValueError, match="lengths"):
        layer(torch.zeros(T, B, I), lengths=[1])
    assert (report(layer).kernels, report(layer).pytorch) == ({}, {})


def test_the_report_has_aligned_lines() -> None:
    model = nn.ModuleDict({"gru": nn.GRU(I, H), "cell": nn.GRUCell(I, H)})
    model["longer"] = nn.LSTM(I, H, bidirectional=True)
    accelerate(model)
    x = torch.zeros(T, B, I)
    model["gru"](x)
    autocast(model["gru"], x)
    vmapped(model["gru"], x)
    vmapped(model["gru"], x)
    assert str(report(model)).splitlines() == [
        "replaced  gru     GRU(2, 11)",
        "replaced  longer  LSTM(2, 11, bidirectional=True)",
        "kept      cell    GRUCell takes single steps, "
        "rnnfast.torch has layers for whole sequences",
        "calls     gru     1 by rnnfast, 1 by PyTorch (autocast), 2 by PyTorch (torch.func)",
    ]


def test_copies_count_afresh_and_share_nothing() -> None:
    layer = accelerate(nn.GRU(I, H))
    x = torch.zeros(T, B, I)
    layer(x)
    for made in copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)):
        assert report(made).kernels == {}
        made(x)
        assert report(made).kernels == {"": 1}
    assert report(layer).kernels == {"": 1}
    layers = [rnnfast.torch.GRU(I, H) for _ in range(2)]
    layers[0](x)
    assert [report(layer).kernels for layer in layers] == [{"": 1}, {}]


@pytest.mark.parametrize("inside", [False, True])
def test_counts_do_not_make_torch_compile_start_again(inside: bool) -> None:
    model = nn.Sequential(nn.Linear(I, I), accelerate(nn.GRU(I, H)))
    x = torch.zeros(T, B, I)
    _dynamo.reset()
    with _dynamo.config.patch(allow_rnn=inside, error_on_recompile=True):
        compiled = torch.compile(model, backend="eager", fullgraph=inside)
        for _ in range(3):
            compiled(x)
    _dynamo.reset()
    assert report(compiled).kernels == ({} if inside else {"_orig_mod.1": 3})


class Wrapper:
    """What libraries like skorch do: `fit` makes the network."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def fit(self, x: Any) -> None:
        self.module = self.network()
        self.module(x)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(I, H)
        self.out = nn.Linear(H, 1)
        accelerate(self)

    def forward(self, x: Any) -> Any:
        return self.out(self.gru(x)[1][-1])


def test_networks_that_accelerate_themselves_are_fast_wherever_they_are_made() -> None:
    wrapper = Wrapper(Network)
    for _ in range(2):
        wrapper.fit(torch.zeros(T, B, I))
        assert report(wrapper.module).kernels == {"gru": 1}
    loaded = Network()
    loaded.load_state_dict(wrapper.module.state_dict())
    assert list(report(loaded).replaced) == ["gru"]
