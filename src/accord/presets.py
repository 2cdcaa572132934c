"""Recipes by name: what `accord train` uses for each kind of data, and what a user can ask for with ``--recipe NAME``."""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]

DIGITS: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "digits"}},
    "encoder": {
        "name": "multiscale",
        "stem_width": 32,
        "stem_kernel": 3,
        "stem_stride": 1,
        "widths": [64, 128],
        "blocks": [1, 1],
        "pool_grids": [0, 2, 2],
    },
    "projector": {"hidden": [256], "dim": 256},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4},
    "training": {"epochs": 100, "batch_size": 256},
}

PHOTO: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "photo"}},
    "encoder": {"name": "multiscale"},
    "projector": {"hidden": [1024], "dim": 512},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4},
    "training": {"budget": "10m", "batch_size": 256},
}

GREY_PHOTO: Table = {**PHOTO, "pairing": {"name": "two_views", "augment": {"preset": "grey_photo"}}}

VECTOR: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "vector"}},
    "encoder": {"name": "mlp"},
    "projector": {"hidden": [512], "dim": 256},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4},
    "training": {"epochs": 100, "batch_size": 256},
}

RESNET18: Table = {
    **PHOTO,
    "encoder": {"name": "resnet18", "stem": "small"},
    "projector": {"hidden": [2048], "dim": 2048},
    "optimizer": {"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-4},
    "training": {"epochs": 300, "batch_size": 256},
}

PRESETS: dict[str, Table] = {
    "digits": DIGITS,
    "photo": PHOTO,
    "grey_photo": GREY_PHOTO,
    "vector": VECTOR,
    "resnet18": RESNET18,
}


def preset_for(kind: str, shape: tuple[int, ...], source: str) -> str:
    """The name of the preset that suits samples of this kind and shape."""
    if kind == "vector":
        return "vector"
    if source == "digits":
        return "digits"
    return "photo" if shape[0] == 3 else "grey_photo"
