"""Annealed importance sampling against the closed forms of linear-Gaussian models and numerical integrals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional, Noisy, Sparse
from accord.model.descend import Descend
from accord.model.energy import Energy, squared_error
from accord.model.langevin import Langevin, Particles, _shape, _times, effective_size
from accord.model.latent import Latent
from accord.model.minimize import BestOf
from accord.model.predictor import DictionaryPredictor, MLPPredictor

DIM = 6


def linear(latent: Latent, *batch: int, seed: int = 0) -> Energy:
    torch.manual_seed(seed)
    predictor = DictionaryPredictor(DIM, latent.dim, given=False).double()
    with torch.no_grad():
        predictor.directions.mul_(0.9)
    y = 2 * torch.randn(*(batch or (5,)), DIM, dtype=torch.float64)
    return Energy(y, y.clone().requires_grad_(), predictor=predictor, cost=squared_error, latent=latent.double())


def exact(energy: Energy, beta: float) -> Tensor:
    """F with the standard normal prior: -beta F = log N(y; 0, WW' + D/(2 beta)) + (D/2) log(pi D / beta)."""
    w = energy.predictor.linear_in_z()
    assert w is not None
    covariance = w @ w.T + DIM / (2 * beta) * torch.eye(DIM, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(DIM, dtype=torch.float64), covariance)
    return -(law.log_prob(energy.s_y) + DIM / 2 * math.log(math.pi * DIM / beta)) / beta


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("beta", [0.5, 5.0, 50.0])
def test_linear_gaussian_free_energy(beta: float, width: int) -> None:
    energy = linear(Gaussian(width), 20)
    minimizer = Langevin(beta, particles=200, temperatures=60).eval()
    found = minimizer(energy).value
    assert found.shape == (20,)
    torch.testing.assert_close(found, exact(energy, beta), rtol=0.02, atol=0.5 / beta)
    error = (found - exact(energy, beta)) * beta
    assert error.mean().abs() < 0.15
    particles = minimizer.particles(energy)
    assert (particles.effective > 20).all()
    assert (particles.effective <= 200 + 1e-6).all()
    assert particles.accepted.mean().item() == pytest.approx(0.574, abs=0.15)


def test_better_than_as_many_plain_draws_at_low_temperature() -> None:
    beta = 300.0
    energy = linear(Gaussian(4), 30)
    found = Langevin(beta, particles=64, temperatures=64).eval()(energy).value
    plain = BestOf(64 * 129, beta=beta).eval()(energy).value
    annealed, drawn = ((v - exact(energy, beta)).abs().mean() for v in (found, plain))
    assert annealed < 0.3 * drawn


def test_effective_sample_size() -> None:
    assert effective_size(torch.zeros(50, 2)).tolist() == pytest.approx([50, 50])
    one = torch.full((50, 1), -1e3)
    one[3] = 0
    assert effective_size(one).item() == pytest.approx(1)
    energy = linear(Gaussian(2), 30)
    rich, poor = (Langevin(50.0, temperatures=t, moves=1).eval().particles(energy).effective.mean() for t in (60, 3))
    assert rich > 3 * poor


def test_weights_are_unbiased() -> None:
    """The mean over many seeds of exp(-beta F) is the integral, also where each run is poor."""
    beta = 3.0
    energy = linear(Gaussian(2), 2)
    runs = [Langevin(beta, particles=32, temperatures=4, seed=s).eval()(energy).value for s in range(0, 400, 2)]
    mean = (torch.stack(runs).mul(-beta)).logsumexp(0) - math.log(len(runs))
    torch.testing.assert_close(-mean / beta, exact(energy, beta), rtol=0.01, atol=0.02)


@pytest.mark.parametrize(
    "latent", [Sparse(1), Noisy(1).eval(), LowDimensional(1, bound=1.5), Gaussian(1)], ids=lambda z: type(z).__name__
)
def test_one_dimension_by_quadrature(latent: Latent) -> None:
    torch.manual_seed(0)
    beta = 8.0
    predictor = MLPPredictor(DIM, 1).double()
    with torch.no_grad():
        predictor.layers[0].weight.mul_(3)
    s_x, s_y = (torch.randn(8, DIM, dtype=torch.float64) for _ in range(2))
    energy = Energy(s_x, s_y, predictor=predictor, cost=squared_error, latent=latent.double())
    reach = {"Noisy": 1.0, "LowDimensional": 1.5}.get(type(latent).__name__, 20.0)
    z = torch.linspace(-reach, reach, 20_001, dtype=torch.float64)[:, None, None]
    prior = -latent.price(z, s_x)
    norm = torch.trapezoid(prior.exp(), z[..., 0], dim=0)
    integral = torch.trapezoid((prior - beta * energy.divergence(z)).exp(), z[..., 0], dim=0)
    expected = -(integral / norm).log() / beta
    found = Langevin(beta, particles=400, temperatures=40).eval()(energy).value
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_gradient_is_the_average_over_the_posterior() -> None:
    beta = 5.0
    energy = linear(Gaussian(2), 6)
    minimizer = Langevin(beta, particles=2000, temperatures=40).eval()
    parameter = energy.predictor.directions
    assert isinstance(parameter, Tensor)
    leaves = [parameter, energy.s_y]
    expected = torch.autograd.grad(exact(energy, beta).sum(), leaves)
    found = torch.autograd.grad(minimizer(energy).value.sum(), leaves)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0.1, atol=0.05)
    assert all(p.grad is None for p in energy.predictor.parameters())


def test_a_learned_prior_gets_its_gradient() -> None:
    """r = |z - m|^2 / 2 with learned m: dF/dm = -E[z - m] / beta over the posterior."""

    class Shifted(Gaussian):
        def __init__(self) -> None:
            super().__init__(1)
            self.mean = torch.nn.Parameter(torch.tensor([0.7]))

        def price(self, z: Tensor, s_x: Tensor) -> Tensor:
            return 0.5 * (z - self.mean).square().sum(-1)

        def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return super().sample(shape, s_x, generator) + self.mean.detach()

    beta, latent = 2.0, Shifted()
    energy = linear(latent, 4)
    w = energy.predictor.linear_in_z()
    assert w is not None
    shifted = energy.s_y - latent.mean @ w.T
    covariance = w @ w.T + DIM / (2 * beta) * torch.eye(DIM, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(DIM, dtype=torch.float64), covariance)
    expected = torch.autograd.grad(-law.log_prob(shifted).sum() / beta, latent.mean)[0]
    for minimizer in (Langevin(beta, particles=4000).eval(), BestOf(40_000, beta=beta).eval()):
        if isinstance(minimizer, Langevin):
            found = torch.autograd.grad(minimizer(energy).value.sum(), latent.mean)[0]
            torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_samples_follow_the_posterior() -> None:
    beta = 6.0
    energy = linear(Gaussian(2), 3)
    w = energy.predictor.linear_in_z()
    assert w is not None
    w = w.detach()
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + 2 * beta / DIM * w.T @ w)
    mean = 2 * beta / DIM * energy.s_y.detach() @ w @ covariance
    z = Langevin(beta, particles=3000, temperatures=60, moves=2).eval().samples(energy, 5000)
    assert z.shape == (5000, 3, 2)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.08)
    for i in range(3):
        torch.testing.assert_close(z[:, i].T.cov(), covariance, rtol=0.2, atol=0.03)


def test_temperature() -> None:
    """As beta grows F falls to the lowest D where the prior is not 0; as beta goes to 0 it is the mean of D."""
    energy = linear(Gaussian(2), 6)
    values = [
        Langevin(beta, particles=100, temperatures=60).eval()(energy).value for beta in (1e-4, 0.1, 1.0, 10.0, 100.0)
    ]
    drawn = energy.latent.sample((40_000, 6), energy.s_x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(values[0], energy.divergence(drawn).mean(0), rtol=0.2, atol=0.1)
    for cold, warm in zip(values[1:], values, strict=False):
        assert (cold <= warm + 0.05).all()
    energy.latent.weight = 0.0
    assert (values[-1] >= Descend().eval()(energy).value - 1e-9).all()


def test_argmin_is_a_likely_z_and_value_does_not_move_with_the_chunk() -> None:
    energy = linear(Gaussian(2), 6)
    minimizer = Langevin(20.0).eval()
    whole = minimizer(energy)
    particles = minimizer.particles(energy)
    assert isinstance(particles, Particles)
    density = -(20.0 * energy.divergence(particles.z) + 0.5 * particles.z.square().sum(-1))
    torch.testing.assert_close(particles.density, density.detach())
    torch.testing.assert_close(whole.argmin, particles.z.gather(0, density.argmax(0)[None, :, None].expand(1, 6, 2))[0])
    for chunk in (1, 500):
        part = Langevin(20.0, chunk=chunk).eval()
        torch.testing.assert_close(part(energy).value, whole.value)
        torch.testing.assert_close(part.samples(energy, 7), minimizer.samples(energy, 7))
    torch.testing.assert_close(minimizer(energy.part(slice(2, 3))).value, whole.value[2:3])
    torch.testing.assert_close(minimizer(energy.cross()).value.diagonal(), whole.value)
    with torch.no_grad():
        torch.testing.assert_close(minimizer(energy).value, whole.value)
    minimizer.train()
    assert not torch.equal(minimizer(energy).value, minimizer(energy).value)


def test_particles_stay_within_bounds() -> None:
    for latent, bound in ((LowDimensional(2, bound=0.3), 0.3), (Noisy(2).eval(), math.sqrt(2))):
        z = Langevin(5.0).eval().particles(linear(latent)).z
        size = z.abs().amax(-1) if isinstance(latent, LowDimensional) else z.norm(dim=-1)
        assert (size <= bound + 1e-6).all()
        assert (size > 0.8 * bound).any()


def test_a_sequence_has_one_free_energy() -> None:
    """Linear-Gaussian along time: y of a whole sequence is normal."""
    beta, steps, rate = 4.0, 4, 0.8
    energy = linear(GaussianWalk(1, rate=rate), 5, steps)
    w = energy.predictor.linear_in_z()
    assert w is not None
    time = torch.arange(steps, dtype=torch.float64)
    covariance = torch.kron((rate ** (time[:, None] - time).abs()).contiguous(), (w @ w.T).detach())
    covariance = covariance + DIM / (2 * beta) * torch.eye(steps * DIM, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(steps * DIM, dtype=torch.float64), covariance)
    total = -(law.log_prob(energy.s_y.flatten(1)) + steps * DIM / 2 * math.log(math.pi * DIM / beta)) / beta
    minimizer = Langevin(beta, particles=300, temperatures=60).eval()
    found = minimizer(energy)
    assert found.value.shape == (5, steps)
    torch.testing.assert_close(found.value.sum(-1), total, rtol=0.02, atol=0.1)
    torch.testing.assert_close(found.value[:, 0], found.value[:, 1])
    assert minimizer.samples(energy, 11).shape == (11, 5, steps, 1)
    expected = torch.autograd.grad(total.sum(), energy.s_y)[0]
    torch.testing.assert_close(torch.autograd.grad(found.value.sum(), energy.s_y)[0], expected, rtol=0.2, atol=0.1)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="beta = inf F is a minimum") as error:
        Langevin(math.inf)
    assert "Descend" in str(error.value.help)
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="beta"):
            Langevin(beta)
    with pytest.raises(UsageError, match="no prior"):
        Langevin(1.0)(linear(LowDimensional(2)))
    with pytest.raises(UsageError, match="countable"):
        Langevin(1.0)(linear(Codebook(3, 2)))
    with pytest.raises(UsageError, match="spread"):
        Langevin(1.0)(linear(Sparse(2, spread=1.0)))
    with pytest.raises(UsageError, match="particles"):
        Langevin(1.0, particles=0)


def test_few_particles_of_a_wide_z_need_no_matrix() -> None:
    """What only the diagonal is known of is as wide as z, not its square: 32 particles of 500 numbers are no 500 x 500 matrices."""
    z, size = torch.randn(8, 3, 500), torch.tensor([1.0, 2.0, 0.5])
    shape = _shape(z, size, coupled=False)
    assert shape.root is None
    assert torch.allclose(_times(shape, z), size[:, None] * z.std(0, unbiased=False) * z)
    many = _shape(torch.randn(64, 3, 4), size, coupled=False)
    assert many.root is not None
