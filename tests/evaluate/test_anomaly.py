"""Detection point by point and range by range, against loops over thresholds, closed forms and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from accord.errors import UsageError
from accord.evaluate.anomaly import (
    RangeWeights,
    auroc,
    range_score,
    ranges,
    volume_under_surface,
)


def example(seed: int, n: int = 120, levels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and a few ranges."""
    rng = np.random.default_rng(seed)
    label = np.zeros(n, bool)
    for start in rng.choice(n - 15, 4, replace=False):
        label[start : start + rng.integers(1, 12)] = True
    return np.round(rng.normal(size=n) + label, 1) if levels == 0 else rng.integers(0, levels, n) + 2.0 * label, label


@pytest.mark.parametrize("seed", range(6))
def test_ranking_agrees_with_scikit_learn_where_scores_are_tied(seed: int) -> None:
    score, label = example(seed)
    assert auroc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_scores_that_are_all_equal_are_chance() -> None:
    label = np.arange(10) < 3
    assert auroc(np.zeros(10), label) == 0.5


def test_ranking_refuses_what_cannot_be_ranked() -> None:
    for score, label in (
        ([1.0, math.nan], [1, 0]),
        ([1.0, 2.0], [1, 1]),
        ([1.0, 2.0], [0, 0]),
        ([1.0], [0, 1]),
    ):
        with pytest.raises(UsageError):
            auroc(np.array(score), np.array(label, bool))


def test_ranges_are_first_and_last_places() -> None:
    assert ranges(np.array([1, 1, 0, 1, 0, 0, 1], bool)).tolist() == [[0, 1], [3, 3], [6, 6]]
    assert ranges(np.zeros(3, bool)).shape == (0, 2)


def volume_by_loops(score: np.ndarray, label: np.ndarray, buffer: int) -> tuple[float, float]:
    """The definition, a threshold and a point at a time."""
    n, roc, pr = len(score), 0.0, 0.0
    for length in range(buffer + 1):
        soft = [float(v) for v in label]
        for first, last in ranges(label).tolist():
            for t in range(n):
                d = max(first - t, t - last)
                if 0 < d <= length // 2:
                    soft[t] += math.sqrt(1 - d / length)
        soft = [min(1.0, v) for v in soft]
        extended = ranges(np.array(soft) > 0).tolist()
        positives = (sum(map(float, label)) + sum(soft)) / 2
        tprs, fprs, area = [0.0], [0.0], 0.0
        for threshold in sorted(set(score.tolist()), reverse=True):
            claimed = [t for t in range(n) if score[t] >= threshold]
            found = sum(soft[t] for t in claimed)
            touched = sum(any(score[t] >= threshold for t in range(a, b + 1)) for a, b in extended)
            tprs.append(min(1.0, found / positives) * touched / len(extended))
            fprs.append((len(claimed) - found) / (n - positives))
            area += (tprs[-1] - tprs[-2]) * found / len(claimed)
        tprs.append(1.0)
        fprs.append(1.0)
        roc += sum((fprs[i] - fprs[i - 1]) * (tprs[i] + tprs[i - 1]) / 2 for i in range(1, len(tprs)))
        pr += area
    return roc / (buffer + 1), pr / (buffer + 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("buffer", [0, 1, 9])
def test_volumes_are_those_of_the_definition(seed: int, buffer: int) -> None:
    score, label = example(seed, 80)
    found = volume_under_surface(score, label, buffer=buffer)
    assert (found.roc, found.pr) == pytest.approx(volume_by_loops(score, label, buffer), abs=1e-12)
    assert found.roc_areas.shape == (buffer + 1,)


def test_a_perfect_score_has_areas_of_one_and_one_beside_the_range_gains_by_buffers() -> None:
    label = np.zeros(60, bool)
    label[20:30] = True
    perfect = volume_under_surface(label.astype(float), label, buffer=0)
    assert (perfect.roc, perfect.pr) == pytest.approx((1.0, 1.0))
    late = np.roll(label, 4).astype(float)
    areas = volume_under_surface(late, label, buffer=12).pr_areas
    assert areas[12] > areas[0] + 0.05


@pytest.mark.parametrize("seed", range(4))
def test_range_scores_of_single_points_are_the_classical_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, predicted = np.zeros(60, bool), np.zeros(60, bool)
    label[::2], predicted[::2] = rng.random(30) < 0.4, rng.random(30) < 0.5
    hits = (label & predicted).sum()
    found = range_score(predicted, label)
    assert found.precision == pytest.approx(hits / predicted.sum())
    assert found.recall == pytest.approx(hits / label.sum())
    assert found.f1 == pytest.approx(2 * hits / (predicted.sum() + label.sum()))


def test_range_recall_by_hand() -> None:
    label = np.array([0, 1, 1, 1, 1, 0, 0, 1, 1, 0], bool)
    predicted = np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 1], bool)
    assert range_score(predicted, label) == pytest.approx((2 / 3, 0.25, 2 * (2 / 3) * 0.25 / (2 / 3 + 0.25)))
    # touched: one range of two; its overlap is a half, in two pieces
    half = range_score(predicted, label, RangeWeights(existence=0.5, fragments="reciprocal"))
    assert half.recall == pytest.approx((0.5 + 0.5 * 0.25) / 2)
    shares = {"front": (4 + 2) / 10, "back": (1 + 3) / 10, "middle": (1 + 2) / 6, "flat": 0.5}
    for position, share in shares.items():
        found = range_score(predicted, label, RangeWeights(position=position))  # type: ignore[arg-type]
        assert found.recall == pytest.approx(share / 2), position


def test_range_scores_of_nothing_are_zero() -> None:
    label = np.array([0, 1, 0], bool)
    assert range_score(np.zeros(3, bool), label) == (0.0, 0.0, 0.0)
    with pytest.raises(UsageError):
        range_score(np.zeros(2, bool), label)
    with pytest.raises(UsageError):
        RangeWeights(existence=1.5)
    with pytest.raises(UsageError):
        RangeWeights(position="last")  # type: ignore[arg-type]
