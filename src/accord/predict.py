"""The verb `predict`: what y could be, for each x, as a table and as a picture."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from accord.errors import AccordError, DataError, UsageError
from accord.evaluate.drawing import LARGEST, Drawer, train_drawer
from accord.evaluate.features import Stop, embed_plain, read
from accord.evaluate.hypotheses import Hypotheses, Neighbours, Truth, how_many, hypotheses, neighbours, truth
from accord.evaluate.hypothesis_pictures import MOST, Corpus, Pictures, corpus_of
from accord.evaluate.hypothesis_sheet import Candidate, Row, draw
from accord.model.codebook import Codebook, ConditionalPrior, codebook_of
from accord.output import require_writable, table_file
from accord.run import Run, open_run
from accord.storage import replace_file
from accord.terminal import Terminal
from accord.train.signals import stop_on_signals
from accord.verbs import BATCH, Problems, Result, batches

SHEET_ROWS = 12
"""Inputs on a sheet: spread evenly over the source."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    hypotheses: K. neighbours: real y's listed for each. corpus: where they are looked for, None for the training part of the run.
    sheet: a PNG file, or None. draw: let a decoder draw the predictions on it. column: the image column of tables.
    """

    hypotheses: int = 8
    neighbours: int = 3
    corpus: str | None = None
    sheet: Path | None = None
    draw: bool = False
    column: str | None = None


def predict(run_directory: Path, source: str, output: Path, wanted: Wanted, *, terminal: Terminal) -> Result:
    """Writes K rows for each input, in order, cheapest hypothesis first; a bad input keeps its rows without numbers.

    Raises:
        UsageError: for numbers out of bounds, files that cannot be written, a latent whose z belongs to whole sequences, a picture of
            what are no images, or a run whose data is gone.
    """
    _check(output, wanted)
    run = open_run(run_directory)
    count = how_many(run.model.latent, wanted.hypotheses)
    samples = run.open_data(source, column=wanted.column).kept()
    if wanted.sheet is not None and any(side.kind != "image" for side in samples.sides or (samples,)):
        raise UsageError("only images have pictures", where=str(wanted.sheet), help="leave out --sheet", code="E237")
    if count < wanted.hypotheses:
        terminal.say(
            f"note: this model has {count:,} prediction{'s' * (count != 1)} of each x, not {wanted.hypotheses:,}"
        )
    problems, shown = Problems(samples), set() if wanted.sheet is None else evenly(len(samples))
    rows: list[Row] = []
    with stop_on_signals() as stop, table_file(output, rows=count * len(samples)) as table:
        corpus = None
        if wanted.neighbours:
            corpus = open_corpus(run, wanted, lambda: stop.check("predicting"), terminal)
        drawer = None
        if wanted.draw and corpus is not None:
            drawer = train_on(run, corpus, lambda: stop.check("learning to draw"))
        for index in batches(samples):
            stop.check("predicting")
            found = predicted(run, problems, index, count, corpus, wanted.neighbours)
            table.write(columns(run, problems, index, found, corpus, count))
            if corpus is not None and shown:
                rows += sheet_rows(Pictures(run.pairing, samples, corpus.samples), found, corpus, shown, drawer)
        if wanted.sheet is not None:
            replace_file(wanted.sheet, draw(rows))
    where = "" if wanted.sheet is None else f", {wanted.sheet}"
    hypotheses = f"{count:,} {'hypothesis' if count == 1 else 'hypotheses'}"
    terminal.say(f"{hypotheses} of {len(samples):,} inputs, {problems.count:,} of them bad: {output}{where}")
    return {
        "output": str(output),
        "rows": count * len(samples),
        "inputs": len(samples),
        "bad": problems.count,
        "hypotheses": count,
        "neighbours": 0 if corpus is None else min(wanted.neighbours, len(corpus.places)),
        "corpus": None if corpus is None else corpus.samples.name,
        "sheet": None if wanted.sheet is None else str(wanted.sheet),
    }


def _check(output: Path, wanted: Wanted) -> None:
    """Refuses what could not be done at the end, before anything is computed."""
    for option, value, least in (("--hypotheses", wanted.hypotheses, 1), ("--neighbours", wanted.neighbours, 0)):
        if value < least:
            raise UsageError(
                f"{option} {value}: expected a number of {least} or more", where=option, help="8, say", code="E236"
            )
    require_writable(output, vectors=False)
    sheet = wanted.sheet
    if wanted.draw and sheet is None:
        raise UsageError("there is nothing to draw on", where="--draw", help="add --sheet FILE.png", code="E236")
    if sheet is None:
        return
    if sheet.suffix.lower() != ".png":
        ending = sheet.suffix or "a file without ending"
        raise UsageError(f"cannot write {ending!r}", where=str(sheet), help="name a .png file", code="E221")
    if not sheet.parent.is_dir() or sheet.is_dir():
        folder = shlex.quote(str(sheet.parent))
        raise UsageError("there is no such folder", where=str(sheet), help=f"mkdir -p {folder}", code="E222")
    if wanted.neighbours == 0:
        raise UsageError(
            "a picture needs real y's", where="--neighbours", help="leave out --neighbours 0 or --sheet", code="E236"
        )


def evenly(n: int) -> set[int]:
    """Places of the inputs that are drawn."""
    return set(np.linspace(0, n - 1, min(n, SHEET_ROWS)).round().astype(int).tolist())


def open_corpus(run: Run, wanted: Wanted, stop: Stop, terminal: Terminal) -> Corpus:
    """The y's to look among: of the source that is named, or of the samples the run was trained on."""
    if wanted.corpus is not None:
        samples = run.open_data(wanted.corpus, column=wanted.column)
        index = np.arange(len(samples))
    else:
        try:
            samples, index, _ = run.training_data()
        except AccordError as error:
            raise UsageError(
                f"the data of the run cannot be read again: {error.message}",
                where=error.where,
                help="name the y's to look among with --corpus SOURCE, or go without by --neighbours 0",
                code="E238",
            ) from None
    samples, asked = samples.kept(), len(index)
    problems, parts = Problems(samples), []
    for start in range(0, asked, BATCH):
        good = problems.readable(index[start : start + BATCH])
        if len(good):
            parts.append(corpus_of(run.model, samples, good, run.pairing, stop=stop))
    if not any(len(part.places) for part in parts):
        raise DataError(
            "there is no y to look among", where=samples.name, help="accord check names what is wrong", code="E373"
        )
    corpus = Corpus(samples, np.concatenate([p.places for p in parts]), torch.cat([p.s_y for p in parts]))
    if len(corpus.places) < asked:
        terminal.say(
            f"note: {asked - len(corpus.places):,} bad items of {samples.name} are not among the y's to look among"
        )
    return corpus


@dataclass(frozen=True)
class Predicted:
    """What was found of the good inputs `index` of a batch."""

    index: np.ndarray
    hypotheses: Hypotheses
    truth: Truth
    near: Neighbours | None


def predicted(
    run: Run, problems: Problems, index: np.ndarray, count: int, corpus: Corpus | None, most: int
) -> Predicted:
    """The hypotheses of a batch; what has no finite embedding is refused."""
    samples, good = problems.first, problems.readable(index)
    s_x, s_y, action = embed_plain(run.model, samples, good, run.pairing)
    fine = s_x.isfinite().all(1) & s_y.isfinite().all(1)
    problems.refuse(good[~fine.numpy()], "the embedding is not finite")
    good, s_x, s_y = good[fine.numpy()], s_x[fine], s_y[fine]
    action = None if action is None else action[fine]
    found = hypotheses(run.model, s_x, count, action, seed=run.recipe.training.seed)
    told = truth(run.model, found, s_x, s_y, action)
    near = None
    if corpus is not None:
        contents = (samples.content[good], corpus.content)
        near = neighbours(run.model, found.s_y_hat, corpus.s_y, most, contents=contents)
    return Predicted(good, found, told, near)


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


def written(key: str) -> str:
    """A key as a table holds it: bytes that are no UTF-8 are escaped."""
    return key.encode(errors="backslashreplace").decode()


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
                keys[place * self.count + h] = [written(corpus.samples.keys[int(corpus.places[n])]) for n in known]
                distances[place * self.count + h] = far[h][: len(known)]
        return {
            "neighbours": pa.array(keys, pa.list_(pa.string())),
            "distances": pa.array(distances, pa.list_(pa.float64())),
        }


def train_on(run: Run, corpus: Corpus, stop: Stop) -> Drawer:
    """A decoder of the y's of a corpus, of at most 10,000 of them.

    Raises:
        UsageError: if they are too large.
    """
    seed = run.recipe.training.seed
    some = np.random.default_rng(seed).permutation(len(corpus.places))[:MOST]
    parts = []
    for rows in read(corpus.samples, corpus.places[some], torch.device("cpu")):
        stop()
        parts.append(run.pairing.plain_y(rows.values, rows.aspect))
        if parts[0][0].numel() > LARGEST:
            raise UsageError(
                f"pictures of {' x '.join(map(str, parts[0].shape[1:]))} are too large to draw",
                where="--draw",
                help="leave out --draw: the nearest real y's are shown instead",
                code="E237",
            )
    return train_drawer(corpus.s_y[torch.from_numpy(some)], torch.cat(parts), seed=seed, stop=stop)


def sheet_rows(
    pictures: Pictures, found: Predicted, corpus: Corpus, shown: set[int], drawer: Drawer | None = None
) -> list[Row]:
    """The inputs of a batch that are drawn."""
    assert found.near is not None
    rows = []
    for row, i in enumerate(found.index.tolist()):
        if i not in shown:
            continue
        candidates = []
        for h, near in enumerate(found.near.place[row].tolist()):
            known = [int(corpus.places[n]) for n in near[:1] if n >= 0]
            picture = pictures.candidate(i, known[0]) if known else None
            if drawer is not None:
                picture = pictures.drawn(i, drawer(found.hypotheses.s_y_hat[row, h : h + 1]))
            nearest = int(found.truth.nearest[row]) == h
            candidates.append(Candidate(picture, float(found.hypotheses.probability[row, h]), nearest))
        rows.append(Row(pictures.given(i), pictures.truth(i), candidates))
    return rows
