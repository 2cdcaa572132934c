r"""What shapes an energy as a function of $s_y$ itself: contrastive divergence and denoising score matching.

Both move through the space of embeddings of y, and take these as data: no gradient goes to the encoder of y. So they say something only
where that encoder is fixed (the identity, a frozen network) or kept from collapse by other terms; where it is free to follow, nothing
keeps it from making every energy the same. And they shape what the energy can become: with `squared_error` and no latent, F is a
parabola of fixed width, and only its place is learned.

F is differentiated through the z that was found, which is exact for countable z; for a z found by descent the gradient of a slope
leaves out how z follows $s_y$.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import gather_rows, mean_over_ranks
from accord.data.random import Draws
from accord.model.descend import detached, differentiable
from accord.model.energy import Energy
from accord.model.latent import counts, not_negative, positive
from accord.model.minimize import Minimizer
from accord.objective.candidates import by_view, full
from accord.objective.checks import require
from accord.objective.loss import Inference
from accord.objective.negatives import Fresh


class ContrastiveDivergence(nn.Module):
    r"""$\mathrm{mean}(F^+ - F^-) + \alpha\,\mathrm{mean}((F^+)^2 + (F^-)^2)$, $F^-$ where some noisy steps downhill end.

    $s \leftarrow s - \eta\, \partial F / \partial s + \sigma \epsilon$; with $\sigma = \sqrt{2 \eta / \beta}$ the chain samples
    $e^{-\beta F}$, with less noise it looks for wells. It begins at the true $s_y$ or, with a buffer, where earlier chains ended. It
    has no gradient: that of the loss is that of $F^+$ less that of $F^-$, in predictor, latent and the encoder of x.

    Hinton 2002, "Training products of experts by minimizing contrastive divergence"; persistent chains: Tieleman 2008; the penalty
    $\alpha$: Du, Mordatch 2019, arXiv:1903.08689.

    Args:
        steps: how many.
        step_size: $\eta$. Under `squared_error` the slope is $2 (s - \hat s_y) / D$, so that D / 2 leads to the bottom at once.
        noise: $\sigma$.
        alpha: weight of the squares, which keep energies near 0.
        buffer: how many ends of chains are kept, at least as many as the batch has rows; 0 begins at the data.
        dim: width of the embeddings, where there is a buffer.
        restart: share of the chains that begin at the data although there is a buffer.
        seed: of all random numbers, which depend on it, on how often it was called in training, and on the row.

    Raises:
        UsageError: a number that is out of bounds; when called, for a batch larger than the buffer.
    """

    points: Tensor
    begun: Tensor

    def __init__(
        self,
        *,
        steps: int = 20,
        step_size: float = 0.5,
        noise: float = 0.1,
        alpha: float = 0.1,
        buffer: int = 0,
        dim: int = 0,
        restart: float = 0.05,
        seed: int = 0,
    ):
        super().__init__()
        counts(steps=steps, buffer=buffer + 1)
        if buffer:
            counts(dim=dim)
        positive(step_size=step_size)
        not_negative(noise=noise, alpha=alpha)
        require(0 <= restart <= 1, f"restart is a share: expected a number in [0, 1], got {restart}")
        self.steps, self.step_size, self.noise, self.alpha, self.restart = steps, step_size, noise, alpha, restart
        self.fresh = Fresh(seed)
        self.register_buffer("points", torch.zeros(buffer, dim))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def extra_repr(self) -> str:
        """How chains are made."""
        return f"steps={self.steps}, step_size={self.step_size}, noise={self.noise}, buffer={len(self.points)}"

    def forward(self, inference: Inference) -> Float[Tensor, ""]:
        """Scalar; the mean over views."""
        return torch.stack([self._one(energy, inference.minimizer) for energy, _ in by_view(inference)]).mean()

    def _one(self, energy: Energy, minimizer: Minimizer) -> Tensor:
        held = detached(energy)
        rows, own = gather_rows(held.s_y)
        draws = self.fresh(len(held.s_y), own.start)
        slots = self._slots(len(rows))
        start = self._start(rows, slots)[own] if len(self.points) else held.s_y
        again = draws.uniform("restart", 1) < self.restart
        end = self._chain(torch.where(again, held.s_y, start.to(held.s_y)), held, minimizer, draws)
        if self.training and len(self.points):
            self.points[slots] = gather_rows(end)[0].to(self.points)
        at_data, at_end = (full(minimizer(energy.of(energy.s_x, s, energy.action)).value) for s in (held.s_y, end))
        return mean_over_ranks(at_data - at_end + self.alpha * (at_data.square() + at_end.square()))

    def _slots(self, rows: int) -> Tensor:
        """Which points belong to the rows of all ranks: neighbours, from a place that changes each time."""
        size = len(self.points)
        require(size == 0 or rows <= size, f"a batch of {rows} rows needs a buffer of as many points, not {size}")
        turn = Draws(self.fresh.seed, 1, self.fresh.turn.reshape(1))
        return ((turn.uniform("slots", 1)[0] * size).long() + torch.arange(rows, device=turn.index.device)) % max(
            1, size
        )

    def _start(self, rows: Tensor, slots: Tensor) -> Tensor:
        """Where chains of all ranks begin; the first time that is the data."""
        require(
            self.points.shape[1] == rows.shape[1],
            f"the buffer is for embeddings of width {self.points.shape[1]}, got {rows.shape[1]}",
            "give ContrastiveDivergence their dim",
        )
        if self.training:
            known = rows[torch.arange(len(self.points), device=rows.device) % len(rows)]
            self.points.copy_(torch.where(self.begun, self.points, known.to(self.points)))
            self.begun.fill_(True)
        return torch.where(self.begun, self.points[slots].to(rows), rows)

    def _chain(self, s: Tensor, held: Energy, minimizer: Minimizer, draws: Draws) -> Tensor:
        for step in range(self.steps):
            slope = _slope(held, s, minimizer, graph=False)
            noise = draws.normal(f"step {step}", s.shape[-1]).to(s)
            s = s - self.step_size * slope + self.noise * noise
        return s


class ScoreMatching(nn.Module):
    r"""Denoising score matching, $\mathbb E \lVert \beta\, \partial_s F(s_y + \sigma \epsilon) - \epsilon / \sigma \rVert^2$.

    Mean over the batch, sum over D. The slope of $\beta F$ is to be that of $-\log$ of the density of y with a noise of $\sigma$. Under
    `squared_error` without a latent F has the right width at $\beta = D / 2 \sigma^2$, the default; where the energy has a scale of its
    own, $\beta$ is 1. Vincent 2011, "A connection between score matching and denoising autoencoders".

    Args:
        sigma: standard deviation of the noise.
        beta: inverse temperature; $D / 2 \sigma^2$ by default.
        seed: of the noise, which depends on it, on how often it was called in training, and on the row.

    Raises:
        UsageError: a number that is not above 0.
    """

    def __init__(self, *, sigma: float = 0.2, beta: float | None = None, seed: int = 0):
        super().__init__()
        positive(sigma=sigma, beta=1.0 if beta is None else beta)
        self.sigma, self.beta = sigma, beta
        self.fresh = Fresh(seed)

    def extra_repr(self) -> str:
        """The noise."""
        return f"sigma={self.sigma}, beta={self.beta}"

    def forward(self, inference: Inference) -> Float[Tensor, ""]:
        """Scalar; the mean over views."""
        return torch.stack([self._one(energy, inference.minimizer) for energy, _ in by_view(inference)]).mean()

    def _one(self, energy: Energy, minimizer: Minimizer) -> Tensor:
        s_y = full(detached(energy).s_y)
        noise = self.fresh(len(s_y), gather_rows(s_y)[1].start).normal("noise", s_y.shape[-1]).to(s_y)
        beta = s_y.shape[-1] / (2 * self.sigma**2) if self.beta is None else self.beta
        slope = _slope(energy, s_y + self.sigma * noise, minimizer, graph=torch.is_grad_enabled())
        return mean_over_ranks((beta * slope - noise / self.sigma).square().sum(-1))


def _slope(energy: Energy, s: Tensor, minimizer: Minimizer, *, graph: bool) -> Tensor:
    """dF/ds of each row at other embeddings of y; with `graph` it is differentiable in the model."""
    with differentiable():
        s = s.detach().requires_grad_()
        value = minimizer(energy.of(energy.s_x, s, energy.action)).value
        (slope,) = torch.autograd.grad(value.sum(), s, create_graph=graph)
    return slope
