"""Which labels are usable, what is said about the others, and the baselines on real digits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.evaluate import probes as p
from accord.evaluate.probe import Moments
from accord.evaluate.probes import Part, usable_labels


def labelled(samples: Samples, label: object, classes: tuple[str, ...] | None = None) -> Samples:
    array = np.asarray(label, np.int64)
    return dataclasses.replace(samples, labels=array, classes=classes or samples.classes, fingerprint="")


@pytest.fixture
def halves(vectors: Samples) -> tuple[Part, Part]:
    return Part(vectors, np.arange(60)), Part(vectors, np.arange(60, 120))


def test_all_labels_usable(halves: tuple[Part, Part]) -> None:
    labels, notes = usable_labels(*halves, seed=0)
    assert labels is not None and notes == [] and labels.count == 3
    assert labels.train.tolist() == list(range(60)) and labels.held_out_label.tolist() == [0, 1, 2] * 20
    assert labels.chance == pytest.approx(1 / 3)


def test_without_labels_nothing_is_probed(vectors: Samples, halves: tuple[Part, Part]) -> None:
    none = dataclasses.replace(vectors, labels=None)
    missing = labelled(vectors, [-1] * 120)
    for other in (none, missing):
        for train, held_out in ((Part(other, np.arange(60)), halves[1]), (halves[0], Part(other, np.arange(60, 120)))):
            labels, notes = usable_labels(train, held_out, seed=0)
            assert labels is None and len(notes) == 1 and "no labels" in notes[0]


def test_missing_labels_are_left_out_and_counted(vectors: Samples) -> None:
    label = np.arange(120) % 3
    label[:7], label[60:64] = -1, -1
    samples = labelled(vectors, label)
    labels, notes = usable_labels(Part(samples, np.arange(60)), Part(samples, np.arange(60, 120)), seed=0)
    assert labels is not None and labels.train.tolist() == list(range(7, 60)) and len(labels.held_out) == 56
    assert any("7 of 60 training samples" in n for n in notes) and any("4 of 60 held-out" in n for n in notes)


def test_one_class_is_not_probed(vectors: Samples) -> None:
    samples = labelled(vectors, [1] * 120)
    labels, notes = usable_labels(Part(samples, np.arange(60)), Part(samples, np.arange(60, 120)), seed=0)
    assert labels is None and "one class" in notes[-1]


def test_classes_absent_on_either_side(vectors: Samples) -> None:
    label = np.array([0, 2] * 30 + [1, 2] * 30)
    samples = labelled(vectors, label, ("cat", "dog", "owl"))
    train, held_out = Part(samples, np.arange(60)), Part(samples, np.arange(60, 120))
    labels, notes = usable_labels(train, held_out, seed=0)
    assert labels is not None and labels.count == 2
    assert labels.train_label.tolist() == [0, 1] * 30  # cat, owl
    assert labels.held_out_label.tolist() == [2, 1] * 30  # dog, which nobody can know, and owl
    assert any("30 held-out samples are of a class without training samples" in n for n in notes)
    assert any("Class cat is not among the held-out" in n for n in notes)
    x = torch.from_numpy(label[:, None] == np.arange(3)).float()
    found = p.probes(labels, train, held_out, (x[:60], x[60:]), seed=0, baselines=False)
    assert found["features"]["linear"] == found["features"]["knn"] == 0.5  # type: ignore[index]


def test_rare_classes_are_named(vectors: Samples) -> None:
    label = np.array([0] * 50 + [1] * 10 + [2] * 4 + [0] * 56)
    samples = labelled(vectors, label, ("a", "b", "rare"))
    _, notes = usable_labels(Part(samples, np.arange(64)), Part(samples, np.arange(64, 120)), seed=0)
    assert any("Class rare is with fewer than 10 labelled" in n for n in notes)


def test_another_source_is_matched_by_class_name(vectors: Samples, halves: tuple[Part, Part]) -> None:
    train = labelled(vectors, np.arange(120) % 3, ("a", "b", "c"))
    test = labelled(vectors, np.arange(120) % 4 - 1, ("c", "new", "a"))  # -1, c, new, a
    labels, _ = usable_labels(Part(train, np.arange(60)), Part(test, np.arange(120)), seed=0)
    assert labels is not None and len(labels.held_out) == 90
    assert labels.held_out_label.tolist() == [2, 3, 0] * 30


def test_many_classes_have_no_few_label_probe() -> None:
    label = np.arange(240) % 120
    x = np.eye(120, dtype=np.float32)[label] + 0.1 * np.random.default_rng(0).normal(size=(240, 120))
    samples = open_source({"x": x.astype(np.float32), "label": label})
    train, held_out = Part(samples, np.arange(120)), Part(samples, np.arange(120, 240))
    labels, notes = usable_labels(train, held_out, seed=0)
    assert labels is not None and any("at most 100 classes; there are 120" in n for n in notes)
    values = torch.from_numpy(x.astype(np.float32))
    found = p.probes(labels, train, held_out, (values[:120], values[120:]), seed=0, baselines=False)
    assert found["features"]["few_label"] is None and found["features"]["knn"] > 0.9  # type: ignore[index]


def test_training_rows_are_capped(vectors: Samples, monkeypatch: pytest.MonkeyPatch, halves: tuple[Part, Part]) -> None:
    monkeypatch.setattr(p, "MOST_ROWS", 20)
    labels, notes = usable_labels(*halves, seed=0)
    assert labels is not None and len(np.unique(labels.train)) == 20 and any("20 samples" in n for n in notes)


def test_pixels_are_values_in_order_and_large_images_are_averaged(digits: Samples) -> None:
    index = np.array([3, 1, 700])
    assert torch.equal(p.pixels(digits, index), digits.batch(index).flatten(1).float() / 255)
    images = np.zeros((4, 3, 64, 64), np.uint8)
    images[:, :, ::2] = 255
    large = p.pixels(open_source(images), np.arange(4))
    assert large.shape == (4, 3 * 32 * 32) and torch.allclose(large, torch.full_like(large, 0.5))


@pytest.mark.parametrize("dim", [30, 600])
def test_principal_components_are_those_of_the_covariance(dim: int) -> None:
    """Both ways to find them: exact, and randomised for many dimensions."""
    scale = torch.logspace(1, -3, dim)
    x = torch.randn(900, dim, generator=torch.Generator().manual_seed(0)) * scale + 5
    found = p.principal_components(Moments.of(x), seed=0)
    values = np.linalg.eigvalsh(np.cov(x.double().numpy().T, bias=True))
    share = values[::-1].cumsum() / values.sum()
    assert found.shape[1] == int((share < 0.95).sum()) + 1
    assert torch.allclose(found.T @ found, torch.eye(found.shape[1]), atol=1e-4)
    kept = ((x - x.mean(0)) @ found).var(0, unbiased=False).sum() / x.var(0, unbiased=False).sum()
    assert float(kept) == pytest.approx(share[found.shape[1] - 1], abs=1e-3) and kept >= 0.949


def test_pixels_of_digits_reach_what_scikit_learn_reaches(digits: Samples) -> None:
    """The baselines must be strong: pixels on the left, so that learned features have something to beat."""
    index = np.random.default_rng(0).permutation(len(digits))
    train, held_out = Part(digits, np.sort(index[360:])), Part(digits, np.sort(index[:360]))
    labels, notes = usable_labels(train, held_out, seed=0)
    assert labels is not None and notes == []
    raw = p.pixels(digits, train.index), p.pixels(digits, held_out.index)
    found = p.probes(labels, train, held_out, raw, seed=0)
    row: Any = found["pixels"]
    assert found["features"] == row
    assert row["linear"] > 0.95 and row["knn"] > 0.96 and 0.87 < row["few_label"]["mean"] < 0.93
    assert found["pca"]["few_label"]["mean"] > 0.87 and found["pca"]["linear"] > 0.92  # type: ignore[index]
    assert 0.05 < float(found["chance"]) < 0.15  # type: ignore[arg-type]


def test_sources_without_a_class_in_common_are_not_probed(vectors: Samples, halves: tuple[Part, Part]) -> None:
    other = dataclasses.replace(vectors, classes=("cat", "dog", "emu", "fox"), labels=np.arange(len(vectors)) % 4)
    labels, notes = usable_labels(halves[0], Part(other, halves[1].index), seed=0)
    assert labels is None
    assert "no class in common" in notes[-1] and "cat, dog, emu, ..." in notes[-1]
