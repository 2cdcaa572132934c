"""The README's commands on other data: each is run as written on a small file of that form, one made here and one cut from real data."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shlex
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from accord import recipe_toml

Accord = Callable[..., Any]
ROOT = Path(__file__).parent.parent
N = 60
QUICK = ["training.steps=2", "training.batch_size=8", "projector.dim=16", "projector.hidden=[16]"]
SMALL = {"image": ["encoder.name=multiscale", "encoder.stem_width=8", "encoder.widths=[8,8]"]}


def commands() -> dict[str, list[str]]:
    """The lines of the section, by the word their comment begins with."""
    section = (ROOT / "README.md").read_text().partition("## On other data\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^(accord train .+?) +# (?:an? )?(\w+)", section, re.MULTILINE)
    return {word: shlex.split(command)[1:] for command, word in lines}


def write_csv(path: Path, columns: Mapping[str, Iterable[object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))


def write_parquet(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(dict(columns)), path)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def wav(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.int16(30000 * values).tobytes())
    return buffer.getvalue()


def write_files(folder: Path, suffix: str, files: Iterable[bytes]) -> None:
    folder.mkdir()
    for i, data in enumerate(files):
        (folder / f"{i:03d}{suffix}").write_bytes(data)


def made(folder: Path) -> None:
    """A file for each command, made of random numbers."""
    rng = np.random.default_rng(0)
    pictures = [png(values) for values in rng.integers(0, 256, (N, 16, 16, 3), np.uint8)]
    words = [f"thing {i % 7} of {i % 5}, number {i}" for i in range(N)]
    level = rng.normal(size=N)
    write_files(folder / "photos", ".png", pictures)
    names = ("current", "voltage", "pressure", "temperature")
    write_csv(folder / "pump.csv", {name: level + rng.normal(size=N) for name in names})
    write_csv(folder / "cells.csv", {name: level + rng.normal(size=N) for name in "abcdef"})
    days = np.datetime64("2024-01-01T00") + np.arange(400)
    write_csv(folder / "power.csv", {"date": days, "load": np.sin(np.arange(400) / 4) + 0.1 * rng.normal(size=400)})
    write_files(folder / "spoken", ".wav", (wav(np.sin(np.arange(1600) * p)) for p in rng.uniform(0.1, 1, N)))
    write_csv(folder / "notes.csv", {"text": words})
    write_parquet(folder / "emoji.parquet", {"color": pictures, "name": words})


def cut(data: Path, folder: Path) -> None:
    """A file for each command, the first part of real data."""
    from pyarrow import parquet

    def rows(name: str, count: int, *columns: str) -> dict[str, list[Any]]:
        batch = next(parquet.ParquetFile(data / name).iter_batches(count, columns=list(columns)))
        return {column: batch.column(column).to_pylist() for column in columns}

    write_files(folder / "photos", ".jpg", rows("cifar10/test.parquet", N, "image")["image"])
    pump = rows("skab/skab.parquet", 4 * N, "Current", "Voltage", "Pressure", "Temperature")
    write_csv(folder / "pump.csv", {name.lower(): values for name, values in pump.items()})
    cells = np.load(data / "adbench/43_WDBC.npz")["X"][:N]
    write_csv(folder / "cells.csv", {f"feature {i}": column for i, column in enumerate(cells.T)})
    with gzip.open(data / "ett/ETTh1.csv.gz", "rt") as file:
        (folder / "power.csv").write_text("".join(islice(file, 400)))
    write_files(folder / "spoken", ".wav", rows("fsdd/fsdd.parquet", N, "audio")["audio"])
    emoji = rows("emoji_pairs/emoji_pairs.parquet", N, "color", "name")
    write_csv(folder / "notes.csv", {"text": emoji["name"]})
    write_parquet(folder / "emoji.parquet", emoji)


KINDS = {
    "images": ("image", "two_views"),
    "pairs": ("vector vector", "columns"),
    "rows": ("vector", "masked"),
    "series": ("series", "future"),
    "sound": ("audio", "two_views"),
    "text": ("text", "two_views"),
    "picture": ("image text", "columns"),
}


def trains(accord: Accord, folder: Path, word: str) -> None:
    """Runs the command as written but for its length and width, and looks at what it was taken for."""
    kinds, pairing = KINDS[word]
    small = [f"--set={one}" for one in (*QUICK, *SMALL.get(kinds.split()[0], []))]
    done = accord(*commands()[word], *small, "--out", folder / "run")
    assert done.code == 0, done.err
    recipe = recipe_toml.load(folder / "run" / "recipe.toml")
    sides = [side.kind for side in (recipe.data.x, recipe.data.y) if side is not None]
    assert (sides if len(sides) == 2 else [recipe.data.kind], recipe.pairing.name) == (kinds.split(), pairing)
    assert recipe.data.source == commands()[word][1]


def test_the_readme_has_one_command_for_each_kind() -> None:
    assert list(commands()) == list(KINDS)
    settings = [word for command in commands().values() for word in command if "=" in word]
    assert settings == ["pairing.name=masked", "pairing.name=future"], "a newcomer has little to say"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    made(folder)
    return folder


@pytest.fixture(scope="module")
def real_files(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    cut(data, folder)
    return folder


@pytest.mark.parametrize("word", KINDS)
def test_each_command_trains(
    word: str, files: Path, tmp_path: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    trains(accord, tmp_path, word)


@pytest.mark.data
@pytest.mark.parametrize("word", KINDS)
def test_each_command_trains_on_real_data(
    word: str, real_files: Path, tmp_path: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real_files)
    trains(accord, tmp_path, word)
