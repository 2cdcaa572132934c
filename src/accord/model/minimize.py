r"""How z is found: a minimiser turns an energy into a minimum, whose value is the free energy F(x, y).

$F_\infty = \min_z E$ and, at finite inverse temperature, $F_\beta = -\frac{1}{\beta}\log\frac{1}{|Z|}\sum_z e^{-\beta E}$:
an average over z, not a sum, so that models with different numbers of codes compare.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.energy import Energy


class Minimum(NamedTuple):
    """The free energy of each pair and the latent that attains it.

    `value` is F(x, y), (*batch,), differentiable in the model; `argmin` is (*batch, latent) and carries no gradient.
    """

    value: Tensor
    argmin: Tensor


class Minimizer(nn.Module):
    """Finds z for an energy. Called with an `Energy`, returns a `Minimum`."""

    def forward(self, energy: Energy) -> Minimum:
        """Minimise `energy` over z."""
        raise TypeError(f"{type(self).__name__} does not say how z is found: define forward(energy) -> Minimum")


class Enumerate(Minimizer):
    """Tries every value of a countable latent: exact.

    Args:
        beta: inverse temperature; inf gives the minimum, a finite value the soft minimum F_beta >= F.

    Raises (when called):
        UsageError: if the latent of the energy is not countable.

    By the envelope theorem the gradient of the value is that of E at the minimiser, or the Gibbs average of it at finite beta.
    """

    def __init__(self, beta: float = math.inf):
        super().__init__()
        if not beta > 0:
            raise UsageError(f"beta is an inverse temperature: expected a number > 0, got {beta}")
        self.beta = beta

    def forward(self, energy: Energy) -> Minimum:
        """F and argmin over all candidates; one predictor call on (candidates, *batch)."""
        candidates = energy.latent.candidates()
        if candidates is None:
            raise UsageError(
                f"{type(energy.latent).__name__} is not countable: Enumerate needs a latent with candidates()"
            )
        shape = energy.batch_shape
        energies = energy(candidates.view(len(candidates), *[1] * len(shape), candidates.shape[-1]))
        energies = energies.expand(len(candidates), *shape)
        best, which = energies.min(dim=0)
        value = best if math.isinf(self.beta) else soft_minimum(energies, self.beta)
        return Minimum(value, candidates.detach()[which])


def soft_minimum(energies: Float[Tensor, "k *batch"], beta: float) -> Float[Tensor, "*batch"]:
    r"""$F_\beta = -\frac{1}{\beta}\left(\operatorname{logsumexp}_k(-\beta E_k) - \log K\right)$ over the first axis."""
    return (math.log(len(energies)) - torch.logsumexp(-beta * energies, dim=0)) / beta
