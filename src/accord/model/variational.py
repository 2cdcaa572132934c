r"""The variational bound of the free energy: for every $q(z \mid x, y)$ and $\beta = 1/\lambda$,

$F_\beta^{p_0} \le \mathbb E_q[D] + \frac1\beta \mathrm{KL}(q \Vert p_0)$, with equality where q is the posterior.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.continuous import Gaussian
from accord.model.energy import Energy
from accord.model.latent import Scheduled, counts
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, in_pieces


class Variational(Minimizer, Scheduled):
    r"""A network gives a normal distribution of z for each pair; the value is its bound of the free energy.

    $\mathbb E_{z \sim \mathcal N(\mu, \sigma^2)} D(s_y, \mathrm{Pred}(s_x, z)) + \lambda\, \mathrm{KL}(\mathcal N(\mu, \sigma^2) \Vert
    \mathcal N(0, 1))$: the mean is over draws $\mu \pm \sigma\varepsilon$ in pairs, so what is linear in z has no noise; the KL is in
    closed form. It equals F with prior at $\beta = 1/\lambda$ where q is the posterior. argmin is $\mu$.
    Kingma, Welling 2013, arXiv:1312.6114, given x: Sohn, Lee, Yan 2015.

    Args:
        network: maps (s_x, s_y, action) to (mean, log variance) side by side: ``Recognition(dim, 2 * latent_dim)``.
        samples: draws for each pair; even numbers are best.
        seed: of the draws in evaluation mode, which are always the same and the same for all pairs.
        warm_up: share of the training, in [0, 1], over which the price of z rises from 0 to what it is (in training mode only). A z that
            has to pay before it is of use is not used, and what it should have told is averaged (Bowman et al. 2016, arXiv:1511.06349).
            On the forks, whose 64 outcomes are known, half of the training took coverage from 0.00 to 0.71.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds; when called, for a latent that is not `Gaussian` or a network of another width.
    """

    def __init__(
        self, network: nn.Module, *, samples: int = 2, seed: int = 0, warm_up: float = 0.0, chunk: int = ELEMENTS
    ):
        super().__init__()
        counts(samples=samples, chunk=chunk)
        if not 0 <= warm_up <= 1:
            raise UsageError(
                f"warm_up: expected a share from 0 to 1, got {warm_up!r}", where="warm_up", help="set warm_up to 0.5"
            )
        self.network, self.samples, self.seed, self.chunk = network, samples, seed, chunk
        self.warm_up, self.progress = warm_up, 0.0

    def before_step(self, progress: float) -> None:
        """Takes note of how far training is."""
        self.progress = progress

    @property
    def share_of_price(self) -> float:
        """Of the price of z what is paid now: all of it, or less while training warms up."""
        return min(1.0, self.progress / self.warm_up) if self.training and self.warm_up else 1.0

    def posterior(self, energy: Energy) -> Float[Tensor, "*batch two_latent"]:
        """Mean and log variance of z, side by side."""
        both: Tensor = self.network(energy.s_x, energy.s_y, energy.action)
        if both.shape[-1] != 2 * energy.latent.dim:
            raise UsageError(
                f"the network makes {both.shape[-1]} numbers, z of width {energy.latent.dim} needs twice as many",
                help="Recognition(dim, 2 * latent_dim)",
            )
        return both.expand(*energy.batch_shape, -1)

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """The bound and the mean of z; `start` is ignored."""
        if not isinstance(energy.latent, Gaussian):
            raise UsageError(
                f"Variational is for Gaussian latents, this one is {type(energy.latent).__name__}",
                help="use Amortize for a guess without a distribution",
            )
        both = self.posterior(energy)
        value = in_pieces(self._bound, energy, both, self.chunk, copies=self.samples)
        return Minimum(value, both.chunk(2, -1)[0].detach())

    def _bound(self, energy: Energy, both: Tensor) -> Tensor:
        latent = energy.latent
        assert isinstance(latent, Gaussian)
        mean, log_variance = both.chunk(2, -1)
        z = mean + (0.5 * log_variance).exp() * self._noise(mean)
        cost = energy.divergence(z).expand(z.shape[:-1]).mean(0)
        return cost + self.share_of_price * latent.weight * latent.divergence(mean, log_variance)

    def _noise(self, mean: Tensor) -> Tensor:
        """In pairs of opposite sign, (samples, *axes, latent)."""
        half = (self.samples + 1) // 2
        if self.training:
            noise = torch.randn(half, *mean.shape, dtype=mean.dtype, device=mean.device)
        else:
            shape = (half, *[1] * (mean.ndim - 1), mean.shape[-1])
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(mean)
        return torch.cat([noise, -noise])[: self.samples]
