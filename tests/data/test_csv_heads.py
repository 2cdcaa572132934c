"""How CSV files begin and end in practice: Excel's first line, comments, blank lines, headers that NumPy writes, decimal commas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accord.data.samples import Samples
from accord.data.series_sources import SeriesOptions
from accord.data.sources import open_source
from accord.errors import DataError


def read(path: Path, text: str, **options: object) -> Samples:
    path.write_bytes(text.encode())
    return open_source(path, impute=-9.0, **options)  # type: ignore[arg-type]


def rows(samples: Samples) -> list[list[float]]:
    return samples.batch(np.arange(len(samples))).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\na;b\n1,5;2\n2,5;3\n",
        "SEP=;\r\na;b\r\n1,5;2\r\n2,5;3\r\n",
        '"sep=;"\n\na;b\n1.5;2\n2.5;3\n',
        "sep=,\na,b\n1.5,2\n2.5,3\n",
        "sep=\t\na\tb\n1,5\t2\n2,5\t3\n",
        "sep=|\na|b\n1,5|2\n2,5|3\n",
        "\n  \na,b\n1.5,2\n2.5,3\n",
        "# made by a logger\n#\n\na,b\n1.5,2\n2.5,3\n",
        "# metres, seconds\na,b\n1.5,2\n2.5,3\n",
        "a,b\r1.5,2\r2.5,3\r",
        "sep=;\n# metres; seconds\na;b\n1,5;2\n2,5;3\n",
        '# a 5" pipe\na,b\n1.5,2\n2.5,3\n',
        "a,b\r1.5,2\r2.5,3\n",
        "a,b\r\r\n1.5,2\r\r\n2.5,3\r\r\n",
    ],
)
def test_what_stands_before_the_header_is_passed_over(text: str, tmp_path: Path) -> None:
    found = read(tmp_path / "t.csv", text)
    assert found.features == ("a", "b") and rows(found) == [[1.5, 2], [2.5, 3]] and found.keys[0] == "t.csv:0"


def test_the_last_comment_is_the_header_where_the_line_after_it_is_none(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "numpy.csv", [[1.5, 2], [2.5, 3]], delimiter=",", header="a,b")
    found = open_source(tmp_path / "numpy.csv")
    assert found.features == ("# a", "b") and not found.notes
    found = read(tmp_path / "named.csv", "# by a logger\n#name,a\nx1,1.5\nx2,2.5\n")
    assert found.features == ("a",) and "columns not used, not numbers: #name" in found.notes
    found = read(tmp_path / "headless.csv", "# by a logger\n1.5,2\n2.5,3\n")
    assert found.features == ("column 0", "column 1") and len(found) == 2
    assert "headless.csv: 1 line that begins with # is passed over before the table" in found.notes


def test_notes_on_a_file_are_said_whatever_its_rows_are(tmp_path: Path) -> None:
    text = "# by a logger\na,b\n" + "".join(f"{i * i % 7},{i % 5}\n" for i in range(20))
    for options in ({"series": SeriesOptions(group=(), window=4)}, {"x": ["a"], "y": ["b"]}):
        (tmp_path / "t.csv").write_text(text)
        assert any("begins with #" in note for note in open_source(tmp_path / "t.csv", **options).notes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code", "line", "says"),
    [
        ("# by a logger\n\na,b\n1,2\n3\n", "E337", 5, "as many cells"),
        ("sep=;\na;b\n1;2\n\n3\n", "E337", 5, "semicolon"),
        ("sep=|\na|b\n1|2\n\n3\n", "E337", 5, "by the first line a |"),
        ('a,b\n"x\ny",2\n3\n', "E337", 4, "as many cells"),
        ("a,b\n1,2\n# the end\n", "E337", 3, "take comments out"),
        ("sep=ab\na,b\n1,2\n", "E337", 1, "sep=;"),
        ("sep=.\na.b\n1.2\n", "E337", 1, "sep=;"),
        ("a\n-2,042\n1,5\n", "E337", 2, "write points"),
        ("1,5\n3\n", "E337", 2, "write points"),
        ("1,5\n\n2,05\n", "E333", 3, "with a decimal point"),
        ("-0,5\n2,5\n", "E333", 1, "give them a header"),
        ("a,b\n1,2\n   \n3,4\n", "E337", 3, "as many cells"),
        ("a,b\n\u2028\u2028,\x0c\x0c\n3\n", "E337", 3, "as many cells"),
        ("a,b\r1,2\r3\n", "E337", 3, "as many cells"),
    ],
)
def test_the_line_that_is_wrong_is_named_with_a_remedy_that_fits(
    text: str, code: str, line: int, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "t.csv", text)
    assert caught.value.code == code and caught.value.where == f"{tmp_path / 't.csv'}:line {line}"
    assert says in (caught.value.help or "")


@pytest.mark.parametrize("text", ["", "\n\n", "sep=;\n", "# nothing\n", "sep=;\n# nothing\n\n", "# a\n\n# b\n"])
def test_a_file_without_rows_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "t.csv", text)
    assert caught.value.code == "E338"


def test_two_whole_numbers_or_one_with_a_decimal_comma(tmp_path: Path) -> None:
    found = read(tmp_path / "t.csv", "1,5\n2,7\n")
    assert rows(found) == [[1, 5], [2, 7]] and any('"1,5" is read as two whole numbers' in note for note in found.notes)
    assert rows(read(tmp_path / "t.csv", "a,b\n1,5\n2,05\n")) == [[1, 5], [2, 5]]
    assert not read(tmp_path / "t.csv", "1,5\n2,-7\n").notes


def test_a_blank_line_in_a_single_column_is_a_missing_value_but_at_the_end(tmp_path: Path) -> None:
    assert rows(read(tmp_path / "t.csv", "a\n1\n\n3\n\n\n")) == [[1], [-9], [3]]
    with pytest.raises(DataError, match=r't\.csv:1.*|"a" \(1\)'):
        open_source(tmp_path / "t.csv")
    assert rows(read(tmp_path / "t.csv", "a,b\n1,2\n\n3,4\n")) == [[1, 2], [3, 4]]


def test_cells_are_read_as_they_are_written_whatever_the_header(tmp_path: Path) -> None:
    """Neither blanks in front of names nor a missing header let another reader guess what NA or 01 are."""
    for text in ("a, b\n1,NA\n2,3\n", "1,2\n1,NA\n2,3\n"):
        with pytest.raises(DataError, match='holds "NA"'):
            read(tmp_path / "t.csv", text)
    assert read(tmp_path / "t.csv", "a, label\n1,x01\n3,NA\n").classes == ("NA", "x01")


def test_dates_are_no_numbers_with_separators(tmp_path: Path) -> None:
    found = read(tmp_path / "t.csv", "when,v\n01.02.2024,1\n2.2.24,2\n")
    assert found.features == ("v",) and "columns not used, not numbers: when" in found.notes
    with pytest.raises(DataError, match=r'"1\.234\.567"'):
        read(tmp_path / "t.csv", "n,v\n1.234.567,1\n2.234.567,2\n")


def test_columns_without_a_name(tmp_path: Path) -> None:
    assert any("counts the rows" in note for note in read(tmp_path / "t.csv", ",a\n0,1.5\n1,2\n2,7\n").notes)
    assert not read(tmp_path / "t.csv", ",a\n0,1.5\n5,2\n2,7\n").notes
    with pytest.raises(DataError, match="several columns without a name"):
        read(tmp_path / "t.csv", "a;;\n1;;\n2;;\n")
    with pytest.raises(DataError, match="no column of numbers") as caught:
        read(tmp_path / "t.csv", "a|b\n1|2\n")
    assert "sep=|" in (caught.value.help or "")


def test_a_quoted_name_goes_over_several_lines(tmp_path: Path) -> None:
    found = read(tmp_path / "t.csv", '"a,\n(m)";label\r\n1,5;01\r\n\r\n2,5;x\r\n')
    assert found.features == ("a,\n(m)",) and rows(found) == [[1.5], [2.5]] and found.classes == ("01", "x")
    assert rows(read(tmp_path / "t.csv", 'a 5" pipe,b,label\n7,3,x\n9,4,6" y\n')) == [[7, 3], [9, 4]]


def test_names_that_look_like_a_row_are_told(tmp_path: Path) -> None:
    for line in ("1,,3", '"1","2","3"', "1,NA,3", "1,2,"):
        found = read(tmp_path / "t.csv", f"{line}\n4,5,6\n7,8,9\n")
        assert len(found) == 2 and any(f"the first line, {line}, is read as names" in note for note in found.notes)
    for line in ("a,,3", "a,b,c", "none,-,?"):
        assert not read(tmp_path / "t.csv", f"{line}\n4,5,6\n7,8,9\n").notes


def test_a_comment_is_the_header_of_cells_between_tabs_that_hold_commas(tmp_path: Path) -> None:
    found = read(tmp_path / "t.tsv", "#name\tabout\tv\nx\ta, b, c, d\t1.5\ny\ta, b, c, d\t2.5\n")
    assert found.features == ("v",) and len(found) == 2


def test_what_cannot_be_parted_into_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="field larger") as caught:
        read(tmp_path / "t.csv", "x" * 200_000 + "\n1\n")
    assert caught.value.code == "E337"
