"""From a source to samples: what is stored, where, what is said about it, and that it is done once."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import accord.data.encoded as encoded_images
from accord.data.encoded import Options, StreamStore, open_images, plan
from accord.data.folders import folder_of_images
from accord.data.images import Canvas, Header
from accord.data.samples import ArrayStore, BadItems, Samples, split
from accord.data.sources import check_source, open_source
from accord.errors import AccordError, ArtifactError, DataError, UsageError

RNG = np.random.default_rng(0)


def picture(seed: int, side: int | tuple[int, int] = 32, mode: str = "RGB") -> Image.Image:
    width, height = (side, side) if isinstance(side, int) else side
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).convert(mode)


def folder(root: Path, n: int = 6, side: Any = 32, mode: str = "RGB", suffix: str = "png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture(i, side, mode).save(root / f"{i:03d}.{suffix}")
    return root


def every(samples: Samples) -> np.ndarray:
    return samples.batch(np.flatnonzero(samples.ok)).numpy()


def force(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Makes any set of images as large as those kept in a mapped file, or as those never kept."""
    limits = {"memory": (1 << 30, 1 << 30), "mapped": (0, 1 << 30), "stream": (0, 0)}[kind]
    monkeypatch.setattr(
        "accord.data.sources.Options",
        lambda size, channels, max_pixels, cache: Options(size, channels, max_pixels, cache, *limits),
    )


def test_the_digits() -> None:
    from sklearn.datasets import load_digits

    samples = open_source("digits")
    assert samples.kind == "image" and samples.shape == (1, 8, 8) and len(samples) == 1797
    pixels = every(samples)
    assert np.abs(pixels[:, 0] * (16 / 255) - load_digits().images).max() < 0.04 and pixels.max() == 255
    assert samples.labels is not None and (samples.labels == load_digits().target).all()
    assert samples.classes == tuple("0123456789") and samples.ok.all() and samples.keys[17] == "row 17"


@pytest.mark.parametrize("kind", ["memory", "mapped", "stream"])
def test_wherever_pixels_are_kept_they_are_the_same(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kind)
    root = folder(tmp_path / "images", 40)
    samples = open_source(root, cache=tmp_path / "cache")
    expected = np.stack([np.asarray(picture(i)).transpose(2, 0, 1) for i in range(40)])
    assert (every(samples) == expected).all() and samples.shape == (3, 32, 32)
    assert samples.batch(np.array([7, 3, 7])).numpy().tolist() == expected[[7, 3, 7]].tolist()
    assert isinstance(samples.store, StreamStore if kind == "stream" else ArrayStore)
    assert list(samples.keys) == [f"{i:03d}.png" for i in range(40)] and samples.labels is None


def test_splits_and_fingerprints_do_not_depend_on_where_pixels_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "images", 30)
    found = []
    for kind in ("memory", "mapped", "stream", "stream"):
        with monkeypatch.context() as patch:
            force(patch, kind)
            samples = open_source(root, cache=tmp_path / "cache", size=16 if kind == "mapped" else None)
            found.append((samples.fingerprint, split(samples, 0.3, 1)[1].tolist()))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("kind", ["mapped", "stream"])
def test_a_warm_cache_decodes_nothing_and_says_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, kind)
    root = folder(tmp_path / "images", 20)
    picture(1).convert("CMYK").save(root / "cmyk.jpg")
    (root / "zz.png").write_bytes(b"")
    first = open_source(root, cache=tmp_path / "cache", max_bad_fraction=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(encoded_images, "scan", lambda *_: pytest.fail("decoded again"))
        again = open_source(root, cache=tmp_path / "cache", max_bad_fraction=0.1)
    for name in ("fingerprint", "bad", "notes", "shape", "kind"):
        assert getattr(first, name) == getattr(again, name), name
    assert (
        (first.aspect == again.aspect).all() and (first.ok == again.ok).all() and (every(first) == every(again)).all()
    )
    assert again.bad[0].key == "zz.png" and again.bad[0].code == "E303"


def test_the_cache_is_not_used_for_other_data_or_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "mapped")
    root = folder(tmp_path / "images", 10)
    before = open_source(root, cache=tmp_path / "cache")
    assert open_source(root, cache=tmp_path / "cache", size=20).shape == (3, 20, 20)
    assert open_source(root, cache=tmp_path / "cache", channels=1).shape == (1, 32, 32)
    status = (root / "003.png").stat()
    replaced = np.asarray(picture(99)).copy()
    buffer = io.BytesIO()
    Image.fromarray(replaced).save(buffer, "PNG")
    (root / "003.png").write_bytes(buffer.getvalue())
    os.utime(root / "003.png", ns=(status.st_atime_ns, status.st_mtime_ns))  # a forged time is no protection from ctime
    after = open_source(root, cache=tmp_path / "cache")
    assert (every(after)[3] == replaced.transpose(2, 0, 1)).all() and after.fingerprint != before.fingerprint
    assert (every(before)[3] == np.asarray(picture(3)).transpose(2, 0, 1)).all(), "an open mapping stays as it was"


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "mapped")
    root = folder(tmp_path / "images", 8)
    (tmp_path / "file").write_text("")
    samples = open_source(root, cache=tmp_path / "file" / "below")
    assert (every(samples)[2] == np.asarray(picture(2)).transpose(2, 0, 1)).all()
    assert any("not kept" in note for note in samples.notes)


def test_no_room_at_all_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "mapped")
    monkeypatch.setattr(encoded_images, "memory_free", lambda: 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(AccordError, match="cache=") as fault:
        open_source(folder(tmp_path / "images"), cache=tmp_path / "file" / "below")
    assert fault.value.exit_code == 5


def test_images_are_untouched_by_reading(tmp_path: Path) -> None:
    root = folder(tmp_path / "images")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.iterdir()}
    open_source(root)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.iterdir()} == before


@pytest.mark.parametrize(
    ("headers", "canvas"),
    [
        ([Header(32, 32, False)], Canvas(3, 32)),
        ([Header(96, 96, True)] * 3, Canvas(1, 96)),
        ([Header(28, 40, True)] * 3, Canvas(1, 40)),
        ([Header(1, 1, False)], Canvas(3, 1)),
        ([Header(97, 97, False)] * 2, Canvas(3, 120)),
        ([Header(32, 32, False), Header(33, 32, True)], Canvas(3, 40)),
        ([Header(400, 300, False), Header(300, 500, False)], Canvas(3, 160)),
        ([Header(70, 300, False), Header(300, 70, False)], Canvas(3, 80)),
        ([Header(5, 300, False), Header(300, 5, False)], Canvas(3, 40)),
        ([], Canvas(3, 40)),
    ],
)
def test_the_canvas_follows_the_rule(headers: list[Header], canvas: Canvas) -> None:
    assert plan(headers, Options(), False) == canvas
    assert plan(headers, Options(size=50, channels=3), False) == Canvas(3, 50)


def test_one_that_differs_among_many_is_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_images, "_PEEK", 3)  # the first look is at the first, the middle and the last only
    root = folder(tmp_path / "grey", 100, 16, "L")
    assert open_source(root).shape == (1, 16, 16)
    picture(1, 16).save(root / "021b.png")
    assert open_source(root).shape == (3, 16, 16)
    root = folder(tmp_path / "colour", 100, 16)
    picture(1, (60, 40)).save(root / "022b.png")
    samples = open_source(root)
    assert samples.shape == (3, 40, 40) and samples.aspect[list(samples.keys).index("022b.png")] == 1.5


def test_aspect_lets_the_original_geometry_be_found_again(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for name, size in {"a": (300, 100), "b": (100, 300), "c": (200, 200)}.items():
        picture(1, size).save(root / f"{name}.png")
    samples = open_source(root)
    assert samples.aspect.tolist() == pytest.approx([3.0, 1 / 3, 1.0])
    wide, tall, square = every(samples).astype(float)
    assert np.abs(wide - square).mean() < 6 and np.abs(tall - square).mean() < 6, "squeezed, not cropped"


def test_labels_come_from_folders_and_change_the_fingerprint(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        folder(tmp_path / "a" / name, 3)
    folder(tmp_path / "b" / "only", 3)
    samples = open_source(tmp_path / "a")
    assert (
        samples.classes == ("cat", "dog")
        and samples.labels is not None
        and samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    )
    assert open_source(tmp_path / "b").labels is None
    assert any("repeat" in note for note in samples.notes) and samples.content[0] == samples.content[3]


def test_a_streamed_image_that_turns_bad_is_handed_back_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, "stream")
    root = folder(tmp_path / "images", 10)
    whole = (root / "004.png").read_bytes()
    (root / "004.png").write_bytes(whole[: len(whole) // 2])
    samples = open_source(root, cache=tmp_path / "cache")
    assert samples.ok.all(), "its header is fine"
    (root / "007.png").unlink()
    picture(55).save(root / "002.png")
    with pytest.raises(BadItems) as bad:
        samples.batch(np.array([9, 4, 1, 7, 2, 4]))
    assert bad.value.positions.tolist() == [1, 3, 4, 5] and bad.value.exit_code == 3
    assert [item.key for item in bad.value.items] == ["004.png", "007.png", "002.png", "004.png"]
    assert [item.code for item in bad.value.items] == ["E301", "E325", "E325", "E301"]
    expected = np.stack([np.asarray(picture(9)), np.asarray(picture(1))]).transpose(0, 3, 1, 2)
    assert (bad.value.batch.numpy()[[0, 2]] == expected).all() and not bad.value.batch.numpy()[[1, 3, 4, 5]].any()
    assert (samples.batch(np.array([9, 1])).numpy() == expected).all()


def test_check_finds_what_streaming_leaves_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "stream")
    root = folder(tmp_path / "images", 10)
    for name in ("004.png", "008.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    samples = check_source(root, cache=tmp_path / "cache")
    assert [item.key for item in samples.bad] == ["004.png", "008.png"] and samples.skipped == 2


def test_check_names_every_bad_item_up_to_a_thousand_and_counts_the_rest(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 3)
    for i in range(1100):
        (root / f"bad{i:04d}.jpg").write_bytes(b"")
    samples = check_source(root)
    assert len(samples.bad) == 1000 and samples.skipped == 1100 and len(samples) == 1103
    assert [item.key for item in samples.bad] == [f"bad{i:04d}.jpg" for i in range(1000)]
    assert any("1100 of 1103" in note for note in samples.notes)


def test_the_policy_on_bad_items(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 99, 8)
    (root / "x.png").write_bytes(b"")
    samples = open_source(root)
    assert samples.skipped == 1 and not samples.ok[-1] and samples.bad[0].key == "x.png"
    with pytest.raises(DataError, match=r"x\.png"):
        open_source(root, on_bad="stop")
    (root / "y.png").write_bytes(b"GIF9")
    with pytest.raises(DataError, match=r"2 of 101 items .* limit 1 %") as error:
        open_source(root)
    assert "x.png: empty file" in error.value.message and "y.png: " in error.value.message
    assert "max_bad_fraction=0.02" in (error.value.help or "") and "accord check" in (error.value.help or "")
    assert open_source(root, max_bad_fraction=0.02).skipped == 2
    assert open_source(root, limit_bad=False).skipped == 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1 items"):
        open_source(tmp_path / "bad", max_bad_fraction=1.0)
    assert open_source(tmp_path / "bad", limit_bad=False).skipped == 1


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 5000},
        {"channels": 2},
        {"on_bad": "explode"},
        {"max_bad_fraction": 1.5},
        {"max_bad_fraction": float("nan")},
    ],
)
def test_options_out_of_bounds(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        open_source("digits", **options)
    assert next(iter(options)) in str(error.value) and error.value.help


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_source(folder(tmp_path / "images", 150, 8), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (150, 150) and calls == sorted(calls) and len(calls) >= 2


def test_a_pattern_of_images_or_arrays(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder(tmp_path / name, 2)
    samples = open_source(str(tmp_path / "*" / "*.png"))
    assert list(samples.keys) == ["a/000.png", "a/001.png", "b/000.png", "b/001.png"] and samples.classes == ("a", "b")
    x = RNG.random((6, 3))
    np.savez(tmp_path / "1.npz", x=x[:4], y=[1, 0, 1, 0])
    np.savez(tmp_path / "2.npz", x=x[4:], y=[2, 0])
    both = open_source(str(tmp_path / "*.npz"))
    assert np.allclose(every(both), x) and both.labels is not None and both.labels.tolist() == [1, 0, 1, 0, 2, 0]
    assert list(both.keys)[3:5] == ["1.npz:3", "2.npz:0"]
    np.savez(tmp_path / "3.npz", x=x[:, :2], y=np.zeros(6))
    with pytest.raises(DataError, match=r"3\.npz") as error:
        open_source(str(tmp_path / "*.npz"))
    assert error.value.code == "E346"
    (tmp_path / "4.txt").write_text("")
    with pytest.raises(UsageError, match="several kinds"):
        open_source(str(tmp_path / "?.*"))


def test_one_image_file_is_a_source(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 2)
    samples = open_source(root / "001.png", limit_bad=False)
    assert list(samples.keys) == ["001.png"] and (every(samples)[0] == np.asarray(picture(1)).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("shape", [(5, 12, 12), (5, 1, 12, 12), (5, 12, 12, 1), (5, 3, 12, 12), (5, 12, 12, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float32, np.float64])
def test_arrays_of_images(shape: tuple[int, ...], dtype: type) -> None:
    values = RNG.integers(0, 256, shape)
    first = values[:, None] if values.ndim == 3 else values if shape[1] < 4 else np.moveaxis(values, -1, 1)
    scale = {np.uint16: 257, np.float32: 1 / 255, np.float64: 1 / 255}.get(dtype, 1)
    array = (values * scale).astype(dtype)
    for given in (array, np.asfortranarray(array), array.astype(np.dtype(dtype).newbyteorder(">"))):
        samples = open_source(given, kind="image" if given.ndim == 3 and dtype in (np.float32, np.float64) else None)
        assert samples.kind == "image" and (every(samples) == first).all()


def test_arrays_that_are_not_square_or_large_go_on_the_canvas_files_would_get() -> None:
    wide = np.stack([np.asarray(picture(i, (60, 30))) for i in range(3)])
    samples = open_source(wide)
    assert samples.shape == (3, 60, 60) and samples.aspect.tolist() == [2.0] * 3
    large = np.stack([np.asarray(picture(i, 224)) for i in range(3)])
    assert open_source(large).shape == (3, 160, 160)
    assert (every(open_source(large, size=224)) == large.transpose(0, 3, 1, 2)).all()
    assert open_source(large, size=32, channels=1).shape == (1, 32, 32)


def test_alpha_in_an_array_is_composited_on_white() -> None:
    rgba = RNG.integers(0, 256, (2, 8, 8, 4), np.uint8)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(every(open_source(rgba)) - expected.transpose(0, 3, 1, 2)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", [(4,), (), (2, 3, 3, 3, 3), (3, 3, 8, 3), (3, 5, 8, 8), (0, 8, 8), (3, 0, 8)])
def test_arrays_of_no_known_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as error:
        open_source(np.zeros(shape, np.uint8))
    assert str(shape) in str(error.value) and error.value.help


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64, ">f8", ">i2"]
)
def test_vectors_of_every_number_type(dtype: Any) -> None:
    values = (RNG.random((20, 3)) * 2 * (RNG.random((20, 3)) < 0.5)).astype(dtype)
    samples = open_source({"X": values, "y": np.arange(20) % 3})
    assert samples.kind == "vector" and samples.shape == (3,)
    assert every(samples).dtype == np.float32 and np.allclose(every(samples), values.astype(np.float64), rtol=1e-7)
    assert samples.classes == ("0", "1", "2")


def test_tensors() -> None:
    values = torch.rand(6, 3, dtype=torch.float64)
    for tensor in (values, values.float().requires_grad_(), values.T.contiguous().T, values.bfloat16()):
        assert np.allclose(every(open_source(tensor)), tensor.detach().double().numpy(), atol=1e-7)
    with pytest.raises(UsageError, match="list"):
        open_source([1, 2])  # type: ignore[arg-type]


def test_labels_of_arrays() -> None:
    x = RNG.random((4, 2))
    for y, labels, classes in [
        (np.array(["b", "a", "b", ""]), [1, 0, 1, -1], ("a", "b")),
        (np.array([10, 2, 10, 3]), [2, 0, 2, 1], ("2", "3", "10")),
        (np.array([1.0, np.nan, 0.0, 1.0]), [1, -1, 0, 1], ("0", "1")),
        (np.array([[1], [0], [0], [1]]), [1, 0, 0, 1], ("0", "1")),
        (np.array([True, False, False, True]), [1, 0, 0, 1], ("0", "1")),
    ]:
        samples = open_source({"x": x, "label": y})
        assert samples.labels is not None and (samples.labels.tolist(), samples.classes) == (labels, classes)
    with pytest.raises(DataError, match="4 samples but 3 labels"):
        open_source({"x": x, "y": np.arange(3)})
    with pytest.raises(DataError, match=r"0\.5"):
        open_source({"x": x, "y": np.array([0.5, 1, 2, 3])})


def test_npz_and_npy(tmp_path: Path) -> None:
    x, y = RNG.random((6, 3)), np.arange(6) % 2
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "b.npz")):
        save(tmp_path / name, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
        samples = open_source(tmp_path / name)
        assert np.allclose(every(samples), x) and samples.labels is not None and samples.labels.tolist() == y.tolist()
        assert len(open_source(tmp_path / name, column="x_test")) == 2
        assert samples.notes == ["arrays not used: x_test, y_test"]
    np.save(tmp_path / "c.npy", np.asfortranarray(x))
    assert np.allclose(every(open_source(tmp_path / "c.npy")), x)
    np.savez(tmp_path / "f.npz", np.asfortranarray(x))
    assert np.allclose(every(open_source(tmp_path / "f.npz")), x)
    images = RNG.integers(0, 256, (5, 16, 16, 3), np.uint8)
    np.save(tmp_path / "d.npy", images)
    assert (every(open_source(tmp_path / "d.npy")) == images.transpose(0, 3, 1, 2)).all()
    with pytest.raises(UsageError, match="x_val") as error:
        open_source(tmp_path / "a.npz", column="x_val")
    assert "x_train" in (error.value.help or "")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=np.array([{"a": 1}], object))
    for name in ("o.npy", "o.npz"):
        with pytest.raises(ArtifactError, match="pickled"):
            open_source(tmp_path / name)
    with pytest.raises(DataError, match="object"):
        open_source(np.array([[object()]], object))


def test_tables_note_constant_columns_leaks_and_duplicates() -> None:
    y = np.arange(200) % 2
    x = np.stack([RNG.normal(size=200), np.full(200, 3.0), y * 2.0 + 1, RNG.normal(size=200)], 1)
    x[7] = x[9]
    notes = " | ".join(open_source({"x": x, "y": y}).notes)
    assert '1 constant columns, kept although they carry nothing: "column 1"' in notes
    assert 'column "column 2" may give the label away' in notes and '"column 0" may' not in notes
    assert "1 items repeat" in notes


def test_stale_options_are_in_the_cache_key() -> None:
    words = {
        dataclasses.replace(Options(), **change).words()
        for change in ({}, {"size": 5}, {"channels": 1}, {"max_pixels": 9})
    }
    assert len(words) == 4


def test_threads_read_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, reads = folder(tmp_path / "images", 200, 8), []
    images = folder_of_images(str(root))
    real = images.read
    monkeypatch.setattr(images, "read", lambda i: (reads.append(i), real(i))[1])
    open_images(images, images.listing.paths, Options())
    assert len(reads) <= 200 + 64 and set(reads) == set(range(200)), (
        "the first look at 64 headers is all that comes on top"
    )


def test_messages_say_where_an_item_lies() -> None:
    from accord.data.policy import place

    assert place("photos", "a/b.png") == "photos/a/b.png"
    assert place("/data/train.parquet", "train.parquet:7") == "/data/train.parquet:7"
    assert place("/data/*.parquet", "b.parquet:7") == "/data/b.parquet:7"
    assert place("array", "row 3") == "array:row 3" and place("", "row 3") == "row 3" and place("", "a.png") == "a.png"
