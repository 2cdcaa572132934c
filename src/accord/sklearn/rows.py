"""Rows of a table on their way into an encoder: standardised numbers, and which of them were observed."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from accord.data.random import Draws
from accord.model.mlp import MLP

LIMIT = 10.0
"""Standardised inputs beyond are taken as this: a perceptron says nothing sensible far from all it has seen."""


class Scale:
    """Mean and standard deviation of each column over its observed values; a column that never varies is centred and not scaled.

    Args:
        values: (n, columns), NaN where nothing was observed.
    """

    def __init__(self, values: Float[np.ndarray, "n columns"]):
        seen = ~np.isnan(values)
        count = np.maximum(seen.sum(0), 1)
        self.mean = np.where(seen, values, 0).sum(0) / count
        deviation = np.where(seen, values - self.mean, 0)
        std = np.sqrt((deviation**2).sum(0) / count)
        self.std = np.where(std <= 1e-12 * np.maximum(np.abs(self.mean), 1e-300), 1.0, std)

    def __call__(self, values: Float[np.ndarray, "n columns"]) -> Float[Tensor, "n columns"]:
        """The standardised values, float64."""
        return torch.from_numpy((values - self.mean) / self.std)


class Observed(nn.Module):
    """The numbers and which of them were observed, (batch, columns) -> (batch, 2 columns); NaN is 0 in both halves."""

    def forward(self, rows: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch twice"]:
        """The input of a perceptron."""
        numbers = rows.clamp(-LIMIT, LIMIT).nan_to_num(0.0)
        return torch.cat([numbers, (~rows.isnan()).to(rows.dtype)], dim=-1)


def perceptron(columns: int, hidden: tuple[int, ...], width: int) -> nn.Sequential:
    """From standardised rows, NaN where not observed, to `width` features. Layer norm: masked and whole rows have other statistics."""
    widths = tuple(hidden) or (width,)
    return nn.Sequential(Observed(), MLP(2 * columns, widths, norm=nn.LayerNorm), nn.Linear(widths[-1], width))


def hidden_columns(draws: Draws, columns: int, share: float, view: str) -> Bool[Tensor, "batch columns"]:
    """Which columns of each row are hidden: a share of them at random, so that at least one is seen, and one hidden unless share is 0."""
    count = min(columns - 1, max(1, round(share * columns))) if share else 0
    order = draws.uniform(view, columns).argsort(dim=1).argsort(dim=1)
    return order < count
