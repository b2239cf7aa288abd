"""Time the layers of `rnnfast.torch` against those of `torch.nn`, with the same weights and inputs.

What is timed is forward and backward through autograd: gradients of the input and the parameters.
The last case is a whole training step of a sequence classifier, before and after `accelerate`. The
two take turns; results are compared before the clock runs, and the best round counts.

    taskset -c 1 python benchmarks/torch_modules.py --json modules.json
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import rnnfast.torch
from rnnfast.bench.cases import SHAPES
from rnnfast.bench.machine import describe

Step: TypeAlias = Callable[[], list[Tensor]]  # one training step, and what it computed

DENSE = ("small", "medium", "long", "large", "xl")
PACKED = (100, 32, 128, 128)  # T, B, I, H
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}  # of the largest value


@dataclass(frozen=True)
class Case:
    """What is timed, and how many times as fast as `torch.nn` it should be."""

    name: str
    target: float
    make: Callable[[], tuple[Step, Step]]  # plain, fast


@dataclass
class Result:
    name: str
    plain_us: float
    rnnfast_us: float
    speedup: float
    target: float


class Classifier(torch.nn.Module):
    """Sequences of tokens to classes: the last state of a GRU decides."""

    def __init__(self, vocabulary: int, size: int, classes: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, size)
        self.gru = torch.nn.GRU(size, size)
        self.out = torch.nn.Linear(size, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = pack_padded_sequence(self.embedding(tokens), lengths, enforce_sorted=False)
        return self.out(self.gru(x)[1][-1])


def cases(quick: bool) -> Iterator[Case]:
    for shape in DENSE[:2] if quick else DENSE:
        for cell in "RNN", "GRU", "LSTM":
            target = 1.05 if cell == "LSTM" else 2.0 if shape == "small" else 1.3
            yield Case(f"{shape} {cell}", target, lambda c=cell, s=shape: layers(c, SHAPES[s]))
    for cell in "RNN", "GRU", "LSTM":
        yield Case(
            f"medium {cell} float64",
            2.5,
            lambda c=cell: layers(c, SHAPES["medium"], dtype=torch.float64),
        )
    for cell in "GRU", "LSTM":
        yield Case(f"packed {cell}", 3.0, lambda c=cell: layers(c, PACKED, packed=True))
    yield Case("classifier, with Adam", 2.0, classifiers)


def layers(
    cell: str,
    sizes: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    packed: bool = False,
) -> tuple[Step, Step]:
    T, B, I, H = sizes
    plain = getattr(torch.nn, cell)(I, H, dtype=dtype)
    fast = getattr(rnnfast.torch, cell)(I, H, dtype=dtype)
    fast.load_state_dict(plain.state_dict())
    x, dy = torch.randn(T, B, I, dtype=dtype, requires_grad=True), torch.randn(T, B, H, dtype=dtype)
    lengths = torch.randint(1, T + 1, (B,)) if packed else None

    def step_of(module: torch.nn.Module) -> Step:
        parameters = [x, *module.parameters()]

        def step() -> list[Tensor]:
            if lengths is None:
                y = module(x)[0]
                y.backward(dy)
            else:
                y = module(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data
                y.backward(dy.view(-1, H)[: len(y)])
            found = [y, *(parameter.grad for parameter in parameters)]
            for parameter in parameters:
                parameter.grad = None
            return found

        return step

    return step_of(plain), step_of(fast)


def classifiers() -> tuple[Step, Step]:
    T, B, _, H = PACKED
    plain = Classifier(vocabulary=1000, size=H, classes=5)
    fast = copy.deepcopy(plain)
    rnnfast.torch.accelerate(fast)
    tokens, lengths = torch.randint(1000, (T, B)), torch.randint(1, T + 1, (B,))
    target = torch.randint(5, (B,))

    def step_of(model: torch.nn.Module) -> Step:
        optimizer = torch.optim.Adam(model.parameters())

        def step() -> list[Tensor]:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(tokens, lengths), target)
            loss.backward()
            optimizer.step()
            return [loss]

        return step

    return step_of(plain), step_of(fast)


def check(name: str, plain: Iterable[Tensor], fast: Iterable[Tensor]) -> None:
    for a, b in zip(plain, fast, strict=True):
        error = float((a - b).detach().abs().max() / a.detach().abs().max())
        if not error <= TOLERANCE[a.dtype]:
            raise SystemExit(f"{name}: results differ by {error:.1e} of the largest value")


def seconds_of(step: Step, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return time.perf_counter() - start


def measure(case: Case, rounds: int, seconds: float) -> Result:
    torch.manual_seed(0)
    steps = case.make()
    for _ in range(2):  # the second step of a classifier starts where the first one led
        check(case.name, *(step() for step in steps))
    repeats = [max(1, round(seconds / seconds_of(step, 1))) for step in steps]
    best = [float("inf")] * 2
    for _ in range(rounds):
        for side, step in enumerate(steps):
            best[side] = min(best[side], seconds_of(step, repeats[side]) / repeats[side])
    plain, fast = (1e6 * b for b in best)
    return Result(case.name, plain, fast, plain / fast, case.target)


def table(results: Iterable[Result]) -> str:
    lines = [f"{'':24}{'torch.nn':>12}{'rnnfast':>12}{'speedup':>10}{'target':>9}"]
    for r in results:
        verdict = "" if r.speedup >= r.target else "  missed"
        times = f"{r.plain_us / 1000:>9.3f} ms{r.rnnfast_us / 1000:>9.3f} ms"
        lines.append(f"{r.name:<24}{times}{r.speedup:>9.2f}x{r.target:>8.2f}x{verdict}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, too short to publish")
    parser.add_argument("--threads", type=int, default=1, help="of both, by default 1")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds, seconds = (2, 0.05) if arguments.quick else (7, 0.2)
    chosen = [case for case in cases(arguments.quick) if arguments.only in case.name]
    results = []
    for number, case in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {case.name}", file=sys.stderr, flush=True)
        results.append(measure(case, rounds, seconds))
    print(table(results))
    if arguments.json:
        record = describe() | {"torch": torch.__version__, "threads": arguments.threads}
        record["results"] = [asdict(result) for result in results]
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
