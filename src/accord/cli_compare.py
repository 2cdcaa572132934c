"""The command that asks which principle suits some data: `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli_options import Column, Debug, Group, Json, Kinds, Label, Side, Source, Time
from accord.terminal import Terminal

Principles = Annotated[
    str, typer.Option("--principles", help="Names, separated by commas, or groups, or all.", show_default=False)
]
Budget = Annotated[
    str, typer.Option("--budget", help="Time of each run; with --equal steps or passes also a number of them.")
]
Equal = Annotated[str, typer.Option("--equal", help="What is equal for all: seconds, steps or passes.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of each principle.")]
Trials = Annotated[
    int, typer.Option("--trials", help="Settings tried for each principle first; 1 takes the recipes as they are.")
]
Reference = Annotated[
    str | None, typer.Option("--reference", help="The principle the others are held against [default: the first].")
]
Data = Annotated[str | None, typer.Option("--data", help="A test source [default: the held-out part of SOURCE].")]
Recipe = Annotated[str | None, typer.Option("--recipe", help="A recipe by name, or a TOML file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, for every principle.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where everything is written [default: runs/compare-NAME].")]


def compare(
    source: Source,
    principles: Principles,
    budget: Budget = "60s",
    equal: Equal = "seconds",
    seeds: Seeds = 3,
    trials: Trials = 1,
    reference: Reference = None,
    data: Data = None,
    recipe: Recipe = None,
    settings: Settings = None,
    out: Out = None,
    x: Side = None,
    y: Side = None,
    kind: Kinds = None,
    time: Time = None,
    group: Group = None,
    column: Column = None,
    label: Label = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Which principle suits SOURCE? Everything equal but the principle, each run in a process of its own.

    With --x and --y it compares on pairs of any columns of a table.

    The same command goes on where it was interrupted; what is finished is not done again.

    Example: accord compare digits --principles vicreg,sigreg --budget 30s --seeds 3
    """
    from accord.about_data import Sides
    from accord.compare.harness import compare as run_it
    from accord.compare.plan import Wanted

    wanted = Wanted(
        source=source,
        principles=principles,
        budget=budget,
        equal=equal,
        seeds=seeds,
        trials=trials,
        reference=reference,
        data=data,
        recipe=recipe,
        settings=settings or [],
        sides=Sides(x, y, kind or [], time, group),
        column=column,
        label=label,
        out=out,
    )
    Terminal(as_json=json).result(run_it(wanted, Terminal(as_json=json)))
