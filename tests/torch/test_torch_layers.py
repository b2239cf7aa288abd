"""The layers of rnnfast.torch compute what those of torch.nn and of rnnfast compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import cover

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import (  # noqa: E402
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)
from torch_cases import (  # noqa: E402
    KINDS,
    B,
    H,
    I,
    P,
    T,
    assert_close,
    data,
    pair,
    parts,
    random_like,
    train,
)

import rnnfast  # noqa: E402
import rnnfast.torch  # noqa: E402
from rnnfast.torch import layers  # noqa: E402
from rnnfast.torch._formulas import composite  # noqa: E402

RAGGED = torch.tensor([2, T, 4])


@pytest.fixture(params=["kernels", "composite"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to compute a cell."""
    if request.param == "composite":
        monkeypatch.setattr(layers, "recurrence", composite)
    return str(request.param)


def lead_of(layer: Any) -> tuple[int, int]:
    return (B, T) if layer.batch_first else (T, B)


# -------------------------------------------------------------------------------------- torch.nn

OPTIONS = cover(
    48,
    seed=1,
    kind=KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, True, False),
    dtype=("float64", "float32"),
    form=("batched", "batched", "unbatched", "sorted", "unsorted"),
)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_everything_is_as_in_torch(options: dict[str, Any], path: str) -> None:
    options = dict(options)
    form = options.pop("form")
    plain, fast = pair(options.pop("kind"), getattr(torch, options.pop("dtype")), **options)
    assert repr(fast) == repr(plain)
    x, state = data(fast, *((T,) if form == "unbatched" else lead_of(fast)))

    def pack(x: Any) -> Any:
        lengths = RAGGED if form == "unsorted" else RAGGED.sort(descending=True)[0]
        return pack_padded_sequence(x, lengths, fast.batch_first, enforce_sorted=form == "sorted")

    how = pack if form in ("sorted", "unsorted") else None
    assert_close(train(fast, x, state, how), train(plain, x, state, how))


@pytest.mark.parametrize("kind", KINDS)
def test_without_states(kind: str) -> None:
    plain, fast = pair(kind, num_layers=2, bidirectional=True)
    x, _ = data(fast, T, B)
    for given in x, x[:, 0], pack_padded_sequence(x, RAGGED, enforce_sorted=False):
        (y, final), (want, want_final) = fast(given), plain(given)
        if given is not x and not torch.is_tensor(given):
            y, want = y.data, want.data
        torch.testing.assert_close(y, want)
        for a, b in zip(parts(final), parts(want_final), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["batched", "packed"])
def test_dropout_draws_from_torch(kind: str, form: str) -> None:
    plain, fast = pair(kind, num_layers=3, bidirectional=True, dropout=0.4)
    x, state = data(fast, T, B)

    def pack(x: Any) -> Any:
        return pack_padded_sequence(x, RAGGED, enforce_sorted=False)

    results = []
    for layer in plain, fast:
        torch.manual_seed(3)
        results.append(train(layer, x, state, pack if form == "packed" else None))
    assert_close(results[1], results[0])
    given = pack(x) if form == "packed" else x
    with torch.no_grad():
        torch.manual_seed(3)
        y = fast(given, state)[0]
    assert torch.equal(y.data if form == "packed" else y, results[1]["y"])
    plain.eval()
    fast.eval()
    assert_close(train(fast, x, state), train(plain, x, state))
    assert (
        (train(fast, x, state)["y"] - results[1]["y"]).abs().max() > 1e-3
        if form == "batched"
        else 1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_strided_input_and_upstream(kind: str) -> None:
    plain, fast = pair(kind)
    x, state = data(fast, T, B)
    wide = torch.stack([x, -x], -1)
    assert_close(train(fast, wide[..., 0], state), train(fast, x, state))
    conjugate = torch.complex(x, -x).conj().imag  # a view with the negative bit
    assert conjugate.is_neg()
    torch.testing.assert_close(fast(conjugate, state)[0], plain(x, state)[0])
    for layer in plain, fast:
        layer.zero_grad()
        layer(x, state)[0].sum().backward()  # its gradient has strides of 0
    for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


# --------------------------------------------------------------------------- lengths and resets

VARIABLE = cover(
    30,
    seed=2,
    kind=KINDS,
    num_layers=(1, 2),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, False),
    lengths=([2, 0, 4], [T, T, T], [T, T - 1, T], [0, 0, 0], None),
    resets=(True, True, False),
)


@pytest.mark.parametrize("options", VARIABLE, ids=lambda o: "-".join(map(str, o.values())))
def test_lengths_and_resets_are_as_in_rnnfast(options: dict[str, Any], path: str) -> None:
    """The layers of NumPy arrays are the oracle: they have tests of their own."""
    options = dict(options)
    lengths, with_resets = options.pop("lengths"), options.pop("resets")
    kind = options.pop("kind")
    _, fast = pair(kind, **options)
    name, defaults = KINDS[kind]
    oracle = getattr(rnnfast, name)(I, H, dtype=np.float64, **defaults, **options)
    oracle.load_state_dict({n: p.numpy() for n, p in fast.state_dict().items()})
    x, state = data(fast, *lead_of(fast))
    resets = torch.from_numpy(np.random.default_rng(5).random(lead_of(fast)) < 0.3)
    got = train(fast, x, state, lengths=lengths, resets=resets if with_resets else None)

    arrays = tuple(s.numpy() for s in parts(state))
    y, final, tape = oracle.forward(
        x.numpy(),
        arrays if len(arrays) > 1 else arrays[0],
        lengths=None if lengths is None else np.array(lengths),
        resets=resets.numpy() if with_resets else None,
    )
    finals = [torch.from_numpy(s) for s in parts(final)]
    upstream = [
        random_like(t, 10 + i).numpy() for i, t in enumerate([torch.from_numpy(y), *finals])
    ]
    dstate = tuple(upstream[1:]) if len(finals) > 1 else upstream[1]
    grads = oracle.backward(tape, upstream[0], dstate)
    want = {"y": y} | {f"state{i}": s for i, s in enumerate(parts(final))} | {"dx": grads.input}
    want |= {f"dstate{i}": s for i, s in enumerate(parts(grads.state))}
    want |= {f"d{n}": g for n, g in grads.params.items()}
    assert_close(got, {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in want.items()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_resets_of_packed_sequences(kind: str, enforce_sorted: bool, path: str) -> None:
    """As with the same lengths and resets and padding."""
    _, fast = pair(kind, num_layers=2, bidirectional=True, batch_first=enforce_sorted)
    x, state = data(fast, *lead_of(fast))
    lengths = RAGGED.sort(descending=True)[0] if enforce_sorted else RAGGED
    resets = torch.rand(lead_of(fast), generator=torch.Generator().manual_seed(1)) < 0.4
    packed = pack_padded_sequence(x, lengths, fast.batch_first, enforce_sorted)
    y, final = fast(packed, state, resets=resets)
    y, _ = pad_packed_sequence(y, fast.batch_first)
    want, want_final = fast(x, state, lengths=lengths, resets=resets)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-14)
    for a, b in zip(parts(final), parts(want_final), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_forms_of_lengths_and_resets() -> None:
    _, fast = pair("gru")
    x, state = data(fast, T, B)
    resets = torch.rand(T, B) < 0.5
    want = fast(x, state, lengths=RAGGED, resets=resets)[0]
    for lengths in RAGGED.tolist(), RAGGED.numpy(), RAGGED.int(), tuple(RAGGED.tolist()):
        assert torch.equal(fast(x, state, lengths=lengths, resets=resets.numpy())[0], want)
    row = fast(x[:, 0], state[:, 0], resets=resets[:, 0])[0]
    torch.testing.assert_close(row, fast(x, state, resets=resets)[0][:, 0], rtol=0, atol=1e-14)


# ---------------------------------------------------------------------------------------- errors


def refusals(layer: Any) -> dict[str, tuple[Any, Any]]:
    """Inputs and states that do not fit."""
    x, state = data(layer, *lead_of(layer))
    packed = pack_padded_sequence(x, RAGGED, layer.batch_first, enforce_sorted=False)
    cases = {
        "four axes": (x[None], None),
        "one axis": (x[0, 0], None),
        "input size": (x[..., :1], None),
        "packed input size": (PackedSequence(packed.data[:, :1], packed.batch_sizes), None),
        "dtype": (x.float(), None),
        "no step": (x[:, :0] if layer.batch_first else x[:0], None),
        "a state for each row": (x[0] if layer.batch_first else x[:, 0], state),
    }
    short = tuple(s[:, :2] for s in state) if isinstance(state, tuple) else state[:, :2]
    cases |= {"batch of the state": (x, short), "batch of a packed state": (packed, short)}
    each_step = data(layer, *reversed(lead_of(layer)))[1]
    cases |= {"as many states as steps": (x, each_step)}
    if isinstance(state, tuple):
        cases |= {"no pair": (x, state[0]), "only h": (x, (state[0], None))}
        cases |= {"sizes of the pair": (x, state[::-1])} if layer.proj_size else {}
    else:
        cases |= {"axes of the state": (x, state[0]), "a pair": (x, (state, state))}
    return cases


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_does_not_fit_is_refused_as_in_torch(kind: str, batch_first: bool) -> None:
    plain, fast = pair(kind, batch_first=batch_first)
    for name, (given, state) in refusals(fast).items():
        with pytest.raises(Exception) as want:  # noqa: PT011 - whatever PyTorch says
            plain(given, state)
        with pytest.raises(want.type) as got:
            fast(given, state)
        assert str(got.value) == str(want.value), name
        if name not in ("dtype", "no step", "only h"):
            with pytest.raises(want.type):
                fast(given, state, resets=torch.zeros(lead_of(fast), dtype=torch.bool))


@pytest.mark.parametrize("batch_first", [False, True])
def test_refused_lengths_and_resets(batch_first: bool) -> None:
    _, fast = pair("lstm", batch_first=batch_first)
    x, _ = data(fast, *lead_of(fast))
    packed = pack_padded_sequence(x, RAGGED, batch_first, enforce_sorted=False)
    flags = torch.zeros(lead_of(fast), dtype=torch.bool)
    axes = r"\(B, T\) = \(3, 5\)" if batch_first else r"\(T, B\) = \(5, 3\)"
    with pytest.raises(ValueError, match=r"lengths has values from 0 to 6, expected 0 to T = 5"):
        fast(x, lengths=torch.tensor([0, 6, 1]))
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\), expected \(B,\) = \(3,\)"):
        fast(x, lengths=[1, 2])
    with pytest.raises(TypeError, match=r"lengths has dtype float32, expected integers"):
        fast(x, lengths=torch.ones(3))
    with pytest.raises(ValueError, match=r"input has no batch axis"):
        fast(x[0], lengths=[2])
    with pytest.raises(ValueError, match=r"input is a PackedSequence"):
        fast(packed, lengths=RAGGED)
    with pytest.raises(ValueError, match=rf"resets has shape \(5, 5\), expected {axes}"):
        fast(x, resets=torch.zeros(T, T, dtype=torch.bool))
    with pytest.raises(ValueError, match=rf"resets has shape \(2, 2\), expected {axes}"):
        fast(packed, resets=flags[:2, :2])
    with pytest.raises(TypeError, match=r"resets has dtype uint8, expected dtype bool"):
        fast(x, resets=flags.byte())


@pytest.mark.parametrize(
    ("sizes", "order"), [([3, 2, 1], None), ([3, 1, 2], None), ([3, 3], [0, 2, 2])]
)
def test_malformed_packed_sequences(sizes: list[int], order: list[int] | None) -> None:
    """The kernels would go astray in memory."""
    _, fast = pair("gru")
    places = None if order is None else torch.tensor(order)
    data = torch.zeros(6 if order else 7, I, dtype=torch.float64)
    if sizes == [3, 1, 2]:
        data = data[:6]
    packed = PackedSequence(data, torch.tensor(sizes), places)
    with pytest.raises(ValueError, match=r"batch_sizes|sorted_indices"):
        fast(packed)


def test_weights_that_do_not_fit_each_other() -> None:
    _, fast = pair("gru")
    x, _ = data(fast, T, B)
    fast.weight_hh_l0 = torch.nn.Parameter(torch.zeros(3 * H, H - 1, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="weights do not fit"):
        fast(x)


def test_directions_of_different_sizes_are_refused() -> None:
    ours = rnnfast.torch.GRU(3, 5, bidirectional=True)
    larger = rnnfast.torch.GRU(3, 7, bidirectional=True)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(ours, f"{name}_l0_reverse", getattr(larger, f"{name}_l0_reverse"))
    with pytest.raises(RuntimeError, match="weights do not fit"):
        ours(torch.zeros(4, 2, 3))


def test_empty_batches() -> None:
    for kind in KINDS:
        plain, fast = pair(kind)
        x, _ = data(fast, T, 0)
        assert fast(x)[0].shape == plain(x)[0].shape
        assert fast(x, lengths=np.zeros(0, int))[0].shape == plain(x)[0].shape


def test_the_default_device_does_not_matter() -> None:
    _, fast = pair("lstm", bidirectional=True)
    x, state = data(fast, T, B)
    want = train(fast, x, state, lengths=[2, T, 0])
    with torch.device("meta"):
        y, _ = fast(x, state, lengths=[2, T, 0])
        y.sum().backward()
    assert torch.equal(y, want["y"])


def test_the_constructors_are_those_of_torch() -> None:
    for name in "RNN", "GRU", "LSTM":
        fast, plain = getattr(rnnfast.torch, name), getattr(torch.nn, name)
        assert issubclass(fast, plain)
        assert fast.__init__ is plain.__init__
        torch.manual_seed(1)
        first = fast(I, H, 2, bias=False, device="cpu").state_dict()
        torch.manual_seed(1)
        second = plain(I, H, 2, bias=False, device="cpu").state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[n], second[n]) for n in first)
    with pytest.raises(ValueError, match="proj_size"):
        rnnfast.torch.GRU(I, H, proj_size=P)
