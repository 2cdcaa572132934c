"""The one door for data: a name, a path, a pattern or arrays in, `Samples` out."""

from __future__ import annotations

import difflib
import glob
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from accord.data.arrays import choose, joined, read_npy, read_npz
from accord.data.csv_tables import read_csv
from accord.data.digits import digits
from accord.data.encoded import Encoded, Options, Progress, Scan, open_images
from accord.data.files import EXTENSIONS, FOREIGN_EXTENSIONS, missing, unreadable_source
from accord.data.folders import FileImages, folder_labels, folder_of_images, named_images
from accord.data.images import MAX_PIXELS
from accord.data.inspection import inspect
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy, judge
from accord.data.samples import LISTED, RowKeys, Samples, Store
from accord.data.synthetic import KINDS, kind_of, open_synthetic
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

_HELP = 'expected "digits", a folder of images, a .tar, .parquet, .csv, .npz or .npy file, or a pattern such as "data/*.parquet"'
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
BUILT_IN = ("digits", *KINDS)
"""Sources that need no files; a folder of such a name is "./digits"."""


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
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """The samples of a source, in its order.

    Images are decoded once: into memory if they are few, into a mapped file in `cache` if they fit there, otherwise whenever they
    are asked for. Files are never written to; a warm cache is found again by the paths, sizes and times of the files.

    Args:
        source: "digits", "forks", "ellipse", "torus" or "jump" (see `accord.data.synthetic`); a folder of images (recursive,
            sub-folders are classes if every image is exactly one deep); an image; a Parquet file (a column of encoded images, or
            columns of numbers), a CSV file, a WebDataset archive (.tar), or a pattern that matches several; a folder of such archives;
            an .npz or .npy file; an array, a tensor, or a mapping of arrays by name.
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
    return _open(source, request)


def check_source(
    source: Source,
    strict: bool = False,
    *,
    label: str | None = None,
    column: str | None = None,
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
    return _open(source, _Request(_name(source), policy, options, label, column, None, follow_links, progress, how))


def _name(source: Source) -> str:
    if isinstance(source, np.ndarray | Tensor | Mapping):
        return "arrays" if isinstance(source, Mapping) else "array"
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"a source of type {type(source).__name__}", help=_HELP + ", or a NumPy array")
    return os.fsdecode(source)


def _open(source: Source, request: _Request) -> Samples:
    if isinstance(source, Tensor):
        plain = source.detach().cpu()
        source = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    if isinstance(source, np.ndarray):
        return _from_arrays([{"x": source}], None, request)
    if isinstance(source, Mapping):
        return _from_arrays([source], None, request)
    if request.name == "digits":
        images, labels = digits()
        return pixel_samples("digits", images, RowKeys([len(images)]), labels, [], request.options, request.policy)
    if kind_of(request.name) is not None:
        return open_synthetic(request.name, request.options, request.policy)
    paths = _paths(request.name)
    kind = _kind(request.name, paths)
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


def _paths(name: str) -> list[Path]:
    path = Path(name)
    try:
        path.lstat()
    except (OSError, ValueError) as error:
        if glob.has_magic(name):
            return _matches(name)
        close = difflib.get_close_matches(name.partition(":")[0], BUILT_IN, n=1, cutoff=0.75)
        if close and isinstance(error, FileNotFoundError):
            raise UsageError("no such source", where=name, help=f'did you mean "{close[0]}"?', code="E220") from error
        raise unreadable_source(name, error) if isinstance(error, OSError) else missing(repr(name)) from error
    if not path.exists():
        raise UsageError(
            "a link that leads nowhere", where=name, help="repair the link, or pass the path itself", code="E220"
        )
    return [path]


def _matches(pattern: str) -> list[Path]:
    found = [Path(path) for path in sorted(glob.glob(pattern, recursive=True), key=os.fsencode)]  # noqa: PTH207
    if not found:
        folder = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        raise UsageError(
            "no file matches this pattern",
            where=pattern,
            help=f'check the folder "{folder}" and the spelling',
            code="E220",
        )
    return found


def _kind(name: str, paths: Sequence[Path]) -> str:
    if len(paths) == 1 and paths[0].is_dir():
        return "folder"
    kinds = {_file_kind(path) for path in paths}
    if len(kinds) > 1:
        help = "match files of one kind"
        raise UsageError(f"files of several kinds: {', '.join(sorted(kinds))}", where=name, help=help, code="E220")
    kind = kinds.pop()
    if not paths[0].is_file():
        raise UsageError("neither a file nor a folder", where=name, help=_HELP, code="E220")
    if kind not in ("image", ".parquet", ".csv", ".npy", ".npz", ".tar"):
        if paths[0].name.lower().endswith(_PACKED):
            help = "undo the compression (gunzip): images hardly get smaller by it"
            raise UsageError(
                "a compressed archive can only be read from its beginning", where=name, help=help, code="E220"
            )
        raise UsageError(f'cannot read a file of kind "{kind}"', where=name, help=_HELP, code="E220")
    return kind


def _file_kind(path: Path) -> str:
    if path.name.lower().endswith(".csv.gz"):
        return ".csv"
    kind = path.suffix.lower()
    return "image" if kind in EXTENSIONS | FOREIGN_EXTENSIONS else kind


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
            request.name, x, request.policy, keys=keys, labels=labels, notes=notes, impute=request.impute
        )
    return pixel_samples(request.name, x, keys, labels, notes, request.options, request.policy)


def _from_encoded(
    encoded: Encoded, keys: Sequence[str], labels: Labels | None, notes: list[str], request: _Request
) -> Samples:
    store, scan, more = open_images(encoded, keys, request.options, request.progress)
    if request.inspect:
        inspect(encoded, store, scan, keys, strict=request.inspect == "strict")
    samples = _samples(request.name, store, scan, keys, labels, [*notes, *more])
    samples.blocks = encoded.blocks
    if samples.blocks is not None and len(encoded) * math.prod(store.shape) > request.options.cached:
        samples.shuffle_buffer = (
            encoded.shuffle_buffer
        )  # by the size alone: the order must not depend on the room on a disk
    return judge(samples, request.policy, scan.constant)


def _samples(
    name: str, store: Store, scan: Scan, keys: Sequence[str], labels: Labels | None, notes: list[str]
) -> Samples:
    return Samples(
        name=name,
        kind="image",
        store=store,
        keys=keys,
        content=scan.content,
        ok=scan.ok,
        bad=[refused.item(keys[i]) for i, refused in sorted(scan.refused.items())[:LISTED]],
        labels=None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        aspect=scan.aspect,
        notes=notes + [f"{what}: {count}" for what, count in sorted(scan.conversions.items())],
    )
