r"""Vision transformers without classifier, with the field's layout and parameter names.

Dosovitskiy et al. 2021, arXiv:2010.11929; fixed 2-D sine-cosine positions as in MoCo v3 (Chen, Xie, He 2021, arXiv:2104.02057).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.feature_map import Mapped, pooled


class PatchEmbed(nn.Module):
    """A linear map of each patch: a convolution whose stride is its kernel."""

    def __init__(self, patch: int, channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, height, width) to (batch, dim, rows, columns)."""
        patches: Tensor = self.proj(x)
        return patches


class Attention(nn.Module):
    """Multi-head self-attention; `seen` (batch, token) says which tokens may be looked at, all by default."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(batch, token, dim) to the same."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if seen is None else seen[:, None, None])
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return y


class Mlp(nn.Module):
    """Linear - GELU - Linear on each token."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, token, dim) to the same."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(batch, token, dim) to the same."""
        x = x + self.attn(self.norm1(x), seen)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ViT(Mapped):
    """A vision transformer: (batch, channel, height, width) to (batch, feature_dim).

    Takes images of any size whose sides are multiples of the patch; learned positions are interpolated to it.

    With `masked` the last of channels + 1 channels says what is hidden (above 0.5): a patch with a hidden pixel is left out before
    the first block, so that nothing of it can reach the features (He et al. 2022, arXiv:2111.06377; Assran et al. 2023,
    arXiv:2301.08243). Equally many patches must be hidden in every image of a batch. Where none is, none is left out. A patch with a
    pixel below -0.5 is seen, but no part of the mean: what is described is the rest of the image, within the whole of it.

    Args:
        image_size: side of the images it is made for, or their height and width.
        patch: side of a patch.
        dim: width of a token, a multiple of `heads` (and of 4 for "sincos" positions); the `feature_dim`.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_ratio: hidden width of each block's MLP over `dim`.
        channels: of the input.
        positions: "sincos", fixed, or "learned".
        pool: the feature is the "mean" of the patch tokens or an extra token, "cls".
        masked: whether a further channel of the input says what is hidden.

    Raises:
        UsageError: a patch that does not divide the size, widths that do not divide, an unknown word; when called, images in which
            unequally many patches are hidden, or all, or none is left to describe.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        channels: int = 3,
        positions: Literal["sincos", "learned"] = "sincos",
        pool: Literal["mean", "cls"] = "mean",
        masked: bool = False,
    ):
        super().__init__()
        _require_words(positions, pool)
        if dim % heads or (positions == "sincos" and dim % 4):
            raise UsageError(f"dim must be a multiple of heads (and of 4 with sincos positions), got {dim} and {heads}")
        self.patch = patch
        self.masked = masked
        self.grid = _grid(*((image_size, image_size) if isinstance(image_size, int) else image_size), patch)
        self.feature_dim = self.map_dim = dim
        self.patch_embed = PatchEmbed(patch, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "cls" else None
        tokens = self.grid[0] * self.grid[1] + (pool == "cls")
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim)) if positions == "learned" else None
        self.register_buffer(
            "positions", sincos_2d(self.grid, dim) if positions == "sincos" else None, persistent=False
        )
        self.blocks = nn.Sequential(*[Block(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._initialise()

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Features: the mean of the (visible) patch tokens, or the extra token, after the last norm."""
        if self.masked:
            tokens, described = _visible(
                self._tokens(x[:, :-1]), x[:, -1:], self.patch, extra=self.cls_token is not None
            )
        else:
            tokens, described = self._tokens(x), None
        features: Tensor = self.norm(self.blocks(tokens))
        if described is None or self.cls_token is not None:
            return self._feature(features)
        return (features * described[..., None]).sum(1)

    def maps(
        self, x: Float[Tensor, "batch channel height width"], grid: int
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch cells map"]]:
        """Features, and the patch tokens after the last norm as a map.

        Raises:
            UsageError: where patches may be hidden.
        """
        if self.masked:
            raise UsageError("a transformer that leaves out hidden patches has no map", help="use masked=False")
        tokens: Tensor = self.norm(self.blocks(self._tokens(x)))
        patches = tokens if self.cls_token is None else tokens[:, 1:]
        image = patches.transpose(1, 2).unflatten(2, _grid(x.shape[-2], x.shape[-1], self.patch))
        return self._feature(tokens), pooled(image, grid)

    def _feature(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1) if self.cls_token is None else tokens[:, 0]

    def _tokens(self, x: Tensor) -> Tensor:
        grid = _grid(x.shape[-2], x.shape[-1], self.patch)
        tokens: Tensor = self.patch_embed(x).flatten(2).transpose(1, 2)
        if self.pos_embed is None:
            tokens = tokens + (self.positions if grid == self.grid else sincos_2d(grid, self.feature_dim)).to(tokens)
        else:
            tokens = tokens + self._learned(grid).to(tokens)
        if self.cls_token is None:
            return tokens
        first = self.cls_token if self.pos_embed is None else self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first.to(tokens).expand(len(tokens), -1, -1), tokens], dim=1)

    def _learned(self, grid: tuple[int, int]) -> Tensor:
        """Positions of the patches, (1, tokens, dim), bicubic where the grid is not the one they were learned on."""
        assert self.pos_embed is not None
        patches = self.pos_embed if self.cls_token is None else self.pos_embed[:, 1:]
        if grid == self.grid:
            return patches
        image = patches.transpose(1, 2).unflatten(2, self.grid)
        resized = F.interpolate(image, size=grid, mode="bicubic", antialias=True)
        learned: Tensor = resized.flatten(2).transpose(1, 2)
        return learned

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        fan_in = self.patch_embed.proj.weight[0].numel()
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.patch_embed.proj.bias)  # type: ignore[arg-type]
        for parameter in (self.cls_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)


def sincos_2d(grid: tuple[int, int], dim: int) -> Float[Tensor, "tokens dim"]:
    r"""Sines and cosines of column and row at dim / 4 frequencies $10000^{-4k/\mathrm{dim}}$, row-major over the grid."""
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [position.reshape(-1, 1) * frequency for position in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def _visible(
    tokens: Float[Tensor, "batch token dim"], mask: Float[Tensor, "batch one height width"], patch: int, *, extra: bool
) -> tuple[Float[Tensor, "batch visible dim"], Float[Tensor, "batch visible"]]:
    """The tokens of patches without a hidden pixel, in their order, and the weight of each in the feature, of sum 1.

    The extra token, the first, is always visible and has no weight.
    """
    hidden, marked = (F.max_pool2d(sign * mask, patch).flatten(1) > 0.5 for sign in (1, -1))
    described = ~(hidden | marked)
    few = torch.stack([*hidden.sum(1).aminmax(), described.sum(1).amin(), marked.sum()])
    fewest, most, least, marks = (int(count) for count in few)
    if fewest != most or most == hidden.shape[1]:
        raise UsageError(
            f"from {fewest} to {most} of {hidden.shape[1]} patches are hidden in the images of one batch",
            help="hide equally many in each, and not all",
        )
    if not least or (extra and marks):
        raise UsageError(
            "an image has no patch to describe" if not least else "an extra token describes a whole image, not a part",
            help="leave a patch unmarked" if not least else "use pool='mean'",
        )
    weight = described / described.sum(1, keepdim=True).to(tokens.dtype)
    if not most:
        return tokens, weight
    keep = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, : hidden.shape[1] - most]
    weight = weight.gather(1, keep)
    if extra:
        keep = torch.cat([torch.zeros_like(keep[:, :1]), keep + 1], dim=1)
    return tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1])), weight


def _grid(height: int, width: int, patch: int) -> tuple[int, int]:
    if patch < 1 or height % patch or width % patch or min(height, width) < patch:
        raise UsageError(
            f"patches of {patch} pixels do not divide an image of {height} x {width}",
            help="choose a patch that divides both sides, or resize the images",
        )
    return height // patch, width // patch


def _require_words(positions: str, pool: str) -> None:
    if positions not in ("sincos", "learned"):
        raise UsageError(f"positions is 'sincos' or 'learned', got {positions!r}")
    if pool not in ("mean", "cls"):
        raise UsageError(f"pool is 'mean' or 'cls', got {pool!r}")


def vit_tiny(
    *,
    image_size: int | tuple[int, int] = 224,
    patch: int = 16,
    channels: int = 3,
    positions: Literal["sincos", "learned"] = "sincos",
    pool: Literal["mean", "cls"] = "mean",
    masked: bool = False,
) -> ViT:
    """ViT-Ti: width 192, 12 blocks, 3 heads, 5.5 million parameters."""
    return ViT(
        image_size=image_size,
        patch=patch,
        dim=192,
        depth=12,
        heads=3,
        channels=channels,
        positions=positions,
        pool=pool,
        masked=masked,
    )


def vit_small(
    *,
    image_size: int | tuple[int, int] = 224,
    patch: int = 16,
    channels: int = 3,
    positions: Literal["sincos", "learned"] = "sincos",
    pool: Literal["mean", "cls"] = "mean",
    masked: bool = False,
) -> ViT:
    """ViT-S: width 384, 12 blocks, 6 heads, 21.7 million parameters."""
    return ViT(
        image_size=image_size,
        patch=patch,
        dim=384,
        depth=12,
        heads=6,
        channels=channels,
        positions=positions,
        pool=pool,
        masked=masked,
    )


def vit_base(
    *,
    image_size: int | tuple[int, int] = 224,
    patch: int = 16,
    channels: int = 3,
    positions: Literal["sincos", "learned"] = "sincos",
    pool: Literal["mean", "cls"] = "mean",
    masked: bool = False,
) -> ViT:
    """ViT-B: width 768, 12 blocks, 12 heads, 85.8 million parameters."""
    return ViT(
        image_size=image_size,
        patch=patch,
        dim=768,
        depth=12,
        heads=12,
        channels=channels,
        positions=positions,
        pool=pool,
        masked=masked,
    )
