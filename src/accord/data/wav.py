"""Waveforms from the bytes of WAV files: RIFF, PCM of 8, 16, 24 or 32 bits or float32, several channels mixed to one."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from accord.data.formats import sniff
from accord.data.samples import Refused

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_CODECS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "ADPCM", 49: "GSM", 85: "MP3", 255: "AAC"}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_AGAIN = "copy or download it again"
_CONVERT = "convert it, for example with: ffmpeg -i FILE -c:a pcm_s16le NEW.wav"


class Sound(NamedTuple):
    """A waveform, float32 (steps,) in [-1, 1], and its rate in steps per second."""

    wave: np.ndarray
    rate: int


class _Format(NamedTuple):
    codec: int
    channels: int
    rate: int
    width: int


def decode_wav(data: bytes) -> Sound:
    """The waveform of a WAV file; channels are averaged.

    PCM of b bits is divided by $2^{b-1}$ (8 bits are unsigned, with 128 as their zero); float32 has to be within [-1, 1].

    Raises:
        Refused: for another format, another coding, a size that claims more than there is, no sound, or numbers that are none.
    """
    if not data:
        raise Refused("E303", "empty file", "delete it or replace it by the sound it should be")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        found = sniff(data)
        what = "bytes of no known format" if found == "unknown" else f"{found}, by its first bytes"
        raise Refused("E386", f"not a WAV file: {what}", "save it as WAV (RIFF) with PCM of 16 bits")
    chunks = _chunks(data)
    if b"fmt " not in chunks or b"data" not in chunks:
        absent = "fmt" if b"fmt " not in chunks else "data"
        raise _wrong(f"there is no chunk {absent!r}", _AGAIN)
    form = _format(chunks[b"fmt "])
    frame = form.channels * form.width
    raw = chunks[b"data"]
    if len(raw) == 0:
        raise _wrong("a sound of length 0", "delete it or record it again")
    if len(raw) % frame:
        raise _wrong(f"{len(raw)} bytes of sound are no whole number of frames of {frame} bytes", _AGAIN)
    values = _numbers(raw, form).reshape(-1, form.channels)
    wave = values[:, 0] if form.channels == 1 else values.mean(1, dtype=np.float32)
    return Sound(np.ascontiguousarray(wave), form.rate)


def _chunks(data: bytes) -> dict[bytes, memoryview]:
    """The first chunk of each name, up to the sound."""
    view, place, found = memoryview(data), 12, dict[bytes, memoryview]()
    while place + 8 <= len(data) and b"data" not in found:
        name = data[place : place + 4]
        (size,) = struct.unpack_from("<I", data, place + 4)
        left = len(data) - place - 8
        if size > left:
            text = name.decode("ascii", "replace").strip()
            raise _wrong(f"chunk {text!r} claims {size} bytes, {left} are there", _AGAIN)
        found.setdefault(name, view[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return found


def _format(chunk: memoryview) -> _Format:
    if len(chunk) < 16:
        raise _wrong(f"a format chunk of {len(chunk)} bytes, 16 are needed", _AGAIN)
    codec, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if codec == EXTENSIBLE and len(chunk) >= 40 and bytes(chunk[26:40]) == _GUID_TAIL:
        (codec,) = struct.unpack_from("<H", chunk, 24)
    if (codec, bits) not in {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32)}:
        name = {PCM: "PCM", FLOAT: "float"}.get(codec) or _CODECS.get(codec, f"coding {codec}")
        raise _wrong(f"{name} of {bits} bits: expected PCM of 8, 16, 24 or 32 bits, or float of 32", _CONVERT)
    if not 1 <= channels <= 64 or not 1 <= rate <= 1_000_000:
        raise _wrong(f"{channels} channels at {rate} steps per second", _AGAIN)
    return _Format(codec, channels, rate, bits // 8)


def _numbers(raw: memoryview, form: _Format) -> np.ndarray:
    """float32, one number for each channel of each frame."""
    if form.codec == FLOAT:
        values = np.frombuffer(raw, "<f4").astype(np.float32)
        if not np.isfinite(values).all() or np.abs(values).max() > 1.0:
            raise _wrong("numbers beyond [-1, 1], or none at all", "scale it to [-1, 1]")
        return values
    if form.width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    if form.width == 3:
        bytes_ = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(bytes_), 4), np.uint8)
        wide[:, 1:] = bytes_
        return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)
    scale = np.float32(2.0 ** (1 - 8 * form.width))
    return np.frombuffer(raw, f"<i{form.width}").astype(np.float32) * scale


def _wrong(reason: str, help: str) -> Refused:
    return Refused("E386", f"damaged or unreadable WAV file: {reason}", help)
