"""The command that opens the sealed test set: confirm."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmoe_tune.cli.options import (
    Format,
    FormatOption,
    HomeOption,
    NameArgument,
    checked_format,
    resolve_home,
)
from lmoe_tune.cli.output import openings_line, print_json, print_table, say, shown
from lmoe_tune.cli.progress import Lines
from lmoe_tune.cli.run import INTERRUPTED, TOO_MANY_FAILED, AddressOption, ChangesOption
from lmoe_tune.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from lmoe_tune.confirmation.job_ledger import JobLedger
    from lmoe_tune.confirmation.plan import Candidate, Plan
    from lmoe_tune.records import TrialRecord
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.ledger import Ledger

app = typer.Typer()

SHOWN = (
    "test_auroc", "test_fine_auroc", "test_coarse_auroc", "test_fine_tnr95", "test_coarse_tnr95", "test_accuracy",
)  # fmt: skip


@app.command()
def confirm(
    name: NameArgument,
    top: Annotated[
        int, typer.Option(metavar="K", help="How many of the best trials to train again.")
    ] = 3,
    seeds: Annotated[int, typer.Option(metavar="N", help="Fresh seeds for each; at least 2.")] = 5,
    splits: Annotated[
        str | None, typer.Option(metavar="0,1,…", help="Splits of the data; the spec's by default.")
    ] = None,
    tuned_comparators: Annotated[
        bool,
        typer.Option(
            "--tuned-comparators",
            help="Tune the other methods too, each with the search's own budget.",
        ),
    ] = False,
    allow_unfinished: Annotated[
        bool, typer.Option("--allow-unfinished", help="Go on although the search is not complete.")
    ] = False,
    allow_changes: ChangesOption = False,
    address: AddressOption = None,
    form: FormatOption = "table",
    home: HomeOption = None,
) -> None:
    """Is the winner real? Train the best trials and the untuned methods anew, and open the sealed test set."""
    from lmoe_tune.sweep.folder import find_sweep

    chosen, split_numbers = checked_format(form), _splits(splits)
    if top < 1:
        raise UsageError(f"--top is {top}, but must be at least 1")
    if seeds < 2:
        raise UsageError(
            f"--seeds is {seeds}, but must be at least 2: one run says nothing of luck (5 are better)"
        )
    folder = find_sweep(resolve_home(home), name)
    command = ["lmoe-tune", "confirm", name, "--top", str(top), "--seeds", str(seeds)]
    command += ["--splits", ",".join(map(str, split_numbers))] if split_numbers else []
    command += ["--tuned-comparators"] if tuned_comparators else []
    command += ["--allow-unfinished"] if allow_unfinished else []
    try:
        document = _confirm(
            folder,
            top=top,
            seeds=seeds,
            splits=split_numbers,
            tuned=tuned_comparators,
            command=shlex.join(command),
            allow_unfinished=allow_unfinished,
            allow_changes=allow_changes,
            address=address,
        )
    except KeyboardInterrupt:
        say(f"interrupted; to go on: {shlex.join(command)}")
        raise typer.Exit(INTERRUPTED) from None
    _print(document, chosen)
    raise typer.Exit(TOO_MANY_FAILED if document["failed"] else 0)


def _confirm(
    folder: SweepFolder,
    *,
    top: int,
    seeds: int,
    splits: tuple[int, ...] | None,
    tuned: bool,
    command: str,
    allow_unfinished: bool,
    allow_changes: bool,
    address: str | None,
) -> dict[str, Any]:
    from pathlib import Path

    from lmoe_tune.confirmation.job_ledger import JobLedger
    from lmoe_tune.confirmation.plan import make_plan
    from lmoe_tune.confirmation.result import conclude, write_result
    from lmoe_tune.sweep import view
    from lmoe_tune.sweep.ledger import Ledger

    with folder.locked(), folder.confirmation.locked():
        sweep = Ledger.writing(folder, view.read_spec(folder))
        import_path = Path(sweep.attrs.get("import_path", Path.cwd()))
        notes = _refuse_unfinished(sweep, allow_unfinished)
        more = (
            _tune(sweep, import_path, command, allow_changes=allow_changes, address=address)
            if tuned
            else []
        )
        plan = make_plan(sweep, import_path, top=top, num_seeds=seeds, splits=splits, tuned=more)
        for note in plan.notes:
            say(note)
        study = JobLedger(sweep, import_path)
        if not study.is_done(plan):
            _work(study, plan, command, import_path, allow_changes=allow_changes, address=address)
        result = conclude(study, plan, import_path, notes=notes)
        write_result(study, result)
        document = result.to_json()
        _deliver(study, document)
        return document


def _deliver(study: JobLedger, document: dict[str, Any]) -> None:
    """Have MLflow show the verdict, and whatever a killed run left undelivered."""
    from lmoe_tune.sweep import projector, view
    from lmoe_tune.sweep.tracked import address as address_of

    found = {"verdict": document["verdict"], "verdict_sentence": document["sentence"]}
    is_news = any(study.ledger.attrs.get(key) != value for key, value in found.items())
    study.ledger.set_attrs(found)
    if is_news or not view.is_delivered(study.ledger):
        uri = address_of(study.folder, study.ledger.spec)
        if not projector.deliver_rest(study.ledger, uri, say):
            say(
                f"MLflow does not have everything yet; to deliver it: lmoe-tune sync {study.sweep.folder.name}"
            )


def _refuse_unfinished(sweep: Ledger, allowed: bool) -> list[str]:
    name = sweep.folder.name
    if sweep.is_complete():
        return []
    if not allowed:
        raise UsageError(
            f"the sweep '{name}' is not complete, and who opens the test set in the middle of a search is tempted to "
            f"go on with what it says; finish it with `lmoe-tune resume {name}`, or go on with --allow-unfinished"
        )
    note = f"the search was not complete: {len(sweep.trials())} trials of {sweep.budget.trials or 'an open number'}"
    say(note)
    return [note]


def _work(
    study: JobLedger,
    plan: Plan,
    command: str,
    import_path: Path,
    *,
    allow_changes: bool,
    address: str | None,
) -> None:
    from lmoe_tune.api.running import reading
    from lmoe_tune.confirmation.asking import ask
    from lmoe_tune.confirmation.result import fingerprints_of
    from lmoe_tune.data.decode_ahead import decode_files
    from lmoe_tune.sweep import view
    from lmoe_tune.sweep.runner import run_sweep
    from lmoe_tune.sweep.tracked import address as address_of

    progress = JobProgress()
    num_jobs = study.begin(plan, command, allow_changes=allow_changes, say=reading(progress))
    question = ask(study, plan, fingerprints_of(study, plan))
    say(f"this is question {question.number} of the home")
    openings = view.test_openings(study.sweep)
    say(
        f"confirming '{study.sweep.folder.name}': {num_jobs} jobs ({len(plan.rows)} rows, {len(plan.seeds)} fresh "
        f"seeds, split {', '.join(map(str, plan.splits))}); this is opening {len(openings)} of its test set"
    )
    spec = study.ledger.spec
    if (
        address is None or spec.data.cache_dir is None
    ):  # else each node of the cluster decodes for itself
        for data, files in study.files(plan):
            decode_files(
                files,
                data,
                study.folder.home,
                progress=lambda done, total: progress.on_work("images decoded", done, total),
                say=say,
            )
    progress.on_begin(study.ledger)
    uri = address_of(study.folder, spec)
    outcome = run_sweep(
        study.ledger,
        progress,
        import_path=import_path,
        address=address,
        tracking_uri=uri,
    )
    if outcome.state == "interrupted":
        raise KeyboardInterrupt


def _tune(
    sweep: Ledger, import_path: Path, command: str, *, allow_changes: bool, address: str | None
) -> list[Candidate]:
    """The other methods, tuned: those whose search is not complete are searched now, one after the other."""
    from lmoe_tune.cli.progress import watching
    from lmoe_tune.confirmation.tuned_comparators import open_search, tunable, tuned_candidate
    from lmoe_tune.sweep import projector, view
    from lmoe_tune.sweep.runner import run_sweep
    from lmoe_tune.sweep.tracked import address as address_of

    found = []
    for method in tunable(sweep.spec):
        folder = sweep.folder.tuned(method)
        with folder.locked():
            ledger = open_search(sweep, method, import_path, command, allow_changes=allow_changes)
            uri = address_of(folder, ledger.spec)
            if not ledger.is_complete():
                say(
                    f"tuning {method} in {folder.path} ({ledger.budget.trials or 'no fixed number of'} trials)"
                )
                with watching() as progress:
                    progress.on_begin(ledger)
                    outcome = run_sweep(
                        ledger, progress, import_path=import_path, address=address, tracking_uri=uri
                    )
                if outcome.state == "interrupted":
                    raise KeyboardInterrupt
            elif not view.is_delivered(ledger):
                projector.deliver_rest(ledger, uri, say)
            candidate = tuned_candidate(ledger, import_path)
            if candidate is None:
                say(f"{method}: no trial of its search is complete, so it is not in the table")
            else:
                found.append(candidate)
    return found


class JobProgress(Lines):
    """One line per finished job, on stderr."""

    def end_line(self, trial: TrialRecord) -> str:
        assert self.ledger is not None, "a job before they began"
        ended = sum(one.state != "running" for one in self.ledger.trials())
        what = f"failed: {trial.failure}" if trial.state == "failed" else "done"
        return f"[{ended} of {len(self.ledger.points())}] {self.name_of(trial)}: {what}"

    def name_of(self, trial: TrialRecord) -> str:
        assert self.ledger is not None, "a job before they began"
        candidate = self.ledger.attrs["candidates"][trial.params["candidate"]]
        return f"{candidate['name']}, split {trial.params['split']}, seed {trial.params['seed']}"


def _splits(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise UsageError(
            f"--splits is '{text}', but must be numbers of splits with commas between: 0,1,2"
        )
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def _print(document: dict[str, Any], form: Format) -> None:
    if form == "json":
        print_json(document)
    elif form == "csv":
        _print_csv(document)
    else:
        _print_tables(document)


def _print_tables(document: dict[str, Any]) -> None:
    rows = document["rows"]
    metrics = [name for name in SHOWN if any(name in row["metrics"] for row in rows)]
    columns = ("", "runs", *(name.removeprefix("test_") for name in metrics))
    typer.echo("sealed test set, mean ± standard deviation over the runs")
    print_table(
        [
            [row["name"], shown(row["runs"]), *(_mean(row, name) for name in metrics)]
            for row in rows
        ],
        columns,
    )
    typer.echo("\n95% intervals of the means (over seeds, test images and splits)")
    columns = ("", *columns[2:])
    print_table(
        [[row["name"], *(_interval(row["metrics"].get(name)) for name in metrics)] for row in rows],
        columns,
    )
    metric = document["metric"]
    typer.echo(
        f"\n{document['winner']['name']} minus the others in {metric}, paired by seed and split"
    )
    print_table(
        [
            [
                paired["against"],
                f"{paired['difference']:+.4f}",
                _interval(paired),
                _p(paired["p"]),
                _p(paired["p_corrected"]),
                f"{paired['noise_floor']:.4f}",
            ]
            for paired in document["paired"]
            if paired["metric"] == metric
        ],
        ("against", "difference", "95% interval", "p", "corrected p", "noise floor"),
    )
    own = document["paired"][0]
    if own["correlation"] is not None:
        typer.echo(f"the pairs correlate by {own['correlation']:.2f}: {own['pairs']} of them")
    typer.echo(f"\n{document['sentence']}")
    for caution in document["cautions"]:
        typer.echo(f"- {caution}")
    for failure in document["failed"]:
        say(
            f"failed: {failure['row']}, split {failure['split']}, seed {failure['seed']}: {failure['failure']}"
        )
    if document["failed"]:
        say("the same command tries the failed jobs once more")
    for line in document["changes"]:
        typer.echo(f"changed since it was begun: {line}")
    typer.echo(openings_line(document["test_openings"]))


def _print_csv(document: dict[str, Any]) -> None:
    rows = document["rows"]
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    paired = {
        one["against"]: one for one in document["paired"] if one["metric"] == document["metric"]
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "sd", "low", "high")
    of_pair = ("difference", "p", "p_corrected", "noise_floor")
    writer.writerow(
        [
            "name",
            "method",
            "seeds",
            *(f"{name}_{part}" for name in metrics for part in parts),
            *of_pair,
            "verdict",
        ]
    )
    for row in rows:
        cells = [row["name"], row["method"], row["seeds"]]
        for name in metrics:
            found = row["metrics"].get(name)
            cells += (
                [found["mean"], found["sd"], *(found["ci95"] or (None, None))]
                if found
                else [None] * 4
            )
        pair = paired.get(row["name"], {})
        cells += [pair.get(key) for key in of_pair]
        writer.writerow(
            [*cells, document["verdict"] if row["name"] == document["compared_with"] else None]
        )
    sys.stdout.write(text.getvalue())


def _mean(row: dict[str, Any], name: str) -> str:
    found = row["metrics"].get(name)
    if found is None:
        return "-"
    return f"{found['mean']:.4f}" + (f" ± {found['sd']:.4f}" if found["sd"] is not None else "")


def _interval(found: dict[str, Any] | None) -> str:
    if found is None or found["ci95"] is None:
        return "-"
    low, high = found["ci95"]
    return f"[{low:.4f}, {high:.4f}]" if "mean" in found else f"[{low:+.4f}, {high:+.4f}]"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
