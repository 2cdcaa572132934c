r"""Teachers: encoders of y that are made of the encoder of x, their student, and get no gradient.

A teacher is an encoder and not part of an objective, so the energy that is served is the energy that was trained.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.encoder import Branch, Represented
from accord.model.latent import Following, Scheduled


class StopGradient(Branch):
    """The student itself, without gradient: the teacher of SimSiam (Chen, He 2021, arXiv:2011.10566).

    Args:
        encoder: the student; its weights and running statistics are shared.

    In training mode batch norm sees a batch of the student twice, as x and as y.
    """

    def __init__(self, encoder: Branch):
        super().__init__()
        _require_branch(encoder)
        self.encoder = encoder
        self.sample_ndim = encoder.sample_ndim

    @property
    def student(self) -> Branch:
        """Whose weights these are."""
        return self.encoder

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The student's features, (*batch, feature), without gradient."""
        return self.encoder.features(x)

    @torch.no_grad()
    def represent(self, x: Tensor) -> Represented:
        """The student's features and embeddings, without gradient."""
        return self.encoder.represent(x)


class MovingAverage(Branch, Following, Scheduled):
    r"""A copy whose weights follow the student's: $\bar\theta \leftarrow m \bar\theta + (1 - m)\,\theta$ after each step.

    $m = m_1 - \tfrac12 (m_1 - m_0)(1 + \cos \pi p)$ rises from $m_0$ to $m_1$ with the share p of training that is done.
    Grill et al. 2020 (BYOL), arXiv:2006.07733; Tarvainen, Valpola 2017, arXiv:1703.01780.

    Only weights are averaged. The running statistics of a batch norm are those of the copy's own passes, for they describe its own
    activations; in training mode it normalises by the batch, as the student does. Other buffers stay as they were copied.

    The copy gets no gradient and no weight decay, is part of the model's state, and moves only with steps that were made. Its
    student is referred to, not owned: it is the `encoder_x` of the model. In a loop of your own call ``objective.before_step(progress)``
    before each step and ``objective.after_step()`` after it.

    Args:
        encoder: the student; the copy starts from its weights.
        momentum: m at the beginning and at the end of training.

    Raises:
        UsageError: for an encoder that is none, or a momentum outside [0, 1].
    """

    def __init__(self, encoder: Branch, *, momentum: tuple[float, float] = (0.996, 1.0)):
        super().__init__()
        _require_branch(encoder)
        if len(momentum) != 2 or not all(0 <= m <= 1 for m in momentum):
            raise UsageError(
                f"momentum: expected two numbers from 0 to 1, its value at the beginning and at the end, got {momentum}",
                where="momentum",
                help="for example (0.996, 1.0)",
            )
        self.momentum = (float(momentum[0]), float(momentum[1]))
        self.progress = 0.0
        self._student = (encoder,)  # in a tuple, so that its weights are not registered here
        self.average = deepcopy(encoder).requires_grad_(False)
        self.sample_ndim = encoder.sample_ndim

    def extra_repr(self) -> str:
        """The momentum."""
        return f"momentum={self.momentum}"

    @property
    def student(self) -> Branch:
        """Whose weights are averaged."""
        return self._student[0]

    @property
    def momentum_now(self) -> float:
        """The momentum at this point of training."""
        first, last = self.momentum
        return last - (last - first) * (math.cos(math.pi * self.progress) + 1) / 2

    def before_step(self, progress: float) -> None:
        """Takes note of how far training is."""
        self.progress = progress

    @torch.no_grad()
    def after_step(self, taken: Tensor | bool = True) -> None:
        """Moves the copy towards the student, unless the step was not made."""
        averages: list[Tensor] = list(self.average.parameters())
        weights: list[Tensor] = list(self.student.parameters())
        if averages:
            share = torch.as_tensor(taken, dtype=averages[0].dtype, device=averages[0].device) * (1 - self.momentum_now)
            ways = list(torch._foreach_sub(weights, averages))
            torch._foreach_mul_(ways, share)
            torch._foreach_add_(averages, ways)

    @torch.no_grad()
    def restart(self) -> None:
        """Makes the copy equal to the student, buffers too: where the student was changed by hand before training."""
        self.average.load_state_dict(self.student.state_dict())

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The copy's features, (*batch, feature), without gradient."""
        return self.average.features(x)

    @torch.no_grad()
    def represent(self, x: Tensor) -> Represented:
        """The copy's features and embeddings, without gradient."""
        return self.average.represent(x)


Teacher = MovingAverage | StopGradient


def _require_branch(encoder: nn.Module) -> None:
    if not isinstance(encoder, Branch):
        raise UsageError(
            f"a teacher is made of an encoder, got {type(encoder).__name__}",
            help="wrap it first: encoder = accord.Encoder(backbone, projector), and give this one to the model, too",
        )
