"""Checkpoints: they resume to the same bits, and hostile files change nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import Summer, one_batch, quadratic

from rnnfast.training import SGD, Adam, History, Linear, fit, load_checkpoint, save_checkpoint


@pytest.fixture
def _safetensors() -> None:
    pytest.importorskip("safetensors", reason="checkpoints are an extra")


@pytest.mark.usefixtures("_safetensors")
@pytest.mark.parametrize("patience", [None, 3])
def test_resume_continues_bit_for_bit(tmp_path: Path, patience: int | None) -> None:
    whole = Summer()
    expected = whole.fit(6, patience=patience)
    path = tmp_path / "model.safetensors"
    Summer().fit(3, patience=patience, checkpoint=path)
    resumed = Summer(seed=99)  # other weights, other random state: all of it comes from the file
    history = resumed.fit(6, patience=patience, checkpoint=path)
    assert history.loss == expected.loss
    assert history.held_out == expected.held_out
    for name, p in whole.params.items():
        np.testing.assert_array_equal(p, resumed.params[name])
    assert whole.rng.bit_generator.state == resumed.rng.bit_generator.state


@pytest.mark.usefixtures("_safetensors")
def test_a_finished_training_is_loaded_and_not_gone_beyond(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    model = Summer()
    history = model.fit(3, checkpoint=path, patience=9)
    loaded = Summer(seed=9)
    again = loaded.fit(3, checkpoint=path, patience=9, progress=True)
    assert again == history
    assert capsys.readouterr() == ("", "")
    for name, p in model.params.items():
        np.testing.assert_array_equal(loaded.params[name], p)

    loaded = Summer(seed=9)
    before = {name: p.copy() for name, p in loaded.params.items()}
    message = r"model.safetensors' holds 3 epochs, expected at most epochs = 2; load_checkpoint"
    with pytest.raises(ValueError, match=message):
        loaded.fit(2, checkpoint=path, patience=9)
    for name, p in before.items():
        np.testing.assert_array_equal(loaded.params[name], p)


@pytest.mark.usefixtures("_safetensors")
@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_any_bit_generator_is_restored(tmp_path: Path, kind: str) -> None:
    params, _ = quadratic()
    path = tmp_path / "checkpoint"
    rng = np.random.Generator(getattr(np.random, kind)(1))
    rng.random(3)
    save_checkpoint(path, params, rng=rng, info={"note": [1, 2.5]})
    expected = rng.random(5)
    other = np.random.Generator(getattr(np.random, kind)(2))
    assert load_checkpoint(path, params, rng=other) == {"note": [1, 2.5]}
    np.testing.assert_array_equal(other.random(5), expected)


def damaged_files(good: bytes) -> dict[str, bytes]:
    """Files that must be refused, made from a good one."""
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])

    def rebuilt(new_header: Any) -> bytes:
        text = new_header if isinstance(new_header, bytes) else json.dumps(new_header).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    def with_text(change: dict[str, Any]) -> bytes:
        text = json.dumps(json.loads(header["__metadata__"]["rnnfast"]) | change)
        return rebuilt(header | {"__metadata__": {"rnnfast": text}})

    w = header["params.w"]
    start, end = w["data_offsets"]
    random_state = json.loads(header["__metadata__"]["rnnfast"])["rng"]
    deep = rebuilt(header | {"__metadata__": {"rnnfast": "[" * 100_000}})
    return {
        "empty": b"",
        "text": b"not a checkpoint at all",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "truncated": good[:-3],
        "cut header": good[:20],
        "huge header": (2**62).to_bytes(8, "little") + good[8:],
        "offsets outside": rebuilt(header | {"params.w": w | {"data_offsets": [start, 2**40]}}),
        "offsets turned": rebuilt(header | {"params.w": w | {"data_offsets": [end, start]}}),
        "huge shape": rebuilt(header | {"params.w": w | {"shape": [2**40, 2**40]}}),
        "other shape": rebuilt(header | {"params.w": w | {"shape": [1, 1]}}),
        "other dtype": rebuilt(header | {"params.w": w | {"dtype": "I64"}}),
        "no metadata": rebuilt({k: v for k, v in header.items() if k != "__metadata__"}),
        "metadata of another": rebuilt(header | {"__metadata__": {"format": "pt"}}),
        "metadata not JSON": rebuilt(header | {"__metadata__": {"rnnfast": "{"}}),
        "metadata too deep": deep,
        "metadata a list": rebuilt(header | {"__metadata__": {"rnnfast": "[]"}}),
        "other format": with_text({"format": "rnnfast checkpoint 2"}),
        "other optimizer": with_text({"optimizer": ["Adam", 1, 0.1]}),
        "optimizer steps": with_text({"optimizer": ["SGD", -1, 0.1]}),
        "optimizer rate": with_text({"optimizer": ["SGD", 1, float("nan")]}),
        "optimizer text": with_text({"optimizer": "SGD"}),
        "random state missing": with_text({"rng": None}),
        "random state of another kind": with_text({"rng": {"bit_generator": "MT19937"}}),
        "random state too large": with_text(
            {"rng": random_state | {"state": {"state": 2**200, "inc": 1}}}
        ),
        "random state text": with_text({"rng": random_state | {"state": "x"}}),
    }


@pytest.mark.usefixtures("_safetensors")
def test_damaged_and_hostile_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    params, step = quadratic()
    optimizer, rng = SGD(params, lr=0.1, momentum=0.9), np.random.default_rng(0)
    optimizer.step(step(0)[1])
    save_checkpoint(path, params, optimizer, rng)
    good = path.read_bytes()
    load_checkpoint(path, params, optimizer, rng)
    params["w"][0], optimizer.state["momentum"]["w"][0] = 7.0, 8.0
    state = rng.bit_generator.state
    for name, content in damaged_files(good).items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot load checkpoint") as raised:
            load_checkpoint(path, params, optimizer, rng)
        assert len(str(raised.value)) > len(f"cannot load checkpoint {os.fspath(path)!r}: "), name
        assert params["w"][0] == 7.0, name
        assert optimizer.state["momentum"]["w"][0] == 8.0, name
        assert optimizer.steps == 1, name
        assert rng.bit_generator.state == state, name


@pytest.mark.usefixtures("_safetensors")
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    params, _ = quadratic()
    save_checkpoint(path, params)
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match="cannot load checkpoint"):
            load_checkpoint(path, params)


@pytest.mark.usefixtures("_safetensors")
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"w": np.zeros(3), "b": np.zeros(2)})
    for params, message in [
        ({"w": np.zeros(3)}, r"params has missing keys \[\] and unexpected keys \['b'\]"),
        ({"w": np.zeros(3), "b": np.zeros(4)}, r"params 'b' has shape \(2,\), expected \(4,\)"),
        ({"w": np.zeros(3), "b": np.zeros(2, np.float32)}, "params 'b' has dtype float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path, params)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none", {})


@pytest.mark.usefixtures("_safetensors")
def test_a_layer_will_do_for_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first, second = Linear(3, 2, rng=0), Linear(3, 2, rng=1)
    save_checkpoint(path, first, Adam(first))
    load_checkpoint(path, second, Adam(second))
    np.testing.assert_array_equal(second.params["weight"], first.params["weight"])
    for call in (save_checkpoint, load_checkpoint):
        with pytest.raises(TypeError, match="params has type list, expected a dict of arrays, or"):
            call(path, [1.0])


@pytest.mark.usefixtures("_safetensors")
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    params, _ = quadratic()
    save_checkpoint(path, params)
    good = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    params["w"][0] = 5.0
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, params)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("_safetensors")
def test_a_damaged_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for info in (None, {"loss": ["x"]}, History([1.0], [], [], []).as_dict()):
        params, step = quadratic()
        optimizer = SGD(params)
        rng = np.random.default_rng(0)
        save_checkpoint(path, params, optimizer, rng, info=info)
        params["w"][0] = 7.0
        with pytest.raises(ValueError, match="stored history"):
            fit(step, optimizer, one_batch, epochs=1, checkpoint=path, progress=False)
        assert params["w"][0] == 7.0


def test_without_safetensors_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install rnnfast\[files\]"):
        save_checkpoint(tmp_path / "checkpoint", quadratic()[0])
