"""`accord compare`: which principle suits these data? Everything equal but the principle, each run in a process of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from accord import presets_tuning
from accord.about_data import say_data
from accord.compare.folder import FORMAT, begun, folder_for, opened
from accord.compare.job import FINAL, Job, keep, outcome_of
from accord.compare.plan import (
    FEWEST,
    TRIAL_SEED,
    Amount,
    Wanted,
    check,
    for_trial,
    group_of,
    recipes,
    steps_of,
    with_length,
    with_setting,
)
from accord.compare.process import Perform, in_process
from accord.compare.results import baselines_of, evaluation_of, run_of
from accord.compare.show import show, told
from accord.data.samples import Samples
from accord.errors import Interrupted, UsageError
from accord.recipe import Recipe
from accord.report.compare_numbers import tables
from accord.report.compare_page import PAGE, write_comparison
from accord.report.compare_read import STATE, results_of, shares_of, unlike
from accord.report.compare_words import paragraph
from accord.report.read import View
from accord.storage import write_json
from accord.terminal import Terminal
from accord.train.settings import flat
from accord.train.signals import Stop, stop_on_signals
from accord.verbs import Result

PACE_SHARE = 0.05
"""The pace of each principle is measured for this share of the budget, where steps or passes have to fit into a time."""


def compare(wanted: Wanted, terminal: Terminal, *, perform: Perform = in_process) -> Result:
    """Trains and measures every principle with every seed, and says what the figures support.

    Raises:
        UsageError, DataError: for what is wrong with the wishes or the data, before anything is trained.
        ArtifactError: if the folder holds a comparison with other settings.
        Interrupted: by a signal, after what was being done is saved; the same command goes on.
        EnvironmentFault: disk, rights; nothing that is finished is lost.
    """
    asked, amount = check(wanted)
    found, samples, left_out = recipes(wanted, asked)
    names = tuple(found)
    say_data(samples, found[names[0]], terminal)
    for line in left_out:
        terminal.say(f"note: {line}")
    settings = _settings(wanted, names, found, samples)
    out = folder_for(wanted.out, wanted.source, settings)
    if wanted.reference is None:  # what was begun with stays in front
        names = tuple(dict.fromkeys([*(name for name in begun(out) if name in found), *names]))
        settings = _settings(wanted, names, found, samples)
    with stop_on_signals() as stop, opened(out, settings):
        comparison = Comparison(wanted, names, amount, found, samples, settings, out, terminal, stop, perform)
        comparison.write()
        try:
            comparison.carry_out()
        except Interrupted:
            comparison.write()  # what was begun is told as such
            raise
        state = comparison.write()
    show(state, terminal)
    terminal.say(f"\nall of it, with pictures: {out / PAGE}")
    return {"comparison": str(out), **state}


def _settings(wanted: Wanted, names: tuple[str, ...], found: Mapping[str, Recipe], samples: Samples) -> dict[str, Any]:
    """What a comparison depends on: it goes on only with the same."""
    return {
        "principles": list(names),
        "equal": wanted.equal,
        "budget": wanted.budget.strip(),
        "seeds": wanted.seeds,
        "trials": wanted.trials,
        "test": wanted.data,
        "data_sha256": samples.fingerprint,
        "recipes": {name: recipe.to_dict() for name, recipe in found.items()},
    }


@dataclass
class Comparison:
    """A comparison that is under way in its folder."""

    wanted: Wanted
    names: tuple[str, ...]
    amount: Amount
    recipes: dict[str, Recipe]
    samples: Samples
    settings: dict[str, Any]
    out: Path
    terminal: Terminal
    stop: Stop
    perform: Perform
    chosen: dict[str, presets_tuning.Setting] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    known: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The steps of principles that an earlier command began with stay as they are."""
        self.steps = {name: steps for name, steps in begun(self.out).items() if steps and name in self.recipes}

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        first = self.recipes[self.names[0]].training.seed
        return list(range(first, first + self.wanted.seeds))

    def carry_out(self) -> None:
        """Everything that is not done yet, in an order that spreads what else the machine does over all principles."""
        self._measure_pace()
        self._tune()
        for number, seed in enumerate(self.seeds):
            recipe = with_length(self.recipes[self.names[0]], steps=1, seed=seed)
            self._do("baseline", recipe, self.baseline(seed), f"untrained, seed {seed}", pixels=number == 0)
            for name in self.names:
                recipe = self._with_amount(self._tuned(name), name, seed=seed)
                baseline = str(self.baseline(seed))
                self._do("run", recipe, self.run(name, seed), f"{name}, seed {seed}", baseline=baseline)

    # --- where things are ---

    def run(self, name: str, seed: int) -> Path:
        """The run directory of a principle and a seed."""
        return self.out / "runs" / name / f"seed-{seed}"

    def trial(self, name: str, number: int) -> Path:
        """The run directory of a trial."""
        return self.out / "trials" / name / f"trial-{number}"

    def baseline(self, seed: int) -> Path:
        """Where the figures of the untrained encoder are."""
        return self.out / "baselines" / f"seed-{seed}"

    # --- what is done ---

    def _do(
        self,
        kind: Literal["run", "trial", "baseline", "pace"],
        recipe: Recipe,
        folder: Path,
        title: str,
        *,
        baseline: str | None = None,
        pixels: bool = False,
        limit: float = 0.0,
    ) -> dict[str, Any]:
        """A job, unless it is done already; afterwards the files of the comparison are written again."""
        before = outcome_of(folder)
        removed = kind in ("run", "trial") and before.get("status") == "done" and not folder.is_dir()
        if before.get("status") in FINAL and not removed:
            return before
        self.stop.check("comparing")
        self.terminal.progress(title)
        job = Job(
            kind=kind,
            recipe=recipe.to_dict(),
            out=str(folder),
            held_out=self.recipes[self.names[0]].data.held_out,
            test=None if kind in ("pace", "trial") else self.wanted.data,
            label=self.wanted.label,
            column=self.wanted.column,
            baseline=baseline,
            pixels=pixels,
            limit=limit,
            command=shlex.join(["accord", *sys.argv[1:]]),
        )
        found = self.perform(job, self.stop, lambda text: self.terminal.progress(f"{title}: {text}"))
        if found["status"] not in FINAL:  # its process died: that is told, and the next command tries again
            keep(folder, {**outcome_of(folder), **found})
        self.terminal.say(f"{title}: {told(found)}")
        self.write()
        return found

    def _measure_pace(self) -> None:
        """Turns the amount into steps of each principle, where steps or passes are equal; principles that are added get what others got."""
        if self.wanted.equal == "seconds":
            return
        settled = dict(self.steps)
        limit = 0.0 if self.amount.seconds is None or settled else max(1.0, PACE_SHARE * self.amount.seconds)
        seconds: dict[str, float] = {}
        passes: dict[str, float] = {}
        for name in self.names if limit or self.wanted.equal == "passes" else ():
            recipe = with_length(self.recipes[name], steps=1, seed=self.seeds[0])
            found = self._do("pace", recipe, self.out / "pace" / name, f"pace of {name}", limit=limit)
            seconds[name], passes[name] = (found.get(key) or 0.0 for key in ("seconds_per_step", "passes_per_step"))
        if self.wanted.equal == "passes" and not all(passes.values()):
            raise UsageError(
                "the encoder computes nothing, so passes cannot be counted",
                where="--equal",
                help="give --equal steps or seconds",
                code="E277",
            )
        amount = self.amount
        if settled:
            name, steps = next(iter(settled.items()))
            amount = Amount(None, round(steps * (passes[name] if self.wanted.equal == "passes" else 1)))
        self.steps = {**steps_of(self.wanted.equal, amount, seconds, passes, self.names), **settled}
        least = min(self.steps, key=lambda name: self.steps[name])
        if self.steps[least] < FEWEST:
            raise UsageError(
                f"{self.wanted.budget} are {self.steps[least]} steps of {least}: too short, at least {FEWEST} are needed",
                where="--budget",
                help="give more, and a new folder if you named one with --out",
                code="E273",
            )

    def _with_amount(self, recipe: Recipe, name: str, *, seed: int, share: float = 1.0) -> Recipe:
        """A recipe that runs as long as all do, or for a share of it."""
        if self.steps:
            return with_length(recipe, steps=max(1, round(share * self.steps[name])), seed=seed)
        assert self.amount.seconds is not None
        return with_length(recipe, seconds=share * self.amount.seconds, seed=seed)

    def _tuned(self, name: str) -> Recipe:
        setting = self.chosen.get(name)
        return self.recipes[name] if setting is None else with_setting(self.recipes[name], setting)

    def _tune(self) -> None:
        """The same number of trials for each principle, judged on a part of what runs are trained on; the best setting is kept."""
        if self.wanted.trials == 1:
            return
        settings = {name: presets_tuning.grid(name)[: self.wanted.trials] for name in self.names}
        for number in range(self.wanted.trials):
            for name in self.names:
                setting = settings[name][number]
                recipe = for_trial(with_setting(self.recipes[name], setting))
                recipe = self._with_amount(recipe, name, seed=TRIAL_SEED, share=presets_tuning.TRIAL_SHARE)
                self._do("trial", recipe, self.trial(name, number), f"{name}, trial {number} ({setting.words()})")
        for name in self.names:
            scores = [self._score(name, number) for number in range(self.wanted.trials)]
            best = max(range(self.wanted.trials), key=lambda number: scores[number])
            self.chosen[name] = settings[name][best]
            self.terminal.say(f"{name}: {settings[name][best].words()}")

    def _score(self, name: str, number: int) -> tuple[bool, float]:
        """How good a trial is: first that nothing collapsed or failed, then the criterion."""
        folder = self.trial(name, number)
        evaluation = evaluation_of(folder) if outcome_of(folder).get("status") == "done" else {}
        return bool(evaluation) and evaluation["collapse"]["verdict"] is None, criterion(evaluation)[1]

    # --- what is written ---

    def _told(self, name: str, seed: int) -> dict[str, Any]:
        folder = self.run(name, seed)
        if folder not in self.known or self.known[folder]["status"] not in FINAL:
            self.known[folder] = run_of(folder, self.out, name, seed)
        return self.known[folder]

    def amount_in_words(self) -> str:
        """What each run gets."""
        if self.wanted.equal == "seconds":
            assert self.amount.seconds is not None
            return f"{self.amount.seconds:g} s"
        least, most = (min(self.steps.values()), max(self.steps.values())) if self.steps else (0, 0)
        steps = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        equal = "" if self.wanted.equal == "steps" else f" (equally many {self.wanted.equal})"
        return f"{steps} steps{equal}"

    def write(self) -> dict[str, Any]:
        """compare.json and compare.html, as far as everything has come."""
        state: dict[str, Any] = {
            "format": FORMAT,
            "settings": self.settings,
            "source": self.wanted.source,
            "amount": self.amount_in_words(),
            "equal": self.wanted.equal,
            "seeds": self.seeds,
            "held_against": None if self.wanted.reference is None else self.names[0],
            "principles": [self._principle(name) for name in self.names],
            "trials": self._trials(),
            "runs": [self._told(name, seed) for name in self.names for seed in self.seeds],
            "baselines": baselines_of({seed: self.baseline(seed) for seed in self.seeds}),
        }
        view = View(state, f"{STATE}:")
        results = results_of(view)
        state |= {
            "open": results.open,
            **tables(results),
            "words": [text.replace("\u202f", " ") for text in paragraph(results, shares_of(view), unlike(view))],
        }
        write_json(self.out / STATE, state)
        write_comparison(self.out)
        return state

    def _principle(self, name: str) -> dict[str, Any]:
        encoder, setting = self.recipes[name].encoder, self.chosen.get(name)
        mine, others = (flat(self.recipes[n].to_dict()) for n in (name, self.names[0]))
        keys = sorted({*mine, *others})
        return {
            "name": name,
            "group": group_of(name),
            "encoder": None if encoder is None else encoder.name,
            "objective": {k.removeprefix("objective."): v for k, v in mine.items() if k.startswith("objective.")},
            "differs": {
                k: mine.get(k) for k in keys if mine.get(k) != others.get(k) and not k.startswith("objective.")
            },
            "setting": None if setting is None else setting.words(),
            "steps": self.steps.get(name),
        }

    def _trials(self) -> list[dict[str, Any]]:
        """Every trial, those that were not chosen too."""
        found = []
        for name in self.names if self.wanted.trials > 1 else ():
            for number, setting in enumerate(presets_tuning.grid(name)[: self.wanted.trials]):
                folder = self.trial(name, number)
                outcome, evaluation = outcome_of(folder), evaluation_of(folder)
                measure, value = criterion(evaluation)
                found.append(
                    {
                        "principle": name,
                        "folder": str(folder.relative_to(self.out)),
                        "setting": setting.words(),
                        "status": outcome.get("status", "open"),
                        "verdict": (evaluation.get("collapse") or {}).get("verdict"),
                        "criterion": measure,
                        "value": value if evaluation else None,
                        "chosen": self.chosen.get(name) == setting,
                    }
                )
        return found


def criterion(evaluation: Mapping[str, Any]) -> tuple[str, float]:
    """What a trial is chosen by, and its value: the linear probe where there are labels, else the mean of 1 / place in retrieval."""
    probes = evaluation.get("probes")
    if probes:
        return "linear probe on validation labels", float(probes["features"]["linear"])
    return "mean of 1 / place of the right y on validation pairs", float(
        (evaluation.get("retrieval") or {}).get("mrr", 0.0)
    )
