"""What the benchmarks of layers and streams are checked against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnfast import reference
from rnnfast.bench.worker import TOLERANCE, disagreement

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Results = dict[str, Any]


def reference_layer(layer: Any, x: Any, dy: Any = None, lengths: Any = None) -> Results:
    """What `layer` should return, by the reference in float64: `y`, with `dy` the gradients too."""
    cell = type(layer).__name__.lower()
    forward, backward = (getattr(reference, f"{cell}_{way}") for way in ("forward", "backward"))
    h0 = np.zeros((x.shape[1], layer.hidden_size))
    states = (h0, h0) if cell == "lstm" else (h0,)
    suffixes = ("", "_reverse") if layer.bidirectional else ("",)
    y, tapes = x.astype(np.float64), []
    for k in range(layer.num_layers):
        names = [[f"{name}_l{k}{suffix}" for name in WEIGHTS] for suffix in suffixes]
        weights = [[layer.params[name].astype(np.float64) for name in part] for part in names]
        ways = [
            forward(y, *states, *part, lengths=lengths, reverse=reverse)
            for reverse, part in enumerate(weights)
        ]
        tapes.append([(part, way[-1]) for part, way in zip(names, ways, strict=True)])
        y = np.concatenate([way[0] for way in ways], axis=2)
    results = {"y": y}
    if dy is not None:
        dy = dy.astype(np.float64)
        for parts in reversed(tapes):
            halves = np.split(dy, len(suffixes), axis=2)
            grads = [backward(tape, half) for (_, tape), half in zip(parts, halves, strict=True)]
            dy = sum(g.x for g in grads)
            for (names, _), g in zip(parts, grads, strict=True):
                results |= zip(names, (g.w_ih, g.w_hh, g.b_ih, g.b_hh), strict=True)
        results["input"] = dy
    return results


@pytest.fixture
def agree() -> Callable[..., None]:
    """A function that compares results by name with what `reference_layer` says of a layer."""

    def compare(results: Results, layer: Any, x: Any, **options: Any) -> None:
        right = reference_layer(layer, x, **options)
        assert set(results) == set(right)
        errors = disagreement([results[name] for name in right], list(right.values()))
        assert max(errors) < TOLERANCE["float32"], dict(zip(right, errors, strict=True))

    return compare
