"""Who is compared with whom: for each row of a batch, the energies with every partner it might have, those of all ranks.

Embeddings are gathered once, with the exact gradient; what follows needs no other rank until losses are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from accord.collective import all_rows, world_size
from accord.errors import UsageError
from accord.model.energy import Energy, squared_error
from accord.model.minimize import Minimizer
from accord.objective.checks import require
from accord.objective.loss import Inference


class Candidates(NamedTuple):
    """One side of a batch of pairs: its rows are the x of this rank and their candidates every y; or the other way round.

    Candidates are numbered: 0 ... N-1 are the partners of the rows of all ranks, in the order of ranks; N ... 2N-1, where there are
    any, those rows themselves (`within`). Row i has one candidate that belongs to it, its partner, and never itself as another.

    Attributes:
        own: the pairs of this rank, with one batch axis.
        every: the pairs of all ranks.
        minimizer: how z is found, for each pair anew.
        positive: F of the pairs of this rank, (rows,).
        first: number of the first row of this rank.
        of_y: the rows are y and the candidates x.
        within: the rows of the same side are candidates, too.
        kept: F of all pairs where both sides can share them, by whether it has a gradient.
    """

    own: Energy
    every: Energy
    minimizer: Minimizer
    positive: Tensor
    first: int
    of_y: bool
    within: bool
    kept: dict[bool, Tensor]

    @property
    def rows(self) -> int:
        """Rows of this rank."""
        return len(self.positive)

    @property
    def total(self) -> int:
        """Rows of all ranks."""
        return len(self.every.s_y)

    @property
    def columns(self) -> int:
        """How many candidates a row has."""
        return 2 * self.total if self.within else self.total

    @property
    def others(self) -> int:
        """How many of them do not belong to the row."""
        return self.columns - (2 if self.within else 1)

    def other(self, rows: slice, number: Int64[Tensor, "rows k"]) -> Int64[Tensor, "rows k"]:
        """Candidates that do not belong to the rows, by numbers 0 ... others-1."""
        row = self.first + torch.arange(self.rows, device=number.device)[rows, None]
        number = number + (number >= row)
        return number + (number >= self.total + row) if self.within else number

    def without_own(self, rows: slice, t: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows others"]:
        """What is known of all candidates of some rows, without those that belong to them."""
        halves = t.split(self.total, dim=1)
        return torch.cat([_without_diagonal(half, self.first + rows.start) for half in halves], dim=1)

    def is_own(self, rows: slice) -> Tensor:
        """Which candidates are a row's partner or itself, (rows, columns)."""
        row = self.first + torch.arange(self.rows, device=self.positive.device)[rows, None]
        column = torch.arange(self.columns, device=self.positive.device)
        return (column == row) | (column == self.total + row)

    def all(self, rows: slice) -> Float[Tensor, "rows columns"]:
        """F of some rows with every candidate."""
        partners = self._matrix(rows)
        if not self.within:
            return partners
        same = self.every.s_y if self.of_y else self.every.s_x
        return torch.cat([partners, self._against(rows, same)], dim=1)

    def _matrix(self, rows: slice) -> Tensor:
        """With the partners of all rows; made once for both sides where that can be."""
        partners = self.every.s_x if self.of_y else self.every.s_y
        if world_size() > 1 or rows != slice(0, self.rows):
            return self._against(rows, partners)
        graph = torch.is_grad_enabled()
        if graph not in self.kept:
            found = self._against(rows, partners)
            self.kept[graph] = found.mT if self.of_y else found
        return self.kept[graph].mT if self.of_y else self.kept[graph]

    def _against(self, rows: slice, pool: Tensor) -> Tensor:
        if self.of_y:
            action = None if self.every.action is None else self.every.action[:, None]
            return self._value(self.every.of(pool[:, None], self.own.s_y[None, rows], action)).mT
        action = None if self.own.action is None else self.own.action[rows, None]
        return self._value(self.own.of(self.own.s_x[rows, None], pool[None], action))

    def some(self, rows: slice, index: Int64[Tensor, "rows k"]) -> Float[Tensor, "rows k"]:
        """F of some rows with the candidates of these numbers."""
        if self.of_y:
            action = None if self.every.action is None else _chosen(self.every.action, index)
            return self._value(self.every.of(_chosen(self._pool(), index), self.own.s_y[rows, None], action))
        action = None if self.own.action is None else self.own.action[rows, None]
        return self._value(self.own.of(self.own.s_x[rows, None], _chosen(self._pool(), index), action))

    @torch.no_grad()
    def distance(self, rows: slice) -> Float[Tensor, "rows columns"]:
        r"""How far all candidates of some rows are from the partner, $\frac{1}{D}\lVert \hat s - s \rVert^2$, without gradient."""
        partner = (self.own.s_x if self.of_y else self.own.s_y)[rows]
        return squared_error(partner[:, None], self._pool()[None])

    def blocks(self, chunk: int, per_row: int) -> list[slice]:
        """Rows that make about `chunk` numbers, at `per_row` for each."""
        step = max(1, chunk // max(1, per_row))
        return [slice(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]

    def _pool(self) -> Tensor:
        partners, same = (self.every.s_x, self.every.s_y) if self.of_y else (self.every.s_y, self.every.s_x)
        return torch.cat([partners, same]) if self.within else partners

    def _value(self, energy: Energy) -> Tensor:
        value: Tensor = self.minimizer(energy).value
        return full(value)


def _chosen(t: Float[Tensor, "n dim"], index: Int64[Tensor, "rows k"]) -> Float[Tensor, "rows k dim"]:
    """`t[index]`, whose gradient on the CPU is an order of magnitude slower."""
    return t.index_select(0, index.flatten()).view(*index.shape, t.shape[-1])


def _without_diagonal(t: Float[Tensor, "rows n"], first: int) -> Float[Tensor, "rows m"]:
    """Row i without column first + i. What is left lies between gaps that are all of one width: no index of its size is made."""
    rows, columns = t.shape
    flat = t.reshape(-1)
    if rows == columns:  # all of it lies between
        return flat[1:].view(rows - 1, columns + 1)[:, :-1].reshape(rows, columns - 1)
    middle, last = flat[first + 1 :].split([(rows - 1) * (columns + 1), columns - first - rows])
    between = middle.view(rows - 1, columns + 1)[:, :-1].reshape(-1)
    return torch.cat([flat[:first], between, last]).view(rows, columns - 1)


def full(t: Tensor) -> Tensor:
    """In float32 at least."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def sides(inference: Inference, *, symmetric: bool, within: bool = False) -> Iterator[Candidates]:
    """The x of each view with their candidates and, if `symmetric`, the y with theirs. Every rank must go through them.

    Raises:
        UsageError: fewer than two rows; a latent whose rows are steps of one sequence; `within` where x has actions.
    """
    for own, positive in by_view(inference):
        rows = own.s_y.shape[-2]
        require(
            rows * world_size() >= 2,
            f"there is nothing to compare a pair with in a batch of {rows}",
            "raise the batch size, or drop the last incomplete batch",
        )
        require(not (within and own.action is not None), "within compares x with x, which have no action between them")
        s_y, mine = all_rows(own.s_y)
        s_x = all_rows(own.s_x)[0] if symmetric or within else own.s_x
        action = None if own.action is None else all_rows(own.action)[0]
        every = own.of(s_x, s_y, action)
        kept: dict[bool, Tensor] = {}
        for of_y in (False, True)[: 1 + symmetric]:
            yield Candidates(own, every, inference.minimizer, full(positive), mine.start, of_y, within, kept)


def by_view(inference: Inference) -> list[tuple[Energy, Float[Tensor, " batch"]]]:
    """Energy and F of each view (crops of one sample are leading axes), each with one batch axis.

    Raises:
        UsageError: without a batch axis, and for a latent whose rows are steps of one sequence.
    """
    energy, value = inference.energy, inference.minimum.value
    shape = energy.batch_shape
    if energy.latent.coupled or not shape:
        raise UsageError(
            f"pairs of shape {tuple(shape)} with a {type(energy.latent).__name__} cannot be compared with each other",
            help="give a batch of separate pairs, and use a latent without a memory",
        )
    if len(shape) == 1:
        return [(energy, value)]

    def flat(t: Tensor) -> Tensor:
        return t.expand(*shape, t.shape[-1]).reshape(-1, shape[-1], t.shape[-1])

    actions = [None] * len(flat(energy.s_x)) if energy.action is None else list(flat(energy.action))
    parts = zip(flat(energy.s_x), flat(energy.s_y), actions, value.reshape(-1, shape[-1]), strict=True)
    return [(energy.of(s_x, s_y, action), f) for s_x, s_y, action, f in parts]
