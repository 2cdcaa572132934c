"""Collapse is named while it happens, and a healthy run, however slow to start, is left alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from accord.data.pair import Pair
from accord.data.pairing import Pairing
from accord.data.random import Draws
from accord.errors import Collapsed, Diverged
from accord.model.energy import Cost, cosine, squared_error
from accord.model.matching import LocalMatching
from accord.objective.contrastive import align_uniform, info_nce, siamese, siglip, triplet
from accord.objective.loss import Terms
from accord.objective.principles import barlow_twins, coding_rate, mmcr, sigreg, vicreg, vicregl, visreg
from accord.train.device import choose_device
from accord.train.monitor import PATIENCE, Alarm, CollapseWatch, Health, Probe
from accord.train.progress import Silent
from accord.train.trend import Looks


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")
CPU = choose_device("cpu")


def health(**changes: float) -> Health:
    """That of a run in which all is well."""
    fine: dict[str, Any] = {
        "effective_rank": 30.0,
        "std_min": 0.5,
        "std_mean": 0.6,
        "spread": 0.8,
        "energy_matched": 0.1,
        "energy_mismatched": 1.0,
        "energy_auroc": 0.95,
        "dim": 128,
    }
    return Health(**{**fine, **changes})


def judge(*evaluations: Health, rows: int = 256, values: int = 64) -> str | None:
    """The collapse that is certain in a run with these evaluations in its second half."""
    watch = CollapseWatch(rows=rows, values=values)
    for evaluation in evaluations:
        alarm = watch.observe(0.5, evaluation)
        if alarm is not None and alarm.certain:
            return alarm.kind
    return None


def test_lasting_collapse_is_named() -> None:
    assert judge(*[health(spread=0.02)] * 4) == "constant"
    assert judge(*[health(effective_rank=r) for r in (6.0, 5.5, 5.0, 4.8)]) == "dimensional"
    assert judge(*[health(energy_auroc=a) for a in (0.51, 0.52, 0.5, 0.51)]) == "flat energy"
    assert judge(*[health()] * 50) is None


def test_a_scale_that_shrinks_behind_a_batch_norm_is_a_constant_collapse() -> None:
    shrinking = [health(std_mean=0.14 * 0.7**k) for k in range(12)]
    assert judge(*shrinking) == "constant"
    assert judge(*[e._replace(std_mean=e.std_mean * 100) for e in shrinking]) is None, "from 14 to 1 is no collapse"
    assert judge(*[health(std_mean=0.03)] * 20) is None, "a small scale alone means nothing"
    unsure = [*[health(std_mean=0.14)] * 3, *[health(std_mean=0.025, energy_auroc=0.6)] * 6]
    assert judge(*unsure) == "constant"
    assert judge(*[e._replace(energy_auroc=0.95) for e in unsure]) is None


def played(stds: list[float], aurocs: list[float]) -> list[tuple[float, str, bool]]:
    """(progress, kind, certain) of the alarms of a run with these evaluations, evenly spread."""
    watch, found = CollapseWatch(rows=256, values=64), []
    for k, (std, auroc) in enumerate(zip(stds, aurocs, strict=True)):
        alarm = watch.observe(k / (len(stds) - 1), health(std_mean=std, energy_auroc=auroc))
        if alarm is not None:
            found.append((round(k / (len(stds) - 1), 2), alarm.kind, alarm.certain))
    return found


def test_a_slow_collapse_is_named_long_before_its_end() -> None:
    """Measured on digits without the variance term, at a tenth and at a hundredth of the learning rate; the spread stays above 0.24."""
    tenth = [0.08, 0.25, 0.2, 0.154, 0.12, 0.089, 0.07, 0.056, 0.046, 0.038, 0.033, 0.029, 0.022, 0.018, 0.013, 0.009]
    alarms = played(tenth, [0.656, *np.linspace(0.65, 0.54, 15)])
    assert alarms[0][1:] == ("constant", True) and alarms[0][0] < 0.6
    hundredth = [
        0.08,
        0.31,
        0.3,
        0.286,
        0.262,
        0.238,
        0.215,
        0.195,
        0.179,
        0.167,
        0.156,
        0.146,
        0.139,
        0.134,
        0.13,
        0.13,
    ]
    alarms = played(hundredth, [0.652] * 16)
    assert alarms[0][1:] == ("flat energy", False), "first the warning: nothing is learned"
    assert alarms[-1][1:] == ("constant", True), "then, when less than half of the scale is left, the collapse"
    assert played(hundredth, [0.652, *np.linspace(0.8, 0.98, 15)]) == [], (
        "control: an energy that tells pairs apart is no collapse"
    )


def test_an_energy_that_tells_no_more_than_at_first_is_worth_one_warning() -> None:
    alarms = played([0.9] * 40, [0.64] * 40)
    assert [alarm[1:] for alarm in alarms] == [("flat energy", False)] and 0.5 < alarms[0][0] < 0.7
    assert played([0.9] * 40, [0.64, *[0.72] * 39]) == [], "control: it tells more"
    assert played([0.9] * 40, list(np.linspace(0.62, 0.9, 40))) == [], "control: it is getting better"
    assert played([0.9] * 40, [0.97, *[0.95] * 39]) == [], "control: it was good from the start"


def test_where_y_is_given_only_an_energy_that_ignores_x_is_told() -> None:
    """A constant or narrow s_x harms no likelihood; an energy at chance is told once, late, and stops nothing."""
    watch = CollapseWatch(rows=256, values=64, fixed=True)
    narrow = health(effective_rank=1.0, spread=0.01, std_mean=1e-6, energy_auroc=0.7)
    assert not any(watch.observe(progress / 50, narrow) for progress in range(51))
    watch = CollapseWatch(rows=256, values=64, fixed=True)
    told = {p / 50: alarm for p in range(51) if (alarm := watch.observe(p / 50, health(energy_auroc=0.51)))}
    assert len(told) == 1 and 0.5 < min(told) < 0.7
    (alarm,) = told.values()
    assert not alarm.certain and alarm.kind == "flat energy" and "tells nothing of y" in alarm.remedy
    other = CollapseWatch(rows=256, values=64)
    assert any(other.observe(p / 50, narrow) for p in range(51)), "of learned embeddings it is a collapse"
    assert CollapseWatch(rows=256, values=64, shifts=1).auroc_limit > watch.auroc_limit


def test_a_bad_moment_is_not_a_collapse() -> None:
    bad, good = health(energy_auroc=0.5), health()
    assert judge(*[bad] * (PATIENCE - 1), good, *[bad] * (PATIENCE - 1), good) is None


def test_a_bad_value_that_gets_better_is_not_a_collapse() -> None:
    assert judge(*[health(effective_rank=2.0 * 1.05**k) for k in range(25)]) is None
    assert judge(*[health(effective_rank=2.0 * 1.01**k) for k in range(25)]) == "dimensional", "control: hardly better"
    assert judge(*[health(energy_auroc=0.505 + 0.005 * k) for k in range(12)]) is None


def test_nothing_is_judged_at_the_start() -> None:
    watch = CollapseWatch(rows=256, values=64)
    for progress in np.linspace(0.0, 0.149, 30):
        assert watch.observe(float(progress), health(spread=0.0, effective_rank=1.0, energy_auroc=0.5)) is None


def early(stds: list[float], ranks: list[float]) -> str | None:
    """The collapse that is certain within the first tenth of a run with these evaluations, evenly spread over it."""
    watch = CollapseWatch(rows=256, values=64)
    for k, (std, rank) in enumerate(zip(stds, ranks, strict=True), 1):
        alarm = watch.observe(0.1 * k / len(stds), health(std_mean=std, effective_rank=rank))
        if alarm is not None:
            return alarm.kind
    return None


FALLS = [float(v) for v in np.geomspace(1, 0.1, 20)]
SETTLES = [float(v) for v in (*np.geomspace(1, 0.2, 5), *[0.2] * 15)]
SAME = [1.0] * 20


def test_a_scale_that_falls_and_falls_is_named_within_the_first_tenth() -> None:
    assert early([0.3 * v for v in FALLS], [60.0] * 20) == "constant"
    assert early([0.3 * v for v in SETTLES], [60.0] * 20) is None, "control: it has come to rest"
    assert early([3.0 * v for v in FALLS], [60.0] * 20) is None, "control: it is still large"
    assert early([0.3 * v for v in FALLS[:10]], [60.0] * 10) is None, "control: a third of it is left"


def test_dimensions_that_get_fewer_and_fewer_are_named_within_the_first_tenth() -> None:
    assert early(SAME, [60 * v for v in FALLS]) == "dimensional"
    assert early(SAME, [60 * v for v in SETTLES]) is None, "control: every training loses some at first"
    assert early(SAME, [60 * v**0.25 for v in FALLS]) is None, "control: more than half of them are left"
    growing = [0.1 * 1.1**k for k in range(20)]
    assert early(growing, [60 * v**0.6 for v in FALLS]) is None, "control: some directions grow before others"
    assert early(SAME, [60 * v**0.6 for v in FALLS]) == "dimensional"
    assert early(growing, [60 * v for v in FALLS]) == "dimensional", "hardly any are left"
    assert early(SAME[:10], [60 * v for v in FALLS[::2]]) is None, "too few evaluations to tell"


RECORDED = json.loads(Path(__file__).with_name("trajectories.json").read_text())
"""What the looks of real runs found, of 1,000 to 1,500 steps where none are told (benchmarks/sensitivity.py): of the healthy ones,
and of some that collapse by name."""


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["run"])
def test_recorded_collapses_are_named_within_a_tenth_of_the_run_and_healthy_runs_are_left_alone(recorded: Any) -> None:
    watch, alarms = CollapseWatch(rows=recorded["rows"], values=recorded["values"]), []
    for progress, *values in recorded["looks"]:
        alarm = watch.observe(progress, Health(*values))
        alarms += [] if alarm is None else [(alarm.kind, progress)]
    if recorded["collapse"] is None:
        assert alarms == []
    else:
        assert alarms[0][0] == recorded["collapse"] and alarms[0][1] <= 0.1


def test_looks_are_many_in_the_first_tenth_and_few_afterwards() -> None:
    for total in (40, 440, 1500, 3000, 100_000):
        lines_every = max(1, total // 1000)
        looks = Looks.over(total, lines_every=lines_every)
        steps = [step for step in range(1, total + 1) if looks.due(step)]
        first = [step for step in steps if step <= total / 10]
        assert all(step % lines_every == 0 for step in steps)
        assert len(steps) <= min(54, 0.1 * total), "one costs about as much as a step"
        assert len(first) >= min(20, total // 40)


def test_few_samples_numbers_or_dimensions_lower_what_can_be_asked() -> None:
    low = [health(effective_rank=2.0)] * 6
    assert judge(*low) == "dimensional"
    assert judge(*low, values=5) is None, "five numbers cannot make many dimensions"
    assert judge(*low, rows=16) is None
    assert judge(*[e._replace(dim=8) for e in low]) is None
    assert judge(*[e._replace(dim=1, effective_rank=1.0) for e in low]) is None
    assert judge(*[health(energy_auroc=0.5)] * 9, rows=31) is None, "too few to tell"
    chance = [health(energy_auroc=0.58)] * 6
    assert judge(*chance) is None
    assert judge(*chance, rows=32) == "flat energy", "with few pairs 0.58 is within chance"


def test_every_alarm_says_what_to_do() -> None:
    for bad in (health(spread=0.0), health(effective_rank=1.2), health(energy_auroc=0.5)):
        watch = CollapseWatch(rows=256, values=64)
        alarms = [a for a in (watch.observe(0.5, bad) for _ in range(4)) if a is not None]
        assert len(alarms) == 1
        assert len(alarms[0].remedy.split()) > 5


def test_the_watch_goes_on_after_a_pause() -> None:
    first, bad = CollapseWatch(rows=256, values=64), health(spread=0.01)
    for _ in range(PATIENCE - 1):
        assert first.observe(0.5, bad) is None
    second = CollapseWatch(rows=256, values=64)
    second.restore(json.loads(json.dumps(first.state())))
    assert second == first
    assert second.observe(0.5, bad) is not None
    third = CollapseWatch(rows=256, values=64)
    third.restore({"history": {}, "largest_std": 1.0})  # what was written before there was a warning
    assert third.first_auroc is None and not third.warned and third.trail == []


# --- the probe ---


def test_an_evaluation_changes_nothing_and_repeats_exactly() -> None:
    objective, samples = tiny.objective(), tiny.samples()
    probe = Probe(samples, np.arange(100, 180), tiny.pairing(), seed=3, batch_size=32)
    objective.train()
    objective.model.encoder_x.projector.eval()  # as somebody does who freezes a part
    state = {name: t.clone() for name, t in objective.state_dict().items()}
    generator = torch.get_rng_state()
    first = probe.examine(objective.model, CPU)
    assert probe.examine(objective.model, CPU) == first
    assert objective.training
    assert not objective.model.encoder_x.projector.net[1].training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(t, state[name]) for name, t in objective.state_dict().items())
    whole = Probe(samples, np.arange(100, 180), tiny.pairing(), seed=3, batch_size=80).examine(objective.model, CPU)
    assert whole == pytest.approx(first, rel=1e-5), "the size of the pieces does not matter"
    assert set(probe.batch.index.tolist()) <= set(range(100, 180))


def test_measures_are_those_of_a_loop() -> None:
    objective = tiny.objective().eval()
    probe = Probe(tiny.samples(), np.arange(40), tiny.pairing(), seed=0, batch_size=40)
    found = probe.examine(objective.model, CPU)
    with torch.no_grad():
        pair = probe.pairing(probe.batch.data, Draws(0, -1, probe.batch.index))
        s_x, s_y = objective.model.encoder_x(pair.x).double(), objective.model.encoder_y(pair.y).double()
    matched = [float(((s_x[i] - s_y[i]) ** 2).mean()) for i in range(40)]
    mismatched = [float(((s_x[i] - s_y[(i - k) % 40]) ** 2).mean()) for k in range(1, 9) for i in range(40)]
    wins = sum((a < b) + 0.5 * (a == b) for a in matched for b in mismatched) / (len(matched) * len(mismatched))
    assert found.energy_auroc == pytest.approx(wins, abs=1e-4)
    assert found.energy_matched == pytest.approx(np.mean(matched), rel=1e-5)
    assert found.energy_mismatched == pytest.approx(np.mean(mismatched), rel=1e-5)
    sigma = np.linalg.svd(s_y.numpy(), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert found.effective_rank == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-4)
    assert found.std_mean == pytest.approx(float(s_y.numpy().std(0, ddof=1).mean()), rel=1e-5)


def test_embeddings_that_are_not_finite_are_a_divergence() -> None:
    objective = tiny.objective()
    probe = Probe(tiny.samples(), np.arange(64), tiny.pairing(), seed=0, batch_size=64)
    with torch.no_grad():
        for p in objective.parameters():
            p.mul_(1e30)
    with pytest.raises(Diverged, match="not finite"):
        probe.examine(objective.model, CPU)


# --- whole runs ---


class Strangers(Pairing):
    """x and y of a pair have nothing to do with each other."""

    def __call__(self, batch: torch.Tensor, draws: Draws, aspect: torch.Tensor | None = None) -> Pair:
        pair: Pair = tiny.pairing()(batch, draws, aspect)
        return pair._replace(y=pair.y.roll(1, 0))

    def plain(self, batch: torch.Tensor, aspect: torch.Tensor | None = None) -> torch.Tensor:
        return batch.float()


def run(tmp_path: Path, principle: Terms, cost: Cost = squared_error, **options: Any) -> list[dict[str, Any]]:
    """The log of a run on 64 numbers a sample, of which eight are independent."""
    given = {"steps": 150, "checkpoint_every": 1000, "log_every": 10, "lr": 1e-2}
    objective = tiny.objective(principle, dim=96, features=64, cost=cost)
    try:
        tiny.train(tmp_path / "run", objective=objective, samples=tiny.samples(features=64), **{**given, **options})
    finally:
        log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in log]


HEALTHY = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": lambda: sigreg(slices=64),
    "visreg": lambda: visreg(slices=64),
}


ON_THE_SPHERE = {
    "info_nce": info_nce,
    "siglip": siglip,
    "triplet": triplet,
    "siamese": siamese,
    "align_uniform": align_uniform,
    "mmcr": mmcr,
    "coding_rate": coding_rate,
}


@pytest.mark.parametrize("name", ON_THE_SPHERE)
def test_healthy_runs_on_the_sphere_raise_no_alarm(tmp_path: Path, name: str) -> None:
    lines = run(tmp_path, ON_THE_SPHERE[name](), lr=3e-3, cost=cosine)
    assert not [line for line in lines if "event" in line]
    assert lines[-1]["energy_auroc"] > 0.9


def test_a_length_that_the_cost_does_not_see_is_no_collapse(tmp_path: Path) -> None:
    """Embeddings a thousand times shorter are the same to cosines, and another matter to distances."""
    found = {}
    for cost in (cosine, squared_error):
        objective = tiny.objective(cost=cost)
        probe = Probe(tiny.samples(), np.arange(64), tiny.pairing(), seed=0, batch_size=64)
        before = probe.examine(objective.model, CPU)
        with torch.no_grad():
            for p in list(objective.model.encoder_x.projector.parameters())[-2:]:
                p.mul_(1e-3)
        after = probe.examine(objective.model, CPU)
        found[cost] = after.std_mean / before.std_mean
    assert found[cosine] == pytest.approx(1, rel=1e-3)
    assert found[squared_error] == pytest.approx(1e-3, rel=1e-3)


PARTS = LocalMatching(32, positions=4, matches=2)
"""Of embeddings of 96 numbers, 16 for each position."""


def test_a_healthy_run_of_parts_raises_no_alarm_and_one_without_variance_does(tmp_path: Path) -> None:
    lines = run(tmp_path / "healthy", vicregl(), lr=3e-3, cost=PARTS)
    assert not [line for line in lines if "event" in line]
    assert lines[-1]["energy_auroc"] > 0.9
    with pytest.raises(Collapsed, match="constant collapse at step"):
        run(tmp_path / "collapsed", vicregl(variance=0.0, covariance=0.0), steps=250, cost=PARTS)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_raise_no_alarm(tmp_path: Path, name: str) -> None:
    lines = run(tmp_path, HEALTHY[name](), lr=3e-3)
    assert not [line for line in lines if "event" in line]
    evaluated = [line for line in lines if line["effective_rank"] is not None]
    assert len(evaluated) == 15
    assert evaluated[-1]["energy_auroc"] > 0.9


@pytest.mark.parametrize(
    ("kind", "principle", "options"),
    [
        ("constant", lambda: vicreg(variance=0.0, covariance=0.0), {"steps": 250}),
        ("dimensional", lambda: vicreg(covariance=0.0), {"lr": 3e-2}),
        ("flat energy", vicreg, {"pairing": Strangers()}),
    ],
)
def test_an_injected_collapse_stops_the_run_by_name(
    tmp_path: Path, kind: str, principle: Callable[[], Terms], options: dict[str, Any]
) -> None:
    with pytest.raises(Collapsed, match=f"{kind} collapse at step") as caught:
        run(tmp_path, principle(), **options)
    assert (caught.value.kind, caught.value.exit_code) == (kind, 6)
    assert caught.value.help
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["event"].startswith(f"{kind} collapse")


def test_what_is_not_certain_is_told_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def said(self, text: str) -> None:
            heard.append(text)

    observe = CollapseWatch.observe

    def unsure(self: CollapseWatch, progress: float, health: Health) -> Alarm | None:
        assert observe(self, progress, health) is None
        return Alarm("flat energy", "nothing is learned", "do this", certain=False) if progress == 0.4 else None

    monkeypatch.setattr(CollapseWatch, "observe", unsure)
    lines = run(tmp_path, vicreg(), lr=3e-3, progress=Ear())
    assert lines[-1]["step"] == 150
    assert [line["event"] for line in lines if "event" in line] == ["warning: nothing is learned"]
    assert [text for text in heard if "warning" in text] == ["warning: nothing is learned; do this"]


def test_told_to_warn_the_run_goes_on_and_says_so(tmp_path: Path) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def said(self, text: str) -> None:
            heard.append(text)

    lines = run(tmp_path, vicreg(), pairing=Strangers(), on_collapse="warn", progress=Ear(), steps=120)
    assert lines[-1]["step"] == 120
    assert any("event" in line for line in lines)
    assert any("warning: flat energy collapse" in text for text in heard)
