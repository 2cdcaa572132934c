"""Energies of embeddings against the model's own, the ladder of mismatches, and its summary."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from accord.baselines.probabilistic import GaussianDensity
from accord.data.augment import Augmentation
from accord.data.pairing import Pairing, two_views
from accord.data.samples import Samples
from accord.evaluate import energy as e
from accord.evaluate.features import Embedded
from accord.model.energy import cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor

Build = Callable[..., JointEmbedding]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(model: JointEmbedding, s_x: torch.Tensor, s_y: torch.Tensor) -> torch.Tensor:
    blocks = list(e.cross_energies(model, s_x, s_y))
    assert [rows.start for rows, _ in blocks] == [0, *np.cumsum([len(b) for _, b in blocks])[:-1]]
    return torch.cat([block for _, block in blocks])


@pytest.mark.parametrize("cost", [squared_error, cosine, smooth_l1])
def test_cross_energies_are_the_models_own(
    build: Build, cost: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build(cost=cost, predictor=MLPPredictor(5))
    s_x, s_y = randn(23, 5) + 3, randn(31, 5, seed=1) + 3
    with torch.no_grad():
        expected = model.minimizer(model.energy(s_x, s_y).cross()).value.double()
    assert torch.allclose(full(model, s_x, s_y), expected, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(e, "ELEMENTS", 400)
    assert len(list(e.cross_energies(model, s_x, s_y))) > 1
    assert torch.allclose(full(model, s_x, s_y), expected, rtol=1e-5, atol=1e-6)


def test_cross_energies_with_a_latent_ask_the_minimiser(
    build: Build, codes: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build(predictor=MLPPredictor(5, 2), latent=codes)
    s_x, s_y = randn(12, 5), randn(12, 5, seed=1)
    with torch.no_grad():
        expected = model.minimizer(model.energy(s_x, s_y).cross()).value.double()
        plain = model.energy(s_x, s_y).cross()(torch.zeros(1, 1, 1, 2))[0].double()
    monkeypatch.setattr(e, "ELEMENTS", 400)
    found = full(model, s_x, s_y)
    assert torch.allclose(found, expected, rtol=1e-6)
    assert (found <= plain + 1e-6).all() and (found < plain - 1e-3).any()
    assert torch.allclose(e.pair_energies(model, s_x, s_y), expected.diagonal(), rtol=1e-6)


def test_a_density_that_is_a_matrix_product_is_asked_for_as_many_x_at_once_as_their_energies_allow(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block costs what the y cost once more: as many blocks as numbers of all pairs and dimensions would take minutes, not seconds."""
    model = build(cost=GaussianDensity(64), predictor=IdentityPredictor())
    s_x, s_y = randn(90, 128), randn(200, 64, seed=1)
    with torch.no_grad():
        expected = model.minimizer(model.energy(s_x, s_y).cross()).value.double()
    monkeypatch.setattr(e, "ELEMENTS", 2000)
    assert len(list(e.cross_energies(model, s_x, s_y))) == 90 * 200 / 2000
    assert torch.allclose(full(model, s_x, s_y), expected, rtol=1e-5)


def test_the_callers_modes_survive_a_half_read_iterator(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e, "ELEMENTS", 10)
    model = build()
    model.train()
    blocks = e.cross_energies(model, randn(9, 4), randn(9, 4))
    next(blocks)
    assert torch.is_grad_enabled() and model.training


@pytest.mark.parametrize("cost", [squared_error, cosine])
@pytest.mark.parametrize("n", [3, 7, 49, 300])
def test_equal_embeddings_have_equal_energies_in_the_quick_path(
    build: Build, cost: Callable[..., torch.Tensor], n: int
) -> None:
    constant = (1000 * randn(1, 61, seed=n)).expand(n, 61)
    energies = full(build(cost=cost), constant, constant)
    assert (energies == energies[0, 0]).all() and abs(float(energies[0, 0])) < 1e-12


def test_small_distances_far_from_the_origin_are_kept(build: Build) -> None:
    s = torch.cat(
        [randn(50, 7) * 1e-2, torch.full((50, 1), 1e4)], 1
    )  # |a|^2 + |b|^2 - 2ab loses digits, in float64 too
    expected = (s.double()[:, None] - s.double()).square().mean(-1)
    assert torch.allclose(full(build(), s, s), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("repeats", [[1] * 50, [2] * 25, [20, 10, 1, 1, 1], [9, 1], [5, 5]])
def test_a_mismatch_never_has_the_same_content(repeats: list[int]) -> None:
    content = np.repeat(np.arange(len(repeats)), repeats).astype(np.uint64)
    np.random.default_rng(0).shuffle(content)
    for seed in range(20):
        chosen = e.random_other(content, seed).numpy()
        assert (content[chosen] != content).all()
    assert (content[e.nearest_other(randn(len(content), 3), content).numpy()] != content).all()
    assert np.array_equal(e.random_other(content, 7), e.random_other(content, 7))


def test_random_mismatches_use_every_sample_once() -> None:
    content = np.arange(100).astype(np.uint64)
    assert sorted(e.random_other(content, 0).tolist()) == list(range(100))
    followers = [tuple(e.random_other(content, seed)[:3].tolist()) for seed in range(50)]
    assert len(set(followers)) == 50


def test_mismatches_need_two_contents() -> None:
    with pytest.raises(ValueError, match="at least 2 different samples"):
        e.random_other(np.zeros(5, np.uint64), 0)


def test_nearest_other_is_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    s, content = randn(80, 5) + 20, np.arange(80).astype(np.uint64) // 2
    distance = torch.cdist(s.double(), s.double())
    distance[torch.from_numpy(content[:, None] == content)] = torch.inf
    assert torch.equal(e.nearest_other(s, content), distance.argmin(1))
    monkeypatch.setattr(e, "ELEMENTS", 300)
    assert torch.equal(e.nearest_other(s, content), distance.argmin(1))


def test_the_ladder_gets_harder_rung_by_rung(build: Build) -> None:
    s_x = randn(400, 6)
    pairs = Embedded(s_x, s_x + 0.05 * randn(400, 6, seed=1), s_x + 0.2 * randn(400, 6, seed=2), None)
    rungs = e.ladder(build(), pairs, np.arange(400).astype(np.uint64), seed=0)
    assert torch.allclose(rungs.matched, (pairs.s_x - pairs.s_y).double().square().mean(1), rtol=1e-5)
    assert torch.allclose(rungs.perturbed, (pairs.s_x - pairs.s_y_damaged).double().square().mean(1), rtol=1e-5)
    found = e.summary(rungs)["ladder"]
    assert isinstance(found, dict)
    assert found["random"]["auroc"] > 0.999 and found["random"]["d_prime"] > 2
    assert found["random"]["gap"] > found["nearest"]["gap"] > found["perturbed"]["gap"] > 0
    assert found["random"]["gap"] == pytest.approx(2 - 0, rel=0.1)  # E|a-b|^2/D of standard normals


def test_a_constant_embedding_is_at_chance_everywhere(build: Build) -> None:
    one = torch.ones(50, 4)
    rungs = e.ladder(build(), Embedded(one, one, one, None), np.arange(50).astype(np.uint64), seed=0)
    found = e.summary(rungs)
    for row in found["ladder"].values():  # type: ignore[attr-defined]
        assert row == {"mean": 0, "std": 0, "gap": 0, "auroc": 0.5, "d_prime": 0}
    counts = found["histogram"]
    assert isinstance(counts, dict) and sum(counts["matched"]) == 50 and np.diff(counts["edges"]).min() > 0


def test_histograms_share_edges_and_count_everything() -> None:
    rungs = e.Ladder(*(randn(500, seed=i).double() + i for i in range(3)), torch.cat([randn(499), torch.tensor([1e9])]))
    found = e.histogram(rungs)
    edges = found.pop("edges")
    assert len(edges) == e.BINS + 1 and all(a < b for a, b in pairwise(edges)) and edges[-1] < 100
    assert set(found) == {"matched", "random", "nearest", "perturbed"}
    assert all(sum(counts) == 500 and len(counts) == e.BINS for counts in found.values())
    inside = np.histogram(rungs.random, edges)[0]
    assert np.abs(np.array(found["random"]) - inside).sum() <= 10  # only what lies beyond the ends is moved


def test_a_score_depends_on_the_sample_alone(digits: Samples, digit_model: JointEmbedding) -> None:
    pairing = two_views(Augmentation.digits())
    alone = torch.cat([e.scores(digit_model, digits, np.array([i]), pairing, seed=0) for i in (7, 1200, 3)])
    together = e.scores(digit_model, digits, np.array([0, 7, 5, 1200, 3, 9]), pairing, seed=0, batch_size=4)
    assert torch.allclose(alone, together[[1, 3, 4]], rtol=1e-4)
    assert not torch.allclose(alone, e.scores(digit_model, digits, np.array([7, 1200, 3]), pairing, seed=1), rtol=1e-2)


def test_a_score_is_the_mean_over_draws(vectors: Samples, noisy: type[Pairing], build: Build) -> None:
    index = np.arange(20)
    many = e.scores(build(), vectors, index, noisy(0.5), seed=0, draws=400)  # type: ignore[call-arg]
    assert torch.allclose(many, torch.full((20,), 0.25, dtype=torch.float64), rtol=0.15)
    assert (many == many[0]).all() or torch.allclose(many, many[0].expand(20), rtol=1e-4)  # the same noise for all
