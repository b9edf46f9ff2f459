"""Printing: data on stdout as a table, JSON or CSV; everything else on stderr."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer

from lmoe_tune.cli.options import Format

Row = dict[str, Any]


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    typer.echo(text, err=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, default=str))


def print_rows(rows: Sequence[Row], columns: Sequence[str], form: Format) -> None:
    """Rows on stdout: all they hold as JSON, the named columns as table or CSV."""
    if form == "json":
        print_json(list(rows))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column) for column in columns] for row in rows)
        sys.stdout.write(text.getvalue())
    else:
        print_table([[shown(row.get(column)) for column in columns] for row in rows], columns)


def print_table(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """A plain table, as wide as it needs to be: it may be piped into other tools."""
    widths = [
        max(len(column), *(len(row[place]) for row in cells), 0)
        for place, column in enumerate(columns)
    ]
    lines = []
    for row in [columns, *cells]:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    typer.echo("\n".join(lines))


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        if value:
            return "yes"

        return "no"
    if isinstance(value, float):
        return f"{value:.4g}"

    return str(value)


def openings_line(openings: list[dict[str, Any]]) -> str:
    """How often the sealed test set was opened, and by whom last."""
    if not openings:
        return "the sealed test set was never opened"

    last = openings[-1]
    when = datetime.fromtimestamp(last["time_ms"] / 1000).isoformat(" ", "minutes")
    if len(openings) == 1:
        times = "once"
    else:
        times = f"{len(openings)} times"

    return f"the sealed test set was opened {times}, {'' if len(openings) == 1 else 'last '}on {when} by {last['who']}"


def params_line(params: Row) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())
