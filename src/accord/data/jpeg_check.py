"""Whether the coded data of a JPEG are intact: what decoders pass over in silence, found by decoding the Huffman codes alone.

A flipped bit desynchronises the codes (ITU-T T.81): some code is unknown, a block overflows its 64 coefficients, or the data end
early or late. Baseline and extended sequential files are checked so; progressive and arithmetic ones for their structure only.
Pure Python, some seconds for each million pixels: meant for a strict check, not for loading.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Codes = dict[tuple[int, int], int]
"""(length, code) -> symbol."""


class Fault(Exception):
    """What is wrong with the coded data."""


class _Part(NamedTuple):
    """One component of a scan: blocks in each unit, and its tables."""

    blocks: int
    dc: Codes
    ac: Codes


def jpeg_fault(data: bytes) -> str | None:
    """What is wrong with a JPEG that still decodes, or None."""
    try:
        _walk(data)
    except Fault as fault:
        return str(fault)
    except (struct.error, IndexError, KeyError):
        return "its tables are damaged"
    return None


def _walk(data: bytes) -> None:
    place, frame, interval = 2, None, 0
    tables: dict[tuple[int, int], Codes] = {}
    while True:
        if place + 2 > len(data):
            raise Fault("no end marker")
        if data[place] != 0xFF:
            raise Fault(f"no marker where one should be, at byte {place}")
        marker = data[place + 1]
        if marker in (0xD9, 0xFF):
            if marker == 0xD9:
                return
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker in _FRAMES:
            frame = (marker, segment)
        elif marker == 0xC4:
            tables.update(_huffman(segment))
        elif marker == 0xDD:
            (interval,) = struct.unpack_from(">H", segment)
        elif marker == 0xDA:
            place = _scan(data, place, frame, segment, tables, interval)


def _huffman(segment: bytes) -> dict[tuple[int, int], Codes]:
    tables, place = {}, 0
    while place < len(segment):
        counts, code, codes = segment[place + 1 : place + 17], 0, {}
        symbols = iter(segment[place + 17 : place + 17 + sum(counts)])
        for length, count in enumerate(counts, 1):
            for symbol in (next(symbols) for _ in range(count)):
                codes[length, code] = symbol
                code += 1
            code <<= 1
        tables[segment[place] >> 4, segment[place] & 15] = codes
        place += 17 + sum(counts)
    return tables


def _scan(
    data: bytes,
    start: int,
    frame: tuple[int, bytes] | None,
    header: bytes,
    tables: dict[tuple[int, int], Codes],
    interval: int,
) -> int:
    """Check the coded data from `start` and return where they end."""
    runs, end = _runs(data, start)
    if frame is None or frame[0] not in _SEQUENTIAL:
        return end
    parts, units = _layout(frame[1], header, tables)
    expected = -(-units // interval) if interval else 1
    if len(runs) != expected:
        raise Fault(f"{len(runs)} runs of coded data instead of {expected}")
    for i, run in enumerate(runs):
        _run(run, parts, min(interval, units - i * interval) if interval else units)
    return end


def _runs(data: bytes, start: int) -> tuple[list[bytes], int]:
    """Coded data between restart markers, stuffing removed, and the place of the marker that ends them."""
    runs, place = [], start
    while True:
        end = data.find(b"\xff", place)
        while end >= 0 and data[end + 1 : end + 2] == b"\0":
            end = data.find(b"\xff", end + 2)
        if end < 0:
            raise Fault("the coded data do not end")
        runs.append(data[place:end].replace(b"\xff\0", b"\xff"))
        if not 0xD0 <= data[end + 1] <= 0xD7:
            return runs, end
        place = end + 2


def _layout(frame: bytes, header: bytes, tables: dict[tuple[int, int], Codes]) -> tuple[list[_Part], int]:
    """The parts of a unit of this scan, and how many units it has."""
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    sampling = {frame[6 + 3 * i]: (frame[7 + 3 * i] >> 4, frame[7 + 3 * i] & 15) for i in range(count)}
    across, down = max(h for h, _ in sampling.values()), max(v for _, v in sampling.values())
    chosen = [(header[1 + 2 * i], header[2 + 2 * i]) for i in range(header[0])]
    alone = len(chosen) == 1
    parts = []
    for name, table in chosen:
        h, v = sampling[name]
        parts.append(_Part(1 if alone else h * v, tables[0, table >> 4], tables[1, table & 15]))
    if alone:
        h, v = sampling[chosen[0][0]]
        return parts, _ceil(_ceil(width * h, across), 8) * _ceil(_ceil(height * v, down), 8)
    return parts, _ceil(width, 8 * across) * _ceil(height, 8 * down)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _run(run: bytes, parts: list[_Part], units: int) -> None:
    bits = _Bits(run)
    for _ in range(units):
        for part in parts:
            for _ in range(part.blocks):
                _block(bits, part)
    left = 8 * len(run) - bits.place
    if left >= 8:
        raise Fault(f"{left // 8} bytes of coded data are left over")
    if bits.take(left) != (1 << left) - 1:
        raise Fault("the coded data do not end with ones")


def _block(bits: _Bits, part: _Part) -> None:
    bits.take(bits.symbol(part.dc))
    k = 1
    while k < 64:
        symbol = bits.symbol(part.ac)
        zeros, size = symbol >> 4, symbol & 15
        if size == 0 and zeros != 15:
            return
        k += zeros + 1
        bits.take(size)
    if k > 64:
        raise Fault("a block has more than 64 coefficients")


class _Bits:
    """A reader of single bits."""

    def __init__(self, run: bytes):
        self.run, self.place = run, 0

    def take(self, count: int) -> int:
        """The next `count` bits."""
        end = self.place + count
        if end > 8 * len(self.run):
            raise Fault("the coded data end too early")
        window = int.from_bytes(self.run[self.place >> 3 : (end + 7) >> 3], "big")
        self.place = end
        return (window >> (-end & 7)) & ((1 << count) - 1)

    def symbol(self, codes: Codes) -> int:
        """The next symbol."""
        window = int.from_bytes(self.run[self.place >> 3 : (self.place >> 3) + 3].ljust(3, b"\0"), "big")
        shift = 24 - (self.place & 7)
        for length in range(1, 17):
            symbol = codes.get((length, (window >> (shift - length)) & ((1 << length) - 1)))
            if symbol is not None:
                self.place += length
                if self.place > 8 * len(self.run):
                    raise Fault("the coded data end too early")
                return symbol
        raise Fault("a code that is in no table")
