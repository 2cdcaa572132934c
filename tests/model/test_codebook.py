"""Codes: indices, prices, draws, and what looks after codes nobody uses."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.codebook import MOST, WAIT, Codebook, ConditionalPrior, codebook_of, nearest
from accord.model.continuous import Gaussian
from accord.model.energy import Energy, squared_error
from accord.model.minimize import Enumerate
from accord.model.predictor import MLPPredictor

DIM = 5


def given(*shape: int) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(0))


def prior(blocks: int = 2, codes: int = 3, *, weight: float = 0.5) -> ConditionalPrior:
    torch.manual_seed(0)
    latent = ConditionalPrior(Codebook(codes, 2, blocks=blocks), DIM, weight=weight, hidden=8)
    nn.init.normal_(latent.net[2].weight)  # type: ignore[arg-type]
    return latent


def test_candidates_are_every_row_of_choices() -> None:
    book = Codebook(3, 2, blocks=2)
    found = book.candidates()
    assert found is not None
    expected = [torch.cat([book.table[0, i], book.table[1, j]]) for i, j in itertools.product(range(3), range(3))]
    assert torch.equal(found, torch.stack(expected))
    assert book.capacity == pytest.approx(2 * math.log(3))
    assert Codebook(2, 1, blocks=12).candidates() is not None  # 4,096
    assert Codebook(2, 1, blocks=13).candidates() is None
    assert Codebook(MOST + 1, 1).candidates() is None


def test_a_code_finds_itself_even_beside_close_ones_far_from_the_origin() -> None:
    codes = 100 + 1e-3 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    assert nearest(codes, codes).tolist() == list(range(60))
    mm = torch.cdist(codes, codes, compute_mode="use_mm_for_euclid_dist").argmin(1)
    assert mm.tolist() != list(range(60)), "a matrix product fails here, or this test shows nothing"


def test_index_and_project_by_loop() -> None:
    book = Codebook(4, 2, blocks=3).double()
    z = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    index = book.index(z)
    assert index.shape == (5, 2, 3)
    for i, j, b in itertools.product(range(5), range(2), range(3)):
        distances = [(z[i, j, 2 * b : 2 * b + 2] - code).norm().item() for code in book.table[b]]
        assert index[i, j, b] == distances.index(min(distances))
    near = book.project(z)
    assert torch.equal(near, book.of(index))
    near.sum().backward()
    assert z.grad is None  # choices have no gradient
    assert book.table.grad is not None  # codes have one: how often each was chosen
    assert torch.equal(book.table.grad[0, :, 0], torch.bincount(index[..., 0].reshape(-1), minlength=4).double())
    assert torch.equal(book.project(near), near)


@pytest.mark.parametrize("shape", [(7, 3), (3,), (2, 7, 1), (7, 1)])
def test_conditional_price_by_loop(shape: tuple[int, ...]) -> None:
    """-sum over blocks of log p_b(z_b | s_x), for z of every pair and for the same z for all."""
    latent, s_x = prior(), given(3)
    z = latent.sample(shape, s_x, torch.Generator().manual_seed(1))
    price = latent.price(z, s_x).expand(torch.broadcast_shapes(z.shape[:-1], (3,)))
    log_p = latent.net(s_x).log_softmax(-1)
    index = latent.codebook.index(z).expand(*price.shape, 2)
    flat_price, flat_index = price.reshape(-1, 3), index.reshape(-1, 3, 2)
    for k, i in itertools.product(range(len(flat_price)), range(3)):
        expected = -sum(log_p[i, b, flat_index[k, i, b]].item() for b in range(2))
        assert flat_price[k, i].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(latent.penalty(z, s_x), 0.5 * latent.price(z, s_x))


def test_the_prior_is_normalised_and_uniform_at_the_start() -> None:
    latent, s_x = prior(), given(4)
    codes = latent.candidates()
    assert codes is not None
    total = torch.exp(-latent.price(codes[:, None].expand(-1, 4, -1), s_x)).sum(0)
    torch.testing.assert_close(total, torch.ones(4))
    fresh = ConditionalPrior(Codebook(3, 2, blocks=2), DIM)
    torch.testing.assert_close(fresh.price(codes[:, None], s_x), torch.full((9, 4), 2 * math.log(3)))


@pytest.mark.parametrize("shape", [(30_000, 2), (30_000, 1)])
def test_draws_follow_the_prior(shape: tuple[int, ...]) -> None:
    latent, s_x = prior(), given(2)
    z = latent.sample(shape, s_x, torch.Generator().manual_seed(0))
    assert z.shape == (30_000, 2, 4)
    p = latent.log_probability(s_x).exp()
    index = latent.codebook.index(z)
    for i, b in itertools.product(range(2), range(2)):
        share = torch.bincount(index[:, i, b], minlength=3) / 30_000
        torch.testing.assert_close(share, p[i, b], rtol=0, atol=4 * 0.5 / math.sqrt(30_000))


def test_uniform_draws_and_generators() -> None:
    book = Codebook(4, 2, blocks=2)
    z = book.sample((20_000,), given(), torch.Generator().manual_seed(0))
    share = torch.bincount(book.index(z)[:, 1], minlength=4) / 20_000
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.015)
    for latent in (book, prior(), book.double(), prior().double()):
        s_x = given(3).to(codebook_of(latent).table)
        one, two = (latent.sample((5, 3), s_x, torch.Generator().manual_seed(2)) for _ in range(2))
        assert torch.equal(one, two)
        assert one.dtype == codebook_of(latent).table.dtype
        assert not one.requires_grad


def test_conventions_of_the_conditional_prior_agree() -> None:
    """F with prior = F_beta of D + lambda R, less log K / beta, where lambda = 1 / beta: system.md section 2."""
    beta = 4.0
    latent = prior(weight=1 / beta).double()
    s_x, s_y = given(6).double(), given(6).double().flip(0)
    energy = Energy(s_x, s_y, predictor=MLPPredictor(DIM, 4).double(), cost=squared_error, latent=latent)
    codes = latent.candidates()
    assert codes is not None
    z = codes[:, None].expand(-1, 6, -1)
    with_prior = -torch.logsumexp(-beta * energy.divergence(z) - latent.price(z, s_x), 0) / beta
    average = Enumerate(beta)(energy).value
    torch.testing.assert_close(with_prior, average - math.log(len(codes)) / beta)


def test_the_prior_learns_how_frequent_modes_are() -> None:
    """The gradient of F in the prior is that of the negative log-likelihood of the inferred codes."""
    torch.manual_seed(0)
    latent = ConditionalPrior(Codebook(2, DIM), DIM, weight=1.0).double()
    s_x = torch.zeros(400, DIM, dtype=torch.float64)
    s_y = latent.codebook.table.detach()[0][(torch.arange(400) % 4 == 0).long()]  # 3 : 1

    class Decode(MLPPredictor):
        def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
            return z

    energy = Energy(s_x, 100 * s_y, predictor=Decode(DIM, DIM), cost=squared_error, latent=latent)
    with torch.no_grad():
        latent.codebook.table.mul_(100)
    optimizer = torch.optim.Adam(latent.net.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        Enumerate()(energy).value.mean().backward()
        optimizer.step()
    torch.testing.assert_close(
        latent.log_probability(s_x[0]).exp()[0], torch.tensor([0.75, 0.25], dtype=torch.float64), rtol=0.02, atol=0.0
    )


# --- dead codes ---


def test_usage_is_a_running_mean() -> None:
    book = Codebook(4, 2, blocks=2)
    z = book.of(torch.tensor([[0, 1], [0, 1], [0, 2], [3, 2]]))
    for _ in range(400):
        book.observe(z)
    torch.testing.assert_close(book.usage, torch.tensor([[0.75, 0, 0, 0.25], [0, 0.5, 0.5, 0]]), rtol=0.01, atol=0.001)
    assert int(book.seen) == 400
    assert {"table", "usage", "seen"} <= set(book.state_dict())
    other = Codebook(4, 2, blocks=2)
    other.load_state_dict(book.state_dict())
    assert torch.equal(other.usage, book.usage)
    book.observe(z[:0])  # an empty batch says nothing
    torch.testing.assert_close(book.usage.sum(1), torch.ones(2), rtol=0.03, atol=0)


@pytest.mark.parametrize("reseed", [0.0, 0.5])
def test_dead_codes_are_replaced_if_asked_for(reseed: float) -> None:
    torch.manual_seed(0)
    book = Codebook(4, 2, reseed=reseed)
    before = book.table.detach().clone()
    z = book.of(torch.tensor([[0]] * 6 + [[1]] * 4))
    for step in range(1, 10 * WAIT + 1):
        book.observe(z)
        book.before_step(0.1)
        if step == 10 * WAIT - 1:
            assert book.usage[0, :2].sum() > 0.9
    moved = (book.table[0] != before[0]).any(1).tolist()
    assert moved == ([False] * 4 if reseed == 0 else [False, False, True, True])
    if reseed:
        scale = before[0].std(0, unbiased=False).mean()
        assert (book.table[0, 2:] - book.table[0, 0]).norm(dim=1).max() < 5 * 0.1 * scale * math.sqrt(2)
        settled = book.table.detach().clone()
        book.usage[0, 2:] = 0
        book.seen.fill_(WAIT)
        book.before_step(0.9)  # the end of the training is quiet
        assert torch.equal(book.table, settled)


def test_codes_that_have_all_collapsed_part_again() -> None:
    book = Codebook(3, 2, reseed=0.5)
    with torch.no_grad():
        book.table.fill_(1.0)
        book.usage.copy_(torch.tensor([[1.0, 0, 0]]))
        book.seen.fill_(WAIT)
    book.before_step(0.0)
    assert len({tuple(code.tolist()) for code in book.table[0]}) == 3


def test_reseeding_is_the_same_on_every_rank() -> None:
    tables = []
    for seed in (0, 1):
        torch.manual_seed(5)
        book = Codebook(4, 2, reseed=0.9)
        book.usage.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        book.seen.fill_(WAIT)
        torch.manual_seed(seed)
        book.before_step(0.0)
        tables.append(book.table.detach().clone())
    assert torch.equal(*tables)


def test_refusals() -> None:
    for arguments in ({"codes": 0, "dim": 1}, {"codes": 2, "dim": 1, "blocks": 0}):
        with pytest.raises(UsageError, match="whole number"):
            Codebook(**arguments)
    with pytest.raises(UsageError, match="reseed"):
        Codebook(2, 2, reseed=-0.1)
    with pytest.raises(UsageError, match="spread"):
        Codebook(2, 2, spread=0.0)
    with pytest.raises(UsageError, match="weight"):
        ConditionalPrior(Codebook(2, 2), DIM, weight=-1)
    with pytest.raises(UsageError, match="Gaussian has no codes"):
        codebook_of(Gaussian(2))
