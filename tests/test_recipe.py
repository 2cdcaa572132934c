"""A recipe is validated, survives a round trip through TOML and is never converted in silence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord import recipe_toml
from accord.build_objective import PRINCIPLES
from accord.errors import UsageError
from accord.recipe import Recipe

BASE: dict[str, Any] = {"data": {"source": "digits"}, "objective": {"name": "vicreg"}}


def parse(*assignments: str) -> Recipe:
    return recipe_toml.parse(recipe_toml.override(BASE, assignments))


def refused(*assignments: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(*assignments)
    assert caught.value.exit_code == 2
    assert caught.value.help
    return caught.value


@given(
    lr=st.floats(min_value=1e-8, max_value=10, allow_nan=False),
    hidden=st.lists(st.integers(1, 4096), max_size=3),
    source=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    objective=st.sampled_from(sorted(PRINCIPLES)),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(lr: float, hidden: list[int], source: str, objective: str) -> None:
    table = {
        "data": {"source": source},
        "optimizer": {"learning_rate": lr},
        "projector": {"hidden": hidden},
        "objective": {"name": objective},
    }
    recipe = recipe_toml.parse(table)
    assert recipe_toml.parse(tomllib.loads(recipe_toml.dumps(recipe))) == recipe


def test_values_are_toml_or_else_text() -> None:
    recipe = parse("optimizer.learning_rate=0.5", "training.epochs=3", "projector.hidden=[7, 8]", "data.column=color")
    assert recipe.optimizer.learning_rate == 0.5
    assert recipe.training.epochs == 3
    assert recipe.projector.hidden == [7, 8]
    assert recipe.data.column == "color"


def test_merging_a_table_that_names_another_variant_replaces_it() -> None:
    base = {"objective": {"name": "vicreg", "variance": 1.0}, "training": {"seed": 1, "batch_size": 8}}
    merged = recipe_toml.merge(base, {"objective": {"name": "sigreg"}, "training": {"seed": 2}})
    assert merged == {"objective": {"name": "sigreg"}, "training": {"seed": 2, "batch_size": 8}}
    assert base["training"] == {"seed": 1, "batch_size": 8}


@pytest.mark.parametrize(
    ("assignment", "known"),
    [
        ("optimizer.leraning_rate=1", "optimizer.learning_rate"),
        ("optimizer.lr=1", "optimizer.learning_rate"),
        ("traning.epochs=1", "training"),
        ("objective.varience=1", "objective.variance"),
        ("pairing.augment.blurr=0.1", "pairing.augment.blur"),
    ],
)
def test_bad_064_unknown_keys_are_refused_with_the_closest_known_one(assignment: str, known: str) -> None:
    error = refused(assignment)
    assert (
        assignment.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in error.message
        or assignment.split(".", maxsplit=1)[0] in error.message
    )
    assert known in (error.help or "")


def test_bad_064_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nsource = "digits"\n\n[optimizer]\nname = "sgd"\nleraning_rate = 1.0\n')
    with pytest.raises(UsageError) as caught:
        recipe_toml.load(path)
    assert caught.value.where == f"{path}:6:optimizer.leraning_rate"


@pytest.mark.parametrize(
    "assignment",
    [
        "optimizer.learning_rate='1e-3'",
        "optimizer.learning_rate=yes",
        "optimizer.learning_rate=true",
        "training.batch_size='2'",
        "training.batch_size=2.5",
        "training.epochs=null",
    ],
)
def test_bad_065_wrong_types_are_not_converted(assignment: str) -> None:
    error = refused(assignment)
    assert assignment.split("=", maxsplit=1)[0] in error.message
    assert "should be a valid" in error.message


@pytest.mark.parametrize(
    "assignment",
    [
        "optimizer.learning_rate=0",
        "optimizer.learning_rate=-1.0",
        "optimizer.learning_rate=nan",
        "optimizer.momentum=1.5",
        "encoder={name='vit_tiny', patch=0}",
        "projector.dim=0",
        "data.held_out=0.0",
        "data.held_out=1.0",
        "training.batch_size=1",
        "training.seed=-1",
        "objective.variance=-1.0",
        "pairing.augment.ratio=[0.5]",
    ],
)
def test_bad_066_bounds_are_stated(assignment: str) -> None:
    error = refused(assignment)
    assert any(word in error.message for word in ("greater than", "less than", "at least", "finite")), error.message


@pytest.mark.parametrize(
    "text", ["a = 1\na = 2\n", "a = [\n", "\ta: 1\n&anchor", "a = !!python/object:os.system", "[" * 2000]
)
def test_bad_069_what_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="TOML"):
        recipe_toml.load(path)


def test_bad_069_huge_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"#" * 50_000_000)
    with pytest.raises(UsageError, match="1,000,000 bytes"):
        recipe_toml.load(path)


@pytest.mark.parametrize(
    "name", ["os.system", "logging.os.system", "builtins.eval", "accord.cli.main", "${oc.env:HOME}"]
)
def test_bad_070_names_are_not_import_strings(name: str) -> None:
    assert "encoder" in refused(f"encoder={{name='{name}'}}").message


def test_bad_071_nothing_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    recipe = parse("data.source='${oc.env:SECRET} $SECRET ~'")
    assert recipe.data.source == "${oc.env:SECRET} $SECRET ~"


@pytest.mark.parametrize("version", [2, 0, "1"])
def test_bad_072_other_formats_are_refused(version: object) -> None:
    with pytest.raises(UsageError, match="format") as caught:
        recipe_toml.parse({**BASE, "format": version})
    assert "version" in (caught.value.help or "")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"size": 16, "augment": {"preset": "digits"}},
        {"name": "two_views", "local": 2},
        {"name": "halves", "split": "top_bottom"},
        {"name": "halves", "size": 8, "augment": {"shift": 0.1}},
        {"name": "columns"},
        {"name": "columns", "x": ["a", 3], "y": ["b"]},
        {"name": "masked_blocks", "patch": 2, "block": 2, "blocks": 4, "augment": {}},
    ],
)
def test_every_pairing_survives_a_round_trip(table: dict[str, Any]) -> None:
    recipe = recipe_toml.parse({**BASE, "pairing": table})
    assert recipe.pairing.name == table.get("name", "two_views"), "a recipe that names no pairing means two views"
    assert recipe_toml.parse(tomllib.loads(recipe_toml.dumps(recipe))) == recipe
    for key, value in table.items():
        assert recipe.pairing.model_dump(exclude_none=True, exclude_unset=True)[key] == value


@pytest.mark.parametrize(
    ("assignment", "message", "help"),
    [
        ("pairing={name='halfs'}", "no pairing named 'halfs'", "did you mean 'halves'?"),
        ("pairing={name='halves', splt='left_right'}", "unknown key 'pairing.splt'", "did you mean 'pairing.split'?"),
        ("pairing={name='halves', split='diagonal'}", "pairing.split", "docs"),
        ("pairing={name='halves', local=2}", "unknown key 'pairing.local'", "pairing.local"),
        ("pairing={name='columns', x=[true]}", "pairing.x", "docs"),
        ("pairing={name='masked_blocks', blocks=0}", "pairing.blocks", "docs"),
    ],
)
def test_wrong_pairings_are_named(assignment: str, message: str, help: str) -> None:
    error = refused(assignment)
    assert message in error.message and help in (error.help or "")


def test_one_length_only() -> None:
    assert "epochs and budget" in refused("training.epochs=1", "training.budget='1m'").message


@pytest.mark.parametrize("assignment", ["novalue", "=1", ".a=1", "format.a=1"])
def test_malformed_assignments(assignment: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_toml.override({"format": 1}, [assignment])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("assignment", ["training=5", "data=[]", "encoder=multiscale", "pairing.augment=photo"])
def test_a_table_cannot_be_set_to_a_value(assignment: str) -> None:
    with pytest.raises(UsageError, match="is a table, not a value") as caught:
        recipe_toml.override({}, [assignment])
    assert caught.value.exit_code == 2 and assignment.split("=", maxsplit=1)[0] + "." in (caught.value.help or "")
    assert recipe_toml.override({}, ["training={steps=5}"]) == {"training": {"steps": 5}}


def test_a_key_of_another_variant_says_so() -> None:
    assert "set encoder.name as well" in (refused("encoder.name=multiscale", "encoder.hidden=[3]").help or "")


@pytest.mark.parametrize(
    ("table", "name", "close"),
    [("latent", "gausian", "gaussian"), ("objective", "vicregg", "vicreg"), ("minimizer", "enumerat", "enumerate")],
)
def test_an_unknown_variant_is_named_with_the_closest_known_one(table: str, name: str, close: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_toml.parse({"data": {"source": "digits"}, table: {"name": name}})
    assert caught.value.where == f"recipe:{table}.name"
    assert name in caught.value.message and f"did you mean {close!r}?" in str(caught.value.help)
