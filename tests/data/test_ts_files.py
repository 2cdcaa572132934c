"""`.ts` files: real ones against a plain reading, and every malformed line by its file and number."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from accord.data.ts_files import read_ts
from accord.errors import DataError

HEAD = "# a comment\n@problemName T\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength false\n@classLabel true a b\n@data\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_dimensions_lengths_missing_values_and_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ts", HEAD + "1,2, 3:4,?,6.5:b\r\n\n-1e-1:NaN:a\n1,1:2,2:?\n")
    found = read_ts([path])
    expected = np.array([[1, 4], [2, np.nan], [3, 6.5], [-0.1, np.nan], [1, 2], [1, 2]])
    np.testing.assert_array_equal(found.values, expected)
    assert found.counts.tolist() == [3, 1, 2] and list(found.names) == ["t.ts:0", "t.ts:1", "t.ts:2"]
    assert (
        found.labels is not None and found.labels.classes == ("a", "b") and found.labels.labels.tolist() == [1, 0, -1]
    )
    assert found.channels == ("dimension 0", "dimension 1")


def test_several_files_and_cases_without_classes(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.ts", f"@univariate true\n@data\n{text}")
        for name, text in (("a", "1,2\n3\n"), ("b", "4\n"))
    ]
    found = read_ts(paths)
    assert found.labels is None and list(found.names) == ["a.ts:0", "a.ts:1", "b.ts:0"]
    assert found.values[:, 0].tolist() == [1, 2, 3, 4]


def test_the_number_of_a_regression_is_left_out_with_a_note(tmp_path: Path) -> None:
    found = read_ts([write(tmp_path / "t.ts", "@targetLabel true\n@data\n1,2:0.5\n")])
    assert found.values[:, 0].tolist() == [1, 2] and "left out" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (HEAD + "1,2:3,4:a\n1,x:3,4:a\n", 10, '"x" is no number'),
        (HEAD + "1,2:3,4:c\n", 9, 'class "c" is not in the header'),
        (HEAD + "1,2:a\n", 9, "1 dimensions, 2 by the header"),
        (HEAD + "1,2:3:a\n", 9, "dimensions of 1 to 2 steps"),
        (HEAD + "1,:3,4:a\n", 9, '"" is no number'),
        (HEAD + "1,inf:3,4:a\n", 9, "inf is no measurement"),
        (HEAD + "1;2\n", 9, "no label"),
        ("@univariate true\n@equalLength true\n@seriesLength 3\n@data\n1,2\n", 5, "2 steps, 3 by the header"),
        ("@univariate maybe\n@data\n1\n", 1, "true or false"),
        ("@dimensions two\n@data\n1\n", 1, "whole number"),
        ("@timeStamps true\n@data\n(0,1)\n", 1, "time stamps"),
        ("@classLabel true\n@data\n1:a\n", 1, "without the classes"),
        ("1,2,3\n", 1, "before @data"),
        ("@univariate true\n", 1, "ends in its header"),
        (b"@univariate true\n@data\n1,\xff2\n", 3, "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, text: str | bytes, line: int, says: str) -> None:
    path = write(tmp_path / "bad.ts", text)
    with pytest.raises(DataError) as caught:
        read_ts([path])
    assert caught.value.where == f"{path}:{line}" and says in caught.value.message and caught.value.help
    assert (caught.value.exit_code, caught.value.code) == (3, "E380")


def test_files_that_do_not_belong_together_or_have_no_cases(tmp_path: Path) -> None:
    first = write(tmp_path / "a.ts", "@classLabel true a b\n@data\n1:a\n")
    other = write(tmp_path / "b.ts", "@classLabel true a c\n@data\n1:a\n")
    wide = write(tmp_path / "c.ts", "@classLabel true a b\n@data\n1:2:a\n")
    empty = write(tmp_path / "d.ts", "@classLabel true a b\n@data\n")
    for paths, code in (([first, other], "E346"), ([first, wide], "E380"), ([empty], "E338")):
        with pytest.raises(DataError) as caught:
            read_ts(paths)
        assert caught.value.code == code and str(paths[-1]) in str(caught.value.where)


def test_real_files_against_a_plain_reading(data: Path, tmp_path: Path) -> None:
    names = [
        "JapaneseVowels/JapaneseVowels_TRAIN.ts",
        "GunPoint/GunPoint_TRAIN.ts",
        "BasicMotions/BasicMotions_TEST.ts",
    ]
    with tarfile.open(data / "ucr_uea_samples" / "ucr_uea_samples.tar.gz") as archive:
        for name in names:
            archive.extract(name, tmp_path, filter="data")
    for name, (cases, channels) in zip(names, [(270, 12), (50, 1), (40, 6)], strict=True):
        found = read_ts([tmp_path / name])
        lines = (tmp_path / name).read_text().split("@data\n")[1].splitlines()
        assert len(found.counts) == cases == len(lines) and len(found.channels) == channels
        start = 0
        for i, line in enumerate(lines):
            *dimensions, label = line.split(":")
            plain = np.array([[float(value) for value in part.split(",")] for part in dimensions]).T
            np.testing.assert_array_equal(found.values[start : start + len(plain)], plain)
            assert found.labels is not None and found.labels.classes[found.labels.labels[i]] == label.strip()
            start += len(plain)
        assert start == len(found.values)
