"""The words follow from the figures, and claim no more: made-up figures with known answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from accord.report.compare_numbers import Results, against, best, means, pairs, tables
from accord.report.compare_words import paragraph

Rows = Mapping[str, Sequence[float]]


def results(rows: Rows, *, key: str = "linear", more: Mapping[str, Rows] | None = None, **changed: object) -> Results:
    """Results with one measure, or several, of rows that are principles or baselines."""
    principles = [name for name in rows if name not in ("untrained", "pixels", "pca")]
    seeds = range(max(len(values) for values in rows.values()))
    values = {k: {name: dict(enumerate(v)) for name, v in r.items()} for k, r in {key: rows, **(more or {})}.items()}
    return Results(principles, list(seeds), values, amount="60 s", **changed)  # type: ignore[arg-type]


def words(found: Results, shares: Mapping[str, float] | None = None) -> str:
    return " ".join(paragraph(found, shares))


CLEAR: Rows = {"vicreg": [0.971, 0.975, 0.968], "sigreg": [0.951, 0.953, 0.947], "visreg": [0.90, 0.907, 0.899]}
NOISY: Rows = {"vicreg": [0.95, 0.97, 0.96], "sigreg": [0.97, 0.95, 0.955], "visreg": [0.96, 0.955, 0.965]}


def test_a_clear_winner_is_named_with_its_lead() -> None:
    said = words(results(CLEAR))
    assert "with 60 s for each run and 3 seeds for each of 3 principles (VICReg, SIGReg and VISReg)" in said
    assert (
        "VICReg is better than each of the others on the linear probe (97.1\u202f%; the closest, SIGReg, is behind by 2.1 ± 0."
        in said
    )
    assert "cannot be told" not in said
    assert "Holm's correction for all 3 pairs" in said
    assert "With 3 seeds small differences go unseen" in said


def test_two_principles() -> None:
    said = words(results({"vicreg": [0.97, 0.98, 0.96], "sigreg": [0.95, 0.961, 0.939]}))
    assert "VICReg is better than SIGReg on the linear probe (difference 2.0 ± 0." in said
    assert "the one pair" in said


def test_what_cannot_be_told_apart_is_not_ranked() -> None:
    said = words(results(NOISY))
    assert "The 3 principles cannot be told apart on the linear probe; means from 95.8\u202f% to 96.0\u202f%." in said
    assert "better" not in said


def test_ties_claim_nothing() -> None:
    said = words(results({"vicreg": [0.9, 0.9, 0.9], "sigreg": [0.9, 0.9, 0.9]}))
    assert "Both principles cannot be told apart" in said and "better" not in said
    said = words(results({"vicreg": [0.92, 0.92, 0.92], "sigreg": [0.9, 0.9, 0.9]}))
    assert "Both principles cannot be told apart" in said, "equal to the last digit says nothing of how it varies"


def test_retrieval_among_fewer_is_not_ranked() -> None:
    rows: Rows = {"vicreg": [0.2, 0.21, 0.22], "cvae": [0.8, 0.83, 0.81]}
    assert best(results(rows, key="recall@1"), "recall@1")[0] == ["cvae"], "a control: it would lead"
    found = results(rows, key="recall@1", fewer=frozenset({"cvae"}))
    assert best(found, "recall@1")[0] == ["vicreg"] and pairs(found, "recall@1") == []
    assert best(results(rows, fewer=frozenset({"cvae"})), "linear")[0] == ["cvae"], "probes are not touched"


def test_a_leader_that_is_not_alone() -> None:
    rows = {**CLEAR, "barlow_twins": [0.970, 0.966, 0.975]}
    said = words(results(rows, more={}))
    assert (
        "VICReg has the highest mean on the linear probe (97.1\u202f%), but Barlow Twins cannot be told from it; "
        in said
    )
    assert "VICReg is better than" in said and "VICReg is better than each" not in said


def test_many_principles_need_larger_differences() -> None:
    two: Rows = {"a": [0.90, 0.92, 0.91], "b": [0.88, 0.895, 0.891]}
    assert best(results(two), "linear")[0] == ["a"]
    crowd = {f"c{i}": [0.70 + 0.01 * (i + j) % 0.05 for j in range(3)] for i in range(8)}
    many = results({**two, **crowd})
    assert "b" in best(many, "linear")[0], "after the correction for 45 pairs the same difference does not stand"


def test_a_reference_that_was_chosen_before_needs_fewer_tests() -> None:
    rows = {"a": [0.90, 0.905, 0.902], "b": [0.95, 0.957, 0.951], "c": [0.80, 0.803, 0.806], "d": [0.901, 0.9, 0.905]}
    crowd = {f"c{i}": [0.85 + 0.03 * ((i * 7 + j * 3) % 5) / 5 for j in range(3)] for i in range(6)}
    assert "Against a" not in words(results({**rows, **crowd}))
    said = words(results({**rows, **crowd}, held_against="a"))
    assert "Against a alone, corrected for 9 principles, on the linear probe: b is better" in said
    assert re.search(r"and c( and c\d)* (is|are) worse; ", said) and "cannot be told from it" in said


def test_many_names_are_counted() -> None:
    rng = np.random.default_rng(0)
    rows = {f"p{i:02d}": rng.normal(0.9, 0.01, 3).tolist() for i in range(15)} | {"far": [0.1, 0.11, 0.102]}
    said = words(results(rows))
    assert "for each of 16 principles:" in said
    assert "14 others cannot be told from it" in said


def test_one_seed_has_no_interval_and_says_so() -> None:
    said = words(results({"vicreg": [0.97], "sigreg": [0.60], "untrained": [0.5], "pixels": [0.4]}))
    assert "One seed has no interval" in said
    assert "Linear probe, in order: VICReg 97.0\u202f%, SIGReg 60.0\u202f%." in said
    six = words(results({f"p{i}": [0.9 - i / 10] for i in range(6)}))
    assert "p3 60.0\u202f%, and 2 more below." in six, "that there are others is said"
    assert "±" not in said and "better" not in said and "chance (" not in said
    assert "The untrained encoder already reaches 50.0\u202f% on the linear probe." in said


def test_all_collapsed() -> None:
    collapsed = {name: {"dimensional": 3} for name in CLEAR}
    said = words(results(CLEAR, collapsed=collapsed))
    assert said.count("collapsed in 3 of 3 runs (dimensional)") == 3
    assert "No principle came through" in said
    assert "VICReg, all of whose runs collapsed (dimensional), is better" in said


def test_all_failed() -> None:
    found = Results(
        ["vicreg", "sigreg"], [0, 1], {}, failed={"vicreg": {"diverged": 2}, "sigreg": {"died": 2}}, amount="9 s"
    )
    said = words(found)
    assert "VICReg failed in 2 of 2 runs (2 diverged), so it is not ranked." in said
    assert "No principle has figures for every seed" in said and "better" not in said


def test_a_principle_with_a_failed_run_is_not_ranked() -> None:
    found = results({**CLEAR, "barlow_twins": [0.999]}, failed={"barlow_twins": {"diverged": 2}})
    said = words(found)
    assert "Barlow Twins failed in 2 of 3 runs (2 diverged), so it is not ranked." in said
    assert "VICReg is better than each of the others" in said
    assert "barlow_twins" not in best(found, "linear")[0]


def test_the_untrained_encoder_and_the_raw_input() -> None:
    rows = {**CLEAR, "untrained": [0.945, 0.95, 0.941], "pixels": [0.99], "pca": [0.93]}
    said = words(results(rows))
    assert (
        "The untrained encoder already reaches 94.5\u202f% on the linear probe; of the principles only VICReg and SIGReg are above it"
        in said
    )
    assert "and VISReg is below it" in said
    assert "the raw input reaches 99.0\u202f% without any training; more than the mean of any principle" in said
    rows = {**NOISY, "untrained": [0.96, 0.955, 0.96]}
    assert "no principle is above it by more than chance" in words(results(rows))


def test_without_labels_energies_speak() -> None:
    found = results({"vicreg": [0.99, 0.991, 0.989], "sigreg": [0.97, 0.972, 0.968]}, key="random")
    said = words(found)
    assert (
        "VICReg is better than SIGReg at telling matched from random pairs by the energy (AUROC) (difference 0.020 ± 0.00"
        in said
    )
    assert "linear probe" not in said


def test_unfinished_and_unequal_machines_are_told() -> None:
    said = words(results(CLEAR, open=1), {"vicreg": 0.9, "sigreg": 0.6, "visreg": 0.8})
    assert "1 run is still to come" in said
    assert "0.60 seconds of processor time a second to SIGReg, 0.90 to VICReg" in said
    assert "processor" not in words(results(CLEAR), {"vicreg": 0.9, "sigreg": 0.88, "visreg": 0.89})


def test_tables_hold_what_the_words_say() -> None:
    found = results({**CLEAR, "untrained": [0.945, 0.95, 0.941]})
    assert means(found)["vicreg"]["linear"].mean == pytest.approx(0.97133, abs=1e-4)
    listed = pairs(found, "linear")
    assert len(listed) == 3 and all(pair.difference.mean > 0 for pair in listed)
    assert [pair.a for pair in listed if pair.b == "visreg"] and listed[0].differs
    held = against(found, "linear", "vicreg")
    assert set(held) == {"sigreg", "visreg"} and all(pair.difference.mean < 0 for pair in held.values())
    stored = tables(found)
    assert {"means", "differences", "against_reference", "against_untrained"} == set(stored)


@pytest.mark.parametrize("seed", range(8))
def test_pure_chance_is_rarely_called_a_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    false = 0
    for _ in range(60):
        rows = {name: rng.normal(0.9, 0.01, 3).tolist() for name in "abcde"}
        false += any(pair.differs for pair in pairs(results(rows), "linear"))
    assert false <= 10, "at 5 % 3 of 60 are expected"
