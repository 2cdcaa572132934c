"""The verb `search`: what of a corpus goes best with each query, as a table and as a picture."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from accord.data.samples import Samples
from accord.errors import DataError, UsageError
from accord.evaluate.calibrate import Calibration, load_calibration, model_hash
from accord.evaluate.evaluation import MOST_PAIRS, most_pairs
from accord.evaluate.features import OneSide, embed_side
from accord.evaluate.near_index import NearIndex, recall, suits, worth_it
from accord.evaluate.search import SIDES, Exact, Found, Searcher, Side
from accord.output import require_writable, table_file
from accord.run import Run, open_run
from accord.terminal import Terminal
from accord.train.signals import Stop, stop_on_signals
from accord.verbs import Problems, Result, batches, say_notes

SHOWN = 3
"""Queries whose answers are printed, and answers of each."""
WORDS = 40
"""Letters of a text that are printed."""
LIMIT = 16
"""Where z has to be searched for: so many times the pairs of an evaluation, which take minutes, are the most."""


Index = Literal["auto", "exact", "faiss"]
INDICES: tuple[Index, ...] = ("auto", "exact", "faiss")
COMPARED = 32
"""An index of neighbours is compared with an exact search on so many queries."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    k: answers to each query. side: whether queries are x or y. index: how to search, exactly or by an index of neighbours; auto takes one
    where it pays. output: a Parquet file, or None. column: the image column of tables.
    """

    k: int = 10
    side: Side = "x"
    index: Index = "auto"
    output: Path | None = None
    column: str | None = None


@dataclass(frozen=True, eq=False)
class Corpus:
    """What is looked through: the good items of a source, their places in it and their embeddings."""

    samples: Samples
    places: np.ndarray
    embedded: OneSide

    def keys(self, place: np.ndarray) -> list[str]:
        """Names of items, as a table holds them: bytes that are no UTF-8 are escaped."""
        return [self.samples.keys[i].encode(errors="backslashreplace").decode() for i in self.places[place].tolist()]


def search(run_directory: Path, queries: str, corpus: str, wanted: Wanted, *, terminal: Terminal) -> Result:
    """Ranks a corpus for each query, lowest energy first; a bad query keeps one row, with its reason and without numbers.

    Raises:
        UsageError: for numbers out of bounds, a file that cannot be written, a latent whose z belongs to whole sequences, or more pairs
            than z can be searched for.
        DataError: if nothing in the corpus can be used.
    """
    _check(wanted)
    run = open_run(run_directory)
    calibration = _calibration(run, terminal)
    other: Side = "y" if wanted.side == "x" else "x"
    asked = run.open_data(queries, column=wanted.column, side=wanted.side).kept()
    known = run.open_data(corpus, column=wanted.column, side=other).kept()
    say_notes(asked, terminal)
    say_notes(known, terminal)
    _limit(run, len(asked), len(known), terminal)
    problems, rows, first = Problems(asked), 0, list[dict[str, Any]]()
    with stop_on_signals() as stop, ExitStack() as files:
        held = open_corpus(run, known, other, stop, terminal)
        _tell_overlap(calibration, asked, held, terminal)
        searcher = searcher_of(run, held, wanted, len(asked), stop)
        how: dict[str, Any] = {"index": "exact"}
        table = None
        if wanted.output is not None:
            table = files.enter_context(table_file(wanted.output, rows=wanted.k * len(asked)))
        for index in batches(asked):
            batch = answers(run, problems, index, searcher, wanted, stop)
            if index[0] == 0 and isinstance(searcher, NearIndex):
                how = {"index": "faiss", "recall": recall_of(run, batch, wanted, held, stop, terminal)}
            found = table_of(problems, batch, held, calibration)
            rows += found.num_rows
            first += first_answers(found, SHOWN - len(first))
            if table is not None:
                table.write(dict(zip(found.column_names, found.columns, strict=True)))
    show(first, terminal)
    where = "" if wanted.output is None else f": {wanted.output}"
    terminal.say(f"{len(asked):,} queries, {problems.count:,} of them bad, in {len(held.places):,} items{where}")
    return {
        "output": None if wanted.output is None else str(wanted.output),
        "rows": rows,
        "queries": len(asked),
        "bad": problems.count,
        "corpus": len(held.places),
        "corpus_bad": len(known) - len(held.places),
        "side": wanted.side,
        **how,
        "first": first,
    }


def _check(wanted: Wanted) -> None:
    """Refuses what could not be done at the end, before anything is computed."""
    if wanted.k < 1:
        raise UsageError(f"-k {wanted.k}: expected a number of 1 or more", where="-k", help="10, say", code="E236")
    if wanted.side not in SIDES:
        raise UsageError(f"unknown side {wanted.side!r}", where="--side", help="x or y", code="E223")
    if wanted.index not in INDICES:
        raise UsageError(
            f"unknown index {wanted.index!r}", where="--index", help=f"one of {', '.join(INDICES)}", code="E223"
        )
    if wanted.output is not None:
        require_writable(wanted.output, vectors=False)


def _calibration(run: Run, terminal: Terminal) -> Calibration | None:
    """That of the run, None if it has none; one that is damaged or of another model is refused."""
    path = run.path / "calibration.json"
    if path.exists():
        if run.calibrated_on is not None:
            terminal.say(f"note: {run.calibrated_on}")
        return load_calibration(path, model=model_hash(run.model), preprocess=run.preprocess_hash())
    terminal.say(f"note: this run is not calibrated, so there are no p-values; accord evaluate {run.path} does it")
    return None


def _tell_overlap(calibration: Calibration | None, asked: Samples, held: Corpus, terminal: Terminal) -> None:
    if calibration is None:
        return
    seen = (
        calibration.overlap(asked.content[asked.ok]).sum()
        + calibration.overlap(held.samples.content[held.places]).sum()
    )
    if seen:
        terminal.say(
            f"warning: {int(seen):,} items were used in training or calibration: p-values of pairs with them mean little"
        )


def _limit(run: Run, queries: int, corpus: int, terminal: Terminal) -> None:
    """Refuses more pairs than z can be searched for, and warns of many."""
    most, pairs = most_pairs(run.model.minimizer, run.model.cost), queries * corpus
    if most == MOST_PAIRS:
        return
    kind = type(run.model.minimizer).__name__
    if pairs > LIMIT * most**2:
        raise UsageError(
            f"{queries:,} queries x {corpus:,} items are {pairs:,} pairs, of each of which {kind} has to search for z: at most "
            f"{LIMIT * most**2:,} are done",
            where="QUERIES and CORPUS",
            help="search in parts, or train with a z of codes (latent.name=codebook), which is fast",
            code="E243",
        )
    if pairs > most**2 // 4:
        terminal.say(f"warning: {kind} has to search for z in each of {pairs:,} pairs: this may take minutes")


def open_corpus(run: Run, samples: Samples, side: Side, stop: Stop, terminal: Terminal) -> Corpus:
    """The embeddings of all good items.

    Raises:
        DataError: if there is none.
    """
    problems, places, parts = Problems(samples), [], []
    for index in batches(samples):
        good, part = _embedded(run, problems, index, side, stop)
        places.append(good)
        parts.append(part)
    found = np.concatenate(places)
    if not len(found):
        raise DataError(
            "there is nothing to look among", where=samples.name, help="accord check names what is wrong", code="E373"
        )
    if problems.count:
        terminal.say(f"note: {problems.count:,} bad items of {samples.name} are not among what is found")
    action = None if parts[0].action is None else torch.cat([part.action for part in parts if part.action is not None])
    return Corpus(samples, found, OneSide(torch.cat([part.embedding for part in parts]), action))


def _embedded(run: Run, problems: Problems, index: np.ndarray, side: Side, stop: Stop) -> tuple[np.ndarray, OneSide]:
    """Those of `index` that are good, and their embeddings; what has no finite one is refused."""
    stop.check("searching")
    good = problems.readable(index)
    found = embed_side(run.model, problems.first, good, run.pairing, side, stop=lambda: stop.check("searching"))
    fine = found.embedding.isfinite().all(1)
    problems.refuse(good[~fine.numpy()], "the embedding is not finite")
    return good[fine.numpy()], found.part(fine)


@dataclass(frozen=True, eq=False)
class Batch:
    """The queries `index`, those of them that are good, their embeddings, and what was found of these."""

    index: np.ndarray
    good: np.ndarray
    embedded: OneSide
    found: Found


def answers(run: Run, problems: Problems, index: np.ndarray, searcher: Searcher, wanted: Wanted, stop: Stop) -> Batch:
    """What is found for some queries; one without a single finite energy is refused."""
    good, embedded = _embedded(run, problems, index, wanted.side, stop)
    found = searcher(embedded, wanted.k)
    some = (found.place >= 0).any(1)
    problems.refuse(good[~some.numpy()], "no energy is finite")
    return Batch(index, good[some.numpy()], embedded.part(some), Found(found.place[some], found.energy[some]))


def searcher_of(run: Run, held: Corpus, wanted: Wanted, queries: int, stop: Stop) -> Searcher:
    """What looks through the corpus: an index of neighbours if it is asked for, or where one pays, suits the model and is installed."""
    check = partial(stop.check, "searching")
    pays = worth_it(len(held.places), queries) and suits(run.model) is None and find_spec("faiss") is not None
    if wanted.index == "faiss" or (wanted.index == "auto" and pays):
        return NearIndex(run.model, held.embedded, wanted.side, stop=check)
    return Exact(run.model, held.embedded, wanted.side, stop=check)


def recall_of(run: Run, batch: Batch, wanted: Wanted, held: Corpus, stop: Stop, terminal: Terminal) -> float:
    """Share of the answers of an exact search that an index has found, for some of the first queries; told to the reader."""
    some = slice(0, COMPARED)
    exact = Exact(run.model, held.embedded, wanted.side, stop=partial(stop.check, "searching"))
    share = recall(Found(*(part[some] for part in batch.found)), exact(batch.embedded.part(some), wanted.k))
    count = len(batch.found.place[some])
    terminal.say(
        f"note: an index of neighbours is used; of {count} queries it finds {100 * share:.1f} % of what an exact search finds "
        "(--index exact)"
    )
    return share


def table_of(problems: Problems, batch: Batch, held: Corpus, calibration: Calibration | None) -> pa.Table:
    """One row for each answer of a good query, best first, and one for each bad query."""
    there = batch.found.place.numpy() >= 0
    where, lines = np.searchsorted(batch.index, batch.good), np.ones(len(batch.index), np.int64)
    lines[where] = there.sum(1)
    is_answer = np.repeat(np.isin(batch.index, batch.good), lines)
    queries = pa.array(np.repeat(np.arange(len(batch.index)), lines))

    def answer(values: np.ndarray) -> np.ndarray:
        whole = np.full(len(is_answer), np.nan)
        whole[is_answer] = values
        return whole

    energy = answer(batch.found.energy.numpy()[there])
    place = batch.found.place.numpy()[there]
    match = np.full((2, len(is_answer)), None, object)
    match[0, is_answer] = held.keys(place)
    asked = problems.first
    texts = {}
    if asked.kind == "text":
        words = np.full(len(batch.index), None, object)
        words[where] = texts_of(asked, batch.good)
        texts["text"] = pa.array(words, pa.string()).take(queries)
    if held.samples.kind == "text":
        match[1, is_answer] = texts_of(held.samples, held.places[place])
        texts["match_text"] = pa.array(match[1], pa.string())
    p = np.full(len(energy), np.nan) if calibration is None else calibration.p_values(energy)
    return pa.table(
        {
            **{name: pa.array(values).take(queries) for name, values in problems.columns(batch.index).items()},
            "rank": pa.array(answer(there.cumsum(1)[there]), from_pandas=True).cast(pa.int64()),
            "match": pa.array(match[0], pa.string()),
            "energy": pa.array(energy, from_pandas=True),
            "p_value": pa.array(p, from_pandas=True),
            **texts,
        }
    )


def texts_of(samples: Samples, index: np.ndarray) -> list[str]:
    """Texts as the model reads them: cut where it stops reading."""
    rows = samples.batch(index)
    assert isinstance(rows, torch.Tensor)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows.numpy()]


def first_answers(found: pa.Table, most: int) -> list[dict[str, Any]]:
    """All answers to the first good queries."""
    queries: list[dict[str, Any]] = []
    for row in found.to_pylist() if most > 0 else []:
        if row["rank"] == 1:
            if len(queries) == most:
                break
            queries.append({**{name: row[name] for name in ("key", "text") if name in row}, "matches": []})
        if row["rank"] is not None:
            names = ("rank", "match", "match_text", "energy", "p_value")
            queries[-1]["matches"].append({name: row[name] for name in names if name in row})
    return queries


def show(first: list[dict[str, Any]], terminal: Terminal) -> None:
    """A table for the reader."""
    rows = []
    for query in first:
        for one in query["matches"][:SHOWN]:
            p = "-" if one["p_value"] is None else f"{one['p_value']:.3f}"
            asked, answer = (
                _with_text(*names)
                for names in ((query["key"], query.get("text")), (one["match"], one.get("match_text")))
            )
            rows.append([asked, str(one["rank"]), answer, f"{one['energy']:.4g}", p])
    if rows:
        terminal.table("best answers to the first queries", ["query", "rank", "answer", "energy", "p"], rows)


def _with_text(key: str, text: str | None) -> str:
    """A key, and the beginning of the text that it names."""
    if text is None:
        return key
    line = " ".join(text.split())
    return f"{key} {line[:WORDS]}{'…' if len(line) > WORDS else ''}"
