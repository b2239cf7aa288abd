"""Group: the layers of `rnnfast.torch` inside a PyTorch program."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

from clock import Clock, Row, Run, Sizes, SkipError, must_agree, one_thread_for_torch

from rnnfast.bench.cases import SHAPES
from rnnfast.bench.peers import missing

CELLS = ("RNN", "GRU", "LSTM")
DENSE = ("small", "medium", "long", "large", "xl")
FEW = tuple(product((1, 2, 8), (1, 4)))  # T, B of calls that are mostly overhead
PACKED = (100, 32, 128, 128)  # T, B, I, H


def modules(clock: Clock) -> Iterator[Row]:
    """Speed of rnnfast.torch's layers over torch.nn's, forward and backward through autograd."""
    if missing("torch"):
        raise SkipError("PyTorch is not installed")
    one_thread_for_torch()
    cases: list[tuple[str, float, Any]] = []
    for shape, cell in product(clock.some(DENSE), clock.some(CELLS)):
        goal = 1.05 if cell == "LSTM" else 2 if shape == "small" else 1.3
        cases.append((f"{shape} {cell}", goal, partial(layers, cell, SHAPES[shape])))
    for cell in clock.some(CELLS):
        make = partial(layers, cell, SHAPES["medium"], dtype="float64")
        cases.append((f"medium {cell} float64", 2.5, make))
    cases += [
        *(
            (f"packed {c}", 3, partial(layers, c, PACKED, packed=True))
            for c in clock.some(CELLS[1:])
        ),
        ("classifier, with Adam", 2, classifiers),
    ]
    for what, goal, make in cases:
        yield ratio(clock, what, goal, make)
    for cell, L, both, training in product(clock.some(CELLS), (1, 2), (False, True), (False, True)):
        yield few_steps(clock, cell, L, both, training)


def ratio(clock: Clock, what: str, goal: float, make: Any) -> Row:
    """PyTorch's time over rnnfast's, after a check of the results."""
    import torch

    torch.manual_seed(0)
    plain, fast = make()
    for _ in range(2):  # the second step of a classifier starts where the first one led
        theirs, ours = ([part.detach().numpy() for part in run()] for run in (plain, fast))
        must_agree(what, ours, theirs)
    found = clock.best(what, {"plain": plain, "fast": fast})
    note = f"{1e3 * found['fast']:.3g} ms, PyTorch {1e3 * found['plain']:.3g} ms"
    return Row(what, found["plain"] / found["fast"], "x", goal, at_least=True, note=note)


def few_steps(clock: Clock, cell: str, L: int, both: bool, training: bool) -> Row:
    """The least ratio of a layer of 32 -> 64 at the shapes of `FEW`; the note has the first one."""
    what = f"few steps {cell}, {L} layer{'s' * (L > 1)}{', both directions' * both}"
    what += ", training" if training else ", inference"
    goal = 1 if training or L > 1 else 1.5
    rows = [
        ratio(clock, what, goal, partial(stacked, cell, (T, B, 32, 64), L, both, training))
        for T, B in clock.some(FEW)
    ]
    least = min(row.measured for row in rows)
    note = f"one step of one row: {rows[0].measured:.2f}x, {rows[0].note}"
    return Row(what, least, "x", goal, at_least=True, note=note)


def stacked(cell: str, sizes: Sizes, num_layers: int, both: bool, training: bool) -> list[Run]:
    """A call of stacked layers, in inference mode or with a backward pass."""
    import torch

    import rnnfast.torch

    T, B, I, H = sizes
    options = {"num_layers": num_layers, "bidirectional": both}
    plain = getattr(torch.nn, cell)(I, H, **options)
    fast = getattr(rnnfast.torch, cell)(I, H, **options)
    fast.load_state_dict(plain.state_dict())
    x, dy = torch.randn(T, B, I), torch.randn(T, B, H * (1 + both))

    def infer(module: Any) -> tuple[Any, ...]:
        with torch.inference_mode():
            return module(x)[:1]  # type: ignore[no-any-return]

    def train(module: Any) -> tuple[Any, ...]:
        y, _ = module(x)
        return y, *torch.autograd.grad(y, list(module.parameters()), dy)

    return [partial(train if training else infer, module) for module in (plain, fast)]


def layers(cell: str, sizes: Sizes, dtype: str = "float32", packed: bool = False) -> list[Run]:
    """A training step of `torch.nn`'s layer and of rnnfast's, with the same weights and input."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    import rnnfast.torch

    T, B, I, H = sizes
    kind = getattr(torch, dtype)
    plain = getattr(torch.nn, cell)(I, H, dtype=kind)
    fast = getattr(rnnfast.torch, cell)(I, H, dtype=kind)
    fast.load_state_dict(plain.state_dict())
    x, dy = torch.randn(T, B, I, dtype=kind, requires_grad=True), torch.randn(T, B, H, dtype=kind)
    lengths = torch.randint(1, T + 1, (B,)) if packed else None

    def step(module: Any) -> tuple[Any, ...]:
        if lengths is None:
            y = module(x)[0]
            gradient = dy
        else:
            y = module(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data
            gradient = dy.view(-1, H)[: len(y)]
        return y, *torch.autograd.grad(y, [x, *module.parameters()], gradient)

    return [partial(step, plain), partial(step, fast)]


def classifiers() -> list[Run]:
    """A training step of a sequence classifier, as it is and after `accelerate`."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    import rnnfast.torch

    T, B, _, H = PACKED
    plain = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(1000, H),
            "gru": torch.nn.GRU(H, H),
            "out": torch.nn.Linear(H, 5),
        }
    )
    fast = rnnfast.torch.accelerate(copy.deepcopy(plain))
    tokens, lengths = torch.randint(1000, (T, B)), torch.randint(1, T + 1, (B,))
    target = torch.randint(5, (B,))

    def step_of(model: Any) -> Run:
        optimizer = torch.optim.Adam(model.parameters())

        def step() -> tuple[Any, ...]:
            optimizer.zero_grad()
            x = pack_padded_sequence(model["embedding"](tokens), lengths, enforce_sorted=False)
            logits = model["out"](model["gru"](x)[1][-1])
            loss = torch.nn.functional.cross_entropy(logits, target)
            loss.backward()
            optimizer.step()
            return (loss,)

        return step

    return [step_of(plain), step_of(fast)]
