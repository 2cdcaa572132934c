"""The benchmark's score: from its formula by hand, against a loop over thresholds, and at its published level on its own data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from accord.errors import UsageError
from accord.evaluate.anomaly import ranges
from accord.evaluate.nab import PROFILES, Nab, Profile, Scored, nab, probation, windowed_gaussian, worth


def sigma(y: float) -> float:
    return -1.0 if y >= 3 else 2 / (1 + math.exp(5 * y)) - 1


def by_loops(corpus: list[Scored], profile: Profile, threshold: float) -> float:
    """Point after point, window after window."""
    total, windows = 0.0, 0
    for score, places in corpus:
        start = min(math.floor(0.15 * len(score)), 750)
        alarms = [t for t in range(start, len(score)) if score[t] >= threshold]
        inside = set()
        for first, last in places:
            windows += 1
            inside.update(range(first, last + 1))
            mine = [t for t in alarms if first <= t <= last]
            if mine:
                y = -(last - mine[0] + 1) / (last - first + 1)
                total += profile.hit * sigma(y) / sigma(-1)
            else:
                total -= profile.miss
        for t in set(alarms) - inside:
            before = [(a, b) for a, b in places if b < t]
            y = 3.0 if not before else (t - before[-1][1]) / max(before[-1][1] - before[-1][0], 1)
            total += profile.false_alarm * sigma(y)
    null, perfect = -profile.miss * windows, profile.hit * windows
    return 100 * (total - null) / (perfect - null)


def corpus_of(seed: int) -> list[Scored]:
    rng = np.random.default_rng(seed)
    found = []
    for n in (100, 180, 60):
        windows = [] if n == 60 else [(30, 41), (60, 60), (80, 95)]
        found.append(Scored(rng.integers(0, 9, n) / 10, windows))
    return found


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_that_of_the_formula_at_every_threshold(name: str, seed: int) -> None:
    corpus, profile = corpus_of(seed), PROFILES[name]
    thresholds = [2.0, *(np.arange(10) / 10 - 0.05)]
    expected = [by_loops(corpus, profile, t) for t in thresholds]
    for threshold, value in zip(thresholds, expected, strict=True):
        assert nab(corpus, profile, threshold=threshold).score == pytest.approx(value, abs=1e-9)
    best = nab(corpus, profile)
    assert best.score == pytest.approx(max(expected))
    assert by_loops(corpus, profile, best.threshold) == pytest.approx(best.score)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_perfect_detector_has_100_and_a_silent_one_0(profile: Profile) -> None:
    perfect = np.zeros(1000)
    windows = [(300, 399), (700, 720)]
    perfect[[300, 700]] = 1.0
    assert nab([Scored(perfect, windows)], profile) == pytest.approx((100.0, 1.0))
    assert nab([Scored(perfect, windows)], profile, threshold=math.inf).score == 0.0
    silent = nab([Scored(np.zeros(1000), windows)], profile, threshold=0.5)
    assert silent == Nab(0.0, 0.5)


def test_one_late_alarm_and_one_false_one_by_hand() -> None:
    score = np.zeros(100)
    score[[45, 59]] = 1.0  # in the middle of (40, 49), and one window's length behind it: y = -0.5 and 10 / 9
    found = nab([Scored(score, [(40, 49)])], Profile(1.0, 0.11, 1.0), threshold=1.0)
    raw = sigma(-0.5) / sigma(-1) + 0.11 * sigma(10 / 9)
    assert found.score == pytest.approx(100 * (raw + 1) / 2)


def test_alarms_of_the_probationary_period_count_nothing() -> None:
    assert [probation(n) for n in (100, 4032, 22695)] == [15, 604, 750]
    score = np.zeros(200)
    score[:30] = 1.0
    assert nab([Scored(score, [(100, 120)])], threshold=1.0).score == 0.0
    score[30] = 1.0
    assert nab([Scored(score, [(100, 120)])], threshold=1.0).score == pytest.approx(-100 * 0.11 / 2)


def test_one_threshold_serves_the_whole_corpus() -> None:
    low, high = np.zeros(100), np.ones(100)
    low[40], high[40] = 0.5, 1.5
    alone = [nab([Scored(score, [(40, 49)])]).score for score in (low, high)]
    assert alone == pytest.approx([100, 100])
    together = nab([Scored(low, [(40, 49)]), Scored(high, [(40, 49)])])
    assert together == pytest.approx((50.0, 1.5))


def test_worth_falls_from_the_start_of_a_window_and_is_least_far_behind() -> None:
    places = np.array([-1.0, -0.5, 0.0, 1.0, 2.9, 3.0, 50.0])
    assert worth(places) == pytest.approx([sigma(y) for y in places])
    assert (np.diff(worth(places)) <= 0).all()


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="window"):
        nab([Scored(np.zeros(10), [])])
    with pytest.raises(UsageError, match="finite"):
        nab([Scored(np.array([math.nan] * 10), [(3, 4)])])
    with pytest.raises(UsageError, match="10 points"):
        nab([Scored(np.zeros(10), [(3, 10)])])


@pytest.mark.parametrize("size", [10, 40])
def test_the_baseline_is_the_tail_of_a_normal_distribution_of_the_values_before(size: int) -> None:
    value = np.random.default_rng(0).normal(3, 2, 60)
    found = windowed_gaussian(value, window=size, step=7)
    before: list[float] = []
    waiting: list[float] = []
    for t, v in enumerate(value.tolist()):
        if t:
            z = abs(v - np.mean(before)) / (np.std(before) or 1e-6)
            assert found[t] == pytest.approx(1 - math.erfc(z / math.sqrt(2)) / 2, abs=1e-9)
        if len(before) < size:
            before.append(v)
            continue
        waiting.append(v)
        if len(waiting) == 7:
            before, waiting = before[7:] + waiting, []
    assert found[0] == 0


def test_the_windowed_gaussian_has_its_published_level(data: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(data / "nab" / "nab.parquet", columns=["file", "value", "in_window"])
    files = np.array(table["file"].to_pylist())
    value, inside = table["value"].to_numpy(), table["in_window"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.append(True, files[1:] != files[:-1]))
    corpus = []
    for a, b in zip(starts, np.append(starts[1:], len(files)), strict=True):
        corpus.append(Scored(windowed_gaussian(value[a:b]), ranges(inside[a:b])))
    assert sum(len(series.windows) for series in corpus) == 116
    found = {name: nab(corpus, profile).score for name, profile in PROFILES.items()}
    published = {"standard": 39.6, "reward_low_FP": 20.9, "reward_low_FN": 47.4}
    assert found == pytest.approx(published, abs=0.06)
    random = np.random.default_rng(0)
    noise = [nab([Scored(random.random(len(s.score)), s.windows) for s in corpus]).score for _ in range(8)]
    assert np.mean(noise) == pytest.approx(11.0, abs=4.5)  # published; draws have a standard deviation of 4
