"""Commands that only read: list, status, leaderboard, best, audit, ui."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli.lines import Lines
from lmoe_tune.cli.options import FormatOption, HomeOption, NameArgument, resolve_home
from lmoe_tune.cli.output import as_lines, openings_line, print_row, print_rows, say, shown
from lmoe_tune.errors import UsageError
from lmoe_tune.records import in_words
from lmoe_tune.wording import first_few, printable

app = typer.Typer()
WATCHED_EVERY_S = 2.0
COUNTS = ("complete", "pruned", "failed", "running", "best_trial", "best_value")


@app.command("list")
def list_sweeps(form: FormatOption = "table", home: HomeOption = None) -> None:
    """All sweeps of a home, the one worked on last first."""
    from lmoe_tune.sweep import view

    where = resolve_home(home)
    rows = lt.list_sweeps(where, observer=Lines())
    if not rows and form == "table":
        say(f"no sweeps in {where}; start one with: {advice.search(home=where)}")
        return

    flat = [view.flattened(row) for row in rows]
    counts: Sequence[str] = COUNTS
    if form == "table":
        counts = ["unfinished" if name == "running" else name for name in COUNTS]
        flat = [
            row | {"started": _minute(row.get("started")), "unfinished": row.get("running")}
            for row in flat
        ]
    print_rows(flat, ("sweep", "state", "planned", *counts, "started"), form, rows)


def _minute(time: str | None) -> str | None:
    """A time here, as a person reads it."""
    if time is None:
        return None
    return datetime.fromisoformat(time).astimezone().replace(tzinfo=None).isoformat(" ", "minutes")


@app.command()
def status(
    name: NameArgument,
    form: FormatOption = "table",
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it up to date for as long as the sweep runs.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """How far along a sweep is."""
    from lmoe_tune.sweep import view

    where = resolve_home(home)
    if watch:
        if form != "table":
            raise UsageError("--watch does not go with --format: leave one of them out")
        with suppress(KeyboardInterrupt):  # which is how one stops looking
            _watch(where, name)
        return
    found = sweep_to_read(where, name).summary()
    flat = view.flattened(found)
    print_row(_in_words(flat) if form == "table" else flat, form, found)
    if form == "table":
        _say_openings(found["test_openings"])
        if found["state"] == "interrupted":
            say(f"to resume: {advice.resume(name, home=where)}")


def _in_words(flat: dict[str, Any]) -> dict[str, Any]:
    """The same with the word for trials that have not ended."""
    return {in_words(key, flat["state"]): value for key, value in flat.items()}


def _within_the_window(text: str) -> str:
    """As much as fits on the screen; `status` without --watch shows all of it."""
    columns, rows = shutil.get_terminal_size()
    return "\n".join(line[: columns - 1] for line in text.split("\n")[: rows - 2])


def _watch(home: Path, name: str) -> None:
    """Show a sweep's status until no process works on it; on a terminal in place, else a line
    whenever it changes.
    """
    from lmoe_tune.sweep import view

    sweep, before = sweep_to_read(home, name), ""
    while True:
        flat = _in_words(view.flattened(sweep.summary()))
        if sys.stdout.isatty():
            sys.stdout.write(f"\x1b[H\x1b[J{_within_the_window(as_lines(flat))}\n")
        else:
            keys = [in_words(key, flat["state"]) for key in ("state", *COUNTS)]
            line = ", ".join(f"{key} {shown(flat[key])}" for key in keys)
            if line != before:
                sys.stdout.write(f"{line}\n")
            before = line
        sys.stdout.flush()
        if flat["state"] != "running":
            return
        time.sleep(WATCHED_EVERY_S)


@app.command()
def leaderboard(name: NameArgument, form: FormatOption = "table", home: HomeOption = None) -> None:
    """All trials of a sweep, best first."""
    sweep = sweep_to_read(resolve_home(home), name)
    rows = sweep.leaderboard()
    _say_openings(sweep.test_openings)
    metrics = ("val_accuracy", "val_fine_auroc", "val_coarse_auroc")
    pareto = ("pareto",) if rows and "pareto" in rows[0] else ()
    flat = [
        row | row["params"] | {metric: row["metrics"].get(metric) for metric in metrics}
        for row in rows
    ]
    tied = ("tied",) if any(row["tied"] is not None for row in rows) else ()
    told = ("trial", "state", "value", *tied, *pareto, "feasible", *metrics, *sweep.spec.space)
    if form == "table":
        state = sweep.state
        flat = [row | {"state": in_words(row["state"], state)} for row in flat]
        print_rows(flat, (*told, "epochs"), form)
        _say_failures(rows)
    else:
        print_rows(flat, (*told, "epochs", "run_id"), form, rows)


def _say_failures(rows: Sequence[Mapping[str, Any]]) -> None:
    """Why trials failed: each reason once, with the trials that failed for it."""
    trials: dict[str, list[str]] = {}
    for row in rows:
        if row["failure"]:
            reason = row["failure"].strip().partition("\n")[0]
            trials.setdefault(reason, []).append(str(row["trial"]))

    for reason, numbers in trials.items():
        which = "trial" if len(numbers) == 1 else "trials"
        say(f"{which} {first_few(numbers)} failed: {printable(reason)}")


@app.command()
def best(name: NameArgument, form: FormatOption = "table", home: HomeOption = None) -> None:
    """The best trial: parameters, metrics, checkpoint, MLflow run and model."""
    from lmoe_tune.sweep import view

    sweep = sweep_to_read(resolve_home(home), name)
    found = sweep.summary()["best"]
    if found is None:
        view.refuse_without_best(sweep.ledger)
    _say_openings(sweep.test_openings)
    if found["checkpoint"] is None and not sweep.folder.repetition(found["trial"]).exists():
        say(view.without_weights(sweep.ledger, found["trial"]))
    if len(found["tied"]) > 1 and form != "json":
        others = [str(number) for number in found["tied"] if number != found["trial"]]
        say(
            f"of the trials whose scores are kept, trial {found['trial']} cannot be told apart from "
            f"trial{'s' if len(others) > 1 else ''} {', '.join(others)} on these validation images "
            "with this seed"
        )
    flat = {key: value for key, value in found.items() if key not in ("params", "metrics")}
    flat["tied"] = " ".join(map(str, found["tied"]))
    print_row(flat | found["params"] | found["metrics"], form, found)


@app.command()
def audit(name: NameArgument, form: FormatOption = "table", home: HomeOption = None) -> None:
    """Recompute every suggestion and pruning decision from the ledger; print one hash for a
    paper.
    """
    found = sweep_to_read(resolve_home(home), name).audit()
    row = asdict(found) | {"same": not found.differences}
    if form == "table":
        result = "all as recorded"
        if found.differences:
            result = f"{len(found.differences)} of them came out differently"
        typer.echo(
            f"{found.suggestions} suggestions and {found.decisions} decisions on pruning computed again, "
            f"{found.given} given in advance: {result}"
        )
        typer.echo(f"sha256  {found.digest}")
    else:
        print_row(row, form, row)
    for line in (*found.differences, *found.cautions):
        say(line)
    if found.differences:
        raise typer.Exit(1)


@app.command()
def ui(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The sweep to open; all of the home's by default."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port on this machine; 5000 or a free one by default."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Start MLflow's own UI on the home's records, on this machine only; with a name, on that
    sweep's comparison.
    """
    from lmoe_tune.api.sweeps import serve_ui

    raise typer.Exit(serve_ui(resolve_home(home), name, port, Lines()))


def sweep_to_read(home: Path, name: str) -> lt.Sweep:
    """The sweep, for a command that reads, answers and ends."""
    gc.disable()  # what is read stays until the end, so collecting garbage would find nothing
    return lt.open_sweep(name, home)


def _say_openings(openings: list[dict[str, Any]]) -> None:
    """Tell everyone who looks at a sweep that its test set has been opened."""
    if openings:
        say(openings_line(openings))
