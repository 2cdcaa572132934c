r"""How much labels gain from features: linear probe, k-nearest neighbours and few-label probe, the same for learned features and pixels.

Every choice (strength of the penalty, scaling) is made on the training part alone, by the same rule for every kind of features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from accord.evaluate.logistic import Problem, fit, with_ones

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
"""Penalties lambda tried, strong to weak, in the units of the mean cross-entropy."""
FEW_STRENGTHS = STRENGTHS[:7]
"""Those that can be best for ten labels of each class."""
FOLDS = 5
CHOICE = 1e-3
"""Fits that only serve to choose, and those to few labels, stop when nothing can be gained but so many nats."""
FEW_CLASSES = 100
"""The few-label probe is for at most so many classes."""


class Labelled(NamedTuple):
    """Features (n, dim), float32, and labels (n,), int64 in 0..classes-1."""

    x: Float[Tensor, "n dim"]
    label: Int64[Tensor, "n"]


class FewLabels(NamedTuple):
    """Mean and standard deviation (unbiased) of the accuracy over draws of `per_class` labels of each class."""

    mean: float
    std: float
    per_class: int
    draws: int


class Moments(NamedTuple):
    """Mean (dim,), standard deviation (dim,) and covariance (dim, dim) of the training rows (biased)."""

    mean: Tensor
    std: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, x: Float[Tensor, "n dim"], *, chunk: int = 8192) -> Moments:
        """Moments of the rows of `x`, summed in chunks so that no second copy of `x` is made."""
        mean = x.double().mean(0).float() if len(x) <= chunk else sum_of(x.split(chunk)) / len(x)
        covariance = x.new_zeros(x.shape[1], x.shape[1])
        for rows in x.split(chunk):
            centred = rows - mean
            covariance.addmm_(centred.T, centred)
        covariance /= len(x)
        return cls(mean, covariance.diagonal().clamp_min(0).sqrt(), covariance)

    def scale(self, *, each: bool) -> Tensor:
        """What to divide by, (dim,): the standard deviation of each dimension, or one number for all; infinity where nothing varies."""
        largest = self.std.max()
        std = self.std if each else self.std.square().mean().sqrt().expand_as(self.std)
        return torch.where((self.std > 1e-5 * largest) & (self.std > 1e-5 * self.mean.abs()), std, torch.inf)


def sum_of(parts: tuple[Tensor, ...]) -> Tensor:
    """Sum over the rows of all parts, in float64 between parts."""
    return torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0).float()


def linear_probe(
    train: Labelled, held_out: Labelled, classes: int, *, seed: int, moments: Moments | None = None
) -> float:
    """Accuracy on `held_out` of multinomial logistic regression on standardised features.

    The penalty is the one that answers best on a part of the training rows that was left out: a random fifth, or each of five
    fifths in turn with at most 5,000 rows. Then all training rows are fitted.
    """
    moments = Moments.of(train.x) if moments is None else moments
    scale = moments.scale(each=True)
    x = _standardised(train.x, moments, scale)
    target = torch.nn.functional.one_hot(train.label, classes).to(x.dtype)
    curvature = _curvature(moments, scale)
    strength, start = _select(x, target, curvature, seed)
    rows = x.new_full((len(x),), 1 / len(x))
    weight = fit(Problem(x, target, rows[None]), x.new_tensor(strength), _solver(curvature, strength), start[None])[0]
    del x
    hits = [
        (_standardised(rows, moments, scale) @ weight.T).argmax(1) == label
        for rows, label in zip(held_out.x.split(8192), held_out.label.split(8192), strict=True)
    ]
    return float(torch.cat(hits).double().mean())


def _standardised(x: Tensor, moments: Moments, scale: Tensor, *, chunk: int = 8192) -> Tensor:
    """Centred and scaled rows with a last column of ones, (n, dim + 1); no second copy of all rows is made on the way."""
    found = x.new_ones(len(x), x.shape[1] + 1)
    for rows, part in zip(x.split(chunk), found.split(chunk), strict=True):
        part[:, :-1] = (rows - moments.mean) / scale
    return found


def _curvature(moments: Moments, scale: Tensor) -> Tensor:
    """Böhning's bound for standardised rows with a column of ones, (dim + 1, dim + 1), without the penalty."""
    dim = len(scale)
    bound = torch.zeros(dim + 1, dim + 1, dtype=scale.dtype, device=scale.device)
    bound[:dim, :dim] = moments.covariance / scale[:, None] / scale
    bound[dim, dim] = 1
    return bound.mul_(0.5)


def _solver(curvature: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    factor = curvature.clone()
    factor.diagonal()[:-1] += strength + 1e-6  # rounding must not make it indefinite
    factor = torch.linalg.cholesky(factor)
    return lambda g: torch.cholesky_solve(g.mT, factor).mT


def _select(x: Tensor, target: Tensor, curvature: Tensor, seed: int) -> tuple[float, Tensor]:
    """The strength that answers best on rows left out, and weights (classes, dim + 1) to start from.

    Among equally many right answers the least loss wins. Stops after two strengths that improve neither the answers nor the loss.
    """
    n, classes = target.shape
    start = x.new_zeros(classes, x.shape[1])
    if n < 2 * FOLDS:
        return 0.1, start
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(x.device) % FOLDS
    folds = FOLDS if n <= 5000 else 1
    left_out = (fold == torch.arange(folds, device=x.device)[:, None]).to(x.dtype)
    kept = 1 - left_out
    problem = Problem(x, target, kept / kept.sum(-1, keepdim=True))
    tried: list[tuple[float, float, float, Tensor]] = []
    weight, idle = start.expand(folds, -1, -1), 0
    for strength in STRENGTHS:
        weight = fit(problem, x.new_full((folds,), strength), _solver(curvature, strength), weight, tolerance=CHOICE)
        log_p = problem.log_probabilities(weight)
        loss = float((problem.losses(log_p) * left_out).sum())
        right = float(((log_p.argmax(-1) == target.argmax(-1, keepdim=True)).mT * left_out).sum())
        better = not tried or right > max(t[0] for t in tried) or -loss > max(t[1] for t in tried)
        tried.append((right, -loss, strength, weight.mean(0)))
        idle = 0 if better else idle + 1
        if idle == 2:
            break
    _, _, strength, start = max(tried, key=lambda t: t[:2])
    return strength, start


def knn_probe(
    train: Labelled, held_out: Labelled, classes: int, *, k: int = 20, temperature: float = 0.07, chunk: int = 1024
) -> float:
    r"""Accuracy of the vote of the `k` nearest training rows by cosine, weighted by $e^{\cos / \tau}$.

    All rows are centred on the mean of the training rows first (pixels and rectified features need it). Ties go to the lower label.
    Wu et al. 2018, arXiv:1805.01978, with k = 200 there.
    """
    mean = sum_of(train.x.split(8192)) / len(train.x)
    bank = torch.nn.functional.normalize(train.x - mean)
    k = min(k, len(bank))
    hits = 0
    for rows, label in zip(held_out.x.split(chunk), held_out.label.split(chunk), strict=True):
        cosine, nearest = (torch.nn.functional.normalize(rows - mean) @ bank.T).topk(k)
        vote = rows.new_zeros(len(rows), classes)
        vote.scatter_add_(1, train.label[nearest], ((cosine - cosine[:, :1]) / temperature).exp())
        hits += int((vote.argmax(1) == label).sum())
    return hits / len(held_out.x)


def few_label_probe(
    train: Labelled,
    held_out: Labelled,
    classes: int,
    *,
    seed: int,
    per_class: int = 10,
    draws: int = 20,
    moments: Moments | None = None,
) -> FewLabels:
    """Accuracy on `held_out` of logistic regression on `per_class` labelled rows of each class, over `draws` seeded draws.

    Features are centred and scaled by statistics of all training rows, which need no label. Penalty and scaling (each dimension, or
    one scale for all) are chosen in every draw by the cross-entropy of five-fold cross-validation on the drawn labels alone (right
    answers are too few to choose by). A class with fewer rows gives all it has.
    """
    moments = Moments.of(train.x) if moments is None else moments
    rows, fold = _draw(train.label, classes, per_class, draws, seed)
    target = torch.nn.functional.one_hot(train.label[rows], classes).to(train.x.dtype)
    at_once = max(1, 16_000_000 // ((FOLDS + 1) * rows.shape[1] ** 2))
    found = []
    for each in (True, False):
        scale = moments.scale(each=each)
        scaled = (held_out.x - moments.mean) / scale
        parts = [
            _few_fits((train.x[r] - moments.mean) / scale, t, fold, scaled, held_out.label)
            for r, t in zip(rows.split(at_once), target.split(at_once), strict=True)
        ]
        found.append(tuple(torch.cat(part) for part in zip(*parts, strict=True)))
    loss, accuracy = (torch.stack(values) for values in zip(*found, strict=True))
    best = accuracy.gather(0, loss.argmin(0, keepdim=True))[0].double()
    return FewLabels(float(best.mean()), float(best.std()) if draws > 1 else 0.0, per_class, draws)


def _draw(label: Tensor, classes: int, per_class: int, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers, (draws, rows), at most `per_class` of each class, and the fold of each, (rows,), spread over every class."""
    generator = torch.Generator().manual_seed(seed)
    members = [(label == c).nonzero()[:, 0] for c in range(classes)]
    members = [m for m in members if len(m)]
    rows = [
        torch.cat([m[torch.randperm(len(m), generator=generator)[:per_class].to(m.device)] for m in members])
        for _ in range(draws)
    ]
    fold = torch.cat([(torch.arange(min(len(m), per_class)) + c) % FOLDS for c, m in enumerate(members)])
    return torch.stack(rows), fold.to(label.device)


def _few_fits(x: Tensor, target: Tensor, fold: Tensor, held_out: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """For each draw: least cross-validated loss over strengths, and the held-out accuracy of the fit to all rows at that strength.

    x: (draws, rows, dim), target: (draws, rows, classes). Solved in the span of the rows, where the penalty is the same and the bound
    of the curvature diagonal: with K = X Xᵀ = U Λ Uᵀ the coordinates are U Λ^½, and those of new rows h are h Xᵀ U Λ^-½.
    """
    draws, n, _ = x.shape
    values, vectors = torch.linalg.eigh((x @ x.mT).double())
    keep = values > 1e-6 * values[:, -1:].clamp_min(1e-30)
    root = torch.where(keep, values, 0).sqrt()
    inverse = torch.where(keep, 1 / root, 0)
    inside = with_ones((vectors * root[:, None]).to(x.dtype))
    outside = with_ones((held_out @ x.mT) @ (vectors * inverse[:, None]).to(x.dtype))
    left_out = (
        fold == torch.arange(FOLDS + 1, device=x.device)[:, None]
    )  # the last "fold" leaves nothing out: the fit itself
    kept = (~left_out).to(x.dtype)
    kept = (kept / kept.sum(-1, keepdim=True)).expand(draws, -1, -1)
    problem = Problem(inside, target, kept)
    bound = torch.cat([root.square() / (2 * n), root.new_full((draws, 1), 0.5)], dim=-1)[:, None, None].to(x.dtype)
    weight = x.new_zeros(draws, FOLDS + 1, target.shape[-1], n + 1)
    losses, accuracies = [], []
    for strength in FEW_STRENGTHS:
        curvature = bound + strength
        strengths = x.new_full((draws, FOLDS + 1), strength)
        weight = fit(problem, strengths, lambda g, c=curvature: g / c, weight, tolerance=CHOICE)  # type: ignore[misc]
        losses.append((problem.losses(problem.log_probabilities(weight)) * left_out).sum((-2, -1)) / n)
        accuracies.append(((outside @ weight[:, -1].mT).argmax(-1) == label).float().mean(-1))
    loss, best = torch.stack(losses).min(0)
    return loss, torch.stack(accuracies).gather(0, best[None])[0]
