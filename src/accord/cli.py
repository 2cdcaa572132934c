"""The command line: verbs only; what they do is in `accord.verbs`, which is imported by the verb that needs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from accord.cli_compare import compare
from accord.cli_options import Column, Debug, Group, Json, Kinds, Label, Run, Side, Source, Time
from accord.cli_pairs import score, search
from accord.errors import AccordError, DataError, EnvironmentFault, UsageError
from accord.terminal import Terminal, crashed, flush, leave

app = typer.Typer(
    name="accord",
    help="Learn an energy from pairs: low where x and y belong together, high where they do not.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"accord {version('accord')}")
        raise typer.Exit


def _alone(verb: str | None) -> None:
    """Only training is the work of several processes: any other verb would be done as often as there are.

    Raises:
        UsageError: in the first of several processes; the others end with the same exit code, silently.
    """
    from accord.train.environment import seat

    place = None if verb in (None, "train") else seat(os.environ)
    if place is None:
        return
    if place.rank > 0:
        raise typer.Exit(UsageError.exit_code)
    raise UsageError(
        f"{place.size} processes were started, but accord {verb} is the work of one",
        where=f"accord {verb}",
        help="run it without torchrun or srun; accord train is what several processes share",
        code="E278",
    )


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _alone(context.invoked_subcommand)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the run is written.")] = Path("runs/demo"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train on the built-in digits, evaluate, write the report and say what to look at."""
    from accord import verbs

    terminal = Terminal(as_json=json)
    terminal.result(verbs.demo(out, terminal))


@app.command()
def train(
    source: Source,
    recipe: Annotated[str | None, typer.Option("--recipe", help="A recipe by name, or a TOML file.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, for example optimizer.learning_rate=0.001.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the run is written [default: runs/NAME].")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Training time, for example 90s, 10m, 2h.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the data instead of a budget.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest valid checkpoint.")] = False,
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
    """Train an energy on SOURCE; with --x and --y on pairs of any columns of a table.

    Example: accord train emoji.parquet --x color --y name
    """
    from accord import verbs
    from accord.about_data import Sides

    terminal = Terminal(as_json=json)
    terminal.result(
        verbs.train(
            source,
            recipe=recipe,
            settings=settings or [],
            out=out,
            budget=budget,
            epochs=epochs,
            resume=resume,
            sides=Sides(x, y, kind or [], time, group),
            column=column,
            label=label,
            terminal=terminal,
        )
    )


@app.command()
def check(
    source: Source,
    strict: Annotated[bool, typer.Option("--strict", help="Report decoder warnings as well.")] = False,
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
    """Name every bad item of SOURCE; nothing is trained."""
    from accord import verbs
    from accord.about_data import Sides

    terminal = Terminal(as_json=json)
    found = verbs.check(
        source, strict=strict, sides=Sides(x, y, kind or [], time, group), column=column, label=label, terminal=terminal
    )
    terminal.result(found)
    if found["bad"]:
        raise typer.Exit(DataError.exit_code)


@app.command()
def evaluate(
    run_directory: Run,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="A test source; probes are trained on the run's own data [default: the held-out part]."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Where the training data are now [default: as when it was trained].")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Calibrate by the groups in this column too, for accord score --group."),
    ] = None,
    column: Column = None,
    label: Label = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Probes, retrieval, energy and collapse of RUN: a table, evaluation.json and report.html."""
    from accord import verbs

    terminal = Terminal(as_json=json)
    terminal.result(
        verbs.evaluate(
            run_directory, data=data, source=source, column=column, label=label, group=group, terminal=terminal
        )
    )


@app.command()
def embed(
    run_directory: Run,
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet or .npy file.", show_default=False)],
    layer: Annotated[
        str, typer.Option("--layer", help="features (what probes read) or embedding (what the energy reads).")
    ] = "features",
    side: Annotated[
        str, typer.Option("--side", help="Where x and y differ: x (what is given) or y (what is predicted).")
    ] = "x",
    column: Column = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """One row per input of SOURCE, in order; bad items are marked, never dropped."""
    from accord import verbs

    terminal = Terminal(as_json=json)
    terminal.result(
        verbs.embed(run_directory, source, output, layer=layer, side=side, column=column, terminal=terminal)
    )


app.command()(score)


@app.command()
def predict(
    run_directory: Run,
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet file.", show_default=False)],
    hypotheses: Annotated[
        int, typer.Option("--hypotheses", "-k", help="Predictions of each x; fewer where z has fewer values.")
    ] = 8,
    neighbours: Annotated[
        int, typer.Option("--neighbours", help="Real y's listed for each prediction, nearest first; 0 for none.")
    ] = 3,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus", help="Where the real y's come from, a second source [default: the run's training part]."
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="A .png file: x, the truth and the nearest real y's as pictures; of series lines."
        ),
    ] = None,
    drawing: Annotated[
        bool, typer.Option("--draw", help="Draw the predictions on the sheet, by a small decoder trained for it now.")
    ] = False,
    column: Column = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What y could be for each x of SOURCE: the K predictions of lowest energy.

    The table has K rows for each input, in the order of the input, the cheapest hypothesis first: its z, its energy R(z), how
    probable the prior finds it, and the keys and distances of the real y's nearest to it. Where a sample holds its own y, truth_*
    columns say which hypothesis came true. Bad inputs keep their rows, marked and without numbers.

    A prediction is an embedding, no picture. --sheet shows it by the real y next to it, or with --draw as a decoder sees it. Where
    pairs are of past and future it is read out as values, for every past, and minADE, minFDE and CRPS say how good they are.

    Example: accord predict runs/jump jump -k 2 -o jump.parquet --sheet jump.png
    """
    from accord.predict import Wanted
    from accord.predict import predict as run_it

    terminal = Terminal(as_json=json)
    wanted = Wanted(
        hypotheses=hypotheses, neighbours=neighbours, corpus=corpus, sheet=sheet, draw=drawing, column=column
    )
    terminal.result(run_it(run_directory, source, output, wanted, terminal=terminal))


app.command()(search)


app.command()(compare)


@app.command()
def report(run_directory: Run, json: Json = False, debug: Debug = False) -> None:
    """Write report.html of RUN, or compare.html of a comparison: one file, no network."""
    from accord.report.compare_page import write_comparison
    from accord.report.compare_read import is_comparison
    from accord.report.page import write_report

    terminal = Terminal(as_json=json)
    path = (write_comparison if is_comparison(run_directory) else write_report)(run_directory)
    terminal.say(f"report: {path}")
    terminal.result({"report": str(path)})


def main() -> NoReturn:
    """Entry point: runs a verb and turns every error into a message and an exit code."""
    signal.signal(signal.SIGINT, _stop_early)
    arguments = sys.argv[1:]
    terminal = Terminal(as_json="--json" in arguments)
    debug = "--debug" in arguments
    try:
        code = app(standalone_mode=False)
        flush()
        sys.exit(code if isinstance(code, int) else 0)
    except AccordError as error:
        if debug:
            raise
        terminal.error(error)
        leave(error.exit_code)
    except TyperException as error:
        terminal.error(UsageError(error.format_message(), help=_help_of(arguments), code="E201"))
        leave(2)
    except BrokenPipeError:
        leave(0)
    except KeyboardInterrupt:
        leave(130)
    except MemoryError:
        fault = EnvironmentFault("out of memory", help="use a smaller training.batch_size or pairing.size", code="E505")
        terminal.error(fault)
        leave(fault.exit_code)
    except Exception as error:
        if debug:
            raise
        leave(crashed(error, terminal))


def _help_of(arguments: list[str]) -> str:
    verbs = [
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    ]
    verb = next((a for a in arguments if a in verbs), None)
    return f"accord {verb} --help" if verb else "accord --help lists the commands"


def _stop_early(signum: int, frame: Any) -> NoReturn:
    """Ctrl-C before there is anything to save."""
    os._exit(128 + signum)
