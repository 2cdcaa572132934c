r"""A choice carried through a sequence: $r(z_t \mid z_{t-1}) = -\log T_{z_{t-1} z_t}$, and the exact minimum over all sequences.

The last batch axis is time. The dynamic programme is that of Viterbi 1967; at finite temperature it is the forward algorithm of
hidden Markov models (Baum et al. 1970), with the energies in the place of negative log-likelihoods.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.codebook import nearest
from accord.model.energy import Energy
from accord.model.latent import Latent, counts, not_negative, positive
from accord.model.minimize import Minimizer, Minimum


class Markov(Latent):
    """A code for each step of a sequence, whose price depends on the code before it: modes that last are cheap.

    Args:
        codes: K.
        dim: width of a code.
        weight: energy of a nat.
        stay: probability of the same code again, at the start; the transitions are learned.

    Raises:
        UsageError: for numbers that are out of bounds.
    """

    choice = True
    coupled = True

    def __init__(self, codes: int, dim: int, *, weight: float = 0.1, stay: float = 0.5):
        super().__init__()
        counts(codes=codes, dim=dim)
        not_negative(weight=weight)
        if not 0 < stay < 1:
            raise UsageError(f"stay: expected 0 < stay < 1, got {stay!r}", where="stay", help="set stay to 0.5, say")
        self.dim, self.weight = dim, weight
        self.table = nn.Parameter(torch.randn(codes, dim))
        self.first = nn.Parameter(torch.zeros(codes))
        bonus = math.log(stay * max(1, codes - 1) / (1 - stay))
        self.change = nn.Parameter(bonus * torch.eye(codes))

    @property
    def capacity(self) -> float:
        """The logarithm of K, for each step."""
        return math.log(len(self.table))

    def prices(self) -> tuple[Float[Tensor, "codes"], Float[Tensor, "codes codes"]]:
        """-log p of the first code, and -log p of each code (column) after each (row)."""
        return -self.first.log_softmax(0), -self.change.log_softmax(1)

    def index(self, z: Float[Tensor, "*shape latent"]) -> Tensor:
        """Which code is nearest, (*shape,)."""
        return nearest(z.detach(), self.table.detach())

    def price(self, z: Float[Tensor, "*shape time latent"], s_x: Tensor) -> Float[Tensor, "*shape time"]:
        """Of each step, given the one before."""
        first, change = self.prices()
        index = self.index(z)
        return torch.cat([first[index[..., :1]], change[index[..., :-1], index[..., 1:]]], dim=-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sequences along the last axis of `shape`."""
        first, change = (torch.exp(-price).cpu() for price in self.prices())
        count = math.prod(shape[:-1])
        index = [torch.multinomial(first, count, replacement=True, generator=generator)]
        for _ in range(1, shape[-1]):
            index.append(torch.multinomial(change[index[-1]], 1, generator=generator)[:, 0])
        return self.table[torch.stack(index, dim=-1).view(shape).to(self.table.device)].detach()

    def project(self, z: Tensor) -> Tensor:
        """The nearest codes; differentiable in them."""
        return self.table[self.index(z)]


class Viterbi(Minimizer):
    r"""The exact minimum over all $K^T$ sequences of a `Markov` latent, in $K^2 T$ steps.

    The value of step t is $F_{1:t} - F_{1:t-1}$: the sum over time is F of the sequence. At finite beta there are no $1/|Z|$ to
    divide by, for the prior is normalised: $F_\beta = -\frac1\beta \log \sum_z e^{-\beta E}$ with $\beta\lambda = 1$ is the
    negative log-likelihood over $\beta$.

    Args:
        beta: inverse temperature; inf gives the minimum.

    Raises (when called):
        UsageError: if the latent is not `Markov`, or there is no axis of time.
    """

    def __init__(self, beta: float = math.inf):
        super().__init__()
        if not math.isinf(beta):
            positive(beta=beta)
        self.beta = beta

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F of each step and the codes of the best sequence; `start` is ignored."""
        latent = energy.latent
        shape = energy.batch_shape
        if not isinstance(latent, Markov):
            raise UsageError(
                f"Viterbi is for Markov latents, this one is {type(latent).__name__}", help="use Enumerate"
            )
        if not shape:
            raise UsageError("Viterbi needs an axis of time: the last batch axis", help="give sequences")
        codes = latent.table
        costs = (
            energy.divergence(codes.view(len(codes), *[1] * len(shape), -1)).expand(len(codes), *shape).movedim(0, -1)
        )
        first, change = (latent.weight * price for price in latent.prices())
        path = _best_path(costs.detach(), first.detach(), change.detach())
        totals = _totals(costs, first, change, self.beta) if not math.isinf(self.beta) else None
        if totals is None:
            before = torch.cat([first.expand(*shape[:-1], 1, -1), change[path[..., :-1]]], dim=-2)
            value = (costs + before).gather(-1, path[..., None]).squeeze(-1)
        else:
            value = torch.cat([totals[..., :1], totals.diff(dim=-1)], dim=-1)
        return Minimum(value, codes.detach()[path])


def _best_path(costs: Float[Tensor, "*batch time codes"], first: Tensor, change: Tensor) -> Tensor:
    """Codes of the cheapest sequence, (*batch, time)."""
    best, came = first + costs[..., 0, :], []
    for t in range(1, costs.shape[-2]):
        total, origin = (best[..., :, None] + change).min(dim=-2)
        best = total + costs[..., t, :]
        came.append(origin)
    path = [best.argmin(-1)]
    for origin in reversed(came):
        path.append(origin.gather(-1, path[-1][..., None]).squeeze(-1))
    return torch.stack(path[::-1], dim=-1)


def _totals(costs: Float[Tensor, "*batch time codes"], first: Tensor, change: Tensor, beta: float) -> Tensor:
    """F of the sequence up to each step, (*batch, time)."""
    alpha = -beta * (first + costs[..., 0, :])
    totals = [alpha.logsumexp(-1)]
    for t in range(1, costs.shape[-2]):
        alpha = (alpha[..., :, None] - beta * change).logsumexp(-2) - beta * costs[..., t, :]
        totals.append(alpha.logsumexp(-1))
    return -torch.stack(totals, dim=-1) / beta
