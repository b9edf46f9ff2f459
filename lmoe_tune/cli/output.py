"""Printing: data on stdout as a table, JSON or CSV; everything else on stderr."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import typer

from lmoe_tune.wording import duration

Row = dict[str, Any]


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    typer.echo(text, err=True)


def leave_at_once(code: int, text: str) -> None:
    """End the process with a last line on stderr, past everything that may hold a lock."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
    os._exit(code)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, default=str))


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    form: str,
    document: Any = None,
) -> None:
    """The named columns of rows on stdout, as table or CSV; as JSON the document, by default all
    that the rows hold.
    """
    if form == "json":
        print_json(list(rows) if document is None else document)
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(row.get, columns) for row in rows)
    else:
        print_table([cells_of(row, columns) for row in rows], columns)


def print_row(row: Mapping[str, Any], form: str, document: Any) -> None:
    """What there is once, on stdout: a line for each value; as JSON the document."""
    if form == "table":
        typer.echo(as_lines(row))
    else:
        print_rows([row], tuple(row), form, document)


def as_lines(row: Mapping[str, Any]) -> str:
    """A line for each value of a row."""
    width = max(map(len, row))
    return "\n".join(
        f"{key:{width}}  {duration(value) if key == 'wall_s' else shown(value)}"
        for key, value in row.items()
    )


def cells_of(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """The named columns of a row as a person reads them."""
    return [shown(row.get(column)) for column in columns]


def print_table(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """A plain table, as wide as it needs to be: it may be piped into other tools."""
    rows = [columns, *cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
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


def openings_line(openings: Sequence[Mapping[str, Any]]) -> str:
    """How often the sealed test set was opened, and by whom last."""
    if not openings:
        return "the sealed test set was never opened"

    last = openings[-1]
    when = datetime.fromtimestamp(last["time_ms"] / 1000).isoformat(" ", "minutes")
    times = "once, on" if len(openings) == 1 else f"{len(openings)} times, last on"
    return f"the sealed test set was opened {times} {when} by {last['who']}"


def params_line(params: Mapping[str, Any]) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())
