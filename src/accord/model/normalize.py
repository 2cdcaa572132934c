r"""Standardisation as the first layer of an encoder, $(x - \mu_c) / \sigma_c$ per channel, so that no input can reach it unscaled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import DataError, UsageError


class Standardize(nn.Module):
    """Subtracts a mean and divides by a standard deviation per channel: axis 1 of images and vectors, axis 2 of series. NaN stays NaN.

    Args:
        mean: one number per channel.
        std: one number > 0 per channel.

    Raises:
        UsageError: lengths that differ, numbers that are not finite, or a standard deviation that is not positive.

    Mean and standard deviation are buffers: saved with the model, never trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor):
        super().__init__()
        mean, std = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        if mean.ndim != 1 or mean.shape != std.shape:
            raise UsageError(f"one mean and one std per channel, got {tuple(mean.shape)} and {tuple(std.shape)}")
        if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise UsageError(f"means must be finite and stds positive, got {mean.tolist()} and {std.tolist()}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def fit(
        cls, batches: Tensor | Iterable[Tensor], *, kept: Sequence[int] = (), one_unit: bool = False
    ) -> Standardize:
        """Mean and (biased) standard deviation of what is not NaN, at once or in batches, accumulated in float64.

        A column with std <= 1e-6 |mean| is constant as far as float32 can tell: it is centred and not scaled (std 1). A column of
        NaN is left as it is.

        Args:
            batches: (N, channel, ...), or series (N, step, channel).
            kept: channels that are left as they are: codes of categories.
            one_unit: the root of the mean variance of the others divides them all, so that channels of one unit keep their proportions.

        Raises:
            DataError: no rows, or infinite numbers (the first such column is named).
        """
        n, mean, squares = (torch.zeros((), dtype=torch.float64) for _ in range(3))
        for batch in [batches] if isinstance(batches, Tensor) else batches:
            axis = _channel_axis(batch)
            rows = batch.detach().cpu().double().movedim(axis, -1).reshape(-1, batch.shape[axis])
            if len(rows) == 0:
                continue
            _require_finite(rows)
            count = (~torch.isnan(rows)).sum(0).double()
            centre = rows.nansum(0) / count.clamp_min(1)
            whole = (n + count).clamp_min(1)
            step = torch.where(count > 0, centre - mean, 0.0)
            squares = squares + (rows - centre).square().nansum(0) + step.square() * (n * count / whole)
            mean = mean + step * (count / whole)
            n = n + count
        if n.ndim == 0:
            raise DataError("there are no rows to take a mean of", help="look at what the source selects")
        std = (squares / n.clamp_min(1)).sqrt()
        scale = torch.where(std <= 1e-6 * mean.abs(), 1.0, std)
        if one_unit:
            scale = _one_unit(std, mean, kept)
        for channel in kept:
            mean[channel], scale[channel] = 0.0, 1.0
        return cls(mean, scale)

    def forward(self, x: Float[Tensor, "batch *channel_size"]) -> Float[Tensor, "batch *channel_size"]:
        """`x` with mean 0 and standard deviation 1 per channel, on data like that it was fitted to."""
        axis = _channel_axis(x)
        if x.shape[axis] != len(self.mean):
            raise UsageError(
                f"the model was made for {len(self.mean)} channels, got {x.shape[axis]} in {tuple(x.shape)}"
            )
        shape = (-1, *[1] * (x.ndim - 1 - axis))
        return (x - self.mean.view(shape)) / self.std.view(shape)


class MeanForMissing(nn.Module):
    """Standardised numbers with 0, their mean, for what is not observed: for encoders that have no other way to say so."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`x` without NaN."""
        return torch.where(x.isnan(), 0.0, x)


def _one_unit(std: Tensor, mean: Tensor, kept: Sequence[int]) -> Tensor:
    """The same for every channel: the root mean square of the standard deviations of those that are not kept; 1 where all are constant."""
    measured = torch.ones_like(std, dtype=torch.bool)
    for channel in kept:
        measured[channel] = False
    varies = measured & (std > 1e-6 * mean.abs())
    total = torch.where(varies, std.square(), 0.0).sum() / measured.sum().clamp_min(1)
    return torch.where(total > 0, total.sqrt(), 1.0).expand_as(std).clone()


def _channel_axis(x: Tensor) -> int:
    return 2 if x.ndim == 3 else 1


def _require_finite(rows: Tensor) -> None:
    bad = torch.isinf(rows).any(0).nonzero()
    if len(bad):
        column = int(bad[0])
        raise DataError(
            f"{len(bad)} of {rows.shape[1]} columns hold infinite numbers, the first is column {column}",
            where=f"column {column}",
            help="NaN stands for what is not observed; drop or fill infinite values first",
        )
