"""The distance to known rows is that of a loop, and the form of the columns that tells rows from mixed ones is the one that counts."""

from __future__ import annotations

import numpy as np
import pytest

from accord.sklearn.forms import Forms
from accord.sklearn.memory import MIXED_SHARE, Memory, Usual, _kept, _mixed, _others


def test_what_is_usual_has_mean_0_and_deviation_1() -> None:
    energies = np.random.default_rng(0).gamma(2.0, [[1.0], [5.0], [0.1]], size=(3, 400))
    found = Usual(energies)(energies)
    assert found.mean() == pytest.approx(0, abs=1e-12) and found.std() == pytest.approx(1)
    parts = [(e - e.mean()) / e.std() for e in energies]
    assert np.corrcoef(found, np.mean(parts, axis=0))[0, 1] == pytest.approx(1)
    assert np.isfinite(Usual(np.ones((3, 4)))(np.ones((3, 2)))).all()


def test_distances_are_those_of_a_loop_that_leaves_a_row_out() -> None:
    rng = np.random.default_rng(0)
    rows, twice = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    memory = Memory((rows,), 3, seed=0)
    for i in (0, 7):
        far = np.sort(np.linalg.norm(np.delete(rows, i, axis=0) - rows[i], axis=1))[:3].mean()
        assert _others(memory._known[0], rows[i : i + 1], np.array([i])) == pytest.approx([far])
        mixed = rows[i] + [0, 0, 9, 0]
        far = np.sort(np.linalg.norm(np.delete(rows, i, axis=0) - mixed, axis=1))[:3].mean()
        assert _others(memory._known[0], mixed[None], np.array([i])) == pytest.approx([far])
    near = np.sort(np.linalg.norm(twice[:, None] - rows, axis=2), axis=1)[:, :3].mean(1)
    own = np.array([_others(memory._known[0], rows[i : i + 1], np.array([i]))[0] for i in range(30)])
    np.testing.assert_allclose(memory((twice,)), (near - own.mean()) / own.std())


def test_mixed_rows_have_the_columns_of_others_and_are_the_same_in_every_form() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 8))
    mixed = _mixed(rows, 3)
    np.testing.assert_array_equal(_mixed(np.arcsinh(rows), 3), np.arcsinh(mixed))
    assert (mixed != rows).mean() == pytest.approx(MIXED_SHARE, abs=0.03)
    assert all(np.isin(mixed[:, j], rows[:, j]).all() for j in range(8))


def test_forms_are_kept_that_half_a_standard_error_does_not_tell_from_the_best() -> None:
    """Here the probabilities are exact: known rows at 0.5, and a share of the mixed rows beyond them."""

    def far(*shares: float) -> np.ndarray:
        return np.stack([np.linspace(0, 1, 1000) > 1 - share for share in shares]).astype(float)

    for n, kept in ((1, (0, 1, 2)), (100, (0, 2)), (10_000, (2,))):
        assert _kept(np.full((3, n), 0.5), far(0.785, 0.65, 0.8)) == kept
    assert _kept(np.full((3, 50), 0.5), far(1.0, 1.0, 0.9)) == (0, 1)


def test_ranks_count_where_columns_belong_together_by_rank_and_not_where_they_do_not() -> None:
    """Two columns that are one but for their scale, with heavy tails, against clusters that ranks tear apart."""
    rng = np.random.default_rng(0)
    common = rng.standard_t(1.0, size=(400, 1))
    tails = np.hstack([common, common**3, np.sinh(np.clip(common, -5, 5))]) * rng.uniform(0.9, 1.1, size=(400, 3))
    assert Memory(Forms(tails)(tails), 3, 0).kept == (2,)
    centres = rng.normal(size=(2, 6)) * 20
    clusters = centres[rng.integers(2, size=400)] + rng.normal(size=(400, 6))
    assert 2 not in Memory(Forms(clusters)(clusters), 3, 0).kept


@pytest.mark.parametrize("n", [2, 3, 5])
def test_very_few_or_equal_rows_have_finite_energies(n: int) -> None:
    for rows in (np.random.default_rng(0).normal(size=(n, 2)), np.ones((n, 2))):
        memory = Memory((rows, rows, rows), 3, 0)
        assert memory.kept == (0, 1, 2) and np.isfinite(memory((rows, rows, rows))).all()
