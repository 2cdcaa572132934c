"""Pairs whose x and y differ in form, through the command line: trained, resumed, evaluated, embedded, scored, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.conftest import invoke_here

from accord import recipe_toml
from accord.data.pairing import Originals
from accord.data.random import Draws
from accord.data.sources import open_source
from accord.run import open_run

Command = Callable[..., Any]

FORKS = "forks:m=3,n=600"
MASKED = ["--set", "pairing={name='masked_blocks', patch=2, block=2, blocks=2}"]
RUNS: dict[str, list[str]] = {
    "forks": [FORKS, "--recipe", "vector_pairs", "--epochs", "8"],
    "ellipse": ["ellipse:n=600", "--epochs", "8"],
    "torus": ["torus:m=2,n=600", "--epochs", "8"],
    "jump": ["jump:both=0", "--epochs", "2"],
    "halves": ["digits", "--recipe", "halves", "--epochs", "5"],
    "masked": ["digits", *MASKED, "--epochs", "2"],
    "masked_vit": [
        "digits",
        *MASKED,
        *("--set", "encoder={name='vit_tiny', patch=2}", "--set", "encoder_y={name='mlp', hidden=[8]}"),
        *("--set", "training.steps=1"),
    ],
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trained and evaluated once, when first asked for."""
    folder = tmp_path_factory.mktemp("pairs")

    def run(name: str) -> Path:
        path = folder / name
        if not path.exists():
            small = ["--set", "training.batch_size=64", "--set", "training.on_collapse='warn'"]
            for arguments in (["train", *RUNS[name], *small, "--out", str(path)], ["evaluate", str(path)]):
                outcome = invoke_here(tuple(arguments), lambda: ("", ""))
                assert outcome.code == 0, f"{arguments} ended with {outcome.code}"
        return path

    return run


def evaluation(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forks", "ellipse", "torus", "jump", "halves", "masked"])
def test_trained_and_evaluated(runs: Callable[[str], Path], name: str) -> None:
    run = runs(name)
    found, recipe = evaluation(run), recipe_toml.load(run / "recipe.toml")
    assert recipe.encoder_y is not None and recipe.predictor.name == "mlp"
    auroc = found["energy"]["ladder"]["random"]["auroc"]
    assert auroc > (0.55 if name == "masked" else 0.75), auroc
    assert (found["collapse"]["lidar"] is None) == (name not in ("halves", "masked")), "no views, no LiDAR"
    assert (found["probes"] is None) == (found["data"]["kind"] == "vector")
    assert (found["thumbnails"] is None) == (found["data"]["kind"] == "vector")
    page = (run / "report.html").read_text()
    assert ("<html" in page and "LiDAR" in page) or found["collapse"]["lidar"] is None
    model = open_run(run).model
    assert model.encoder_x is not model.encoder_y
    assert (run / "calibration.json").exists()


def test_a_vit_sees_visible_patches_only(accord: Command, tmp_path: Path) -> None:
    arguments = [*RUNS["masked_vit"], "--set", "training.batch_size=64", "--set", "training.on_collapse='warn'"]
    refused = accord("train", *arguments, "--out", tmp_path / "no")
    assert refused.code == 2 and "does not fit image data" in refused.err
    arguments[arguments.index("encoder_y={name='mlp', hidden=[8]}")] = (
        "encoder_y={name='multiscale', stem_width=8, stem_kernel=3, stem_stride=1, stem_init='random'}"
    )
    assert accord("train", *arguments, "--out", tmp_path / "run").code == 0
    run = open_run(tmp_path / "run")
    samples = open_source("digits").batch(np.arange(6))
    x = run.pairing(samples, Draws(0, 0, torch.arange(6))).x
    hidden = x[:, 1:].bool()
    with torch.no_grad():
        features = run.model.encoder_x.features(x)
        other = torch.cat([torch.where(hidden, torch.rand_like(x[:, :1]), x[:, :1]), x[:, 1:]], 1)
        assert torch.equal(run.model.encoder_x.features(other), features), "the hidden block is never read"
        assert run.model.encoder_x.features(run.pairing.plain(samples)).shape == features.shape


def test_each_branch_is_standardised_by_its_own(runs: Callable[[str], Path]) -> None:
    run = open_run(runs("forks"))
    samples, train, _ = run.training_data()
    values = samples.batch(train)
    for encoder, plain in ((run.model.encoder_x, run.pairing.plain), (run.model.encoder_y, run.pairing.plain_y)):
        scale = encoder.backbone[0]
        torch.testing.assert_close(scale.mean, plain(values).mean(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scale.std, plain(values).std(0), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["forks", "halves", "masked"])
def test_embed_either_side(accord: Command, runs: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    run, source = open_run(runs(name)), RUNS[name][0]
    samples = open_source(source)
    for side, encoder, plain in (
        ("x", run.model.encoder_x, run.pairing.plain),
        ("y", run.model.encoder_y, run.pairing.plain_y),
    ):
        for layer in ("features", "embedding"):
            out = tmp_path / f"{side}-{layer}.npy"
            assert accord("embed", run.path, source, "-o", out, "--side", side, "--layer", layer).code == 0
            found = np.load(out)
            values = samples.batch(np.arange(40))
            with torch.no_grad():
                h = encoder.represent(plain(values, torch.ones(40)))
                expected = h.features if layer == "features" else h.embeddings
            np.testing.assert_allclose(found[:40], expected.numpy(), atol=1e-4, rtol=1e-4)
    refused = accord("embed", run.path, source, "-o", tmp_path / "e.npy", "--side", "z")
    assert refused.code == 2 and "unknown side" in refused.err


@pytest.mark.parametrize("name", ["forks", "halves", "masked"])
def test_score_pairs_of_two_sources(accord: Command, runs: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    run, source = open_run(runs(name)), RUNS[name][0]
    samples = open_source(source)
    own, order = tmp_path / "own.parquet", np.random.default_rng(0).permutation(300)
    values = samples.batch(np.arange(300)).numpy()
    if samples.kind == "vector":
        for path, rows in ((tmp_path / "x.csv", values), (tmp_path / "y.csv", values[order])):
            lines = [",".join(samples.features), *(",".join(map(repr, map(float, row))) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
    else:
        np.save(tmp_path / "x.npy", values)
        np.save(tmp_path / "y.npy", values[order])
    x, y = (next(tmp_path.glob(f"{side}.*")) for side in "xy")
    assert accord("score", run.path, x, "-o", own, "--allow-overlap").code == 0
    energies = {}
    for other in (x, y):
        out = tmp_path / f"{other.stem}.parquet"
        outcome = accord("score", run.path, x, "--y", other, "-o", out, "--allow-overlap", "--json")
        assert outcome.code == 0, outcome.err
        energies[other] = pq.read_table(out)["energy"].to_numpy()
    assert (energies[x] < energies[y]).mean() > (0.5 if name == "masked" else 0.7), "true pairs have the lower energy"
    if not run.pairing.random:
        np.testing.assert_allclose(pq.read_table(own)["energy"].to_numpy(), energies[x], rtol=1e-4, atol=1e-6)
    batch = torch.from_numpy(values)
    pair = run.pairing.join(Originals(batch), Originals(batch[torch.from_numpy(order)]))
    expected = run.model.free_energy(pair.x, pair.y, pair.action).numpy()
    np.testing.assert_allclose(energies[y], expected, rtol=1e-3, atol=1e-5)


def test_a_table_with_other_columns_is_refused(accord: Command, runs: Callable[[str], Path], tmp_path: Path) -> None:
    samples = open_source(FORKS)
    swapped = [samples.features[i] for i in (1, 0, *range(2, 8))]
    rows = samples.batch(np.arange(9)).tolist()
    (tmp_path / "t.csv").write_text("\n".join([",".join(swapped), *(",".join(map(str, row)) for row in rows)]) + "\n")
    outcome = accord("embed", runs("forks"), tmp_path / "t.csv", "-o", tmp_path / "e.npy")
    assert outcome.code == 0, "columns are found by their names"
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("x1", "x9", 1))
    outcome = accord("embed", runs("forks"), tmp_path / "t.csv", "-o", tmp_path / "e.npy")
    assert outcome.code == 3 and 'no column of numbers "x1"' in outcome.err and 'rename "x9"' in outcome.err
    outcome = accord("embed", runs("forks"), "forks:m=4,n=9", "-o", tmp_path / "e.npy")
    assert outcome.code == 2 and "number 8 is y6, it was not there" in outcome.err


@pytest.mark.parametrize("name", ["forks", "masked"])
def test_a_run_goes_on_bit_for_bit(accord: Command, tmp_path: Path, name: str) -> None:
    source = RUNS[name][0] if name == "forks" else "digits"
    common = [source, *(MASKED if name == "masked" else ()), "--set", "training.batch_size=64"]
    common += ["--set", "training.on_collapse='warn'"]
    assert accord("train", *common, "--set", "training.steps=6", "--out", tmp_path / "a").code == 0
    again = ("train", source, "--recipe", tmp_path / "a" / "recipe.toml", "--out", tmp_path / "b")
    assert accord(*again, "--set", "training.checkpoint_every=0.001s").code == 0
    for later in sorted((tmp_path / "b" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(later)  # as if it had been killed earlier
    outcome = accord("train", source, "--out", tmp_path / "b", "--resume")
    assert outcome.code == 0 and "going on from step-" in outcome.out, outcome.err
    weights = [sorted((tmp_path / run / "checkpoints").iterdir())[-1] / "weights.safetensors" for run in "ab"]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forks:k=3"], "no parameter 'k'"),
        (["fork"], 'did you mean "forks"?'),
        (["forks", "--set", "pairing.x=['x9']"], "there is no column 'x9'"),
        (["forks", "--recipe", "halves"], "does not fit|does not apply"),
        (["digits", "--recipe", "vector_pairs"], "images have no columns"),
        (["jump", "--set", "pairing.split=diagonal"], "pairing.split"),
        (
            ["digits", "--set", "pairing.name=masked_blocks", "--set", "pairing.patch=3"],
            "do not divide images of 8 x 8",
        ),
        (["digits", "--recipe", "halfs"], "did you mean 'halves'?"),
    ],
)
def test_what_is_refused_before_training(accord: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = accord("train", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2 and "Traceback" not in outcome.err and "help: " in outcome.err
    assert any(part in outcome.err for part in message.split("|")), outcome.err


def test_runs_are_named_after_the_source(accord: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = accord(
        "train", "forks:m=1,n=200,noise=0.1", "--set", "training.steps=2", "--set", "training.batch_size=64"
    )
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "runs" / "forks" / "recipe.toml").exists()
    assert accord("check", "jump", "--json").json["bad"] == 0
