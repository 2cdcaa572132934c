"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from accord.errors import EnvironmentFault


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, replacing what is there only when all of it is on the disk.

    Raises:
        EnvironmentFault: if the disk is full, the folder cannot be written to, ...; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EnvironmentFault(
            f"cannot write {len(data):,} bytes: {error.strerror or error}",
            where=str(path),
            help="free some space, or choose a folder you may write to",
            code="E560",
        ) from error


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Writes strict JSON; numbers that are not finite become null."""
    text = json.dumps(finite(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    write_bytes(path, (text + "\n").encode())


def finite(value: object) -> object:
    """`value` with every NaN and infinity, however deep, replaced by None; mappings and sequences become dicts and lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [finite(item) for item in value]
    return value
