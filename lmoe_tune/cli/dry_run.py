"""How `search --dry-run` is shown."""

from __future__ import annotations

import typer

from lmoe_tune.api.dry_run import DryRun
from lmoe_tune.cli.output import cells_of, print_table, shown
from lmoe_tune.spec import METHOD
from lmoe_tune.sweep.warm_start import in_words


def print_preview(found: DryRun) -> None:
    """Print what a sweep would do."""
    spec, machine, trials = found.spec, found.machine, found.trials or "unlimited"
    methods: tuple[object, ...] = (spec.trainable,)
    if METHOD in spec.space:
        methods = tuple(spec.space[METHOD].choices or ())

    typer.echo(
        f"{', '.join(map(str, methods))} on {spec.data.id.dataset}: {trials} trials of {spec.train.epochs} epochs"
    )
    typer.echo(
        f"slots: {found.slots} at a time on this machine ({machine.cpus:g} CPUs, {machine.gpus:g} GPUs)"
    )
    compiled = ", compiled" if spec.train.compile else ""
    typer.echo(
        f"device {spec.train.device}, precision {spec.train.precision}{compiled}, "
        f"{spec.train.threads} thread(s) a trial"
    )
    if any(found.started.values()):
        counts = dict(found.started)
        counts["unfinished"] = counts.pop("running")
        started = ", ".join(f"{count} {state}" for state, count in counts.items())
        left = "" if found.left is None else f"; {found.left} left to train"
        typer.echo(f"started already: {started}{left}")
    if found.complete is not None:
        typer.echo(found.complete)
        return

    sampler = f"sampler {spec.search.sampler}, seed {spec.search.seed}"
    typer.echo(f"\nnext configurations (later ones depend on results; {sampler}):")
    columns = list(spec.space)
    following = zip(found.numbers, found.configurations, strict=True)
    rows = [[str(number), *cells_of(row, columns)] for number, row in following]
    print_table(rows, ["trial", *columns])
    for line in in_words(found.sources):
        typer.echo(line)
    if found.memory is not None:
        typer.echo(f"\nmemory: {found.memory}")
    typer.echo("\ncost, without pruning:")
    for key, value in found.cost.items():
        typer.echo(f"  {key:28} {f'{value:,}' if isinstance(value, int) else shown(value)}")
