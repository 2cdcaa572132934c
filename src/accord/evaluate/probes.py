"""The three probes on learned features, on raw pixels and on their principal components: the same rows, the same rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accord.data.samples import Samples
from accord.data.values import Values, form, one
from accord.evaluate.features import BATCH, Stop, never
from accord.evaluate.probe import (
    FEW_CLASSES,
    Labelled,
    Moments,
    few_label_probe,
    knn_probe,
    linear_probe,
)

MOST_ROWS = 50_000
"""Probes are trained on at most so many samples, chosen at random."""
PIXEL_SIDE = 32
"""Larger images are averaged down to this side before their pixels are probed."""
VARIANCE, COMPONENTS = 0.95, 256
"""PCA keeps this share of the variance, and at most so many components."""
PER_CLASS = 10
Plain = Callable[[Values, Tensor | None], Tensor]
"""`Pairing.plain`: samples and the aspect of the originals to what an encoder takes."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a source."""

    samples: Samples
    index: np.ndarray


@dataclass(frozen=True, eq=False)
class Labels:
    """Rows that have a usable label: places in the index of each part, and labels 0..count-1.

    A held-out label of `count` is a class that training has no sample of: always answered wrongly.
    """

    train: np.ndarray
    train_label: np.ndarray
    held_out: np.ndarray
    held_out_label: np.ndarray
    count: int

    @property
    def chance(self) -> float:
        """Held-out accuracy of always answering the class that is most common in training."""
        return float((self.held_out_label == np.bincount(self.train_label).argmax()).mean())


def usable_labels(train: Part, held_out: Part, *, seed: int) -> tuple[Labels | None, list[str]]:
    """Labels both parts understand, and what a reader has to know about them; None where no probe is possible."""
    notes: list[str] = []
    for part, name in ((train, "training"), (held_out, "test")):
        if part.samples.labels is None or not (part.samples.labels[part.index] >= 0).any():
            return None, [f"The {name} data has no labels, so no probe was run; all that needs no labels was."]
    assert train.samples.labels is not None and held_out.samples.labels is not None
    label, other = train.samples.labels[train.index], held_out.samples.labels[held_out.index]
    if held_out.samples is not train.samples:
        other = by_name(other, held_out.samples.classes, train.samples.classes)
    has, other_has = np.flatnonzero(label >= 0), np.flatnonzero(other != -1)
    for missing, total, name in (
        (len(label) - len(has), len(label), "training"),
        (len(other) - len(other_has), len(other), "held-out"),
    ):
        if missing:
            notes.append(f"{missing:,} of {total:,} {name} samples have no label; the probes leave them out.")
    if len(has) > MOST_ROWS:
        has = np.sort(np.random.default_rng(seed).choice(has, MOST_ROWS, replace=False))
        notes.append(f"The probes were trained on {MOST_ROWS:,} samples, chosen at random.")
    classes, counts = np.unique(label[has], return_counts=True)
    if len(classes) < 2:
        return None, [*notes, "All labelled training samples are of one class, so no probe was run."]
    place = np.searchsorted(classes, other[other_has]).clip(max=len(classes) - 1)
    seen = classes[place] == other[other_has]
    if not seen.any():
        names = (
            _some(train.samples.classes, classes),
            _some(held_out.samples.classes, held_out.samples.labels[held_out.index]),
        )
        return None, [
            *notes,
            f"Training and test data have no class in common ({names[0]}; {names[1]}), so no probe was run.",
        ]
    mapped = np.where(seen, place, len(classes))
    notes += _class_notes(train.samples.classes, classes, counts, mapped, int((~seen).sum()))
    return Labels(has, np.searchsorted(classes, label[has]), other_has, mapped, len(classes)), notes


def by_name(label: np.ndarray, names: tuple[str, ...], known: tuple[str, ...]) -> np.ndarray:
    """Labels of another source in the numbers of this one; -2 for a class this one has not; -1 stays missing."""
    number = {name: i for i, name in enumerate(known)}
    table = np.array([number.get(name, -2) for name in names] + [-1], np.int64)
    found: np.ndarray = table[label]
    return found


def _class_notes(
    names: tuple[str, ...], classes: np.ndarray, counts: np.ndarray, mapped: np.ndarray, unseen: int
) -> list[str]:
    notes = []
    if unseen:
        notes.append(f"{unseen:,} held-out samples are of a class without training samples; they count as wrong.")
    absent = np.setdiff1d(np.arange(len(classes)), mapped)
    if len(absent):
        notes.append(f"{_names(names, classes[absent])} not among the held-out samples: the probes say nothing of it.")
    few = classes[counts < PER_CLASS]
    if len(few):
        notes.append(
            f"{_names(names, few)} with fewer than {PER_CLASS} labelled training samples: the few-label probe uses all there are."
        )
    if len(classes) > FEW_CLASSES:
        notes.append(f"The few-label probe is for at most {FEW_CLASSES} classes; there are {len(classes):,}.")
    return notes


def _names(names: tuple[str, ...], classes: np.ndarray) -> str:
    if len(classes) == 1:
        return f"Class {_some(names, classes)} is"
    return f"{len(classes):,} classes ({_some(names, classes)}) are"


def _some(names: tuple[str, ...], labels: np.ndarray) -> str:
    """The first three of the classes that occur, by name."""
    classes = np.unique(labels[labels >= 0]).tolist()
    shown = ", ".join(names[c] if c < len(names) else str(c) for c in classes[:3])
    return f"{shown}, ..." if len(classes) > 3 else shown


def probes(
    labels: Labels,
    train: Part,
    held_out: Part,
    features: tuple[Tensor, Tensor],
    *,
    untrained: tuple[Tensor, Tensor] | None = None,
    plain: Plain | None = None,
    seed: int,
    baselines: bool = True,
    stop: Stop = never,
) -> dict[str, object]:
    """All probes on all kinds of features.

    Args:
        labels: of `usable_labels`.
        train: what the probes learn from.
        held_out: what they are measured on.
        features: learned features of the labelled rows of both, (n, feature) and (m, feature).
        untrained: features of the same rows by the same encoder before training.
        plain: what the encoder sees of a sample, where that is not all of it: the baselines see no more.
        seed: of every random choice.
        baselines: also probe raw pixels (or columns) and their principal components.
        stop: called between probes.
    """
    found: dict[str, object] = {"chance": labels.chance, "features": _three(labels, features, seed, stop)}
    if untrained is not None:
        found["untrained"] = _three(labels, untrained, seed, stop)
    if not baselines:
        return found
    parts = ((train, labels.train), (held_out, labels.held_out))
    raw = _filled(*(pixels(part.samples, part.index[rows], plain) for part, rows in parts))
    stop()
    moments = Moments.of(raw[0])
    found["pixels"] = _three(labels, raw, seed, stop, moments)
    components = principal_components(moments, seed=seed)
    stop()
    found["pca"] = _three(labels, tuple((x - moments.mean) @ components for x in raw), seed, stop)
    return found


def _filled(train: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Raw values with the training mean of each in the place of what is missing."""
    if not bool(train.isnan().any() or held_out.isnan().any()):
        return train, held_out
    mean = train.nanmean(0).nan_to_num()
    return torch.where(train.isnan(), mean, train), torch.where(held_out.isnan(), mean, held_out)


def _three(
    labels: Labels, features: tuple[Tensor, ...], seed: int, stop: Stop, moments: Moments | None = None
) -> dict[str, object]:
    train = Labelled(features[0], torch.from_numpy(labels.train_label))
    held_out = Labelled(features[1], torch.from_numpy(labels.held_out_label))
    moments = Moments.of(train.x) if moments is None else moments
    linear = linear_probe(train, held_out, labels.count, seed=seed, moments=moments)
    stop()
    knn = knn_probe(train, held_out, labels.count)
    stop()
    few = None
    if labels.count <= FEW_CLASSES:
        few = few_label_probe(train, held_out, labels.count, seed=seed, per_class=PER_CLASS, moments=moments)._asdict()
    stop()
    return {"linear": linear, "knn": knn, "few_label": few}


def pixels(samples: Samples, index: np.ndarray, plain: Plain | None = None) -> Tensor:
    """Raw values of `samples[index]`, (n, values) float32: pixels in [0, 1], averaged down to 32 x 32 at most, or columns.

    With `plain` those of what it makes of the samples.
    """
    parts = []
    for start in range(0, len(index), BATCH):
        rows = index[start : start + BATCH]
        batch = samples.batch(rows)
        if plain is not None:
            values = plain(batch, samples.aspects(rows))
        else:
            values = one(batch, "probing").float() / (255 if samples.kind == "image" else 1)
        if form(values) == "image" and max(values.shape[-2:]) > PIXEL_SIDE:
            height, width = (min(side, PIXEL_SIDE) for side in values.shape[-2:])
            values = torch.nn.functional.adaptive_avg_pool2d(values, (height, width))
        parts.append(values.flatten(1).float())
    return torch.cat(parts)


def principal_components(moments: Moments, *, seed: int) -> Tensor:
    """The directions of most variance, (dim, k): 95 % of it, or 256 of them. Randomised (Halko et al. 2011) for many dimensions."""
    covariance = moments.covariance
    if len(covariance) <= 512:
        values, vectors = torch.linalg.eigh(covariance.double())
        values, vectors = values.flip(0)[:COMPONENTS], vectors.flip(1)[:, :COMPONENTS]
    else:
        from sklearn.utils.extmath import randomized_svd

        u, s, _ = randomized_svd(covariance.numpy(), COMPONENTS, n_iter=4, random_state=seed % 2**32)
        values, vectors = torch.from_numpy(s).double(), torch.from_numpy(np.ascontiguousarray(u)).double()
    share = values.clamp_min(0).cumsum(0) / covariance.diagonal().double().sum().clamp_min(1e-30)
    count = min(int((share < VARIANCE).sum()) + 1, len(values))
    kept: Tensor = vectors[:, :count].float()
    return kept
