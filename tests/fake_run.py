"""A run directory as training and evaluation write it, made from scikit-learn's digits without training anything.

Embeddings are a noisy linear map of the pixels, so that maps, neighbours and energies look like real ones.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

Named = Callable[[str], str]
RECIPE = """\
format = 1
cost = "squared_error"

[data]
source = {source}
held_out = 0.2

[encoder]
name = "patch"
width = 64

[projector]
hidden = [1024]
dim = 256

[objective]
name = "vicreg"

[training]
epochs = 100
batch_size = 256
seed = 0
"""


def same(text: str) -> str:
    """Leaves a name as it is."""
    return text


def write_run(
    folder: Path,
    *,
    name: Named = same,
    labels: bool = True,
    evaluated: bool = True,
    kind: str = "image",
    lines: int = 120,
    samples: int = 240,
) -> Path:
    """Writes a run; `name` changes every text that comes from a user (keys, classes, sources, events, reasons)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("recipe.toml").write_text(RECIPE.format(source=toml_string(name("digits"))), "utf-8")
    dump(folder / "environment.json", environment(name))
    log = "".join(json.dumps(line) + "\n" for line in metrics(name, lines))
    folder.joinpath("metrics.jsonl").write_text(log, "utf-8")
    bad = [
        {"key": name("broken/7.png"), "code": "E301", "reason": name("empty file"), "help": name("remove it")},
        {
            "key": name("broken/8.jpg"),
            "code": "E302",
            "reason": name("truncated at 431 bytes"),
            "help": "copy it again",
        },
    ]
    folder.joinpath("bad_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bad), "utf-8")
    if evaluated:
        found = evaluation(name, labels=labels, kind=kind, samples=samples)
        dump(folder / "evaluation.json", found)
        dump(
            folder / "calibration.json",
            {"format": 1, "pairs": 179, "levels": [0.01, 0.05, 0.1], "source": name("digits")},
        )
        if kind == "image":
            folder.joinpath("evaluation").mkdir(exist_ok=True)
            sprite(load_digits().images[:samples], columns=16).save(folder / "evaluation" / "thumbnails.png")
    return folder


def toml_string(text: str) -> str:
    """A basic string of TOML, which knows no lone surrogates and no raw controls."""
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def dump(path: Path, value: Mapping[str, Any]) -> None:
    """Writes strict JSON."""
    path.write_text(json.dumps(value, allow_nan=False), "utf-8")


def environment(name: Named) -> dict[str, Any]:
    """What it ran on."""
    return {
        "accord": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0",
        "device": "cpu",
        "precision": "float32",
        "threads": 2,
        "processor": name("an x86-64 CPU"),
        "arguments": [name("train"), name("digits")],
    }


def metrics(name: Named, lines: int) -> list[dict[str, Any]]:
    """A log in which all goes well, with one resume on the way."""
    noise, found = np.random.default_rng(0), []
    for i in range(lines):
        t, jitter = (i + 1) / lines, 1 + 0.04 * float(noise.standard_normal())
        line: dict[str, Any] = {
            "step": 10 * (i + 1),
            "epoch": round(200 * t, 3),
            "seconds": round(41.3 * t, 3),
            "rate": 7400 * jitter,
            "lr": 1e-3 * min(t / 0.05, 0.5 * (1 + math.cos(math.pi * max(0.0, t - 0.05) / 0.95))),
            "loss": (8 + 18 * math.exp(-6 * t)) * jitter,
            "terms": {
                "invariance": (0.12 + 0.3 * math.exp(-5 * t)) * jitter,
                "variance": (0.03 + 0.6 * math.exp(-9 * t)) * jitter,
                "covariance": (1.4 + 6 * math.exp(-7 * t)) * jitter,
            },
            "effective_rank": None if i % 4 else 6 + 92 * (1 - math.exp(-4 * t)),
            "std_min": 0.98 - 0.7 * math.exp(-8 * t),
            "std_mean": 1.02 - 0.4 * math.exp(-8 * t),
            "energy_matched": 0.12 + 0.5 * math.exp(-5 * t),
            "energy_mismatched": 1.9 - 1.2 * math.exp(-5 * t),
            "energy_auroc": 0.993 - 0.3 * math.exp(-8 * t),
            "waiting": 0.012 * jitter,
        }
        if i == lines // 2:
            line["event"] = name("resumed from step-600")
        found.append(line)
    return found


@functools.cache
def embeddings(samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and stand-ins for embeddings of digits."""
    digits = load_digits()
    pixels, target = digits.data[:samples], digits.target[:samples]
    noise = np.random.default_rng(1)
    s = LinearDiscriminantAnalysis(n_components=9).fit(digits.data[400:1000], digits.target[400:1000]).transform(pixels)
    return pixels, target, s + 0.6 * noise.standard_normal(s.shape)


def sprite(pictures: np.ndarray, columns: int) -> Image.Image:
    """All pictures in rows."""
    count, side = len(pictures), pictures.shape[1]
    rows = -(-count // columns)
    sheet = np.zeros((rows * side, columns * side), np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = 255 - picture * 15.9
    return Image.fromarray(sheet)


def rung(matched: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Figures of one kind of mismatch."""
    gap = float(other.mean() - matched.mean())
    return {
        "mean": float(other.mean()),
        "std": float(other.std()),
        "gap": gap,
        "auroc": float((other[:, None] > matched[None]).mean()),
        "d_prime": gap / math.sqrt((matched.var() + other.var()) / 2),
    }


def evaluation(name: Named, *, labels: bool, kind: str, samples: int) -> dict[str, Any]:
    """What the evaluation finds."""
    _, target, s = embeddings(samples)
    image, noise = kind == "image", np.random.default_rng(2)
    distance = np.linalg.norm(s[:, None] - s[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    energies = {
        "matched": noise.gamma(4, 0.03, 400),
        "random": 0.5 + noise.gamma(12, 0.11, 400),
        "nearest": 0.1 + noise.gamma(6, 0.07, 400),
        "perturbed": noise.gamma(5, 0.045, 400),
    }
    edges = np.linspace(0, 3, 41)
    key = [name(f"row {i}") for i in range(samples)]
    label = [int(t) if labels else -1 for t in target]
    thumbnail = list(range(samples)) if image else [-1] * samples
    scores = {
        "features": (0.972, 0.981, 0.938),
        "untrained": (0.955, 0.963, 0.857),
        "pixels": (0.951, 0.962, 0.853),
        "pca": (0.948, 0.958, 0.861),
    }
    singular = np.exp(-np.arange(256) / 60) * (1 + 0.02 * noise.standard_normal(256))
    order = np.argsort(energies["matched"])
    xy = s[:, :2] - s[:, :2].mean(0)
    return {
        "format": 1,
        "data": {
            "source": name("digits"),
            "kind": kind,
            "samples": 1797,
            "train": 1438,
            "held_out": 357,
            "test_source": None,
            "classes": [name(str(i)) for i in range(10)] if labels else [],
            "skipped": 2,
            "shape": [1, 8, 8] if image else [64],
        },
        "model": {
            "parameters": 412_672,
            "feature_dim": 256,
            "dim": 256,
            "principle": name("vicreg"),
            "encoder": name("patch"),
            "steps": 1200,
            "seconds": 41.3,
        },
        "probes": {
            "chance": 0.101,
            **{
                who: {"linear": a, "knn": b, "few_label": {"mean": c, "std": 0.012, "per_class": 10, "draws": 20}}
                for who, (a, b, c) in scores.items()
            },
        }
        if labels
        else None,
        "retrieval": {
            "recall@1": 0.812,
            "recall@5": 0.961,
            "recall@10": 0.983,
            "median_rank": 1.0,
            "mrr": 0.877,
            "candidates": 357,
            "class_map": 0.643 if labels else None,
            "reverse": {"recall@1": 0.774, "candidates": 357},
        },
        "energy": {
            "matched": {"mean": float(energies["matched"].mean()), "std": float(energies["matched"].std())},
            "ladder": {k: rung(energies["matched"], v) for k, v in energies.items() if k != "matched"},
            "histogram": {
                "edges": edges.tolist(),
                **{k: np.histogram(v, edges)[0].tolist() for k, v in energies.items()},
            },
        },
        "collapse": {
            "verdict": None,
            "rankme": 131.4,
            "alpha_req": 0.83,
            "lidar": 61.2,
            "std_min": 0.91,
            "std_mean": 1.01,
            "std_share_below_0.1": 0.0,
            "off_diagonal_correlation": 0.043,
            "spectrum": (singular / singular.sum()).tolist(),
            "dim": 256,
        },
        "map": {
            "method": "pca",
            "x": xy[:, 0].tolist(),
            "y": xy[:, 1].tolist(),
            "label": label,
            "thumbnail": thumbnail,
            "key": key,
        },
        "neighbours": [
            {
                "query": thumbnail[i],
                "key": key[i],
                "neighbours": [
                    {"thumbnail": thumbnail[j], "key": key[j], "label": label[j], "distance": float(distance[i, j])}
                    for j in np.argsort(distance[i])[:6]
                ],
            }
            for i in range(0, samples, samples // 12)
        ],
        "pairs": {
            side: [
                {
                    "key": key[i % samples],
                    "energy": float(energies["matched"][i]),
                    "x": thumbnail[i % samples],
                    "y": thumbnail[(i + 1) % samples],
                }
                for i in chosen
            ]
            for side, chosen in (("lowest", order[:12]), ("highest", order[-12:][::-1]))
        },
        "latent": latent(name, image=image, samples=samples),
        "thumbnails": {"file": "evaluation/thumbnails.png", "size": 8, "columns": 16, "count": samples}
        if image
        else None,
        "warnings": [],
        "commands": [
            name("accord train digits --epochs 200 --out runs/digits"),
            "accord evaluate runs/digits",
            "accord report runs/digits",
        ],
    }


def latent(name: Named, *, image: bool, samples: int) -> dict[str, Any]:
    """What the evaluation finds about a codebook of 16 codes, two of which are hardly used."""
    noise = np.random.default_rng(3)
    usage = np.sort(noise.dirichlet(np.full(16, 6.0)))[::-1]
    usage[-2:] = (0.001, 0.0)
    usage /= usage.sum()
    entropy = -float((usage[:-1] * np.log(usage[:-1])).sum())
    t = np.linspace(-0.25, 1.25, 61)
    wells = 0.34 * np.minimum(t**2, (1 - t) ** 2)
    soft = -np.log((np.exp(-24 * 0.34 * t**2) + np.exp(-24 * 0.34 * (1 - t) ** 2)) / 2) / 24
    codes = [1, 2, 4, 8, 16]
    return {
        "name": "Codebook",
        "dim": 8,
        "capacity": math.log(16),
        "minimizer": "Enumerate",
        "free_energy": {"inferred": 0.121, "prior": 0.492, "permuted_x": 0.914, "transplanted": 1.213},
        "information": {
            "price": 0.0,
            "kl": None,
            "perplexity": [math.exp(entropy)],
            "codes": 16,
            "usage": [usage.tolist()],
            "mutual": 2.31,
        },
        "gaps": {"amortisation": None, "optimisation": 0.0},
        "capacity_curve": [
            {"codes": k, "nats": math.log(k), "free_energy": 0.1 + 0.34 / k, "auroc": 0.94 + 0.012 * i - 0.002 * i * i}
            for i, k in enumerate(codes)
        ],
        "wells": {"t": t.tolist(), "energy": wells.tolist(), "soft": soft.tolist(), "key": name("row 17")},
        "verdicts": [],
        "hypotheses": [
            {
                "key": name(f"row {i}"),
                "x": i if image else -1,
                "y": i + 1 if image else -1,
                "free_energy": 0.13,
                "nearest": i % 8,
                "predictions": [
                    {
                        "energy": 0.01 * h,
                        "probability": float(usage[h]),
                        "usage": float(usage[h]),
                        "truth_energy": 0.2 + 0.1 * h,
                        "neighbours": [(i + 3 * h + n) % samples if image else -1 for n in range(3)],
                        "keys": [name(f"row {400 + 10 * h + n}") for n in range(3)],
                        "distance": [0.02 + 0.01 * h + 0.005 * n for n in range(3)],
                    }
                    for h in range(8)
                ],
            }
            for i in range(min(6, samples - 1))
        ],
    }
