"""Tables through the command line: columns are found by their names, and what happens to them is in units of each column."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accord.data.augment import VectorAugmentation, augment_vectors
from accord.data.pairing import two_views
from accord.data.random import Draws
from accord.model.normalize import Standardize
from accord.run import open_run

Command = Callable[..., Any]
NAMES = [f"c{i}" for i in range(6)]
UNITS = 2.0 ** np.array([-20, -6, 0, 3, 9, 20])
"""Powers of two: the arithmetic of floating-point numbers is the same in all of these units."""


def values(n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.float32(rng.standard_normal((n, 3)) @ rng.standard_normal((3, 6)) + 0.1 * rng.standard_normal((n, 6)))


def table(path: Path, names: Sequence[str], matrix: np.ndarray) -> Path:
    rows = [",".join(repr(float(v)) for v in row) for row in matrix]
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    return path


def train(accord: Command, source: Path, out: Path) -> list[dict[str, Any]]:
    options = ("--set", "training.batch_size=64", "--set", "encoder.hidden=[32]", "--set", "projector.hidden=[]")
    outcome = accord("train", source, "--epochs", 8, "--out", out, *options)
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def run(accord: Command, tmp_path_factory: pytest.TempPathFactory, made: list[Path]) -> Path:
    """One run for all tests here."""
    if not made:
        folder = tmp_path_factory.mktemp("table")
        train(accord, table(folder / "t.csv", NAMES, values()), folder / "run")
        made.append(folder / "run")
    return made[0]


@pytest.fixture(scope="module")
def made() -> list[Path]:
    return []


def test_units_of_the_columns_change_nothing() -> None:
    """Noise of a tenth is a tenth of each column's standard deviation: in other units an encoder sees the same views, bit for bit."""
    draws, seen = Draws(0, 0, torch.arange(400)), []
    for units in (np.ones(6), UNITS):
        x = torch.from_numpy(np.float32(values() * units))
        layer = Standardize.fit(x)
        seen.append([layer(t) for t in two_views(VectorAugmentation(scale=0.1), units=layer)(x, draws)[:2]])
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)
    x = torch.from_numpy(np.float32(values() * UNITS))
    layer = Standardize.fit(x)
    assert not torch.allclose(layer(two_views(VectorAugmentation())(x, draws).x), seen[0][0], atol=0.1), "control"


def test_a_table_of_all_scales_is_learned(accord: Command, tmp_path: Path) -> None:
    """Without units the largest columns had no noise at all and the smallest nothing else: the energy told nothing."""
    source = table(tmp_path / "t.csv", NAMES, values() * UNITS)
    train(accord, source, tmp_path / "run")
    outcome = accord("evaluate", tmp_path / "run", "--json")
    assert outcome.code == 0 and outcome.json["energy"]["ladder"]["random"]["auroc"] > 0.75, outcome.err


def test_views_are_in_units_of_each_column_and_a_hidden_number_is_the_mean() -> None:
    mean, std = torch.tensor([5.0, -300.0, 0.0]), torch.tensor([1e-3, 100.0, 1.0])
    x = mean + std * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    draws, units = Draws(0, 0, torch.arange(4000)), Standardize.fit(x)
    noisy = augment_vectors(x, draws, VectorAugmentation(noise=0.5, mask=0.0), units)
    assert torch.allclose((noisy - x).std(0) / x.std(0), torch.tensor(0.5), rtol=0.05)
    hidden = augment_vectors(x, draws, VectorAugmentation(noise=0.0, mask=0.3), units)
    share = (hidden == units.mean).float().mean(0)
    assert torch.allclose(share, torch.tensor(0.3), atol=0.03) and bool(((hidden == x) | (hidden == units.mean)).all())
    scaled = augment_vectors(x, draws, VectorAugmentation(noise=0.0, mask=0.0, scale=0.2), units)
    factor = (scaled - units.mean)[:, 1] / (x - units.mean)[:, 1]
    assert float(factor.min()) > 0.79 and float(factor.max()) < 1.21


def test_a_run_that_is_opened_uses_the_numbers_that_it_stores(run: Path) -> None:
    opened = open_run(run)
    units = opened.pairing.units  # type: ignore[attr-defined]
    assert isinstance(units, Standardize) and units is opened.model.encoder_x.backbone[0]  # type: ignore[index]
    x = torch.from_numpy(values())
    assert torch.allclose(units.mean, x.mean(0), atol=0.3) and float(units.std.min()) > 0.3
    draws = Draws(0, 0, torch.arange(len(x)))
    expected = two_views(VectorAugmentation(), units=units)(x, draws).x
    assert torch.equal(opened.pairing(x, draws).x, expected)
    with torch.no_grad():
        units.std.mul_(2)
    assert not torch.equal(opened.pairing(x, draws).x, expected), "control: it is the layer itself that is read"


def test_bad_034_columns_in_another_order_are_found_by_their_names(accord: Command, run: Path, tmp_path: Path) -> None:
    matrix = values()
    as_it_was = table(tmp_path / "t.csv", NAMES, matrix)
    reordered = table(tmp_path / "r.csv", NAMES[::-1], matrix[:, ::-1])
    extra = table(tmp_path / "e.csv", ["id", *NAMES], np.concatenate([np.arange(400.0)[:, None], matrix], 1))
    results = []
    for path in (as_it_was, reordered, extra):
        outcome = accord("embed", run, path, "-o", tmp_path / "o.npy")
        assert outcome.code == 0, outcome.err
        results.append(np.load(tmp_path / "o.npy"))
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    np.savez(tmp_path / "unnamed.npz", x=matrix)
    assert accord("embed", run, tmp_path / "unnamed.npz", "-o", tmp_path / "o.npy").code == 0
    assert np.array_equal(results[0], np.load(tmp_path / "o.npy")), "without names columns go by their places"


def test_bad_034_a_missing_column_is_named_with_the_closest_one(accord: Command, run: Path, tmp_path: Path) -> None:
    renamed = table(tmp_path / "n.csv", ["C_0", *NAMES[1:]], values())
    fewer = table(tmp_path / "f.csv", NAMES[1:], values()[:, 1:])
    for path in (renamed, fewer):
        outcome = accord("embed", run, path, "-o", tmp_path / "o.npy")
        assert outcome.code == 3 and 'no column of numbers "c0"' in outcome.err and str(path) in outcome.err
        assert "Traceback" not in outcome.err and not (tmp_path / "o.npy").exists()
    outcome = accord("evaluate", run, "--data", fewer)
    assert outcome.code == 3 and "c0" in outcome.err
