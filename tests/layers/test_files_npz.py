"""Layers in NumPy's npz: nothing but NumPy is needed, and what is not right is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast import GRU, LSTM, load
from rnnfast.training import SGD, load_checkpoint, save_checkpoint

HEADER, WEIGHT = "rnnfast.json", "weight_ih_l0.npy"


class Archive:
    """A good file taken apart, to be put together otherwise."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.header = json.loads(self.members[HEADER])

    def packed(
        self, *extra: tuple[str, bytes], how: int = zipfile.ZIP_STORED, **change: Any
    ) -> bytes:
        """The file with further members, or with members changed (None: left out)."""
        buffer = io.BytesIO()
        names = {"header": HEADER, "weight": WEIGHT}
        members = self.members | {names[key]: value for key, value in change.items()}
        with zipfile.ZipFile(buffer, "w", how) as archive:
            for name, value in [*members.items(), *extra]:
                if value is not None:
                    archive.writestr(name, value)
        return buffer.getvalue()

    def with_header(self, header: Any) -> bytes:
        return self.packed(header=json.dumps(header).encode())

    def with_option(self, **options: Any) -> bytes:
        return self.with_header(self.header | {"options": self.header["options"] | options})

    def with_array(self, array: Any, **options: Any) -> bytes:
        """The file with another first weight."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array), **options)
        return self.packed(weight=buffer.getvalue())

    def with_npy(self, old: bytes, new: bytes) -> bytes:
        """The file with another text in the header of the first weight, as long as the old one."""
        assert len(old) == len(new)
        assert old in self.members[WEIGHT]
        return self.packed(weight=self.members[WEIGHT].replace(old, new, 1))


@pytest.fixture
def good(tmp_path: Path) -> Archive:
    LSTM(3, 5, 2, proj_size=2, rng=0).save(tmp_path / "good.npz")
    return Archive(tmp_path / "good.npz")


class Unpickled:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def npy(text: str, data: bytes = b"") -> bytes:
    """An array's bytes with any text as their header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_not_right_is_refused(tmp_path: Path, good: Archive) -> None:
    path = tmp_path / "layer.npz"
    weight, deep = good.members[WEIGHT], "[" * 9000
    objects = io.BytesIO()
    np.save(objects, np.array([Unpickled()]), allow_pickle=True)
    million = io.BytesIO()
    np.save(million, np.zeros(1_000_000, np.float32))
    cases: dict[str, tuple[bytes, str]] = {
        "no entries": (b"PK\x05\x06" + 18 * b"\0", "without rnnfast's metadata"),
        "zip of another": (good.packed(header=None), "without rnnfast's metadata"),
        "start alone": (good.content[:30], "not a zip file"),
        "no JSON": (good.packed(header=b"{"), ""),
        "no text": (good.packed(header=b"\xff\xfe{}"), ""),
        "JSON a list": (good.with_header([]), "its format is None"),
        "JSON deep": (good.packed(header=b"[" * 100_000), "recursion"),
        "other format": (good.with_header({"format": "rnnfast layer 2"}), "'rnnfast layer 2'"),
        "no class": (good.with_header({"format": "rnnfast layer 1"}), "its class is None"),
        "other option": (good.with_option(input_size=4), "has shape (20, 3), expected (20, 4)"),
        "size huge": (good.with_option(hidden_size=10**12), "expected (4000000000000, 3)"),
        "array missing": (good.packed(weight=None), "missing keys ['weight_ih_l0']"),
        "array too many": (good.packed(("more.npy", weight)), "unexpected keys ['more']"),
        "array twice": (good.packed((WEIGHT, weight)), "two members 'weight_ih_l0.npy'"),
        "member": (good.packed(("run.py", b"")), "'run.py' is no array"),
        "compressed": (good.packed(how=zipfile.ZIP_DEFLATED), "is compressed, expected a stored"),
        "bomb": (
            good.packed(weight=million.getvalue(), how=zipfile.ZIP_DEFLATED),
            "is compressed, expected a stored",
        ),
        "objects": (good.packed(weight=objects.getvalue()), "dtype object, expected numbers"),
        "pickle": (good.packed(weight=pickle.dumps(Unpickled())), "magic string is not correct"),
        "text array": (good.with_array(["a" * 20]), "dtype <U20, expected numbers"),
        "records": (good.with_array(np.zeros(20, "f4,f4")), "expected numbers"),
        "version 2": (good.with_array(np.zeros(3), version=(2, 0)), "version (2, 0)"),
        "dtype": (good.with_array(np.zeros((20, 3))), "has dtype float64, expected float32"),
        "shape": (good.with_array(np.zeros((3, 20), "f4")), "shape (3, 20), expected (20, 3)"),
        "shape larger": (good.with_npy(b"(20, 3)", b"(90, 3)"), "has 240 bytes, expected 1080"),
        "shape huge": (good.packed(weight=npy(str(HUGE) + "\n", bytes(240))), "has 240 bytes"),
        "shape negative": (good.packed(weight=npy(str(NEGATIVE) + "\n", bytes(240))), "240 bytes"),
        "shape empty": (good.packed(weight=npy(str(EMPTY) + "\n")), ""),
        "npy deep": (good.packed(weight=npy(deep + "\n")), ""),
        "npy minus": (good.packed(weight=npy("-" * 9000 + "1\n")), ""),
        "npy long": (good.packed(weight=npy(" " * 60000 + "\n")), ""),
        "npy cut": (good.packed(weight=weight[:40]), ""),
        "npy no magic": (good.packed(weight=b""), ""),
        "data cut": (good.packed(weight=weight[:-1]), "has 239 bytes, expected 240"),
        "data more": (good.packed(weight=weight + b"1"), "has 241 bytes, expected 240"),
        "data changed": (good.content.replace(weight[-16:], bytes(16), 1), "Bad CRC-32"),
        "encrypted": (flagged(good.content, WEIGHT), "encrypted"),
    }
    for name, (content, reason) in cases.items():
        path.write_bytes(content)
        prefix = f"cannot load layer {os.fspath(path)!r}: "
        with pytest.raises(ValueError, match=re.escape(prefix) + ".") as raised:
            load(path)
        assert reason in str(raised.value), (name, str(raised.value))


HUGE = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**40)}
NEGATIVE = {"descr": "<f4", "fortran_order": False, "shape": (-20, -3)}
EMPTY = {"descr": "<f4", "fortran_order": False, "shape": (0, 2**70)}


def flagged(content: bytes, name: str) -> bytes:
    """The archive with a member that says it is encrypted."""
    changed = bytearray(content)
    entry = content.index(b"PK\x01\x02", content.rindex(b"PK\x03\x04"))
    while content[entry + 46 :][: len(name)] != name.encode():
        entry = content.index(b"PK\x01\x02", entry + 1)
    changed[entry + 8] |= 1
    return bytes(changed)


def test_a_truncated_file_is_refused(tmp_path: Path, good: Archive) -> None:
    path = tmp_path / "layer.npz"
    for size in [*range(0, len(good.content), 13), len(good.content) - 1]:
        path.write_bytes(good.content[:size])
        with pytest.raises(ValueError, match="cannot load layer"):
            load(path)


def test_a_changed_byte_is_refused_or_harmless(tmp_path: Path, good: Archive) -> None:
    path, rng = tmp_path / "layer.npz", np.random.default_rng(0)
    expected = load(tmp_path / "good.npz")
    for at in [*range(0, len(good.content), 7), *range(len(good.content) - 22, len(good.content))]:
        content = bytearray(good.content)
        content[at] = rng.choice([0, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            layer = load(path)
        except ValueError as error:
            assert str(error).startswith("cannot load layer")  # noqa: PT017
        else:
            assert repr(layer) == repr(expected)
            for name, param in expected.params.items():
                assert layer.params[name].tobytes() == param.tobytes()


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path, good: Archive) -> None:
    """Neither by entries of one place, nor by an array's header, nor by the sizes of a layer."""
    path = tmp_path / "layer.npz"
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(2_000_000, np.float32))
    for content, reason in (
        (good.packed(weight=npy(str(HUGE) + "\n")), "has 0 bytes, expected"),
        (good.packed(weight=zeros.getvalue(), how=zipfile.ZIP_DEFLATED), "is compressed"),
        (good.with_option(hidden_size=10**8, num_layers=1), "unexpected keys"),
        (overlapping(good), r"members have \d+ bytes, but the file has"),
    ):
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"cannot load layer .*{reason}"):
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000


def overlapping(good: Archive) -> bytes:
    """A large member that the directory lists under a hundred names."""
    content = good.packed(("more.npy", bytes(100_000)))
    start = content.index(b"PK\x01\x02", content.rindex(b"PK\x03\x04"))
    end = content.rindex(b"PK\x05\x06")
    entries, last = content[start:end], content[content.rindex(b"PK\x01\x02") : end]
    copies = b"".join(last.replace(b"more.npy", b"m%03d.npy" % n) for n in range(100))
    total = (len(good.members) + 101).to_bytes(2, "little")
    size, place = (n.to_bytes(4, "little") for n in (len(entries) + len(copies), start))
    return content[:end] + copies + b"PK\x05\x06" + bytes(4) + 2 * total + size + place + bytes(2)


# ---------------------------------------------------------------------------------- good files


def test_numpy_reads_it(tmp_path: Path, good: Archive) -> None:
    layer = load(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz", allow_pickle=False) as arrays:
        named = {name: arrays[name] for name in arrays.files if name != HEADER}
        assert json.loads(arrays[HEADER])["class"] == "LSTM"
    assert named.keys() == layer.params.keys()
    LSTM(3, 5, 2, proj_size=2).load_state_dict(named)


def test_files_of_numpy_go_into_a_layer_by_load_state_dict(tmp_path: Path) -> None:
    layer = GRU(3, 5, rng=0)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "arrays.npz", **layer.state_dict())
        with pytest.raises(ValueError, match=r"without rnnfast's metadata.* load_state_dict"):
            load(tmp_path / "arrays.npz")
        again = GRU(3, 5)
        with np.load(tmp_path / "arrays.npz") as arrays:
            again.load_state_dict(arrays)
        assert again.params["weight_ih_l0"].tobytes() == layer.params["weight_ih_l0"].tobytes()


def test_other_byte_and_axis_orders_are_read(tmp_path: Path, good: Archive) -> None:
    expected = load(tmp_path / "good.npz")
    weight = expected.params["weight_ih_l0"]
    for array in (weight.astype(">f4"), np.asfortranarray(weight)):
        (tmp_path / "layer.npz").write_bytes(good.with_array(array))
        layer = load(tmp_path / "layer.npz")
        np.testing.assert_array_equal(layer.params["weight_ih_l0"], weight, strict=True)


def test_the_same_layer_makes_the_same_file(tmp_path: Path, good: Archive) -> None:
    load(tmp_path / "good.npz").save(tmp_path / "again.NPZ")
    assert (tmp_path / "again.NPZ").read_bytes() == good.content


def test_unpacked_members_can_be_read(good: Archive) -> None:
    with zipfile.ZipFile(io.BytesIO(good.content)) as archive:
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}


def test_nothing_but_numpy_is_needed(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["safetensors"] = None
        import rnnfast
        from rnnfast.training import save_checkpoint, load_checkpoint
        layer = rnnfast.GRU(3, 5)
        layer.save("layer.npz")
        assert repr(rnnfast.load("layer.npz")) == repr(layer)
        save_checkpoint("point.npz", layer.params, info="here")
        assert load_checkpoint("point.npz", layer.params) == "here"
        """
    environment = os.environ | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
    command = [sys.executable, "-c", "if True:" + program]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)


# --------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path, rng = tmp_path / "point.npz", np.random.default_rng(5)
    layer = GRU(3, 5, rng=0)
    optimizer = SGD(layer.params, lr=0.1, momentum=0.9)
    optimizer.step({name: np.ones_like(p) for name, p in layer.params.items()})
    extra = {"seen": np.arange(4), "scale": np.array(0.5), "done": np.array([True])}
    save_checkpoint(path, layer.params, optimizer, rng, extra=extra, info=[1, {"a": None}])

    other, again = GRU(3, 5, rng=9), np.random.default_rng(6)
    fresh = SGD(other.params, lr=0.3, momentum=0.9)
    found = {"scale": np.array(0.0)}
    with pytest.raises(ValueError, match=r"cannot load checkpoint .*extra"):
        load_checkpoint(path, other.params, fresh, again, extra=found)
    save_checkpoint(path, layer.params, optimizer, rng, extra={"scale": extra["scale"]}, info=3)
    assert load_checkpoint(path, other.params, fresh, again, extra=found) == 3
    assert found["scale"] == 0.5
    assert (fresh.lr, fresh.steps) == (0.1, 1)
    assert again.bit_generator.state == rng.bit_generator.state
    for name, p in layer.params.items():
        assert other.params[name].tobytes() == p.tobytes()
    for name, state in optimizer.state_arrays().items():
        assert fresh.state_arrays()[name].tobytes() == state.tobytes()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_a_file_cannot_hold_is_refused_and_leaves_the_old_file(
    tmp_path: Path, suffix: str
) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path, params = tmp_path / f"point{suffix}", {"w": np.zeros(3)}
    save_checkpoint(path, params)
    old = path.read_bytes()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"extra": {"o": np.array([None])}}, TypeError, "'extra.o' has dtype object"),
        ({"extra": {"t": np.array(["a"])}}, TypeError, "'extra.t' has dtype <U1"),
        ({"extra": {"a\0b": np.zeros(2)}}, ValueError, "without NUL"),
        ({"extra": {"a\ud800": np.zeros(2)}}, ValueError, "cannot be stored"),
        ({"extra": {"a" * 70_000: np.zeros(2)}}, ValueError, "at most 60000 bytes"),
        ({"info": {1, 2}}, TypeError, "a header holds set"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            save_checkpoint(path, params, **arguments)
        assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
