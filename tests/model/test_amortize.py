"""A network guesses z: what it learns from, what the model learns from, and what it cannot spoil."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.amortize import Amortize, Recognition, straight_through
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.energy import Energy, squared_error
from accord.model.latent import Latent
from accord.model.minimize import Enumerate
from accord.model.newton import gauss_newton
from accord.model.predictor import MLPPredictor

DIM = 6


def make(latent: Latent, *batch: int, action: int = 0, seed: int = 0) -> Energy:
    torch.manual_seed(seed)
    batch = batch or (5,)
    s_x, s_y = (torch.randn(*batch, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a = torch.randn(*batch, action, dtype=torch.float64) if action else None
    predictor = MLPPredictor(DIM, latent.dim, action_dim=action).double()
    return Energy(s_x, s_y, predictor=predictor, cost=squared_error, latent=latent.double(), action=a)


def network(width: int, action: int = 0) -> Recognition:
    torch.manual_seed(9)
    return Recognition(DIM, width, action_dim=action).double()


def grads(value: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value.sum(), tensors, retain_graph=True, materialize_grads=True))


def test_recognition_is_an_mlp_on_the_concatenation() -> None:
    net = Recognition(3, 2, action_dim=4, hidden=(7, 5)).double()
    s_x, s_y, a = (torch.randn(6, w, dtype=torch.float64) for w in (3, 3, 4))
    hidden = torch.cat([s_x, s_y, a], -1)
    for layer in net.layers[:-1]:
        hidden = nn.functional.gelu(layer(hidden))
    expected = net.layers[-1](hidden)
    torch.testing.assert_close(net(s_x, s_y, a), expected)
    cross = net(s_x[:, None], s_y[None], a[:, None])
    torch.testing.assert_close(cross.diagonal().mT, expected)
    with pytest.raises(UsageError, match="takes 10 numbers, s_x, s_y and action have 6"):
        net(s_x, s_y)


@pytest.mark.parametrize("batch", [(5,), (2, 3), ()])
def test_alone_it_is_the_energy_of_the_guess(batch: tuple[int, ...]) -> None:
    energy = make(Gaussian(3), *batch, action=2)
    net = network(3, 2)
    z = net(energy.s_x, energy.s_y, energy.action)
    minimum = Amortize(net)(energy)
    torch.testing.assert_close(minimum.value, energy(z))
    assert torch.equal(minimum.argmin, z.detach())
    tensors = [*net.parameters(), *energy.predictor.parameters(), energy.s_x, energy.s_y]
    for one, two in zip(grads(minimum.value, tensors), grads(energy(z), tensors), strict=True):
        torch.testing.assert_close(one, two)


def test_refined_model_and_network_learn_apart() -> None:
    """Model: dE/dtheta at what was found. Network: dE/dphi at the guess. Neither hears of the other."""
    energy = make(Gaussian(3, weight=0.2))
    net, refine = network(3), Descend(2, restarts=0).eval()
    amortize = Amortize(net, refine=refine)
    minimum = amortize(energy)
    guess = net(energy.s_x.detach(), energy.s_y.detach())
    refined = refine(energy, start=guess.detach())
    torch.testing.assert_close(minimum.value, refined.value)
    assert torch.equal(minimum.argmin, refined.argmin)
    assert (energy(guess) - minimum.value >= -1e-12).all()  # the amortisation gap
    model = [*energy.predictor.parameters(), energy.s_x, energy.s_y]
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    for one, two in zip(
        grads(weight * minimum.value, model), grads(weight * energy(refined.argmin), model), strict=True
    ):
        torch.testing.assert_close(one, two)
    expected = grads(weight * energy.detach()(guess), list(net.parameters()))
    for one, two in zip(grads(weight * minimum.value, list(net.parameters())), expected, strict=True):
        torch.testing.assert_close(one, two)
    assert all(p.grad is None for p in [*model, *net.parameters()])
    with torch.no_grad():
        torch.testing.assert_close(amortize(energy).value, minimum.value)
    torch.testing.assert_close(Amortize(net, refine=refine, chunk=7)(energy).value, minimum.value)


def test_a_sequence_teaches_the_network_by_its_sum() -> None:
    energy = make(GaussianWalk(2, weight=0.3), 3, 4)
    net = network(2)
    value = Amortize(net, refine=Descend(2, restarts=0).eval())(energy).value
    expected = grads(energy.detach()(net(energy.s_x.detach(), energy.s_y.detach())), list(net.parameters()))
    for one, two in zip(grads(value, list(net.parameters())), expected, strict=True):
        torch.testing.assert_close(one, two)


def test_choices_are_rounded_and_the_gradient_goes_straight_through() -> None:
    book = Codebook(4, 2, blocks=2)
    energy = make(book)
    net = network(4)
    z = net(energy.s_x, energy.s_y)
    minimum = Amortize(net)(energy)
    codes = book.project(z)
    torch.testing.assert_close(minimum.value, energy(codes))
    torch.testing.assert_close(minimum.argmin, codes.detach())
    at = codes.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(at).sum(), at)
    expected = grads((z * slope).sum(), list(net.parameters()))
    for one, two in zip(grads(minimum.value, list(net.parameters())), expected, strict=True):
        torch.testing.assert_close(one, two)
    torch.testing.assert_close(*(grads(v, [book.table])[0] for v in (minimum.value, energy(codes))))
    assert (minimum.value >= Enumerate()(energy).value - 1e-12).all()
    refined = Amortize(net, refine=Coordinate(restarts=1).eval())(energy)
    assert (refined.value <= minimum.value + 1e-12).all()
    assert all(g.abs().sum() > 0 for g in grads(refined.value, list(net.parameters())))


def test_vectors_are_projected() -> None:
    latent = LowDimensional(3, bound=0.01)
    energy = make(latent)
    assert (Amortize(network(3))(energy).argmin.abs() <= 0.01).all()
    z = torch.tensor([[0.5, 0.001, -3.0]], requires_grad=True)
    straight_through(latent, z).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("refined", [False, True])
def test_the_gap_closes_with_training(refined: bool) -> None:
    """On a fixed model, learning through the value drives the guess to the minimum."""
    energy = make(Gaussian(2, weight=0.3), 40).detach()
    exact = Descend(20, direction=gauss_newton(0.0)).eval()(energy).value
    net = network(2)
    amortize = Amortize(net, refine=Descend(1, restarts=0).eval() if refined else None)
    gaps = []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        gaps.append((energy(amortize.guess(energy)) - exact).mean().item())
        optimizer.zero_grad()
        amortize(energy).value.mean().backward()
        optimizer.step()
    assert min(gaps) > -1e-6
    assert gaps[-1] < 0.05 * gaps[0]


def test_cross_energies_in_chunks() -> None:
    energy = make(Gaussian(3), action=2)
    for refine in (None, Descend(2, restarts=0).eval()):
        amortize = Amortize(network(3, 2), refine=refine)
        whole, cross = amortize(energy), amortize(energy.cross())
        torch.testing.assert_close(cross.value.diagonal(), whole.value)
        amortize.chunk = 50
        part = amortize(energy.cross())
        torch.testing.assert_close(part.value, cross.value)
        parameters = list(amortize.network.parameters())
        for one, two in zip(grads(part.value, parameters), grads(cross.value, parameters), strict=True):
            torch.testing.assert_close(one, two)
