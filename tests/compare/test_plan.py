"""What is compared: names, groups, grids, amounts, and that no choice touches what is measured in the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accord import presets_tuning, recipe_toml
from accord.compare import plan
from accord.compare.job import without_held_out
from accord.compare.plan import (
    Amount,
    Wanted,
    check,
    chosen,
    for_trial,
    group_of,
    principles,
    recipes,
    steps_of,
    with_length,
    with_setting,
)
from accord.division import divided
from accord.errors import EnvironmentFault, UsageError
from accord.recipe import Recipe


def test_the_principles_are_those_of_the_recipe() -> None:
    assert {"vicreg", "barlow_twins", "sigreg", "visreg"} <= set(principles())
    for name in principles():
        recipe = recipe_toml.parse({"data": {"source": "x"}, "objective": {"name": name}})
        assert recipe.objective.name == name


def test_every_principle_has_one_group() -> None:
    for name in principles():
        assert [group for group, members in presets_tuning.GROUPS.items() if name in members] == [group_of(name)]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("vicreg,sigreg", ("vicreg", "sigreg")),
        (" VICReg , barlow", ("vicreg", "barlow_twins")),
        ("barlow-twins", ("barlow_twins",)),
        ("lejepa,visreg", ("sigreg", "visreg")),
    ],
)
def test_names_and_other_names(typed: str, meant: tuple[str, ...]) -> None:
    assert tuple(chosen(typed)) == meant


def test_groups_and_all() -> None:
    assert tuple(chosen("all")) == principles()
    assert set(chosen("regularised")) == set(chosen("regularized"))
    assert set(chosen("regularised")) == {p for p in principles() if group_of(p) == "regularised"}


def refused(wanted: Wanted, code: str) -> str:
    with pytest.raises(UsageError) as caught:
        check(wanted)
    assert caught.value.code == code and caught.value.help and caught.value.where
    return "\n".join(caught.value.lines())


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"principles": "vicreg,sigregg"}, "E270", "did you mean 'sigreg'?"),
        ({"principles": "vicreg,,sigreg"}, "E270", "known: vicreg"),
        ({"principles": "vicreg,vicreg"}, "E271", "vicreg is named twice"),
        ({"principles": "barlow,barlow_twins"}, "E271", "as barlow and barlow_twins"),
        ({"principles": "regularised,sigreg"}, "E271", "sigreg is named twice"),
        ({"seeds": 0}, "E272", "--seeds 0"),
        ({"budget": "0.5s"}, "E273", "0.5 s is too short"),
        ({"budget": "0", "equal": "steps"}, "E273", "0 steps"),
        ({"budget": "9", "equal": "steps"}, "E273", "9 steps are too short"),
        ({"trials": 0}, "E274", "1 to 9"),
        ({"trials": 10}, "E274", "1 to 9"),
        ({"reference": "visreg"}, "E275", "'visreg' is not one"),
        ({"equal": "hours"}, "E277", "seconds, steps, passes"),
    ],
)
def test_wrong_wishes_are_refused_before_any_data_is_read(changed: dict[str, object], code: str, says: str) -> None:
    wanted = Wanted(**{"source": "nowhere", "principles": "vicreg,sigreg", **changed})  # type: ignore[arg-type]
    assert says in refused(wanted, code)


def test_the_reference_comes_first() -> None:
    names, _ = check(Wanted(source="x", principles="vicreg,sigreg,visreg", reference="visreg"))
    assert list(names) == ["visreg", "vicreg", "sigreg"]


def test_amounts() -> None:
    assert Amount.of("90s", "seconds") == Amount(90.0, None)
    assert Amount.of("500", "steps") == Amount(None, 500)
    assert Amount.of("1m", "passes") == Amount(60.0, None)


def test_steps_from_counts_and_times() -> None:
    seconds, passes = {"a": 0.1, "b": 0.2}, {"a": 100.0, "b": 150.0}
    assert steps_of("steps", Amount(None, 40), {}, {}, ["a", "b"]) == {"a": 40, "b": 40}
    assert steps_of("steps", Amount(10.0, None), seconds, passes, ["a", "b"]) == {"a": 50, "b": 50}, "as the slower one"
    assert steps_of("passes", Amount(None, 3000), {}, passes, ["a", "b"]) == {"a": 30, "b": 20}
    found = steps_of("passes", Amount(10.0, None), seconds, passes, ["a", "b"])
    assert found == {"a": 75, "b": 50}, "equal passes, and b just fits into 10 s"


@pytest.mark.parametrize("name", principles())
def test_every_grid_has_nine_different_settings_that_are_valid(name: str) -> None:
    grid = presets_tuning.grid(name)
    assert len(set(grid)) == len(grid) == presets_tuning.MOST
    assert grid[0].words() == "as the recipe says"
    recipe = recipe_toml.parse({"data": {"source": "x"}, "objective": {"name": name}})
    tried = [with_setting(recipe, setting) for setting in grid]
    assert tried[0] == recipe
    assert len({t.model_dump_json() for t in tried}) == len(grid), "a value of the grid is the default"


def test_recipes_differ_in_nothing_but_the_principle() -> None:
    wanted = Wanted(source="digits", principles="", settings=["optimizer.learning_rate=0.01", "training.seed=5"])
    found, _, left_out = recipes(wanted, chosen("vicreg,sigreg"))
    assert left_out == []
    a, b = (found[name].to_dict() for name in ("vicreg", "sigreg"))
    assert a.pop("objective")["name"] == "vicreg" and b.pop("objective")["name"] == "sigreg"
    assert a == b and a["data"]["split_seed"] == 5 and a["optimizer"]["learning_rate"] == 0.01


def test_a_setting_of_one_principle_alone_is_refused() -> None:
    wanted = Wanted(source="digits", principles="", settings=["objective.covariance=2"])
    with pytest.raises(UsageError, match="covariance") as caught:
        recipes(wanted, chosen("vicreg,sigreg"))
    assert caught.value.code == "E203"


def test_of_a_group_only_what_suits_the_data_is_compared() -> None:
    wanted = Wanted(source="digits", principles="", settings=["objective.covariance=2"])
    found, _, left_out = recipes(wanted, chosen("regularised"))
    assert set(found) == {"vicreg", "vicregl"}
    assert any(line.startswith("sigreg is left out: unknown key") for line in left_out)
    wanted = Wanted(source="digits", principles="", settings=["optimizer.learning_rate=-1"])
    with pytest.raises(UsageError, match="learning_rate"):
        recipes(wanted, chosen("regularised"))


def test_data_that_do_not_suit_a_principle_by_name_say_which(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b,c\n" + "".join(f"{i}.5,{i % 7}.5,{i % 3}.5\n" for i in range(40)))
    wanted = Wanted(
        source=str(table), principles="", settings=["pairing.name=columns", 'pairing.x=["a", "b"]', 'pairing.y=["c"]']
    )
    with pytest.raises(UsageError, match="byol: one encoder cannot take both") as caught:
        recipes(wanted, chosen("vicreg,byol"))
    assert caught.value.code == "E213"
    found, _, left_out = recipes(wanted, chosen("generative"))
    assert set(found) == {"pixel_predictor"}, "the others make x of x: found out now, not after hours of other runs"
    assert any("autoencoder is left out: an auto-encoder makes x of x" in line for line in left_out)


def test_a_package_that_is_missing_costs_a_group_one_principle(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(recipe: Recipe) -> None:
        if recipe.objective.name == "sigreg":
            raise EnvironmentFault("needs a package that is not installed", code="E520")

    monkeypatch.setattr(plan, "unfilled", missing)
    wanted = Wanted(source="digits", principles="")
    found, _, left_out = recipes(wanted, chosen("regularised"))
    assert "sigreg" not in found and len(left_out) == 1
    with pytest.raises(EnvironmentFault):
        recipes(wanted, chosen("vicreg,sigreg"))


def test_runs_of_all_seeds_share_the_split_and_trials_never_see_it() -> None:
    found, samples, _ = recipes(Wanted(source="digits", principles=""), chosen("vicreg"))
    recipe = found["vicreg"]
    parts = [divided(with_length(recipe, steps=1, seed=seed), samples) for seed in (0, 1, 7)]
    for train, held_out in parts[1:]:
        np.testing.assert_array_equal(train, parts[0][0])
        np.testing.assert_array_equal(held_out, parts[0][1])
    train, held_out = parts[0]
    hidden = without_held_out(samples, recipe, recipe.data.held_out)
    small, validation = divided(with_length(for_trial(recipe), steps=1, seed=1_000_000), hidden)
    assert not np.isin(held_out, np.concatenate([small, validation])).any()
    np.testing.assert_array_equal(np.sort(np.concatenate([small, validation])), train)
    assert 0.15 < len(validation) / len(train) < 0.25
    seen, _ = divided(for_trial(recipe), samples)
    np.testing.assert_array_equal(seen, small), "hiding takes nothing from what trials are trained on"
