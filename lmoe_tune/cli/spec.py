"""Commands about a spec and what may stand in it: init, check, methods, schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli.options import (
    FormatOption,
    HomeOption,
    SetOption,
    SpecArgument,
    load,
    resolve_home,
)
from lmoe_tune.cli.output import print_json, print_rows, say
from lmoe_tune.errors import UsageError

if TYPE_CHECKING:
    from lmoe_tune.sweep.warm_start import Source

app = typer.Typer()


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name, and the file's.")],
    space: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SPACE",
            help="The shipped space to copy; the one of this name by default, else 'folder'.",
        ),
    ] = None,
) -> None:
    """Write spaces/NAME.yaml, a commented spec to edit: a shipped search space, or one for your own
    images.
    """
    from lmoe_tune.spec.starter import write_starter

    path, chosen = write_starter(name, space)
    typer.echo(str(path))
    say(f"a copy of the search space '{chosen}'")

    if chosen == "digits":
        say(f"next: {advice.search(path)}")
    else:
        say(f"next: set each root in it to where your images are, then: {advice.inspect(path)}")


@app.command()
def check(spec: SpecArgument, overrides: SetOption = None, home: HomeOption = None) -> None:
    """Report every problem of a spec at once, what it leaves to defaults, and about what it costs;
    starts nothing.
    """
    from lmoe_tune.cost import estimate, in_words
    from lmoe_tune.memory_plan import memory_plan
    from lmoe_tune.spec.outliers import outliers_in_words
    from lmoe_tune.spec.searching import PRUNERS, SAMPLERS
    from lmoe_tune.sweep.points import num_points
    from lmoe_tune.sweep.remarks import remarks
    from lmoe_tune.sweep.warm_start import in_words as said_of_sources
    from lmoe_tune.training.platform import gpu_bytes, resolve_platform

    loaded = load(spec, overrides)
    found = loaded.spec
    sources = _sources(loaded, overrides or (), resolve_home(home))
    searched = ", ".join(found.space) or "nothing"
    if found.budget.trials:
        trials = f"{found.budget.trials} trials"
    else:
        trials = "as many trials as the budget allows"
    typer.echo(
        f"{loaded.path}: fine. {found.trainable} on {found.data.id.dataset}; searched: {searched}; {trials}"
    )
    if loaded.filled_in:
        typer.echo(f"filled in: {', '.join(loaded.filled_in)}")

    outliers = outliers_in_words(found)
    if outliers is not None:
        typer.echo(f"outliers: {outliers}")

    sampler, pruner = found.search.sampler, found.search.pruner
    typer.echo(f"sampler {sampler}: {SAMPLERS[sampler]}")
    typer.echo(f"pruner {pruner}: {PRUNERS[pruner]}")
    cost = estimate(found, num_points(found))
    num_images = cost.images if cost is not None else None
    for remark in remarks(found, loaded.given, num_images):
        typer.echo(f"note: {remark}")
    for line in said_of_sources(sources):
        typer.echo(line)
    _note_machine(found)

    plan = memory_plan(resolve_platform(found), loaded.folder)
    if plan is not None:
        typer.echo(f"memory: {plan.compared(gpu_bytes())}")

    if cost is not None:
        typer.echo(f"cost: {in_words(cost, found)}")


def _sources(loaded: lt.LoadedSpec, overrides: Sequence[str], home: Path) -> Sequence[Source]:
    """The points that the sweep would take from others, or took if it was started already.

    Raises SpecError with what a search would refuse although the spec is right in itself.
    """
    from lmoe_tune.data.inspection import problem_of_lists
    from lmoe_tune.spec import located
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.warm_start import would_take
    from trainables import declarations

    faults: dict[tuple[str | int, ...], str] = {}
    problem = problem_of_lists(loaded.spec.data)
    if problem is not None:
        faults[tuple(problem.where.split("."))] = f"{problem.what}. To fix it: {problem.fix}"

    sources: Sequence[Source] = ()
    try:
        sources = would_take(loaded.spec, SweepFolder(home, loaded.spec.name))
    except UsageError as error:
        faults["warm_start",] = str(error)

    if faults:
        raise located(loaded.path, faults, overrides=overrides, declarations=declarations())
    return sources


def _note_machine(spec: lt.Spec) -> None:
    """Say that no trial fits on this machine; it may on a cluster."""
    from lmoe_tune.sweep.readiness import machine_for

    try:
        machine_for(spec.resources)
    except UsageError as error:
        typer.echo(f"note: on this machine a search would be refused: {error}")


@app.command()
def methods(form: FormatOption = "table") -> None:
    """What each shipped trainable can tune."""
    from lmoe_tune.spec import SHARED_PARAMETERS
    from trainables import declarations

    rows = [
        {
            "method": declaration.name,
            "summary": declaration.summary,
            "parameter": parameter.name,
            "type": parameter.kind,
            "range": parameter.must_be(),
            "default": parameter.default,
            "help": parameter.help,
        }
        for declaration in declarations().values()
        for parameter in (*declaration.parameters, *SHARED_PARAMETERS)
    ]
    columns = ("parameter", "type", "range", "default", "help")
    if form != "table":
        print_rows(rows, ("method", *columns), form)
        return

    for declaration in declarations().values():
        typer.echo(f"{declaration.name}: {declaration.summary}")
        print_rows([row for row in rows if row["method"] == declaration.name], columns, form)
        typer.echo("")


@app.command()
def schema() -> None:
    """The JSON Schema of the search-space file, for editors."""
    from lmoe_tune.spec import json_schema

    print_json(json_schema())
