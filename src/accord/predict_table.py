"""What `predict` has found of a batch, and the columns of its table: K rows for each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.evaluate.features import embed_plain
from accord.evaluate.hypotheses import Hypotheses, Neighbours, Truth, hypotheses, neighbours, truth
from accord.evaluate.hypothesis_pictures import Corpus
from accord.model.codebook import Codebook, ConditionalPrior, codebook_of
from accord.output import printed
from accord.run import Run
from accord.verbs import Problems


@dataclass(frozen=True)
class Predicted:
    """What was found of the good inputs `index` of a batch; `truth` is that of the inputs `told`, bool, which hold their y."""

    index: np.ndarray
    hypotheses: Hypotheses
    told: np.ndarray
    truth: Truth
    near: Neighbours | None


def predicted(
    run: Run, problems: Problems, index: np.ndarray, count: int, corpus: Corpus | None, most: int
) -> Predicted:
    """The hypotheses of a batch; what has no finite embedding is refused. A future may be unknown: its y has no truth to tell."""
    samples, good = problems.first, problems.readable(index)
    s_x, s_y, action = embed_plain(run.model, samples, good, run.pairing)
    told, fine = s_y.isfinite().all(1), s_x.isfinite().all(1)
    if isinstance(run.pairing, Future) and len(good):
        told &= observed(samples, good, run.pairing)
    else:
        fine &= told
    problems.refuse(good[~fine.numpy()], "the embedding is not finite")
    good, s_x, s_y, told = good[fine.numpy()], s_x[fine], s_y[fine], told[fine]
    action = None if action is None else action[fine]
    found = hypotheses(run.model, s_x, count, action, seed=run.recipe.training.seed)
    usage = None if found.usage is None else found.usage[told]
    code = None if found.code is None else found.code[told]
    z, price, share, s_y_hat = (part[told] for part in (found.z, found.energy, found.probability, found.s_y_hat))
    of_told = Hypotheses(z, code, price, share, usage, s_y_hat)
    known = truth(run.model, of_told, s_x[told], s_y[told], None if action is None else action[told])
    near = None
    if corpus is not None:
        contents = (samples.content[good], corpus.content)
        near = neighbours(run.model, found.s_y_hat, corpus.s_y, most, contents=contents)
    return Predicted(good, found, told.numpy(), known, near)


def observed(samples: Samples, index: np.ndarray, pairing: Future) -> Tensor:
    """Whether anything was observed of the futures of some windows, bool (n,)."""
    values = samples.batch(index)
    assert isinstance(values, Tensor)
    return pairing.plain_y(values).isfinite().flatten(1).any(1)


def columns(
    run: Run, problems: Problems, index: np.ndarray, found: Predicted, corpus: Corpus | None, count: int
) -> dict[str, Any]:
    """`count` rows for each input."""
    lines = Lines(index, found.index, count)
    told, (z, code, energy, probability, usage, _) = found.truth, found.hypotheses
    named: dict[str, Any] = {key: lines.repeated(values) for key, values in problems.columns(index).items()}
    named["hypothesis"] = pa.array(np.tile(np.arange(count), len(index)), pa.int64())
    if code is not None:
        named["code"] = lines.codes(code)
    if z.shape[-1]:
        named["z"] = lines.of(z.float().numpy())
    named |= {"energy": lines.of(energy.numpy()), "probability": lines.of(probability.double().numpy())}
    if usage is not None:
        named["usage"] = lines.of(usage.numpy())
    if found.near is not None and corpus is not None:
        named |= lines.neighbours(found.near, corpus)
    return named | truth_columns(run, told, Lines(index, found.index[found.told], count))


def truth_columns(run: Run, told: Truth, lines: Lines) -> dict[str, Any]:
    """What the model says of the y's that came true."""
    count, named = lines.count, dict[str, Any]()
    nearest = np.arange(count) == told.nearest[:, None].numpy()
    named["truth_energy"] = lines.of(told.energy.numpy())
    named["truth_nearest"] = lines.typed(nearest, pa.bool_())
    named["truth_free_energy"] = lines.of(np.repeat(told.free_energy.numpy()[:, None], count, 1))
    if isinstance(run.model.latent, Codebook | ConditionalPrior):
        inferred = codebook_of(run.model.latent).index(told.z.to(run.model.latent.blocks()))
        named["truth_code"] = lines.codes(inferred.cpu()[:, None].expand(-1, count, -1))
    elif told.z.shape[-1]:
        named["truth_z"] = lines.of(np.repeat(told.z.float().numpy()[:, None], count, 1))
    return named


class Lines:
    """Values of the good inputs among all of a batch, `count` lines for each, nothing in those of the others."""

    def __init__(self, index: np.ndarray, good: np.ndarray, count: int):
        self.total, self.count = len(index), count
        self.place = np.searchsorted(index, good)

    def repeated(self, values: Any) -> pa.Array:
        """The same value in all lines of an input."""
        known = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
        return known.take(pa.array(np.repeat(np.arange(self.total), self.count)))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Numbers, (good, count) or (good, count, width); NaN where there are none."""
        whole = np.full((self.total, *values.shape[1:]), np.nan, values.dtype)
        whole[self.place] = values
        flat: np.ndarray = whole.reshape(self.total * self.count, *values.shape[2:])
        return flat

    def typed(self, values: np.ndarray, kind: pa.DataType) -> pa.Array:
        """Values of a type that has no NaN, (good, count) or (good, count, width), as such or as lists."""
        whole: list[Any] = [None] * (self.total * self.count)
        for place, row in zip(self.place.tolist(), values.tolist(), strict=True):
            whole[place * self.count : (place + 1) * self.count] = row
        return pa.array(whole, kind)

    def codes(self, code: Any) -> pa.Array:
        """A number for one choice, a list for several."""
        several = code.shape[-1] > 1
        return self.typed(
            code.numpy() if several else code[..., 0].numpy(), pa.list_(pa.int64()) if several else pa.int64()
        )

    def neighbours(self, near: Neighbours, corpus: Corpus) -> dict[str, pa.Array]:
        """Keys of the real y's, and their distances."""
        keys: list[Any] = [None] * (self.total * self.count)
        distances: list[Any] = [None] * (self.total * self.count)
        for place, rows, far in zip(self.place.tolist(), near.place.tolist(), near.distance.tolist(), strict=True):
            for h in range(self.count):
                known = [n for n in rows[h] if n >= 0]
                keys[place * self.count + h] = [printed(corpus.samples.keys[int(corpus.places[n])]) for n in known]
                distances[place * self.count + h] = far[h][: len(known)]
        return {
            "neighbours": pa.array(keys, pa.list_(pa.string())),
            "distances": pa.array(distances, pa.list_(pa.float64())),
        }
