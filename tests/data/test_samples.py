"""The split is a function of seed and content alone; hashes and keys are what they are said to be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from accord.data.samples import (
    ArrayStore,
    BadItem,
    BadItems,
    Kept,
    RowKeys,
    Samples,
    Store,
    duplicates,
    fingerprint,
    hash_bytes,
    hash_rows,
    mix,
    split,
    uniform_of,
)
from accord.errors import UsageError


def samples_of(content: np.ndarray, ok: np.ndarray | None = None) -> Samples:
    n = len(content)
    return Samples(
        name="test",
        kind="vector",
        store=ArrayStore(np.arange(3 * n, dtype=np.float32).reshape(n, 3)),
        keys=RowKeys([n]),
        content=content,
        ok=np.ones(n, np.bool_) if ok is None else ok,
    )


CONTENT = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)


def test_split_is_a_partition_of_the_ok_items_in_order() -> None:
    ok = np.random.default_rng(1).random(len(CONTENT)) < 0.9
    train, held_out = split(samples_of(CONTENT, ok), 0.2, 3)
    assert sorted([*train, *held_out]) == np.flatnonzero(ok).tolist()
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()


def test_split_holds_out_the_fraction_asked_for() -> None:
    for fraction in (0.0, 0.01, 0.1, 0.5, 0.9):
        for seed in range(5):
            share = len(split(samples_of(CONTENT), fraction, seed)[1]) / len(CONTENT)
            assert abs(share - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / len(CONTENT)) + 1e-12


def test_split_of_consecutive_contents_is_as_good() -> None:
    for step in (1, 2**32, 2**60):
        content = np.arange(10_000, dtype=np.uint64) * np.uint64(step)
        unique = len(np.unique(content))
        assert abs(len(split(samples_of(content), 0.3, 0)[1]) / len(content) - 0.3) < 5 * np.sqrt(
            0.21 / unique
        ) + 0.3 * (unique < 100)


def test_seeds_give_independent_splits() -> None:
    sides = np.stack([uniform_of(CONTENT, seed) < 0.5 for seed in range(6)])
    agreement = (sides[:, None] == sides[None]).mean(-1)
    assert np.abs(agreement[~np.eye(6, dtype=bool)] - 0.5).max() < 0.02


def test_duplicates_land_on_one_side_and_adding_data_moves_nothing() -> None:
    rng = np.random.default_rng(2)
    content = np.concatenate([CONTENT, rng.choice(CONTENT, 5000)])
    rng.shuffle(content)
    train, held_out = split(samples_of(content), 0.3, 9)
    assert not set(content[train].tolist()) & set(content[held_out].tolist())
    few = split(samples_of(content[:100]), 0.3, 9)[1]
    assert few.tolist() == [i for i in held_out.tolist() if i < 100]


def test_a_side_is_empty_only_if_it_must_be() -> None:
    for n in range(2, 6):
        for seed in range(20):
            for fraction in (0.01, 0.99):
                train, held_out = split(samples_of(CONTENT[seed * 10 : seed * 10 + n]), fraction, seed)
                assert len(train) > 0 and len(held_out) > 0
    same = np.full(4, 7, np.uint64)
    assert sorted(len(side) for side in split(samples_of(same), 0.5, 0)) == [0, 4]
    assert [len(side) for side in split(samples_of(CONTENT[:0]), 0.5, 0)] == [0, 0]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_split_refuses_impossible_fractions(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        split(samples_of(CONTENT[:5]), fraction, 0)


def test_mix_is_splitmix64() -> None:
    # first outputs of the published generator from seed 1234567: state advances by the golden constant, then is mixed
    state = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_hash_rows_is_hash_bytes_of_each_row() -> None:
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(0, 256, (70, 3, 5, 5), np.uint8),
        rng.normal(size=(70, 4)),
        np.asfortranarray(rng.normal(size=(70, 4)).astype(np.float32)),
        np.moveaxis(rng.integers(0, 256, (70, 5, 6, 3), np.uint8), -1, 1),
    ):
        rows = hash_rows(array, 32)
        assert rows.tolist() == [hash_bytes(np.ascontiguousarray(row).tobytes()) for row in array]
    assert hash_bytes(b"abc") == int.from_bytes(hashlib.blake2b(b"abc", digest_size=8).digest(), "little")


def test_fingerprint_sees_contents_order_labels_and_classes() -> None:
    content, labels = CONTENT[:4], np.array([0, 1, 0, -1])
    prints = [
        fingerprint(content, None, ()),
        fingerprint(content[::-1], None, ()),
        fingerprint(content[:3], None, ()),
        fingerprint(content, labels, ("a", "b")),
        fingerprint(content, labels[::-1], ("a", "b")),
        fingerprint(content, labels, ("a", "c")),
    ]
    assert len(set(prints)) == len(prints) and all(len(p) == 64 for p in prints)
    assert prints[3] == fingerprint(content.copy(), labels.copy(), ["a", "b"])


def test_batch_keeps_the_order_asked_for_and_refuses_what_is_not_ok() -> None:
    ok = np.array([True, False, True, True])
    samples = samples_of(CONTENT[:4], ok)
    assert samples.batch(np.array([3, 0, 3])).tolist() == [[9, 10, 11], [0, 1, 2], [9, 10, 11]]
    assert samples.shape == (3,) and samples.skipped == 1 and len(samples) == 4
    with pytest.raises(AssertionError):
        samples.batch(np.array([0, 1]))


def test_row_keys() -> None:
    assert list(RowKeys([3])) == ["row 0", "row 1", "row 2"]
    keys = RowKeys([2, 0, 3], ["a.parquet", "b.parquet", "c.parquet"])
    assert list(keys) == ["a.parquet:0", "a.parquet:1", "c.parquet:0", "c.parquet:1", "c.parquet:2"]
    assert keys[-1] == "c.parquet:2" and keys[1:3] == ["a.parquet:1", "c.parquet:0"] and len(keys) == 5
    with pytest.raises(IndexError):
        keys[5]


def test_duplicates_are_counted_once_each() -> None:
    assert duplicates(np.array([1, 2, 2, 3, 3, 3], np.uint64)) == 3


class Counting(Store):
    """A store that counts what it decodes and finds some samples bad."""

    def __init__(self, bad: tuple[int, ...] = ()):
        self.bad, self.decoded = bad, list[int]()

    @property
    def shape(self) -> tuple[int, ...]:
        return (1,)

    def read(self, index: np.ndarray) -> torch.Tensor:
        self.decoded += index.tolist()
        batch = torch.from_numpy(index.astype(np.float32))[:, None]
        places = [p for p, i in enumerate(index.tolist()) if i in self.bad]
        if places:
            items = [BadItem(str(index[p]), "E301", "damaged", "mend it") for p in places]
            raise BadItems(np.array(places), items, batch)
        return batch


def test_what_was_looked_at_is_not_decoded_again() -> None:
    counting = Counting(bad=(5,))
    store = Kept(counting)
    with pytest.raises(BadItems):
        store.read(np.arange(8))
    assert store.read(np.array([0, 1, 2, 3, 4, 6, 7]))[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert store.read(np.array([7, 3, 3]))[:, 0].tolist() == [7, 3, 3]
    assert counting.decoded == list(range(8))
    with pytest.raises(BadItems):
        store.read(np.array([4, 5]))
    assert store.read(np.array([20, 21]))[:, 0].tolist() == [20, 21]
    assert store.read(np.zeros(0, np.int64)).shape == (0, 1)
    assert store.read(np.array([20]))[:, 0].tolist() == [20] and store.shape == (1,)
