"""Two processes, started by torchrun, that share data (DDP) and parameters too (FSDP)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import ddp_worker  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this build of PyTorch has no gloo",
)
EXAMPLE = Path(__file__).parents[2] / "docs/examples/torchrun_ddp.py"


def torchrun(*command: str | Path) -> str:
    """Run a script in two processes, which find each other by a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = *launcher, "--nproc-per-node=2", *map(str, command)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    torchrun(ddp_worker.__file__, tmp_path, "DDP")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = ddp_worker.train(*ddp_worker.make(), parts=1, part=0)
    assert len(first) == len(second) == len(alone) == ddp_worker.STEPS
    for a, b, whole in zip(first, second, alone, strict=True):
        for name in "grads", "parameters":
            for mine, other, want in zip(a[name], b[name], whole[name], strict=True):
                assert torch.equal(mine, other)
                torch.testing.assert_close(mine, want, rtol=1e-9, atol=1e-12)
    starts = [p.detach() for p in ddp_worker.make()[0].parameters()]
    ends = first[-1]["parameters"]
    assert all((a - b).abs().max() > 0.01 for a, b in zip(starts, ends, strict=True))


@pytest.mark.parametrize("wrapper", ["FSDP", "fully_shard"])
def test_two_processes_with_parts_of_the_parameters(tmp_path: Path, wrapper: str) -> None:
    """Both free the storage of whole parameters between calls, so that it must be resizable."""
    torchrun(ddp_worker.__file__, tmp_path, wrapper)
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = ddp_worker.train(*ddp_worker.make(), parts=1, part=0)
    for first, second, whole in zip(*shares, alone, strict=True):
        mean = (first["loss"] + second["loss"]) / 2
        torch.testing.assert_close(mean, whole["loss"], rtol=1e-9, atol=1e-12)


def test_the_example_learns() -> None:
    output = torchrun(EXAMPLE)
    assert "replaced  gru" in output
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", output)]
    assert len(losses) == 3
    assert losses[-1] < 0.01 < losses[0]
