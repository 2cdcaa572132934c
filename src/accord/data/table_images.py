"""A column of encoded images in Parquet files: row groups are read when one of their rows is needed, and the last ones are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from accord.data.cache import Entry
from accord.data.encoded import SHUFFLED, Chunk, Encoded, Progress, memory_free
from accord.data.files import changed
from accord.data.samples import Refused
from accord.data.tables import Table, encoded_values, image_value, read_batches, read_group

LARGEST = 512 << 20
"""Bytes of images in a row group that is read as a whole; if one has more, the encoded images are copied to the cache."""
KEPT = 2 << 30
"""Bytes of row groups that are kept in memory, or a quarter of what is free if that is less."""


class TableImages(Encoded):
    """A column of encoded images: binary, or a struct with the field "bytes" as Hugging Face writes it."""

    def __init__(self, table: Table, column: str):
        self.table, self.column = table, column
        groups = [m.row_group(g) for m in table.metadata for g in range(m.num_row_groups)]
        self.sizes = np.array([_size(group, column) for group in groups], np.int64)
        ends = np.cumsum([group.num_rows for group in groups], dtype=np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        self.stats = [path.stat() for path in table.paths]

    def __len__(self) -> int:
        return len(self.table.keys)

    def stamp(self) -> bytes:
        words = [
            f"{p.resolve()} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
            for p, s in zip(self.table.paths, self.stats, strict=True)
        ]
        return "\0".join([self.column, *words]).encode("utf-8", "surrogateescape")

    def peek(self, count: int) -> list[bytes | Refused]:
        groups = [
            (p, m, g)
            for p, m in zip(self.table.paths, self.table.metadata, strict=True)
            for g in range(m.num_row_groups)
        ]
        few = [groups[i] for i in np.unique(np.linspace(0, len(groups) - 1, 4).astype(int))]
        values: list[bytes | Refused] = []
        for path, metadata, group in few:
            batch = next(read_group(path, metadata, group, [self.column], count // len(few)), None)
            values += [] if batch is None else encoded_values(batch.column(0))
        return values

    def chunks(self, size: int) -> Iterator[Chunk]:
        start = 0
        for batch in read_batches(self.table, [self.column], size):
            yield start, lambda batch=batch: encoded_values(batch.column(0))  # type: ignore[misc]
            start += batch.num_rows

    @property
    def whole_groups(self) -> bool:
        """Whether row groups are small enough to be read as wholes."""
        return bool(self.sizes.max() <= LARGEST)

    @property
    def blocks(self) -> np.ndarray | None:
        """Row groups, where they are read as wholes."""
        return np.unique(self.starts[self.starts < len(self)]) if self.whole_groups else None

    @property
    def shuffle_buffer(self) -> int:
        """At most half as many as are kept: a window begins and ends amid a row group."""
        return max(1, min(SHUFFLED, KEPT // 2 * len(self) // max(1, int(self.sizes.sum()))))

    def keep(self, folder: Path, progress: Progress | None) -> None:
        """Nothing; or where row groups are too large the images one after the other, and where each ends; of a null nothing."""
        if self.whole_groups:
            return
        ends, total = np.zeros(len(self), np.int64), 0
        with (folder / "encoded.bin").open("wb") as out:
            for start, load in self.chunks(256):
                for i, value in enumerate(load(), start):
                    total += 0 if isinstance(value, Refused) else out.write(value)
                    ends[i] = total
                if progress is not None:
                    progress(start, len(self))
        np.save(folder / "ends.npy", ends, allow_pickle=False)

    def fetcher(self, entry: Entry | None) -> Callable[[int], bytes]:
        if self.whole_groups:
            return RowGroups(self)
        assert entry is not None
        ends, data = entry.array("ends"), np.memmap(entry.folder / "encoded.bin", np.uint8, "r")
        return lambda i: data[int(ends[i - 1]) if i else 0 : int(ends[i])].tobytes()


class RowGroups:
    """Reads images of a table from any number of threads, a row group at a time.

    Args:
        images: the column.
        limit: bytes of row groups to keep; the one that was read last is kept in any case.
    """

    def __init__(self, images: TableImages, limit: int | None = None):
        self.images = images
        self.limit = min(KEPT, memory_free() // 4) if limit is None else limit
        metadata = images.table.metadata
        self.groups = [(number, group) for number, m in enumerate(metadata) for group in range(m.num_row_groups)]
        self.kept: OrderedDict[int, Future[list[Any]]] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, i: int) -> bytes:
        """Image number `i`. Raises `Refused`; `DataError` or `EnvironmentFault` if its row group cannot be read."""
        group = int(np.searchsorted(self.images.starts, i, "right")) - 1
        place = i - int(self.images.starts[group])
        for column in self._rows(group):
            if place < len(column):
                return image_value(column[place])
            place -= len(column)
        raise AssertionError

    def _rows(self, group: int) -> list[Any]:
        """The rows of a group, read by whichever thread asks first; the others wait for it."""
        with self.lock:
            future = self.kept.get(group)
            if future is not None:
                self.kept.move_to_end(group)
            else:
                mine = self.kept[group] = Future()
                while len(self.kept) > 1 and int(self.images.sizes[list(self.kept)].sum()) > self.limit:
                    self.kept.popitem(last=False)
        if future is not None:
            return future.result()
        try:
            mine.set_result(self._read(group))
        except BaseException as error:  # belongs to everyone who waits
            with self.lock:
                self.kept.pop(group, None)
            mine.set_exception(error)
        return mine.result()

    def _read(self, group: int) -> list[Any]:
        number, place = self.groups[group]
        path, metadata = self.images.table.paths[number], self.images.table.metadata[number]
        then = self.images.stats[number]
        try:
            now = path.stat()
        except OSError as error:
            what = "the file is gone since it was opened"
            raise Refused("E325", what, "leave the data alone while they are in use") from error
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise changed(then.st_size, now.st_size)
        rows = metadata.row_group(place).num_rows
        return [batch.column(0) for batch in read_group(path, metadata, place, [self.images.column], rows)]


def _size(group: Any, column: str) -> int:
    """Bytes of a column in a row group."""
    chunks = (group.column(i) for i in range(group.num_columns))
    return sum(int(chunk.total_uncompressed_size) for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
