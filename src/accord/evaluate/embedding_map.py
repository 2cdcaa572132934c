"""The embedding in two dimensions (t-SNE, or two principal components), and who is whose neighbour in all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

TSNE_POINTS = 2000
"""More points than this are placed by their principal components."""


class Map(NamedTuple):
    """Points in the plane, (n, 2) float64, and how they came there: "tsne" or "pca"."""

    method: str
    points: np.ndarray


def directions(features: Float[Tensor, "n feature"]) -> Float[Tensor, "n feature"]:
    """Rows centred on their mean and scaled to length 1: the geometry in which neighbours are found, here and in the k-NN probe."""
    return torch.nn.functional.normalize(features - features.mean(0))


def embed_in_plane(features: Float[Tensor, "n feature"], *, seed: int) -> Map:
    """A map on which neighbours stay together: 50 principal components, then t-SNE (van der Maaten, Hinton 2008) from the first two.

    The same features and seed give the same map. Above 2,000 points, below 10, or where the features have fewer than two directions,
    the first two principal components themselves.
    """
    rows = directions(features.double())
    u, s, _ = torch.linalg.svd(rows, full_matrices=False)
    kept = s > 1e-9 * s[:1].clamp_min(1e-12)
    components = (u * s)[:, kept][:, :50]
    plane = torch.zeros(len(rows), 2, dtype=torch.float64)
    plane[:, : min(2, components.shape[1])] = components[:, :2]
    if not 10 <= len(rows) <= TSNE_POINTS or components.shape[1] < 2:
        return Map("pca", plane.numpy())
    return Map("tsne", _tsne(components.numpy(), plane.numpy(), seed))


def _tsne(rows: np.ndarray, start: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, (len(rows) - 1) / 3),
        init=(start / start[:, 0].std() * 1e-4).astype(np.float32),
        learning_rate="auto",
        max_iter=500,
        random_state=seed % 2**32,
        n_jobs=1,
    )
    points: np.ndarray = tsne.fit_transform(rows.astype(np.float32)).astype(np.float64)
    return points


class Near(NamedTuple):
    """Of some rows, the k nearest others, nearest first: which (queries, k), and one minus their cosine (queries, k)."""

    place: Int64[Tensor, "queries k"]
    distance: Float[Tensor, "queries k"]


def nearest(features: Float[Tensor, "n feature"], queries: Int64[Tensor, "queries"], k: int) -> Near:
    """The `k` nearest other rows of each query, by cosine of the centred rows; fewer where there are fewer."""
    rows = directions(features)
    cosine = rows[queries] @ rows.T
    cosine[torch.arange(len(queries)), queries] = -torch.inf
    best = cosine.topk(min(k, len(rows) - 1))
    return Near(best.indices, 1 - best.values)


def queries_for(labels: np.ndarray | None, n: int, count: int, seed: int) -> Int64[Tensor, "queries"]:
    """Up to `count` of n rows at random, of as many different classes as there are; ascending by class where there are labels."""
    order = np.random.default_rng(seed).permutation(n)
    if labels is None or not (labels >= 0).any():
        return torch.from_numpy(order[:count].copy())
    labelled = order[labels[order] >= 0]
    first = np.unique(labels[labelled], return_index=True)[1]
    chosen = np.sort(first)[:count]
    rest = np.setdiff1d(np.arange(len(labelled)), chosen)[: count - len(chosen)]
    picked = labelled[np.concatenate([chosen, rest])]
    return torch.from_numpy(picked[np.argsort(labels[picked], kind="stable")])
