"""The energy beside known rows is that of a loop, and the form of the columns that tells rows from mixed ones is the one that counts."""

from __future__ import annotations

import numpy as np
import pytest

from accord.sklearn.forms import Forms
from accord.sklearn.memory import MIXED_SHARE, Memory, Near, Usual, _mixed, _weights


def test_what_is_usual_has_mean_0_and_deviation_1() -> None:
    energies = np.random.default_rng(0).gamma(2.0, [[1.0], [5.0], [0.1]], size=(3, 400))
    found = Usual(energies)(energies)
    assert found.mean() == pytest.approx(0, abs=1e-12) and found.std() == pytest.approx(1)
    parts = [(e - e.mean()) / e.std() for e in energies]
    assert np.corrcoef(found, np.mean(parts, axis=0))[0, 1] == pytest.approx(1)
    assert np.isfinite(Usual(np.ones((3, 4)))(np.ones((3, 2)))).all()


def test_weights_of_parts_are_those_of_their_mean() -> None:
    energies = np.random.default_rng(0).gamma(2.0, [[1.0], [5.0]], size=(2, 400))
    first, second = ((e - e.mean()) / e.std() for e in energies)
    found = Usual(energies, np.array([0.9, 0.1]))(energies)
    assert np.corrcoef(found, 0.9 * first + 0.1 * second)[0, 1] == pytest.approx(1)


def test_distances_are_those_of_a_loop_that_leaves_a_row_out() -> None:
    rng = np.random.default_rng(0)
    rows, twice = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    near = Near(rows, 3)
    for i in (0, 7):
        for row in (rows[i], rows[i] + [0, 0, 9, 0]):
            far = np.sort(np.linalg.norm(np.delete(rows, i, axis=0) - row, axis=1))
            distances, places = near._others(row[None], np.array([i]))
            np.testing.assert_allclose(distances[0], far[:20])
            np.testing.assert_allclose(np.linalg.norm(rows[places[0]] - row, axis=1), far[:20])
            assert near._mean(distances) == pytest.approx([far[:3].mean()])
    np.testing.assert_allclose(Memory((rows,), 3, seed=0)((twice,)), (near(twice) - near.own.mean()) / near.own.std())


def test_energies_of_the_memory_are_those_of_a_loop() -> None:
    """Also with repeated rows: distances of 0 neither make the logarithm boundless nor decide by chance which rows count."""
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(40, 3)), rng.normal(size=(5, 3))
    known[30:] = known[:10]
    near = Near(known, 3)

    def around(row: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = np.linalg.norm(known[others] - row, axis=1)
        order = np.argsort(distances, kind="stable")[:20]
        return distances[order], others[order]

    every = np.arange(40)
    own = np.array([around(known[i], np.delete(every, i))[0][:3].mean() for i in every])
    floor = 0.5 * np.median(own[own > 0])
    for row, energy in zip(new, near(new), strict=True):
        distances, places = around(row, every)
        weights = 1 - distances / distances[-1] + 1e-6
        usual = (weights * np.log(own[places] + floor)).sum() / weights.sum()
        assert energy == pytest.approx(np.log(distances[:3].mean() + floor) - 0.3 * usual, rel=1e-6)
    assert np.isfinite(Near(np.ones((5, 2)), 3)(np.ones((2, 2)))).all()


def test_how_far_a_row_is_counts_for_more_where_known_rows_lie_dense() -> None:
    rng = np.random.default_rng(0)
    known = np.vstack([0.1 * rng.normal(size=(200, 2)), 20 + rng.normal(size=(200, 2))])
    beside = np.array([[0.0, 1.5], [20.0, 24.5]])
    distances = np.sort(np.linalg.norm(beside[:, None] - known, axis=2), axis=1)[:, :3].mean(1)
    assert distances[1] > distances[0]
    dense, sparse = Near(known, 3)(beside)
    assert dense - sparse > np.log(distances[0] / distances[1]) + 0.2


def test_forms_are_weighed_by_the_odds_of_telling_mixed_rows() -> None:
    np.testing.assert_allclose(_weights(np.array([0.6, 0.6])), [0.5, 0.5])
    first, second = _weights(np.array([0.8, 0.5]))
    assert first / second == pytest.approx(4**8)
    assert np.isfinite(_weights(np.array([1.0, 0.0]))).all()


def test_mixed_rows_have_the_columns_of_others_and_are_the_same_in_every_form() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 8))
    mixed = _mixed(rows, 3)
    np.testing.assert_array_equal(_mixed(np.arcsinh(rows), 3), np.arcsinh(mixed))
    assert (mixed != rows).mean() == pytest.approx(MIXED_SHARE, abs=0.03)
    assert all(np.isin(mixed[:, j], rows[:, j]).all() for j in range(8))


def test_ranks_count_where_columns_belong_together_by_rank_and_not_where_they_do_not() -> None:
    """Two columns that are one but for their scale, with heavy tails, against clusters that ranks tear apart."""
    rng = np.random.default_rng(0)
    common = rng.standard_t(1.0, size=(400, 1))
    tails = np.hstack([common, common**3, np.sinh(np.clip(common, -5, 5))]) * rng.uniform(0.9, 1.1, size=(400, 3))
    assert Memory(Forms(tails)(tails), 3, 0).kept == (1,)
    centres = rng.normal(size=(2, 6)) * 20
    clusters = centres[rng.integers(2, size=400)] + rng.normal(size=(400, 6))
    assert Memory(Forms(clusters)(clusters), 3, 0).kept == (0,)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_very_few_or_equal_rows_have_finite_energies(n: int) -> None:
    for rows in (np.random.default_rng(0).normal(size=(n, 2)), np.ones((n, 2))):
        memory = Memory((rows, rows), 3, 0)
        assert memory.kept == (0, 1) and np.isfinite(memory((rows, rows))).all()
