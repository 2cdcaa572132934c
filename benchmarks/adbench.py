r"""Rows that are not in accord: 19 tables of ADBench, one class, against three detectors that need no training to speak of.

    OMP_NUM_THREADS=1 python benchmarks/adbench.py FOLDER --seeds 0 1 2 3 4 --out adbench.json --table adbench.md

FOLDER holds the .npz files (X, y; y = 1 is an anomaly) of Han et al. 2022, arXiv:2206.09426. Of each table and seed a random half of the
normal rows trains; the other half and all anomalies are scored. Everybody gets the same rows, standardised by the training rows, and
no labels. AUROC in per cent; a method's figure is the mean over tables, its spread the standard deviation over seeds of that mean.

- kNN5: mean distance to the five nearest training rows;
- IForest: isolation forest with the defaults of scikit-learn;
- PCA: squared error of the reconstruction by the components that hold 90 % of the variance;
- energy: `accord.sklearn.EnergyDetector` with its defaults.

There are two tables. In the first all these rows are scored. The defaults of the detector were chosen on one half of the rows of each
kind of each table (`for_choices`; other training rows, seeds from 100 on); in the second only the other half is scored, by everybody.
What is done already is read from --out and not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from accord.sklearn import EnergyDetector

PARTS = {"all": "all rows", "rest": "rows not for choices"}
Score = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(training rows, rows, seed) to how anomalous the rows are."""


def knn(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    distance: np.ndarray = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(rows)[0]
    return distance.mean(1)


def forest(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(train).score_samples(rows)


def pca(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    model = PCA(0.9, svd_solver="full").fit(train)
    return ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(1)


def energy(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    return -EnergyDetector(random_state=seed).fit(train).score_samples(rows)


METHODS: dict[str, Score] = {"kNN5": knn, "IForest": forest, "PCA": pca, "energy": energy}


def for_choices(y: np.ndarray) -> np.ndarray:
    """Half of the rows of each kind, the same whatever the seed of a split: scored for choices, and left out where "rest" is reported."""
    rng = np.random.default_rng([100, 1])
    chosen = np.zeros(len(y), bool)
    for kind in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == kind))
        chosen[rows[: len(rows) // 2]] = True
    return chosen


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows train (half of the normal ones), and which are scored."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    train, held = normal[: len(normal) // 2], normal[len(normal) // 2 :]
    return train, np.concatenate([held, np.flatnonzero(y == 1)])


def measure(path: Path, seed: int, methods: list[str]) -> dict[str, dict[str, float]]:
    """AUROC in per cent, of all rows and of those not for choices, and seconds of each method."""
    with np.load(path, allow_pickle=False) as table:
        X, y = table["X"].astype(np.float64), table["y"]
    train, rows = split(y, seed)
    scaler = StandardScaler().fit(X[train])
    scored = {"all": np.ones(len(rows), bool), "rest": ~for_choices(y)[rows]}
    found = {}
    for name in methods:
        start = time.perf_counter()
        scores = METHODS[name](scaler.transform(X[train]), scaler.transform(X[rows]), seed)
        seconds = time.perf_counter() - start
        found[name] = {part: 100 * float(roc_auc_score(y[rows][of], scores[of])) for part, of in scored.items()}
        found[name]["seconds"] = seconds
    return found


def table(found: dict[str, dict[str, dict[str, dict[str, float]]]], part: str) -> str:
    """Markdown: a row for each table, then the mean."""
    methods = list(METHODS)
    names = sorted(found, key=lambda name: int(name.split("_")[0]))
    seeds = sorted({seed for runs in found.values() for seed in runs})
    lines = [f"| {PARTS[part]} | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]

    def line(label: str, chosen: list[str]) -> str:
        """Mean and standard deviation over seeds of the mean over tables."""
        cells = []
        for method in methods:
            of_seed = [np.mean([found[name][seed][method][part] for name in chosen]) for seed in seeds]
            cells.append(f"{np.mean(of_seed):.1f} ± {np.std(of_seed, ddof=min(1, len(seeds) - 1)):.1f}")
        return f"| {label} | " + " | ".join(cells) + " |"

    lines += [line(name, [name]) for name in names]
    lines.append(line(f"**mean of all {len(names)}**", names))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="*", help="names of tables; all by default")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("adbench.json"))
    parser.add_argument("--table", type=Path, default=Path("adbench.md"))
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    tables = [p for p in sorted(options.folder.glob("*.npz"), key=_size) if not options.sets or p.stem in options.sets]
    for seed, path in itertools.product(options.seeds, tables):
        known = found.setdefault(path.stem, {}).setdefault(str(seed), {})
        known |= measure(path, seed, [m for m in options.methods if m not in known])
        shown = {name: f"{value['all']:.1f} ({value['seconds']:.0f} s)" for name, value in known.items()}
        print(path.stem, "seed", seed, shown, flush=True)
        options.out.write_text(json.dumps(found, indent=1, allow_nan=False))
    if all(len(known) == len(METHODS) for runs in found.values() for known in runs.values()):
        options.table.write_text("\n".join(table(found, part) for part in PARTS))
        print(options.table.read_text())


def _size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main()
