r"""Sparse codes: $\min_z D(s_y, \mathrm{Pred}(s_x, z)) + \lambda \lVert z \rVert_1$ by steps along the gradient of D and soft thresholds.

ISTA is $z \leftarrow \mathrm{soft}_{\eta\lambda}(z - \eta\, \partial D / \partial z)$. With a prediction $b + W z$ and `squared_error`,
which is a *mean* over D dimensions, $\partial D / \partial z = G z - c$ with $G = \frac{2}{D} W^\top W$ and
$c = \frac{2}{D} W^\top (s_y - b)$, and $\eta$ is one over the largest eigenvalue of G.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.continuous import Sparse
from accord.model.descend import detached, differentiable, origin
from accord.model.energy import Energy, squared_error
from accord.model.latent import counts
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, energy_at, filled
from accord.model.predictor import Predictor


class Ista(Minimizer):
    r"""Minimum over a sparse z by iterative soft thresholding; accelerated, it is FISTA.

    For a prediction linear in z under `squared_error`, and without the spread term, the problem is convex, the rate is exact, and the
    error after t steps is below $L \lVert z^* \rVert^2 / 2t$, accelerated $2 L \lVert z^* \rVert^2 / (t+1)^2$. Otherwise the rate of
    each pair is halved until a step makes E smaller by as much as it should (backtracking): E never rises, and what is found is a
    local minimum. With a spread term there are as many steps without it first, for it stops what comes from inside its sphere.
    Daubechies, Defrise, De Mol 2004; Beck, Teboulle 2009; the momentum starts afresh where it points uphill: O'Donoghue, Candes 2015.

    Args:
        steps: how many.
        accelerated: with momentum; only where the problem is convex.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds; when called, for a latent that is not `Sparse`, or for `accelerated` where it
            is not sound.
    """

    def __init__(self, steps: int = 100, *, accelerated: bool = False, chunk: int = ELEMENTS):
        super().__init__()
        counts(steps=steps, chunk=chunk)
        self.steps, self.accelerated, self.chunk = steps, accelerated, chunk

    def extra_repr(self) -> str:
        """How hard it tries."""
        return f"steps={self.steps}, accelerated={self.accelerated}"

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and z; the search begins at `start` or at 0."""
        convex = energy.predictor.linear_in_z() is not None and energy.cost is squared_error and not _spread(energy)
        if self.accelerated and not convex:
            raise UsageError(
                "FISTA needs a prediction linear in z (DictionaryPredictor), squared_error and no spread term",
                where="accelerated",
                help="use Ista(accelerated=False), whose steps are checked, or Descend",
            )
        with differentiable():
            held = detached(energy)
            z = origin(held)
            z = z if start is None else start.detach().clone().to(z).expand_as(z)
            pieces = list(held.pieces(self.chunk))
            find = self._linear if convex else self._checked
            found = ((rows, (find(held.part(rows), z[rows]),)) for rows in pieces)
            best = find(held, z) if len(pieces) == 1 else filled(held, found)[0]
        return Minimum(energy_at(energy, best, self.chunk), best)

    @torch.no_grad()
    def _linear(self, energy: Energy, z: Tensor) -> Tensor:
        gram, c = normal_equations(energy)
        rate = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(gram.dtype).tiny)
        threshold = rate * energy.latent.weight
        point, momentum = z, torch.ones_like(z[..., :1])
        for _ in range(self.steps):
            following = soft_threshold(point - rate * (point @ gram - c), threshold)
            if not self.accelerated:
                z = point = following
                continue
            uphill = ((point - following) * (following - z)).sum(-1, keepdim=True) > 0
            later = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
            share = torch.where(uphill, 0, (momentum - 1) / later)
            momentum = torch.where(uphill, 1, later)
            point, z = following + share * (following - z), following
        return z

    def _checked(self, energy: Energy, z: Tensor) -> Tensor:
        spread = _spread(energy)
        if spread:
            without = self._backtracking(energy, z, 0.0)
            with torch.no_grad():
                z = torch.where((energy(without) < energy(z))[..., None], without, z)
        return self._backtracking(energy, z, spread)

    def _backtracking(self, energy: Energy, z: Tensor, spread: float) -> Tensor:
        weight = energy.latent.weight
        cost, slope = _smooth_part(energy, z, spread)
        rate = torch.full_like(cost, float(energy.s_y.shape[-1]))[..., None]
        for _ in range(self.steps):
            trial = soft_threshold(z - rate * slope, weight * rate)
            change = trial - z
            new_cost, new_slope = _smooth_part(energy, trial, spread)
            bound = cost + (slope * change + change.square() / (2 * rate)).sum(-1)
            good = (new_cost <= bound)[..., None]
            z, slope = torch.where(good, trial, z), torch.where(good, new_slope, slope)
            cost, rate = torch.where(good[..., 0], new_cost, cost), torch.where(good, rate, rate / 2)
        return z


class Lista(Minimizer):
    r"""Learned ISTA: $z \leftarrow \mathrm{soft}_\theta(W_e (s_y - b) + S z)$, a few times, with learned $W_e$, S and $\theta$.

    b is the prediction at z = 0. At the start it is `Ista` of as many steps from 0, exactly. It is trained through its value, the
    energy of the z it makes, whose gradient therefore reaches the model by two ways: at z, and through z.
    Gregor, LeCun 2010, "Learning Fast Approximations of Sparse Coding".

    Args:
        predictor: linear in z; only read here.
        latent: only its weight is read here.
        steps: how many.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for a predictor that is not linear in z; when called, for a latent that is not `Sparse` or has a spread term.
    """

    def __init__(self, predictor: Predictor, latent: Sparse, steps: int = 4, *, chunk: int = ELEMENTS):
        super().__init__()
        counts(steps=steps, chunk=chunk)
        directions = predictor.linear_in_z()
        if directions is None:
            raise UsageError(
                f"Lista needs a prediction linear in z, {type(predictor).__name__} is not",
                help="use DictionaryPredictor",
            )
        w = directions.detach()
        gram = 2 / len(w) * w.mT @ w
        rate = 1 / torch.linalg.eigvalsh(gram)[-1]
        self.steps, self.chunk = steps, chunk
        self.encode = nn.Parameter(2 / len(w) * rate * w.mT.contiguous())
        self.mix = nn.Parameter(torch.eye(len(gram)).to(gram) - rate * gram)
        self.threshold = nn.Parameter((rate * latent.weight).expand(len(gram)).clone())

    def guess(self, energy: Energy) -> Float[Tensor, "*batch latent"]:
        """The z it makes; differentiable."""
        code: Tensor = (energy.s_y - _at_zero(energy)) @ self.encode.mT
        z = soft_threshold(code, self.threshold)
        for _ in range(self.steps - 1):
            z = soft_threshold(code + z @ self.mix.mT, self.threshold)
        return z.expand(*energy.batch_shape, -1)

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """E of the z it makes, and that z; `start` is ignored."""
        if _spread(energy):
            raise UsageError(
                "Lista does not know the spread term of this Sparse latent", where="spread", help="use Ista"
            )
        z = self.guess(energy)
        return Minimum(energy_at(energy, z, self.chunk), z.detach())


def soft_threshold(z: Tensor, threshold: Tensor) -> Tensor:
    """Sign(z) max(|z| - threshold, 0): what is below the threshold is exactly 0."""
    return z - torch.minimum(torch.maximum(z, -threshold), threshold)


def normal_equations(energy: Energy) -> tuple[Float[Tensor, "latent latent"], Float[Tensor, "*batch latent"]]:
    """G and c: D = z G z / 2 - c z + a constant, of a prediction linear in z under `squared_error`."""
    w = energy.predictor.linear_in_z()
    assert w is not None
    scale = 2 / len(w)
    c = energy.s_y @ w - _at_zero(energy) @ w  # not of the difference: every x with every y is no larger than z is
    return scale * w.mT @ w, (scale * c).expand(*energy.batch_shape, w.shape[1])


def _at_zero(energy: Energy) -> Tensor:
    """The prediction at z = 0, with the batch axes of x."""
    ones = [1] * len(energy.batch_shape)
    return energy.predict(torch.zeros(*ones, energy.latent.dim, dtype=energy.s_x.dtype, device=energy.s_x.device))


def _smooth_part(energy: Energy, z: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """E but for the absolute values, and its gradient in z, both without history."""
    z = z.detach().requires_grad_()
    cost = energy.divergence(z).expand(z.shape[:-1])
    if spread:
        cost = cost + energy.latent.penalty(z, energy.s_x) - energy.latent.weight * z.abs().sum(-1)
    (slope,) = torch.autograd.grad(cost.sum(), z, materialize_grads=True)
    return cost.detach(), slope


def _spread(energy: Energy) -> float:
    latent = energy.latent
    if not isinstance(latent, Sparse):
        raise UsageError(
            f"soft thresholds are for Sparse latents, this one is {type(latent).__name__}", help="use Descend"
        )
    return latent.spread
