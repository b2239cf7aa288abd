"""A training that goes on from its checkpoint ends with the bits of one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast.training import SGD, Adam, AdamW, History, fit, load_checkpoint, save_checkpoint

NAN = float("nan")


class Scripted:
    """Weights under noisy gradients; the held-out figure of every epoch is given."""

    def __init__(self, figures: list[float], seed: int = 0) -> None:
        self.figures = figures
        self.rng = np.random.default_rng(seed)
        self.params = {"w": self.rng.standard_normal(3), "b": self.rng.standard_normal((2, 2))}
        self.optimizer = Adam(self.params, lr=0.5 / (1 + seed))
        self.epoch = -1
        self.calls = 0
        self.stop_at = -1  # the batch, counted from here, at which Ctrl-C comes
        self.after: list[dict[str, Any]] = []  # the parameters after every epoch

    def batches(self, rng: np.random.Generator) -> Any:
        self.calls += 1
        return [rng.standard_normal(2) for _ in range(3)]

    def loss_and_grads(self, batch: Any) -> tuple[float, Any]:
        if self.stop_at == 0:
            raise KeyboardInterrupt
        self.stop_at -= 1
        grads = {name: 2 * p + batch[0] for name, p in self.params.items()}
        return float(batch[1] + sum(np.sum(p**2) for p in self.params.values())), grads

    def schedule(self, epoch: int) -> float:
        self.epoch = epoch
        return 0.1 / (1 + epoch)

    def evaluate(self) -> float:
        self.after.append({name: p.copy() for name, p in self.params.items()})
        return self.figures[self.epoch]

    def fit(self, epochs: int, **options: Any) -> History:
        given: dict[str, Any] = {"rng": self.rng, "schedule": self.schedule, "progress": False}
        given |= {"evaluate": self.evaluate} | options
        return fit(self.loss_and_grads, self.optimizer, self.batches, epochs=epochs, **given)

    def arrays(self) -> dict[str, Any]:
        return dict(self.params) | self.optimizer.state_arrays()


def assert_same(first: Scripted, one: History, second: Scripted, other: History) -> None:
    """The same weights, state, random state and figures; only the clock may differ."""
    np.testing.assert_array_equal(one.held_out, other.held_out)
    assert (one.loss, one.gradient_norm) == (other.loss, other.gradient_norm)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(second.arrays()[name], array, err_msg=name)
    assert first.optimizer.steps == second.optimizer.steps
    assert first.optimizer.lr == second.optimizer.lr
    assert first.rng.bit_generator.state == second.rng.bit_generator.state


# The figures, the options, and how many epochs there are in the end, of 9 at most.
COURSES: list[tuple[list[float], dict[str, Any], int]] = [
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {}, 9),
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {"patience": 2}, 4),
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {"patience": 3}, 8),
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {"patience": 8}, 9),
    ([3, 3, 3, 3, 3, 3, 3, 3, 3], {"patience": 4}, 5),
    ([NAN, 3, NAN, NAN, 2, 2, 2, 2, 2], {"patience": 3}, 8),
    ([NAN, NAN, NAN, NAN, 2, 2, 2, 2, 2], {"patience": 3}, 3),
    ([5, 4, 3, 2, 1, 0, 0, 0, 0], {"goal": 2}, 4),
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {"goal": 2.5, "patience": 2}, 4),
    ([5, 3, 4, 6, 2, 7, 8, 9, 1], {"goal": 2, "patience": 3}, 5),
]
courses = pytest.mark.parametrize(("figures", "options", "epochs"), COURSES)


@courses
def test_it_stops_in_time_and_ends_with_the_best(
    figures: list[float], options: dict[str, Any], epochs: int
) -> None:
    model = Scripted(figures)
    history = model.fit(9, **options)
    assert history.epochs == model.calls == epochs
    np.testing.assert_array_equal(history.held_out, figures[:epochs])
    seen = np.array(figures[:epochs])
    best = int(np.nanargmin(seen)) if not np.isnan(seen).all() else epochs - 1
    kept = model.after[best if "patience" in options else -1]
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, kept[name])


@courses
@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_it_goes_on_after_any_epoch(
    figures: list[float], options: dict[str, Any], epochs: int, cut: int, tmp_path: Path
) -> None:
    whole, path = Scripted(figures), tmp_path / "checkpoint.npz"
    expected = whole.fit(9, **options)
    Scripted(figures).fit(cut, checkpoint=path, **options)
    resumed = Scripted(figures, seed=7)
    history = resumed.fit(9, checkpoint=path, **options)
    assert_same(whole, expected, resumed, history)
    assert resumed.calls == max(0, epochs - cut)


@courses
@pytest.mark.parametrize("batch", [3, 8, 13])
def test_it_goes_on_after_ctrl_c(
    figures: list[float], options: dict[str, Any], epochs: int, batch: int, tmp_path: Path
) -> None:
    whole, path = Scripted(figures), tmp_path / "checkpoint.npz"
    expected = whole.fit(9, **options)
    stopped = Scripted(figures)
    stopped.stop_at = batch
    assert stopped.fit(9, checkpoint=path, **options).interrupted == (batch < 3 * epochs)
    resumed = Scripted(figures, seed=7)
    history = resumed.fit(9, checkpoint=path, **options)
    assert not history.interrupted
    assert_same(whole, expected, resumed, history)


@courses
def test_a_run_that_has_ended_is_given_back_as_it_was(
    figures: list[float], options: dict[str, Any], epochs: int, tmp_path: Path
) -> None:
    """Nothing is called again, and the file stays as it is."""
    path = tmp_path / "checkpoint.npz"
    first = Scripted(figures)
    history = first.fit(9, checkpoint=path, **options)
    content = path.read_bytes()
    for seed in (3, 4):
        again = Scripted(figures, seed=seed)
        repeated = again.fit(9, checkpoint=path, **options)
        assert_same(first, history, again, repeated)
        assert repeated.seconds == history.seconds
        assert (again.calls, again.epoch, again.after) == (0, -1, [])
        assert path.read_bytes() == content


def test_more_patience_goes_on_where_less_had_stopped(tmp_path: Path) -> None:
    """From the latest weights, which the file has too, and not from the best."""
    figures, path = [5.0, 3, 4, 6, 2, 7, 8, 9, 1], tmp_path / "checkpoint.npz"
    whole = Scripted(figures)
    expected = whole.fit(9, patience=3)
    Scripted(figures).fit(9, patience=2, checkpoint=path)
    resumed = Scripted(figures, seed=7)
    assert_same(whole, expected, resumed, resumed.fit(9, patience=3, checkpoint=path))


def test_ctrl_c_leaves_the_latest_weights_and_not_the_best() -> None:
    model, figures = Scripted([1.0, 2, 3]), [1.0, 2, 3]
    model.stop_at = 6
    history = model.fit(3, patience=5)
    assert history.interrupted
    assert history.held_out == figures[:2]
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, model.after[1][name])


def test_a_checkpoint_without_the_best_is_none_for_a_run_with_patience(tmp_path: Path) -> None:
    figures, path = [5.0, 3, 4], tmp_path / "checkpoint.npz"
    Scripted(figures).fit(2, checkpoint=path)
    model = Scripted(figures, seed=7)
    before = {name: p.copy() for name, p in model.params.items()}
    with pytest.raises(ValueError, match=r"extra has missing keys \['w', 'b'\]"):
        model.fit(3, checkpoint=path, patience=2)
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, before[name])


def test_one_with_the_best_will_do_for_a_run_without_patience(tmp_path: Path) -> None:
    figures, path = [5.0, 3, 4], tmp_path / "checkpoint.npz"
    whole = Scripted(figures)
    expected = whole.fit(3)
    Scripted(figures).fit(2, checkpoint=path, patience=9)
    resumed = Scripted(figures, seed=7)
    assert_same(whole, expected, resumed, resumed.fit(3, checkpoint=path))


def test_the_learning_rate_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    whole = Scripted([0.0] * 4)
    expected = whole.fit(4, schedule=None)
    Scripted([0.0] * 4).fit(2, checkpoint=path, schedule=None)
    resumed = Scripted([0.0] * 4, seed=7)
    assert resumed.optimizer.lr != whole.optimizer.lr
    assert_same(whole, expected, resumed, resumed.fit(4, checkpoint=path, schedule=None))


def test_the_epochs_of_a_resumed_training_have_their_own_numbers(tmp_path: Path) -> None:
    path, seen = tmp_path / "checkpoint.npz", []

    def schedule(epoch: int) -> float:
        seen.append(epoch)
        return 0.1

    for epochs in (2, 5):
        Scripted([0.0] * 5).fit(epochs, checkpoint=path, schedule=schedule, evaluate=None)
    assert seen == [0, 1, 2, 3, 4]


def test_a_checkpoint_has_the_weights_of_the_latest_epoch(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    model = Scripted([1.0, 2, 3])
    model.fit(3, checkpoint=path, patience=9)
    latest, best = ({name: np.zeros_like(p) for name, p in model.params.items()} for _ in "ab")
    info = load_checkpoint(path, latest, extra=best)
    assert History.from_dict(info).held_out == [1, 2, 3]
    for name, p in model.params.items():
        np.testing.assert_array_equal(latest[name], model.after[2][name])
        np.testing.assert_array_equal(best[name], model.after[0][name])
        np.testing.assert_array_equal(p, best[name])


# ------------------------------------------------------------------------ what belongs to a file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": SGD({"w": np.zeros(2, "f4")})}, "optimizer 'momentum.w' has dtype float64"),
        ({"optimizer": SGD({"v": np.zeros(2)})}, r"optimizer has missing keys \['momentum.v"),
        ({"optimizer": SGD({"w": np.zeros(3)})}, r"'momentum.w' has shape \(2,\), expected \(3,\)"),
        ({"rng": np.random.Generator(np.random.MT19937(0))}, "its random state does not fit"),
        ({"extra": {"other": np.zeros(2)}}, r"extra has missing keys \['other'\]"),
        ({"params": {"w": np.zeros(3)}}, r"params 'w' has shape \(2,\), expected \(3,\)"),
    ],
)
def test_what_belongs_to_another_is_refused_and_nothing_has_changed(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path, params = tmp_path / "checkpoint.npz", {"w": np.ones(2)}
    optimizer, rng = SGD(params, lr=0.25, momentum=0.5), np.random.default_rng(0)
    optimizer.step({"w": np.ones(2)})
    save_checkpoint(path, params, optimizer, rng, extra={"best": np.full(2, 7.0)})
    given: dict[str, Any] = {"params": {"w": np.zeros(2)}, "extra": {"best": np.zeros(2)}}
    given |= {"optimizer": SGD(given["params"], lr=0.5), "rng": np.random.default_rng(1)} | change
    state = given["rng"].bit_generator.state
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path, **given)
    assert repr(given["rng"].bit_generator.state) == repr(state)
    assert given["optimizer"].steps == 0
    assert given["optimizer"].lr != 0.25
    arrays = [given["params"]["w"], *given["extra"].values()]
    assert not any(a.any() for a in (*arrays, *given["optimizer"].state_arrays().values()))


def test_the_state_of_another_kind_of_optimizer_is_refused(tmp_path: Path) -> None:
    """Even where its arrays would fit."""
    path, params = tmp_path / "checkpoint.npz", {"w": np.ones(2)}
    save_checkpoint(path, params, Adam(params))
    with pytest.raises(ValueError, match="it holds a Adam, expected AdamW"):
        load_checkpoint(path, params, AdamW(params))


def test_a_part_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    path, params = tmp_path / "checkpoint.npz", {"w": np.ones(2)}
    rng = np.random.default_rng(0)
    save_checkpoint(path, params)
    with pytest.raises(ValueError, match=r"optimizer has missing keys \['momentum.w'\]"):
        load_checkpoint(path, params, SGD(params))
    with pytest.raises(ValueError, match="it holds no state of a random generator"):
        load_checkpoint(path, params, rng=rng)
    assert load_checkpoint(path, params) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"params": [1.0]}, TypeError, "params has type list, expected a dict of arrays, or"),
        ({"params": {"w": np.array(["x"])}}, TypeError, "array 'params.w' has dtype <U1"),
        ({"params": {"w" * 70_000: np.ones(1)}}, ValueError, "cannot be stored, expected text"),
        ({"extra": {"w\0": np.ones(1)}}, ValueError, "cannot be stored, expected text"),
        ({"info": {1j}}, TypeError, "a header holds set, which JSON cannot"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(
    options: dict[str, Any], error: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / "x.npz", **{"params": {"w": np.ones(1)}} | options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "none" / "x.npz", {"w": np.ones(1)})
