"""Terms that look after the latent: keep every code in use."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import all_reduce_sum
from accord.errors import UsageError
from accord.model.codebook import codebook_of
from accord.model.latent import positive
from accord.objective.loss import Inference


class UsageEntropy(nn.Module):
    r"""What the codes lack to be used equally often: $\sum_b \log K - H(\bar q_b)$ nats, with $\bar q$ the mean over the batch.

    $q_{bk} \propto \sum_{z: z_b = k} e^{-\beta E(x, y, z)}$ is the Gibbs distribution of each choice, so that a code nobody uses still
    gets a gradient. 0 where all codes of all blocks are used equally; it asks nothing of a single pair. The batch is that of all
    ranks.

    Give it a weight beside a principle: ``Objective(model, {**vicreg(), "usage": (0.1, UsageEntropy())})``.

    Args:
        beta: inverse temperature of q.

    Raises (when called):
        UsageError: if the latent has no codes, or too many to enumerate.
    """

    def __init__(self, beta: float = 10.0):
        super().__init__()
        positive(beta=beta)
        self.beta = beta

    def forward(self, inference: Inference) -> Float[Tensor, ""]:
        """Nats, sum over blocks."""
        energy = inference.energy
        book = codebook_of(energy.latent)
        z = book.candidates()
        if z is None:
            raise UsageError("UsageEntropy needs a codebook that can be enumerated", help="use fewer codes or blocks")
        energies = energy(z.view(len(z), *[1] * len(energy.batch_shape), -1)).expand(len(z), *energy.batch_shape)
        q = torch.softmax(-self.beta * energies, dim=0).flatten(1)
        joint = all_reduce_sum(q.sum(1)) / all_reduce_sum(q.new_full((), float(q.shape[1])))
        blocks, codes, _ = book.table.shape
        joint = joint.view([codes] * blocks)
        lack = joint.new_zeros(())
        for b in range(blocks):
            marginal = joint.sum([other for other in range(blocks) if other != b]) if blocks > 1 else joint
            lack = lack + math.log(codes) + torch.special.xlogy(marginal, marginal).sum()
        return lack
