r"""How z is found: a minimiser turns an energy into a minimum, whose value is the free energy F(x, y).

$F_\infty = \min_z E$ and, at finite inverse temperature, $F_\beta = -\frac{1}{\beta}\log\frac{1}{|Z|}\sum_z e^{-\beta E}$:
an average over z, not a sum, so that models with different numbers of codes compare.

By the envelope theorem $\mathrm dF_\infty/\mathrm d\theta = \partial E/\partial\theta$ at the minimiser: z is found without gradient,
and E is evaluated there once more, with one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from accord.errors import UsageError
from accord.model.continuous import require_prior
from accord.model.energy import Energy
from accord.model.latent import Scheduled, counts

ELEMENTS = 10 << 20
"""Numbers in the predictions that are made at a time, unless a minimiser is told otherwise.

In float32 these are 40 MB, more than the 32 MB from which the C library gives memory back at once. Smaller blocks would leave holes
between the small results of many pieces, which add up to what the pieces are there to avoid.
"""


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

    At zero temperature the search has no gradient, and the winner is evaluated once more with one. Where that is more work (every x
    with every y: the candidates need K predictions for an x, the winners one for each pair), and at finite temperature, every value
    has a gradient. What does not fit into a chunk is computed again in the backward pass.

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
        codes = _candidates(energy)
        z = lined_up(codes, energy)
        beta = self.beta_now
        predictions = len(z) * math.prod(energy.s_x.shape[:-1])
        search_only = math.isinf(beta) and predictions > math.prod(energy.batch_shape)
        if not search_only:
            value, which = reduced(energy, z, beta, self.chunk)
            return Minimum(value, codes.detach()[which])
        with torch.no_grad():
            value, which = reduced(energy.detach(), z.detach(), beta, self.chunk)
        if torch.is_grad_enabled():
            value = energy_at(energy, codes[which], self.chunk)
        return Minimum(value, codes.detach()[which])

    @torch.no_grad()
    def energies(self, energy: Energy) -> Float[Tensor, "k *batch"]:
        """E of every candidate: what code usage and posteriors are computed from."""
        step = max(1, self.chunk // max(1, energy.size(shared=True)))
        blocks = lined_up(_candidates(energy), energy).split(step)
        return torch.cat([energy(z).expand(len(z), *energy.batch_shape) for z in blocks])


class BestOf(Minimizer):
    r"""The best of some draws from the prior; at finite beta their soft minimum, a Monte Carlo estimate of F with prior.

    $F_\beta^{p_0} = -\frac1\beta \log \mathbb E_{z \sim p_0} e^{-\beta D}$, which for a latent with one price is the average over z.
    The estimate is above F in expectation (Jensen) and reaches it as draws grow. Of a sequence (`Latent.coupled`) each step is given
    an equal share of the sequence's F.

    Args:
        samples: how many draws for each pair.
        beta: inverse temperature; inf gives the lowest E found.
        seed: of the draws in evaluation mode, which are always the same and the same for all pairs; in training mode they come from
            torch's generator.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds; when called at finite beta, if the latent has no prior to draw from.
    """

    def __init__(self, samples: int = 64, *, beta: float = math.inf, seed: int = 0, chunk: int = ELEMENTS):
        super().__init__()
        counts(samples=samples, chunk=chunk)
        _inverse_temperature(beta)
        self.samples, self.beta, self.seed, self.chunk = samples, beta, seed, chunk

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and the best z of the draws; `start`, if given, is one more among those that z is chosen from."""
        if not math.isinf(self.beta):
            require_prior(energy.latent)
        held = energy.detach()
        with torch.no_grad():
            z = draws(held, self.samples, None if self.training else self.seed)
            lowest, which = reduced(held, z, math.inf, self.chunk)
            best = taken(z, which)
            if start is not None:
                start = start.expand_as(best)
                better = _of_sequence(energy_at(held, start, self.chunk), held) < lowest
                best = torch.where(better[..., None], start, best)
        if math.isinf(self.beta):
            return Minimum(energy_at(energy, energy.latent.project(best), self.chunk), best)
        return Minimum(
            reduced(energy, energy.latent.project(z), self.beta, self.chunk, _with_prior(self.beta))[0], best
        )


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


def lined_up(z: Float[Tensor, "k latent"], energy: Energy) -> Float[Tensor, "k *ones latent"]:
    """The same z for every pair: batch axes of size 1."""
    return z.view(len(z), *[1] * len(energy.batch_shape), z.shape[-1])


def draws(energy: Energy, count: int, seed: int | None) -> Float[Tensor, "count *axes latent"]:
    """Draws from the prior, whose axes broadcast to those of the batch.

    With a seed they are the same for every x (up to a prior that depends on it), so that F of a pair does not depend on what else
    is in the batch. Without one there are other draws for each x, from torch's generator.
    """
    batch, given = energy.batch_shape, energy.s_x.shape[:-1]
    if seed is None:
        return energy.latent.sample((count, *[1] * (len(batch) - len(given)), *given), energy.s_x)
    axes = [*[1] * (len(batch) - 1), *(batch[-1:] if energy.latent.coupled else batch[-1:] and [1])]
    return energy.latent.sample((count, *axes), energy.s_x, torch.Generator().manual_seed(seed))


def taken(z: Float[Tensor, "k *axes latent"], which: Int64[Tensor, "*batch"]) -> Float[Tensor, "*batch latent"]:
    """The z of each pair whose number is given."""
    shape = (*which.shape, z.shape[-1])
    return z.expand(len(z), *shape).gather(0, which[None, ..., None].expand(1, *shape))[0]


def energy_at(energy: Energy, z: Float[Tensor, "*batch latent"], chunk: int) -> Float[Tensor, "*batch"]:
    """E at one z for each pair, in pieces."""
    return in_pieces(_plain, energy, z, chunk)


def in_pieces(
    function: Callable[[Energy, Tensor], Tensor],
    energy: Energy,
    t: Float[Tensor, "*batch _"],
    chunk: int,
    copies: int = 1,
) -> Float[Tensor, "*batch"]:
    """A function of an energy and of something about each pair; what does not fit into a chunk is computed again in backward.

    `copies` is how many z for each pair the function tries at a time.
    """
    pieces = list(energy.pieces(chunk, copies=copies))
    if len(pieces) == 1:
        return function(energy, t).expand(energy.batch_shape)
    parts = ((rows, again(function, energy.part(rows), t[rows])) for rows in pieces)
    if torch.is_grad_enabled():
        return torch.cat([part for _, part in parts])
    return filled(energy, ((rows, (part,)) for rows, part in parts))[0]


def filled(energy: Energy, parts: Iterable[tuple[slice, tuple[Tensor, ...]]]) -> list[Tensor]:
    """Results for rows of the batch, put together without gradient.

    Each is copied at once: small results that are kept between large intermediate ones would leave holes in memory.
    """
    results: list[Tensor] = []
    for rows, part in parts:
        results = results or [t.new_empty((energy.batch_shape[0], *t.shape[1:])) for t in part]
        for result, t in zip(results, part, strict=True):
            result[rows] = t
    return results


Energies = Callable[[Energy, Tensor], Tensor]
"""(energy, (k, *axes, latent)) -> (k, *batch)."""


def _plain(energy: Energy, z: Tensor) -> Tensor:
    return energy(z)


def _with_prior(beta: float) -> Energies:
    """D of draws from the prior, with the gradient that the prior's own parameters get: that of r / beta."""

    def energies(energy: Energy, z: Tensor) -> Tensor:
        price = energy.latent.price(z, energy.s_x)
        return energy.divergence(z) + (price - price.detach()) / beta

    return energies


def reduced(
    energy: Energy, z: Float[Tensor, "k *axes latent"], beta: float, chunk: int, of: Energies = _plain
) -> tuple[Float[Tensor, "*batch"], Int64[Tensor, "*batch"]]:
    """Minimum, or soft minimum, of energies over the first axis of z, and the number of the lowest.

    Computed in pieces of rows and blocks of z; what does not fit into one chunk is computed again in the backward pass. A sequence
    of a coupled latent has one minimum: each of its steps is given an equal share of a soft minimum, and all of a hard one.
    """
    pieces = list(energy.pieces(chunk, copies=len(z), shared=_is_shared(z)))
    no_larger = len(z) == 1 and energy.size(shared=_is_shared(z)) <= math.prod(energy.batch_shape)
    if len(pieces) == 1 or no_larger:  # than what comes of it: pieces would save nothing
        return _reduced_rows(energy, z, beta, chunk, of)
    cut = z.ndim == len(energy.batch_shape) + 2 and z.shape[1] > 1
    parts = (
        (rows, again(_reduced_rows, energy.part(rows), z[:, rows] if cut else z, beta, chunk, of)) for rows in pieces
    )
    if torch.is_grad_enabled():
        values, places = zip(*(part for _, part in parts), strict=True)
        return torch.cat(values), torch.cat(places)
    value, place = filled(energy, parts)
    return value, place


def _reduced_rows(energy: Energy, z: Tensor, beta: float, chunk: int, of: Energies) -> tuple[Tensor, Tensor]:
    hard = math.isinf(beta)

    def block(energy: Energy, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        energies = _of_sequence(of(energy, z).expand(len(z), *energy.batch_shape), energy)
        if len(z) == 1:  # nothing to compare
            value, place = (
                energies[0],
                torch.zeros((), dtype=torch.int64, device=energies.device).expand_as(energies[0]),
            )
        else:
            value, place = energies.min(0)
        return value if hard else torch.logsumexp(-beta * energies, dim=0), value.detach(), place

    blocks = z.split(max(1, chunk // max(1, energy.size(shared=_is_shared(z)))))
    value, lowest, which = (again if len(blocks) > 1 else _once)(block, energy, blocks[0])
    first = len(blocks[0])
    for some in blocks[1:]:
        other, low, place = again(block, energy, some)
        better = low < lowest
        value = torch.where(better, other, value) if hard else torch.logaddexp(value, other)
        lowest, which = torch.where(better, low, lowest), torch.where(better, place + first, which)
        first += len(some)
    if hard:
        return value, which
    soft = (math.log(len(z)) - value) / beta
    return (soft / max(1, energy.batch_shape[-1]) if energy.latent.coupled else soft), which


def _is_shared(z: Float[Tensor, "k *axes latent"]) -> bool:
    """Whether it is the same z for every y."""
    return z.ndim > 2 and z.shape[-2] == 1


def _of_sequence(energies: Float[Tensor, "*shape"], energy: Energy) -> Float[Tensor, "*shape"]:
    """Where the latent is coupled a sequence is one z, and each of its steps is given the energy of all."""
    return energies.sum(-1, keepdim=True).expand_as(energies) if energy.latent.coupled else energies


def _once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def again(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function of the arguments; its intermediate results are not kept but computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)


def _inverse_temperature(beta: float) -> None:
    if isinstance(beta, bool) or not beta > 0:
        raise UsageError(f"beta is an inverse temperature: expected a number > 0, got {beta}", where="beta")
