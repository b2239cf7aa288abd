"""The layers against PyTorch, against finite differences and against their own documentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import cover

from rnnfast import GRU, LSTM, RNN
from rnnfast._core import config

pytestmark = pytest.mark.usefixtures("isa")

Array = np.ndarray[Any, np.dtype[Any]]

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (RNN, {}),
    "relu": (RNN, {"nonlinearity": "relu"}),
    "gru": (GRU, {}),
    "reset_before": (GRU, {"reset_after": False}),
    "lstm": (LSTM, {}),
    "projected": (LSTM, {"proj_size": 2}),
}
TORCH_KINDS = [kind for kind in KINDS if kind != "reset_before"]  # PyTorch has no such GRU
I, H = 5, 7


def make(kind: str, **options: Any) -> Any:
    """A float64 layer with 5 inputs and 7 hidden units, unless the options say otherwise."""
    layer, defaults = KINDS[kind]
    return layer(I, H, **{"dtype": np.float64, "rng": 0} | defaults | options)


def parts(state: Any) -> list[Any]:
    """The arrays of a state."""
    return list(state) if isinstance(state, tuple) else [state]


def joined(arrays: list[Any]) -> Any:
    """The opposite of `parts`."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def random_like(value: Any, seed: int = 1) -> Any:
    """Random numbers shaped as an array or a state, read-only."""
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1, 1, a.shape).astype(a.dtype) for a in parts(value)]
    for a in arrays:
        a.flags.writeable = False
    return joined(arrays)


def data(layer: Any, *lead: int, seed: int = 0) -> tuple[Array, Any]:
    """A random x with the leading axes `lead`, and a random state to go with it."""
    x = random_like(np.empty((*lead, layer.input_size), layer.dtype), seed)
    return x, random_like(layer(x)[1], seed + 1)


def train(layer: Any, x: Array, state: Any = None, **options: Any) -> dict[str, Array]:
    """Results and gradients of one forward and backward with random upstream gradients, by name."""
    y, final, tape = layer.forward(x, state, **options)
    grads = layer.backward(tape, random_like(y, 2), random_like(final, 3))
    assert list(grads.params) == list(layer.params)
    found = {"y": y, "dx": grads.input} | {f"d{name}": g for name, g in grads.params.items()}
    found |= {f"state{i}": a for i, a in enumerate(parts(final))}
    return found | {f"dstate{i}": a for i, a in enumerate(parts(grads.state))}


def assert_equal(got: dict[str, Array], want: dict[str, Array]) -> None:
    """The same names, shapes, dtypes and bits."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name, strict=True)


def assert_close(got: dict[str, Array], want: dict[str, Array]) -> None:
    """Equal up to rounding, relative to the largest element of each array."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].shape == value.shape, name
        allowed = 200 * np.finfo(value.dtype).eps * np.max(np.abs(value), initial=1e-3)
        np.testing.assert_allclose(got[name], value, rtol=0, atol=allowed, err_msg=name)


# ----------------------------------------------------------------------------------------- PyTorch


def torch_twin(layer: Any, seed: int = 0) -> Any:
    """The torch.nn layer with the same options, whose random weights `layer` takes over."""
    torch = pytest.importorskip("torch")
    names = ("num_layers", "bias", "batch_first", "bidirectional", "proj_size", "nonlinearity")
    options = {name: getattr(layer, name) for name in names if getattr(layer, name, None)}
    options["bias"] = layer.bias
    torch.manual_seed(seed)
    twin = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size, **options)
    twin = twin.to(getattr(torch, layer.dtype.name))
    layer.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    return twin


def train_torch(twin: Any, x: Array, state: Any, lengths: Array | None = None) -> dict[str, Array]:
    """What `train` returns, from PyTorch."""
    torch = pytest.importorskip("torch")
    inputs = [torch.tensor(a, requires_grad=True) for a in [x, *parts(state)]]
    if lengths is None:
        y, final = twin(inputs[0], joined(inputs[1:]))
    else:
        rnn, first = torch.nn.utils.rnn, twin.batch_first
        counts = torch.tensor(lengths)
        packed = rnn.pack_padded_sequence(inputs[0], counts, first, enforce_sorted=False)
        packed, final = twin(packed, joined(inputs[1:]))
        steps = x.shape[1 if first else 0]
        y, _ = rnn.pad_packed_sequence(packed, first, total_length=steps)
    outputs = {"y": y} | {f"state{i}": a for i, a in enumerate(parts(final))}
    results = {name: a.detach().numpy() for name, a in outputs.items()}
    states = random_like(joined([a for name, a in results.items() if name != "y"]), 3)
    upstream = [random_like(results["y"], 2), *parts(states)]
    loss = sum((a * torch.tensor(d)).sum() for a, d in zip(outputs.values(), upstream, strict=True))
    loss.backward()
    results |= {"dx": inputs[0].grad.numpy()}
    results |= {f"dstate{i}": a.grad.numpy() for i, a in enumerate(inputs[1:])}
    return results | {f"d{name}": p.grad.numpy() for name, p in twin.named_parameters()}


OPTIONS = cover(
    60,
    seed=1,
    kind=TORCH_KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, True, False),
    dtype=(np.float64, np.float32),
    lead=((6, 4), (3, 1), (11, 2), (6,)),
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_everything_is_as_in_torch(options: dict[str, Any]) -> None:
    options = dict(options)
    lead = options.pop("lead")
    layer = make(**options)
    twin = torch_twin(layer)
    assert list(layer.params) == list(twin.state_dict())
    x, state = data(layer, *lead)
    assert_close(train(layer, x, state), train_torch(twin, x, state))


@pytest.mark.parametrize("kind", TORCH_KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_the_packed_sequences_of_torch(kind: str, bidirectional: bool) -> None:
    layer = make(kind, num_layers=2, bidirectional=bidirectional, batch_first=bidirectional)
    twin = torch_twin(layer)
    lengths = np.array([3, 7, 1, 7, 5])
    x, state = data(layer, *((5, 8) if bidirectional else (8, 5)))
    got = train(layer, x, state, lengths=lengths)
    assert_close(got, train_torch(twin, x, state, lengths))


# ----------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_central_differences(kind: str, dropout: float) -> None:
    """Each array's gradient, along a random direction, through every option at once."""
    layer = make(kind, num_layers=2, bidirectional=True, batch_first=True, dropout=dropout)
    x, state = data(layer, 4, 6)
    options = {"lengths": np.array([6, 0, 3, 5]), "resets": np.zeros((4, 6), bool)}
    options["resets"][[0, 0, 3], [2, 3, 4]] = True
    values = {"dx": x.copy()} | {f"dstate{i}": a.copy() for i, a in enumerate(parts(state))}
    values |= {f"d{name}": a for name, a in layer.params.items()}

    def loss() -> float:
        layer.rng = np.random.default_rng(5)  # the same masks each time
        state = joined([a for name, a in values.items() if name.startswith("dstate")])
        y, final, _ = layer.forward(values["dx"], state, **options)
        results, upstream = [y, *parts(final)], [random_like(y, 2), *parts(random_like(final, 3))]
        return sum(float(np.sum(a * d)) for a, d in zip(results, upstream, strict=True))

    layer.rng = np.random.default_rng(5)
    gradients = train(layer, x, state, **options)
    for i, (name, value) in enumerate(values.items()):
        step = 1e-5 * np.random.default_rng(i).standard_normal(value.shape)
        start = value.copy()
        value += step
        above = loss()
        value[...] = start - step
        difference = (above - loss()) / 2
        value[...] = start
        expected = float(np.sum(gradients[name] * step))
        assert difference == pytest.approx(expected, rel=1e-6, abs=1e-13), name


# ------------------------------------------------------------------------------------------ passes


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_give_the_same_bits(kind: str) -> None:
    """Time-major, batch-first and unbatched input, and a call without tape."""
    layer = make(kind, num_layers=2, bidirectional=True)
    other = make(kind, num_layers=2, bidirectional=True, batch_first=True)
    x, state = data(layer, 6, 3)
    options = {"lengths": np.array([6, 2, 0]), "resets": np.arange(18).reshape(6, 3) % 5 == 2}
    want = train(layer, x, state, **options)
    got = train(other, x.swapaxes(0, 1), state, **options | {"resets": options["resets"].T})
    swapped = {name: a.swapaxes(0, 1) if name in ("y", "dx") else a for name, a in got.items()}
    for name in ("y", "state0"):  # the gradients upstream were drawn for another layout
        np.testing.assert_array_equal(swapped[name], want[name], strict=True)

    y, final = layer(x, state, **options)
    np.testing.assert_array_equal(y, want["y"], strict=True)
    for i, a in enumerate(parts(final)):
        np.testing.assert_array_equal(a, want[f"state{i}"], strict=True)

    resets = options["resets"][:, :1]
    one = joined([a[:, :1] for a in parts(state)])
    want = train(layer, x[:, :1], one, resets=resets)
    for each in (layer, other):
        bare = joined([a[:, 0] for a in parts(one)])
        got = train(each, x[:, 0], bare, resets=resets[:, 0])
        assert_equal(got, {n: np.reshape(a, got[n].shape) for n, a in want.items()})
        assert got["y"].ndim == got["state0"].ndim == got["dx"].ndim == got["dstate0"].ndim == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("B", [1, 3])
def test_directions_side_by_side_give_the_same_bits(kind: str, B: int) -> None:
    """With two threads a single row's directions run at the same time."""
    layer = make(kind, num_layers=2, bidirectional=True)
    T = 31 + int(config.SERIAL_FLOPS / (2 * 4 * 7 * 12))  # more than stays on one thread
    x, state = data(layer, T, B)
    for options in {}, {"lengths": np.arange(T - B, T)}:
        one = train(layer, x, state, threads=1, **options)
        assert_equal(train(layer, x, state, threads=2, **options), one)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_reset_a_row_starts_anew(kind: str) -> None:
    layer = make(kind, num_layers=2)
    x, state = data(layer, 7, 2)
    resets = np.zeros((7, 2), bool)
    resets[3, 1] = True
    y, final = layer(x, state, resets=resets)
    whole, end = layer(x, state)
    anew, anew_end = layer(x[3:])
    np.testing.assert_array_equal(y[:, 0], whole[:, 0])
    np.testing.assert_array_equal(y[:3], whole[:3])
    np.testing.assert_array_equal(y[3:, 1], anew[:, 1])
    for a, b, c in zip(parts(final), parts(end), parts(anew_end), strict=True):
        np.testing.assert_array_equal(a, np.stack([b[:, 0], c[:, 1]], axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_none_means_zeros(kind: str) -> None:
    layer = make(kind, num_layers=2, bidirectional=True)
    x, state = data(layer, 4, 3)
    zeros = [np.zeros_like(a) for a in parts(state)]
    assert_equal(train(layer, x), train(layer, x, joined(zeros)))
    if len(zeros) == 2:
        assert_equal(train(layer, x, (None, state[1])), train(layer, x, (zeros[0], state[1])))

    def gradients(dy: Any, dstate: Any) -> dict[str, Array]:
        grads = layer.backward(layer.forward(x, state)[2], dy, dstate)
        states = {f"state{i}": a for i, a in enumerate(parts(grads.state))}
        return grads.params | {"input": grads.input} | states

    dy = random_like(layer(x)[0])
    assert_equal(gradients(dy, None), gradients(dy, joined(zeros)))
    assert_equal(gradients(None, state), gradients(np.zeros_like(dy), state))
    assert_equal(gradients(None, None), gradients(np.zeros_like(dy), joined(zeros)))
    if len(zeros) == 2:
        assert_equal(gradients(dy, (state[0], None)), gradients(dy, (state[0], zeros[1])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_empty(kind: str, T: int, B: int) -> None:
    layer = make(kind, num_layers=2, bidirectional=True)
    x, state = data(layer, T, B)
    found = train(layer, x, state)
    width = 2 * (layer.proj_size or H)
    assert found["y"].shape == (T, B, width)
    assert found["dx"].shape == x.shape
    for i, (a, d) in enumerate(zip(parts(state), parts(random_like(state, 3)), strict=True)):
        np.testing.assert_array_equal(found[f"state{i}"], a, strict=True)  # no step, or no row
        np.testing.assert_array_equal(found[f"dstate{i}"], d, strict=True)
    assert not any(found[f"d{name}"].any() for name in layer.params)


@pytest.mark.parametrize("kind", KINDS)
def test_results_belong_to_the_caller(kind: str) -> None:
    """Overwriting results, or the weights, before backward changes nothing, nor do they overlap."""
    layer = make(kind, num_layers=2)
    x, state = data(layer, 4, 3)
    want = train(layer, x, state)
    y, final, tape = layer.forward(x, state)
    dy, dstate = random_like(y, 2), random_like(final, 3)
    for a in (y, *parts(final), *layer.params.values()):
        a[...] = np.nan
    grads = layer.backward(tape, dy, dstate)
    found = [grads.input, *parts(grads.state), *grads.params.values()]
    names = [
        "dx",
        *(f"dstate{i}" for i in range(len(parts(state)))),
        *(f"d{n}" for n in layer.params),
    ]
    for name, gradient in zip(names, found, strict=True):
        np.testing.assert_array_equal(gradient, want[name], err_msg=name, strict=True)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_a_tape_has_what_it_needs_for_itself(kind: str, lengths: Any) -> None:
    """Of all arguments only x is to stay; a state, lengths or resets may change before backward."""
    layer = make(kind, num_layers=2, bidirectional=True)
    x, state = data(layer, 5, 3)
    given = [a.copy() for a in parts(state)]
    options = {"resets": np.arange(15).reshape(5, 3) % 4 == 2}
    options |= {} if lengths is None else {"lengths": np.array(lengths)}
    want = train(layer, x, state, **options)
    y, final, tape = layer.forward(x, joined(given), **options)
    for a in (*given, *options.values()):
        a[...] = 1
    grads = layer.backward(tape, random_like(y, 2), random_like(final, 3))
    np.testing.assert_array_equal(grads.input, want["dx"])
    for i, a in enumerate(parts(grads.state)):
        np.testing.assert_array_equal(a, want[f"dstate{i}"])
    for name, a in grads.params.items():
        np.testing.assert_array_equal(a, want[f"d{name}"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_resets_act_in_rows_of_any_length(kind: str, bidirectional: bool) -> None:
    """As in each row alone, cut to its length and to its episodes."""
    layer = make(kind, bidirectional=bidirectional)
    x, state = data(layer, 7, 3)
    lengths, resets = np.array([4, 7, 6]), np.zeros((7, 3), bool)
    starts = [(0, 2, 4), (0, 3, 7), (0, 5, 6)]
    for b, (_, middle, _) in enumerate(starts):
        resets[middle, b] = True
    y, _ = layer(x, state, lengths=lengths, resets=resets)
    width = y.shape[2] // (2 if bidirectional else 1)
    for b, (start, middle, end) in enumerate(starts):
        first = layer(x[start:middle, b : b + 1], joined([a[:, b : b + 1] for a in parts(state)]))
        second, _ = layer(x[middle:end, b : b + 1])
        np.testing.assert_array_equal(y[start:middle, b, :width], first[0][:, 0, :width])
        np.testing.assert_array_equal(y[middle:end, b, :width], second[:, 0, :width])
        assert not y[end:, b].any()


@pytest.mark.parametrize("kind", KINDS)
def test_accumulate_adds_into_the_given_arrays(kind: str) -> None:
    layer = make(kind, num_layers=2, bidirectional=True)
    x, state = data(layer, 4, 3)
    want = train(layer, x, state)
    total = {name: np.ones_like(a) for name, a in layer.params.items()}
    arrays = dict(total)
    y, final, tape = layer.forward(x, state)
    grads = layer.backward(tape, random_like(y, 2), random_like(final, 3), accumulate=total)
    assert grads.params is total
    for name, a in total.items():
        assert a is arrays[name]
        np.testing.assert_array_equal(a, 1 + want[f"d{name}"], err_msg=name)
