"""What is in files and arrays as samples: one opener for each kind of source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from accord.data.arrays import choose, joined, read_npy, read_npz
from accord.data.csv_tables import read_csv
from accord.data.encoded import Encoded, Options, Progress
from accord.data.encoded_samples import encoded_samples
from accord.data.files import SOUNDS, list_files
from accord.data.folders import FileImages, folder_labels, folder_of_images, named_images
from accord.data.pairs import Columns
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy, judge
from accord.data.samples import RowKeys, Samples
from accord.data.series_sources import SeriesOptions, open_arrays, open_ts
from accord.data.sounds import is_sound, sound_samples
from accord.data.table_images import TableImages
from accord.data.tables import (
    Numbers,
    image_column,
    label_column,
    open_parquet,
    read_labels,
    read_numbers,
    short_names,
)
from accord.data.tars import TarImages, open_tars, read_vectors
from accord.data.values import Kind
from accord.data.vectors import Labels, encode_labels, unnamed_features, vector_samples
from accord.errors import DataError, UsageError


@dataclass(frozen=True)
class Request:
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
    kind: Kind | None = None
    series: SeriesOptions = field(default_factory=SeriesOptions)


def _refuse_options(request: Request, *, column: bool = True, label: bool = True) -> None:
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


def from_folder(paths: Sequence[Path], request: Request) -> Samples:
    try:
        images = folder_of_images(str(paths[0]), request.follow_links)
    except DataError as error:
        archives = sorted(path for path in paths[0].glob("*.tar") if not path.name.startswith("."))
        sounds = list_files(str(paths[0]), SOUNDS, request.follow_links)
        if error.code != "E318" or not (archives or sounds.paths):
            raise
        return from_tars(archives, request) if archives else _from_sound_files(FileImages(sounds), request)
    return _from_files(images, request)


def from_tars(paths: Sequence[Path], request: Request) -> Samples:
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


def from_images(paths: Sequence[Path], request: Request) -> Samples:
    return _from_files(named_images(paths), request)


def from_sounds(paths: Sequence[Path], request: Request) -> Samples:
    return _from_sound_files(named_images(paths), request)


def _from_sound_files(files: FileImages, request: Request) -> Samples:
    _refuse_options(request, column=False, label=False)
    labels, classes, notes = folder_labels(files.listing.paths)
    found = None if labels is None else Labels(labels, classes)
    return _sounds(files, files.listing.paths, found, [*files.listing.notes, *notes], request)


def from_ts(paths: Sequence[Path], request: Request) -> Samples:
    _refuse_options(request, column=False, label=False)
    return open_ts(request.name, paths, request.series, request.policy)


def _from_files(images: FileImages, request: Request) -> Samples:
    _refuse_options(request, column=False, label=False)
    names = images.listing.paths
    labels, classes, notes = folder_labels(names)
    found = None if labels is None else Labels(labels, classes)
    return _from_encoded(images, names, found, [*images.listing.notes, *notes], request)


def from_parquet(paths: Sequence[Path], request: Request) -> Samples:
    table = open_parquet(paths)
    images = image_column(table, request.column)
    label = label_column(table, request.label, images)
    labels = None if label is None else read_labels(table, label)
    if images is not None:
        encoded = TableImages(table, images)
        found = _sounds if is_sound(encoded) else _from_encoded
        return found(encoded, table.keys, labels, [], request)
    return _rows(read_numbers(table, label), table.keys, labels, request)


def from_csv(paths: Sequence[Path], request: Request) -> Samples:
    _refuse_options(request, column=False)
    found, labels, keys = read_csv(paths, request.label)
    return _rows(found, keys, labels, request)


def _rows(found: Numbers, keys: Sequence[str], labels: Labels | None, request: Request) -> Samples:
    """Rows of numbers: vectors, or series if that is said."""
    if request.kind == "series":
        return open_arrays(
            request.name, found.matrix, request.series, request.policy, keys=keys, labels=labels, notes=found.notes
        )
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


def from_array_files(paths: Sequence[Path], request: Request) -> Samples:
    files = [{"x": read_npy(path)} if path.suffix.lower() == ".npy" else read_npz(path) for path in paths]
    return from_arrays(files, short_names(paths) if len(paths) > 1 else None, request)


def from_arrays(files: Sequence[Mapping[str, Any]], names: Sequence[str] | None, request: Request) -> Samples:
    """One or several mappings of arrays, put one after the other; `names` are for the keys where there are several."""
    parts = [choose(arrays, request.column, request.label, request.name) for arrays in files]
    x, y = joined(parts, request.name, names)
    notes = parts[0].notes
    keys = RowKeys([len(part.x) for part in parts], names)
    labels = None if y is None else encode_labels(y, len(x), request.name)
    if request.kind == "series" or (x.ndim == 3 and x.dtype.kind == "f" and request.kind is None):
        return open_arrays(request.name, x, request.series, request.policy, keys=keys, labels=labels, notes=notes)
    if x.ndim == 2:
        unnamed = replace(request, features=None)  # columns without names go by their places
        return _rows(Numbers(x, list(unnamed_features(x.shape[1])), notes), keys, labels, unnamed)
    return pixel_samples(request.name, x, keys, labels, notes, request.options, request.policy)


def _sounds(
    encoded: Encoded, keys: Sequence[str], labels: Labels | None, notes: list[str], request: Request
) -> Samples:
    return sound_samples(
        request.name,
        encoded,
        keys,
        request.policy,
        labels=labels,
        notes=notes,
        rate=request.series.rate,
        length=request.series.length,
        trim=request.series.trim,
        seconds=request.series.seconds,
        progress=request.progress,
    )


def _from_encoded(
    encoded: Encoded, keys: Sequence[str], labels: Labels | None, notes: list[str], request: Request
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
