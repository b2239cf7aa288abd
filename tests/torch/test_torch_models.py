"""accelerate and restore, and the layers of rnnfast.torch in the life of a model."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_cases import (  # noqa: E402
    KINDS,
    B,
    H,
    I,
    Outputs,
    T,
    assert_close,
    data,
    pair,
    train,
)

import rnnfast.torch  # noqa: E402
from rnnfast.torch import accelerate, report, restore  # noqa: E402
from rnnfast.torch._layer import threads  # noqa: E402


class Tagger(nn.Module):
    """Layers in every corner of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(I, H, num_layers=2, batch_first=True)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(H, I), nn.GRU(I, H, batch_first=True))]
        )
        self.shared = self.blocks[0][1]
        self.rnn = nn.RNN(H, 1, batch_first=True)

    def forward(self, x: Any) -> Any:
        y, _ = self.lstm(x)
        y, _ = self.shared(self.blocks[0][0](y))
        return self.rnn(y)[0]


class Overridden(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(2 * input, hx)


# ----------------------------------------------------------------------------------- accelerate


def test_a_model_is_accelerated_in_place() -> None:
    model = Tagger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    twin = copy.deepcopy(model)
    optimizer_of_twin = torch.optim.SGD(twin.parameters(), lr=0.1)
    calls = []
    model.lstm.register_forward_hook(lambda *_: calls.append("hook"))
    before = {name: id(m) for name, m in model.named_modules()}
    parameters = [id(p) for p in model.parameters()]

    assert set(report(model).kept.values()) == {"is torch.nn's: accelerate(model) replaces it"}
    assert accelerate(model) is model
    found = report(model)
    assert found.replaced == {
        "lstm": "LSTM(2, 11, num_layers=2, batch_first=True)",
        "blocks.0.1": "GRU(2, 11, batch_first=True)",
        "rnn": "RNN(11, 1, batch_first=True)",
    }
    assert not found.kept
    assert type(model.lstm) is rnnfast.torch.LSTM
    assert type(model.shared) is rnnfast.torch.GRU
    assert {name: id(m) for name, m in model.named_modules()} == before
    assert [id(p) for p in model.parameters()] == parameters

    x = torch.randn(B, T, I)
    for _ in range(3):
        for net, steps in (model, optimizer), (twin, optimizer_of_twin):
            steps.zero_grad()
            net(x).square().sum().backward()
            steps.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert calls == ["hook"] * 3

    classes = [type(m) for m in model.modules()]
    assert accelerate(model) is model
    assert [type(m) for m in model.modules()] == classes
    assert report(model).kernels == {"lstm": 3, "blocks.0.1": 3, "rnn": 3}
    assert restore(model) is model
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]
    assert model.lstm.__dict__.keys() == twin.lstm.__dict__.keys()
    torch.testing.assert_close(model(x), twin(x))


def test_a_layer_is_accelerated_itself() -> None:
    layer = nn.GRU(I, H)
    assert accelerate(layer) is layer
    assert type(layer) is rnnfast.torch.GRU
    assert str(report(layer)) == "replaced  (the model)  GRU(2, 11)"
    restore(layer)
    assert type(layer) is nn.GRU


def test_what_is_not_replaced_is_reported() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.LSTM(I, H),
            "overridden": Overridden(I, H),
            "patched": nn.GRU(I, H),
            "float16": nn.GRU(I, H, dtype=torch.float16),
            "elsewhere": nn.RNN(I, H, device="meta"),
            "cell": nn.LSTMCell(I, H),
            "linear": nn.Linear(I, H),
            "own": rnnfast.torch.GRU(I, H),
            "clash": nn.GRU(I, H),
        }
    )
    model["patched"].forward = lambda input, hx=None: (input, hx)
    model["clash"]._stack = []
    found = report(accelerate(model))
    assert set(found.replaced) == {"plain", "own"}
    words = {
        "overridden": "Overridden has a forward of its own",
        "patched": "it has a forward of its own",
        "float16": "has float16 parameters on cpu",
        "elsewhere": "has float32 parameters on meta",
        "cell": "LSTMCell takes single steps",
        "clash": "an attribute _stack",
    }
    assert found.kept.keys() == words.keys()
    for name, reason in words.items():
        assert reason in found.kept[name]
    assert len(str(found).splitlines()) == 8
    assert str(report(accelerate(nn.Linear(I, H)))) == "no recurrent layers"
    restore(model)
    assert type(model["plain"]) is nn.LSTM
    assert type(model["own"]) is rnnfast.torch.GRU


class LSTM(nn.Module):
    """A user's model that has the name of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(I, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


def test_the_report_speaks_of_recurrent_layers_alone() -> None:
    found = report(accelerate(LSTM()))
    assert (list(found.replaced), found.kept) == (["layer"], {})
    found = report(accelerate(nn.Sequential(LSTM())))
    assert (list(found.replaced), found.kept) == (["0.layer"], {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_layers_stay() -> None:
    scripted = torch.jit.script(LSTM())
    assert list(report(scripted).kept) == ["layer"]
    found = report(accelerate(nn.ModuleList([scripted, nn.GRU(I, H)])))
    assert list(found.replaced) == ["1"]
    assert list(found.kept) == ["0.layer"]
    assert "is scripted" in found.kept["0.layer"]
    for function in accelerate, restore:
        with pytest.raises(TypeError, match=rf"compiled program.*{function.__name__} the model"):
            function(scripted)


@pytest.mark.parametrize("function", [accelerate, report, restore])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "model is NoneType, expected a torch.nn.Module"),
        ("x", "model is str, expected a torch.nn.Module"),
        (nn.GRU, "model is the class GRU, expected a torch.nn.Module: make one"),
        ([nn.GRU(I, H)], "model is a list, expected a torch.nn.Module: .*ModuleList"),
        (rnnfast.GRU(I, H), "model is GRU, expected a torch.nn.Module"),
    ],
    ids=["None", "str", "class", "list", "rnnfast's own"],
)
def test_only_modules_are_taken(function: Any, model: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        function(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_quantized_layers_stay() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(I, H)), {nn.LSTM})
    found = report(accelerate(quantized))
    assert not found.replaced
    assert "quantized" in found.kept["0"]


# -------------------------------------------------------------------------- copies, files, workers


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files(kind: str, tmp_path: Path) -> None:
    plain, fast = pair(kind, num_layers=2)
    x, state = data(fast, T, B)
    want = train(fast, x, state)

    def saved(what: Any, weights_only: bool) -> Any:
        torch.save(what, tmp_path / "file.pt")
        return torch.load(tmp_path / "file.pt", weights_only=weights_only)

    accelerated = copy.deepcopy(plain)
    accelerate(accelerated)
    for layer in fast, accelerated:
        for made in (
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            saved(layer, weights_only=False),
        ):
            assert type(made) is type(fast)
            assert made.weight_ih_l0 is not layer.weight_ih_l0
            assert_close(train(made, x, state), want)
    other = pair(kind, num_layers=2)[1]
    other.load_state_dict(saved(fast.state_dict(), weights_only=True))
    assert_close(train(other, x, state), want)
    assert type(layer).__module__ == "rnnfast.torch.layers"  # stands in files
    for pickled in pickle.dumps(layer), pickle.dumps(accelerated):
        assert pickled.count(b"rnnfast") == 1


def test_a_model_loads_in_a_process_that_knows_nothing(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.GRU(I, H), nn.LSTM(I, H)])
    accelerate(model)
    x = torch.randn(T, B, I)
    torch.save((model, x, [layer(x)[0].detach() for layer in model]), tmp_path / "model.pt")
    code = (
        "import torch; model, x, ys = torch.load('model.pt', weights_only=False)\n"
        "for layer, y in zip(model, ys): assert torch.equal(layer(x)[0], y)\n"
        "print(*(type(layer) for layer in model))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120, capture_output=True
    )
    assert done.stdout.decode().count("rnnfast.torch.layers") == 2


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start: str) -> None:
    """Large enough for threads, which a fork does not take along."""
    layer = rnnfast.torch.GRU(64, 128)
    x = torch.randn(3, 40, 32, 64)
    with torch.no_grad():
        want = [layer(row)[0] for row in x]
        loader = torch.utils.data.DataLoader(
            Outputs(layer, x), batch_size=None, num_workers=1, multiprocessing_context=start
        )
        for got, expected in zip(loader, want, strict=True):
            assert torch.equal(got, expected)


# --------------------------------------------------------------------------------------- threads


def test_the_number_of_threads_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    layer = rnnfast.torch.LSTM(64, 128)
    x = torch.randn(40, 32, 64)
    results = []
    try:
        for count in 1, 3:
            torch.set_num_threads(count)
            assert threads() == -count  # at most so many
            layer.zero_grad()
            y, _ = layer(x)
            y.sum().backward()
            results.append([y, *(p.grad for p in layer.parameters())])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert threads() == -256


def test_calls_from_many_threads() -> None:
    layer = rnnfast.torch.GRU(I, H, num_layers=2)
    xs = torch.randn(8, T, B, I)

    def gradients(x: Any) -> Any:
        return torch.autograd.grad(layer(x)[0].sin().sum(), list(layer.parameters()))

    want = [gradients(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(gradients, xs), want, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
