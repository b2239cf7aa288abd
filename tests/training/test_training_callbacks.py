"""`fit`: callbacks, figures that are better when higher, schedules that look at the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import one_batch, quadratic

from rnnfast.training import SGD, History, fit

NAN = float("nan")


def run(**options: Any) -> tuple[History, dict[str, Any]]:
    """Train the quadratic; the history, and the parameters at the end."""
    params, step = quadratic()
    given: dict[str, Any] = {"epochs": 6, "progress": False} | options
    return fit(step, SGD(params, lr=0.1), one_batch, **given), params


def scripted(figures: list[float]) -> dict[str, Any]:
    left = iter(figures)
    return {"evaluate": lambda: next(left), "epochs": len(figures)}


def test_callbacks_are_called_after_every_epoch_in_order() -> None:
    seen: list[Any] = []
    callbacks = [lambda h: seen.append(("a", h.epochs)), lambda h: seen.append(("b", h.loss[-1]))]
    history, _ = run(callbacks=callbacks, epochs=2)
    assert seen == [("a", 1), ("b", history.loss[0]), ("a", 2), ("b", history.loss[1])]


@pytest.mark.parametrize("answer", [True, np.True_, np.bool_(True)])
def test_true_ends_the_training_when_all_have_been_called(answer: Any) -> None:
    seen: list[int] = []
    callbacks = [lambda h: answer if h.epochs == 2 else None, lambda h: seen.append(h.epochs)]
    history, _ = run(callbacks=callbacks)
    assert history.epochs == 2
    assert seen == [1, 2]
    assert not history.interrupted


@pytest.mark.parametrize("answer", [None, False, 1, "yes", [0], 2.0])
def test_nothing_else_ends_it(answer: Any) -> None:
    assert run(callbacks=(lambda h: answer,))[0].epochs == 6


def test_the_best_parameters_are_taken_also_where_a_callback_ends_it() -> None:
    history, params = run(
        **scripted([3, 1, 2, 2, 2, 2]), patience=5, callbacks=[lambda h: h.epochs == 4]
    )
    assert history.epochs == 4
    np.testing.assert_array_equal(params["w"], run(epochs=2)[1]["w"])


def test_the_checkpoint_is_there_when_a_callback_runs(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"

    def fail(history: History) -> None:
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        run(callbacks=[fail], checkpoint=path)
    seen: list[int] = []
    history, params = run(callbacks=[lambda h: seen.append(h.epochs)], checkpoint=path)
    assert seen == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(params["w"], run()[1]["w"])
    assert history.epochs == 6


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (print, "callbacks has type builtin_function_or_method, expected a list of functions"),
        ([print, 3], r"callbacks\[1\] has type int, expected a function of the history"),
        (None, "callbacks has type NoneType"),
    ],
)
def test_what_is_no_list_of_callbacks_is_refused(callbacks: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run(callbacks=callbacks)


# The figures, the options, and the epochs in the end.
COURSES: list[tuple[list[float], dict[str, Any], int]] = [
    ([1, 3, 2, 4, 4, 1], {}, 6),
    ([1, 3, 2, 2, 9, 9], {"patience": 2}, 4),
    ([NAN, 3, NAN, 4, 3, 2], {"patience": 2}, 6),
    ([1, 3, 5, 2, 2, 2], {"goal": 5}, 3),
    ([1, 3, 5, 2, 2, 2], {"goal": 4.5}, 3),
    ([NAN, NAN, NAN, 2, 2, 2], {"patience": 3}, 3),
]


@pytest.mark.parametrize(("figures", "options", "epochs"), COURSES)
def test_the_highest_figure_may_be_the_best(
    figures: list[float], options: dict[str, Any], epochs: int
) -> None:
    history, params = run(**scripted(figures), maximize=True, **options)
    mirrored, same = run(
        **scripted([-f for f in figures]),
        **{n: -v if n == "goal" else v for n, v in options.items()},
    )
    assert history.epochs == mirrored.epochs == epochs
    assert history.best_epoch == mirrored.best_epoch
    np.testing.assert_array_equal(params["w"], same["w"])
    seen = np.array(figures[:epochs])
    if not np.isnan(seen).all():
        assert history.best_epoch == int(np.nanargmax(seen))


def test_maximize_needs_a_figure() -> None:
    with pytest.raises(ValueError, match="maximize needs evaluate, a held-out figure to go by"):
        run(maximize=True)


class Halving:
    """Halves the rate whenever the loss has risen, computed anew of the whole history."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.lr = 0.4

    def observe(self, history: History) -> None:
        self.seen.append(history.epochs)
        rises = sum(b > a for a, b in zip(history.held_out, history.held_out[1:], strict=False))
        self.lr = 0.4 / 2**rises

    def __call__(self, epoch: int) -> float:
        self.seen.append(epoch)
        return self.lr


def test_a_schedule_may_look_at_the_history_before_each_epoch() -> None:
    schedule, rates = Halving(), []
    params, step = quadratic()
    optimizer = SGD(params, lr=1.0)
    options = scripted([1, 2, 1, 3, 4])
    fit(
        step, optimizer, one_batch, schedule=schedule, progress=False,
        callbacks=[lambda h: rates.append(optimizer.lr)], **options,
    )  # fmt: skip
    assert schedule.seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rates == [0.4, 0.4, 0.2, 0.2, 0.1]


def test_such_a_schedule_goes_on_where_it_was(tmp_path: Path) -> None:
    figures, path = [1.0, 2, 1, 3, 4], tmp_path / "checkpoint.npz"
    whole = run(schedule=Halving(), **scripted(figures))[1]["w"]
    run(schedule=Halving(), **scripted(figures) | {"epochs": 3}, checkpoint=path)
    options = scripted(figures)
    for _ in range(3):
        options["evaluate"]()
    resumed = run(schedule=Halving(), **options, checkpoint=path)[1]["w"]
    np.testing.assert_array_equal(resumed, whole)


def test_a_history_prints_short() -> None:
    history, _ = run(**scripted([0.123456, 2, 3, 4, 5, 6]))
    history.seconds = [0.25] * 6
    loss = f"{history.loss[-1]:.4g}"
    assert repr(history) == (
        f"History(epochs=6, loss={loss}, held_out=6, best=0.1235, best_epoch=0, seconds=1.5)"
    )
    assert repr(History()) == "History(epochs=0, seconds=0.0)"
    assert repr(History([1.0], [1.0], [], [2.0], interrupted=True)) == (
        "History(epochs=1, loss=1, seconds=2.0, interrupted=True)"
    )


def test_maximize_comes_back_and_old_files_are_as_they_were() -> None:
    higher = History([1.0], [1.0], [2.0], [3.0], maximize=True)
    assert History.from_dict(higher.as_dict()) == higher
    lower = History([1.0], [1.0], [2.0], [3.0])
    assert "maximize" not in lower.as_dict()
    assert History.from_dict(lower.as_dict()) == lower
    with pytest.raises(ValueError, match="the stored history is damaged"):
        History.from_dict(lower.as_dict() | {"maximize": 1})
