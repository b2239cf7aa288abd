"""One of several processes that train a model of rnnfast.torch together; torchrun starts them.

    torchrun --standalone --nproc-per-node=2 _ddp_worker.py FOLDER

Writes the parameters and gradients after each step to FOLDER/RANK.pt.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
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
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


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
        model(x[:, rows], lengths[rows]).mean().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        record.append(
            {"grads": grads, "parameters": [p.detach().clone() for p in model.parameters()]}
        )
    return record


def together(folder: str) -> None:
    """Train with the other processes."""
    model, optimizer = make()
    wrapped = DistributedDataParallel(model)
    record = train(wrapped, optimizer, dist.get_world_size(), dist.get_rank())
    torch.save(record, f"{folder}/{dist.get_rank()}.pt")


def main() -> None:
    dist.init_process_group("gloo")
    together(sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
