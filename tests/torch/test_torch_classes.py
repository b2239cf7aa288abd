"""accelerate and restore of derived classes, and of layers that torch.nn.utils changes."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402
from torch_cases import B, H, I, T, data  # noqa: E402

import rnnfast.torch  # noqa: E402
from rnnfast.torch import accelerate, report, restore  # noqa: E402
from rnnfast.torch.layers import Recurrent  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


class Encoder(nn.GRU):
    """A layer with more methods, which computes what torch.nn.GRU computes."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.label = "encoder"

    def encode(self, x: Any) -> Any:
        return self(x)[1][-1]


class Tanh(nn.LSTM):
    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)

    def flatten_parameters(self) -> None:
        pass


class Slots(nn.RNN):
    __slots__ = ("note",)


class Registered:
    names: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, name: str) -> None:
        Registered.names.append(name)


class Named(Registered, nn.GRU, name="named"):
    """Its base wants to know of classes that users derive, and their names."""


class Pickled(nn.GRU):
    """Has its own form in files."""

    def __getstate__(self) -> Any:
        return self.state_dict()

    def __setstate__(self, state: Any) -> None:
        self.__init__(I, H)  # type: ignore[misc]
        self.load_state_dict(state)


class Half(nn.Module):
    def forward(self, weight: Any) -> Any:
        return weight / 2


CLASSES = [nn.GRU, nn.LSTM, nn.RNN, Encoder, Tanh, Slots, Named, Pickled]


def assert_runs_in_the_kernels(layer: Any, want: Any) -> None:
    """The layer computes `want`, an output, and its own gradients."""
    x, _ = data(layer, T, B)
    before = report(layer).kernels.get("", 0)
    y = layer(x)[0]
    assert report(layer).kernels[""] == before + 1
    torch.testing.assert_close(y, want)
    layer.zero_grad()
    y.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def output(layer: Any) -> Any:
    return layer(data(layer, T, B)[0])[0].detach()


# ------------------------------------------------------------------------------ derived classes


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_leave_forward_alone_are_replaced(kind: Any) -> None:
    layer = kind(I, H)
    want, text, state = output(layer), repr(layer), list(layer.state_dict())
    attributes = set(layer.__dict__)
    accelerate(layer)
    assert isinstance(layer, (kind, Recurrent))
    assert isinstance(layer, Recurrent)
    assert repr(layer) == text
    assert list(layer.state_dict()) == state
    assert type(layer).__name__ == kind.__name__
    assert_runs_in_the_kernels(layer, want)
    assert type(accelerate(kind(I, H))) is type(layer)
    restore(layer)
    assert type(layer) is kind
    assert set(layer.__dict__) == attributes
    torch.testing.assert_close(output(layer), want)


def test_methods_and_attributes_of_a_derived_class_stay() -> None:
    layer = accelerate(Encoder(I, H))
    x, _ = data(layer, T, B)
    assert layer.label == "encoder"
    assert torch.equal(layer.encode(x), layer(x)[1][0])
    assert report(layer).kernels[""] == 2
    accelerate(Named(I, H))
    assert Registered.names == ["named"]


@pytest.mark.parametrize("kind", CLASSES)
def test_copies_of_a_derived_class(kind: Any) -> None:
    layer = accelerate(kind(I, H))
    want = output(layer)
    for made in (
        copy.copy(layer),
        copy.deepcopy(layer),
        *(pickle.loads(pickle.dumps(layer, protocol)) for protocol in (0, 2, 5)),
    ):
        assert type(made) is type(layer)
        assert_runs_in_the_kernels(made, want)
        assert type(restore(made)) is kind


def overriding(name: str) -> Any:
    """A class that changes a method of torch.nn.LSTM."""
    return type("Changed", (nn.LSTM,), {name: lambda self, *given: None})


@pytest.mark.parametrize(
    "name",
    [
        *("forward", "check_input", "check_hidden_size", "check_forward_args", "permute_hidden"),
        *("get_expected_hidden_size", "get_expected_cell_size", "all_weights"),
        *("_update_flat_weights", "__reduce__", "_eager", "_states"),
    ],
)
def test_classes_that_change_what_forward_does_are_kept(name: str) -> None:
    layer = overriding(name)(I, H)
    reason = report(accelerate(layer)).kept[""]
    assert name in reason
    assert not isinstance(layer, Recurrent)


# ------------------------------------------------------------------------------- parametrizations


def normalise(layer: Any) -> None:
    parametrizations.weight_norm(layer, "weight_hh_l0")


def halve(layer: Any) -> None:
    parametrize.register_parametrization(layer, "weight_ih_l0", Half())


def unhalve(layer: Any) -> None:
    parametrize.remove_parametrizations(layer, "weight_ih_l0")


def unnormalise(layer: Any) -> None:
    parametrize.remove_parametrizations(layer, "weight_hh_l0")


@pytest.mark.parametrize("kind", [nn.GRU, Encoder, Tanh])
def test_parametrizations_come_and_go_in_any_order(kind: Any) -> None:
    """accelerate before, between and after them, and restore, or restore and accelerate again."""
    steps = [normalise, halve, unnormalise, unhalve]
    for start in range(5):
        for end in range(start, 5):
            torch.manual_seed(0)
            layer = kind(I, H)
            twin = copy.deepcopy(layer)
            for i in range(5):
                if i == start:
                    accelerate(layer)
                    assert list(report(layer).replaced) == [""]
                    assert_runs_in_the_kernels(layer, output(twin))
                if i == end:
                    restore(layer)
                    assert not isinstance(layer, Recurrent)
                    assert layer.__dict__.keys() == twin.__dict__.keys()
                if i < 4:
                    steps[i](layer)
                    steps[i](twin)
                torch.testing.assert_close(output(layer), output(twin))
                assert list(layer.state_dict()) == list(twin.state_dict())
            assert type(layer) is kind


@pytest.mark.parametrize("kind", [nn.GRU, Encoder])
def test_copies_of_parametrized_layers(kind: Any) -> None:
    layer = kind(I, H)
    normalise(layer)
    accelerate(layer)
    halve(layer)
    want = output(layer)
    made = copy.deepcopy(layer)
    assert_runs_in_the_kernels(made, want)
    torch.testing.assert_close(output(restore(made)), want)
    assert_runs_in_the_kernels(layer, want)
    unhalve(made)
    unnormalise(made)
    assert type(made) is kind
    assert_runs_in_the_kernels(layer, want)  # PyTorch's copies share the class, these do not
    with pytest.raises(RuntimeError, match="state_dict"):  # as of any parametrized module
        pickle.dumps(layer)


def test_parametrizations_learn() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(I, H)
    normalise(layer)
    twin = copy.deepcopy(layer)
    accelerate(layer)
    for net in layer, twin:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            net(data(net, T, B)[0])[0].square().sum().backward()
            optimizer.step()
    assert report(layer).kernels == {"": 3}
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_layers_that_were_made_as_rnnfasts_stay_so() -> None:
    layer = rnnfast.torch.GRU(I, H)
    normalise(layer)
    accelerate(layer)
    restore(layer)
    unnormalise(layer)
    assert type(layer) is rnnfast.torch.GRU


def test_what_other_tools_derive_from_a_layer_stays_when_it_is_restored() -> None:
    """FSDP, for one, puts a class on top."""

    class Tool:
        pass

    layer = accelerate(Encoder(I, H))
    want = output(layer)
    layer.__class__ = type("ToolEncoder", (Tool, type(layer)), {"tool": True})
    assert_runs_in_the_kernels(layer, want)
    restore(layer)
    assert [kind.__name__ for kind in type(layer).__mro__[:4]] == [
        *("ToolEncoder", "Tool", "Encoder", "GRU")
    ]
    assert layer.tool
    assert not isinstance(layer, Recurrent)
    torch.testing.assert_close(output(layer), want)


# -------------------------------------------------------------------------------- hooks and pruning

CHANGES = {
    "weight_norm": (nn.utils.weight_norm, nn.utils.remove_weight_norm),
    "spectral_norm": (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
    "pruning": (lambda m, n: prune.l1_unstructured(m, n, 0.5), prune.remove),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("first", [False, True])
def test_hooks_that_compute_weights_go_on(change: str, first: bool) -> None:
    apply, remove = CHANGES[change]
    torch.manual_seed(0)
    layer = nn.GRU(I, H)
    twin = copy.deepcopy(layer)
    if first:
        accelerate(layer)
    for net in layer, twin:
        torch.manual_seed(1)
        apply(net, "weight_hh_l0")
    accelerate(layer)
    x, _ = data(layer, T, B)
    for net in layer, twin:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x)[0].square().sum().backward()
            optimizer.step()
    assert report(layer).kernels == {"": 3}
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    remove(layer, "weight_hh_l0")
    remove(twin, "weight_hh_l0")
    torch.testing.assert_close(output(layer), output(twin))
    assert type(restore(layer)) is nn.GRU
