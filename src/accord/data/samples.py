"""Samples: N things in input order, what is wrong with some of them, and a split that depends on content alone."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, overload

import numpy as np
import torch

from accord.data.values import Kind, Sides, Values, rows_of
from accord.data.windows import Windows
from accord.errors import DataError, UsageError

LISTED = 1000
"""Bad items are named one by one up to this many, then counted."""


class BadItem(NamedTuple):
    """An item that cannot be used: which, what kind of fault ("E301"), why, and what to do about it."""

    key: str
    code: str
    reason: str
    help: str


class Refused(Exception):
    """Why one item cannot be used, from where its key is not known."""

    def __init__(self, code: str, reason: str, help: str):
        self.code, self.reason, self.help = code, reason, help
        super().__init__(reason)

    def item(self, key: str) -> BadItem:
        """The same, with its key."""
        return BadItem(key, self.code, self.reason, self.help)


class BadItems(DataError):
    """Items met by `Samples.batch` that cannot be used although nothing was known against them.

    `positions` (int64) are places in the index asked for, `items` say what is wrong with each, and `batch` is the whole
    batch with zeros in those places, so that the good part need not be read again.
    """

    def __init__(self, positions: np.ndarray, items: list[BadItem], batch: Values):
        assert len(positions) == len(items) > 0
        self.positions = positions
        self.items = items
        self.batch = batch
        first = items[0]
        more = "" if len(items) == 1 else f" (and {len(items) - 1} more in the same batch)"
        super().__init__(first.reason + more, where=first.key, help=first.help, code=first.code)


class Store(ABC):
    """Where the values of samples are: in memory, in a mapped file, or still encoded."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @abstractmethod
    def read(self, index: np.ndarray) -> Values:
        """Samples `index`, (batch, *shape)."""


class ArrayStore(Store):
    """An array of all samples, (N, *shape), in memory or mapped from a file."""

    def __init__(self, array: np.ndarray):
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    def read(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.array[index]))


class Kept(Store):
    """A store that keeps what it read last: what is looked at first and used afterwards is decoded once."""

    def __init__(self, store: Store):
        self.store = store
        self.places: dict[int, int] = {}
        self.batch: Values = torch.zeros(0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.store.shape

    def read(self, index: np.ndarray) -> Values:
        wanted = index.tolist()
        if not wanted or not all(i in self.places for i in wanted):
            self._read(index)
        return rows_of(self.batch, [self.places[i] for i in wanted]) if wanted else self.batch

    def _read(self, index: np.ndarray) -> None:
        bad: set[int] = set()
        try:
            self.batch = self.store.read(index)
        except BadItems as error:
            self.batch, bad = error.batch, set(error.positions.tolist())
            raise
        finally:
            self.places = {i: place for place, i in enumerate(index.tolist()) if place not in bad}


@dataclass(eq=False)
class Samples:
    """N samples of one kind, in input order; bad ones keep their place and have `ok` False.

    name: the source as given. kind: what each sample is, and what `batch` gives of it:
        "image": uint8 (C, H, W). "vector": float32 (features,), NaN where a value is missing.
        "series": float32 (steps, channels), NaN where a value is missing and past the end.
        "audio": float32 (steps, 1) in [-1, 1], NaN past the end. "text": uint8 (bytes,), UTF-8, 0 past the end.
        "pair": `Sides`, two of these; `sides` are the samples of either.
    keys: one name per sample: the path in its folder, or "row 17", or "file.parquet:17".
    content: uint64 (N,), a hash of each item's raw content; duplicates have equal values.
    ok: bool (N,). bad: what is wrong with the others, in order, the first 1,000 of them.
    labels: int64 (N,) with -1 for missing, or None; `classes[i]` is the name of label i. Read by probes only.
    aspect: float32 (N,), width / height of the original of an image; images are stored squeezed on to a square.
    blocks: int64 (B,), ascending: the first sample of each run that is best read together, None if any order will do.
    shuffle_buffer: samples that training should shuffle together, block after block; 0: all, for reading in any order is cheap.
    notes: said once to the user. features: the names of a vector's columns. fingerprint: sha256 over contents and labels.
    categories: for each column of a vector the names of its codes 0, 1, ..., none for a column of numbers; empty: all are numbers.
    windows: where each sample lies in a longer series, None if it is no window; where a series has several, they are split by time.
    rate: samples per second of audio, 0 for all else. columns, kinds: of a side of a table, which columns it is, and what each holds.
    """

    name: str
    kind: Kind | Literal["pair"]
    store: Store
    keys: Sequence[str]
    content: np.ndarray
    ok: np.ndarray
    bad: list[BadItem] = field(default_factory=list)
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    aspect: np.ndarray = field(default_factory=lambda: np.ones(0, np.float32))
    notes: list[str] = field(default_factory=list)
    features: tuple[str, ...] = ()
    fingerprint: str = ""
    blocks: np.ndarray | None = None
    shuffle_buffer: int = 0
    categories: tuple[tuple[str, ...], ...] = ()
    rate: int = 0
    windows: Windows | None = None
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    sides: tuple[Samples, Samples] | None = None

    def __post_init__(self) -> None:
        n = len(self.keys)
        if len(self.aspect) == 0:
            self.aspect = np.ones(n, np.float32)
        assert self.content.shape == self.ok.shape == self.aspect.shape == (n,)
        assert self.content.dtype == np.uint64 and self.ok.dtype == np.bool_ and self.aspect.dtype == np.float32
        assert self.labels is None or (self.labels.shape == (n,) and self.labels.dtype == np.int64)
        assert (self.kind == "pair") == (self.sides is not None)
        if not self.fingerprint:
            self.fingerprint = fingerprint(self.content, self.labels, self.classes)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample from `batch`, see `kind`; () of a pair, whose sides have one each."""
        return self.store.shape

    @property
    def skipped(self) -> int:
        """How many samples are not ok."""
        return len(self) - int(self.ok.sum())

    def batch(self, index: np.ndarray) -> Values:
        """Samples `index` (int64, all of them ok) as (batch, *shape), see `kind`; of pairs both sides.

        Raises `BadItems` when an image that is decoded only now turns out to be damaged, changed or gone.
        """
        assert bool(self.ok[index].all()), "asked for a sample that is not ok"
        return self.store.read(index)

    def aspects(self, index: np.ndarray) -> torch.Tensor | None:
        """Width / height of the originals of some images; None where samples are no images, or pairs, which bring their own."""
        return torch.from_numpy(self.aspect[index]) if self.kind == "image" else None

    def kept(self) -> Samples:
        """The same samples, of which those that were read last are not decoded again."""
        return replace(self, store=Kept(self.store))


class PairStore(Store):
    """Two sources that are read row by row."""

    def __init__(self, x: Samples, y: Samples):
        self.x, self.y = x, y

    @property
    def shape(self) -> tuple[int, ...]:
        """(): each side has its own."""
        return ()

    def read(self, index: np.ndarray) -> Sides:
        bad: dict[int, BadItem] = {}
        x, y = (self._side(samples, index, bad) for samples in (self.x, self.y))
        found = Sides(x, y, self.x.aspects(index), self.y.aspects(index))
        if bad:
            places = sorted(bad)
            raise BadItems(np.array(places, np.int64), [bad[place] for place in places], found)
        return found

    def _side(self, samples: Samples, index: np.ndarray, bad: dict[int, BadItem]) -> torch.Tensor:
        """One side; what is bad of it is added to `bad` by its place."""
        try:
            values = samples.store.read(index)
        except BadItems as error:
            values = error.batch
            for place, item in zip(error.positions.tolist(), error.items, strict=True):
                bad.setdefault(place, item._replace(reason=f"{samples.name}: {item.reason}"))
        assert not isinstance(values, Sides), "a side of a pair is no pair"
        return values


def pair_content(x: Samples, y: Samples) -> np.ndarray:
    """Hashes of the pairs of row i of `x` with row i of `y`, uint64 (N,)."""
    return mix(x.content ^ mix(y.content))


def pair_samples(
    name: str,
    x: Samples,
    y: Samples,
    *,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    notes: Sequence[str] = (),
) -> Samples:
    """Samples that are pairs, row i of `x` with row i of `y`; bad where either is. Names of the sides stand before their reasons."""
    assert len(x) == len(y)
    ok = x.ok & y.ok
    known = {side.name: {item.key: item for item in side.bad} for side in (y, x)}
    bad = []
    for key in (x.keys[i] for i in np.flatnonzero(~ok)[:LISTED].tolist()):
        side = next((name for name in (x.name, y.name) if key in known[name]), None)
        if side is not None:
            item = known[side][key]
            bad.append(item._replace(reason=f"{side}: {item.reason}"))
    return Samples(
        name=name,
        kind="pair",
        store=PairStore(x, y),
        keys=x.keys,
        content=pair_content(x, y),
        ok=ok,
        bad=bad,
        labels=labels,
        classes=classes,
        notes=[*notes, *x.notes, *y.notes],
        blocks=y.blocks if x.blocks is None else x.blocks,
        shuffle_buffer=max(x.shuffle_buffer, y.shuffle_buffer),
        sides=(x, y),
    )


Whole = Literal["sample", "time", "series", "x", "y"]
"""What is held out as a whole, so that training and held-out samples do not share it."""


def split(samples: Samples, fraction: float, seed: int, by: Whole | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The ok items as (train, held-out) indices, in order; an item is held out with probability `fraction`.

    The side of an item is a pure function of (seed, its content): duplicates land on the same side, and adding data moves
    no item. With few items a side could stay empty: then it gets the content that was nearest to it, if there are two.

    Args:
        samples: what is split.
        fraction: of it that is held out, 0 <= fraction < 1.
        seed: which items these are.
        by: what the parts do not share. "sample": the content of samples. "x" or "y": that of one side of pairs. "series": the whole
            series that windows are from. "time": steps, for the last `fraction` of each series is held out, see `Windows.split`. By
            default windows are split by "time", and all else by "sample".

    Raises:
        UsageError: for a fraction out of bounds, or samples that have no such sides or windows.
    """
    if not 0.0 <= fraction < 1.0:
        raise UsageError(f"a held-out fraction of {fraction}: expected 0 <= fraction < 1", help="try 0.1")
    several = samples.windows is not None and samples.windows.several
    by = by or ("time" if several else "sample")
    if by == "time" and samples.windows is not None:
        return samples.windows.split(samples.ok, fraction)
    index = np.flatnonzero(samples.ok)
    place = uniform_of(_content_of(samples, by)[index], seed)
    held_out = place < fraction
    if fraction > 0.0 and len(index) and place.min() < place.max():
        if not held_out.any():
            held_out = place == place.min()
        elif held_out.all():
            held_out = place < place.max()
    return index[~held_out], index[held_out]


def _content_of(samples: Samples, by: Whole) -> np.ndarray:
    """What identifies that which each sample shares with others, uint64 (N,)."""
    if by == "sample":
        return samples.content
    if by in ("x", "y") and samples.sides is not None:
        return samples.sides["xy".index(by)].content
    if by == "series" and samples.windows is not None:
        _, first, of = np.unique(samples.windows.series, return_index=True, return_inverse=True)
        begins: np.ndarray = samples.content[first][of]
        return begins
    needed = "pairs of columns" if by in ("x", "y") else "windows of series"
    raise UsageError(
        f"{samples.name}: {samples.kind} data cannot be held out by {by!r}: only {needed} can",
        where="data.hold_out_by",
        help="leave it out: samples are held out one by one, windows by time",
        code="E227",
    )


def uniform_of(content: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each content hash, uint64 (N,) -> float64 (N,)."""
    salt = np.frombuffer(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), np.uint64)
    return (mix(content ^ salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(h: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers in which every bit depends on every other (SplitMix64; Steele, Lea, Flood 2014)."""
    h = np.asarray(h + np.uint64(0x9E3779B97F4A7C15), np.uint64)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(h ^ (h >> np.uint64(31)))


def hash_bytes(data: bytes | memoryview) -> int:
    """64 bits that identify raw content (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_rows(array: np.ndarray, chunk: int = 4096) -> np.ndarray:
    """`hash_bytes` of every row's bytes in C order, (N, ...) -> uint64 (N,)."""
    content = np.empty(len(array), np.uint64)
    for start in range(0, len(array), chunk):
        rows = np.ascontiguousarray(array[start : start + chunk])
        flat = rows.reshape(len(rows), -1).view(np.uint8)
        content[start : start + len(rows)] = [hash_bytes(row.data) for row in flat]
    return content


def fingerprint(content: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """sha256 (hexadecimal) over contents and labels in order: it identifies the data, not where it lies."""
    digest = hashlib.sha256(b"accord samples 1\0")
    digest.update(np.ascontiguousarray(content, "<u8").tobytes())
    if labels is not None:
        digest.update(b"\0labels\0" + np.ascontiguousarray(labels, "<i8").tobytes())
        digest.update("\0".join(classes).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def duplicates(content: np.ndarray) -> int:
    """How many items repeat an earlier one."""
    return len(content) - len(np.unique(content))


class RowKeys(Sequence[str]):
    """Keys of the rows of one or several tables, made when asked for: "row 17", or "file.parquet:17" (counted from 0)."""

    def __init__(self, counts: Sequence[int], names: Sequence[str] | None = None):
        self.names = names
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        row = int(i) + len(self) if i < 0 else int(i)
        if not 0 <= row < len(self):
            raise IndexError(i)
        table = int(np.searchsorted(self.starts, row, "right")) - 1
        return f"row {row}" if self.names is None else f"{self.names[table]}:{row - int(self.starts[table])}"
