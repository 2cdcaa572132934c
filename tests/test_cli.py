"""The command line as a user meets it: every verb, its JSON, its files, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from accord.terminal import time_left

Outcome = Any
Command = Callable[..., Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of digits as PNG files, one of them damaged."""
    root = tmp_path_factory.mktemp("images")
    digits = load_digits()
    for number in np.flatnonzero(digits.target < 2)[:200].tolist():
        path = root / str(digits.target[number]) / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(digits.images[number] / 16 * 255)).save(path)
    (root / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    return root


def refused(outcome: Outcome, code: int) -> str:
    """The message of a refusal, after checking its form."""
    assert outcome.code == code, outcome
    assert outcome.err.startswith(f"error[E{code}")
    assert "Traceback" not in outcome.err
    assert "help: " in outcome.err
    return outcome.err


def test_a_digits_run_holds_what_it_promises(digits_run: Path) -> None:
    names = {path.name for path in digits_run.iterdir()}
    assert {
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "evaluation.json",
        "calibration.json",
    } <= names
    assert "report.html" in names
    evaluation = json.loads((digits_run / "evaluation.json").read_text())
    probes = evaluation["probes"]
    assert probes["features"]["few_label"]["mean"] > probes["pixels"]["few_label"]["mean"]
    assert evaluation["energy"]["ladder"]["random"]["auroc"] > 0.9
    assert evaluation["collapse"]["verdict"] is None


def test_train_reports_as_json(accord: Command, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("--recipe", "digits", "--epochs", 1, "--set", "training.batch_size=32", "--out", run, "--json")
    outcome = accord("train", folder, *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.json["run"] == str(run)
    assert outcome.json["steps"] > 0
    listed = [json.loads(line) for line in (run / "bad_samples.jsonl").read_text().splitlines()]
    assert [item["key"] for item in listed] == ["0/broken.png"]


def test_check_names_the_bad_file_and_exits_with_3(accord: Command, folder: Path) -> None:
    outcome = accord("check", folder, "--json")
    assert outcome.code == 3
    assert outcome.json["bad"] == 1
    assert outcome.json["bad_items"][0]["key"] == "0/broken.png"
    assert accord("check", "digits", "--json").json["bad"] == 0


@pytest.mark.parametrize("layer", ["features", "embedding"])
def test_embed_keeps_the_order_and_marks_bad_rows(
    accord: Command, digits_run: Path, folder: Path, tmp_path: Path, layer: str
) -> None:
    out = tmp_path / "e.parquet"
    outcome = accord("embed", digits_run, folder, "-o", out, "--layer", layer, "--json")
    assert outcome.code == 0, outcome.err
    table = pq.read_table(out).to_pylist()
    assert outcome.json == {"output": str(out), "rows": 201, "bad": 1, "layer": layer}
    assert [row["key"] for row in table] == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    bad = [row for row in table if row["status"] == "error"]
    assert [row["key"] for row in bad] == ["0/broken.png"]
    assert bad[0]["embedding"] is None and bad[0]["error"]
    assert all(np.isfinite(row["embedding"]).all() for row in table if row["status"] == "ok")


def test_embeddings_do_not_depend_on_the_file_format_or_the_neighbours(
    accord: Command, digits_run: Path, tmp_path: Path
) -> None:
    assert accord("embed", digits_run, "digits", "-o", tmp_path / "e.npy").code == 0
    assert accord("embed", digits_run, "digits", "-o", tmp_path / "e.parquet").code == 0
    array = np.load(tmp_path / "e.npy")
    column = pq.read_table(tmp_path / "e.parquet")["embedding"].to_pylist()
    np.testing.assert_array_equal(array, np.array(column, np.float32))
    images = np.uint8(load_digits().images / 16 * 255)[:3, None]
    np.save(tmp_path / "three.npy", images)
    assert accord("embed", digits_run, tmp_path / "three.npy", "-o", tmp_path / "three_e.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "three_e.npy"), array[:3], atol=0.05)


def test_score_gives_each_pair_its_energy_and_p_value(
    accord: Command, digits_run: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.parquet"
    outcome = accord("score", digits_run, folder, "-o", out, "--alpha", 0.1, "--json")
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 201
    for row in rows:
        if row["status"] == "error":
            assert row["energy"] is None and row["p_value"] is None and row["in_accord"] is None
        else:
            assert row["in_accord"] == (row["p_value"] > 0.1)


def test_score_of_given_pairs_ranks_the_right_partner_lower(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    images = np.uint8(load_digits().images / 16 * 255)[:, None]
    other = np.roll(images, 7, axis=0)
    moved = np.roll(images, 1, axis=3)
    for name, array in (("x", images), ("moved", moved), ("other", other)):
        np.save(tmp_path / f"{name}.npy", array)
    energies = {}
    for name in ("moved", "other"):
        arguments = (
            tmp_path / "x.npy",
            "--y",
            tmp_path / f"{name}.npy",
            "-o",
            tmp_path / f"{name}.parquet",
            "--allow-overlap",
        )
        assert accord("score", digits_run, *arguments).code == 0
        energies[name] = np.array(pq.read_table(tmp_path / f"{name}.parquet")["energy"].to_pylist())
    assert (energies["moved"] < energies["other"]).mean() > 0.9


def test_bad_027_items_that_were_trained_on_are_not_scored_in_silence(
    accord: Command, digits_run: Path, tmp_path: Path
) -> None:
    message = refused(accord("score", digits_run, "digits", "-o", tmp_path / "s.parquet"), 3)
    assert "--allow-overlap" in message
    assert not list(tmp_path.iterdir())


def test_bad_036_pairs_of_different_number_are_refused(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.random.default_rng(0).integers(0, 255, (3, 1, 8, 8), dtype=np.uint8))
    message = refused(
        accord("score", digits_run, "digits", "--y", tmp_path / "three.npy", "-o", tmp_path / "s.parquet"), 3
    )
    assert "1,797" in message and "3 y" in message


def test_bad_101_an_impossible_level_is_refused_with_the_number_needed(
    accord: Command, digits_run: Path, tmp_path: Path
) -> None:
    message = refused(accord("score", digits_run, "digits", "-o", tmp_path / "s.parquet", "--alpha", 0.0001), 3)
    assert "9,999" in message


def test_report_is_written_again(accord: Command, digits_run: Path) -> None:
    before = (digits_run / "report.html").read_bytes()
    outcome = accord("report", digits_run, "--json")
    assert outcome.json["report"] == str(digits_run / "report.html")
    assert (digits_run / "report.html").read_bytes() == before


def test_bad_020_a_path_that_is_not_there(accord: Command, tmp_path: Path) -> None:
    message = refused(accord("train", tmp_path / "nothing", "--out", tmp_path / "run"), 2)
    assert "nothing" in message
    assert not (tmp_path / "run").exists()


def test_bad_018_an_empty_folder(accord: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(accord("train", tmp_path / "empty", "--out", tmp_path / "run"), 3)
    assert "empty" in message and "png" in message.lower()


def test_bad_067_a_batch_larger_than_the_data(accord: Command, tmp_path: Path) -> None:
    outcome = accord("train", "digits", "--set", "training.batch_size=100000", "--out", tmp_path / "run")
    assert "0 steps per epoch" in refused(outcome, 2)


def test_bad_074_a_device_that_is_not_there(accord: Command, tmp_path: Path) -> None:
    message = refused(
        accord("train", "digits", "--set", "training.device=cuda:7", "--epochs", 1, "--out", tmp_path / "run"), 5
    )
    assert "cpu" in message.lower()


def test_bad_079_a_finished_run_is_not_overwritten(accord: Command, digits_run: Path) -> None:
    before = {p: p.read_bytes() for p in sorted(digits_run.rglob("*")) if p.is_file()}
    message = refused(accord("train", "digits", "--epochs", 1, "--out", digits_run), 2)
    assert "--resume" in message
    assert before == {p: p.read_bytes() for p in sorted(digits_run.rglob("*")) if p.is_file()}


def test_bad_073_resuming_with_other_settings(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    outcome = accord("train", "digits", "--resume", "--out", run, "--set", "optimizer.learning_rate=0.5")
    assert "optimizer.learning_rate" in refused(outcome, 4)


def test_bad_083_a_damaged_checkpoint_is_not_used(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    for weights in (run / "checkpoints").glob("*/*.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
    message = refused(accord("embed", run, "digits", "-o", tmp_path / "e.parquet"), 4)
    assert "sha256" in message or "corrupt" in message or "damaged" in message
    assert not (tmp_path / "e.parquet").exists()


def test_bad_085_weights_of_another_architecture(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("    128,\n]", "    96,\n]"))
    assert "stages" in refused(accord("embed", run, "digits", "-o", tmp_path / "e.parquet"), 4)


def test_a_calibration_of_other_weights_is_refused(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    calibration = json.loads((run / "calibration.json").read_text())
    calibration["model"] = "0" * 64
    (run / "calibration.json").write_text(json.dumps(calibration))
    message = refused(accord("score", run, "digits", "-o", tmp_path / "s.parquet"), 4)
    assert "accord evaluate" in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian", "digits"], "train"),
        (["train"], "SOURCE"),
        (["train", "digits", "--epoch", "3"], "--epochs"),
        (["train", "digits", "--epochs", "many"], "--epochs"),
        (["train", "digits", "--epochs", "1", "--budget", "1m"], "budget"),
        (["train", "digits", "--budget", "soon"], "soon"),
        (["embed", "RUN", "digits", "-o", "e.txt"], ".parquet"),
        (["embed", "nowhere", "digits", "-o", "e.npy"], "nowhere"),
        (["embed", "RUN", "digits", "-o", "no/such/folder/e.npy"], "no/such/folder"),
        (["embed", "RUN", "digits", "-o", "e.npy", "--layer", "last"], "embedding"),
        (["evaluate", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_usage_errors_name_the_culprit(
    accord: Command, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = accord(*[str(digits_run) if a == "RUN" else a for a in arguments])
    assert named in refused(outcome, 2)
    assert not list(tmp_path.rglob("*.npy"))


def test_errors_are_json_too(accord: Command) -> None:
    outcome = accord("evaluate", "nowhere", "--json")
    assert outcome.json["exit_code"] == outcome.code == 2
    assert outcome.json["where"] == "nowhere"
    assert outcome.json["help"]


def test_names_cannot_steer_the_terminal(accord: Command, tmp_path: Path) -> None:
    outcome = accord("train", tmp_path / "\x1b[31mred\r\nerror", "--out", tmp_path / "run")
    assert "\x1b" not in outcome.err and "\r" not in outcome.err
    assert "\\x1b[31mred" in outcome.err


def test_bad_075_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "accord", "train", "digits", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_bad_094_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "accord", "check", "digits"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert process.stderr == b""


def test_version_and_help(accord: Command) -> None:
    assert accord("--version").out.startswith("accord ")
    assert "train" in accord("--help").out


def test_a_table_set_to_a_value_is_a_usage_error(accord: Command, tmp_path: Path) -> None:
    message = refused(accord("train", "digits", "--set", "training=5", "--epochs", 1, "--out", tmp_path / "run"), 2)
    assert "training.batch_size" in message and not (tmp_path / "run").exists()


def test_bad_019_a_folder_with_one_sample(accord: Command, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / "one" / "a.png")
    assert "1 sample to train on" in refused(accord("train", tmp_path / "one", "--out", tmp_path / "run"), 3)


def test_a_run_that_cannot_be_written_to_is_refused_before_it_is_measured(
    accord: Command, digits_run: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount") or os.system(f"mount -t tmpfs tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("this user may not mount a disk")
    try:
        shutil.copytree(digits_run, disk / "run")
        os.system(f"mount -o remount,ro {disk}")
        outcome = accord("evaluate", disk / "run")
        assert "cannot write" in refused(outcome, 5)
        assert "probes" not in outcome.err + outcome.out
        assert accord("embed", disk / "run", "digits", "-o", tmp_path / "e.npy").code == 0
    finally:
        os.system(f"umount -l {disk}")


def test_keys_are_those_of_the_files(accord: Command, digits_run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "0", tmp_path / "x")
    names = ["a b.png", "\U0001f468\u200d\U0001f469.png", "e\u0301.png", os.fsdecode(b"\xff.png"), "t\tab.png"]
    for name, path in zip(names, sorted((tmp_path / "x").glob("0*.png")), strict=False):
        path.rename(tmp_path / "x" / name)
    assert accord("embed", digits_run, tmp_path / "x", "-o", tmp_path / "e.parquet").code == 0
    keys = pq.read_table(tmp_path / "e.parquet")["key"].to_pylist()
    assert {*names[:3], names[4], "\\udcff.png"} <= set(keys)


def test_a_collapsed_run_is_not_calibrated(accord: Command, tmp_path: Path) -> None:
    """Row 89: a model that says nothing must not hand out p-values."""
    run = tmp_path / "run"
    sets = ["objective.variance=0", "objective.covariance=0", "training.on_collapse=warn", "training.steps=150"]
    options = [word for one in sets for word in ("--set", one)]
    assert accord("train", "digits", "--out", run, *options).code == 0
    outcome = accord("evaluate", run)
    assert outcome.code == 0 and "not calibrated: a collapsed model" in outcome.out + outcome.err
    assert not (run / "calibration.json").exists()
    refused(accord("score", run, "digits", "-o", tmp_path / "s.parquet"), 4)


def test_a_run_that_has_moved_says_where_its_data_were(
    accord: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copytree(folder / "1", tmp_path / "here" / "pictures")
    monkeypatch.chdir(tmp_path / "here")
    options = ("--set", "training.batch_size=32", "--epochs", 1)
    assert accord("train", "pictures", "--out", "run", *options).code == 0
    shutil.copytree("run", tmp_path / "there" / "run")
    monkeypatch.chdir(tmp_path / "there")
    message = refused(accord("evaluate", "run"), 2)
    assert "that this run was trained on are not there" in message and "pictures" in message and "--source" in message
    outcome = accord("evaluate", "run", "--source", tmp_path / "here" / "pictures", "--json")
    assert outcome.code == 0 and "has changed" not in outcome.err, outcome.err
    next((tmp_path / "here" / "pictures").glob("*.png")).unlink()
    outcome = accord("evaluate", "run", "--source", tmp_path / "here" / "pictures")
    assert outcome.code == 0 and "has changed since this run was trained" in outcome.out


def test_options_that_do_not_apply_are_refused(accord: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n3,5\n" * 50)
    for arguments in ((folder, "--label", "x"), (folder, "--column", "x"), (tmp_path / "t.csv", "--column", "a")):
        message = refused(accord("train", *arguments, "--out", tmp_path / "run"), 2)
        assert "does not apply" in message and str(arguments[0]) in message
    assert not (tmp_path / "run").exists()


def test_bad_031_missing_numbers_are_filled_as_the_message_says(accord: Command, tmp_path: Path) -> None:
    rows = [f"{i % 7},{i % 5}" for i in range(100)]
    rows[41] = "3,"
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(rows) + "\n")
    options = ("--epochs", 1, "--set", "training.batch_size=16", "--out", tmp_path / "run")
    assert "--set data.impute=0.0" in refused(accord("train", tmp_path / "t.csv", *options), 3)
    assert accord("train", tmp_path / "t.csv", "--set", "data.impute=0.0", *options).code == 0
    assert (
        accord("embed", tmp_path / "run", tmp_path / "t.csv", "-o", tmp_path / "e.parquet", "--json").json["bad"] == 0
    )


def test_bad_022_links_out_of_the_folder_are_followed_as_the_message_says(
    accord: Command, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "linked").symlink_to(folder / "1")
    options = ("--epochs", 1, "--set", "training.batch_size=16", "--out", tmp_path / "run")
    assert "--set data.follow_links=true" in refused(accord("train", tmp_path / "x", *options), 3)
    assert accord("train", tmp_path / "x", "--set", "data.follow_links=true", *options).code == 0


@pytest.mark.parametrize("verb", ["embed", "score"])
def test_bad_093_a_signal_ends_embedding_and_scoring_after_a_small_batch(
    accord: Command, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The flag is read at every batch of the model, not only between the large ones that are written at once."""
    from accord.data.samples import Kept

    reads: list[int] = []
    read = Kept.read

    def signalled(self: Kept, index: np.ndarray) -> Any:
        reads.append(len(index))
        if len(reads) == 2:  # the first read is the look for bad items
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, index)

    monkeypatch.setattr(Kept, "read", signalled)
    overlap = ["--allow-overlap"] if verb == "score" else []
    outcome = accord(verb, digits_run, "digits", "-o", tmp_path / "out.parquet", *overlap)
    assert outcome.code == 143 and "stopped by SIGTERM while" in outcome.err
    assert len(reads) <= 3 and not list(tmp_path.iterdir())


def test_the_first_step_foretells_nothing() -> None:
    assert time_left(1, 100, {"seconds": 10.0}) == "", "it looks at the held-out samples and warms up"
    assert time_left(2, 100, {"seconds": 10.0}) == "8.2 min left"
    assert time_left(100, 100, {"seconds": 10.0}) == "0 s left"
