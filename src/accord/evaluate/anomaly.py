r"""How well a score finds anomalies that are labelled point by point: by ranking, and by ranges of time.

A score is high where something is odd, as an energy is. F1 after "point adjustment", which counts a whole labelled range as found if any
point of it is, is left out on purpose: it rises with the length of the ranges, so that random scores reach the level of published
detectors (Kim, Choi, Choi, Lee, Yoon 2022, arXiv:2109.05257).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from accord import diagnostics
from accord.errors import UsageError

Position = Literal["flat", "front", "middle", "back"]


class Volume(NamedTuple):
    """Volumes under the ROC and the precision-recall surface, in [0, 1], and the areas of each buffer, (buffers,)."""

    roc: float
    pr: float
    roc_areas: np.ndarray
    pr_areas: np.ndarray


class RangeScore(NamedTuple):
    """Precision, recall and their harmonic mean, of ranges."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class RangeWeights:
    r"""What counts when ranges overlap.

    existence: $\alpha$ in [0, 1], the share of recall that is given for touching a range at all. position: which points of a range weigh
    more in recall; in precision all weigh the same. fragments: "one" ignores into how many pieces a range is cut, "reciprocal" divides
    its overlap by their number.

    Raises:
        UsageError: a share that is none, or an unknown word.
    """

    existence: float = 0.0
    position: Position = "flat"
    fragments: Literal["one", "reciprocal"] = "one"

    def __post_init__(self) -> None:
        if not 0 <= self.existence <= 1:
            raise UsageError(f"existence is a share from 0 to 1, got {self.existence}")
        if self.position not in ("flat", "front", "middle", "back") or self.fragments not in ("one", "reciprocal"):
            raise UsageError(f"no such weights: {self.position!r}, {self.fragments!r}")


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """P(score of an anomaly > score of another point), ties counted half; `diagnostics.auroc` of the two parts.

    Args:
        score: (n,), finite.
        label: (n,), true where a point is anomalous.

    Raises:
        UsageError: shapes that differ, scores that are not finite, or labels that are all equal.
    """
    score, label = _checked(score, label)
    return diagnostics.auroc(torch.from_numpy(score[~label]), torch.from_numpy(score[label]))


def ranges(label: np.ndarray) -> np.ndarray:
    """First and last place of each run of true values, (ranges, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(label, np.int8), [0]])))
    pairs: np.ndarray = edges.reshape(-1, 2) - [0, 1]
    return pairs


def volume_under_surface(score: np.ndarray, label: np.ndarray, *, buffer: int) -> Volume:
    r"""VUS-ROC and VUS-PR: range-aware areas, averaged over the buffers $\ell = 0, \dots, L$ around the labelled ranges.

    With a buffer a point at distance $d \le \lfloor\ell/2\rfloor$ from a range has the label $\sqrt{1 - d/\ell}$ (of two ranges the sum, at
    most 1). For each threshold, with $p_t$ 1 where the score reaches it and $l_t$ the labels without a buffer:

    - TP $= \sum_t l^\ell_t p_t$, positives $P = \frac12 \sum_t (l_t + l^\ell_t)$;
    - TPR $= \min(1, \mathrm{TP}/P)$ times the share of the extended ranges in which anything is found;
    - FPR $= (\sum_t p_t - \mathrm{TP}) / (n - P)$, precision $= \mathrm{TP} / \sum_t p_t$.

    The ROC area is that of trapezoids from (0, 0) to (1, 1), the precision-recall area $\sum_k (R_k - R_{k-1}) P_k$. Every distinct score
    is a threshold (the authors take 250), and the buffers are the same on both sides (theirs are a step shorter after a range).
    Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin 2022, PVLDB 15(11).

    Args:
        score: (n,), finite.
        label: (n,), true where a point is anomalous.
        buffer: L in steps; twice the period of the series, or the median length of the ranges, are usual.

    Raises:
        UsageError: as `auroc`, or a negative buffer.
    """
    score, label = _checked(score, label)
    if buffer < 0:
        raise UsageError(f"a buffer is a number of steps, got {buffer}")
    order = np.argsort(-score, kind="stable")
    last = _ends(score[order])
    areas = [_areas(score, label, _buffered(label, length), order, last) for length in range(buffer + 1)]
    roc, pr = (np.array(column) for column in zip(*areas, strict=True))
    return Volume(float(roc.mean()), float(pr.mean()), roc, pr)


def _buffered(label: np.ndarray, length: int) -> np.ndarray:
    """Labels with slopes of half of `length` steps on both sides of each range."""
    soft = label.astype(np.float64)
    d = np.arange(1, length // 2 + 1)
    slope = np.sqrt(1 - d / max(length, 1))
    for first, final in ranges(label).tolist():
        for place in (first - d, final + d):
            inside = (place >= 0) & (place < len(label))
            soft[place[inside]] += slope[inside]
    return np.minimum(soft, 1.0)


def _areas(
    score: np.ndarray, label: np.ndarray, soft: np.ndarray, order: np.ndarray, last: np.ndarray
) -> tuple[float, float]:
    """Areas under the ROC and the precision-recall curve for one buffer."""
    found = np.cumsum(soft[order])[last]
    claimed = last + 1.0
    positives = (label.sum() + soft.sum()) / 2
    best = np.sort([score[first : final + 1].max() for first, final in ranges(soft > 0).tolist()])
    touched = 1 - np.searchsorted(best, score[order][last]) / len(best)
    tpr = np.minimum(found / positives, 1.0) * touched
    fpr = (claimed - found) / max(len(score) - positives, 1e-12)
    x, y = np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], tpr, [1.0]])
    roc = float(np.diff(x) @ (y[1:] + y[:-1]) / 2)
    return roc, float(np.diff(tpr, prepend=0.0) @ (found / claimed))


def range_score(predicted: np.ndarray, label: np.ndarray, weights: RangeWeights | None = None) -> RangeScore:
    r"""Precision, recall and F1 of predicted ranges P against real ranges R.

    Recall is the mean over R of $\alpha\,[R \text{ is touched}] + (1 - \alpha)\,\mathrm{overlap}(R, P)$, precision the mean over P of
    $\mathrm{overlap}(P, R)$; overlap is the weight of the points that are shared as a share of all of the range, divided by the number of
    pieces if `fragments` says so. With ranges of one point each this is classical precision and recall.
    Tatbul, Lee, Zdonik, Alam, Gottschlich 2018, arXiv:1803.03639 (defaults: $\alpha = 0$, flat, $\gamma = 1$).

    Args:
        predicted: (n,), true where an anomaly is claimed.
        label: (n,), true where one is.
        weights: what counts.

    Returns:
        0 for what has no ranges to be a mean of; F1 is 0 where precision and recall are.

    Raises:
        UsageError: shapes that differ.
    """
    weights = RangeWeights() if weights is None else weights
    predicted, label = np.asarray(predicted, bool), np.asarray(label, bool)
    if predicted.shape != label.shape or predicted.ndim != 1:
        raise UsageError(f"one prediction per label: got {predicted.shape} and {label.shape}")
    recalls = [
        weights.existence * bool(predicted[first : last + 1].any())
        + (1 - weights.existence) * _overlap(predicted[first : last + 1], weights.position, weights.fragments)
        for first, last in ranges(label).tolist()
    ]
    precisions = [
        _overlap(label[first : last + 1], "flat", weights.fragments) for first, last in ranges(predicted).tolist()
    ]
    recall, precision = (float(np.mean(values)) if values else 0.0 for values in (recalls, precisions))
    total = precision + recall
    return RangeScore(precision, recall, 2 * precision * recall / total if total else 0.0)


def _overlap(shared: np.ndarray, position: Position, fragments: str) -> float:
    """The weighted share of a range that is `shared`, for its number of pieces."""
    n = len(shared)
    place = np.arange(1, n + 1)
    rising = {"flat": np.ones(n), "back": place, "front": place[::-1], "middle": np.minimum(place, place[::-1])}
    weight = rising[position].astype(np.float64)
    pieces = len(ranges(shared)) if fragments == "reciprocal" else 1
    return float(weight[shared].sum() / weight.sum() / max(pieces, 1))


def _steps(score: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the last of each distinct score, highest first, and the gains up to there."""
    order = np.argsort(-score, kind="stable")
    last = _ends(score[order])
    return last, np.cumsum(gain[order])[last]


def _ends(ordered: np.ndarray) -> np.ndarray:
    """Places of the last of each run of equal values."""
    return np.flatnonzero(np.append(np.diff(ordered) != 0, True))


def _checked(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score, label = np.asarray(score, np.float64), np.asarray(label, bool)
    if score.shape != label.shape or score.ndim != 1:
        raise UsageError(f"one score per label: got {score.shape} and {label.shape}")
    if not np.isfinite(score).all():
        raise UsageError(f"{int((~np.isfinite(score)).sum()):,} of {len(score):,} scores are not finite")
    if label.all() or not label.any():
        raise UsageError("ranking needs both anomalies and other points", help="there is nothing to tell apart")
    return score, label
