"""What an evaluation shows rather than measures: thumbnails, the map, neighbours and extreme pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from accord.data.random import Draws
from accord.evaluate import probes
from accord.evaluate.embedding_map import embed_in_plane, nearest, queries_for
from accord.evaluate.features import BATCH, evaluating, first, read
from accord.evaluate.pictures import Sheet
from accord.evaluate.work import Work

THUMBNAILS = "evaluation/thumbnails.png"
MAP_POINTS = 1000
QUERIES, NEIGHBOURS, EXTREMES = 8, 8, 8


class Thumbnails:
    """Places of samples on the sheet, each drawn once; -1 where there is no sheet."""

    def __init__(self, work: Work, sheet: Sheet | None):
        self.work, self.sheet = work, sheet
        self.known: dict[int, int] = {}

    def of(self, index: np.ndarray) -> list[int]:
        """Numbers of the plain views of samples."""
        if self.sheet is None:
            return [-1] * len(index)
        new = np.array(sorted({int(i) for i in index} - set(self.known)), np.int64)
        for rows in read(self.work.part.samples, new, torch.device("cpu")):
            shown = self.work.pairing.plain(rows.values, rows.aspect)
            if shown.ndim != 4:  # x is no picture, so y is
                shown = self.work.pairing.plain_y(rows.values, rows.aspect)
            places = self.sheet.add(shown)
            self.known |= dict(zip((int(i) for i in rows.place), places, strict=True))
        return [self.known[int(i)] for i in index]


def pictures(
    work: Work, features: Tensor, pairs: np.ndarray, matched: Tensor, sheet: Sheet | None
) -> dict[str, object]:
    """Map, neighbours and extreme pairs; fills the sheet."""
    samples, index = work.part.samples, work.part.index
    thumbnails = Thumbnails(work, sheet)
    labels = _labels(work)
    chosen = work.some(MAP_POINTS)
    flat = embed_in_plane(features[torch.from_numpy(chosen)], seed=work.seed)
    work.stop()
    found: dict[str, object] = {
        "map": {
            "method": flat.method,
            "x": flat.points[:, 0].tolist(),
            "y": flat.points[:, 1].tolist(),
            "label": labels[chosen].tolist(),
            "thumbnail": thumbnails.of(index[chosen]),
            "key": [samples.keys[int(i)] for i in index[chosen]],
        },
        "neighbours": _neighbours(work, features, labels, chosen, thumbnails),
    }
    order = matched.argsort().numpy()
    count = min(EXTREMES, max(1, len(order) // 2))
    found["pairs"] = {
        "lowest": _pairs(work, pairs, matched, order[:count], sheet),
        "highest": _pairs(work, pairs, matched, order[::-1][:count], sheet),
    }
    found["thumbnails"] = None if sheet is None else sheet.describe(THUMBNAILS)
    return found


def _labels(work: Work) -> np.ndarray:
    """Labels of what is measured in the numbers of data.classes; -1 where there is none."""
    labels = work.part.samples.labels
    if labels is None:
        return np.full(len(work.part.index), -1, np.int64)
    labels = labels[work.part.index]
    if work.part.samples is not work.train.samples:
        labels = probes.by_name(labels, work.part.samples.classes, work.train.samples.classes)
    known: np.ndarray = np.maximum(labels, -1)
    return known


def _neighbours(
    work: Work, features: Tensor, labels: np.ndarray, chosen: np.ndarray, thumbnails: Thumbnails
) -> list[dict[str, object]]:
    """Nearest among all that is measured of a few samples of the map, one of each class as far as it goes."""
    samples, index = work.part.samples, work.part.index
    queries = chosen[queries_for(labels[chosen], len(chosen), QUERIES, work.seed).numpy()]
    near = nearest(features, torch.from_numpy(queries), NEIGHBOURS)
    groups: list[dict[str, object]] = []
    for query, places, distances in zip(queries, near.place.numpy(), near.distance.tolist(), strict=True):
        found = [
            {"thumbnail": t, "key": samples.keys[int(index[p])], "label": int(labels[p]), "distance": d}
            for t, p, d in zip(thumbnails.of(index[places]), places, distances, strict=True)
        ]
        groups.append(
            {
                "query": thumbnails.of(index[[query]])[0],
                "key": samples.keys[int(index[query])],
                "label": int(labels[query]),
                "neighbours": found,
            }
        )
    return groups


def _pairs(
    work: Work, pairs: np.ndarray, matched: Tensor, order: np.ndarray, sheet: Sheet | None
) -> list[dict[str, object]]:
    """Some pairs with their energy and the two views that have it."""
    samples, x, y = work.part.samples, [-1] * len(order), [-1] * len(order)
    if sheet is not None:
        with evaluating(work.model):
            rows = next(read(samples, pairs[order], torch.device("cpu"), BATCH))
            draws = Draws(work.seed, 0, torch.from_numpy(rows.place))
            pair = first(work.model, work.pairing(rows.values, draws, rows.aspect))
        x, y = (sheet.add(side) if side.ndim == 4 else [-1] * len(order) for side in (pair.x, pair.y))
    return [
        {"key": samples.keys[int(pairs[o])], "energy": float(matched[int(o)]), "x": x[i], "y": y[i]}
        for i, o in enumerate(order)
    ]
