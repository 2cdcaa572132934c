"""Pairs with a text model of Hugging Face through the command line: trained, opened again, and refused where its files have changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from accord import recipe_toml
from accord.run import open_run

pytest.importorskip("transformers", reason="the extra hf is not installed")

COLOURS, THINGS = ("red", "green", "blue"), ("hat", "chair", "ball", "cup")
NAMES = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
Accord = Callable[..., Any]
Bert = Callable[..., Path]


def table(path: Path, n: int = 96) -> Path:
    rng = np.random.default_rng(0)
    lines = ["u,v,name"]
    for i in range(n):
        colour, thing = i % 3, i // 3 % 4
        lines.append(
            f"{colour + 0.1 * rng.normal():.3f},{thing + 0.1 * rng.normal():.3f},a {COLOURS[colour]} {THINGS[thing]}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_with_a_text_model(frozen: bool, tmp_path: Path, accord: Accord, tiny_bert: Bert) -> None:
    bert, data, run = tiny_bert(tmp_path / "bert", NAMES), table(tmp_path / "t.csv"), tmp_path / "run"
    options = ["--set", "encoder_y.name=hf", "--set", f"encoder_y.model={bert}", "--set", "encoder_y.pretrained=true"]
    options += ["--set", f"encoder_y.frozen={str(frozen).lower()}", "--set", "projector.dim=8"]
    length = ["--set", "training.steps=30", "--set", "training.batch_size=16"]
    done = accord("train", data, "--x", "u,v", "--y", "name", *options, *length, "--out", run)
    assert done.code == 0, done.err
    section = recipe_toml.load(run / "recipe.toml").encoder_y
    assert section is not None and section.name == "hf" and len(section.sha256 or "") == 64
    backbone = open_run(run).model.encoder_y.backbone[1]  # type: ignore[index, union-attr]
    before = backbone.network.state_dict()
    from transformers import BertModel

    came = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    same = [torch.equal(before[name], value) for name, value in came.items()]
    assert all(same) if frozen else not any(same[:1]), "a frozen model is as it came, another one has been trained"
    done = accord("evaluate", run)
    assert done.code == 0, done.err
    for verb, more in (("score", []), ("embed", ["--side", "y"]), ("search", [data, "-k", "3"])):
        file = tmp_path / f"{verb}.parquet"
        done = accord(verb, run, data, *more, "-o", file, *(["--allow-overlap"] if verb == "score" else []))
        assert done.code == 0, done.err
    vectors = pq.read_table(tmp_path / "embed.parquet")
    moved = tmp_path / "elsewhere"
    shutil.move(bert, moved)
    refused = accord("embed", run, data, "--side", "y", "-o", tmp_path / "none.parquet")
    assert refused.code == 5 and "E521" in refused.err and str(bert) in refused.err
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace(str(bert), str(moved)))
    assert accord("embed", run, data, "--side", "y", "-o", tmp_path / "again.parquet").code == 0
    assert pq.read_table(tmp_path / "again.parquet").equals(vectors)
    tokenizer = moved / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"red"', '"rad"'))
    changed = accord("embed", run, data, "--side", "y", "-o", tmp_path / "none.parquet")
    assert changed.code == 4 and "E415" in changed.err and "are not those that the recipe names" in changed.err


def test_training_with_a_text_model_goes_on_only_with_the_same_files(
    tmp_path: Path, accord: Accord, tiny_bert: Bert
) -> None:
    bert, data, run = tiny_bert(tmp_path / "bert", NAMES), table(tmp_path / "t.csv"), tmp_path / "run"
    options = ["--set", "encoder_y.name=hf", "--set", f"encoder_y.model={bert}", "--set", "encoder_y.pretrained=true"]
    options += ["--x", "u,v", "--y", "name", "--set", "training.batch_size=16", "--out", run]
    assert accord("train", data, *options, "--set", "training.steps=2").code == 0
    tiny_bert(bert, NAMES, seed=1)
    again = accord("train", data, *options, "--set", "training.steps=4", "--resume")
    assert again.code == 4 and "E415" in again.err


def test_a_text_model_for_numbers_and_a_text_encoder_for_an_image(
    tmp_path: Path, accord: Accord, tiny_bert: Bert
) -> None:
    bert, data = tiny_bert(tmp_path / "bert", NAMES), table(tmp_path / "t.csv")
    options = ["--set", "encoder.name=hf", "--set", f"encoder.model={bert}", "--out", tmp_path / "run"]
    refused = accord("train", data, "--x", "u,v", "--y", "name", *options)
    assert refused.code == 2 and "E210" in refused.err and "use mlp or tabular" in refused.err
    images = accord("train", "digits", *options)
    assert images.code == 2 and "does not take images" in images.err
