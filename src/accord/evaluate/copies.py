"""Copies in a corpus: each embedding is asked about once, and its copies have exactly its energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from accord.evaluate.features import OneSide

ELEMENTS = 1 << 22
"""Numbers made at a time."""


@dataclass(frozen=True, eq=False)
class Copies:
    """Which rows of a corpus are the same, bit for bit.

    first: int64 (u,), ascending: the first of each. places: int64 (m,), all rows, group after group, ascending in each. start, count:
    int64 (u,), where a group begins in `places` and how many it has.
    """

    first: Tensor
    places: Tensor
    start: Tensor
    count: Tensor

    @classmethod
    def of(cls, corpus: OneSide) -> Copies:
        """Those of a corpus, embeddings and actions together."""
        parts = [corpus.embedding] if corpus.action is None else [corpus.embedding, corpus.action]
        rows = np.ascontiguousarray(torch.cat(parts, dim=1).numpy())
        bits = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
        _, first, group, count = np.unique(bits, return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(first)  # groups by their first rows
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        places = np.argsort(number[group], kind="stable")
        start = np.concatenate([[0], np.cumsum(count[order])[:-1]]) if len(order) else np.zeros(0)
        found = (first[order], places, start, count[order])
        return cls(*(torch.from_numpy(np.asarray(part, np.int64)) for part in found))

    def listed(
        self, place: Int64[Tensor, "n u"], energy: Float[Tensor, "n u"], k: int
    ) -> tuple[Int64[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Rows of the corpus in place of groups (-1 for none): the k of lowest energy, of equals the first; -1 and NaN are last."""
        if len(self.first) == len(self.places):
            return place, energy
        k = min(k, len(self.places))
        most = min(k, int(self.count.max()))
        step, parts = max(1, ELEMENTS // (most * place.shape[1])), []
        for some, known in zip(place.split(step), energy.split(step), strict=True):
            ticks = torch.arange(most)
            group = some.clamp_min(0)[..., None]
            there = (ticks < self.count[group]) & (some[..., None] >= 0)
            rows = self.places[torch.where(there, self.start[group] + ticks, 0)].masked_fill(~there, -1).flatten(1)
            value = known[..., None].expand(there.shape).masked_fill(~there, torch.inf).flatten(1)
            by_place = rows.argsort(dim=1, stable=True)
            order = by_place.gather(1, value.gather(1, by_place).argsort(dim=1, stable=True))[:, :k]
            found = value.gather(1, order)
            parts.append((rows.gather(1, order), found.masked_fill(found.isinf(), torch.nan)))
        places, energies = zip(*parts, strict=True)
        return torch.cat(places), torch.cat(energies)
