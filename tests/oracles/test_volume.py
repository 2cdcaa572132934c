"""MMCR and the coding rate against formulas in NumPy and finite differences; closed forms; degenerate batches."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.energy import cosine
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.objective.loss import Inference, Terms
from accord.objective.principles import coding_rate as coding_rate_principle
from accord.objective.principles import mmcr, regularized
from accord.objective.volume import CosineToMean, centroid_norm, coding_rate, local_norm, views_of_y

SIZES = [(6, 4), (4, 6), (2, 5), (5, 5)]


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(t: Tensor) -> np.ndarray:
    a = t.numpy()
    return cast(np.ndarray, a / np.sqrt((a * a).sum(-1, keepdims=True)))


def nuclear(a: np.ndarray) -> float:
    """The trace of the root of the Gram matrix."""
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(a @ a.T if len(a) < a.shape[1] else a.T @ a), 0, None)).sum())


def model(dim: int, *, predicted: bool = False) -> JointEmbedding:
    torch.manual_seed(0)
    predictor = MLPPredictor(dim, hidden=(7,)) if predicted else IdentityPredictor()
    return JointEmbedding(nn.Identity(), nn.Identity(), predictor, cost=cosine).double()


def infer(s_x: Tensor, s_y: Tensor, *, predicted: bool = False) -> Inference:
    made = model(s_x.shape[-1], predicted=predicted)
    energy = made.energy(s_x, s_y)
    return Inference(energy, made.minimizer(energy), made.minimizer)


def total(terms: Terms, inference: Inference) -> Tensor:
    return sum((w * t(inference) for w, t in terms.values()), start=torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_nuclear_norms(n: int, dim: int) -> None:
    views = rows(0, 3, n, dim)
    f = unit(views)
    assert centroid_norm(views).item() == pytest.approx(nuclear(f.mean(0)), rel=1e-8)
    assert local_norm(views).item() == pytest.approx(np.mean([nuclear(f[:, i]) for i in range(n)]), rel=1e-8)
    for function in (centroid_norm, local_norm):
        assert torch.autograd.gradcheck(function, views.clone().requires_grad_())


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_coding_rate(n: int, dim: int) -> None:
    """By the eigenvalues of the D x D matrix, whichever side is used; the sign: large is good."""
    s, other = rows(0, n, dim), rows(1, n, dim)

    def formula(s: Tensor, eps: float) -> float:
        z = unit(s)
        return float(np.log1p(dim / (n * eps) * np.clip(np.linalg.eigvalsh(z.T @ z), 0, None)).sum() / 2)

    assert coding_rate(s, eps=0.3).item() == pytest.approx(formula(s, 0.3), rel=1e-10)
    expected = (formula(s, 0.2) + formula(other, 0.2)) / 2
    assert coding_rate(torch.stack([s, other])).item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(coding_rate, s.clone().requires_grad_())
    assert coding_rate(s).item() > coding_rate(s[:1].expand(n, dim).contiguous()).item()


def test_closed_forms() -> None:
    """N = D orthogonal samples, all views alike: every singular value is 1, every eigenvalue of the rate 1 / N."""
    n, eps = 5, 0.2
    views = torch.eye(n, dtype=torch.float64).expand(2, n, n).contiguous() * torch.arange(1.0, n + 1)[:, None]
    assert centroid_norm(views).item() == pytest.approx(n)
    assert local_norm(views).item() == pytest.approx(math.sqrt(2))
    assert coding_rate(views, eps=eps).item() == pytest.approx(n / 2 * math.log(1 + 1 / eps))
    one = torch.ones(n, n, dtype=torch.float64)
    assert coding_rate(one, eps=eps).item() == pytest.approx(math.log(1 + n / eps) / 2)  # collapsed: one direction
    assert centroid_norm(one.expand(2, n, n)).item() == pytest.approx(math.sqrt(n))


@pytest.mark.parametrize("predicted", [False, True])
def test_mmcr_is_the_paper_with_predictions_as_views(predicted: bool) -> None:
    s_x, s_y = rows(0, 6, 4), rows(1, 6, 4)
    inference = infer(s_x, s_y, predicted=predicted)
    prediction = s_x if not predicted else model(4, predicted=True).predictor(s_x, s_x[:, :0], None)
    views = torch.stack([prediction.detach(), s_y])
    torch.testing.assert_close(views_of_y(inference).detach(), views)
    expected = -centroid_norm(views) + 0.3 * local_norm(views)
    assert total(mmcr(local=0.3), inference).item() == pytest.approx(expected.item(), rel=1e-10)
    crops = rows(5, 3, 6, 4)
    assert views_of_y(infer(crops, s_y, predicted=predicted)).shape == (4, 6, 4)


def test_coding_rate_is_the_paper_for_two_views() -> None:
    s_x, s_y = rows(0, 6, 4), rows(1, 6, 4)
    f, g = torch.from_numpy(unit(s_x)), torch.from_numpy(unit(s_y))
    invariance = sum((1 - torch.cosine_similarity(v, (f + g) / 2)).mean().item() for v in (f, g)) / 2
    rate = (coding_rate(s_x, eps=0.1) + coding_rate(s_y, eps=0.1)).item() / 2
    value = total(coding_rate_principle(invariance=3.0, eps=0.1), infer(s_x, s_y)).item()
    assert value == pytest.approx(3 * invariance - rate, rel=1e-10)


@pytest.mark.parametrize("terms", [mmcr, coding_rate_principle])
def test_degenerate_batches(terms) -> None:  # type: ignore[no-untyped-def]
    for s_x, s_y in [
        (torch.ones(6, 4, dtype=torch.float64), torch.ones(6, 4, dtype=torch.float64)),  # constant
        (torch.ones(6, 4, dtype=torch.float64), -torch.ones(6, 4, dtype=torch.float64)),  # opposite: F = 2
        (torch.zeros(6, 4, dtype=torch.float64), torch.zeros(6, 4, dtype=torch.float64)),
        (rows(0, 6, 4), rows(0, 6, 4)),  # equal views
    ]:
        a, b = s_x.requires_grad_(), s_y.requires_grad_()
        value = total(terms(), infer(a, b))
        value.backward()
        assert value.isfinite()
        for s in (a, b):
            assert s.grad is not None
            assert s.grad.isfinite().all()
    nan = torch.full((6, 4), math.nan, dtype=torch.float64)
    assert total(terms(), infer(nan, nan)).isnan()
    regularizer = [t for n, (_, t) in terms().items() if n != "invariance"]
    for term in regularizer:
        with pytest.raises(UsageError, match="at least two rows"):
            term(infer(torch.ones(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)))


@pytest.mark.parametrize("terms", [mmcr, coding_rate_principle])
def test_half_precision_and_autocast(terms) -> None:  # type: ignore[no-untyped-def]
    s_x = rows(0, 64, 32).float()
    s_y = s_x + 0.5 * rows(1, 64, 32).float()
    made = model(32).float()

    def value(a: Tensor, b: Tensor) -> float:
        e = made(a, b)
        return sum(w * t(Inference(e, made.minimizer(e), made.minimizer)).item() for w, t in terms().values())

    plain = value(s_x, s_y)
    for dtype in (torch.float16, torch.bfloat16):
        assert value(s_x.to(dtype), s_y.to(dtype)) == pytest.approx(plain, rel=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert value(s_x, s_y) == pytest.approx(plain, rel=1e-5)


def test_refusals() -> None:
    for make in (lambda: mmcr(local=-1.0), lambda: coding_rate_principle(invariance=-1.0)):
        with pytest.raises(UsageError, match="is a weight"):
            make()
    with pytest.raises(UsageError, match="eps"):
        coding_rate_principle(eps=0.0)
    with pytest.raises(UsageError, match="not finite"):
        centroid_norm(torch.full((2, 3, 4), math.nan))
    assert CosineToMean()(infer(rows(0, 4, 3), rows(0, 4, 3))).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("terms", [mmcr, coding_rate_principle])
def test_twenty_steps(terms) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
    objective = regularized(JointEmbedding(encoder, encoder, IdentityPredictor(), cost=cosine), terms())
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    x = torch.randn(32, 8)
    y = x + 0.3 * torch.randn(32, 8)
    losses = []
    for _ in range(20):
        loss = objective(Pair(x, y)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-2
    f = objective.model.minimizer(objective.model(x, y).cross()).value
    assert f.argmin(1).eq(torch.arange(32)).float().mean() > 0.8
