"""Latents and minimisers from the tables [latent] and [minimizer] of a recipe."""

from __future__ import annotations

import math

from accord import recipe_latent as r
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


def minimizer(section: r.MinimizerSection, z: Latent, dim: int, action_dim: int) -> Minimizer:
    """How z is found, beside embeddings of width `dim`."""
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
            network = Recognition(dim, z.dim, action_dim=action_dim, hidden=_widths(s.hidden))
            made = Amortize(network, refine=Descend(s.refine, restarts=0) if s.refine else None)
        case r.VariationalMinimizer() as s:
            network = Recognition(dim, 2 * z.dim, action_dim=action_dim, hidden=_widths(s.hidden))
            made = Variational(network, samples=s.samples)
        case r.LangevinMinimizer() as s:
            made = Langevin(s.beta, particles=s.particles, temperatures=s.temperatures)
    return made


def _beta(beta: float | None) -> float:
    return math.inf if beta is None else beta


def _widths(hidden: list[int] | None) -> tuple[int, ...] | None:
    return None if hidden is None else tuple(hidden)
