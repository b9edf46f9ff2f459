"""Commands that work on a sweep or a trial: search, resume, train, sync."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmoe_tune import advice
from lmoe_tune.cli.data import reading_progress
from lmoe_tune.cli.options import (
    HomeOption,
    JsonOption,
    NameArgument,
    OptionalNameArgument,
    SetOption,
    SpecArgument,
    find_unfinished,
    load,
    resolve_home,
)
from lmoe_tune.cli.output import openings_line, params_line, print_json, say, shown
from lmoe_tune.errors import StorageError, TrackingError
from lmoe_tune.wording import duration

if TYPE_CHECKING:
    from lmoe_tune.spec import Spec
    from lmoe_tune.sweep.budget import BudgetChange
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.ledger import Ledger
    from lmoe_tune.sweep.runner import Outcome

app = typer.Typer()

INTERRUPTED = 130
TOO_MANY_FAILED = 3

TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time", metavar="8h", help="Wall time of the sweep, added up over resumes: 90s, 30m, 8h."
    ),
]
GpuHoursOption = Annotated[
    float | None, typer.Option("--gpu-hours", metavar="H", min=0, help="GPU-hours of all trials.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="A",
        help="A Ray cluster to join (else RAY_ADDRESS, else this machine).",
    ),
]


ChangesOption = Annotated[
    bool,
    typer.Option(
        "--allow-changes", help="Go on although spec, code or data changed; the sweep records it."
    ),
]


@app.command()
def search(
    spec: SpecArgument,
    name: Annotated[
        str | None, typer.Option(help="The sweep's name; the spec's by default.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of trials in all.")
    ] = None,
    time: TimeOption = None,
    gpu_hours: GpuHoursOption = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew; the old sweep is kept aside.")
    ] = False,
    allow_changes: ChangesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run; start nothing.")
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Start a sweep, or resume the unfinished one of that name."""
    from lmoe_tune.sweep.budget import BudgetChange, change_of
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.lifecycle import prepare

    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours)
    loaded = load(spec, overrides, name=name, bounded=change != BudgetChange())
    if dry_run:
        from lmoe_tune.cli.preview import preview

        preview(loaded.spec, change, resolve_home(home), as_json=json)
        return
    folder = SweepFolder(resolve_home(home), loaded.spec.name)
    ready, changed = prepare(
        folder, loaded, fresh=fresh, allow_changes=allow_changes, say=reading_progress()
    )
    _work(
        folder,
        ready,
        loaded.path.resolve().parent,
        change,
        changed=changed,
        allow_changes=allow_changes,
        address=address,
        as_json=json,
    )


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
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Continue an interrupted sweep, or extend a finished one. Needs no spec."""
    from lmoe_tune.sweep.budget import BudgetChange, change_of
    from lmoe_tune.sweep.view import read_spec

    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours, max_failed=max_failed)
    folder = find_unfinished(
        resolve_home(home), name, extending=change != BudgetChange() or retry_failed
    )
    _work(
        folder,
        read_spec(folder),
        None,
        change,
        retry_failed=retry_failed,
        allow_changes=allow_changes,
        address=address,
        as_json=json,
    )


@app.command()
def train(
    spec: SpecArgument,
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="P.yaml", help="Parameters; the defaults otherwise."),
    ] = None,
    overrides: SetOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Train one trial, without Ray; interrupted, the same command continues it."""
    from lmoe_tune.cli.single import train_one

    loaded = load(spec, overrides)
    train_one(loaded, params, resolve_home(home), as_json=json)


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
    from lmoe_tune.cli.report import deliver_report
    from lmoe_tune.sweep import projector, view
    from lmoe_tune.sweep.folder import find_sweep, parts_of
    from lmoe_tune.sweep.ledger import Ledger
    from lmoe_tune.sweep.tracked import address as address_of
    from lmoe_tune.tracking import absolute
    from lmoe_tune.tracking import shown as shown_uri

    folder = find_sweep(resolve_home(home), name)
    spec = view.read_spec(folder)
    uri = address_of(folder, spec)
    if tracking_uri is not None:
        uri = absolute(tracking_uri, Path.cwd())
    delivered = True
    for part in (folder, *parts_of(folder)):
        with part.locked():
            delivered = delivered and projector.sync(
                Ledger.writing(part, view.read_spec(part)), uri, say
            )
    if delivered:
        delivered = deliver_report(folder, uri)
    if not delivered:
        raise TrackingError(
            f"MLflow at {shown_uri(uri)} could not be reached; nothing is lost, try again later"
        )
    say(f"MLflow at {shown_uri(uri)} has everything of '{name}'")


def _work(
    folder: SweepFolder,
    spec: Spec,
    import_path: Path | None,
    change: BudgetChange,
    *,
    address: str | None,
    as_json: bool,
    retry_failed: bool = False,
    changed: Sequence[str] = (),
    allow_changes: bool = False,
) -> None:
    from lmoe_tune.cli.decoding import decode_ahead
    from lmoe_tune.cli.progress import watching
    from lmoe_tune.sweep import projector, view
    from lmoe_tune.sweep.budget import Budget, how_to_extend, refuse_useless
    from lmoe_tune.sweep.ledger import Ledger
    from lmoe_tune.sweep.lifecycle import first_attrs, settle, write_records
    from lmoe_tune.sweep.rebuild import behind, write_about
    from lmoe_tune.sweep.runner import run_sweep
    from lmoe_tune.sweep.tracked import address as address_of

    uri = address_of(folder, spec)
    if not folder.exists():
        _refuse_closed_store(uri, spec)  # before anything is made
    with _interruptible(folder), folder.locked():
        if not folder.exists():
            write_records(folder, spec)
        first = first_attrs(spec, change, import_path, folder.home) if import_path else None
        ledger = Ledger.writing(folder, spec, first)
        spec_budget = Budget.of(spec) if import_path else None
        if spec_budget is None and not (retry_failed and ledger.standing.failed):
            refuse_useless(
                change, ledger.budget, ledger.usage(), ledger.num_points, folder.name, folder.home
            )
        import_path = import_path or Path(ledger.attrs.get("import_path", Path.cwd()))
        settle(
            ledger,
            change,
            spec_budget=spec_budget,
            import_path=import_path,
            spec_changes=changed,
            allow_changes=allow_changes,
        )
        ledger.set_attr("import_path", str(import_path))
        write_records(folder, spec)
        write_about(ledger)
        if (lacking := behind(ledger)) is not None:
            say(f"{lacking}; those epochs are done again")
        if retry_failed:
            more = ledger.retry_failed()
            say(f"{more} failed trial{'s' if more != 1 else ''} to be tried once more")
        if ledger.is_complete():
            if not view.is_delivered(ledger) and not projector.deliver_rest(ledger, uri, say):
                _say_missing(folder)
            if as_json:
                print_json(view.summary(ledger))
            else:
                used = ledger.exhausted()
                assert used is not None
                how = how_to_extend(used, folder.name, folder.home)
                say(f"the sweep '{folder.name}' is complete: {used}; {how}")
                _print_summary(ledger, None)
            raise typer.Exit(_exit_code(ledger))
        _refuse_closed_store(uri, spec)
        started = ledger.num_started()
        planned = f" of {ledger.budget.trials}" if ledger.budget.trials else ""
        verb = "resuming" if started else "starting"
        say(
            f"{verb} the sweep '{folder.name}' in {folder.path} ({started}{planned} trials started)"
        )
        if (
            address is None or spec.data.cache_dir is None
        ):  # else each node of the cluster decodes for itself
            decode_ahead(spec.data, folder.home)
        with watching(ledger) as progress:
            outcome = run_sweep(
                ledger,
                progress,
                import_path=import_path,
                address=address,
                tracking_uri=uri,
            )
        if as_json:
            print_json(view.summary(ledger) | {"state": outcome.state})
        else:
            _print_summary(ledger, outcome)
        if not outcome.delivered:
            _say_missing(folder)
        if outcome.state == "interrupted":
            raise KeyboardInterrupt
        raise typer.Exit(_exit_code(ledger))


def _say_missing(folder: SweepFolder) -> None:
    say(
        f"MLflow does not have everything yet; the next run delivers it, or: lmoe-tune sync {folder.name}"
    )


def _refuse_closed_store(uri: str, spec: Spec) -> None:
    """Start nothing whose results MLflow would refuse; one that is only away gets them later."""
    from lmoe_tune.tracking import refuse_closed

    caution = refuse_closed(uri, spec.tracking.experiment or spec.name)
    if caution is not None:
        say(caution)


@contextmanager
def _interruptible(folder: SweepFolder) -> Iterator[None]:
    """End with how to resume, whatever moment of the block an interrupt came in."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; to resume: {advice.resume(folder.name, home=folder.home)}")
        raise typer.Exit(INTERRUPTED) from None
    except StorageError as error:
        if not folder.exists():
            raise
        again = advice.resume(folder.name, home=folder.home)
        raise StorageError(f"{error}; to go on then: {again}") from error


def _print_summary(ledger: Ledger, outcome: Outcome | None) -> None:
    from lmoe_tune.sweep import view

    summary = view.summary(ledger)
    counts = summary["trials"]
    parts = [f"{counts[state]} {state}" for state in ("complete", "pruned", "failed")]
    parts += [f"{counts['running']} unfinished"] if counts["running"] else []
    typer.echo(f"{', '.join(parts)}; {duration(summary['wall_s'])} in all")
    best: dict[str, Any] | None = summary["best"]
    if best is None:
        typer.echo("no complete trial yet")
    else:
        note = (
            ""
            if best["feasible"]
            else "  (no trial meets the constraints; this one misses them least)"
        )
        typer.echo(
            f"best: trial {best['trial']}, {ledger.spec.objective.metric} {shown(best['value'])}{note}"
        )
        typer.echo(f"  parameters  {params_line(best['params'])}")
        chosen = (
            "val_accuracy",
            "val_fine_auroc",
            "val_coarse_auroc",
            "val_fine_tnr95",
            "val_coarse_tnr95",
        )
        typer.echo(
            f"  metrics     {params_line({key: best['metrics'].get(key) for key in chosen})}"
        )
        if "pareto_front" in summary:
            typer.echo(f"Pareto front of {', '.join(ledger.spec.objective.metrics)}:")
            for trial in ledger.pareto_front():
                values = dict(zip(ledger.spec.objective.metrics, trial.values, strict=True))
                typer.echo(f"  trial {trial.number:<4}  {params_line(values)}")
        if best["checkpoint"]:
            typer.echo(f"  checkpoint  {best['checkpoint']}")
        if best["model_id"]:
            typer.echo(f"  model       models:/{best['model_id']}")
    typer.echo(f"MLflow: {summary['tracking_uri']}")
    if summary["test_openings"]:
        say(openings_line(summary["test_openings"]))
    if outcome is None or outcome.state == "complete":
        name = summary["sweep"]
        typer.echo(
            f"next: lmoe-tune confirm {name} | lmoe-tune leaderboard {name} | lmoe-tune resume {name} --trials +8"
        )


def _exit_code(ledger: Ledger) -> int:
    from lmoe_tune.sweep.budget import exceeded

    complete = ledger.standing.counts["complete"]
    return TOO_MANY_FAILED if exceeded(ledger.usage(), ledger.budget, complete) else 0
