"""Hypotheses of the future of a series as values: what is predicted in representation space, read out, and held against what came."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.evaluate.features import Stop, device_of, embed_plain, evaluating, never, read
from accord.evaluate.forecast import Accuracy, Readout, accuracy, fit_readout
from accord.evaluate.hypotheses import Hypotheses
from accord.model.joint_embedding import JointEmbedding

MOST, BATCH = 4096, 256
"""Training pairs that a readout is fitted to, and how many have their z inferred at a time."""


class Futures(NamedTuple):
    """Of each series: K futures (n, k, step, channel) in the units of the values, cheapest first, and how good they are (n,)."""

    values: Tensor
    accuracy: Accuracy


def future_readout(
    model: JointEmbedding, samples: Samples, index: np.ndarray, pairing: Future, *, seed: int, stop: Stop = never
) -> Readout:
    """The linear map from embeddings to futures, by ridge regression on the training pairs `index` (at most 4,096, at random).

    A y that is its own embedding is read back from it. Otherwise the map is from the predictions with the z that training pairs have
    (`minimum.argmin`), so that it knows what predictions look like; its `score` says how much of the values it tells.

    Raises:
        UsageError: for fewer than 10 pairs without gaps.
    """
    some = np.sort(np.random.default_rng(seed).permutation(index)[:MOST])
    s_x, s_y, action = embed_plain(model, samples, some, pairing, stop=stop)
    told = s_y if model.takes_y_as_it_is else _predicted(model, s_x, s_y, action, stop)
    y = torch.cat([pairing.plain_y(rows.values).cpu() for rows in read(samples, some, torch.device("cpu"))])
    return fit_readout(told, y, seed=seed)


def _predicted(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None, stop: Stop) -> Tensor:
    """Predictions with the z of least energy, (n, dim)."""
    device, parts = device_of(model), []
    for start in range(0, len(s_x), BATCH):
        stop()
        rows = slice(start, start + BATCH)
        with evaluating(model):
            energy = model.energy(
                s_x[rows].to(device), s_y[rows].to(device), None if action is None else action[rows].to(device)
            )
            parts.append(energy.predict(model.minimizer(energy).argmin).cpu())
    return torch.cat(parts)


def futures(readout: Readout, found: Hypotheses, y: Tensor) -> Futures:
    """Hypotheses as futures, and their accuracy where y, (n, step, channel), is known (NaN where it is not); all weigh as probable.

    Probabilities that do not sum to 1, for only some z are listed, are scaled.
    """
    values = readout(found.s_y_hat)
    p = found.probability.double()
    p = p / p.sum(1, keepdim=True).clamp_min(1e-300)
    known = torch.where((p.sum(1, keepdim=True) > 0.5), p, 1 / p.shape[1])
    return Futures(values, accuracy(values, y.double(), known))
