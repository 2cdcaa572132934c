r"""Two different encoders: how well is the other side of a pair found, in data where a linear map finds little?

    OMP_NUM_THREADS=1 python benchmarks/two_encoders.py mfeat emoji speech --data DATA --principles vicreg,info_nce --seeds 5

- mfeat: Fourier moduli of digits <-> their Karhunen-Loeve coefficients, 1,400 training pairs and 600 test pairs; recall at 1.
- emoji: colour images <-> names and keywords, 1,089 training and 314 test pairs, as the file says; recall at 1.
- emoji_features: the same pairs, as features that are not trained and linear encoders of them: what two filter banks of whitened patches
  find in the pictures, at 32 and at 64 pixels, and tf-idf of the letters of the text, both made on the training pairs.
- speech: spoken digits <-> images of digits, paired by class, each of six speakers left out in turn; mean average precision of classes.

What is trained is what `accord train TABLE --x X --y Y --set KEY=VALUE ...` trains with the settings below, on the preset `pairs`; only
the rows that are held out are chosen here. With --validate the test rows are left out altogether, and a part of the training rows stands
for them: settings are chosen that way, on seeds from 100 on.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from torch.nn import functional

from accord import build
from accord.evaluate.features import Embedded, embed_plain
from accord.evaluate.retrieval import evaluated
from accord.model.multiscale import whitened_patches
from accord.recipe_toml import merge
from accord.resolve import resolve
from accord.run import new_objective
from accord.train.fit import fit
from accord.train.progress import Silent

Table = dict[str, Any]
FIRST_VALIDATION_SEED = 100


class Split(NamedTuple):
    """A table, the columns of its sides, which rows are trained on and which are searched, and their classes if these are searched for."""

    name: str
    table: pa.Table
    x: str
    y: str
    train: np.ndarray
    test: np.ndarray
    label: np.ndarray | None = None


def divided(table: pa.Table, x: str, y: str, train: np.ndarray, test: np.ndarray) -> Split:
    """These rows and no others: training takes all that is not searched."""
    places = np.arange(len(train) + len(test))
    return Split("", table.take(np.concatenate([train, test])), x, y, places[: len(train)], places[len(train) :])


def mfeat(data: Path, seed: int, *, validate: bool) -> Iterator[Split]:
    """600 rows by chance to test, with `validate` 280 of the others."""
    with np.load(data / "mfeat" / "mfeat.npz") as file:
        table = pa.table(
            {
                name: pa.FixedSizeListArray.from_arrays(file[name].ravel(), file[name].shape[1])
                for name in ("kar", "fou")
            }
        )
    order = np.random.default_rng(seed).permutation(2000)
    test, train = order[:600], order[600:]
    if validate:
        test, train = train[:280], train[280:]
    yield divided(table, "kar", "fou", train, test)


def emoji(data: Path, seed: int, *, validate: bool) -> Iterator[Split]:
    """Pictures and texts."""
    picture, text, train, test = emoji_pairs(data, seed, validate=validate)
    yield divided(pa.table({"color": picture, "text": text}), "color", "text", train, test)


def emoji_features(data: Path, seed: int, *, validate: bool) -> Iterator[Split]:
    """Features of both that are made on the training pairs and not trained."""
    picture, text, train, test = emoji_pairs(data, seed, validate=validate)
    order = np.concatenate([train, test])
    known, pixels, words = len(train), [picture[i] for i in order], [text[i] for i in order]
    tf_idf = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit(words[:known])
    sides = {
        "color": np.concatenate([patches(pixels, size, kernel, known) for size, kernel in ((32, 6), (64, 8))], 1),
        "text": tf_idf.transform(words).toarray(),
    }
    table = pa.table({name: rotated(side, known) for name, side in sides.items()})
    yield Split("", table, "color", "text", np.arange(known), np.arange(known, len(order)))


def patches(pictures: list[bytes], size: int, kernel: int, known: int) -> np.ndarray:
    """How strongly filters of whitened patches of the first `known` answer in 16, 4 and 1 parts of each picture."""
    rows = []
    for encoded in pictures:
        picture = Image.open(io.BytesIO(encoded)).convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        page.alpha_composite(picture)
        rows.append(np.asarray(page.convert("RGB").resize((size, size), Image.Resampling.BOX), np.float32) / 255)
    x = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    x = (x - x[:known].mean((0, 2, 3), keepdim=True)) / x[:known].std((0, 2, 3), keepdim=True)
    filters = whitened_patches(x[:known], kernel, 4 * size, seed=0)
    answer = functional.relu(functional.conv2d(x, filters, stride=2, padding=kernel // 2) - 0.5)
    found = torch.cat([functional.adaptive_avg_pool2d(answer, parts).flatten(1) for parts in (4, 2, 1)], 1).numpy()
    spread = found[:known].std(0)
    return np.asarray((found - found[:known].mean(0)) / (spread + 0.1 * found[:known].std()) / np.sqrt(found.shape[1]))


def rotated(side: np.ndarray, known: int) -> pa.Array:
    """The side in the directions of its first `known` rows: a linear encoder of them sees no others."""
    side = side - side[:known].mean(0)
    axes = np.linalg.svd(side[:known], full_matrices=False)[2][: known - 1]
    turned = np.asarray(side @ axes.T, np.float32)
    return pa.FixedSizeListArray.from_arrays(turned.ravel(), turned.shape[1])


def emoji_pairs(data: Path, seed: int, *, validate: bool) -> tuple[list[bytes], list[str], np.ndarray, np.ndarray]:
    """Pictures, texts, and the split of the file; with `validate` 272 rows of its training part to test."""
    table = pq.read_table(data / "emoji_pairs" / "emoji_pairs.parquet")
    part = np.array(table["split"].to_pylist())
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    if validate:
        order = np.random.default_rng(seed).permutation(train)
        test, train = order[:272], order[272:]
    text = [
        f"{name}, {more}" if more else name
        for name, more in zip(*(table[c].to_pylist() for c in ("name", "keywords")), strict=True)
    ]
    return table["color"].to_pylist(), text, train, test


def speech(data: Path, seed: int, *, validate: bool) -> Iterator[Split]:
    """Each speaker left out in turn; with `validate` none of that speaker's sounds is used, and the next speaker is searched.

    Each training sound comes with two images of its digit. Images are divided as well: 500 are for the search alone.
    """
    rows = pq.read_table(data / "fsdd" / "fsdd.parquet")
    sounds, names = rows["audio"].to_pylist(), rows["label"].to_numpy()
    who = np.array(rows["speaker"].to_pylist())
    images, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digit))
    speakers = sorted(set(who))
    for i, speaker in enumerate(speakers):
        asked = speakers[(i + 1) % len(speakers)] if validate else speaker
        known, heard = np.flatnonzero((who != speaker) & (who != asked)), np.flatnonzero(who == asked)
        place = np.concatenate([known, known, heard])
        label, cut = names[place], 2 * len(known)
        pools = [order[500:]] * cut + [order[:500]] * len(heard)
        image = np.stack(
            [images[rng.choice(pool[digit[pool] == name])] for pool, name in zip(pools, label, strict=True)]
        )
        flat = pa.array((image / 16).astype(np.float32).ravel())
        table = pa.table(
            {"sound": [sounds[j] for j in place], "image": pa.FixedSizeListArray.from_arrays(flat, image.shape[1])}
        )
        yield Split(asked, table, "sound", "image", np.arange(cut), np.arange(cut, len(place)), label)


TASKS: dict[str, Callable[..., Iterator[Split]]] = {
    "mfeat": mfeat,
    "emoji": emoji,
    "emoji_features": emoji_features,
    "speech": speech,
}
SETTINGS: dict[str, Table] = {
    "mfeat": {
        "data": {"kinds": {"kar": "number", "fou": "number"}, "x": {"unit": "side"}, "y": {"unit": "side"}},
        "encoder": {"name": "mlp", "hidden": [512]},
        "encoder_y": {"name": "mlp", "hidden": [512]},
        "projector": {"hidden": [], "dim": 64},
        "pairing": {"augment_x": {"noise": 0.5, "mask": 0.0}, "augment_y": {"noise": 0.5, "mask": 0.0}},
        "optimizer": {"learning_rate": 2e-3},
        "training": {"epochs": 100, "batch_size": 280},
    },
    "emoji": {
        "data": {"canvas": 32, "kinds": {"color": "image", "text": "text"}},
        "encoder": {
            "name": "multiscale",
            "stem_width": 64,
            "widths": [64, 128],
            "blocks": [0, 0],
            "pool_grids": [4, 2, 2],
        },
        "encoder_y": {"name": "text_ngrams", "hidden": [256]},
        "projector": {"hidden": [], "dim": 64},
        "pairing": {
            "augment_x": {"preset": "light", "brightness": 0.2, "contrast": 0.2},
            "augment_y": {"preset": "text", "drop_words": 0.3},
        },
        "optimizer": {"learning_rate": 2e-3},
        "training": {"epochs": 40, "batch_size": 128},
    },
    "emoji_features": {
        "data": {"kinds": {"color": "number", "text": "number"}, "x": {"unit": "side"}, "y": {"unit": "side"}},
        "encoder": {"name": "mlp", "hidden": []},
        "encoder_y": {"name": "mlp", "hidden": []},
        "projector": {"hidden": [], "dim": 256},
        "pairing": {"augment_x": {"noise": 0.7, "mask": 0.0}, "augment_y": {"noise": 0.7, "mask": 0.0}},
        "optimizer": {"learning_rate": 2e-3},
        "training": {"steps": 400, "batch_size": 256},
    },
    "speech": {
        "data": {
            "kinds": {"sound": "audio", "image": "number"},
            "x": {"trim": 25.0, "seconds": 0.64, "centre": True},
            "y": {"unit": "side"},
        },
        "encoder": {"name": "conv1d", "width": 32, "blocks": 3, "stride": 2},
        "encoder_y": {"name": "mlp", "hidden": [256]},
        "projector": {"hidden": [], "dim": 64},
        "pairing": {"augment_x": {"preset": "audio"}, "augment_y": {"noise": 0.2, "mask": 0.0}},
        "optimizer": {"learning_rate": 2e-3},
        "training": {"steps": 1000, "batch_size": 64},
    },
}
"""Over the preset `pairs`, the same for all principles."""
PRINCIPLES: dict[str, Table] = {
    "vicreg": {
        "predictor": {"name": "identity"},
        "cost": "squared_error",
        "objective": {"name": "vicreg", "covariance": 5.0},
    },
    "sigreg": {"predictor": {"name": "mlp"}, "cost": "squared_error", "objective": {"name": "sigreg", "slices": 256}},
    "info_nce": {
        "predictor": {"name": "identity"},
        "cost": "squared_error",
        "objective": {"name": "info_nce", "temperature": 0.1},
    },
    "info_nce_cosine": {
        "predictor": {"name": "identity"},
        "cost": "cosine",
        "objective": {"name": "info_nce", "temperature": 0.1},
    },
    "siglip": {"predictor": {"name": "identity"}, "cost": "cosine", "objective": {"name": "siglip"}},
}


def trained(split: Split, settings: Table, seed: int, folder: Path) -> dict[str, float]:
    """What is found after training: the search of y for x, and "reverse"."""
    path = folder / f"{split.name or 'table'}-{seed}.parquet"
    pq.write_table(split.table, path)
    sides = {"data": {"x": {"columns": [split.x]}, "y": {"columns": [split.y]}}}
    recipe, samples = resolve(str(path), merge(merge({"training": {"seed": seed}}, settings), sides), None)
    pairing, start = build.pairing(recipe), time.process_time()
    objective = new_objective(recipe, samples, split.train, pairing)
    pairing = build.in_units(pairing, objective.model)
    fit(
        objective,
        samples,
        pairing,
        out=folder / f"run-{split.name}-{seed}-{time.time_ns()}",
        epochs=recipe.training.epochs,
        steps=recipe.training.steps,
        batch_size=recipe.training.batch_size,
        seed=seed,
        held_out=split.test,
        optimizer=build.optimizer(recipe),
        lr=recipe.optimizer.learning_rate,
        weight_decay=recipe.optimizer.weight_decay,
        warmup=recipe.optimizer.warmup,
        on_collapse="warn",
        checkpoint_every="1h",
        progress=Silent(),
    )
    seconds = time.process_time() - start
    s_x, s_y, action = embed_plain(objective.model, samples, split.test, pairing)
    labels = None if split.label is None else split.label[split.test].astype(np.int64)
    found: dict[str, Any] = evaluated(
        objective.model, Embedded(s_x, s_y, s_y, action), samples.content[split.test], labels
    )
    key = "recall@1" if labels is None else "class_map"
    return {"forth": 100 * found[key], "back": 100 * found["reverse"][key], "seconds": seconds}


def linear(split: Split, *, ridge: float = 0.1, k: int = 30) -> dict[str, float]:
    """Canonical correlations of two columns of numbers: what there is without any network."""
    x, y = (np.stack(split.table[name].to_numpy()).astype(np.float64) for name in (split.x, split.y))
    x, y = (((v - v[split.train].mean(0)) / v[split.train].std(0)) for v in (x, y))

    def white(v: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(np.cov(v[split.train].T, bias=True) + ridge * np.eye(v.shape[1]))
        return v @ (vectors / np.sqrt(values)) @ vectors.T

    x, y = white(x), white(y)
    u, s, vt = np.linalg.svd(x[split.train].T @ y[split.train] / len(split.train))
    x, y = x[split.test] @ (u[:, :k] * np.sqrt(s[:k])), y[split.test] @ (vt[:k].T * np.sqrt(s[:k]))
    cosines = (x / np.linalg.norm(x, axis=1)[:, None]) @ (y / np.linalg.norm(y, axis=1)[:, None]).T
    own = np.diag(cosines)
    return {
        "forth": 100 * float((cosines <= own[:, None]).all(1).mean()),
        "back": 100 * float((cosines <= own).all(0).mean()),
        "seconds": 0.0,
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):5.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def run(task: str, principle: str, settings: Table, chosen: argparse.Namespace, folder: Path) -> None:
    """One line: both directions over the seeds; a seed is the mean over its splits."""
    seeds = [chosen.first_seed + i for i in range(chosen.seeds)]
    rows: list[dict[str, float]] = []
    for seed in seeds:
        found = []
        for split in TASKS[task](chosen.data, seed, validate=chosen.validate):
            found.append(linear(split) if principle == "linear" else trained(split, settings, seed, folder))
            print(f"  {task} {principle} seed {seed} {split.name}: {found[-1]}", flush=True)
        rows.append({key: statistics.mean(one[key] for one in found) for key in found[0]})
    columns = {key: spread([row[key] for row in rows]) for key in ("forth", "back")}
    mean = spread([(row["forth"] + row["back"]) / 2 for row in rows])
    seconds = statistics.mean(row["seconds"] for row in rows)
    print(
        f"{task:7s} {principle:16s} y of x {columns['forth']}  x of y {columns['back']}  mean {mean} %  {seconds:.0f} CPU s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--principles", default="vicreg,info_nce", help=f"linear (mfeat), {', '.join(PRINCIPLES)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=None)
    parser.add_argument("--validate", action="store_true", help="search a part of the training rows instead")
    parser.add_argument("--set", default="{}", help="more settings, as JSON")
    chosen = parser.parse_args()
    if chosen.first_seed is None:
        chosen.first_seed = FIRST_VALIDATION_SEED if chosen.validate else 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for task in chosen.tasks:
            for principle in chosen.principles.split(","):
                settings = merge(merge(SETTINGS[task], PRINCIPLES.get(principle, {})), json.loads(chosen.set))
                run(task, principle, settings, chosen, Path(folder))


if __name__ == "__main__":
    main()
