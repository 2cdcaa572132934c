"""A run directory as an object: its recipe, model, pairing and data, and what the verbs of the command line do with them."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from accord import build, recipe_toml
from accord.build_baselines import trained_on
from accord.build_encoder import Form, form_of, front, initialise
from accord.data.order import ordered
from accord.data.pairing import Originals, Pairing
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.data.synthetic import kind_of
from accord.data.vectors import LABEL_NAMES, unnamed_features
from accord.division import LOOKED_AT, divided
from accord.errors import UsageError
from accord.evaluate.calibrate import Groups, text_hash
from accord.evaluate.energy import pair_energies, scores
from accord.evaluate.evaluation import Origin
from accord.evaluate.features import evaluating, never, read
from accord.model.joint_embedding import JointEmbedding
from accord.objective.loss import Objective
from accord.recipe import Recipe
from accord.recipe_rivals import Rival
from accord.resolve import masked, reading, side_of
from accord.train.checkpoint import find_checkpoint, load_weights
from accord.train.device import memory_faults
from accord.train.fit import Fit, fit
from accord.train.progress import Progress
from accord.train.run_directory import RunDirectory
from accord.train.signals import Stop

DRAWS = 8
"""Random pairs of a sample whose mean energy is its score."""
SCORES = "scores 2: pairs as they are"
"""What a score is, in words that change with it: calibrations made before are refused."""


@dataclass(frozen=True)
class Run:
    """A trained run, ready for use: weights of its newest valid checkpoint, in evaluation mode."""

    path: Path
    recipe: Recipe
    model: JointEmbedding
    pairing: Pairing

    def open_data(
        self,
        source: str,
        *,
        column: str | None = None,
        label: str | None = None,
        side: Literal["x", "y"] | None = None,
        ahead: int = 0,
    ) -> Samples:
        """Another source in the form this model takes; bad items are marked and never stop anything.

        `side`: where the run takes two sides of a table, read only this one; the columns of the other need not be there.
        `ahead`: windows of series reach so many steps beyond its end.
        """
        return open_like(self.recipe, source, column=column, label=label, limit_bad=False, side=side, ahead=ahead)

    def training_data(self, source: str | None = None) -> tuple[Samples, np.ndarray, np.ndarray]:
        """The samples the run was trained on, with its training and held-out indices; `source` says where they are now.

        Raises:
            UsageError: if they are not there.
        """
        data, source = self.recipe.data, source or self.recipe.data.source
        try:
            samples = open_like(self.recipe, source, column=data.column, label=data.label)
        except UsageError as error:
            if error.code != "E220":
                raise
            raise UsageError(
                f"the data that this run was trained on are not there: {error.message}",
                where=source,
                help=f"{error.help}; say where they are now with --source, or run from the folder where it was trained",
                code="E220",
            ) from None
        return samples, *divided(self.recipe, samples)

    def groups(
        self, source: str, column: str, *, images: str | None = None, side: Literal["x", "y"] | None = None
    ) -> Groups:
        """The group of each item of a source, from a column of texts or whole numbers; "label" also means the sub-folders of images.

        Raises:
            UsageError: if there is no such column; `images` names that of the images.
            DataError: if it holds measurements.
        """
        label = None if column == LABEL_NAMES[0] else column
        # the windows of a series are those of its channels alone: others could keep windows of which the run saw nothing
        features = self.recipe.data.features if self.recipe.data.kind == "series" else None
        samples = _opened(
            self.recipe, source, column=images, label=label, limit_bad=False, features=features, side=side
        )
        if samples.labels is None or (label is not None and (kind_of(source) or source == "digits")):
            raise UsageError(f"no column {column!r}", where=source, help="name a column of a table", code="E234")
        return Groups(column, samples.classes, samples.labels)

    def differs(self, samples: Samples) -> bool:
        """Whether these are other data than those the run was trained on: more items, fewer, or changed ones."""
        return find_checkpoint(self.path).about.get("data_sha256") != samples.fingerprint

    def origin(self) -> Origin:
        """Where the model comes from, for the reader."""
        encoder = self.recipe.encoder
        last = last_line(self.path / "metrics.jsonl")
        return Origin(
            principle=self.recipe.objective.name,
            encoder="" if encoder is None else encoder.name,
            steps=int(last.get("step", 0)),
            seconds=float(last.get("seconds", 0.0)),
        )

    def commands(self, test: str | None) -> list[str]:
        """What reproduces the run and its evaluation."""
        run, data = shlex.quote(str(self.path)), "" if test is None else f" --data {shlex.quote(test)}"
        source = shlex.quote(self.recipe.data.source)
        return [f"accord train {source} --recipe {run}/recipe.toml --out {run}-again", f"accord evaluate {run}{data}"]

    def preprocess_hash(self) -> str:
        """Identifies everything between a sample and the model: the pairing, the form of the data and the seed of the draws."""
        data = self.recipe.data
        sides = [side for side in (data.x, data.y) if side is not None]
        keys = {"trim", "seconds", "level", "centre"}
        changed = data.model_dump(
            include=keys, exclude_defaults=True
        )  # so that calibrations from before these keys stay valid
        heard = [f"{key}={value}" for key, value in sorted(changed.items())]
        seed = self.recipe.training.seed
        return text_hash(
            SCORES, self.recipe.pairing, data.kind, data.shape, seed, *(data.features or ()), *sides, *heard
        )

    def energies(self, samples: Samples, index: np.ndarray, *, stop: Callable[[], None] = never) -> np.ndarray:
        """F of each sample that is a pair; else the mean of some pairs the run makes of it, which depends on the sample alone; float64."""
        seed, judged = self.recipe.training.seed, self.pairing.judged
        draws = DRAWS if judged.random else 1
        return scores(self.model, samples, index, judged, seed=seed, draws=draws, stop=stop).numpy()

    @property
    def calibrated_on(self) -> str | None:
        """In words, how calibration pairs differ from pairs given as two sources; None where they do not."""
        if not self.pairing.judged.random:
            return None
        return (
            "calibration pairs are made of one sample at random, those given are taken as they are: "
            "their energies are of the same kind, but p-values are an indication and no guarantee"
        )

    def energies_of_pairs(
        self, xs: Samples, ys: Samples, index: np.ndarray, *, stop: Callable[[], None] = never
    ) -> np.ndarray:
        """F of the x of some samples and the y of others, paired row by row, nothing random, float64."""
        found = []
        with evaluating(self.model) as device:
            for x, y in zip(read(xs, index, device), read(ys, index, device), strict=True):
                stop()
                pair = self.pairing.join(Originals(x.values, x.aspect), Originals(y.values, y.aspect))
                s_x, s_y = self.model.encoder_x(pair.x), self.model.encoder_y(pair.y)
                found.append(pair_energies(self.model, s_x.cpu(), s_y.cpu(), pair.action))
        return torch.cat(found).numpy() if found else np.zeros(0)


def open_run(path: Path) -> Run:
    """The run in `path`.

    Raises:
        UsageError: if there is none, or it was trained from Python with a model no recipe describes.
        ArtifactError: if its checkpoints are damaged.
    """
    recipe = read_recipe(path)
    torch.manual_seed(0)  # weights are overwritten; the generator of the caller's process starts the same everywhere
    objective, pairing = unfilled(recipe)
    load_weights(path, objective)
    objective.eval()
    return Run(path, recipe, objective.model, build.in_units(pairing, objective.model))


def unfilled(recipe: Recipe) -> tuple[Objective, Pairing]:
    """The objective of a resolved recipe, and its pairs, with nothing taken from data yet.

    Raises:
        UsageError: for parts that do not fit each other or the data.
    """
    pairing = build.pairing(recipe)
    trained_on(recipe, pairing)  # refuses pairs that the principle cannot be trained on
    blanks = build.blanks(recipe, 1)
    x = front(form_of(recipe, "x"), pairing.plain(blanks), fitted=False)
    y = front(form_of(recipe, "y"), pairing.plain_y(blanks), fitted=False)
    return build.objective(recipe, x, y), pairing


def read_recipe(path: Path) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        UsageError: if there is no run at `path`, or it has no recipe that can be built.
    """
    file = path / "recipe.toml"
    if not file.is_file():
        raise UsageError(
            "there is no run here: recipe.toml is missing",
            where=str(path),
            help="accord train SOURCE --out RUN makes one",
            code="E230",
        )
    recipe = recipe_toml.load(file)
    if recipe.data.kind is None or recipe.encoder is None:
        raise UsageError(
            "this run was trained from Python with a model that no recipe describes",
            where=str(file),
            help="build the model yourself and fill it with accord.load_weights(run, model)",
            code="E231",
        )
    return recipe


def open_like(
    recipe: Recipe,
    source: str,
    *,
    column: str | None = None,
    label: str | None = None,
    limit_bad: bool = True,
    side: Literal["x", "y"] | None = None,
    ahead: int = 0,
) -> Samples:
    """A source in the form the recipe says, so that a model trained by it can read it; of two sides of a table only `side`, if given.

    Raises:
        UsageError: if it is of another kind or shape.
    """
    features = recipe.data.features
    samples = _opened(
        recipe, source, column=column, label=label, limit_bad=limit_bad, features=features, side=side, ahead=ahead
    )
    _require_same_form(recipe, samples, side)
    return samples


def _opened(
    recipe: Recipe,
    source: str,
    *,
    column: str | None,
    label: str | None,
    limit_bad: bool,
    features: list[str] | None,
    side: Literal["x", "y"] | None = None,
    ahead: int = 0,
) -> Samples:
    data, read_as = recipe.data, reading(recipe)
    read_as["series"] = replace(read_as["series"], ahead=ahead)
    shape = data.shape or [0]
    return open_source(
        source,
        size=data.canvas,
        channels=shape[0] if data.kind == "image" and shape[0] in (1, 3) else None,
        column=column,
        label=label,
        limit_bad=limit_bad,
        features=features,
        x=None if data.x is None or (side == "y" and data.y is not None) else side_of(data.x),
        y=None if data.y is None or (side == "x" and data.x is not None) else side_of(data.y),
        masked=masked(recipe),
        **read_as,
    )


def _require_same_form(recipe: Recipe, samples: Samples, side: Literal["x", "y"] | None) -> None:
    if recipe.data.kind == "pair":
        parts = samples.sides or (samples,)
        for part, which in zip(parts, ("x", "y") if samples.sides else (side,), strict=True):
            assert which is not None
            _require_form(form_of(recipe, which), part)
        return
    form, features = form_of(recipe, "x"), recipe.data.features
    unnamed = samples.features == unnamed_features(form.shape[0]) if samples.kind == "vector" else False
    if features is not None and list(samples.features) != features and not unnamed:
        both = list(itertools.zip_longest(samples.features, features, fillvalue="not there"))
        place = next(i for i, (name, wanted) in enumerate(both) if name != wanted)
        raise UsageError(
            f"{len(samples.features)} columns, the run was trained on {len(features)}: number {place} is {both[place][0]}, it was "
            f"{both[place][1]}",
            where=samples.name,
            help="give a table with the same columns in the same order",
            code="E232",
        )
    _require_form(form, samples)


def _require_form(form: Form, samples: Samples) -> None:
    """Refuses samples of another kind, or with another number of channels or columns."""
    axis = {"series": 1, "audio": 1}.get(form.kind, 0)
    if samples.kind != form.kind or samples.shape[axis] != form.shape[axis]:
        raise UsageError(
            f"this is {samples.kind} data of shape {samples.shape}, the run was trained on {form.kind} data of shape {form.shape}",
            where=samples.name,
            help="give data of the same kind, or train a run on this kind",
            code="E232",
        )


def train_in(
    directory: RunDirectory, recipe: Recipe, samples: Samples, *, stop: Stop, progress: Progress, command: str
) -> Fit:
    """Trains what the resolved recipe says, in a run directory that is open."""
    settings = recipe.training
    pairing = build.pairing(recipe)
    train_index, held_out = divided(recipe, samples)
    with memory_faults(settings.batch_size):
        objective = new_objective(recipe, samples, train_index, pairing)
    return fit(
        objective,
        samples,
        trained_on(recipe, build.in_units(pairing, objective.model)),
        out=directory,
        epochs=settings.epochs,
        steps=settings.steps,
        budget=settings.budget,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate or 1,
        parallel=settings.parallel or "ddp",
        seed=settings.seed,
        held_out=(train_index, held_out),
        shuffle_buffer=recipe.data.shuffle_buffer,
        optimizer=build.optimizer(recipe),
        lr=recipe.optimizer.learning_rate,
        weight_decay=recipe.optimizer.weight_decay,
        warmup=recipe.optimizer.warmup,
        on_collapse=settings.on_collapse,
        checkpoint_every=settings.checkpoint_every,
        max_bad_fraction=recipe.data.max_bad_fraction,
        device=settings.device,
        precision=settings.precision,
        resume=directory.resume,
        record=recipe.to_dict(),
        command=command,
        progress=progress,
        stop=stop,
    )


def new_objective(recipe: Recipe, samples: Samples, train_index: np.ndarray, pairing: Pairing) -> Objective:
    """The objective of a recipe before training; what it takes from the data comes from at most 2,048 training samples."""
    some = train_index[:: max(1, len(train_index) // LOOKED_AT)][:LOOKED_AT]
    if samples.shuffle_buffer:  # from few files
        some = np.sort(ordered(samples, train_index, seed=recipe.training.seed, epoch=0)[:LOOKED_AT])
    aspect = samples.aspects(some)
    batch, seed = samples.batch(some), recipe.training.seed
    x, y = pairing.plain(batch, aspect), pairing.plain_y(batch, aspect)
    _require_whole(recipe, samples, y)
    torch.manual_seed(seed)
    first, first_y = front(form_of(recipe, "x"), x, fitted=True), front(form_of(recipe, "y"), y, fitted=True)
    objective = build.objective(recipe, first, first_y)
    model = objective.model
    initialise(model.encoder_x, recipe.encoder, x, seed=seed)
    if model.encoder_y is not model.encoder_x:
        initialise(model.encoder_y, recipe.encoder_y, y, seed=seed)
    return objective


def _require_whole(recipe: Recipe, samples: Samples, y: torch.Tensor) -> None:
    """Refuses a rival, which makes all of y, where some of it was not observed: its loss would be none."""
    if isinstance(recipe.objective, Rival) and bool(y.isnan().any()):
        raise UsageError(
            f"the rival {recipe.objective.name!r} makes all of y, and of {int(y.isnan().flatten(1).any(1).sum()):,} of "
            f"{len(y):,} samples looked at a part is missing",
            where=samples.name,
            help="use a principle that encodes y, or leave these samples out",
            code="E216",
        )


def last_line(path: Path) -> dict[str, Any]:
    """The newest complete line of a JSON lines file, empty if there is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    return json.loads(lines[-1]) if lines else {}
