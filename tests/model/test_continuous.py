"""Vectors with limited information: prices, priors, bounds, noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional, Noisy, Sparse
from accord.model.latent import Latent

S_X = torch.zeros(4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(*shape: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator(), dtype=torch.float64)


def test_prices_by_formula() -> None:
    z = vectors(6, 3)
    for i, row in enumerate(z.tolist()):
        squares, absolutes = sum(v * v for v in row), sum(abs(v) for v in row)
        assert Gaussian(3).price(z, S_X)[i].item() == pytest.approx(squares / 2)
        assert Sparse(3).price(z, S_X)[i].item() == pytest.approx(absolutes)
        expected = absolutes + 0.7 * max(0.0, math.sqrt(3) - squares)
        assert Sparse(3, spread=0.7).price(z, S_X)[i].item() == pytest.approx(expected)
        assert Noisy(3).double().price(z, S_X)[i].item() == LowDimensional(3).double().price(z, S_X)[i].item() == 0
        assert Gaussian(3, weight=0.25).penalty(z, S_X)[i].item() == pytest.approx(squares / 8)


def test_walk_price_is_the_negative_log_density_of_the_process() -> None:
    walk = GaussianWalk(2, rate=0.8).double()
    z = vectors(5, 4, 2)
    price = walk.price(z, S_X)
    assert price.shape == (5, 4)
    t = torch.arange(4)
    covariance = 0.8 ** (t[:, None] - t).abs().double()  # stationary, of variance 1
    law = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)
    expected = -law.log_prob(z.movedim(1, -1)).sum(-1) - 2 * (2 * math.log(2 * math.pi) + 0.5 * math.log(0.36**3))
    torch.testing.assert_close(price.sum(-1), expected)
    still = GaussianWalk(2, rate=0.0).double()
    torch.testing.assert_close(still.price(z, S_X), Gaussian(2).price(z, S_X))


def test_kl_in_closed_form_against_torch() -> None:
    mean, log_variance = vectors(5, 3), vectors(5, 3, scale=0.5)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    p = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    torch.testing.assert_close(
        Gaussian(3).divergence(mean, log_variance), torch.distributions.kl_divergence(q, p).sum(-1)
    )


@pytest.mark.parametrize(
    ("latent", "mean_of_price"),
    [(Gaussian(3), 1.5), (Sparse(3), 3.0), (GaussianWalk(3), 1.5)],
)
def test_draws_follow_the_price(latent: Latent, mean_of_price: float) -> None:
    """Under exp(-r) the mean of r is d/2 for a normal law and d for Laplace's; each walk's step is normal."""
    z = latent.sample((4000, 5), S_X, generator())
    assert z.shape == (4000, 5, 3)
    assert latent.price(z, S_X).mean().item() == pytest.approx(mean_of_price, rel=0.02)
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(3), rtol=0, atol=0.04)
    if not isinstance(latent, Sparse):
        torch.testing.assert_close(z.var((0, 1)), torch.ones(3), rtol=0.05, atol=0)


def test_draws_in_bounds_are_uniform() -> None:
    z = Noisy(3).sample((20_000,), S_X, generator())
    radius = z.norm(dim=1) / math.sqrt(3)
    assert radius.max() <= 1 + 1e-6
    assert (radius**3).mean().item() == pytest.approx(0.5, abs=0.01)  # volume is uniform
    z = LowDimensional(2, bound=3.0).sample((20_000,), S_X, generator())
    assert z.abs().max() <= 3
    assert z.abs().mean().item() == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize("latent", [Noisy(3), LowDimensional(3, bound=1.0)])
def test_projection_is_the_nearest_allowed_and_leaves_the_allowed_alone(latent: Latent) -> None:
    latent = latent.double()
    z = vectors(500, 3, scale=3)
    near = latent.project(z)
    assert torch.allclose(latent.project(near), near, atol=1e-12)
    inside = latent.sample((500,), S_X, generator()) * 0.999
    assert torch.equal(latent.project(inside), inside)
    distance = (z[:, None] - inside).norm(dim=-1).min(1).values
    assert ((z - near).norm(dim=-1) <= distance + 1e-9).all()
    for free in (Gaussian(3), Sparse(3), LowDimensional(3)):
        assert torch.equal(free.project(z), z)


def test_noise_only_while_training() -> None:
    latent = Noisy(4, noise=0.5)
    z = torch.zeros(20_000, 4)
    noisy = latent.transmit(z)
    assert noisy.std().item() == pytest.approx(0.5, rel=0.02)
    assert torch.equal(latent.eval().transmit(z), z)
    assert latent.capacity == pytest.approx(2 * math.log(5))
    assert Noisy(1, noise=1e-300).capacity == pytest.approx(300 * math.log(10))  # no overflow
    assert math.isinf(Gaussian(3).capacity)


@pytest.mark.parametrize(
    "latent", [Gaussian(2), Sparse(2), Noisy(2), LowDimensional(2), LowDimensional(2, bound=1.0), GaussianWalk(2)]
)
def test_type_and_generator_follow_the_model(latent: Latent) -> None:
    for dtype in (torch.float32, torch.float64):
        latent = latent.to(dtype)
        one, two = (latent.sample((3, 4), S_X, generator(1)) for _ in range(2))
        assert torch.equal(one, two)
        assert one.dtype == dtype
        assert latent.price(one, S_X).shape == (3, 4)
        assert latent.penalty(one, S_X).dtype == dtype
        assert not list(latent.state_dict())  # nothing to save
    torch.manual_seed(0)
    first = latent.sample((3, 4), S_X)
    torch.manual_seed(0)
    assert torch.equal(latent.sample((3, 4), S_X), first)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="dim"):
        Gaussian(0)
    with pytest.raises(UsageError, match="weight"):
        Sparse(2, weight=-1)
    with pytest.raises(UsageError, match="bound"):
        LowDimensional(2, bound=0)
    with pytest.raises(UsageError, match="noise"):
        Noisy(2, noise=0)
    for rate in (-0.1, 1.0, math.nan):
        with pytest.raises(UsageError, match="rate"):
            GaussianWalk(2, rate=rate)
