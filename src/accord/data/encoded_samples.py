"""Encoded images, wherever they lie, as samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from accord.data.encoded import Encoded, Options, Progress, open_images
from accord.data.inspection import inspect as look
from accord.data.samples import LISTED, Samples
from accord.data.vectors import Labels


def encoded_samples(
    name: str,
    encoded: Encoded,
    keys: Sequence[str],
    options: Options,
    progress: Progress | None = None,
    *,
    labels: Labels | None = None,
    notes: Sequence[str] = (),
    inspect: Literal["", "plain", "strict"] = "",
) -> tuple[Samples, int]:
    """The samples, not judged yet, and how many of them are of one colour.

    `inspect`: look for what is bad now, and not when it is needed; "strict": also at the coded data themselves.
    """
    store, scan, more = open_images(encoded, keys, options, progress)
    if inspect:
        look(encoded, store, scan, keys, strict=inspect == "strict")
    samples = Samples(
        name=name,
        kind="image",
        store=store,
        keys=keys,
        content=scan.content,
        ok=scan.ok,
        bad=[refused.item(keys[i]) for i, refused in sorted(scan.refused.items())[:LISTED]],
        labels=None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        aspect=scan.aspect,
        notes=[*notes, *more, *(f"{what}: {count}" for what, count in sorted(scan.conversions.items()))],
        blocks=encoded.blocks,
    )
    if samples.blocks is not None and len(encoded) * math.prod(store.shape) > options.cached:
        samples.shuffle_buffer = (
            encoded.shuffle_buffer
        )  # by the size alone: the order must not depend on the room on a disk
    return samples, scan.constant
