"""Train a small model on several processes with PyTorch's DistributedDataParallel.

    torchrun --nproc-per-node=2 docs/examples/torchrun_ddp.py

Every process computes the gradients of its own part of a batch; PyTorch averages them (gloo), and
all take the same step. torchrun gives each process one thread, unless OMP_NUM_THREADS says
otherwise. The task: remember the first of 20 numbers.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import rnnfast.torch

BATCH, STEPS = 64, 150


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, h_n = self.gru(x)
        return self.out(h_n[-1])


def train(rank: int, processes: int) -> None:
    torch.manual_seed(0)
    memory = rnnfast.torch.accelerate(Memory())
    model = DistributedDataParallel(memory)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    if rank == 0:
        print(f"{processes} processes; {rnnfast.torch.report(memory)}")

    torch.manual_seed(rank)  # every process draws its own data
    for step in range(1, STEPS + 1):
        x = torch.rand(BATCH // processes, 20, 1)
        loss = nn.functional.mse_loss(model(x), x[:, 0])
        optimizer.zero_grad()
        loss.backward()  # averages the gradients, too
        optimizer.step()
        if rank == 0 and step % 50 == 0:
            print(f"step {step}  loss {loss.item():.5f}", flush=True)


def main() -> None:
    dist.init_process_group("gloo")  # torchrun's variables say how many we are, and which am I
    train(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # after the model, which knows the group, is gone


if __name__ == "__main__":
    main()
