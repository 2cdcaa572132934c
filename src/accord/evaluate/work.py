"""What the stages of an evaluation share: the model, what it is measured on, and who may stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from accord.data.pairing import Pairing
from accord.evaluate.features import Stop
from accord.evaluate.probes import Part
from accord.model.joint_embedding import JointEmbedding


@dataclass
class Work:
    """What the stages share. `part` is what is measured: the held-out samples, or all of a test source."""

    model: JointEmbedding
    pairing: Pairing
    train: Part
    part: Part
    seed: int
    stop: Stop
    said: Callable[[str], None]
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A part of the work that has a name: it is announced, and its seconds are kept."""
        self.stop()
        self.said(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def some(self, most: int) -> np.ndarray:
        """At most so many places in the index of what is measured: all, or a random choice, ascending."""
        n = len(self.part.index)
        return np.arange(n) if n <= most else np.sort(np.random.default_rng(self.seed).choice(n, most, replace=False))
