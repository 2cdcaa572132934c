"""One call trains: it learns, it is reproducible, it goes on bit for bit, and it keeps to its budget."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from accord.data.samples import BadItem, BadItems, Samples
from accord.errors import ArtifactError, DataError, EnvironmentFault, Interrupted, UsageError
from accord.model.amortize import Recognition
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian
from accord.model.joint_embedding import JointEmbedding
from accord.model.minimize import Enumerate
from accord.model.predictor import MLPPredictor
from accord.model.variational import Variational
from accord.objective.loss import Objective
from accord.objective.principles import regularized
from accord.train import trainer as trainer_module
from accord.train import trial
from accord.train.checkpoint import load_weights, verify
from accord.train.optim import LARS, SGD
from accord.train.progress import Silent
from accord.train.run_directory import RunDirectory
from accord.train.signals import Stop


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")
CLOCKS = {"seconds", "rate", "waiting"}
"""What differs between two equal runs."""


class Ear(Silent):
    """Remembers what was said, and stops the run at a step if it is told to."""

    def __init__(self, stop: Stop | None = None, at: int = -1):
        self.heard: list[str] = []
        self.calls: list[str] = []
        self.stop, self.at = stop, at

    def said(self, text: str) -> None:
        self.heard.append(text)

    def started(self, **numbers: int) -> None:
        self.calls.append("started")

    def advanced(self, *, step: int, total: int, line: Any) -> None:
        self.calls.append("advanced")
        if step == self.at and self.stop is not None:
            self.stop.signal = 15

    def finished(self) -> None:
        self.calls.append("finished")


def log(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that nothing disturbed; an epoch has six."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("whole") / "run"
    done = tiny.train(run)
    assert (done.steps, done.path) == (40, run)
    return run


def interrupted(run: Path, at: int, **options: Any) -> None:
    """The same run, stopped after `at` steps."""
    stop = Stop()
    with pytest.raises(Interrupted) as caught:
        tiny.train(run, stop=stop, progress=Ear(stop, at), **options)
    assert caught.value.exit_code == 143
    assert f"step-{at}" in str(caught.value.where)
    assert verify(run / "checkpoints" / f"step-{at}").step == at


def test_the_run_directory_is_complete(whole: Path) -> None:
    assert {p.name for p in whole.iterdir()} == {
        ".lock",
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
    }
    assert (whole / ".lock").read_bytes() == b""
    assert {p.name for p in (whole / "checkpoints").iterdir()} == {"step-30", "step-40"}
    recipe = tomllib.loads((whole / "recipe.toml").read_text())
    assert recipe["training"] == {"steps": 40, "batch_size": 32, "seed": 0}
    assert recipe["optimizer"]["learning_rate"] == 1e-3
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert str(Path.home()) not in (whole / "environment.json").read_text()


def test_the_log_has_a_line_per_step_with_every_field(whole: Path) -> None:
    lines = [
        json.loads(line, parse_constant=pytest.fail) for line in (whole / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == list(range(1, 41))
    fields = ["step", "epoch", "seconds", "rate", "lr", "loss", "terms", "effective_rank", "std_min", "std_mean"]
    fields += ["spread", "energy_matched", "energy_mismatched", "energy_auroc", "waiting"]
    assert all(list(line) == fields for line in lines)
    assert lines[11]["epoch"] == pytest.approx(12 / 6)
    assert all(a["seconds"] < b["seconds"] for a, b in itertools.pairwise(lines))
    assert all(0 <= line["waiting"] <= 1 for line in lines)
    evaluated = [line["step"] for line in lines if line["effective_rank"] is not None]
    assert evaluated == [4, 16, 32, 40]
    for line in lines:
        parts = {"free_energy": 25.0, "variance": 25.0, "covariance": 1.0}
        assert line["loss"] == pytest.approx(sum(parts[k] * v for k, v in line["terms"].items()), rel=1e-5)


def test_it_learns(whole: Path) -> None:
    lines = log(whole)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]


def test_two_equal_runs_are_equal_bit_for_bit_and_another_seed_is_not(whole: Path, tmp_path: Path) -> None:
    tiny.train(tmp_path / "again")
    assert tiny.weights_hash(tmp_path / "again") == tiny.weights_hash(whole)
    assert log(tmp_path / "again") == log(whole)
    tiny.train(tmp_path / "other", seed=1)
    assert tiny.weights_hash(tmp_path / "other") != tiny.weights_hash(whole)


@pytest.mark.parametrize("at", [1, 17, 30, 39])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(whole: Path, tmp_path: Path, at: int) -> None:
    """In the middle of an epoch and at its end; in a process with other weights and other random numbers."""
    interrupted(tmp_path / "run", at)
    ear = Ear()
    torch.manual_seed(99)
    done = tiny.train(tmp_path / "run", resume=True, objective=tiny.objective(seed=7), progress=ear)
    assert done.steps == 40
    assert any(f"going on from step-{at}" in text for text in ear.heard)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(whole)
    assert log(tmp_path / "run") == log(whole)


@pytest.mark.parametrize("left_out", ["_restore_random", "optimizer_state", "step"])
def test_leaving_something_out_would_be_noticed(
    whole: Path, tmp_path: Path, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without random numbers, optimiser or position the weights differ."""
    interrupted(tmp_path / "run", 17)
    if left_out == "_restore_random":
        monkeypatch.setattr("accord.train.state._restore_random", lambda state, tensors: None)
    elif left_out == "optimizer_state":
        monkeypatch.setattr("accord.train.state._matched", lambda tensors, optimizer, where: [])
    else:
        original = trainer_module.Trainer._restore

        def elsewhere(self: Any, checkpoint: Any) -> int:
            kept = original(self, checkpoint)
            self.step -= 1
            return kept

        monkeypatch.setattr(trainer_module.Trainer, "_restore", elsewhere)
    tiny.train(tmp_path / "run", resume=True, objective=tiny.objective(seed=7))
    assert tiny.weights_hash(tmp_path / "run") != tiny.weights_hash(whole)


@pytest.mark.parametrize("optimizer", [SGD(), LARS()], ids=["SGD", "LARS"])
def test_other_optimisers_go_on_bit_for_bit_too(tmp_path: Path, optimizer: Any) -> None:
    tiny.train(tmp_path / "whole", optimizer=optimizer, steps=16)
    interrupted(tmp_path / "run", 9, optimizer=optimizer, steps=16)
    tiny.train(tmp_path / "run", optimizer=optimizer, steps=16, resume=True)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole")


def with_latent(kind: str, seed: int = 0) -> Objective:
    """Codes that are replaced and a temperature that rises, or a posterior that draws from the global generator."""
    encoder = tiny.objective(seed=seed).model.encoder_x
    latent = Codebook(8, 4, reseed=0.9) if kind == "codes" else Gaussian(4)
    found = Enumerate(anneal=(1.0, 0.9)) if kind == "codes" else Variational(Recognition(16, 8))
    model = JointEmbedding(encoder, encoder, MLPPredictor(16, 4), latent=latent, minimizer=found)
    return regularized(model)


@pytest.mark.parametrize("kind", ["codes", "posterior"])
def test_a_latent_goes_on_bit_for_bit_too(tmp_path: Path, kind: str) -> None:
    options = {"steps": 48, "checkpoint_every": 12}
    tiny.train(tmp_path / "whole", objective=with_latent(kind), **options)
    interrupted(tmp_path / "run", 29, objective=with_latent(kind), **options)
    tiny.train(tmp_path / "run", objective=with_latent(kind, seed=7), resume=True, **options)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole")


def test_a_torn_newest_checkpoint_is_set_aside_and_the_one_before_leads_to_the_same_end(
    whole: Path, tmp_path: Path
) -> None:
    interrupted(tmp_path / "run", 25)
    (tmp_path / "run" / "checkpoints" / "step-25" / "weights.safetensors").write_bytes(b"torn")
    (tmp_path / "run" / "checkpoints" / "step-26.tmp-0").mkdir()
    ear = Ear()
    tiny.train(tmp_path / "run", resume=True, progress=ear)
    said = "\n".join(ear.heard)
    assert "step-25 is damaged" in said
    assert "set aside as step-25.corrupt" in said
    assert "removed step-26.tmp-0" in said
    assert "going on from step-20" in said
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(whole)
    assert log(tmp_path / "run") == log(whole)


def test_all_damaged_stops_and_does_not_start_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", 12)
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        (path / "state.json").write_text("{}")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ArtifactError, match="every checkpoint"):
        tiny.train(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_going_on_with_other_settings_data_or_model_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for options, named in [
        ({"lr": 0.5}, "lr: 0.001 then, 0.5 now"),
        ({"seed": 3, "batch_size": 16}, "batch_size: 32 then, 16 now; seed: 0 then, 3 now"),
        ({"samples": tiny.samples(250)}, "data (sha256"),
        ({"steps": 80}, "length: steps 40 then, steps 80 now"),
        ({"objective": tiny.objective(dim=8)}, "another model"),
    ]:
        with pytest.raises(ArtifactError) as caught:
            tiny.train(tmp_path / "run", resume=True, **options)
        assert named in str(caught.value)
        assert caught.value.exit_code == 4
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(whole)


def test_going_on_with_a_finished_run_changes_nothing(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    ear = Ear()
    assert tiny.train(tmp_path / "run", resume=True, steps=None, progress=ear).steps == 40
    assert any("finished" in text for text in ear.heard)
    assert log(tmp_path / "run") == log(whole)


def test_a_run_is_never_overwritten(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(UsageError, match="a run here already, saved at step 40") as caught:
        tiny.train(tmp_path / "run")
    assert "--resume" in str(caught.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"holds no run: thesis\.tex"):
            tiny.train(tmp_path / "mine", resume=resume)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        tiny.train(tmp_path / "file")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_nothing_to_go_on_from_starts_and_says_so(tmp_path: Path) -> None:
    ear = Ear()
    assert tiny.train(tmp_path / "run", resume=True, steps=3, progress=ear).steps == 3
    assert any("starts at step 0" in text for text in ear.heard)
    with pytest.raises(UsageError, match="nothing to go on from"):
        tiny.train(tmp_path / "new", resume=True, steps=None)


def test_progress_hears_of_the_end_even_after_an_error(tmp_path: Path) -> None:
    stop, ear = Stop(), Ear()
    tiny.train(tmp_path / "a", steps=2, progress=ear)
    assert ear.calls == ["started", "advanced", "advanced", "finished"]
    ear = Ear(stop, 1)
    with pytest.raises(Interrupted):
        tiny.train(tmp_path / "b", progress=ear, stop=stop)
    assert ear.calls[-1] == "finished"


def test_a_budget_is_kept_and_its_plan_replays_the_run(tmp_path: Path) -> None:
    begin = time.perf_counter()
    done = tiny.train(tmp_path / "run", steps=None, budget="3s", checkpoint_every=1000, log_every=5)
    wall = time.perf_counter() - begin
    assert done.seconds == pytest.approx(3.0, rel=0.25), "noise of a shared machine included"
    assert wall < 6.0
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
    plan = json.loads((newest / "state.json").read_text())["training"]["plan"]
    assert plan[-1][1] == done.steps
    tiny.train(tmp_path / "again", steps=None, plan=plan, log_every=5)
    assert tiny.weights_hash(tmp_path / "again") == tiny.weights_hash(tmp_path / "run")
    assert log(tmp_path / "again") == log(tmp_path / "run")


def test_timing_steps_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    objective = tiny.objective()
    before = {name: t.clone() for name, t in objective.state_dict().items()}
    generator = torch.get_rng_state()
    stop = Stop()
    stop.signal = 2
    with pytest.raises(Interrupted, match="timing") as caught:
        tiny.train(tmp_path / "run", objective=objective, steps=None, budget="2s", stop=stop)
    assert caught.value.exit_code == 130
    assert all(torch.equal(t, before[name]) for name, t in objective.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_epochs_are_passes_over_the_training_part(tmp_path: Path) -> None:
    held = np.arange(0, 256, 4)
    done = tiny.train(tmp_path / "run", steps=None, epochs=1.5, held_out=held)
    assert done.steps == round(1.5 * (192 // 32))


def test_the_trained_model_can_be_loaded_elsewhere(whole: Path) -> None:
    objective = tiny.objective(seed=5)
    assert load_weights(whole, objective.model).step == 40
    file = whole / "checkpoints" / "step-40" / "weights.safetensors"
    before = file.read_bytes()
    file.write_bytes(before[:-1])
    try:
        assert load_weights(whole, objective).step == 30, "the newest valid one"
        assert (whole / "checkpoints" / "step-40").is_dir(), "reading sets nothing aside"
    finally:
        file.write_bytes(before)


def test_a_full_disk_is_seen_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.train.run_directory.free_space", lambda path: (1000, 1000))
    with pytest.raises(EnvironmentFault, match=r"bytes needed, 1,000 bytes") as caught:
        tiny.train(tmp_path / "run")
    assert caught.value.exit_code == 5


def test_an_open_run_directory_can_be_handed_over(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        assert run.is_open
        assert tiny.train(run, steps=2).path == tmp_path / "run"
        assert run.is_open, "who opened it closes it"
    assert not run.is_open


class Rotting(Samples):
    """Some samples turn out to be damaged when they are read."""

    rotten: frozenset[int] = frozenset()

    def batch(self, index: np.ndarray) -> torch.Tensor:
        good = super().batch(index)
        places = np.array([p for p, i in enumerate(index.tolist()) if i in self.rotten])
        if len(places):
            items = [BadItem(self.keys[int(index[p])], "E301", "torn", "replace the file") for p in places]
            raise BadItems(places, items, good)
        return good


def rotting(*which: int) -> Rotting:
    samples = tiny.samples()
    result = Rotting(**{name: getattr(samples, name) for name in samples.__dataclass_fields__})
    result.rotten = frozenset(which)
    return result


def test_damaged_samples_are_replaced_listed_and_too_many_stop_the_run(tmp_path: Path) -> None:
    done = tiny.train(tmp_path / "few", samples=rotting(7, 9), steps=20)
    assert done.steps == 20
    bad = [json.loads(line) for line in (tmp_path / "few" / "bad_samples.jsonl").read_text().splitlines()]
    assert {item["key"] for item in bad} == {"row 7", "row 9"}
    assert set(bad[0]) == {"key", "code", "reason", "help"}
    with pytest.raises(DataError) as caught:
        tiny.train(tmp_path / "many", samples=rotting(*range(0, 256, 10)), steps=20)
    assert caught.value.exit_code == 3
    assert len((tmp_path / "many" / "metrics.jsonl").read_text().splitlines()) < 6, "before the epoch ends"


def test_damaged_samples_do_not_change_how_a_run_goes_on(tmp_path: Path) -> None:
    tiny.train(tmp_path / "whole", samples=rotting(7, 9), steps=20)
    stop = Stop()
    with pytest.raises(Interrupted):
        tiny.train(tmp_path / "run", samples=rotting(7, 9), steps=20, stop=stop, progress=Ear(stop, 11))
    tiny.train(tmp_path / "run", samples=rotting(7, 9), steps=20, resume=True)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole")
    assert sorted((tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()) == sorted(
        (tmp_path / "whole" / "bad_samples.jsonl").read_text().splitlines()
    )


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 3), (0.01, 7)])
def test_slow_steps_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int) -> None:
    """Of a budget of 2 s timing may take 0.04: 5 steps of 10 ms are timed, of steps that take a second one."""
    step, done = trial.train_step, []

    def counted(*arguments: Any) -> Any:
        done.append(1)
        return step(*arguments)

    monkeypatch.setattr(trial, "train_step", counted)
    monkeypatch.setattr(trial, "Clock", lambda: lambda: seconds * len(done))
    tiny.train(tmp_path / "run", steps=None, budget="2s")
    assert len(done) == steps, "2 of them unmeasured"
