"""Search across two tables: what is found first, both ways, against energies computed pair by pair."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import accord
from accord.errors import UsageError
from accord.sklearn import EnergyRetriever


def tables(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two different functions of four common causes."""
    rng = np.random.default_rng(7)
    to_x, to_y = rng.normal(size=(4, 7)), rng.normal(size=(4, 5))
    common = np.random.default_rng(seed).normal(size=(n, 4))
    return common @ to_x, np.tanh(0.5 * common @ to_y)


def small(**settings: Any) -> EnergyRetriever:
    return EnergyRetriever(16, hidden=(32,), random_state=0, **{"steps": 200, **settings})


@pytest.mark.parametrize("codes", [0, 3])
def test_what_is_found_is_what_has_the_lowest_energy(codes: int) -> None:
    x, y = tables(60)
    retriever = small(codes=codes, steps=30).fit(x, y)
    everything = np.array([retriever.energy(np.tile(row, (60, 1)), y) for row in x])
    energies, places = retriever.search(x[:10], 4)
    np.testing.assert_allclose(energies, np.sort(everything[:10], axis=1)[:, :4], atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(everything[:10], places, 1), energies, atol=1e-9)
    energies, places = retriever.search_x(y[:10], 4)
    np.testing.assert_allclose(energies, np.sort(everything.T[:10], axis=1)[:, :4], atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(everything.T[:10], places, 1), energies, atol=1e-9)
    best = (everything == everything.min(1, keepdims=True)).argmax(1)
    assert retriever.score(x, y) == pytest.approx((best == np.arange(60)).mean())


def test_it_learns_to_find_pairs_it_has_not_seen() -> None:
    x, y = tables()
    new_x, new_y = tables(200, seed=1)
    trained, untrained = small().fit(x, y), small(steps=1, learning_rate=0.0).fit(x, y)
    assert trained.score(new_x, new_y) > 0.5
    assert untrained.score(new_x, new_y) < 0.1


def test_score_counts_ties_against_and_equal_rows_for() -> None:
    x, y = tables(40)
    retriever = small(steps=30).fit(x, y)
    twice = retriever.score(np.vstack([x, x]), np.vstack([y, y]))
    assert twice == pytest.approx(retriever.score(x, y)), "an equal row is as right"
    shifted = retriever.score(x, np.roll(y, 1, axis=0))
    assert shifted < retriever.score(x, y)


def test_it_is_searched_over_and_copied() -> None:
    x, y = tables()
    grid = GridSearchCV(
        small(steps=60), {"principle": [accord.vicreg, partial(accord.info_nce, temperature=0.1)]}, cv=2
    )
    assert 0 < grid.fit(x, y).best_score_ <= 1
    assert cross_val_score(small(steps=60), x, y, cv=2).shape == (2,)
    fitted = small(steps=30).fit(x, y)
    for other in (pickle.loads(pickle.dumps(fitted)), clone(fitted).fit(x, y)):
        np.testing.assert_array_equal(other.search(x, 2)[1], fitted.search(x, 2)[1])


def test_what_cannot_be_searched_is_refused() -> None:
    x, y = tables(40)
    retriever = small(steps=5).fit(x, y)
    for k in (0, 41):
        with pytest.raises(UsageError, match=f"k = {k} of 40"):
            retriever.search(x, k)
    with pytest.raises(ValueError, match="4 columns, the fitted one had 5"):
        retriever.search_x(y[:, :4])
    for setting in ("steps", "batch_size"):
        with pytest.raises(UsageError, match=f"{setting} = 0"):
            small(**{setting: 0}).fit(x, y)
    with pytest.raises(ValueError, match="requires y"):
        small().fit(x, None)


def test_columns_of_a_data_frame_are_those_of_the_fitted_one() -> None:
    x, y = tables(40)
    named = pd.DataFrame(y, columns=list("abcde"))
    retriever = small(steps=5).fit(x, named)
    for other in (named[list("bacde")], named.rename(columns={"a": "z"})):
        for ask in (
            retriever.search_x,
            lambda other: retriever.energy(x, other),
            lambda other: retriever.score(x, other),
        ):
            with pytest.raises(ValueError, match="the fitted one had a, b, c, d, e"):
                ask(other)
    np.testing.assert_array_equal(retriever.search_x(named)[1], retriever.search_x(y)[1])


@pytest.mark.data
def test_two_kinds_of_features_of_a_digit_find_each_other_better_than_by_cca(data: Path) -> None:
    with np.load(data / "mfeat" / "mfeat.npz", allow_pickle=False) as file:
        fou, kar = file["fou"], file["kar"]
    order = np.random.default_rng(0).permutation(2000)
    train, test = order[:1400], order[1400:]
    retriever = EnergyRetriever(random_state=0, steps=300, noise=0.1).fit(fou[train], kar[train])
    assert retriever.score(fou[test], kar[test]) > 0.075, "linear CCA finds 7.5 % of 600"
