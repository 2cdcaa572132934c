"""Blocks of choices one at a time: never worse, exact where blocks do not interact."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accord.errors import UsageError
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian
from accord.model.coordinate import Coordinate, chosen
from accord.model.energy import Energy, squared_error
from accord.model.latent import Latent
from accord.model.minimize import Enumerate, draws
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor

DIM = 6


def make(latent: Latent, n: int = 5, *, linear: bool = False, seed: int = 0) -> Energy:
    torch.manual_seed(seed)
    predictor: Predictor = (DictionaryPredictor if linear else MLPPredictor)(DIM, latent.dim)
    s_x, s_y = (torch.randn(n, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return Energy(s_x, s_y, predictor=predictor.double(), cost=squared_error, latent=latent.double())


def conditional(blocks: int = 3) -> ConditionalPrior:
    latent = ConditionalPrior(Codebook(4, 2, blocks=blocks), DIM)
    torch.nn.init.normal_(latent.net[2].weight)  # type: ignore[arg-type]
    return latent


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_never_below_the_exact_minimum_nor_above_its_starts(seed: int, blocks: int, codes: int, prior: bool) -> None:
    torch.manual_seed(seed)
    book = Codebook(codes, 2, blocks=blocks)
    energy = make(ConditionalPrior(book, DIM) if prior else book, seed=seed)
    exact = Enumerate()(energy).value
    found = Coordinate(restarts=3).eval()(energy)
    starts = energy(draws(energy, 3, 0).expand(3, 5, -1))
    assert (found.value >= exact - 1e-12).all()
    assert (found.value <= starts.min(0).values + 1e-12).all()
    torch.testing.assert_close(energy(found.argmin), found.value)


@pytest.mark.parametrize("latent", [lambda: Codebook(4, 2, blocks=3), conditional])
def test_no_single_change_is_better(latent: object) -> None:
    """What a search ends in is a minimum over each block."""
    energy = make(latent())  # type: ignore[operator]
    found = Coordinate(restarts=1).eval()(energy)
    blocks = energy.latent.blocks()
    assert blocks is not None
    for b, codes in enumerate(blocks):
        for code in codes:
            z = found.argmin.clone()
            z[:, 2 * b : 2 * b + 2] = code.detach()
            assert (energy(z) >= found.value - 1e-12).all()


def test_each_sweep_lowers_the_energy() -> None:
    energy = make(Codebook(5, 2, blocks=8), 12)
    values = [Coordinate(restarts=1, sweeps=s).eval()(energy).value for s in (1, 2, 3, 10)]
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-12).all()


def test_exact_where_blocks_do_not_interact() -> None:
    """Orthogonal directions, one for each block: one sweep from anywhere is enough, for 5^6 values."""
    book = Codebook(5, 1, blocks=6)
    energy = make(book, linear=True)
    assert isinstance(energy.predictor, DictionaryPredictor)
    with torch.no_grad():
        energy.predictor.directions.copy_(torch.linalg.qr(torch.randn(DIM, 6, dtype=torch.float64))[0])
    found = Coordinate(restarts=1, sweeps=1).eval()(energy)
    wanted = (energy.s_y - energy.predict(torch.zeros(5, 6, dtype=torch.float64))) @ energy.predictor.dictionary
    best = torch.stack([(wanted[:, b, None] - book.table[b, :, 0]).abs().argmin(1) for b in range(6)], 1)
    torch.testing.assert_close(found.argmin, book.of(best).detach())


def test_agrees_with_enumerate_given_restarts() -> None:
    energy = make(Codebook(3, 2, blocks=4), 30)
    gap = Coordinate(restarts=16).eval()(energy).value - Enumerate()(energy).value
    assert (gap < 1e-9).float().mean() > 0.95


@pytest.mark.parametrize("cross", [False, True])
def test_chunks_change_nothing(cross: bool) -> None:
    energy = make(Codebook(4, 2, blocks=3))
    energy = energy.cross() if cross else energy
    whole = Coordinate().eval()(energy)
    for chunk in (1, 100, 1000):
        part = Coordinate(chunk=chunk).eval()(energy)
        torch.testing.assert_close(part.value, whole.value)
        assert torch.equal(part.argmin, whole.argmin)
    if cross:
        pairs = Coordinate().eval()(make(Codebook(4, 2, blocks=3)))
        torch.testing.assert_close(whole.value.diagonal(), pairs.value)


def test_gradient_is_that_of_the_energy_at_the_minimiser() -> None:
    energy = make(conditional())
    minimum = Coordinate().eval()(energy)
    blocks = energy.latent.blocks()
    assert blocks is not None
    index = energy.latent.codebook.index(minimum.argmin)  # type: ignore[union-attr, operator]
    expected = energy(chosen(blocks, index))
    leaves: list[Tensor] = [*energy.predictor.parameters(), *energy.latent.parameters(), energy.s_x, energy.s_y]
    for one, two in zip(*(torch.autograd.grad(v.sum(), leaves) for v in (minimum.value, expected)), strict=True):
        torch.testing.assert_close(one, two)


def test_a_warm_start_is_kept_if_nothing_is_better() -> None:
    energy = make(Codebook(6, 2, blocks=4), 10)
    best = Enumerate()(energy)
    warm = Coordinate(restarts=1).eval()(energy, start=best.argmin)
    torch.testing.assert_close(warm.value, best.value)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Gaussian is no row of choices"):
        Coordinate()(make(Gaussian(2)))
    for arguments in ({"restarts": 0}, {"sweeps": 0}, {"chunk": 0}):
        with pytest.raises(UsageError, match="whole number"):
            Coordinate(**arguments)
