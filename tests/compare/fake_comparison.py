"""A finished comparison as the harness leaves it, with made-up figures and runs that nobody trained."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MEANS = {"vicreg": 0.97, "sigreg": 0.95, "barlow_twins": 0.90}
KEYS = ("linear", "few_label", "knn", "recall@1", "recall@10", "random", "nearest", "perturbed")


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    path = Path(__file__).parent.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"accord_tests_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake_run = load("fake_run")
browser = load("browser")


def same(text: str) -> str:
    return text


def write(
    out: Path, *, seeds: int = 3, labels: bool = True, kind: str = "image", name: Callable[[str], str] = same
) -> Path:
    """Writes compare.json and the run directories of the first seed; `name` changes texts that come from a user."""
    rng = np.random.default_rng(0)
    runs = [run(out, p, seed, rng, labels, name) for p in MEANS for seed in range(seeds)]
    for principle in MEANS:
        fake_run.write_run(
            out / "runs" / principle / "seed-0", labels=labels, kind=kind, samples=24, lines=8, name=name
        )
    keys = KEYS if labels else KEYS[3:]
    baselines = [
        {"name": "untrained", "seed": s, "metrics": dict.fromkeys(keys, 0.6 + 0.001 * s)} for s in range(seeds)
    ]
    if labels:
        baselines += [{"name": n, "seed": 0, "metrics": {"linear": 0.93}} for n in ("pixels", "pca")]
    trial = {"principle": "vicreg", "folder": "trials/vicreg/trial-0", "setting": "learning rate x 3", "status": "done"}
    state = {
        "format": 1,
        "settings": {},
        "source": name("digits"),
        "amount": "60 s",
        "equal": "seconds",
        "seeds": list(range(seeds)),
        "principles": [
            {
                "name": p,
                "group": "regularised",
                "encoder": "multiscale",
                "objective": {"name": p, "weight": 0.5},
                "differs": {"cost": "cosine"} if p == "sigreg" else {},
            }
            for p in MEANS
        ],
        "trials": [{**trial, "criterion": "linear probe on validation labels", "value": 0.9, "chosen": True}],
        "runs": runs,
        "baselines": baselines,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(state), "utf-8")
    return out


def run(out: Path, principle: str, seed: int, rng: Any, labels: bool, name: Callable[[str], str]) -> dict[str, Any]:
    metrics = {key: float(MEANS[principle] + 0.002 * rng.normal()) for key in (KEYS if labels else KEYS[3:])}
    steps = list(range(8, 88, 8))
    return {
        "principle": principle,
        "seed": seed,
        "folder": f"runs/{principle}/seed-{seed}",
        "status": "done",
        "verdict": None,
        "message": name("fine"),
        "steps": 80,
        "seconds": 60.0,
        "cpu_seconds": 55.0,
        "passes": 20_480.0,
        "samples_per_second": 170.0,
        "peak_memory": 500 * 2**20,
        "parameters": 100_000,
        "metrics": {**metrics, "rankme": 60.0 + seed},
        "curve": {
            "seconds": [s * 0.7 for s in steps],
            "step": steps,
            "energy_auroc": [1 - 0.5 / (i + 1) for i in range(len(steps))],
            "effective_rank": [40.0 + i for i in range(len(steps))],
        },
        "histogram": {
            "edges": [0.0, 0.5, 1.0, 1.5],
            "matched": [8, 2, 0],
            "random": [0, 3, 7],
            "nearest": [2, 5, 3],
            "perturbed": [6, 3, 1],
        },
    }
