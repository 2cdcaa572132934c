"""Tables as pairs: kinds of columns are told, missing values are masked, bad rows are named, and a run's form comes back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from accord.data.samples import Samples, split
from accord.data.sides import Side
from accord.data.sources import check_source, open_source
from accord.data.values import Sides
from accord.errors import AccordError, DataError, UsageError

COLOURS, N = ("red", "green", "blue"), 60


def png(i: int, size: int = 8) -> bytes:
    pixels = np.full((size, size, 3), i % 251, np.uint8)
    pixels[: i % size] = 255 - i % 251
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def table(**more: list[object]) -> dict[str, list[object]]:
    return {
        "price": [i / 7 for i in range(N)],
        "colour": [COLOURS[i % 3] for i in range(N)],
        "size": [None if i % 10 == 0 else i for i in range(N)],
        "name": [f"thing {i}" for i in range(N)],
        "note": ["" if i % 2 else "größer" for i in range(N)],
        "picture": [png(i) for i in range(N)],
        "curve": [[float(j) for j in range(2 + i % 4)] for i in range(N)],
        **more,
    }


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def write(**more: list[object]) -> Path:
        path = tmp_path / "table.parquet"
        pq.write_table(pa.table(table(**more)), path, row_group_size=25)
        return path

    return write


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    names = ["price", "colour", "size", "name", "note"]
    columns = table()
    lines = [",".join("" if columns[n][i] is None else str(columns[n][i]) for n in names) for i in range(N)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")
    return path


def sides(samples: Samples) -> tuple[Samples, Samples]:
    assert samples.sides is not None
    return samples.sides


def test_numbers_and_categories_are_one_vector_and_what_is_missing_is_masked(
    csv: Path, parquet: Callable[..., Path]
) -> None:
    for source in (csv, parquet(), pa.table(table()), table()):
        x, y = sides(open_source(source, x=["price", "colour", "size"], y=["name"]))  # type: ignore[arg-type]
        assert (x.kind, x.shape, x.features) == ("vector", (3,), ("price", "colour", "size"))
        assert x.kinds == ("number", "category", "number")
        assert x.categories == ((), ("blue", "green", "red"), ())
        values = x.batch(np.arange(N))
        assert not isinstance(values, Sides)
        np.testing.assert_allclose(values[:, 0].numpy(), np.arange(N) / 7, rtol=1e-6)
        assert [x.categories[1][int(code)] for code in values[:, 1]] == table()["colour"]
        assert values[:, 2].isnan().nonzero()[:, 0].tolist() == list(range(0, N, 10))
        assert any('"size" 6' in note and "masked" in note for note in x.notes)
        assert x.ok.all() and y.kind == "text"


def test_texts_are_bytes_joined_by_newlines_and_are_texts_unless_beside_numbers(csv: Path) -> None:
    x, y = sides(open_source(csv, x=["name", "note"], y=["colour"]))
    assert (x.kind, y.kind) == ("text", "text")
    rows = [bytes(row.tolist()).rstrip(b"\0").decode() for row in x.batch(np.arange(2))]
    assert rows == ["thing 0\ngrößer", "thing 1\n"]
    few = open_source(csv, x=["price"], y=["name"], kinds={"name": "text"})
    assert sides(few)[1].kind == "text"
    alone = sides(open_source(csv, x=["price"], y=["colour"], kinds={"colour": "category"}))[1]
    assert (alone.kind, alone.shape, alone.categories) == ("vector", (1,), (("blue", "green", "red"),))


def test_many_texts_beside_numbers_are_refused_by_name(csv: Path) -> None:
    with pytest.raises(UsageError, match=r"do not go together: price \(number\), name \(text\)") as refused:
        open_source(csv, x=["price", "name"], y=["size"])
    assert refused.value.code == "E245"


def test_pictures_by_bytes_by_paths_and_beside_numbers(parquet: Callable[..., Path], tmp_path: Path) -> None:
    whole = open_source(parquet(), x=["picture"], y=["price"])
    x, _ = sides(whole)
    assert (x.kind, x.shape) == ("image", (3, 8, 8))
    paths: list[object] = []
    for i in range(N):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        paths.append(f"{i}.png")
    listed = open_source(parquet(picture=paths), x=["picture"], y=["price"])
    index = np.arange(0, N, 7)
    one, other = whole.batch(index), listed.batch(index)
    assert isinstance(one, Sides) and isinstance(other, Sides)
    assert (one.x == other.x).all() and (listed.content == whole.content).all()
    with pytest.raises(UsageError, match=r"picture \(image\), price \(number\)"):
        open_source(parquet(), x=["picture", "price"], y=["name"])


def test_names_that_look_like_numbers_are_names_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("zip,place,v\n01,7,1\n1,8,2\n02,9,3\nA,,4\n")
    kinds = {"zip": "category", "place": "text"}
    x, y = sides(open_source(tmp_path / "t.csv", x=["zip", "v"], y=["place"], kinds=kinds, limit_bad=False))  # type: ignore[arg-type]
    assert (
        x.categories == (("01", "02", "1", "A"), ()) and y.kind == "text" and y.ok.tolist() == [True, True, True, False]
    )
    (tmp_path / "t.csv").write_text("zip,v\n02,1\n03,2\n")  # nothing but numbers, later
    side = Side(columns=("zip", "v"), kinds=("category", "number"), shape=(2,), categories=x.categories)
    found = open_source(tmp_path / "t.csv", x=side, limit_bad=False)
    assert found.ok.tolist() == [True, False] and float(found.batch(np.array([0]))[0, 0]) == 1.0  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["number", "category", "text", "series", "image", "audio"])
def test_a_column_of_which_all_is_missing_can_be_anything(kind: str) -> None:
    side = Side(columns=("a",), kinds=(kind,), shape=(3, 8, 8) if kind == "image" else (4, 1), categories=(("n",),))  # type: ignore[arg-type]
    found = open_source({"a": pa.nulls(3), "b": [1, 2, 3]}, x=side, limit_bad=False)
    assert not found.ok.any() and [item.key for item in found.bad] == ["row 0", "row 1", "row 2"]


def test_nothing_is_put_in_the_place_of_a_missing_value() -> None:
    source = {"a": [1.0, None, 3.0], "b": [1.0, 2.0, 4.0]}
    with pytest.raises(UsageError, match="impute is for tables of numbers") as caught:
        open_source(source, x=["a"], y=["b"], impute=0.0, limit_bad=False)
    assert caught.value.code == "E234"
    bad = open_source(source, x=["a"], y=["b"], limit_bad=False).bad
    assert [item.key for item in bad] == ["row 1"] and "impute" not in bad[0].help


def test_an_x_with_several_y_is_told_and_copies_of_a_pair_are_not() -> None:
    x, y = ["a"] * 4 + ["b", "b", "c", "d"], ["1", "2", "3", "3", "4", "4", "5", "5"]
    notes = open_source({"t": x, "u": y}, x=["t"], y=["u"]).notes
    assert [note for note in notes if "another y" in note] == [
        "3 pairs have an x that others have with another y: held-out pairs may share their x with trained ones, "
        "unless --set data.hold_out_by=x keeps them apart"
    ]
    assert not any("another y" in note for note in open_source({"t": x[4:7], "u": y[4:7]}, x=["t"], y=["u"]).notes)


def test_pairs_can_be_held_out_by_what_a_side_is() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 60, 400).astype(str), rng.integers(0, 60, 400).astype(str)
    samples = open_source({"t": x, "u": y}, x=["t"], y=["u"])
    for by, side in (("x", x), ("y", y)):
        train, held_out = split(samples, 0.3, 1, by)  # type: ignore[arg-type]
        assert len(train) and len(held_out) and len(train) + len(held_out) == 400
        assert not set(side[train]) & set(side[held_out])
    assert set(x[split(samples, 0.3, 1)[0]]) & set(x[split(samples, 0.3, 1)[1]]), "by pairs an x may be in both"
    with pytest.raises(UsageError, match="only windows of series can") as caught:
        split(samples, 0.3, 1, "series")
    assert caught.value.where == "data.hold_out_by"


def test_lists_keep_their_places_whatever_is_missing_or_cut(parquet: Callable[..., Path]) -> None:
    rows: list[object] = [[1, None, 3], None, [], [4], [5, 6]] * (N // 5)
    for given in (
        rows,
        pa.chunked_array(
            [pa.array(rows, pa.large_list(pa.int16())).slice(0, 7), pa.array(rows[7:], pa.large_list(pa.int16()))]
        ),
    ):
        source = parquet(curve=given) if given is rows else {"curve": given}
        found = open_source(source, x=["curve"], limit_bad=False)
        assert found.ok.tolist() == [row is not None and len(row) > 0 for row in rows]  # type: ignore[arg-type]
        expected = [[1, np.nan, 3], [4, np.nan, np.nan], [5, 6, np.nan]]
        np.testing.assert_array_equal(found.batch(np.array([5, 8, 9]))[:, :, 0], expected)  # type: ignore[call-overload]


def test_lists_are_series_padded_with_nan(parquet: Callable[..., Path]) -> None:
    curves: list[object] = [[1.0, None, float(i)] if i % 2 else [float(i)] for i in range(N)]
    x, _ = sides(open_source(parquet(curve=curves), x=["curve"], y=["price"]))
    assert (x.kind, x.shape) == ("series", (3, 1))
    values = x.batch(np.array([4, 5]))
    assert not isinstance(values, Sides)
    assert values[0, :, 0].nan_to_num(-1).tolist() == [4, -1, -1] and values[1, :, 0].nan_to_num(-1).tolist() == [
        1,
        -1,
        5,
    ]
    assert any("taken as not observed" in note for note in x.notes)


def test_arrays_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(N, 5)).astype(np.float32),
        "b": rng.normal(size=(N, 7, 2)),
        "label": np.arange(N) % 4,
    }
    np.savez(tmp_path / "t.npz", **arrays)
    for source in (arrays, tmp_path / "t.npz"):
        samples = open_source(source, x="a", y="b")
        x, y = sides(samples)
        assert (x.kind, x.shape, x.features[:2]) == ("vector", (5,), ("a 0", "a 1"))
        assert (y.kind, y.shape) == ("series", (7, 2))
        assert samples.classes == ("0", "1", "2", "3") and not any("label" in note for note in samples.notes)
    with pytest.raises(DataError, match="'b' has 3 rows, others have 60"):
        open_source({"a": arrays["a"], "b": arrays["b"][:3]}, x="a", y="b")


def test_bad_rows_are_named_skipped_up_to_the_limit_and_never_dropped(parquet: Callable[..., Path]) -> None:
    pictures, names = table()["picture"], table()["name"]
    pictures[3] = b"no picture"
    names[5] = None
    path = parquet(picture=pictures, name=names)
    with pytest.raises(DataError, match=r"2 of 60 items cannot be used .*row 3|table.parquet:3|picture: "):
        open_source(path, x=["picture"], y=["name"])
    for samples in (
        open_source(path, x=["picture"], y=["name"], max_bad_fraction=0.1),
        check_source(path, x=["picture"], y=["name"]),
    ):
        assert np.flatnonzero(~samples.ok).tolist() == [3, 5] and len(samples) == N
        assert [item.reason.split(":")[0] for item in samples.bad] == ["picture", "name"]


def test_infinite_numbers_and_rows_without_any_are_bad(parquet: Callable[..., Path]) -> None:
    price, size = table()["price"], table()["size"]
    price[4] = float("inf")
    price[10] = None  # size is missing there, too
    samples = open_source(parquet(price=price, size=size), x=["price", "size"], y=["name"], max_bad_fraction=0.1)
    assert np.flatnonzero(~samples.ok).tolist() == [4, 10]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"x": ["pric"], "y": ["name"]}, "E234", 'did you mean "price"'),
        ({"x": ["price"], "y": ["price"]}, "E234", "both sides"),
        ({"x": [], "y": ["price"]}, "E234", "expected a list"),
        ({"x": ["price"], "y": ["name"], "kinds": {"note": "text"}}, "E234", "on neither side"),
        ({"x": ["price"], "y": ["name"], "kinds": {"price": "image"}}, "E246", "cannot be image"),
        ({"x": ["price"], "y": ["name"], "label": "absent"}, "E234", "absent"),
    ],
)
def test_what_does_not_fit_is_refused(csv: Path, options: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(AccordError) as refused:
        open_source(csv, **options)  # type: ignore[arg-type]
    assert refused.value.code == code and says in str(refused.value)


def test_a_side_that_is_always_the_same_is_refused_in_training_alone(csv: Path) -> None:
    text = csv.read_text().replace("green", "red").replace("blue", "red")
    csv.write_text(text)
    with pytest.raises(DataError, match=r"y \(colour\) is the same in all 60 rows"):
        open_source(csv, x=["price"], y=["colour"])
    assert open_source(csv, x=["price"], y=["colour"], limit_bad=False).ok.all()


def test_the_form_of_a_run_comes_back(csv: Path, parquet: Callable[..., Path]) -> None:
    """Names of categories, lengths and sizes are those of the run, whatever the table."""
    x = Side(
        columns=("price", "colour"),
        kinds=("number", "category"),
        shape=(2,),
        categories=((), ("red", "green", "violet")),
    )
    y = Side(columns=("name",), kinds=("text",), shape=(7,))
    samples = open_source(csv, x=x, y=y, limit_bad=False)
    found = sides(samples)
    assert found[0].categories == ((), ("red", "green", "violet")) and found[1].shape == (7,)
    assert np.flatnonzero(~samples.ok).tolist() == list(range(2, N, 3))  # blue
    assert "category that was not there in training" in samples.bad[0].reason
    image = Side(columns=("picture",), kinds=("image",), shape=(1, 4, 4))
    assert sides(open_source(parquet(), x=image, y=y))[0].shape == (1, 4, 4)
    series = Side(columns=("curve",), kinds=("series",), shape=(4, 1))
    assert np.flatnonzero(~open_source(parquet(), x=series, y=y, limit_bad=False).ok).tolist() == list(range(3, N, 4))
    with pytest.raises(DataError, match='rename "colour"') as refused:
        open_source(csv, x=Side(columns=("coulour",), kinds=("text",), shape=(9,)), y=y, limit_bad=False)
    assert refused.value.code == "E334"


def test_one_side_alone_is_samples_of_its_kind(csv: Path) -> None:
    samples = open_source(csv, x=["name"])
    assert (samples.kind, samples.shape, samples.columns) == ("text", (8,), ("name",))
    assert samples.fingerprint != open_source(csv, x=["colour"]).fingerprint


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    for source in (tmp_path, "digits", np.zeros((4, 3))):
        with pytest.raises(UsageError, match="has no columns; asked for: a, b"):
            open_source(source, x=["a"], y=["b"])  # type: ignore[arg-type]


@pytest.mark.data
def test_real_pairs_of_pictures_and_names(data: Path) -> None:
    samples = open_source(data / "emoji_pairs/emoji_pairs.parquet", x=["color"], y=["name"], label="category")
    x, y = sides(samples)
    assert len(samples) == 1403 and samples.ok.all()
    assert (x.kind, x.shape, y.kind) == ("image", (3, 64, 64), "text")
    batch = samples.batch(np.array([0]))
    assert isinstance(batch, Sides) and bytes(batch.y[0].tolist()).rstrip(b"\0") == b"grinning face"
