r"""How z is found: a minimiser turns an energy into a minimum, whose value is the free energy F(x, y).

$F_\infty = \min_z E$ and, at finite inverse temperature, $F_\beta = -\frac{1}{\beta}\log\frac{1}{|Z|}\sum_z e^{-\beta E}$:
an average over z, not a sum, so that models with different numbers of codes compare.

By the envelope theorem $\mathrm dF_\infty/\mathrm d\theta = \partial E/\partial\theta$ at the minimiser: z is found without gradient,
and E is evaluated there once more, with one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from accord.errors import UsageError
from accord.model.energy import Energy
from accord.model.latent import Scheduled, counts

ELEMENTS = 1 << 22
"""Numbers in the predictions that are made at a time (16 MB in float32), unless a minimiser is told otherwise."""


class Minimum(NamedTuple):
    """The free energy of each pair and the latent that attains it.

    `value` is F(x, y), (*batch,), differentiable in the model; `argmin` is (*batch, latent) and carries no gradient.
    """

    value: Tensor
    argmin: Tensor


class Minimizer(nn.Module):
    """Finds z for an energy. Called with an `Energy`, returns a `Minimum`."""

    def forward(self, energy: Energy, start: Float[Tensor, "*batch latent"] | None = None) -> Minimum:
        """Minimise `energy` over z.

        Args:
            energy: a function of z.
            start: where a search begins (a warm start); what needs no beginning ignores it.
        """
        raise TypeError(f"{type(self).__name__} does not say how z is found: define forward(energy, start) -> Minimum")


class Enumerate(Minimizer, Scheduled):
    """Tries every value of a countable latent: exact.

    At zero temperature the search keeps one number per pair and chunk, and only the winner is evaluated with gradient. At finite
    temperature every value has a gradient; what does not fit into a chunk is computed again in the backward pass.

    Args:
        beta: inverse temperature; inf gives the minimum, a finite value the soft minimum F_beta >= F.
        anneal: beta while training, as (beta at the start, share of the training after which it is `beta`): it rises geometrically,
            to 1,000 times the start where `beta` is inf. At the start many codes learn from a pair, in the end one does.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds; when called, if the latent of the energy is not countable.
    """

    def __init__(self, beta: float = math.inf, *, anneal: tuple[float, float] | None = None, chunk: int = ELEMENTS):
        super().__init__()
        _inverse_temperature(beta)
        counts(chunk=chunk)
        if anneal is not None:
            _inverse_temperature(anneal[0])
            if math.isinf(anneal[0]) or not 0 < anneal[1] <= 1:
                raise UsageError(
                    f"anneal: expected (beta at the start, share of the training in (0, 1]), got {anneal}",
                    where="anneal",
                )
        self.beta, self.anneal, self.chunk = beta, anneal, chunk
        self.progress = 0.0

    def extra_repr(self) -> str:
        """The temperature."""
        return f"beta={self.beta}, anneal={self.anneal}"

    def before_step(self, progress: float) -> None:
        """Takes note of how far training is."""
        self.progress = progress

    @property
    def beta_now(self) -> float:
        """Inverse temperature: `beta`, or where the annealing is while training."""
        if not self.training or self.anneal is None or self.progress >= self.anneal[1]:
            return self.beta
        first, share = self.anneal
        last = 1000 * first if math.isinf(self.beta) else self.beta
        return float(first * (last / first) ** (self.progress / share))

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and argmin over all candidates; `start` is ignored."""
        candidates = _candidates(energy)
        if len(candidates) == 1:
            value = energy(_lined_up(candidates, energy))[0].expand(energy.batch_shape)
            return Minimum(value, candidates[0].detach().expand(*energy.batch_shape, -1))
        if math.isinf(self.beta_now):
            winner = self._search(energy.detach(), candidates.detach())
            return Minimum(energy(candidates[winner]), candidates.detach()[winner])
        parts: list[Tensor] = []
        best: Tensor | None = None
        which: Tensor | None = None
        for first, z in _chunks(candidates, energy, self.chunk):
            few = len(z) == len(candidates)
            energies = (energy(z) if few else checkpoint(energy, z, use_reentrant=False)).expand(
                len(z), *energy.batch_shape
            )
            parts.append(torch.logsumexp(-self.beta_now * energies, dim=0))
            best, which = _better(best, which, energies.detach(), first)
        assert which is not None
        total = torch.stack(parts).logsumexp(0)
        return Minimum((math.log(len(candidates)) - total) / self.beta_now, candidates.detach()[which])

    @torch.no_grad()
    def _search(self, energy: Energy, candidates: Tensor) -> Tensor:
        """Index of the best candidate for each pair."""
        best, which = None, None
        for first, z in _chunks(candidates, energy, self.chunk):
            best, which = _better(best, which, energy(z).expand(len(z), *energy.batch_shape), first)
        assert which is not None
        return which

    @torch.no_grad()
    def energies(self, energy: Energy) -> Float[Tensor, "k *batch"]:
        """E of every candidate: what code usage and posteriors are computed from."""
        chunks = _chunks(_candidates(energy), energy, self.chunk)
        return torch.cat([energy(z).expand(len(z), *energy.batch_shape) for _, z in chunks])


class BestOf(Minimizer):
    r"""The best of some draws from the prior; at finite beta their soft minimum, a Monte Carlo estimate of F with prior.

    $F_\beta^{p_0} = -\frac1\beta \log \mathbb E_{z \sim p_0} e^{-\beta D}$, which for a latent with one price is the average over z.
    The estimate is above F in expectation (Jensen) and reaches it as draws grow.

    Args:
        samples: how many draws for each pair.
        beta: inverse temperature; inf gives the lowest E found.
        seed: of the draws in evaluation mode, which are always the same; in training mode they come from torch's generator.

    Raises:
        UsageError: for numbers that are out of bounds.
    """

    def __init__(self, samples: int = 64, *, beta: float = math.inf, seed: int = 0, chunk: int = ELEMENTS):
        super().__init__()
        counts(samples=samples, chunk=chunk)
        _inverse_temperature(beta)
        self.samples, self.beta, self.seed, self.chunk = samples, beta, seed, chunk

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and the best z of the draws, among which `start` is one if it is given."""
        generator = None if self.training else torch.Generator().manual_seed(self.seed)
        shape = energy.batch_shape
        with torch.no_grad():
            z = energy.latent.sample((self.samples, *shape), energy.s_x, generator)
            if start is not None:
                z = torch.cat([start.expand(1, *shape, -1), z[1:]])
            held = energy.detach()
            energies = torch.cat([held(part) for part in z.split(_rows(energy, self.chunk))])
            if energy.latent.coupled:  # a sequence is one z
                energies = energies.sum(-1, keepdim=True).expand_as(energies)
            which = energies.argmin(0)
        best = z.gather(0, which[None, ..., None].expand(1, *shape, z.shape[-1]))[0]
        if math.isinf(self.beta):
            return Minimum(energy(best), best)
        return Minimum(soft_minimum(energy.divergence(z), self.beta), best)


def soft_minimum(energies: Float[Tensor, "k *batch"], beta: float) -> Float[Tensor, "*batch"]:
    r"""$F_\beta = -\frac{1}{\beta}\left(\operatorname{logsumexp}_k(-\beta E_k) - \log K\right)$ over the first axis."""
    return (math.log(len(energies)) - torch.logsumexp(-beta * energies, dim=0)) / beta


def _candidates(energy: Energy) -> Tensor:
    candidates = energy.latent.candidates()
    if candidates is None:
        raise UsageError(
            f"{type(energy.latent).__name__} is not countable, or has too many values: Enumerate needs a latent with candidates()",
            help="use Coordinate for many blocks of codes, BestOf or Descend for vectors",
        )
    return candidates


def _lined_up(z: Float[Tensor, "k latent"], energy: Energy) -> Float[Tensor, "k *ones latent"]:
    """The same z for every pair: batch axes of size 1."""
    return z.view(len(z), *[1] * len(energy.batch_shape), z.shape[-1])


def _rows(energy: Energy, chunk: int) -> int:
    """How many values of z are tried at a time."""
    shape = energy.batch_shape
    return max(1, chunk // max(1, math.prod(shape) * (energy.s_y.shape[-1] if len(shape) < 2 else 1)))


def _chunks(candidates: Tensor, energy: Energy, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """(number of the first, some candidates lined up with the batch)."""
    step = _rows(energy, chunk)
    for first in range(0, len(candidates), step):
        yield first, _lined_up(candidates[first : first + step], energy)


def _better(best: Tensor | None, which: Tensor | None, energies: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The lowest so far and its number, after looking at some more."""
    found, place = energies.min(dim=0)
    place = place + first
    if best is None or which is None:
        return found, place
    lower = found < best
    return torch.where(lower, found, best), torch.where(lower, place, which)


def _inverse_temperature(beta: float) -> None:
    if isinstance(beta, bool) or not beta > 0:
        raise UsageError(f"beta is an inverse temperature: expected a number > 0, got {beta}", where="beta")
