"""The NumPy reference against finite differences, its equations by hand, and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import (
    Array,
    Case,
    Problem,
    Results,
    assert_accurate,
    assert_same_bits,
    backward,
    forward,
    product,
    run,
    variants,
)

from rnnfast import reference

SIZES = {"dtype": "float64", "T": 7, "B": 3, "I": 2, "H": 11}  # and P = 5: all primes, all distinct
PLAIN = variants(**SIZES)
OPTIONS = product(lengths=(False, True), resets=(False, True), reverse=(False, True))
ALL = [replace(case, **options) for options in OPTIONS for case in PLAIN]
BUSY = [case for case in ALL if case.lengths and case.resets and case.reverse]


def arrays(problem: Problem) -> Results:
    """The floating-point arguments of the forward call: all that has a gradient."""
    return {n: v for n, v in problem.forward.items() if getattr(v, "dtype", None) == "float64"}


def assert_close(got: Results, want: Results, tolerance: float) -> None:
    """Every element of every array within a fraction of the largest one expected."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        assert got[name].shape == expected.shape, name
        limit = tolerance * np.max(np.abs(expected), initial=0.0)
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=limit, err_msg=name)


# ------------------------------------------------------------------------------------- gradients


def loss(problem: Problem) -> float:
    """A scalar whose gradients by the outputs are the upstream gradients."""
    outputs, _ = forward(reference, problem, need_tape=False)
    return float(sum(np.vdot(problem.upstream[f"d{name}"], y) for name, y in outputs.items()))


def central_difference(problem: Problem, a: Array, step: float = 1e-5) -> Array:
    """The gradient of `loss` by `a`, one of the problem's own arrays."""
    gradient = np.empty_like(a)
    for index in np.ndindex(a.shape):
        value = a[index]
        a[index] = value + step
        above = loss(problem)
        a[index] = value - step
        gradient[index] = (above - loss(problem)) / (2 * step)
        a[index] = value
    return gradient


@pytest.mark.parametrize("case", ALL, ids=str)
def test_gradients_are_central_differences(case: Case) -> None:
    problem = case.problem()
    _, tape = forward(reference, problem)
    want = {f"d{n}": central_difference(problem, a) for n, a in arrays(problem).items()}
    got = {n: g for n, g in backward(reference, problem, tape).items() if g is not None}
    assert_close(got, want, 1e-7)


@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_upstream_gradients_add_up(case: Case) -> None:
    """Each alone, with None for the others, is its share of all together."""
    problem = case.problem()
    _, tape = forward(reference, problem)
    total = {n: g for n, g in backward(reference, problem, tape).items() if g is not None}
    shares = [
        backward(reference, Problem(case, {}, {n: g}), tape) for n, g in problem.upstream.items()
    ]
    assert_close({n: sum(share[n] for share in shares) for n in total}, total, 1e-14)
    assert all(np.any(share["dx"]) for share in shares)
    nothing = backward(reference, Problem(case, {}, {}), tape)
    assert all(not np.any(nothing[n]) for n in total)


# ----------------------------------------------------- lengths, resets, reverse: their definitions


def own_steps(problem: Problem, row: int) -> list[int]:
    """The row's valid steps in the order in which they are processed."""
    length = problem.forward.get("lengths", np.full(row + 1, problem.case.T))[row]
    return list(range(length))[:: -1 if problem.case.reverse else 1]


def one_step_at_a_time(problem: Problem) -> Results:
    """Forward and backward by plain calls with T = B = 1, one for each valid step of each row."""
    case, up = problem.case, problem.upstream
    states = [n for n in ("h", "c") if f"{n}0" in problem.forward]
    options = ("lengths", "resets", "reverse")
    plain = {n: v for n, v in problem.forward.items() if n not in options}
    resets = problem.forward.get("resets", np.zeros((case.T, case.B), bool))
    out: Results = {"y": np.zeros_like(up["dy"])}
    out |= {f"{n}_n": np.empty_like(plain[f"{n}0"]) for n in states}
    out |= {f"d{n}": np.zeros_like(a) for n, a in arrays(problem).items()}

    for row in range(case.B):
        state = {f"{n}0": plain[f"{n}0"][row : row + 1] for n in states}
        tapes = []
        for t in own_steps(problem, row):
            if resets[t, row]:
                state = {n: np.zeros_like(s) for n, s in state.items()}
            step = Problem(case, plain | state | {"x": plain["x"][t : t + 1, row : row + 1]}, {})
            results, tape = forward(reference, step)
            out["y"][t, row] = results["y"][0, 0]
            state = {f"{n}0": results[f"{n}_n"] for n in states}
            tapes.append((t, tape))
        dstate = {f"d{n}_n": up[f"d{n}_n"][row : row + 1] for n in states}
        for t, tape in reversed(tapes):
            dy = up["dy"][t : t + 1, row : row + 1]
            grads = backward(reference, Problem(case, {}, dstate | {"dy": dy}), tape)
            out["dx"][t, row] = grads["dx"][0, 0]
            for name in ("dw_ih", "dw_hh", "db_ih", "db_hh", "dw_hr"):
                if name in out:
                    out[name] += grads[name]
            keep = 0.0 if resets[t, row] else 1.0
            dstate = {f"d{n}_n": keep * grads[f"d{n}0"] for n in states}
        for n in states:
            out[f"{n}_n"][row] = state[f"{n}0"][0]
            out[f"d{n}0"][row] = dstate[f"d{n}_n"][0]
    return out


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_sequence_is_its_steps(case: Case) -> None:
    problem = case.problem()
    got = {n: v for n, v in run(reference, problem).items() if v is not None}
    assert_close(got, one_step_at_a_time(problem), 1e-13)


@pytest.mark.parametrize("case", [case for case in ALL if case.lengths], ids=str)
def test_padding_has_no_effect(case: Case) -> None:
    """Not on anything, whatever stands in it, and without a warning."""
    problem = case.problem()
    want = run(reference, problem)
    forward_, upstream = problem.forward, problem.upstream
    padding = np.arange(case.T)[:, None] >= forward_["lengths"]
    assert not np.any(want["y"][padding])
    assert not np.any(want["dx"][padding])
    forward_["x"][padding] = np.resize([np.nan, np.inf, -np.inf], forward_["x"][padding].shape)
    upstream["dy"][padding] = np.nan
    if case.resets:
        forward_["resets"][padding] ^= True
    with np.errstate(all="raise", under="ignore"):
        assert_same_bits(run(reference, problem), want)


@pytest.mark.parametrize("case", [case for case in BUSY if not case.P], ids=str)
def test_nan_states_of_rows_without_steps(case: Case) -> None:
    """They come back as they are, and reach no gradient but their own."""
    problem = case.problem()
    want = run(reference, problem)
    empty = problem.forward["lengths"] == 0
    assert empty.any()
    for name in ("h0", "c0"):
        if name in problem.forward:
            problem.forward[name][empty] = np.nan
    got = run(reference, problem)
    assert np.isnan(got["h_n"][empty]).all()
    assert_same_bits(got, want, [n for n in want if n.startswith("d")])


# ------------------------------------------------------------------------------ equations, by hand


def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def agree(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-14)


def column(*values: float) -> Array:
    return np.array(values)[:, None]


X, H0, C0 = 0.5, -0.3, 0.8


@pytest.mark.parametrize(
    ("nonlinearity", "act", "slope"),
    [
        ("tanh", math.tanh, lambda a: 1 / math.cosh(a) ** 2),
        ("relu", lambda a: max(a, 0.0), lambda a: float(a > 0)),
        ("sigmoid", sigma, lambda a: math.exp(-a) / (1 + math.exp(-a)) ** 2),
        ("identity", lambda a: a, lambda a: 1.0),
    ],
)
@pytest.mark.parametrize("b", [0.125, -0.75])
def test_rnn_by_hand(nonlinearity: str, act: Any, slope: Any, b: float) -> None:
    w, u = 0.9, 1.1
    y, h_n, tape = reference.rnn_forward(
        np.array([[[X]], [[2 * X]]]), column(H0), column(w), column(u), np.array([b]),
        np.array([0.25]), nonlinearity=nonlinearity,
    )  # fmt: skip
    a1 = w * X + b + u * H0 + 0.25
    a2 = w * 2 * X + b + u * act(a1) + 0.25
    agree(y.ravel(), [act(a1), act(a2)])
    agree(h_n, [[act(a2)]])

    assert tape is not None
    grads = reference.rnn_backward(tape, None, column(1.0))
    da2, da1 = slope(a2), slope(a2) * u * slope(a1)
    agree(grads.h0, [[da1 * u]])
    agree(grads.x.ravel(), [da1 * w, da2 * w])
    agree(grads.w_ih, [[da1 * X + da2 * 2 * X]])
    agree(grads.w_hh, [[da1 * H0 + da2 * act(a1)]])
    agree([grads.b_ih, grads.b_hh], [[da1 + da2]] * 2)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_by_hand(reset_after: bool) -> None:
    y, h_n, tape = reference.gru_forward(
        np.array([[[X]]]), column(H0), column(0.1, 0.2, 0.3), column(1.1, -1.2, 1.3),
        np.array([0.4, 0.5, 0.6]), np.array([-0.7, 0.8, -0.9]), reset_after=reset_after,
    )  # fmt: skip
    r = sigma(0.1 * 0.5 + 0.4 + 1.1 * -0.3 - 0.7)
    z = sigma(0.2 * 0.5 + 0.5 - 1.2 * -0.3 + 0.8)
    if reset_after:
        n = math.tanh(0.3 * 0.5 + 0.6 + r * (1.3 * -0.3 - 0.9))
    else:
        n = math.tanh(0.3 * 0.5 + 0.6 + 1.3 * (r * -0.3) - 0.9)
    h = (1 - z) * n + z * -0.3
    agree([y[0, 0, 0], h_n[0, 0]], [h, h])

    assert tape is not None
    grads = reference.gru_backward(tape, np.array([[[1.0]]]))
    dn = (1 - z) * (1 - n**2)
    db_hh = [dn * (1.3 * -0.3 - 0.9 * reset_after) * r * (1 - r), (-0.3 - n) * z * (1 - z)]
    agree(grads.b_hh, [*db_hh, dn * (r if reset_after else 1)])
    agree(grads.b_ih, [*db_hh, dn])
    agree(grads.w_hh[2], [dn * r * -0.3])


@pytest.mark.parametrize("projected", [False, True])
def test_lstm_by_hand(projected: bool) -> None:
    w_hr = -1.7 if projected else 1.0
    y, h_n, c_n, tape = reference.lstm_forward(
        np.array([[[X]]]), column(H0), column(C0),
        column(0.1, 0.2, 0.3, 0.4), column(1.1, -1.2, 1.3, -1.4),
        np.array([0.5, 0.6, 0.7, 0.8]), np.array([-0.9, 1.0, -1.5, 1.6]),
        w_hr=column(w_hr) if projected else None,
    )  # fmt: skip
    i = sigma(0.1 * 0.5 + 0.5 + 1.1 * -0.3 - 0.9)
    f = sigma(0.2 * 0.5 + 0.6 - 1.2 * -0.3 + 1.0)
    g = math.tanh(0.3 * 0.5 + 0.7 + 1.3 * -0.3 - 1.5)
    o = sigma(0.4 * 0.5 + 0.8 - 1.4 * -0.3 + 1.6)
    c = f * 0.8 + i * g
    m = o * math.tanh(c)
    agree([y[0, 0, 0], h_n[0, 0]], [w_hr * m] * 2)
    agree(c_n, [[c]])

    assert tape is not None
    grads = reference.lstm_backward(tape, None, column(1.0), column(0.5))
    dc = 0.5 + w_hr * o * (1 - math.tanh(c) ** 2)
    da = [dc * g * i * (1 - i), dc * 0.8 * f * (1 - f), dc * i * (1 - g**2)]
    da.append(w_hr * math.tanh(c) * o * (1 - o))
    agree(grads.b_ih, da)
    agree(grads.c0, [[dc * f]])
    if projected:
        agree(grads.w_hr, [[m]])
    else:
        assert grads.w_hr is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_saturates_without_warning(dtype: type) -> None:
    x: Array = np.array(
        [-np.inf, -1e30, -800.0, -90.0, -2.0, 0.0, 2.0, 90.0, 800.0, 1e30, np.inf], dtype
    )
    w: Array = np.array([[1]], dtype)
    with np.errstate(all="raise", under="ignore"):
        y, *_ = reference.rnn_forward(
            x[None, :, None], None, w, 0 * w, nonlinearity="sigmoid", need_tape=False
        )
    s = sigma(-2.0)
    want = [0, 0, 0, 0, s, 0.5, 1 - s, 1, 1, 1, 1]
    limit = 2 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(y[0, :, 0], np.array(want), rtol=0, atol=limit)
    assert (y[0, :3, 0] == 0).all()
    assert (y[0, -4:, 0] == 1).all()


# ---------------------------------------------------------------------------------------- PyTorch

TORCH = [
    case
    for case in PLAIN
    if case.reset_after and case.nonlinearity in ("tanh", "relu")  # all that PyTorch has
]


@pytest.mark.parametrize("lengths", [None, (7, 1, 4)], ids=["dense", "packed"])
@pytest.mark.parametrize("case", TORCH, ids=str)
def test_pytorch(case: Case, lengths: tuple[int, ...] | None) -> None:
    """Both directions of a bidirectional layer, forward and backward."""
    torch = pytest.importorskip("torch")
    pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    options: dict[str, Any] = {"bidirectional": True, "dtype": torch.float64}
    if case.cell == "rnn":
        options["nonlinearity"] = case.nonlinearity
    if case.cell == "lstm":
        options["proj_size"] = case.P
    layer = getattr(torch.nn, case.cell.upper())(case.I, case.H, **options)

    directions = [replace(case, seed=seed).problem() for seed in (0, 1)]
    for problem in directions:
        problem.forward["x"] = directions[0].forward["x"]
        problem.forward["lengths"] = lengths and np.array(lengths)
    directions[1].forward["reverse"] = True
    leaves: list[dict[str, Any]] = [
        {n: torch.tensor(a, requires_grad=True) for n, a in arrays(p).items()} for p in directions
    ]
    for leaf, suffix in zip(leaves, ("", "_reverse"), strict=True):
        for kind, letter in (("weight", "w"), ("bias", "b")):
            for place in ("ih", "hh", "hr"):
                if f"{letter}_{place}" in leaf:
                    parameter = getattr(layer, f"{kind}_{place}_l0{suffix}")
                    parameter.data.copy_(leaf[f"{letter}_{place}"].detach())
                    leaf[f"{letter}_{place}"] = parameter
    x = leaves[0]["x"]
    state = [torch.stack([leaf[n] for leaf in leaves]) for n in ("h0", "c0") if n in leaves[0]]
    y, final = layer(
        x if lengths is None else pack(x, lengths, enforce_sorted=False),
        tuple(state) if case.cell == "lstm" else state[0],
    )
    if lengths is not None:
        y, _ = pad(y, total_length=case.T)
    final = dict(zip(("h_n", "c_n"), final if case.cell == "lstm" else [final], strict=False))
    theirs = [
        {"y": y[..., d * y.shape[2] // 2 :][..., : y.shape[2] // 2]}
        | {n: s[d] for n, s in final.items()}
        for d in (0, 1)
    ]
    sum(
        (torch.tensor(problem.upstream[f"d{n}"]) * value).sum()
        for problem, outputs in zip(directions, theirs, strict=True)
        for n, value in outputs.items()
    ).backward()

    ours = [run(reference, problem) for problem in directions]
    np.testing.assert_allclose(ours[0]["dx"] + ours[1]["dx"], x.grad, rtol=0, atol=1e-13)
    for mine, outputs, leaf in zip(ours, theirs, leaves, strict=True):
        want = {n: value.detach().numpy() for n, value in outputs.items()}
        want |= {f"d{n}": leaf[n].grad.numpy() for n in leaf if n != "x"}
        assert_close({n: mine[n] for n in want}, want, 1e-13)


# ---------------------------------------------------------------------------- arguments and results


@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_float32_stays_float32(case: Case) -> None:
    case = replace(case, dtype="float32")
    problem = case.problem()
    assert_accurate(case, run(reference, problem), run(reference, problem.astype("float64")))


@pytest.mark.parametrize("sizes", [{"T": 0}, {"B": 0}, {"T": 0, "B": 0}], ids=str)
@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_empty(case: Case, sizes: dict[str, Any]) -> None:
    problem = replace(case, **sizes).problem()
    results = run(reference, problem)
    for name, a in (problem.forward | problem.upstream).items():
        if name not in ("lengths", "resets") and isinstance(a, np.ndarray):
            result = results[name[1:] if name.startswith("d") else f"d{name}"]
            assert result.shape == a.shape
            assert result.dtype == a.dtype
    unchanged = {"h_n": "h0", "c_n": "c0"}
    for final, initial in unchanged.items():
        if initial in problem.forward:
            np.testing.assert_array_equal(results[final], problem.forward[initial])
            np.testing.assert_array_equal(results[f"d{initial}"], problem.upstream[f"d{final}"])
    assert all(not np.any(results[n]) for n in ("dw_ih", "dw_hh", "db_ih", "db_hh"))


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_none_is_zero(case: Case) -> None:
    problem = case.problem()
    absent = [n for n in ("h0", "c0", "b_ih", "b_hh") if n in problem.forward]
    zeros: Results = {n: np.zeros_like(problem.forward[n]) for n in absent}
    want = run(reference, problem.using(**zeros))
    got = run(reference, problem.using(**dict.fromkeys(absent)))
    assert got["db_ih"] is None
    assert got["db_hh"] is None
    assert_same_bits(got, want | {"db_ih": None, "db_hh": None})
    for bias, other in (("b_ih", "b_hh"), ("b_hh", "b_ih")):
        one = run(reference, problem.using(**{bias: None}))
        both = run(reference, problem.using(**{bias: zeros[bias]}))
        assert one[f"d{bias}"] is None
        assert_same_bits(one, both, [n for n in both if n != f"d{bias}"])
        assert one[f"d{other}"] is not None


@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_tape_stands_alone(case: Case) -> None:
    """All but x may change between forward and backward, which may be repeated."""
    problem = case.problem()
    outputs, tape = forward(reference, problem)
    want = backward(reference, problem, tape)
    for name, a in (problem.forward | outputs).items():
        if isinstance(a, np.ndarray) and name != "x":
            a[...] = 1
    assert_same_bits(backward(reference, problem, tape), want)


def owned(results: Results) -> Iterator[tuple[str, Array]]:
    return ((n, a) for n, a in results.items() if isinstance(a, np.ndarray) and a.size)


@pytest.mark.parametrize("sizes", [{}, {"T": 0}, {"T": 1}], ids=str)
@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_results_share_no_memory(case: Case, sizes: dict[str, Any]) -> None:
    problem = replace(case, **sizes).problem()
    results = run(reference, problem)
    everything = [*owned(results), *owned(problem.forward), *owned(problem.upstream)]
    for name, a in owned(results):
        assert a.flags.c_contiguous, name
        assert a.flags.writeable, name
        assert [n for n, b in everything if np.shares_memory(a, b)] == [name]


@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_read_only_and_strided_arguments(case: Case) -> None:
    def awkward(_: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        value = np.repeat(np.asfortranarray(value), 2, axis=-1)[..., ::2]
        value.flags.writeable = False
        return value

    problem = case.problem()
    got = {n: v for n, v in run(reference, problem.map(awkward)).items() if v is not None}
    want = {n: v for n, v in run(reference, problem).items() if v is not None}
    assert_close(got, want, 1e-14)


@pytest.mark.parametrize("case", PLAIN + BUSY, ids=str)
def test_without_tape_and_with_threads(case: Case) -> None:
    problem = case.problem()
    want = run(reference, problem, threads=3)
    outputs, tape = forward(reference, problem, need_tape=False, threads=1)
    assert tape is None
    assert_same_bits(outputs, {n: want[n] for n in outputs})


def test_unknown_nonlinearity() -> None:
    problem = PLAIN[0].problem().using(nonlinearity="softplus")
    with pytest.raises(ValueError, match=r"nonlinearity is 'softplus', expected one of \['tanh'"):
        forward(reference, problem)
