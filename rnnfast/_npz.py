"""NumPy's npz format: a zip archive of arrays, here with a text beside them.

Reading is stricter than `numpy.load`. Members are stored, not compressed, and hold together no more
than the file does, so a small file cannot ask for much memory. Nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# The text of the header (None if there is none), the names of the arrays, and how to read one.
Contents = tuple[str | None, list[str], Callable[[str], Array]]

_TEXT = "rnnfast.json"  # no array's name: those end in .npy
_NPY = ".npy"
_KINDS = "biufc"  # bool, integers, floating-point and complex numbers


def to_buffer(arrays: Mapping[str, Array], text: str) -> memoryview:
    """Return the file. It depends on the arrays and the text alone, not on the time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        with _new_member(archive, _TEXT) as member:
            member.write(text.encode())
        for name, array in arrays.items():
            with _new_member(archive, name + _NPY) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    return buffer.getbuffer()


def _new_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16  # what unzip gives the file; without it nobody may read it
    return archive.open(info, "w", force_zip64=True)


@contextmanager
def contents(file: IO[bytes]) -> Iterator[Contents]:
    """What a file holds."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if _TEXT not in members:
            yield None, [], lambda name: np.empty(0)
            return
        _check_members(archive, os.fstat(file.fileno()).st_size)
        names = [name.removesuffix(_NPY) for name in members if name != _TEXT]
        text = archive.read(_TEXT).decode()
        yield text, names, lambda name: _array(archive, name)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that would take more memory than its own size, or has strange members."""
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.filename
        if name in seen:
            raise ValueError(f"it has two members {name!r}")
        seen.add(name)
        if name != _TEXT and not name.endswith(_NPY):
            raise ValueError(f"its member {name!r} is no array, expected a name in {_NPY}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"its member {name!r} is compressed, expected a stored one")
    total = sum(info.file_size for info in archive.infolist())
    if total > size:
        raise ValueError(f"its members have {total} bytes, but the file has {size}")


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name + _NPY) as member:
        shape, fortran_order, dtype = _npy_header(name, member)
        data = member.read()
    if dtype.kind not in _KINDS:
        raise ValueError(f"array {name!r} has dtype {dtype}, expected numbers")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected != len(data):
        raise ValueError(
            f"array {name!r} has {len(data)} bytes, expected {expected} for {dtype} of {shape}"
        )
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), order="C", copy=False)


def _npy_header(name: str, member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"array {name!r} has version {version} of the npy format, expected (1, 0)")
    try:
        return np.lib.format.read_array_header_1_0(member)
    except (SyntaxError, MemoryError, RecursionError) as error:  # Python's own parser reads it
        raise ValueError(f"the header of array {name!r} cannot be read: {error}") from error
