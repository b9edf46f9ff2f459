"""The command that opens the sealed test set: confirm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

import lmoe_tune as lt
from lmoe_tune.cli.lines import watching
from lmoe_tune.cli.options import FormatOption, HomeOption, NameArgument, resolve_home
from lmoe_tune.cli.output import (
    leave_at_once,
    openings_line,
    print_json,
    print_rows,
    print_table,
    say,
    shown,
)
from lmoe_tune.cli.search import INTERRUPTED, TOO_MANY_FAILED, AddressOption, ChangesOption
from lmoe_tune.errors import UsageError

app = typer.Typer()


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
    reseed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Instead: N fresh seeds for the best and the defaults, on validation images; opens nothing.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what it would cost and what it could find; open nothing."
        ),
    ] = False,
    allow_unfinished: Annotated[
        bool,
        typer.Option("--allow-unfinished", help="Continue although the search is not complete."),
    ] = False,
    allow_changes: ChangesOption = False,
    address: AddressOption = None,
    form: FormatOption = "table",
    home: HomeOption = None,
) -> None:
    """Is the winner real? Train the best trials and the untuned methods again, and open the sealed
    test set.
    """
    split_numbers = _splits(splits)
    if reseed is not None and dry_run:
        raise UsageError(
            "reseed does not go with dry_run: it says itself what a confirmation could find"
        )
    sweep = lt.open_sweep(name, resolve_home(home))
    asked: dict[str, Any] = {
        "seeds": seeds,
        "top": top,
        "splits": split_numbers,
        "tuned_comparators": tuned_comparators,
    }
    if dry_run:
        forecast = lt.forecast(sweep, **asked)
        if form == "json":
            print_json(forecast.to_json())
        else:
            typer.echo("\n".join(forecast.lines()))
        return

    confirmed: Callable[..., lt.Confirmation | lt.Reseeding] = lt.confirm
    try:
        with watching() as observer:
            found = confirmed(
                sweep,
                observer=observer,
                reseed=reseed,
                allow_unfinished=allow_unfinished,
                allow_changes=allow_changes,
                address=address,
                leave=leave_at_once,
                **asked,
            )
    except lt.InterruptedConfirmation as stopped:
        say(f"interrupted; to continue: {stopped.command}")
        raise typer.Exit(INTERRUPTED) from None

    document = found.to_json()
    if form == "json":
        print_json(document)
    elif isinstance(found, lt.Reseeding):
        _print_reseeding(found, document, form)
    elif form == "csv":
        _print_csv(document, document["paired"])
    else:
        _print_tables(document)
    raise typer.Exit(TOO_MANY_FAILED if document["failed"] else 0)


def _splits(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise UsageError(
            f"--splits is '{text}', but must be numbers of splits with commas between: 0,1,2"
        )
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def _print_tables(document: dict[str, Any]) -> None:
    from lmoe_tune.confirmation.forecast import needs_lines
    from lmoe_tune.spec.metrics import TEST_METRICS

    rows = document["rows"]
    metrics = [name for name in TEST_METRICS if any(name in row["metrics"] for row in rows)]
    names = [name.removeprefix("test_") for name in metrics]
    typer.echo("sealed test set, mean ± standard deviation over the runs")
    print_table(
        [[row["name"], shown(row["runs"]), *_means(row, metrics)] for row in rows],
        ("", "runs", *names),
    )
    typer.echo("\n95% intervals of the means (over seeds, test images and splits)")
    print_table(
        [[row["name"], *(_interval(row["metrics"].get(name)) for name in metrics)] for row in rows],
        ("", *names),
    )
    metric = document["metric"]
    typer.echo(
        f"\n{document['winner']['name']} minus the others in {metric}, paired by seed and split "
        "(corrected p: by Holm's method, none below the first)"
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
        typer.echo(f"the {own['pairs']} pairs correlate by {own['correlation']:.2f}")
    typer.echo(f"\n{document['sentence']}")
    for caution in document["cautions"]:
        typer.echo(f"- {caution}")
    for line in needs_lines(tuple(map(tuple, document["needs"])), document["cannot_show"]):
        typer.echo(line.strip())
    _say_failed(document)
    for line in document["changes"]:
        typer.echo(f"changed since it was started: {line}")
    typer.echo(openings_line(document["test_openings"]))


def _say_failed(document: dict[str, Any]) -> None:
    for failure in document["failed"]:
        say(
            f"failed: {failure['row']}, split {failure['split']}, seed {failure['seed']}: {failure['failure']}"
        )
    if document["failed"]:
        say("the same command tries the failed jobs once more")


def _print_reseeding(result: lt.Reseeding, document: dict[str, Any], form: str) -> None:
    from lmoe_tune.confirmation.reseeding import SHOWN

    if form == "csv":
        gains = [gain | {"against": name} for name, gain in document["gains"].items()]
        _print_csv(document, gains)
        return

    rows, searched, metric = document["rows"], document["searched"], document["metric"]
    metrics = [name for name in SHOWN if any(name in row["metrics"] for row in rows)]
    typer.echo("validation images, mean ± standard deviation over fresh seeds")
    print_table(
        [
            [
                row["name"],
                shown(row["runs"]),
                shown(searched.get(row["name"])),
                *_means(row, metrics),
            ]
            for row in rows
        ],
        ("", "runs", f"{metric} in the search", *metrics),
    )
    typer.echo("")
    for name, gain in result.gains.items():
        typer.echo(
            f"{name} minus {gain.against}: {gain.difference:+.4f} in {metric}, "
            f"standard deviation {gain.seed_sd:.4f} over {gain.pairs} pairs"
        )
    for row in rows:
        if row["diverged"]:
            typer.echo(f"- {row['name']} diverged in {row['diverged']} of {row['runs']} trainings")
    typer.echo(
        "- the search chose by these images, so what it chose is still flattered by them; only a "
        "confirmation says whether it is better\n"
    )
    for line in result.forecast.lines():
        typer.echo(line)
    _say_failed(document)


def _print_csv(document: dict[str, Any], compared: Iterable[dict[str, Any]]) -> None:
    of_pair = ("difference", "p", "p_corrected", "noise_floor")
    pairs = {one["against"]: one for one in compared if one["metric"] == document["metric"]}
    columns, rows = ["name", "method", "seeds"], []
    for row in document["rows"]:
        flat = row | {key: pairs.get(row["name"], {}).get(key) for key in of_pair}
        if row["name"] == document["compared_with"]:
            flat["verdict"] = document.get("verdict")
        for name, found in row["metrics"].items():
            low, high = found["ci95"] or (None, None)
            measured = {"mean": found["mean"], "sd": found["sd"], "low": low, "high": high}
            flat |= {f"{name}_{part}": value for part, value in measured.items()}
            columns += [f"{name}_{part}" for part in measured]
        rows.append(flat)
    print_rows(rows, (*dict.fromkeys(columns), *of_pair, "verdict"), "csv")


def _means(row: dict[str, Any], metrics: Iterable[str]) -> list[str]:
    return [_mean(row["metrics"].get(name)) for name in metrics]


def _mean(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:.4f}" + (f" ± {found['sd']:.4f}" if found["sd"] is not None else "")


def _interval(found: dict[str, Any] | None) -> str:
    if found is None or found["ci95"] is None:
        return "-"
    low, high = found["ci95"]
    if "mean" in found:
        return f"[{low:.4f}, {high:.4f}]"

    return f"[{low:+.4f}, {high:+.4f}]"


def _p(value: float | None) -> str:
    if value is None:
        return "-"

    return f"{value:.2g}"
