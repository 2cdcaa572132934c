"""Surprise over the time of long series, for evaluation.json and the report: what the energies of windows say of each step."""

from __future__ import annotations

import numpy as np

from accord.data.pairing import Pairing
from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.evaluate.energy import scores
from accord.evaluate.features import Stop, never
from accord.evaluate.surprise import Usual, per_step, usual
from accord.model.joint_embedding import JointEmbedding

MOST_SERIES, MOST_VALUES = 12, 4000
"""Series that are kept, and values of each; of more steps the highest of each stretch."""
DRAWS = 8


def over_time(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    seed: int,
    stop: Stop = never,
) -> dict[str, object] | None:
    """The energies of the windows `index` step by step, relative to what is usual among them; None where samples are no windows.

    A window judges all its steps, and where pairs are of past and future the steps of the future. 1 % of the windows lie above 1 by
    definition: the figures say where surprise is, not whether there is any.

    Returns:
        "median" and "high" (the energies at 0 and at 1), and "series": "name", "first" (step of the first value), "stride" (steps per
        value) and "surprise", None for steps that no window judges. Also None if no energy is finite.
    """
    windows = samples.windows
    if windows is None or not len(index):
        return None
    draws = DRAWS if pairing.random else 1
    energy = scores(model, samples, index, pairing, seed=seed, draws=draws, stop=stop).numpy()
    if not np.isfinite(energy).any():
        return None
    scale, some = usual(energy), windows.rows(index)
    length = int((some.last - some.first).max()) + 1
    if isinstance(pairing, Future):
        length = pairing.horizon
    found = []
    for place in np.unique(some.series)[:MOST_SERIES].tolist():
        mine = some.series == place
        name = samples.keys[int(index[mine.argmax()])].rpartition(":")[0]
        found.append({"name": name, **_one(energy[mine], some.last[mine] - length + 1, length, scale)})
    return {"median": scale.median, "high": scale.high, "series": found}


def _one(energy: np.ndarray, first: np.ndarray, length: int, scale: Usual) -> dict[str, object]:
    """Of one series."""
    start = int(first.min())
    steps = int(first.max()) + length - start
    values = scale.relative(per_step(energy, first - start, length, steps))
    stride = -(-steps // MOST_VALUES)
    padded = np.concatenate([values, np.full(-steps % stride, np.nan)]).reshape(-1, stride)
    highest = np.where(np.isnan(padded), -np.inf, padded).max(1)
    shown = [round(v, 4) if np.isfinite(v) else None for v in highest.tolist()]
    return {"first": start, "stride": stride, "surprise": shown}
