"""RNN, GRU and LSTM layers, with the arguments and parameter names of ``torch.nn``.

Letters: ``T`` time steps, ``B`` batch rows, ``I`` input size, ``H`` hidden size, ``L`` stacked
layers, ``D`` directions, ``G`` gates; ``P`` output size, which is ``H`` unless an LSTM is
projected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ._builtin import BuiltIn
from ._core import checks, config
from ._parameters import Array, Seed

__all__ = ["GRU", "LSTM", "RNN"]


class RNN(BuiltIn[Array]):
    """Simple recurrent layer: ``h = act(w_ih x + b_ih + w_hh h' + b_hh)`` (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L: each layer but the first reads the outputs of the one before, of all directions.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
        The activation.
    bias : bool
        Whether the cells have biases.
    batch_first : bool
        Whether input, output and `resets` are (B, T, .) instead of (T, B, .). States never are.
    dropout : float
        Probability, in [0, 1), with which `forward` zeroes each output of every layer but the last;
        what remains is scaled by ``1 / (1 - dropout)``.
    bidirectional : bool
        Whether each layer also runs backward in time, with parameters of its own; then D = 2.
    dtype : dtype
        float32 or float64: of the parameters and of all floating-point input and output.
    rng : int, numpy.random.Generator or None
        Where the initial parameters and the dropout masks come from. None: fresh entropy.

    Attributes
    ----------
    params : dict of str to ndarray
        The live parameters: ``weight_ih_l0 (G*H, I)``, ``weight_hh_l0 (G*H, P)``, ``bias_ih_l0``
        and ``bias_hh_l0 (G*H)``, the same with ``_reverse`` at the end, then ``_l1`` and so on,
        with D*P for I. Here G = 1 and P = H. They start as uniform(-1/sqrt(H), 1/sqrt(H)). Change
        them in place, or put other arrays of the same shape and dtype there.

    Raises
    ------
    TypeError
        If a size is not an integer, `dropout` not a number, or `dtype` not one of the two.
    ValueError
        If an argument is out of range.

    Warns
    -----
    UserWarning
        If there is dropout but only one layer, where it has no effect.

    Examples
    --------
    >>> layer = rnnfast.RNN(8, 16, rng=0)
    >>> x = np.zeros((100, 16, 8), np.float32)
    >>> y, state, tape = layer.forward(x)
    >>> grads = layer.backward(tape, np.ones_like(y))
    >>> for name, value in layer.params.items():
    ...     value -= 0.01 * grads.params[name]
    """

    _gates = config.gates_of(config.RNN)
    _state_letters = ("P",)
    _state_names = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        checks.choice("nonlinearity", nonlinearity, config.ACTIVATIONS)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            rng=rng,
        )

    def _kind(self) -> tuple[int, int]:
        return config.RNN, config.ACTIVATIONS[self.nonlinearity]


class GRU(BuiltIn[Array]):
    """Gated recurrent unit (Cho 2014, Chung 2014), gates r, z, n.

    Per step ``r, z = sigmoid(w x + b_i + u h' + b_h)`` and ``h = (1 - z) n + z h'``.

    Parameters
    ----------
    reset_after : bool
        Where `r` acts. True: on the product, as in PyTorch,
        ``n = tanh(w_n x + b_in + r (u_n h' + b_hn))``. False: on the state, as in Cho 2014,
        ``n = tanh(w_n x + b_in + u_n (r h') + b_hn)``.
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As in `RNN`.

    Attributes
    ----------
    params : dict of str to ndarray
        As in `RNN`, with G = 3.

    Raises
    ------
    TypeError, ValueError
        As in `RNN`.
    """

    _gates = config.gates_of(config.GRU)
    _state_letters = ("P",)
    _state_names = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            rng=rng,
        )

    def _kind(self) -> tuple[int, int]:
        return config.GRU if self.reset_after else config.GRU_RESET_BEFORE, 0


class LSTM(BuiltIn[tuple[Array, Array]]):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, Gers 2000), gates i, f, g, o.

    Per step ``a = w_ih x + b_ih + w_hh h' + b_hh``, ``i, f, o = sigmoid(a)``, ``g = tanh(a)``,
    ``c = f c' + i g`` and ``h = o tanh(c)``; with a projection (Sak 2014) then ``h = w_hr h``.

    Parameters
    ----------
    proj_size : int
        P, less than `hidden_size`; 0 for no projection.
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As in `RNN`.

    Attributes
    ----------
    params : dict of str to ndarray
        As in `RNN`, with G = 4; with a projection also ``weight_hr_l0 (P, H)`` and so on.

    Raises
    ------
    TypeError, ValueError
        As in `RNN`.
    """

    _gates = config.gates_of(config.LSTM)
    _state_letters = ("P", "H")
    _state_names = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            rng=rng,
            proj_size=proj_size,
        )

    def _kind(self) -> tuple[int, int]:
        return config.LSTM, 0
