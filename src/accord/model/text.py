"""Encoders of texts as bytes: (batch, byte) uint8, UTF-8, with 0 past the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.mlp import MLP
from accord.model.sequence import Transformer

FNV_OFFSET, FNV_PRIME = 2166136261, 16777619
"""Of the 32-bit hash of Fowler, Noll and Vo."""
SPACE = 32


class ByteNGrams(nn.Module):
    r"""Mean of the embeddings of all n-grams of bytes, then an MLP: (batch, byte) to (batch, feature_dim).

    The text is framed by a space on each side. The n-gram $b_1 \dots b_n$ has row FNV-1a(b) mod buckets of a table: $h_0 = 2166136261$,
    $h_i = (h_{i-1} \oplus b_i) \cdot 16777619 \bmod 2^{32}$. Bojanowski, Grave, Joulin, Mikolov 2017, arXiv:1607.04606, who do so with
    characters; a letter of most scripts is 2 or 3 bytes.

    Args:
        sizes: the n.
        buckets: rows of the table; n-grams that fall into one share it.
        width: of an embedding.
        hidden: widths of the layers; the last one is `feature_dim`.

    Raises:
        UsageError: no sizes, or numbers below 1; when called, another dtype.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (1, 2, 3, 4, 5),
        buckets: int = 8192,
        width: int = 64,
        hidden: tuple[int, ...] = (256,),
    ):
        super().__init__()
        if not sizes or min(*sizes, buckets, width) < 1:
            raise UsageError(f"sizes, buckets and width must be positive, got {tuple(sizes)}, {buckets}, {width}")
        self.sizes = tuple(sizes)
        # Small, for the steps of an optimiser like Adam do not grow with it: rows of size 1 hardly move, and rare n-grams stay noise.
        self.embedding = nn.Parameter(0.02 * torch.randn(buckets, width))
        self.mlp = MLP(width, hidden)
        self.feature_dim = self.mlp.feature_dim

    def forward(self, x: UInt8[Tensor, "batch byte"]) -> Float[Tensor, "batch feature"]:
        """Features."""
        features: Tensor = self.mlp(self.mean(x))
        return features

    def mean(self, x: UInt8[Tensor, "batch byte"]) -> Float[Tensor, "batch width"]:
        """Mean embedding of the n-grams of each text; 0 where there are none."""
        grams, whole = hashed(framed(require_bytes(x)), self.sizes)
        weight = whole / whole.sum(1, keepdim=True).clamp_min(1).to(self.embedding.dtype)
        rows = grams % len(self.embedding)
        return F.embedding_bag(rows, self.embedding, mode="sum", per_sample_weights=weight)


class ByteTransformer(nn.Module):
    """Transformer over bytes: (batch, byte) to (batch, feature_dim).

    Args:
        length: greatest number of bytes.
        width: of a token; the `feature_dim`.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        UsageError: sizes that do not fit each other; when called, another dtype or too many bytes.
    """

    def __init__(self, length: int, *, width: int = 128, depth: int = 4, heads: int = 4):
        super().__init__()
        self.feature_dim = width
        self.embedding = nn.Embedding(256, width)
        self.transformer = Transformer(length, width=width, depth=depth, heads=heads)

    def forward(self, x: UInt8[Tensor, "batch byte"]) -> Float[Tensor, "batch feature"]:
        """Features; those of an empty text are 0."""
        codes = require_bytes(x)
        features: Tensor = self.transformer(self.embedding(codes), codes > 0)
        return features


def require_bytes(x: Tensor) -> Int64[Tensor, "batch byte"]:
    """`x` as int64; raises UsageError if it is not (batch, byte) of uint8."""
    if x.dtype != torch.uint8 or x.ndim != 2:
        raise UsageError(f"a text is (batch, byte) of uint8, got {x.dtype} of shape {tuple(x.shape)}")
    return x.long()


def framed(codes: Int64[Tensor, "batch byte"]) -> Int64[Tensor, "batch two_more"]:
    """A space before each text and one after it."""
    longer = F.pad(F.pad(codes, (1, 0), value=SPACE), (0, 1))
    end = (longer[:, 1:] == 0) & (longer[:, :-1] != 0)
    return torch.cat([longer[:, :1], torch.where(end, SPACE, longer[:, 1:])], dim=1)


def hashed(
    codes: Int64[Tensor, "batch byte"], sizes: Sequence[int]
) -> tuple[Int64[Tensor, "batch gram"], Bool[Tensor, "batch gram"]]:
    """32-bit hashes of all windows of these sizes, and whether a window has no 0 in it."""
    hashes, grams, whole = torch.full_like(codes, FNV_OFFSET), [], []
    inside = torch.ones_like(codes, dtype=torch.bool)
    for size in range(1, min(max(sizes), codes.shape[1]) + 1):
        last = codes[:, size - 1 :]
        hashes = ((hashes[:, : last.shape[1]] ^ last) * FNV_PRIME) & 0xFFFFFFFF
        inside = inside[:, : last.shape[1]] & (last > 0)
        if size in sizes:
            grams.append(hashes)
            whole.append(inside)
    if not grams:
        return codes[:, :0], inside[:, :0]
    return torch.cat(grams, dim=1), torch.cat(whole, dim=1)
