r"""Which y go best with an x, or which x with a y: a corpus in the order of F(x, y), lowest first, exactly.

All energies of some queries with some of the corpus are made at a time, and of each query only the best so far are kept: memory does
not grow with the number of pairs. The best few are evaluated once more pair by pair, without the rounding of a matrix product.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from accord.data.pairing import Pairing
from accord.data.samples import Samples
from accord.errors import UsageError
from accord.evaluate.copies import Copies
from accord.evaluate.features import BATCH, OneSide, Stop, device_of, embed_side, evaluating, never
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent, counts

Side = Literal["x", "y"]
SIDES: tuple[Side, ...] = ("x", "y")
ELEMENTS = 1 << 22
"""Energies made at a time."""
SPARE = 16
"""So many more than asked for are evaluated pair by pair, as the rounding of a product may exchange neighbours."""


class Found(NamedTuple):
    """The best of a corpus for each query, best first.

    `place` int64 (n, k) are places in the corpus, -1 where there is nothing to find; `energy` float64 (n, k) is F, NaN there.
    """

    place: Tensor
    energy: Tensor


class Searcher(Protocol):
    """Looks for the best of a corpus that it holds."""

    def __call__(self, queries: OneSide, k: int) -> Found:
        """Of each query the best k, or as many as the corpus has."""


class Exact:
    """Asks for the energy of every query with everything in the corpus.

    Args:
        model: left in the mode it had.
        corpus: embeddings of y where the queries are x, of x where they are y.
        side: what the queries are.
        chunk: energies made at a time; it bounds memory and changes nothing else.
        stop: called between two blocks.
    """

    def __init__(
        self, model: JointEmbedding, corpus: OneSide, side: Side, *, chunk: int = ELEMENTS, stop: Stop = never
    ):
        counts(chunk=chunk)
        require_single(model.latent)
        self.copies = Copies.of(corpus)
        self.model, self.side, self.chunk, self.stop = model, side, chunk, stop
        self.corpus = corpus.part(self.copies.first)

    def __call__(self, queries: OneSide, k: int) -> Found:
        """The best k; of equal energies the one that comes first in the corpus."""
        counts(k=k)
        few = min(k + SPARE, len(self.corpus))
        if not few or not len(queries):
            return Found(*(torch.zeros(len(queries), min(k, few), dtype=t) for t in (torch.int64, torch.float64)))
        rows, width = self._block(len(queries), queries.embedding.shape[1])
        parts = [self._best(queries.part(slice(i, i + rows)), few, width) for i in range(0, len(queries), rows)]
        found = refined(self.model, queries, self.corpus, torch.cat(parts), k, self.side, chunk=self.chunk)
        return Found(*self.copies.listed(*found, k))

    def _block(self, queries: int, dim: int) -> tuple[int, int]:
        """How many queries, and how many of the corpus, at a time: as many y as fit beside one x, then as many x as fit."""
        most = max(1, self.chunk // max(1, dim))
        y = min(most, len(self.corpus) if self.side == "x" else queries)
        x = min(most, max(1, self.chunk // y))
        return (x, y) if self.side == "x" else (y, x)

    def _best(self, queries: OneSide, few: int, width: int) -> Int64[Tensor, "n few"]:
        """Places of the best few by energies that have the rounding of a product."""
        device = device_of(self.model)
        energy = torch.zeros(len(queries), 0, device=device)
        place = torch.zeros(len(queries), 0, dtype=torch.int64, device=device)
        for start in range(0, len(self.corpus), width):
            self.stop()
            block = self._energies(queries, self.corpus.part(slice(start, start + width)))
            near = lowest(block, min(few, block.shape[1]))
            energy = torch.cat([energy, block.gather(1, near)], dim=1)
            place = torch.cat([place, near + start], dim=1)
            keep = lowest(energy, min(few, energy.shape[1]))
            energy, place = energy.gather(1, keep), place.gather(1, keep)
        return place.cpu()

    def _energies(self, queries: OneSide, some: OneSide) -> Float[Tensor, "n m"]:
        x, y = (queries, some) if self.side == "x" else (some, queries)
        with evaluating(self.model) as device:
            known = None if x.action is None else x.action.to(device)
            energy = self.model.energy(x.embedding.to(device), y.embedding.to(device), known)
            found: Tensor = self.model.minimizer(energy.cross()).value
        return found if self.side == "x" else found.T


def lowest(values: Float[Tensor, "n m"], few: int) -> Int64[Tensor, "n few"]:
    """Places of the lowest few of each row, ascending in value, of equals the first; NaN is highest."""
    near = values.topk(few, dim=1, largest=False)
    chosen = near.indices
    tied = (values <= near.values[:, -1:]).sum(1) > few  # topk takes any of those that are equal to the last
    if bool(tied.any()):
        chosen[tied] = values[tied].sort(dim=1, stable=True).indices[:, :few]
    by_place = chosen.sort(dim=1).values
    order = values.gather(1, by_place).argsort(dim=1, stable=True)
    return by_place.gather(1, order)


def refined(
    model: JointEmbedding,
    queries: OneSide,
    corpus: OneSide,
    place: Int64[Tensor, "n c"],
    k: int,
    side: Side,
    *,
    chunk: int = ELEMENTS,
) -> Found:
    """The best k of some candidates for each query, by energies that are computed pair by pair.

    Candidates that are -1, or occur twice, do not count.
    """
    step, parts = max(1, chunk // max(1, place.shape[1] * queries.embedding.shape[-1])), []
    k = min(k, len(corpus))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        candidates = place[rows].sort(dim=1).values
        energy = _pair_by_pair(model, queries.part(rows), corpus, candidates.clamp_min(0), side)
        twice = torch.zeros_like(candidates, dtype=torch.bool)
        twice[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
        energy = energy.masked_fill(twice | (candidates < 0) | energy.isnan(), torch.inf)
        order = energy.argsort(dim=1, stable=True)[:, :k]
        value = energy.gather(1, order)
        nothing = value.isinf()
        found = candidates.gather(1, order).masked_fill(nothing, -1)
        parts.append((_wide(found, k, -1), _wide(value.masked_fill(nothing, torch.nan), k, torch.nan)))
    return Found(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _pair_by_pair(
    model: JointEmbedding, queries: OneSide, corpus: OneSide, place: Int64[Tensor, "n c"], side: Side
) -> Float[Tensor, "n c"]:
    """F of each query with each of its candidates; candidates are the first axis, so that no cost takes them for a product."""
    others = corpus.part(place.T)
    own = OneSide(queries.embedding[None], None if queries.action is None else queries.action[None])
    x, y = (own, others) if side == "x" else (others, own)
    with evaluating(model) as device:
        known = None if x.action is None else x.action.to(device)
        energy = model.energy(x.embedding.to(device), y.embedding.to(device), known)
        value: Tensor = model.minimizer(energy).value.double().cpu()
    return value.T


def _wide(values: Tensor, k: int, filling: float) -> Tensor:
    """With k columns."""
    missing = k - values.shape[1]
    return torch.nn.functional.pad(values, (0, missing), value=filling) if missing > 0 else values


def require_single(latent: Latent) -> None:
    """Refuses a latent whose z belongs to a whole sequence.

    Raises:
        UsageError: then.
    """
    if latent.coupled:
        raise UsageError(
            f"{type(latent).__name__} has one z for a whole sequence: single pairs have no energy to search by",
            where="latent.name",
            help="use a latent without memory, for example codebook",
            code="E235",
        )


def search(
    model: JointEmbedding,
    queries: Tensor | np.ndarray | Samples,
    corpus: Tensor | np.ndarray | Samples,
    k: int = 10,
    *,
    side: Side = "x",
    pairing: Pairing | None = None,
    action: Tensor | None = None,
    stop: Stop = never,
) -> Found:
    r"""The k best of a corpus for each query, $\arg\min_j F(x_i, y_j)$, exactly; lowest first, of equals the first in the corpus.

    Args:
        model: left in the mode it had.
        queries: x, in the form the encoder takes, (n, ...), or samples, whose plain x is taken. With ``side="y"``: y.
        corpus: y, or samples whose plain y is taken; with ``side="y"``: x.
        k: how many; fewer where the corpus has fewer.
        side: what the queries are. "y" looks for the x that go with a y: F(corpus, query).
        pairing: makes x and y of samples.
        action: known causes of y, one for each x, where x are arrays.
        stop: called between batches.

    Returns:
        `Found`. What is not ok among samples, or has no finite embedding, is not found; as a query it finds nothing (-1 and NaN).

    Raises:
        UsageError: for samples without a pairing, numbers out of bounds, or a latent whose z belongs to whole sequences.

    Example:
        >>> found = accord.search(model, x, y, k=5)
        >>> found.place[0], found.energy[0]
    """
    if side not in SIDES:
        raise UsageError(f"unknown side {side!r}", where="side", help="x or y", code="E223")
    other: Side = "y" if side == "x" else "x"
    places, asked = _embedded(model, queries, side, pairing, action, stop)
    known, held = _embedded(model, corpus, other, pairing, action, stop)
    found = Exact(model, held, side, stop=stop)(asked, k)
    width = found.place.shape[1]
    place = torch.full((len(queries), width), -1, dtype=torch.int64)
    energy = torch.full((len(queries), width), torch.nan, dtype=torch.float64)
    place[places] = torch.where(found.place < 0, -1, known[found.place.clamp_min(0)]) if len(known) else found.place
    energy[places] = found.energy
    return Found(place, energy)


def _embedded(
    model: JointEmbedding,
    given: Tensor | np.ndarray | Samples,
    side: Side,
    pairing: Pairing | None,
    action: Tensor | None,
    stop: Stop,
) -> tuple[Int64[Tensor, "n"], OneSide]:
    """Places and embeddings of all that has a finite embedding."""
    if not isinstance(given, Samples):
        found = _of_values(model, torch.as_tensor(given), side, action if side == "x" else None, stop)
        index = np.arange(len(given))
    elif pairing is None:
        raise UsageError(
            "what is x and what is y of a sample?",
            where="pairing",
            help="give search the pairing of the training, or the arrays that the encoders take",
            code="E242",
        )
    else:
        index = np.flatnonzero(given.ok)
        found = embed_side(model, given, index, pairing, side, stop=stop)
    fine = found.embedding.isfinite().all(1)
    return torch.from_numpy(index)[fine], found.part(fine)


def _of_values(model: JointEmbedding, values: Tensor, side: Side, action: Tensor | None, stop: Stop) -> OneSide:
    parts = []
    with evaluating(model) as device:
        encoder = model.encoder_x if side == "x" else model.encoder_y
        for some in values.split(BATCH) if len(values) else [values]:
            stop()
            parts.append(encoder(some.to(device)).float().cpu())
    return OneSide(torch.cat(parts), action)
