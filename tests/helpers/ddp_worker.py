"""One of several processes that train a model of rnnfast.torch together; torchrun starts them.

    torchrun --standalone --nproc-per-node=2 ddp_worker.py FOLDER WRAPPER

Writes the loss, the parameters and the gradients of each step to FOLDER/RANK.pt. WRAPPER is one of
`WRAPPERS`. Where it cuts parameters up, each process has its own parts of them only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_padded_sequence

import rnnfast.torch

T, B, I, H = 7, 6, 3, 5  # a whole batch
STEPS = 3


class Model(nn.Module):
    """Each kind of layer once, the first for sequences of different length."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(I, H, num_layers=2)
        self.lstm = nn.LSTM(I, H, bidirectional=True)
        self.rnn = nn.RNN(2 * H, H)

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, _ = self.rnn(self.lstm(x)[0])
        return y.sin().mean((0, 2)) + self.gru(packed)[1][-1].cos().mean(1)


def make() -> tuple[Model, Any]:
    """The same model everywhere, and its optimiser."""
    torch.manual_seed(0)
    model = rnnfast.torch.accelerate(Model().double())
    return model, optimizer_of(model)


def optimizer_of(model: Any) -> Any:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def batch(step: int) -> tuple[Any, Any]:
    """The whole batch of a step: x (T, B, I) and lengths (B,)."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(T, B, I, generator=generator, dtype=torch.float64)
    return x, torch.randint(1, T + 1, (B,), generator=generator)


def train(model: Any, optimizer: Any, parts: int, part: int) -> list[dict[str, list[Any]]]:
    """Take the steps on one of several parts of each batch; what they were."""
    record = []
    for step in range(STEPS):
        x, lengths = batch(step)
        rows = slice(part * B // parts, (part + 1) * B // parts)
        optimizer.zero_grad()
        loss = model(x[:, rows], lengths[rows]).mean()
        loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        parameters = [p.detach().clone() for p in model.parameters()]
        record.append({"loss": loss.detach(), "grads": grads, "parameters": parameters})
    return record


def by_layer(model: Model) -> Any:
    for layer in (model.gru, model.lstm, model.rnn):
        fully_shard(layer)
    return fully_shard(model)


WRAPPERS: dict[str, Callable[[Model], Any]] = {
    "DDP": DistributedDataParallel,
    "FSDP": lambda model: FullyShardedDataParallel(model, device_id=torch.device("cpu")),
    "fully_shard": by_layer,
}


def together(folder: str, wrapper: str) -> None:
    """Train with the other processes."""
    model, _ = make()
    wrapped = WRAPPERS[wrapper](model)
    record = train(wrapped, optimizer_of(wrapped), dist.get_world_size(), dist.get_rank())
    if wrapper != "DDP":
        record = [{"loss": step["loss"]} for step in record]
    torch.save(record, f"{folder}/{dist.get_rank()}.pt")


def main() -> None:
    dist.init_process_group("gloo")
    together(*sys.argv[1:])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
