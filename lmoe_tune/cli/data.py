"""Commands about the data: inspect, build."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from lmoe_tune.cli.options import (
    FormatOption,
    HomeOption,
    JsonOption,
    SetOption,
    SpecArgument,
    checked_format,
    load_data,
    resolve_home,
)
from lmoe_tune.cli.output import print_json, print_table, say, shown
from lmoe_tune.wording import readable_size

if TYPE_CHECKING:
    from lmoe_tune.data.inspection import Inspection

app = typer.Typer(
    name="data", help="Look at the data of a spec, and prepare them.", no_args_is_help=True
)


@app.callback()
def data() -> None:
    """Look at the data of a spec, and prepare them."""


@app.command()
def inspect(
    spec: SpecArgument,
    form: FormatOption = "table",
    overrides: SetOption = None,
    home: HomeOption = None,
) -> None:
    """What is there: layouts, classes, images, splits; broken files, duplicates, leaks, and how
    to fix them."""
    from lmoe_tune.cli.progress import watching
    from lmoe_tune.data.inspection import inspect as inspect_data

    chosen = checked_format(form)
    described = load_data(spec, overrides, look_for_data=False)
    with watching() as observer:
        found = inspect_data(described, resolve_home(home), observer.on_work)
    if chosen == "json":
        print_json(found.document())
    elif chosen == "csv":
        sys.stdout.write("split,classes,images\n")
        for name, counts in found.splits.items():
            sys.stdout.write(f"{name},{counts['classes']},{counts['images']}\n")
    else:
        _print(found)
    if found.stops:
        raise typer.Exit(2)


@app.command()
def build(
    spec: SpecArgument,
    overrides: SetOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Decode the images of a search ahead; check those that are decoded, and mend damaged ones."""
    from lmoe_tune.cli.decoding import build as build_cache
    from lmoe_tune.cli.progress import watching

    with watching() as observer:
        built = build_cache(load_data(spec, overrides), resolve_home(home), observer)
    if json:
        print_json(built)
        return
    new = (
        f"{built['decoded_now']:,} of them decoded now"
        if built["decoded_now"]
        else "all of them decoded before"
    )
    typer.echo(f"{built['images']:,} images, {built['size']}, in {built['folder']}: {new}")


def _print(found: Inspection) -> None:
    sets = [("id", found.id)]
    if found.outliers is not None:
        sets.append(("outliers", found.outliers))
    if found.val_coarse is not None:
        sets.append(("val_coarse", found.val_coarse))
    sets += [("coarse_ood", one) for one in found.coarse_ood["sets"]]
    columns = (
        "set",
        "dataset",
        "layout",
        "classes",
        "images",
        "size",
        "median pixels",
        "broken",
        "duplicates",
    )
    print_table([[name, *_cells(one)] for name, one in sets], columns)
    if found.splits:
        typer.echo("")
        print_table(
            [
                [name, shown(one["classes"]), shown(one["images"])]
                for name, one in found.splits.items()
            ],
            ("split", "classes", "images"),
        )
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
        say(f"{stopping} problem{'s' if stopping != 1 else ''}: a search would not start")
    else:
        typer.echo("\nfine: a search can start")


def _cells(one: dict[str, Any]) -> list[str]:
    width, height = one.get("median_pixels", (None, None))
    cells = [one.get("dataset"), one.get("layout"), one.get("classes"), one.get("images")]
    return [
        *map(shown, cells),
        readable_size(one["bytes"]) if "bytes" in one else "-",
        f"{width} x {height}" if width is not None else "-",
        shown(len(one.get("broken", ()))),
        shown(one.get("duplicates", 0)),
    ]
