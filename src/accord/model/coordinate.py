r"""Rows of choices, one block at a time: exact in each block while the others are held, so the energy never rises.

For K^m values too many to enumerate. A sweep costs m K predictions instead of $K^m$; what it ends in is a local minimum, hence the
restarts. Besag 1986, "On the Statistical Analysis of Dirty Pictures" (iterated conditional modes).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from accord.errors import UsageError
from accord.model.codebook import nearest
from accord.model.energy import Energy
from accord.model.latent import counts
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, draws, energy_at, filled


class Coordinate(Minimizer):
    """Minimum over rows of choices, by sweeps over the blocks until nothing changes, from several starts.

    There is no finite beta: what was not visited cannot be averaged over. A product of few values has one with `Enumerate`.

    Args:
        restarts: how many draws from the prior a search starts from; a warm start is one more.
        sweeps: at most so many.
        seed: of the draws in evaluation mode, where all pairs start alike; in training mode they come from torch's generator.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    The number of predictor calls depends on the data: a predictor that is sharded by itself would wait for ranks that are done.

    Raises:
        UsageError: for numbers that are out of bounds; when called, for a latent without blocks.
    """

    def __init__(self, *, restarts: int = 4, sweeps: int = 16, seed: int = 0, chunk: int = ELEMENTS):
        super().__init__()
        counts(restarts=restarts, sweeps=sweeps, chunk=chunk)
        self.restarts, self.sweeps, self.seed, self.chunk = restarts, sweeps, seed, chunk

    def extra_repr(self) -> str:
        """How hard it tries."""
        return f"restarts={self.restarts}, sweeps={self.sweeps}"

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and the best z found; its gradient is that of E there."""
        blocks = energy.latent.blocks()
        if blocks is None:
            raise UsageError(
                f"{type(energy.latent).__name__} is no row of choices: Coordinate needs a latent with blocks()",
                help="use Enumerate for few values, Descend for vectors",
            )
        with torch.no_grad():
            index = self._search(energy.detach(), blocks.detach(), start)
        z = chosen(blocks, index)
        return Minimum(energy_at(energy, z, self.chunk), z.detach())

    def _search(self, energy: Energy, blocks: Tensor, start: Tensor | None) -> Int64[Tensor, "*batch blocks"]:
        """The best choices of each pair."""
        shape = energy.batch_shape
        z = draws(energy, self.restarts, None if self.training else self.seed).expand(self.restarts, *shape, -1)
        if start is not None:
            z = torch.cat([start.detach().expand(1, *shape, -1), z])
        parts = z.unflatten(-1, (len(blocks), -1))
        index = torch.stack([nearest(parts[..., b, :], codes) for b, codes in enumerate(blocks)], dim=-1)
        pieces = list(energy.pieces(self.chunk, copies=len(z)))
        if len(pieces) == 1:
            return self._sweep(energy, blocks, index)
        return filled(energy, ((rows, (self._sweep(energy.part(rows), blocks, index[:, rows]),)) for rows in pieces))[0]

    def _sweep(self, energy: Energy, blocks: Tensor, index: Tensor) -> Tensor:
        """Sweeps from all starts at once; the best of them, (*batch, blocks)."""
        lowest = energy(chosen(blocks, index)).expand(index.shape[:-1])
        step = max(1, self.chunk // max(1, len(index) * energy.size(shared=False)))
        for _ in range(self.sweeps):
            before = lowest
            for b in range(len(blocks)):
                z = chosen(blocks, index)
                for first in range(0, blocks.shape[1], step):
                    energies = energy(_varied(z, blocks[b, first : first + step], b)).expand(-1, *lowest.shape)
                    low, place = energies.min(0)
                    better = low < lowest
                    lowest = torch.where(better, low, lowest)
                    changed = torch.where(better, place + first, index[..., b])
                    index = torch.cat([index[..., :b], changed[..., None], index[..., b + 1 :]], dim=-1)
            if not (lowest < before).any():
                break
        best = lowest.argmin(0)
        return index.gather(0, best[None, ..., None].expand(1, *index.shape[1:]))[0]


def chosen(
    blocks: Float[Tensor, "blocks codes width"], index: Int64[Tensor, "*shape blocks"]
) -> Float[Tensor, "*shape latent"]:
    """The z of some choices; differentiable in the codes."""
    return torch.cat([codes[index[..., b]] for b, codes in enumerate(blocks)], dim=-1)


def _varied(z: Float[Tensor, "*shape latent"], codes: Float[Tensor, "k width"], b: int) -> Tensor:
    """Z with each of the codes in the place of its block b, (k, *shape, latent)."""
    width = codes.shape[1]
    many = z.expand(len(codes), *z.shape).clone()
    many[..., b * width : (b + 1) * width] = codes.view(len(codes), *[1] * (z.ndim - 1), width)
    return many
