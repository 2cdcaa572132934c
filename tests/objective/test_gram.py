"""The Gram product: value, first and second derivatives, broadcasting."""

from __future__ import annotations

import pytest
import torch

from accord.objective.gram import gram_product


@pytest.mark.parametrize("shapes", [((4, 7), (4, 7)), ((2, 4, 7), (4, 7)), ((3, 1, 4, 3), (2, 4, 3))])
def test_value_and_derivatives(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, dtype=torch.float64, generator=g).requires_grad_() for shape in shapes)
    torch.testing.assert_close(gram_product(x, y), (x.mT @ y).square().sum((-2, -1)))
    torch.testing.assert_close(gram_product(x), (x.mT @ x).square().sum((-2, -1)))
    assert torch.autograd.gradcheck(gram_product, (x, y))
    assert torch.autograd.gradcheck(gram_product, (x,))
    assert torch.autograd.gradgradcheck(gram_product, (x, y), fast_mode=True)
    assert torch.autograd.gradgradcheck(gram_product, (x,), fast_mode=True)


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, y = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    gram_product(x, y).backward()
    assert x.grad is not None
    assert y.grad is None
