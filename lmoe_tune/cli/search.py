"""Commands that work on a sweep or a trial: search, resume, train, prune-checkpoints, sync."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli.lines import Lines, watching
from lmoe_tune.cli.options import (
    HomeOption,
    JsonOption,
    NameArgument,
    OptionalNameArgument,
    SetOption,
    SpecArgument,
    load,
    resolve_home,
)
from lmoe_tune.cli.output import (
    leave_at_once,
    openings_line,
    params_line,
    print_json,
    say,
    shown,
)
from lmoe_tune.errors import UsageError
from lmoe_tune.wording import counted, duration, first_few, readable_size

if TYPE_CHECKING:
    from lmoe_tune.sweep.settings import RunSettings

app = typer.Typer()

INTERRUPTED = 130
TOO_MANY_FAILED = 3
SUMMARIZED = (
    "val_accuracy", "val_fine_auroc", "val_coarse_auroc", "val_fine_tnr95", "val_coarse_tnr95",
)  # fmt: skip

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="A",
        help="A Ray cluster to join (else RAY_ADDRESS, else this machine).",
    ),
]


WaitOption = Annotated[
    str | None,
    typer.Option(
        "--wait-for-lock",
        metavar="10m",
        help="How long to wait for another process that works on the sweep.",
    ),
]
ChangesOption = Annotated[
    bool,
    typer.Option(
        "--allow-changes",
        help="Continue although spec, code or data changed; the sweep records it.",
    ),
]


@app.command()
def search(
    spec: SpecArgument,
    name: Annotated[
        str | None, typer.Option(help="The sweep's name; the spec's by default.")
    ] = None,
    trials: Annotated[
        str | None, typer.Option(metavar="N", help="Number of trials in all, or +N for N more.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="8h", help="Wall time of the sweep, added up over resumes: 90s, 30m, 8h."
        ),
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(metavar="H", min=0, help="GPU-hours of all trials.")
    ] = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again; the old sweep is set aside.")
    ] = False,
    allow_changes: ChangesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run; start nothing.")
    ] = False,
    wait_for_lock: WaitOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Start a sweep, or resume the unfinished one of that name."""
    from lmoe_tune.api import running
    from lmoe_tune.sweep.budget import BudgetChange, change_of

    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours)
    settings = _settings(address, wait_for_lock, allow_changes=allow_changes)
    loaded = load(spec, overrides, name=name, bounded=change != BudgetChange())
    where = resolve_home(home)
    if dry_run:
        from lmoe_tune.api.dry_run import foreseen
        from lmoe_tune.cli.dry_run import print_preview

        found = foreseen(loaded, change, where, fresh=fresh, allow_changes=allow_changes)
        if json:
            print_json(found.document())
        else:
            print_preview(found)
        return

    with watching() as observer:
        watched = replace(settings, observer=observer)
        sweep = running.start(loaded, where, change, watched, fresh=fresh)
    raise typer.Exit(_conclude(sweep, as_json=json))


@app.command()
def resume(
    name: OptionalNameArgument = None,
    trials: Annotated[
        str | None, typer.Option(metavar="+N", help="Extend by N trials, or to N in all.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="+T", help="Extend by a time (+2h), or to 8h in all.")
    ] = None,
    gpu_hours: Annotated[
        str | None, typer.Option(metavar="+H", help="Extend by H GPU-hours, or to H in all.")
    ] = None,
    max_failed: Annotated[
        str | None, typer.Option(metavar="+N", help="Allow N more failed trials, or N in all.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed trials once more.")
    ] = False,
    allow_changes: ChangesOption = False,
    address: AddressOption = None,
    wait_for_lock: WaitOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Continue an interrupted sweep, or extend a finished one. Needs no spec."""
    from lmoe_tune.api import running
    from lmoe_tune.api.sweeps import latest_sweep
    from lmoe_tune.sweep.budget import BudgetChange, change_of
    from lmoe_tune.sweep.folder import find_sweep

    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours, max_failed=max_failed)
    settings = _settings(address, wait_for_lock, allow_changes=allow_changes)
    where = resolve_home(home)
    if name is None:
        extending = retry_failed or change != BudgetChange()
        folder = latest_sweep(where, unfinished=not extending)
    else:
        folder = find_sweep(where, name)

    with watching() as observer:
        watched = replace(settings, observer=observer)
        sweep = running.resume(folder, change, watched, retry_failed=retry_failed)
    raise typer.Exit(_conclude(sweep, as_json=json))


@app.command()
def train(
    spec: SpecArgument,
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="P.yaml", help="Parameters; the defaults otherwise."),
    ] = None,
    overrides: SetOption = None,
    trial_number: Annotated[
        int | None,
        typer.Option(
            "--trial",
            metavar="N",
            min=0,
            help="Repeat this trial of a sweep; SPEC is then the sweep's name.",
        ),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Train one trial, without Ray; interrupted, the same command continues it."""
    from lmoe_tune.api import one_trial

    if trial_number is not None:
        if params is not None or overrides:
            raise UsageError(
                "--trial takes everything from the sweep: leave out --params and --set"
            )
        _repeat(spec, trial_number, resolve_home(home), as_json=json)
        return
    loaded = load(spec, overrides)
    with watching() as observer:
        trial = one_trial.train(loaded, params, home=resolve_home(home), observer=observer)
        found = trial.spec
        say(
            f"{found.trainable} on {found.data.id.dataset}, {found.train.device}, "
            f"{found.train.precision}; records in {trial.folder}"
        )
        if trial.num_epochs >= found.train.epochs:
            say("it is trained already; to train it again, remove that folder")
        named = ("train_loss", "val_accuracy", found.objective.metric)
        for result in trial:
            chosen = {key: result.metrics.get(key) for key in named}
            say(f"epoch {result.epoch}/{found.train.epochs}: {params_line(chosen)}")

    if json:
        print_json(
            {
                "trainable": trial.method,
                "params": trial.params,
                "epochs": trial.num_epochs,
                "metrics": trial.metrics,
                "folder": str(trial.folder),
                "checkpoint": trial.checkpoint,
            }
        )
        return
    for key, value in trial.metrics.items():
        typer.echo(f"{key:24}  {shown(value)}")


def _repeat(name: str, number: int, home: Path, *, as_json: bool) -> None:
    from lmoe_tune.api import one_trial

    ledger = lt.open_sweep(name, home).ledger
    recorded = one_trial.recorded_trial(ledger, number)
    total, metric = len(recorded.epochs), ledger.spec.objective.metric
    was = {epoch.epoch: shown(epoch.metrics[metric]) for epoch in recorded.epochs}
    with watching() as observer:
        trial = one_trial.repeat(ledger, number, observer=observer)
        for result in trial:
            now = shown(result.metrics.get(metric))
            say(f"epoch {result.epoch}/{total}: {metric} {now}, was {was[result.epoch]}")
            if result.epoch >= total:
                break  # it was pruned there

    differing = one_trial.differences(recorded, trial.epochs)
    if as_json:
        document = {"sweep": name, "trial": number, "epochs": total, "same": not differing}
        print_json(document | {"differences": differing, "folder": str(trial.folder)})
        return
    if not differing:
        typer.echo(f"trial {number}: the same in all {total} epochs, to the last bit")
        say(f"its weights: {trial.checkpoint}; export takes them where the sweep has kept none")
        return
    typer.echo(f"trial {number}: not the same; the largest distance by metric:")
    for key, distance in sorted(differing.items()):
        typer.echo(f"  {key:24}  {distance:.3g}")


@app.command("prune-checkpoints")
def prune_checkpoints(
    name: NameArgument,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            metavar="K",
            min=0,
            help="How many of the best trials keep theirs; tracking.best_checkpoints by default.",
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Delete checkpoints that nothing needs any more, and say what was kept."""
    from lmoe_tune.sweep import view

    sweep = lt.open_sweep(name, resolve_home(home))
    freed = sweep.prune_checkpoints(keep)
    what = f"the checkpoints of {counted(len(freed.removed), 'trial')}"
    if freed.num_bytes and not freed.removed:
        what = "earlier checkpoints of trials that keep their last"
    typer.echo(f"freed {readable_size(freed.num_bytes)}: {what}")
    for what, numbers in (
        ("of the best trials", freed.best),
        ("to continue from", freed.unfinished),
    ):
        if numbers:
            typer.echo(f"kept {what}: trial {first_few(map(str, numbers))}")
    if sweep.best is not None and sweep.checkpoint(sweep.best.number) is None:
        say(view.without_weights(sweep.ledger, sweep.best.number))


@app.command()
def sync(
    name: NameArgument,
    tracking_uri: Annotated[
        str | None,
        typer.Option("--tracking-uri", metavar="U", help="Another server to rebuild the sweep on."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Deliver to MLflow what it does not have yet; with another server, the whole sweep."""
    server = lt.open_sweep(name, resolve_home(home)).sync(tracking_uri, observer=Lines())
    say(f"MLflow at {server} has everything about '{name}'")


def _settings(address: str | None, wait: str | None, *, allow_changes: bool) -> RunSettings:
    from lmoe_tune.sweep.budget import seconds
    from lmoe_tune.sweep.settings import RunSettings

    return RunSettings(
        allow_changes=allow_changes,
        address=address,
        wait_s=seconds(wait, "--wait-for-lock"),
        leave=leave_at_once,
    )


def _conclude(sweep: lt.Sweep, *, as_json: bool) -> int:
    """Print how a run of a sweep ended; returns the exit code."""
    summary = sweep.summary()
    if as_json:
        print_json(summary)
    else:
        _print_summary(sweep, summary)
    if sweep.state != "complete":
        say(f"interrupted; to resume: {advice.resume(sweep.name, home=sweep.folder.home)}")
        return INTERRUPTED
    if sweep.too_many_failed:
        return TOO_MANY_FAILED

    return 0


def _print_summary(sweep: lt.Sweep, summary: dict[str, Any]) -> None:
    counts = summary["trials"]
    parts = [f"{counts[state]} {state}" for state in ("complete", "pruned", "failed")]
    parts += [f"{counts['running']} unfinished"] if counts["running"] else []
    typer.echo(f"{', '.join(parts)}; {duration(summary['wall_s'])} in all")
    if summary["best"] is None:
        typer.echo("no complete trial yet")
    else:
        _print_best(sweep, summary["best"])

    typer.echo(f"MLflow: {summary['tracking_uri']}")
    typer.echo(f"compare the trials: {summary['comparison']}")
    if summary["test_openings"]:
        say(openings_line(summary["test_openings"]))
    if sweep.state == "complete" and (offered := _what_works_now(sweep)):
        typer.echo(f"next: {' | '.join(offered)}")


def _what_works_now(sweep: lt.Sweep) -> list[str]:
    """What to type next for a complete sweep."""
    from lmoe_tune.confirmation.plan import has_defaults

    name, home = sweep.name, sweep.folder.home
    used, found = sweep.ledger.exhausted(), list[str]()
    if sweep.best is not None and not has_defaults(sweep.ledger, sweep.best):
        found.append(advice.confirm(name, home=home))  # with the defaults there is no gain
    if sweep.trials:
        found.append(advice.leaderboard(name, home=home))
    if sweep.best is None and sweep.ledger.standing.failed:  # others would fail as well
        found.append(advice.resume(name, retry_failed=True, home=home))
    elif used is not None and used.extended_by is not None:
        found.append(advice.resume(name, **used.extended_by, home=home))
    return found


def _print_best(sweep: lt.Sweep, best: dict[str, Any]) -> None:
    objective = sweep.spec.objective
    note = ""
    if not best["feasible"]:
        note = "  (no trial meets the constraints; this one misses them least)"
    typer.echo(f"best: trial {best['trial']}, {objective.metric} {shown(best['value'])}{note}")
    typer.echo(f"  parameters  {params_line(best['params'])}")
    chosen = {name: best["metrics"].get(name) for name in SUMMARIZED}
    typer.echo(f"  metrics     {params_line(chosen)}")

    if len(objective.metrics) > 1:
        typer.echo(f"Pareto front of {', '.join(objective.metrics)}:")
        for trial in sweep.ledger.pareto_front():
            values = dict(zip(objective.metrics, trial.values, strict=True))
            typer.echo(f"  trial {trial.number:<4}  {params_line(values)}")
    if best["checkpoint"]:
        typer.echo(f"  checkpoint  {best['checkpoint']}")
    if best["model_id"]:
        typer.echo(f"  model       models:/{best['model_id']}")
