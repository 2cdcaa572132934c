"""Series and sounds through the one door: files, arrays and tables, with real data."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.data.test_sounds import noise, wav

from accord.data.samples import Samples, split
from accord.data.series_sources import SeriesOptions
from accord.data.sources import check_source, open_source
from accord.errors import AccordError, DataError, UsageError


def values(samples: Samples) -> np.ndarray:
    batch = samples.batch(np.flatnonzero(samples.ok))
    assert isinstance(batch, torch.Tensor)
    return batch.numpy()


def test_ts_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.ts").write_text("@classLabel true x y\n@data\n1,2,3:x\n4,5:y\n")
    found = open_source(tmp_path / "a.ts")
    assert (found.kind, found.shape, found.classes) == ("series", (3, 1), ("x", "y"))
    np.testing.assert_array_equal(values(found)[..., 0], [[1, 2, 3], [4, 5, np.nan]])
    both = open_source(str(tmp_path / "*.ts"))
    assert list(both.keys) == ["a.ts:0", "a.ts:1", "b.ts:0", "b.ts:1"]
    longer = open_source(tmp_path / "a.ts", limit_bad=False, series=SeriesOptions(length=2))
    assert [item.key for item in longer.bad] == ["a.ts:0"] and longer.shape == (2, 1)
    with pytest.raises(UsageError, match="label"):
        open_source(tmp_path / "a.ts", label="x")


def test_arrays_of_three_axes_are_series_and_rows_can_be(tmp_path: Path) -> None:
    array, labels = np.random.default_rng(0).normal(size=(6, 9, 2)).astype(np.float32), np.arange(6) % 2
    np.savez(tmp_path / "s.npz", x=array, y=labels)
    found = open_source(tmp_path / "s.npz")
    assert (found.kind, found.shape) == ("series", (9, 2)) and found.classes == ("0", "1")
    np.testing.assert_array_equal(values(found), array)
    assert open_source(np.abs(array) / 9, kind="image").kind == "image"
    rows = open_source(array[:, :, 0], kind="series")
    assert rows.shape == (9, 1) and open_source(array[:, :, 0]).kind == "vector"
    (tmp_path / "wide.csv").write_text("t0,t1,t2,label\n1,2,,a\n4,5,6,b\n")
    wide = open_source(tmp_path / "wide.csv", kind="series")
    assert wide.shape == (3, 1) and wide.classes == ("a", "b") and list(wide.keys) == ["wide.csv:0", "wide.csv:1"]
    windows = open_source(array, series=SeriesOptions(window=4, stride=2))
    assert len(windows) == 18 and windows.keys[1] == "row 0:2-5"
    np.testing.assert_array_equal(values(windows)[4], array[1, 2:6])


TABLE = "when,site,heat,rain,note\n" + "".join(
    f"2024-01-01 {hour:02d}:00:00,{site},{hour + 10 * n},{hour % 3},x\n"
    for hour in range(12)
    for n, site in enumerate("ab")
)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", "mapping"])
def test_tables_of_steps(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    rows = [line.split(",") for line in TABLE.splitlines()[1:]]
    columns = {
        "when": [row[0] for row in rows],
        "site": [row[1] for row in rows],
        "heat": [float(row[2]) for row in rows],
        "rain": [float(row[3]) for row in rows],
        "note": [row[4] for row in rows],
    }
    if ending == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif ending.startswith(".csv"):
        path.write_bytes(gzip.compress(TABLE.encode()) if ending.endswith("gz") else TABLE.encode())
    source = columns if ending == "mapping" else path
    found = open_source(source, series=SeriesOptions(time="when", group=("site",), window=5, stride=1))
    assert (found.kind, found.shape, found.features) == ("series", (5, 2), ("heat", "rain")) and len(found) == 16
    assert found.keys[9].endswith(":b:3-11") and "columns not used, not numbers: note" in found.notes
    np.testing.assert_array_equal(values(found)[9][:, 0], np.arange(1, 6) + 10)
    train, held_out = split(found, 0.5, 0)
    assert found.windows is not None and set(found.windows.series[train]) == {0, 1}
    assert found.windows.last[train].max() < 6 <= found.windows.first[held_out].min()
    whole = open_source(source, series=SeriesOptions(time="when", group=("site",)), features=["rain"])
    assert whole.shape == (12, 1) and len(whole) == 2


def test_each_file_is_a_series_and_rows_need_no_time(tmp_path: Path) -> None:
    for name, scale in (("a", 1), ("b", 1000)):
        (tmp_path / f"{name}.csv").write_text("u,v\n" + "".join(f"{i},{(i + 1) * scale}\n" for i in range(6)))
    found = open_source(str(tmp_path / "*.csv"), series=SeriesOptions(group=(), window=4, stride=2))
    assert list(found.keys) == ["a.csv:0-3", "a.csv:2-5", "b.csv:0-3", "b.csv:2-5"]
    assert any('"v" is 1e+03 times as large in b.csv' in note for note in found.notes)
    array = open_source(np.arange(12.0).reshape(6, 2), series=SeriesOptions(group=(), window=4))
    assert array.shape == (4, 2) and len(array) == 3 and array.features == ("x 0", "x 1")
    np.savez(tmp_path / "s.npz", u=np.arange(6.0), v=np.arange(6.0) ** 2)
    assert open_source(tmp_path / "s.npz", series=SeriesOptions(group=(), window=4)).features == ("u", "v")


@pytest.mark.parametrize("timed", [False, True])
def test_groups_of_equal_names_in_several_files_are_one_series_only_where_times_say_their_order(
    tmp_path: Path, timed: bool
) -> None:
    for n, name in enumerate("ab"):
        rows = [f"{12 * n + i},{'qp'[i % 2]},{100 * n + i}\n" for i in range(12)]
        (tmp_path / f"{name}.csv").write_text("when,site,u\n" + "".join(rows))
    options = SeriesOptions(time="when" if timed else None, group=("site",), window=6, stride=6)
    found = open_source(str(tmp_path / "*.csv"), series=options, features=["u"])
    first = [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    series = values(found)[..., 0].tolist()
    if timed:
        assert [key.rsplit(":", 1)[0] for key in found.keys] == ["a.csv:q"] * 2 + ["a.csv:p"] * 2
        assert series == [first[0], [100 + v for v in first[0]], first[1], [100 + v for v in first[1]]]
    else:
        assert list(found.keys) == ["a.csv:q:0-10", "a.csv:p:1-11", "b.csv:q:0-10", "b.csv:p:1-11"]
        assert series == [*first, *([100 + v for v in row] for row in first)]


def refused(code: str, source: object, options: SeriesOptions, *says: str) -> None:
    with pytest.raises(AccordError) as caught:
        open_source(source, series=options)  # type: ignore[arg-type]
    assert caught.value.code == code and caught.value.help and caught.value.where
    for word in says:
        assert word in str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "words.csv").write_text("when,word\n2024-01-01,a\n2024-01-02,b\n")
    refused("E234", tmp_path / "t.csv", SeriesOptions(time="wen"), 'no column "wen"')
    with pytest.raises(DataError, match='no column "wen", which the run takes for time') as again:
        open_source(tmp_path / "t.csv", series=SeriesOptions(time="wen"), features=["u"])
    assert again.value.code == "E334" and 'rename "when"' in (again.value.help or "")
    refused("E383", tmp_path / "t.csv", SeriesOptions(time="when"), "same time twice", "t.csv:1", "data.group")
    (tmp_path / "gap.csv").write_text("site,u\na,1\n,2\na,3\n,4\n")
    refused(
        "E394",
        tmp_path / "gap.csv",
        SeriesOptions(group=("site",)),
        'no group in column "site"',
        "gap.csv:1",
        "gap.csv:3",
    )
    for missing in (None, float("nan")):
        table = {"site": [1.0, missing, 2.0], "u": [1.0, 2.0, 3.0]}
        refused("E394", table, SeriesOptions(group=("site",)), 'no group in column "site": row 1')
    refused("E333", tmp_path / "words.csv", SeriesOptions(time="when"), "no column of numbers beside when")
    refused(
        "E234", np.arange(12.0).reshape(3, 4), SeriesOptions(window=2), "windows are of series, this is vector data"
    )
    refused("E234", "digits", SeriesOptions(time="t"), "no columns")


def test_sounds_in_folders_files_and_tables(tmp_path: Path) -> None:
    for place in ("one/a.wav", "one/b.wav", "two/c.wav"):
        path = tmp_path / "sounds" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(noise(40 + len(list(tmp_path.rglob("*.wav"))), len(place))))
    (tmp_path / "sounds" / "two" / "broken.wav").write_bytes(b"RIFF")
    found = open_source(tmp_path / "sounds", max_bad_fraction=0.5)
    assert (found.kind, found.rate, found.shape) == ("audio", 8000, (42, 1)) and found.classes == ("one", "two")
    assert list(found.keys) == ["one/a.wav", "one/b.wav", "two/broken.wav", "two/c.wav"]
    assert [item.key for item in check_source(tmp_path / "sounds").bad] == ["two/broken.wav"]
    with pytest.raises(DataError, match=r"broken\.wav"):
        open_source(tmp_path / "sounds")
    assert open_source(tmp_path / "sounds" / "one" / "a.wav").kind == "audio"
    table = pa.table({"audio": [wav(noise(30)), wav(noise(31, 1))], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "s.parquet")
    column = open_source(tmp_path / "s.parquet")
    assert column.kind == "audio" and column.classes == ("x", "y") and column.keys[1] == "s.parquet:1"
    side = open_source(tmp_path / "s.parquet", x=["audio"], y=["label"])
    assert side.sides is not None and (side.sides[0].kind, side.sides[0].rate) == ("audio", 8000)


def test_real_tables_and_archives(data: Path, tmp_path: Path) -> None:
    hourly = open_source(data / "ett" / "ETTh1.csv.gz", series=SeriesOptions(time="date", window=432, stride=96))
    assert hourly.shape == (432, 7) and hourly.keys[0] == "ETTh1.csv.gz:0-431" and hourly.ok.all()
    assert len(hourly) == (17420 - 432) // 96 + 1
    with tarfile.open(data / "ucr_uea_samples" / "ucr_uea_samples.tar.gz") as archive:
        archive.extract("JapaneseVowels/JapaneseVowels_TRAIN.ts", tmp_path, filter="data")
    vowels = open_source(tmp_path / "JapaneseVowels" / "JapaneseVowels_TRAIN.ts")
    assert vowels.shape == (26, 12) and len(vowels.classes) == 9
    arrays = open_source(data / "mnist1d" / "mnist1d.npz", kind="series", column="x_train")
    assert arrays.shape == (40, 1) and len(arrays) == 4000 and len(arrays.classes) == 10


def test_real_sounds(data: Path) -> None:
    digits = open_source(data / "fsdd" / "fsdd.parquet")
    assert (digits.kind, digits.rate, len(digits), len(digits.classes)) == ("audio", 8000, 3000, 10)
    assert digits.ok.all() and digits.shape[0] > 10_000
