r"""Standardisation as the first layer of an encoder, $(x - \mu_c) / \sigma_c$ per channel, so that no input can reach it unscaled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import DataError, UsageError


class Standardize(nn.Module):
    """Subtracts a mean and divides by a standard deviation, per channel of an image or per column of a vector (axis 1).

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
    def fit(cls, batches: Tensor | Iterable[Tensor]) -> Standardize:
        """Mean and (biased) standard deviation of data, (N, channel, ...) at once or in batches, accumulated in float64.

        A column with std <= 1e-6 |mean| is constant as far as float32 can tell: it is centred and not scaled (std 1).

        Raises:
            DataError: no rows, or numbers that are not finite (the first such column is named).
        """
        n, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in [batches] if isinstance(batches, Tensor) else batches:
            rows = batch.detach().cpu().double().movedim(1, -1).reshape(-1, batch.shape[1])
            if len(rows) == 0:
                continue
            _require_finite(rows)
            step = rows.mean(0) - mean
            squares = (
                squares + (rows - rows.mean(0)).square().sum(0) + step.square() * (n * len(rows) / (n + len(rows)))
            )
            mean = mean + step * (len(rows) / (n + len(rows)))
            n += len(rows)
        if n == 0:
            raise DataError("there are no rows to take a mean of", help="look at what the source selects")
        std = (squares / n).sqrt()
        return cls(mean, torch.where(std <= 1e-6 * mean.abs(), 1.0, std))

    def forward(self, x: Float[Tensor, "batch channel *size"]) -> Float[Tensor, "batch channel *size"]:
        """`x` with mean 0 and standard deviation 1 per channel, on data like that it was fitted to."""
        if x.shape[1] != len(self.mean):
            raise UsageError(f"the model was made for {len(self.mean)} channels, got {x.shape[1]} in {tuple(x.shape)}")
        shape = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)


def _require_finite(rows: Tensor) -> None:
    bad = (~torch.isfinite(rows)).any(0).nonzero()
    if len(bad):
        column = int(bad[0])
        raise DataError(
            f"{len(bad)} of {rows.shape[1]} columns hold numbers that are not finite, the first is column {column}",
            where=f"column {column}",
            help="fill or drop missing values first",
        )
