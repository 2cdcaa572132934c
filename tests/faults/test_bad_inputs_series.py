"""The rows of the catalogue of bad inputs that concern series: the exit code, the culprit by name and a remedy, or a rule and a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accord.data.samples import Samples
from accord.data.series_sources import SeriesOptions
from accord.data.sources import open_source
from accord.errors import AccordError, UsageError
from accord.model.normalize import Standardize
from accord.model.series import SeriesConv


def refused(code: str, says: list[str], source: Any, options: SeriesOptions, **more: Any) -> None:
    """Opening must end with exit code 3, a message that names the culprit, and a remedy."""
    with pytest.raises(AccordError) as caught:
        open_source(source, series=options, **more)
    error = caught.value
    assert (error.exit_code, error.code) == (3, code), str(error)
    for word in says:
        assert word in str(error), f"{word!r} is not in: {error}"
    assert error.help and error.where


def table(path: Path, times: list[str], values: list[float] | None = None) -> Path:
    numbers = values or [float(i % 7) for i in range(len(times))]
    path.write_text("when,v\n" + "".join(f"{t},{v}\n" for t, v in zip(times, numbers, strict=True)))
    return path


def hours(n: int, zone: str = "") -> list[str]:
    return [f"2024-03-{1 + h // 24:02d} {h % 24:02d}:00:00{zone}" for h in range(n)]


def said(samples: Samples, *words: str) -> bool:
    return any(all(word in note for word in words) for note in samples.notes)


def row_057(tmp: Path) -> None:
    lengths = [60, 60, 12, 60]
    text = "@data\n" + "\n".join(",".join(str((i * 7 + k) % 5) for i in range(n)) for k, n in enumerate(lengths))
    (tmp / "s.ts").write_text(text)
    options = SeriesOptions(window=36, stride=6)
    refused("E381", ["s.ts:2", "12 steps, 36 are needed", "max_bad_fraction"], tmp / "s.ts", options)
    kept = open_source(tmp / "s.ts", series=options, max_bad_fraction=0.3)
    assert [item.code for item in kept.bad] == ["E381"] and int(kept.ok.sum()) == 15


def row_058(tmp: Path) -> None:
    (tmp / "s.ts").write_text("@data\n1,2,3,1,2\n4,6\n2,2,1,4,5,3,2,1,3\n")
    samples = open_source(tmp / "s.ts")
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(Standardize([2.0], [1.0]), SeriesConv(1, width=8, blocks=2)).eval()
    batch = samples.batch(np.arange(3))
    assert isinstance(batch, torch.Tensor) and batch.shape == (3, 9, 1)
    together = encoder(batch)
    for i in range(3):
        alone = samples.batch(np.array([i]))
        torch.testing.assert_close(encoder(alone)[0], together[i])
    assert not torch.allclose(encoder(batch.nan_to_num())[1], together[1]), "padding with numbers would be noticed"


def row_059(tmp: Path) -> None:
    options = SeriesOptions(time="when", window=4)
    twice = table(tmp / "twice.csv", [*hours(6), "2024-03-01 02:00:00"])
    refused("E383", ["same time twice", "twice.csv:6", "data.group"], twice, options)
    refused("E382", ["no time", "gone.csv:2, gone.csv:4"], table(tmp / "gone.csv", ["1", "2", "", "4", " "]), options)
    mixed = table(tmp / "mixed.csv", [*hours(5), *hours(6, "+01:00")[5:]])
    refused("E384", ["offset from UTC", "mixed.csv:5"], mixed, options)
    shuffled = open_source(table(tmp / "mess.csv", hours(9)[::-1]), series=options)
    assert said(shuffled, "8 rows were not in the order of their time", "mess.csv:1") and len(shuffled) == 6
    ahead = open_source(table(tmp / "ahead.csv", [t.replace("2024", "2990") for t in hours(6)]), series=options)
    assert said(ahead, "6 times lie in the future", "ahead.csv:0")


def row_060(tmp: Path) -> None:
    times = hours(40)
    values = [float(i % 7) for i in range(40)]
    gap = table(tmp / "gap.csv", times[:10] + times[18:], values[:10] + values[18:])
    samples = open_source(gap, series=SeriesOptions(time="when", window=6))
    assert said(samples, "8 steps are missing", "longest gap is 8 steps (9 hours)")
    batch = samples.batch(np.flatnonzero(samples.ok))
    assert isinstance(batch, torch.Tensor) and bool(batch.isnan().any()) and not bool(batch.isnan().all((1, 2)).any())


def row_061(tmp: Path) -> None:
    flat = np.ones((4, 6, 2), np.float32)
    refused("E316", ["constant"], flat, SeriesOptions())
    flat[0, :, 0] = np.arange(6)
    samples = open_source(flat)
    assert said(samples, "zero-variance samples: 3")
    batch = samples.batch(np.arange(4))
    assert isinstance(batch, torch.Tensor)
    assert bool(Standardize.fit(batch)(batch).isfinite().all()), "a constant channel is centred and not scaled"


def row_062(tmp: Path) -> None:
    """What applies to series without actions: labels and arrays of other lengths than the series."""
    array = np.random.default_rng(0).normal(size=(5, 6, 1))
    refused("E336", ["5 samples but 4 labels"], {"x": array, "y": np.arange(4) % 2}, SeriesOptions())
    refused("E366", ["4 rows", "5"], {"u": np.arange(5.0), "v": np.arange(4.0)}, SeriesOptions(group=()))
    refused("E381", ["1 steps, 3 are needed"], {"u": np.arange(1.0)}, SeriesOptions(group=(), window=3))


def row_063(tmp: Path) -> None:
    for name, scale in (("a", 1.0), ("b", 1000.0), ("c", 1.0)):
        table(tmp / f"{name}.csv", hours(12), [scale * (1 + i % 5) for i in range(12)])
    samples = open_source(str(tmp / "*.csv"), series=SeriesOptions(time="when", window=4))
    assert said(samples, '"v" is 1e+03 times as large in b.csv', "unit")
    assert sum("unit" in note for note in samples.notes) == 1


ROWS = {name: function for name, function in sorted(vars().items()) if name.startswith("row_")}


@pytest.mark.parametrize("row", [pytest.param(function, id=f"bad-{name[4:]}") for name, function in ROWS.items()])
def test_bad_input(row: Callable[[Path], None], tmp_path: Path) -> None:
    row(tmp_path)


def test_windows_are_not_made_of_rows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="windows are of series"):
        open_source(table(tmp_path / "t.csv", ["1", "2", "3"]), series=SeriesOptions(window=2))
