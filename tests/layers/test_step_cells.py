"""RNNCell, GRUCell and LSTMCell: a step has the bits of a layer's, its gradients are exact."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from rnnfast.training import numerical_gradient

pytestmark = pytest.mark.usefixtures("isa")

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "rnn": (RNNCell, RNN, {}),
    "relu": (RNNCell, RNN, {"nonlinearity": "relu"}),
    "identity": (RNNCell, RNN, {"nonlinearity": "identity"}),
    "gru": (GRUCell, GRU, {}),
    "reset_before": (GRUCell, GRU, {"reset_after": False}),
    "lstm": (LSTMCell, LSTM, {}),
    "projected": (LSTMCell, LSTM, {"proj_size": 2}),
}
I, H = 5, 7
Array = np.ndarray[Any, np.dtype[Any]]


def make(kind: str, **options: Any) -> Any:
    """A float64 cell with 5 inputs and 7 hidden units, unless the options say otherwise."""
    cell, _, defaults = KINDS[kind]
    return cell(I, H, **{"dtype": np.float64, "rng": 0} | defaults | options)


def layer_of(kind: str, cell: Any, **options: Any) -> Any:
    """The layer with the same parameters."""
    _, layer, defaults = KINDS[kind]
    same = layer(I, H, **{"dtype": cell.dtype, "bias": cell.bias} | defaults | options)
    same.load_state_dict({f"{name}_l0": value for name, value in cell.params.items()})
    return same


def parts(state: Any) -> list[Array]:
    return list(state) if isinstance(state, tuple) else [state]


def joined(arrays: list[Array]) -> Any:
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def random_like(state: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return joined([rng.uniform(-1, 1, a.shape).astype(a.dtype) for a in parts(state)])


def data(cell: Any, *batch: int, seed: int = 0) -> tuple[Array, Any, Any]:
    """An input, a state before and a gradient of the state after the step."""
    x = random_like(np.empty((*batch, I), cell.dtype), seed)
    return x, random_like(cell(x), seed + 1), random_like(cell(x), seed + 2)


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(parts(found), parts(expected), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(3,), (1,), (0,), (19,), ()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_a_step_has_the_bits_of_a_layer_s(
    kind: str, batch: tuple[int, ...], dtype: Any, bias: bool
) -> None:
    cell = make(kind, dtype=dtype, bias=bias)
    layer = layer_of(kind, cell)
    x, before, upstream = data(cell, *batch)
    start, end = (joined([a[None] for a in parts(s)]) for s in (before, upstream))
    _, expected, layer_tape = layer.forward(x[None], start)
    wanted = layer.backward(layer_tape, None, end)

    after, tape = cell.forward(x, before)
    grads = cell.backward(tape, upstream)
    assert_same(after, joined([a[0] for a in parts(expected)]))
    assert_same(cell(x, before), after)
    assert_same(grads.input, wanted.input[0])
    assert_same(grads.state, joined([a[0] for a in parts(wanted.state)]))
    assert list(grads.params) == list(cell.params)
    for name, gradient in grads.params.items():
        assert_same(gradient, wanted.params[f"{name}_l0"])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_a_loop_are_a_sequence(kind: str) -> None:
    """Forward, and back through time with the gradients of the parameters added up."""
    cell, T, B = make(kind), 6, 3
    layer = layer_of(kind, cell)
    x = random_like(np.empty((T, B, I)), 0)
    y, final, layer_tape = layer.forward(x)
    dy = random_like(y, 1)
    wanted = layer.backward(layer_tape, dy)

    state, tapes = None, []
    for t in range(T):
        state, tape = cell.forward(x[t], state)
        tapes.append(tape)
        np.testing.assert_array_equal(parts(state)[0], y[t])
    assert_same(state, joined([a[0] for a in parts(final)]))
    sums = {name: np.zeros_like(value) for name, value in cell.params.items()}
    carried = [np.zeros_like(part) for part in parts(state)]
    for t in reversed(range(T)):
        grads = cell.backward(tapes[t], joined([carried[0] + dy[t], *carried[1:]]), accumulate=sums)
        assert grads.params is sums
        carried = parts(grads.state)
        np.testing.assert_array_equal(grads.input, wanted.input[t])
    assert_same(joined(carried), joined([a[0] for a in parts(wanted.state)]))
    for name, value in sums.items():
        np.testing.assert_allclose(value, wanted.params[f"{name}_l0"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(3,), ()])
def test_gradients_are_those_of_finite_differences(kind: str, batch: tuple[int, ...]) -> None:
    cell = make(kind, rng=3)
    x, before, upstream = data(cell, *batch)

    def loss() -> float:
        after = parts(cell(x, before))
        return float(sum((a * b).sum() for a, b in zip(after, parts(upstream), strict=True)))

    grads = cell.backward(cell.forward(x, before)[1], upstream)
    given = {"x": (x, grads.input)}
    given |= {n: (cell.params[n], g) for n, g in grads.params.items()}
    states = zip(parts(before), parts(grads.state), strict=True)
    given |= {f"state {k}": pair for k, pair in enumerate(states)}
    for name, (value, gradient) in given.items():
        expected = numerical_gradient(loss, value)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("identity", "reset_before")])
@pytest.mark.parametrize("batch", [(3,), ()])
@pytest.mark.parametrize("bias", [True, False])
def test_results_are_those_of_torch(kind: str, batch: tuple[int, ...], bias: bool) -> None:
    torch = pytest.importorskip("torch")
    if kind == "projected":
        pytest.skip("torch.nn.LSTMCell has no projection")
    name = KINDS[kind][0].__name__
    plain = getattr(torch.nn, name)(I, H, bias=bias, dtype=torch.float64, **KINDS[kind][2])
    cell = make(kind, bias=bias)
    cell.load_state_dict(plain.state_dict())
    x, before, upstream = data(cell, *batch)
    leaves = [torch.tensor(a, requires_grad=True) for a in [x, *parts(before)]]
    after = plain(leaves[0], joined(leaves[1:]))
    torch.autograd.backward(parts(after), [torch.tensor(u) for u in parts(upstream)])

    mine, tape = cell.forward(x, before)
    grads = cell.backward(tape, upstream)
    found = [*parts(mine), grads.input, *parts(grads.state), *grads.params.values()]
    wanted = [a.detach() for a in parts(after)] + [leaf.grad for leaf in leaves]
    wanted += [p.grad for p in plain.parameters()]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14)
    plain.load_state_dict({n: torch.from_numpy(v) for n, v in cell.state_dict().items()})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_given_is_zeros(kind: str) -> None:
    cell = make(kind)
    x, before, upstream = data(cell, 3)
    zero = joined([0 * a for a in parts(before)])
    assert_same(cell(x), cell(x, zero))
    none = cell.backward(cell.forward(x)[1])
    assert not any(np.any(a) for a in [none.input, *parts(none.state), *none.params.values()])
    if len(parts(before)) == 2:
        h, c = before
        dh, dc = upstream
        assert_same(cell(x, (h, None)), cell(x, (h, 0 * c)))
        assert_same(cell(x, [None, c]), cell(x, (0 * h, c)))
        for half, full in (((dh, None), (dh, 0 * dc)), ((None, dc), (0 * dh, dc))):
            a, b = (cell.backward(cell.forward(x, before)[1], u) for u in (half, full))
            assert_same(a.input, b.input)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_strided_and_read_only_arrays_are_taken_and_left_alone(kind: str) -> None:
    cell = make(kind)
    x, before, upstream = data(cell, 3)
    given = [np.asfortranarray(a) for a in [x, *parts(before), *parts(upstream)]]
    for a in given:
        a.setflags(write=False)
    n = len(parts(before))
    after, tape = cell.forward(given[0], joined(given[1 : 1 + n]))
    assert_same(after, cell(x, before))
    grads = cell.backward(tape, joined(given[1 + n :]))
    assert_same(grads.input, cell.backward(cell.forward(x, before)[1], upstream).input)


def test_nan_stays_in_its_row() -> None:
    cell = make("lstm")
    x, before, _ = data(cell, 3)
    expected = cell(x, before)
    x[1, 2] = np.nan
    for a, b in zip(cell(x, before), expected, strict=True):
        assert np.isnan(a[1]).all()
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


def test_threads_change_no_bit() -> None:
    cell = rnnfast.LSTMCell(257, 389, rng=0)
    rng = np.random.default_rng(0)
    x, dh = (rng.standard_normal((67, n), dtype=np.float32) for n in (257, 389))
    results = []
    for threads in 1, 3:
        after, tape = cell.forward(x, threads=threads)
        grads = cell.backward(tape, (dh, None), threads=threads)
        results.append([*after, grads.input, *grads.state, *grads.params.values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_start_as_a_layer_s_and_may_be_replaced() -> None:
    for kind, (cell_class, layer_class, options) in KINDS.items():
        cell, layer = (k(I, H, rng=5, **options) for k in (cell_class, layer_class))
        assert [f"{name}_l0" for name in cell.params] == list(layer.params), kind
        for a, b in zip(cell.params.values(), layer.params.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    cell = make("gru")
    x, before, _ = data(cell, 3)
    other = make("gru", rng=9)
    assert not np.array_equal(cell(x, before), other(x, before))
    cell.params["weight_hh"][...] = other.params["weight_hh"]
    cell.params |= {n: v for n, v in other.params.items() if n != "weight_hh"}
    assert_same(cell(x, before), other(x, before))
    cell.params["bias_hh"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"params\['bias_hh'\] has shape \(3,\)"):
        cell(x, before)


def test_cells_are_copied_pickled_and_shown() -> None:
    shown = {
        "rnn": "RNNCell(5, 7, dtype=float64)",
        "relu": "RNNCell(5, 7, nonlinearity='relu', dtype=float64)",
        "reset_before": "GRUCell(5, 7, reset_after=False, dtype=float64)",
        "projected": "LSTMCell(5, 7, proj_size=2, dtype=float64)",
    }
    for kind, text in shown.items():
        cell = make(kind)
        x, before, _ = data(cell, 3)
        for same in copy.deepcopy(cell), pickle.loads(pickle.dumps(cell)):
            assert repr(same) == repr(cell) == text
            assert_same(same(x, before), cell(x, before))
            same.params["weight_ih"][...] = 0
        assert np.any(cell.params["weight_ih"])


def test_a_tape_serves_one_backward_of_its_cell() -> None:
    cell = make("gru")
    x, before, upstream = data(cell, 3)
    _, tape = cell.forward(x, before)
    with pytest.raises(ValueError, match=r"tape is from another cell, GRUCell\(5, 7, "):
        make("gru").backward(tape, upstream)
    with pytest.raises(TypeError, match="a tape cannot be pickled or copied"):
        pickle.dumps(tape)
    cell.backward(tape, upstream)
    with pytest.raises(RuntimeError, match="tape was used by an earlier backward"):
        cell.backward(tape, upstream)


def test_after_an_error_the_tape_and_the_sums_are_as_before() -> None:
    cell = make("lstm")
    x, before, upstream = data(cell, 3)
    expected = cell.backward(cell.forward(x, before)[1], upstream)
    _, tape = cell.forward(x, before)
    sums = {name: np.zeros_like(value) for name, value in cell.params.items()}
    for dh in (upstream[0], (upstream[0],), (upstream[0][1:], None), (1.0, None)):
        with pytest.raises((TypeError, ValueError), match="dh"):
            cell.backward(tape, dh, accumulate=sums)
    with pytest.raises(ValueError, match="accumulate has missing keys"):
        cell.backward(tape, upstream, accumulate={})
    assert not any(np.any(value) for value in sums.values())
    assert_same(cell.backward(tape, upstream, accumulate=sums).input, expected.input)
    for name, value in sums.items():
        np.testing.assert_array_equal(value, expected.params[name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, "x has type list, expected numpy.ndarray"),
        ((np.zeros((3, 5), np.float32),), TypeError, "x has dtype float32, expected float64"),
        ((np.zeros((3, 4)),), ValueError, r"x has shape \(3, 4\), expected \(B, I\) or \(I,\) w"),
        ((np.zeros((2, 3, 5)),), ValueError, r"x has shape \(2, 3, 5\), expected \(B, I\) or"),
        ((np.zeros(()),), ValueError, r"x has shape \(\), expected"),
        ((np.zeros((3, 5)), np.zeros((2, 7))), TypeError, r"h has type ndarray, expected a pair"),
        ((np.zeros((3, 5)), (None,)), ValueError, r"h has length 1, expected a pair \(h, c\)"),
        (
            (np.zeros((3, 5)), (np.zeros((2, 2)), None)),
            ValueError,
            r"h\[0\] has shape \(2, 2\), expected \(B, P\) = \(3, 2\)",
        ),
        (
            (np.zeros(5), (None, np.zeros((1, 7)))),
            ValueError,
            r"h\[1\] has shape \(1, 7\), expected \(H,\) = \(7,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make("projected").forward(*arguments)


def test_the_state_of_a_gru_is_one_array() -> None:
    cell = make("gru")
    x, before, _ = data(cell, 3)
    with pytest.raises(TypeError, match="h has type tuple, expected numpy"):
        cell(x, (before, before))
    with pytest.raises(ValueError, match=r"h has shape \(7, 3\), expected \(B, H\) = \(3, 7\)"):
        cell(x, before.T)
