r"""Optimisers as settings: AdamW, SGD and LARS, $w \leftarrow w - v,\; v \leftarrow \mu v + \gamma \lambda (g + \beta w)$.

Biases, gains of norms and other parameters with fewer than two axes get no weight decay and no LARS scaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from accord.errors import UsageError
from accord.train.sharded import is_sharded


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay. Loshchilov, Hutter 2019, arXiv:1711.05101; Kingma, Ba 2015, arXiv:1412.6980."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _bounded("beta1", self.beta1, 0, 1)
        _bounded("beta2", self.beta2, 0, 1)

    def default_rate(self, batch_size: int) -> float:
        """The usual learning rate."""
        return 1e-3

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of these parameter groups."""
        return torch.optim.AdamW(groups, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum; weight decay is part of the gradient."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        _bounded("momentum", self.momentum, 0, 1)

    def default_rate(self, batch_size: int) -> float:
        """0.05 per 256 samples in a batch."""
        return 0.05 * batch_size / 256

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of these parameter groups."""
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, nesterov=self.momentum > 0, fused=True)


@dataclass(frozen=True)
class LARS:
    """Layer-wise adaptive rates for large batches; see `LayerwiseSGD`. You, Gitman, Ginsburg 2017, arXiv:1708.03888."""

    momentum: float = 0.9
    trust: float = 0.001

    def __post_init__(self) -> None:
        _bounded("momentum", self.momentum, 0, 1)
        _bounded("trust", self.trust, 0, math.inf)

    def default_rate(self, batch_size: int) -> float:
        """0.3 per 256 samples in a batch."""
        return 0.3 * batch_size / 256

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of these parameter groups."""
        return LayerwiseSGD(groups, momentum=self.momentum, trust=self.trust)


OptimizerSettings = AdamW | SGD | LARS


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: those with weight decay (two axes or more), and the rest; sharded ones in groups of their own.

    Each group has `names`, which a checkpoint uses; a parameter that is shared appears once. Groups without members are left out.

    Raises:
        UsageError: if nothing is trainable.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("nothing to train", help="give a parameter of the model requires_grad=True", code="E259")
    groups = []
    for decay, apart in ((True, False), (False, False), (True, True), (False, True)):
        members = [(name, p) for name, p in named if (p.ndim >= 2) is decay and is_sharded(p) is apart]
        if members:
            groups.append(
                {
                    "params": [p for _, p in members],
                    "names": [name for name, _ in members],
                    "weight_decay": weight_decay if decay else 0.0,
                    "adapt": decay,
                }
            )
    return groups


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Gives every group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class LayerwiseSGD(Optimizer):
    r"""LARS: momentum SGD whose rate is scaled, tensor by tensor, to a fixed share of the length of the weights.

    $v \leftarrow \mu v + \gamma \lambda (g + \beta w)$, $w \leftarrow w - v$ with $\lambda = \eta \lVert w \rVert /
    (\lVert g \rVert + \beta \lVert w \rVert)$, learning rate $\gamma$, weight decay $\beta$, trust coefficient $\eta$ and momentum $\mu$.
    $\lambda = 1$ where weight or gradient is zero and in groups with ``adapt=False``. This is Algorithm 1 of You, Gitman,
    Ginsburg 2017, arXiv:1708.03888. The code published with VICReg and Barlow Twins differs in two points: it divides by
    $\lVert g + \beta w \rVert$, and applies $\gamma$ outside the momentum.

    Nothing is read back from the device. As with torch's fused optimisers a tensor `found_inf` that is not 0 leaves everything as it is.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ):
        self.found_inf: Tensor | None = None
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)

    def _update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        v = state.setdefault("momentum_buffer", torch.zeros_like(p))
        update = gradient + group["weight_decay"] * p
        if group["adapt"]:
            update *= _layer_rate(p, gradient, group["weight_decay"], group["trust"])
        moved = group["momentum"] * v + group["lr"] * update
        if self.found_inf is None:
            v.copy_(moved)
            p.sub_(moved)
        else:
            fine = self.found_inf == 0
            v.copy_(torch.where(fine, moved, v))
            p.sub_(torch.where(fine, moved, 0.0))


def _layer_rate(p: Tensor, gradient: Tensor, weight_decay: float, trust: float) -> Tensor:
    length, slope = p.norm(), gradient.norm()
    rate = trust * length / (slope + weight_decay * length)
    return torch.where((length > 0) & (slope > 0), rate, 1.0)


def _bounded(name: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise UsageError(f"{name} = {value} is out of bounds", help=f"give {low} <= {name} < {high}", code="E257")
