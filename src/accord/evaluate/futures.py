"""Hypotheses of the future of a series as values: what is predicted in representation space, read out, and held against what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.errors import UsageError
from accord.evaluate.features import Stop, device_of, embed_plain, evaluating, never, read
from accord.evaluate.forecast import Accuracy, Readout, accuracy, crps, fit_readout
from accord.evaluate.hypotheses import Hypotheses, how_many, hypotheses
from accord.evaluate.work import Work
from accord.model.joint_embedding import JointEmbedding

MOST, BATCH = 4096, 256
"""Training pairs that a readout is fitted to, and how many have their z inferred at a time."""
SHOWN, HYPOTHESES = 2000, 8
"""Held-out pairs that an evaluation reads out at most, and hypotheses of each."""


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
    return Futures(values, accuracy(values, y.double(), weights(found.probability)))


def weights(probability: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Probabilities that sum to 1 over the hypotheses; equal ones where they say nothing."""
    p = probability.double()
    p = p / p.sum(1, keepdim=True).clamp_min(1e-300)
    return torch.where(p.sum(1, keepdim=True) > 0.5, p, 1 / p.shape[1])


def last_values(x: Float[Tensor, "n step channel"]) -> Float[Tensor, "n channel"]:
    """The last value of each channel that was observed, NaN where none was."""
    place = torch.arange(x.shape[1], device=x.device)[None, :, None]
    last = torch.where(x.isfinite(), place, -1).amax(1, keepdim=True)
    return torch.where(last >= 0, x.gather(1, last.clamp_min(0)), torch.nan)[:, 0]


class Judged(NamedTuple):
    """How good the hypotheses of some futures are, beside their mean as the only one and the last value repeated, each (n,).

    crps_fair: of the hypotheses as equally weighted draws, NaN for one alone. ade, fde: of each hypothesis by itself, (n, k). All NaN
    where nothing of the future was observed, or of a channel of the past.
    """

    hypotheses: Accuracy
    mean: Accuracy
    last_value: Accuracy
    crps_fair: Tensor
    ade: Tensor
    fde: Tensor


def judged(values: Tensor, probability: Tensor, x: Tensor, y: Tensor) -> Judged:
    """Hypotheses (n, k, step, channel) with their probabilities (n, k) held against y, (n, step, channel); see `Judged`.

    All figures are of the same rows and the same cells, so that they compare.
    """
    n, k = values.shape[:2]
    p, last = weights(probability), last_values(x.double())
    y = torch.where(last.isnan().any(1)[:, None, None], torch.nan, y.double())
    mean = (p[:, :, None, None] * values).sum(1, keepdim=True)
    single = accuracy(values.flatten(0, 1)[:, None], y.repeat_interleave(k, 0))
    return Judged(
        accuracy(values, y, p),
        accuracy(mean, y),
        accuracy(last.nan_to_num()[:, None, None].expand_as(mean), y),
        crps(values, y, fair=True) if k > 1 else torch.full((n,), torch.nan, dtype=torch.float64),
        single.min_ade.view(n, k),
        single.min_fde.view(n, k),
    )


def standardized(values: Tensor, probability: Tensor, x: Tensor, y: Tensor, std: Float[Tensor, "channel"]) -> Judged:
    """As `judged`, with each channel in units of its standard deviation, so that no channel outweighs the others by its unit.

    Channels whose standard deviation is NaN have no such unit and are left out.
    """
    varying = std.isfinite()
    unit = std[varying]
    return judged(values[..., varying] / unit, probability, *(part[..., varying].double() / unit for part in (x, y)))


class Tally:
    """What is known of some futures so far: batches judged in the units of the values, and standardised by the training part."""

    def __init__(self, readout: Readout, channels: Sequence[str]):
        self.readout, self.channels = readout, channels
        self.judged: list[Judged] = []
        self.standardized: list[Judged] = []

    def add(self, values: Tensor, probability: Tensor, x: Tensor, y: Tensor) -> Judged:
        """One more batch; arguments and result as of `judged`."""
        self.judged.append(judged(values, probability, x, y))
        self.standardized.append(standardized(values, probability, x, y, self.readout.std))
        return self.judged[-1]

    def figures(self) -> dict[str, Any]:
        """Those of `figures`, and as "standardized" the same with each channel in units of its standard deviation.

        "std" in it has those by the names of the channels, None for one that did not vary in training and is left out.
        """
        std = [float(value) if value.isfinite() else None for value in self.readout.std]
        more = {"std": dict(zip(self.channels, std, strict=True)), **means(self.standardized)}
        return {"readout_r2": self.readout.score, **means(self.judged), "standardized": more}


def means(parts: Sequence[Judged]) -> dict[str, Any]:
    """Means over all rows that hold their truth, as a verb prints them and evaluation.json holds them; None without such a row.

    "rows", and of "hypotheses" (with "k" and "crps_fair"), "mean" and "last_value" each "min_ade", "min_fde", "crps".
    """
    known = [part.hypotheses.min_ade.isfinite() for part in parts]

    def mean(columns: Sequence[Tensor]) -> float | None:
        found = torch.cat([column[rows] for column, rows in zip(columns, known, strict=True)])
        return None if not len(found) or bool(found.isnan().any()) else float(found.mean())

    def of(accuracies: Sequence[Accuracy]) -> dict[str, float | None]:
        return {name: mean([getattr(one, name) for one in accuracies]) for name in ("min_ade", "min_fde", "crps")}

    if not parts:
        return {"rows": 0}
    more = {"k": parts[0].ade.shape[1], "crps_fair": mean([part.crps_fair for part in parts])}
    return {
        "rows": sum(int(rows.sum()) for rows in known),
        "hypotheses": {**more, **of([part.hypotheses for part in parts])},
        "mean": of([part.mean for part in parts]),
        "last_value": of([part.last_value for part in parts]),
    }


def held_out_figures(work: Work) -> dict[str, Any] | None:
    """The figures of at most 2,000 held-out pairs of past and future, with 8 hypotheses; None for other pairs.

    None as well, with a warning, where a readout cannot be fitted.
    """
    pairing, model = work.pairing, work.model
    if not isinstance(pairing, Future) or model.latent.coupled:
        return None
    try:
        readout = future_readout(model, work.train.samples, work.train.index, pairing, seed=work.seed, stop=work.stop)
    except UsageError as error:
        work.warnings.append(f"Futures are not read out: {error.message}.")
        return None
    samples, index = work.part.samples, work.part.index[work.some(SHOWN)]
    tally = Tally(readout, samples.features)
    k = how_many(model.latent, HYPOTHESES)
    for rows in read(samples, index, torch.device("cpu"), BATCH):
        s_x, _, action = embed_plain(model, samples, rows.place, pairing, stop=work.stop)
        found = hypotheses(model, s_x, k, action, seed=work.seed)
        x, y = pairing.plain(rows.values), pairing.plain_y(rows.values)
        tally.add(readout(found.s_y_hat), found.probability, x, y)
    return tally.figures()
