"""Files of layers with a changed header."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any


def with_header(path: Path, change: Any) -> None:
    """Rewrite an npz file with its header changed by a function."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["rnnfast.json"])
    change(header)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in (members | {"rnnfast.json": json.dumps(header).encode()}).items():
            archive.writestr(name, value)
    path.write_bytes(buffer.getvalue())
