"""What every statistic of a batch asks of embeddings, and the precision it is computed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accord.collective import world_size
from accord.errors import UsageError
from accord.objective.loss import Inference

Kernel = Callable[..., Tensor]
"""Embeddings, one or two, to a scalar."""


def over_branches(kernel: Kernel, inference: Inference) -> Tensor:
    """Mean of the values of both branches."""
    return (evaluate(kernel, inference.energy.s_x) + evaluate(kernel, inference.energy.s_y)) / 2


def checked(kernel: Kernel, *embeddings: Tensor) -> Tensor:
    """`evaluate`, after a look at the numbers on the CPU (elsewhere that would wait for the device).

    Raises:
        UsageError: for numbers that are not finite, and as `evaluate`.
    """
    for s in embeddings:
        if s.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(torch.isfinite(s).all()):
            bad = int((~torch.isfinite(s)).sum())
            raise UsageError(
                f"embeddings of shape {tuple(s.shape)} hold {bad} numbers that are not finite",
                help="look at the input and the learning rate of the step that made them",
            )
    return evaluate(kernel, *embeddings)


def evaluate(kernel: Kernel, *embeddings: Tensor) -> Tensor:
    """`kernel` of well-formed embeddings, in float32 or better and outside autocast.

    Raises:
        UsageError: for another shape than (*views, batch, dim), fewer than two rows, or two embeddings of different shapes.
    """
    for s in embeddings:
        require(
            s.ndim >= 2 and s.is_floating_point() and s.shape[-1] > 0,
            f"expected embeddings (*views, batch, dim) of floating point, got {tuple(s.shape)} {s.dtype}",
        )
        require(
            s.shape[-2] * world_size() >= 2,
            f"statistics of a batch need at least two rows, got {s.shape[-2]} in {tuple(s.shape)}",
            "raise the batch size, or drop the last incomplete batch",
        )
    if len(embeddings) == 2:
        a, b = (tuple(s.shape[-2:]) for s in embeddings)
        require(a == b, f"both views need the same (batch, dim), got {a} and {b}")
    with torch.autocast(embeddings[0].device.type, enabled=False):
        return kernel(*(s.float() if s.dtype in (torch.float16, torch.bfloat16) else s for s in embeddings))


def require(condition: bool, message: str, remedy: str | None = None) -> None:
    """Raises a UsageError unless the condition holds."""
    if not condition:
        raise UsageError(message, help=remedy)
