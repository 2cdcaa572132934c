"""Hypotheses: the cheapest z of each x by brute force, probabilities of the prior, neighbours against a loop, no chance, no chunks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accord.data.pairing import Pairing
from accord.data.pairing_parts import columns, halves
from accord.data.samples import Samples
from accord.errors import UsageError
from accord.evaluate.features import never
from accord.evaluate.hypotheses import cheapest, hypotheses, neighbours, representatives, truth
from accord.evaluate.hypothesis_pictures import examples
from accord.evaluate.pictures import Sheet
from accord.evaluate.probes import Part
from accord.evaluate.work import Work
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional, Noisy, Sparse
from accord.model.encoder import Encoder
from accord.model.energy import Cost, cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic, Latent
from accord.model.markov import Markov
from accord.model.minimize import BestOf, Minimizer
from accord.model.predictor import MLPPredictor

DIM = 5


def made(
    latent: Latent, *, cost: Cost = squared_error, action_dim: int = 0, minimizer: Minimizer | None = None
) -> JointEmbedding:
    """Embeddings as they are, and a predictor with weights large enough that z matters."""
    torch.manual_seed(1)
    predictor = MLPPredictor(DIM, latent.dim, action_dim=action_dim)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.mul_(2)
    return JointEmbedding(nn.Identity(), nn.Identity(), predictor, latent=latent, cost=cost, minimizer=minimizer)


def conditional(codes: int, dim: int, blocks: int = 1, weight: float = 0.3) -> ConditionalPrior:
    """A prior that depends on x, with codes that were used unequally often."""
    prior = ConditionalPrior(Codebook(codes, dim, blocks=blocks), DIM, weight=weight)
    with torch.no_grad():
        prior.net[2].weight.normal_()  # type: ignore[operator, union-attr]
        prior.codebook.usage.copy_(torch.rand(blocks, codes).softmax(1))
    return prior


def some(n: int = 7) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("codes", "blocks"), [(5, 1), (3, 3), (2, 5)])
def test_the_cheapest_codes_of_a_conditional_prior_by_brute_force(codes: int, blocks: int) -> None:
    latent, s_x, k = conditional(codes, 2, blocks), some(), 4
    model = made(latent)
    found = hypotheses(model, s_x, k)
    log_p = latent.log_probability(s_x).detach().double()
    for i in range(len(s_x)):
        every = [
            (-sum(float(log_p[i, b, c]) for b, c in enumerate(row)), row)
            for row in itertools.product(range(codes), repeat=blocks)
        ]
        best = sorted(every)[:k]
        assert found.code is not None
        assert [tuple(row) for row in found.code[i].tolist()] == [row for _, row in best]
        assert found.energy[i].tolist() == pytest.approx([0.3 * price for price, _ in best], rel=1e-5)
        whole = sum(math.exp(-price) for price, _ in every)
        assert whole == pytest.approx(1, abs=1e-5)
        assert found.probability[i].tolist() == pytest.approx([math.exp(-price) for price, _ in best], rel=1e-4)
        for j, (_, row) in enumerate(best):
            z = torch.cat([latent.codebook.table[b, c] for b, c in enumerate(row)])
            torch.testing.assert_close(found.z[i, j], z.detach())
            torch.testing.assert_close(found.s_y_hat[i, j], model.predictor(s_x[i], z).detach())


def test_an_energy_is_the_energy_of_the_prediction_itself() -> None:
    model, s_x = made(conditional(4, 3)), some()
    found = hypotheses(model, s_x, 4)
    for j in range(4):
        itself = model.energy(s_x, found.s_y_hat[:, j])(found.z[:, j]).detach()
        torch.testing.assert_close(found.energy[:, j].float(), itself, atol=1e-6, rtol=1e-5)


def test_equal_prices_are_ordered_by_usage() -> None:
    book = Codebook(3, 2, blocks=2)
    book.usage.copy_(torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]]))
    found = hypotheses(made(book), some(2), 4)
    assert found.code is not None and found.usage is not None
    assert found.code[0].tolist() == [[1, 0], [1, 2], [0, 0], [0, 2]]
    assert found.usage[0].tolist() == pytest.approx([0.35, 0.28, 0.10, 0.08])
    assert found.probability.unique().tolist() == pytest.approx([1 / 9]), "the prior of plain codes is uniform"
    assert found.energy.eq(0).all()


def test_products_that_cannot_be_enumerated_are_exact_too() -> None:
    latent = conditional(8, 2, blocks=10)
    assert latent.candidates() is None
    found = hypotheses(made(latent), some(3), 50)
    log_p = latent.log_probability(some(3)).detach()
    assert found.code is not None
    assert torch.equal(found.code[:, 0], log_p.argmax(-1)), "the cheapest is the cheapest of each block"
    assert (found.energy.diff(dim=1) >= 0).all()
    assert len({tuple(row) for row in found.code[0].tolist()}) == 50
    worst = float(found.energy[0, -1])
    draws = latent.sample((2000, 1), some(3)[:1])
    seen = latent.penalty(draws, some(3)[:1])[:, 0].detach()
    below = {
        tuple(r)
        for r, e in zip(latent.codebook.index(draws)[:, 0].tolist(), seen.tolist(), strict=True)
        if e < worst - 1e-5
    }
    assert below <= {tuple(row) for row in found.code[0].tolist()}


def test_cheapest_by_brute_force_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    price = torch.randint(0, 3, (4, 3, 4), generator=generator).double()
    rarity = torch.rand(3, 4, generator=generator).double()
    code, total, second = cheapest(price, rarity, 9)
    for i in range(4):
        rows = itertools.product(range(4), repeat=3)
        every = sorted(
            (
                sum(float(price[i, b, c]) for b, c in enumerate(row)),
                sum(float(rarity[b, c]) for b, c in enumerate(row)),
                row,
            )
            for row in rows
        )
        assert [tuple(row) for row in code[i].tolist()] == [row for *_, row in every[:9]]
        assert total[i].tolist() == [p for p, *_ in every[:9]]
        assert second[i].tolist() == pytest.approx([r for _, r, _ in every[:9]])


def test_other_countable_latents(codes: Latent) -> None:
    found = hypotheses(made(codes), some(2), 2)
    price = 1e-3 * torch.tensor([0.0, 1.5, 2.5], dtype=torch.float64)
    assert found.energy[1].tolist() == pytest.approx(price[:2].tolist(), abs=1e-7)
    assert found.probability[1].tolist() == pytest.approx((-price).softmax(0)[:2].tolist(), abs=1e-6)
    assert found.code is None


def test_no_latent_has_one_hypothesis_and_more_than_there_are_gives_fewer() -> None:
    found = hypotheses(made(Deterministic()), some(), 8)
    assert found.z.shape == (7, 1, 0) and found.s_y_hat.shape == (7, 1, DIM)
    assert found.energy.eq(0).all() and found.probability.eq(1).all()
    assert hypotheses(made(Codebook(3, 2)), some(), 8).z.shape == (7, 3, 2)
    assert hypotheses(made(Codebook(3, 2)), some()[:0], 2).z.shape == (0, 2, 2)


VECTORS: list[Callable[[], Latent]] = [
    lambda: Gaussian(3, weight=0.2),
    lambda: Noisy(3),
    lambda: LowDimensional(2, bound=2.0),
    lambda: Sparse(4, weight=0.1),
]


@pytest.mark.parametrize("latent", VECTORS, ids=["gaussian", "noisy", "low_dimensional", "sparse"])
@pytest.mark.parametrize("cost", [squared_error, cosine])
def test_vectors(latent: Callable[[], Latent], cost: Cost) -> None:
    z = latent()
    model, s_x = made(z, cost=cost, minimizer=BestOf(8)), some()
    found = hypotheses(model, s_x, 6, draws=64, seed=5)
    assert found.z.shape == (7, 6, z.dim) and found.code is None and found.usage is None
    torch.testing.assert_close(found.energy.float(), z.penalty(found.z, s_x[:, None]), rtol=1e-5, atol=1e-6)
    assert (found.energy.diff(dim=1) >= 0).all()
    assert found.probability.sum(1).tolist() == pytest.approx([1.0] * 7)
    assert (found.probability > 0).all()
    for i in range(7):
        torch.testing.assert_close(found.s_y_hat[i], model.predictor(s_x[i], found.z[i]).detach(), rtol=1e-4, atol=1e-5)
        apart = torch.cdist(found.s_y_hat[i], found.s_y_hat[i]) + 9 * torch.eye(6)
        assert apart.min() > 0.05, "they differ"
    again = hypotheses(model, s_x, 6, draws=64, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True) if a is not None)
    alone = hypotheses(model, s_x[2:3], 6, draws=64, seed=5)
    assert torch.equal(alone.z[0], found.z[2]), "what else is asked does not matter"
    assert not torch.equal(found.z, hypotheses(model, s_x, 6, draws=64, seed=6).z)


def test_representatives_find_the_groups_and_their_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    size, middles = [40, 30, 20, 10], 8 * torch.eye(4, 6)
    points = torch.cat([m + 0.3 * torch.randn(s, 6, generator=generator) for m, s in zip(middles, size, strict=True)])
    order = torch.randperm(100, generator=generator)
    place, share = representatives(points[order][None].double(), torch.zeros(1, 100).double(), 4)
    groups = torch.arange(4).repeat_interleave(torch.tensor(size))[order]
    assert sorted(groups[place[0]].tolist()) == [0, 1, 2, 3]
    assert {int(groups[p]): round(100 * float(s)) for p, s in zip(place[0], share[0], strict=True)} == dict(
        enumerate(size)
    )


def test_a_latent_that_does_nothing_shows_as_one_prediction() -> None:
    points = torch.ones(2, 10, 3).double()
    place, share = representatives(points, torch.rand(2, 10).double(), 3)
    assert all(len(set(row)) == 3 for row in place.tolist())
    assert sorted(share[0].tolist()) == [0, 0, 1]


def test_actions_reach_the_predictor() -> None:
    model, s_x = made(Codebook(3, 2), action_dim=2), some()
    action = torch.randn(7, 2)
    found = hypotheses(model, s_x, 3, action)
    assert found.code is not None
    expected = model.predictor(s_x[4], found.z[4], action[4].expand(3, 2))
    torch.testing.assert_close(found.s_y_hat[4], expected.detach())


@pytest.mark.parametrize(
    "latent", [conditional(4, 2, 3), Gaussian(3), Deterministic()], ids=["codes", "gaussian", "none"]
)
def test_chunks_change_nothing(latent: Latent) -> None:
    model, s_x = made(latent, minimizer=BestOf(4)), some()
    whole, cut = (hypotheses(model, s_x, 3, chunk=chunk) for chunk in (1 << 22, 1))
    for a, b in zip(whole, cut, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("cost", [squared_error, cosine, smooth_l1])
@pytest.mark.parametrize("chunk", [1, 37, 1 << 22])
def test_neighbours_against_a_loop(cost: Cost, chunk: int) -> None:
    model = made(Codebook(3, 2), cost=cost)
    found = hypotheses(model, some(4), 3)
    corpus = torch.randn(23, DIM, generator=torch.Generator().manual_seed(9))
    content, others = np.array([5, 6, 7, 5], np.uint64), np.arange(23).astype(np.uint64)
    near = neighbours(model, found.s_y_hat, corpus, 4, contents=(content, others), chunk=chunk)
    for i, j in itertools.product(range(4), range(3)):
        far = [(float(cost(found.s_y_hat[i, j].double(), y.double())), m) for m, y in enumerate(corpus)]
        best = sorted(pair for pair in far if pair[1] != int(content[i]))[:4]
        assert near.place[i, j].tolist() == [m for _, m in best]
        assert near.distance[i, j].tolist() == pytest.approx([d for d, _ in best], rel=1e-5)


def test_a_small_corpus_has_fewer_neighbours() -> None:
    model = made(Codebook(2, 2))
    found = hypotheses(model, some(2), 2)
    near = neighbours(model, found.s_y_hat, some(2), 5)
    assert near.place.shape == (2, 2, 2)
    same = np.zeros(2, np.uint64)
    near = neighbours(model, found.s_y_hat, some(2), 5, contents=(same, same))
    assert near.place.eq(-1).all() and near.distance.isinf().all()
    assert neighbours(model, found.s_y_hat[:0], some(2), 5).place.shape == (0, 2, 2)


def test_what_the_truth_says() -> None:
    model, s_x = made(conditional(4, 3, weight=1e-4)), some()
    found = hypotheses(model, s_x, 4)
    s_y = found.s_y_hat[:, 2] + 1e-3
    told = truth(model, found, s_x, s_y)
    assert told.nearest.tolist() == [2] * 7
    torch.testing.assert_close(told.z, found.z[:, 2])
    torch.testing.assert_close(told.free_energy, told.energy.min(1).values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(told.free_energy.float(), model.free_energy(s_x, s_y), rtol=1e-5, atol=1e-6)


def test_the_mode_of_the_model_is_left_alone() -> None:
    model = made(Noisy(3), minimizer=BestOf(4)).train()
    hypotheses(model, some(), 2)
    assert model.training and model.latent.training


@pytest.mark.parametrize("latent", [GaussianWalk(2), Markov(3, 2)], ids=["walk", "markov"])
def test_sequences_are_refused(latent: Latent) -> None:
    with pytest.raises(UsageError, match="whole sequence") as refusal:
        hypotheses(made(latent), some(), 2)
    assert refusal.value.code == "E235"


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 2, "draws": 0}, {"k": 2, "chunk": -1}])
def test_numbers_out_of_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="whole number of 1 or more"):
        hypotheses(made(Codebook(2, 2)), some(), **wrong)


# In an evaluation


class Small(nn.Module):
    """An encoder of halves of digits, or of rows of numbers."""

    def __init__(self, width: int, dim: int = DIM):
        super().__init__()
        self.linear = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1).float())


def evaluated(samples: Samples, pairing: Pairing, widths: tuple[int, int], latent: Latent, sheet: Sheet | None) -> Any:
    torch.manual_seed(0)
    encoders = [Encoder(Small(width), sample_ndim=3 if samples.kind == "image" else 1) for width in widths]
    model = JointEmbedding(*encoders, MLPPredictor(DIM, latent.dim), latent=latent, minimizer=BestOf(4))
    half = len(samples) // 2
    index = np.arange(len(samples))
    part = Part(samples, index[half:])
    return examples(Work(model, pairing, Part(samples, index[:half]), part, 0, never, lambda _: None), sheet)


def test_examples_of_images_are_drawn(digits: Samples) -> None:
    sheet = Sheet(8)
    found = evaluated(digits, halves(), (32, 32), conditional(12, 3), sheet)
    assert len(found) == 6 and [len(one["predictions"]) for one in found] == [8] * 6
    for one in found:
        i = digits.keys.index(one["key"])
        assert i >= len(digits) // 2, "held out"
        pixels = digits.batch(np.array([i]))[0, 0].numpy()
        np.testing.assert_allclose(sheet.tiles[one["y"]][..., 0], pixels, atol=1)
        np.testing.assert_allclose(sheet.tiles[one["x"]][:, :4, 0], pixels[:, :4], atol=1)
        assert (sheet.tiles[one["x"]][:, 4:] == 128).all()
        energies = [p["truth_energy"] for p in one["predictions"]]
        assert one["nearest"] == int(np.argmin(energies))
        for prediction in one["predictions"]:
            assert prediction["distance"] == sorted(prediction["distance"]) and len(prediction["neighbours"]) == 3
            assert all(digits.keys.index(key) < len(digits) // 2 for key in prediction["keys"]), (
                "of the training samples"
            )
            first = digits.batch(np.array([digits.keys.index(prediction["keys"][0])]))[0, 0].numpy()
            drawn = sheet.tiles[prediction["neighbours"][0]][..., 0]
            np.testing.assert_allclose(drawn[:, 4:], first[:, 4:], atol=1)
            np.testing.assert_allclose(drawn[:, :4], pixels[:, :4], atol=1)


def test_examples_of_rows_have_keys_only(vectors: Samples) -> None:
    found = evaluated(vectors, columns((0, 1), (2, 3, 4, 5)), (2, 4), Gaussian(2), None)
    assert len(found) == 6 and len(found[0]["predictions"]) == 8
    assert found[0]["x"] == found[0]["y"] == -1 and found[0]["predictions"][0]["neighbours"] == [-1, -1, -1]
    assert sum(p["probability"] for p in found[0]["predictions"]) == pytest.approx(1)
    json.dumps(found, allow_nan=False)


def test_no_examples_without_z_or_of_sequences(vectors: Samples) -> None:
    for latent in (Deterministic(), GaussianWalk(2)):
        assert evaluated(vectors, columns((0, 1), (2, 3, 4, 5)), (2, 4), latent, None) is None
