"""The one door for data: a name, a path, a pattern or arrays in, `Samples` out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from accord.data.arrays import choose, joined, read_npy, read_npz
from accord.data.column_kinds import ColumnKind
from accord.data.csv_tables import read_csv
from accord.data.digits import digits
from accord.data.encoded import Encoded, Options, Progress
from accord.data.encoded_samples import encoded_samples
from accord.data.folders import FileImages, folder_labels, folder_of_images, named_images
from accord.data.frames import ArrayFrame, CsvFrame, Frame, ParquetFrame, frame_of
from accord.data.images import MAX_PIXELS
from accord.data.pairs import Columns, columns_of, open_pairs
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy, judge
from accord.data.samples import RowKeys, Samples
from accord.data.sides import Side
from accord.data.source_paths import BUILT_IN, EXPECTED, kind_of_files, paths_of
from accord.data.synthetic import kind_of, open_synthetic
from accord.data.table_images import TableImages
from accord.data.tables import (
    image_column,
    label_column,
    open_parquet,
    read_labels,
    read_numbers,
    short_names,
)
from accord.data.tars import TarImages, open_tars, read_vectors
from accord.data.vectors import Labels, encode_labels, vector_samples
from accord.errors import DataError, UsageError

Source = str | os.PathLike[str] | np.ndarray | Tensor | Mapping[str, Any]


@dataclass(frozen=True)
class _Request:
    """What was asked of `open_source`."""

    name: str
    policy: Policy
    options: Options
    label: str | None = None
    column: str | None = None
    impute: float | None = None
    follow_links: bool = False
    progress: Progress | None = None
    inspect: Literal["", "plain", "strict"] = ""
    features: Sequence[str] | None = None
    columns: Columns = field(default_factory=Columns)
    masked: bool = False


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
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """The samples of a source, in its order.

    Images are decoded once: into memory if they are few, into a mapped file in `cache` if they fit there, otherwise whenever they
    are asked for. Files are never written to; a warm cache is found again by the paths, sizes and times of the files.

    Args:
        source: "digits", "forks", "ellipse", "torus" or "jump" (see `accord.data.synthetic`); a folder of images (recursive,
            sub-folders are classes if every image is exactly one deep); an image; a Parquet file (a column of encoded images, or
            columns of numbers), a CSV file, a WebDataset archive (.tar), or a pattern that matches several; a folder of such archives;
            an .npz or .npy file; an array, a tensor, a mapping of arrays by name, a pyarrow table or a data frame.
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
    request = _Request(_name(source), policy, options, label, column, impute, follow_links, progress, features=features)
    return _open(source, replace(request, columns=columns_of(x, y, kinds), masked=masked))


def check_source(
    source: Source,
    strict: bool = False,
    *,
    label: str | None = None,
    column: str | None = None,
    x: Sequence[str] | None = None,
    y: Sequence[str] | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
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
    request = _Request(_name(source), policy, options, label, column, None, follow_links, progress, how)
    return _open(source, replace(request, columns=columns_of(x, y, kinds)))


def _name(source: Source) -> str:
    if isinstance(source, np.ndarray | Tensor | Mapping):
        return "arrays" if isinstance(source, Mapping) else "array"
    if frame_of(source) is not None:
        return "table"
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"a source of type {type(source).__name__}", help=EXPECTED + ", or a NumPy array")
    return os.fsdecode(source)


def _open(source: Source, request: _Request) -> Samples:
    if isinstance(source, Tensor):
        plain = source.detach().cpu()
        source = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    source = frame_of(source) or source
    if request.columns:
        frame, inspect = _frame(source, request), bool(request.inspect)
        return open_pairs(
            frame,
            request.columns,
            request.policy,
            request.options,
            name=request.name,
            label=request.label,
            progress=request.progress,
            inspect=inspect,
        )
    if isinstance(source, np.ndarray):
        return _from_arrays([{"x": source}], None, request)
    if isinstance(source, Mapping):
        return _from_arrays([source], None, request)
    if request.name == "digits":
        images, labels = digits()
        return pixel_samples("digits", images, RowKeys([len(images)]), labels, [], request.options, request.policy)
    if kind_of(request.name) is not None:
        return open_synthetic(request.name, request.options, request.policy)
    paths = paths_of(request.name)
    kind = kind_of_files(request.name, paths)
    openers = {
        "folder": _from_folder,
        "image": _from_images,
        ".parquet": _from_parquet,
        ".csv": _from_csv,
        ".tar": _from_tars,
        ".npy": _from_array_files,
        ".npz": _from_array_files,
    }
    return openers[kind](paths, request)


def _frame(source: Source, request: _Request) -> Frame:
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
    if kind == ".npz" and len(paths) == 1:
        return ArrayFrame(request.name, read_npz(paths[0]), folder=paths[0].parent)
    raise UsageError(
        "this source has no columns",
        where=request.name,
        help="x, y and kinds are for Parquet and CSV files, one NPZ file, a mapping of arrays or a data frame",
        code="E234",
    )


def _refuse_options(request: _Request, *, column: bool = True, label: bool = True) -> None:
    """Raise `UsageError` for a column or a label that was named where there are none: nobody would look for it."""
    for option, name, applies in (("column", request.column, column), ("label", request.label, label)):
        if name is not None and not applies:
            raise UsageError(
                f'{option} "{name}" does not apply to this kind of data',
                where=request.name,
                help="leave it out: of a folder of images the sub-folders are the classes"
                if option == "label"
                else "leave it out: every column of numbers is used",
                code="E234",
            )


def _from_folder(paths: Sequence[Path], request: _Request) -> Samples:
    try:
        images = folder_of_images(str(paths[0]), request.follow_links)
    except DataError as error:
        archives = sorted(path for path in paths[0].glob("*.tar") if not path.name.startswith("."))
        if error.code != "E318" or not archives:
            raise
        return _from_tars(archives, request)
    return _from_files(images, request)


def _from_tars(paths: Sequence[Path], request: _Request) -> Samples:
    shards = open_tars(paths, request.column, request.label)
    labels = shards.labels(request.label)
    if shards.has_images:
        return _from_encoded(TarImages(shards), shards.keys, labels, shards.notes, request)
    matrix, refused = read_vectors(shards)
    return vector_samples(
        request.name,
        matrix,
        request.policy,
        keys=shards.keys,
        labels=labels,
        notes=shards.notes,
        impute=request.impute,
        refused=refused,
    )


def _from_images(paths: Sequence[Path], request: _Request) -> Samples:
    return _from_files(named_images(paths), request)


def _from_files(images: FileImages, request: _Request) -> Samples:
    _refuse_options(request, column=False, label=False)
    names = images.listing.paths
    labels, classes, notes = folder_labels(names)
    found = None if labels is None else Labels(labels, classes)
    return _from_encoded(images, names, found, [*images.listing.notes, *notes], request)


def _from_parquet(paths: Sequence[Path], request: _Request) -> Samples:
    table = open_parquet(paths)
    images = image_column(table, request.column)
    label = label_column(table, request.label, images)
    labels = None if label is None else read_labels(table, label)
    if images is not None:
        return _from_encoded(TableImages(table, images), table.keys, labels, [], request)
    found = read_numbers(table, label).picked(request.features, request.name)
    return vector_samples(
        request.name,
        found.matrix,
        request.policy,
        masked=request.masked,
        keys=table.keys,
        features=found.names,
        labels=labels,
        notes=found.notes,
        impute=request.impute,
    )


def _from_csv(paths: Sequence[Path], request: _Request) -> Samples:
    _refuse_options(request, column=False)
    found, labels, keys = read_csv(paths, request.label)
    found = found.picked(request.features, request.name)
    return vector_samples(
        request.name,
        found.matrix,
        request.policy,
        masked=request.masked,
        keys=keys,
        features=found.names,
        labels=labels,
        notes=found.notes,
        impute=request.impute,
    )


def _from_array_files(paths: Sequence[Path], request: _Request) -> Samples:
    files = [{"x": read_npy(path)} if path.suffix.lower() == ".npy" else read_npz(path) for path in paths]
    return _from_arrays(files, short_names(paths) if len(paths) > 1 else None, request)


def _from_arrays(files: Sequence[Mapping[str, Any]], names: Sequence[str] | None, request: _Request) -> Samples:
    """One or several mappings of arrays, put one after the other; `names` are for the keys where there are several."""
    parts = [choose(arrays, request.column, request.label, request.name) for arrays in files]
    x, y = joined(parts, request.name, names)
    notes = parts[0].notes
    keys = RowKeys([len(part.x) for part in parts], names)
    labels = None if y is None else encode_labels(y, len(x), request.name)
    if x.ndim == 2:
        return vector_samples(
            request.name,
            x,
            request.policy,
            keys=keys,
            labels=labels,
            notes=notes,
            impute=request.impute,
            masked=request.masked,
        )
    return pixel_samples(request.name, x, keys, labels, notes, request.options, request.policy)


def _from_encoded(
    encoded: Encoded, keys: Sequence[str], labels: Labels | None, notes: list[str], request: _Request
) -> Samples:
    samples, constant = encoded_samples(
        request.name,
        encoded,
        keys,
        request.options,
        request.progress,
        labels=labels,
        notes=notes,
        inspect=request.inspect,
    )
    return judge(samples, request.policy, constant)
