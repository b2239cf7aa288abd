"""Central differences of every layer; batches of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnfast import GRU, LSTM, RNN, num_threads
from rnnfast.training import (
    Embedding,
    Linear,
    gradcheck,
    gradcheck_layer,
    minibatches,
    numerical_gradient,
    pad,
)

T, B, I, H = 5, 3, 2, 4
DOUBLE = {"dtype": np.float64, "rng": 0}


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


RECURRENT = [
    RNN(I, H, **DOUBLE),
    RNN(I, H, 2, nonlinearity="sigmoid", bidirectional=True, **DOUBLE),
    GRU(I, H, 2, **DOUBLE),
    GRU(I, H, reset_after=False, bias=False, **DOUBLE),
    LSTM(I, H, 2, bidirectional=True, **DOUBLE),
    LSTM(I, H, proj_size=3, **DOUBLE),
]


@pytest.mark.parametrize("layer", RECURRENT, ids=repr)
def test_recurrent_layers(layer: Any) -> None:
    lengths = np.array([T, 2, 0])
    x = normal(T, B, I)
    final = layer(x)[1]
    state = tuple(map(np.ones_like, final)) if isinstance(final, tuple) else np.ones_like(final)
    errors = gradcheck_layer(layer, x, state=state, options={"lengths": lengths})
    states = {"state.0", "state.1"} if isinstance(layer, LSTM) else {"state"}
    assert set(errors) == {*layer.params, "input"} | states
    assert max(errors.values()) < 1e-7


def test_linear_and_embedding() -> None:
    linear = Linear(I, 5, **DOUBLE)
    errors = gradcheck_layer(linear, normal(T, B, I))
    assert set(errors) == {"weight", "bias", "input"}
    assert max(errors.values()) < 1e-8
    assert max(gradcheck_layer(Linear(I, 5, bias=False, **DOUBLE), normal(I)).values()) < 1e-8

    ids = np.array([[3, 1, 3], [0, 3, 1]])
    embedding = Embedding(6, 4, **DOUBLE)
    errors = gradcheck_layer(embedding, ids)
    assert set(errors) == {"weight"}
    assert errors["weight"] < 1e-8


@pytest.mark.parametrize("outputs", [511, 512, 513, 1300])
@pytest.mark.parametrize("bias", [True, False])
def test_wide_linear(outputs: int, bias: bool) -> None:
    """Wider than one block of outputs: the same products as NumPy's."""
    linear = Linear(3, outputs, bias=bias, **DOUBLE)
    x, dy = normal(4, 2, 3), normal(4, 2, outputs, seed=1)
    weight, rows = linear.params["weight"], dy.reshape(8, -1)
    y, tape = linear.forward(x)
    np.testing.assert_allclose(
        y, x @ weight.T + linear.params.get("bias", 0), rtol=1e-12, atol=1e-14
    )
    grads = linear.backward(tape, dy)
    np.testing.assert_allclose(grads.input, dy @ weight, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(grads.params["weight"], rows.T @ x.reshape(8, 3), atol=1e-13)
    assert ("bias" in grads.params) == bias
    if bias:
        np.testing.assert_allclose(grads.params["bias"], rows.sum(axis=0), atol=1e-13)


def test_linear_has_the_same_bits_for_any_number_of_threads() -> None:
    linear = Linear(70, 90, rng=0)
    x = normal(300, 70).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        with num_threads(threads):
            y, tape = linear.forward(x)
            grads = linear.backward(tape, y)
        results.append([y, grads.input, *grads.params.values()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_linear_of_arrays_in_any_layout() -> None:
    plain, x, dy = Linear(6, 5, **DOUBLE), normal(4, 3, 6), normal(4, 3, 5, seed=1)
    grads = plain.backward(plain.forward(x)[1], dy)
    turned = Linear(6, 5, **DOUBLE)
    turned.params["weight"] = np.asfortranarray(turned.params["weight"])
    turned.params["bias"] = np.repeat(turned.params["bias"], 2)[::2]
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=2)[:, :, ::2]):
        y, tape = turned.forward(change(x))
        others = turned.backward(tape, change(dy))
        np.testing.assert_array_equal(y, plain(x))
        np.testing.assert_array_equal(others.input, grads.input)
        for name, gradient in grads.params.items():
            np.testing.assert_array_equal(others.params[name], gradient)
    x.flags.writeable = False
    np.testing.assert_array_equal(plain(x), y)


def test_linear_of_no_rows() -> None:
    linear = Linear(3, 4, rng=0)
    y, tape = linear.forward(np.zeros((0, 2, 3), np.float32))
    assert y.shape == (0, 2, 4)
    grads = linear.backward(tape, y)
    assert grads.input.shape == (0, 2, 3)
    assert not grads.params["weight"].any()
    assert not grads.params["bias"].any()


def test_embedding_of_no_ids() -> None:
    embedding = Embedding(6, 4, rng=0)
    y, tape = embedding.forward(np.zeros((0, 2), np.int64))
    assert y.shape == (0, 2, 4)
    assert not embedding.backward(tape, y).params["weight"].any()


def test_linear_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    linear, theirs = Linear(I, 5, **DOUBLE), torch.nn.Linear(I, 5, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(p) for name, p in linear.params.items()})
    x = normal(T, B, I)
    np.testing.assert_allclose(linear(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("module", [Linear(4, 5, rng=0), Embedding(6, 5, rng=0)])
def test_accumulate_adds(module: Any) -> None:
    x = np.array([[1, 2, 2, 5]])
    x = normal(3, 4).astype(np.float32) if isinstance(module, Linear) else x
    y, tape = module.forward(x)
    dy = normal(*y.shape).astype(np.float32)
    once = module.backward(module.forward(x)[1], dy).params
    total = {name: np.ones_like(p) for name, p in module.params.items()}
    arrays = dict(total)
    assert module.backward(tape, dy, accumulate=total).params is total
    for name, array in arrays.items():
        assert total[name] is array
        np.testing.assert_allclose(array, 1 + once[name], rtol=1e-6)


@pytest.mark.parametrize("module", [Linear(4, 5, rng=0), Embedding(6, 5, rng=0)])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: [1.0], TypeError, r"accumulate\['weight'\] has type list, expected numpy"),
        (lambda a: a.astype(float), TypeError, r"accumulate\['weight'\] has dtype float64, exp"),
        (lambda a: a.T, ValueError, r"accumulate\['weight'\] has shape \(.*\), expected \("),
        (lambda a: a[:0].repeat(0), ValueError, r"accumulate\['weight'\] has shape"),
        (
            lambda a: np.broadcast_to(a[:1], a.shape),
            ValueError,
            r"accumulate\['weight'\] is read-only, expected a writeable array",
        ),
    ],
)
def test_wrong_accumulate_is_refused_before_any_work(
    module: Any, change: Any, error: Any, message: str
) -> None:
    x = normal(3, 4).astype(np.float32) if isinstance(module, Linear) else np.array([1, 2, 2, 5])
    y, tape = module.forward(x)
    total = {name: np.zeros_like(p) for name, p in module.params.items()}
    for bad, kind, text in (
        (total | {"weight": change(total["weight"])}, error, message),
        ([1.0], TypeError, "accumulate has type list, expected a dict of arrays"),
        ({"bias": total.get("bias")}, ValueError, r"accumulate has missing keys \['weight'\]"),
    ):
        with pytest.raises(kind, match=text):
            module.backward(tape, y, accumulate=bad)
    assert not any(a.any() for a in total.values())
    module.backward(tape, y, accumulate=total)  # the tape is as it was
    assert all(a.any() for a in total.values())


def test_initial_values_follow_torch() -> None:
    weight = Linear(100, 300, rng=0).params["weight"]
    assert weight.dtype == np.float32
    assert 0.0999 < weight.max() <= 0.1
    assert -0.1 <= weight.min() < -0.0999
    assert abs(weight.mean()) < 0.001
    bias = Linear(4, 3000, rng=0).params["bias"]
    assert 0.49 < bias.max() <= 0.5
    assert -0.5 <= bias.min() < -0.49
    vectors = Embedding(100, 300, rng=0).params["weight"]
    assert vectors.std() == pytest.approx(1, abs=0.02)
    assert vectors.mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("make", [lambda **o: Linear(3, 4, **o), lambda **o: Embedding(3, 4, **o)])
def test_modules_have_their_dtype_and_come_from_their_seed(make: Any) -> None:
    one, same, other = make(rng=5), make(rng=np.random.default_rng(5)), make(rng=6)
    for name, p in one.params.items():
        assert p.dtype == np.float32
        np.testing.assert_array_equal(p, same.params[name])
        assert (p != other.params[name]).any()
        assert make(dtype="float64", rng=5).params[name].dtype == np.float64
    assert (make().params["weight"] != make().params["weight"]).any()


def test_numpy_integers_are_as_good_as_pythons() -> None:
    two, three = np.int64(2), np.uint8(3)
    linear, embedding = Linear(two, three, rng=0), Embedding(three, two, rng=0)
    sizes = linear.input_size, linear.output_size, embedding.count, embedding.size
    assert sizes == (2, 3, 3, 2)
    assert {type(size) for size in sizes} == {int}
    parts = list(minibatches(5, two, np.random.default_rng(0)))
    assert [len(part) for part in parts] == [2, 2, 1]


def test_an_embedding_adds_up_the_gradients_of_equal_ids() -> None:
    embedding = Embedding(6, 4, **DOUBLE)
    ids = np.array([[3, 1, 3], [0, 3, 1]], np.int8)
    y, tape = embedding.forward(ids)
    assert y.shape == (2, 3, 4)
    np.testing.assert_array_equal(y, embedding(ids.tolist()))
    dy = normal(2, 3, 4)
    expected = np.zeros((6, 4))
    np.add.at(expected, ids, dy)
    grads = embedding.backward(tape, dy)
    assert grads.input is None
    np.testing.assert_allclose(grads.params["weight"], expected, rtol=1e-15)
    y[...] = 0  # no view of the vectors
    assert embedding.params["weight"].all()


@pytest.mark.parametrize("module", [Linear(4, 5, rng=0), Embedding(6, 5, rng=0)])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a[:2], ValueError, r"^dy has shape \(2, 5\), expected \(3, 5\)"),
        (lambda a: a[:, :4], ValueError, r"^dy has shape \(3, 4\), expected \(3, 5\)"),
        (lambda a: a.reshape(5, 3), ValueError, r"^dy has shape \(5, 3\), expected \(3, 5\)"),
        (lambda a: a.astype(float), TypeError, "^dy has dtype float64, expected float32"),
        (lambda a: a.tolist(), TypeError, r"^dy has type list, expected numpy.ndarray"),
        (np.ma.array, TypeError, r"^dy is a masked array, expected a plain"),
    ],
)
def test_wrong_upstream_gradients_are_refused_before_any_work(
    module: Any, change: Any, error: Any, message: str
) -> None:
    x = normal(3, 4).astype(np.float32) if isinstance(module, Linear) else np.array([1, 2, 5])
    y, tape = module.forward(x)
    total = {name: np.zeros_like(p) for name, p in module.params.items()}
    with pytest.raises(error, match=message):
        module.backward(tape, change(y), accumulate=total)
    assert not any(a.any() for a in total.values())
    module.backward(tape, y, accumulate=total)  # the tape is as it was
    assert all(a.any() for a in total.values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Linear(4, 5)(np.zeros((3, 5), np.float32)),
            ValueError,
            r"x has shape \(3, 5\), expected \(..., I\) = \(..., 4\)",
        ),
        (
            lambda: Linear(4, 5)(np.zeros((3, 4))),
            TypeError,
            r"x has dtype float64, expected float32; x.astype\(np.float32\), or make the layer",
        ),
        (lambda: Linear(4, 5)([0.0] * 4), TypeError, r"x has type list.*np.asarray\(x, np.float32"),
        (lambda: Linear(4.0, 5), TypeError, "input_size has type float, expected an integer"),
        (lambda: Linear(4, 0), ValueError, "output_size is 0, expected at least 1"),
        (lambda: Linear(4, 5, dtype="float16"), TypeError, "dtype is 'float16', expected float32"),
        (lambda: Embedding(0, 5), ValueError, "count is 0, expected at least 1"),
        (lambda: Embedding(4, 5.0), TypeError, "size has type float, expected an integer"),
        (lambda: Embedding(4, 5, dtype=int), TypeError, "dtype is <class 'int'>, expected"),
        (lambda: Embedding(4, 5)(np.ma.array([1])), TypeError, "ids is a masked array"),
        (lambda: Embedding(4, 5)(np.array([4])), ValueError, "ids has entries from 4 to 4"),
        (lambda: Embedding(4, 5)(np.array([-1])), ValueError, "ids has entries from -1 to -1"),
        (lambda: Embedding(4, 5)(np.array([0.5])), TypeError, "expected integers"),
        (
            lambda: gradcheck_layer(LSTM(2, 3, 2, dropout=0.5), np.zeros((1, 1, 2))),
            ValueError,
            "layer.dropout is 0.5",
        ),
        (lambda: numerical_gradient(float, [1.0]), TypeError, "array has type list, expected"),
        (lambda: numerical_gradient(float, np.zeros(2), eps=0), ValueError, "eps is 0, expected"),
        (lambda: numerical_gradient(float, np.zeros(2), eps="x"), TypeError, "eps has type str"),
        (lambda: gradcheck(float, [1.0], {}), TypeError, "arrays has type list, expected a dict"),
        (lambda: gradcheck(float, {"a": np.zeros(2)}, [1]), TypeError, "grads has type list"),
        (
            lambda: gradcheck(float, {"a": np.zeros(2)}, {"a": np.zeros(3)}),
            ValueError,
            r"grads\['a'\] has shape \(3,\), expected \(2,\)",
        ),
        (lambda: numerical_gradient(float, np.zeros(2, np.float32)), TypeError, "=np.float64"),
        (lambda: gradcheck(float, {"a": np.zeros(2)}, {}), ValueError, "missing keys .'a'."),
    ],
)
def test_wrong_arguments(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_gradcheck_sees_a_wrong_gradient_and_restores_the_array() -> None:
    w = normal(4)
    before = w.copy()
    wrong = 2 * w
    wrong[2] += 0.01
    errors = gradcheck(lambda: float(np.sum(w**2)), {"w": w}, {"w": wrong})
    assert errors["w"] > 1e-3
    np.testing.assert_array_equal(w, before)

    def fails() -> float:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        numerical_gradient(fails, w)
    np.testing.assert_array_equal(w, before)


def test_gradcheck_of_a_tied_array_is_of_the_sum() -> None:
    w, b = normal(4), normal(2)

    def loss() -> float:
        return float(np.sum(w**2) + np.sum(w**3) + np.sum(b))

    arrays, grads = {"w": w, "b": b, "v": w[:]}, {"w": 2 * w, "b": np.ones(2), "v": 3 * w**2}
    errors = gradcheck(loss, arrays, grads)
    assert errors.keys() == arrays.keys()
    assert max(errors.values()) < 1e-7
    errors = gradcheck(loss, arrays, grads | {"v": 2 * w})
    assert errors["w"] == errors["v"] > 1e-3 > errors["b"]


def test_pad() -> None:
    x, lengths = pad([[1, 2, 3], [4], [5, 6]], value=-1)
    np.testing.assert_array_equal(x.T, [[1, 2, 3], [4, -1, -1], [5, 6, -1]])
    np.testing.assert_array_equal(lengths, [3, 1, 2])
    assert pad([np.ones((2, 5), np.float32), np.ones((0, 5), np.float32)])[0].shape == (2, 2, 5)
    mixed = [np.ones((2, 5)), np.ones((3, 5), np.float32), [[1] * 5]]
    assert pad(mixed, dtype=np.float32, batch_first=True)[0].dtype == np.float32
    with pytest.raises(ValueError, match="sequences is empty"):
        pad([])
    shapes = r"float64 with trailing shape \(\); float64 with trailing shape \(2,\)"
    with pytest.raises(ValueError, match=f"differ in dtype or trailing shape: {shapes}"):
        pad([np.ones(2), np.ones((2, 2))])
    with pytest.raises(ValueError, match="differ in dtype"):
        pad(mixed)


def test_minibatches_cover_everything_once() -> None:
    rng = np.random.default_rng(0)
    parts = list(minibatches(10, 4, rng))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(np.concatenate(parts)) == list(range(10))
    lengths = np.array([3, 1, 2, 1, 3, 2, 3, 1, 2, 3])
    parts = list(minibatches(10, 3, rng, lengths=lengths))
    assert sorted(np.concatenate(parts)) == list(range(10))
    # sorted by length and cut: at most neighbouring lengths share a batch
    assert all(np.ptp(lengths[part]) <= 1 for part in parts)
    first = [lengths[next(minibatches(10, 3, rng, lengths=lengths))].max() for _ in range(20)]
    assert len(set(first)) > 1  # the batches are not in the order of their lengths
    with pytest.raises(ValueError, match="batch is 0"):
        next(minibatches(10, 0, rng))
    with pytest.raises(TypeError, match="batch has type float, expected an integer"):
        next(minibatches(10, 2.5, rng))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lengths has shape \(9,\), expected .* \(10,\)"):
        next(minibatches(10, 3, rng, lengths=lengths[:9]))


def test_minibatches_come_from_the_generator_alone() -> None:
    lengths = np.array([3, 1, 2, 1, 3, 2, 3, 1, 2, 3])
    for given in (None, lengths, lengths.tolist()):
        orders = [
            np.concatenate(list(minibatches(10, 3, np.random.default_rng(seed), lengths=given)))
            for seed in (1, 1, 2)
        ]
        np.testing.assert_array_equal(orders[0], orders[1])
        assert (orders[0] != orders[2]).any()


def test_equal_lengths_are_in_random_order() -> None:
    rng = np.random.default_rng(0)
    first = [next(minibatches(8, 8, rng, lengths=np.ones(8, int))) for _ in range(9)]
    assert len({tuple(order) for order in first}) > 5
