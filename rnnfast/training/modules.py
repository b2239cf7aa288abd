"""The two layers that stand around a recurrent one: `Embedding` before it, `Linear` after it.

They follow the convention of `rnnfast.layers`: `y = layer(x)`, `y, tape = layer.forward(x)`,
`grads = layer.backward(tape, dy)` with `grads.input` and `grads.params`, and `layer.params`, a
dict of the live arrays under PyTorch's names.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ._array import Array, check_float, check_ids, check_last, check_like, check_shape


class ModuleGrads(NamedTuple):
    """Gradients of a module: of its input, an array (`None` for ids), and of its parameters."""

    input: Any
    params: dict[str, Array]


class Linear:
    """`y = x weight^T + bias` over the last axis.

    Parameters
    ----------
    input_size, output_size : int
        `I` and `O`.
    bias : bool
        Whether there is a bias.
    dtype : dtype
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        For the initial values, uniform in `+-1/sqrt(I)` as PyTorch's.

    Attributes
    ----------
    params : dict
        `weight (O, I)` and `bias (O)`, the live arrays.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        rng, bound = np.random.default_rng(rng), 1 / np.sqrt(max(input_size, 1))
        shapes: dict[str, tuple[int, ...]] = {"weight": (output_size, input_size)}
        if bias:
            shapes["bias"] = (output_size,)
        self.params: dict[str, Array] = {
            name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()
        }

    def __call__(self, x: Array) -> Array:
        """`y (..., O)` for `x (..., I)`."""
        return self.forward(x)[0]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Output and tape.

        Parameters
        ----------
        x : ndarray (..., I), the layer's dtype
            Not to be modified before `backward`: the tape refers to it.

        Returns
        -------
        y : ndarray (..., O)
        tape : opaque
        """
        check_last("x", check_float("x", x, like=self.params["weight"]), self.input_size, "I")
        # One product over all rows: NumPy would run a stack of small ones for (T, B, I).
        y = x.reshape(-1, self.input_size) @ self.params["weight"].T
        if "bias" in self.params:
            y += self.params["bias"]
        return y.reshape(*x.shape[:-1], self.output_size), x

    def backward(
        self, tape: Array, dy: Array, *, accumulate: dict[str, Array] | None = None
    ) -> ModuleGrads:
        """Gradients `dx = dy weight`, `dweight = dy^T x`, `dbias = sum(dy)`.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray (..., O)
        accumulate : dict, optional
            Arrays under the parameters' names to add to instead of allocating.

        Returns
        -------
        grads : ModuleGrads
        """
        x = tape
        check_float("dy", dy, like=self.params["weight"])
        check_shape("dy", dy, (*x.shape[:-1], self.output_size))
        dy_rows, x_rows = dy.reshape(-1, self.output_size), x.reshape(-1, self.input_size)
        dx = (dy_rows @ self.params["weight"]).reshape(x.shape)
        params = {"weight": dy_rows.T @ x_rows}
        if "bias" in self.params:
            params["bias"] = dy_rows.sum(axis=0)
        return ModuleGrads(dx, _added(params, accumulate))


class Embedding:
    """A trainable vector for each id: `y = weight[id]`.

    Parameters
    ----------
    count, size : int
        `V` vectors of `E` numbers.
    dtype : dtype
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        For the initial values, standard normal as PyTorch's.

    Attributes
    ----------
    params : dict
        `weight (V, E)`, the live array.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.count, self.size = count, size
        weight: Array = np.random.default_rng(rng).standard_normal((count, size))
        self.params: dict[str, Array] = {"weight": weight.astype(dtype)}

    def __call__(self, ids: Any) -> Array:
        """`y (..., E)` for `ids (...)`."""
        return self.forward(ids)[0]

    def forward(self, ids: Any) -> tuple[Array, Array]:
        """Output `y (..., E)` and tape for integer `ids (...)`, each in `0 <= id < V`."""
        ids = check_ids("ids", ids, self.count)
        return self.params["weight"][ids], ids

    def backward(
        self, tape: Array, dy: Array, *, accumulate: dict[str, Array] | None = None
    ) -> ModuleGrads:
        """Gradient of the vectors: each id's is the sum of `dy` over the places it stands at.

        Parameters
        ----------
        tape : opaque
            From `forward`.
        dy : ndarray (..., E)
        accumulate : dict, optional
            `{"weight": array}` to add to instead of allocating.

        Returns
        -------
        grads : ModuleGrads
            `input` is `None`: ids have no gradient.
        """
        ids = tape.reshape(-1)
        check_float("dy", dy, like=self.params["weight"])
        check_shape("dy", dy, (*tape.shape, self.size))
        dweight = np.zeros_like(self.params["weight"])
        if ids.size:
            # Equal ids side by side, then one sum per run: far faster than np.add.at.
            order = np.argsort(ids, kind="stable")
            present, starts = np.unique(ids[order], return_index=True)
            dweight[present] = np.add.reduceat(dy.reshape(-1, self.size)[order], starts, axis=0)
        return ModuleGrads(None, _added({"weight": dweight}, accumulate))


def _added(grads: dict[str, Array], accumulate: dict[str, Array] | None) -> dict[str, Array]:
    """`grads`, or `accumulate` with `grads` added into its arrays."""
    if accumulate is None:
        return grads
    check_like("accumulate", accumulate, grads)
    for name, grad in grads.items():
        accumulate[name] += grad
    return accumulate
