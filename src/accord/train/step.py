"""One step of training, in a dozen lines, and the guard that lets no update through that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from accord.collective import all_reduce_max
from accord.data.pair import Pair
from accord.errors import Diverged
from accord.objective.loss import Loss, Objective
from accord.train.device import Device
from accord.train.sharded import norm

Gradient = Callable[[Pair], Loss]
"""Computes the loss of a batch and adds its gradient to that of the parameters."""


def train_step(
    objective: Objective,
    optimizer: Optimizer,
    pair: Pair,
    guard: Guard,
    device: Device,
    gradient: Gradient | None = None,
) -> Loss:
    """Objective, gradient, update: the new weights are those of the descent, or, if anything was not finite, the old ones.

    `gradient` says how loss and gradient are computed, where it is not the whole batch by this process.
    """
    guard.remember()
    optimizer.zero_grad()
    loss = (gradient or whole_batch(objective, device))(pair)
    guard.judge(loss)
    optimizer.step()
    guard.restore()
    objective.after_step(guard.taken)
    return loss._replace(total=loss.total.detach())


def whole_batch(engine: nn.Module, device: Device) -> Gradient:
    """One forward and one backward pass of an objective, or of what spreads it over processes."""

    def gradient(pair: Pair) -> Loss:
        with device.autocast():
            loss: Loss = engine(pair)
        loss.total.backward()
        return loss

    return gradient


class Guard:
    """Keeps weights, optimiser and buffers as they were before a step whose loss or gradient is not finite, and all later ones.

    It is enough that this is so on one rank: all of them judge alike.

    The judgement is a number on the device (`found_inf`, which the optimiser reads there), so no step waits for it. `check` reads
    it: after each step on a CPU, where that costs nothing, elsewhere now and then, for what followed changed nothing.

    Args:
        objective: what is trained; its floating-point buffers (running statistics) are guarded too, for the forward pass changes them.
        optimizer: a fused one of torch, or `LayerwiseSGD`.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer):
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.buffers = [b for b in objective.buffers() if b.is_floating_point()]
        self.names = [*objective.terms, "total"]
        reference = self.parameters[0]
        self.found = torch.zeros((), device=reference.device)
        self.steps = torch.zeros((), device=reference.device)
        self.culprits = torch.zeros(len(self.names) + 1, device=reference.device)
        self._kept: list[Tensor] = []
        optimizer.found_inf = self.found  # type: ignore[attr-defined]

    @torch.no_grad()
    def remember(self) -> None:
        """Before the forward pass."""
        self._kept = [b.clone() for b in self.buffers]

    @torch.no_grad()
    def judge(self, loss: Loss) -> None:
        """After the backward pass: is everything finite?"""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        values = [*loss.terms.values(), loss.total.detach(), norm(gradients)]
        culprits = all_reduce_max(1 - torch.stack([v.float() for v in values]).isfinite().float())
        self.culprits.copy_(torch.where(self.found > 0, self.culprits, culprits))
        self.found.copy_(self.culprits.amax())
        self.steps += 1 - self.found

    @torch.no_grad()
    def restore(self) -> None:
        """After the update: buffers go back if it was not made."""
        if self.found.device.type == "cpu" and not self.found:
            return
        for buffer, kept in zip(self.buffers, self._kept, strict=True):
            buffer.copy_(torch.where(self.found > 0, kept, buffer))

    @property
    def taken(self) -> Tensor:
        """Whether the update was made, (), on the device."""
        return self.found == 0

    def is_bad(self) -> bool:
        """Whether anything was not finite so far; waits for the device."""
        return bool(self.found)

    def check(self, step: int, batches: Sequence[Sequence[int]], keys: Sequence[str]) -> None:
        """Reads the judgement of the last steps.

        Args:
            step: how many steps were taken in all.
            batches: the samples of each step since the last check, the last of them that of `step`.
            keys: the name of each sample.

        Raises:
            Diverged: with step, term and batch, if one of these steps was not finite.
        """
        good = int(self.steps)
        self.steps.zero_()
        if not self.found:
            return
        bad_step = step - len(batches) + good + 1
        batch = [keys[i] for i in batches[good]]
        shown = ", ".join(batch[:8]) + (f" and {len(batch) - 8} more" if len(batch) > 8 else "")
        raise Diverged(
            f"{self._culprit()} is not finite at step {bad_step}; the update was not made",
            where=f"batch of step {bad_step}: {shown}",
            help="lower the learning rate or lengthen the warm-up; if it is always this batch, look at its samples",
        )

    def _culprit(self) -> str:
        """The first thing that went wrong: a term, then their sum, then the gradient."""
        bad = self.culprits.tolist()
        terms = [name for name, wrong in zip(self.names[:-1], bad, strict=False) if wrong]
        if terms:
            return f"the term{'s' if len(terms) > 1 else ''} {' and '.join(terms)} of the loss"
        return "the loss" if bad[len(self.names) - 1] else "the gradient"
