"""Batches in an order that is a pure function of (seed, epoch), read ahead by a thread, resumable from any step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accord.data.order import Order
from accord.data.random import choose
from accord.data.samples import BadItem, BadItems, Samples
from accord.data.values import Values
from accord.errors import DataError, UsageError

ATTEMPTS = 64
"""Replacements tried for one bad item before the data are given up."""


@dataclass(frozen=True)
class Batch:
    """What a step trains on: `index` says which samples `data` holds, after replacements; `aspect` is None but for images."""

    step: int
    epoch: int
    index: Tensor
    data: Values
    aspect: Tensor | None


class Loader:
    """Reads the batches of a run.

    The global batch of a step is the same for every number of ranks; rank r of W gets the r-th of W contiguous slices, whose
    lengths differ by at most 1. Where samples lie in few large files a rank reads few of them at a time: see `accord.data.order`.
    An item that turns out to be bad is replaced by one that is a pure function of (seed, epoch, its index).

    Args:
        samples: where the data are.
        index: which of them to train on, int64 (n,).
        batch_size: samples per global batch.
        seed: fixes the order.
        rank, world_size: which slice of each global batch to read.
        drop_last: leave out the incomplete last batch of an epoch.
        ahead: batches to hold ready.
        shuffle_buffer: samples that are shuffled together where they are read block by block; 0: all; None: as the samples suggest.

    Attributes:
        steps_per_epoch: global batches in an epoch.
        waited: seconds that the consumer has waited for data so far.
        bad: items found bad while reading: sample index -> what is wrong.

    Raises:
        UsageError: where an epoch would have no step, or a rank no sample; for a shuffle buffer where there are no blocks.
        DataError: where there are no samples, or one for batches of several.
    """

    def __init__(
        self,
        samples: Samples,
        index: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        ahead: int = 2,
        shuffle_buffer: int | None = None,
    ):
        _check(len(index), batch_size, rank, world_size, drop_last, samples.name)
        self.samples = samples
        self.index = np.asarray(index, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.ahead = max(1, ahead)
        self.steps_per_epoch = len(index) // batch_size if drop_last else -(-len(index) // batch_size)
        self.waited = 0.0
        self.bad: dict[int, BadItem] = {}
        self.order = Order.of(samples, self.index, shuffle_buffer)
        self._epoch: tuple[int, np.ndarray] = (-1, self.index)

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Batches of the steps start_step <= step < stop_step; closing the iterator ends the thread.

        Raises:
            DataError: what reading raised, in the consumer, at the step it belongs to.
        """
        ready: queue.Queue[Batch | BaseException] = queue.Queue(self.ahead)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._read_ahead, args=(start_step, stop_step, ready, stop), name="accord-loader", daemon=True
        )
        thread.start()
        try:
            for _ in range(start_step, stop_step):
                begin = time.perf_counter()
                item = ready.get()
                self.waited += time.perf_counter() - begin
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            _drain(ready)
            thread.join(timeout=10)  # a read that hangs must not keep the run from ending; the thread is a daemon

    def read(self, step: int) -> Batch:
        """The batch of one step."""
        epoch, wanted = self.indices(step)
        index, data = self._replaced(epoch, wanted)
        return Batch(step, epoch, torch.from_numpy(index), data, self.samples.aspects(index))

    def indices(self, step: int) -> tuple[int, np.ndarray]:
        """Epoch of a step, and this rank's part of its global batch, int64."""
        epoch, position = divmod(step, self.steps_per_epoch)
        current = self._epoch
        if current[0] != epoch:
            self._epoch = current = (epoch, self.index[self.order.places(self.seed, epoch, len(self.index))])
        begin = position * self.batch_size
        whole = self.order.by_lane(begin, min(self.batch_size, len(self.index) - begin))
        first, last = (len(whole) * r // self.world_size for r in (self.rank, self.rank + 1))
        return epoch, current[1][whole[first:last]]

    def _read_ahead(
        self, start: int, stop_step: int, ready: queue.Queue[Batch | BaseException], stop: threading.Event
    ) -> None:
        """Runs in the thread: reads until told to stop; hands an exception over and ends."""
        try:
            for step in range(start, stop_step):
                if stop.is_set():
                    return
                ready.put(self.read(step))
        except BaseException as error:  # belongs to the consumer, whatever it is
            ready.put(error)

    def _replaced(self, epoch: int, wanted: np.ndarray) -> tuple[np.ndarray, Values]:
        """The samples wanted, bad ones replaced until all are good."""
        index = wanted.copy()
        attempts = np.zeros(len(index), np.int64)
        while True:
            for place in [p for p, i in enumerate(index.tolist()) if i in self.bad]:
                self._next_choice(epoch, wanted, index, attempts, place)
            try:
                return index, self.samples.batch(index)
            except BadItems as error:
                self.bad.update((int(index[p]), item) for p, item in zip(error.positions, error.items, strict=True))

    def _next_choice(self, epoch: int, wanted: np.ndarray, index: np.ndarray, attempts: np.ndarray, place: int) -> None:
        """Puts the next candidate that is not known to be bad in one place."""
        while int(index[place]) in self.bad:
            if attempts[place] == ATTEMPTS:
                item = self.bad[int(wanted[place])]
                raise DataError(
                    f"{item.reason}; {ATTEMPTS} items drawn to replace it are bad too", where=item.key, help=item.help
                )
            choice = choose(self.seed, epoch, int(wanted[place]), int(attempts[place]), len(self.index))
            index[place] = self.index[choice]
            attempts[place] += 1


def _check(n: int, batch_size: int, rank: int, world_size: int, drop_last: bool, name: str) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size: expected at least 1, got {batch_size}", where="batch_size")
    if not 0 <= rank < world_size:
        raise UsageError(f"rank: expected 0 <= rank < world_size = {world_size}, got {rank}", where="rank")
    few = batch_size if drop_last else n % batch_size or batch_size
    if few < world_size:
        raise UsageError(
            f"batch_size: a batch of {few} samples for {world_size} processes leaves some of them without any",
            where="batch_size",
            help=f"batch_size counts the samples of all processes: set it to {64 * world_size}, say, or start fewer processes",
            code="E271",
        )
    if n == 0 or (n == 1 and batch_size > 1):
        raise DataError(
            f"{n} sample{'s' * (n != 1)} to train on, which is not enough for statistics over a batch",
            where=name,
            help="give more samples, or hold fewer of them out (data.held_out)",
            code="E319",
        )
    if drop_last and n < batch_size:
        raise UsageError(
            f"0 steps per epoch: batch_size is {batch_size}, but there are only {n} samples to train on",
            where="batch_size",
            help=f"set batch_size to {n} or less, better to a quarter: --set training.batch_size={max(2, n // 4)}",
        )


def _drain(ready: queue.Queue[Batch | BaseException]) -> None:
    """Makes room, so that a thread waiting to put its last batch can end."""
    while True:
        try:
            ready.get_nowait()
        except queue.Empty:
            return
