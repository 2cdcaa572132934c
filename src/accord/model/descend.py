r"""Descent in a continuous z, from several starts: $z \leftarrow \Pi(z - \eta\, P^{-1} \partial E / \partial z)$.

z is found without gradient in the model and E is evaluated once more where it was found (the envelope theorem), unless the steps
themselves are to be differentiated: Domke 2012, "Generic Methods for Optimization-Based Modeling".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from accord.errors import UsageError
from accord.model.energy import Energy
from accord.model.latent import counts, positive
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, draws, energy_at, filled, taken
from accord.model.newton import Direction, gauss_newton


class Descend(Minimizer):
    r"""Minimum over a vector z by descent; the best of all starts, and of all steps of each.

    By default the steps are plain: along a direction, with a rate for each pair, which is divided by 4 when a step does not lower
    its energy (such a step is not made) and doubled after one that does, up to `rate`. So the energy of a pair never rises. An
    optimiser of torch makes its own steps; the best z it came by counts. Of a sequence (`Latent.coupled`) the sum is minimised. Where
    the price has a kink (`Sparse`) plain steps end at the first one they meet: `Ista` is for those.

    Args:
        steps: how many.
        direction: what a plain step goes along: `gauss_newton()`, which is exact in one step for a prediction linear in z, squared
            error and a quadratic price; ``gauss_newton(iterations=3)``, the default, which is as good over several steps and costs
            a third; or `steepest`, the gradient.
        optimizer: makes an optimiser of a list of one tensor, in the place of plain steps: ``functools.partial(torch.optim.Adam,
            lr=0.1)``. One with a line search (L-BFGS) makes the result of a pair depend on the batch.
        rate: first and largest rate of plain steps. With `steepest` and a cost that is a mean over D dimensions, of the order of D.
        restarts: draws from the prior that a search starts from, besides the origin; a warm start is one more.
        unroll: the gradient of F includes the path of z through the steps; plain steps only. Memory grows with their number.
        seed: of the draws in evaluation mode, where all pairs start alike; in training mode they come from torch's generator.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds, or an optimiser to be unrolled; when called, for a latent that is a choice.
    """

    def __init__(
        self,
        steps: int = 12,
        *,
        direction: Direction | None = None,
        optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
        rate: float = 1.0,
        restarts: int = 3,
        unroll: bool = False,
        seed: int = 0,
        chunk: int = ELEMENTS,
    ):
        super().__init__()
        counts(steps=steps, chunk=chunk, restarts=restarts + 1)
        positive(rate=rate)
        if optimizer is not None and (unroll or direction is not None):
            raise UsageError(
                "an optimiser of torch makes its own steps: it has no direction, and they cannot be differentiated",
                where="optimizer",
                help="leave out direction and unroll, or the optimizer",
            )
        self.steps, self.rate, self.restarts = steps, rate, restarts
        self.direction = gauss_newton(iterations=3) if direction is None else direction
        self.optimizer, self.unroll, self.seed, self.chunk = optimizer, unroll, seed, chunk

    def extra_repr(self) -> str:
        """How hard it tries."""
        return f"steps={self.steps}, restarts={self.restarts}, unroll={self.unroll}"

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and the best z found."""
        if energy.latent.choice:
            raise UsageError(
                f"{type(energy.latent).__name__} is a choice: there is nothing to descend along",
                help="use Enumerate, Coordinate for many blocks, Viterbi for Markov",
            )
        if self.unroll and torch.is_grad_enabled():
            return self._unrolled(energy, self._starts(energy, start))
        with differentiable():
            held = detached(energy)
            starts = self._starts(held, start)
            find = self._plain if self.optimizer is None else self._optimized
            pieces = list(held.pieces(self.chunk, copies=len(starts)))
            if len(pieces) == 1:
                best = find(held, starts)
            else:
                best = filled(held, ((rows, (find(held.part(rows), starts[:, rows]),)) for rows in pieces))[0]
        return Minimum(energy_at(energy, best, self.chunk), best)

    @torch.no_grad()
    def _starts(self, energy: Energy, start: Tensor | None) -> Float[Tensor, "starts *batch latent"]:
        """A warm start, the origin, draws from the prior."""
        zero = origin(energy)
        z = torch.stack([zero] if start is None else [start.detach().clone().to(zero).expand_as(zero), zero])
        if self.restarts:
            drawn = draws(energy, self.restarts, None if self.training else self.seed)
            z = torch.cat([z, drawn.to(z).expand(self.restarts, *zero.shape)])
        return energy.latent.project(z)

    def _plain(self, energy: Energy, z: Tensor) -> Tensor:
        energies, z = self._steps(energy, z, graph=False)
        return _best(_total(energy, energies), z)

    def _steps(self, energy: Energy, z: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
        """Plain steps from each start: energies of each time step (starts, *batch), and z."""
        z, energies, gradient = _slope(energy, z, graph=graph)
        rate = torch.full_like(_total(energy, energies.detach()), self.rate)
        for _ in range(self.steps):
            step = rate[..., None] * self.direction(energy, z, gradient)
            trial = energy.latent.project(z - step)
            trial, others, slope = _slope(energy, trial, graph=graph)
            lower = _total(energy, others.detach()) < _total(energy, energies.detach())
            energies = torch.where(lower, others, energies)
            z, gradient = (torch.where(lower[..., None], new, old) for new, old in ((trial, z), (slope, gradient)))
            rate = torch.where(lower, (2 * rate).clamp_max(self.rate), rate / 4)
        return energies, z

    def _unrolled(self, energy: Energy, starts: Tensor) -> Minimum:
        energies, z = self._steps(energy, starts.requires_grad_(), graph=True)
        which = _total(energy, energies.detach()).argmin(0)
        return Minimum(energies.gather(0, which[None])[0], taken(z.detach(), which))

    def _optimized(self, energy: Energy, z: Tensor) -> Tensor:
        assert self.optimizer is not None
        z = z.clone().requires_grad_()
        optimizer = self.optimizer([z])
        kept: list[Tensor] = []

        def closure() -> Tensor:
            energies = energy(z).expand(z.shape[:-1])
            (z.grad,) = torch.autograd.grad(energies.sum(), z)
            _keep(kept, _total(energy, energies.detach()), z.detach())
            return energies.detach().sum()

        for _ in range(self.steps):
            optimizer.step(closure)  # type: ignore[arg-type]
            with torch.no_grad():
                z.copy_(energy.latent.project(z))
        closure()
        return _best(kept[0], kept[1])


def detached(energy: Energy) -> Energy:
    """The energy of embeddings without gradient, such that one in z can be taken even if they were made in inference mode."""
    held = energy.detach()
    if held.s_x.is_inference() or held.s_y.is_inference():
        action = None if held.action is None else held.action.clone()
        return Energy(
            held.s_x.clone(),
            held.s_y.clone(),
            predictor=held.predictor,
            cost=held.cost,
            latent=held.latent,
            action=action,
        )
    return held


@contextmanager
def differentiable() -> Iterator[None]:
    """Gradients are computed in the body, whatever is the case around it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def origin(energy: Energy) -> Float[Tensor, "*batch latent"]:
    """Zero for each pair, of the type z is searched in: float32 at least."""
    kind = torch.promote_types(energy.s_y.dtype, torch.float32)
    return energy.s_y.new_zeros((*energy.batch_shape, energy.latent.dim), dtype=kind)


def _slope(energy: Energy, z: Tensor, *, graph: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(z, E, dE/dz); without `graph` none of them has a history."""
    if not graph:
        z = z.detach().requires_grad_()
    energies = energy(z).expand(z.shape[:-1])
    (gradient,) = torch.autograd.grad(energies.sum(), z, create_graph=graph, materialize_grads=True)
    return (z, energies, gradient) if graph else (z.detach(), energies.detach(), gradient)


def _total(energy: Energy, energies: Float[Tensor, "starts *batch"]) -> Float[Tensor, "starts *batch"]:
    """What is compared: of a sequence the sum, at each of its steps."""
    return energies.sum(-1, keepdim=True).expand_as(energies) if energy.latent.coupled else energies


def _keep(kept: list[Any], total: Tensor, z: Tensor) -> None:
    """The lowest energies so far and their z."""
    if kept:
        lower = total < kept[0]
        kept[:] = [torch.where(lower, total, kept[0]), torch.where(lower[..., None], z, kept[1])]
    else:
        kept[:] = [total, z.clone()]


def _best(total: Tensor, z: Tensor) -> Tensor:
    """The z of the best start."""
    return taken(z, total.argmin(0))
