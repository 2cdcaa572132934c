"""The commands that ask a run about pairs: `score` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli_options import Column, Debug, Json, Run, Source
from accord.terminal import Terminal

Queries = Annotated[str, typer.Argument(metavar="QUERIES", help="What is asked, a source.", show_default=False)]
Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="What is looked through, a source.", show_default=False)]


def score(
    run_directory: Run,
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet file.", show_default=False)],
    y: Annotated[
        str | None,
        typer.Option("--y", help="A second source, paired with SOURCE row by row [default: the run's own pairing]."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Flag pairs at this false-alarm rate, for example 0.05.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", help="Hold each pair against calibration pairs of its own group, which this column says."
        ),
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Score items that were trained or calibrated on.")
    ] = False,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--steps", help="A second .parquet file: surprise at every step of the series that windows are cut from."
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="A .png file: that surprise as lines over time.")
    ] = None,
    column: Column = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Energy and calibrated p-value of each pair of SOURCE.

    The p-value is the share of calibration pairs with at least this energy. With --group they are those of the same group, so that
    false alarms are as rare as --alpha says in every group; accord evaluate RUN --group COLUMN comes first.

    Windows of series have their place in time as well. --steps spreads their energies over the steps: surprise 0 is usual, above 1
    lies one calibration window in a hundred.

    Example: accord score runs/mine new.parquet -o scores.parquet --alpha 0.05
    """
    from accord.scoring import Wanted
    from accord.scoring import score as run_it

    wanted = Wanted(y=y, alpha=alpha, group=group, allow_overlap=allow_overlap, column=column, steps=steps, sheet=sheet)
    terminal = Terminal(as_json=json)
    terminal.result(run_it(run_directory, source, output, wanted, terminal=terminal))


def search(
    run_directory: Run,
    queries: Queries,
    corpus: Corpus,
    k: Annotated[int, typer.Option("-k", "--best", help="Answers to each query.")] = 10,
    side: Annotated[
        str, typer.Option("--side", help="What the queries are: x (their y are looked for) or y (their x).")
    ] = "x",
    index: Annotated[
        str,
        typer.Option(
            "--index", help="exact, faiss (an index of neighbours, nearly exact), or auto: faiss where it pays."
        ),
    ] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .parquet file with all answers.")] = None,
    column: Column = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rank CORPUS by energy for each of QUERIES: what goes best with it comes first.

    The table has K rows for each query, in the order of the queries: rank, key of the answer, energy and, where the run is
    calibrated, the p-value. A bad query keeps one row, marked and without numbers. All pairs are compared, unless --index says
    otherwise; of equal energies the one that comes first in CORPUS is first.

    Example: accord search runs/mine new.png photos/ -k 5
    """
    from accord.searching import Wanted
    from accord.searching import search as run_it

    terminal = Terminal(as_json=json)
    wanted = Wanted(k=k, side=side, index=index, output=output, column=column)  # type: ignore[arg-type]  # checked there
    terminal.result(run_it(run_directory, queries, corpus, wanted, terminal=terminal))
