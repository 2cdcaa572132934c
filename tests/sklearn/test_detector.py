"""Which rows are called outliers, how often that is wrong, and what the energy is made of."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from accord.errors import UsageError
from accord.sklearn import EnergyDetector
from accord.sklearn.detector import _masks
from accord.sklearn.forms import Forms


def small(**settings: Any) -> EnergyDetector:
    return EnergyDetector(16, hidden=(32,), masks=6, random_state=0, **{"steps": 150, **settings})


def rows(n: int, seed: int) -> np.ndarray:
    """Six columns that are functions of two numbers."""
    to = np.random.default_rng(3).normal(size=(2, 6))
    rng = np.random.default_rng(seed)
    return np.tanh(rng.uniform(-1, 1, (n, 2)) @ to) + 0.02 * rng.normal(size=(n, 6))


def shuffled(values: np.ndarray) -> np.ndarray:
    """Each column in an order of its own: nothing is strange but that the columns do not belong together."""
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(column) for column in values.T], axis=1)


def test_forms_are_those_of_a_loop() -> None:
    values = np.random.default_rng(0).gamma(0.5, size=(50, 3)).round(1)
    values[:, 2] = 7.0
    plain, ranked = Forms(values)(values[:5])
    for j in range(2):
        column = values[:, j]
        z = (column - column.mean()) / column.std()
        score = np.array([ndtri(((column < v).sum() + (column <= v).sum() + 1) / (2 * 51)) for v in column])
        np.testing.assert_allclose(plain[:, j], z[:5], atol=1e-12)
        np.testing.assert_allclose(ranked[:, j], ((score - score.mean()) / score.std())[:5], atol=1e-12)
    assert not plain[:, 2].any() and not ranked[:, 2].any(), "a constant column says nothing"
    assert np.isfinite(np.stack(Forms(values)(values[:5] + 1e6))).all()


@pytest.mark.parametrize("columns", [1, 2, 3, 10])
def test_a_mask_hides_something_and_leaves_something(columns: int) -> None:
    hidden = _masks(columns, 9, 0).sum(1)
    assert (hidden == 0).all() if columns == 1 else (hidden >= 1).all() and (hidden < columns).all()


def test_parts_of_new_rows_are_as_usual_even_where_few_rows_were_trained_on() -> None:
    """Columns have nothing to do with each other: all that training finds is chance, and new rows must not look strange for it."""
    rng = np.random.default_rng(0)
    detector = small(steps=300).fit(rng.normal(size=(40, 12)))
    forms = detector._kept(detector._forms(rng.normal(size=(500, 12))))
    parts = detector._usual_parts(np.mean([detector._parts(forms, model) for model in detector.models_], axis=0))
    assert abs(parts.mean()) < 1 and parts.std() < 2


def test_each_model_tells_what_is_usual_of_rows_it_was_not_trained_on() -> None:
    values = rows(60, 0)
    detector = small(steps=100).fit(values)
    fitted = values[np.random.default_rng(_seed()).permutation(60)[6:]]
    forms = detector._kept(detector._forms(fitted))
    first, second = detector.models_
    unseen = np.hstack([detector._parts(forms[1::2], first), detector._parts(forms[::2], second)])
    np.testing.assert_allclose(detector._usual_parts.mean[:, 0], unseen.mean(1), rtol=1e-6)


def _seed() -> int:
    return int(check_random_state(0).randint(2**31))


def test_rows_whose_columns_do_not_belong_together_are_found() -> None:
    good, bad = rows(500, 1), shuffled(rows(500, 2))
    detector = small().fit(rows(500, 0))
    scores = detector.score_samples(np.vstack([good, bad]))
    assert roc_auc_score([1] * 500 + [0] * 500, scores) > 0.95
    far = detector.score_samples(good[:20] + 5)
    assert far.max() < np.quantile(scores[:500], 0.01)


def test_the_rate_of_false_alarms_is_kept() -> None:
    """Over 60 fits with 25 rows held out, the mean rate is that of the law of split-conformal calibration, (25 + 1 - 24) / 26."""
    rates = []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(525, 2))
        detector = EnergyDetector(2, hidden=(4,), masks=2, steps=1, held_out=0.2, false_alarms=0.1, random_state=seed)
        rates.append((detector.fit(values[:125]).predict(values[125:]) == -1).mean())
    mean, error = np.mean(rates), np.std(rates) / np.sqrt(60)
    assert abs(mean - 2 / 26) < 3.5 * error + 0.002
    p = detector.p_values(values[125:])
    np.testing.assert_array_equal(p <= 0.1, detector.predict(values[125:]) == -1)


def test_too_few_rows_for_a_rate_give_the_best_that_can_be_kept() -> None:
    detector = small(false_alarms=0.001, steps=5).fit(rows(100, 0))
    assert -detector.offset_ == pytest.approx(detector._calibration.energies[-1], abs=2e-6)
    assert -detector.offset_ > detector._calibration.energies[-1], "rounding must not make an outlier of it"


def test_contamination_is_the_share_of_outliers_in_the_fitted_rows() -> None:
    values = rows(300, 0)
    assert (small(contamination=0.1, steps=20).fit_predict(values) == -1).sum() == 30


def test_the_score_is_a_function_of_the_row_and_of_the_seed() -> None:
    values, new = rows(200, 0), rows(50, 1)
    detector = small(steps=20).fit(values)
    scores = detector.score_samples(new)
    np.testing.assert_allclose(scores[7:9], detector.score_samples(new[7:9]), rtol=1e-10)
    for other in (pickle.loads(pickle.dumps(detector)), clone(detector).fit(values)):
        np.testing.assert_array_equal(other.score_samples(new), scores)
    np.testing.assert_allclose(small(steps=20).fit(values * 1e3 - 5).score_samples(new * 1e3 - 5), scores, rtol=1e-3)


def test_it_works_in_pipelines_and_cross_validation() -> None:
    values = np.vstack([rows(200, 0), shuffled(rows(20, 1))])
    wrong = np.repeat([1, -1], [200, 20])
    pipeline = make_pipeline(StandardScaler(), small(steps=40, false_alarms=0.1))

    def auroc(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
        return float(roc_auc_score(y, estimator.score_samples(x)))

    assert cross_val_score(pipeline, values, wrong, cv=StratifiedKFold(3), scoring=auroc).mean() > 0.8
    assert set(pipeline.fit(values).predict(values)) == {-1, 1}


@pytest.mark.parametrize(
    "settings",
    [{"held_out": 0.0}, {"held_out": 1.0}, {"false_alarms": 1.5}, {"contamination": 0.6}, {"contamination": "x"}],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="out of bounds"):
        small(**settings).fit(rows(20, 0))


@pytest.mark.data
def test_real_rows_that_are_strange_are_found(data: Path) -> None:
    with np.load(data / "adbench" / "27_PageBlocks.npz", allow_pickle=False) as file:
        values, wrong = file["X"], file["y"]
    normal = np.random.default_rng(100).permutation(np.flatnonzero(wrong == 0))
    test = np.concatenate([normal[1000:1500], np.flatnonzero(wrong == 1)])
    detector = EnergyDetector(random_state=0, steps=100, masks=6).fit(values[normal[:1000]])
    assert roc_auc_score(wrong[test], -detector.score_samples(values[test])) > 0.9
