r"""The order of an epoch: a pure function of (seed, epoch), of all samples at once or of few files at a time.

Where every sample costs the same to read, the order is a permutation of all. Where samples lie in blocks that are best read together
(a run of an archive, a row group of a table), it is this one, for a buffer of M samples:

1. the blocks are put in random order, which gives one sequence of n samples;
2. the sequence is cut into L lanes of equal length, and each lane into windows of M / L samples;
3. the samples of a window are permuted;
4. the order takes one sample of each lane in turn: position p is sample $\lfloor p / L \rfloor$ of lane p mod L.

So a batch holds samples of all L lanes in equal parts, from about M samples that are far apart in the files. A batch is sorted by lane
and shared among ranks in that order: of W ranks, rank r reads the lanes from L r / W to L (r + 1) / W and no others (where this is
no whole number, two ranks share a lane), which is 1 / W of the files, a few of them at a time: each lane is at one or two blocks of a
window's size. The order depends on neither the batch size nor W.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from accord.data.random import hash_array, key_of, permutation
from accord.data.samples import Samples
from accord.errors import UsageError

LANES = 64
"""Lanes, at most."""
BLOCKS = 2
"""A window holds at least so many blocks of mean size, where the buffer is large enough."""


class Order(NamedTuple):
    """How samples are put in order: in `lanes` with windows of `window` samples; a window of 0 is that of all samples, in one lane.

    `block`: the block of each of n samples, int64 (n,), not read where there is no window.
    """

    lanes: int
    window: int
    block: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, samples: Samples, index: Int[np.ndarray, " n"], buffer: int | None = None) -> Order:
        """The order of `samples[index]` for a buffer of so many samples: 0 is the whole, None what the samples suggest.

        Raises:
            UsageError: for a buffer where samples do not lie in blocks, or a negative one.
        """
        buffer = samples.shuffle_buffer if buffer is None else buffer
        _check(samples, buffer)
        if samples.blocks is None or not 0 < buffer < len(index):
            return cls(1, 0, np.zeros(0, np.int64))
        block = np.searchsorted(samples.blocks, index, "right") - 1
        size = len(index) / len(np.unique(block))
        lanes = 1
        while 2 * lanes <= min(LANES, buffer / (BLOCKS * size)):
            lanes *= 2
        return cls(lanes, max(1, buffer // lanes), block)

    def places(self, seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
        """A permutation of 0..n-1, int64: which of the n samples is read at each position of the epoch."""
        if not self.window:
            return permutation(seed, epoch, n)
        blocks = np.argsort(hash_array(self.block.astype(np.uint64), key_of("blocks", seed, epoch)), kind="stable")
        at = np.arange(n, dtype=np.int64)
        whole, rest = divmod(n, self.lanes)  # the first `rest` lanes are longer by one
        start = np.arange(self.lanes) * whole + np.minimum(np.arange(self.lanes), rest)
        lane = np.searchsorted(start, at, "right") - 1
        window = (at - start[lane]) // self.window
        noise = hash_array(at.astype(np.uint64), key_of("windows", seed, epoch))
        in_turn = blocks[np.lexsort((noise, window, lane))]
        places = np.empty(n, np.int64)
        places[(at - start[lane]) * self.lanes + lane] = in_turn
        return places

    def by_lane(self, first: int, count: int) -> Int[np.ndarray, " count"]:
        """The positions from `first` on, those of one lane together."""
        at = np.arange(first, first + count)
        together: np.ndarray = at[np.argsort(at % self.lanes, kind="stable")]
        return together


def ordered(samples: Samples, index: Int[np.ndarray, " n"], *, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """`index` in the order of an epoch."""
    found: np.ndarray = index[Order.of(samples, index).places(seed, epoch, len(index))]
    return found


def _check(samples: Samples, buffer: int) -> None:
    if buffer < 0:
        raise UsageError(f"shuffle_buffer = {buffer}: expected 0 or more", where="shuffle_buffer", code="E279")
    if buffer and samples.blocks is None:
        raise UsageError(
            "these samples are not read in blocks: a shuffle buffer would only make their order less random",
            where="shuffle_buffer",
            help="leave shuffle_buffer out; it is for archives (.tar) and Parquet files of images",
            code="E279",
        )
