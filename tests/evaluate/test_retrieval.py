"""Ranks of the other view: permutations, ties, duplicates, and a bound on memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from accord.evaluate import energy, retrieval
from accord.evaluate.features import Embedded
from accord.model.energy import cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding

Build = Callable[..., JointEmbedding]
COSTS = [squared_error, cosine, smooth_l1]


def embedded(s_x: torch.Tensor, s_y: torch.Tensor) -> Embedded:
    return Embedded(s_x, s_y, s_y, None)


def unique(n: int) -> np.ndarray:
    return np.arange(n).astype(np.uint64)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cost", COSTS)
def test_equal_views_are_found_first_and_shifted_ones_are_not(build: Build, cost: Callable[..., torch.Tensor]) -> None:
    s = randn(60, 8)
    assert retrieval.ranks(build(cost=cost), embedded(s, s), unique(60)).tolist() == [1] * 60
    assert (retrieval.ranks(build(cost=cost), embedded(s, s.roll(1, 0)), unique(60)) > 1).all()


@pytest.mark.parametrize("cost", COSTS)
def test_a_constant_embedding_finds_nothing(build: Build, cost: Callable[..., torch.Tensor]) -> None:
    constant = torch.full((200, 32), 0.1) * torch.linspace(1, 2, 32)
    ranks = retrieval.ranks(build(cost=cost), embedded(constant, constant), unique(200))
    assert ranks.tolist() == [200] * 200
    found = retrieval.summary(ranks)
    assert found["recall@1"] == found["recall@5"] == found["recall@10"] == 0
    assert found["median_rank"] == 200 and found["mrr"] == pytest.approx(1 / 200) and found["candidates"] == 200


@pytest.mark.parametrize("cost", COSTS)
def test_an_energy_that_ignores_y_finds_nothing(build: Build, cost: Callable[..., torch.Tensor]) -> None:
    y = torch.ones(1, 8).expand(50, 8)
    assert retrieval.ranks(build(cost=cost), embedded(randn(50, 8), y), unique(50)).tolist() == [50] * 50


@pytest.mark.parametrize("elements", [100, 1 << 22])
def test_ranks_are_brute_force(build: Build, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ELEMENTS", elements)
    s_x = randn(70, 3)
    s_y = s_x + 0.8 * randn(70, 3, seed=1)
    energies = (s_x.double()[:, None] - s_y.double()).square().mean(-1)
    expected = [1 + sum(energies[i, j] <= energies[i, i] for j in range(70) if j != i) for i in range(70)]
    assert retrieval.ranks(build(), embedded(s_x, s_y), unique(70)).tolist() == expected


def test_some_ties_count_against(build: Build) -> None:
    s_x = torch.tensor([[0.0], [1.0], [5.0]])
    s_y = torch.tensor([[1.0], [-1.0], [5.0]])  # for the first x both of the first two are at distance 1
    assert retrieval.ranks(build(), embedded(s_x, s_y), unique(3)).tolist() == [2, 2, 1]


def test_copies_are_no_competitors(build: Build) -> None:
    s = randn(20, 4).repeat_interleave(2, 0)
    content = unique(40) // np.uint64(2)
    assert retrieval.ranks(build(), embedded(s, s), content).tolist() == [1] * 40
    assert retrieval.ranks(build(), embedded(s, s), unique(40)).tolist() == [2] * 40


def test_chance_is_where_it_should_be(build: Build) -> None:
    ranks = retrieval.ranks(build(), embedded(randn(500, 16), randn(500, 16, seed=1)), unique(500))
    found = retrieval.summary(ranks)
    assert abs(found["median_rank"] - 250) < 50 and found["recall@10"] < 0.06


@pytest.mark.parametrize("elements", [100, 1 << 22])
def test_x_is_found_for_y_by_the_columns(build: Build, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few elements the energies are made block by block, twice; otherwise they are kept."""
    monkeypatch.setattr(energy, "ELEMENTS", elements)
    monkeypatch.setattr(retrieval, "ELEMENTS", elements)
    s_x = randn(50, 3)
    s_y = s_x + 0.8 * randn(50, 3, seed=1)
    energies = (s_x.double()[:, None] - s_y.double()).square().mean(-1)
    columns = [1 + sum(energies[i, j] <= energies[j, j] for i in range(50) if i != j) for j in range(50)]
    found = retrieval.evaluated(build(), embedded(s_x, s_y), unique(50))
    assert found["reverse"] == {**retrieval.summary(torch.tensor(columns)), "class_map": None}
    rows = retrieval.ranks(build(), embedded(s_x, s_y), unique(50))
    assert found["recall@1"] == retrieval.summary(rows)["recall@1"] and rows.tolist() != columns


@pytest.mark.parametrize("elements", [100, 1 << 22])
def test_class_precision_is_that_of_scikit_learn(build: Build, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ELEMENTS", elements)
    monkeypatch.setattr(retrieval, "ELEMENTS", elements)
    label = np.arange(60) % 4 - 1  # a quarter has no label
    s_x = randn(60, 3)
    s_y = s_x + torch.from_numpy(label)[:, None] + 0.5 * randn(60, 3, seed=1)
    energies = (s_x.double()[:, None] - s_y.double()).square().mean(-1)
    known = np.flatnonzero(label >= 0)
    forward, reverse = [
        np.mean([average_precision_score(label[known] == label[i], -table[i, known]) for i in known])
        for table in (energies.numpy(), energies.numpy().T)
    ]
    found = retrieval.evaluated(build(), embedded(s_x, s_y), unique(60), label)
    assert found["class_map"] == pytest.approx(forward, abs=1e-9)
    assert found["reverse"]["class_map"] == pytest.approx(reverse, abs=1e-9)  # type: ignore[index]
    assert abs(forward - reverse) > 0.01, "the two directions differ"


def test_average_precision_with_ties_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    energies, relevant = rng.integers(0, 6, (200, 15)).astype(float), rng.random((200, 15)) < 0.3
    relevant[:, 0] |= ~relevant.any(1)
    found = retrieval.average_precision(torch.from_numpy(energies), torch.from_numpy(relevant))
    expected = [average_precision_score(r, -e) for e, r in zip(energies, relevant, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_class_precision_of_a_constant_energy_is_chance(build: Build) -> None:
    label = np.arange(90) % 3
    constant = torch.ones(90, 4)
    found = retrieval.evaluated(build(), embedded(constant, constant), unique(90), label)
    assert found["class_map"] == pytest.approx(1 / 3) and found["reverse"]["class_map"] == pytest.approx(1 / 3)  # type: ignore[index]
    assert retrieval.evaluated(build(), embedded(constant, constant), unique(90), label * 0)["class_map"] is None


def test_summary_by_hand() -> None:
    found = retrieval.summary(torch.tensor([1, 2, 6, 11]))
    assert found == {
        "recall@1": 0.25,
        "recall@5": 0.5,
        "recall@10": 0.75,
        "median_rank": 4.0,
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4),
        "candidates": 4,
    }


def test_a_search_can_be_stopped(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ELEMENTS", 10)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieval.ranks(build(), embedded(randn(9, 2), randn(9, 2)), unique(9), stop=stop)
