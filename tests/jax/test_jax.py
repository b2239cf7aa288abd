"""`rnnfast.jax` gives the numbers of `rnnfast.functional`, under all that JAX does to functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import Case, assert_same_bits, cover, run, variants, with_dtype

jax = pytest.importorskip("jax")

from jax.test_util import check_grads  # noqa: E402
from jax_cases import FUNCTIONS, OUTPUTS, by_scan, run_jax, split  # noqa: E402

import rnnfast.jax  # noqa: E402
from rnnfast import functional  # noqa: E402
from rnnfast._core import config  # noqa: E402
from rnnfast._core.passes import run_forward  # noqa: E402
from rnnfast.jax import _host  # noqa: E402

jnp = jax.numpy
CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


CASES = with_dtype(variants()) + [
    replace(case, **options)
    for case, options in zip(
        variants() * 3,
        cover(
            24, 0, bias=("none", "ih", "hh", "both"), lengths=(False, True), resets=(False, True),
            reverse=(False, True), T=(0, 1, 13), B=(1, 3, 17), I=(1, 7),
        ),
        strict=True,
    )
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [*CASES, *variants(B=0), *variants(T=40, B=19, I=31, H=67)], ids=str
)
def test_results_and_gradients_have_the_bits_of_the_functions(case: Case) -> None:
    problem = case.problem()
    expected = run(functional, problem)
    got = run_jax(problem)
    assert_same_bits(got, {n: v for n, v in expected.items() if v is not None})
    assert got.keys() == {n for n, v in expected.items() if v is not None}
    without_gradients = FUNCTIONS[case.cell](**problem.forward)
    assert_same_bits(
        dict(zip(OUTPUTS, map(np.asarray, without_gradients), strict=False)),
        {n: expected[n] for n in OUTPUTS[: len(without_gradients)]},
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("absent", ["h0", "c0", "both"])
def test_states_that_are_not_given_are_zeros(cell: str, absent: str) -> None:
    problem = Case(cell=cell).problem()
    names = {"h0", "c0"} if absent == "both" else {absent}
    arrays, _ = split(problem)
    none = {n: None if n in names else v for n, v in arrays.items()}
    zero = {n: 0 * v if n in names else v for n, v in arrays.items()}

    def loss(given: Any) -> Any:
        return sum((part**2).sum() for part in FUNCTIONS[cell](**given))

    (value, grads), (expected, wanted) = (jax.value_and_grad(loss)(a) for a in (none, zero))
    assert value == expected
    for name, gradient in grads.items():
        assert (gradient is None) == (none[name] is None)
        assert gradient is None or np.array_equal(gradient, wanted[name])


@pytest.mark.parametrize("case", variants(T=7, B=3, lengths=True, resets=True), ids=str)
def test_what_forward_saves_serves_several_gradients(case: Case) -> None:
    problem = case.problem()
    arrays, others = split(problem)
    upstream = tuple(problem.upstream.values())
    _, pull_back = jax.vjp(lambda a: FUNCTIONS[case.cell](**a, **others), arrays)
    (first,), (second,) = pull_back(upstream), pull_back(upstream)
    (doubled,) = pull_back(tuple(2 * d for d in upstream))
    for name, gradient in first.items():
        np.testing.assert_array_equal(second[name], gradient)
        np.testing.assert_array_equal(doubled[name], 2 * gradient, err_msg=name)  # a power of two


@pytest.mark.parametrize("case", variants(T=4, B=2, lengths=True), ids=str)
def test_the_results_of_vjp_have_gradients_too(case: Case) -> None:
    """Beside a function that pulls back, `jax.vjp` returns what the function itself does."""
    arrays, others = split(case.problem())

    def loss(given: Any) -> Any:
        return sum((part**2).sum() for part in FUNCTIONS[case.cell](**given, **others))

    value, grads = jax.value_and_grad(loss)(arrays)
    again, found = jax.value_and_grad(lambda given: jax.vjp(loss, given)[0])(arrays)
    np.testing.assert_array_equal(again, value)
    for name, gradient in grads.items():
        np.testing.assert_array_equal(found[name], gradient, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_is_not_computed_again(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callbacks run one forward pass; what backward calls takes the bytes that it has left."""
    given, _ = split(Case(cell="gru", T=5, B=2).problem())
    calls: list[Any] = []

    def noted(forward: list[Any], threads: int) -> None:
        calls.append(forward[0].saved is None)
        run_forward(forward, threads)

    monkeypatch.setattr(_host, "run_forward", noted)
    train = jax.grad(lambda a: rnnfast.jax.gru(**a)[0].sum())
    jax.block_until_ready((jax.jit(train) if compiled else train)(given))
    assert calls == [True, False]


def test_too_few_saved_bytes_are_refused() -> None:
    given, _ = split(Case(cell="gru", T=5, B=2).problem())
    kind = _host.Kind(config.GRU, 0, False, None)
    arrays = _host.Arguments(**dict.fromkeys(_host.Arguments._fields) | given)
    call = _host.forward_call(kind, arrays, need_tape=True)
    call.saved = np.zeros(_host.size_of_tape(kind, arrays) - 1, np.uint8)
    with pytest.raises(ValueError, match="saved is not what a tape of this call has held"):
        run_forward([call], 1)


@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_are_those_of_a_scan(cell: str) -> None:
    case = Case(cell=cell, dtype="float64", T=13, B=5)
    problem = case.problem()
    arrays, _ = split(problem)

    def train(forward: Any) -> Any:
        def loss(arrays: Any) -> Any:
            parts = forward(arrays)
            return sum((a * b).sum() for a, b in zip(parts, problem.upstream.values(), strict=True))

        return jax.jit(jax.value_and_grad(loss))(arrays)

    value, grads = train(lambda a: FUNCTIONS[cell](**a))
    expected, wanted = train(lambda a: by_scan(case, a))
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    for name, gradient in grads.items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("case", variants(T=3, B=2, I=3, H=7, lengths=True, resets=True), ids=str)
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    case = replace(case, dtype="float64", nonlinearity="sigmoid")  # relu has a kink
    arrays, others = split(case.problem())
    check_grads(
        lambda a: FUNCTIONS[case.cell](**a, **others), (arrays,), order=1, modes=["rev"], rtol=1e-6
    )


@pytest.mark.parametrize("cell", CELLS)
def test_one_call_differs_in_nothing_from_compiled_ones(cell: str) -> None:
    problem = Case(cell=cell, lengths=True).problem()
    arrays, others = split(problem)
    eager = FUNCTIONS[cell](**arrays, **others)
    *expected, _ = getattr(functional, f"{cell}_forward")(**problem.forward)
    static = {n: v for n, v in others.items() if n != "lengths"}
    compiled = jax.jit(partial(FUNCTIONS[cell], **static))
    for parts in eager, compiled(**arrays, lengths=others["lengths"]):
        for part, array in zip(parts, expected, strict=True):
            assert isinstance(part, jax.Array)
            np.testing.assert_array_equal(part, array, strict=True)


# ------------------------------------------------------------------------------------------ vmap


def stacked(problems: list[Any], mapped: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of several problems, those in `mapped` stacked, and their axes for `vmap`."""
    given = [problem.forward for problem in problems]
    arrays = {n: np.stack([g[n] for g in given]) if n in mapped else v for n, v in given[0].items()}
    return arrays, {n: 0 if n in mapped else None for n in arrays}


MAPPED = {
    "the rows": ("x", "h0", "c0", "lengths", "resets"),
    "x alone": ("x",),
    "lengths alone": ("lengths",),
    "a state alone": ("h0",),
    "a weight": ("w_hh",),
    "all": ("x", "h0", "c0", "lengths", "resets", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr"),
}


@pytest.mark.parametrize("case", variants(T=5, B=3, lengths=True, resets=True), ids=str)
@pytest.mark.parametrize("what", MAPPED)
def test_elements_of_a_vmap_have_the_bits_of_single_calls(case: Case, what: str) -> None:
    problems = [replace(case, seed=seed).problem() for seed in range(4)]
    mapped = tuple(n for n in MAPPED[what] if n in problems[0].forward)
    static = {n: v for n, v in problems[0].forward.items() if isinstance(v, str | bool)}
    arrays, axes = stacked(problems, mapped)
    for name in static:
        del arrays[name], axes[name]
    upstream = tuple(problems[0].upstream.values())

    def single(given: Any) -> Any:
        floats = {n: v for n, v in given.items() if v.dtype.kind == "f"}
        rest = {n: v for n, v in given.items() if n not in floats}
        call = lambda a: FUNCTIONS[case.cell](**a, **rest, **static)  # noqa: E731
        results, backward = jax.vjp(call, floats)
        return results, backward(upstream)[0]

    def without_gradient(given: Any) -> Any:
        return FUNCTIONS[case.cell](**given, **static)

    results, grads = jax.vmap(single, in_axes=(axes,))(arrays)
    alone = jax.vmap(without_gradient, in_axes=(axes,))(arrays)
    for i in range(4):
        one = {n: v[i] if axes[n] == 0 else v for n, v in arrays.items()}
        expected, wanted = single(one)
        for part, other, array in zip(results, alone, expected, strict=True):
            np.testing.assert_array_equal(part[i], array, strict=True)
            np.testing.assert_array_equal(other[i], array, strict=True)
        for name, gradient in grads.items():
            np.testing.assert_array_equal(gradient[i], wanted[name], strict=True, err_msg=name)


def test_vmaps_nest_along_any_axes() -> None:
    problem = Case(cell="lstm").problem()
    arrays, _ = split(problem)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, 3, 7, 4)).astype(np.float32)  # (T, 2, B, I, 4)
    h0 = rng.standard_normal((2, 3, 11)).astype(np.float32)
    w = [arrays[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]

    def call(x: Any, h0: Any) -> Any:
        return FUNCTIONS["lstm"](x, h0, None, *w)

    inner = jax.vmap(call, in_axes=(3, None), out_axes=(2, 0, 0))
    y, h, c = jax.jit(jax.vmap(inner, in_axes=(1, 0)))(x, h0)
    assert (y.shape, h.shape, c.shape) == ((2, 5, 3, 4, 11), (2, 4, 3, 11), (2, 4, 3, 11))
    for i in range(2):
        for j in range(4):
            own = functional.lstm_forward(np.ascontiguousarray(x[:, i, ..., j]), h0[i], None, *w)
            np.testing.assert_array_equal(y[i, :, :, j], own[0])
            np.testing.assert_array_equal(h[i, j], own[1])
            np.testing.assert_array_equal(c[i, j], own[2])


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_a_vmap_is_the_sum_of_those_of_its_elements(cell: str) -> None:
    case = Case(cell=cell, dtype="float64")
    problems = [replace(case, seed=seed).problem() for seed in range(3)]
    arrays, _ = split(problems[0])
    x = np.stack([problem.forward["x"] for problem in problems])

    def loss(arrays: Any, x: Any) -> Any:
        return (FUNCTIONS[cell](**arrays | {"x": x})[0] ** 2).sum()

    both = jax.grad(lambda a: jax.vmap(loss, in_axes=(None, 0))(a, x).sum())(arrays)
    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(arrays, x)
    for name in arrays:
        if name != "x":
            np.testing.assert_allclose(both[name], each[name].sum(0), rtol=1e-12, atol=1e-14)


def test_a_jacobian_has_the_rows_of_its_gradients() -> None:
    arrays, _ = split(Case(cell="gru", dtype="float64", T=3, B=2).problem())

    def last(h0: Any) -> Any:
        return FUNCTIONS["gru"](**arrays | {"h0": h0})[1].ravel()

    full = jax.jacrev(last)(arrays["h0"])
    for k in range(len(full)):
        gradient = jax.grad(lambda h0, k=k: last(h0)[k])(arrays["h0"])
        np.testing.assert_allclose(full[k], gradient, rtol=1e-14, atol=1e-16)


def test_a_vmap_over_nothing_gives_nothing() -> None:
    arrays, _ = split(Case(cell="gru").problem())
    for mapped in ("x", "w_hh"):
        given = arrays | {mapped: np.empty((0, *arrays[mapped].shape), np.float32)}
        axes = {n: 0 if n == mapped else None for n in given}
        y, h = jax.vmap(lambda a: FUNCTIONS["gru"](**a), in_axes=(axes,))(given)
        assert (y.shape, h.shape) == ((0, 5, 3, 11), (0, 3, 11))


# ------------------------------------------------------------------------- other transformations


@pytest.mark.parametrize("cell", CELLS)
def test_checkpoints_change_no_bit(cell: str) -> None:
    arrays, _ = split(Case(cell=cell).problem())

    def loss(arrays: Any, wrap: Any) -> Any:
        y = wrap(lambda a: jnp.tanh(FUNCTIONS[cell](**a)[0]))(arrays)
        return (y * y).sum()

    plain = jax.jit(jax.grad(lambda a: loss(a, lambda f: f)))(arrays)
    again = jax.jit(jax.grad(lambda a: loss(a, jax.checkpoint)))(arrays)
    for name in arrays:
        np.testing.assert_array_equal(again[name], plain[name])


def test_it_works_inside_loops_and_branches() -> None:
    arrays, _ = split(Case(cell="gru", I=11, dtype="float64").problem())
    layers = {n: jnp.stack([v, v[::-1]]) for n, v in arrays.items() if n[0] in "wb"}

    def deep(layers: Any, x: Any, scan: Any) -> Any:
        def one(x: Any, weights: Any) -> Any:
            y = FUNCTIONS["gru"](x, None, **weights)[0]
            return jax.lax.cond(y.sum() > 1e9, lambda: x, lambda: y), None

        if scan:
            return (jax.lax.scan(one, x, layers)[0] ** 2).sum()
        for k in range(2):
            x, _ = one(x, {n: v[k] for n, v in layers.items()})
        return (x**2).sum()

    found = jax.jit(jax.grad(deep), static_argnums=2)(layers, arrays["x"], True)
    wanted = jax.grad(deep)(layers, arrays["x"], False)
    for name in layers:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-13, atol=1e-15)


def test_lengths_and_resets_are_arguments_of_a_compiled_function() -> None:
    """Not compiled in: other values need no new trace."""
    problem = Case(cell="lstm", lengths=True, resets=True).problem()
    arrays, others = split(problem)
    traces = []

    @jax.jit
    def train(arrays: Any, lengths: Any, resets: Any) -> Any:
        traces.append(1)
        call = lambda a: FUNCTIONS["lstm"](**a, lengths=lengths, resets=resets)[0].sum()  # noqa: E731
        return jax.value_and_grad(call)(arrays)

    for lengths in others["lengths"], np.array([5, 0, 2]), jnp.array([1, 1, 1], jnp.int8):
        value, grads = train(arrays, lengths, others["resets"])
        y, *_, tape = functional.lstm_forward(**problem.forward | {"lengths": np.asarray(lengths)})
        wanted = functional.lstm_backward(tape, np.ones_like(y))
        np.testing.assert_allclose(value, y.sum(), rtol=1e-5)
        for name, gradient in grads.items():
            np.testing.assert_array_equal(gradient, getattr(wanted, name))
    assert len(traces) == 2  # the last lengths have another dtype


def test_nan_stays_in_its_row() -> None:
    arrays, _ = split(Case(cell="gru", T=7).problem())
    x = arrays["x"].copy()
    x[3, 1, 0] = np.nan

    def train(x: Any) -> Any:
        y, backward = jax.vjp(lambda x: FUNCTIONS["gru"](**arrays | {"x": x})[0], x)
        return y, backward(jnp.ones_like(y))[0]

    (y, dx), (expected, wanted) = jax.jit(train)(x), train(arrays["x"])
    assert np.isnan(y[3:, 1]).all()
    assert np.isnan(dx[:4, 1]).all()
    for row in (0, 2):
        np.testing.assert_array_equal(y[:, row], expected[:, row])
        np.testing.assert_array_equal(dx[:, row], wanted[:, row])


def test_strided_and_read_only_arrays_are_taken() -> None:
    problem = Case(cell="lstm").problem()
    arrays, _ = split(problem)
    expected = FUNCTIONS["lstm"](**arrays)
    odd = {n: np.asfortranarray(v) for n, v in arrays.items()}
    odd["x"] = np.repeat(arrays["x"], 2, axis=1)[:, ::2]
    for value in odd.values():
        value.setflags(write=False)
    for part, array in zip(FUNCTIONS["lstm"](**odd), expected, strict=True):
        np.testing.assert_array_equal(part, array)


def test_buffers_may_be_given_away() -> None:
    arrays, _ = split(Case(cell="gru", I=11).problem())
    expected = FUNCTIONS["gru"](**arrays)[0]
    call = jax.jit(lambda x, rest: FUNCTIONS["gru"](x, **rest)[0], donate_argnums=0)
    rest = {n: v for n, v in arrays.items() if n != "x"}
    np.testing.assert_array_equal(call(jnp.array(arrays["x"]), rest), expected)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_change_no_bit(threads: int | None) -> None:
    problem = Case(cell="lstm", T=19, B=67, I=31, H=83).problem()
    assert_same_bits(run_jax(problem, threads=threads), run_jax(problem, threads=2))


def test_without_x64_arrays_of_float64_are_float32() -> None:
    """As everywhere in JAX."""
    arrays, _ = split(Case(cell="gru", dtype="float64").problem())
    jax.config.update("jax_enable_x64", False)
    y, h = FUNCTIONS["gru"](**arrays)
    single = {n: v.astype(np.float32) for n, v in arrays.items()}
    np.testing.assert_array_equal(y, FUNCTIONS["gru"](**single)[0], strict=True)
    assert h.dtype == np.float32
