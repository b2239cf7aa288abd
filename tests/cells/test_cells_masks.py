"""Extra inputs that a layer draws: how, whence, and what takes their place in evaluation."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import some_cells
from some_cells import gradients, problem

import rnnfast
from rnnfast import cells, functional, reference, training
from rnnfast.cells import Mask, cell, linear, tanh
from rnnfast.cells._gradient import gradient

Array = np.ndarray[Any, Any]


def shown(mask: Mask) -> cells.Cell:
    """A cell whose output is its mask."""

    @cell(state="h", extra="m", masks={"m": mask})
    def shown(x, h, m):
        return m

    return shown


@cell(state="h", extra="d k m", masks={"d": Mask(0.3), "m": Mask(0.8, per_step=False, scaled=True)})
def masked(x, h, d, k, m):
    return d * h + (1 - d) * tanh(linear("a", x, h=m * h)) * k


def close(found: float, p: float, count: int) -> bool:
    """Whether a share is within four standard deviations of its probability."""
    return abs(found - p) <= 4 * np.sqrt(p * (1 - p) / count)


# ----------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.05, 0.7])
def test_a_mask_of_each_step(p: float, dtype: Any) -> None:
    layer = rnnfast.Recurrent(shown(Mask(p)), 1, 37, rng=0, dtype=dtype)
    y, state, _ = layer.forward(np.zeros((23, 11, 1), dtype))
    assert y.dtype == dtype
    assert set(np.unique(y)) == {0, 1}
    assert close(y.mean(), p, y.size)
    for axis in range(3):  # neither steps nor rows nor units have the same
        assert (np.diff(y, axis=axis) != 0).any(axis=axis).mean() > 0.3
    np.testing.assert_array_equal(state[0], y[-1])
    again = layer.forward(np.zeros((23, 11, 1), dtype))[0]
    assert close((again == y).mean(), p**2 + (1 - p) ** 2, y.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.75, 0.1])
def test_a_scaled_mask_of_all_steps(p: float, dtype: Any) -> None:
    mask = Mask(p, per_step=False, scaled=True)
    layer = rnnfast.Recurrent(shown(mask), 1, 37, rng=0, dtype=dtype)
    y, _, _ = layer.forward(np.zeros((5, 101, 1), dtype))
    np.testing.assert_array_equal(y, np.broadcast_to(y[0], y.shape))
    np.testing.assert_array_equal(np.unique(y), [0, dtype(1) / dtype(p)])
    assert close((y[0] > 0).mean(), p, y[0].size)


def test_layers_and_directions_have_masks_of_their_own() -> None:
    layer = rnnfast.Recurrent(shown(Mask(0.5)), 1, 101, 2, bidirectional=True, rng=0)
    _, state, _ = layer.forward(np.zeros((1, 3, 1), np.float32))
    for one in range(4):
        for other in range(one):
            assert close((state[one] == state[other]).mean(), 0.5, state[one].size)


def test_the_shapes_of_batch_first_and_unbatched_input() -> None:
    for options, lead in (({}, (40,)), ({"batch_first": True}, (20, 40))):
        layer = rnnfast.Recurrent(shown(Mask(0.5)), 1, 50, rng=0, **options)
        y, _, _ = layer.forward(np.zeros((*lead, 1), np.float32))
        assert y.shape == (*lead, 50)
        assert set(np.unique(y)) == {0, 1}
        assert (y[..., 0, :] != y[..., 1, :]).any()
        assert layer.forward(np.zeros((*lead[:-1], 0, 1), np.float32))[0].size == 0


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads() -> None:
    x = np.random.default_rng(0).standard_normal((7, 67, 3)).astype(np.float32)
    extra, found = {"k": np.float32([0.5])}, []
    for threads in (1, 2, 3):
        layer = rnnfast.Recurrent(masked, 3, 19, 2, dropout=0.5, bidirectional=True, rng=5)
        y, state, tape = layer.forward(x, extra=extra, threads=threads)
        grads = layer.backward(tape, np.ones_like(y), threads=threads)
        found.append((y, state, grads.input, *grads.params.values()))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_masks_do_not_depend_on_lengths_and_resets() -> None:
    """A row has the same masks whatever becomes of the others."""
    x = np.random.default_rng(0).standard_normal((7, 5, 3))
    extra, lengths = {"k": np.array([0.5])}, np.array([7, 2, 0, 7, 4])
    make = lambda: rnnfast.Recurrent(masked, 3, 19, dtype=np.float64, rng=5)  # noqa: E731
    y, _, _ = make().forward(x, extra=extra)
    short, _, _ = make().forward(x, extra=extra, lengths=lengths)
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(short[:n, b], y[:n, b])
    resets = np.zeros((7, 5), bool)
    resets[3, 1] = True
    again, _, _ = make().forward(x, extra=extra, resets=resets)
    np.testing.assert_array_equal(np.delete(again, 1, axis=1), np.delete(y, 1, axis=1))
    assert (again[3:, 1] != y[3:, 1]).any()


def test_copies_draw_on_from_where_the_layer_is(tmp_path: Path) -> None:
    x, extra = np.ones((4, 3, 2), np.float32), {"k": np.float32([1])}
    layer = rnnfast.Recurrent(masked, 2, 19, rng=0)
    layer.forward(x, extra=extra)
    copied = pickle.loads(pickle.dumps(layer))
    y = layer.forward(x, extra=extra)[0]
    np.testing.assert_array_equal(copied.forward(x, extra=extra)[0], y)
    layer.save(tmp_path / "layer.npz")
    loaded = rnnfast.load(tmp_path / "layer.npz", cells=[masked])  # with a generator of its own
    assert (loaded.forward(x, extra=extra)[0] != layer.forward(x, extra=extra)[0]).any()
    np.testing.assert_array_equal(loaded(x, extra=extra)[0], layer(x, extra=extra)[0])


# -------------------------------------------------------------------------------------- evaluation


def test_evaluation_has_the_means_and_draws_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((9, 5, 3))
    extra = {"k": np.random.default_rng(1).random((9, 5, 1))}
    layer = rnnfast.Recurrent(masked, 3, 7, dtype=np.float64, rng=0)
    before = layer.rng.bit_generator.state
    means = extra | {"d": np.array([0.3]), "m": np.array([1.0])}
    options: dict[str, Any] = {"lengths": [9, 0, 3, 3, 1]}
    options["resets"] = np.random.default_rng(2).random((9, 5)) < 0.3
    y, state = layer(x, extra=extra, **options)
    expected, final, _ = layer.forward(x, extra=means, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(state, final)
    params = {n.removesuffix("_l0"): p for n, p in layer.params.items()}
    plain = reference.cell_forward(masked, x, None, params, extra=means, **options)[0]
    np.testing.assert_allclose(y, plain, atol=1e-12)
    stream = layer.stream(5)
    parts = [stream.run(x[:4], extra={"k": extra["k"][:4]})]
    parts += [stream.step(x[t], extra={"k": extra["k"][t]})[None] for t in range(4, 9)]
    np.testing.assert_array_equal(np.concatenate(parts), layer(x, extra=extra)[0])
    assert layer.rng.bit_generator.state == before


def test_a_number_of_its_own_for_evaluation() -> None:
    mask = Mask(1.0, evaluation=0.25)
    layer = rnnfast.Recurrent(shown(mask), 1, 3)
    x = np.zeros((2, 1, 1), np.float32)
    assert (layer.forward(x)[0] == 1).all()
    assert (layer(x)[0] == 0.25).all()
    assert (Mask(0.3).expected, Mask(0.3, scaled=True).expected) == (0.3, 1.0)


# ------------------------------------------------------------------------------------ masks given


def test_a_mask_that_is_given_is_not_drawn() -> None:
    rng = np.random.default_rng(0)
    x, d = rng.standard_normal((6, 4, 3)), rng.random((6, 4, 7)) < 0.5
    layer = rnnfast.Recurrent(masked, 3, 7, rng=1, dtype=np.float64)
    given = {"k": np.array([1.0]), "d": d, "m": np.array([2.0])}
    before = layer.rng.bit_generator.state
    y, _, tape = layer.forward(x, extra=given)
    assert layer.rng.bit_generator.state == before
    params = {n.removesuffix("_l0"): p for n, p in layer.params.items()}
    expected, _, own = functional.cell_forward(masked, x, None, params, extra=given)
    np.testing.assert_array_equal(y, expected)
    grads = layer.backward(tape, np.ones_like(y))
    np.testing.assert_array_equal(grads.input, functional.cell_backward(own, np.ones_like(y)).x)
    drawn = layer.forward(x, extra={"k": given["k"], "d": d})[0]  # m alone
    assert (drawn != y).any()


def test_functions_want_all_masks_and_errors_name_them() -> None:
    given = problem(masked, 3, 2, 3, 5)
    arguments = given["x"], given["state"], given["params"]
    with pytest.raises(ValueError, match=r"extra has missing keys \['d', 'm'\]"):
        functional.cell_forward(masked, *arguments, extra={"k": given["extra"]["k"]})
    with pytest.raises(ValueError, match=r"missing keys \['d', 'k', 'm'\]"):
        functional.cell_forward(masked, *arguments)
    layer = rnnfast.Recurrent(masked, 3, 5, dtype=np.float64)
    with pytest.raises(
        ValueError, match=r"extra has missing keys \['k'\] and unexpected keys \[\]"
    ):
        layer.forward(given["x"])
    with pytest.raises(ValueError, match=r"missing keys \[\] and unexpected keys \['q'\]"):
        layer(given["x"], extra={"k": given["extra"]["k"], "q": given["x"]})
    with pytest.raises(TypeError, match="extra has type list"):
        layer.forward(given["x"], extra=[given["x"]])
    with pytest.raises(ValueError, match=r"extra\['d'\] has shape \(3, 2, 4\)"):
        layer.forward(given["x"], extra={"k": np.ones(1), "d": np.ones((3, 2, 4))})


# --------------------------------------------------------------------------------------- gradients


def test_masks_have_no_gradient_and_none_is_computed() -> None:
    @cell(state="h", extra="k m", masks={"m": Mask(0.5)})
    def with_product(x, h, k, m):
        return tanh(linear("a", x, h, k, m)) * m

    for which in (masked, with_product):
        derived = gradient(which.graph(3, 5))
        assert list(derived.extra) == ["k"]
        assert "m" not in [source.name for _, source in derived.back.values()]
        given = problem(which, 4, 3, 3, 5)
        arguments = given["x"], given["state"], given["params"]
        found = []
        for module in (functional, reference):
            y, state, tape = module.cell_forward(which, *arguments, extra=given["extra"])
            grads = module.cell_backward(tape, **gradients(y, state))
            assert list(grads.extra) == ["k"]
            found.append([grads.x, *grads.state, *grads.params.values(), *grads.extra.values()])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        layer = rnnfast.Recurrent(which, 3, 5, dtype=np.float64)
        y, _, tape = layer.forward(given["x"], extra={"k": given["extra"]["k"]})
        assert list(layer.backward(tape, np.ones_like(y)).extra) == ["k"]


def test_gradient_checks_want_all_masks() -> None:
    layer = rnnfast.Recurrent(masked, 3, 5, dtype=np.float64, rng=0)
    x, k = np.random.default_rng(0).standard_normal((4, 2, 3)), np.array([0.5])
    with pytest.raises(ValueError, match=r"options\['extra'\] has no d, m"):
        training.gradcheck_layer(layer, x, options={"extra": {"k": k}})
    extra = {"k": k, "d": np.random.default_rng(1).random((4, 2, 5)), "m": np.array([2.0])}
    errors = training.gradcheck_layer(layer, x, options={"extra": extra})
    assert max(errors.values()) < 1e-7
    with pytest.raises(ValueError, match="layer draws d, m"):
        training.gradient_through_time(layer, x, np.ones((4, 2, 5)))


# -------------------------------------------------------------------------------- what is declared


def test_what_is_no_mask() -> None:
    for p, message in ((1.5, "p is 1.5"), (-0.1, "p is -0.1"), (np.nan, "p is nan")):
        with pytest.raises(ValueError, match=message):
            Mask(p)
    with pytest.raises(ValueError, match="p is 0, expected more than 0 for a scaled mask"):
        Mask(0.0, scaled=True)
    with pytest.raises(TypeError, match="p has type str"):
        Mask("0.5")
    with pytest.raises(TypeError, match="evaluation has type str"):
        Mask(0.5, evaluation="0")
    with pytest.raises(ValueError, match=r"masks has the unexpected name 'h', .* extra input: m"):
        cell(state="h", extra="m", masks={"h": Mask(0.5)})(lambda x, h, m: h)
    with pytest.raises(ValueError, match="expected an extra input: none"):
        cell(state="h", masks={"m": Mask(0.5)})(lambda x, h: h)
    with pytest.raises(
        TypeError, match=r"masks\['m'\] has type float, expected rnnfast.cells.Mask"
    ):
        cell(state="h", extra="m", masks={"m": 0.5})(lambda x, h, m: h)


def test_a_printed_cell_shows_its_masks() -> None:
    text = str(masked)
    assert "d  1 with probability 0.3, else 0, drawn for each step; 0.3 in evaluation" in text
    assert "m  1.25 with probability 0.8, else 0, drawn once for all steps; 1 in eval" in text
    assert "dk = " in text
    assert "dd = " not in text
    assert "masks" not in str(some_cells.with_inputs)


# ------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize(
    ("which", "kind", "gates"),
    [
        (cells.zoneout_lstm(0, 0), rnnfast.LSTM, "ifgo"),
        (cells.recurrent_dropout_lstm(0), rnnfast.LSTM, "ifgo"),
        (cells.recurrent_dropout_gru(0), rnnfast.GRU, "rz"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_without_masks_they_are_the_built_in_cells(which: Any, kind: Any, gates: str) -> None:
    built_in = kind(3, 7, dtype=np.float64, rng=0)
    layer = rnnfast.Recurrent(which, 3, 7, dtype=np.float64)
    w_ih, w_hh, b_ih, b_hh = (built_in.params[f"{n}_l0"] for n in
                              ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # fmt: skip
    for g, name in enumerate(gates):
        rows = slice(7 * g, 7 * g + 7)
        layer.params[f"{name}.weight_x_l0"][...] = w_ih[rows]
        layer.params[f"{name}.weight_h_l0"][...] = w_hh[rows]
        layer.params[f"{name}.bias_l0"][...] = b_ih[rows] + b_hh[rows]
    if kind is rnnfast.GRU:
        layer.params["n_x.weight_x_l0"][...], layer.params["n_x.bias_l0"][...] = (
            w_ih[14:],
            b_ih[14:],
        )
        layer.params["n_h.weight_h_l0"][...], layer.params["n_h.bias_l0"][...] = (
            w_hh[14:],
            b_hh[14:],
        )
    x = np.random.default_rng(1).standard_normal((6, 5, 3))
    for y in (layer(x)[0], layer.forward(x)[0]):
        np.testing.assert_allclose(y, built_in(x)[0], atol=1e-14)


@pytest.mark.parametrize("p", [-0.1, 1.0, np.nan])
def test_probabilities_of_the_library(p: float) -> None:
    for make in (cells.recurrent_dropout_gru, cells.recurrent_dropout_lstm):
        with pytest.raises(ValueError, match=rf"^p is {p}, expected a number in \[0, 1\)"):
            make(p)
    with pytest.raises(ValueError, match=rf"^p_c is {p}, expected"):
        cells.zoneout_lstm(p_c=p)
    with pytest.raises(TypeError, match="p_h has type str"):
        cells.zoneout_lstm("0.5")


def test_files_tell_probabilities_apart(tmp_path: Path) -> None:
    path = tmp_path / "layer.npz"
    layer = rnnfast.Recurrent(cells.zoneout_lstm(0.1, 0.4), 3, 5, 2)
    layer.save(path)
    loaded = rnnfast.load(path)
    assert loaded.cell is cells.zoneout_lstm(0.1, 0.4)
    x = np.ones((3, 2, 3), np.float32)
    np.testing.assert_array_equal(loaded(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match="other equations"):
        rnnfast.load(path, cells=[cells.zoneout_lstm()])


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (cells.recurrent_dropout_lstm(0.5, per_gate=True), ("m_i", "m_f", "m_g", "m_o")),
        (cells.recurrent_dropout_gru(0.5, per_gate=True), ("m_r", "m_z", "m_n")),
    ],
)
def test_the_masks_of_gates_are_drawn_one_after_the_other(which: Any, names: Any) -> None:
    layer = rnnfast.Recurrent(which, 3, 19, dtype=np.float64, rng=0)
    rng, x = copy.deepcopy(layer.rng), np.random.default_rng(1).standard_normal((4, 7, 3))
    y, _, _ = layer.forward(x)
    extra = {name: (rng.random((7, 19)) < 0.5) * 2.0 for name in names}
    np.testing.assert_array_equal(y, layer.forward(x, extra=extra)[0])
    assert layer.cell.extra == names
    assert rng.bit_generator.state == layer.rng.bit_generator.state


def test_dropout_is_one_mask_for_all_gates() -> None:
    """With h' = 1 and equal weights a gate shows how many units are kept: as many for each unit."""
    layer = rnnfast.Recurrent(cells.recurrent_dropout_gru(0.5), 1, 41, dtype=np.float64, rng=0)
    for name, value in layer.params.items():
        value[...] = 0.01 if name == "n_h.weight_h_l0" else 0
    layer.params["z.bias_l0"][...] = -1000  # h = n = tanh(r (U (m h')), r = 0.5
    y, _, _ = layer.forward(np.zeros((1, 900, 1)), np.ones((1, 900, 41)))
    kept = np.arctanh(y[0]) / 0.01
    np.testing.assert_allclose(kept, np.broadcast_to(np.round(kept[:, :1]), kept.shape), atol=1e-9)
    assert len(np.unique(np.round(kept[:, 0]))) > 5
    assert close(kept.mean() / 41, 0.5, 900 * 41)
