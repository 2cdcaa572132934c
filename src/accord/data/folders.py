"""A folder of images as samples: keys are relative paths sorted by bytes, class sub-folders become labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.data.encoded import OneByOne
from accord.data.files import EXTENSIONS, SOUNDS, Listing, list_images, read_file
from accord.data.samples import Refused
from accord.errors import DataError


class FileImages(OneByOne):
    """The image files of a listing."""

    def __init__(self, listing: Listing):
        self.listing = listing

    def __len__(self) -> int:
        return len(self.listing.paths)

    def stamp(self) -> bytes:
        paths = "\0".join(self.listing.paths).encode("utf-8", "surrogateescape")
        root = os.path.realpath(self.listing.root).encode("utf-8", "surrogateescape")
        return root + b"\0\0" + paths + b"\0\0" + np.ascontiguousarray(self.listing.stamp, "<i8").tobytes()

    def read(self, i: int) -> bytes:
        """File number `i`. Raises `Refused`, `EnvironmentFault`."""
        if i in self.listing.refused:
            item = self.listing.refused[i]
            raise Refused(item.code, item.reason, item.help)
        size, changed, _ = self.listing.stamp[i].tolist()
        return read_file(self.path(i), (size, changed))

    def path(self, i: int) -> str:
        """Where file number `i` is."""
        return os.path.join(self.listing.root, self.listing.paths[i])  # noqa: PTH118


def folder_of_images(root: str, follow_links: bool = False) -> FileImages:
    """The images under `root`. Raises `DataError` if there are none."""
    listing = list_images(root, follow_links)
    if not listing.paths:
        tables = sorted(path.name for path in Path(root).iterdir() if path.suffix in (".parquet", ".npz", ".npy"))
        help = f'to read the tables in it pass "{root}/*{Path(tables[0]).suffix}"' if tables else "check the path"
        found = f"; {'; '.join(listing.notes)}" if listing.notes else ""
        raise DataError(
            f"no images or sounds in this folder or below: looked for {', '.join(sorted(EXTENSIONS | SOUNDS))}{found}",
            where=root,
            help=help,
            code="E318",
        )
    return FileImages(listing)


def named_images(paths: Sequence[Path]) -> FileImages:
    """Image files given by name; keys are their paths in the folder that holds all of them."""
    root = Path(os.path.commonpath([path.parent for path in paths]))
    stats = [path.stat() for path in paths]
    stamp = np.array([[s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in stats], np.int64)
    return FileImages(Listing(str(root), [str(path.relative_to(root)) for path in paths], stamp, {}, []))


def folder_labels(paths: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Labels (N,) and classes from "class/name" paths, and notes.

    Sub-folders are classes only if every image is exactly one folder deep and there are at least two folders.
    """
    depths = {path.rstrip("/").count("/") for path in paths if not path.endswith("/")}
    folders = [path.split("/", 1)[0] for path in paths]
    classes = tuple(sorted(set(folders), key=os.fsencode))
    if depths == {1} and len(classes) > 1:
        place = {name: i for i, name in enumerate(classes)}
        return np.array([place[folder] for folder in folders], np.int64), classes, []
    if depths == {0} or len(classes) < 2:
        return None, (), []
    return None, (), ["no labels: sub-folders are classes only if every image is exactly one folder deep"]
