"""WAV files: each coding against its formula, and what is damaged or of another kind refused with its reason."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from accord.data.samples import Refused
from accord.data.wav import decode_wav


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def form(bits: int, *, codec: int = 1, channels: int = 1, rate: int = 8000) -> bytes:
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", codec, channels, rate, rate * frame, frame, bits)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pcm_against_a_loop(bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = [low, -1, 0, 1, 77, high]
    raw = b"".join(
        (v + 128).to_bytes(1, "little") if bits == 8 else v.to_bytes(bits // 8, "little", signed=True) for v in values
    )
    sound = decode_wav(riff((b"fmt ", form(bits)), (b"data", raw)))
    assert sound.rate == 8000 and sound.wave.dtype == np.float32
    np.testing.assert_allclose(sound.wave, [v / 2 ** (bits - 1) for v in values], atol=2**-25, rtol=0)


def test_float_and_extensible_and_chunks_that_are_passed_over() -> None:
    values = np.array([-1, 0.25, 1], "<f4")
    tail = bytes.fromhex("000000001000800000aa00389b71")
    extensible = form(32, codec=0xFFFE) + struct.pack("<HHIH", 22, 32, 4, 3) + tail
    for chunk in (form(32, codec=3), extensible):
        sound = decode_wav(riff((b"LIST", b"odd"), (b"fmt ", chunk), (b"data", values.tobytes()), (b"id3 ", b"x")))
        np.testing.assert_array_equal(sound.wave, values)


def test_channels_are_averaged() -> None:
    raw = np.array([[100, 300], [-200, 0]], "<i2").tobytes()
    sound = decode_wav(riff((b"fmt ", form(16, channels=2)), (b"data", raw)))
    np.testing.assert_allclose(sound.wave * 2**15, [200, -100])


def test_agrees_with_the_standard_library_on_what_it_writes() -> None:
    values = np.random.default_rng(0).integers(-(2**15), 2**15, 1001).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(values.tobytes())
    sound = decode_wav(buffer.getvalue())
    assert sound.rate == 44100
    np.testing.assert_array_equal(sound.wave * 2**15, values)


GOOD = riff((b"fmt ", form(16)), (b"data", b"\0\1" * 8))
BOMB = GOOD[:40] + struct.pack("<I", 2**32 - 1) + GOOD[44:]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"ID3\x04" + bytes(40), "not a WAV file"),
        (b"<html></html>", "HTML"),
        (b"RIFX" + GOOD[4:], "not a WAV file"),
        (GOOD[:30], "chunk 'fmt' claims 16 bytes, 10 are there"),
        (GOOD[:-3], "claims 16 bytes, 13 are there"),
        (BOMB, "claims 4294967295 bytes"),
        (riff((b"fmt ", form(16)), (b"data", b"")), "length 0"),
        (riff((b"fmt ", form(16)), (b"data", b"\0\1\2")), "no whole number of frames"),
        (riff((b"fmt ", form(16))), "no chunk 'data'"),
        (riff((b"data", b"\0\1")), "no chunk 'fmt'"),
        (riff((b"fmt ", form(16)[:12]), (b"data", b"\0\1")), "a format chunk of 12 bytes"),
        (riff((b"fmt ", form(4, codec=17)), (b"data", b"\0\1")), "ADPCM"),
        (riff((b"fmt ", form(64, codec=3)), (b"data", bytes(8))), "float of 64 bits"),
        (riff((b"fmt ", form(16, channels=0)), (b"data", b"\0\1")), "0 channels"),
        (riff((b"fmt ", form(16, rate=0)), (b"data", b"\0\1")), "0 steps per second"),
        (riff((b"fmt ", form(32, codec=3)), (b"data", struct.pack("<f", float("nan")))), "beyond"),
        (riff((b"fmt ", form(32, codec=3)), (b"data", struct.pack("<f", 1.5))), "beyond"),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(Refused) as caught:
        decode_wav(data)
    assert says in caught.value.reason and caught.value.help and caught.value.code in ("E303", "E386")


def test_no_bytes_make_it_fail_in_another_way() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        data = bytearray(GOOD)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        try:
            sound = decode_wav(bytes(data[: rng.integers(1, len(data) + 1)]))
        except Refused:
            continue
        assert np.isfinite(sound.wave).all() and len(sound.wave)


def test_real_sounds(data: Path) -> None:
    column = pq.read_table(data / "fsdd" / "fsdd.parquet", columns=["audio"])["audio"].slice(0, 50).to_pylist()
    for encoded in column:
        with wave.open(io.BytesIO(encoded)) as file:
            plain = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        sound = decode_wav(encoded)
        assert sound.rate == 8000
        np.testing.assert_array_equal(sound.wave * 2**15, plain)
