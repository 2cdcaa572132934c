"""Contrastive divergence and score matching against closed forms of a parabola, loops, and what they are there to learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.codebook import Codebook
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic
from accord.model.minimize import Enumerate
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.objective.chains import ContrastiveDivergence, ScoreMatching
from accord.objective.contrastive import contrastive, contrastive_divergence, score_matching
from accord.objective.loss import Inference

N, DIM = 6, 4


def rows(seed: int, n: int = N, dim: int = DIM) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(codes: int = 0, *, beta: float = math.inf, dim: int = DIM) -> JointEmbedding:
    torch.manual_seed(0)
    latent = Codebook(codes, 2) if codes else Deterministic()
    predictor: Predictor = MLPPredictor(dim, 2, hidden=(8,)) if codes else IdentityPredictor()
    return JointEmbedding(nn.Identity(), nn.Identity(), predictor, latent=latent, minimizer=Enumerate(beta)).double()


def infer(model: JointEmbedding, s_x: Tensor, s_y: Tensor) -> Inference:
    energy = model.energy(s_x, s_y)
    return Inference(energy, model.minimizer(energy), model.minimizer)


# --- contrastive divergence ---


def test_a_chain_without_noise_on_a_parabola() -> None:
    """Each step brings s nearer to x by a factor 1 - 2 eta / D: F- is F+ times its power of 2 k."""
    s_x, s_y = rows(0).requires_grad_(), rows(1)
    term = ContrastiveDivergence(steps=3, step_size=0.4, noise=0.0, alpha=0.2)
    shrink = 1 - 2 * 0.4 / DIM
    f = (s_x - s_y).square().mean(1)
    end = s_x.detach() + shrink**3 * (s_y - s_x.detach())
    negative = (s_x - end).square().mean(1)
    torch.testing.assert_close(negative, shrink**6 * f)
    expected = (f - negative + 0.2 * (f**2 + negative**2)).mean()
    value = term(infer(make(), s_x, s_y))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, s_x), torch.autograd.grad(expected, s_x))


def test_the_encoder_of_y_gets_no_gradient() -> None:
    s_x, s_y = rows(0).requires_grad_(), rows(1).requires_grad_()
    for term in (ContrastiveDivergence(steps=2), ScoreMatching()):
        value = term(infer(make(), s_x, s_y))
        dx, dy = torch.autograd.grad(value, (s_x, s_y), allow_unused=True)
        assert dx.abs().sum() > 0
        assert dy is None


def test_long_chains_sample_the_gibbs_distribution() -> None:
    """On F = (s - x)^2 / D with sigma^2 = 2 eta / beta the variance tends to D / 2 beta, up to the size of the step."""
    n, beta, eta = 4000, 3.0, 0.1
    s_x = torch.zeros(n, 2, dtype=torch.float64)
    term = ContrastiveDivergence(steps=100, step_size=eta, noise=math.sqrt(2 * eta / beta), alpha=0.0)
    shrink = 1 - 2 * eta / 2
    variance = (2 * eta / beta) * (1 - shrink**200) / (1 - shrink**2)
    value = term(infer(make(dim=2), s_x, s_x)).item()  # F+ = 0, the mean of F- is the variance
    assert -value == pytest.approx(variance, rel=5 / math.sqrt(n))
    assert variance == pytest.approx(2 / (2 * beta), rel=0.06)


@pytest.mark.parametrize("beta", [math.inf, 2.0])
def test_a_chain_with_codes_and_noise(beta: float) -> None:
    """Step by step by the formula of the soft minimum, with the term's own random numbers."""
    model = make(3, beta=beta)
    s_x, s_y = rows(0), rows(1)
    term = ContrastiveDivergence(steps=3, step_size=0.7, noise=0.3, alpha=0.0, seed=5)
    draws = ContrastiveDivergence(seed=5).fresh(N)
    codes = model.latent.candidates()
    assert codes is not None
    predicted = torch.stack([model.predictor(s_x, c.expand(N, 2), None) for c in codes])

    def f(s: Tensor) -> Tensor:
        energies = (predicted - s).square().mean(-1)
        return energies.amin(0) if math.isinf(beta) else -torch.exp(-beta * energies).mean(0).log() / beta

    s = s_y
    for step in range(3):
        s = s.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(s).sum(), s)
        s = s - 0.7 * slope + 0.3 * draws.normal(f"step {step}", DIM).double()
    expected = (f(s_y) - f(s.detach())).mean()
    value = term(infer(model, s_x, s_y))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_persistent_chains_go_on_where_they_ended_and_resume() -> None:
    model, s_x, s_y = make(), rows(0), rows(1)
    options = {"steps": 1, "step_size": 0.4, "noise": 0.0, "alpha": 0.0, "buffer": N, "dim": DIM, "restart": 0.0}
    term = ContrastiveDivergence(**options).double()  # type: ignore[arg-type]
    assert term(infer(model, s_x[:1].expand(N, DIM), s_y)).isfinite()
    shrink = 1 - 2 * 0.4 / DIM
    centre = s_x[:1]
    first = term.points.clone()
    wanted = centre + shrink * (s_y - centre)
    torch.testing.assert_close(
        first.sort(0).values, wanted.sort(0).values
    )  # all of them were moved once, each from a datum
    term(infer(model, centre.expand(N, DIM), s_y))
    torch.testing.assert_close(term.points, centre + shrink * (first - centre))  # one step further
    kept = term.points.clone()
    term.eval()
    frozen = term(infer(model, s_x, s_y)).item()
    assert torch.equal(term.points, kept)
    other = ContrastiveDivergence(**options).double()  # type: ignore[arg-type]
    other.load_state_dict(term.state_dict())
    other.eval()
    assert other(infer(model, s_x, s_y)).item() == frozen
    always = ContrastiveDivergence(**{**options, "restart": 1.0}).double()  # type: ignore[arg-type]
    always.load_state_dict(term.state_dict())
    plain = ContrastiveDivergence(**{**options, "buffer": 0}).double()  # type: ignore[arg-type]
    assert always(infer(model, s_x, s_y)).item() == pytest.approx(plain(infer(model, s_x, s_y)).item(), rel=1e-12)


# --- score matching ---


def test_score_matching_of_a_parabola() -> None:
    """At beta = D / 2 sigma^2 the noise cancels: what is left is the distance of the bottom from y, over sigma^4."""
    s_x, s_y = rows(0).requires_grad_(), rows(1)
    sigma = 0.3
    value = ScoreMatching(sigma=sigma)(infer(make(), s_x, s_y))
    expected = (s_x - s_y).square().sum(1).mean() / sigma**4
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(value, s_x), torch.autograd.grad(expected, s_x))


@pytest.mark.parametrize("chunk", [10**6, 1])
def test_score_matching_of_a_soft_minimum(chunk: int) -> None:
    """The slope is the mean of the codes' slopes by their responsibilities, written out; value and gradient."""
    model = make(3, beta=2.0)
    assert isinstance(model.minimizer, Enumerate)
    model.minimizer.chunk = chunk
    s_x, s_y = rows(0), rows(1)
    noise = ScoreMatching(seed=4).fresh(N).normal("noise", DIM).double()
    s = s_y + 0.3 * noise
    codes = model.latent.candidates()
    assert codes is not None
    predicted = torch.stack([model.predictor(s_x, c.expand(N, 2), None) for c in codes])
    weight = torch.softmax(-2.0 * (predicted - s).square().mean(-1), dim=0)
    slope = (weight[..., None] * 2 * (s - predicted) / DIM).sum(0)
    expected = (1.5 * slope - noise / 0.3).square().sum(1).mean()
    value = ScoreMatching(sigma=0.3, beta=1.5, seed=4)(infer(model, s_x, s_y))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_score_matching_learns_two_outcomes() -> None:
    """y is +1 or -1 whatever x is: the two codes come to predict one each, where a mean would be 0."""
    torch.manual_seed(0)
    sigma = 0.5
    model = JointEmbedding(
        nn.Identity(),
        nn.Identity(),
        MLPPredictor(1, 2, hidden=(16,)),
        latent=Codebook(2, 2),
        minimizer=Enumerate(1 / (2 * sigma**2)),
    )
    objective = contrastive(model, score_matching(sigma=sigma))
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.03)
    x = torch.zeros(64, 1)
    y = torch.ones(64, 1)
    y[::2] = -1
    for _ in range(150):
        loss = objective(Pair(x, y)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    codes = model.latent.candidates()
    assert codes is not None
    outcomes = sorted(model.predictor(x[:1], c[None], None).item() for c in codes)
    assert outcomes == pytest.approx([-1, 1], abs=0.15)


@pytest.mark.parametrize("terms", [contrastive_divergence, score_matching])
def test_training_moves_the_bottom_to_y(terms) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
    model = JointEmbedding(encoder, nn.Identity(), IdentityPredictor())
    objective = contrastive(model, terms())
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    x = torch.randn(64, 5)
    y = x[:, :2] - x[:, 2:4]
    before = model.free_energy(x, y).mean()
    for _ in range(60):
        loss = objective(Pair(x, y)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.free_energy(x, y).mean() < before / 4


# --- random numbers, degenerate batches, refusals ---


@pytest.mark.parametrize("term", [ContrastiveDivergence(steps=2), ScoreMatching()])
def test_noise_is_fresh_each_time_and_stands_still_in_evaluation(term: nn.Module) -> None:
    inference = infer(make(), rows(0), rows(1))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = term(inference).item(), term(inference).item()
    assert torch.equal(torch.get_rng_state(), state), "no stream of random numbers is moved"
    assert first != second or isinstance(term, ScoreMatching)  # there the noise cancels on a parabola
    term.eval()
    with torch.no_grad():
        assert term(inference).item() == term(inference).item()
    nan = torch.full((N, DIM), math.nan, dtype=torch.float64)
    assert term(infer(make(), nan, nan)).isnan()
    assert term(infer(make(), rows(0, 1), rows(1, 1))).isfinite()  # each row by itself: one is enough
    views = torch.stack([rows(2), rows(3)])
    assert term(infer(make(), views, rows(1))).isfinite()


def test_refusals() -> None:
    for options, message in [
        ({"steps": 0}, "steps"),
        ({"step_size": 0.0}, "step_size"),
        ({"noise": -1.0}, "noise"),
        ({"alpha": math.nan}, "alpha"),
        ({"buffer": 5}, "dim"),
        ({"restart": 2.0}, "restart"),
    ]:
        with pytest.raises(UsageError, match=message):
            ContrastiveDivergence(**options)  # type: ignore[arg-type]
    for wrong in ({"sigma": 0.0}, {"beta": -1.0}):
        with pytest.raises(UsageError, match="above 0"):
            score_matching(**wrong)  # type: ignore[arg-type]
    inference = infer(make(), rows(0), rows(1))
    with pytest.raises(UsageError, match="a buffer of as many points, not 5"):
        ContrastiveDivergence(buffer=5, dim=DIM)(inference)
    with pytest.raises(UsageError, match="width 3, got 4"):
        ContrastiveDivergence(buffer=9, dim=3)(inference)
