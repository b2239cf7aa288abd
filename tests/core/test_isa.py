"""Instruction sets: how one is chosen, and which of them the numerical tests have run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import ISAS

import rnnfast
from rnnfast import _kernels


@pytest.mark.parametrize("name", _kernels.ISAS)
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
    weights = [np.zeros(shape, np.float32) for shape in ((3, 2), (3, 3))]
    _, lanes = _kernels.pack(_kernels.RNN, _kernels.ACTIVATIONS["tanh"], *weights, *[None] * 3)
    assert lanes == {"avx512": 16, "avx2": 8}.get(isa, 4)


@pytest.mark.parametrize("name", ISAS)
def test_isa_can_be_tested(name: str) -> None:
    """On some processors the numerical tests leave an instruction set out. This says so."""
    if name not in _kernels.ISAS:
        pytest.skip(f"this processor cannot run {name}, so no test has used it")


def test_unknown_isa() -> None:
    with pytest.raises(ValueError, match=r"RNNFAST_ISA is 'none', expected one of .*baseline"):
        _kernels.use_isa("none", "RNNFAST_ISA")
    assert rnnfast.config()["isa"] in _kernels.ISAS
