"""Looking for bad images that opening a source leaves undiscovered: those not decoded yet, and those that decode although damaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accord.data.encoded import Encoded, Scan, StreamStore
from accord.data.images import pillow_hushed
from accord.data.jpeg_check import jpeg_fault
from accord.data.samples import BadItems, Refused, Store

_BATCH = 256


def inspect(encoded: Encoded, store: Store, scan: Scan, keys: Sequence[str], *, strict: bool) -> None:
    """Decode what has not been decoded, and if `strict` look at the coded data themselves; faults are added to `scan`."""
    if isinstance(store, StreamStore):
        _decode_all(store, scan)
    if strict:
        _look_closely(encoded, scan)


def _decode_all(store: StreamStore, scan: Scan) -> None:
    index = np.flatnonzero(scan.ok)
    for start in range(0, len(index), _BATCH):
        some = index[start : start + _BATCH]
        try:
            store.read(some)
        except BadItems as bad:
            for i, item in zip(some[bad.positions].tolist(), bad.items, strict=True):
                _add(scan, i, Refused(item.code, item.reason, item.help))


def _look_closely(encoded: Encoded, scan: Scan) -> None:
    with pillow_hushed():
        for start, load in encoded.chunks(_BATCH):
            for i, data in enumerate(load(), start):
                if not scan.ok[i] or isinstance(data, Refused) or not data.startswith(b"\xff\xd8"):
                    continue
                fault = jpeg_fault(data)
                if fault is not None:
                    help = "compare it with another copy; it decodes, so training accepts it"
                    _add(scan, i, Refused("E302", f"damaged JPEG data: {fault}", help))


def _add(scan: Scan, i: int, refused: Refused) -> None:
    scan.ok[i] = False
    scan.refused[i] = refused
