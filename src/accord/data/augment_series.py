"""Random views of a whole batch of series at once; what a view does not show is NaN, as what was never observed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from accord.data.augment import CHUNK, Units
from accord.data.random import Draws
from accord.errors import UsageError

DRIFT_STEPS = 2
"""Smooth noise is white noise under a Gaussian of this standard deviation, in steps."""


@dataclass(frozen=True, kw_only=True)
class SeriesAugmentation:
    """What may happen to a series, in this order; the defaults change nothing. Lengths are shares of the series' own length.

    Args:
        stretch: time runs slower or faster by a factor in [1 / (1 + value), 1 + value], log-uniform, around the middle.
        shift: largest displacement in time to either side; what comes from before the beginning or after the end is NaN.
        wrap: largest displacement around a ring, to either side: what leaves at the end comes back at the beginning. 0.5 is every place.
        scale: factor of all values, seen from their mean, in [1 - value, 1 + value].
        noise: standard deviation of Gaussian noise, in standard deviations of each channel (see `Units`).
        drift: the same of noise that is smooth: neighbouring steps of each channel hang together over about `DRIFT_STEPS` steps.
        trend: a straight line is added to each channel, 0 in the middle; this is the standard deviation of its value at the end.
        mask: largest share of the steps that are hidden, in one run; its length is uniform in [0, value].
        channel_drop: probability that a channel is hidden, each on its own; one stays in any case.

    Raises:
        UsageError: (a ValueError) if a value is out of bounds.
    """

    stretch: float = 0.0
    shift: float = 0.0
    wrap: float = 0.0
    scale: float = 0.0
    noise: float = 0.0
    drift: float = 0.0
    trend: float = 0.0
    mask: float = 0.0
    channel_drop: float = 0.0

    def __post_init__(self) -> None:
        highest = dict.fromkeys(("noise", "drift", "trend"), 100.0) | {
            "stretch": 9.0,
            "wrap": 0.5,
            "mask": 0.99,
            "channel_drop": 0.99,
        }
        for field in fields(self):
            value, high = getattr(self, field.name), highest.get(field.name, 1.0)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0.0 <= value <= high:
                raise UsageError(
                    f"{field.name}: expected a number in [0, {high:g}], got {value!r}",
                    where=field.name,
                    help=f"set {field.name} within [0, {high:g}]",
                )

    @property
    def hides(self) -> bool:
        """Whether a part of a series may be lost, which is NaN then."""
        return any((self.stretch, self.shift, self.mask, self.channel_drop))

    @classmethod
    def series(cls) -> SeriesAugmentation:
        """For measurements: time a little off, louder or softer, with noise, smooth noise and a slope."""
        return cls(stretch=0.2, shift=0.1, scale=0.3, noise=0.2, drift=0.3, trend=0.5)

    @classmethod
    def sound(cls) -> SeriesAugmentation:
        """For waveforms: louder or softer, faster or slower by a tenth, moved, and a part of it silent."""
        return cls(stretch=0.1, shift=0.1, scale=0.5, mask=0.2)


def augment_series(
    series: Float[Tensor, "batch step channel"],
    draws: Draws,
    augmentation: SeriesAugmentation,
    units: Units | None = None,
) -> Float[Tensor, "batch step channel"]:
    """One random view of each series, float32, in the units of the series itself.

    Args:
        series: NaN is what was not observed, or past the end.
        draws: the random numbers of these samples.
        augmentation: what may happen.
        units: mean and standard deviation of each channel; without them channels have mean 0 and standard deviation 1.

    Raises:
        ValueError: if there are not as many draws as series, or these are no batch of series.
    """
    if series.ndim != 3 or len(draws) != len(series):
        raise ValueError(f"series: expected (batch={len(draws)}, step, channel), got {tuple(series.shape)}")
    size = max(1, CHUNK // max(1, series[0].numel())) if series.is_cpu and len(series) else max(1, len(series))
    parts = [
        _augmented(part.float(), draws.rows(slice(start, start + size)), augmentation, units)
        for start, part in zip(range(0, len(series), size), series.split(size), strict=True)
    ]
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def lengths(series: Float[Tensor, "batch step channel"]) -> Float[Tensor, " batch"]:
    """Steps up to the last one at which anything was observed, float32."""
    steps = torch.arange(1, series.shape[1] + 1, device=series.device)
    return (~series.isnan()).any(2).mul(steps).amax(1).float()


def _augmented(series: Tensor, draws: Draws, a: SeriesAugmentation, units: Units | None) -> Tensor:
    count = lengths(series)
    view = _resampled(series, draws, a, count) if a.stretch or a.shift else series
    if a.wrap:
        view = _turned(view, draws, a.wrap, count)
    if a.scale:
        mean = 0.0 if units is None else units.mean
        factor = draws.uniform("scale", 1, 1).mul_(2).sub_(1).mul_(a.scale).add_(1)
        view = mean + (view - mean) * factor
    for added in _added(view, draws, a, count):
        view = view + (added if units is None else added * units.std)
    if a.mask:
        view = view.masked_fill(_hidden(draws, a.mask, count, view.shape[1])[:, :, None], math.nan)
    if a.channel_drop:
        u = draws.uniform("channel", view.shape[2])
        dropped = (u < a.channel_drop) & (u < u.amax(1, keepdim=True))
        view = view.masked_fill(dropped[:, None], math.nan)
    return view


def _resampled(series: Tensor, draws: Draws, a: SeriesAugmentation, count: Tensor) -> Tensor:
    """Each series read at other times, linear between steps."""
    u = draws.uniform("time", 2).mul_(2).sub_(1)
    factor = torch.exp(u[:, :1] * math.log1p(a.stretch))
    middle = (count[:, None] - 1) / 2
    steps = torch.arange(series.shape[1], device=series.device, dtype=torch.float32)
    place = (steps - middle) * factor + middle + u[:, 1:] * a.shift * count[:, None]
    inside = (place >= 0) & (place <= count[:, None] - 1)
    before = place.floor().clamp(0, series.shape[1] - 1)
    part = (place - before)[:, :, None]
    low = before.long()[:, :, None].expand(-1, -1, series.shape[2])
    first = series.gather(1, low)
    second = series.gather(1, (low + 1).clamp_(max=series.shape[1] - 1))
    view = torch.where(part == 0, first, torch.lerp(first, second, part))
    return view.masked_fill_(~inside[:, :, None], math.nan)


def _turned(series: Tensor, draws: Draws, share: float, count: Tensor) -> Tensor:
    """Each series turned around the ring of its own steps, by a whole number of them; what is past its end stays there."""
    by = (draws.uniform("wrap", 1).mul_(2).sub_(1) * share * count[:, None]).round().long()
    steps, ring = torch.arange(series.shape[1], device=series.device), count[:, None].long()
    place = torch.where(steps < ring, (steps - by) % ring.clamp_min(1), steps)
    return series.gather(1, place[:, :, None].expand_as(series))


def _added(view: Tensor, draws: Draws, a: SeriesAugmentation, count: Tensor) -> Iterator[Tensor]:
    """What is added to the values, in standard deviations."""
    steps, channels = view.shape[1:]
    if a.noise:
        yield draws.normal("noise", steps, channels).mul_(a.noise)
    if a.drift:
        yield _smooth(draws.normal("drift", steps + 4 * DRIFT_STEPS, channels)).mul_(a.drift)
    if a.trend:
        middle = (count[:, None] - 1) / 2
        line = (torch.arange(steps, device=view.device) - middle) / middle.clamp_min(0.5)
        yield line[:, :, None] * draws.normal("trend", 1, channels).mul_(a.trend)


def _smooth(noise: Tensor) -> Tensor:
    """White noise (batch, step, channel) weighted by a Gaussian around each step, of standard deviation 1 again."""
    place = torch.arange(-2 * DRIFT_STEPS, 2 * DRIFT_STEPS + 1, device=noise.device, dtype=noise.dtype)
    kernel = torch.exp(-0.5 * (place / DRIFT_STEPS).square())
    kernel /= kernel.norm()
    return (noise.unfold(1, len(kernel), 1) * kernel).sum(-1)


def _hidden(draws: Draws, share: float, count: Tensor, steps: int) -> Tensor:
    """Which steps are hidden, (batch, steps): one run that lies within each series."""
    u = draws.uniform("mask", 2)
    run = (u[:, 0] * share * count).floor()
    start = (u[:, 1] * (count - run + 1)).floor()
    step = torch.arange(steps, device=count.device)
    return (step >= start[:, None]) & (step < (start + run)[:, None])
