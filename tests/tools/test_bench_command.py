"""What the options of `rnnfast bench` make of a run."""

from __future__ import annotations

from typing import Any

import pytest

import rnnfast
from rnnfast.__main__ import main
from rnnfast.bench import command, run
from rnnfast.bench.cases import CELLS, DIRECTIONS, QUICK_SHAPES, SHAPES


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[run.Settings]:
    """What would be measured; nothing is."""
    found: list[run.Settings] = []

    def measure(settings: run.Settings) -> Any:
        found.append(settings)
        raise run.BenchError("not now")

    monkeypatch.setattr(command, "measure", measure)
    installed = ("numpy", "jax")
    monkeypatch.setattr(command, "missing", lambda name: [] if name in installed else [name])
    return found


def settings_of(asked: list[run.Settings], *arguments: str) -> run.Settings:
    assert main(["bench", *arguments]) == 1
    [settings] = asked
    return settings


def test_by_default_everything_is_measured_on_rnnfast_s_own_threads(
    asked: list[run.Settings],
) -> None:
    with rnnfast.num_threads(3):
        assert settings_of(asked) == run.Settings(
            threads=3,
            libraries=("rnnfast", "numpy", "jax"),
            cells=CELLS,
            shapes=tuple(SHAPES),
            directions=DIRECTIONS,
            dtype="float32",
            rounds=5,
            seconds=0.1,
        )


def test_quick_takes_a_few_shapes_and_short_times(asked: list[run.Settings]) -> None:
    settings = settings_of(asked, "--quick", "--threads", "1")
    assert (settings.shapes, settings.rounds, settings.seconds) == (QUICK_SHAPES, 3, 0.02)
    assert (settings.cells, settings.directions) == (CELLS, DIRECTIONS)
    assert settings.libraries == ("rnnfast", "numpy", "jax")


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_every_option_counts(asked: list[run.Settings], quick: list[str]) -> None:
    settings = settings_of(
        asked, *quick, "--threads", "2", "--cells", "lstm,rnn", "--shapes", "xl,step", "--peers",
        "jax", "--dtype", "float64", "--directions", "training", "--rounds", "7", "--seconds", "0",
    )  # fmt: skip
    assert settings == run.Settings(
        threads=2,
        libraries=("rnnfast", "jax"),
        cells=("rnn", "lstm"),
        shapes=("step", "xl"),
        directions=("training",),
        dtype="float64",
        rounds=7,
        seconds=0.0,
    )


def test_without_peers_rnnfast_is_measured_alone(asked: list[run.Settings]) -> None:
    assert settings_of(asked, "--peers", "none").libraries == ("rnnfast",)
