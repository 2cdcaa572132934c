"""Latents and minimisers from the tables [latent] and [minimizer] of a recipe."""

from __future__ import annotations

import math

from accord import recipe_latent as r
from accord.errors import UsageError
from accord.model.amortize import Amortize, Recognition
from accord.model.codebook import MOST, Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, LowDimensional, Noisy, Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.langevin import Langevin
from accord.model.latent import Deterministic, Latent
from accord.model.minimize import BestOf, Enumerate, Minimizer
from accord.model.sparse_coding import Ista
from accord.model.variational import Variational

_VECTOR = ("amortize", "descend", "langevin", "best_of")
SUITABLE: dict[str, tuple[str, ...]] = {
    "deterministic": ("enumerate", "best_of", "descend"),
    "codebook": ("enumerate", "coordinate", "amortize", "best_of"),
    "gaussian": ("variational", *_VECTOR),
    "noisy": _VECTOR,
    "low_dimensional": _VECTOR,
    "sparse": ("ista", *_VECTOR),
}
"""By what minimisers z is found, the best first; what a latent and a minimiser say to each other when called, told before."""


def latent(section: r.LatentSection, dim: int) -> Latent:
    """What z is, beside embeddings of width `dim`."""
    match section:
        case r.DeterministicLatent():
            made: Latent = Deterministic()
        case r.CodebookLatent() as s:
            book = Codebook(s.codes, s.dim, blocks=s.blocks, reseed=s.reseed)
            made = ConditionalPrior(book, dim, weight=s.weight) if s.prior else book
        case r.GaussianLatent() as s:
            made = Gaussian(s.dim, weight=s.weight)
        case r.NoisyLatent() as s:
            made = Noisy(s.dim, noise=s.noise)
        case r.LowDimensionalLatent() as s:
            made = LowDimensional(s.dim, bound=math.inf if s.bound is None else s.bound)
        case r.SparseLatent() as s:
            made = Sparse(s.dim, weight=s.weight, spread=s.spread)
    return made


def default_minimizer(section: r.LatentSection, *, linear: bool) -> r.MinimizerSection:
    """How z is found where the recipe does not say: exactly where that can be, else by what was made for the latent.

    Args:
        section: what z is.
        linear: whether the prediction is linear in z and the cost a squared error.
    """
    match section:
        case r.DeterministicLatent():
            return r.EnumerateMinimizer(name="enumerate")
        case r.CodebookLatent() as s if s.codes**s.blocks <= MOST:
            return r.EnumerateMinimizer(name="enumerate")
        case r.CodebookLatent():
            return r.CoordinateMinimizer(name="coordinate")
        case r.GaussianLatent():
            return r.VariationalMinimizer(name="variational")
        case r.SparseLatent() as s if linear and not s.spread:
            return r.IstaMinimizer(name="ista", accelerated=True)
        case _:
            return r.AmortizeMinimizer(name="amortize")


def require_fit(z: r.LatentSection, found: r.MinimizerSection, *, linear: bool, bounded: bool) -> None:
    """Refuses a way of finding z that does not suit what z is, before anything is trained.

    Args:
        z: what it is.
        found: how it is found.
        linear: whether the prediction is linear in z and the cost a squared error.
        bounded: whether the predictor cannot scale z up.

    Raises:
        UsageError: with the key that is wrong and what would suit.
    """
    if found.name not in SUITABLE[z.name]:
        message = f"the minimiser {found.name!r} cannot find the z of the latent {z.name!r}"
        raise _misfit(message, "minimizer.name", f"use {', '.join(SUITABLE[z.name])}")
    if isinstance(z, r.CodebookLatent) and (found.name == "enumerate" or z.usage) and z.codes**z.blocks > MOST:
        message = f"{z.codes} codes in {z.blocks} blocks are more than the {MOST:,} values that can be enumerated"
        if z.usage:
            raise _misfit(message, "latent.usage", "leave out latent.usage, or set fewer latent.codes or latent.blocks")
        raise _misfit(message, "minimizer.name", "use coordinate, or set fewer latent.codes or latent.blocks")
    if isinstance(z, r.SparseLatent) and not z.spread and not bounded:
        message = "a sparse z is cheap for nothing where the predictor may scale it up again"
        raise _misfit(
            message, "predictor.name", "use dictionary, whose directions are bounded, or set latent.spread above 0"
        )
    if isinstance(found, r.IstaMinimizer) and found.accelerated and not (linear and not _spread(z)):
        message = "FISTA needs a prediction that is linear in z, the squared error as cost and no spread term"
        remedy = "set it to false, or predictor.name to dictionary, cost to squared_error and latent.spread to 0"
        raise _misfit(message, "minimizer.accelerated", remedy)
    if isinstance(found, r.LangevinMinimizer | r.BestOfMinimizer) and found.beta is not None:
        if isinstance(z, r.LowDimensionalLatent) and z.bound is None:
            message = "a z without bound has no prior, which a finite minimizer.beta needs"
            raise _misfit(message, "latent.bound", "set latent.bound to 3, say, or use descend")
        if _spread(z):
            message = "draws of a sparse z do not follow its spread term, and a finite minimizer.beta needs them to"
            raise _misfit(message, "latent.spread", "set latent.spread to 0, or use ista")


def _spread(z: r.LatentSection) -> float:
    return z.spread if isinstance(z, r.SparseLatent) else 0.0


def _misfit(message: str, where: str, help: str) -> UsageError:
    return UsageError(message, where=where, help=help, code="E239")


def minimizer(
    section: r.MinimizerSection, z: Latent, dim: int, action_dim: int, *, dim_y: int | None = None
) -> Minimizer:
    """How z is found, beside embeddings of width `dim`; `dim_y` is that of y where it has another."""
    match section:
        case r.EnumerateMinimizer() as s:
            anneal = None if s.anneal is None else (s.anneal, s.anneal_share)
            made: Minimizer = Enumerate(_beta(s.beta), anneal=anneal)
        case r.CoordinateMinimizer() as s:
            made = Coordinate(restarts=s.restarts, sweeps=s.sweeps)
        case r.BestOfMinimizer() as s:
            made = BestOf(s.samples, beta=_beta(s.beta))
        case r.DescendMinimizer() as s:
            made = Descend(s.steps, restarts=s.restarts)
        case r.IstaMinimizer() as s:
            made = Ista(s.steps, accelerated=s.accelerated)
        case r.AmortizeMinimizer() as s:
            network = Recognition(dim, z.dim, action_dim=action_dim, hidden=_widths(s.hidden), dim_y=dim_y)
            made = Amortize(network, refine=Descend(s.refine, restarts=0) if s.refine else None)
        case r.VariationalMinimizer() as s:
            network = Recognition(dim, 2 * z.dim, action_dim=action_dim, hidden=_widths(s.hidden), dim_y=dim_y)
            made = Variational(network, samples=s.samples, warm_up=s.warm_up)
        case r.LangevinMinimizer() as s:
            made = Langevin(s.beta, particles=s.particles, temperatures=s.temperatures)
    return made


def _beta(beta: float | None) -> float:
    return math.inf if beta is None else beta


def _widths(hidden: list[int] | None) -> tuple[int, ...] | None:
    return None if hidden is None else tuple(hidden)
