"""A run on streamed archives: the buffer is written down, the run goes on bit for bit, and only with the same buffer."""

from __future__ import annotations

import importlib
import io
import shutil
import sys
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from accord.data import encoded
from accord.data.augment import Augmentation
from accord.data.pairing import two_views
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.errors import ArtifactError, UsageError
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.model.projector import Projector
from accord.objective.loss import Objective
from accord.objective.principles import regularized
from accord.resolve import resolve

sys.path.insert(0, str(Path(__file__).parents[1]))
tiny = importlib.import_module("tiny")


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twelve archives of 20 images that count as too many to be kept decoded."""
    monkeypatch.setattr("accord.data.sources.Options", lambda *a: encoded.Options(*a, in_memory=0, cached=0))
    monkeypatch.setattr(encoded, "SHUFFLED", 80)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for k in range(12):
        with tarfile.open(tmp_path / f"train-{k:02d}.tar", "w") as archive:
            for i in range(20):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
                info = tarfile.TarInfo(f"{20 * k + i:04d}.png")
                info.size = buffer.tell()
                archive.addfile(info, io.BytesIO(buffer.getvalue()))
    return str(tmp_path / "train-*.tar")


def objective() -> Objective:
    torch.manual_seed(0)

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().flatten(1) / 255

    backbone = nn.Sequential(Scaled(), nn.Linear(192, 16), nn.ReLU())
    encoder = Encoder(backbone, Projector(16, 8, hidden=(16,)), sample_ndim=3)
    return regularized(JointEmbedding(encoder, encoder, IdentityPredictor()))


def train(out: Path, data: Samples, **options: object) -> None:
    made = {"objective": objective(), "samples": data, "pairing": two_views(Augmentation(flip=0.5, noise=0.1))}
    tiny.train(out, on_collapse="warn", **{"steps": 12, "checkpoint_every": 5, **made, **options})


def test_a_run_goes_on_bit_for_bit_and_with_no_other_buffer(tmp_path: Path, shards: str) -> None:
    data = open_source(shards)
    assert data.shuffle_buffer == 80 and data.blocks is not None
    train(tmp_path / "straight", data)
    train(tmp_path / "again", data)
    assert tiny.weights_hash(tmp_path / "straight") == tiny.weights_hash(tmp_path / "again")
    assert tomllib.loads((tmp_path / "again" / "recipe.toml").read_text())["data"]["shuffle_buffer"] == 80
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-12")  # as if it had been stopped after step 10
    train(tmp_path / "again", data, resume=True)
    assert tiny.weights_hash(tmp_path / "straight") == tiny.weights_hash(tmp_path / "again")
    with pytest.raises(ArtifactError, match="shuffle_buffer: 80 then, 40 now"):
        train(tmp_path / "again", data, resume=True, shuffle_buffer=40)
    train(tmp_path / "whole", data, shuffle_buffer=0)
    assert tiny.weights_hash(tmp_path / "whole") != tiny.weights_hash(tmp_path / "straight")


def test_a_recipe_says_the_buffer_that_was_chosen(shards: str) -> None:
    assert resolve(shards, {}, "photo")[0].data.shuffle_buffer == 80
    for given in (0, 30):
        assert resolve(shards, {"data": {"shuffle_buffer": given}}, "photo")[0].data.shuffle_buffer == given
    assert resolve("digits", {}, "digits")[0].data.shuffle_buffer is None


def test_a_buffer_where_there_are_no_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shuffle buffer") as caught:
        tiny.train(tmp_path / "run", shuffle_buffer=10)
    assert caught.value.code == "E279"
