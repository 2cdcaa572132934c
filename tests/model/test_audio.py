"""Log-mel energies: the formula in loops, energy is kept, and real sounds."""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.model.audio import LogMel, mel_weights


def oracle(x: list[float], rate: int, mels: int, window: int, hop: int, points: int, floor: float) -> list[list[float]]:
    """The formula in float64 loops: Hann window, discrete Fourier transform, triangles on the scale of HTK, logarithm."""
    taper = [0.5 - 0.5 * math.cos(2 * math.pi * n / window) for n in range(window)]
    energy = math.fsum(w * w for w in taper)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = [700 * (10 ** (top * m / (mels + 1) / 2595) - 1) for m in range(mels + 2)]
    frames = []
    for start in range(0, len(x) - window + 1, hop):
        power = []
        for k in range(points // 2 + 1):
            angle = -2 * math.pi * k / points
            real = math.fsum(taper[n] * x[start + n] * math.cos(angle * n) for n in range(window))
            imaginary = math.fsum(taper[n] * x[start + n] * math.sin(angle * n) for n in range(window))
            power.append((real**2 + imaginary**2) / energy)
        bands = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            total, mean = 0.0, 0.0
            for k, p in enumerate(power):
                f = k * rate / points
                weight = (f - low) / (middle - low) if f <= middle else (high - f) / (high - middle)
                if weight > 0:
                    total, mean = total + weight, mean + weight * p
            bands.append(math.log(mean / total + floor))
        frames.append(bands)
    return frames


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_formula() -> None:
    x = noise(1, 130, 1) + 3 * torch.sin(torch.arange(130) * 0.7).view(1, -1, 1)
    layer = LogMel(2000, mels=8, window=0.025, hop=0.010, floor=1e-4)
    expected = oracle(x.flatten().tolist(), 2000, 8, window=50, hop=20, points=64, floor=1e-4)
    torch.testing.assert_close(layer(x)[0], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_spectrum_has_the_energy_of_its_frame() -> None:
    """Parseval: the mean of P over all frequencies, negative ones too, is the energy of the windowed frame over that of the window."""
    layer, x = LogMel(8000), noise(2, 1000)
    power = layer.power(x)
    both_sides = (power[..., 0] + 2 * power[..., 1:-1].sum(-1) + power[..., -1]) / layer.points
    hann = torch.hann_window(200)
    for j in range(power.shape[1]):
        frame = x[:, 80 * j : 80 * j + 200] * hann
        torch.testing.assert_close(both_sides[:, j], frame.square().sum(1) / hann.square().sum())


def test_white_noise_has_its_variance_in_every_band() -> None:
    bands = LogMel(8000)(2 * noise(1, 80_000, 1))[0].exp().mean(0)
    assert bands.min() > 3.5 and bands.max() < 4.5


def test_a_tone_is_loudest_where_its_frequency_is() -> None:
    top = 2595 * math.log10(1 + 4000 / 700)
    centres = [700 * (10 ** (top * m / 41 / 2595) - 1) for m in range(1, 41)]
    for m in (5, 20, 35):
        tone = torch.sin(2 * math.pi * centres[m] / 8000 * torch.arange(4000)).view(1, -1, 1)
        assert set(LogMel(8000)(tone)[0].argmax(1).tolist()) == {m}


def test_weights_are_triangles_of_sum_1() -> None:
    weights = mel_weights(8000, 256, 40)
    assert weights.shape == (129, 40)
    torch.testing.assert_close(weights.sum(0), torch.ones(40, dtype=torch.float64))
    assert bool((weights >= 0).all()) and weights[0].max() == 0


def test_frames_past_the_end_or_with_a_gap_are_nan_and_others_untouched() -> None:
    layer, x = LogMel(8000), noise(1, 1000, 1)
    whole = layer(x)[0]
    assert whole.shape == (11, 40)
    x[0, 500] = math.nan
    gap = layer(x)[0]
    lost = [j for j in range(11) if 80 * j <= 500 < 80 * j + 200]
    assert torch.isnan(gap).all(1).nonzero().flatten().tolist() == lost
    assert torch.isnan(gap).any(1).sum() == len(lost)
    kept = [j for j in range(11) if j not in lost]
    assert torch.equal(gap[kept], whole[kept])


def test_silence_short_sounds_and_no_sound() -> None:
    layer = LogMel(8000, floor=1e-5)
    torch.testing.assert_close(layer(torch.zeros(1, 300, 1)), torch.full((1, 2, 40), math.log(1e-5)))
    short = noise(1, 50, 1)
    filled = torch.cat([short, torch.zeros(1, 150, 1)], dim=1)
    torch.testing.assert_close(layer(short), layer(filled))
    assert bool(torch.isnan(layer(torch.full((1, 300, 1), math.nan))).all())


def test_centred_bands_do_not_know_what_is_common_to_all_frames() -> None:
    x = noise(3, 1000, 1)
    x[1, 600:], x[2] = math.nan, math.nan
    plain, centred = LogMel(8000, floor=1e-9), LogMel(8000, floor=1e-9, centre=True)
    means = centred(x).nanmean(1)
    torch.testing.assert_close(means[:2], torch.zeros(2, 40), rtol=0, atol=1e-5)
    assert bool(torch.isnan(means[2]).all())
    torch.testing.assert_close(centred(5 * x), centred(x), rtol=1e-4, atol=1e-4, equal_nan=True)
    torch.testing.assert_close(centred(x)[0].diff(dim=0), plain(x)[0].diff(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(centred(x[1:2, :600]), centred(x)[1:2, :6])


def test_a_level_makes_loudness_disappear_and_the_floor_a_share() -> None:
    """Each sound over its root mean square: 5 times as loud is the same, padding is not counted, and silence stays finite."""
    x = noise(3, 1000, 1)
    x[1, 600:], x[2] = math.nan, 0.0
    layer = LogMel(8000, level=True)
    assert layer.floor == 1e-2 and LogMel(8000).floor == 1e-5 and LogMel(8000, floor=0.1, level=True).floor == 0.1
    alone = x[1:2, :600]
    by_hand = LogMel(8000, floor=1e-2)(alone / alone.square().mean().sqrt())
    torch.testing.assert_close(layer(x)[1:2, :6], by_hand)
    torch.testing.assert_close(layer(5 * x), layer(x), rtol=1e-4, atol=1e-4, equal_nan=True)
    torch.testing.assert_close(layer(x)[2], torch.full((11, 40), math.log(1e-2)))
    assert bool(torch.isnan(layer(torch.full((1, 300, 1), math.nan))).all())


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"of 128 mel bands hold no frequency[\s\S]*fewer bands"):
        LogMel(8000, mels=128)
    with pytest.raises(UsageError, match="a window of 200000 steps"):
        LogMel(8000, window=25, hop=0)
    with pytest.raises(UsageError, match=r"\(batch, step, 1\), got \(2, 8000\)"):
        LogMel(8000)(torch.zeros(2, 8000))


@pytest.mark.data
def test_spoken_digits(data: Path) -> None:
    """Speech is far above its floor, varies, and is a function of the samples of its own file."""
    table = pq.read_table(data / "fsdd" / "fsdd.parquet", columns=["audio"]).slice(0, 8)
    sounds = []
    for blob in table["audio"].to_pylist():
        with wave.open(io.BytesIO(blob)) as file:
            assert file.getframerate() == 8000 and file.getsampwidth() == 2
            sounds.append(np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768))
    x = torch.full((8, max(map(len, sounds)), 1), math.nan)
    for i, sound in enumerate(sounds):
        x[i, : len(sound), 0] = torch.from_numpy(sound)
    layer = LogMel(8000, floor=1e-5)
    frames = layer(x)
    for i, sound in enumerate(sounds):
        made = 1 + (len(sound) - 200) // 80
        assert bool(torch.isfinite(frames[i, :made]).all()) and bool(torch.isnan(frames[i, made:]).all())
        alone = layer(torch.from_numpy(sound).view(1, -1, 1))[0]
        torch.testing.assert_close(alone, frames[i, :made])
        assert alone.std() > 0.5
    first = oracle([float(v) for v in sounds[0][:280]], 8000, 40, window=200, hop=80, points=256, floor=1e-5)
    torch.testing.assert_close(frames[0, :2], torch.tensor(first), rtol=1e-3, atol=1e-3)
