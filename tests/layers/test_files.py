"""Layers in files: what comes back, and that whatever is not right is refused with a reason."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cover

import rnnfast
from rnnfast import GRU, LSTM, RNN, load
from rnnfast.training import save_checkpoint

needs_safetensors = pytest.mark.usefixtures("_safetensors")
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{n: (RNN, {"nonlinearity": n}) for n in ("tanh", "relu", "sigmoid", "identity")},
    "gru": (GRU, {}),
    "reset_before": (GRU, {"reset_after": False}),
    "lstm": (LSTM, {}),
    "projected": (LSTM, {"proj_size": 2}),
}
OPTIONS = cover(
    16,
    seed=3,
    kind=KINDS,
    num_layers=(2, 3),
    bias=(True, False),
    batch_first=(False, True),
    dropout=(0.0, 0.25),
    bidirectional=(False, True),
    dtype=("float32", "float64"),
)


def options_of(layer: Any) -> dict[str, Any]:
    """All that the layer was told, but for its random numbers."""
    public = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if name not in ("rng", "params")}


@pytest.fixture
def _safetensors() -> None:
    pytest.importorskip("safetensors", reason="files in its format need it")


@pytest.fixture(params=["layer", "layer.npz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path of either format."""
    name: str = request.param
    if not name.endswith(".npz"):
        pytest.importorskip("safetensors", reason="files in its format need it")
    return tmp_path / name


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_the_same_layer_comes_back(path: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    kind, variant = KINDS[options.pop("kind")]
    layer = kind(3, 5, **variant, **options, rng=0)
    layer.save(path)
    again: Any = load(os.fspath(path))
    assert type(again) is kind
    assert options_of(again) == options_of(layer)
    assert list(again.params) == list(layer.params)
    for name, value in layer.params.items():
        np.testing.assert_array_equal(again.params[name], value, strict=True)
    x = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(options["dtype"])
    np.testing.assert_array_equal(again(x)[0], layer(x)[0], strict=True)
    y, _, tape = again.forward(x)  # and it can be trained
    again.backward(tape, y)


def test_parameters_are_stored_as_they_are(path: Path) -> None:
    layer = GRU(3, 5, rng=0)
    layer.params["weight_ih_l0"] = np.asfortranarray(layer.params["weight_ih_l0"])
    layer.params["weight_hh_l0"][0, :3] = np.nan, np.inf, -0.0
    layer.save(path)
    again = load(path)
    for name, value in layer.params.items():
        assert again.params[name].tobytes() == value.tobytes()
    layer.params["weight_ih_l0"] = np.zeros((15, 4), np.float32)
    with pytest.raises(ValueError, match=r"params\['weight_ih_l0'\] has shape \(15, 4\)"):
        layer.save(path)


@needs_safetensors
def test_other_readers_find_the_state_dict(tmp_path: Path) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    layer = LSTM(3, 5, 2, bidirectional=True)
    layer.save(tmp_path / "layer")
    arrays = numpy_reader.load_file(tmp_path / "layer")
    assert arrays.keys() == layer.params.keys()
    LSTM(3, 5, 2, bidirectional=True).load_state_dict(arrays)


@needs_safetensors
def test_a_file_of_arrays_alone_is_for_load_state_dict(tmp_path: Path) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    numpy_reader.save_file(GRU(3, 5).state_dict(), tmp_path / "layer", {"format": "pt"})
    with pytest.raises(ValueError, match=r"without rnnfast's metadata.* load_state_dict"):
        load(tmp_path / "layer")


def test_a_checkpoint_is_no_layer(path: Path) -> None:
    save_checkpoint(path, GRU(3, 5).params)
    message = "its format is 'rnnfast checkpoint 1', expected 'rnnfast layer 1'"
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_subclass_is_not_saved_as_what_it_is_not(path: Path) -> None:
    class Other(GRU):
        pass

    with pytest.raises(TypeError, match="layer has type Other, expected RNN, GRU, LSTM"):
        Other(3, 5).save(path)
    assert not any(path.parent.iterdir())


# -------------------------------------------------------------------------------------- bad files


class File:
    """A good file taken apart, to be put together otherwise."""

    def __init__(self, content: bytes) -> None:
        size = int.from_bytes(content[:8], "little")
        self.content, self.data = content, content[8 + size :]
        self.header = json.loads(content[8 : 8 + size])
        self.text = json.loads(self.header["__metadata__"]["rnnfast"])

    def with_header(self, header: Any) -> bytes:
        """The file with another header of safetensors."""
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + self.data

    def with_text(self, text: Any) -> bytes:
        """The file with another header of rnnfast."""
        text = text if isinstance(text, str) else json.dumps(text)
        return self.with_header(self.header | {"__metadata__": {"rnnfast": text}})

    def with_option(self, **options: Any) -> bytes:
        """The file with other options."""
        return self.with_text(self.text | {"options": self.text["options"] | options})


@pytest.fixture
def good(tmp_path: Path, _safetensors: None) -> File:
    LSTM(3, 5, 2, proj_size=2, rng=0).save(tmp_path / "good")
    return File((tmp_path / "good").read_bytes())


def damaged(good: File) -> dict[str, tuple[bytes, str]]:
    """Files to refuse, and a part of the reason."""
    name = "weight_ih_l0"
    w = good.header[name]
    start, end = w["data_offsets"]
    options = good.text["options"]
    without = {k: v for k, v in options.items() if k != "bias"}
    deep = "[" * 100_000 + "]" * 100_000

    def with_array(**change: Any) -> bytes:
        return good.with_header(good.header | {name: w | change})

    return {
        "empty": (b"", ""),
        "text": (b"not a layer at all", ""),
        "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", ""),
        "cut data": (good.content[:-3], ""),
        "more data": (good.content + b"1234", ""),
        "huge header": ((2**62).to_bytes(8, "little") + good.content[8:], ""),
        "negative header": (b"\xff" * 8 + good.content[8:], ""),
        "offsets outside": (with_array(data_offsets=[start, 2**40]), ""),
        "offsets turned": (with_array(data_offsets=[end, start]), ""),
        "huge shape": (with_array(shape=[2**40, 2**40]), ""),
        "other shape": (
            with_array(shape=[3, 20]),
            "arrays['weight_ih_l0'] has shape (3, 20), expected (20, 3)",
        ),
        "integers": (with_array(dtype="I32"), "has dtype int32, expected float32"),
        "half": (with_array(dtype="BF16", shape=[20, 6]), ""),
        "renamed array": (
            good.with_header(
                {("more" if key == name else key): v for key, v in good.header.items()}
            ),
            "missing keys ['weight_ih_l0'] and unexpected keys ['more']",
        ),
        "no metadata": (
            good.with_header({k: v for k, v in good.header.items() if k != "__metadata__"}),
            "load_state_dict",
        ),
        "metadata no JSON": (good.with_text("{"), ""),
        "metadata a list": (good.with_text([]), "its format is None"),
        "metadata deep": (good.with_text(deep), "recursion"),
        "other version": (good.with_text(good.text | {"format": "rnnfast layer 2"}), "layer 2"),
        "no class": (good.with_text({"format": "rnnfast layer 1"}), "its class is None"),
        "unknown class": (
            good.with_text(good.text | {"class": "BuiltIn"}),
            "its class is 'BuiltIn', expected one of RNN, GRU, LSTM",
        ),
        "class a list": (good.with_text(good.text | {"class": ["LSTM"]}), "its class is ['LSTM']"),
        "other class": (good.with_text(good.text | {"class": "GRU"}), "its options are"),
        "options a list": (good.with_text(good.text | {"options": []}), "its options are []"),
        "option missing": (good.with_text(good.text | {"options": without}), "expected input_size"),
        "option unknown": (good.with_option(rng=0), "its options are"),
        "option NaN": (good.with_option(dropout=float("nan")), "dropout is nan, expected a number"),
        "size NaN": (good.with_option(hidden_size=float("nan")), "hidden_size has type float"),
        "size infinite": (good.with_option(num_layers=float("inf")), "num_layers has type float"),
        "size a text": (good.with_option(input_size="3"), "input_size has type str"),
        "size true": (good.with_option(input_size=True), "input_size has type bool"),
        "size negative": (good.with_option(proj_size=-1), "proj_size is -1, expected at least 0"),
        "size other": (good.with_option(input_size=4), "has shape (20, 3), expected (20, 4)"),
        "size huge": (good.with_option(hidden_size=10**12), "expected (4000000000000, 3)"),
        "size beyond floats": (good.with_option(hidden_size=10**400), "has shape (20, 3)"),
        "layers huge": (good.with_option(num_layers=10**12), "there are 10 arrays"),
        "layers less": (good.with_option(num_layers=1), "unexpected keys ['bias_hh_l1',"),
        "bias a number": (good.with_option(bias=1), "option bias is 1, expected True"),
        "bias null": (good.with_option(bias=None), "option bias is None, expected False"),
        "bias NaN": (good.with_option(bias=float("nan")), "option bias is nan, expected True"),
        "dtype other": (good.with_option(dtype="float64"), "has dtype float32, expected float64"),
        "dtype short": (good.with_option(dtype="f4"), "option dtype is 'f4', expected 'float32'"),
        "dtype nonsense": (good.with_option(dtype=[["O"]]), "dtype is [['O']], expected float32"),
        "directions": (good.with_option(bidirectional=True), "missing keys"),
    }


def test_what_is_not_right_is_refused(tmp_path: Path, good: File) -> None:
    path = tmp_path / "layer"
    path.write_bytes(good.with_text(good.text))
    assert repr(load(path)) == "LSTM(3, 5, num_layers=2, proj_size=2)"
    for name, (content, reason) in damaged(good).items():
        path.write_bytes(content)
        prefix = f"cannot load layer {os.fspath(path)!r}: "
        with pytest.raises(ValueError, match=re.escape(prefix) + ".") as raised:
            load(path)
        assert reason in str(raised.value), (name, str(raised.value))


def test_an_unknown_nonlinearity_is_refused(tmp_path: Path, good: File) -> None:
    path = tmp_path / "layer"
    RNN(3, 5).save(path)
    path.write_bytes(File(path.read_bytes()).with_option(nonlinearity="hardtanh"))
    with pytest.raises(ValueError, match="nonlinearity is 'hardtanh', expected one of 'tanh'"):
        load(path)


def test_a_truncated_file_is_refused(tmp_path: Path, good: File) -> None:
    path = tmp_path / "layer"
    for size in [*range(0, len(good.content), 13), len(good.content) - 1]:
        path.write_bytes(good.content[:size])
        with pytest.raises(ValueError, match="cannot load layer"):
            load(path)


def test_a_changed_byte_is_refused_or_harmless(tmp_path: Path, good: File) -> None:
    path, rng = tmp_path / "layer", np.random.default_rng(0)
    header_size = len(good.content) - len(good.data)
    for at in range(0, header_size, 2):
        content = bytearray(good.content)
        content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            layer = load(path)
        except ValueError as error:
            assert str(error).startswith("cannot load layer")  # noqa: PT017
        else:
            assert type(layer) is LSTM


# --------------------------------------------------------------------------------- the file system


def test_missing_files_and_folders(path: Path) -> None:
    folder = path.parent
    with pytest.raises(FileNotFoundError):
        load(path)
    with pytest.raises(IsADirectoryError):
        load(folder)
    with pytest.raises(FileNotFoundError):
        GRU(3, 5).save(folder / "none" / path.name)
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        GRU(3, 5).save(path)
    assert list(folder.rglob("*")) == [path]


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GRU(3, 5).save(path)
    old = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        GRU(7, 5).save(path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_the_old_file_reads_it_to_its_end(path: Path) -> None:
    """A new file takes its place in one step, and nothing is left beside it."""
    GRU(3, 5).save(path)
    old = path.read_bytes()
    with open(path, "rb") as reader:
        start = reader.read(10)
        GRU(7, 5).save(path)
        assert start + reader.read() == old
    assert load(path).input_size == 7
    assert list(path.parent.iterdir()) == [path]


def test_a_link_is_followed_and_permissions_are_the_usual_ones(path: Path) -> None:
    plain, link = path.with_name("plain"), path.with_name(f"link{path.suffix}")
    plain.write_bytes(b"")
    path.write_bytes(b"old")
    link.symlink_to(path)
    GRU(3, 5).save(link)
    assert link.is_symlink()
    assert load(path).input_size == 3
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@needs_safetensors
def test_without_safetensors_the_message_names_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GRU(3, 5).save(tmp_path / "layer")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    message = r"pip install rnnfast\[files\]; a file saved under a name in \.npz needs none"
    with pytest.raises(ImportError, match=message):
        GRU(3, 5).save(tmp_path / "other.safetensors")
    with pytest.raises(ImportError, match=message):
        load(tmp_path / "layer")
    assert [found.name for found in tmp_path.iterdir()] == ["layer"]


@needs_safetensors
def test_the_content_tells_the_format_not_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GRU(3, 5).save(tmp_path / "one")
    LSTM(3, 5).save(tmp_path / "two.npz")
    (tmp_path / "one").rename(tmp_path / "one.npz")
    (tmp_path / "two.npz").rename(tmp_path / "two.safetensors")
    assert type(load(tmp_path / "one.npz")) is GRU
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert type(load(tmp_path / "two.safetensors")) is LSTM


def test_what_has_neither_format_is_refused_without_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for content in (b"", b"{", b"not a layer at all", b"\x89HDF\r\n\x1a\n\0"):
        (tmp_path / "layer").write_bytes(content)
        with pytest.raises(ValueError, match="it is neither a safetensors nor an npz file"):
            load(tmp_path / "layer")


def test_save_and_load_are_exported() -> None:
    assert {"load", "save"} <= set(rnnfast.__all__)
