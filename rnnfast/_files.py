"""Files: arrays and a JSON header in one file, in the format of safetensors or in NumPy's npz.

Both formats hold arrays and text and nothing that runs, so a file from elsewhere can at worst be
refused. A file is written beside its destination and then moved over it: whoever reads the path
finds the old file or the new one, never half of one.

A path that ends in `.npz` is written as npz, any other as safetensors, which needs the package of
that name (`pip install rnnfast[files]`). Reading goes by the content.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ._npz import Contents

Array = NDArray[Any]
Path = str | os.PathLike[str]

_LONGEST_NAME = 60_000  # bytes; a zip archive can hold 65535, suffix included


def write(path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    """Write named arrays and a header, its "format" among others, atomically."""
    text = json.dumps(header, default=_plain)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in contiguous.items():
        _check_array(name, array)
    if os.fsdecode(path).lower().endswith(".npz"):
        from . import _npz

        _replace(path, _npz.to_buffer(contiguous, text))
    else:
        safetensors = _safetensors(path)
        _replace(path, safetensors.numpy.save(contiguous, {"rnnfast": text}))


def read(
    path: Path, formats: Sequence[str], wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header and the arrays with wanted names; ValueError for whatever is not right.

    The arrays may be read-only.
    """
    with open(path, "rb") as file:  # this names the file where it fails
        start = file.read(9)
        file.seek(0)
        if start.startswith(b"PK"):  # a zip archive
            from . import _npz  # which imports much that `import rnnfast` does without

            contents = _npz.contents(file)
        elif start[8:] == b"{":  # after the length of its header, in 8 bytes
            contents = _safetensors_contents(_safetensors(path), path)
        else:
            raise ValueError("it is neither a safetensors nor an npz file")
        with _refusing(), contents as (text, names, get):
            header = _header(text, formats)
            return header, {name: get(name) for name in names if wanted(name)}


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into a ValueError that names the file."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot load {what} {os.fspath(path)!r}: {error}") from error


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever the reader of a format raises at a damaged file into a ValueError."""
    try:
        yield
    except (OSError, MemoryError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EINVAL:  # zipfile seeks nowhere
            raise ValueError("it is no zip file, its entries lie outside of it") from error
        raise
    except Exception as error:  # safetensors' and zipfile's own errors derive from Exception alone
        raise ValueError(str(error) or type(error).__name__) from error


def _header(text: str | None, formats: Sequence[str]) -> dict[str, Any]:
    if text is None:
        raise ValueError(
            "it holds arrays without rnnfast's metadata; they go into a layer by load_state_dict"
        )
    header: Any = json.loads(text)
    found = header.get("format") if isinstance(header, dict) else None
    if found not in formats:
        raise ValueError(f"its format is {found!r}, expected {' or '.join(map(repr, formats))}")
    return dict(header)


def _plain(value: object) -> Any:
    """What JSON holds instead of NumPy's values, such as the state of a random generator."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a header holds {type(value).__name__}, which JSON cannot")


def _check_array(name: object, array: Array) -> None:
    """Refuse what one of the two formats cannot hold."""
    if not isinstance(name, str):
        raise TypeError(f"the name {name!r} has type {type(name).__name__}, expected str")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a surrogate
        size = _LONGEST_NAME + 1
    if size > _LONGEST_NAME or "\0" in name:
        raise ValueError(
            f"the name {name[:40]!r} cannot be stored, expected text of at most {_LONGEST_NAME} "
            "bytes without NUL"
        )
    if array.dtype.kind not in "biufc":
        raise TypeError(f"array {name!r} has dtype {array.dtype}, expected numbers")


def _safetensors(path: Path) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{os.fspath(path)!r} needs the safetensors package: pip install rnnfast[files]; "
            "a file saved under a name in .npz needs none"
        ) from error
    return safetensors


@contextmanager
def _safetensors_contents(safetensors: Any, path: Path) -> Iterator[Contents]:
    with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
        yield (file.metadata() or {}).get("rnnfast"), file.keys(), file.get_tensor


def _replace(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` so that the path never shows a part of it."""
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".rnnfast-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
