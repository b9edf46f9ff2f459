"""The report of a sweep, and the comparison of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli.options import HomeOption, NameArgument, format_option, resolve_home
from lmoe_tune.cli.output import print_rows, say
from lmoe_tune.cli.results import sweep_to_read
from lmoe_tune.errors import TrackingError, UsageError

app = typer.Typer()


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="The sweeps, two or more of one home.")
    ],
    form: Annotated[str, format_option("table", "json", "csv", "html")] = "table",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write the page, for html."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Put sweeps side by side: settings that differ, best and spread, cost, verdicts; html has a
    figure.
    """
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        raise UsageError(f"compare needs two or more sweeps, but got only '{distinct[0]}'")

    from lmoe_tune.durable import write_durably
    from lmoe_tune.report import comparison

    where = resolve_home(home)
    found = lt.compare([lt.open_sweep(name, where) for name in distinct])
    for line in found.cautions:
        say(line)
    if form == "html":
        path = out or where / f"compare-{'-'.join(distinct)}.html"
        write_durably(path, comparison.make_comparison_page(found).encode())
        typer.echo(str(path))
        return

    columns = comparison.READABLE if form == "table" else comparison.COLUMNS
    print_rows(comparison.lines(found.rows), columns, form, found.document())
    if form == "table" and found.differences:
        typer.echo("")
        differing = [{"setting": key, **values} for key, values in found.differences.items()]
        print_rows(differing, ("setting", *distinct), form)


@app.command()
def report(name: NameArgument, home: HomeOption = None) -> None:
    """One page with the verdict, the best parameters and all figures; needs no network. Prints its
    path.
    """
    sweep = sweep_to_read(resolve_home(home), name)
    page = sweep.write_report()
    try:
        delivered = sweep.deliver_report()
    except TrackingError as error:
        say(f"{error}")
        delivered = False
    if not delivered:
        sync = advice.sync(name, home=sweep.folder.home)
        say(f"MLflow does not have the report yet; to deliver it: {sync}")
    typer.echo(str(page))
