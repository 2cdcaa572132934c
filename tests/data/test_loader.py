"""Batches: their order, slices of ranks, resuming, reading ahead, replacing bad items, and clean ends of all kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from accord.data.loader import Batch, Loader
from accord.data.samples import ArrayStore, BadItem, BadItems, Samples
from accord.errors import DataError, UsageError


class Slow(ArrayStore):
    """Images whose every pixel is the number of the sample; some damaged, some reads slow or failing."""

    def __init__(self, n: int, bad: frozenset[int] = frozenset(), seconds: float = 0.0, fail_at: int | None = None):
        super().__init__(np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 1, 2, 2)))
        self.bad = bad
        self.seconds = seconds
        self.fail_at = fail_at
        self.reads = 0

    def read(self, index: np.ndarray) -> Tensor:
        time.sleep(self.seconds)
        if self.reads == self.fail_at:
            raise OSError(5, "Input/output error", "photo.jpg")
        self.reads += 1
        data = super().read(index)
        positions = np.flatnonzero(np.isin(index, list(self.bad)))
        if len(positions):
            items = [BadItem(f"{index[p]}.jpg", "E301", f"{index[p]}.jpg is damaged", "replace it") for p in positions]
            data[positions] = 0
            raise BadItems(positions, items, data)
        return data


def samples(n: int = 100, **options: object) -> Samples:
    return Samples(
        name="test",
        kind="image",
        store=Slow(n, **options),  # type: ignore[arg-type]
        keys=[f"{i}.jpg" for i in range(n)],
        content=np.arange(n, dtype=np.uint64),
        ok=np.ones(n, bool),
        aspect=np.linspace(0.5, 2, n, dtype=np.float32),
    )


def loader(n: int = 100, *, source: Samples | None = None, **options: object) -> Loader:
    return Loader(source or samples(n), np.arange(n), **{"batch_size": 16, "seed": 0, **options})  # type: ignore[arg-type]


def same(a: Batch, b: Batch) -> bool:
    return (a.step, a.epoch) == (b.step, b.epoch) and all(
        torch.equal(p, q) for p, q in ((a.index, b.index), (a.data, b.data), (a.aspect, b.aspect)) if p is not None
    )


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name == "accord-loader"]


def test_an_epoch_visits_each_sample_once():
    batches = list(loader(96).batches(0, 6))
    assert torch.equal(torch.cat([b.index for b in batches]).sort().values, torch.arange(96))
    assert [b.step for b in batches] == list(range(6)) and {b.epoch for b in batches} == {0}


def test_data_and_aspect_belong_to_the_index():
    source = samples()
    for batch in loader(source=source).batches(0, 13):
        assert batch.index.dtype == torch.int64 and batch.data.dtype == torch.uint8
        assert torch.equal(batch.data[:, 0, 0, 0].long(), batch.index)
        assert batch.aspect is not None and np.array_equal(batch.aspect.numpy(), source.aspect[batch.index.numpy()])


def test_order_depends_on_seed_and_epoch_and_nothing_else():
    first = list(loader().batches(0, 12))
    assert all(same(a, b) for a, b in zip(first, loader(ahead=7).batches(0, 12), strict=True))
    epochs = [torch.cat([b.index for b in first if b.epoch == e]) for e in (0, 1)]
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], torch.cat([b.index for b in loader(seed=1).batches(0, 6)]))
    other = torch.cat([b.index for b in loader(batch_size=32).batches(0, 3)])
    assert torch.equal(other, epochs[0]), "the batch size cuts the order, it does not change it"


def test_only_the_index_given_is_read():
    chosen = np.array([3, 5, 7, 11, 13, 17, 19, 23])
    batches = list(Loader(samples(), chosen, batch_size=4, seed=0).batches(0, 2))
    assert sorted(torch.cat([b.index for b in batches]).tolist()) == chosen.tolist()


@pytest.mark.parametrize("start", [1, 5, 6, 7, 25])
def test_resuming_continues_as_if_nothing_had_happened(start: int):
    straight = list(loader().batches(0, 30))
    resumed = list(loader().batches(start, 30))
    assert len(resumed) == 30 - start and all(same(a, b) for a, b in zip(straight[start:], resumed, strict=True))
    assert same(loader().read(start), straight[start])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_global_batch(world: int):
    whole = list(loader().batches(0, 13))
    ranks = [list(loader(rank=r, world_size=world).batches(0, 13)) for r in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([r[step].index for r in ranks]), batch.index)
        assert torch.equal(torch.cat([r[step].data for r in ranks]), batch.data)
        assert {len(r[step].index) for r in ranks} == {16 // world}


def test_the_last_batch_may_be_kept():
    assert loader(100).steps_per_epoch == 6 and loader(100, drop_last=False).steps_per_epoch == 7
    batches = list(loader(100, drop_last=False).batches(0, 8))
    assert [len(b.index) for b in batches] == [16] * 6 + [4, 16]
    assert [b.epoch for b in batches] == [0] * 7 + [1]
    assert torch.equal(torch.cat([b.index for b in batches[:7]]).sort().values, torch.arange(100))


def test_no_steps_asked_for():
    assert list(loader().batches(4, 4)) == []


# bad items


BAD = frozenset(range(0, 100, 9))


def test_bad_items_are_replaced_and_recorded():
    run = loader(source=samples(bad=BAD))
    clean = list(loader().batches(0, 12))
    for batch, wanted in zip(run.batches(0, 12), clean, strict=True):
        assert not BAD & set(batch.index.tolist())
        assert torch.equal(batch.data[:, 0, 0, 0].long(), batch.index), "the data are those of the replacement"
        good = [i not in BAD for i in wanted.index.tolist()]
        assert torch.equal(batch.index[good], wanted.index[good]), "good items stay where they are"
    assert set(run.bad) == BAD and run.bad[9].key == "9.jpg"


def test_a_replacement_is_a_pure_function():
    """The same whatever was found bad before: after resuming, with another batch size, on another rank."""
    straight = list(loader(source=samples(bad=BAD)).batches(0, 12))
    resumed = list(loader(source=samples(bad=BAD)).batches(7, 12))
    assert all(same(a, b) for a, b in zip(straight[7:], resumed, strict=True))
    flat = torch.cat([b.index for b in straight[:6]])
    wide = torch.cat([b.index for b in loader(source=samples(bad=BAD), batch_size=48).batches(0, 2)])
    assert torch.equal(flat, wide)
    halves = [list(loader(source=samples(bad=BAD), rank=r, world_size=2).batches(0, 12)) for r in (0, 1)]
    assert all(torch.equal(torch.cat([a.index, b.index]), c.index) for a, b, c in zip(*halves, straight, strict=True))


def test_replacements_differ_between_epochs_and_items():
    run = loader(source=samples(bad=BAD), drop_last=False)
    clean = loader(drop_last=False)
    replaced = [
        (int(new), b.epoch)
        for b, c in zip(run.batches(0, 70), clean.batches(0, 70), strict=True)
        for new, old in zip(b.index, c.index, strict=True)
        if int(old) in BAD
    ]
    assert len(replaced) == 10 * len(BAD) and len({r for r, _ in replaced}) > 50


def test_nothing_but_bad_items_ends_the_run():
    run = loader(source=samples(bad=frozenset(range(100))))
    with pytest.raises(DataError, match="items drawn to replace it are bad too") as caught:
        list(run.batches(0, 1))
    assert caught.value.where and caught.value.help == "replace it"


# the thread


def test_an_exception_of_the_thread_reaches_the_consumer_at_its_step():
    steps = []
    with pytest.raises(OSError, match=r"photo\.jpg"):
        for batch in loader(source=samples(fail_at=3)).batches(0, 10):
            steps.append(batch.step)
    assert steps == [0, 1, 2]


def test_stopping_early_ends_the_thread():
    for _ in range(20):
        batches = loader(ahead=3).batches(0, 1000)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert not [t for t in threading.enumerate() if t.name == "accord-loader"]


def test_a_consumer_that_raises_ends_the_thread():
    with pytest.raises(ZeroDivisionError):
        for _ in loader().batches(0, 1000):
            _ = 1 / 0


def test_dropping_the_iterator_ends_the_thread():
    batches = loader().batches(0, 1000)
    next(batches)
    del batches


def test_reading_ahead_is_bounded():
    source = samples()
    batches = loader(source=source, ahead=3).batches(0, 50)
    next(batches)
    time.sleep(0.1)
    assert source.store.reads <= 1 + 3 + 1  # type: ignore[attr-defined]
    batches.close()  # type: ignore[attr-defined]


def test_reading_goes_on_while_the_consumer_works():
    source = samples(seconds=0.005)
    for batch in loader(source=source, ahead=2).batches(0, 10):
        deadline = time.monotonic() + 20
        while source.store.reads < min(batch.step + 2, 10):  # type: ignore[attr-defined]
            assert time.monotonic() < deadline, "nothing is read until the consumer comes back"
            time.sleep(0.001)


def test_waiting_is_measured():
    run = loader(source=samples(seconds=0.02))
    assert run.waited == 0
    list(run.batches(0, 10))
    assert 0.1 < run.waited < 20


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 101}, "0 steps per epoch: batch_size is 101, but there are only 100 samples"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"batch_size": 3, "world_size": 4}, "a batch of 3 samples for 4 processes"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 <= rank < world_size"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(options: dict[str, int], message: str):
    with pytest.raises(UsageError, match=message) as caught:
        loader(**options)
    assert caught.value.exit_code == 2 and caught.value.where in ("batch_size", "rank")


@pytest.mark.parametrize(("count", "batch_size"), [(0, 1), (0, 8), (1, 2), (1, 256)])
def test_too_few_samples_for_any_batch_are_a_fault_of_the_data(count: int, batch_size: int):
    with pytest.raises(DataError, match=f"{count} samples? to train on") as caught:
        Loader(samples(), np.arange(count), batch_size=batch_size, seed=0, drop_last=False)
    assert caught.value.exit_code == 3 and caught.value.help


def test_a_batch_larger_than_the_data_names_one_that_fits():
    with pytest.raises(UsageError, match="0 steps per epoch") as caught:
        Loader(samples(), np.arange(40), batch_size=256, seed=0)
    assert "--set training.batch_size=10" in (caught.value.help or "")
