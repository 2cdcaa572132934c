r"""Sound as a series: the logarithms of its energies in mel bands, $\log(\sum_k W_{mk} P_k + \epsilon)$ per frame.

The scale is that of HTK, $m(f) = 2595 \log_{10}(1 + f / 700)$; the triangles are linear in f.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError

SILENCE = 1e-12
"""A mean square below this is taken for this: silence stays silence."""


class LogMel(nn.Module):
    r"""Log-mel energies of waveforms: (batch, step, 1) to (batch, frame, mels), the first layer of an encoder of sound.

    Frame j holds the steps from j * hop on, as many as a window has, times a Hann window w. $P_k = |X_k|^2 / \sum_n w_n^2$ is its power
    spectrum, on 2^n >= window points: of white noise it is the variance. Band m is the mean of P with weights that rise from 0 at
    the m-th of mels + 2 frequencies, equally spaced on the mel scale from 0 to rate / 2, to the next one and fall to 0 at the one after.

    A frame with a step that is NaN is NaN; only the first is made, with 0 there, as long as anything of it is observed, so that sounds
    shorter than a window are not lost. There is no padding: a frame depends on nothing but its own steps.

    Args:
        rate: steps a second, Hz.
        mels: number of bands.
        window: seconds of a frame.
        hop: seconds from one frame to the next.
        floor: epsilon, added before the logarithm: what is much weaker than this power is silence. By default 1e-5, and 1e-2 with `level`.
        level: divide each sound by the root of the mean square of its observed steps: how loud it was recorded is gone, and `floor` is a
            share of its own power, so that silence is as far below speech in a quiet recording as in a loud one.
        centre: subtract from each band its mean over the frames of the sound (Atal 1974, doi:10.1121/1.1914702): what voice, microphone
            and loudness add to every frame is gone, and so is all else that does not change.

    Raises:
        UsageError: numbers that are not positive, or bands so narrow that one holds no frequency; when called, another shape.

    Davis, Mermelstein 1980 (doi:10.1109/TASSP.1980.1163420).
    """

    taper: Tensor
    weights: Tensor

    def __init__(
        self,
        rate: int,
        *,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.010,
        floor: float | None = None,
        level: bool = False,
        centre: bool = False,
    ):
        super().__init__()
        self.window, self.hop, self.mels = round(rate * window), round(rate * hop), mels
        self.floor, self.level, self.centre = (1e-2 if level else 1e-5) if floor is None else floor, level, centre
        if min(self.window - 1, self.hop, mels, self.floor) <= 0:
            raise UsageError(
                f"a window of {self.window} steps, a hop of {self.hop}, {mels} bands and a floor of {self.floor} make no frames",
                help="window and hop are in seconds, rate in steps a second",
            )
        self.points = 2 ** math.ceil(math.log2(self.window))
        taper = torch.hann_window(self.window, dtype=torch.float64)
        self.register_buffer("taper", (taper / taper.square().sum().sqrt()).float(), persistent=False)
        self.register_buffer("weights", mel_weights(rate, self.points, mels).float(), persistent=False)

    def forward(self, x: Float[Tensor, "batch step one"]) -> Float[Tensor, "batch frame mel"]:
        """1 + (steps - window) // hop frames, or one."""
        if x.ndim != 3 or x.shape[2] != 1:
            raise UsageError(f"sound is (batch, step, 1), got {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            wave = x[..., 0].to(self.taper.dtype)
            wave = F.pad(wave, (0, max(0, self.window - wave.shape[1])), value=torch.nan)
            known = ~torch.isnan(wave)
            wave = torch.where(known, wave, 0.0)
            if self.level:
                square = wave.square().sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
                wave = wave * square.clamp_min(SILENCE).rsqrt()
            bands = self.power(wave) @ self.weights
        parts = known.unfold(1, self.window, self.hop)
        made = parts.all(2)
        made[:, 0] = parts[:, 0].any(1)
        frames = torch.where(made[..., None], (bands + self.floor).log(), torch.nan)
        return frames - frames.nanmean(1, keepdim=True) if self.centre else frames

    def power(self, wave: Float[Tensor, "batch step"]) -> Float[Tensor, "batch frame frequency"]:
        """The power spectra of the frames, at 0 to rate / 2."""
        spectrum: Tensor = torch.fft.rfft(wave.unfold(1, self.window, self.hop) * self.taper, n=self.points)
        return spectrum.real.square() + spectrum.imag.square()


def mel_weights(rate: int, points: int, mels: int) -> Float[Tensor, "frequency mel"]:
    """Weights of the frequencies of a spectrum in the bands, of sum 1 in each; float64."""
    frequency = torch.arange(points // 2 + 1, dtype=torch.float64) * rate / points
    edges = torch.linspace(0, 2595 * math.log10(1 + rate / 2 / 700), mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges / 2595) - 1)
    rise = (frequency[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency[:, None]) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rise, fall).clamp_min(0)
    total = weights.sum(0)
    if not bool((total > 0).all()):
        raise UsageError(
            f"{int((total == 0).sum())} of {mels} mel bands hold no frequency of a spectrum of {points} points at {rate} Hz",
            help="choose fewer bands or a longer window",
        )
    return weights / total
