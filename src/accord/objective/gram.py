r"""Squared cross-products by the side of the rows: $\lVert X^T Y \rVert_F^2 = \langle X X^T, Y Y^T \rangle$, N x N instead of D x D."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _GramProduct(torch.autograd.Function):
    r"""With its gradient $2\, Y Y^T X$: one product where automatic differentiation of $X X^T$ takes two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None) -> Tensor:
        gram_x = x @ x.mT
        gram_y = gram_x if y is None else y @ y.mT
        ctx.save_for_backward(x, y, gram_x, gram_y)
        return (gram_x * gram_y).sum((-2, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y, gram_x, gram_y = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative needs the Gram matrices as functions
            gram_x = x @ x.mT
            gram_y = gram_x if y is None else y @ y.mT
        twice = 2 * gradient[..., None, None]
        if y is None:
            return (2 * twice * gram_x) @ x, None
        dx = (twice * gram_y) @ x if ctx.needs_input_grad[0] else None
        return dx, (twice * gram_x) @ y if ctx.needs_input_grad[1] else None


def gram_product(x: Float[Tensor, "*a n d"], y: Float[Tensor, "*b n d"] | None = None) -> Float[Tensor, "*c"]:
    r"""$\sum_{ij} (X^T Y)_{ij}^2$, by default with Y = X; axes before the last two broadcast."""
    if y is not None:
        x, y = torch.broadcast_tensors(x, y)
    value: Tensor = _GramProduct.apply(x, y)  # type: ignore[no-untyped-call]
    return value
