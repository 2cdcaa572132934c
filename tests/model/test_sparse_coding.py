"""Sparse codes: optimality conditions, closed forms, rates; the learned form equals the other at the start."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.continuous import Gaussian, Sparse
from accord.model.descend import Descend
from accord.model.energy import Cost, Energy, smooth_l1, squared_error
from accord.model.latent import Latent
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor
from accord.model.sparse_coding import Ista, Lista, soft_threshold

DIM, WIDTH = 8, 12


def make(
    latent: Latent | None = None,
    *batch: int,
    predictor: Predictor | None = None,
    cost: Cost = squared_error,
    weight: float = 0.05,
    seed: int = 0,
    given: bool = True,
) -> Energy:
    torch.manual_seed(seed)
    latent = Sparse(WIDTH, weight=weight) if latent is None else latent
    predictor = DictionaryPredictor(DIM, latent.dim, given=given) if predictor is None else predictor
    s_x, s_y = (torch.randn(*(batch or (6,)), DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return Energy(s_x, s_y, predictor=predictor.double(), cost=cost, latent=latent.double())


def optimality(energy: Energy, z: Tensor) -> Tensor:
    """How far each dD/dz_j is from -lambda sign(z_j), or from [-lambda, lambda] where z_j = 0."""
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy.divergence(z).sum(), z)
    weight = energy.latent.weight
    return torch.where(z == 0, (slope.abs() - weight).clamp_min(0), (slope + weight * z.sign()).abs())


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.005, 0.5), st.booleans(), st.integers(1, 14))
def test_optimality_conditions(seed: int, weight: float, accelerated: bool, width: int) -> None:
    energy = make(Sparse(width, weight=weight), seed=seed)
    z = Ista(3000, accelerated=accelerated)(energy).argmin
    assert optimality(energy, z).max() < 2e-4 if accelerated else 2e-3
    drawn = z + 0.1 * torch.randn(30, *z.shape, dtype=torch.float64)
    assert (energy(drawn) >= energy(z) - 1e-4).all()


def test_zero_exactly_from_the_largest_correlation_on() -> None:
    """z = 0 iff lambda >= 2/D max |W'(y - b)|, for D a mean over dimensions."""
    energy = make()
    w = energy.predictor.linear_in_z()
    assert w is not None
    gap = (energy.s_y - energy.predict(torch.zeros(6, WIDTH, dtype=torch.float64))).detach()
    edge = (2 / DIM * (gap @ w).abs()).amax(1)
    for factor, zero in ((1.001, True), (0.999, False)):
        for i in range(6):
            energy.latent.weight = factor * edge[i].item()
            z = Ista(1500, accelerated=True)(energy.part(slice(i, i + 1))).argmin
            assert bool((z == 0).all()) is zero


def test_orthonormal_columns_are_a_soft_threshold() -> None:
    """z = soft(W'(y - b), lambda D / 2), in one step."""
    energy = make(Sparse(5, weight=0.1))
    assert isinstance(energy.predictor, DictionaryPredictor)
    with torch.no_grad():
        energy.predictor.directions.copy_(torch.linalg.qr(torch.randn(DIM, 5, dtype=torch.float64))[0])
    gap = energy.s_y - energy.predict(torch.zeros(6, 5, dtype=torch.float64))
    projected = (gap @ energy.predictor.dictionary).detach()
    exact = projected.sign() * (projected.abs() - 0.1 * DIM / 2).clamp_min(0)
    for minimizer in (Ista(1), Ista(30, accelerated=True), Lista(energy.predictor, Sparse(5, weight=0.1), 1).double()):
        torch.testing.assert_close(minimizer(energy).argmin, exact, rtol=1e-9, atol=1e-12)


def test_ista_falls_at_its_rate_and_fista_at_the_faster_one() -> None:
    energy = make(weight=0.01)
    best = Ista(6000, accelerated=True)(energy)
    w = energy.predictor.linear_in_z()
    assert w is not None
    lipschitz = 2 / DIM * torch.linalg.matrix_norm(w.detach(), 2) ** 2
    size = best.argmin.square().sum(-1)
    values = []
    for steps in (1, 5, 20, 100):
        plain, fast = (Ista(steps, accelerated=a)(energy).value for a in (False, True))
        assert (plain - best.value <= lipschitz * size / (2 * steps) + 1e-9).all()
        assert (fast - best.value <= 2 * lipschitz * size / (steps + 1) ** 2 + 1e-9).all()
        values.append(plain)
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-12).all()
    assert (fast <= plain + 1e-9).all()


def test_step_by_step_by_formula() -> None:
    """z <- soft(z - eta (2/D) W'(W z - y)) with eta = D / (2 |W|^2), three times."""
    energy = make(given=False)
    w = energy.predictor.linear_in_z()
    assert w is not None
    w = w.detach()
    eta = DIM / (2 * torch.linalg.matrix_norm(w, 2) ** 2)
    z = torch.zeros(6, WIDTH, dtype=torch.float64)
    for _ in range(3):
        z = z - eta * 2 / DIM * (z @ w.T - energy.s_y.detach()) @ w
        z = z.sign() * (z.abs() - eta * 0.05).clamp_min(0)
    torch.testing.assert_close(Ista(3)(energy).argmin, z, rtol=1e-9, atol=1e-12)


def test_soft_threshold() -> None:
    z = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert soft_threshold(z, torch.tensor(1.0)).tolist() == [-2.0, 0.0, 0.0, 0.0, 2.0]
    assert soft_threshold(z, torch.tensor(0.0)).tolist() == z.tolist()


@pytest.mark.parametrize("cost", [squared_error, smooth_l1])
@pytest.mark.parametrize("width", [3, 12])
def test_other_predictors_and_costs_by_checked_steps(cost: Cost, width: int) -> None:
    energy = make(Sparse(width, weight=0.02), predictor=MLPPredictor(DIM, width), cost=cost)
    values = [Ista(steps)(energy).value for steps in (1, 3, 10, 300)]
    origin = energy(torch.zeros(6, width, dtype=torch.float64))
    for before, after in itertools.pairwise([origin, *values]):
        assert (after <= before + 1e-12).all()
    z = Ista(1500)(energy).argmin
    assert optimality(energy, z).max() < 1e-3
    assert (z == 0).any()


def test_checked_steps_agree_with_exact_ones_where_both_apply() -> None:
    energy = make()
    exact = Ista(3000, accelerated=True)(energy)

    def same(s_y_hat: Tensor, s_y: Tensor) -> Tensor:
        return (s_y_hat - s_y).square().mean(-1)

    energy.cost = same
    torch.testing.assert_close(Ista(1000)(energy).value, exact.value, rtol=1e-4, atol=1e-6)


def test_the_spread_term_by_checked_steps() -> None:
    """Not convex: never above the start, ends where no small change helps much (it may stop at the kink), and makes z larger."""
    plain, spread = make(), make(Sparse(WIDTH, weight=0.05, spread=2.0))
    values = [Ista(steps)(spread).value for steps in (1, 5, 50, 600)]
    origin = spread(torch.zeros(6, WIDTH, dtype=torch.float64))
    assert all((value <= origin + 1e-12).all() for value in values)
    z = Ista(600)(spread).argmin
    near = z + 1e-3 * torch.randn(300, *z.shape, dtype=torch.float64)
    assert (spread(near) >= spread(z) - 2e-3).all()
    assert z.square().sum(-1).mean() >= Ista(600)(plain).argmin.square().sum(-1).mean() - 1e-6
    assert (Ista(600)(spread).value >= Ista(600)(plain).value - 1e-6).all()
    assert (z == 0).any()
    assert (Ista(600)(spread).value <= Descend(20).eval()(spread).value + 1e-2).double().mean() > 0.8


@pytest.mark.parametrize("accelerated", [False, True])
def test_cross_chunks_starts_and_gradients(accelerated: bool) -> None:
    energy = make()
    minimizer = Ista(50, accelerated=accelerated)
    whole = minimizer(energy)
    cross = minimizer(energy.cross())
    assert cross.argmin.shape == (6, 6, WIDTH)
    torch.testing.assert_close(cross.value.diagonal(), whole.value)
    torch.testing.assert_close(Ista(50, accelerated=accelerated, chunk=70)(energy.cross()).value, cross.value)
    best = Ista(5000, accelerated=True)(energy).argmin
    torch.testing.assert_close(
        Ista(1, accelerated=accelerated)(energy, start=best).value, energy(best), rtol=1e-6, atol=0
    )
    leaves = [*energy.predictor.parameters(), energy.s_x, energy.s_y]
    for one, two in zip(
        *(torch.autograd.grad(v.sum(), leaves) for v in (whole.value, energy(whole.argmin))), strict=True
    ):
        assert torch.equal(one, two)
    with torch.no_grad():
        assert torch.equal(minimizer(energy).value, whole.value)


# --- learned ---


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("given", [False, True])
def test_lista_is_ista_at_the_start(steps: int, given: bool) -> None:
    energy = make(given=given)
    lista = Lista(energy.predictor, energy.latent, steps)  # type: ignore[arg-type]
    for cross in (False, True):
        used = energy.cross() if cross else energy
        one, two = lista(used), Ista(steps)(used)
        torch.testing.assert_close(one.argmin, two.argmin, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one.value, two.value, rtol=1e-10, atol=1e-12)


def test_lista_learns_to_do_more_in_as_many_steps() -> None:
    torch.manual_seed(0)
    predictor = DictionaryPredictor(DIM, WIDTH, given=False).double()
    latent = Sparse(WIDTH, weight=0.03).double()
    z = torch.randn(600, WIDTH, dtype=torch.float64) * (torch.rand(600, WIDTH) < 0.2)
    y = (z @ predictor.dictionary.T).detach()
    energy = Energy(y, y, predictor=predictor, cost=squared_error, latent=latent)
    exact = Ista(3000, accelerated=True)(energy).value.mean()
    lista = Lista(predictor, latent, 3)
    before = lista(energy).value.mean()
    assert {n for n, _ in lista.named_parameters()} == {"encode", "mix", "threshold"}
    optimizer = torch.optim.Adam(lista.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        lista(energy).value.mean().backward()
        optimizer.step()
    after = lista(energy).value.mean()
    assert exact < after < before
    assert (after - exact) < 0.4 * (before - exact)
    assert after < Ista(6)(energy).value.mean()


def test_gradients_of_lista_equal_finite_differences() -> None:
    energy = make()
    lista = Lista(energy.predictor, energy.latent, 3)  # type: ignore[arg-type]
    value = lista(energy).value.sum()
    parameters: list[tuple[nn.Parameter, tuple[int, ...]]] = [
        (lista.encode, (0, 1)),
        (lista.mix, (2, 3)),
        (lista.threshold, (1,)),
    ]
    found = torch.autograd.grad(value, [p for p, _ in parameters])
    for (parameter, at), gradient in zip(parameters, found, strict=True):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[at] += sign * 1e-6
                values.append(lista(energy).value.sum().item())
                parameter[at] -= sign * 1e-6
        assert gradient[at].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_refusals() -> None:
    for minimizer in (Ista(), Lista(DictionaryPredictor(DIM, 3), Sparse(3)).double()):
        with pytest.raises(UsageError, match="Sparse latents, this one is Gaussian"):
            minimizer(make(Gaussian(3)))
    with pytest.raises(UsageError, match="FISTA needs"):
        Ista(accelerated=True)(make(Sparse(3), predictor=MLPPredictor(DIM, 3)))
    with pytest.raises(UsageError, match="FISTA needs"):
        Ista(accelerated=True)(make(Sparse(3), cost=smooth_l1))
    with pytest.raises(UsageError, match="FISTA needs"):
        Ista(accelerated=True)(make(Sparse(3, spread=1.0)))
    with pytest.raises(UsageError, match="spread"):
        Lista(DictionaryPredictor(DIM, 3), Sparse(3)).double()(make(Sparse(3, spread=1.0)))
    with pytest.raises(UsageError, match="MLPPredictor is not"):
        Lista(MLPPredictor(DIM, 3), Sparse(3))
    with pytest.raises(UsageError, match="whole number"):
        Ista(0)
