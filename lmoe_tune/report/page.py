"""The page: one HTML document that loads nothing, with the figures in it and the numbers where a
program finds them.

Its shape is `page.html.jinja`; here is what goes into its tables. Every number of these is there in
full as `data-value`, and all of it once more as JSON in `#report-data`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmoe_tune import advice
from lmoe_tune.records import in_words
from lmoe_tune.report.facts import Facts
from lmoe_tune.report.figures import Drawing
from lmoe_tune.spec.metrics import TEST_METRICS

# Told to a browser, so that it holds whatever the content: nothing is loaded, and no script runs.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WIDE = {"history", "slices", "parallel", "scores", "pca", "seeds"}
OF_TEST = {"roc_test", "scores_test", "seeds"}
STATES = ("complete", "pruned", "failed", "running")
SHOWN_OF_TRIAL = ("val_accuracy", "val_fine_auroc", "val_coarse_auroc")

MAX_ROWS = 1000
"""Of the table of trials: with more of them a page is slow to read, to load and to write."""


@dataclass(frozen=True)
class Cell:
    """What is shown in a table cell, the number in full if it is one, and the tooltip."""

    text: str
    value: str | None = None
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    ident: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    best: Collection[int] = ()
    """The rows that are set in bold."""


def make_page(
    facts: Facts, drawings: Sequence[Drawing], spec_yaml: str, environment: Mapping[str, Any]
) -> str:
    """The whole document."""
    summary = facts.summary
    if facts.confirmation:
        document = facts.confirmation.document
    else:
        document = None
    template = templates().get_template("page.html.jinja")
    return template.render(
        summary=summary,
        spec=facts.spec,
        counts=_counts(summary["trials"], str(summary["state"])),
        now=moment(datetime.now(UTC)),
        policy=POLICY,
        wide=WIDE,
        of_test=OF_TEST,
        drawings=drawings,
        confirm=document,
        confirm_command=advice.confirm(str(summary["sweep"]), home=facts.home),
        confirm_tables=_of_confirmation(document) if document else [],
        openings=[
            {**one, "when": moment(datetime.fromtimestamp(one["time_ms"] / 1000, UTC))}
            for one in summary["test_openings"]
        ],
        params=_params(facts),
        metrics=_metrics(facts),
        trials=_trials(facts),
        failed=[row for row in facts.leaderboard if row["failure"]],
        fingerprint=facts.fingerprint,
        spec_yaml=spec_yaml,
        environment=json.dumps(environment, indent=2),
        data=_embedded(facts, document),
    )


def templates() -> Environment:
    """The templates beside this file, which escape what is put into them."""
    found = Environment(
        loader=PackageLoader("lmoe_tune", "report"), autoescape=True, undefined=StrictUndefined
    )
    found.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return found


def _embedded(facts: Facts, document: Mapping[str, Any] | None) -> Markup:
    """All of it as JSON, escaped so that no text in it can end the element."""
    data = {
        "summary": facts.summary,
        "leaderboard": facts.leaderboard,
        "baseline": facts.baseline,
        "importances": facts.importances,
        "pareto_front": [trial.number for trial in facts.front],
        "confirm": document,
    }
    return Markup(json.dumps(data, default=str).replace("<", "\\u003c"))


def _counts(trials: Mapping[str, Any], sweep_state: str) -> str:
    started = sum(trials[state] for state in STATES)
    if trials["planned"]:
        planned = f" of {trials['planned']}"
    else:
        planned = ""
    counts = [f"{trials[state]} {in_words(state, sweep_state)}" for state in STATES]
    return f"{started}{planned} trials: {', '.join(counts)}"


def moment(when: datetime) -> str:
    """A moment as the pages write it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _of_confirmation(document: Mapping[str, Any]) -> list[Table]:
    rows, winner = document["rows"], document["winner"]["name"]
    there = {name for row in rows for name in row["metrics"]}
    metrics = [name for name in TEST_METRICS if name in there]
    head = ["", "method", "seeds", *(name.removeprefix("test_") for name in metrics)]
    cells = [
        [_text(row["name"]), _text(row["method"]), _number(row["seeds"])]
        + [_mean(row["metrics"].get(metric)) for metric in metrics]
        for row in rows
    ]
    of_rows = Table(
        "rows",
        head,
        cells,
        "Sealed test set: mean ± standard deviation over seeds",
        [place for place, row in enumerate(rows) if row["name"] == winner],
    )

    against = [
        [
            _text(one["against"]),
            _number(one["difference"], "{:+.4f}"),
            _text(_interval(one["ci95"])),
            _number(one["p"], "{:.2g}"),
            _number(one.get("p_corrected"), "{:.2g}"),
            _number(one.get("noise_floor"), "{:.4f}"),
            _number(one.get("correlation"), "{:.2f}"),
        ]
        for one in document["paired"]
        if one["metric"] == document["metric"]
    ]
    columns = ["against", "difference", "95% interval", "p", "corrected p", "noise floor"]
    caption = (
        f"{winner} minus the others in {document['metric']}, paired by seed and split (corrected p: by Holm's method, "
        "none below the first)"
    )
    return [of_rows, Table("paired", [*columns, "correlation"], against, caption)]


def _params(facts: Facts) -> Table:
    best = facts.summary["best"] or {"params": {}}
    rows = [
        [_text(name), _value(value), _text(_range_of(facts, name))]
        for name, value in best["params"].items()
    ]
    return Table("params", ["parameter", "best trial", "searched"], rows)


def _metrics(facts: Facts) -> Table:
    best = facts.summary["best"] or {"metrics": {}}
    rows = [
        [_text(name), _number(value), _number(facts.baseline.get(name))]
        for name, value in best["metrics"].items()
    ]
    head = ["metric", "best trial", "baseline"]
    return Table("metrics", head, rows, "Its last epoch, and the baseline's")


def _trials(facts: Facts) -> Table:
    rows, searched = facts.leaderboard, facts.searched
    metrics = [name for name in SHOWN_OF_TRIAL if any(name in row["metrics"] for row in rows)]
    head = ["trial", "state", facts.spec.objective.metric, "feasible", "tied"]
    if facts.summary["best"]:
        best = facts.summary["best"]["trial"]
    else:
        best = None
    cells = [
        [
            _number(row["trial"]),
            _text(in_words(row["state"], facts.summary["state"])),
            _number(row["value"]),
            _text(_yes_or_no(row["feasible"])),
            _text(_yes_or_no(row.get("tied"))),
            *(_number(row["metrics"].get(name)) for name in metrics),
            *(_value(row["params"].get(name)) for name in searched),
            _number(row["epochs"]),
        ]
        for row in rows[:MAX_ROWS]
    ]
    bold = [place for place, row in enumerate(rows[:MAX_ROWS]) if row["trial"] == best]
    if len(rows) > MAX_ROWS:
        all_of_them = advice.leaderboard(str(facts.summary["sweep"]), home=facts.home)
        caption = f"The first {MAX_ROWS:,} of {len(rows):,}; all of them: {all_of_them}"
    else:
        caption = ""
    return Table("leaderboard", [*head, *metrics, *searched, "epochs"], cells, caption, bold)


def _range_of(facts: Facts, name: str) -> str:
    searched = facts.spec.space.get(name)
    if searched is None:
        return ""
    if searched.choices is not None:
        return ", ".join(map(str, searched.choices))
    if searched.step is not None:
        step = f", step {searched.step:g}"
    else:
        step = ""
    return f"{searched.low:g} to {searched.high:g}{', log' if searched.log else ''}{step}"


# Cells


def _text(value: Any) -> Cell:
    return Cell(str(value))


def _value(value: Any) -> Cell:
    if value is None:
        return Cell("-")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number:
        return _number(value)

    return _text(value)


def _number(value: float | None, form: str = "{:.4g}") -> Cell:
    if value is None:
        return Cell("-")
    return Cell(str(value) if isinstance(value, int) else form.format(value), repr(value))


def _yes_or_no(value: bool | None) -> str:
    return {None: "-", True: "yes", False: "no"}[value]


def _mean(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("-")
    if found["sd"] is not None:
        sd = f" ± {found['sd']:.4f}"
    else:
        sd = ""
    title = f"median {found['median']:.4f}, minimum {found['minimum']:.4f}"
    if found["ci95"] is not None:
        title = (
            f"95% interval of the mean: {found['ci95'][0]:.4f} to {found['ci95'][1]:.4f}; {title}"
        )
    return Cell(f"{found['mean']:.4f}{sd}", repr(found["mean"]), title)


def _interval(ends: Sequence[float] | None) -> str:
    if ends is None:
        return "-"

    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"
