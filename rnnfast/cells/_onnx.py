"""Cells of ONNX's operators RNN, GRU and LSTM, with all of their activations and options.

Source: the operators' specification, https://onnx.ai/onnx/operators/. What it leaves open is as in
ONNX Runtime: which entries of alpha and beta belong to which activation, and that `clip` does not
act on the new cell state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

from ._cell import Cell, cell
from ._factory import factory
from ._functions import abs, clip, exp, relu, sigmoid, softplus, tanh, where
from ._trace import Expression, linear, vector

__all__ = ["onnx_gru", "onnx_lstm", "onnx_rnn"]

Names = Sequence[str]
Numbers = Sequence[float]
Function = Callable[[Expression], Expression]


class Activation(NamedTuple):
    """One of the activations, with the numbers that it uses: none, alpha, or alpha and beta."""

    name: str
    numbers: tuple[float, ...] = ()


@factory
def onnx_rnn(
    activations: Names = ("Tanh",),
    alpha: Numbers = (),
    beta: Numbers = (),
    clip: float | None = None,
) -> Cell:
    """Return the cell of ONNX's RNN: h = f(W x + R h' + b).

    Parameters
    ----------
    activations : sequence of str
        The name of f: Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus,
        Softsign, Tanh or ThresholdedRelu, in capital or small letters.
    alpha, beta : sequence of float
        Numbers for the activations that use them, in their order. What is missing is ONNX's
        default; Affine has none for alpha, ScaledTanh none at all.
    clip : float, optional
        What f gets is limited to -clip .. clip.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong kind or number, or an activation lacks a number.
    """
    (f,) = _functions(activations, alpha, beta, 1)
    limited = _limited(clip)

    def onnx_rnn(x: Expression, h: Expression) -> Expression:
        return f(limited(linear("a", x, h)))

    return cell(state="h")(onnx_rnn)


@factory
def onnx_gru(
    activations: Names = ("Sigmoid", "Tanh"),
    alpha: Numbers = (),
    beta: Numbers = (),
    clip: float | None = None,
    linear_before_reset: bool = False,
) -> Cell:
    """Return the cell of ONNX's GRU: h = (1 - z) n + z h'.

    z, r = f(W x + R h' + b), n = g(W x + R (r h') + b), or with `linear_before_reset`
    n = g(W x + b + r (R h' + b_h)).

    Parameters
    ----------
    activations : sequence of str
        The names of f and g. These and the other arguments are as in `onnx_rnn`.
    alpha, beta : sequence of float
    clip : float, optional
    linear_before_reset : bool
        Whether the reset gate acts on the product.

    Raises
    ------
    TypeError, ValueError
        As `onnx_rnn` does.
    """
    f, g = _functions(activations, alpha, beta, 2)
    limited = _limited(clip)

    def onnx_gru(x: Expression, h: Expression) -> Expression:
        r, z = f(limited(linear("r", x, h))), f(limited(linear("z", x, h)))
        if linear_before_reset:
            n = linear("n_x", x) + r * linear("n_h", h)
        else:
            n = linear("n", x, gated=r * h)
        return (1 - z) * g(limited(n)) + z * h

    return cell(state="h")(onnx_gru)


@factory
def onnx_lstm(
    activations: Names = ("Sigmoid", "Tanh", "Tanh"),
    alpha: Numbers = (),
    beta: Numbers = (),
    clip: float | None = None,
    input_forget: bool = False,
    peepholes: bool = False,
) -> Cell:
    """Return the cell of ONNX's LSTM: c = f c' + i g, h = o h(c).

    i, f, o = f(W x + R h' + p c' + b), where o sees the new c instead of c', and
    g = g(W x + R h' + b).

    Parameters
    ----------
    activations : sequence of str
        The names of the functions f, g and h. These and the other arguments are as in `onnx_rnn`.
        `clip` limits what f and g get, not what h gets.
    alpha, beta : sequence of float
    clip : float, optional
    input_forget : bool
        Whether the forget gate is 1 - i, without parameters.
    peepholes : bool
        Whether i, f and o see the cell state, by weights p_i, p_f and p_o.

    Raises
    ------
    TypeError, ValueError
        As `onnx_rnn` does.
    """
    of_gate, of_input, of_state = _functions(activations, alpha, beta, 3)
    limited = _limited(clip)

    def onnx_lstm(x: Expression, h: Expression, c: Expression) -> Any:
        def gate(name: str, seen: Expression) -> Expression:
            a = linear(name, x, h)
            return of_gate(limited(a + vector(f"p_{name}") * seen if peepholes else a))

        i = gate("i", c)
        f = 1 - i if input_forget else gate("f", c)
        c = f * c + i * of_input(limited(linear("g", x, h)))
        return gate("o", c) * of_state(c), c

    return cell(state="h c")(onnx_lstm)


# ----------------------------------------------------------------------------------- activations


def read_activations(names: Any, alpha: Any, beta: Any) -> list[Activation]:
    """Give each activation its numbers.

    Those that use alpha take it from the left, and so with beta; entries that are left are not
    used. Raises TypeError or ValueError for what there is not.
    """
    left = [iter(_numbers("alpha", alpha)), iter(_numbers("beta", beta))]
    return [_read(name, left) for name in _listed("activations", names, str, "strings")]


def _read(given: str, left: list[Iterator[float]]) -> Activation:
    """Take the numbers of one activation from what is left of alpha and beta."""
    name = _NAMES.get(given.lower())
    if name is None:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activations has {given!r}, expected names among {known}")
    defaults = ACTIVATIONS[name][1:]
    numbers = [next(rest, default) for rest, default in zip(left, defaults, strict=False)]
    if None in numbers:
        which = "alpha" if numbers[0] is None else "beta"
        raise ValueError(
            f"activations has {name!r}, but {which} has no number for it, and ONNX has no default"
        )
    return Activation(name, tuple(numbers))


def listed(activations: Sequence[Activation]) -> dict[str, tuple[Any, ...]]:
    """The opposite of `read_activations`: its arguments by the names of the factories'."""
    return {
        "activations": tuple(a.name for a in activations),
        "alpha": tuple(a.numbers[0] for a in activations if a.numbers),
        "beta": tuple(a.numbers[1] for a in activations if len(a.numbers) > 1),
    }


def check_clip(clip: Any) -> None:
    """Raise unless it is None or a number above 0."""
    if clip is None:
        return
    if isinstance(clip, bool) or not isinstance(clip, Real):
        raise TypeError(f"clip has type {type(clip).__name__}, expected a number or None")
    if not float(clip) > 0:
        raise ValueError(f"clip is {clip}, expected a number above 0")


def _functions(names: Any, alpha: Any, beta: Any, count: int) -> list[Function]:
    """Return the activations as functions; raise unless all arguments are used."""
    read = read_activations(names, alpha, beta)
    if len(read) != count:
        raise ValueError(f"activations has {len(read)} names, expected {count}")
    used = listed(read)
    for which, given in (("alpha", alpha), ("beta", beta)):
        if len(given) > len(used[which]):
            raise ValueError(
                f"{which} has {len(given)} numbers, of which {', '.join(used['activations'])} "
                f"use {len(used[which])}"
            )
    return [_function(activation) for activation in read]


def _function(activation: Activation) -> Function:
    function, numbers = ACTIVATIONS[activation.name][0], activation.numbers
    return lambda v: function(v, *numbers)


def _limited(limit: Any) -> Function:
    check_clip(limit)
    if limit is None:
        return lambda v: v
    return lambda v: clip(v, -float(limit), float(limit))


def _numbers(what: str, given: Any) -> list[float]:
    numbers = [float(number) for number in _listed(what, given, Real, "numbers")]
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{what} has {number}, expected finite numbers")
    return numbers


def _listed(what: str, given: Any, kind: Any, expected: str) -> list[Any]:
    if not isinstance(given, tuple | list):
        raise TypeError(f"{what} has type {type(given).__name__}, expected a tuple of {expected}")
    for part in given:
        if not isinstance(part, kind) or isinstance(part, bool):
            raise TypeError(f"{what} has a {type(part).__name__}, expected {expected}")
    return list(given)


def _affine(v: Expression, alpha: float, beta: float) -> Expression:
    return alpha * v + beta


def _elu(v: Expression, alpha: float) -> Expression:
    # exp gets nothing above 0: it would overflow, and backward make 0 times infinity of it.
    return where(v >= 0, v, alpha * (exp(where(v >= 0, 0, v)) - 1))


def _hard_sigmoid(v: Expression, alpha: float, beta: float) -> Expression:
    return clip(alpha * v + beta, 0, 1)


def _leaky_relu(v: Expression, alpha: float) -> Expression:
    return where(v >= 0, v, alpha * v)


def _scaled_tanh(v: Expression, alpha: float, beta: float) -> Expression:
    return alpha * tanh(beta * v)


def _softsign(v: Expression) -> Expression:
    return v / (1 + abs(v))


def _thresholded_relu(v: Expression, alpha: float) -> Expression:
    # 0 at alpha itself, as ONNX's operator of that name and ONNX Runtime have it. The text of the
    # recurrent operators has alpha there.
    return where(v > alpha, v, 0)


# The function, then the defaults of alpha and beta if it uses them; None if there is none. The text
# has those of the operators of these names. ONNX no longer has Affine and ScaledTanh; that Affine's
# beta was 0 is what ONNX Runtime has too, but its 0 for alpha, also ThresholdedRelu's, is its own.
ACTIVATIONS: dict[str, tuple[Any, ...]] = {
    "Affine": (_affine, None, 0.0),
    "Elu": (_elu, 1.0),
    "HardSigmoid": (_hard_sigmoid, 0.2, 0.5),
    "LeakyRelu": (_leaky_relu, 0.01),
    "Relu": (relu,),
    "ScaledTanh": (_scaled_tanh, None, None),
    "Sigmoid": (sigmoid,),
    "Softplus": (softplus,),
    "Softsign": (_softsign,),
    "Tanh": (tanh,),
    "ThresholdedRelu": (_thresholded_relu, 1.0),
}
_NAMES = {name.lower(): name for name in ACTIVATIONS}
