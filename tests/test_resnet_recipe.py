"""The recipe `resnet18`, which is meant for GPUs: that it trains, in a batch and on images small enough for one core."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def blots(count: int, side: int) -> np.ndarray:
    """Coloured discs on coloured ground: what two views share is not hard to find."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    at, radius = rng.uniform(0.3, 0.7, (2, count, 1, 1)), rng.uniform(0.15, 0.35, (count, 1, 1))
    inside = ((x - at[0]) ** 2 + (y - at[1]) ** 2 < radius**2)[:, None]
    front, ground = rng.uniform(0, 256, (2, count, 3, 1, 1))
    return np.where(inside, front, ground).astype(np.uint8)


@pytest.mark.slow
def test_fifty_steps_of_resnet18_lower_the_loss(accord: Callable[..., Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "blots.npz", x=blots(160, 16))
    settings = ["training.batch_size=16", "training.steps=50", "pairing.size=16", "training.device=cpu"]
    given = [word for setting in settings for word in ("--set", setting)]
    outcome = accord(
        "train", tmp_path / "blots.npz", "--recipe", "resnet18", *given, "--out", tmp_path / "run", "--json"
    )
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([line["loss"] for line in lines])
    assert len(losses) == 50 and np.isfinite(losses).all()
    first, last = losses[:10].mean(), losses[-10:].mean()
    assert last < 0.95 * first, f"{first:.2f} at first, {last:.2f} in the end"
    assert losses[:25].mean() > losses[25:].mean()
