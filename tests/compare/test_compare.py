"""A comparison from the command line: its folder, its tables, and that it goes on where it was."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accord import recipe_toml
from accord.compare import job as jobs
from accord.compare.harness import compare
from accord.compare.job import Job, outcome_of
from accord.compare.plan import Wanted
from accord.errors import ArtifactError, Diverged, EnvironmentFault, Interrupted, Locked, UsageError
from accord.terminal import Terminal
from accord.train.run_directory import LOCK, acquire_lock
from accord.train.signals import Stop

SMALL = ["encoder.hidden=[32]", "projector.hidden=[32]", "projector.dim=16", "training.batch_size=64"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisy classes of rows of eight numbers."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    rows = rng.normal(size=(3, 8))[label] + 0.7 * rng.normal(size=(300, 8))
    path = tmp_path_factory.mktemp("data") / "table.npz"
    np.savez(path, x=rows.astype(np.float32), label=label)
    return path


@pytest.fixture
def wanted(table: Path) -> Callable[..., Wanted]:
    """Two principles, two seeds, 12 steps of a small encoder."""
    return partial(asked, table)


def asked(table: Path, out: Path, **changed: Any) -> Wanted:
    given = {"principles": "vicreg,sigreg", "budget": "12", "equal": "steps", "seeds": 2, "settings": SMALL}
    return Wanted(**{"source": str(table), "out": out, **given, **changed})


class Here:
    """Does jobs in this process, counts them, and does something else where `instead` says so."""

    def __init__(self, instead: Callable[[Job], dict[str, Any] | None] = lambda job: None):
        self.done: list[str] = []
        self.instead = instead

    def __call__(self, job: Job, stop: Stop, said: Callable[[str], None]) -> dict[str, Any]:
        other = self.instead(job)
        self.done.append(f"{job.kind} {Path(job.out).parent.name}/{Path(job.out).name}")
        return jobs.perform(job, stop, said) if other is None else other


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, table: Path) -> tuple[Path, dict[str, Any], Here]:
    out = tmp_path_factory.mktemp("compare") / "c"
    here = Here()
    return out, compare(asked(table, out), Terminal(as_json=True), perform=here), here


Ask = Callable[..., Wanted]
Finished = tuple[Path, dict[str, Any], Here]


def test_every_run_is_an_ordinary_run_directory(finished: Finished, accord: Callable[..., Any]) -> None:
    out, state, here = finished
    assert here.done == [
        "baseline baselines/seed-0",
        "run vicreg/seed-0",
        "run sigreg/seed-0",
        "baseline baselines/seed-1",
        "run vicreg/seed-1",
        "run sigreg/seed-1",
    ]
    for run in state["runs"]:
        names = {path.name for path in (out / run["folder"]).iterdir()}
        assert {"recipe.toml", "metrics.jsonl", "checkpoints", "evaluation.json", "report.html"} <= names
        assert run["status"] == "done" and run["steps"] == 12
    run = out / state["runs"][0]["folder"]
    before = json.loads((run / "evaluation.json").read_text())
    copy = out.parent / "copy"
    shutil.copytree(run, copy)
    assert accord("evaluate", copy).code == 0
    after = json.loads((copy / "evaluation.json").read_text())
    assert after["energy"] == before["energy"] and after["retrieval"] == before["retrieval"]
    assert after["probes"] == before["probes"], "baselines stand in every run, measured once"


def test_what_is_reported_of_a_run(finished: Finished) -> None:
    _, state, _ = finished
    for run in state["runs"]:
        assert {"linear", "few_label", "knn", "recall@1", "random", "nearest", "perturbed"} <= set(run["metrics"])
        assert run["seconds"] > 0 and run["cpu_seconds"] > 0 and run["peak_memory"] > 1e8
        assert run["samples_per_second"] == pytest.approx(12 * 64 / run["seconds"])
        assert run["curve"]["step"][-1] == 12
    passes = {run["principle"]: run["passes"] for run in state["runs"]}
    assert passes["vicreg"] == pytest.approx(12 * 64 * 2, rel=0.3), "two views a sample, and a small covariance"
    assert passes["sigreg"] > 2 * passes["vicreg"], "1,024 slices of a batch cost more than so small an encoder"
    rows = state["means"]
    assert set(rows) == {"vicreg", "sigreg", "untrained", "pixels", "pca"}
    values = [run["metrics"]["linear"] for run in state["runs"] if run["principle"] == "vicreg"]
    assert rows["vicreg"]["linear"]["mean"] == pytest.approx(sum(values) / 2)
    assert rows["untrained"]["random"]["n"] == 2 and rows["pixels"]["linear"]["n"] == 1
    (pair,) = state["differences"]["linear"]
    assert {pair["a"], pair["b"]} == {"vicreg", "sigreg"} and pair["mean"] >= 0


def test_the_same_seed_begins_with_the_same_encoder_and_sees_the_same_data(finished: Finished) -> None:
    out, _, _ = finished
    recipes = [(out / "runs" / name / "seed-1" / "recipe.toml").read_text() for name in ("vicreg", "sigreg")]
    common = [text.splitlines() for text in recipes]
    objective = [lines.index("[objective]") for lines in common]
    assert common[0][: objective[0]] == common[1][: objective[1]]


def test_a_finished_comparison_does_nothing_again(finished: Finished, wanted: Ask) -> None:
    out, state, _ = finished
    here = Here()
    again = compare(wanted(out), Terminal(as_json=True), perform=here)
    assert here.done == [] and again["means"] == state["means"]


def test_other_settings_are_refused_and_named(finished: Finished, wanted: Ask) -> None:
    out, _, _ = finished
    for changed, says in (
        ({"seeds": 1}, "seeds: 2 then, 1 now"),
        ({"principles": "vicreg,sigreg,visreg", "reference": "visreg"}, "principles"),
        ({"budget": "13"}, "budget: 12 then, 13 now"),
        ({"principles": "vicreg,visreg"}, "principles"),
        ({"settings": [*SMALL, "optimizer.learning_rate=0.5"]}, "learning_rate"),
    ):
        with pytest.raises(ArtifactError, match=says) as caught:
            compare(wanted(out, **changed), Terminal(as_json=True), perform=Here())
        assert caught.value.code == "E480"


def test_a_comparison_grows_by_seeds_and_principles(finished: Finished, wanted: Ask, tmp_path: Path) -> None:
    out = tmp_path / "c"
    shutil.copytree(finished[0], out)
    runs = {path: path.stat().st_mtime_ns for path in sorted((out / "runs").glob("*/*/metrics.jsonl"))}
    grown = {"principles": "visreg,sigreg,vicreg", "seeds": 3}
    state = compare(wanted(out, **grown), Terminal(as_json=True), perform=(here := Here()))
    assert here.done == [
        "run visreg/seed-0",
        "run visreg/seed-1",
        "baseline baselines/seed-2",
        "run vicreg/seed-2",
        "run sigreg/seed-2",
        "run visreg/seed-2",
    ]
    assert [one["name"] for one in state["principles"]] == ["vicreg", "sigreg", "visreg"], "the reference stays"
    assert state["open"] == 0 and len(state["runs"]) == 9 and {run["steps"] for run in state["runs"]} == {12}
    assert all(path.stat().st_mtime_ns == then for path, then in runs.items()), "what is finished is left alone"
    with pytest.raises(ArtifactError, match="seeds: 3 then, 2 now"):
        compare(wanted(out), Terminal(as_json=True), perform=Here())


def test_added_principles_get_the_passes_that_others_got(tmp_path: Path, wanted: Ask) -> None:
    out = tmp_path / "c"
    given = {"equal": "passes", "budget": "20000", "seeds": 1}
    first = compare(wanted(out, principles="sigreg", **given), Terminal(as_json=True), perform=Here())
    paces = {"status": "done", "passes_per_step": 60.0, "seconds_per_step": None}
    here = Here(lambda job: jobs.keep(Path(job.out), paces) if job.kind == "pace" else None)
    state = compare(wanted(out, principles="sigreg,vicreg", **given), Terminal(as_json=True), perform=here)
    assert here.done == ["pace pace/vicreg", "run vicreg/seed-0"]
    steps = {run["principle"]: run["steps"] for run in state["runs"]}
    assert steps["sigreg"] == first["runs"][0]["steps"]
    pace = outcome_of(out / "pace" / "sigreg")["passes_per_step"]
    assert steps["vicreg"] == round(steps["sigreg"] * pace / 60)


def test_a_folder_of_something_else_is_refused(tmp_path: Path, wanted: Ask) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds no comparison: mine\.txt"):
        compare(wanted(tmp_path), Terminal(as_json=True), perform=Here())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="not a folder"):
        compare(wanted(tmp_path / "mine.txt"), Terminal(as_json=True), perform=Here())


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path, wanted: Ask) -> None:
    for text in ("{", "[]", '{"format": 99, "settings": {}}'):
        (tmp_path / "compare.json").write_text(text)
        with pytest.raises(ArtifactError, match="comparison"):
            compare(wanted(tmp_path), Terminal(as_json=True), perform=Here())
        assert (tmp_path / "compare.json").read_text() == text


def test_two_comparisons_cannot_share_a_folder(tmp_path: Path, wanted: Ask) -> None:
    out = tmp_path / "c"
    out.mkdir()
    lock = acquire_lock(out / LOCK)
    with pytest.raises(Locked, match="folder of the comparison"):
        compare(wanted(out), Terminal(as_json=True), perform=Here())
    assert lock


def test_failures_are_results_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Ask
) -> None:
    def diverges(directory: Any, recipe: Any, *arguments: Any, **options: Any) -> Any:
        if recipe.objective.name == "sigreg":
            raise Diverged("the loss is not finite at step 3")
        return trained(directory, recipe, *arguments, **options)

    trained = jobs.train_in
    monkeypatch.setattr(jobs, "train_in", diverges)
    here = Here(lambda job: {"status": "died", "message": "killed"} if "visreg" in job.out else None)
    state = compare(
        wanted(tmp_path / "c", principles="vicreg,sigreg,visreg", seeds=1), Terminal(as_json=True), perform=here
    )
    assert {run["principle"]: run["status"] for run in state["runs"]} == {
        "vicreg": "done",
        "sigreg": "diverged",
        "visreg": "died",
    }
    assert [run["message"] for run in state["runs"]][1:] == ["the loss is not finite at step 3", "killed"]
    assert set(state["means"]) == {"vicreg", "untrained", "pixels", "pca"}
    again = Here()
    compare(wanted(tmp_path / "c", principles="vicreg,sigreg,visreg", seeds=1), Terminal(as_json=True), perform=again)
    assert again.done == ["run visreg/seed-0"], "what diverged stands, what died is tried again"


def test_a_full_disk_ends_it_and_it_goes_on_later(tmp_path: Path, wanted: Ask) -> None:
    def full(job: Job) -> None:
        if "sigreg" in job.out:
            raise EnvironmentFault("the disk is full", code="E501")

    out = tmp_path / "c"
    with pytest.raises(EnvironmentFault, match="full"):
        compare(wanted(out, seeds=1), Terminal(as_json=True), perform=Here(full))
    state = json.loads((out / "compare.json").read_text())
    assert [run["status"] for run in state["runs"]] == ["done", "open"] and state["open"] == 1
    here = Here()
    compare(wanted(out, seeds=1), Terminal(as_json=True), perform=here)
    assert here.done == ["run sigreg/seed-0"]


def test_an_interrupted_run_goes_on(tmp_path: Path, wanted: Ask) -> None:
    out = tmp_path / "c"

    class Interrupting(Here):
        def __call__(self, job: Job, stop: Stop, said: Callable[[str], None]) -> dict[str, Any]:
            if "sigreg" in job.out:
                stop.signal = signal.SIGINT  # as if it came before the first step: training saves and leaves
            return super().__call__(job, stop, said)

    with pytest.raises(Interrupted) as caught:
        compare(wanted(out, seeds=1), Terminal(as_json=True), perform=Interrupting())
    assert caught.value.exit_code == 130
    folder = out / "runs" / "sigreg" / "seed-0"
    assert outcome_of(folder)["status"] == "interrupted"
    state = compare(wanted(out, seeds=1), Terminal(as_json=True), perform=(here := Here()))
    assert here.done == ["run sigreg/seed-0"]
    assert [run["status"] for run in state["runs"]] == ["done", "done"]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13)), "no step is repeated"


def test_trials_choose_on_validation_and_are_all_kept(tmp_path: Path, wanted: Ask) -> None:
    out = tmp_path / "c"
    state = compare(wanted(out, seeds=1, trials=2, budget="30"), Terminal(as_json=True), perform=(here := Here()))
    assert here.done[:4] == [f"trial {name}/trial-{n}" for n in (0, 1) for name in ("vicreg", "sigreg")]
    assert len(state["trials"]) == 4
    for name in ("vicreg", "sigreg"):
        mine = [trial for trial in state["trials"] if trial["principle"] == name]
        (best,) = [trial for trial in mine if trial["chosen"]]
        assert best["value"] == max(trial["value"] for trial in mine)
        about = next(p for p in state["principles"] if p["name"] == name)
        assert about["setting"] == best["setting"]
        used = json.loads((out / "trials" / name / "trial-0" / "evaluation.json").read_text())["data"]
        final = json.loads((out / "runs" / name / "seed-0" / "evaluation.json").read_text())["data"]
        assert used["train"] + used["held_out"] == final["train"]
    assert {run["steps"] for run in state["runs"]} == {30}


def test_a_number_of_steps_that_is_too_small(tmp_path: Path, wanted: Ask) -> None:
    with pytest.raises(UsageError, match="too short") as caught:
        compare(wanted(tmp_path / "c", budget="5"), Terminal(as_json=True), perform=Here())
    assert caught.value.code == "E273"
    assert not (tmp_path / "c").exists(), "or the same command with more steps would be refused"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--principles", "vicreg,sigregg"), "E270", "did you mean 'sigreg'?"),
        (("--principles", "vicreg,vicreg"), "E271", "vicreg is named twice"),
        (("--principles", "vicreg,sigreg", "--seeds", "0"), "E272", "--seeds 0"),
        (("--principles", "vicreg,sigreg", "--budget", "0.2s"), "E273", "too short"),
        (("--principles", "vicreg,sigreg", "--budget", "soon"), "E25", "soon"),
        (("--principles", "vicreg,sigreg", "--set", "optimizer.learning_rate=0"), "E204", "learning_rate"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: tuple[str, ...], code: str, says: str, accord: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = accord("compare", "digits", *arguments, "--out", tmp_path / "c", "--json")
    assert outcome.code == 2
    assert outcome.json["error"].startswith(code) and says in f"{outcome.json['message']} {outcome.json['help']}"
    assert "help: " in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "c").exists()


def test_a_source_that_is_not_there(accord: Callable[..., Any], tmp_path: Path) -> None:
    outcome = accord("compare", tmp_path / "nowhere", "--principles", "all", "--out", tmp_path / "c", "--json")
    assert outcome.code == 2 and outcome.json["error"] == "E220"


def test_many_processes_are_refused(accord: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seat = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511"}
    for name, value in seat.items():
        monkeypatch.setenv(name, value)
    outcome = accord("compare", "digits", "--principles", "vicreg,sigreg", "--json")
    assert outcome.code == 2 and outcome.json["error"] == "E278"
    monkeypatch.setenv("RANK", "1")
    outcome = accord("compare", "digits", "--principles", "vicreg,sigreg", "--json")
    assert outcome.code == 2 and outcome.out == outcome.err == "", "one of them speaks"


def test_pairs_of_columns_and_no_labels(tmp_path: Path) -> None:
    small = ["encoder.hidden=[32]", "projector.hidden=[32]", "projector.dim=8", "training.batch_size=64"]
    given = wanted_forks(tmp_path / "c", small)
    state = compare(given, Terminal(as_json=True), perform=Here())
    assert [run["status"] for run in state["runs"]] == ["done", "done"]
    assert "linear" not in state["means"]["sigreg"] and "recall@1" in state["means"]["sigreg"]
    assert "pixels" not in state["means"]


def wanted_forks(out: Path, settings: list[str]) -> Wanted:
    return Wanted(
        source="forks:m=2,n=400",
        principles="sigreg,vicreg",
        budget="12",
        equal="steps",
        seeds=1,
        settings=settings,
        out=out,
    )


def test_columns_are_named_as_for_training(accord: Callable[..., Any], tmp_path: Path) -> None:
    table = tmp_path / "things.csv"
    rows = (f"{i % 9}.5,{i % 7},{['red', 'green'][i % 2]} {i % 9}\n" for i in range(80))
    table.write_text("size,code,name\n" + "".join(rows))
    columns = ("--x", "size,code", "--y", "name", "--kind", "code=category")
    small = ("--set", "projector.dim=8", "--set", "training.batch_size=16")
    amount = ("--principles", "vicreg,siglip", "--equal", "steps", "--budget", "10", "--seeds", "1")
    done = accord("compare", table, *columns, *small, *amount, "--out", tmp_path / "c", "--json")
    assert done.code == 0, done.err
    assert [run["status"] for run in done.json["runs"]] == ["done", "done"]
    for name in ("vicreg", "siglip"):
        data = recipe_toml.load(tmp_path / "c" / "runs" / name / "seed-0" / "recipe.toml").data
        assert data.x is not None and data.y is not None
        assert (data.x.kinds, data.y.columns) == (["number", "category"], ["name"])


@pytest.mark.slow
def test_digits_from_the_command_line_with_processes(accord: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "c"
    arguments = ("--principles", "vicreg,sigreg", "--equal", "passes", "--budget", "6000", "--seeds", "1", "--out", out)
    outcome = accord("compare", "digits", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    runs = outcome.json["runs"]
    assert [run["status"] for run in runs] == ["done", "done"]
    assert runs[0]["steps"] > runs[1]["steps"], "slices cost SIGReg some of its steps"
    assert runs[0]["passes"] == pytest.approx(runs[1]["passes"], rel=0.1)
    assert all(1e8 < run["peak_memory"] < 2e9 for run in runs)
    assert "One seed has no interval" in " ".join(outcome.json["words"])
    assert (out / "compare.html").stat().st_size > 10_000
