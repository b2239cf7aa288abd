"""RNNCell, GRUCell and LSTMCell of `rnnfast.torch`: PyTorch's results, by the kernels."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rnnfast.torch  # noqa: E402
from rnnfast.torch import accelerate, report, step_cells  # noqa: E402

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNNCell", {}),
    "relu": ("RNNCell", {"nonlinearity": "relu"}),
    "gru": ("GRUCell", {}),
    "lstm": ("LSTMCell", {}),
}
I, H = 5, 11


def pair(kind: str, dtype: Any = torch.float64, **options: Any) -> tuple[Any, Any]:
    """A cell of torch.nn and the same of rnnfast.torch."""
    torch.manual_seed(0)
    name, defaults = KINDS[kind]
    plain = getattr(torch.nn, name)(I, H, dtype=dtype, **defaults, **options)
    fast = getattr(rnnfast.torch, name)(I, H, dtype=dtype, **defaults, **options)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def data(cell: Any, *batch: int) -> tuple[Any, Any]:
    """An input and a state."""
    generator = torch.Generator().manual_seed(1)
    x, h, c = (
        torch.randn(*batch, n, generator=generator, dtype=torch.float64).to(cell.weight_ih)
        for n in (I, H, H)
    )
    return x, (h, c) if isinstance(cell, torch.nn.LSTMCell) else h


def parts(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


def train(cell: Any, x: Any, state: Any) -> list[Any]:
    """The state after the step, and the gradients of the input, the state and the parameters."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, *parts(state) * (state is not None))]
    hx = None if state is None else tuple(leaves[1:]) if len(leaves) == 3 else leaves[1]
    after = parts(cell(leaves[0], hx))
    loss = sum((t * (k + 1.5)).sin().sum() for k, t in enumerate(after))
    return [*after, *torch.autograd.grad(loss, [*leaves, *cell.parameters()])]


def assert_close(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        allowed = 200 * torch.finfo(b.dtype).eps
        torch.testing.assert_close(a, b, rtol=allowed, atol=allowed)


@pytest.fixture
def pytorch_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a cell is computed by PyTorch."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("PyTorch computes it")

    for name in "rnn_tanh_cell", "rnn_relu_cell", "gru_cell", "lstm_cell":
        monkeypatch.setattr(torch._VF, name, refuse)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(3,), (1,), ()])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_and_gradients_are_those_of_torch(
    kind: str, batch: tuple[int, ...], given: bool, bias: bool, dtype: Any
) -> None:
    plain, fast = pair(kind, dtype, bias=bias)
    x, state = data(plain, *batch)
    state = state if given else None
    assert_close(train(fast, x, state), train(plain, x, state))
    with torch.no_grad():
        assert_close(parts(fast(x, state)), parts(plain(x, state)))
    assert isinstance(fast(x, state), type(plain(x, state)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(3,), ()])
@pytest.mark.usefixtures("pytorch_refuses")
def test_the_kernels_compute_it_with_the_bits_of_the_cells_for_numpy(
    kind: str, batch: tuple[int, ...]
) -> None:
    name, options = KINDS[kind]
    fast = pair(kind)[1]
    cell = getattr(rnnfast, name)(I, H, dtype=np.float64, **options)
    cell.load_state_dict(fast.state_dict())
    x, state = data(fast, *batch)
    arrays = [part.numpy() for part in parts(state)]
    expected = parts(cell(x.numpy(), tuple(arrays) if len(arrays) == 2 else arrays[0]))
    for found in (parts(fast(x, state)), parts(torch.inference_mode()(fast)(x, state))):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(2,), ()])
def test_gradients_pass_gradcheck(kind: str, batch: tuple[int, ...]) -> None:
    if kind == "relu":
        pytest.skip("relu has a kink")
    fast = pair(kind)[1]
    x, state = data(fast, *batch)
    names = [name for name, _ in fast.named_parameters()]

    def call(x: Any, *rest: Any) -> Any:
        count = len(parts(state))
        own = tuple(rest[:count]) if count == 2 else rest[0]
        given = dict(zip(names, rest[count:], strict=True))
        for name in names:
            fast._parameters[name] = given[name]
        return fast(x, own)

    inputs = [x, *parts(state), *(p.detach() for p in fast.parameters())]
    leaves = [t.clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_a_loop_learn_as_torch_does(kind: str) -> None:
    plain, fast = pair(kind)
    x = torch.randn(6, 3, I, dtype=torch.float64)
    for cell in plain, fast:
        state = None
        for t in range(6):
            state = cell(x[t], state)
        sum(part.square().sum() for part in parts(state)).backward()
    assert_close([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])


WAYS: dict[str, Any] = {
    "autocast": lambda cell, x: torch.autocast("cpu")(cell)(x),
    "vmap": lambda cell, x: torch.vmap(cell)(x),
    "jvp": lambda cell, x: torch.func.jvp(cell, (x,), (x,)),
    "grad": lambda cell, x: torch.func.grad(lambda x: parts(cell(x))[0].sum())(x),
    "script": lambda cell, x: torch.jit.script(cell)(x),
    "trace": lambda cell, x: torch.jit.trace(cell, x, check_trace=False)(x),
    "fx": lambda cell, x: torch.fx.symbolic_trace(torch.nn.Sequential(cell))(x),
    "export": lambda cell, x: torch.export.export(cell, (x,)).module()(x),
    "compile": lambda cell, x: torch.compile(cell, backend="eager", fullgraph=True)(x),
    "bfloat16": lambda cell, x: copy.deepcopy(cell).bfloat16()(x.bfloat16()),
    "meta": lambda cell, x: copy.deepcopy(cell).to("meta")(x.to("meta")),
    "no rows": lambda cell, x: cell(x[:0]),
    "strided": lambda cell, x: cell(x.T.contiguous().T),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("way", WAYS)
def test_all_else_gives_what_torch_gives(kind: str, way: str) -> None:
    if (way, kind) == ("vmap", "lstm"):
        pytest.skip("PyTorch's own LSTMCell has no rule for vmap")
    plain, fast = pair(kind, torch.float32)
    x, _ = data(plain, 3)
    found, expected = (WAYS[way](cell, x) for cell in (fast, plain))
    for a, b in zip(
        torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected),
        strict=True,
    ):  # fmt: skip
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
        if a.device.type == "cpu":
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_what_does_not_fit_is_refused_as_torch_does(kind: str) -> None:
    plain, fast = pair(kind)
    x, state = data(plain, 3)
    short = tuple(part[1:] for part in parts(state))
    wrong = [(x[None], None), (x[:, 1:], None), (x.float(), None)]
    wrong += [(x, short if kind == "lstm" else short[0])]
    for arguments in wrong:
        with pytest.raises((RuntimeError, ValueError, IndexError)) as expected:
            plain(*arguments)
        with pytest.raises(expected.type) as found:
            fast(*arguments)
        assert str(found.value).replace("rnnfast.", "") == str(expected.value)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_copied_pickled_and_shown_as_torch_s(kind: str) -> None:
    plain, fast = pair(kind)
    assert repr(fast) == repr(plain)
    x, state = data(plain, 3)
    for same in copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)):
        assert type(same) is type(fast)
        for a, b in zip(parts(same(x, state)), parts(fast(x, state)), strict=True):
            assert torch.equal(a, b)
    plain.load_state_dict(fast.state_dict())


def test_accelerate_leaves_cells_alone_and_the_report_says_why() -> None:
    model = torch.nn.ModuleList([torch.nn.GRUCell(I, H), rnnfast.torch.GRUCell(I, H)])
    accelerate(model)
    assert type(model[0]) is torch.nn.GRUCell
    found = report(model)
    assert "GRUCell takes single steps" in found.kept["0"]
    assert found.replaced["1"] == "GRUCell(5, 11)"


def test_a_graph_may_be_run_twice() -> None:
    fast = pair("lstm")[1]
    x, state = data(fast, 3)
    h, c = fast(x, state)
    first, second = (
        torch.autograd.grad(h.sum() + c.sum(), list(fast.parameters()), retain_graph=True)
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_every_mode_of_the_layers_has_a_step() -> None:
    assert step_cells._STEPS.keys() == {"RNN_TANH", "RNN_RELU", "GRU", "LSTM"}
