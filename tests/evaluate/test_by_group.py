"""Calibration by groups: valid in every group where the marginal one is not, by its exact law; what is too little is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from accord.errors import ArtifactError, DataError, UsageError
from accord.evaluate import calibrate as c
from accord.evaluate.by_group import Grouped, by_group

NONE = np.zeros(0, np.uint64)


def made(energies: np.ndarray, of: np.ndarray, names: tuple[str, ...] = ("a", "b")) -> c.Calibration:
    groups = c.Groups("site", names, of)
    return c.calibrate(energies, content=NONE, model="m", preprocess="p", groups=groups)


def asked(of: list[int], names: tuple[str, ...] = ("a", "b")) -> c.Groups:
    return c.Groups("site", names, np.array(of, np.int64))


def test_each_group_has_the_energies_of_its_own_pairs_in_order() -> None:
    calibration = made(np.array([5.0, 1, 4, 2, 3]), np.array([0, 1, 0, -1, 1]))
    assert calibration.energies.tolist() == [1, 2, 3, 4, 5]
    parts = by_group(calibration, "site")
    assert {name: part.energies.tolist() for name, part in parts.items()} == {"a": [4, 5], "b": [1, 3]}
    grouped = Grouped(parts, asked([1, 0, -1, 1]), alpha=1 / 2)
    energies, rows = np.array([2.0, 4.5, 1.0, np.nan]), np.arange(4)
    np.testing.assert_array_equal(grouped.p_values(energies, rows), [2 / 3, 2 / 3, np.nan, np.nan])
    assert grouped.thresholds() == {"a": 5, "b": 3}
    assert grouped.in_accord(energies, rows).tolist() == [True, True, False, False]
    np.testing.assert_array_equal(grouped.p_values(energies[1:2], rows[1:2]), [2 / 3])


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_false_alarms_are_as_rare_as_promised_in_each_group(alpha: float) -> None:
    """2,000 draws of 40 and 99 calibration pairs; of 50 new ones the number in accord is beta-binomial, in each group by itself."""
    rng, draws, new = np.random.default_rng(5), 2000, 50
    sizes, scale = {"a": 40, "b": 99}, {"a": 1.0, "b": 3.0}
    hits: dict[str, list[int]] = {"a": [], "b": []}
    marginal: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(draws):
        energies = np.concatenate([scale[g] * rng.random(n) for g, n in sizes.items()])
        calibration = made(energies, np.repeat([0, 1], list(sizes.values())))
        fresh = np.concatenate([scale[g] * rng.random(new) for g in sizes])
        groups = asked([0] * new + [1] * new)
        found = Grouped(by_group(calibration, "site"), groups, alpha).in_accord(fresh, np.arange(2 * new))
        whole = calibration.in_accord(fresh, alpha)
        for g, rows in (("a", slice(0, new)), ("b", slice(new, None))):
            hits[g].append(int(found[rows].sum()))
            marginal[g].append(int(whole[rows].sum()))
    for g, n in sizes.items():
        left = math.floor((n + 1) * Fraction(repr(alpha)))
        assert fits(hits[g], new, n + 1 - left, left)
        assert not fits(hits[g], new, n + 2 - left, left - 1 or 1e-9), "one order statistic off would be seen"
        assert not fits(marginal[g], new, n + 1 - left, left), "all groups together are not valid in each"


def fits(counts: list[int], m: int, a: float, b: float) -> bool:
    """Chi-square test of counts against the beta-binomial law, cells of at least 5 expected."""
    law = len(counts) * scipy.stats.betabinom(m, a, b).pmf(np.arange(m + 1))
    seen = np.bincount(counts, minlength=m + 1).astype(float)
    cells: list[list[float]] = [[0.0, 0.0]]
    for e, s in zip(law, seen, strict=True):
        cells[-1][0] += e
        cells[-1][1] += s
        if cells[-1][0] >= 5:
            cells.append([0.0, 0.0])
    last = cells.pop()
    cells[-1] = [cells[-1][0] + last[0], cells[-1][1] + last[1]]
    expected, found = np.array(cells).T
    statistic = ((found - expected) ** 2 / expected).sum()
    return bool(scipy.stats.chi2(len(cells) - 1).sf(statistic) > 1e-4)


def test_a_group_with_too_few_pairs_and_one_never_seen_are_refused() -> None:
    parts = by_group(made(np.arange(30.0), np.array([0] * 19 + [1] * 11)), "site")
    assert Grouped(parts, asked([0, 0, -1]), 0.05).thresholds() == {"a": 18}
    with pytest.raises(
        DataError, match=r"0\.05 needs at least 19 calibration pairs of the same group: 'b' has 11"
    ) as refused:
        Grouped(parts, asked([0, 1]), 0.05, where="new.csv")
    assert (refused.value.exit_code, refused.value.where) == (3, "new.csv:site") and refused.value.help
    with pytest.raises(DataError, match=r"0\.1 needs at least 9 .*: 'c' has 0"):
        Grouped(parts, asked([0, 1, 2], ("a", "b", "c")), 0.1)
    with pytest.raises(DataError, match=r"a p-value needs at least 1 .*: 'c' has 0"):
        Grouped(parts, asked([2], ("a", "b", "c")))
    many = tuple(f"g{i}" for i in range(9))
    with pytest.raises(DataError, match="'g4' has 0 and 4 more"):
        Grouped(parts, asked(list(range(9)), many))
    assert Grouped(parts, asked([0, 1], ("a", "b", "c")), 0.1).thresholds().keys() == {"a", "b"}, "c does not occur"


def test_other_groups_than_those_of_the_calibration_are_refused() -> None:
    plain = c.calibrate(np.arange(9.0), content=NONE, model="m", preprocess="p")
    for calibration, word in ((plain, "without groups"), (made(np.arange(9.0), np.zeros(9, int)), "'site'")):
        with pytest.raises(UsageError, match=word) as refused:
            by_group(calibration, "region")
        assert "accord evaluate RUN --group region" in (refused.value.help or "") and refused.value.code == "E244"


def test_groups_are_kept_in_the_file_and_older_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibration = made(np.random.default_rng(0).normal(size=20), np.arange(20) % 3 - 1)
    c.save_calibration(calibration, path)
    loaded = c.load_calibration(path, model="m", preprocess="p")
    assert loaded.groups is not None and calibration.groups is not None
    assert (loaded.groups.column, loaded.groups.names) == ("site", ("a", "b"))
    assert loaded.groups.of.tolist() == calibration.groups.of.tolist()
    values = json.loads(path.read_text())
    assert values["format"] == 1
    del values["groups"]
    path.write_text(json.dumps(values))
    older = c.load_calibration(path, model="m", preprocess="p")
    assert older.groups is None and np.array_equal(older.energies, calibration.energies)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: g["of"].pop(),
        lambda g: g["of"].__setitem__(0, 2),
        lambda g: g["of"].__setitem__(0, -2),
        lambda g: g["of"].__setitem__(0, 0.5),
        lambda g: g["of"].__setitem__(0, True),
        lambda g: g.pop("column"),
        lambda g: g.__setitem__("names", ["a", 1]),
        lambda g: g.__setitem__("of", None),
    ],
)
def test_damaged_groups_are_refused(tmp_path: Path, spoil: Callable[[dict[str, object]], object]) -> None:
    path = tmp_path / "calibration.json"
    c.save_calibration(made(np.arange(9.0), np.arange(9) % 2), path)
    values = json.loads(path.read_text())
    spoil(values["groups"])
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="damaged calibration: groups"):
        c.load_calibration(path, model="m", preprocess="p")
