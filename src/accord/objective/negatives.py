"""Which pairs do not belong together: all others of the batch, some at random, or those of the lowest energy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.latent import counts
from accord.objective.candidates import Candidates


class Chosen(NamedTuple):
    """F of the negatives of some rows, (rows, k), differentiable; and what takes them out of anything known of all candidates."""

    energy: Tensor
    take: Callable[[Tensor], Tensor]


Choice = Callable[[slice], Chosen]
"""The negatives of some rows of one side."""


class Negatives(nn.Module, ABC):
    """Chooses, for each row, candidates that do not belong to it."""

    @abstractmethod
    def forward(self, side: Candidates) -> Choice:
        """A choice for one side of a batch; it may be asked for the same rows more than once, and answers the same."""

    @abstractmethod
    def per_row(self, side: Candidates) -> int:
        """How many numbers a row needs in memory: what chunks are counted by."""


class InBatch(Negatives):
    """All others: each x with every y of the batch of all ranks but its own."""

    def forward(self, side: Candidates) -> Choice:
        """All candidates that do not belong to a row."""

        def choose(rows: slice) -> Chosen:
            take = partial(side.without_own, rows)
            return Chosen(take(side.all(rows)), take)

        return choose

    def per_row(self, side: Candidates) -> int:
        """One for each candidate."""
        return side.columns


class Sampled(Negatives):
    """Some others, drawn anew each time, independently and with replacement.

    Only their energies are computed, which pays where a pair is dear: with a latent that is found by descent, say. The draws are a
    function of the seed, of how many were made before (a buffer that is saved with the state; each side of a batch counts, and
    evaluation does not) and of the row in the batch of all ranks.

    Args:
        count: how many for each row.
        seed: of the draws.

    Raises:
        UsageError: for a count below 1.
    """

    def __init__(self, count: int = 16, *, seed: int = 0):
        super().__init__()
        counts(count=count)
        self.count = count
        self.fresh = Fresh(seed)

    def forward(self, side: Candidates) -> Choice:
        """`count` candidates for each row."""
        u = self.fresh(side.rows, side.first).uniform("negatives", self.count).double()
        numbers = (u * side.others).long()

        def choose(rows: slice) -> Chosen:
            index = side.other(rows, numbers[rows])
            return Chosen(side.some(rows, index), lambda known: known.gather(1, index))

        return choose

    def per_row(self, side: Candidates) -> int:
        """The embeddings of the candidates."""
        return self.count * side.own.s_y.shape[-1]


class Mined(Negatives):
    """Those of the lowest energy, the "most offending": with k = 1 the loss of a row is that of its worst mistake.

    Args:
        count: how many for each row; all others where they are fewer.
        mode: "hardest" takes the lowest energies of all; "semi_hard" the lowest of those above the energy of the pair itself, and
            after these, where there are not enough, the highest of those below: Schroff et al. 2015, arXiv:1503.03832.

    Raises:
        UsageError: for a count below 1 or an unknown mode.
    """

    def __init__(self, count: int = 1, *, mode: Literal["hardest", "semi_hard"] = "semi_hard"):
        super().__init__()
        counts(count=count)
        if mode not in ("hardest", "semi_hard"):
            raise UsageError(f"mode is 'hardest' or 'semi_hard', got {mode!r}", where="mode")
        self.count, self.mode = count, mode

    def extra_repr(self) -> str:
        """What is looked for."""
        return f"{self.count}, mode={self.mode!r}"

    def forward(self, side: Candidates) -> Choice:
        """A search without gradient; the pairs that are found are evaluated once more with one."""

        def choose(rows: slice) -> Chosen:
            index = self._search(side, rows)
            return Chosen(side.some(rows, index), lambda known: known.gather(1, index))

        return choose

    def per_row(self, side: Candidates) -> int:
        """One for each candidate, and the embeddings of those that are found."""
        return max(side.columns, self.count * side.own.s_y.shape[-1])

    @torch.no_grad()
    def _search(self, side: Candidates, rows: slice) -> Tensor:
        order = side.all(rows)
        if self.mode == "semi_hard":
            above = order - side.positive[rows, None]
            order = torch.where(above > 0, above, above.abs().amax(1, keepdim=True) - above)
        order = order.masked_fill(side.is_own(rows), torch.inf)
        return order.topk(min(self.count, side.others), dim=1, largest=False).indices


class Fresh(nn.Module):
    """New random numbers for each row at each turn, the same however rows are spread over ranks and blocks.

    Args:
        seed: any integer.

    The buffer `turn` counts the calls in training mode and is saved with the state. In evaluation mode it stands still.
    """

    turn: Tensor

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: int, first: int = 0) -> Draws:
        """For rows `first` ... `first + rows - 1` of all ranks; in training mode the turn ends with this call."""
        index = (self.turn << 32) + torch.arange(first, first + rows, device=self.turn.device)
        if self.training:
            self.turn.add_(1)
        return Draws(self.seed, 0, index)
