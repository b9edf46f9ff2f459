"""Commands about the data: inspect, build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

import lmoe_tune as lt
from lmoe_tune.cli.lines import watching
from lmoe_tune.cli.options import (
    FormatOption,
    HomeOption,
    JsonOption,
    SetOption,
    SpecArgument,
    load_data,
    resolve_home,
)
from lmoe_tune.cli.output import print_json, print_rows, print_table, say, shown
from lmoe_tune.wording import counted, readable_size

app = typer.Typer(
    name="data", help="Inspect the data of a spec, and prepare them.", no_args_is_help=True
)


@app.callback()
def data() -> None:
    """Inspect the data of a spec, and prepare them."""


@app.command()
def inspect(
    spec: SpecArgument,
    form: FormatOption = "table",
    overrides: SetOption = None,
    home: HomeOption = None,
) -> None:
    """What is there: layouts, classes, images, splits; broken files, duplicates, leaks, and how
    to fix them."""
    described = load_data(spec, overrides, look_for_data=False)
    with watching() as observer:
        found = lt.inspect_data(described, home=resolve_home(home), observer=observer)
    splits = [{"split": name, **counts} for name, counts in found.splits.items()]
    if form == "table":
        _print(found, splits)
    else:
        print_rows(splits, SPLITS, form, found.document())
    if found.stops:
        raise typer.Exit(2)


@app.command()
def build(
    spec: SpecArgument,
    overrides: SetOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Decode the images of a search ahead of time; check those already decoded, and repair damaged
    ones.
    """
    with watching() as observer:
        built = lt.build_data(
            load_data(spec, overrides), home=resolve_home(home), observer=observer
        )
    if json:
        print_json(built)
        return

    new = "all of them decoded before"
    if built["decoded_now"]:
        new = f"{built['decoded_now']:,} of them decoded now"
    typer.echo(f"{built['images']:,} images, {built['size']}, in {built['folder']}: {new}")


COLUMNS = (
    "set", "dataset", "layout", "classes", "images", "size", "median pixels", "broken", "duplicates",
)  # fmt: skip


SPLITS = ("split", "classes", "images")


def _print(found: lt.Inspection, splits: Sequence[Mapping[str, Any]]) -> None:
    sets = [("id", found.id)]
    if found.outliers is not None:
        sets.append(("outliers", found.outliers))
    if found.val_coarse is not None:
        sets.append(("val_coarse", found.val_coarse))
    sets += [("coarse_ood", one) for one in found.coarse_ood["sets"]]
    print_table([[name, *_cells(one)] for name, one in sets], COLUMNS)
    if splits:
        typer.echo("")
        print_rows(splits, SPLITS, "table")

    for name, one in sets:
        if one.get("excluded"):
            typer.echo(f"\nleft out of {name}, {len(one['excluded'])} classes:")
            for class_ in one["excluded"]:
                typer.echo(f"  {class_}")

    for note in found.notes:
        say(f"note: {note}")
    for problem in found.problems:
        say(f"{'problem' if problem.stops else 'warning'}: {problem}")

    stopping = sum(problem.stops for problem in found.problems)
    if stopping:
        say(f"{counted(stopping, 'problem')}: a search would not start")
    else:
        typer.echo("\nfine: a search can start")


def _cells(one: dict[str, Any]) -> list[str]:
    size = pixels = None
    if "bytes" in one:
        size = readable_size(one["bytes"])
    if "median_pixels" in one:
        pixels = " x ".join(map(str, one["median_pixels"]))

    cells = [one.get(name) for name in ("dataset", "layout", "classes", "images")]
    counts = (len(one.get("broken", ())), one.get("duplicates", 0))
    return list(map(shown, [*cells, size, pixels, *counts]))
