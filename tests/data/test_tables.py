"""Parquet and CSV: which columns are what, and that a table is read whole or not at all."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from accord.data.encoded import Options
from accord.data.samples import Samples
from accord.data.sources import check_source, open_source
from accord.data.tables import check_pyarrow
from accord.errors import DataError, EnvironmentFault, UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (25, 16, 16, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [png(image) for image in IMAGES]


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def every(samples: Samples) -> np.ndarray:
    return samples.batch(np.flatnonzero(samples.ok)).numpy()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), "struct"])
@pytest.mark.parametrize("rows", [4, 100])
def test_a_column_of_images(tmp_path: Path, kind: Any, rows: int) -> None:
    column = pa.array([{"bytes": p, "path": "x.png"} for p in PNGS]) if kind == "struct" else pa.array(PNGS, kind)
    path = write(
        tmp_path / "a.parquet", {"id": range(25), "image": column, "label": np.arange(25) % 3}, row_group_size=rows
    )
    samples = open_source(path)
    assert (every(samples) == IMAGES.transpose(0, 3, 1, 2)).all() and samples.classes == ("0", "1", "2")
    assert (
        samples.keys[7] == "a.parquet:7"
        and samples.labels is not None
        and samples.labels.tolist() == [i % 3 for i in range(25)]
    )


def test_nulls_are_bad_items_in_their_place(tmp_path: Path) -> None:
    values = [*PNGS[:3], None, *PNGS[4:]]
    for column in (
        pa.array(values),
        pa.array([v and {"bytes": v} for v in values]),
        pa.array([{"bytes": v} for v in values]),
    ):
        samples = open_source(write(tmp_path / "a.parquet", {"image": column}), max_bad_fraction=0.1)
        assert np.flatnonzero(~samples.ok).tolist() == [3] and samples.bad[0].key == "a.parquet:3"
        assert (every(samples) == np.delete(IMAGES, 3, 0).transpose(0, 3, 1, 2)).all()


def test_a_pattern_reads_several_files_in_byte_order(tmp_path: Path) -> None:
    for name, part in (("b", slice(0, 10)), ("a", slice(10, 25)), ("Z", slice(0, 0))):
        write(tmp_path / f"{name}.parquet", {"image": pa.array(PNGS[part], pa.binary())})
    samples = open_source(str(tmp_path / "*.parquet"))
    assert (every(samples) == np.concatenate([IMAGES[10:], IMAGES[:10]]).transpose(0, 3, 1, 2)).all()
    assert samples.keys[0] == "a.parquet:0" and samples.keys[15] == "b.parquet:0"


def test_the_same_rows_from_another_file_layout_have_the_same_fingerprint(tmp_path: Path) -> None:
    a = open_source(write(tmp_path / "a.parquet", {"image": PNGS, "label": ["x"] * 25}, row_group_size=3))
    b = open_source(write(tmp_path / "b.parquet", {"label": ["x"] * 25, "image": PNGS}, compression="none"))
    assert a.fingerprint == b.fingerprint


def test_images_too_many_to_keep_decoded_are_kept_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.data.sources.Options", lambda *given: Options(*given, 0, 0))
    torn = PNGS[9][: len(PNGS[9]) // 2]
    path = write(tmp_path / "a.parquet", {"image": [*PNGS[:3], None, *PNGS[4:9], torn, *PNGS[10:]]}, row_group_size=4)
    for _ in range(2):
        samples = open_source(path, cache=tmp_path / "cache", max_bad_fraction=0.1)
        index = np.array([24, 0, 2, 4, 10])
        assert (samples.batch(index).numpy() == IMAGES[index].transpose(0, 3, 1, 2)).all()
        assert samples.ok[9] and not samples.ok[3]
    assert [item.key for item in check_source(path, cache=tmp_path / "cache").bad] == ["a.parquet:3", "a.parquet:9"]


def test_one_of_several_image_columns_must_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"left": PNGS, "right": PNGS[::-1]})
    with pytest.raises(UsageError, match="left, right"):
        open_source(path)
    assert (every(open_source(path, column="right")) == IMAGES[::-1].transpose(0, 3, 1, 2)).all()
    with pytest.raises(UsageError, match="middle") as error:
        open_source(path, column="middle")
    assert "left, right" in (error.value.help or "")


def test_class_names_of_hugging_face_metadata(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": PNGS, "label": [2, 0] * 12 + [2]}).replace_schema_metadata(
        {"huggingface": json.dumps(names)}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    samples = open_source(tmp_path / "a.parquet")
    assert (
        samples.classes == ("cat", "dog", "eel")
        and samples.labels is not None
        and samples.labels[:2].tolist() == [2, 0]
    )


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        (pa.array(["b", None, "a"]), [1, -1, 0], ("a", "b")),
        (pa.array([5, None, -1]), [1, -1, 0], ("-1", "5")),
        (pa.array(["b", None, "a"]).dictionary_encode(), [1, -1, 0], ("a", "b")),
    ],
)
def test_label_columns(tmp_path: Path, values: pa.Array, labels: list[int], classes: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.parquet", {"x": [1.0, 2.0, 3.5], "Target": values})
    samples = open_source(path)
    assert samples.labels is not None and samples.labels.tolist() == labels and samples.classes == classes
    assert samples.features == ("x",), "a label is never a feature"


def test_a_column_of_measurements_is_no_label_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"x": [1.0, 2.0, 3.5], "target": [0.5, 1.5, 2.0], "kind": [1.0, 2.0, 1.0]})
    samples = open_source(path)
    assert samples.labels is None and samples.features == ("x", "target", "kind")
    assert any('"target" may give the label away' in note for note in samples.notes)
    named = open_source(path, label="kind")
    assert named.classes == ("1", "2") and named.features == ("x", "target")
    with pytest.raises(DataError, match="label"):
        open_source(path, label="target")
    with pytest.raises(UsageError, match="knd"):
        open_source(path, label="knd")


def test_columns_of_numbers_become_float32(tmp_path: Path) -> None:
    import decimal

    columns = {
        "i8": pa.array([1, 2, 3], pa.int8()),
        "u64": pa.array([1, 2**53, 3], pa.uint64()),
        "bool": pa.array([True, False, True]),
        "f16": pa.array(np.array([0.5, 1.5, 2.5], np.float16)),
        "dec": pa.array([decimal.Decimal("1.25"), decimal.Decimal("-2.50"), decimal.Decimal("0.00")]),
        "text": ["a", "b", "c"],
        "time": pa.array([0, 1, 2], pa.timestamp("s")),
    }
    samples = open_source(write(tmp_path / "a.parquet", columns))
    assert samples.features == ("i8", "u64", "bool", "f16", "dec") and samples.shape == (5,)
    assert every(samples).tolist() == [[1, 1, 1, 0.5, 1.25], [2, 2**53, 0, 1.5, -2.5], [3, 3, 1, 2.5, 0]]
    assert "columns not used, not numbers: text, time" in samples.notes


def test_a_null_number_is_a_missing_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"a": [1.0, None, 3.0], "b": pa.array([1, 2, None])})
    with pytest.raises(DataError, match=r"2 of 3 rows .*\"a\" \(1\), \"b\" \(1\)"):
        open_source(path)
    assert every(open_source(path, impute=-1.0)).tolist() == [[1, 1], [-1, 2], [3, -1]]
    samples = open_source(path, limit_bad=False)
    assert samples.ok.tolist() == [True, False, False] and [item.key for item in samples.bad] == [
        "a.parquet:1",
        "a.parquet:2",
    ]


def test_an_old_pyarrow_is_refused() -> None:
    for version in ("14.0.0", "9.0.0", "13.9.9.dev1"):
        with pytest.raises(EnvironmentFault, match="CVE-2023-47248"):
            check_pyarrow(version)
    for version in ("14.0.1", "14.1.0", "26.0.1", "27.0.0.dev3"):
        check_pyarrow(version)


def csv(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv(tmp_path: Path) -> None:
    text = 'a,b,name,class\n1,2.5,x,dog\n-3,1e2,"y, z",cat\n0,.5,=cmd|1,dog\n'
    samples = open_source(csv(tmp_path / "a.csv", text))
    assert every(samples).tolist() == [[1, 2.5], [-3, 100], [0, 0.5]] and samples.features == ("a", "b")
    assert samples.classes == ("cat", "dog") and samples.labels is not None and samples.labels.tolist() == [1, 0, 1]
    assert samples.keys[2] == "a.csv:2" and "columns not used, not numbers: name" in samples.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_dialects_that_say_what_they_are(tmp_path: Path, encoding: str, delimiter: str, newline: str) -> None:
    text = newline.join(delimiter.join(row) for row in (("é", "b"), ("1", "2"), ("3", "4.5"))) + newline
    samples = open_source(csv(tmp_path / "a.csv", text.encode(encoding)))
    assert samples.features == ("é", "b") and every(samples).tolist() == [[1, 2], [3, 4.5]]


def test_csv_without_a_header_and_packed(tmp_path: Path) -> None:
    import gzip

    samples = open_source(csv(tmp_path / "a.csv", "1,2\n3,4\n"))
    assert samples.features == ("column 0", "column 1") and every(samples).tolist() == [[1, 2], [3, 4]]
    packed = open_source(csv(tmp_path / "b.csv.gz", gzip.compress(b"a,b\n1,2\n3,4\n")))
    assert every(packed).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", ["a;b;c\n", ""])
def test_decimal_commas_where_the_comma_separates_nothing(separator: str, header: str, tmp_path: Path) -> None:
    text = header + "1,5;-2;,25\n 3 ;+4,0e1;\n;5;6,\n"
    found = open_source(csv(tmp_path / "t.tsv", text.replace(";", separator).encode()), impute=0.0)
    assert every(found).tolist() == [[1.5, -2, 0.25], [3, 40, 0], [0, 5, 6]]


@pytest.mark.parametrize("cell", ["1.234,5", "1,2,3", "1.5", "12 345,6"])
def test_decimal_commas_beside_anything_else_are_refused(cell: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'column "a" holds "1,5"|column "a" holds "' + re.escape(cell)) as caught:
        open_source(csv(tmp_path / "t.csv", f"a;b\n1,5;2\n2,5;3\n{cell};4\n".encode()))
    assert "with a decimal point" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\tb\n12\t1\n1,234\t2\n12,500\t3\n", r'"1,234", which is 1234 or 1\.234[\s\S]*t\.csv:1'),
        ("a;b\n1.234;2,5\n12.500;3\n999;4\n", r'"1\.234", which is 1234 or 1\.234[\s\S]*t\.csv:0'),
        ("a;b\n1,5;2\n n/a;3\n2,5;4\n", 'holds "n/a"'),
    ],
)
def test_separators_that_may_be_those_of_thousands_are_refused(text: str, says: str, tmp_path: Path) -> None:
    """And in a column of decimal commas it is not they that are blamed, but what is no number."""
    path = csv(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match=says) as caught:
        open_source(path)
    assert "with a decimal point" in str(caught.value)
    assert open_source(path, x=["b"]).shape == (1,)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a\tb\n1,125\t0,5\n2,375\t1\n", [[1.125, 0.5], [2.375, 1]]),
        ("a;b\n1,125;5\n2,375;6\n", [[1.125, 5], [2.375, 6]]),
        ("a;b\n1,5;2.5\nNaN;3.25\n", [[1.5, 2.5], [0, 3.25]]),
        ("1,5;;2,5\n1;2;3\n", [[1.5, 0, 2.5], [1, 2, 3]]),
        ("1,5;2;nan\n2,5;3;1\n", [[1.5, 2, 0], [2.5, 3, 1]]),
        ('"1,5";"2"\n"3,5";"4"\n', [[1.5, 2], [3.5, 4]]),
        ('"a, b, c";d\n1,5;2\n', [[1.5, 2]]),
        ('"a;b;c",d\n1.5,2\n', [[1.5, 2]]),
    ],
)
def test_what_separates_cells_and_decimals(text: str, rows: list[list[float]], tmp_path: Path) -> None:
    assert every(open_source(csv(tmp_path / "t.csv", text), impute=0.0)).tolist() == rows


def test_the_ending_tsv_says_what_separates_where_the_header_has_more_commas(tmp_path: Path) -> None:
    text = "length, mm, outer\twidth, mm\n1,5\t2\n2,5\t3\n"
    assert open_source(csv(tmp_path / "t.tsv", text)).features == ("length, mm, outer", "width, mm")
    with pytest.raises(DataError, match="by the first line a comma"):
        open_source(csv(tmp_path / "t.csv", text))


def test_names_of_classes_and_categories_are_kept_as_they_are_written(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "size;v\n1,50;1\n2,5;2\n1,50;3\n")
    assert open_source(path, label="size").classes == ("1,50", "2,5")
    found = open_source(path, x=["size"], y=["v"], kinds={"size": "category"})
    assert found.sides[0].categories == (("1,50", "2,5"),)


def test_csv_integer_labels_sort_as_numbers(tmp_path: Path) -> None:
    samples = open_source(csv(tmp_path / "a.csv", "x,label\n1,10\n2,9\n3,\n"))
    assert samples.classes == ("9", "10") and samples.labels is not None and samples.labels.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("text", "code", "place", "says"),
    [
        ("a,b\n1,2\n3\n", "E337", None, "line 3"),
        ("a,b\n1,2\n3,4,5\n", "E337", None, "line 3"),
        ('a,b\n1,2\n"3,4\n', "E337", "line 3", "quote"),
        ("a,b\n1,2\n3,\x004\n", "E337", "line 3", "NUL"),
        ("a,b\n1,2\n3,\xe9\n".encode("latin-1"), "E337", "line 3", "UTF-8"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "E337", None, "utf-16"),
        ("a,b\n1,\0\n".encode("utf-16"), "E337", "line 2", "NUL"),
        ("", "E338", None, "empty"),
        ("a,b\n", "E338", None, "no rows"),
        ("a,a\n1,2\n", "E335", None, '"a"'),
        ("a,b\n1,2\n3,1x\n5,6\n7,8\n", "E333", "a.csv:1", '"1x"'),
        ('a,b\n1,2\n"1,5",4\n', "E333", "a.csv:1", '"1,5"'),
        ("a,b\n1,2\n2,N/A\n", "E333", "a.csv:1", '"N/A"'),
        ("a,b\n1,2\n2,9007199254740993\n", "E339", "a.csv:1", '"b"'),
        ("a,b\nx,y\n", "E333", None, "no column of numbers"),
        ("a,b\n1,\n2,3\n", "E331", "a.csv:0", '"b"'),
    ],
)
def test_csv_that_is_damaged_or_no_table_of_numbers(
    tmp_path: Path, text: str | bytes, code: str, place: str | None, says: str
) -> None:
    with pytest.raises(DataError) as error:
        open_source(csv(tmp_path / "a.csv", text))
    assert error.value.code == code and says in error.value.message and error.value.help
    assert str(tmp_path / "a.csv") in str(error.value) or "a.csv:" in (error.value.where or "")
    assert place is None or (error.value.where or "").endswith(place)


def test_csv_bomb(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(DataError, match="200 times"):
        open_source(csv(tmp_path / "a.csv.gz", gzip.compress(b"1,2\n" * 20_000_000, 9)))


@pytest.mark.data
def test_cifar(data: Path) -> None:
    samples = open_source(data / "cifar10" / "test.parquet")
    assert samples.shape == (3, 32, 32) and samples.ok.all() and samples.labels is not None
    assert np.bincount(samples.labels).tolist() == [1000] * 10
    table = pq.read_table(data / "cifar10" / "test.parquet")
    for i in (0, 4321, 9999):
        reference = np.asarray(Image.open(io.BytesIO(table["image"][i].as_py())).convert("RGB"))
        assert (samples.batch(np.array([i]))[0].numpy() == reference.transpose(2, 0, 1)).all()
        assert samples.labels[i] == table["label"][i].as_py()


@pytest.mark.data
def test_other_real_tables(data: Path) -> None:
    emoji = data / "emoji_pairs" / "emoji_pairs.parquet"
    with pytest.raises(UsageError, match="color, outline"):
        open_source(emoji)
    assert open_source(emoji, column="color", label="category").shape == (3, 64, 64)
    assert open_source(emoji, column="outline").shape == (1, 64, 64)
    series = open_source(data / "mnist1d" / "mnist1d.npz")
    assert series.shape == (40,) and len(series) == 4000 and len(series.classes) == 10
    musk = open_source(data / "adbench" / "25_musk.npz")
    assert musk.shape == (166,) and musk.classes == ("0", "1")
    assert open_source(data / "ett" / "ETTh1.csv.gz").features[-1] == "OT"
    sounds = open_source(data / "fsdd" / "fsdd.parquet")
    assert sounds.kind == "audio" and sounds.rate == 8000 and len(sounds) == 3000 and len(sounds.classes) == 10


def test_bad_037_a_ragged_line_is_where_the_message_points(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataError, match="Expected 2 columns, got 3") as caught:
        open_source(tmp_path / "r.csv")
    assert caught.value.where == f"{tmp_path / 'r.csv'}:line 3" and "as many cells" in (caught.value.help or "")
