r"""The cost of DINO: how far a student's distribution over prototypes is from a teacher's that is centred and sharpened."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import all_reduce_sum, total_rows
from accord.errors import UsageError
from accord.model.density import full
from accord.model.energy import all_against_all
from accord.model.latent import Following, positive


class CentredDivergence(nn.Module, Following):
    r"""$\mathrm{KL}(p \,\|\, q)$ of the teacher's $p = \mathrm{softmax}((s_y - c) / \tau_t)$ and $q = \mathrm{softmax}(\hat s_y / \tau_s)$.

    That is DINO's cross-entropy $-\sum_k p_k \log q_k$ less the entropy of p, which has no gradient where $s_y$ comes from a teacher:
    training is the same, and as an energy it is 0 where the prediction is perfect, whatever y is. Caron et al. 2021, arXiv:2104.14294.

    The centre c is a running mean of $s_y$ over the batches of all ranks, $c \leftarrow m c + (1 - m)\,\bar s_y$ after each step:
    without it one prototype takes everything, without sharpening ($\tau_t < \tau_s$) all are taken equally. It is part of the
    model's state, and moves only with steps that were made. A `Cost`.

    Args:
        dim: width of the embeddings.
        student: temperature $\tau_s$.
        teacher: temperature $\tau_t$.
        momentum: m of the centre.

    Raises:
        UsageError: a temperature that is not above 0, or a momentum outside [0, 1].
    """

    centre: Tensor

    def __init__(self, dim: int, *, student: float = 0.1, teacher: float = 0.04, momentum: float = 0.9):
        super().__init__()
        positive(student=student, teacher=teacher)
        if not 0 <= momentum <= 1:
            raise UsageError(
                f"momentum: expected a number from 0 to 1, got {momentum}", where="momentum", help="for example 0.9"
            )
        self.student, self.teacher, self.momentum = student, teacher, momentum
        self.register_buffer("centre", torch.zeros(dim))
        self._seen: Tensor | None = None

    def forward(self, s_y_hat: Float[Tensor, "*a dim"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
        """Nats, of every pair; all predictions against all y, as `Energy.cross` has them, are a matrix product."""
        log_q = torch.log_softmax(full(s_y_hat) / self.student, -1)
        log_p = torch.log_softmax((full(s_y) - self.centre) / self.teacher, -1)
        p = log_p.exp()
        negentropy = (p * log_p).sum(-1)
        if not all_against_all(log_q, p):
            return negentropy - (p * log_q).sum(-1)
        with torch.autocast(p.device.type, enabled=False):
            return negentropy - log_q.squeeze(-2) @ p.squeeze(0).mT

    @torch.no_grad()
    def observe(self, s_y: Float[Tensor, "*batch dim"]) -> None:
        """Takes note of the mean of a training batch, over all ranks, by which `after_step` moves the centre."""
        rows = full(s_y).reshape(-1, s_y.shape[-1])
        self._seen = all_reduce_sum(rows.sum(0)) / total_rows(rows)

    @torch.no_grad()
    def after_step(self, taken: Tensor | bool = True) -> None:
        """Moves the centre towards the mean of the batch, unless the step was not made."""
        if self._seen is None:
            return
        moved = self.momentum * self.centre + (1 - self.momentum) * self._seen
        self.centre.copy_(torch.where(torch.as_tensor(taken, device=moved.device), moved, self.centre))
        self._seen = None
