"""Search by energy: against loops in float64, in both directions, with ties, codes, actions and searched z, in any blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import accord
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.errors import UsageError
from accord.evaluate.copies import Copies
from accord.evaluate.features import OneSide
from accord.evaluate.search import Exact, lowest, refined, search
from accord.model.continuous import Gaussian
from accord.model.descend import Descend
from accord.model.energy import cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.markov import Markov
from accord.model.minimize import BestOf, Enumerate
from accord.model.predictor import MLPPredictor

Build = Callable[..., JointEmbedding]
COSTS = [squared_error, cosine, smooth_l1]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(model: JointEmbedding, x: torch.Tensor, y: torch.Tensor, k: int, side: str, action: Any = None) -> Any:
    """One pair at a time in float64; sorted by (energy, place)."""
    exact = model.double()
    table = []
    for i in range(len(x)):
        a = None if action is None else action[i : i + 1].double()
        row = [exact.free_energy(x[i : i + 1].double(), y[j : j + 1].double(), a).item() for j in range(len(y))]
        table.append(row)
    model.float()
    energies = np.array(table) if side == "x" else np.array(table).T
    place = np.argsort(energies, axis=1, kind="stable")[:, :k]
    return place, np.take_along_axis(energies, place, 1)


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.place.numpy(), expected[0])
    np.testing.assert_allclose(found.energy.numpy(), expected[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("cost", COSTS)
def test_without_z_it_is_a_loop_over_pairs(build: Build, cost: Any, side: Any) -> None:
    torch.manual_seed(0)
    model = build(cost=cost, predictor=MLPPredictor(5))
    x, y = randn(23, 5), randn(37, 5, seed=1)
    queries, corpus = (x, y) if side == "x" else (y, x)
    same(search(model, queries, corpus, 7, side=side), by_loops(model, x, y, 7, side))


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("beta", [float("inf"), 3.0])
@pytest.mark.parametrize("cost", COSTS)
def test_with_codes_it_is_the_free_energy(build: Build, codes: Any, cost: Any, beta: float, side: Any) -> None:
    torch.manual_seed(1)
    model = build(cost=cost, predictor=MLPPredictor(4, 2), latent=codes)
    model.minimizer = Enumerate(beta)
    x, y = randn(11, 4), randn(29, 4, seed=1)
    queries, corpus = (x, y) if side == "x" else (y, x)
    same(search(model, queries, corpus, 5, side=side), by_loops(model, x, y, 5, side))


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("minimizer", [Descend(steps=20), BestOf(16), BestOf(16, beta=2.0)])
def test_where_z_is_searched_for_it_is_what_the_minimiser_finds(build: Build, minimizer: Any, side: Any) -> None:
    torch.manual_seed(2)
    model = build(predictor=MLPPredictor(4, 2), latent=Gaussian(2, weight=0.1))
    model.minimizer = minimizer
    model.eval()  # where draws have a seed
    x, y = randn(6, 4), randn(9, 4, seed=1)
    queries, corpus = (x, y) if side == "x" else (y, x)
    found = search(model, queries, corpus, 3, side=side)
    pairs = model.minimizer(model(x, y).cross()).value.detach().double()
    energies = pairs if side == "x" else pairs.T
    torch.testing.assert_close(found.energy, energies.sort(1).values[:, :3], rtol=1e-3, atol=1e-4)
    assert torch.equal(found.place[:, 0], energies.argmin(1))


@pytest.mark.parametrize("side", ["x", "y"])
def test_the_action_goes_with_x(build: Build, side: Any) -> None:
    torch.manual_seed(3)
    model = build(predictor=MLPPredictor(4, action_dim=2))
    x, y, action = randn(8, 4), randn(12, 4, seed=1), randn(8, 2, seed=2)
    queries, corpus = (x, y) if side == "x" else (y, x)
    same(search(model, queries, corpus, 4, side=side, action=action), by_loops(model, x, y, 4, side, action))


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_blocks_change_nothing(build: Build, codes: Any, chunk: int, side: Any) -> None:
    torch.manual_seed(4)
    model = build(predictor=MLPPredictor(3, 2), latent=codes)
    a, b = OneSide(randn(31, 3)), OneSide(randn(43, 3, seed=1))
    whole = Exact(model, b, side)(a, 6)
    cut = Exact(model, b, side, chunk=chunk)(a, 6)
    assert torch.equal(whole.place, cut.place)
    torch.testing.assert_close(whole.energy, cut.energy, rtol=1e-5, atol=1e-6)


def test_memory_is_bounded_by_the_block(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Exact._energies

    def counted(*arguments: Any) -> torch.Tensor:
        block = original(*arguments)
        made.append(block.numel())
        return block

    monkeypatch.setattr(Exact, "_energies", counted)
    for side in ("x", "y"):
        made.clear()
        Exact(build(), OneSide(randn(3000, 8)), side, chunk=4096)(OneSide(randn(200, 8)), 5)  # type: ignore[arg-type]
        assert max(made) <= 4096 and sum(made) == 200 * 3000


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("side", ["x", "y"])
def test_equal_energies_keep_the_order_of_the_corpus(build: Build, cost: Any, side: Any) -> None:
    """Copies of five things in a mixed order, more of each than there are spare candidates."""
    things = torch.rand(5, 16, generator=torch.Generator().manual_seed(0)) + torch.eye(5, 16)
    which = torch.randint(5, (400,), generator=torch.Generator().manual_seed(1))
    found = search(build(cost=cost), things, things[which], 12, side=side)
    for i in range(5):
        assert found.place[i].tolist() == (which == i).nonzero()[:12, 0].tolist()
    constant = search(build(cost=cost), things, torch.ones(300, 16), 9, side=side)
    assert constant.place.tolist() == [list(range(9))] * 5


def test_copies_are_listed_by_energy_and_place() -> None:
    """Rows 0, 2 and 5 are one, 1 and 3 another, 4 stands alone; an action tells rows apart."""
    corpus = OneSide(torch.tensor([[1.0], [2], [1], [2], [3], [1]]))
    copies = Copies.of(corpus)
    assert copies.first.tolist() == [0, 1, 4]
    place, energy = copies.listed(
        torch.tensor([[2, 0, 1], [1, 0, -1]]), torch.tensor([[1.0, 5, 5], [2, 3, math.nan]]), 5
    )
    assert place.tolist() == [[4, 0, 1, 2, 3], [1, 3, 0, 2, 5]]
    np.testing.assert_array_equal(energy, [[1, 5, 5, 5, 5], [2, 2, 3, 3, 3]])
    place, energy = copies.listed(torch.tensor([[2, -1]]), torch.tensor([[1.0, math.nan]]), 2)
    assert place.tolist() == [[4, -1]] and energy[0].isnan().tolist() == [False, True]
    assert copies.listed(torch.tensor([[0, 1, 2]]), torch.tensor([[1.0, 1, 1]]), 9)[0].tolist() == [[0, 1, 2, 3, 4, 5]]
    acted = OneSide(corpus.embedding, torch.tensor([[0.0], [0], [0], [1], [0], [0]]))
    assert Copies.of(acted).first.tolist() == [0, 1, 3, 4]


def test_lowest_of_ties_by_hand() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert lowest(values, 2).tolist() == [[1, 3], [0, 1], [4, 3]]
    assert lowest(values, 5).tolist() == [[1, 3, 4, 2, 0], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]


def test_a_rounded_product_does_not_decide(build: Build, codes: Any) -> None:
    """Far from the origin squares cancel in float32: neighbours are told apart pair by pair all the same."""
    model = build(latent=codes, predictor=MLPPredictor(2, 2))
    with torch.no_grad():
        for parameter in model.predictor.parameters():
            parameter.zero_()
    y = torch.stack([torch.linspace(1, 1.001, 12), torch.zeros(12)], 1)[torch.randperm(12)]
    y = torch.cat([y, torch.full((20, 2), 3e3)])
    found = search(model, torch.zeros(1, 2), y, 12)
    assert found.place[0].tolist() == y[:12, 0].argsort().tolist()


def test_candidates_that_are_missing_or_twice_do_not_count(build: Build) -> None:
    queries, corpus = OneSide(torch.zeros(2, 1)), OneSide(torch.tensor([[3.0], [1.0], [2.0]]))
    found = refined(build(), queries, corpus, torch.tensor([[0, 1, 1, -1], [-1, -1, 2, 2]]), 3, "x")
    assert found.place.tolist() == [[1, 0, -1], [2, -1, -1]]
    np.testing.assert_array_equal(found.energy, [[1, 9, np.nan], [4, np.nan, np.nan]])


def test_what_has_no_finite_embedding_is_not_found_and_finds_nothing(build: Build) -> None:
    x = torch.tensor([[0.0], [np.nan], [2.0]])
    found = search(build(), x, torch.tensor([[np.inf], [2.0], [0.5]]), 5)
    assert found.place.tolist() == [[2, 1], [-1, -1], [1, 2]]
    assert found.energy[1].isnan().all() and found.energy[0].tolist() == [0.25, 4]
    assert search(build(), x[:0], x, 2).place.shape == (0, 2)
    assert search(build(), x, x[:0], 2).place.shape == (3, 0)


def test_samples_are_searched_by_their_plain_views(build: Build, noisy: Any) -> None:
    matrix = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    matrix[3, 2] = np.nan
    samples: Samples = open_source(matrix, limit_bad=False)
    found = accord.search(build(), samples, samples, 3, pairing=noisy())
    assert found.place[:, 0].tolist() == [i if i != 3 else -1 for i in range(40)]
    assert not (found.place == 3).any() and found.energy[0, 0] == 0
    with pytest.raises(UsageError, match="pairing"):
        accord.search(build(), samples, samples)


def test_the_model_is_left_as_it_was(build: Build) -> None:
    model = build(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))).train()
    found = search(model, randn(5, 4), randn(5, 4), 2)
    assert model.training and torch.equal(found.energy, search(model, randn(5, 4), randn(5, 4), 2).energy)


def test_sequences_and_nonsense_are_refused(build: Build) -> None:
    model = build(predictor=MLPPredictor(3, 2), latent=Markov(4, dim=2))
    with pytest.raises(UsageError, match="whole sequence"):
        search(model, randn(3, 3), randn(3, 3))
    for arguments in ({"k": 0}, {"side": "z"}):
        with pytest.raises(UsageError):
            search(build(), randn(3, 3), randn(3, 3), **arguments)  # type: ignore[arg-type]


def test_a_search_can_be_stopped(build: Build) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Exact(build(), OneSide(randn(9, 2)), "x", stop=stop)(OneSide(randn(9, 2)), 3)
