"""`lmoe-tune compare`: sweeps side by side, as rows, differences and one figure; a page of these on
request.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lmoe_tune.report.facts import Facts, gather
from lmoe_tune.report.figures import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    STYLE,
    best_so_far,
)
from lmoe_tune.report.page import POLICY, Table, cell, moment, templates
from lmoe_tune.spec.record import settings
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.wording import duration

COLUMNS = (
    "sweep", "state", "method", "complete", "pruned", "failed", "metric", "best_value", "best_trial", "median",
    "quartile_1", "quartile_3", "epochs", "wall_s", "gpu_hours", "verdict", "test_openings",
)  # fmt: skip
"""What a line of the table shows; median and quartiles are those of the complete trials."""

READABLE = tuple("wall" if column == "wall_s" else column for column in COLUMNS)
"""The same for people."""


@dataclass(frozen=True)
class Comparison:
    """Several sweeps at one moment.

    Attributes:
        rows: a sweep each; what `Sweep.summary` says too has the same name and form here.
        differences: settings that are not the same in all: {setting: value by sweep, None if it has
            none}.
        cautions: why values of two sweeps may not be comparable, a sentence each.
        png: the figure.
    """

    rows: tuple[dict[str, Any], ...]
    differences: dict[str, dict[str, Any]]
    cautions: tuple[str, ...]
    png: bytes

    def document(self) -> dict[str, Any]:
        """What is printed as JSON."""
        return {
            "sweeps": list(self.rows),
            "differences": self.differences,
            "cautions": list(self.cautions),
        }


def compare(ledgers: Sequence[Ledger]) -> Comparison:
    """Put sweeps side by side. Only reads, so it can run at any moment, beside running drivers."""
    found = [gather(ledger) for ledger in ledgers]
    rows = tuple(_row(ledger, facts) for ledger, facts in zip(ledgers, found, strict=True))
    with mpl.rc_context(STYLE):
        png = _drawn(found)

    return Comparison(rows, _differences(found), tuple(_cautions(found)), png)


def _row(ledger: Ledger, facts: Facts) -> dict[str, Any]:
    summary = facts.summary
    values = _values(facts)
    low, median, high = (None, None, None)
    if len(values) > 1:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")

    return {
        "sweep": summary["sweep"],
        "state": summary["state"],
        "method": facts.spec.trainable,
        "trials": summary["trials"],
        "metric": facts.spec.objective.metric,
        "best": summary["best"],
        "quartile_1": low,
        "median": median,
        "quartile_3": high,
        "epochs": sum(len(trial.epochs) for trial in facts.trials),
        "wall_s": summary["wall_s"],
        "gpu_hours": round(ledger.gpu_hours(), 4),
        "verdict": facts.document.get("verdict"),
        "test_openings": summary["test_openings"],
    }


def _values(facts: Facts) -> list[float]:
    """The objective of the complete trials, in the order in which they were started."""
    return [trial.values[0] for trial in facts.trials if trial.state == "complete"]


def _name(facts: Facts) -> str:
    return str(facts.summary["sweep"])


def _differences(found: Sequence[Facts]) -> dict[str, dict[str, Any]]:
    of_each = {_name(facts): settings(facts.spec) for facts in found}
    paths = dict.fromkeys(path for leaves in of_each.values() for path in leaves)
    differing = {}

    for path in paths:
        values = {name: leaves.get(path) for name, leaves in of_each.items()}
        first, *others = values.values()
        if path != "name" and any(value != first for value in others):
            differing[path] = values

    return differing


def _cautions(found: Sequence[Facts]) -> list[str]:
    cautions = []
    objectives = {(facts.spec.objective.metric, facts.spec.objective.score) for facts in found}
    if len(objectives) > 1:
        cautions.append(
            "they are judged by different metrics or scores: their values differ in kind"
        )

    if len({facts.fingerprint for facts in found}) > 1:
        cautions.append("they were searched on different images or splits: compare with care")
    if any(facts.summary["state"] != "complete" for facts in found):
        cautions.append("not all of them are complete")

    if any(facts.confirmation is None and facts.summary["test_openings"] for facts in found):
        cautions.append(
            "a confirmation has begun and not ended: its verdict counts again once `confirm` has finished it"
        )

    verdicts = [facts.confirmation is not None for facts in found]
    if any(verdicts) and not all(verdicts):
        cautions.append("only some are confirmed: a best value without a confirmation may be luck")
    elif not any(verdicts):
        cautions.append(
            "none is confirmed: the best of many trials is likely to look better than it is"
        )

    return cautions


def _drawn(found: Sequence[Facts]) -> bytes:
    """The best so far over the trials on the left, the values of the complete trials on the right,
    for each sweep.
    """
    colours = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
    figure = Figure(figsize=(9.0, max(3.4, 1.6 + 0.4 * len(found))), dpi=DPI)
    history, spread = figure.subplots(1, 2)

    for place, facts in enumerate(found):
        colour, values = colours[place % len(colours)], _values(facts)
        so_far = best_so_far(values, facts)
        history.step(
            range(1, len(values) + 1), so_far, where="post", color=colour, label=_name(facts)
        )
        spread.plot(values, [place] * len(values), "o", color=colour, alpha=0.5, markersize=5)
        if so_far:
            spread.plot(so_far[-1:], [place], "D", color=colour, markersize=8)

    metric = found[0].spec.objective.metric
    history.set(xlabel="complete trials", ylabel=f"best {metric} so far")
    history.legend(fontsize=8)
    spread.set_yticks(range(len(found)), [_name(facts) for facts in found])
    spread.set(xlabel=f"{metric} of the complete trials", ylim=(len(found) - 0.5, -0.5))
    content = io.BytesIO()
    figure.savefig(content, format="png")

    return content.getvalue()


def lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the table, with `wall`: the time that was worked as a person reads it."""
    return [view.flattened(row) | {"wall": duration(row["wall_s"])} for row in rows]


def make_comparison_page(found: Comparison) -> str:
    """One HTML document that loads nothing."""
    names = [row["sweep"] for row in found.rows]
    best = [{"sweep": row["sweep"], **(row["best"] or {}).get("params", {})} for row in found.rows]
    parameters = list(dict.fromkeys(name for row in best for name in row))
    differing = [{"setting": key, **values} for key, values in found.differences.items()]

    return (
        templates()
        .get_template("comparison.html.jinja")
        .render(
            title=" against ".join(names),
            now=moment(datetime.now(UTC)),
            policy=POLICY,
            cautions=found.cautions,
            png=found.png,
            sweeps=_table("sweeps", lines(found.rows), READABLE, "The sweeps"),
            parameters=_table("parameters", best, parameters, "Parameters of the best trials"),
            differences=_table(
                "differences", differing, ["setting", *names], "Settings that are not the same"
            ),
        )
    )


def _table(
    ident: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], caption: str
) -> Table:
    cells = [list(map(cell, map(row.get, columns))) for row in rows]
    return Table(ident, columns, cells, caption)
