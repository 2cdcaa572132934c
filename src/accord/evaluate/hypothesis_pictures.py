"""Hypotheses that can be looked at: what is given, the truth, and the real y's nearest to each prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from accord.data.pairing import Originals, Pairing
from accord.data.pairing_masked import MaskedBlocks
from accord.data.pairing_parts import Halves
from accord.data.samples import Samples
from accord.evaluate.embedding_map import queries_for
from accord.evaluate.features import Stop, embed_plain, extract, never
from accord.evaluate.hypotheses import hypotheses, neighbours, truth
from accord.evaluate.pictures import HIDDEN, Sheet
from accord.evaluate.work import Work
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic

MOST = 10_000
"""Real y's that hypotheses are compared with in an evaluation, at most: a random choice of the training samples."""
SHOWN, HYPOTHESES, NEIGHBOURS = 6, 8, 3


class Corpus(NamedTuple):
    """Real y's: where they are, which ones, and their embeddings (m, dim)."""

    samples: Samples
    places: np.ndarray
    s_y: Tensor

    @property
    def content(self) -> np.ndarray:
        """What identifies the content of each."""
        content: np.ndarray = self.samples.content[self.places]
        return content


def corpus_of(
    model: JointEmbedding, samples: Samples, index: np.ndarray, pairing: Pairing, *, stop: Stop = never
) -> Corpus:
    """The y's of some samples; those whose embedding is not finite are left out."""
    s_y = extract(model.encoder_y, samples, index, pairing, side="y", stop=stop, finite=False).embeddings
    known = s_y.isfinite().all(1)
    return Corpus(samples, index[known.numpy()], s_y[known])


def whole(pairing: Pairing, x: Tensor, y: Tensor) -> Float[Tensor, "batch channel height width"]:
    """Pictures of y in their place: the two halves put together, the block where it was cut out; elsewhere y itself."""
    if isinstance(pairing, Halves):
        parts = [x, y] if pairing.split in ("left_right", "top_bottom") else [y, x]
        return torch.cat(parts, dim=-1 if pairing.split in ("left_right", "right_left") else -2)
    if isinstance(pairing, MaskedBlocks) and x.shape[1] == y.shape[1] + 1:
        hidden = x[:1, -1] > 0.5
        top, left = (int(place.min()) for place in hidden[0].nonzero().T)
        pictures = x[:, :-1].clone()
        pictures[:, :, top : top + y.shape[-2], left : left + y.shape[-1]] = y
        return pictures
    return y


def given(pairing: Pairing, x: Tensor, y: Tensor) -> Float[Tensor, "batch channel height width"]:
    """Pictures of x; where y is the other half it is grey."""
    return whole(pairing, x, torch.full_like(y, HIDDEN)) if isinstance(pairing, Halves) else x


class Pictures:
    """Draws x, the truth and candidates of y as they belong together.

    Args:
        pairing: that of the run.
        samples: whose x are given.
        corpus: whose y are the candidates.
    """

    def __init__(self, pairing: Pairing, samples: Samples, corpus: Samples):
        self.pairing, self.samples, self.corpus = pairing, samples, corpus

    def given(self, i: int) -> Tensor:
        """What is known of sample i, (1, channel, height, width)."""
        return given(self.pairing, *self._pair(i, self.samples, i))

    def truth(self, i: int) -> Tensor:
        """Sample i with its own y."""
        return whole(self.pairing, *self._pair(i, self.samples, i))

    def candidate(self, i: int, j: int) -> Tensor:
        """Sample i with the y of item j of the corpus."""
        return whole(self.pairing, *self._pair(i, self.corpus, j))

    def drawn(self, i: int, y: Tensor) -> Tensor:
        """Sample i with a picture of y, (1, channel, height, width)."""
        return whole(self.pairing, self._pair(i, self.samples, i)[0], y)

    def _pair(self, i: int, others: Samples, j: int) -> tuple[Tensor, Tensor]:
        pair = self.pairing.join(_original(self.samples, i), _original(others, j))
        y = pair.y[0] if pair.y.ndim > 4 else pair.y  # the first of several targets
        return pair.x, y


def _original(samples: Samples, i: int) -> Originals:
    place = np.array([i], np.int64)
    return Originals(samples.batch(place), torch.from_numpy(samples.aspect[place]))


def examples(work: Work, sheet: Sheet | None) -> list[dict[str, object]] | None:
    """Some held-out samples with the hypotheses of their x, as evaluation.json shows them; None for a deterministic model.

    The real y's are those of the training samples.
    """
    if isinstance(work.model.latent, Deterministic) or work.model.latent.coupled:
        return None
    samples, index = work.part.samples, _shown(work)
    s_x, s_y, action = embed_plain(work.model, samples, index, work.pairing, stop=work.stop)
    found = hypotheses(work.model, s_x, HYPOTHESES, action, seed=work.seed)
    told = truth(work.model, found, s_x, s_y, action)
    corpus = corpus_of(work.model, work.train.samples, _some(work), work.pairing, stop=work.stop)
    near = neighbours(
        work.model, found.s_y_hat, corpus.s_y, NEIGHBOURS, contents=(samples.content[index], corpus.content)
    )
    pictures, listed = Pictures(work.pairing, samples, corpus.samples), []
    for row, i in enumerate(index.tolist()):
        predictions = []
        for h in range(found.z.shape[1]):
            place = near.place[row, h]
            places = corpus.places[place[place >= 0].numpy()].tolist()
            predictions.append(
                {
                    "energy": float(found.energy[row, h]),
                    "probability": float(found.probability[row, h]),
                    "usage": None if found.usage is None else float(found.usage[row, h]),
                    "truth_energy": float(told.energy[row, h]),
                    "neighbours": [_add(sheet, pictures.candidate(i, j)) if sheet is not None else -1 for j in places],
                    "keys": [corpus.samples.keys[j] for j in places],
                    "distance": near.distance[row, h, : len(places)].tolist(),
                }
            )
        listed.append(
            {
                "key": samples.keys[i],
                "x": _add(sheet, pictures.given(i)) if sheet is not None else -1,
                "y": _add(sheet, pictures.truth(i)) if sheet is not None else -1,
                "free_energy": float(told.free_energy[row]),
                "nearest": int(told.nearest[row]),
                "predictions": predictions,
            }
        )
    return listed


def _add(sheet: Sheet | None, picture: Tensor) -> int:
    return -1 if sheet is None else sheet.add(picture)[0]


def _shown(work: Work) -> np.ndarray:
    """Samples to show, one of each class as far as it goes."""
    labels, index = work.part.samples.labels, work.part.index
    known = np.full(len(index), -1) if labels is None else labels[index]
    chosen: np.ndarray = index[queries_for(known, len(index), SHOWN, work.seed).numpy()]
    return chosen


def _some(work: Work) -> np.ndarray:
    """The training samples that hypotheses are compared with."""
    index = work.train.index
    if len(index) <= MOST:
        return index
    return np.sort(np.random.default_rng(work.seed).choice(index, MOST, replace=False))
