r"""Inference that is learned: a network guesses z from (s_x, s_y, a).

Alone, $F = E(\tilde z)$ is an upper bound of the free energy and the amortisation gap is what it is too high by. Refined by a search
that starts at the guess, F is the energy of what the search finds. LeCun 2022, "A Path Towards Autonomous Machine Intelligence",
appendix; Dayan, Hinton, Neal, Zemel 1995 ("recognition" network).
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.model.descend import detached, differentiable
from accord.model.energy import Energy
from accord.model.latent import Latent, counts
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, energy_at
from accord.model.predictor import joined


class Recognition(nn.Module):
    """A multi-layer perceptron (s_x, s_y, action) -> z, or -> (mean, log variance) if it is made twice as wide.

    Args:
        dim: width of the embeddings s_x and s_y.
        latent_dim: width of what it makes.
        action_dim: width of the action; 0 where there is none.
        hidden: widths of the hidden layers; default one of 2 * dim.
        dim_y: width of s_y where it is another than that of s_x.

    The last layer starts small, so that the first guesses are near 0. The first is a sum of products: every x with every y costs one
    product for each x and each y.
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int,
        *,
        action_dim: int = 0,
        hidden: tuple[int, ...] | None = None,
        dim_y: int | None = None,
    ):
        super().__init__()
        counts(dim=dim, latent_dim=latent_dim)
        widths = [
            dim + (dim if dim_y is None else dim_y) + action_dim,
            *(hidden if hidden is not None else (2 * dim,)),
            latent_dim,
        ]
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        with torch.no_grad():
            layers[-1].weight.mul_(0.1)
        self.layers = nn.ModuleList(layers)

    def forward(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Float[Tensor, "*batch latent"]:
        """The axes of s_x and s_y, broadcast."""
        return joined(
            self.layers, (s_x, s_y, action), "the recognition network takes {} numbers, s_x, s_y and action have {}"
        )


class Amortize(Minimizer):
    r"""z is guessed by a network, and perhaps refined by another minimiser that starts there.

    Alone: $F = E(\tilde z)$, which teaches model and network alike. Refined: $F = E(\hat z)$ with the gradient of the envelope theorem
    in the model; the network learns by a term of value 0 whose gradient is that of $E(\tilde z)$ in the network alone. A latent
    that is a choice has $\tilde z$ rounded to the nearest code, and the gradient goes straight through (van den Oord et al. 2017,
    arXiv:1711.00937).

    Args:
        network: maps (s_x, s_y, action) to z, (*batch, latent), as `Recognition` does.
        refine: a minimiser that heeds `start`.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.
    """

    def __init__(self, network: nn.Module, *, refine: Minimizer | None = None, chunk: int = ELEMENTS):
        super().__init__()
        counts(chunk=chunk)
        self.network, self.refine, self.chunk = network, refine, chunk

    def guess(self, energy: Energy) -> Float[Tensor, "*batch latent"]:
        """z~, an allowed z; differentiable. Its amortisation gap is ``energy(guess) - F``."""
        z: Tensor = self.network(energy.s_x, energy.s_y, energy.action)
        return straight_through(energy.latent, z.expand(*energy.batch_shape, -1))

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and z; a search begins at the guess, `start` is ignored."""
        if self.refine is None:
            z = self.guess(energy)
            return Minimum(energy_at(energy, z, self.chunk), z.detach())
        z = self.guess(energy.detach())
        found: Minimum = self.refine(energy, z.detach())
        if not z.requires_grad:
            return found
        lesson = (z * self._slope(energy, z)).sum(-1)
        return Minimum(found.value + lesson - lesson.detach(), found.argmin)

    def _slope(self, energy: Energy, z: Tensor) -> Tensor:
        """dE/dz at the guess."""
        with differentiable():
            held = detached(energy)
            slopes: list[Tensor] = []
            for rows in held.pieces(self.chunk):
                at = z[rows].detach().requires_grad_()
                energies = held.part(rows)(at)
                slopes += torch.autograd.grad(energies.sum(), at, materialize_grads=True)
        return torch.cat(slopes) if z.ndim > 1 else slopes[0]


def straight_through(latent: Latent, z: Tensor) -> Tensor:
    """The nearest allowed z; where z is a choice with the gradient of z itself, and one in the codes."""
    near = latent.project(z)
    return near + (z - z.detach()) if latent.choice else near
