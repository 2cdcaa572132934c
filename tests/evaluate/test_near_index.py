"""Search by an index of neighbours: exact where all lists are looked at, good where few are, refused where distances do not decide."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from accord.errors import EnvironmentFault, UsageError
from accord.evaluate.features import OneSide
from accord.evaluate.near_index import NearIndex, recall, suits
from accord.evaluate.search import Exact, Found
from accord.model.continuous import Gaussian
from accord.model.descend import Descend
from accord.model.energy import cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.minimize import Enumerate
from accord.model.predictor import MLPPredictor

Build = Callable[..., JointEmbedding]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def faiss() -> Any:
    return pytest.importorskip("faiss", reason="faiss is not installed", exc_type=ImportError)


def clustered(n: int, dim: int, seed: int) -> torch.Tensor:
    """Points around 50 centres, as embeddings lie."""
    centres = 2 * randn(50, dim, seed=7)
    return centres[torch.randint(50, (n,), generator=torch.Generator().manual_seed(seed))] + randn(n, dim, seed=seed)


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("cost", [squared_error, cosine])
@pytest.mark.parametrize("coded", [False, True])
def test_with_all_lists_it_finds_what_an_exact_search_finds(
    faiss: Any, build: Build, codes: Any, cost: Any, side: Any, coded: bool
) -> None:
    torch.manual_seed(0)
    model = build(cost=cost, predictor=MLPPredictor(6, 2 * coded), latent=codes if coded else None)
    if coded:
        monkey = model.latent.price
        model.latent.price = lambda z, s_x: 100 * monkey(z, s_x)  # type: ignore[method-assign]  # a price that matters
    queries, corpus = OneSide(randn(40, 6)), OneSide(randn(900, 6, seed=1))
    exact = Exact(model, corpus, side)(queries, 10)
    index = NearIndex(model, corpus, side, lists=9, probes=9)
    found = index(queries, 10)
    assert torch.equal(found.place, exact.place) and torch.equal(found.energy, exact.energy)
    few = NearIndex(model, corpus, side, lists=9, probes=1)(queries, 10)
    assert 0.2 < recall(few, exact) < 1, "the test can fail"


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("coded", [False, True])
def test_with_few_lists_nearly_all_is_found(faiss: Any, build: Build, codes: Any, side: Any, coded: bool) -> None:
    torch.manual_seed(0)
    model = build(predictor=MLPPredictor(16, 2) if coded else None, latent=codes if coded else None)
    queries, corpus = OneSide(clustered(100, 16, 1)), OneSide(clustered(8000, 16, 2))
    exact, index = Exact(model, corpus, side)(queries, 10), NearIndex(model, corpus, side)
    assert index.index.nprobe <= index.lists / 7
    found = index(queries, 10)
    assert recall(found, exact) > 0.85
    again = NearIndex(model, corpus, side)(queries, 10)
    assert torch.equal(found.place, again.place), "nothing is left to chance"


def test_the_action_goes_with_x(faiss: Any, build: Build) -> None:
    torch.manual_seed(3)
    model = build(predictor=MLPPredictor(4, action_dim=2))
    x, y = OneSide(randn(200, 4), randn(200, 2, seed=2)), OneSide(randn(300, 4, seed=1))
    for side, queries, corpus in (("x", x, y), ("y", y, x)):
        exact = Exact(model, corpus, side)(queries, 5)  # type: ignore[arg-type]
        found = NearIndex(model, corpus, side, lists=4, probes=4)(queries, 5)  # type: ignore[arg-type]
        assert torch.equal(found.place, exact.place)


def test_models_whose_distances_do_not_decide_are_refused(build: Build, codes: Any) -> None:
    assert suits(build()) is None and suits(build(cost=cosine)) is None
    coded = build(predictor=MLPPredictor(4, 2), latent=codes)
    assert suits(coded) is None
    coded.minimizer = Enumerate(3.0)
    searched = build(predictor=MLPPredictor(4, 2), latent=Gaussian(2))
    searched.minimizer = Descend()
    for model, word in ((coded, "soft minimum"), (searched, "searched for"), (build(cost=smooth_l1), "divergence")):
        assert word in str(suits(model))
        with pytest.raises(UsageError, match=word) as refused:
            NearIndex(model, OneSide(randn(9, 4)), "x")
        assert refused.value.code == "E245" and "--index exact" in (refused.value.help or "")


def test_without_the_package_its_extra_is_named(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EnvironmentFault, match="faiss") as refused:
        NearIndex(build(), OneSide(randn(9, 4)), "x")
    assert "accord[faiss]" in (refused.value.help or "") and refused.value.exit_code == 5


def test_recall_by_hand() -> None:
    exact = Found(torch.tensor([[1, 2], [3, -1]]), torch.full((2, 2), math.nan))
    assert recall(Found(torch.tensor([[2, 9], [-1, 3]]), exact.energy), exact) == pytest.approx(2 / 3)
