r"""Find the y that belongs to x: y_i is ranked among all y_j by F(x_i, y_j), lowest first."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from accord.evaluate.energy import cross_energies
from accord.evaluate.features import Embedded, Stop, never
from accord.model.joint_embedding import JointEmbedding


def ranks(
    model: JointEmbedding, embedded: Embedded, content: Shaped[np.ndarray, "n"], *, stop: Stop = never
) -> Int64[Tensor, "n"]:
    """Rank of y_i for x_i among all y, 1 is best. Ties count against it: where all energies are equal every rank is n.

    Energies within 1e-6 of each other (relative) are ties. Other samples of the same content are left out: they are right as well.
    """
    s_x, s_y, _, action = embedded
    group = torch.from_numpy(np.unique(content, return_inverse=True)[1])
    found = torch.empty(len(s_x), dtype=torch.int64)
    for rows, energies in cross_energies(model, s_x, s_y, action):
        stop()
        place = torch.arange(rows.start, rows.start + len(energies))
        own = energies.gather(1, place[:, None])
        not_above = energies <= own + 1e-6 * own.abs()
        found[place] = 1 + (not_above & (group[place, None] != group)).sum(1)
    return found


def summary(found: Int64[Tensor, "n"]) -> dict[str, float | int]:
    """Recall at 1, 5 and 10, median rank, mean reciprocal rank, and among how many was searched."""
    rank = found.double()
    recalls = {f"recall@{k}": float((rank <= k).double().mean()) for k in (1, 5, 10)}
    return {
        **recalls,
        "median_rank": float(rank.quantile(0.5)),
        "mrr": float((1 / rank).mean()),
        "candidates": len(found),
    }
