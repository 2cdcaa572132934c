"""An objective is a weighted sum of plain functions of an inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from accord.collective import mean_over_ranks
from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.energy import Energy
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Following, Scheduled
from accord.model.minimize import Minimizer, Minimum


class Inference(NamedTuple):
    """What a term may look at: the energy, where its minimum is, and how it was found."""

    energy: Energy
    minimum: Minimum
    minimizer: Minimizer


Term = Callable[[Inference], Tensor]
"""One scalar of an inference. A term with state (slices that change with the step, say) is an nn.Module."""

Terms = Mapping[str, tuple[float, Term]]
"""Name -> (weight, term): what a training principle is made of."""


class Loss(NamedTuple):
    """`total`, (), is what is minimised; `terms` are its parts, unweighted and detached, for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective(nn.Module):
    """The one module that is wrapped, compiled, sharded and checkpointed: the model and the terms it is trained by.

    Args:
        model: the energy.
        terms: name -> (weight, term).
        symmetric: each pair counts both ways, (x, y) and (y, x): the terms see twice as many pairs, as does batch norm.

    Raises:
        UsageError: without any term; when called, if pairs are to count both ways and cannot (see `Pair.both_ways`).

    Example:
        >>> objective = Objective(model, {"free_energy": (25.0, free_energy), "variance": (25.0, variance)})
        >>> objective(pair).total.backward()
    """

    def __init__(self, model: JointEmbedding, terms: Terms, *, symmetric: bool = False):
        super().__init__()
        if not terms:
            raise UsageError("an objective needs at least one term: {'free_energy': (1.0, free_energy)}")
        self.model = model
        self.terms = dict(terms)
        self.symmetric = symmetric
        self.stateful_terms = nn.ModuleDict({n: t for n, (_, t) in terms.items() if isinstance(t, nn.Module)})

    def forward(self, pair: Pair) -> Loss:
        """The loss of a batch: one encoding, one inference, every term on it."""
        if self.symmetric:
            pair = pair.both_ways()
        return self.loss(self.model(pair.x, pair.y, pair.action))

    def loss(self, energy: Energy) -> Loss:
        """The loss of a batch whose embeddings are at hand; it tells the parts that look after codes and centres, as `forward` does."""
        inference = Inference(energy, self.model.minimizer(energy), self.model.minimizer)
        if self.training:
            self.model.observe(energy, inference.minimum)
        values = {name: term(inference) for name, (_, term) in self.terms.items()}
        total = sum((weight * values[name] for name, (weight, _) in self.terms.items()), start=energy.s_x.new_zeros(()))
        return Loss(total, {name: value.detach() for name, value in values.items()})

    def before_step(self, progress: float) -> None:
        """Tells every part that changes from step to step how far training is; a loop of your own calls it before each step.

        Args:
            progress: share of the training that is done, in [0, 1).
        """
        for module in self.modules():
            if isinstance(module, Scheduled):
                module.before_step(progress)

    def after_step(self, taken: Tensor | bool = True) -> None:
        """Moves every part that follows training: teachers and running centres; a loop of your own calls it after each step.

        Does nothing without such a part.

        Args:
            taken: whether the optimiser made the step, see `Following`.
        """
        for module in self.modules():
            if isinstance(module, Following):
                module.after_step(taken)


def free_energy(inference: Inference) -> Tensor:
    """Mean over the batch of all ranks of F(x, y): pulls the energy of compatible pairs down."""
    return mean_over_ranks(inference.minimum.value)
