"""Sequences of which not every step is there: means and maxima over those that are, and a transformer that looks at no other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.vit import Block


def observed(x: Float[Tensor, "batch step channel"]) -> tuple[Tensor, Bool[Tensor, "batch step"]]:
    """`x` with 0 for NaN beside what is not NaN as 0 or 1, (batch, step, 2 * channel), and the steps of which something is known."""
    known = ~torch.isnan(x)
    return torch.cat([torch.where(known, x, 0.0), known.to(x.dtype)], dim=2), known.any(2)


def masked_mean(h: Float[Tensor, "batch step width"], seen: Bool[Tensor, "batch step"]) -> Float[Tensor, "batch width"]:
    """Mean over the steps that are seen; 0 where none is. What `h` holds elsewhere must be finite and has no effect."""
    weight = seen / seen.sum(1, keepdim=True).clamp_min(1).to(h.dtype)
    return (weight[:, None] @ h).squeeze(1)


def masked_max(h: Float[Tensor, "batch step width"], seen: Bool[Tensor, "batch step"]) -> Float[Tensor, "batch width"]:
    """Greatest value over the steps that are seen; 0 where none is."""
    greatest = h.masked_fill(~seen[..., None], -torch.inf).amax(1)
    return torch.where(seen.any(1, keepdim=True), greatest, 0.0)


class Transformer(nn.Module):
    """Pre-norm transformer over tokens with fixed positions; the feature is the mean of the tokens that are seen.

    Args:
        length: greatest number of tokens.
        width: of a token, a multiple of `heads` and of 2; the `feature_dim`.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        UsageError: widths that do not divide; when called, more tokens than `length`.
    """

    positions: Tensor

    def __init__(self, length: int, *, width: int, depth: int, heads: int):
        super().__init__()
        if min(length, width, depth, heads) < 1 or width % heads or width % 2:
            raise UsageError(
                f"a transformer of length {length}, width {width}, depth {depth} and {heads} heads cannot be",
                help="all are positive, and the width is a multiple of heads and of 2",
            )
        self.feature_dim = width
        self.register_buffer("positions", sincos(length, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, 4.0) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, tokens: Float[Tensor, "batch token width"], seen: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch width"]:
        """The features; those of a sample of which nothing is seen are 0."""
        count = tokens.shape[1]
        if count > len(self.positions):
            raise UsageError(f"this encoder was made for at most {len(self.positions)} tokens, got {count}")
        h = tokens + self.positions[:count].to(tokens)
        looked_at = seen | ~seen.any(1, keepdim=True)  # attention to nothing is 0 / 0
        for block in self.blocks:
            h = block(h, looked_at)
        return masked_mean(self.norm(h), seen)


def sincos(length: int, width: int) -> Float[Tensor, "length width"]:
    r"""Sines and cosines of the position at width / 2 frequencies $10000^{-2k/\mathrm{width}}$ (Vaswani et al. 2017, arXiv:1706.03762)."""
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) * 2 / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()
