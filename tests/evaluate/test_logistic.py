"""The solver against scikit-learn, on one problem and on many at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from accord.evaluate.logistic import Problem, fit, with_ones


def made(n: int, dim: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=g, dtype=torch.float64) * torch.linspace(1, 0.1, dim)
    scores = x @ torch.randn(dim, classes, generator=g, dtype=torch.float64) + torch.randn(n, classes, generator=g)
    return x, scores.argmax(1)


def solve(x: torch.Tensor, label: torch.Tensor, strength: float, weight: torch.Tensor | None = None) -> torch.Tensor:
    ones = with_ones(x)
    n, width = ones.shape
    weight = torch.full((n,), 1 / n, dtype=x.dtype) if weight is None else weight / weight.sum()
    bound = 0.5 * ones.T @ ones / n + strength * torch.eye(width, dtype=x.dtype)
    factor = torch.linalg.cholesky(bound)
    target = torch.nn.functional.one_hot(label).to(x.dtype)
    return fit(
        Problem(ones, target, weight[None]),
        torch.tensor(strength, dtype=x.dtype),
        lambda g: torch.cholesky_solve(g.mT, factor).mT,
        torch.zeros(1, target.shape[1], width, dtype=x.dtype),
        iterations=500,
        tolerance=1e-13,
    )[0]


@pytest.mark.parametrize(("n", "dim", "classes"), [(200, 5, 3), (60, 100, 4), (150, 8, 2)])
@pytest.mark.parametrize("strength", [0.3, 3e-3])
def test_same_minimum_as_scikit_learn(n: int, dim: int, classes: int, strength: float) -> None:
    x, label = made(n, dim, classes, seed=n)
    reference = LogisticRegression(C=1 / (n * strength), tol=1e-10, max_iter=20_000).fit(x.numpy(), label.numpy())
    found = torch.softmax(with_ones(x) @ solve(x, label, strength).T, 1).numpy()
    if classes == 2:  # scikit-learn has one vector of weights for two classes: half the penalty
        reference.set_params(C=2 / (n * strength)).fit(x.numpy(), label.numpy())
    assert np.abs(found - reference.predict_proba(x.numpy())).max() < 1e-5


def test_gradient_is_zero_at_the_minimum_and_the_bias_is_free() -> None:
    x, label = made(120, 6, 3, seed=1)
    w = solve(x, label, 10.0)
    problem = Problem(with_ones(x), torch.nn.functional.one_hot(label).double(), torch.full((1, 120), 1 / 120).double())
    assert problem.value_and_gradient(w[None], torch.tensor(10.0).double())[1].abs().max() < 1e-6
    shares = torch.softmax(with_ones(x) @ w.T, 1).mean(0)
    assert torch.allclose(shares, torch.bincount(label).double() / 120, atol=1e-6)  # what an unpenalised bias gives


def test_gradient_is_that_of_autograd() -> None:
    x, label = made(30, 4, 3, seed=2)
    problem = Problem(with_ones(x), torch.nn.functional.one_hot(label).double(), torch.rand(2, 30).double())
    w = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    value, gradient = problem.value_and_gradient(w, torch.tensor([0.7, 0.1]).double())
    (expected,) = torch.autograd.grad(value.sum(), w)
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_many_problems_at_once_are_each_alone() -> None:
    x, label = made(80, 6, 3, seed=3)
    masks = (torch.arange(80) % 4 != torch.arange(4)[:, None]).double()
    strengths = torch.tensor([1.0, 0.1, 0.01, 1e-3], dtype=torch.float64)
    ones, target = with_ones(x), torch.nn.functional.one_hot(label).double()
    bound = 0.5 * (ones.square()).mean(0) + strengths[:, None, None]
    together = fit(
        Problem(ones, target, masks / masks.sum(-1, keepdim=True)),
        strengths,
        lambda g: g / bound,
        torch.zeros(4, 3, 7, dtype=torch.float64),
        iterations=2000,
        tolerance=1e-13,
    )
    for one, mask, strength in zip(together, masks, strengths, strict=True):
        assert torch.allclose(one, solve(x, label, float(strength), mask), atol=1e-3)


def test_float32_stops_where_rounding_rules() -> None:
    x, label = made(300, 10, 3, seed=4)
    exact, rough = solve(x, label, 1e-4), solve(x.float(), label, 1e-4)
    assert rough.isfinite().all()
    agree = ((with_ones(x) @ exact.T).argmax(1) == (with_ones(x.float()) @ rough.T).argmax(1)).double().mean()
    assert agree > 0.98
