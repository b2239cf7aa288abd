"""The layers of rnnfast.torch in torch.compile, torch.export, torch.jit and torch.fx."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch_cases import KINDS, B, H, I, P, T, data, pair, parts  # noqa: E402

from rnnfast.torch import _operator, layers  # noqa: E402

# PyTorch's own, while it compiles
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": torch.tensor([2, T, 0])},
    "resets": {"resets": torch.arange(T * B).reshape(B, T) % 4 == 1},
}


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first = nn.Linear(I, I, dtype=torch.float64)
        self.layer = pair(kind, num_layers=2, bidirectional=True, batch_first=True)[1]

    def forward(self, x: Any, state: Any = None, **options: Any) -> Any:
        a = self.first(x).relu()
        y, final = self.layer(a, state, **options)
        return y.sin(), final


def trained(function: Any, model: Any, x: Any, state: Any, options: Any) -> list[Any]:
    """Results and gradients."""
    leaves = [t.clone().requires_grad_() for t in [x, *parts(state)]]
    hx = tuple(leaves[1:]) if len(leaves) > 2 else leaves[1]
    y, final = function(leaves[0], hx, **options)
    results = [y, *parts(final)]
    model.zero_grad()
    sum((i + 1) * t.square().sum() for i, t in enumerate(results)).backward()
    return [t.detach() for t in results] + [t.grad for t in [*leaves, *model.parameters()]]


@pytest.fixture(params=["around", "inside"])
def fullgraph(request: pytest.FixtureRequest) -> Any:
    """Whether the layer is inside the graph. By default PyTorch leaves recurrent layers out."""
    _dynamo.reset()
    with _dynamo.config.patch(allow_rnn=request.param == "inside"):
        yield request.param == "inside"
    _dynamo.reset()


@pytest.mark.parametrize("kind", ["gru", "projected"])
def test_compile(kind: str, fullgraph: bool) -> None:
    model = Model(kind)
    x, state = data(model.layer, B, T)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=fullgraph)
    for options in CALLS.values():
        got, want = (trained(f, model, x, state, options) for f in (compiled, model))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, **options)[0], model(x, **options)[0])
    torch.testing.assert_close(compiled(x[0])[0], model(x[0])[0])  # unbatched
    if not fullgraph:
        with pytest.raises(ValueError, match="no batch axis"):
            compiled(x[0], lengths=torch.tensor([2]))


def test_the_graph_has_an_operator_per_layer(fullgraph: bool) -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = Model("gru")
    torch.compile(model, backend=backend, fullgraph=fullgraph)(data(model.layer, B, T)[0])
    (graph,) = graphs
    targets = [str(node.target) for node in graph.graph.nodes]
    assert sum("rnnfast" in target for target in targets) == (2 if fullgraph else 0)


def test_inductor() -> None:
    """With nothing beside the operator there is no C++ to compile."""
    _, fast = pair("lstm")
    x, state = data(fast, T, B)
    _dynamo.reset()
    with _dynamo.config.patch(allow_rnn=True):
        results = [
            trained(f, fast, x, state, {}) for f in (torch.compile(fast, fullgraph=True), fast)
        ]
    _dynamo.reset()
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_compiled_packed_sequences_vmap_and_other_dtypes() -> None:
    """Outside the graph, and by PyTorch."""
    model = Model("gru").layer
    x, _ = data(model, B, T)

    def function(x: Any) -> Any:
        return model(pack_padded_sequence(x, [T, 4, 2], batch_first=True))[0].data

    for allow_rnn in False, True:
        _dynamo.reset()
        with _dynamo.config.patch(allow_rnn=allow_rnn):
            compiled = torch.compile(function, backend="eager")
            torch.testing.assert_close(compiled(x), function(x))
            many = torch.compile(torch.vmap(lambda x: model(x)[0]), backend="eager")
            torch.testing.assert_close(many(torch.stack([x, 2 * x]))[1], model(2 * x)[0])
            half, narrow = copy.deepcopy(model).bfloat16(), x.bfloat16()
            options = {"lengths": torch.tensor([T, 4, 2])}
            for given in {}, options:
                got = torch.compile(half, backend="eager")(narrow, **given)[0]
                torch.testing.assert_close(got, half(narrow, **given)[0])
    _dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("full", [False, True])
def test_opcheck(kind: str, full: bool) -> None:
    """PyTorch's own test of an operator: schema, shapes, autograd, and tracing with both."""
    _, fast = pair(kind, bias=full, bidirectional=full)
    x, state = data(fast, T, B)
    states = parts(state) if full else []
    weights = [weight for direction in fast.all_weights for weight in direction]
    ragged = [torch.tensor([2, T, 0]), torch.arange(T * B).reshape(T, B) % 4 == 1]
    given = fast.mode, 1 + full, x.requires_grad_(), states, weights
    given = *given, *(ragged if full else [None] * 2)
    torch.library.opcheck(_operator._forward, given)
    with torch.no_grad():
        upstream = _operator._forward(*given)
        torch.library.opcheck(_operator._backward, (*given, upstream))


def test_the_operator_checks_its_arguments() -> None:
    _, fast = pair("projected")
    x, _ = data(fast, T, B)
    weights = list(fast.all_weights[0])
    weights[4] = weights[4][:, 1:]
    with pytest.raises(ValueError, match=f"w_hr has shape|w_hh has shape.*{4 * H}, {P}"):
        _operator._forward(fast.mode, 1, x, [], weights, None, None)


# ----------------------------------------------------------------------- export, jit, fx, make_fx


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of PyTorch's own layers, too
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_what_is_exported_does_not_need_rnnfast(kind: str) -> None:
    _, fast = pair(kind, batch_first=True)
    x, _ = data(fast, B, T)
    for strict in False, True:
        program = torch.export.export(fast, (x,), strict=strict)
        assert not any("rnnfast" in str(node.target) for node in program.graph.nodes)
        torch.testing.assert_close(program.module()(x)[0], fast(x)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_traces_hold_what_pytorch_computes(kind: str) -> None:
    _, fast = pair(kind)
    x, _ = data(fast, T, B)
    model = nn.Sequential(nn.Linear(I, I, dtype=torch.float64), fast)
    other = x + 1
    want = model(other)[0]
    for traced in torch.jit.trace(model, (x,)), make_fx(model)(x):
        torch.testing.assert_close(traced(other)[0], want)
    scripted = torch.jit.script(copy.deepcopy(model))
    torch.testing.assert_close(scripted(other)[0], want)


def test_modes_see_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(layers, "recurrence", None)
    _, fast = pair("gru")
    x, _ = data(fast, T, B)
    with FlopCounterMode(display=False) as counter:
        fast(x)
    assert counter.get_total_flops() == 2 * T * B * 3 * H * (I + H)
    with FakeTensorMode(allow_non_fake_inputs=True):
        y, _ = fast(x)
    assert y.shape == (T, B, H)
