"""What a trained model makes of samples: features, embeddings of views, in order, in batches, without gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.data.pairing import Originals, Pairing
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.values import Sides, Values, blank, form
from accord.errors import ArtifactError, DataError
from accord.model.encoder import Branch, Represented
from accord.model.joint_embedding import JointEmbedding

BATCH = 256
Stop = Callable[[], None]
"""Called between batches; raises to end the work (a signal has come, say)."""


def never() -> None:
    """The `Stop` that does not stop."""


class Embedded(NamedTuple):
    """Embeddings of pairs, on the CPU: s_x and s_y (n, dim), s_y of a slightly damaged y (n, dim), and the actions, if any."""

    s_x: Tensor
    s_y: Tensor
    s_y_damaged: Tensor
    action: Tensor | None


@dataclass(frozen=True, eq=False)
class OneSide:
    """Embeddings of x or of y, (n, dim) on the CPU, and of x the actions, (n, action), if there are any."""

    embedding: Tensor
    action: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def part(self, rows: slice | Tensor) -> OneSide:
        """That of some rows; of a tensor of places with more axes, embeddings with as many."""
        return OneSide(self.embedding[rows], None if self.action is None else self.action[rows])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradient; afterwards every part of `model` is in the mode it had. Gives the device of the model."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield device_of(model)
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer is; the CPU if there is none."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


class Rows(NamedTuple):
    """A batch on its way into a model: places in the samples, values, and width / height of the originals of images."""

    place: np.ndarray
    values: Values
    aspect: Tensor | None


def read(samples: Samples, index: np.ndarray, device: torch.device, batch_size: int = BATCH) -> Iterator[Rows]:
    """`samples[index]` in order, in batches, on `device`.

    Raises:
        BadItems: (a DataError) where a sample turns out to be damaged only now.
    """
    for start in range(0, len(index), batch_size):
        rows = index[start : start + batch_size]
        aspect = samples.aspects(rows)
        yield Rows(rows, samples.batch(rows).to(device), None if aspect is None else aspect.to(device))


def extract(
    encoder: Branch,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    side: Literal["x", "y"] = "x",
    batch_size: int = BATCH,
    stop: Stop = never,
    finite: bool = True,
) -> Represented:
    """Features (n, feature) and embeddings (n, dim) of the plain x (or y) of `samples[index]`, in order, on the CPU.

    Args:
        encoder: left in the mode it had.
        samples: where to read.
        index: which ones, (n,) int64, all of them ok.
        pairing: its `plain` view is what is encoded, or its `plain_y`.
        side: which of the two `encoder` is for.
        batch_size: samples at a time; the result does not depend on it beyond rounding.
        stop: called before every batch.
        finite: refuse what is not finite; otherwise such rows stay as they are, for the caller to mark.

    Raises:
        DataError, ArtifactError: if a feature or an embedding is not finite (see `check_finite`).
    """
    features, embeddings = [], []
    with evaluating(encoder) as device:
        for rows in read(samples, index, device, batch_size):
            stop()
            found = encoder.represent((pairing.plain if side == "x" else pairing.plain_y)(rows.values, rows.aspect))
            features.append(found.features.float().cpu())
            embeddings.append(found.embeddings.float().cpu())
    found = Represented(_joined(features), _joined(embeddings))
    for values in found if finite else ():
        check_finite(values, samples, index)
    return found


def embed_pairs(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    seed: int,
    batch_size: int = BATCH,
    stop: Stop = never,
) -> Embedded:
    """Embeddings of one pair of each of `samples[index]`, and of the same pair with y damaged a little (see `damage`).

    Where x has several crops, or y several targets, the first is taken. Random numbers are those of (seed, epoch 0, place in
    `samples`).
    """
    parts: list[list[Tensor]] = [[], [], []]
    actions, categories = [], (samples.sides[1] if samples.sides else samples).categories
    with evaluating(model) as device:
        for rows in read(samples, index, device, batch_size):
            stop()
            draws = Draws(seed, 0, torch.from_numpy(rows.place).to(device))
            pair = first(model, pairing(rows.values, draws, rows.aspect))
            damaged = _damaged(pair.y, draws, marked=pairing.marks_y, categories=categories)
            ways = ((model.encoder_x, pair.x), (model.encoder_y, pair.y), (model.encoder_y, damaged))
            for part, (encoder, values) in zip(parts, ways, strict=True):
                part.append(encoder(values).float().cpu())
            if pair.action is not None:
                actions.append(pair.action.cpu())
    s_x, s_y, s_y_damaged = (_joined(part) for part in parts)
    for values in (s_x, s_y, s_y_damaged):
        check_finite(values, samples, index)
    return Embedded(s_x, s_y, s_y_damaged, torch.cat(actions) if actions else None)


def embed_plain(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    batch_size: int = BATCH,
    stop: Stop = never,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """s_x and s_y (n, dim) of each sample paired with itself without anything random, and the actions; rows may be not finite."""
    s_x, s_y, actions, n = [], [], [], len(index)
    with evaluating(model) as device:
        for rows in read(samples, index, device, batch_size) if n else [_blank(samples, device)]:
            stop()
            both = Originals(rows.values, rows.aspect)
            pair = first(model, pairing.join(both, both))
            s_x.append(model.encoder_x(pair.x).float().cpu())
            s_y.append(model.encoder_y(pair.y).float().cpu())
            if pair.action is not None:
                actions.append(pair.action.cpu())
    return torch.cat(s_x)[:n], torch.cat(s_y)[:n], torch.cat(actions)[:n] if actions else None


def embed_side(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    side: Literal["x", "y"],
    *,
    batch_size: int = BATCH,
    stop: Stop = never,
) -> OneSide:
    """One side of what `embed_plain` gives: s_x with the actions, or s_y; rows may be not finite."""
    found, actions, n = [], [], len(index)
    with evaluating(model) as device:
        for rows in read(samples, index, device, batch_size) if n else [_blank(samples, device)]:
            stop()
            both = Originals(rows.values, rows.aspect)
            pair = first(model, pairing.join(both, both))
            s = model.encoder_x(pair.x) if side == "x" else model.encoder_y(pair.y)
            found.append(s.float().cpu())
            if pair.action is not None and side == "x":
                actions.append(pair.action.cpu())
    return OneSide(torch.cat(found)[:n], torch.cat(actions)[:n] if actions else None)


def _blank(samples: Samples, device: torch.device) -> Rows:
    """One sample of zeros: what it takes to know the widths where there are no samples."""
    parts = [blank(one.kind, one.shape, 1, device) for one in samples.sides or (samples,) if one.kind != "pair"]
    values = Sides(*parts) if samples.sides else parts[0]
    return Rows(np.zeros(1, np.int64), values, torch.ones(1, device=device) if samples.kind == "image" else None)


def embed_views(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    views: int,
    seed: int,
    batch_size: int = BATCH,
    stop: Stop = never,
) -> Tensor:
    """Embeddings of `views` random views (the y of a pair) of each sample, (n, views, dim): the views of one sample are grouped.

    Where y is taken as it is (`JointEmbedding.takes_y_as_it_is`) the views are the x of the pairs.
    """
    groups = []
    with evaluating(model) as device:
        for rows in read(samples, index, device, batch_size):
            stop()
            place = torch.from_numpy(rows.place).to(device)
            pairs = (pairing(rows.values, Draws(seed, 1 + view, place), rows.aspect) for view in range(views))
            groups.append(torch.stack([_view(model, first(model, pair)).float().cpu() for pair in pairs], dim=1))
    found = _joined(groups)
    check_finite(found.flatten(1), samples, index)
    return found


def _view(model: JointEmbedding, pair: Pair) -> Tensor:
    embedding: Tensor = model.encoder_x(pair.x) if model.takes_y_as_it_is else model.encoder_y(pair.y)
    return embedding


def first(model: JointEmbedding, pair: Pair) -> Pair:
    """One pair of each sample, with one batch axis: of several crops or targets the first."""
    return pair.first(model.encoder_x.sample_ndim, model.encoder_y.sample_ndim)


def numbers(samples: Samples, index: np.ndarray, pairing: Pairing) -> tuple[int, int]:
    """How many numbers one x and one y consist of."""
    rows = next(read(samples, index[:2], torch.device("cpu")))
    x, y = pairing.plain(rows.values, rows.aspect), pairing.plain_y(rows.values, rows.aspect)
    return x[0].numel(), y[0].numel()


def _damaged(y: Tensor, draws: Draws, *, marked: bool, categories: Sequence[Sequence[str]]) -> Tensor:
    """`damage` of y, but not of a last channel that says which part of it is meant; codes of categories become others at random."""
    if marked:
        return torch.cat([damage(y[:, :-1], draws), y[:, -1:]], dim=1)
    damaged = damage(y, draws)
    if y.ndim != 2 or len(categories) != y.shape[1]:
        return damaged
    counts = torch.tensor([len(names) for names in categories], device=y.device)
    other = (draws.uniform("category", y.shape[1]) * counts).floor()
    known = torch.where(y.isnan(), y, other)
    return torch.where(counts > 0, known, damaged)


def damage(y: Tensor, draws: Draws) -> Tensor:
    """A small perturbation of y, (batch, ...) to the same shape, which a good energy notices.

    Images: a square of a third of the shorter side (a ninth of the area), at a random place, is filled with the mean colour.
    Vectors: Gaussian noise of half the standard deviation that a column has in the batch; series and audio: of half that of a
    channel. What is missing stays missing. Text: each byte becomes a random letter with probability 1/9.
    """
    match form(y):
        case "image":
            return _with_hole(y, draws)
        case "text":
            letters = (97 + 26 * draws.uniform("letter", y.shape[1])).to(torch.uint8)
            return torch.where((draws.uniform("damage", y.shape[1]) < 1 / 9) & (y > 0), letters, y)
        case what:
            noise = draws.normal("damage", *y.shape[1:])
            return y + 0.5 * noise * _spread(y, over=(0,) if what == "vector" else (0, 1))


def _spread(y: Tensor, over: tuple[int, ...]) -> Tensor | float:
    """Standard deviation over these axes, of what is not missing; 1 of a single value."""
    if len(y) < 2:
        return 1.0
    if not bool(y.isnan().any()):
        return y.std(over)
    known = (~y.isnan()).sum(over).clamp_min(2)
    return ((y - y.nanmean(over, keepdim=True)).square().nansum(over) / (known - 1)).sqrt()


def _with_hole(y: Tensor, draws: Draws) -> Tensor:
    """Images with a square of the mean colour in them."""
    height, width = y.shape[-2:]
    side = max(1, round(min(height, width) / 3))
    corner = (draws.uniform("damage", 2) * torch.tensor([height - side + 1, width - side + 1], device=y.device)).long()
    inside = [
        (torch.arange(length, device=y.device) - corner[:, axis, None]).ge(0)
        & (torch.arange(length, device=y.device) - corner[:, axis, None]).lt(side)
        for axis, length in enumerate((height, width))
    ]
    hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(hole, y.mean((-2, -1), keepdim=True), y)


def check_finite(values: Tensor, samples: Samples, index: np.ndarray) -> None:
    """Refuses rows (n, ...) that are not finite.

    Raises:
        ArtifactError: if no row is finite: the model is broken.
        DataError: if some are: names the first of those samples.
    """
    finite = values.isfinite().flatten(1).all(1)
    if bool(finite.all()) or not len(values):
        return
    if not bool(finite.any()):
        raise ArtifactError(
            "the model gives no finite embedding: its weights are broken",
            where=samples.name,
            help="use an earlier checkpoint, or train again with a lower learning rate",
            code="E460",
        )
    bad = (~finite).nonzero()[:, 0].numpy()
    raise DataError(
        f"the embedding of {len(bad)} of {len(values)} samples is not finite",
        where=f"{samples.name}:{samples.keys[int(index[bad[0]])]}",
        help="look for extreme values in these samples, or leave them out",
        code="E360",
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, 1)
