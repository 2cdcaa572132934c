"""A short training loop for tables that fit into memory: a number of steps, no files, nothing printed unless asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from accord.data.pair import Pair
from accord.data.random import Draws, permutation
from accord.errors import Diverged, UsageError
from accord.objective.loss import Objective
from accord.train.device import Device, reproducible
from accord.train.optim import AdamW, parameter_groups, set_rate
from accord.train.schedule import Plan, learning_rate
from accord.train.step import Guard, train_step

CPU = Device(torch.device("cpu"), "float32")
LINES = 10
"""Lines a verbose training prints."""

MakePairs = Callable[[Int64[Tensor, " batch"], Draws], Pair]
"""The pairs of some rows, given their numbers in the training part and the random numbers of these rows in this epoch."""


def train(
    build: Callable[[], Objective],
    pairs: MakePairs,
    n: int,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    seed: int,
    verbose: int = 0,
) -> Objective:
    """An objective after `steps` steps of AdamW on batches of n rows; in evaluation mode, weights in float64.

    The same arguments give the same bits: initial weights, order and views come from `seed`, and torch's own generator is left as it
    was. Weights are trained in float32; energies are read in float64, so that the score of a row does not depend on its batch.

    Raises:
        UsageError: for fewer than one step, or one row a batch.
        Diverged: if a loss or gradient is not finite.
    """
    if steps < 1 or batch_size < 1:
        raise UsageError(
            f"steps = {steps}, batch_size = {batch_size} are out of bounds", help="give 1 or more of each", code="E257"
        )
    with reproducible(CPU, seed):
        objective = build()
        optimizer = AdamW().build(parameter_groups(objective, 1e-4))
        guard, plan = Guard(objective, optimizer), Plan(((0, steps),))
        for step, (epoch, rows) in zip(range(steps), _batches(n, batch_size, seed), strict=False):
            set_rate(optimizer, learning_rate(step, plan, peak=rate, warmup=0.05))
            objective.before_step(step / steps)
            index = torch.from_numpy(rows)
            loss = train_step(objective, optimizer, pairs(index, Draws(seed, epoch, index)), guard, CPU)
            if guard.is_bad():
                raise Diverged(
                    f"the loss is not finite at step {step + 1}", help="lower learning_rate, or scale the columns"
                )
            if verbose and step % max(1, steps // LINES) == 0:
                print(f"step {step + 1} of {steps}: loss {float(loss.total):.4g}")
    return objective.eval().double()


def _batches(n: int, batch_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(epoch, rows) without end; the rows of an epoch are dealt to batches that differ by one row at most."""
    parts = math.ceil(n / batch_size)
    epoch = 0
    while True:
        for rows in np.array_split(permutation(seed, epoch, n), parts):
            yield epoch, rows
        epoch += 1
