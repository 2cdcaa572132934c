r"""Contrast: the energy of a pair is pushed down, that of pairs that do not belong together up.

Three parts that know nothing of each other: the energies $F(x_i, y_j)$ of a model, with or without a latent; `Negatives`, which say
which pairs do not belong together; and a loss of $F^+$ and $F^-$ from this file, or any function like them. `Contrast` is the term
made of them.

A loss takes $F^+$, (rows,), $F^-$, (rows, k), and `distance`, which tells on demand how far the k are from the right partner,
(rows, k); it gives one number for each row. A mean over negatives counts those that cost nothing, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accord.collective import all_reduce_sum
from accord.model.latent import counts, not_negative, positive
from accord.model.minimize import again
from accord.objective.candidates import Candidates, sides
from accord.objective.loss import Inference
from accord.objective.negatives import InBatch, Negatives

ELEMENTS = 1 << 25
"""Energies that are made at a time, unless a term is told otherwise: 134 MB in float32, those of 5,792 pairs with all others."""
BLOCK = 1 << 19
"""Numbers of a matrix that are worked on at a time where each is read once: they stay in the cache of a processor."""

PairLoss = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""(F+, F-, distance) to one number for each row: (rows,), (rows, k), () -> (rows, k)."""


class Contrast(nn.Module):
    r"""Mean over the rows of all ranks of a loss of $F^+$ and $F^-$; with several views of x, the mean over the views.

    Every x is a row, and its negatives are y; if `symmetric` every y is a row, too, whose negatives are x, and both means are
    averaged. Energies are made for some rows at a time, and again in the backward pass where one time is not enough, so memory does
    not grow with the square of the batch.

    Args:
        loss: of this file, or a function like them.
        negatives: all others of the batch by default.
        symmetric: in both directions.
        within: the x of other pairs are negatives of an x as well, in the place of y (and y of y): for two views with one encoder.
        chunk: numbers made at a time; it changes nothing but memory.

    Raises (when called):
        UsageError: for a batch of one pair, a sequence with one minimum, or `within` where there are actions.
    """

    def __init__(
        self,
        loss: PairLoss,
        negatives: Negatives | None = None,
        *,
        symmetric: bool = True,
        within: bool = False,
        chunk: int = ELEMENTS,
    ):
        super().__init__()
        counts(chunk=chunk)
        self.loss = loss
        self.negatives = InBatch() if negatives is None else negatives
        self.symmetric, self.within, self.chunk = symmetric, within, chunk

    def extra_repr(self) -> str:
        """What is compared with what."""
        return f"loss={self.loss}, symmetric={self.symmetric}, within={self.within}"

    def forward(self, inference: Inference) -> Float[Tensor, ""]:
        """Scalar."""
        found = sides(inference, symmetric=self.symmetric, within=self.within)
        return torch.stack([self._mean(side) for side in found]).mean()

    def _mean(self, side: Candidates) -> Tensor:
        choose = self.negatives(side)
        with_own = isinstance(self.negatives, InBatch) and not side.within

        def some(rows: slice) -> Tensor:
            if with_own and isinstance(
                self.loss, InfoNCE
            ):  # whose sum the pair belongs to: nothing has to be taken out
                energy = side.all(rows)
                with torch.autocast(energy.device.type, enabled=False):
                    return self.loss.among(side.positive[rows], energy).sum()
            negative, take = choose(rows)
            with torch.autocast(negative.device.type, enabled=False):
                values = self.loss(side.positive[rows], negative, lambda: take(side.distance(rows)))
                return values.sum()

        blocks = side.blocks(self.chunk, self.negatives.per_row(side))
        parts = [some(blocks[0])] if len(blocks) == 1 else [again(some, rows) for rows in blocks]
        return all_reduce_sum(torch.stack(parts).sum()) / side.total


# --- losses ---


@dataclass(frozen=True)
class InfoNCE:
    r"""$-\log \frac{e^{-F^+/\tau}}{e^{-F^+/\tau} + \sum_k e^{-F^-_k/\tau}}$: the pair is part of the sum.

    Van den Oord, Li, Vinyals 2018, arXiv:1807.03748. With $F = 1 - \cos$ the exponentials are $e^{\cos/\tau}$ up to a factor that cancels.
    """

    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(temperature=self.temperature)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        return softplus(_log_ratio(pair, others, self.temperature))

    def among(self, pair: Tensor, all_pairs: Tensor) -> Tensor:
        """(rows,), from energies with every candidate, (rows, columns), the partner among them."""
        total: Tensor = _LogSumExp.apply(all_pairs, -1 / self.temperature)  # type: ignore[no-untyped-call]
        return pair / self.temperature + total


@dataclass(frozen=True)
class Decoupled:
    r"""$-\log \frac{e^{-F^+/\tau}}{\sum_k e^{-F^-_k/\tau}}$: InfoNCE without the pair in the sum.

    Yeh et al. 2022, arXiv:2110.06848 (DCL).
    """

    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(temperature=self.temperature)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        return _log_ratio(pair, others, self.temperature)


@dataclass(frozen=True)
class Hinge:
    r"""$\frac1k \sum_k \max(0, F^+ - F^-_k + m + \mu\, d_k)$, $d_k$ the mean squared difference of the wrong partner from the right one.

    Triplets: Schroff, Kalenichenko, Philbin 2015, arXiv:1503.03832. A margin that grows with the distance: LeCun 2022, "A Path Towards
    Autonomous Machine Intelligence", table 1.
    """

    margin: float = 0.5
    by_distance: float = 0.0

    def __post_init__(self) -> None:
        not_negative(margin=self.margin, by_distance=self.by_distance)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        margin = self.margin + (self.by_distance * distance() if self.by_distance else 0.0)
        return torch.relu(pair[:, None] - others + margin).mean(1)


@dataclass(frozen=True)
class Siamese:
    r"""$\frac12 D_+^2 + \frac1k \sum_k \frac12 \max(0, m - D_k)^2$ with the distance $D = \sqrt F$.

    Under `squared_error` D is a root mean square over dimensions. One pair weighs as much as all its negatives together. Hadsell,
    Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping" (DrLIM).
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        positive(margin=self.margin)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        apart = others.clamp_min(torch.finfo(others.dtype).tiny).sqrt()  # no division by 0 in the gradient
        return pair / 2 + torch.relu(self.margin - apart).square().mean(1) / 2


@dataclass(frozen=True)
class SquareSquare:
    r"""$(F^+)^2 + \frac1k \sum_k \max(0, m - F^-_k)^2$.

    LeCun, Chopra, Hadsell, Ranzato, Huang 2006, "A Tutorial on Energy-Based Learning".
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        positive(margin=self.margin)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        return pair.square() + torch.relu(self.margin - others).square().mean(1)


@dataclass(frozen=True)
class Logistic:
    r"""$\frac1k \sum_k \log(1 + e^{(F^+ - F^-_k)/\tau})$: a soft hinge.

    LeCun et al. 2006, "A Tutorial on Energy-Based Learning", where $\tau = 1$.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        positive(temperature=self.temperature)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        return softplus((pair[:, None] - others) / self.temperature).mean(1)


@dataclass(frozen=True)
class Spectral:
    r"""$-2\mu\,(1 - F^+) + \frac{\mu^2}{k} \sum_k (1 - F^-_k)^2$: with $F = 1 - \cos$, of embeddings of length $\sqrt\mu$.

    HaoChen, Wei, Gaidon, Ma 2021, arXiv:2106.04156: $-2\,\mathbb E[f \cdot f^+] + \mathbb E[(f \cdot f')^2]$.
    """

    mu: float = 1.0

    def __post_init__(self) -> None:
        positive(mu=self.mu)

    def __call__(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        return -2 * self.mu * (1 - pair) + self.mu**2 * (1 - others).square().mean(1)


class PairwiseSigmoid(nn.Module):
    r"""$-\log \sigma(\ell^+) - \sum_k \log \sigma(-\ell^-_k)$ with the logit $\ell = t\,(1 - F) + b$: is it a pair, yes or no?

    With $F = 1 - \cos$ and all others of the batch as negatives this is SigLIP: Zhai, Mustafa, Kolesnikov, Beyer 2023,
    arXiv:2303.15343. t and b are learned, t as its logarithm.

    Args:
        scale: t at the start.
        bias: b at the start; negative, for most pairs are none.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0):
        super().__init__()
        positive(scale=scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
        """(rows,)."""
        yes, no = (self.log_scale.exp() * (1 - energy) + self.bias for energy in (pair, others))
        return softplus(-yes) + softplus(no).sum(1)


class _LogSumExp(torch.autograd.Function):
    r"""$\log \sum_k e^{c E_{ik}}$ of each row: every number is read once forwards and once backwards, and nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, energy: Tensor, scale: float) -> Tensor:
        parts = [torch.logsumexp(energy[rows] * scale, dim=1) for rows in _blocks(energy)]
        total = torch.cat(parts)
        ctx.save_for_backward(energy, total)
        ctx.scale = scale
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        energy, total = ctx.saved_tensors
        slope = torch.empty_like(energy)
        for rows in _blocks(energy):
            weight = slope[rows]
            torch.mul(energy[rows], ctx.scale, out=weight)
            weight.sub_(total[rows, None]).exp_().mul_((ctx.scale * gradient[rows])[:, None])
        return slope, None


def _blocks(t: Float[Tensor, "rows columns"]) -> list[slice]:
    step = max(1, BLOCK // max(1, t.shape[1]))
    return [slice(start, start + step) for start in range(0, len(t), step)]


def softplus(t: Tensor) -> Tensor:
    r"""$\log(1 + e^t)$ to the last digit of float64."""
    return F.softplus(t, threshold=40.0)


def _log_ratio(pair: Tensor, others: Tensor, temperature: float) -> Tensor:
    return pair / temperature + torch.logsumexp(-others / temperature, dim=1)
