"""Terms for sequences and matches of feature maps against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.objective.local import local_vicreg, nearest_matches
from accord.objective.loss import Inference
from accord.objective.regularizers import covariance, variance
from accord.objective.temporal import InverseDynamics, slowness, straight, straightening, temporal_similarity


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def infer(s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Inference:
    predictor = MLPPredictor(s_x.shape[-1], action_dim=action.shape[-1]) if action is not None else IdentityPredictor()
    model = JointEmbedding(nn.Identity(), nn.Identity(), predictor).double()
    energy = model.energy(s_x, s_y, action)
    return Inference(energy, model.minimizer(energy), model.minimizer)


def test_slowness_and_straightening() -> None:
    s = rows(0, 2, 5, 3)
    steps = [(b, t, j) for b in range(2) for t in range(4) for j in range(3)]
    slow = math.fsum((s[b, t, j] - s[b, t + 1, j]).item() ** 2 for b, t, j in steps) / len(steps)
    assert slowness(s).item() == pytest.approx(slow, rel=1e-12)
    curved = []
    for b in range(2):
        for t in range(3):
            u, v = (s[b, t + k + 1] - s[b, t + k] for k in (0, 1))
            curved.append(1 - (u @ v / (u.norm() * v.norm())).item())
    assert straightening(s).item() == pytest.approx(math.fsum(curved) / len(curved), rel=1e-10)
    for function in (slowness, straightening):
        assert torch.autograd.gradcheck(function, s.clone().requires_grad_())
    line = torch.arange(5.0, dtype=torch.float64)[:, None] ** 2 * rows(1, 1, 3)
    assert straightening(line).item() == pytest.approx(0, abs=1e-12)  # whatever its speed
    back = torch.tensor([[0.0], [1.0], [0.0]])
    assert straightening(back).item() == pytest.approx(2.0)
    still = torch.zeros(4, 3, requires_grad=True)
    straightening(still).backward()
    assert still.grad is not None
    assert still.grad.isfinite().all()


def test_terms_of_pairs_that_follow_each_other() -> None:
    s = rows(0, 2, 5, 3)
    inference = infer(s[:, :-1], s[:, 1:])
    assert straight(inference).item() == pytest.approx(straightening(s).item(), rel=1e-12)
    assert temporal_similarity(inference).item() == pytest.approx(slowness(s).item(), rel=1e-12)


def test_inverse_dynamics() -> None:
    s_x, s_y, action = rows(0, 6, 4), rows(1, 6, 4), rows(2, 6, 2)
    term = InverseDynamics(4, 2, hidden=(5,)).double()
    first, last = term.layers
    told = last(torch.nn.functional.gelu(first(torch.cat([s_x, s_y], dim=1))))
    expected = (told - action).square().mean()
    torch.testing.assert_close(term(infer(s_x, s_y, action)), expected, rtol=1e-10, atol=1e-12)
    expected.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    with pytest.raises(UsageError, match="needs the action"):
        term(infer(s_x, s_y))
    with pytest.raises(UsageError, match="tells 3 numbers, an action has 2"):
        InverseDynamics(4, 3).double()(infer(s_x, s_y, action))
    with pytest.raises(UsageError, match="takes 10 numbers, s_x and s_y have 8"):
        InverseDynamics(5, 2).double()(infer(s_x, s_y, action))


def test_an_action_that_is_the_difference_is_learned() -> None:
    torch.manual_seed(0)
    term = InverseDynamics(3, 3)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    losses = []
    for step in range(150):
        s_x, s_y = rows(2 * step, 64, 3).float(), rows(2 * step + 1, 64, 3).float()
        inference = infer(s_x.double(), s_y.double(), (s_y - s_x).double())
        inference.energy.s_x, inference.energy.s_y, inference.energy.action = s_x, s_y, s_y - s_x
        loss = term(inference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


# --- matches of feature maps ---


def loop_matches(a: Tensor, b: Tensor, left: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    chosen_a, chosen_b = [], []
    for i in range(len(a)):
        pairs = []
        for p in range(a.shape[1]):
            apart = [(left[i, p] - right[i, q]).norm().item() for q in range(b.shape[1])]
            pairs.append((min(apart), p, apart.index(min(apart))))
        kept = sorted(pairs)[:count]
        chosen_a.append(torch.stack([a[i, p] for _, p, _ in kept]))
        chosen_b.append(torch.stack([b[i, q] for _, _, q in kept]))
    return torch.stack(chosen_a), torch.stack(chosen_b)


def test_matches() -> None:
    a, b = rows(0, 3, 5, 4), rows(1, 3, 6, 4)
    place_a, place_b = rows(2, 3, 5, 2), rows(3, 3, 6, 2)
    for found, expected in [
        (nearest_matches(a, b, count=3), loop_matches(a, b, a, b, 3)),
        (
            nearest_matches(a, b, count=5, place_a=place_a, place_b=place_b),
            loop_matches(a, b, place_a, place_b, 5),
        ),
    ]:
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_local_vicreg() -> None:
    a, b = rows(0, 5, 6, 4).requires_grad_(), rows(1, 5, 6, 4)
    place_a, place_b = rows(2, 5, 6, 2), rows(3, 5, 6, 2)

    def vicreg(s: Tensor, t: Tensor) -> Tensor:
        total = 25 * (s - t).square().mean()
        for k in range(s.shape[1]):
            spread = variance(s[:, k]) + variance(t[:, k])
            total = total + (25 * spread / 2 + covariance(s[:, k]) + covariance(t[:, k])) / s.shape[1]
        return total

    def both(left: Tensor, right: Tensor) -> Tensor:
        there = loop_matches(a, b, left, right, 3)
        back = loop_matches(b, a, right, left, 3)
        return (vicreg(*there) + vicreg(*back)) / 2

    value = local_vicreg(a, b, count=3, place_a=place_a, place_b=place_b)
    expected = both(a.detach(), b) + both(place_a, place_b)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, a), torch.autograd.grad(expected, a), rtol=1e-9, atol=1e-11)
    assert local_vicreg(a, a.clone(), count=6, variance_weight=0.0, covariance_weight=0.0).item() == 0


def test_refusals() -> None:
    a = rows(0, 3, 5, 4)
    for make, message in [
        (lambda: nearest_matches(a, a, count=6), "6 pairs were asked for of 5 positions"),
        (lambda: nearest_matches(a, a[:2], count=2), "expected maps"),
        (lambda: nearest_matches(a, a, count=0), "count"),
        (lambda: nearest_matches(a, a, count=1, place_a=a), "places of both maps"),
        (lambda: local_vicreg(a[:1], a[:1], count=2), "at least two rows"),
        (lambda: slowness(a[:, :1]), "time >= 2"),
        (lambda: straightening(a[:, :2]), "time >= 3"),
        (lambda: straight(infer(a[0], a[0])), "sequences"),
    ]:
        with pytest.raises(UsageError, match=message):
            make()
