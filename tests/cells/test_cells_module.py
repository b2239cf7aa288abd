"""`rnnfast.torch.Recurrent`: cells of one's own as PyTorch modules."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import some_cells

import rnnfast
from rnnfast import cells

torch = pytest.importorskip("torch")
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence  # noqa: E402

import rnnfast.torch as rt  # noqa: E402


def twins(cell: cells.Cell, I: int, H: int, **options: Any) -> tuple[Any, rnnfast.Recurrent]:
    """A module, and the NumPy layer with its parameters."""
    module = rt.Recurrent(cell, I, H, dtype=torch.float64, **options)
    layer = rnnfast.Recurrent(cell, I, H, dtype=np.float64, **options)
    layer.load_state_dict({n: p.numpy() for n, p in module.state_dict().items()})
    return module, layer


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_same_as_the_layer(batch_first: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    module, layer = twins(cells.peephole_lstm, 3, 5, **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 3))
    B = 4 if batch_first else 6
    state = tuple(rng.standard_normal((4, B, 5)) for _ in range(2))
    lengths = rng.integers(0, 5, B)
    y, final, tape = layer.forward(x, state, lengths=lengths)
    given = torch.tensor(x, requires_grad=True)
    hx = tuple(torch.tensor(s, requires_grad=True) for s in state)
    out, hn = module(given, hx, lengths=torch.tensor(lengths))
    np.testing.assert_array_equal(out.detach().numpy(), y)
    for a, b in zip(hn, final, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)
    (out.sum() + hn[1].sum()).backward()
    grads = layer.backward(tape, np.ones_like(y), (None, np.ones_like(final[1])))
    np.testing.assert_allclose(given.grad.numpy(), grads.input, atol=1e-14)
    np.testing.assert_allclose(hx[0].grad.numpy(), grads.state[0], atol=1e-14)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), grads.params[name], atol=1e-13)


def test_gradcheck() -> None:
    module = rt.Recurrent(some_cells.with_inputs, 2, 3, bidirectional=True, dtype=torch.float64)
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    k = torch.rand(3, 2, 1, dtype=torch.float64, requires_grad=True)
    m = torch.tensor([[0.2, 0.9, 0.1], [0.8, 0.3, 0.7]], dtype=torch.float64)

    def run(x: Any, h: Any, k: Any, *values: Any) -> Any:
        params = dict(zip(names, values, strict=True))
        options = {"extra": {"k": k, "m": m}, "lengths": [3, 2]}
        return torch.func.functional_call(module, params, (x, h), options)

    assert torch.autograd.gradcheck(run, (x, h, k, *values))


def test_packed_sequences() -> None:
    module, layer = twins(cells.mgu, 3, 5)
    parts = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 4, 1)]
    out, hn = module(pack_sequence(parts, enforce_sorted=False))
    y, lengths = pad_packed_sequence(out)
    x = torch.nn.utils.rnn.pad_sequence(parts).numpy()
    expected, final = layer(x, lengths=np.array([2, 4, 1]))
    assert lengths.tolist() == [2, 4, 1]
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    np.testing.assert_array_equal(hn.detach().numpy(), final)


def test_unbatched_resets_and_a_second_backward() -> None:
    module, layer = twins(cells.janet, 3, 5)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    resets = np.array([0, 0, 1, 0, 1, 0], bool)
    out, hn = module(x, resets=resets)
    assert out.shape == (6, 5)
    assert hn.shape == (1, 5)
    np.testing.assert_array_equal(out.detach(), layer(x.detach().numpy(), resets=resets)[0])
    first = torch.autograd.grad(out.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out.sum(), x)[0])


def test_copies_dropout_and_training() -> None:
    torch.manual_seed(0)
    module = rt.Recurrent(cells.mgu, 2, 8, 2, dropout=0.5)
    x = torch.rand(20, 16, 2)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    for same in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(x)[0], module(x)[0])
    assert "mgu, 2, 8" in repr(module)
    module = rt.Recurrent(cells.mgu, 2, 8)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        loss = ((module(x)[0][..., :1] - x[..., :1]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_masks_are_drawn_from_pytorchs_generator_in_training() -> None:
    module, layer = twins(cells.zoneout_lstm(0.2, 0.6), 3, 37, num_layers=2, bidirectional=True)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    torch.manual_seed(1)
    first, second = module(x)[0], module(x)[0]
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    module.eval()
    expected, final = layer(x.numpy())
    y, hx = module(x)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    np.testing.assert_array_equal(hx[1].detach().numpy(), final[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drawn_masks_have_the_values_and_shares_of_the_layer(dtype: Any) -> None:
    @cells.cell(
        state="h",
        extra="d m",
        masks={"d": cells.Mask(0.2), "m": cells.Mask(0.5, per_step=False, scaled=True)},
    )
    def shown(x: Any, h: Any, d: Any, m: Any) -> Any:
        return d + 8 * m

    module = rt.Recurrent(shown, 1, 31, 2, bidirectional=True, dtype=dtype)
    torch.manual_seed(0)
    y, state = module(torch.zeros(20, 10, 1, dtype=dtype))
    assert y.unique().tolist() == [0, 1, 16, 17]
    assert abs((y % 2).mean().item() - 0.2) < 4 * 0.4 / y.numel() ** 0.5
    assert torch.equal(y // 8, (y[:1] // 8).expand(y.shape))  # m is one for all steps
    assert len({tuple(part.flatten().tolist()) for part in state}) == 4


def test_given_masks_and_gradients() -> None:
    module, layer = twins(cells.recurrent_dropout_lstm(0.5), 3, 5, batch_first=True)
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    m = 2 * (torch.rand(4, 5) < 0.5).double()
    m.requires_grad_()
    y, _ = module(x, extra={"m": m}, lengths=[6, 3, 0, 1])
    y.sum().backward()
    given = {"m": m.detach().numpy()}
    expected, _, tape = layer.forward(
        x.detach().numpy(), extra=given, lengths=np.array([6, 3, 0, 1])
    )
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    grads = layer.backward(tape, np.ones_like(expected))
    np.testing.assert_array_equal(x.grad.numpy(), grads.input)
    assert m.grad is None
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), grads.params[name])


def test_what_does_not_fit() -> None:
    module = rt.Recurrent(cells.peephole_lstm, 3, 5)
    with pytest.raises(ValueError, match=r"expected \(T, B, 3\), torch\.float32 and cpu"):
        module(torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match=r"torch\.float64"):
        module(torch.zeros(2, 1, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"tuple \(h, c\)"):
        module(torch.zeros(2, 1, 3), torch.zeros(1, 1, 5))
    with pytest.raises(ValueError, match="hx has shape"):
        module(torch.zeros(2, 1, 3), (torch.zeros(1, 2, 5), None))
    with pytest.raises(ValueError, match=r"missing keys \[\] and unexpected keys \['m'\]"):
        rt.Recurrent(cells.zoneout_lstm(), 3, 5)(torch.zeros(2, 1, 3), extra={"m": 1})
    with pytest.raises(TypeError, match=r"float32 or torch\.float64"):
        rt.Recurrent(cells.mgu, 3, 5, dtype=torch.float16)

    @cells.cell(state="h")
    def clash(x: Any, h: Any) -> Any:
        return cells.linear("forward", x, h)

    with pytest.raises(ValueError, match="rename it"):
        rt.Recurrent(clash, 3, 5)
