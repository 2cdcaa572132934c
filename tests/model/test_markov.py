"""Choices carried through a sequence, against all K^T sequences; walks against the tridiagonal system."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.codebook import Codebook
from accord.model.continuous import GaussianWalk
from accord.model.descend import Descend
from accord.model.energy import Energy, squared_error
from accord.model.latent import Latent
from accord.model.markov import Markov, Viterbi
from accord.model.minimize import BestOf
from accord.model.newton import gauss_newton
from accord.model.predictor import DictionaryPredictor, MLPPredictor

DIM, K, T = 4, 3, 5


def make(latent: Latent, *batch: int, seed: int = 0) -> Energy:
    g = torch.Generator().manual_seed(seed)
    s_x, s_y = (torch.randn(*batch, DIM, dtype=torch.float64, generator=g, requires_grad=True) for _ in range(2))
    torch.manual_seed(seed)
    return Energy(
        s_x, s_y, predictor=MLPPredictor(DIM, latent.dim).double(), cost=squared_error, latent=latent.double()
    )


def markov(seed: int = 0, weight: float = 0.3) -> Markov:
    torch.manual_seed(seed)
    latent = Markov(K, 2, weight=weight)
    nn.init.normal_(latent.first)
    nn.init.normal_(latent.change)
    return latent


def every_sequence(energy: Energy) -> Tensor:
    """Total energy of each of K^T sequences, (K^T, *batch), from the formula: sum_t D_t + lambda (-log p_1 - log T...)."""
    latent = energy.latent
    assert isinstance(latent, Markov)
    first, change = latent.first.log_softmax(0), latent.change.log_softmax(1)
    time = energy.batch_shape[-1]
    totals = []
    for path in itertools.product(range(K), repeat=time):
        z = latent.table[torch.tensor(path)].expand(*energy.batch_shape, -1)
        log_p = first[path[0]] + sum(change[a, b] for a, b in itertools.pairwise(path))
        totals.append(energy.divergence(z).sum(-1) - latent.weight * log_p)
    return torch.stack(totals)


def gradients(value: Tensor, energy: Energy) -> list[Tensor]:
    leaves = [*energy.predictor.parameters(), *energy.latent.parameters(), energy.s_x, energy.s_y]
    return list(torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True))


@pytest.mark.parametrize("batch", [(T,), (3, T), (2, 2, 4), (3, 1)])
@pytest.mark.parametrize("beta", [math.inf, 0.5, 4.0])
def test_viterbi_is_the_minimum_over_all_sequences(batch: tuple[int, ...], beta: float) -> None:
    energy = make(markov(), *batch)
    totals = every_sequence(energy)
    exact = totals.min(0).values if math.isinf(beta) else -torch.logsumexp(-beta * totals, 0) / beta
    minimum = Viterbi(beta)(energy)
    assert minimum.value.shape == batch
    assert minimum.argmin.shape == (*batch, 2)
    torch.testing.assert_close(minimum.value.sum(-1), exact, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(energy(minimum.argmin).sum(-1), totals.min(0).values)
    weight = torch.linspace(0.5, 2, exact.numel(), dtype=torch.float64).view(exact.shape)
    found = gradients((weight * minimum.value.sum(-1)).sum(), energy)
    for one, two in zip(found, gradients((weight * exact).sum(), energy), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_value_of_a_step_is_what_it_adds() -> None:
    energy = make(markov(), 3, T)
    for beta in (math.inf, 1.5):
        whole = Viterbi(beta)(energy).value.cumsum(-1)
        if math.isinf(beta):  # E of each step of the best sequence
            minimum = Viterbi()(energy)
            torch.testing.assert_close(energy(minimum.argmin), minimum.value)
            continue
        for t in range(1, T + 1):
            start = energy.of(energy.s_x[:, :t], energy.s_y[:, :t], None)
            torch.testing.assert_close(Viterbi(beta)(start).value.sum(-1), whole[:, t - 1])


def test_beta_times_weight_one_is_the_negative_log_likelihood() -> None:
    """F = -log sum_z p(z) exp(-beta D) / beta, which is at most every single sequence's."""
    beta = 5.0
    energy = make(markov(weight=1 / beta), 3, T)
    soft, hard = Viterbi(beta)(energy).value.sum(-1), Viterbi()(energy).value.sum(-1)
    assert (soft <= hard + 1e-12).all()
    drawn = energy.latent.sample((60_000, 1, T), energy.s_x, torch.Generator().manual_seed(0))
    costs = energy.divergence(drawn.expand(-1, 3, T, -1)).sum(-1)
    estimate = -(torch.logsumexp(-beta * costs, 0) - math.log(len(costs))) / beta
    torch.testing.assert_close(estimate, soft, rtol=0.02, atol=0.01)


def test_draws_have_the_frequencies_of_the_chain() -> None:
    latent = markov()
    z = latent.sample((40_000, 3), torch.zeros(1), torch.Generator().manual_seed(0))
    index = latent.index(z)
    assert z.shape == (40_000, 3, 2)
    first, change = latent.first.softmax(0), latent.change.softmax(1)
    torch.testing.assert_close(torch.bincount(index[:, 0], minlength=K) / 40_000, first.detach(), rtol=0, atol=0.01)
    torch.testing.assert_close(
        torch.bincount(index[:, 2], minlength=K) / 40_000, (first @ change @ change).detach(), rtol=0, atol=0.01
    )
    for a in range(K):
        following = index[index[:, 1] == a, 2]
        share = torch.bincount(following, minlength=K) / len(following)
        torch.testing.assert_close(share, change[a].detach(), rtol=0, atol=0.02)


def test_stay_is_the_probability_of_the_same_code_again() -> None:
    for codes, stay in [(2, 0.9), (5, 0.3)]:
        diagonal = torch.exp(-Markov(codes, 2, stay=stay).prices()[1]).diagonal()
        torch.testing.assert_close(diagonal, torch.full((codes,), stay))
    assert Markov(1, 2).prices()[1].item() == 0
    assert Markov(4, 2).capacity == pytest.approx(math.log(4))


def test_price_of_a_sequence_by_loop() -> None:
    latent = markov()
    z = latent.sample((7, T), torch.zeros(1), torch.Generator().manual_seed(0))
    index, (first, change) = latent.index(z), latent.prices()
    price = latent.price(z, torch.zeros(1))
    for i in range(7):
        path = index[i].tolist()
        expected = [first[path[0]].item(), *(change[a, b].item() for a, b in itertools.pairwise(path))]
        torch.testing.assert_close(price[i], torch.tensor(expected))


def test_other_minimisers_are_above_the_exact_one() -> None:
    energy = make(markov(), 3, T)
    exact = Viterbi()(energy).value.sum(-1)
    for samples in (5, 3000):
        found = BestOf(samples).eval()(energy).value.sum(-1)
        assert (found >= exact - 1e-12).all()
    torch.testing.assert_close(found, exact)
    with pytest.raises(UsageError, match="choice"):
        Descend()(energy)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Codebook"):
        Viterbi()(make(Codebook(3, 2), 3, T))
    with pytest.raises(UsageError, match="axis of time"):
        Viterbi()(make(markov()))
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="beta"):
            Viterbi(wrong)
    for stay in (0.0, 1.0):
        with pytest.raises(UsageError, match="stay"):
            Markov(3, 2, stay=stay)


# --- a vector carried along ---


@pytest.mark.parametrize("batch", [(6,), (3, 6)])
@pytest.mark.parametrize("minimizer", ["one step", "default", "adam"])
def test_descent_solves_the_tridiagonal_system(batch: tuple[int, ...], minimizer: str) -> None:
    """min sum_t |y_t - b_t - W z_t|^2 / D + lambda r(z): a linear system that couples all steps."""
    walk = GaussianWalk(2, weight=0.2, rate=0.7)
    energy = make(walk, *batch)
    torch.manual_seed(1)
    energy.predictor = DictionaryPredictor(DIM, 2).double()
    w = energy.predictor.dictionary.detach()
    steps = batch[-1]
    time = torch.arange(steps, dtype=torch.float64)
    precision = torch.linalg.inv(0.7 ** (time[:, None] - time).abs()).contiguous()
    system = torch.kron(torch.eye(steps, dtype=torch.float64), 2 / DIM * w.T @ w)
    system = system + 0.2 * torch.kron(precision, torch.eye(2, dtype=torch.float64))
    at_zero = energy.predict(torch.zeros(*batch, 2, dtype=torch.float64))
    right = (2 / DIM * (energy.s_y - at_zero) @ w).detach().reshape(-1, steps * 2)
    exact = torch.linalg.solve(system, right.T).T.reshape(*batch, 2)
    found = {
        "one step": lambda: Descend(1, direction=gauss_newton(0.0), restarts=0),
        "default": Descend,
        "adam": lambda: Descend(400, optimizer=lambda z: torch.optim.Adam(z, lr=0.05), restarts=1),
    }[minimizer]().eval()(energy)
    close = 1e-3 if minimizer == "adam" else 1e-4 if minimizer == "default" else 1e-10
    torch.testing.assert_close(found.argmin, exact, rtol=close, atol=close)
    torch.testing.assert_close(found.value.sum(-1), energy(exact).sum(-1), rtol=1e-4, atol=1e-6)
    assert found.value.shape == batch


def test_the_best_start_is_chosen_for_a_sequence_as_a_whole() -> None:
    energy = make(GaussianWalk(2, weight=0.05), 4, 6)
    minimum = Descend(3, restarts=5).eval()(energy)
    torch.testing.assert_close(energy(minimum.argmin), minimum.value)
    alone = Descend(3, restarts=0).eval()(energy)  # the origin is among the starts of both
    assert (minimum.value.sum(-1) <= alone.value.sum(-1) + 1e-12).all()
    warm = Descend(3, restarts=5).eval()(energy, start=minimum.argmin)
    assert (warm.value.sum(-1) <= minimum.value.sum(-1) + 1e-12).all()
    drawn = energy.latent.sample((200, 4, 6), energy.s_x, torch.Generator().manual_seed(0))
    assert (energy(drawn).sum(-1) >= minimum.value.sum(-1)).all()
