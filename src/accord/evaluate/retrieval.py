r"""Find the other one of a pair: y_i is ranked among all y_j by F(x_i, y_j), lowest first, and x_i among all x_j by F(x_j, y_i)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from accord.evaluate.energy import ELEMENTS, cross_energies
from accord.evaluate.features import Embedded, Stop, never
from accord.model.joint_embedding import JointEmbedding

QUERIES = 1000
"""The mean average precision is that of at most so many queries, evenly spread; every sample is a candidate."""
Blocks = Callable[[], Iterator[tuple[slice, Tensor]]]


class Ranks(NamedTuple):
    """Of each pair, int64 (n,), 1 is best: the rank of its y for its x, and of its x for its y."""

    of_y: Tensor
    of_x: Tensor


def ranks(
    model: JointEmbedding, embedded: Embedded, content: Shaped[np.ndarray, "n"], *, stop: Stop = never
) -> Int64[Tensor, "n"]:
    """Rank of y_i for x_i among all y, 1 is best. Ties count against it: where all energies are equal every rank is n.

    Energies within 1e-6 of each other (relative) are ties. Other samples of the same content are left out: they are right as well.
    """
    return both_ranks(_blocks(model, embedded, stop), content).of_y


def both_ranks(blocks: Blocks, content: Shaped[np.ndarray, "n"]) -> Ranks:
    """Ranks in both directions, by the rules of `ranks`, from energies of all pairs that are gone through twice, block by block."""
    group, n = torch.from_numpy(np.unique(content, return_inverse=True)[1]), len(content)
    own, of_y, of_x = torch.empty(n, dtype=torch.float64), torch.ones(n).long(), torch.ones(n).long()
    for rows, energies in blocks():
        place = torch.arange(rows.start, rows.start + len(energies))
        own[place] = energies.gather(1, place[:, None])[:, 0]
        other = group[place, None] != group
        of_y[place] += ((energies <= _tied(own[place])[:, None]) & other).sum(1)
    for rows, energies in blocks():
        place = torch.arange(rows.start, rows.start + len(energies))
        of_x += ((energies <= _tied(own)) & (group[place, None] != group)).sum(0)
    return Ranks(of_y, of_x)


def _tied(own: Tensor) -> Tensor:
    return own + 1e-6 * own.abs()


def _blocks(model: JointEmbedding, embedded: Embedded, stop: Stop) -> Blocks:
    """All energies, block by block; kept where they are few, made anew each time where they are many."""

    def made() -> Iterator[tuple[slice, Tensor]]:
        for block in cross_energies(model, embedded.s_x, embedded.s_y, embedded.action):
            stop()
            yield block

    if len(embedded.s_x) ** 2 > ELEMENTS:
        return made
    kept = list(made())
    return lambda: iter(kept)


def average_precision(energies: Float[Tensor, "q m"], relevant: Shaped[Tensor, "q m"]) -> Float[Tensor, "q"]:
    r"""$\sum_k (R_k - R_{k-1}) P_k$ of each row in the order of energy: precision and recall after each distinct energy.

    Equal energies come together, so that an energy that is constant has the precision of chance. A row without anything relevant is 0.
    """
    order = energies.argsort(dim=1)
    values, found = energies.gather(1, order), relevant.gather(1, order).double()
    last = torch.searchsorted(values, values, right=True)
    precision = found.cumsum(1).gather(1, last - 1) / last
    return (precision * found).sum(1) / found.sum(1).clamp_min(1)


def class_precision(blocks: Blocks, labels: Int64[np.ndarray, "n"] | None) -> tuple[float, float] | tuple[None, None]:
    """Mean average precision where relevant is what has the same label: of y for x, and of x for y.

    The y of a pair counts as relevant for its x, as is usual for two kinds of data (Rasiwasia et al. 2010, "A New Approach to
    Cross-Modal Multimedia Retrieval"). Samples without a label (-1) take no part. Nothing with fewer than 2 classes.
    """
    if labels is None or len(np.unique(labels[labels >= 0])) < 2:
        return None, None
    label = torch.from_numpy(labels)
    known = (label >= 0).nonzero()[:, 0]
    asked = known[torch.linspace(0, len(known) - 1, min(QUERIES, len(known))).long()]
    of_y, columns = [], []
    for rows, energies in blocks():
        mine = asked[(asked >= rows.start) & (asked < rows.start + len(energies))]
        of_y.append(average_precision(energies[mine - rows.start][:, known], label[mine, None] == label[known]))
        columns.append(energies[:, asked])
    of_x = average_precision(torch.cat(columns)[known].T, label[asked, None] == label[known])
    return float(torch.cat(of_y).mean()), float(of_x.mean())


def evaluated(
    model: JointEmbedding,
    embedded: Embedded,
    content: Shaped[np.ndarray, "n"],
    labels: Int64[np.ndarray, "n"] | None = None,
    *,
    stop: Stop = never,
) -> dict[str, object]:
    """`summary` of the search of y for x, with "class_map"; "reverse" holds the same of the search of x for y."""
    blocks = _blocks(model, embedded, stop)
    (of_y, of_x), precision = both_ranks(blocks, content), class_precision(blocks, labels)
    reverse = {**summary(of_x), "class_map": precision[1]}
    return {**summary(of_y), "class_map": precision[0], "reverse": reverse}


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
