"""Sounds as samples: what they hold, their one rate, and what cannot be used by its name."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from accord.data.encoded import OneByOne
from accord.data.policy import Policy
from accord.data.samples import Refused
from accord.data.sounds import is_sound, loudest, sound_samples, trimmed
from accord.errors import DataError


class Held(OneByOne):
    """Bytes in memory."""

    def __init__(self, values: Sequence[bytes | Refused]):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def stamp(self) -> bytes:
        return b""

    def read(self, i: int) -> bytes:
        value = self.values[i]
        if isinstance(value, Refused):
            raise value
        return value


def wav(values: np.ndarray, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.astype("<i2").tobytes())
    return buffer.getvalue()


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, n)


KEYS = [f"{name}.wav" for name in "abcdefgh"]


def test_sounds_are_waves_padded_with_nan() -> None:
    encoded = Held([wav(noise(50)), wav(noise(80, 1)), wav(noise(50))])
    found = sound_samples("s", encoded, KEYS[:3], Policy())
    assert (found.kind, found.shape, found.rate) == ("audio", (80, 1), 8000) and found.ok.all()
    batch = found.batch(np.array([1, 0]))
    assert isinstance(batch, torch.Tensor)
    np.testing.assert_allclose(batch[1, :50, 0] * 2**15, noise(50))
    assert bool(batch[1, 50:].isnan().all()) and not batch[0].isnan().any()
    assert found.content[0] == found.content[2] and "1 items repeat" in found.notes[0]


def test_a_sound_of_another_rate_is_named_with_both_rates() -> None:
    encoded = Held([wav(noise(50), 16000), *(wav(noise(50, i)) for i in range(1, 4))])
    found = sound_samples("s", encoded, KEYS[:4], Policy(max_bad_fraction=0.3))
    assert found.rate == 8000 and found.ok.tolist() == [False, True, True, True]
    assert found.bad[0][:3] == ("a.wav", "E387", "a sound of 16000 steps per second, the others have 8000")
    with pytest.raises(DataError, match=r"a\.wav: a sound of 16000"):
        sound_samples("s", encoded, KEYS[:4], Policy())
    trained = sound_samples("s", encoded, KEYS[:4], Policy(limit=False), rate=16000, length=60)
    assert trained.ok.tolist() == [True, False, False, False] and trained.shape == (60, 1)


def test_what_is_damaged_too_long_or_missing_is_named() -> None:
    encoded = Held([wav(noise(50)), b"", wav(noise(90))[:-4], Refused("E303", "no sound", "help"), wav(noise(70))])
    found = sound_samples("s", encoded, KEYS[:5], Policy(limit=False), length=60)
    assert [(item.key, item.code) for item in found.bad] == [
        ("b.wav", "E303"),
        ("c.wav", "E386"),
        ("d.wav", "E303"),
        ("e.wav", "E388"),
    ]
    assert "0.00875 s, at most 0.0075 s" in found.bad[3].reason


def test_silence_is_counted_and_nothing_but_silence_refused() -> None:
    quiet = wav(np.zeros(50))
    assert "zero-variance samples: 1" in sound_samples("s", Held([quiet, wav(noise(9))]), KEYS[:2], Policy()).notes
    with pytest.raises(DataError) as caught:
        sound_samples("s", Held([quiet, quiet]), KEYS[:2], Policy())
    assert caught.value.code == "E316"


def test_sounds_are_told_by_their_first_bytes() -> None:
    assert is_sound(Held([wav(noise(9)), wav(noise(9)), b"\x89PNG"]))
    assert not is_sound(Held([b"\x89PNG\r\n", Refused("E303", "", "")]))


def test_with_a_number_of_seconds_short_sounds_are_padded_and_of_long_ones_the_loudest_part_is_kept() -> None:
    quiet, loud = noise(40) // 100, noise(20, 1)
    long = np.concatenate([quiet, loud, quiet[:7]])
    found = sound_samples("s", Held([wav(long), wav(noise(9))]), KEYS[:2], Policy(), seconds=20 / 8000)
    assert found.shape == (20, 1) and found.ok.all()
    batch = found.batch(np.array([0, 1]))
    assert isinstance(batch, torch.Tensor)
    np.testing.assert_allclose(batch[0, :, 0] * 2**15, loud)
    np.testing.assert_allclose(batch[1, :9, 0] * 2**15, noise(9))
    assert bool(batch[1, 9:].isnan().all())


@pytest.mark.parametrize("steps", [1, 7, 30, 99])
def test_the_loudest_part_has_no_louder_one_of_its_length(steps: int) -> None:
    wave = np.random.default_rng(steps).normal(size=100) * np.linspace(1, 3, 100)[::-1] ** 2
    kept = loudest(wave, steps)
    every = [float(np.square(wave[i : i + steps]).sum()) for i in range(101 - steps)]
    np.testing.assert_array_equal(kept, wave[int(np.argmax(every)) :][:steps])


@pytest.mark.parametrize("decibels", [3.0, 10.0, 25.0])
def test_ends_that_are_far_below_the_loudest_moment_are_cut_off(decibels: float) -> None:
    """The same by a loop over frames of 25 ms; quiet parts between loud ones stay."""
    rate, size = 400, 10
    wave = np.random.default_rng(0).normal(size=120) * np.repeat([0.01, 1, 0.05, 0.4, 0.1, 0.01], 20)
    power = [float(np.mean(np.square(wave[i : i + size]))) for i in range(len(wave) - size + 1)]
    loud = [i for i, p in enumerate(power) if 10 * np.log10(p / max(power)) >= -decibels]
    np.testing.assert_array_equal(trimmed(wave, rate, decibels), wave[loud[0] : loud[-1] + size])
    np.testing.assert_array_equal(trimmed(7 * wave, rate, decibels), 7 * trimmed(wave, rate, decibels))
    np.testing.assert_array_equal(trimmed(wave, rate, 200.0), wave)


def test_what_is_short_or_silent_is_not_trimmed() -> None:
    for values in (np.zeros(0), np.array([0.0, 1.0, 0.0]), np.zeros(900), np.ones(900)):
        np.testing.assert_array_equal(trimmed(values, 8000, 20.0), values)


def test_sounds_are_trimmed_before_they_are_cut_or_padded() -> None:
    loud = noise(400, 1)
    wave = np.concatenate([noise(900) // 1000, loud, noise(700) // 1000])
    found = sound_samples("s", Held([wav(wave), wav(loud)]), KEYS[:2], Policy(), trim=20.0)
    assert found.shape[0] < 900 and found.ok.all()
    padded = sound_samples("s", Held([wav(wave), wav(loud)]), KEYS[:2], Policy(), trim=20.0, seconds=1.0)
    assert padded.shape == (8000, 1)
    batch, again = found.batch(np.array([0])), padded.batch(np.array([0]))
    assert isinstance(batch, torch.Tensor) and isinstance(again, torch.Tensor)
    assert torch.equal(batch[:, :400], again[:, :400]) and bool(again[:, found.shape[0] :].isnan().all())
