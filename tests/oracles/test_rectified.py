"""RDMReg: its target against known moments, its distance against loops, its embeddings sparse in the end."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.model.projector import Projector
from accord.objective.loss import Inference
from accord.objective.principles import rdmreg, regularized
from accord.objective.rectified import RDMReg, rectified_gaussian, sliced_wasserstein, unit_scale
from accord.objective.slices import directions, matched_quantiles


def rows(seed: int, n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def infer(s_x: Tensor, s_y: Tensor) -> Inference:
    model = JointEmbedding(nn.Identity(), nn.Identity(), IdentityPredictor()).double()
    energy = model(s_x, s_y)
    return Inference(energy, model.minimizer(energy), model.minimizer)


def loop_distance(s: Tensor, t: Tensor, a: Tensor) -> float:
    values = []
    for k in range(a.shape[1]):
        u, v = (
            sorted(math.fsum(x * y for x, y in zip(r, a[:, k].tolist(), strict=True)) for r in m.tolist())
            for m in (s, t)
        )
        values += [(p - q) ** 2 for p, q in zip(u, v, strict=True)]
    return math.fsum(values) / len(values)


def test_distance_and_gradient() -> None:
    s, t, a = rows(0, 9, 4), rows(1, 9, 4), directions(4, 6, 0).double()
    assert sliced_wasserstein(s, t, a).item() == pytest.approx(loop_distance(s, t, a), rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: sliced_wasserstein(s, t, a), s.clone().requires_grad_())
    views = torch.stack([s, t])
    assert sliced_wasserstein(views, t, a).item() == pytest.approx(loop_distance(s, t, a) / 2, rel=1e-12)
    assert sliced_wasserstein(t[torch.randperm(9)], t, a).item() == pytest.approx(0, abs=1e-24)
    line = torch.tensor([[3.0], [1.0]])
    assert matched_quantiles(line, torch.tensor([[0.0], [5.0]]))[0].item() == pytest.approx((1 + 4) / 2)


@pytest.mark.parametrize("p", [1.0, 2.0, 0.7])
def test_the_target_has_the_moments_of_a_rectified_generalised_gaussian(p: float) -> None:
    n = 200_000
    x = rectified_gaussian(n, 2, mu=0.0, p=p, seed=3)
    assert torch.equal(x, rectified_gaussian(n, 2, mu=0.0, p=p, seed=3))
    assert not torch.equal(x, rectified_gaussian(n, 2, mu=0.0, p=p, seed=4))
    assert (x >= 0).all()
    assert (x > 0).double().mean().item() == pytest.approx(0.5, abs=5e-3)
    assert x.square().mean().item() == pytest.approx(0.5, rel=0.03)  # half of a variance of 1
    sigma = unit_scale(p)  # E|X|: Gamma(2/p) / Gamma(1/p) p^(1/p) sigma
    first = math.gamma(2 / p) / math.gamma(1 / p) * p ** (1 / p) * sigma
    assert x.mean().item() == pytest.approx(first / 2, rel=0.02)
    below = rectified_gaussian(n, 1, mu=-1.0, p=2.0)
    assert (below > 0).double().mean().item() == pytest.approx(0.1587, abs=5e-3)


def test_unit_scale() -> None:
    assert unit_scale(2.0) == pytest.approx(1.0)
    assert unit_scale(1.0) == pytest.approx(1 / math.sqrt(2))


def test_the_term_is_fresh_each_step_and_resumes() -> None:
    inference = infer(rows(0, 8, 3).relu(), rows(1, 8, 3).relu())
    term = RDMReg(slices=5, seed=2)
    first = term(inference).item()
    target, a = rectified_gaussian(8, 3, seed=2), directions(3, 5, 2).double()
    energy = inference.energy
    expected = (loop_distance(energy.s_x, target, a) + loop_distance(energy.s_y, target, a)) / 2
    assert first == pytest.approx(expected, rel=1e-10)
    second = term(inference).item()
    assert second != first
    term.eval()
    third = term(inference).item()
    assert third == term(inference).item()
    other = RDMReg(slices=5, seed=2)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert other(inference).item() == third


def test_the_principle_is_the_authors_code() -> None:
    s_x, s_y = rows(0, 8, 3).relu(), rows(1, 8, 3).relu()
    inference = infer(s_x, s_y)
    terms = rdmreg(slices=5)
    value = sum(w * t(inference).item() for w, t in terms.values())
    w = RDMReg(slices=5)(inference).item()
    assert value == pytest.approx(25 * (s_x - s_y).square().mean().item() + 250 * w, rel=1e-10)


def test_training_makes_embeddings_sparse_and_alive() -> None:
    torch.manual_seed(0)
    encoder = Encoder(nn.Linear(8, 64), Projector(64, 32, hidden=(64,), rectified=True))
    objective = regularized(JointEmbedding(encoder, encoder, IdentityPredictor()), rdmreg(slices=64, mu=-0.5, p=2.0))
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    losses = []
    for step in range(100):
        x = torch.randn(128, 8, generator=torch.Generator().manual_seed(step))
        loss = objective(Pair(x, x + 0.1 * torch.randn(128, 8))).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    s = encoder(x)
    assert (s >= 0).all()
    assert 0.15 < (s > 0).float().mean().item() < 0.45  # 0.31 in the target
    assert s.std(0).min() > 0.05


def test_refusals_and_what_is_not_a_number() -> None:
    s = torch.full((6, 4), math.nan, dtype=torch.float64)
    assert RDMReg(slices=4)(infer(s, s)).isnan()
    with pytest.raises(UsageError, match="at least two rows"):
        RDMReg(slices=4)(infer(rows(0, 1, 4), rows(1, 1, 4)))
    with pytest.raises(UsageError, match=r"target of shape \(6, 4\), got \(5, 4\)"):
        sliced_wasserstein(rows(0, 6, 4), rows(0, 5, 4), directions(4, 3, 0).double())
    for make in (
        lambda: RDMReg(slices=0),
        lambda: RDMReg(p=0.0),
        lambda: RDMReg(sigma=-1.0),
        lambda: RDMReg(mu=math.nan),
        lambda: rdmreg(weight=-1.0),
    ):
        with pytest.raises(UsageError):
            make()
