r"""Terms for sequences: what follows each other is alike, moves straight on, and tells the action between.

They keep a world model from learning what is easy to predict and useless. Written for x and y that are consecutive states: $s_x$ at
t, $s_y$ at t + 1, and the action that led from one to the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import mean_over_ranks
from accord.errors import UsageError
from accord.model.energy import squared_error
from accord.model.latent import counts
from accord.model.predictor import joined
from accord.objective.checks import require
from accord.objective.loss import Inference

# --- functions of trajectories ---


def slowness(s: Float[Tensor, "*batch time dim"]) -> Float[Tensor, ""]:
    r"""Temporal similarity: mean over batch, steps and D of $(s_t - s_{t+1})^2$.

    Wiskott, Sejnowski 2002, "Slow feature analysis"; with weight 12 in EB-JEPA, arXiv:2602.03604.

    Raises:
        UsageError: fewer than two steps.
    """
    require(s.ndim >= 2 and s.shape[-2] >= 2, f"expected (*batch, time >= 2, dim), got {tuple(s.shape)}")
    return mean_over_ranks(squared_error(s[..., :-1, :], s[..., 1:, :]))


def straightening(s: Float[Tensor, "*batch time dim"]) -> Float[Tensor, ""]:
    r"""Curvature: mean over batch and steps of $1 - \cos(s_{t+1} - s_t, s_{t+2} - s_{t+1})$.

    0 for a trajectory that goes straight on, whatever its speed; 1 counts for a step of length 0. arXiv:2603.12231.

    Raises:
        UsageError: fewer than three steps.
    """
    require(s.ndim >= 2 and s.shape[-2] >= 3, f"expected (*batch, time >= 3, dim), got {tuple(s.shape)}")
    velocity = (s.float() if s.dtype in (torch.float16, torch.bfloat16) else s).diff(dim=-2)
    return mean_over_ranks(1 - F.cosine_similarity(velocity[..., :-1, :], velocity[..., 1:, :], dim=-1))


# --- terms of an objective ---


def temporal_similarity(inference: Inference) -> Tensor:
    """Mean over batch and D of $(s_x - s_y)^2$: of the embeddings, whatever is predicted."""
    energy = inference.energy
    return mean_over_ranks(squared_error(energy.s_x, energy.s_y))


def straight(inference: Inference) -> Tensor:
    """`straightening` of the trajectories whose steps are $s_x$, (*batch, time, dim), and the last $s_y$."""
    energy = inference.energy
    require(energy.s_x.ndim >= 3, f"expected sequences (*batch, time, dim), got s_x {tuple(energy.s_x.shape)}")
    return straightening(torch.cat([energy.s_x, energy.s_y[..., -1:, :]], dim=-2))


class InverseDynamics(nn.Module):
    r"""The action is to be told from the embeddings before and after it: mean over batch and A of $(a - \mathrm{MLP}(s_x, s_y))^2$.

    Without it a world model may leave out what actions change (EB-JEPA, arXiv:2602.03604: planning succeeds in 1 of 100 cases instead of
    97). The network is trained with the model and serves for nothing else.

    Args:
        dim: width of the embeddings.
        action_dim: A.
        hidden: widths of the hidden layers; one of 2 dim by default.

    Raises (when called):
        UsageError: for pairs without an action, or of other widths.
    """

    def __init__(self, dim: int, action_dim: int, *, hidden: Sequence[int] | None = None):
        super().__init__()
        counts(dim=dim, action_dim=action_dim)
        widths = [2 * dim, *((2 * dim,) if hidden is None else hidden), action_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, inference: Inference) -> Float[Tensor, ""]:
        """Scalar."""
        energy = inference.energy
        if energy.action is None:
            raise UsageError("inverse dynamics needs the action of each pair", help="give pairs an action")
        told = joined(self.layers, (energy.s_x, energy.s_y), "the network takes {} numbers, s_x and s_y have {}")
        require(
            told.shape[-1] == energy.action.shape[-1],
            f"the network tells {told.shape[-1]} numbers, an action has {energy.action.shape[-1]}",
            "give InverseDynamics the action_dim of the pairs",
        )
        return mean_over_ranks(squared_error(told, energy.action))
