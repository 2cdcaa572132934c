"""Features of rows: what they hold, what they take, and that they are a function of the arguments alone."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import accord
from accord.sklearn import JointEmbedder
from accord.sklearn.rows import Scale, hidden_columns


def causes(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two tables with three common causes, and a label that is a function of the causes."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 3))
    x = np.hstack([common @ rng.normal(size=(3, 6)), rng.normal(size=(n, 2))]) + 0.1 * rng.normal(size=(n, 8))
    y = np.tanh(common @ rng.normal(size=(3, 5))) + 0.1 * rng.normal(size=(n, 5))
    return x, y, (common[:, 0] > 0).astype(int)


def small(**settings: Any) -> JointEmbedder:
    return JointEmbedder(8, hidden=(32,), dim=16, random_state=0, **{"steps": 60, **settings})


def test_scale_is_that_of_the_observed_values() -> None:
    values = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan], [np.nan, 5.0, np.nan], [8.0, 5.0, np.nan]])
    scale = Scale(values)
    np.testing.assert_allclose(scale.mean, [4.0, 5.0, 0.0])
    np.testing.assert_allclose(scale.std, [np.sqrt(26 / 3), 1.0, 1.0])
    assert np.isnan(scale(values).numpy()).tolist() == np.isnan(values).tolist()


@pytest.mark.parametrize(
    ("columns", "share", "count"), [(10, 0.3, 3), (3, 0.01, 1), (4, 0.99, 3), (1, 0.5, 0), (7, 0.0, 0)]
)
def test_so_many_columns_of_each_row_are_hidden(columns: int, share: float, count: int) -> None:
    draws = accord.Draws(seed=0, epoch=0, index=torch.arange(200))
    hidden = hidden_columns(draws, columns, share, "x")
    assert (hidden.sum(1) == count).all()
    if 0 < count < columns:
        assert (hidden.float().mean(0) - count / columns).abs().max() < 0.15, "each column as often as any other"


def test_pairs_share_their_causes_and_nothing_else() -> None:
    x, y, _ = causes()
    embedder = small(steps=300).fit(x, y)
    held, other, _ = causes(seed=0)
    features = embedder.transform(held)
    model = embedder.model_
    with torch.no_grad():
        s_x, s_y = model.encoder_x(embedder.scale_(held)), model.encoder_y(Scale(y)(other))
    near = (s_x - s_y).square().mean()
    far = (s_x - s_y.roll(1, 0)).square().mean()
    assert features.shape == (400, 8)
    assert near < 0.3 * far


def test_labels_are_not_looked_at() -> None:
    x, _, label = causes()
    np.testing.assert_array_equal(small().fit_transform(x), small().fit(x, label).transform(x))


def test_the_same_seed_gives_the_same_bits_and_leaves_torch_as_it_was() -> None:
    x, _, _ = causes()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = small().fit(x)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.transform(x), small().fit(x).transform(x))
    assert (first.transform(x) != small().set_params(random_state=1).fit(x).transform(x)).any()


def test_a_missing_value_is_a_hidden_column() -> None:
    x, _, _ = causes()
    embedder = small().fit(x)
    holes = x.copy()
    holes[:, 2] = np.nan
    assert np.isfinite(embedder.transform(holes)).all()
    assert (embedder.transform(holes) != embedder.transform(x)).any()
    assert np.isfinite(small().fit(holes).transform(x)).all()
    with pytest.raises(ValueError, match="infinity"):
        embedder.transform(np.full_like(x, np.inf))


def test_it_works_in_pipelines_and_searches() -> None:
    x, _, label = causes()
    pipeline = make_pipeline(StandardScaler(), small(), LogisticRegression())
    assert cross_val_score(pipeline, x, label, cv=3).mean() > 0.8
    grid = GridSearchCV(
        pipeline,
        {"jointembedder__principle": [accord.vicreg, partial(accord.sigreg, slices=64)], "jointembedder__mask": [0.3]},
        cv=2,
    ).fit(x, label)
    assert grid.best_score_ > 0.8
    names = pipeline.fit(x, label)[:-1].get_feature_names_out()
    assert list(names[:2]) == ["jointembedder0", "jointembedder1"]


def test_copies_give_the_same_features() -> None:
    x, y, _ = causes()
    fitted = small().fit(x, y)
    expected = fitted.transform(x)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), clone(fitted).fit(x, y)):
        np.testing.assert_array_equal(other.transform(x), expected)


def test_rows_are_paired_one_to_one() -> None:
    x, y, _ = causes()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(x, y[:-1])


def test_verbose_prints_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    x, _, _ = causes()
    small(verbose=1).fit(x)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[0].startswith("step 1 of 60: loss ")
    small().fit(x)
    assert capsys.readouterr().out == ""


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    x, _, _ = causes()
    with pytest.raises(accord.AccordError, match="not finite"):
        small(learning_rate=1e30).fit(x)
