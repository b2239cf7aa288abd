"""Instruction sets: how one is chosen, and which of them the numerical tests have run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import ISAS

import rnnfast
from rnnfast._core import config


@pytest.mark.parametrize("name", config.ISAS)
def test_isa_of_a_process(name: str, tmp_path: Path) -> None:
    """The environment chooses it, and the tests of every ISA run what they say."""
    program = "import rnnfast; print(rnnfast.config()['isa'])"
    env = os.environ | {"RNNFAST_ISA": name, "PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    output = subprocess.check_output(command, cwd=tmp_path, env=env, text=True)
    assert output == f"{name}\n"


def test_isa_of_a_test(isa: str) -> None:
    """The tests of every ISA run what they say: the kernels have the vectors of that one."""
    assert rnnfast.config()["isa"] == isa
    layer = rnnfast.RNN(2, 3, rng=0)
    (state,) = layer.stream().layers
    assert state.h.shape[-1] == {"avx512": 16, "avx2": 8}.get(isa, 4), "h is padded to a vector"


@pytest.mark.parametrize("name", ISAS)
def test_isa_can_be_tested(name: str) -> None:
    """On some processors the numerical tests leave an instruction set out. This says so."""
    if name not in config.ISAS:
        pytest.skip(f"this processor cannot run {name}, so no test has used it")


def test_unknown_isa() -> None:
    with pytest.raises(ValueError, match=r"RNNFAST_ISA is 'none', expected one of .*baseline"):
        config.use_isa("none", "RNNFAST_ISA")
    assert rnnfast.config()["isa"] in config.ISAS
