"""How long a step takes, measured before training on a copy of what is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from accord.data.loader import Batch
from accord.data.pair import Pair
from accord.objective.loss import Objective
from accord.train.device import Device
from accord.train.distributed import Ranks
from accord.train.optim import parameter_groups
from accord.train.parallel import spread
from accord.train.schedule import Clock
from accord.train.settings import Settings
from accord.train.signals import Stop
from accord.train.step import Guard, train_step

STEPS = (2, 5, 30)
"""2 steps unmeasured, then at least 5 and at most 30."""
SLOW = 5
"""Where steps are so slow that this many times the limit has passed, one measured step is enough."""


def seconds_per_step(
    copy: Objective,
    settings: Settings,
    batches: Callable[[int, int], AbstractContextManager[Iterator[Batch]]],
    pair: Callable[[Batch], Pair],
    *,
    device: Device,
    ranks: Ranks,
    stop: Stop,
    limit: float,
) -> float:
    """Seconds a step takes, as the first rank measures it in at most about `limit` seconds; `copy` is used up.

    Raises:
        Interrupted: after a signal.
    """
    device.place(copy)
    gradient = spread(copy, device, parts=settings.accumulate, parallel=settings.parallel)
    optimizer = settings.descent.optimizer.build(parameter_groups(copy, 0.0))
    copy.train()
    guard = Guard(copy, optimizer)
    unmeasured, least, most = STEPS
    times: list[float] = []
    with torch.random.fork_rng(device.cuda_devices), batches(0, unmeasured + most) as some:
        clock = Clock()
        for batch in some:
            train_step(copy, optimizer, pair(batch), guard, device, gradient)
            stop.check("timing the first steps")
            guard.is_bad()
            times.append(clock())
            needed = least if times[-1] < SLOW * limit else 1
            enough = len(times) >= unmeasured + needed and times[-1] > limit
            if ranks.agree(ranks.first and enough)[0]:
                break
    return ranks.of_first((times[-1] - times[unmeasured - 1]) / (len(times) - unmeasured))
