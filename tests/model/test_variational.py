"""The variational bound against the closed forms of linear-Gaussian models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.amortize import Recognition
from accord.model.continuous import Gaussian, Sparse
from accord.model.energy import Energy, squared_error
from accord.model.predictor import DictionaryPredictor, MLPPredictor
from accord.model.variational import Variational

DIM, WIDTH = 6, 2


class Posterior(nn.Module):
    """The exact posterior of y = W z + noise with orthogonal columns, up to a shift and a stretch."""

    def __init__(self, w: Tensor, beta: float, shift: float = 0.0, stretch: float = 1.0):
        super().__init__()
        self.w, self.beta, self.shift, self.stretch = w, beta, shift, stretch

    def forward(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Tensor:
        precision = 1 + 2 * self.beta / DIM * self.w.square().sum(0)  # D is a mean over dimensions
        mean = 2 * self.beta / DIM * (s_y @ self.w) / precision + self.shift
        return torch.cat([mean, (self.stretch / precision).log().expand_as(mean)], -1)


def make(beta: float) -> tuple[Energy, Tensor]:
    torch.manual_seed(0)
    predictor = DictionaryPredictor(DIM, WIDTH, given=False).double()
    with torch.no_grad():
        scale = torch.tensor([0.9, 0.5], dtype=torch.float64)
        predictor.directions.copy_(torch.linalg.qr(torch.randn(DIM, WIDTH, dtype=torch.float64))[0] * scale)
    y = 2 * torch.randn(5, DIM, dtype=torch.float64)
    latent = Gaussian(WIDTH, weight=1 / beta).double()
    return Energy(y, y, predictor=predictor, cost=squared_error, latent=latent), predictor.dictionary.detach()


def exact(y: Tensor, w: Tensor, beta: float) -> Tensor:
    """F with prior: y is normal with covariance WW' + D/(2 beta), so -beta F = log N + (D/2) log(pi D / beta)."""
    covariance = w @ w.T + DIM / (2 * beta) * torch.eye(DIM, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(DIM, dtype=torch.float64), covariance)
    return -(law.log_prob(y) + DIM / 2 * math.log(math.pi * DIM / beta)) / beta


@pytest.mark.parametrize("beta", [0.5, 5.0, 50.0])
def test_the_exact_posterior_attains_f(beta: float) -> None:
    energy, w = make(beta)
    found = Variational(Posterior(w, beta), samples=60_000).eval()(energy)
    torch.testing.assert_close(found.value, exact(energy.s_y, w, beta), rtol=5e-3, atol=2e-3 / beta)
    precision = 1 + 2 * beta / DIM * w.square().sum(0)
    torch.testing.assert_close(found.argmin, 2 * beta / DIM * (energy.s_y @ w) / precision)


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 3.0), (0.0, 0.3), (-0.4, 2.0)])
def test_any_other_is_larger_by_its_divergence_from_the_posterior(shift: float, stretch: float) -> None:
    beta = 5.0
    energy, w = make(beta)
    value = Variational(Posterior(w, beta, shift, stretch), samples=60_000).eval()(energy).value
    precision = 1 + 2 * beta / DIM * w.square().sum(0)
    kl = 0.5 * (stretch - 1 - math.log(stretch) + shift**2 * precision).sum(-1)
    torch.testing.assert_close(value, exact(energy.s_y, w, beta) + kl / beta, rtol=1e-2, atol=2e-3)
    assert (value > exact(energy.s_y, w, beta)).all()


def test_learning_reaches_the_posterior() -> None:
    beta = 5.0
    energy, w = make(beta)
    torch.manual_seed(0)
    net = Recognition(DIM, 2 * WIDTH).double()
    bound = Variational(net, samples=16)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(500):
        optimizer.zero_grad()
        bound(energy).value.mean().backward()
        optimizer.step()
    bound.samples = 20_000
    gap = bound.eval()(energy).value - exact(energy.s_y, w, beta)
    assert gap.abs().max() < 0.03


def test_pairs_of_draws_cancel_what_is_linear() -> None:
    energy, w = make(2.0)

    def linear(s_y_hat: Tensor, s_y: Tensor) -> Tensor:
        return (s_y_hat - s_y).sum(-1)

    energy.cost = linear
    net = Posterior(w, 2.0, 0.3)
    mean, log_variance = net(energy.s_x, energy.s_y).chunk(2, -1)
    expected = energy.divergence(mean) + 0.5 * Gaussian(WIDTH).divergence(mean, log_variance)
    torch.testing.assert_close(Variational(net, samples=2).train()(energy).value, expected)


def test_evaluation_is_fixed_and_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    net = Recognition(DIM, 2 * WIDTH, action_dim=2).double()
    predictor = MLPPredictor(DIM, WIDTH, action_dim=2).double()
    s_x, s_y, a = (torch.randn(7, width, dtype=torch.float64) for width in (DIM, DIM, 2))
    energy = Energy(s_x, s_y, predictor=predictor, cost=squared_error, latent=Gaussian(WIDTH).double(), action=a)
    bound = Variational(net, samples=3).eval()
    whole = bound(energy)
    torch.testing.assert_close(bound(energy).value, whole.value, rtol=0, atol=0)
    torch.testing.assert_close(bound(energy.part(slice(3, 4))).value, whole.value[3:4])
    torch.testing.assert_close(bound(energy.cross()).value.diagonal(), whole.value)
    bound.chunk = 40
    torch.testing.assert_close(bound(energy).value, whole.value)
    torch.testing.assert_close(bound(energy.cross()).value.diagonal(), whole.value)
    bound.train()
    assert not torch.equal(bound(energy).value, bound(energy).value)
    bound(energy).value.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*net.parameters(), *predictor.parameters()])


def test_no_prior_no_divergence() -> None:
    energy, w = make(3.0)
    energy.latent.weight = 0.0
    value = Variational(Posterior(w, 3.0), samples=2).eval()(energy).value
    energy.latent.weight = 1.0
    kl = Gaussian(WIDTH).divergence(*Posterior(w, 3.0)(energy.s_x, energy.s_y).chunk(2, -1))
    torch.testing.assert_close(Variational(Posterior(w, 3.0), samples=2).eval()(energy).value - value, kl)


def test_the_price_rises_while_training_warms_up() -> None:
    energy, w = make(3.0)
    bound = Variational(Posterior(w, 3.0), samples=2, warm_up=0.5).train()
    kl = Gaussian(WIDTH).divergence(*Posterior(w, 3.0)(energy.s_x, energy.s_y).chunk(2, -1)) / 3.0

    def value(progress: float) -> Tensor:
        bound.before_step(progress)
        torch.manual_seed(0)
        return bound(energy).value

    free = value(0.0)
    for progress, share in ((0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        torch.testing.assert_close(value(progress) - free, share * kl)
    bound.eval().before_step(0.0)
    torch.testing.assert_close(bound(energy).value, Variational(Posterior(w, 3.0), samples=2).eval()(energy).value)
    with pytest.raises(UsageError, match="warm_up"):
        Variational(Posterior(w, 3.0), warm_up=1.5)


def test_refusals() -> None:
    energy, w = make(2.0)
    with pytest.raises(UsageError, match="the network makes 2 numbers"):
        Variational(Recognition(DIM, 2).double())(energy)
    energy.latent = Sparse(WIDTH).double()
    with pytest.raises(UsageError, match="Gaussian latents, this one is Sparse"):
        Variational(Posterior(w, 2.0))(energy)
    with pytest.raises(UsageError, match="samples"):
        Variational(Posterior(w, 2.0), samples=0)
