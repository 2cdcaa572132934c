"""From the files of a comparison to its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accord.compare.job import outcome_of
from accord.report.compare_numbers import METRICS

CURVE = ("seconds", "step", "energy_auroc", "effective_rank")
MOST_POINTS = 60


def evaluation_of(folder: Path) -> dict[str, Any]:
    """The evaluation of a run; empty where there is none."""
    try:
        found = json.loads((folder / "evaluation.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def figures(evaluation: Mapping[str, Any], features: str = "features") -> dict[str, float]:
    """Every measure an evaluation has, by key; `features` names what was probed."""
    found = {}
    for metric in METRICS:
        value: Any = evaluation
        for key in metric.place:
            value = value.get(features if key == "features" else key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            found[metric.key] = float(value)
    return found


def run_of(folder: Path, out: Path, principle: str, seed: int) -> dict[str, Any]:
    """All that is told of a run."""
    outcome = outcome_of(folder)
    evaluation = evaluation_of(folder) if outcome.get("status") == "done" else {}
    collapse = evaluation.get("collapse") or {}
    known = (
        "message",
        "steps",
        "seconds",
        "cpu_seconds",
        "passes",
        "samples_per_second",
        "peak_memory",
        "peak_device_memory",
    )
    return {
        "principle": principle,
        "seed": seed,
        "folder": str(folder.relative_to(out)),
        "status": outcome.get("status", "open"),
        "verdict": collapse.get("verdict"),
        **{key: outcome.get(key) for key in known},
        "parameters": (evaluation.get("model") or {}).get("parameters"),
        "metrics": figures(evaluation),
        "candidates": (evaluation.get("retrieval") or {}).get("candidates"),
        "curve": curve(folder / "metrics.jsonl"),
        "histogram": (evaluation.get("energy") or {}).get("histogram"),
    }


def curve(path: Path) -> dict[str, list[float]]:
    """What the log of a run says of its learning, where it looked."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return {key: [] for key in CURVE}
    looked = [line for line in lines if line.get("energy_auroc") is not None]
    thin = looked[:: max(1, len(looked) // MOST_POINTS)]
    return {key: [float(line[key]) for line in thin] for key in CURVE}


def baselines_of(folders: Mapping[int, Path]) -> list[dict[str, Any]]:
    """The untrained encoder for each seed, and raw input and PCA once."""
    found = []
    for seed, folder in folders.items():
        evaluation = outcome_of(folder).get("evaluation") or {}
        if evaluation:
            found.append({"name": "untrained", "seed": seed, "metrics": figures(evaluation)})
        for name in ("pixels", "pca"):
            if name in (evaluation.get("probes") or {}):
                probed = {"probes": evaluation["probes"]}
                found.append({"name": name, "seed": seed, "metrics": figures(probed, name)})
    return found
