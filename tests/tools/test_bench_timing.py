"""How the benchmark takes times: warm-up, the best round, turns, what is left out of them."""

from __future__ import annotations

import gc
import math
from collections import Counter
from itertools import pairwise, permutations
from typing import Any

import pytest
from fake_peers import Clock

from rnnfast.bench import timing, worker
from rnnfast.bench.work import Work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    monkeypatch.setattr(timing.gc, "collect", lambda: None)  # it takes long, and there are many
    return clock


def test_a_duration_is_that_of_all_calls(clock: Clock) -> None:
    assert timing.seconds_of(clock.lasting("a", 1.0, 2.0, 4.0), 3) == 7.0
    assert clock.calls == ["a"] * 3


def test_no_garbage_is_collected_while_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "perf_counter", Clock())
    seen = []

    def run() -> tuple[Any, ...]:
        seen.append(gc.isenabled())
        if len(seen) == 2:
            raise RuntimeError
        return ()

    with pytest.raises(RuntimeError):
        timing.seconds_of(run, 5)
    assert seen == [False, False]
    assert gc.isenabled()


@pytest.mark.parametrize("repeats", [1, 7, 10, 25])
def test_a_tenth_of_the_calls_warm_up_and_do_not_count(clock: Clock, repeats: int) -> None:
    warm = math.ceil(repeats / 10)
    run = clock.lasting("a", *[100.0] * warm, *[3.0] * repeats, 100.0)
    assert timing.seconds_per_call(run, repeats) == 3.0
    assert len(clock.calls) == warm + repeats


def test_repeats_fill_the_wanted_time(clock: Clock) -> None:
    assert 20 <= timing.repeats_for(clock.lasting("a", 0.002), 0.04) <= 40
    assert timing.repeats_for(clock.lasting("a", 0.002), 0.001) == 1
    assert timing.repeats_for(clock.lasting("a", 0.0), 0.0) == 1


@pytest.mark.parametrize("n", range(1, 8))
def test_everyone_has_every_place_once_in_as_many_rounds(n: int) -> None:
    rounds = [timing.turns(range(n), number) for number in range(n)]
    for places in zip(*rounds, strict=True):
        assert sorted(places) == list(range(n))
    assert all(sorted(order) == list(range(n)) for order in rounds)
    assert all(a != b for a, b in pairwise(rounds))
    assert timing.turns(range(n), n) == rounds[0]


@pytest.mark.parametrize("n", [2, 4, 6])
def test_everyone_follows_every_other_once(n: int) -> None:
    rounds = [timing.turns(range(n), number) for number in range(n)]
    after = Counter(pair for order in rounds for pair in pairwise(order))
    assert after == Counter(permutations(range(n), 2))


def test_the_fastest_is_the_one_with_the_best_round(clock: Clock) -> None:
    """`a`: cold, then good once; `b`: always the same, which is better in the mean and at worst."""
    a = clock.lasting("a", 50.0, 50.0, 9.0, 50.0, 1.0, 50.0, 9.0)
    runs = {"b": clock.lasting("b", 4.0), "a": a}
    assert timing.fastest(runs, rounds=3) == "a"
    assert timing.fastest({"slow": clock.lasting("s", 2.0), "c": clock.lasting("c", 1.0)}) == "c"
    assert timing.fastest({"c": clock.lasting("c", 1.0), "slow": clock.lasting("s", 2.0)}) == "c"


def test_the_fastest_is_found_in_turns(clock: Clock) -> None:
    timing.fastest({"a": clock.lasting("a", 1.0), "b": clock.lasting("b", 1.0)}, rounds=2)
    assert "".join(clock.calls) == "ab" + "aabb" + "bbaa"


def test_the_worker_tells_microseconds_per_call(clock: Clock) -> None:
    side = worker.Worker("numpy", 1)
    side.work, side.repeats = Work(clock.lasting("a", 100.0, 2e-6), 1), 4
    assert side.time() == {"us": pytest.approx(2.0)}
    assert len(clock.calls) == 1 + 4
