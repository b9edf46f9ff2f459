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
    summary, document = facts.summary, facts.document or None
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
    text = f"{sum(trials[state] for state in STATES)}"
    if trials["planned"]:
        text += f" of {trials['planned']}"
    counts = [f"{trials[state]} {in_words(state, sweep_state)}" for state in STATES]
    return f"{text} trials: {', '.join(counts)}"


def moment(when: datetime) -> str:
    """A moment as the pages write it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _of_confirmation(document: Mapping[str, Any]) -> list[Table]:
    rows, winner = document["rows"], document["winner"]["name"]
    there = {name for row in rows for name in row["metrics"]}
    metrics = [name for name in TEST_METRICS if name in there]
    head = ["", "method", "seeds", *(name.removeprefix("test_") for name in metrics)]
    cells = [
        [cell(row["name"]), cell(row["method"]), cell(row["seeds"])]
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
            cell(one["against"]),
            cell(one["difference"], "{:+.4f}"),
            cell(_interval(one["ci95"])),
            cell(one["p"], "{:.2g}"),
            cell(one.get("p_corrected"), "{:.2g}"),
            cell(one.get("noise_floor"), "{:.4f}"),
            cell(one.get("correlation"), "{:.2f}"),
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
        [cell(name), cell(value), cell(_range_of(facts, name))]
        for name, value in best["params"].items()
    ]
    return Table("params", ["parameter", "best trial", "searched"], rows)


def _metrics(facts: Facts) -> Table:
    best = facts.summary["best"] or {"metrics": {}}
    rows = [
        [cell(name), cell(value), cell(facts.baseline.get(name))]
        for name, value in best["metrics"].items()
    ]
    head = ["metric", "best trial", "baseline"]
    return Table("metrics", head, rows, "Its last epoch, and the baseline's")


def _trials(facts: Facts) -> Table:
    rows, searched = facts.leaderboard, facts.searched
    metrics = [name for name in SHOWN_OF_TRIAL if any(name in row["metrics"] for row in rows)]
    head = ["trial", "state", facts.spec.objective.metric, "feasible", "tied"]
    best = (facts.summary["best"] or {}).get("trial")
    cells = [
        [
            cell(row["trial"]),
            cell(in_words(row["state"], facts.summary["state"])),
            *(cell(row.get(key)) for key in ("value", "feasible", "tied")),
            *(cell(row["metrics"].get(name)) for name in metrics),
            *(cell(row["params"].get(name)) for name in searched),
            cell(row["epochs"]),
        ]
        for row in rows[:MAX_ROWS]
    ]
    bold = [place for place, row in enumerate(rows[:MAX_ROWS]) if row["trial"] == best]
    caption = ""
    if len(rows) > MAX_ROWS:
        all_of_them = advice.leaderboard(str(facts.summary["sweep"]), home=facts.home)
        caption = f"The first {MAX_ROWS:,} of {len(rows):,}; all of them: {all_of_them}"
    return Table("leaderboard", [*head, *metrics, *searched, "epochs"], cells, caption, bold)


def _range_of(facts: Facts, name: str) -> str:
    searched = facts.spec.space.get(name)
    if searched is None:
        return ""
    if searched.choices is not None:
        return ", ".join(map(str, searched.choices))

    text = f"{searched.low:g} to {searched.high:g}"
    if searched.log:
        text += ", log"
    if searched.step is not None:
        text += f", step {searched.step:g}"
    return text


# Cells


def cell(value: Any, form: str = "{:.4g}") -> Cell:
    """A value as a table shows it; `form` is that of a number with a fraction."""
    if value is None:
        return Cell("-")
    if isinstance(value, str):
        return Cell(value)
    if isinstance(value, float):
        return Cell(form.format(value), repr(value))
    if isinstance(value, bool):
        return Cell({True: "yes", False: "no"}[value])
    return Cell(str(value), repr(value))


def _mean(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("-")

    text = f"{found['mean']:.4f}"
    title = f"median {found['median']:.4f}, minimum {found['minimum']:.4f}"
    if found["sd"] is not None:
        text += f" ± {found['sd']:.4f}"
    if found["ci95"] is not None:
        low, high = found["ci95"]
        title = f"95% interval of the mean: {low:.4f} to {high:.4f}; {title}"
    return Cell(text, repr(found["mean"]), title)


def _interval(ends: Sequence[float] | None) -> str:
    if ends is None:
        return "-"

    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"
