"""Each distribution against torch.distributions, loops, sums over grids and closed forms."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from accord.baselines.flow_matching import FlowMatchingDensity, Velocity
from accord.baselines.probabilistic import CommonWidthGaussian, FlowDensity, GaussianDensity, MixtureDensity
from accord.errors import EnvironmentFault, UsageError
from accord.model.density import Density

DIM, GIVEN = 3, 4
MAKE: dict[str, Callable[[int], Density]] = {
    "gaussian": lambda dim: GaussianDensity(dim, floor=0.1),
    "common width": lambda dim: CommonWidthGaussian(dim, floor=0.1),
    "mixture": lambda dim: MixtureDensity(dim, components=5, floor=0.1),
    "flow": lambda dim: FlowDensity(dim, GIVEN, transforms=2, hidden=(16,)),
    "flow matching": lambda dim: FlowMatchingDensity(dim, GIVEN, hidden=(16, 16)),
}


def make(name: str, dim: int = DIM, seed: int = 0) -> Density:
    if name == "flow":
        pytest.importorskip("zuko")
    torch.manual_seed(seed)
    density = MAKE[name](dim).double().eval()
    for parameter in density.parameters():  # away from where all x are alike
        parameter.data += 0.3 * torch.randn_like(parameter)
    return density


def inputs(density: Density, n: int = 7, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, w, dtype=torch.float64, generator=generator) for w in (density.width, density.dim))  # type: ignore[return-value]


# --- formulas ---


def test_gaussian_equals_torch() -> None:
    density = make("gaussian")
    theta, y = inputs(density)
    mean, raw = theta[:, :DIM], theta[:, DIM:]
    scale = 0.1 + (1 + torch.exp(raw + math.log(math.e - 1))).log()
    expected = -torch.distributions.Normal(mean, scale).log_prob(y).sum(-1)
    torch.testing.assert_close(density(theta, y), expected, rtol=1e-12, atol=1e-12)
    wide = GaussianDensity(2)(torch.zeros(1, 4), torch.zeros(1, 2))  # width 1.05 at first, mean 0
    assert wide.item() == pytest.approx(2 * math.log(1.05) + math.log(2 * math.pi), rel=1e-6)


def test_common_width_equals_torch() -> None:
    density = make("common width")
    assert isinstance(density, CommonWidthGaussian) and density.located
    theta, y = inputs(density)
    expected = -torch.distributions.Normal(theta, density.scale).log_prob(y).sum(-1)
    torch.testing.assert_close(density(theta, y), expected, rtol=1e-12, atol=1e-12)


def test_mixture_equals_loops() -> None:
    density = make("mixture")
    assert isinstance(density, MixtureDensity)
    theta, y = inputs(density)
    for i in range(len(y)):
        logits, means, raws = theta[i, :5], theta[i, 5:20].view(5, DIM), theta[i, 20:].view(5, DIM)
        shares = [math.exp(v) for v in logits.tolist()]
        total = 0.0
        for c in range(5):
            p = shares[c] / sum(shares)
            for j in range(DIM):
                scale = 0.1 + math.log1p(math.exp(raws[c, j].item() + math.log(math.e - 1)))
                r = (y[i, j].item() - means[c, j].item() - density.centre[c, j].item()) / scale
                p *= math.exp(-r * r / 2) / (scale * math.sqrt(2 * math.pi))
            total += p
        assert density(theta[i : i + 1], y[i : i + 1]).item() == pytest.approx(-math.log(total), rel=1e-10)


@pytest.mark.parametrize("name", MAKE)
def test_densities_sum_to_one(name: str) -> None:
    """On a grid of one and of two dimensions; half a nat more would be 0.6."""
    for dim in (1, 2):
        density = make(name, dim)
        theta = inputs(density, 1)[0]
        ticks = torch.linspace(-9, 9, 4801 if dim == 1 else 401 if name == "flow" else 121, dtype=torch.float64)
        y = torch.cartesian_prod(*[ticks] * dim).view(-1, dim)
        with torch.no_grad():
            mass = torch.exp(-density(theta, y)).sum() * (ticks[1] - ticks[0]) ** dim
        assert mass.item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", MAKE)
def test_draws_have_the_energy_of_the_density(name: str) -> None:
    """Mean of F over draws is the entropy of the density, here by a sum over a grid; and the draws have its mean."""
    density = make(name, 1)
    theta = inputs(density, 1)[0]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = density.sample(theta.expand(4000, -1), generator)
        assert torch.equal(drawn, density.sample(theta.expand(4000, -1), torch.Generator().manual_seed(0)))
        y = torch.linspace(-12, 12, 2401, dtype=torch.float64)[:, None]
        nats = density(theta, y)
        p = torch.exp(-nats) * 0.01
        mean, entropy = (p * y[:, 0]).sum(), (p * nats).sum()
        spread = ((p * (y[:, 0] - mean) ** 2).sum()).sqrt()
        assert abs(drawn.mean() - mean) < 5 * spread / math.sqrt(4000)
        surprise = density(theta, drawn)
    assert abs(surprise.mean() - entropy) < 5 * surprise.std() / math.sqrt(4000)
    assert density.point(theta).shape == (1, 1) and abs(density.point(theta) - mean) < 3 * spread


# --- contracts ---


@pytest.mark.parametrize("name", MAKE)
def test_all_with_all_is_each_with_each(name: str) -> None:
    density = make(name)
    theta, y = inputs(density)
    with torch.no_grad():
        cross = density(theta[:, None], y[None])
        expected = torch.stack([density(theta[i].expand(len(y), -1), y) for i in range(len(theta))])
        stacked = density(theta[None, :, None], y[None])
    assert cross.shape == (7, 7)
    torch.testing.assert_close(cross, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(stacked[0], expected, rtol=1e-9, atol=1e-9)
    assert (cross - cross.T).abs().max() > 0.01, "rows and columns must differ for this to say anything"


@pytest.mark.parametrize("name", MAKE)
def test_gradients_reach_every_parameter_and_theta(name: str) -> None:
    density = make(name)
    theta, y = inputs(density)
    for mode in (True, False):
        density.train(mode).zero_grad()
        given = theta.clone().requires_grad_()
        density(given, y).mean().backward()
        assert given.grad is not None and (given.grad.abs().sum(0) > 0).all()
        for key, parameter in density.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, (key, mode)


@pytest.mark.parametrize("name", MAKE)
def test_evaluation_is_a_function_of_the_pair(name: str) -> None:
    density = make(name)
    theta, y = inputs(density)
    with torch.no_grad():
        whole = density(theta, y)
        torch.testing.assert_close(density(theta, y), whole, rtol=0, atol=0)
        torch.testing.assert_close(density(theta[2:3], y[2:3]), whole[2:3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_half_precision_is_left_behind(name: str, kind: torch.dtype) -> None:
    density = make(name).float()
    theta, y = inputs(density)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
        found = density(theta.to(kind), y.to(kind))
    assert found.dtype == torch.float32
    with torch.no_grad():
        exact = density.double()(theta.to(kind).double(), y.to(kind).double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MAKE)
def test_constant_and_discrete_columns_have_finite_energies(name: str) -> None:
    """A column that is always 0 and one of two values: without a least width both would fall without end."""
    density = make(name).float()
    torch.manual_seed(0)
    net = nn.Linear(1, density.width)
    x = torch.randn(256, 1)
    y = torch.cat([torch.zeros(256, 1), (x > 0).float(), torch.randn(256, 1)], 1)
    optimizer = torch.optim.Adam([*net.parameters(), *density.parameters()], lr=0.03)
    density.train()
    for _ in range(150):
        loss = density(net(x), y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    with torch.no_grad():
        nats = density.eval()(net(x), y)
    least = 0.1 if hasattr(density, "centre") or density.product else 0.05
    bound = 3 * math.log(least * math.sqrt(2 * math.pi))
    assert nats.isfinite().all() and nats.min() > bound - 3, "no lower than three densities of the least width"
    assert nats.mean() < 3, "and it has learned: three unit normals have 4.3"


# --- flow matching ---


class Straight(nn.Module):
    """The exact velocity from noise to N(mean, s^2), to which flow matching adds noise of the floor."""

    def __init__(self, mean: Tensor, s: float, floor: float):
        super().__init__()
        self.mean, self.s, self.kept = mean, s, 1 - floor

    def rate(self, t: Tensor) -> Tensor:
        variance = (1 - self.kept * t) ** 2 + (t * self.s) ** 2
        return (t * self.s**2 - self.kept * (1 - self.kept * t)) / variance

    def forward(self, y: Tensor, t: Tensor, s_x: Tensor) -> Tensor:
        return self.mean + self.rate(t) * (y - t * self.mean)

    def along(self, y: Tensor, t: Tensor, s_x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        moved = (self.rate(t) * directions).view(len(directions), *[1] * (y.ndim - 1), -1)
        return self(y, t, s_x), moved.expand(len(directions), *y.shape)


@pytest.mark.parametrize("s", [1.0, 0.3, 0.05, 0.0])
@pytest.mark.parametrize("dim", [2, 40])
def test_the_likelihood_of_the_exact_field_is_that_of_its_gaussian(s: float, dim: int) -> None:
    """With 40 dimensions from random directions, which are exact where the field stretches all directions alike."""
    density = FlowMatchingDensity(dim, 1, floor=0.05, steps=12).double().eval()
    mean = torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    density.velocity = Straight(mean, s, 0.05)  # type: ignore[assignment]
    width = math.hypot(s, 0.05)
    y = mean + width * torch.randn(50, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = -torch.distributions.Normal(mean, width).log_prob(y).sum(-1)
    found = density(torch.zeros(50, 1, dtype=torch.float64), y)
    assert (found - expected).abs().max() < 2e-3 * dim
    drawn = density.sample(torch.zeros(4000, 1, dtype=torch.float64), torch.Generator().manual_seed(0))
    assert ((drawn - mean).square().mean().sqrt() / width - 1).abs() < 0.03
    density.steps = 2
    assert (density(torch.zeros(50, 1, dtype=torch.float64), y) - expected).abs().max() > 2e-3 * dim


def test_derivatives_along_directions_equal_automatic_ones() -> None:
    torch.manual_seed(0)
    velocity = Velocity(DIM, GIVEN, hidden=(8, 9)).double()
    y, s_x, directions = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, DIM), (5, GIVEN), (2, DIM)))
    t = torch.rand(5, 1, dtype=torch.float64)
    v, moved = velocity.along(y, t, s_x, directions)
    torch.testing.assert_close(v, velocity(y, t, s_x))
    jacobian = torch.autograd.functional.jacobian(lambda at: velocity(at, t, s_x).sum(0), y)  # (dim, batch, dim)
    torch.testing.assert_close(moved, torch.einsum("ibj,kj->kbi", jacobian, directions))


def test_random_directions_are_unbiased() -> None:
    """The mean over many seeds of directions is the trace."""
    torch.manual_seed(0)
    dim = 20
    many = FlowMatchingDensity(dim, 1, hidden=(16,), probes=dim * 40).double().eval()
    exact = FlowMatchingDensity(dim, 1, hidden=(16,)).double().eval()
    exact.velocity = many.velocity
    exact.probe = torch.eye(dim, dtype=torch.float64)
    y, s_x = torch.randn(4, dim, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    torch.testing.assert_close(many(s_x, y), exact(s_x, y), rtol=0, atol=0.05)
    few = FlowMatchingDensity(dim, 1, hidden=(16,), probes=1).double().eval()
    few.velocity = many.velocity
    assert (few(s_x, y) - exact(s_x, y)).abs().max() > 0.05


def test_flow_matching_finds_a_gaussian() -> None:
    torch.manual_seed(0)
    density = FlowMatchingDensity(2, 1, hidden=(64, 64), floor=0.05)
    optimizer = torch.optim.Adam(density.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, 800)
    for _ in range(800):
        x = torch.rand(256, 1) * 2 - 1
        y = torch.cat([x, -x], 1) + 0.5 * torch.randn(256, 2)
        loss = density(x, y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.linspace(-0.9, 0.9, 200)[:, None]
    law = torch.distributions.Normal(torch.cat([x, -x], 1), math.hypot(0.5, 0.05))
    y = law.sample()
    with torch.no_grad():
        gap = density.eval()(x, y) + law.log_prob(y).sum(-1)
        assert abs(density.train()(x, y).mean()) > 0.2
    assert gap.mean().abs() < 0.05 and gap.abs().mean() < 0.15


# --- refusals ---


def test_without_zuko_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(EnvironmentFault) as error:
        FlowDensity(2, 3)
    assert "zuko" in error.value.message and "accord[flows]" in str(error.value.help)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: GaussianDensity(0), "dim"),
        (lambda: GaussianDensity(2, floor=0.0), "floor"),
        (lambda: CommonWidthGaussian(2, floor=-1.0), "floor"),
        (lambda: MixtureDensity(2, components=0), "components"),
        (lambda: FlowMatchingDensity(2, 3, steps=0), "steps"),
        (lambda: FlowMatchingDensity(2, 3, probes=0), "probes"),
    ],
)
def test_numbers_out_of_bounds_are_refused(wrong: Callable[[], Density], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        wrong()
