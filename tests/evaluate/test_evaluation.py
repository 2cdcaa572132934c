"""The whole evaluation on real digits, and on what may go wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from accord.data.pairing import Pairing, two_views
from accord.data.pairing_sides import sides
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.errors import ArtifactError, DataError
from accord.evaluate import evaluation, shown
from accord.evaluate.evaluation import Origin, evaluate
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor

TRAIN, HELD_OUT = np.arange(600), np.arange(1500, 1700)
Build = Callable[..., JointEmbedding]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("run")
    found = evaluate(
        digit_model,
        digits,
        views,
        train_index=TRAIN,
        held_out_index=HELD_OUT,
        origin=Origin(principle="VICReg", encoder="small", steps=7, seconds=1.5),
        commands=["accord train digits"],
        out=out,
    )
    return found, out


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value


def quick(model: JointEmbedding, samples: Samples, pairing: Pairing, **more: Any) -> dict[str, Any]:
    places = {"train_index": TRAIN, "held_out_index": HELD_OUT} | more
    return evaluate(model, samples, pairing, baselines=False, **places)


def unlabelled(samples: Samples) -> Samples:
    return dataclasses.replace(samples, labels=None, classes=(), fingerprint="")


def test_the_file_holds_what_is_returned_as_strict_json(run: tuple[dict[str, Any], Path]) -> None:
    found, out = run
    text = (out / "evaluation.json").read_text()
    read = json.loads(text, parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(found, allow_nan=False))
    assert sorted(p.name for p in out.rglob("*")) == ["evaluation", "evaluation.json", "thumbnails.png"]
    for path, value in leaves(found):
        assert value is None or type(value) in (str, int, float), (path, type(value))


def test_every_key_of_the_schema_is_there(run: tuple[dict[str, Any], Path]) -> None:
    found, _ = run
    assert found["format"] == 1 and found["commands"] == ["accord train digits"]
    assert found["data"] == {
        "source": "digits",
        "kind": "image",
        "samples": 1797,
        "train": 600,
        "held_out": 200,
        "test_source": None,
        "classes": list("0123456789"),
        "skipped": 0,
        "shape": [1, 8, 8],
    }
    assert found["model"] == {
        "parameters": 16 * 9 + 16 + 2 * 16 + 256 * 24 + 24,
        "feature_dim": 256,
        "dim": 24,
        "principle": "VICReg",
        "encoder": "small",
        "steps": 7,
        "seconds": 1.5,
    }
    for name in ("features", "pixels", "pca"):
        row = found["probes"][name]
        assert 0.5 < row["few_label"]["mean"] < row["linear"] <= 1 and 0.8 < row["knn"] <= 1
        assert row["few_label"]["per_class"] == 10 and row["few_label"]["draws"] == 20
    figures = {"recall@1", "recall@5", "recall@10", "median_rank", "mrr", "candidates", "class_map"}
    assert set(found["retrieval"]) == {*figures, "reverse"} and set(found["retrieval"]["reverse"]) == figures
    assert set(found["energy"]) == {"matched", "ladder", "histogram"}
    for row in found["energy"]["ladder"].values():
        assert set(row) == {"mean", "std", "gap", "auroc", "d_prime"} and 0 <= row["auroc"] <= 1
    assert set(found["collapse"]) >= {
        *("verdict", "rankme", "alpha_req", "lidar", "std_min", "std_mean", "std_share_below_0.1"),
        *("off_diagonal_correlation", "spectrum", "dim"),
    }
    assert 1 <= found["collapse"]["rankme"] <= 24 and len(found["collapse"]["spectrum"]) == 24
    assert set(found["seconds"]) == {"features", "probes", "energy", "retrieval", "collapse", "latent", "pictures"}


def test_numbers_agree_with_one_another(run: tuple[dict[str, Any], Path]) -> None:
    found, _ = run
    assert found["retrieval"]["candidates"] == 200 == sum(found["energy"]["histogram"]["matched"])
    random = found["energy"]["ladder"]["random"]
    assert random["gap"] == pytest.approx(random["mean"] - found["energy"]["matched"]["mean"])
    assert random["auroc"] > 0.6 and random["auroc"] > found["energy"]["ladder"]["nearest"]["auroc"]
    energies = [one["energy"] for one in found["pairs"]["lowest"]], [one["energy"] for one in found["pairs"]["highest"]]
    assert energies[0] == sorted(energies[0]) and energies[1] == sorted(energies[1], reverse=True)
    assert energies[0][-1] < found["energy"]["matched"]["mean"] < energies[1][-1]


def test_map_neighbours_and_pairs_point_at_the_right_pictures(
    run: tuple[dict[str, Any], Path], digits: Samples, views: Pairing
) -> None:
    found, out = run
    about = found["thumbnails"]
    with Image.open(io.BytesIO((out / about["file"]).read_bytes()), formats=["PNG"]) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
        assert not picture.info

    def tile(number: int) -> np.ndarray:
        assert 0 <= number < about["count"]
        top, left = number // about["columns"] * about["size"], number % about["columns"] * about["size"]
        return pixels[top : top + about["size"], left : left + about["size"]]

    place = {digits.keys[i]: i for i in HELD_OUT}
    assert digits.labels is not None
    points = found["map"]
    assert {len(points[key]) for key in ("x", "y", "label", "thumbnail", "key")} == {200}
    shown = list(zip(points["key"], points["thumbnail"], points["label"], strict=True))
    for group in found["neighbours"]:
        shown.append((group["key"], group["query"], group["label"]))
        shown += [(one["key"], one["thumbnail"], one["label"]) for one in group["neighbours"]]
        distances = [one["distance"] for one in group["neighbours"]]
        assert distances == sorted(distances) and len(distances) == 8 and distances[0] >= -1e-6
        assert group["key"] not in [one["key"] for one in group["neighbours"]]
    for key, number, label in shown:
        plain = views.plain(digits.batch(np.array([place[key]])))[0, 0] * 255
        assert np.abs(tile(number) - plain.numpy()).max() <= 1 and label == digits.labels[place[key]]
    agree = [one["label"] == group["label"] for group in found["neighbours"] for one in group["neighbours"]]
    assert np.mean(agree) > 0.4
    for pair in found["pairs"]["lowest"] + found["pairs"]["highest"]:
        assert pair["x"] != pair["y"] and pair["key"] in place
        x, y = tile(pair["x"]), tile(pair["y"])
        assert x.any() and y.any() and (x != y).any()


def test_the_same_seed_gives_the_same_result(
    run: tuple[dict[str, Any], Path], digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> None:
    again = quick(digit_model, unlabelled(digits), views)
    for key in ("energy", "collapse"):
        assert again[key] == run[0][key]
    retrieval = run[0]["retrieval"]  # the precision of classes is all in it that reads labels
    assert again["retrieval"] == {
        **retrieval,
        "class_map": None,
        "reverse": {**retrieval["reverse"], "class_map": None},
    }
    assert 0.2 < retrieval["class_map"] < 1 and 0.2 < retrieval["reverse"]["class_map"] < 1
    assert again["map"]["x"] == run[0]["map"]["x"]
    other = quick(digit_model, unlabelled(digits), views, seed=1)
    assert other["energy"]["matched"]["mean"] != again["energy"]["matched"]["mean"]


def test_without_labels_all_that_needs_none_is_there(
    digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> None:
    found = quick(digit_model, unlabelled(digits), views)
    assert found["probes"] is None and any("no labels" in line for line in found["warnings"])
    assert set(found["map"]["label"]) == {-1} and found["data"]["classes"] == []
    assert found["retrieval"]["mrr"] > 0 and found["thumbnails"]["count"] >= 200


def test_another_source_is_measured_instead(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    """Classes in another order, one sample bad, and some samples that were trained on."""
    assert digits.labels is not None
    ok = digits.ok.copy()
    ok[:1500], ok[1510] = False, False
    ok[5:8] = True
    order = tuple(reversed(digits.classes))
    test = dataclasses.replace(digits, name="other", labels=9 - digits.labels, classes=order, ok=ok, fingerprint="")
    found = quick(digit_model, digits, views, test=test)
    assert found["data"]["test_source"] == "other" and found["data"]["held_out"] == 299
    assert found["retrieval"]["candidates"] == 299 and found["probes"]["features"]["knn"] > 0.8
    assert any("3 of 299 samples measured on are also among the training samples" in w for w in found["warnings"])
    known = dict(zip(digits.keys, digits.labels.tolist(), strict=True))
    assert [known[key] for key in found["map"]["key"]] == found["map"]["label"]


def test_the_untrained_encoder_is_probed_on_the_same_rows(
    digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> None:
    twin, constant = digit_model.encoder_x, Encoder(Constant(), sample_ndim=3)
    same = quick(digit_model, digits, views, untrained=twin)["probes"]
    assert same["untrained"] == same["features"]
    assert quick(digit_model, digits, views, untrained=constant)["probes"]["untrained"]["knn"] < 0.2


def test_vectors_have_no_thumbnails(
    vectors: Samples, noisy: Callable[..., Pairing], build: Build, tmp_path: Path
) -> None:
    found = evaluate(
        build(), vectors, noisy(0.3), train_index=np.arange(60), held_out_index=np.arange(60, 120), out=tmp_path
    )
    assert found["thumbnails"] is None and found["data"]["kind"] == "vector"  # type: ignore[index]
    assert [p.name for p in tmp_path.rglob("*")] == ["evaluation.json"]
    assert all(
        value == -1 for path, value in leaves(found) if path.endswith((".thumbnail", ".query", ".x", ".y")) and value
    )
    assert found["energy"]["ladder"]["random"]["auroc"] > 0.95  # type: ignore[index]
    assert found["probes"]["features"]["linear"] == pytest.approx(found["probes"]["pixels"]["linear"])  # type: ignore[index]


class Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linspace(0.1, 1, 16, device=x.device).expand(len(x), 16)


def test_a_constant_embedding_gets_its_verdict_and_no_points(digits: Samples, views: Pairing, tmp_path: Path) -> None:
    encoder = Encoder(Constant(), sample_ndim=3)
    model = JointEmbedding(encoder, encoder, IdentityPredictor())
    found = quick(model, digits, views, out=tmp_path)
    assert found["collapse"]["verdict"] == "constant" and found["warnings"][0].startswith(
        "Collapse (constant): all inputs"
    )
    assert found["retrieval"]["recall@10"] == 0 and found["retrieval"]["median_rank"] == 200
    assert found["energy"]["ladder"]["random"]["auroc"] == 0.5
    assert found["probes"]["features"]["linear"] < 0.2 and found["map"]["method"] == "pca"
    assert all(value is None or not isinstance(value, float) or math.isfinite(value) for _, value in leaves(found))


def test_a_broken_model_is_refused(digits: Samples, views: Pairing, tmp_path: Path) -> None:
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), sample_ndim=3)
    nn.init.constant_(encoder.backbone[1].bias, math.nan)  # type: ignore[index]
    with pytest.raises(ArtifactError, match="weights are broken"):
        quick(JointEmbedding(encoder, encoder, IdentityPredictor()), digits, views, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_little_to_measure_on_is_refused(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    for index in (np.arange(0), np.array([5])):
        with pytest.raises(DataError, match="at least 2 different samples") as refused:
            quick(digit_model, digits, views, held_out_index=index)
        assert refused.value.exit_code == 3 and "--data" in (refused.value.help or "")


@pytest.mark.parametrize("fixed", [False, True])
def test_where_all_pairs_have_the_same_y_what_needs_another_is_left_out_with_a_reason(
    fixed: bool, tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.repeat([[0.0, 1.0], [1.0, 3.0]], 30, 0)
    labels = np.arange(60) % 2
    samples = open_source({"x": x, "y": y, "label": labels}, x=["x"], y=["y"], label="label")
    torch.manual_seed(0)
    encoder_y = Encoder(nn.Identity() if fixed else nn.Linear(2, 2))
    model = JointEmbedding(Encoder(nn.Linear(3, 2)), encoder_y, IdentityPredictor())
    parts = {"train_index": np.arange(30), "held_out_index": np.arange(30, 60)}
    found = quick(model, samples, sides(), out=tmp_path, **parts)
    assert found["energy"] is None and found["retrieval"] is None and found["latent"] is None
    assert found["probes"]["features"]["linear"] > 0 and len(found["map"]["x"]) == 30
    assert found["collapse"]["verdict"] is None and found["collapse"]["flatness"] is None
    assert found["collapse"]["rankme"] > 1.5 and len(found["pairs"]["lowest"]) == 8
    (said,) = (text for text in found["warnings"] if "the same y" in text)
    assert said.startswith("All 30 pairs") and "data.hold_out_by" in said
    with_two = quick(model, samples, sides(), **{**parts, "held_out_index": np.arange(29, 60)})
    assert with_two["retrieval"]["candidates"] == 31


def test_two_held_out_samples_are_enough(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    found = quick(digit_model, digits, views, held_out_index=np.array([5, 900]))
    assert found["retrieval"]["candidates"] == 2 and len(found["map"]["x"]) == 2


def test_data_of_another_form_is_refused(
    digits: Samples, views: Pairing, digit_model: JointEmbedding, vectors: Samples
) -> None:
    with pytest.raises(DataError, match="vector data of shape") as refused:
        quick(digit_model, digits, views, test=vectors)
    assert refused.value.exit_code == 3 and "image data of shape (1, 8, 8)" in refused.value.message


class Halt(Exception):
    pass


def test_it_can_be_stopped_at_any_stage_and_writes_nothing(
    digits: Samples, views: Pairing, digit_model: JointEmbedding, tmp_path: Path
) -> None:
    samples, stages, calls = unlabelled(digits), [], []
    quick(digit_model, samples, views, stop=lambda: calls.append(1), said=stages.append)
    assert stages == ["features", "probes", "energy", "retrieval", "collapse", "latent", "pictures"] and len(calls) > 12
    digit_model.train()
    for last in (1, 2, len(calls) // 2, len(calls)):
        left = iter(range(last))

        def stop(left: Iterator[int] = left, last: int = last) -> None:
            if next(left) == last - 1:
                raise Halt

        with pytest.raises(Halt):
            quick(digit_model, samples, views, stop=stop, out=tmp_path)
        assert not list(tmp_path.iterdir()) and all(module.training for module in digit_model.modules())


def test_many_samples_are_capped(
    digits: Samples, views: Pairing, digit_model: JointEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (evaluation, "MOST_PAIRS", 50),
        (shown, "MAP_POINTS", 30),
        (evaluation, "LIDAR_SAMPLES", 20),
    ):
        monkeypatch.setattr(module, name, value)
    found = quick(digit_model, unlabelled(digits), views)
    assert found["retrieval"]["candidates"] == 50 == sum(found["energy"]["histogram"]["random"])
    assert len(found["map"]["x"]) == 30


def test_a_failed_write_leaves_the_old_evaluation(
    digits: Samples, views: Pairing, digit_model: JointEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evaluation.json").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left") as refused:
        quick(digit_model, unlabelled(digits), views, out=tmp_path)
    assert refused.value.exit_code == 5  # type: ignore[attr-defined]
    assert (tmp_path / "evaluation.json").read_text() == "old"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["evaluation.json"]


def test_two_encoders_of_different_kind(digits: Samples, digit_model: JointEmbedding) -> None:
    torch.manual_seed(1)
    other = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 40)), nn.Linear(40, 24), sample_ndim=3)
    model = JointEmbedding(digit_model.encoder_x, other, IdentityPredictor())
    found = quick(model, unlabelled(digits), two_views())
    assert found["model"]["feature_dim"] == 256 and found["collapse"]["dim"] == 24
