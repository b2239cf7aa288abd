"""`--compare torch`: the same model, data and optimiser steps in PyTorch, and the time of both."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, TypeAlias

Train: TypeAlias = Callable[[Sequence[Any]], list[float]]


def peer(name: str) -> str:
    """The value of `--compare`, refused before the work if PyTorch is not there."""
    if name != "torch":
        raise argparse.ArgumentTypeError(f"{name!r} is not torch")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise argparse.ArgumentTypeError(f"needs PyTorch, pip install torch ({error})") from error
    return name


OPTION: dict[str, Any] = {
    "type": peer,
    "metavar": "torch",
    "help": "time the same training steps in PyTorch, too",
}


def torch_adder(model: Any, lr: float) -> Train:
    """Training steps of `binary_adder.Adder` in PyTorch, from the same weights."""
    import torch

    net = torch.nn.ModuleDict({"lstm": _layer(model.lstm), "out": _linear(model.out)})

    def loss(batch: Any) -> Any:
        _, x, target = batch
        s = torch.sigmoid(net["out"](net["lstm"](x)[0]))
        return torch.nn.functional.mse_loss(s, target)

    return _training(net, model.params, loss, lr)


def torch_language_model(model: Any, lr: float, clip_norm: float) -> Train:
    """Training steps of `char_lm.LanguageModel` in PyTorch, from the same weights."""
    import torch

    embedding = torch.nn.Embedding(*model.embedding.params["weight"].shape)
    net = torch.nn.ModuleDict(
        {"embedding": embedding, "rnn": _layer(model.rnn), "out": _linear(model.out)}
    )
    state: Any = None

    def loss(batch: Any) -> Any:
        nonlocal state
        read, wanted = batch
        y, last = net["rnn"](net["embedding"](read), state)
        state = tuple(h.detach() for h in last) if isinstance(last, tuple) else last.detach()
        logits = net["out"](y)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    return _training(net, model.params, loss, lr, clip_norm)


def _layer(layer: Any) -> Any:
    """The recurrent layer of the same name and sizes."""
    import torch

    kind = getattr(torch.nn, type(layer).__name__)
    return kind(layer.input_size, layer.hidden_size, layer.num_layers, dropout=layer.dropout)


def _linear(layer: Any) -> Any:
    import torch

    return torch.nn.Linear(*layer.params["weight"].shape[::-1])


def _training(
    net: Any, params: Any, loss_of: Any, lr: float, clip_norm: float | None = None
) -> Train:
    """A loop over batches that returns their losses."""
    import torch

    net.load_state_dict({name: torch.from_numpy(p) for name, p in params.items()})
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)

    def train(batches: Sequence[Any]) -> list[float]:
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return train


def compare(
    what: str, ours: Train, theirs: Train, batches: Sequence[Any], rounds: int, threads: int
) -> dict[str, Any]:
    """Time both on the same batches, in turns; print the medians and return them for the JSON.

    Making the batches is in neither time. One batch each goes before, untimed: its losses are
    returned as `first_losses`, the same on both sides but for rounding if there is no dropout.
    """
    import torch

    tensors = [tuple(map(torch.from_numpy, batch)) for batch in batches]
    size = (len(batches) - 1) // rounds
    seconds: list[tuple[float, float]] = []
    with _torch_threads(threads):
        first = [ours(batches[:1])[0], theirs(tensors[:1])[0]]
        for start in range(1, 1 + rounds * size, size):
            part = slice(start, start + size)
            seconds.append((_time(ours, batches[part]) / size, _time(theirs, tensors[part]) / size))
    rnnfast_step, torch_step = map(median, zip(*seconds, strict=True))
    print(
        f"{what}, PyTorch {torch.__version__}: {1e3 * torch_step:.3g} ms per training step, "
        f"rnnfast {1e3 * rnnfast_step:.3g} ms: {torch_step / rnnfast_step:.2f}x\n"
        f"(medians of {rounds} rounds of {size} steps each, in turns, {threads} thread"
        f"{'s' * (threads > 1)}, from the same weights; making the batches not included)\n"
    )
    return {
        "torch_version": torch.__version__,
        "torch_seconds_per_step": torch_step,
        "rnnfast_seconds_per_step": rnnfast_step,
        "speed_up": torch_step / rnnfast_step,
        "timed_steps": rounds * size,
        "first_losses": first,
    }


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(train: Train, batches: Sequence[Any]) -> float:
    started = time.perf_counter()
    train(batches)
    return time.perf_counter() - started
