"""Attention: against a loop, central differences and PyTorch; padding; extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast.training import Attention, gradcheck

T, S, B, H, V = 5, 7, 3, 4, 2
LENGTHS = np.array([7, 1, 4])
lengths_or_all = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])


def case(seed: int = 0, dtype: Any = np.float64) -> tuple[Any, Any, Any, Any]:
    """Queries, keys, values and a gradient of the output."""
    rng = np.random.default_rng(seed)
    shapes = (T, B, H), (S, B, H), (S, B, V), (T, B, V)
    q, k, v, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return q, k, v, dy


@lengths_or_all
def test_values_are_those_of_the_definition(lengths: Any) -> None:
    q, k, v, _ = case()
    y, tape = Attention().forward(q, k, v, lengths)
    assert y.shape == (T, B, V)
    assert tape.weights.shape == (B, T, S)
    for t in range(T):
        for b in range(B):
            n = S if lengths is None else lengths[b]
            a = np.exp([q[t, b] @ k[s, b] for s in range(n)])
            a /= a.sum()
            np.testing.assert_allclose(y[t, b], a @ v[:n, b], rtol=1e-12)
            np.testing.assert_allclose(tape.weights[b, t, :n], a, rtol=1e-12)
            assert not tape.weights[b, t, n:].any()
    np.testing.assert_array_equal(Attention()(q, k, v, lengths=lengths), y)


@lengths_or_all
def test_gradients_are_the_central_differences(lengths: Any) -> None:
    q, k, v, dy = case()
    attention = Attention()
    grads = attention.backward(attention.forward(q, k, v, lengths)[1], dy)
    arrays = {"queries": q, "keys": k, "values": v}
    errors = gradcheck(
        lambda: float(np.vdot(dy, attention(q, k, v, lengths))),
        arrays,
        {name: getattr(grads, name) for name in arrays},
    )
    assert max(errors.values()) < 1e-8
    assert grads.params == attention.params == {}


@lengths_or_all
def test_values_and_gradients_are_those_of_torch(lengths: Any) -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    q, k, v, dy = case(1)
    attention = Attention()
    y, tape = attention.forward(q, k, v, lengths)
    grads = attention.backward(tape, dy)
    theirs = [torch.tensor(a.swapaxes(0, 1).copy(), requires_grad=True) for a in (q, k, v)]
    mask = np.arange(S) < (np.full(B, S) if lengths is None else lengths)[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *theirs, attn_mask=torch.tensor(mask[:, None]), scale=1.0
    )
    expected.backward(torch.tensor(dy.swapaxes(0, 1).copy()))
    np.testing.assert_allclose(y, expected.detach().numpy().swapaxes(0, 1), rtol=1e-12)
    for ours, witness in zip(grads[:3], theirs, strict=True):
        np.testing.assert_allclose(
            ours.swapaxes(0, 1), witness.grad.numpy(), rtol=1e-10, atol=1e-14
        )


def test_padding_is_not_read_and_has_no_gradient() -> None:
    q, k, v, dy = case()
    attention = Attention()
    wanted, tape = attention.forward(q, k, v, LENGTHS)
    grads = attention.backward(tape, dy)
    padding = np.arange(S)[:, None] >= LENGTHS
    k[padding], v[padding] = np.nan, np.inf
    with np.errstate(all="raise", under="ignore"):
        y, tape = attention.forward(q, k, v, LENGTHS)
        again = attention.backward(tape, dy)
    np.testing.assert_array_equal(y, wanted)
    for a, b in zip(again[:3], grads[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not again.keys[padding].any()
    assert not again.values[padding].any()


def test_a_row_without_keys_gets_zeros() -> None:
    q, k, v, dy = case()
    attention = Attention()
    lengths = np.array([7, 0, 4])
    y, tape = attention.forward(q, k, v, lengths)
    grads = attention.backward(tape, dy)
    assert not y[:, 1].any()
    assert y[:, 0].all()
    for grad in grads[:3]:
        assert not grad[:, 1].any()
        assert np.isfinite(grad).all()
    y, tape = attention.forward(q, k[:0], v[:0])
    assert y.shape == (T, B, V)
    assert not y.any()
    assert attention.backward(tape, dy).keys.shape == (0, B, H)


def test_rows_do_not_depend_on_each_other() -> None:
    q, k, v, dy = case()
    attention = Attention()
    y, tape = attention.forward(q, k, v, LENGTHS)
    grads = attention.backward(tape, dy)
    for b, n in enumerate(LENGTHS):
        row = slice(b, b + 1)
        alone, tape = attention.forward(q[:, row], k[:n, row], v[:n, row])
        np.testing.assert_allclose(alone, y[:, row], rtol=1e-13)
        single = attention.backward(tape, dy[:, row])
        np.testing.assert_allclose(single.queries, grads.queries[:, row], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(single.keys, grads.keys[:n, row], rtol=1e-11, atol=1e-15)


def test_large_scores_and_float32() -> None:
    q, k, v, dy = case(dtype=np.float32)
    attention = Attention()
    with np.errstate(all="raise", under="ignore"):
        y, tape = attention.forward(1e15 * q, 1e15 * k, v)
        grads = attention.backward(tape, dy)
    best = np.einsum("tbh,sbh->tbs", q, k).argmax(axis=2)
    np.testing.assert_array_equal(y, np.take_along_axis(v, best[:, :, None], axis=0))
    assert {a.dtype for a in (y, *grads[:3])} == {np.dtype(np.float32)}
    assert all(np.isfinite(grad).all() for grad in grads[:3])


def test_arrays_of_any_layout_are_left_as_they_are() -> None:
    q, k, v, dy = case()
    attention = Attention()
    wanted, tape = attention.forward(q, k, v, LENGTHS)
    grads = attention.backward(tape, dy)
    turned = [np.asfortranarray(a) for a in (q, k, v, dy)]
    for a in turned:
        a.flags.writeable = False
    y, tape = attention.forward(*turned[:3], lengths=[7, 1, 4])
    np.testing.assert_allclose(y, wanted, rtol=1e-13)
    for ours, other in zip(attention.backward(tape, turned[3])[:3], grads[:3], strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-11, atol=1e-15)
        assert ours.flags.c_contiguous


Q, K, W = np.zeros((T, B, H)), np.zeros((S, B, H)), np.zeros((S, B, V))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], K, W), TypeError, "queries has type list"),
        ((Q, K.astype(np.float32), W), TypeError, "keys has dtype float32, expected float64 like"),
        ((Q, K, W.astype(int)), TypeError, "values has dtype int64, expected float64 like queries"),
        ((Q[0], K, W), ValueError, r"queries has shape \(3, 4\), expected 3 dimensions \(T, B"),
        ((Q, K[0], W), ValueError, r"keys has shape \(3, 4\), expected 3 dimensions \(S, B, H\)"),
        ((Q, K, W[0]), ValueError, "values has shape"),
        (
            (Q, K[:, :2], W),
            ValueError,
            r"keys has shape \(7, 2, 4\), expected \(S, B, H\) = \(7, 3, 4\)",
        ),
        (
            (Q, K, W[1:]),
            ValueError,
            r"values has shape \(6, 3, 2\), expected \(S, B, V\) = \(7, 3, 2\)",
        ),
        ((Q, K, W, [1, 2]), ValueError, r"lengths has shape \(2,\), expected \(B,\) = \(3,\)"),
        ((Q, K, W, [1, 2, 8]), ValueError, "lengths has entries from 1 to 8, expected 0 to 7"),
        ((Q, K, W, [1.0, 2, 3]), TypeError, "lengths has dtype float64, expected integers"),
    ],
)
def test_wrong_arguments(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Attention().forward(*arguments)


def test_a_gradient_of_the_wrong_shape_is_refused() -> None:
    tape = Attention().forward(Q, K, W)[1]
    with pytest.raises(ValueError, match=r"dy has shape \(5, 3, 4\), expected \(T, B, V\) = "):
        Attention().backward(tape, Q)
