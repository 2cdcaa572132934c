"""What the verbs of the command line do, in the order a user meets them."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from accord.about_data import Sides, columns_in_words, described, say_data
from accord.data.samples import BadItems, Samples
from accord.data.series_sources import SeriesOptions
from accord.data.sources import check_source
from accord.data.synthetic import kind_of
from accord.diagnostics import Verdict
from accord.errors import Collapsed, DataError, UsageError
from accord.evaluate.calibrate import Groups, calibrate, model_hash, save_calibration
from accord.evaluate.collapse import verdict_of
from accord.evaluate.evaluation import evaluate as measure
from accord.evaluate.features import extract
from accord.output import require_writable, table_file
from accord.report.page import write_report
from accord.report.surprise import proportional
from accord.resolve import read_settings, resolve
from accord.run import Run, new_objective, open_run, train_in
from accord.storage import try_writing
from accord.terminal import Terminal, TrainingProgress
from accord.train.distributed import joined, one_voice
from accord.train.run_directory import RunDirectory
from accord.train.signals import stop_on_signals

Result = dict[str, Any]
"""What ``--json`` prints."""
BATCH = 1024
LAYERS = ("features", "embedding")
PROBED = {"pixels": "raw input", "pca": "PCA of the input", "untrained": "the same encoder, untrained"}
"""What is probed beside the features, in words."""
SIDES: dict[str, Literal["x", "y"]] = {"x": "x", "y": "y"}


def demo(out: Path, terminal: Terminal) -> Result:
    """Trains on the built-in digits, evaluates, writes the report."""
    train("digits", recipe="digits", settings=[], out=out, terminal=terminal)
    found = evaluate(out, terminal=terminal)
    terminal.say("")
    terminal.say(
        f"Now open {out / 'report.html'} in a browser. Look first at the bars: ten labels per class go much further on"
    )
    terminal.say(
        "the learned features than on the raw input. Then at the energies: pairs that belong together lie left of the others."
    )
    return found


def train(
    source: str,
    *,
    recipe: str | None,
    settings: list[str],
    out: Path | None,
    budget: str | None = None,
    epochs: float | None = None,
    resume: bool = False,
    sides: Sides = Sides(),  # noqa: B008  (it cannot be changed)
    column: str | None = None,
    label: str | None = None,
    terminal: Terminal,
) -> Result:
    """Trains an energy and writes a run directory; of several processes the first one writes and speaks."""
    with joined() as ranks, one_voice(ranks):
        terminal.silent = not ranks.first
        out = Path(ranks.of_first(str(out or free_name(Path("runs"), source))))
        flags = {
            "data": {"column": column, "label": label, **sides.settings()},
            "training": {"budget": budget, "epochs": epochs},
        }
        return _train(source, recipe, settings, out, flags, resume, terminal)


def _train(
    source: str,
    recipe: str | None,
    settings: list[str],
    out: Path,
    flags: dict[str, dict[str, Any]],
    resume: bool,
    terminal: Terminal,
) -> Result:
    given, preset = read_settings(recipe, settings, flags, run=out if resume else None)
    with stop_on_signals() as stop, RunDirectory(out, resume=resume) as directory:
        resolved, samples = resolve(source, given, preset)
        say_data(samples, resolved, terminal)
        progress = TrainingProgress(terminal)
        done = train_in(
            directory, resolved, samples, stop=stop, progress=progress, command=shlex.join(["accord", *sys.argv[1:]])
        )
    terminal.say(f"{done.steps:,} steps in {done.seconds:,.0f} s: {out}")
    terminal.say(f"next: accord evaluate {shlex.quote(str(out))}")
    return {"run": str(out), "steps": done.steps, "seconds": done.seconds}


def free_name(folder: Path, source: str) -> Path:
    """A run directory that is not there yet, named after the source."""
    stem = kind_of(source) or Path(source.rstrip("/")).stem.strip("*") or "run"
    candidates = (folder / (stem if number == 1 else f"{stem}-{number}") for number in itertools.count(1))
    return next(path for path in candidates if not path.exists())


def check(
    source: str, *, strict: bool, sides: Sides, column: str | None, label: str | None, terminal: Terminal
) -> Result:
    """Names every bad item of a source.

    Raises:
        DataError: if there is any, after all have been named.
    """
    said = sides.settings()
    x, y = (said[name]["columns"] if name in said else None for name in ("x", "y"))
    steps = SeriesOptions(time=said.get("time"), group=tuple(said["group"]) if "group" in said else None)
    samples = check_source(
        source, strict=strict, x=x, y=y, kinds=said.get("kinds"), column=column, label=label, series=steps
    )
    say_notes(samples, terminal)
    for item in samples.bad:
        terminal.say(f"{item.key}: {item.reason} [{item.code}]; {item.help}")
    skipped = samples.skipped
    for name, side in zip("xy", samples.sides or (), strict=bool(samples.sides)):
        terminal.say(f"{name}: {columns_in_words(side)}: {described(side)}")
    what = "pairs" if samples.sides else f"{samples.kind} data of shape {tuple(samples.shape)}"
    terminal.say(f"{len(samples):,} items, {skipped:,} bad, {what}")
    bad = [item._asdict() for item in samples.bad]
    return {"source": source, "items": len(samples), "bad": skipped, "bad_items": bad, "notes": samples.notes}


def evaluate(
    run_directory: Path,
    *,
    data: str | None = None,
    source: str | None = None,
    column: str | None = None,
    label: str | None = None,
    group: str | None = None,
    terminal: Terminal,
) -> Result:
    """Measures a run, calibrates its energy (of each group by itself, too, where a column says them) and writes the report."""
    run = open_run(run_directory)
    try_writing(run_directory)
    samples, train_index, held_out_index = run.training_data(source)
    groups = None if group is None else groups_of(run, source, group, held_out_index)
    if run.differs(samples):
        terminal.say(f"warning: {samples.name} has changed since this run was trained on it; parts are told by content")
    test = None if data is None else run.open_data(data, column=column, label=label)
    with stop_on_signals() as stop:
        found = measure(
            run.model,
            samples,
            run.pairing,
            train_index=train_index,
            held_out_index=held_out_index,
            test=test,
            seed=run.recipe.training.seed,
            origin=run.origin(),
            untrained=new_objective(run.recipe, samples, train_index, run.pairing).model.encoder_x,
            commands=run.commands(data),
            out=run_directory,
            stop=lambda: stop.check("evaluating"),
            said=terminal.progress,
        )
        collapse = verdict_of(found["collapse"])  # type: ignore[arg-type]
        energies = run.energies(samples, held_out_index, stop=lambda: stop.check("calibrating"))
        used = np.concatenate([train_index, held_out_index])
        calibrate_run(run, samples, used, energies, collapse, terminal, groups=groups)
    page = write_report(run_directory)
    show_evaluation(found, terminal)
    terminal.say(f"report: {page}")
    return {"run": str(run_directory), "report": str(page), **found}


def calibrate_run(
    run: Run,
    samples: Samples,
    used: np.ndarray,
    energies: np.ndarray,
    collapse: Verdict | None,
    terminal: Terminal,
    *,
    groups: Groups | None = None,
) -> None:
    """Writes calibration.json from the held-out pairs; a run that cannot be calibrated says why and goes without."""
    path = run.path / "calibration.json"
    try:
        calibration = calibrate(
            energies,
            content=np.concatenate([part.content[used] for part in (samples, *(samples.sides or ()))]),
            model=model_hash(run.model),
            preprocess=run.preprocess_hash(),
            collapse=collapse,
            groups=groups,
            where=samples.name,
        )
    except (DataError, Collapsed) as error:
        path.unlink(missing_ok=True)
        remedy = (
            "" if isinstance(error, Collapsed) else f"; {error.help}"
        )  # a warning says what helps against a collapse
        terminal.say(f"not calibrated: {error.message}{remedy}")
        return
    save_calibration(calibration, path)
    if samples.windows is not None and samples.windows.several:
        terminal.say(
            "note: windows overlap, and times change: rates of false alarms hold only as far as the future is like the past"
        )
    if groups is not None:
        pairs = np.bincount(groups.of[groups.of >= 0], minlength=len(groups.names))
        low, high = int(pairs[pairs > 0].min(initial=len(energies))), int(pairs.max(initial=0))
        known = f"{int((pairs > 0).sum()):,} groups of {groups.column}, of {low:,} to {high:,} pairs"
        terminal.say(f"calibrated by {known}; a group of n pairs supports rates down to 1 / (n + 1)")


def groups_of(run: Run, source: str | None, column: str, index: np.ndarray) -> Groups:
    """The groups of some items of the data that the run was trained on."""
    data = run.recipe.data
    return run.groups(source or data.source, column, images=data.column).part(index)


def show_evaluation(found: Mapping[str, Any], terminal: Terminal) -> None:
    """The figures of an evaluation as tables."""
    probes = found["probes"]
    if probes:
        rows = [
            [PROBED.get(name, name), percent(row["linear"]), percent(row["knn"]), few(row["few_label"])]
            for name, row in probes.items()
            if isinstance(row, dict)
        ]
        terminal.table("probes on held-out samples", ["", "linear", "k-NN", "10 labels per class"], rows)
    ladder = (found["energy"] or {}).get("ladder", {})
    rows = [[name, f"{r['auroc']:.3f}", f"{r['d_prime']:.2f}", f"{r['gap']:.4g}"] for name, r in ladder.items()]
    if rows:
        terminal.table("energy of matched against mismatched pairs", ["y is", "AUROC", "d'", "gap"], rows)
    if found.get("futures"):
        show_futures(found["futures"], terminal)
    retrieval, health = found["retrieval"], found["collapse"]
    terminal.say("")
    if retrieval:
        first = percent(retrieval["recall@1"])
        terminal.say(f"the y that belongs to x is found first among {retrieval['candidates']:,}: {first}")
    terminal.say(f"effective rank of the embeddings: {health['rankme']:.1f} of {health['dim']}")
    for warning in found["warnings"]:
        terminal.say(f"warning: {warning}")


def show_futures(found: Mapping[str, Any], terminal: Terminal) -> None:
    """The figures of futures as a table; a note where nothing holds its truth."""
    if not found["rows"]:
        terminal.say("note: no future is known yet, so nothing says how good these are")
        return
    k = found["hypotheses"]["k"]
    named = {
        "hypotheses": f"best of {k:,}" if k > 1 else "the prediction",
        "mean": "their mean",
        "last_value": "last value, repeated",
    }
    if k == 1:
        del named["mean"]
    _futures_table(f"futures of {found['rows']:,} windows, in the units of the data", found, named, terminal)
    scaled = found["standardized"]
    if scaled["rows"] and not proportional(scaled["std"].values()):
        _futures_table(
            "the same with each channel in standard deviations of its training futures", scaled, named, terminal
        )
        constant = [name for name, value in scaled["std"].items() if value is None]
        if constant:
            words = ", ".join(constant) if len(constant) <= 3 else f"{len(constant):,} channels"
            terminal.say(f"the latter without {words}: constant in training")
    terminal.say(f"the readout explains {percent(found['readout_r2'])} of the variance of the futures trained on")


def _futures_table(title: str, found: Mapping[str, Any], named: Mapping[str, str], terminal: Terminal) -> None:
    rows = [
        [words, *(f"{found[name][key]:.4g}" for key in ("min_ade", "min_fde", "crps"))] for name, words in named.items()
    ]
    terminal.table(title, ["", "minADE", "minFDE", "CRPS"], rows)
    if found["hypotheses"]["crps_fair"] is not None:
        k = found["hypotheses"]["k"]
        terminal.say(f"CRPS as of {k:,} independent draws (fair): {found['hypotheses']['crps_fair']:.4g}")


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "-" if value is None else f"{100 * value:.1f} %"


def few(row: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation of the few-label probe."""
    return "-" if row is None else f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f} %"


def embed(
    run_directory: Path, source: str, output: Path, *, layer: str, side: str, column: str | None, terminal: Terminal
) -> Result:
    """Writes one row per input, in order; a bad item keeps its row, with its reason and without numbers."""
    if layer not in LAYERS:
        raise UsageError(f"unknown layer {layer!r}", where="--layer", help="features or embedding", code="E223")
    if side not in SIDES:
        raise UsageError(f"unknown side {side!r}", where="--side", help="x or y", code="E223")
    require_writable(output, vectors=True)
    run = open_run(run_directory)
    samples = run.open_data(source, column=column, side=SIDES[side]).kept()
    say_notes(samples, terminal)
    encoder = run.model.encoder_x if side == "x" else run.model.encoder_y
    problems = Problems(samples)
    with stop_on_signals() as stop, table_file(output, rows=len(samples), vectors="embedding") as table:
        for index in batches(samples):
            stop.check("embedding")
            good = problems.readable(index)
            check = partial(stop.check, "embedding")
            found = extract(encoder, samples, good, run.pairing, side=SIDES[side], stop=check, finite=False)
            values = (found.features if layer == "features" else found.embeddings).numpy()
            problems.refuse(good[~np.isfinite(values).all(1)], "the embedding is not finite")
            table.write({**problems.columns(index), "embedding": problems.spread(index, good, values)})
    terminal.say(f"{len(samples):,} rows, {problems.count:,} of them bad: {output}")
    return {"output": str(output), "rows": len(samples), "bad": problems.count, "layer": layer}


def say_notes(samples: Samples, terminal: Terminal) -> None:
    """What reading a source has found, for the reader."""
    for note in samples.notes:
        terminal.say(f"note: {note}")


def batches(samples: Samples) -> Iterator[np.ndarray]:
    """All indices in order, a batch at a time."""
    for start in range(0, len(samples), BATCH):
        yield np.arange(start, min(start + BATCH, len(samples)))


class Problems:
    """What is wrong with which row of one source, or of two that are read row by row."""

    def __init__(self, *sources: Samples | None):
        self.sources = [source for source in sources if source is not None]
        self.first = self.sources[0]
        self.reasons: dict[int, str] = {}
        for source in self.sources:
            listed = {item.key: item.reason for item in source.bad}
            for i in np.flatnonzero(~source.ok).tolist():
                self.reasons.setdefault(i, listed.get(source.keys[i], "bad item; accord check names the reason"))

    @property
    def count(self) -> int:
        """How many rows are bad."""
        return len(self.reasons)

    def refuse(self, index: np.ndarray, reason: str) -> None:
        """Marks further rows."""
        self.reasons.update((int(i), reason) for i in index)

    def readable(self, index: np.ndarray) -> np.ndarray:
        """Those of `index` that are good, found out by reading them where they are decoded in time."""
        good = np.array([i for i in index.tolist() if i not in self.reasons], np.int64)
        for source in self.sources:
            try:
                source.batch(good)
            except BadItems as error:
                for position, item in zip(error.positions, error.items, strict=True):
                    self.refuse(good[position : position + 1], item.reason)
        return np.array([i for i in good.tolist() if i not in self.reasons], np.int64)

    def columns(self, index: np.ndarray) -> dict[str, Any]:
        """key, status and error of each row."""
        keys = [self.first.keys[i].encode(errors="backslashreplace").decode() for i in index.tolist()]
        errors = [self.reasons.get(i) for i in index.tolist()]
        status = pa.array(["ok" if error is None else "error" for error in errors])
        return {"key": keys, "status": status, "error": pa.array(errors, pa.string())}

    def spread(self, index: np.ndarray, good: np.ndarray, values: np.ndarray) -> np.ndarray:
        """`values` of the good rows in their places among `index`, NaN elsewhere."""
        whole = np.full((len(index), *values.shape[1:]), np.nan, values.dtype)
        whole[np.isin(index, good)] = values
        whole[[i in self.reasons for i in index.tolist()]] = np.nan
        return whole
