"""Cells for irregular times and for long ones.

In the equations a prime marks the value of the step before, and W, U, V and b are the parameters of
a `linear`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import checks
from ._cell import Cell, cell
from ._factory import factory
from ._functions import exp, log, relu, sigmoid, sqrt, tanh, where
from ._mask import Mask
from ._parts import Pair, lstm_step
from ._trace import Expression, linear, vector

__all__ = ["gru_d", "lru", "phased_lstm", "t_lstm"]

Array = NDArray[Any]


@cell(state="h last", extra="m delta", sizes={"last": "x", "m": "x", "delta": "x"})
def gru_d(
    x: Expression, h: Expression, last: Expression, m: Expression, delta: Expression
) -> dict[str, Expression]:
    """GRU for series with missing values (Che et al. 2018, arXiv:1606.01865).

    The extra inputs have the size of x. m is 1 where x was observed, else 0. delta is the time
    since the step at which that number was last observed, 0 at the first step. The state `last` has
    the last observed numbers. Where m is 0, x has no effect; it may be NaN. The cell is for one
    layer in one direction: others would need another delta.

    A missing number decays from the last one to a mean: v = m ? x : d last + (1 - d) mean, with d =
    exp(-relu(decay_x delta + decay_x_bias)). So does the state: s = exp(-relu(W delta + b)) h'. A
    GRU follows: r = sigmoid(W v + U s + V m + b), z alike, n = tanh(W v + U (r s) + V m + b),
    h = (1 - z) s + z n. The parameter mean begins as 0, which suits standardised data. It is
    trained like the others.
    """
    decay = exp(-relu(vector("decay_x", x.size, init=0.1) * delta + vector("decay_x_bias", x.size)))
    filled = decay * last + (1 - decay) * vector("mean", x.size)
    v = where(m, x, filled)
    s = exp(-relu(linear("decay_h", delta))) * h
    r, z = sigmoid(linear("r", m, x=v, h=s)), sigmoid(linear("z", m, x=v, h=s))
    n = tanh(linear("n", m, x=v, gated=r * s))
    return {"h": (1 - z) * s + z * n, "last": where(m, x, last)}


@cell(state="h c", extra="gap", sizes={"gap": 1})
def t_lstm(x: Expression, h: Expression, c: Expression, gap: Expression) -> Pair:
    """Time-aware LSTM, whose short-term memory fades (Baytas et al. 2017, KDD).

    gap is the time since the step before. An LSTM sees c' - s + s / log(e + gap) instead of c',
    with the short-term part s = tanh(W c' + b).
    """
    short = tanh(linear("short", c))
    return lstm_step(x, [h] * 4, c - short + short / log(math.e + gap))


@factory
def phased_lstm(shortest: float = 1.0, longest: float = 1000.0) -> Cell:
    """Return an LSTM whose units open in rhythms of their own (Neil et al. 2016, arXiv:1610.09513).

    The extra input t, of size 1, is the time of a step, from 0 on. A unit's phase is p = t / tau -
    shift, without its whole part. It is open by k = 2 p / r_on while p < r_on / 2, and by k = 2 -
    2 p / r_on while p < r_on. Later it leaks: k = 0.001 p in training, k = 0 in evaluation. Then
    h = k H + (1 - k) h' and c = k C + (1 - k) c', where H and C are the new states of an LSTM
    without peepholes.

    tau, shift and r_on are parameters, one for each unit. The periods tau begin between `shortest`
    and `longest`, log-uniformly, the shifts uniformly, and r_on as 0.05. Times are below a million
    periods, and shifts below 64; float32 tells phases apart up to some thousands of periods.

    The extra input `leaking` is drawn as 1 in training, and 0 in evaluation.
    """
    if not 0 < checks.real("shortest", shortest) <= checks.real("longest", longest):
        raise ValueError(
            f"shortest is {shortest} and longest {longest}, expected 0 < shortest <= longest"
        )

    def periods(rng: np.random.Generator, size: int) -> Array:
        return np.exp(rng.uniform(math.log(shortest), math.log(longest), size))

    @cell(
        state="h c",
        extra="t leaking",
        sizes={"t": 1, "leaking": 1},
        masks={"leaking": Mask(1.0, evaluation=0.0)},
    )
    def phased_lstm(
        x: Expression, h: Expression, c: Expression, t: Expression, leaking: Expression
    ) -> Pair:
        phase = _fraction(t / vector("tau", init=periods) - vector("shift", init=_uniform))
        r = vector("r_on", init=0.05)
        rising = 2 * phase / r
        k = where(phase < r, where(phase < 0.5 * r, rising, 2 - rising), 0.001 * leaking * phase)
        new_h, new_c = lstm_step(x, [h] * 4, c)
        return k * new_h + (1 - k) * h, k * new_c + (1 - k) * c

    return phased_lstm


def _uniform(rng: np.random.Generator, size: int) -> Array:
    return rng.random(size)


def _fraction(v: Expression) -> Expression:
    """v without its whole part, for v from -64 to 2**20, with the gradient of v.

    Powers of two are subtracted while there is one in v, which is exact.
    """
    v = v + 64 * (v < 0)
    for power in range(19, -1, -1):
        v = v - 2.0**power * (v >= 2.0**power)
    return v


@factory
def lru(r_min: float = 0.0, r_max: float = 1.0, max_angle: float = math.pi) -> Cell:
    """Return a linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349).

    z = a z' + sqrt(1 - abs(a)^2) B x with complex numbers, y = Re(C z) + D x, of size H. The states
    re and im are the parts of z. There is no bias and no activation: layers in between have them.

    a = exp(-exp(nu)) (cos f + i sin f), with cos f = -tanh(theta) and sin f = 1 / cosh(theta), so
    that abs(a) < 1 and 0 < f < pi; other angles would repeat these, as only the real part is read.
    a begins at random, uniformly in the ring of radii `r_min` to `r_max`, up to `max_angle`. B and
    C are b_re and b_im, and y.weight_re and y.weight_im, the last with its sign changed.
    """
    if not 0 <= checks.real("r_min", r_min) < checks.real("r_max", r_max) <= 1:
        raise ValueError(f"r_min is {r_min} and r_max {r_max}, expected 0 <= r_min < r_max <= 1")
    if not 0 < checks.real("max_angle", max_angle) <= math.pi:
        raise ValueError(f"max_angle is {max_angle}, expected a number above 0, at most pi")

    def radii(rng: np.random.Generator, size: int) -> Array:
        return np.log(-0.5 * np.log(rng.uniform(r_min**2, r_max**2, size)))

    def angles(rng: np.random.Generator, size: int) -> Array:
        return np.log(np.tan(0.5 * rng.uniform(0, max_angle, size)))

    @cell(state="re im")
    def lru(x: Expression, re: Expression, im: Expression) -> dict[str, Expression]:
        a, theta = exp(vector("nu", init=radii)), vector("theta", init=angles)
        radius = exp(-a)
        cosine, sine = -tanh(theta), 2 / (exp(theta) + exp(-theta))
        # 1 - radius**2 would be 0 for small a, and the square root have no derivative there.
        gain = sqrt(2 * tanh(a) / (1 + tanh(a)))
        new_re = radius * (cosine * re - sine * im) + gain * linear("b_re", x, bias=False)
        new_im = radius * (sine * re + cosine * im) + gain * linear("b_im", x, bias=False)
        y = linear("y", x, re=new_re, im=new_im, bias=False)
        return {"re": new_re, "im": new_im, "y": y}

    return lru
