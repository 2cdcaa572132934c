"""The map keeps groups together and is the same each time; neighbours are brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accord.evaluate import embedding_map as m


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def groups(n: int) -> tuple[torch.Tensor, np.ndarray]:
    label = np.arange(n) % 3
    return 6 * torch.eye(3).repeat(1, 4)[label] + randn(n, 12), label


def same_neighbour(points: np.ndarray, label: np.ndarray) -> float:
    distance = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((label[distance.argmin(1)] == label).mean())


def test_tsne_keeps_groups_together_and_is_deterministic() -> None:
    features, label = groups(150)
    first = m.embed_in_plane(features, seed=0)
    assert first.method == "tsne" and first.points.shape == (150, 2) and np.isfinite(first.points).all()
    assert same_neighbour(first.points, label) > 0.95
    assert same_neighbour(np.random.default_rng(0).normal(size=(150, 2)), label) < 0.5
    np.random.rand(3)  # the state of the global generator does not matter
    assert np.array_equal(first.points, m.embed_in_plane(features, seed=0).points)


def test_many_points_are_placed_by_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "TSNE_POINTS", 100)
    features, label = groups(150)
    found = m.embed_in_plane(features, seed=0)
    rows = torch.nn.functional.normalize(features - features.mean(0)).double().numpy()
    expected = np.linalg.svd(rows)[2][:2] @ rows.T
    assert found.method == "pca" and np.allclose(np.abs(found.points.T), np.abs(expected), atol=1e-6)
    assert same_neighbour(found.points, label) > 0.9


@pytest.mark.parametrize("features", [torch.ones(40, 5), torch.zeros(40, 5), randn(4, 5), randn(40, 1), randn(2, 3)])
def test_degenerate_features_still_have_a_map(features: torch.Tensor) -> None:
    found = m.embed_in_plane(features, seed=0)
    assert found.method == "pca" and found.points.shape == (len(features), 2) and np.isfinite(found.points).all()


def test_neighbours_are_brute_force_and_exclude_the_query() -> None:
    features = randn(50, 6) + 30
    queries = torch.tensor([4, 17])
    near = m.nearest(features, queries, 5)
    centred = (features - features.mean(0)).double()
    unit = centred / centred.norm(dim=1, keepdim=True)
    for row, query in enumerate(queries.tolist()):
        distance = 1 - unit @ unit[query]
        order = [i for i in distance.argsort().tolist() if i != query][:5]
        assert near.place[row].tolist() == order
        assert torch.allclose(near.distance[row].double(), distance[order], atol=1e-5)
    assert m.nearest(features[:3], torch.tensor([0]), 5).place.shape == (1, 2)


def test_queries_cover_the_classes() -> None:
    label = np.array([-1] * 5 + [0] * 30 + [1] * 3 + [2])
    assert label[m.queries_for(label, 39, 3, 0)].tolist() == [0, 1, 2]
    chosen = m.queries_for(label, 39, 8, 0).tolist()
    assert len(set(chosen)) == 8 and set(label[chosen]) == {0, 1, 2} and sorted(label[chosen]) == list(label[chosen])
    assert len(set(m.queries_for(None, 39, 8, 0).tolist())) == 8
    assert len(m.queries_for(np.full(39, -1), 39, 8, 0)) == 8
    assert len(m.queries_for(label[-2:], 2, 8, 0)) == 2
