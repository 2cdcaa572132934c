r"""Does the energy tell what belongs together? F of matched pairs against a ladder of mismatches, ever harder to notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from accord.data.pairing import Pairing
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.diagnostics import auroc, d_prime
from accord.evaluate.features import BATCH, Embedded, Stop, device_of, evaluating, first, never, read
from accord.model.energy import cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic

ELEMENTS = 1 << 22
"""Energies are computed in blocks of about so many numbers (16 MB), whatever the number of pairs."""
BINS = 40


class Ladder(NamedTuple):
    """F(x, y), each (n,) float64: the pair itself, y of a random other sample, y of the sample nearest to x, y slightly damaged."""

    matched: Tensor
    random: Tensor
    nearest: Tensor
    perturbed: Tensor


def pair_energies(
    model: JointEmbedding, s_x: Float[Tensor, "n dim"], s_y: Float[Tensor, "n dim"], action: Tensor | None = None
) -> Float[Tensor, "n"]:
    """F(x_i, y_i) of embeddings, (n,) float64 on the CPU, in blocks."""
    parts = []
    with evaluating(model) as device:
        step = max(1, ELEMENTS // max(1, s_x.shape[1] * _codes(model)))
        for start in range(0, len(s_x), step):
            rows = slice(start, start + step)
            known = None if action is None else action[rows].to(device)
            energy = model.energy(s_x[rows].to(device), s_y[rows].to(device), known)
            parts.append(model.minimizer(energy).value.double().cpu())
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def cross_energies(
    model: JointEmbedding, s_x: Float[Tensor, "n dim"], s_y: Float[Tensor, "m dim"], action: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """F(x_i, y_j) of all x with all y, block of rows by block of rows: (rows, (rows, m) on the CPU). Memory does not grow with n m.

    With squared error or cosine and no latent the block is one matrix product; otherwise the model's minimiser is asked.
    """
    quick = isinstance(model.latent, Deterministic) and model.cost in (squared_error, cosine)
    s_y = s_y.to(device_of(model))
    step = max(1, ELEMENTS // max(1, _numbers(model, s_x[:1], s_y, None if action is None else action[:1])))
    for start in range(0, len(s_x), step):
        rows = slice(start, start + step)
        with evaluating(model) as device:  # not around the yield: the caller's mode is the caller's
            known = None if action is None else action[rows].to(device)
            block: Tensor = (_product if quick else _asked)(model, s_x[rows].to(device), s_y, known)
        yield rows, block.double().cpu()


def _asked(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None) -> Tensor:
    value: Tensor = model.minimizer(model.energy(s_x, s_y, action).cross()).value
    return value


def _numbers(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None) -> int:
    """How many numbers the energies of one x with all y go through; of a matrix product no more than come of it."""
    device = device_of(model)
    one = model.energy(s_x.to(device), s_y, None if action is None else action.to(device)).cross()
    return one.size(shared=model.latent.candidates() is not None) * _codes(model)


def _codes(model: JointEmbedding) -> int:
    """How many values of z are tried at once; a guess of 64 where they cannot be counted."""
    candidates = model.latent.candidates()
    return 64 if candidates is None else max(1, len(candidates))


def _product(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None) -> Tensor:
    r"""$(\lVert a \rVert^2 + \lVert b \rVert^2 - 2 a \cdot b) / D$ or $1 - \cos(a, b)$ of all predictions a and all b, in float64.

    Centred first, and what is within rounding of 0 is 0, so that equal embeddings give equal energies.
    """
    z = model.latent.candidates()
    assert z is not None
    a, b = model.predictor(s_x, z, action).double(), s_y.double()
    if model.cost is cosine:
        a, b = (v / v.norm(dim=-1, keepdim=True).clamp_min(1e-8) for v in (a, b))
        angle: Tensor = 1 - a @ b.T
        return angle.round(decimals=12)
    size = b.square().mean(0).sum()
    centre = b.mean(0)
    a, b = a - centre, b - centre
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)
    return torch.where(squares > 1e-13 * size, squares, 0) / s_y.shape[1]


def ladder(
    model: JointEmbedding, embedded: Embedded, content: Shaped[np.ndarray, "n"], *, seed: int, stop: Stop = never
) -> Ladder:
    """Energies of the rungs. A mismatch is never a sample of the same content.

    random: a cyclic shift of a random order. nearest: the sample whose s_x is nearest (Euclidean) to this s_x.

    Raises:
        ValueError: with fewer than 2 different samples.
    """
    s_x, s_y, damaged, action = embedded
    rungs = []
    for rung in (s_y, s_y[random_other(content, seed)], s_y[nearest_other(s_x, content)], damaged):
        stop()
        rungs.append(pair_energies(model, s_x, rung, action))
    return Ladder(*rungs)


def random_other(content: Shaped[np.ndarray, "n"], seed: int) -> Int64[Tensor, "n"]:
    """For each sample another one, of other content, at random; every sample is chosen about equally often.

    Raises:
        ValueError: if all contents are equal.
    """
    _, group, counts = np.unique(content, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(f"mismatched pairs need at least 2 different samples, got {len(counts)}")
    rng = np.random.default_rng(seed)
    order = np.lexsort(
        (rng.random(len(group)), rng.permutation(len(counts))[group])
    )  # random, equal contents side by side
    n, chosen = len(order), np.empty(len(order), np.int64)
    chosen[order] = order[(np.arange(n) + counts.max()) % n]
    clash = np.flatnonzero(group[chosen] == group)  # only where one content makes up more than half
    for i in clash:
        others = np.flatnonzero(group != group[i])
        chosen[i] = others[rng.integers(len(others))]
    return torch.from_numpy(chosen)


def nearest_other(s: Float[Tensor, "n dim"], content: Shaped[np.ndarray, "n"]) -> Int64[Tensor, "n"]:
    """For each row of `s` the nearest other row (Euclidean) of other content."""
    group = torch.from_numpy(np.unique(content, return_inverse=True)[1])
    chosen = torch.empty(len(s), dtype=torch.int64)
    step = max(1, ELEMENTS // max(1, len(s)))
    centred = s - s.mean(0)
    squares = centred.square().sum(1)
    for start in range(0, len(s), step):
        rows = slice(start, start + step)
        distance = squares - 2 * centred[rows] @ centred.T  # plus a constant of the row
        chosen[rows] = distance.masked_fill_(group[rows, None] == group, torch.inf).argmin(1)
    return chosen


def scores(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    seed: int,
    draws: int = 8,
    batch_size: int = BATCH,
    stop: Stop = never,
) -> Float[Tensor, "n"]:
    """The score of each sample: mean F over `draws` pairs made of it, (n,) float64; what calibration and scoring read.

    The random numbers are those of (seed, draw) and the same for every sample: a score depends on the sample alone, not on its
    place in a file or on what else is scored. Rows that are not finite stay so: nothing is raised.
    """
    parts = []
    with evaluating(model) as device:
        for rows in read(samples, index, device, batch_size):
            stop()
            same = torch.zeros(len(rows.place), dtype=torch.int64, device=device)
            total = torch.zeros(len(rows.place), dtype=torch.float64)
            for draw in range(draws):
                pair = first(model, pairing(rows.values, Draws(seed, draw, same), rows.aspect))
                energy = model(pair.x, pair.y, pair.action)
                total += model.minimizer(energy).value.double().cpu()
            parts.append(total / draws)
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def summary(rungs: Ladder) -> dict[str, object]:
    """Means, standard deviations, gap, AUROC and d' of each rung against the matched pairs, and histograms with shared edges."""
    matched = rungs.matched
    rows = {
        name: {
            **_moments(values),
            "gap": float(values.mean() - matched.mean()),
            "auroc": auroc(matched, values),
            "d_prime": d_prime(matched, values),
        }
        for name, values in zip(Ladder._fields[1:], rungs[1:], strict=True)
    }
    return {"matched": _moments(matched), "ladder": rows, "histogram": histogram(rungs)}


def histogram(rungs: Ladder, bins: int = BINS) -> dict[str, list[float] | list[int]]:
    """Counts of each rung in `bins` bins with the same edges; the outermost bins also hold what lies beyond (0.5 % of all at most)."""
    everything = torch.cat(rungs).numpy()
    low, high = float(everything.min()), float(np.quantile(everything, 0.995))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = {
        name: np.histogram(np.clip(values.numpy(), low, high), edges)[0].tolist()
        for name, values in zip(Ladder._fields, rungs, strict=True)
    }
    return {"edges": edges.tolist(), **counts}


def _moments(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else 0.0}
