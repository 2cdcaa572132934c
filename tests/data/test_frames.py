"""Data frames of pandas and polars: the same kinds and the same content as the Parquet file that is equal to them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accord.data.samples import Samples
from accord.data.series_sources import SeriesOptions
from accord.data.sources import open_source
from accord.errors import DataError

N = 40
X = ["f", "i", "flag", "colour"]
START = datetime.datetime(2024, 1, 1)


def columns() -> dict[str, list[Any]]:
    """Of every kind, with gaps in all but the times and the names."""
    numbers = np.random.default_rng(0).normal(size=N).tolist()
    return {
        "f": [None if i % 7 == 0 else numbers[i] for i in range(N)],
        "i": [None if i % 5 == 0 else i % 9 for i in range(N)],
        "flag": [None if i % 11 == 0 else i % 3 == 0 for i in range(N)],
        "colour": [None if i % 8 == 0 else ("red", "green")[i % 2] for i in range(N)],
        "name": [f"thing {i}" for i in range(N)],
        "when": [START + datetime.timedelta(hours=i) for i in range(N)],
        "nothing": [None] * N,
        "curve": [None if i % 10 == 9 else [float(i), 1.0, 2.0 + i] for i in range(N)],
    }


def pandas_frame(objects: bool) -> Any:
    """With the types pandas has for what may be missing, or as it holds them without: NaN and objects."""
    pd = pytest.importorskip("pandas", reason="the extra dev has it")
    found = columns()
    if objects:
        frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in found.items()})
        return frame.assign(f=[np.nan if value is None else value for value in found["f"]], when=found["when"])
    types = {"i": "Int64", "flag": "boolean", "colour": "category", "f": "float64", "name": "str"}
    series = {name: pd.Series(values, dtype=types.get(name, object)) for name, values in found.items()}
    frame = pd.DataFrame(series).assign(when=found["when"])
    return frame.set_index(np.arange(N) + 7)  # the index is no column


def polars_frame() -> Any:
    pl = pytest.importorskip("polars", reason="the extra dev has it")
    return pl.DataFrame(columns()).with_columns(pl.col("colour").cast(pl.Categorical))


FRAMES = {
    "pandas": lambda: pandas_frame(False),
    "pandas of objects": lambda: pandas_frame(True),
    "polars": polars_frame,
}


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest) -> Any:
    return FRAMES[request.param]()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(pa.table(columns()), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def both(frame: Any, parquet: Path, **options: Any) -> tuple[Samples, Samples]:
    """What a frame and the file are, which has to be the same."""
    found, expected = (open_source(source, max_bad_fraction=1.0, **options) for source in (frame, parquet))
    for one, other in zip(found.sides or (found,), expected.sides or (expected,), strict=True):
        assert (one.kind, one.kinds, one.shape) == (other.kind, other.kinds, other.shape)
        assert (one.categories, one.features) == (other.categories, other.features)
        np.testing.assert_array_equal(one.ok, other.ok)
        np.testing.assert_array_equal(one.content, other.content)
    return found, expected


def test_kinds_content_and_what_is_missing(frame: Any, parquet: Path) -> None:
    found, _ = both(frame, parquet, x=X, y=["name"])
    assert found.sides is not None
    x, y = found.sides
    assert (x.kind, x.kinds, y.kind) == ("vector", ("number", "number", "number", "category"), "text")
    assert x.categories == ((), (), (), ("green", "red"))
    assert not x.ok[0] and x.ok[1:].all(), "in row 0 all of x is missing"
    values = x.batch(np.arange(1, N))
    given = columns()
    for place, name in enumerate(X):
        missing = [value is None for value in given[name][1:]]
        assert values[:, place].isnan().tolist() == missing, name  # type: ignore[index, union-attr]
    seen = [value for value in given["i"][1:] if value is not None]
    assert [v for v in values[:, 1].tolist() if v == v] == seen  # type: ignore[index, union-attr]  # noqa: PLR0124


def test_lists_are_series(frame: Any, parquet: Path) -> None:
    found, _ = both(frame, parquet, x=["curve"], y=["name"])
    assert found.sides is not None and found.sides[0].kind == "series" and found.sides[0].shape == (3, 1)
    assert found.sides[0].ok.tolist() == [i % 10 != 9 for i in range(N)]


def test_times_and_groups(frame: Any, parquet: Path) -> None:
    options = {"series": SeriesOptions(time="when", window=4, stride=4), "features": ["f", "i", "flag"]}
    found, _ = both(frame, parquet, **options)
    assert (found.kind, found.shape, len(found)) == ("series", (4, 3), 10)


@pytest.mark.parametrize("column", ["when", "nothing"])
def test_a_column_of_no_kind_is_named(frame: Any, column: str) -> None:
    with pytest.raises(DataError, match=rf'column "{column}" holds (timestamp|null)') as caught:
        open_source(frame, x=[column], y=["name"])
    assert caught.value.code == "E333" and caught.value.help


@pytest.mark.parametrize("values", [[1, "x", 2.5], [1j, 2j, 3j], [object(), 2, 3], [2**70, 2, 3]])
def test_a_column_of_pandas_that_is_no_column_is_named_if_it_is_asked_for(values: list[Any]) -> None:
    pd = pytest.importorskip("pandas", reason="the extra dev has it")
    frame = pd.DataFrame({"odd": values, "b": [1, 2, 4], "name": ["u", "v", "w"]})
    with pytest.raises(DataError) as caught:
        open_source(frame, x=["odd"], y=["b"])
    assert caught.value.where is not None and "table:odd" in caught.value.where and caught.value.help
    found = open_source(frame, x=["b"], y=["name"])
    assert len(found) == 3 and "columns not used: odd" in found.notes


def test_columns_without_names_of_their_own_and_columns_twice() -> None:
    pd = pytest.importorskip("pandas", reason="the extra dev has it")
    numbers = open_source(pd.DataFrame([[1, 2], [3, 4], [5, 7]]), x=["0"], y=["1"])
    assert numbers.sides is not None and numbers.sides[1].columns == ("1",)
    with pytest.raises(DataError, match='duplicate column "a"'):
        open_source(pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), x=["a"], y=["b"])
