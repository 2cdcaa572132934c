"""The verb `predict`: what y could be, for each x, as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.errors import AccordError, DataError, UsageError
from accord.evaluate.drawing import LARGEST, Drawer, train_drawer
from accord.evaluate.features import Stop, read
from accord.evaluate.future_sheet import draw_courses
from accord.evaluate.hypotheses import how_many
from accord.evaluate.hypothesis_pictures import MOST, Corpus, Pictures, corpus_of
from accord.evaluate.hypothesis_sheet import CANDIDATES, Candidate, Row, draw
from accord.model.codebook import Codebook, ConditionalPrior
from accord.output import require_picture, require_writable, table_file
from accord.predict_future import Forecasts
from accord.predict_table import Predicted, columns, predicted
from accord.run import Run, open_run
from accord.storage import replace_file
from accord.terminal import Terminal
from accord.train.signals import stop_on_signals
from accord.verbs import BATCH, Problems, Result, batches, say_notes

SHEET_ROWS = 12
"""Inputs on a sheet: spread evenly over the source."""
MOST_DRAWN = 4096
"""Hypotheses of a z that is a vector, at most: their cost grows with the square."""


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

    Of a run of pasts and futures the rows also hold the values of each hypothesis, and the result says how good they are. There is a
    row for every past then, also where its future is not known yet.

    Raises:
        UsageError: for numbers out of bounds, files that cannot be written, a latent whose z belongs to whole sequences, a picture of
            what has none, or a run whose data is gone.
    """
    _check(output, wanted)
    run = open_run(run_directory)
    count = how_many(run.model.latent, wanted.hypotheses)
    ahead = run.pairing.horizon if isinstance(run.pairing, Future) else 0
    samples = run.open_data(source, column=wanted.column, ahead=ahead).kept()
    _check_fitting(wanted, count, run, samples)
    say_notes(samples, terminal)
    if count < wanted.hypotheses:
        terminal.say(
            f"note: this model has {count:,} prediction{'s' * (count != 1)} of each x, not {wanted.hypotheses:,}"
        )
    with stop_on_signals() as stop, table_file(output, rows=count * len(samples)) as table:
        work = Work(run, wanted, count, samples, lambda: stop.check("predicting"), terminal)
        for index in batches(samples):
            table.write(work.columns(index))
        if wanted.sheet is not None:
            replace_file(wanted.sheet, work.picture())
    where = "" if wanted.sheet is None else f", {wanted.sheet}"
    hypotheses = f"{count:,} {'hypothesis' if count == 1 else 'hypotheses'}"
    bad, corpus = work.problems.count, work.corpus
    terminal.say(f"{hypotheses} of {len(samples):,} inputs, {bad:,} of them bad: {output}{where}")
    return {
        "output": str(output),
        "rows": count * len(samples),
        "inputs": len(samples),
        "bad": bad,
        "hypotheses": count,
        "neighbours": 0 if corpus is None else min(wanted.neighbours, len(corpus.places)),
        "corpus": None if corpus is None else corpus.samples.name,
        "sheet": None if wanted.sheet is None else str(wanted.sheet),
        **({} if work.forecasts is None else {"futures": work.forecasts.figures(terminal)}),
    }


class Work:
    """What is predicted batch by batch: `columns` of the table, and at the end the `picture` of some inputs."""

    def __init__(self, run: Run, wanted: Wanted, count: int, samples: Samples, stop: Stop, terminal: Terminal):
        self.run, self.wanted, self.count, self.samples, self.stop = run, wanted, count, samples, stop
        self.problems, self.rows = Problems(samples), list[Row]()
        self.shown = set[int]() if wanted.sheet is None else evenly(len(samples))
        future, listed = isinstance(run.pairing, Future), wanted.neighbours > 0
        trained = training_part(run) if future or (listed and wanted.corpus is None) else None
        self.corpus = open_corpus(run, wanted, trained, stop, terminal) if listed else None
        self.forecasts: Forecasts | None = None
        if future and trained is not None:
            self.forecasts = Forecasts(run, samples, trained, self.shown, stop)
        self.drawer = train_on(run, self.corpus, stop) if wanted.draw and self.corpus is not None else None

    def columns(self, index: np.ndarray) -> dict[str, Any]:
        """Those of some inputs."""
        self.stop()
        found = predicted(self.run, self.problems, index, self.count, self.corpus, self.wanted.neighbours)
        named = columns(self.run, self.problems, index, found, self.corpus, self.count)
        if self.forecasts is not None:
            return named | self.forecasts.columns(index, found)
        if self.corpus is not None and self.shown:
            pictures = Pictures(self.run.pairing, self.samples, self.corpus.samples)
            self.rows += sheet_rows(pictures, found, self.corpus, self.shown, self.drawer)
        return named

    def picture(self) -> bytes:
        """Of the inputs that are shown, as PNG."""
        if self.forecasts is not None:
            return draw_courses(self.forecasts.courses, self.samples.features, len(self.samples))
        return draw(self.rows, self.count)


def _check(output: Path, wanted: Wanted) -> None:
    """Refuses what could not be done at the end, before anything is computed."""
    for option, value, least in (("--hypotheses", wanted.hypotheses, 1), ("--neighbours", wanted.neighbours, 0)):
        if value < least:
            raise UsageError(
                f"{option} {value}: expected a number of {least} or more", where=option, help="8, say", code="E236"
            )
    require_writable(output, vectors=False)
    if wanted.sheet is not None:
        require_picture(wanted.sheet)
    elif wanted.draw:
        raise UsageError("there is nothing to draw on", where="--draw", help="add --sheet FILE.png", code="E236")


def _check_fitting(wanted: Wanted, count: int, run: Run, samples: Samples) -> None:
    """Refuses what this run cannot do, before anything is computed."""
    latent, future = run.model.latent, isinstance(run.pairing, Future)
    drawn = latent.candidates() is None and not isinstance(latent, Codebook | ConditionalPrior)
    if drawn and count > MOST_DRAWN:
        raise UsageError(
            f"--hypotheses {count:,}: at most {MOST_DRAWN:,} where z is a vector, they are draws that are told apart one by one",
            where="--hypotheses",
            help="8, say",
            code="E236",
        )
    if wanted.sheet is None:
        return
    if wanted.draw and future:
        raise UsageError(
            "futures are read out as values, not drawn", where="--draw", help="leave out --draw", code="E237"
        )
    if not future and any(side.kind != "image" for side in samples.sides or (samples,)):
        raise UsageError(
            "only images, and pasts with their futures, have pictures",
            where=str(wanted.sheet),
            help="leave out --sheet",
            code="E237",
        )
    if not future and wanted.neighbours == 0:
        raise UsageError(
            "a picture needs real y's", where="--neighbours", help="leave out --neighbours 0 or --sheet", code="E236"
        )


def evenly(n: int) -> set[int]:
    """Places of the inputs that are drawn."""
    return set(np.linspace(0, n - 1, min(n, SHEET_ROWS)).round().astype(int).tolist())


def training_part(run: Run) -> tuple[Samples, np.ndarray]:
    """The samples of the run, and which of them it was trained on.

    Raises:
        UsageError: if they cannot be read any more.
    """
    try:
        samples, index, _ = run.training_data()
    except AccordError as error:
        help = "name the y's to look among with --corpus SOURCE, or go without by --neighbours 0"
        if isinstance(run.pairing, Future):
            help = "values of futures are read out by them: run from the folder where it was trained, or put them back"
        raise UsageError(
            f"the data of the run cannot be read again: {error.message}", where=error.where, help=help, code="E238"
        ) from None
    return samples, index


def open_corpus(
    run: Run, wanted: Wanted, trained: tuple[Samples, np.ndarray] | None, stop: Stop, terminal: Terminal
) -> Corpus:
    """The y's to look among: of the source that is named, or of the samples the run was trained on."""
    if wanted.corpus is not None or trained is None:
        samples = run.open_data(wanted.corpus or run.recipe.data.source, column=wanted.column)
        index = np.arange(len(samples))
    else:
        samples, index = trained
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
        for h, near in enumerate(found.near.place[row, :CANDIDATES].tolist()):
            known = [int(corpus.places[n]) for n in near[:1] if n >= 0]
            picture = pictures.candidate(i, known[0]) if known else None
            if drawer is not None:
                picture = pictures.drawn(i, drawer(found.hypotheses.s_y_hat[row, h : h + 1]))
            nearest = int(found.truth.nearest[row]) == h
            candidates.append(Candidate(picture, float(found.hypotheses.probability[row, h]), nearest))
        rows.append(Row(pictures.given(i), pictures.truth(i), candidates))
    return rows
