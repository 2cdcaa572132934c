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
        "stem_init": "random",
        "widths": [64, 128],
        "blocks": [0, 0],
        "pool_grids": [0, 2, 2],
    },
    "projector": {"hidden": [256], "dim": 256},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.1},
    "training": {"epochs": 40, "batch_size": 128},
}

PHOTO: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "photo"}},
    "encoder": {
        "name": "multiscale",
        "stem_width": 128,
        "stem_kernel": 6,
        "stem_stride": 2,
        "stem_init": "whitened",
        "widths": [128, 256],
        "blocks": [0, 0],
        "pool_grids": [2, 2, 2],
    },
    "projector": {"hidden": [512], "dim": 256},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 4e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.05},
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

HALVES: Table = {
    "pairing": {"name": "halves", "split": "left_right", "augment": {"preset": "light"}},
    "encoder": {
        "name": "multiscale",
        "stem_width": 32,
        "stem_kernel": 3,
        "stem_stride": 1,
        "stem_init": "random",
        "widths": [64, 128],
        "blocks": [0, 0],
        "pool_grids": [4, 2, 1],
    },
    "projector": {"hidden": [256], "dim": 32},
    "predictor": {"name": "mlp"},
    "latent": {"name": "codebook", "codes": 16, "dim": 8, "prior": True, "weight": 0.01, "reseed": 0.0},
    "minimizer": {"name": "enumerate", "anneal": 1.0, "anneal_share": 0.95},
    "objective": {"name": "sigreg", "slices": 256},
    "optimizer": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.1},
    "training": {"epochs": 60, "batch_size": 128},
}

# nothing is moved in `jump`: a digit would cross the border between x and y
JUMP: Table = {
    **HALVES,
    "pairing": {"name": "halves", "split": "top_bottom"},
    "latent": {"name": "codebook", "codes": 2, "dim": 8},
    "minimizer": {"name": "enumerate"},
}

VECTOR_PAIRS: Table = {
    "pairing": {"name": "columns"},
    "encoder": {"name": "mlp", "hidden": [256, 256]},
    "projector": {"hidden": [256], "dim": 64},
    "predictor": {"name": "mlp"},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4},
    "training": {"epochs": 60, "batch_size": 256},
}

FORKS: Table = {
    **VECTOR_PAIRS,
    "encoder": {"name": "mlp", "hidden": [128, 128]},
    "projector": {"hidden": [128], "dim": 12},
    "latent": {"name": "codebook", "codes": 2, "dim": 4, "blocks": 6},
    "objective": {"name": "sigreg", "slices": 256},
    "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.1},
    "training": {"epochs": 100, "batch_size": 128},
}

RESNET18: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "photo"}},
    "objective": {"name": "vicreg"},
    "encoder": {"name": "resnet18", "stem": "small"},
    "projector": {"hidden": [2048], "dim": 2048},
    "optimizer": {"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-4},
    "training": {"epochs": 300, "batch_size": 256},
}

# two different things that belong together; what encodes them follows from what they are: see `encoder_for`. Each has an encoder of its
# own, so nothing has to stand between them; strong decorrelation is what tells one pair from another
PAIRS: Table = {
    "pairing": {"name": "columns"},
    "projector": {"hidden": [512], "dim": 128},
    "objective": {"name": "vicreg", "covariance": 5.0},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "warmup": 0.1},
    "training": {"epochs": 60, "batch_size": 256},
}

# what encodes the following depends on their length: see `encoder_for`
SERIES: Table = {
    "pairing": {"name": "two_views", "augment": {"preset": "series"}},
    "projector": {"hidden": [512], "dim": 128},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.1},
    "training": {"epochs": 60, "batch_size": 128},
}
SOUND: Table = {
    **SERIES,
    "pairing": {"name": "two_views", "augment": {"preset": "audio"}},
    "training": {"epochs": 20, "batch_size": 64},
}
TEXT: Table = {**SERIES, "pairing": {"name": "two_views", "augment": {"preset": "text"}}}
FUTURE: Table = {
    **SERIES,
    "pairing": {"name": "future"},
    "projector": {"hidden": [256], "dim": 64},
    "predictor": {"name": "mlp"},
    "training": {"epochs": 20, "batch_size": 128},
}
TABLE: Table = {
    "pairing": {"name": "masked"},
    "encoder": {"name": "tabular"},
    "projector": {"hidden": [256], "dim": 64},
    "predictor": {"name": "mlp"},
    "objective": {"name": "vicreg"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4, "beta2": 0.95, "warmup": 0.1},
    "training": {"epochs": 60, "batch_size": 128},
}

PRESETS: dict[str, Table] = {
    "digits": DIGITS,
    "photo": PHOTO,
    "grey_photo": GREY_PHOTO,
    "vector": VECTOR,
    "halves": HALVES,
    "jump": JUMP,
    "vector_pairs": VECTOR_PAIRS,
    "forks": FORKS,
    "resnet18": RESNET18,
    "pairs": PAIRS,
    "series": SERIES,
    "sound": SOUND,
    "text": TEXT,
    "future": FUTURE,
    "table": TABLE,
}


ON_THE_SPHERE: Table = {"cost": "cosine"}
"""For principles whose temperatures and margins are in units of 1 - cos."""

TEACHER: Table = {"name": "moving_average", "momentum": [0.99, 1.0]}

MADE_OF_X: Table = {
    "predictor": {"name": "mlp"},
    "latent": {"name": "deterministic"},
    "minimizer": {"name": "enumerate"},
}
"""What rivals have that make y itself: a decoder, and no z."""

GOES_WITH: dict[str, Table] = {
    "vicregl": {"cost": "local_matching", "projector": {"grid": 4, "local_dim": 32}},
    "mmcr": ON_THE_SPHERE,
    "coding_rate": ON_THE_SPHERE,
    "info_nce": ON_THE_SPHERE,
    "dcl": ON_THE_SPHERE,
    "siglip": ON_THE_SPHERE,
    "triplet": ON_THE_SPHERE,
    "siamese": ON_THE_SPHERE,
    "square_square": ON_THE_SPHERE,
    "logistic": ON_THE_SPHERE,
    "spectral": ON_THE_SPHERE,
    "align_uniform": ON_THE_SPHERE,
    "contrastive_divergence": {"encoder_y": {"name": "identity"}},
    "score_matching": {"encoder_y": {"name": "identity"}},
    "byol": {"encoder_y": TEACHER, "predictor": {"name": "mlp"}, "cost": "cosine"},
    "simsiam": {"encoder_y": {"name": "stop_gradient"}, "predictor": {"name": "mlp"}, "cost": "cosine"},
    "dino": {"encoder_y": TEACHER, "projector": {"bottleneck": 64, "dim": 256}, "cost": "centred_divergence"},
    "jepa": {"encoder_y": TEACHER, "predictor": {"name": "mlp"}, "cost": "smooth_l1"},
    "autoencoder": MADE_OF_X,
    "masked_autoencoder": MADE_OF_X,
    "pixel_predictor": MADE_OF_X,
    "gaussian": MADE_OF_X,
    "mixture": MADE_OF_X,
    "cvae": {
        "predictor": {"name": "mlp"},
        "latent": {"name": "gaussian", "dim": 16, "weight": 1.0},
        "minimizer": {"name": "variational", "samples": 4, "warm_up": 0.5},
    },
    "flow": MADE_OF_X,
    "flow_matching": MADE_OF_X,
}
"""What a principle needs beside its terms, by name: it stands over a preset, and under what the user sets."""


def goes_with(principle: str, preset: Table, canvas: int) -> Table:
    """What a principle needs over a preset; images are stored with sides of `canvas` pixels.

    JEPA hides blocks of images, about a seventh of the area, from a transformer; rows of a table stay with the preset's pairs.
    """
    needs = GOES_WITH.get(principle, {})
    if principle != "jepa" or preset.get("encoder", {"name": "mlp"})["name"] in ("mlp", "tabular"):
        return needs
    patch = max(2, min(canvas, 64) // 8)
    grid = min(canvas, 64) // patch
    hidden = {"patch": patch, "block": max(1, (3 * grid + 4) // 8), "size": patch * grid}
    pairing = {"name": "masked_blocks", "whole": True, **hidden}
    encoder = {"name": "vit", "patch": patch, "width": 96, "depth": 4, "heads": 3}
    slow = {"optimizer": {"learning_rate": 1e-3}} if canvas > 16 else {}  # than convolutions bear
    return {**needs, "pairing": pairing, "encoder": encoder, **slow}


DIGITS_SIDE = 16
"""Images of up to this many pixels a side are encoded as digits are."""

PHOTO_SIDE = 40
"""Images of more pixels a side get a stem of stride 4 where nothing else is said."""

SMALL_VIEWS = {"photo", "grey_photo"}
"""Presets that train on views of half the size of the image: four times as many a second, and better features in equal time."""


def view_sizes(canvas: int) -> Table:
    """Side of the random views and of the plain view for images stored with this side."""
    size = min(max(16, canvas // 2), 64)
    return {"size": min(size, canvas), "plain_size": min(canvas, 2 * size)}


BUILT_IN = {
    "digits": "digits",
    "forks": "forks",
    "ellipse": "vector_pairs",
    "torus": "vector_pairs",
    "jump": "jump",
}
"""The presets of sources that are known by name."""
LARGE_HALVES: Table = {**PHOTO["encoder"], "pool_grids": [4, 4, 2]}
"""The encoder of halves of images that are larger than digits; a half is told from others by where things are in it."""


OF_HALVES = {"halves", "jump"}
"""Presets whose encoder depends on the size of the images."""


OF_KIND = {"vector": "vector", "pair": "pairs", "series": "series", "audio": "sound", "text": "text"}
"""The presets of kinds of data; that of images depends on their colour."""


def halves_of(canvas: int) -> Table:
    """What the presets for halves use instead for images that are stored with more than 16 pixels a side."""
    return {} if canvas <= 16 else {"encoder": LARGE_HALVES, "pairing": {"size": min(canvas, 64)}}


MOST_STEPS = 512
"""Steps that a convolution over series sees after its first layer, at most."""


def encoder_for(kind: str, shape: tuple[int, ...], *, rate: int = 0, special: bool = False) -> tuple[Table, str]:
    """The encoder that suits one kind of thing, and why.

    Args:
        kind: see `Samples`.
        shape: of one sample.
        rate: steps per second of audio.
        special: whether columns of a vector are categories, or values are missing.
    """
    if kind == "image":
        side = shape[-1]
        table = DIGITS["encoder"] if side <= DIGITS_SIDE else PHOTO["encoder"]
        if side > PHOTO_SIDE:  # as many places as those have: their number is what a convolution costs
            table = {**table, "stem_kernel": 10, "stem_stride": 4}
        return table, f"the images have {side} pixels a side"
    if kind == "text":
        return {"name": "text_ngrams"}, "parts of words tell most of a text"
    if kind == "vector":
        if special:
            return {"name": "tabular"}, "some columns are categories, or values are missing"
        return {"name": "mlp", "hidden": [256, 256]}, "all are numbers and none is missing"
    steps = shape[0] if kind == "series" else max(1, 100 * shape[0] // max(1, rate))
    stride = -(-steps // MOST_STEPS)
    table = {"name": "conv1d", "stride": stride, "kernel": max(5, stride)}
    if kind == "series":
        return {**table, "halve": True}, f"series have up to {steps:,} steps"
    return table, f"log-mel frames of sounds have up to {steps:,} steps"


def preset_of(pairing: str, kind: str, shape: tuple[int, ...], source: str) -> str:
    """The name of the preset for pairs that are asked for by name, "" if they are not."""
    if pairing == "future" and kind == "series":
        return "future"
    if pairing == "masked" and kind == "vector":
        return "table"
    return preset_for(kind, shape, source)


def preset_for(kind: str, shape: tuple[int, ...], source: str) -> str:
    """The name of the preset that suits samples of this kind and shape."""
    known = BUILT_IN.get(source.partition(":")[0])
    if known is not None:
        return known
    if kind in OF_KIND:
        return OF_KIND[kind]
    return "photo" if shape[0] == 3 else "grey_photo"
