"""Nodes that no built-in layer computes: their cells, and the weights of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._generic import Recurrent
from .._parameters import Array
from ..cells._cell import Cell
from ..cells._onnx import Activation, listed, onnx_gru, onnx_lstm, onnx_rnn, read_activations
from ..layers import GRU, LSTM, RNN
from ._operators import CELL_GATES, GATES, attributes_of

_PEEPHOLES = "iof"  # the gates of P, in ONNX's order
_FACTORIES: dict[str, Any] = {"RNN": onnx_rnn, "GRU": onnx_gru, "LSTM": onnx_lstm}


class Weights(NamedTuple):
    """The inputs of a node that are its parameters; None for one that it does without."""

    W: Array  # (D, G*H, I)
    R: Array  # (D, G*H, H)
    B: Array | None  # (D, 2*G*H)
    P: Array | None  # (D, 3*H)


def make_cells(
    operator: str, directions: Sequence[Sequence[Activation]], options: dict[str, Any]
) -> tuple[Cell, Cell | None]:
    """Return the cell of a node, and if the second direction has another one that."""
    cells = [_FACTORIES[operator](**listed(found), **options) for found in directions]
    return cells[0], cells[1] if directions[0] != directions[-1] else None


def cell_params(
    operator: str, options: Mapping[str, Any], weights: Weights, direction: int
) -> dict[str, Array]:
    """Return the parameters of a node's cell in one direction.

    The two biases of a gate are added, unless the reset gate stands between them.
    """
    gates = _gates(operator)
    W, R = (a[direction].reshape(len(gates), -1, a.shape[2]) for a in weights[:2])
    B = None if weights.B is None else weights.B[direction].reshape(2, len(gates), -1)
    found: dict[str, Array] = {}
    for k, gate in enumerate(gates):
        if gate == "f" and options["input_forget"]:
            continue
        w, r, *biases = _names(gate, options)
        found |= {w: W[k], r: R[k]}
        if B is not None:
            values = B[:, k] if len(biases) == 2 else [B[0, k] + B[1, k]]
            found |= dict(zip(biases, values, strict=True))
    if weights.P is not None:
        P = zip(_PEEPHOLES, weights.P[direction].reshape(3, -1), strict=True)
        found |= {f"p_{gate}": p for gate, p in P if f"{gate}.weight_x" in found}
    return found


def _gates(operator: str) -> list[str]:
    """Name the gates in ONNX's order."""
    return [CELL_GATES[operator][gate] for gate in GATES[operator]]


def _names(gate: str, options: Mapping[str, Any]) -> list[str]:
    """Name a gate's parameters: those for W and R, and the bias, or one for W and one for R."""
    if gate != "n":
        return [f"{gate}.weight_x", f"{gate}.weight_h", f"{gate}.bias"]
    if options["linear_before_reset"]:
        return ["n_x.weight_x", "n_h.weight_h", "n_x.bias", "n_h.bias"]
    return ["n.weight_x", "n.weight_gated", "n.bias"]


# --------------------------------------------------------------------------------------- and back


def operator_of(layer: Any) -> str | None:
    """Return the operator that computes a layer; None if there is none."""
    if not isinstance(layer, Recurrent):
        return next(kind.__name__ for kind in (RNN, GRU, LSTM) if isinstance(layer, kind))
    made = layer.cell.made
    return next((o for o, f in _FACTORIES.items() if made and made.factory is f), None)


def node_attributes(layer: Recurrent) -> dict[str, Any]:
    """Return the attributes of the nodes of such a `Recurrent` that belong to its cells."""
    cells = [layer.cell, getattr(layer, "reverse_cell", None) or layer.cell]
    found: list[Activation] = []
    for cell in cells[: 1 + layer.bidirectional]:
        given = _arguments(cell)
        found += read_activations(given["activations"], given["alpha"], given["beta"])
    flags = ("input_forget", "linear_before_reset")
    named = {name: int(given[name]) for name in flags if name in given}
    clip = {} if given["clip"] is None else {"clip": float(given["clip"])}
    return attributes_of(found) | named | clip


def node_weights(layer: Recurrent, operator: str, k: int) -> Weights:
    """Return the weights of its stacked layer `k`."""
    directions = [
        _weights(operator, _arguments(layer.cell), {own: layer.params[n] for own, n in names})
        for names in (layer._cells[cell] for _, cell in layer._stack[k])
    ]
    columns: Any = zip(*directions, strict=True)
    stacked: Any = (None if column[0] is None else np.stack(column) for column in columns)
    return Weights(*stacked)


def _arguments(cell: Cell) -> Mapping[str, Any]:
    return cell.made.arguments if cell.made else {}


def _weights(operator: str, options: Mapping[str, Any], params: Mapping[str, Array]) -> Weights:
    """Return those of one direction. A gate that the cell does without has zeros."""
    gates = []
    for gate in _gates(operator):
        tied = gate == "f" and options["input_forget"]
        names = _names("i" if tied else gate, options)
        arrays = [params[name] for name in names if name in params]
        if len(arrays) == 3:
            arrays.append(np.zeros_like(arrays[2]))
        gates.append([np.zeros_like(a) for a in arrays] if tied else arrays)
    W, R, *B = (np.concatenate(parts) for parts in zip(*gates, strict=True))
    P = []
    if options.get("peepholes"):
        P = [params.get(f"p_{gate}", np.zeros_like(R[0])) for gate in _PEEPHOLES]
    return Weights(W, R, *(np.concatenate(parts) if parts else None for parts in (B, P)))
