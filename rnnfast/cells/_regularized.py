"""Cells whose recurrent connections are regularised by masks that the layer draws.

In the equations a prime marks the value of the step before, and W, U and b are the parameters of a
`linear`.
"""

from __future__ import annotations

from .._core import checks
from ._cell import Cell, cell
from ._factory import factory
from ._mask import Mask
from ._parts import Pair, gru_step, lstm_step
from ._trace import Expression

__all__ = ["recurrent_dropout_gru", "recurrent_dropout_lstm", "zoneout_lstm"]


@factory
def zoneout_lstm(p_h: float = 0.05, p_c: float = 0.5) -> Cell:
    """Return an LSTM with zoneout: units keep their state at random.

    h = d_h h' + (1 - d_h) o tanh(n), c = d_c c' + (1 - d_c) n, with n = f c' + i g (Krueger et al.
    2016, arXiv:1606.01305). d_h is 1 with probability p_h and d_c with p_c, drawn for each unit and
    step. Without training each is its mean.
    """
    p_h, p_c = checks.probability("p_h", p_h), checks.probability("p_c", p_c)

    @cell(state="h c", extra="d_h d_c", masks={"d_h": Mask(p_h), "d_c": Mask(p_c)})
    def zoneout_lstm(
        x: Expression, h: Expression, c: Expression, d_h: Expression, d_c: Expression
    ) -> Pair:
        new_h, new_c = lstm_step(x, [h] * 4, c)
        return d_h * h + (1 - d_h) * new_h, d_c * c + (1 - d_c) * new_c

    return zoneout_lstm


@factory
def recurrent_dropout_lstm(p: float = 0.25, per_gate: bool = False) -> Cell:
    """Return an LSTM with dropout of h' in its products (Gal & Ghahramani 2016, arXiv:1512.05287).

    A gate sees U (m h'), where m is 0 with probability p and else 1 / (1 - p), the same in all
    steps. One mask m serves all gates. With `per_gate` each has its own, m_i, m_f, m_g and m_o, as
    in Keras. Without training all of them are 1.
    """
    masks = _masks(p, per_gate, "ifgo")

    def recurrent_dropout_lstm(x: Expression, h: Expression, c: Expression, m: Expression) -> Pair:
        return lstm_step(x, [m * h] * 4, c)

    def each(
        x: Expression, h: Expression, c: Expression,
        m_i: Expression, m_f: Expression, m_g: Expression, m_o: Expression,
    ) -> Pair:  # fmt: skip
        return lstm_step(x, [m_i * h, m_f * h, m_g * h, m_o * h], c)

    each.__name__ = "recurrent_dropout_lstm"
    step = each if per_gate else recurrent_dropout_lstm
    return cell(state="h c", extra=" ".join(masks), masks=masks)(step)


@factory
def recurrent_dropout_gru(p: float = 0.25, per_gate: bool = False) -> Cell:
    """Return a GRU with dropout of h' in its products (Gal & Ghahramani 2016, arXiv:1512.05287).

    h = (1 - z) n + z h', n = tanh(W x + b + r (U (m h') + b')), r and z see U (m h') too. The masks
    are those of `recurrent_dropout_lstm`, with `per_gate` m_r, m_z and m_n.
    """
    masks = _masks(p, per_gate, "rzn")

    def recurrent_dropout_gru(x: Expression, h: Expression, m: Expression) -> Expression:
        return gru_step(x, [m * h] * 3, h)

    def each(
        x: Expression, h: Expression, m_r: Expression, m_z: Expression, m_n: Expression
    ) -> Expression:
        return gru_step(x, [m_r * h, m_z * h, m_n * h], h)

    each.__name__ = "recurrent_dropout_gru"
    step = each if per_gate else recurrent_dropout_gru
    return cell(state="h", extra=" ".join(masks), masks=masks)(step)


def _masks(p: float, per_gate: bool, gates: str) -> dict[str, Mask]:
    """The masks of a dropout that stays the same over time."""
    kept = Mask(1 - checks.probability("p", p), per_step=False, scaled=True)
    return dict.fromkeys([f"m_{gate}" for gate in gates] if per_gate else ["m"], kept)
