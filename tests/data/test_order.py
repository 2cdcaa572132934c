"""Shuffling block by block: a permutation in every epoch, random at every scale that the buffer allows, few files for each rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accord.data.loader import Loader
from accord.data.order import Order
from accord.data.samples import ArrayStore, Samples
from accord.errors import UsageError

RUN = 100


def samples(n: int = 20_000, run: int | None = RUN, buffer: int = 2_000) -> Samples:
    return Samples(
        name="test",
        kind="vector",
        store=ArrayStore(np.arange(n, dtype=np.float32)[:, None]),
        keys=[str(i) for i in range(n)],
        content=np.arange(n, dtype=np.uint64),
        ok=np.ones(n, bool),
        blocks=None if run is None else np.arange(0, n, run),
        shuffle_buffer=buffer,
    )


def epoch(data: Samples, number: int = 0, **options: int) -> np.ndarray:
    """All batches of an epoch, one after the other; without batches the order itself."""
    index = np.arange(len(data))
    return Order.of(data, index, **options).places(0, number, len(data))


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 2_001, 6_400, 9_973])
@pytest.mark.parametrize("buffer", [1, 2, 64, 700, 2_000, 10_000])
def test_no_sample_is_lost_or_doubled(n: int, buffer: int) -> None:
    for number in range(3):
        order = epoch(samples(n), number, buffer=buffer)
        assert np.array_equal(np.sort(order), np.arange(n))


def test_blocks_of_very_different_sizes() -> None:
    rng = np.random.default_rng(0)
    data = samples(5_000)
    data.blocks = np.unique(np.concatenate([[0], rng.integers(0, 5_000, 40), [4_999]]))
    index = np.sort(rng.choice(5_000, 3_000, replace=False))  # some blocks may have no sample at all
    order = Order.of(data, index, 500).places(3, 1, 3_000)
    assert np.array_equal(np.sort(order), np.arange(3_000))


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    data, index = samples(), np.arange(20_000)
    made = Order.of(data, index)
    assert np.array_equal(made.places(7, 3, 20_000), Order.of(data, index).places(7, 3, 20_000))
    orders = [made.places(seed, number, 20_000) for seed, number in ((7, 3), (7, 4), (8, 3), (3, 7))]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert (a == b).mean() < 0.01


def oracle(seed: int, number: int, n: int, run: int, lanes: int, window: int) -> list[int]:
    """The four steps of the docstring, in loops, with the same random numbers."""
    from accord.data.random import hash_array, key_of

    def noise(values: list[int], name: str) -> list[int]:
        return hash_array(np.array(values, np.uint64), key_of(name, seed, number)).tolist()

    blocks = [list(range(first, min(first + run, n))) for first in range(0, n, run)]
    rank = noise(list(range(len(blocks))), "blocks")
    sequence = [i for b in sorted(range(len(blocks)), key=rank.__getitem__) for i in blocks[b]]
    chance = noise(list(range(n)), "windows")
    lengths = [n // lanes + (lane < n % lanes) for lane in range(lanes)]
    shuffled, start = [], 0
    for length in lengths:
        lane = []
        for first in range(start, start + length, window):
            places = range(first, min(first + window, start + length))
            lane += [sequence[p] for p in sorted(places, key=chance.__getitem__)]
        shuffled.append(lane)
        start += length
    return [shuffled[p % lanes][p // lanes] for p in range(n)]


@pytest.mark.parametrize(("n", "buffer"), [(6_400, 1_600), (6_411, 1_500), (333, 150)])
def test_the_order_is_what_it_says(n: int, buffer: int) -> None:
    made = Order.of(samples(n), np.arange(n), buffer)
    assert made.window == buffer // made.lanes and made.window > 0
    assert made.places(5, 2, n).tolist() == oracle(5, 2, n, RUN, made.lanes, made.window)


def test_lanes_have_windows_of_two_blocks_where_the_buffer_is_large_enough() -> None:
    data, index = samples(), np.arange(20_000)
    found = [
        (Order.of(data, index, b).lanes, Order.of(data, index, b).window) for b in (50, 199, 400, 2_000, 12_800, 19_999)
    ]
    assert found == [(1, 50), (1, 199), (2, 200), (8, 250), (64, 200), (64, 312)]


# how random


def test_neighbours_are_torn_apart_as_far_as_the_buffer_reaches() -> None:
    """Samples next to each other in a file: how far apart they are read; and by how many files a batch is made of."""
    n = 20_000
    windowed, whole = (np.argsort(epoch(samples(n), buffer=b)) for b in (2_000, 0))
    within = [np.abs(np.diff(at)) for at in (windowed, whole)]
    inside = np.arange(1, n) % RUN != 0  # pairs within one block
    # two of a window of M / L samples are (M / L + 1) / 3 apart in their lane, every L-th position: M / 3
    assert 0.85 < within[0][inside].mean() / (2_000 / 3) < 1.15
    assert abs(within[1][inside].mean() / (n / 3) - 1) < 0.05
    across = np.abs(np.diff(windowed[::RUN]))  # first samples of neighbouring blocks: anywhere in the epoch
    assert abs(across.mean() / (n / 3) - 1) < 0.15
    blocks = epoch(samples(n), buffer=2_000).reshape(-1, 200) // RUN
    different = np.array([len(np.unique(batch)) for batch in blocks])
    assert different.min() >= 8 and different.mean() > 15, "a batch of 200 is made of about 20 files"


def test_every_place_of_the_epoch_is_equally_likely() -> None:
    """Kolmogorov's distance of the places of one sample in 400 epochs from the uniform distribution."""
    data, n = samples(2_000), 2_000
    for buffer in (400, 0):
        made = Order.of(data, np.arange(n), buffer)
        for sample in (0, 777, 1_999):
            at = np.sort([np.flatnonzero(made.places(0, e, n) == sample)[0] / n for e in range(400)])
            assert np.abs(at - np.linspace(0, 1, 400)).max() < 1.63 / 20, "beyond 1 % of chance"


def test_partners_differ_between_epochs() -> None:
    """Of the samples in a batch with one, how many are in a batch with it in the next epoch too."""
    n, size = 20_000, 200
    common = []
    for number in range(10):
        a, b = (epoch(samples(n), e, buffer=2_000).reshape(-1, size) for e in (number, number + 1))
        mine, next_ = (set(x[np.flatnonzero((x == 4_321).any(1))[0]].tolist()) for x in (a, b))
        common.append(len(mine & next_) - 1)
    assert np.mean(common) < 12, "chance alone would be 2, sharing a window with the rest of the block about 5"


# ranks


def loader(rank: int = 0, world: int = 1, size: int = 256, **options: int) -> Loader:
    data = samples()
    return Loader(data, np.arange(len(data)), batch_size=size, seed=0, rank=rank, world_size=world, **options)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [256, 250])
def test_ranks_share_the_batch_of_one_process_and_the_files(world: int, size: int) -> None:
    one, many = loader(size=size), [loader(r, world, size) for r in range(world)]
    read = [set() for _ in range(world)]
    at_a_time = np.zeros(world)
    for step in range(one.steps_per_epoch):
        whole, shares = one.indices(step)[1], [m.indices(step)[1] for m in many]
        assert np.array_equal(np.concatenate(shares), whole)
        for rank, share in enumerate(shares):
            files = set((share // RUN).tolist())
            read[rank] |= files
            at_a_time[rank] = max(at_a_time[rank], len(files))
    lanes, blocks = one.order.lanes, 200
    shared = 0 if lanes % world == 0 and size % lanes == 0 else 2
    # lanes of its own, and of each lane the blocks cut at its two ends
    assert max(map(len, read)) <= (lanes / world + shared) * (blocks / lanes + 1)
    # a batch may end one window of a lane and begin the next: 500 samples in a row lie in up to 6 blocks of 100
    assert at_a_time.max() <= (lanes / world + shared) * 6


def test_without_blocks_every_rank_reads_every_file() -> None:
    """Negative control."""
    first = loader(0, 8, shuffle_buffer=0)
    assert len(set(np.concatenate([first.indices(s)[1] for s in range(first.steps_per_epoch)]) // RUN)) > 190


@pytest.mark.parametrize("start", [1, 77, 78, 155])
def test_resuming_continues_as_if_nothing_had_happened(start: int) -> None:
    straight = list(loader().batches(0, 160))
    resumed = list(loader().batches(start, 160))
    assert all(
        torch.equal(a.index, b.index) and torch.equal(a.data, b.data)
        for a, b in zip(straight[start:], resumed, strict=True)
    )


def test_a_resumed_run_may_have_another_number_of_ranks() -> None:
    for step in (0, 50, 99):
        whole = loader().indices(step)[1]
        assert all(
            np.array_equal(np.concatenate([loader(r, w).indices(step)[1] for r in range(w)]), whole) for w in (2, 5, 8)
        )


def test_the_batch_size_cuts_the_order_and_does_not_change_it() -> None:
    small, large = loader(size=100), loader(size=400)
    for step in range(10):
        parts = np.concatenate([small.indices(4 * step + k)[1] for k in range(4)])
        assert np.array_equal(np.sort(parts), np.sort(large.indices(step)[1]))


# what cannot be


def test_a_buffer_needs_blocks() -> None:
    for data, buffer in ((samples(run=None, buffer=0), 10), (samples(), -1)):
        with pytest.raises(UsageError, match=r"shuffle") as caught:
            Loader(data, np.arange(len(data)), batch_size=8, seed=0, shuffle_buffer=buffer)
        assert caught.value.code == "E279" and caught.value.where == "shuffle_buffer"
    assert Order.of(samples(run=None, buffer=0), np.arange(9)).window == 0
