"""The two layers that stand around a recurrent one: `Embedding` before it, `Linear` after it.

They follow the convention of `rnnfast.layers`: `y = layer(x)`, `y, tape = layer.forward(x)`,
`grads = layer.backward(tape, dy)` with `grads.input` and `grads.params`, and `layer.params`, a
dict of the live arrays under PyTorch's names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from .. import _saving
from .._cell_calls import as_plain
from .._core import checks, linear
from .._core.threads import resolve
from .._described import Module
from .._modules import ModuleGrads as ModuleGrads
from ._array import Array, Arrays, check_ids, check_last


class LinearTape(NamedTuple):
    """What `Linear.forward` leaves for one `backward`: the shape of x, and x with the weights."""

    shape: tuple[int, ...]
    product: Any


class Linear(Module):
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

    Notes
    -----
    Computed by the package's own kernels, so the bits do not depend on the number of threads. And
    no threads of a BLAS wait for a core while those of the recurrent layers still hold it.
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
        self.input_size = checks.integer("input_size", input_size, 1)
        self.output_size = checks.integer("output_size", output_size, 1)
        self.bias, self.dtype = bool(bias), checks.float_dtype(dtype)
        rng, bound = np.random.default_rng(rng), 1 / np.sqrt(max(input_size, 1))
        shapes: dict[str, tuple[int, ...]] = {"weight": (output_size, input_size)}
        if self.bias:
            shapes["bias"] = (output_size,)
        self.params: dict[str, Array] = {
            name: rng.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in shapes.items()
        }

    def __call__(self, x: Array) -> Array:
        """`y (..., O)` for `x (..., I)`."""
        return self._run(x, need_tape=False)[0]

    def forward(self, x: Array) -> tuple[Array, LinearTape]:
        """Output and tape.

        Parameters
        ----------
        x : ndarray (..., I), the layer's dtype
            Not to be modified before `backward`: the tape refers to it.

        Returns
        -------
        y : ndarray (..., O)
        tape : opaque
            For one call of `backward`.
        """
        return self._run(x, need_tape=True)

    def _frozen(self) -> Callable[[Array], Array]:
        """Return a function that computes what a call does, with a copy of the weights."""
        weight, bias = self._weights()
        packed = linear.Packed(weight, bias)

        def call(x: Array) -> Array:
            y = packed(x, resolve(None))
            if y is None:  # there is something wrong, or x needs a plain copy
                check_last("x", checks.of_dtype("x", x, weight.dtype), self.input_size, "I")
                rows = packed(as_plain(x.reshape(-1, self.input_size)), resolve(None))
                assert rows is not None
                y = rows.reshape(*x.shape[:-1], self.output_size)
            return y

        return call

    def _weights(self) -> tuple[Array, Array | None]:
        """Return the weight and the bias for the kernels, which trust the sizes of the layer."""
        weight, bias = self.params["weight"], self.params.get("bias")
        shape = self.output_size, self.input_size
        if not (
            weight.dtype in checks.FLOATS
            and weight.shape == shape
            and (bias is None or (bias.dtype == weight.dtype and bias.shape == shape[:1]))
        ):
            dtype = checks.of_floats("params['weight']", weight).dtype
            expected = {"weight": shape} | ({} if bias is None else {"bias": shape[:1]})
            checks.named("params", self.params, expected, dtype)
        return as_plain(weight), None if bias is None else as_plain(bias)

    def _run(self, x: Array, need_tape: bool) -> tuple[Array, LinearTape]:
        weight, bias = self._weights()
        check_last("x", checks.of_dtype("x", x, weight.dtype), self.input_size, "I")
        rows = as_plain(x.reshape(-1, self.input_size))
        y, product = linear.forward(rows, weight, bias, need_tape, resolve(None))
        return y.reshape(*x.shape[:-1], self.output_size), LinearTape(x.shape, product)

    def backward(
        self, tape: LinearTape, dy: Array, *, accumulate: dict[str, Array] | None = None
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
        checks.exact("dy", dy, self.params["weight"].dtype, (*tape.shape[:-1], self.output_size))
        _check_accumulate(accumulate, self.params)
        if tape.product.used:
            raise RuntimeError("tape has been used: it serves one backward")
        rows = as_plain(dy.reshape(-1, self.output_size))
        dx, weight, bias = linear.backward(tape.product, rows, resolve(None))
        params = {"weight": weight} | ({"bias": bias} if "bias" in self.params else {})
        return ModuleGrads(dx.reshape(tape.shape), _added(params, accumulate))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a file, for `rnnfast.load`; as `save` of the recurrent layers."""
        _saving.save(path, self)

    @staticmethod
    def _options(params: Arrays) -> dict[str, Any]:
        """The constructor's options behind these parameters; refuse what a layer cannot have."""
        weight = _matrix(params)
        output_size, input_size = weight.shape
        shapes: dict[str, tuple[int, ...]] = {"weight": weight.shape}
        if "bias" in params:
            shapes["bias"] = (output_size,)
        checks.named("params", params, shapes, weight.dtype)
        sizes = {"input_size": input_size, "output_size": output_size}
        return {**sizes, "bias": "bias" in params, "dtype": weight.dtype.name}


class Embedding(Module):
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
        self.count = checks.integer("count", count, 1)
        self.size = checks.integer("size", size, 1)
        self.dtype = checks.float_dtype(dtype)
        weight: Array = np.random.default_rng(rng).standard_normal((count, size))
        self.params: dict[str, Array] = {"weight": weight.astype(self.dtype)}

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
        checks.exact("dy", dy, self.params["weight"].dtype, (*tape.shape, self.size))
        _check_accumulate(accumulate, self.params)
        dweight = np.zeros_like(self.params["weight"])
        if ids.size:
            # Equal ids side by side, then one sum per run: far faster than np.add.at.
            order = np.argsort(ids, kind="stable")
            present, starts = np.unique(ids[order], return_index=True)
            dweight[present] = np.add.reduceat(dy.reshape(-1, self.size)[order], starts, axis=0)
        return ModuleGrads(None, _added({"weight": dweight}, accumulate))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a file, for `rnnfast.load`; as `save` of the recurrent layers."""
        _saving.save(path, self)

    @staticmethod
    def _options(params: Arrays) -> dict[str, Any]:
        """The constructor's options behind these parameters; refuse what a layer cannot have."""
        weight = _matrix(params)
        checks.named("params", params, {"weight": weight.shape}, weight.dtype)
        count, size = weight.shape
        return {"count": count, "size": size, "dtype": weight.dtype.name}


def _matrix(params: Arrays) -> Array:
    if "weight" not in params:
        raise ValueError(f"params has the keys {sorted(params)}, expected 'weight' among them")
    weight = checks.of_floats("weight", params["weight"])
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {weight.shape}, expected 2 dimensions")
    return weight


def _check_accumulate(accumulate: Any, params: dict[str, Array]) -> None:
    if accumulate is not None:
        shapes = {name: p.shape for name, p in params.items()}
        checks.named("accumulate", accumulate, shapes, params["weight"].dtype, writeable=True)


def _added(grads: dict[str, Array], accumulate: dict[str, Array] | None) -> dict[str, Array]:
    """`grads`, or `accumulate` with `grads` added into its arrays."""
    if accumulate is None:
        return grads
    for name, grad in grads.items():
        accumulate[name] += grad
    return accumulate
