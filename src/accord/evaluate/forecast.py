r"""How good K hypotheses of a future are, once it has come: the best of them, and all of them as a sample of a distribution.

A future is (steps, channels); NaN in it is what was not observed, and counts nowhere. All numbers are per series, (n,); distances are in
the units of the values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from accord.errors import UsageError

PENALTIES = tuple(10.0**k for k in range(-8, 4))
"""Ridge penalties, as shares of the mean variance of an embedding, among which a readout chooses."""


class Accuracy(NamedTuple):
    """Of each series, (n,): see `accuracy`."""

    min_ade: Tensor
    min_fde: Tensor
    mse_best: Tensor
    mse_mean: Tensor
    crps: Tensor
    energy_score: Tensor


def accuracy(
    hypotheses: Float[Tensor, "n k step channel"],
    y: Float[Tensor, "n step channel"],
    probability: Float[Tensor, "n k"] | None = None,
    *,
    fair: bool = False,
) -> Accuracy:
    r"""All measures of hypotheses $\hat y_1, \dots, \hat y_K$ of each $y$.

    - min_ade: $\min_k$ of the mean over steps of $\lVert \hat y_{kt} - y_t \rVert$, Euclidean over what was observed; min_fde:
      $\min_k$ of that distance at the last step that was observed. More hypotheses never make them worse: compare equal K only.
    - mse_best: $\min_k$ of the mean square over steps and channels; mse_mean: the mean square of $\sum_k p_k \hat y_k$.
    - crps: see `crps`, mean over steps and channels; energy_score: see `energy_score`, all steps and channels as one vector.

    Args:
        hypotheses: finite.
        y: NaN where it was not observed.
        probability: weights that sum to 1 over K; equal by default.
        fair: leave out the pairs of a hypothesis with itself, see `crps`.

    Returns:
        NaN for a series of which nothing was observed.

    Raises:
        UsageError: shapes that do not fit, weights that are none, or `fair` with weights or fewer than 2 hypotheses.
    """
    p = _weights(hypotheses, y, probability, fair)
    observed = y.isfinite()
    truth = torch.where(observed, y, 0).to(hypotheses)
    error = torch.where(observed[:, None], hypotheses - truth[:, None], 0)
    distance = error.square().sum(3).sqrt()
    steps = observed.any(2)
    final = _last(steps)[:, None, None].expand(-1, distance.shape[1], 1)
    middle = (p[:, :, None, None] * error).sum(1)
    cells = observed.sum((1, 2))
    seen = cells > 0
    found = Accuracy(
        min_ade=(distance.sum(2) / steps.sum(1)[:, None]).amin(1),
        min_fde=distance.gather(2, final)[..., 0].amin(1),
        mse_best=(error.square().sum((2, 3)) / cells[:, None]).amin(1),
        mse_mean=middle.square().sum((1, 2)) / cells,
        crps=crps(hypotheses, y, probability, fair=fair),
        energy_score=energy_score(hypotheses, y, probability, fair=fair),
    )
    return Accuracy(*(torch.where(seen, value, torch.nan) for value in found))


def crps(
    hypotheses: Float[Tensor, "n k step channel"],
    y: Float[Tensor, "n step channel"],
    probability: Float[Tensor, "n k"] | None = None,
    *,
    fair: bool = False,
) -> Float[Tensor, "n"]:
    r"""Continuous ranked probability score, $\sum_k p_k |\hat y_k - y| - \frac12 \sum_{kl} p_k p_l |\hat y_k - \hat y_l|$, mean over cells.

    That is the integral of the square of the difference of distribution functions: 0 is best, for K = 1 it is the absolute error. It
    judges the hypotheses as they are; ``fair`` judges the distribution they were drawn from, independently and with equal weights: the
    second sum is divided by $K (K - 1)$ instead of $K^2$, which makes it unbiased and lets it be negative.
    Gneiting, Raftery 2007, JASA 102; fair: Ferro 2014, QJRMS 140. Arguments and errors as `accuracy`.
    """
    p = _weights(hypotheses, y, probability, fair)
    observed = y.isfinite()
    truth = torch.where(observed, y, 0).to(hypotheses)
    near = (p[:, :, None, None] * (hypotheses - truth[:, None]).abs()).sum(1)
    # sum_kl p_k p_l |a_k - a_l| = 2 sum_k p_k (C_k a_k - S_k), C and S the weight and the weighted sum of what is smaller
    ordered, order = hypotheses.sort(dim=1)
    weight = p[:, :, None, None].expand_as(hypotheses).gather(1, order)
    below = weight.cumsum(1) - weight
    spread = 2 * (weight * (below * ordered - (weight * ordered).cumsum(1) + weight * ordered)).sum(1)
    value = torch.where(observed, near - spread / 2 * _correction(hypotheses.shape[1], fair), 0)
    cells = observed.sum((1, 2))
    return torch.where(cells > 0, value.sum((1, 2)) / cells, torch.nan)


def energy_score(
    hypotheses: Float[Tensor, "n k step channel"],
    y: Float[Tensor, "n step channel"],
    probability: Float[Tensor, "n k"] | None = None,
    *,
    fair: bool = False,
) -> Float[Tensor, "n"]:
    r"""$\sum_k p_k \lVert \hat y_k - y \rVert - \frac12 \sum_{kl} p_k p_l \lVert \hat y_k - \hat y_l \rVert$, over all observed cells.

    Norms are Euclidean. The CRPS of vectors: unlike a mean of CRPS it also judges how steps and channels hang together.
    ``fair`` as in `crps`. Not divided by the number of cells. Gneiting, Raftery 2007, JASA 102. Arguments and errors as `accuracy`.
    """
    p = _weights(hypotheses, y, probability, fair)
    observed = y.isfinite()
    truth = torch.where(observed, y, 0).to(hypotheses)
    kept = torch.where(observed[:, None], hypotheses, 0).flatten(2)
    near = (p * (kept - truth.flatten(1)[:, None]).norm(dim=2)).sum(1)
    spread = (p[:, :, None] * p[:, None] * torch.cdist(kept, kept, compute_mode="donot_use_mm_for_euclid_dist")).sum(
        (1, 2)
    )
    value = near - spread / 2 * _correction(hypotheses.shape[1], fair)
    return torch.where(observed.any(2).any(1), value, torch.nan)


class Readout(NamedTuple):
    """A linear map from embeddings to values: ``centre + (s - origin) @ weight``.

    score: its R^2 on pairs that it was not fitted to. std: of each channel of the values it was fitted to, see `channel_std`.
    """

    weight: Tensor
    origin: Tensor
    centre: Tensor
    shape: torch.Size
    score: float
    std: Tensor

    def __call__(self, s: Float[Tensor, "... dim"]) -> Float[Tensor, "... *shape"]:
        """Values of embeddings, in the units of the values it was fitted to, float64."""
        flat: Tensor = self.centre + (s.double().cpu() - self.origin) @ self.weight
        return flat.view(*s.shape[:-1], *self.shape)


def fit_readout(s: Float[Tensor, "n dim"], y: Float[Tensor, "n *shape"], *, seed: int = 0) -> Readout:
    r"""Ridge regression of values on embeddings, $W = (S^T S + \lambda n \bar v I)^{-1} S^T Y$.

    Both are centred; $\bar v$ is the mean variance of s.
    $\lambda$ is chosen on a fifth of the rows, at random; then all rows are used. Rows with NaN are left out. Where the embedding is the
    standardised future itself, the least penalty wins and the readout gives it back.

    Args:
        s: embeddings of training pairs: predicted ones, so that the readout also corrects what predictions lack, or those of y.
        y: their values.
        seed: of the fifth.

    Raises:
        UsageError: fewer than 10 rows without NaN.
    """
    y = y.detach().double().cpu()
    shape, s, flat, std = y.shape[1:], s.detach().double().cpu(), y.flatten(1), channel_std(y)
    good = s.isfinite().all(1) & flat.isfinite().all(1)
    s, flat = s[good], flat[good]
    if len(s) < 10:
        raise UsageError(f"a readout is fitted to 10 pairs or more, got {len(s)} without gaps")
    order = torch.randperm(len(s), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(s) // 5], order[len(s) // 5 :]
    fits = _ridge(s[kept], flat[kept])
    total = (flat[held] - flat[kept].mean(0)).square().sum().clamp_min(1e-300)
    errors = []
    for weight in fits:
        guess = flat[kept].mean(0) + (s[held] - s[kept].mean(0)) @ weight
        errors.append(float((guess - flat[held]).square().sum() / total))
    best = min(range(len(errors)), key=errors.__getitem__)
    return Readout(_ridge(s, flat)[best], s.mean(0), flat.mean(0), shape, 1 - errors[best], std)


def channel_std(y: Float[Tensor, "n *steps channel"]) -> Float[Tensor, "channel"]:
    """Standard deviation (biased) of what was observed of each channel, the last axis; NaN where nothing was, or it did not vary.

    What is below a millionth of the mean is rounding of float32, not variation.
    """
    rows = y.flatten(0, -2)
    mean = rows.nanmean(0)
    std = (rows - mean).square().nanmean(0).sqrt()
    return torch.where(std > 1e-6 * mean.abs(), std, torch.nan)


def _ridge(s: Tensor, y: Tensor) -> list[Tensor]:
    """Weights for each penalty."""
    s, y = s - s.mean(0), y - y.mean(0)
    values, vectors = torch.linalg.eigh(s.T @ s / len(s))
    projected = vectors.T @ (s.T @ y / len(s))
    scale = values.clamp_min(0).mean().clamp_min(1e-300)
    return [vectors @ (projected / (values.clamp_min(0) + penalty * scale)[:, None]) for penalty in PENALTIES]


def _correction(k: int, fair: bool) -> float:
    return k / (k - 1) if fair else 1.0


def _last(steps: Tensor) -> Tensor:
    """The last true place of each row, 0 where there is none."""
    return (steps * torch.arange(steps.shape[1], device=steps.device)).amax(1)


def _weights(hypotheses: Tensor, y: Tensor, probability: Tensor | None, fair: bool) -> Tensor:
    """Equal weights, or the given ones."""
    if hypotheses.ndim != 4 or y.ndim != 3 or hypotheses.shape[0] != len(y) or hypotheses.shape[2:] != y.shape[1:]:
        raise UsageError(
            f"hypotheses are (n, k, step, channel) of y (n, step, channel): got {tuple(hypotheses.shape)} and {tuple(y.shape)}"
        )
    n, k = hypotheses.shape[:2]
    if fair and (k < 2 or probability is not None):
        raise UsageError("fair scores are of 2 or more hypotheses of equal weight")
    if probability is None:
        return hypotheses.new_full((n, k), 1 / k)
    if probability.shape != (n, k) or bool((probability < 0).any()) or not _sums_to_one(probability):
        raise UsageError(f"weights are 0 or more and sum to 1 over the hypotheses: got {tuple(probability.shape)}")
    return probability.to(hypotheses)


def _sums_to_one(probability: Tensor) -> bool:
    return bool(((probability.double().sum(1) - 1).abs() < 1e-4).all())
