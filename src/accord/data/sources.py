"""The one door for data: a name, a path, a pattern or arrays in, `Samples` out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from accord.data.arrays import read_npy, read_npz
from accord.data.column_kinds import ColumnKind
from accord.data.digits import digits
from accord.data.encoded import Options
from accord.data.frames import ArrayFrame, CsvFrame, Frame, ParquetFrame, frame_of
from accord.data.images import MAX_PIXELS
from accord.data.openers import (
    Request,
    from_array_files,
    from_arrays,
    from_csv,
    from_folder,
    from_images,
    from_parquet,
    from_sounds,
    from_tars,
    from_ts,
)
from accord.data.pairs import columns_of, open_pairs
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy
from accord.data.samples import RowKeys, Samples
from accord.data.series_sources import SeriesOptions, open_steps
from accord.data.sides import Side
from accord.data.source_paths import BUILT_IN, EXPECTED, kind_of_files, paths_of
from accord.data.synthetic import kind_of, open_synthetic
from accord.data.tables import (
    open_parquet,
)
from accord.data.values import Kind
from accord.errors import UsageError

Source = str | os.PathLike[str] | np.ndarray | Tensor | Mapping[str, Any]


def open_source(
    source: Source,
    *,
    size: int | None = None,
    channels: int | None = None,
    label: str | None = None,
    column: str | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    max_bad_fraction: float = 0.01,
    limit_bad: bool = True,
    cache: Path | str | None = None,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    impute: float | None = None,
    features: Sequence[str] | None = None,
    x: Sequence[str] | Side | None = None,
    y: Sequence[str] | Side | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
    masked: bool = False,
    kind: Kind | None = None,
    series: SeriesOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """The samples of a source, in its order.

    Images are decoded once: into memory if they are few, into a mapped file in `cache` if they fit there, otherwise whenever they
    are asked for. Files are never written to; a warm cache is found again by the paths, sizes and times of the files.

    Args:
        source: "digits", "forks", "ellipse", "torus" or "jump" (see `accord.data.synthetic`); a folder of images or of sounds
            (recursive, sub-folders are classes if every file is exactly one deep); an image; a WAV file; a Parquet file (a column of
            encoded images or sounds, or columns of numbers), a CSV file, a .ts file, a WebDataset archive (.tar), or a pattern that
            matches several; a folder of such archives; an .npz or .npy file (floating point of three axes is series); an array,
            a tensor, a mapping of arrays by name, a pyarrow table or a data frame.
        size: side in pixels of the square that images are stored on, whatever their shape (see `Samples.aspect`). By default the
            common size if all have the same, of at most 96 pixels; else 1.25 times the largest of 32, 48, 64, 96, 128 that is not
            above the median of the shorter sides.
        channels: 1 for grey, 3 for colour; by default 1 if every image is grey.
        label: the column or array of labels; by default one named label, class or target. It is never part of the features.
            Of an archive, the part of each sample, by default "cls", or a field of the part "json".
        column: the column or array of samples, where there are several. Of an archive, the part of each sample, "jpg" say.
        on_bad: "skip" bad items, or "stop" at the first.
        max_bad_fraction: more bad items than this fraction of all stop in any case.
        limit_bad: False: bad items never stop, they are only not ok (to embed or score: one result for each input).
        cache: folder for decoded images, by default $XDG_CACHE_HOME/accord or ~/.cache/accord. It is kept to 16 GB, or half of the
            room on its disk: what no process uses and was not used for longest goes first.
        follow_links: follow symbolic links that lead out of the folder.
        max_pixels: images with more pixels than this are refused by their header.
        impute: number to put for NaN in a table.
        features: the columns of a table of numbers to use, in this order; by default all.
        x: columns of a table that are one side of pairs: numbers and categories (a vector), texts (joined by newlines), or one
            column of images (encoded, or paths of files), of series (lists of numbers), or an array. Missing values are masked.
        y: columns that are the other side. With only one of the two the samples are that side alone.
        kinds: what columns are, where that is not to be told from the data: image, audio, series, text, number or category.
        masked: NaN in a table of numbers is a value that was not observed, and no fault.
        kind: "series": each row of a table or array of numbers is a series; "image": an array of three axes is images.
        series: the columns of time and groups of a table whose rows are steps; windows, lengths and rates.
        progress: called with (done, total) while images are read.

    Raises:
        UsageError: no such source, a kind of file that is not read, or an option out of bounds (exit 2).
        DataError: nothing usable in it, or too many bad items; the first are named (exit 3).
        ArtifactError: a pickled array (exit 4).
        EnvironmentFault: no rights, no room, a failing device (exit 5).

    >>> samples = open_source("digits")
    >>> len(samples), samples.shape
    (1797, (1, 8, 8))
    """
    if size is not None and not 1 <= size <= 4096:
        raise UsageError(f"size={size}: expected 1..4096 pixels", help="leave it out to have it chosen")
    if channels not in (None, 1, 3):
        raise UsageError(f"channels={channels}: expected 1 (grey) or 3 (colour)", help="leave it out to have it chosen")
    policy = Policy(on_bad, max_bad_fraction, limit_bad)
    options = Options(size, channels, max_pixels, None if cache is None else Path(cache))
    request = Request(_name(source), policy, options, label, column, impute, follow_links, progress, features=features)
    request = replace(request, columns=columns_of(x, y, kinds), masked=masked, kind=kind)
    return _open(source, replace(request, series=series or SeriesOptions()))


def check_source(
    source: Source,
    strict: bool = False,
    *,
    label: str | None = None,
    column: str | None = None,
    x: Sequence[str] | None = None,
    y: Sequence[str] | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
    kind: Kind | None = None,
    series: SeriesOptions | None = None,
    cache: Path | str | None = None,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """The samples of a source with every bad item found: also those that are otherwise decoded only when they are needed.

    `strict`: also items that decode although their data are damaged (code E302), see `accord.data.jpeg_check`.
    Raises what `open_source` raises for a source that cannot be read at all.
    """
    options = Options(None, None, max_pixels, None if cache is None else Path(cache))
    policy = Policy(limit=False)
    how: Literal["plain", "strict"] = "strict" if strict else "plain"
    request = Request(_name(source), policy, options, label, column, None, follow_links, progress, how)
    request = replace(request, columns=columns_of(x, y, kinds), kind=kind)
    return _open(source, replace(request, series=series or SeriesOptions()))


def _name(source: Source) -> str:
    if isinstance(source, np.ndarray | Tensor | Mapping):
        return "arrays" if isinstance(source, Mapping) else "array"
    if frame_of(source) is not None:
        return "table"
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"a source of type {type(source).__name__}", help=EXPECTED + ", or a NumPy array")
    return os.fsdecode(source)


def _open(source: Source, request: Request) -> Samples:
    samples = _opened(source, request)
    if request.series.window is not None and samples.kind != "series":
        raise UsageError(
            f"windows are of series, this is {samples.kind} data",
            where=request.name,
            help="name the column of times (data.time), or say data.kind=series if each row is a series",
            code="E234",
        )
    if request.impute is not None and (samples.kind != "vector" or request.columns):
        raise UsageError(
            "impute is for tables of numbers that are taken as they are",
            where=request.name,
            help="leave it out: what is missing in series and in columns of x and y is masked",
            code="E234",
        )
    return samples


def _opened(source: Source, request: Request) -> Samples:
    if isinstance(source, Tensor):
        plain = source.detach().cpu()
        source = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    source = frame_of(source) or source
    if request.columns.sides and (request.series.time is not None or request.series.group):
        raise UsageError(
            "with columns as x and y each row is a pair, with a column of times or groups it is a step of a series",
            where=request.name,
            help="leave out either x and y, or time and group",
            code="E234",
        )
    if request.columns:
        return _columns(source, request)
    if isinstance(source, np.ndarray):
        source = {"x": source}
    if request.series.rows_are_steps:
        frame, given = _frame(source, request), request.series
        return open_steps(request.name, frame, given, request.policy, label=request.label, features=request.features)
    if isinstance(source, Mapping):
        return from_arrays([source], None, request)
    if request.name == "digits":
        images, labels = digits()
        return pixel_samples("digits", images, RowKeys([len(images)]), labels, [], request.options, request.policy)
    if kind_of(request.name) is not None:
        return open_synthetic(request.name, request.options, request.policy)
    return _from_files(request)


def _columns(source: Source, request: Request) -> Samples:
    """Columns of a table as pairs, or as one side of them."""
    files = _files_of_a_side(source, request)
    if files is not None:
        return _from_files(files)
    return open_pairs(
        _frame(source, request),
        request.columns,
        request.policy,
        request.options,
        name=request.name,
        label=request.label,
        progress=request.progress,
        inspect=bool(request.inspect),
    )


def _from_files(request: Request) -> Samples:
    paths = paths_of(request.name)
    kind = kind_of_files(request.name, paths)
    openers = {
        "folder": from_folder,
        "image": from_images,
        ".parquet": from_parquet,
        "sound": from_sounds,
        ".csv": from_csv,
        ".ts": from_ts,
        ".tar": from_tars,
        ".npy": from_array_files,
        ".npz": from_array_files,
    }
    return openers[kind](paths, request)


def _files_of_a_side(source: Source, request: Request) -> Request | None:
    """How a folder of pictures or sounds, or such a file, is read as one side of a trained run; None if it is no such source."""
    sides = list(request.columns.sides.values())
    if len(sides) != 1 or not isinstance(source, str | os.PathLike) or request.name.partition(":")[0] in BUILT_IN:
        return None
    (side,) = sides
    if side.shape is None or side.kinds not in (("image",), ("audio",)):
        return None
    if kind_of_files(request.name, paths_of(request.name)) not in ("folder", "image", "sound", ".tar"):
        return None
    options, series = request.options, request.series
    if side.kinds == ("image",):
        options = replace(options, size=side.shape[-1], channels=side.shape[0])
    else:
        series = replace(series, length=side.shape[0], rate=side.rate, trim=side.trim, seconds=side.seconds)
    return replace(request, columns=columns_of(None, None, None), options=options, series=series)


def rows_may_be_steps(name: str) -> bool:
    """Whether a source is a table, whose rows may be the steps of a series: not what holds whole series, images or sounds.

    Raises what `open_source` raises for a source that is not there.
    """
    if name.partition(":")[0] in BUILT_IN:
        return False
    paths = paths_of(name)
    kind = kind_of_files(name, paths)
    if kind in (".npy", ".npz") and len(paths) == 1:
        arrays = {"x": read_npy(paths[0])} if kind == ".npy" else read_npz(paths[0])
        return all(array.ndim < 3 for array in arrays.values())
    return kind in (".parquet", ".csv")


def _frame(source: Source, request: Request) -> Frame:
    """The source as a table of columns."""
    if isinstance(source, Mapping):
        return ArrayFrame(request.name, source)
    kind, paths = "", list[Path]()
    if not isinstance(source, np.ndarray) and request.name.partition(":")[0] not in BUILT_IN:
        paths = paths_of(request.name)
        kind = kind_of_files(request.name, paths)
    if kind == ".parquet":
        return ParquetFrame(open_parquet(paths))
    if kind == ".csv":
        return CsvFrame(paths)
    if kind == ".npy" and len(paths) == 1:
        return ArrayFrame(request.name, {"x": read_npy(paths[0])})
    if kind == ".npz" and len(paths) == 1:
        return ArrayFrame(request.name, read_npz(paths[0]), folder=paths[0].parent)
    columns = [column for side in request.columns.sides.values() for column in side.columns]
    wanted = [*columns, *(request.series.group or ()), *([request.series.time] if request.series.time else [])]
    raise UsageError(
        f"this source has no columns; asked for: {', '.join(wanted)}",
        where=request.name,
        help="give Parquet or CSV files, one NPZ file, a mapping of arrays or a data frame",
        code="E234",
    )
