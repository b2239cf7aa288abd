"""Schedules: their formulas, those of PyTorch, resuming by the history."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast.training import (
    SGD,
    CosineDecay,
    History,
    Plateau,
    StepDecay,
    WarmUp,
    fit,
)


def rates(schedule: Any, epochs: int) -> list[float]:
    return [schedule(epoch) for epoch in range(epochs)]


def torch_rates(make: Any, lr: float, epochs: int) -> list[float]:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule, found = make(torch.optim.lr_scheduler, optimizer), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_step_decay_is_that_of_torch() -> None:
    expected = torch_rates(lambda s, o: s.StepLR(o, 3, gamma=0.7), 0.3, 20)
    assert rates(StepDecay(0.3, 3, 0.7), 20) == pytest.approx(expected, rel=1e-13)


def test_cosine_decay_is_that_of_torch() -> None:
    expected = torch_rates(lambda s, o: s.CosineAnnealingLR(o, 13, eta_min=0.02), 0.3, 14)
    assert rates(CosineDecay(0.3, 13, last=0.02), 14) == pytest.approx(expected, rel=1e-12)


def test_cosine_decay_stays_at_its_end() -> None:
    schedule = CosineDecay(0.4, 4, last=0.1)
    assert schedule(0) == 0.4
    assert schedule(2) == pytest.approx(0.25)
    assert schedule(4) == schedule(5) == schedule(1000) == 0.1
    assert CosineDecay(0.4, 4)(4) == 0


def test_warm_up_is_that_of_torch() -> None:
    def make(s: Any, optimizer: Any) -> Any:
        rise = s.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        return s.SequentialLR(optimizer, [rise, s.StepLR(optimizer, 3, gamma=0.5)], [4])

    expected = torch_rates(make, 0.3, 15)
    assert rates(WarmUp(StepDecay(0.3, 3, 0.5), 4), 15) == pytest.approx(expected, rel=1e-12)


def test_warm_up_to_a_rate_or_a_function() -> None:
    assert rates(WarmUp(0.4, 3), 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates(WarmUp(lambda epoch: 0.4 - epoch / 10, 3), 5) == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.3]
    )


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("patience", "threshold"), [(0, 0.0), (2, 0.0), (3, 0.05)])
def test_plateau_is_that_of_torch(maximize: bool, patience: int, threshold: float) -> None:
    torch = pytest.importorskip("torch", reason="an independent witness, if installed")
    figures = np.random.default_rng(1).random(60) * np.linspace(2, 1, 60)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max" if maximize else "min", factor=0.7, patience=patience,
        threshold=threshold, threshold_mode="abs", min_lr=0.01, eps=0,
    )  # fmt: skip
    schedule = Plateau(0.5, 0.7, patience, threshold=threshold, lowest=0.01)
    history, found = History(maximize=maximize), set()
    for epoch, figure in enumerate(figures):
        schedule.observe(history)
        assert schedule(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        found.add(schedule(epoch))
        theirs.step(figure)
        history.add(0.0, 0.0, float(figure), 0.0)
    assert len(found) > 3


def test_plateau_goes_by_the_whole_history() -> None:
    """One that sees the history for the first time has the same rate as one that saw it grow."""
    history, grown = History(), Plateau(1.0, 0.5, patience=1)
    for figure in (3, 2, 2, 2.5, float("nan"), 1, 1.5, 1.2, 1.1):
        grown.observe(history)
        history.add(0.0, 0.0, float(figure), 0.0)
    for _ in range(2):
        grown.observe(history)
    assert grown(0) == 0.25
    fresh = Plateau(1.0, 0.5, patience=1)
    assert fresh(9) == 1.0
    fresh.observe(history)
    assert fresh(0) == 0.25


def test_plateau_without_a_held_out_figure_goes_by_the_loss() -> None:
    for maximize in (False, True):
        schedule, history = Plateau(1.0, 0.5, patience=0), History(maximize=maximize)
        for loss in (3.0, 2.0, 1.0):
            history.add(loss, 0.0, None, 0.0)
        schedule.observe(history)
        assert schedule(3) == 1.0
        history.add(1.0, 0.0, None, 0.0)
        schedule.observe(history)
        assert schedule(4) == 0.5


def test_warm_up_of_a_plateau_shows_it_the_epochs_after_the_first_ones() -> None:
    schedule, history = WarmUp(Plateau(1.0, 0.5, patience=0), 3), History()
    found = []
    for epoch, figure in enumerate((1, 2, 3, 9, 8, 8, 7)):
        schedule.observe(history)
        found.append(schedule(epoch))
        history.add(0.0, 0.0, float(figure), 0.0)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.5])
    WarmUp(0.1, 3).observe(history)  # nothing to show


ALL = [
    StepDecay(0.1, 10, factor=0.5),
    CosineDecay(0.1, 10, last=0.01),
    WarmUp(CosineDecay(0.1, 10), 3),
    WarmUp(0.1, 3),
    Plateau(0.1, patience=3, lowest=0.01),
]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_copies_and_what_is_printed_are_the_same_schedule(schedule: Any) -> None:
    names = {type(s).__name__: type(s) for s in ALL}
    for other in (pickle.loads(pickle.dumps(schedule)), eval(repr(schedule), names)):
        assert type(other) is type(schedule)
        assert repr(other) == repr(schedule)
        assert rates(other, 15) == rates(schedule, 15)


def test_a_copy_of_a_plateau_has_its_rate() -> None:
    schedule, history = Plateau(1.0, 0.5, patience=0), History()
    for _ in range(3):
        history.add(1.0, 0.0, None, 0.0)
    schedule.observe(history)
    assert pickle.loads(pickle.dumps(schedule))(3) == schedule(3) == 0.25


def test_fit_takes_a_schedule() -> None:
    seen = []
    optimizer = SGD({"w": np.zeros(1)})

    def loss(batch: Any) -> Any:
        seen.append(optimizer.lr)
        return 1.0, {"w": np.zeros(1)}

    schedule = WarmUp(StepDecay(0.4, 2, 0.5), 1)
    fit(loss, optimizer, [0], epochs=5, schedule=schedule, progress=False)
    assert seen == pytest.approx([0.2, 0.4, 0.4, 0.2, 0.2])


@pytest.mark.parametrize("maximize", [False, True])
def test_fit_shows_its_history_to_a_plateau_and_resumes_with_the_rate(
    maximize: bool, tmp_path: Path
) -> None:
    def train(epochs: int, path: Path | None) -> tuple[list[float], Any]:
        """Held-out figures that only get better in the first three of ten epochs."""
        optimizer, seen = SGD({"w": np.zeros(1)}), []

        def loss(batch: Any) -> Any:
            seen.append(optimizer.lr)
            return 1.0, {"w": np.ones(1)}

        def evaluate() -> float:
            sign = 1 if maximize else -1
            return float(sign * min(3, optimizer.steps))

        fit(
            loss, optimizer, [0], epochs=epochs, evaluate=evaluate, maximize=maximize,
            schedule=WarmUp(Plateau(0.8, 0.5, patience=1), 1), checkpoint=path, progress=False,
        )  # fmt: skip
        return seen, optimizer.params["w"][0]

    expected, w = train(10, None)
    assert expected == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1])
    for epochs in range(1, 10):
        path = tmp_path / f"{epochs}.npz"
        first, _ = train(epochs, path)
        rest, same = train(10, path)
        assert first + rest == expected
        assert same == w


step, cosine, plateau = (partial(s, 0.1) for s in (StepDecay, CosineDecay, Plateau))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: StepDecay(0, 3), ValueError, "lr is 0, expected a finite number > 0"),
        (lambda: step(0), ValueError, "epochs is 0, expected at least 1"),
        (lambda: step(1.5), TypeError, "epochs has type float"),
        (lambda: step(3, factor=0), ValueError, "factor is 0"),
        (lambda: step(3)(-1), ValueError, "epoch is -1, expected at least 0"),
        (lambda: step(3)(1.5), TypeError, "epoch has type float"),
        (lambda: cosine(0), ValueError, "epochs is 0"),
        (lambda: cosine(3, last=0.2), ValueError, "last is 0.2, expected 0 <= last <= lr = 0.1"),
        (lambda: cosine(3, last=-1), ValueError, "last is -1"),
        (lambda: cosine(3)(-1), ValueError, "epoch is -1"),
        (lambda: WarmUp(0.0, 3), ValueError, "schedule is 0.0, expected a finite number > 0"),
        (lambda: WarmUp("x", 3), TypeError, "schedule has type str"),  # type: ignore[arg-type]
        (lambda: WarmUp(0.1, 0), ValueError, "epochs is 0"),
        (lambda: WarmUp(0.1, 2)(-1), ValueError, "epoch is -1"),
        (lambda: plateau(factor=1), ValueError, "factor is 1, expected 0 <= factor < 1"),
        (lambda: plateau(factor=0), ValueError, "factor is 0, expected"),
        (lambda: plateau(patience=-1), ValueError, "patience is -1"),
        (lambda: plateau(threshold=np.inf), ValueError, "threshold is inf"),
        (lambda: plateau(lowest=0.2), ValueError, "lowest is 0.2, expected 0 <= lowest <= lr"),
        (lambda: Plateau("x"), TypeError, "lr has type str"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
