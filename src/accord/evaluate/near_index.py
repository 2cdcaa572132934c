r"""Search of large corpora by an index of neighbours (FAISS): few of the corpus are looked at, and those are ranked exactly.

It works where the energy grows with a distance of points: $F = \min_z \lVert \hat s_y(z) - s_y \rVert^2 / D + R(z)$, or with the
cosine in place of the distance, and few z. Of each z the nearest y are asked for, and the best of all z are among them. Where the
queries are y every prediction is a point, with one more coordinate for its price: $\lVert (\hat s_y, \sqrt{D R}) - (s_y, 0) \rVert^2 /
D = E$. Douze et al. 2024, "The Faiss library", arXiv:2401.08281.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from accord.errors import EnvironmentFault, UsageError
from accord.evaluate.features import OneSide, Stop, evaluating, never
from accord.evaluate.search import ELEMENTS, SPARE, Found, Side, refined
from accord.model.energy import cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.minimize import Enumerate

CODES = 64
"""More values of z would make more points than an index is worth."""
LARGE = 200_000
"""A smaller corpus is compared whole."""
QUERIES = 2_000
"""For fewer queries an index is not made."""
SHARE = 8
"""One list of so many is looked through."""
TRAINED = 64
"""So many points for each list are what lists are made of."""


def worth_it(corpus: int, queries: int) -> bool:
    """Whether an index of neighbours is faster than to compare all with all, the time to make it included; measured, see LOG.md."""
    return corpus > LARGE and queries > QUERIES


def suits(model: JointEmbedding) -> str | None:
    """Why an index of neighbours does not do for this model; None where it does."""
    codes, minimizer = model.latent.candidates(), model.minimizer
    if model.cost not in (squared_error, cosine):
        return "its divergence is neither the squared error nor the cosine"
    if codes is None or not isinstance(minimizer, Enumerate):
        return "z has to be searched for"
    if len(codes) > CODES:
        return f"z has {len(codes):,} values, more than {CODES}"
    if len(codes) > 1 and not math.isinf(minimizer.beta):
        return "its free energy is a soft minimum, not that of one z"
    return None


def faiss_module() -> Any:
    """The package.

    Raises:
        EnvironmentFault: if it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise EnvironmentFault(
            f"an index of neighbours needs the package faiss: {error}",
            where="--index",
            help="pip install 'accord[faiss]', or search exactly: --index exact",
            code="E546",
        ) from error
    return faiss


class NearIndex:
    r"""Looks among the nearest only; what is found is ranked by its exact energy, but a better answer may be missed.

    Points are shared out to about $4 \sqrt{m}$ lists, of which a query looks at those that are nearest, an eighth.

    Args:
        model: left in the mode it had.
        corpus: embeddings of y where the queries are x, of x where they are y.
        side: what the queries are.
        lists: how many; by default by the number of points.
        probes: how many of them a query looks at.
        stop: called between two blocks.

    Raises:
        EnvironmentFault: without FAISS.
        UsageError: for a model that it does not suit.
    """

    def __init__(
        self,
        model: JointEmbedding,
        corpus: OneSide,
        side: Side,
        *,
        lists: int | None = None,
        probes: int | None = None,
        stop: Stop = never,
    ):
        reason = suits(model)
        if reason is not None:
            raise UsageError(
                f"an index of neighbours does not do for this model: {reason}",
                where="--index",
                help="--index exact",
                code="E245",
            )
        self.model, self.corpus, self.side, self.stop = model, corpus, side, stop
        self.faiss, self.codes = faiss_module(), len(_candidates(model))
        points = self._of_y(corpus.embedding) if side == "x" else self._priced(corpus)
        count = len(points)
        self.lists = lists or max(1, min(round(4 * math.sqrt(count)), count // 39))
        self.index = self._built(points)
        self.index.nprobe = probes or max(1, -(-self.lists // SHARE))

    def __call__(self, queries: OneSide, k: int) -> Found:
        """Of each query the best k of what is looked at, -1 where that is less."""
        few = min(k + SPARE, len(self.corpus))
        if not few or not len(queries):
            return Found(*(torch.zeros(len(queries), min(k, few), dtype=t) for t in (torch.int64, torch.float64)))
        if self.side == "x":
            points = self._predicted(queries).transpose(0, 1).reshape(len(queries) * self.codes, -1)
            place = self._nearest(points, few).view(len(queries), -1)
        else:
            points = self._of_y(queries.embedding)
            extra = torch.full_like(points[:, :1], 1.0 if self.model.cost is cosine else 0.0)
            found = self._nearest(torch.cat([points, extra], dim=1), min(few * self.codes, self.index.ntotal))
            place = torch.where(found < 0, -1, found % len(self.corpus))
        return refined(self.model, queries, self.corpus, place, k, self.side)

    def _nearest(self, points: Tensor, few: int) -> Tensor:
        self.stop()
        return torch.from_numpy(self.index.search(points.contiguous().numpy(), few)[1])

    def _built(self, points: Float[Tensor, "n dim"]) -> Any:
        dim, values = points.shape[1], points.contiguous().numpy()
        inner = self.model.cost is cosine
        flat = (self.faiss.IndexFlatIP if inner else self.faiss.IndexFlatL2)(dim)
        metric = self.faiss.METRIC_INNER_PRODUCT if inner else self.faiss.METRIC_L2
        index = self.faiss.IndexIVFFlat(flat, dim, self.lists, metric)
        some = min(len(values), TRAINED * self.lists)
        chosen = np.sort(np.random.default_rng(0).choice(len(values), some, replace=False))
        index.train(values[chosen])
        step = max(1, ELEMENTS // dim)
        for start in range(0, len(values), step):
            self.stop()
            index.add(values[start : start + step])
        return index

    def _of_y(self, s_y: Tensor) -> Tensor:
        return torch.nn.functional.normalize(s_y, dim=-1, eps=1e-8) if self.model.cost is cosine else s_y.float()

    def _predicted(self, x: OneSide) -> Float[Tensor, "codes n dim"]:
        """The prediction of each z for each x, as points."""
        with evaluating(self.model) as device:
            z = _candidates(self.model)[:, None]
            given, action = x.embedding.to(device), None if x.action is None else x.action.to(device)
            found = self.model.energy(given, given, action).predict(z)
            return self._of_y(found.expand(self.codes, len(x), found.shape[-1])).cpu()

    def _priced(self, x: OneSide) -> Float[Tensor, "points dim"]:
        """All predictions of a corpus of x, code after code, with a coordinate for the price."""
        parts = []
        step = max(1, ELEMENTS // (self.codes * x.embedding.shape[1]))
        for start in range(0, len(x), step):
            self.stop()
            some = x.part(slice(start, start + step))
            points = self._predicted(some)
            with evaluating(self.model) as device:
                z = _candidates(self.model)[:, None]
                price = self.model.latent.penalty(z, some.embedding.to(device)).cpu().float()
            price = price.expand(self.codes, len(some))
            extra = -price if self.model.cost is cosine else (points.shape[-1] * price).sqrt()
            parts.append(torch.cat([points, extra[..., None]], dim=-1))
        return torch.cat(parts, dim=1).flatten(0, 1)


def _candidates(model: JointEmbedding) -> Tensor:
    codes = model.latent.candidates()
    assert codes is not None
    return codes


def recall(found: Found, exact: Found) -> float:
    """Share of what an exact search finds that was found."""
    there = exact.place >= 0
    hit = (exact.place[:, :, None] == found.place[:, None]).any(2) & there
    return float(hit.sum() / there.sum().clamp_min(1))
