"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="digits, forks, ellipse, torus or jump; a folder of images or sounds; a Parquet, CSV, .ts, NPZ, NPY or WebDataset tar file, "
        "or a glob.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Column = Annotated[str | None, typer.Option("--column", help="The image column of a table with several.")]
Label = Annotated[str | None, typer.Option("--label", help="The column or array of class labels; only probes read it.")]
Side = Annotated[
    str | None,
    typer.Option(metavar="COLUMNS", help="Columns of a table, separated by commas, that are one side of the pairs."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="COLUMN=KIND",
        help="What a column of --x or --y is, if it is not told right: image, audio, series, text, number or category.",
    ),
]
Time = Annotated[
    str | None, typer.Option("--time", help="The column of times of a table whose rows are steps of series.")
]
Group = Annotated[
    str | None, typer.Option("--group", help="Columns, separated by commas, that tell several series of a table apart.")
]
