"""From the name of a source to files, and what kind of files they are."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from accord.data.files import EXTENSIONS, FOREIGN_EXTENSIONS, SOUNDS, missing, unreadable_source
from accord.data.synthetic import KINDS
from accord.errors import UsageError

EXPECTED = (
    'expected "digits", a folder of images or sounds, a .wav, .tar, .parquet, .csv, .tsv, .ts, .npz or .npy file, '
    'or a pattern such as "data/*.parquet"'
)
_OTHER_SOUNDS = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".wma")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
BUILT_IN = ("digits", *KINDS)
"""Sources that need no files; a folder of such a name is "./digits"."""


def paths_of(name: str) -> list[Path]:
    """The path that a source names, or the files that match its pattern. Raises `UsageError` if there are none."""
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


def kind_of_files(name: str, paths: Sequence[Path]) -> str:
    """What they are: "folder", "image", "sound", or the ending of the files, ".csv" say. Raises `UsageError` for others, or several."""
    if len(paths) == 1 and paths[0].is_dir():
        return "folder"
    kinds = {_file_kind(path) for path in paths}
    if len(kinds) > 1:
        help = "match files of one kind"
        raise UsageError(f"files of several kinds: {', '.join(sorted(kinds))}", where=name, help=help, code="E220")
    kind = kinds.pop()
    if not paths[0].is_file():
        raise UsageError("neither a file nor a folder", where=name, help=EXPECTED, code="E220")
    if kind not in ("image", "sound", ".parquet", ".csv", ".ts", ".npy", ".npz", ".tar"):
        if paths[0].name.lower().endswith(_PACKED):
            help = "undo the compression (gunzip): images hardly get smaller by it"
            raise UsageError(
                "a compressed archive can only be read from its beginning", where=name, help=help, code="E220"
            )
        help = "convert it, for example with: ffmpeg -i FILE NEW.wav" if kind in _OTHER_SOUNDS else EXPECTED
        raise UsageError(f'cannot read a file of kind "{kind}"', where=name, help=help, code="E220")
    return kind


def _file_kind(path: Path) -> str:
    if path.name.lower().endswith((".csv.gz", ".tsv", ".tsv.gz")):
        return ".csv"
    kind = path.suffix.lower()
    if kind in SOUNDS:
        return "sound"
    return "image" if kind in EXTENSIONS | FOREIGN_EXTENSIONS else kind
