"""Everything that can be said of a trained model, with and without labels, in one strict-JSON object and one sheet of thumbnails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accord.data.pairing import Pairing
from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.diagnostics import auroc
from accord.errors import DataError
from accord.evaluate import collapse, energy, latent, probes, retrieval
from accord.evaluate.features import (
    Embedded,
    Stop,
    embed_pairs,
    embed_views,
    extract,
    never,
    numbers,
)
from accord.evaluate.futures import held_out_figures
from accord.evaluate.hypothesis_pictures import examples
from accord.evaluate.over_time import over_time
from accord.evaluate.pictures import Sheet
from accord.evaluate.probes import Part
from accord.evaluate.shown import THUMBNAILS, pictures
from accord.evaluate.work import Work
from accord.model.amortize import Amortize
from accord.model.coordinate import Coordinate
from accord.model.density import Density
from accord.model.descend import Descend
from accord.model.encoder import Branch
from accord.model.energy import Cost, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.langevin import Langevin
from accord.model.minimize import BestOf, Minimizer
from accord.model.sparse_coding import Ista, Lista
from accord.model.variational import Variational
from accord.storage import disk_faults, finite, replace_file, write_json

FORMAT = 1
MOST_PAIRS = 10_000
"""Energies and retrieval are measured on at most so many samples, chosen at random."""
SEARCHED, SAMPLED = 500, 64
"""The same where z of every x with every y has to be searched for, step by step or by many particles: minutes instead of hours."""
MADE, OF_NETWORK = 100_000_000, 8
"""And where each pair takes a decoder or a network of its own: numbers of y made in all, counting a network as 8 decoders. A CVAE takes
0.1 ms of a core for a pair of colour images of 16 x 16 pixels: 3 s for all pairs of 180, 26 s for those of 500."""
WITHOUT_BASELINE = ("text", "audio")
"""Kinds whose raw values say nothing to a linear probe."""
LIDAR_SAMPLES, LIDAR_VIEWS = 1000, 10
SAME_Y = (
    "All {pairs:,} pairs measured have the same y: there is no other one to tell it from, so energies of mismatched pairs, retrieval and z "
    "were not measured. Hold out more (data.held_out) or otherwise (data.hold_out_by), or name a test source with --data."
)


def quiet(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model comes from, for the reader: its training principle and encoder by name, steps and seconds of training."""

    principle: str = ""
    encoder: str = ""
    steps: int = 0
    seconds: float = 0.0


def evaluate(
    model: JointEmbedding,
    samples: Samples,
    pairing: Pairing,
    *,
    train_index: np.ndarray,
    held_out_index: np.ndarray,
    test: Samples | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    origin: Origin | None = None,
    untrained: Branch | None = None,
    baselines: bool = True,
    commands: Sequence[str] = (),
    out: Path | None = None,
    stop: Stop = never,
    said: Callable[[str], None] = quiet,
) -> dict[str, object]:
    """Probes, retrieval, energies, collapse, a map, neighbours and extreme pairs of a model.

    Nothing but the probes and the precision of classes in retrieval reads labels; without labels these are None and all else is there.
    Where all pairs have the same y, "energy", "retrieval" and "latent" are None, and a warning says why.

    Args:
        model: left in the mode it had.
        samples: what the model was trained on.
        pairing: makes the pairs, as in training.
        train_index: places in `samples` that were trained on: probes are fitted on them.
        held_out_index: places that were not: everything is measured on them, unless there is a `test`.
        test: another source, all of whose good samples are measured instead; its classes are matched by name.
        seed: of views, draws and choices.
        device: where to compute; the model is moved there.
        origin: where the model comes from, copied to "model".
        untrained: the encoder as it was before training: probed as well, for what training itself has added.
        baselines: probe raw pixels and PCA as well.
        commands: what reproduces the run, copied.
        out: run directory in which evaluation.json and evaluation/thumbnails.png are written; None writes nothing.
        stop: called between stages and batches; what it raises ends the evaluation, and nothing is written.
        said: called with the name of each stage as it begins.

    Returns:
        What evaluation.json holds: only finite numbers, strings, None, lists and dicts. Fractions are in [0, 1].

    Raises:
        DataError: with fewer than 2 different samples to measure on, a test source of another form, or embeddings that are not finite.
        ArtifactError: if no embedding is finite.
        EnvironmentFault: if the files cannot be written.
    """
    if device is not None:
        model.to(device)
    part = Part(samples, held_out_index) if test is None else Part(test, np.flatnonzero(test.ok))
    work = Work(model, pairing, Part(samples, train_index), part, seed, stop, said)
    _check(work)
    found, sheet = _measure(work, origin or Origin(), untrained, baselines)
    found |= {"warnings": _warnings(work, found), "commands": list(commands), "seconds": work.seconds}
    found = {key: finite(value) for key, value in found.items()}
    stop()
    if out is not None:
        if sheet is not None:
            with disk_faults(out / THUMBNAILS):
                (out / THUMBNAILS).parent.mkdir(parents=True, exist_ok=True)
            replace_file(out / THUMBNAILS, sheet.png())
        write_json(out / "evaluation.json", found)
    return found


def _measure(
    work: Work, origin: Origin, untrained: Branch | None, baselines: bool
) -> tuple[dict[str, object], Sheet | None]:
    """All stages in order; the sheet of thumbnails of images."""
    model, pairing, samples, index = work.model, work.pairing, work.part.samples, work.part.index
    found: dict[str, object] = {"format": FORMAT, "data": _data(work)}
    with work.stage("features"):
        features, embeddings = extract(model.encoder_x, samples, index, pairing, stop=work.stop)
    found["model"] = _model(model, features, embeddings, origin)
    with work.stage("probes"):
        found["probes"] = _probes(work, features, untrained, baselines)
    pairs = index[work.some(most_pairs(model.minimizer, model.cost))]
    content = (samples if samples.sides is None else samples.sides[1]).content[pairs]  # what makes a y right
    rungs = None
    with work.stage("energy"):
        embedded = embed_pairs(model, samples, pairs, pairing, seed=work.seed, stop=work.stop)
        if len(np.unique(content)) > 1:
            rungs = energy.ladder(model, embedded, content, seed=work.seed, stop=work.stop)
            matched = rungs.matched
        else:
            matched = energy.pair_energies(model, embedded.s_x, embedded.s_y, embedded.action)
            work.warnings.append(SAME_Y.format(pairs=len(pairs)))
        found["energy"] = None if rungs is None else energy.summary(rungs)
    if samples.windows is not None and samples.windows.several:
        with work.stage("surprise"):
            found["surprise"] = over_time(model, samples, index, pairing, seed=work.seed, stop=work.stop)
    if isinstance(pairing, Future):
        with work.stage("futures"):
            found["futures"] = held_out_figures(work)
    found |= {"retrieval": None, "latent": None}
    if rungs is not None:
        with work.stage("retrieval"):
            labels = None if samples.labels is None else samples.labels[pairs]
            found["retrieval"] = retrieval.evaluated(model, embedded, content, labels, stop=work.stop)
    with work.stage("collapse"):
        found["collapse"] = _collapse(work, features, embedded, rungs)
    if rungs is not None:
        with work.stage("latent"):
            found["latent"] = latent.summary(model, embedded, content, seed=work.seed, stop=work.stop)
    with work.stage("pictures"):
        sides = [max(side.shape[1:]) for side in samples.sides or (samples,) if side.kind == "image"]
        sheet = Sheet(max(sides)) if sides else None
        about_z = found["latent"]
        if isinstance(about_z, dict):
            about_z["hypotheses"] = examples(work, sheet if len(sides) == len(samples.sides or (1,)) else None)
        found |= pictures(work, features, pairs, matched, sheet)
    return found, sheet


def most_pairs(minimizer: Minimizer, cost: Cost = squared_error) -> int:
    """How many pairs a minimiser can be asked about, every x with every y."""
    if isinstance(minimizer, Langevin):
        return SAMPLED
    if isinstance(cost, Density) and (cost.network or isinstance(minimizer, Variational)):
        each = minimizer.samples if isinstance(minimizer, Variational) else OF_NETWORK
        return max(SAMPLED, min(SEARCHED, math.isqrt(MADE // (each * cost.dim))))
    searches = isinstance(minimizer, Descend | Coordinate | Ista | Lista | BestOf)
    searches = searches or (isinstance(minimizer, Amortize) and minimizer.refine is not None)
    return SEARCHED if searches else MOST_PAIRS


def _check(work: Work) -> None:
    part, train = work.part, work.train
    if len(np.unique(part.samples.content[part.index])) < 2:
        raise DataError(
            f"evaluation needs at least 2 different samples that were not trained on, there are {len(part.index)}",
            where=part.samples.name,
            help="hold out more (data.held_out), or name a test source with --data",
            code="E368",
        )
    if _form(part.samples) != _form(train.samples):
        raise DataError(
            f"{part.samples.kind} data of shape {part.samples.shape}, but the model was trained on {train.samples.kind} data "
            f"of shape {train.samples.shape}",
            where=part.samples.name,
            help="evaluate on data of the same form",
            code="E367",
        )
    seen = int(np.isin(part.samples.content[part.index], train.samples.content[train.index]).sum())
    if seen:
        work.warnings.append(
            f"{seen:,} of {len(part.index):,} samples measured on are also among the training samples: figures may be too good."
        )


def _form(samples: Samples) -> list[tuple[str, int]]:
    """Kind and channels or columns, of each side; texts have none."""
    axis = {"series": 1, "audio": 1}
    return [(s.kind, 0 if s.kind == "text" else s.shape[axis.get(s.kind, 0)]) for s in samples.sides or (samples,)]


def _data(work: Work) -> dict[str, object]:
    samples, part = work.train.samples, work.part
    other = part.samples is not samples
    return {
        "source": samples.name,
        "kind": samples.kind,
        "samples": len(samples),
        "train": len(work.train.index),
        "held_out": len(part.index),
        "test_source": part.samples.name if other else None,
        "classes": list(samples.classes),
        "skipped": samples.skipped + (part.samples.skipped if other else 0),
        "shape": list(samples.shape),
        **({} if samples.sides is None else {"sides": [_side(side) for side in samples.sides]}),
    }


def _side(side: Samples) -> dict[str, object]:
    return {"columns": list(side.columns), "kind": side.kind, "shape": list(side.shape)}


def _model(model: JointEmbedding, features: Tensor, embeddings: Tensor, origin: Origin) -> dict[str, object]:
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "feature_dim": features.shape[1],
        "dim": embeddings.shape[1],
        "principle": origin.principle,
        "encoder": origin.encoder,
        "steps": origin.steps,
        "seconds": origin.seconds,
    }


def _probes(work: Work, features: Tensor, untrained: Branch | None, baselines: bool) -> dict[str, object] | None:
    labels, notes = probes.usable_labels(work.train, work.part, seed=work.seed)
    work.warnings += notes
    if labels is None:
        return None
    samples, index = work.train.samples, work.train.index[labels.train]
    others = work.part.index[labels.held_out]
    learned = extract(work.model.encoder_x, samples, index, work.pairing, stop=work.stop).features
    before = None
    if untrained is not None:
        before = (
            extract(untrained, samples, index, work.pairing, stop=work.stop).features,
            extract(untrained, work.part.samples, others, work.pairing, stop=work.stop).features,
        )
    return probes.probes(
        labels,
        work.train,
        work.part,
        (learned, features[torch.from_numpy(labels.held_out)]),
        untrained=before,
        plain=None if work.pairing.alike else work.pairing.plain,
        seed=work.seed,
        baselines=baselines and (samples if samples.sides is None else samples.sides[0]).kind not in WITHOUT_BASELINE,
        stop=work.stop,
    )


def _collapse(work: Work, features: Tensor, embedded: Embedded, rungs: energy.Ladder | None) -> dict[str, object]:
    """Whether the representation has collapsed; that of x alone where all y are the same."""
    if rungs is None:
        x_values = numbers(work.part.samples, work.part.index, work.pairing)[0]
        views = embedded.s_x[:, None]
        return collapse.summary(views, features[:MOST_PAIRS], values=x_values, fixed=work.model.takes_y_as_it_is)
    some = work.part.index[work.some(LIDAR_SAMPLES)]
    count = LIDAR_VIEWS if work.pairing.random else 1
    views = embed_views(work.model, work.part.samples, some, work.pairing, views=count, seed=work.seed, stop=work.stop)
    values, few = numbers(work.part.samples, some, work.pairing), slice(0, 256)
    action = None if embedded.action is None else embedded.action[few]
    blocks = [block for _, block in energy.cross_energies(work.model, embedded.s_x[few], embedded.s_y, action)]
    fixed = work.model.takes_y_as_it_is
    return collapse.summary(
        views,
        features[:MOST_PAIRS],
        torch.cat(blocks),
        energy_auroc=auroc(rungs.matched, rungs.random),
        pairs=len(rungs.matched),
        values=values[1],
        s_x=None if fixed or work.model.encoder_x is work.model.encoder_y else embedded.s_x,
        x_values=values[0],
        fixed=fixed,
    )


def _warnings(work: Work, found: dict[str, object]) -> list[str]:
    """Everything a reader should know, in words."""
    warnings = list(work.warnings)
    state, probed = found["collapse"], found["probes"]
    assert isinstance(state, dict)
    if state["verdict"] is not None:
        warnings.insert(0, f"Collapse ({state['verdict']}): {state['explanation']}. What helps: {state['remedy']}.")
    about_z = found["latent"]
    for wrong in about_z["verdicts"] if isinstance(about_z, dict) else ():
        warnings.append(f"Latent ({wrong['kind']}): {wrong['explanation']}. What helps: {wrong['remedy']}.")
    if isinstance(probed, dict) and "pixels" in probed:
        best = max(("pixels", "pca"), key=lambda name: float(probed[name]["linear"]))
        gain = probed["features"]["linear"] - probed[best]["linear"]
        if gain <= 0:
            name = {"pixels": "the raw input", "pca": "the principal components of the raw input"}[best]
            warnings.append(
                f"A linear probe does no better on the learned features than on {name} ({100 * gain:+.1f} points): "
                "train longer, or choose views that keep what matters to you."
            )
    return warnings
