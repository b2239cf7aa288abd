"""What objects show of themselves, and how many parameters they say they have."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast import GRU, LSTM, RNN, Recurrent, cells, training
from rnnfast.training import (
    RTRL,
    SGD,
    Activation,
    Adam,
    AdamW,
    Attention,
    Dropout,
    Embedding,
    Linear,
    RMSprop,
    Rprop,
    Standardizer,
    join,
)

LAYER = LSTM(3, 4, rng=0)
SHOWN = [
    (Linear(3, 4), "Linear(3, 4)"),
    (Linear(3, 4, bias=False, dtype=np.float64), "Linear(3, 4, bias=False, dtype=float64)"),
    (Embedding(50, 8, rng=0), "Embedding(50, 8)"),
    (Embedding(50, 8, dtype=float), "Embedding(50, 8, dtype=float64)"),
    (Dropout(), "Dropout(p=0.5)"),
    (Dropout(0.25, rng=0), "Dropout(p=0.25)"),
    (Activation("tanh"), "Activation('tanh')"),
    (Attention(), "Attention()"),
    (RTRL(RNN(2, 3)), "RTRL(RNN(2, 3))"),
    (RTRL(RNN(2, 3), batch_size=5), "RTRL(RNN(2, 3), batch_size=5)"),
    (SGD(LAYER), "SGD(lr=0.01)"),
    (SGD(LAYER, 0.5, momentum=0.9), "SGD(lr=0.5, momentum=0.9)"),
    (Adam(LAYER), "Adam(lr=0.001)"),
    (Adam(LAYER, betas=(0.5, 0.9), eps=1e-6), "Adam(lr=0.001, betas=(0.5, 0.9), eps=1e-06)"),
    (AdamW(LAYER), "AdamW(lr=0.001)"),
    (AdamW(LAYER, weight_decay=0), "AdamW(lr=0.001, weight_decay=0)"),
    (RMSprop(LAYER, alpha=0.9), "RMSprop(lr=0.01, alpha=0.9)"),
    (Rprop(LAYER, step_sizes=(1e-3, 1)), "Rprop(lr=0.01, step_sizes=(0.001, 1.0))"),
    (Standardizer(), "Standardizer()"),
    (Standardizer().fit(np.ones((5, 3))), "Standardizer(features=3)"),
    (GRU(3, 4, 2).stream(), "Stream(GRU(3, 4, num_layers=2))"),
    (LAYER.stream(7, threads=2), "Stream(LSTM(3, 4), batch_size=7, threads=2)"),
    (Recurrent(cells.mgu, 3, 4).stream(2), "CellStream(Recurrent(mgu, 3, 4), batch_size=2)"),
]


@pytest.mark.parametrize(("thing", "text"), SHOWN, ids=[text for _, text in SHOWN])
def test_what_is_shown_is_the_call(thing: Any, text: str) -> None:
    assert repr(thing) == text
    assert repr(copy.deepcopy(thing)) == text
    if not isinstance(thing, RTRL):  # whose activations are functions without a name
        assert repr(pickle.loads(pickle.dumps(thing))) == text


def test_the_rate_that_is_shown_is_that_of_now() -> None:
    optimizer = Adam(LAYER)
    optimizer.lr = np.float64(0.25)
    assert repr(optimizer) == "Adam(lr=0.25)"


def test_a_subclass_with_arguments_of_its_own_can_be_shown() -> None:
    class Head(Linear):
        def __init__(self, classes: int, *names: str, hidden: int = 8, **options: Any) -> None:
            super().__init__(hidden, classes, **options)

    assert repr(Head(3, "a", bias=False)) == "Head()"
    assert Head(3).num_parameters == 27


def test_every_class_of_the_kit_shows_itself() -> None:
    """But for results, which are tuples, and what is no object to keep."""
    for name in training.__all__:
        kind = getattr(training, name)
        if isinstance(kind, type) and not issubclass(kind, tuple) and name != "Progress":
            assert kind.__repr__ is not object.__repr__, name


@pytest.mark.parametrize(
    ("thing", "count"),
    [
        (Linear(3, 4), 16),
        (Linear(3, 4, bias=False), 12),
        (Embedding(50, 8), 400),
        (Dropout(), 0),
        (Activation("relu"), 0),
        (Attention(), 0),
        (LSTM(3, 4, 2, bidirectional=True, proj_size=2), None),
        (GRU(3, 4, bias=False), 3 * 4 * 7),
        (Recurrent(cells.mgu, 3, 4), None),
        (SGD(LAYER), 16 * (3 + 4 + 2)),
        (Adam(join(a=LAYER, b=Linear(4, 5))), 16 * 9 + 25),
    ],
)
def test_number_of_parameters(thing: Any, count: int | None) -> None:
    assert type(thing.num_parameters) is int
    assert thing.num_parameters == sum(p.size for p in thing.params.values())
    assert count is None or thing.num_parameters == count
    with pytest.raises(AttributeError):
        thing.num_parameters = 3


def test_tied_parameters_count_once() -> None:
    embedding, out = Embedding(7, 5), Linear(5, 7)
    out.params["weight"] = embedding.params["weight"]
    model = join(embedding=embedding, out=out)
    assert SGD(model).num_parameters == 35 + 7
    assert rnnfast.Sequential(embedding, out).num_parameters == 35 + 7
