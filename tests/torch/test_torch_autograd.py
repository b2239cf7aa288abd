"""The layers of rnnfast.torch under autograd, and what the kernels leave to PyTorch."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_cases import KINDS, B, T, assert_close, data, pair, parts, train  # noqa: E402

from rnnfast._core import passes  # noqa: E402
from rnnfast.torch import _autograd, layers  # noqa: E402
from rnnfast.torch._layer import array  # noqa: E402

# PyTorch's own, when it first differentiates forward
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

SIZES = torch.tensor([3, 2, 1]), torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])


@pytest.fixture
def kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch's own implementation and the formulas fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("not by the kernels")

    for plain in torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM:
        monkeypatch.setattr(plain, "forward", fail)
    monkeypatch.setattr(layers, "composite", fail)
    monkeypatch.setattr(_autograd, "composite", fail)


def call(layer: Any, **options: Any) -> tuple[Any, list[Any]]:
    """The layer as a function of tensors, and the tensors: x, the states and the parameters."""
    batch = (B, T) if layer.batch_first else (T, B)
    x, state = data(layer, *batch)
    names, packed = list(dict(layer.named_parameters())), options.pop("packed", False)
    values = [x.reshape(-1, x.shape[-1])[:6] if packed else x, *parts(state)]
    count = len(values)
    values += [p.detach().clone() for p in layer.parameters()]

    def function(*tensors: Any) -> tuple[Any, ...]:
        x, *states = tensors[:count]
        hx = tuple(states) if len(states) > 1 else states[0]
        weights = dict(zip(names, tensors[count:], strict=True))
        given = PackedSequence(x, *SIZES) if packed else x
        y, final = functional_call(layer, weights, (given, hx), options)
        return y.data if packed else y, *parts(final)

    return function, [value.requires_grad_() for value in values]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": [2, T, 0]},
    "resets": {"resets": torch.arange(T * B).reshape(T, B) % 4 == 1},
    "both": {"lengths": [2, T, 0], "resets": torch.arange(T * B).reshape(T, B) % 4 == 1},
    "packed": {"packed": True},
}


@pytest.mark.usefixtures("kernels_only")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["plain", "both", "packed"])
def test_gradcheck(kind: str, options: str) -> None:
    assert gradcheck(*call(pair(kind)[1], **OPTIONS[options]))


@pytest.mark.usefixtures("kernels_only")
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_a_stack(kind: str) -> None:
    _, fast = pair(kind, num_layers=2, bidirectional=True, batch_first=True, bias=False)
    resets = OPTIONS["both"]["resets"].T
    assert gradcheck(*call(fast, lengths=[2, T, 0], resets=resets), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["both", "packed"])
def test_gradients_of_gradients(kind: str, options: str) -> None:
    _, fast = pair(kind, bidirectional=options == "both")
    assert gradgradcheck(*call(fast, **OPTIONS[options]), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_gradient_penalty_as_in_torch(kind: str, dtype: Any) -> None:
    """One input of the layer depends on another: their gradients must not mix."""
    grads = []
    for layer in pair(kind, dtype):
        x, state = data(layer, T, B)
        x.requires_grad_()
        hx = tuple(s * x.sum() for s in state) if kind == "lstm" else state * x.sum()
        y, _ = layer(x, hx)
        first = torch.autograd.grad(y.pow(2).sum(), [x, *layer.parameters()], create_graph=True)
        (sum(d.pow(2).sum() for d in first) + y.sum()).backward()
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*grads, strict=True):
        allowed = 2000 * torch.finfo(dtype).eps * float(a.abs().max())
        torch.testing.assert_close(b, a, rtol=0, atol=allowed)


# ------------------------------------------------------------------------------- graph and memory


@pytest.mark.usefixtures("kernels_only")
@pytest.mark.parametrize("options", OPTIONS)
def test_a_retained_graph_serves_again(options: str) -> None:
    """The second and third backward have no tape: they compute another one."""
    function, tensors = call(pair("lstm")[1], **OPTIONS[options])
    y, h, c = function(*tensors)
    loss = y.sin().sum() + h.cos().sum() + c.exp().sum()
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(loss, tensors, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.autograd.grad(loss, tensors)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_changed_in_place_are_noticed(which: int, batch_first: bool) -> None:
    """x, h0, c0 and a weight; results may be changed."""
    _, fast = pair("lstm", batch_first=batch_first)
    x, (h, c) = data(fast, *((B, T) if batch_first else (T, B)))
    inputs = [x, h, c, fast.weight_hh_l0]
    loss = fast(x, (h, c))[0].sum()
    with torch.no_grad():
        inputs[which].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_results_may_be_changed_in_place() -> None:
    _, fast = pair("gru")
    x, state = data(fast, T, B)
    grads = []
    for in_place in False, True:
        y, h = fast(x, state)
        fast.zero_grad()
        (
            (y.mul_(2) if in_place else y * 2).sum() + (h.mul_(3) if in_place else h * 3).sum()
        ).backward()
        grads.append([p.grad for p in fast.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.usefixtures("kernels_only")
def test_parameters_without_gradient() -> None:
    _, fast = pair("lstm")
    x, state = data(fast, T, B)
    want = train(fast, x, state)
    fast.weight_hh_l0.requires_grad_(False)
    fast.bias_ih_l0.requires_grad_(False)
    got = train(fast, x, state)
    for name in "dweight_hh_l0", "dbias_ih_l0":
        assert not got.pop(name).any()
        assert want.pop(name).any()
    assert_close(got, want)
    fast.zero_grad()
    fast.requires_grad_(False)
    fast(x.requires_grad_())[0].sum().backward()
    assert x.grad.any()
    assert all(p.grad is None for p in fast.parameters())


def test_only_some_results_are_used() -> None:
    for kind in KINDS:
        plain, fast = pair(kind)
        x, state = data(fast, T, B)
        for use in range(len(parts(state)) + 1):
            grads = []
            for layer in plain, fast:
                layer.zero_grad()
                y, final = layer(x, state)
                [y, *parts(final)][use].sum().backward()
                grads.append([p.grad for p in layer.parameters()])
            for a, b in zip(*grads, strict=True):
                torch.testing.assert_close(a, b)


def test_no_copies() -> None:
    """Neither of the inputs nor of the results and gradients."""
    _, fast = pair("lstm")
    x, state = data(fast, T, B)
    for tensor in x, fast.weight_hh_l0, fast.bias_hh_l0:
        assert array(tensor).ctypes.data == tensor.data_ptr()
    with torch.profiler.profile() as profile:
        y, final = fast(x.requires_grad_(), state)
        torch.autograd.backward([y, *final], list(map(torch.ones_like, (y, *final))))
    done = {event.name for event in profile.events()}
    assert "aten::empty" in done
    assert not {name for name in done if "copy" in name or "clone" in name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_storages_stay_resizable(kind: str, training: bool) -> None:
    """FSDP and `out=` of PyTorch need it; `Tensor.numpy` would end it for good."""
    _, fast = pair(kind, num_layers=2, bidirectional=True)
    x, state = data(fast, T, B)
    lengths, resets = torch.full((B,), T - 1), torch.zeros(T, B, dtype=torch.bool)
    with torch.set_grad_enabled(training):
        y, final = fast(x, state, lengths=lengths, resets=resets)
    upstream = [torch.ones_like(part) for part in (y, *parts(final))]
    if training:
        torch.autograd.backward([y, *parts(final)], upstream)
    used = [x, *parts(state), lengths, resets, y, *parts(final), *upstream]
    for parameter in fast.parameters():
        used += [parameter] if parameter.grad is None else [parameter, parameter.grad]
    assert all(tensor.untyped_storage().resizable() for tensor in used)
    torch.add(torch.ones(9), 1, out=x.detach())


def test_tensors_whose_sign_is_turned_lazily() -> None:
    plain, fast = pair("gru")
    x, _ = data(fast, T, B)
    turned = torch.complex(x, x).conj().imag
    assert turned.is_neg()
    torch.testing.assert_close(fast(turned)[0], plain(turned)[0])


def test_upstream_gradients_without_memory() -> None:
    plain, fast = pair("lstm")
    x, state = data(fast, T, B)
    grads = []
    for layer in plain, fast:
        y, final = layer(x, state)
        zeros = torch._efficientzerotensor(y.shape, dtype=y.dtype)
        torch.autograd.backward([y, *final], [zeros, *map(torch.ones_like, final)])
        grads.append([p.grad for p in layer.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_the_tape_goes_with_the_graph() -> None:
    _, fast = pair("gru")
    x, _ = data(fast, T, B)
    with torch.no_grad():
        fast(x)
    with torch.inference_mode():
        fast(x)
    gc.collect()
    assert not passes.TAPES
    results = fast(x)
    assert len(passes.TAPES) == 1
    del results
    gc.collect()
    assert not passes.TAPES


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing(kind: str) -> None:
    """It keeps no tape until backward, and the gradients are those without it."""
    _, fast = pair(kind, num_layers=2, bidirectional=True)
    x, state = data(fast, T, B)
    found = []
    for drop in False, True:
        fast.zero_grad()
        leaf = x.clone().requires_grad_()
        if drop:
            y, final = checkpoint(fast, leaf, state, use_reentrant=False)
            gc.collect()
            assert not passes.TAPES
        else:
            y, final = fast(leaf, state)
            assert len(passes.TAPES) == 4
        (y.sin().sum() + sum(part.sin().sum() for part in parts(final))).backward()
        found.append([y, leaf.grad, *(p.grad for p in fast.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_saved_tensors_that_move() -> None:
    """Tapes whose memory a hook has copied are made again."""
    _, fast = pair("gru")
    x, _ = data(fast, T, B)
    found = []
    for hooks in nullcontext(), torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        fast.zero_grad()
        with hooks:
            fast(x)[0].sin().sum().backward()
        found.append([p.grad for p in fast.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("kernels_only")
def test_inference() -> None:
    _, fast = pair("gru", num_layers=2)
    x, state = data(fast, T, B)
    y, h = fast(x, state)
    for mode in torch.no_grad, torch.inference_mode:
        with mode():
            again, last = fast(x, state)
        assert torch.equal(again, y)
        assert torch.equal(last, h)
        assert not again.requires_grad
    assert again.is_inference()


# ------------------------------------------------------------------------------------- torch.func


@pytest.mark.parametrize("kind", KINDS)
def test_transforms(kind: str) -> None:
    """vmap, grad, jvp and their combinations; PyTorch's own layers have no vmap."""
    _, fast = pair(kind, num_layers=2)
    x, state = data(fast, T, B)
    many = torch.stack([x, x.flip(0)])

    def loss(x: Any) -> Any:
        return fast(x, state)[0].sin().sum()

    def gradient(x: Any) -> Any:
        return torch.autograd.grad(loss(x.requires_grad_()), x)[0]

    assert_same(torch.vmap(lambda x: fast(x, state)[0])(many), [fast(x, state)[0] for x in many])
    want = gradient(x.clone())
    assert_same(torch.func.grad(loss)(x), want)
    assert_same(torch.vmap(torch.func.grad(loss))(many), [gradient(x) for x in many.clone()])
    direction = torch.ones_like(x)
    assert_same(torch.func.jvp(loss, (x,), (direction,))[1], (want * direction).sum())
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, direction)))
    assert_same(dual.tangent, (want * direction).sum())
    assert_same(
        torch.func.jacfwd(torch.func.grad(loss))(x), torch.func.jacrev(torch.func.grad(loss))(x)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_per_sample(kind: str) -> None:
    _, fast = pair(kind)
    x, _ = data(fast, T, B)
    weights = dict(fast.named_parameters())

    def loss(weights: Any, x: Any) -> Any:
        return functional_call(fast, weights, (x,))[0].sin().sum()

    got = torch.vmap(torch.func.grad(loss), (None, 1))(weights, x)
    for row in range(B):
        want = torch.autograd.grad(loss(weights, x[:, row]), list(weights.values()))
        assert_same([got[name][row] for name in weights], want)


@pytest.mark.parametrize("kind", KINDS)
def test_many_gradients_at_once(kind: str) -> None:
    """Jacobians by `is_grads_batched`, and by forward mode."""
    _, fast = pair(kind)
    x, _ = data(fast, T, B)

    def last(x: Any) -> Any:
        return fast(x)[0][-1]

    jacobian = torch.autograd.functional.jacobian
    want = jacobian(last, x)
    assert_same(jacobian(last, x, vectorize=True), want)
    assert_same(jacobian(last, x, vectorize=True, strategy="forward-mode"), want)


def test_transforms_of_packed_sequences() -> None:
    _, fast = pair("gru", bidirectional=True)
    x = data(fast, T, B)[0].reshape(-1, 2)[:6]

    def loss(x: Any) -> Any:
        return fast(PackedSequence(x, *SIZES))[0].data.sin().sum()

    want = torch.autograd.grad(loss(x.requires_grad_()), x)[0]
    assert_same(torch.func.grad(loss)(x), want)
    assert_same(torch.func.jvp(loss, (x,), (torch.ones_like(x),))[1], want.sum())
    assert_same(torch.vmap(torch.func.grad(loss))(x[None])[0], want)


def assert_same(got: Any, want: Any) -> None:
    for a, b in zip(got, want, strict=True) if isinstance(want, (list, tuple)) else [(got, want)]:
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-9, atol=1e-11)


# --------------------------------------------------------------------------- dtypes and devices


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind: str, dtype: Any) -> None:
    plain, fast = pair(kind, dtype, num_layers=2)
    x, state = data(fast, T, B)
    for a, b in zip(train(fast, x, state).values(), train(plain, x, state).values(), strict=True):
        assert torch.equal(a, b)
    single = pair(kind, torch.float32, num_layers=2)[1]
    single.load_state_dict(fast.state_dict())
    options = {"lengths": [2, T, 0], "resets": OPTIONS["resets"]["resets"]}
    got, want = (
        train(fast, x, state, **options),
        train(single, x.float(), state_to(state), **options),
    )
    for name, value in want.items():
        assert got[name].dtype == dtype
        error = (got[name].float() - value).abs().max()
        assert error < 0.04 * value.abs().max(), name


def state_to(state: Any) -> Any:
    return tuple(s.float() for s in state) if isinstance(state, tuple) else state.float()


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_autocast(kind: str) -> None:
    plain, fast = pair(kind, torch.float32)
    x, state = data(fast, T, B)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            want, want_final = plain(x, state)
        except RuntimeError as error:  # oneDNN's LSTM needs AVX-512 for it
            pytest.skip(f"PyTorch itself cannot do it here: {error}")
        y, final = fast(x, state)
        ragged, _ = fast(x, state, lengths=[T, 2, 0])
    for a, b in zip([y, *parts(final)], [want, *parts(want_final)], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(ragged[:, 0].float(), y[:, 0].float(), rtol=0, atol=0.02)


def test_other_devices() -> None:
    """The meta device stands for those this machine has not."""
    for kind in KINDS:
        fast = pair(kind, batch_first=True)[1].to("meta")
        x, state = data(fast, B, T)
        assert fast(x, state)[0].shape[:2] == (B, T)
        assert fast(x, state, lengths=[T, 2, 0])[0].device.type == "meta"
