"""What a report shows, read from a run directory: every file optional, every value checked, nothing trusted and nothing executed."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from accord.errors import ArtifactError, EnvironmentFault, UsageError, printable

Limits = Mapping[str, int]
LIMITS: Limits = {
    "recipe.toml": 1 << 20,
    "environment.json": 4 << 20,
    "calibration.json": 64 << 20,
    "evaluation.json": 64 << 20,
    "metrics.jsonl": 256 << 20,
    "bad_samples.jsonl": 64 << 20,
    "evaluation/thumbnails.png": 64 << 20,
    "compare.json": 64 << 20,
}
MAX_SPRITE_PIXELS = 64_000_000
MAX_PNG_BYTES = 1_200_000
MAX_BAD_SHOWN = 200
HUGE = 1e100
"""Numbers from here on are refused and those below its inverse read as 0, so that no sum or ratio of a few overflows."""


class View:
    """A JSON object whose values are read with their type checked; what is absent or null reads as None or empty.

    Every error names the file and the key.
    """

    def __init__(self, values: Mapping[str, object], where: str):
        self.values = values
        self.where = where

    def __bool__(self) -> bool:
        return bool(self.values)

    def _wrong(self, key: str, expected: str) -> ArtifactError:
        return damaged(f"{key!r} is not {expected}", f"{self.where}{key}")

    def number(self, key: str) -> float | None:
        """A finite number below 1e100 in size, or None."""
        value = self.values.get(key)
        return None if value is None else self._number(key, value)

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            raise self._wrong(key, "a finite number") from None
        if not abs(number) < HUGE:
            raise self._wrong(key, "a finite number")
        return number if abs(number) > 1 / HUGE else 0.0

    def text(self, key: str) -> str | None:
        """A string, or None."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def view(self, key: str) -> View:
        """An object; empty where it is absent or null."""
        return self._view(key, self.values.get(key))

    def _view(self, key: str, value: object) -> View:
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(key, "an object")
        return View(value or {}, f"{self.where}{key}.")

    def items(self, key: str) -> list[object]:
        """A list; empty where it is absent or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value or []

    def views(self, key: str) -> list[View]:
        """A list of objects."""
        return [self._view(f"{key}[{i}]", value) for i, value in enumerate(self.items(key))]

    def numbers(self, key: str) -> list[float]:
        """A list of finite numbers."""
        return [self._number(f"{key}[{i}]", value) for i, value in enumerate(self.items(key))]

    def indices(self, key: str, limit: int | None = None) -> list[int]:
        """A list of whole numbers below `limit`; -1 and null stand for none."""
        return [self._index(f"{key}[{i}]", value, limit) for i, value in enumerate(self.items(key))]

    def index(self, key: str, limit: int | None = None) -> int:
        """A whole number below `limit`; -1 where there is none."""
        return self._index(key, self.values.get(key), limit)

    def _index(self, key: str, value: object, limit: int | None) -> int:
        number = -1.0 if value is None else self._number(key, value)
        if number != int(number) or number < -1 or (limit is not None and number >= limit):
            raise self._wrong(key, "a whole number" if limit is None else f"an index below {limit}")
        return int(number)

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        values = self.items(key)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self._wrong(f"{key}[{i}]", "a string")
        return [str(value) for value in values]


class Sprite(NamedTuple):
    """All thumbnails in one picture: a data address, the side of one, how many there are in a row and in all."""

    href: str
    side: int
    columns: int
    total: int
    width: int
    height: int

    def box(self, index: int) -> str:
        """The part of the picture that shows thumbnail `index`, as a viewBox."""
        return f"{index % self.columns * self.side} {index // self.columns * self.side} {self.side} {self.side}"


class Run(NamedTuple):
    """The content of a run directory."""

    name: str
    recipe: View
    recipe_text: str
    environment: View
    metrics: list[View]
    evaluation: View
    calibration: View
    bad: list[View]
    bad_count: int
    sprite: Sprite | None
    notes: list[str]


def read_run(run: Path) -> Run:
    """Reads what a run directory holds.

    Raises:
        UsageError: if it is no run directory.
        ArtifactError: for a damaged file, with its name and where possible the key.
        EnvironmentFault: for a file that cannot be read.
    """
    if not run.is_dir():
        raise UsageError(
            "no such run directory",
            where=str(run),
            help="name the directory `accord train` or `accord compare` wrote",
            code="E230",
        )
    notes: list[str] = []
    recipe_text, recipe = _toml(run, "recipe.toml")
    metrics = list(_lines(run, "metrics.jsonl", notes))
    evaluation = read_json(run, "evaluation.json")
    if not (recipe_text or metrics or evaluation):
        raise UsageError(
            "not a run directory: it has no recipe.toml, metrics.jsonl or evaluation.json",
            where=str(run),
            help="name the directory `accord train` or `accord compare` wrote",
            code="E230",
        )
    bad = list(_lines(run, "bad_samples.jsonl", notes))
    return Run(
        name=run.resolve().name,
        recipe=recipe,
        recipe_text=recipe_text,
        environment=read_json(run, "environment.json"),
        metrics=_last_of_each_step(metrics),
        evaluation=evaluation,
        calibration=read_json(run, "calibration.json"),
        bad=bad[:MAX_BAD_SHOWN],
        bad_count=len(bad),
        sprite=_sprite(run, evaluation.view("thumbnails")),
        notes=notes,
    )


def damaged(what: str, where: str, remedy: str = "write it again: `accord evaluate RUN`") -> ArtifactError:
    """The error for a file of the run that cannot be used."""
    return ArtifactError(f"damaged file of the run: {what}", where=where, help=remedy, code="E470")


def read_bytes(run: Path, name: str) -> bytes | None:
    """The bytes of a regular file of the run, None where there is none; links and devices are not followed."""
    path = run / name
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink():
            raise damaged("it is a symbolic link, which is not followed", str(path), "put the file itself there")
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(error, path) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise damaged("not a regular file", str(path))
        if status.st_size > LIMITS[name]:
            raise damaged(f"{status.st_size:,} bytes, at most {LIMITS[name]:,} are read", str(path))
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(error, path) from None


def _unreadable(error: OSError, path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot be read: {error.strerror}", where=str(path), help="check its rights and the disk", code="E570"
    )


def _parse(text: bytes | str, where: str) -> View:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(f"not JSON ({error})", where) from None
    if not isinstance(value, dict):
        raise damaged("not a JSON object", where)
    return View(value, f"{where}:")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def read_json(run: Path, name: str) -> View:
    """A JSON object of a run, empty where there is no such file.

    Raises:
        ArtifactError: for a damaged file.
        EnvironmentFault: for one that cannot be read.
    """
    data = read_bytes(run, name)
    return View({}, f"{run / name}:") if data is None else _parse(data, str(run / name))


def _lines(run: Path, name: str, notes: list[str]) -> Iterator[View]:
    """One object per line. A last line without an end is what a killed process leaves: it is left out, and said."""
    data = read_bytes(run, name) or b""
    *lines, torn = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse(line, f"{run / name}:{number}")
    if torn.strip():
        try:
            yield _parse(torn, f"{run / name}:{len(lines) + 1}")
        except ArtifactError:
            notes.append(f"The last line of {name} is incomplete, as a killed process leaves it; it was left out.")


def _toml(run: Path, name: str) -> tuple[str, View]:
    data, where = read_bytes(run, name), str(run / name)
    if data is None:
        return "", View({}, f"{where}:")
    try:
        text = data.decode("utf-8")
        return text, View(tomllib.loads(text), f"{where}:")
    except (ValueError, RecursionError) as error:
        raise damaged(f"not TOML ({error})", where, "restore it from a copy of the run") from None


def _last_of_each_step(lines: list[View]) -> list[View]:
    """The log in order of steps: what a resumed run wrote again replaces what it wrote before."""
    kept: list[View] = []
    steps: list[int] = []
    for line in lines:
        step = line.index("step")
        if step < 0:
            raise damaged("no step", line.where.rstrip(":"), "restore metrics.jsonl from a copy of the run")
        while steps and steps[-1] > step:
            steps.pop()
            kept.pop()
        if steps and steps[-1] == step:
            kept[-1] = View({**kept[-1].values, **line.values}, line.where)
        else:
            steps.append(step)
            kept.append(line)
    return kept


def _sprite(run: Path, about: View) -> Sprite | None:
    """The picture of all thumbnails, decoded and written again so that nothing but pixels gets into the page."""
    name = "evaluation/thumbnails.png"
    data = read_bytes(run, name) if about else None
    if data is None:
        return None
    side, columns, count = (about.index(key) for key in ("size", "columns", "count"))
    if side < 1 or columns < 1 or count < 1:
        raise damaged("size, columns and count of the thumbnails must be at least 1", about.where.rstrip("."))
    where = str(run / name)
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        raise damaged("not a PNG picture", where)
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    if width < columns * side or height < -(-count // columns) * side or width * height > MAX_SPRITE_PIXELS:
        raise damaged(f"{width} x {height} pixels do not fit {count} thumbnails of {side} pixels", where)
    return Sprite(_encode(data, (width, height), where), side, columns, count, width, height)


def _encode(data: bytes, size: tuple[int, int], where: str) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            fits = image.size == size
            picture = image.convert("L" if image.mode in ("1", "L") else "RGB") if fits else image
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise damaged(f"the picture cannot be decoded ({printable(str(error))})", where) from None
    if not fits:
        raise damaged("its header contradicts itself", where)
    out, kind = io.BytesIO(), "png"
    picture.save(out, "PNG", optimize=True)
    if out.tell() > MAX_PNG_BYTES:
        out, kind = io.BytesIO(), "jpeg"
        picture.save(out, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
