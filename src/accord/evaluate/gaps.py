r"""How well z is found: the energy of the guess, and of the search, above that of a better search.

amortisation gap: $E(\tilde z) - \min_z E \ge 0$, for a z that a network guesses. optimisation gap: F of the search minus the best that
is known, which is exact where z can be enumerated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from accord.evaluate.features import Embedded, evaluating
from accord.model.amortize import Amortize
from accord.model.continuous import Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.energy import Energy
from accord.model.joint_embedding import JointEmbedding
from accord.model.langevin import Langevin
from accord.model.latent import Latent
from accord.model.markov import Viterbi
from accord.model.minimize import Enumerate, Minimizer
from accord.model.sparse_coding import Ista, Lista
from accord.model.variational import Variational

PARTICLES = 32
LEAST_EFFECTIVE = 0.1
"""Annealed importance sampling is believed if its effective sample size is at least this share of its particles."""


def gaps(model: JointEmbedding, pairs: Embedded) -> dict[str, float | None]:
    """Mean amortisation and optimisation gap over pairs, in units of energy; None where there is none, or none is known.

    A `Variational` posterior is compared with F at finite temperature, from annealed importance sampling.
    """
    with evaluating(model) as device:
        action = None if pairs.action is None else pairs.action.to(device)
        energy = model.energy(pairs.s_x.to(device), pairs.s_y.to(device), action)
        minimizer = model.minimizer
        if isinstance(minimizer, Variational):
            return {"amortisation": _bound_gap(energy, minimizer), "optimisation": None}
        if isinstance(minimizer, Enumerate | Viterbi | Langevin):
            return {"amortisation": None, "optimisation": 0.0 if isinstance(minimizer, Enumerate) else None}
        found = minimizer(energy)
        best = torch.minimum(_better(energy, found.argmin), energy(found.argmin))
        guessed: Tensor | None = None
        if isinstance(minimizer, Amortize):
            guessed = energy(minimizer.guess(energy))
        elif isinstance(minimizer, Lista):
            guessed = found.value
        searched = guessed is None or (isinstance(minimizer, Amortize) and minimizer.refine is not None)
        return {
            "amortisation": None if guessed is None else _mean(guessed - torch.minimum(best, guessed)),
            "optimisation": _mean(found.value - torch.minimum(best, found.value)) if searched else None,
        }


def _better(energy: Energy, start: Tensor) -> Tensor:
    """The lowest energy a thorough search finds, from `start` among other places."""
    return thorough(energy.latent).forward(energy, start).value


def thorough(latent: Latent) -> Minimizer:
    """The best search there is for a latent, whatever it takes."""
    if latent.candidates() is not None:
        return Enumerate()
    if latent.blocks() is not None:
        return Coordinate(restarts=32, sweeps=32)
    if isinstance(latent, Sparse) and not latent.spread:
        return Ista(300)
    return Descend(100, restarts=8)


def _bound_gap(energy: Energy, minimizer: Variational) -> float | None:
    """The bound above F at beta = 1 / weight, over the pairs for which the sampler can be trusted, if they are most."""
    weight = energy.latent.weight
    if weight == 0:
        return None
    sampler = Langevin(1 / weight, particles=PARTICLES, temperatures=48)
    found = sampler.particles(energy)
    trusted = found.effective >= LEAST_EFFECTIVE * PARTICLES
    if float(trusted.double().mean()) < 0.5:
        return None
    free = -(found.log_weight.logsumexp(0) - math.log(PARTICLES)) * weight
    bound: Tensor = minimizer(energy).value
    return max(0.0, _mean((bound - free)[trusted]))


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
