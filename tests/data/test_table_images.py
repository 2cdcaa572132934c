"""Images of Parquet files are read row group by row group, when they are needed, by whichever thread asks first."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from accord.data import encoded, table_images
from accord.data.loader import Loader
from accord.data.samples import Refused
from accord.data.sources import open_source
from accord.data.table_images import RowGroups, TableImages
from accord.data.tables import open_parquet
from accord.errors import DataError


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [png(i) for i in range(60)]


def write(folder: Path, values: Any = None, rows: int = 20, group: int = 5) -> list[Path]:
    """Three files of 20 rows in row groups of 5."""
    values = PNGS if values is None else values
    for k in range(0, len(values), rows):
        pq.write_table(pa.table({"image": values[k : k + rows]}), folder / f"{k:03d}.parquet", row_group_size=group)
    return sorted(folder.glob("*.parquet"))


def images(folder: Path, **options: Any) -> TableImages:
    return TableImages(open_parquet(write(folder, **options)), "image")


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.data.sources.Options", lambda *a: encoded.Options(*a, in_memory=0, cached=0))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The row groups that were read, in order."""
    found: list[tuple[str, int]] = []
    real = table_images.read_group

    def counted(path: Path, metadata: Any, group: int, columns: list[str], size: int) -> Any:
        found.append((path.name, group))
        return real(path, metadata, group, columns, size)

    monkeypatch.setattr(table_images, "read_group", counted)
    return found


def test_every_image_is_the_one_of_its_row(tmp_path: Path, reads: list[Any]) -> None:
    fetch = images(tmp_path).fetcher(None)
    order = np.random.default_rng(0).permutation(60)
    assert [fetch(int(i)) for i in order] == [PNGS[i] for i in order]
    assert len(reads) == 12 and len(set(reads)) == 12, "each row group once"


def test_groups_beyond_the_limit_go_the_one_used_last_stays(tmp_path: Path, reads: list[Any]) -> None:
    column = images(tmp_path)
    fetch = RowGroups(column, limit=int(column.sizes[:2].sum()) + 100)
    for i in (0, 5, 1, 10, 2, 3, 6):  # groups 0, 1, 0, 2 (1 goes), 0, 0, 1
        assert fetch(i) == PNGS[i]
    assert [group for _, group in reads] == [0, 1, 2, 1]
    tiny = RowGroups(column, limit=0)
    assert [tiny(i) for i in (0, 1, 7, 2)] == [PNGS[i] for i in (0, 1, 7, 2)] and len(tiny.kept) == 1


def test_threads_that_want_the_same_group_wait_for_one(tmp_path: Path, reads: list[Any]) -> None:
    fetch = images(tmp_path).fetcher(None)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(fetch, list(range(60)) * 5)) == PNGS * 5
    assert len(reads) == 12


def test_structs_nulls_and_empty_groups(tmp_path: Path) -> None:
    values = pa.array([{"bytes": b, "path": None} for b in PNGS[:8]] + [None, {"bytes": None, "path": "x"}])
    file = tmp_path / "a.parquet"
    schema = pa.schema([("image", values.type)])
    with pq.ParquetWriter(file, schema) as writer:
        for part in (values[:0], values[:5], values[:0], values[5:]):
            writer.write_table(pa.table({"image": part}, schema=schema))
    column = TableImages(open_parquet([file]), "image")
    fetch = column.fetcher(None)
    assert [fetch(i) for i in range(8)] == PNGS[:8]
    for null in (8, 9):
        with pytest.raises(Refused, match="null"):
            fetch(null)
    assert column.blocks is not None and column.blocks.tolist() == [0, 5]


def test_a_file_that_changes_or_goes_is_seen(tmp_path: Path, streamed: None) -> None:
    paths = write(tmp_path)
    samples = open_source(str(tmp_path / "*.parquet"), cache=tmp_path / "cache")
    pq.write_table(pa.table({"image": PNGS[::-1][:20]}), paths[1], row_group_size=4)
    paths[2].unlink()
    for i, says in ((20, "changed since"), (40, "gone since")):
        with pytest.raises(DataError, match=says) as caught:
            samples.batch(np.array([i]))
        assert caught.value.code == "E325" and caught.value.where == f"{i // 20 * 20:03d}.parquet:0"
    assert len(samples.batch(np.arange(20))) == 20


def test_nothing_is_copied_and_an_epoch_reads_every_group_about_once(
    tmp_path: Path, streamed: None, reads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_images, "KEPT", 12 * 5 * len(PNGS[0]))
    values = [PNGS[i % 60] for i in range(600)]
    write(tmp_path, values, rows=200)
    samples = open_source(str(tmp_path / "*.parquet"), cache=tmp_path / "cache")
    assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.*")) < 50_000
    assert samples.blocks is not None and len(samples.blocks) == 120 and 15 < samples.shuffle_buffer <= 30
    counts = {}
    for buffer in (None, 0):
        reads.clear()
        loader = Loader(samples, np.arange(600), batch_size=20, seed=0, shuffle_buffer=buffer)
        for batch in loader.batches(0, 30):
            assert np.array_equal(batch.data, samples_of(values, batch.index.numpy()))
        counts[buffer] = len(reads)
    assert 120 <= counts[None] < 150 and counts[0] > 400, "at random most groups are read many times"


def samples_of(values: list[bytes], index: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(values[i]))).transpose(2, 0, 1) for i in index])


def test_row_groups_that_are_too_large_are_copied_to_the_cache(
    tmp_path: Path, streamed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_images, "LARGEST", 5 * len(PNGS[0]) // 2)
    write(tmp_path)
    samples = open_source(str(tmp_path / "*.parquet"), cache=tmp_path / "cache")
    assert samples.blocks is None and samples.shuffle_buffer == 0
    assert np.array_equal(samples.batch(np.array([59, 3])), samples_of(PNGS, np.array([59, 3])))
    assert [p.name for p in (tmp_path / "cache").rglob("encoded.bin")] == ["encoded.bin"]
