"""The page: one HTML document that loads nothing, with the figures in it and the numbers where a program finds them.

Every number of the tables is there in full as `data-value`, and all of it once more as JSON in `#report-data`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from lmoe_tune.report.facts import Facts
from lmoe_tune.report.figures import Drawing

STYLE = """
:root { color-scheme: light; --ink: #1c2330; --soft: #5b6575; --line: #dfe3ea; --paper: #fff; --tint: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--tint); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 6px; }
p { margin: 6px 0; }
.soft, figcaption, caption { color: var(--soft); font-size: 13px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.card { margin: 12px 0; }
.verdict { border-left: 5px solid #7f7f7f; }
.verdict.real { border-left-color: #009e73; }
.verdict.worse { border-left-color: #d55e00; }
.verdict strong { font-size: 17px; }
.scroll { overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; max-width: 760px; height: auto; display: block; margin: 0 auto 6px; }
figure .missing { color: var(--soft); font-style: italic; padding: 30px 0; text-align: center; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; width: 100%; }
caption { text-align: left; padding: 4px 0; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { font-weight: 600; }
tr.best td { font-weight: 600; }
pre { overflow-x: auto; font-size: 12.5px; background: var(--tint); padding: 10px; border-radius: 6px; }
nav a { margin-right: 14px; } a { color: #0057a3; }
@media (max-width: 520px) { .figures { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } figure, .card { break-inside: avoid; } }
"""
# Told to a browser, so that it holds whatever the content: nothing is loaded, and no script runs.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WIDE = {"history", "slices", "parallel", "scores", "pca", "seeds"}
OF_TEST = {"roc_test", "scores_test", "seeds"}


def make_page(
    facts: Facts, drawings: Sequence[Drawing], spec_yaml: str, environment: Mapping[str, Any]
) -> str:
    """The whole document."""
    summary = facts.summary
    name = escape(str(summary["sweep"]))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    trials = summary["trials"]
    counts = ", ".join(
        f"{trials[state]} {state}" for state in ("complete", "pruned", "failed", "running")
    )
    planned = f" of {trials['planned']}" if trials["planned"] else ""
    started = sum(trials[state] for state in ("complete", "pruned", "failed", "running"))
    body = [
        f"<h1>{name}</h1>",
        (
            f'<p class="soft">{escape(facts.spec.trainable)} on {escape(facts.spec.data.id.dataset)}, split '
            f"{facts.spec.data.split}; {started}{planned} trials: {counts}; {escape(summary['state'])}; "
            f"{summary['wall_s']:.0f} s of work; this page is of {now}</p>"
        ),
        (
            '<nav><a href="#verdict">verdict</a><a href="#best">best parameters</a><a href="#figures">figures</a>'
            '<a href="#trials">trials</a><a href="#provenance">provenance</a></nav>'
        ),
        _changes(summary["changes"]),
        _verdict(facts),
        _best(facts),
        '<h2 id="figures">Figures</h2><div class="figures">',
        *(_figure(drawing) for drawing in drawings if drawing.name not in OF_TEST),
        "</div>",
        "<h2>On the sealed test set</h2>",
        '<div class="figures">',
        *(_figure(drawing) for drawing in drawings if drawing.name in OF_TEST),
        "</div>",
        _trials(facts),
        _provenance(facts, spec_yaml, environment),
    ]
    data = {
        "summary": summary,
        "leaderboard": facts.leaderboard,
        "baseline": facts.baseline,
        "importances": facts.importances,
        "pareto_front": [trial.number for trial in facts.front],
        "confirm": facts.confirmation.document if facts.confirmation else None,
    }
    embedded = json.dumps(data, default=str).replace("<", "\\u003c")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}: lmoe-tune report</title>",
            f"<style>{STYLE}</style></head><body><main>",
            *body,
            f'<script type="application/json" id="report-data">{embedded}</script>',
            "</main></body></html>\n",
        ]
    )


def _changes(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="card"><h3>Changed since it was started</h3><ul>{items}</ul></div>'


def _verdict(facts: Facts) -> str:
    openings = _openings(facts.summary["test_openings"])
    if facts.confirmation is None:
        name = escape(str(facts.summary["sweep"]))
        begun = facts.summary["test_openings"]
        if begun:
            return (
                '<h2 id="verdict">Verdict</h2><div class="card verdict"><strong>Not confirmed yet.</strong>'
                "<p>A confirmation was begun and has not ended, so what follows is of the search alone; to go on: "
                f"<code>{escape(str(begun[-1]['command']))}</code></p>{openings}</div>"
            )
        return (
            '<h2 id="verdict">Verdict</h2><div class="card verdict"><strong>Not confirmed.</strong>'
            "<p>The best of many trials is always lucky, too. Whether this one is better than its method's defaults, "
            f"fresh seeds and the sealed test set say: <code>lmoe-tune confirm {name}</code></p>{openings}</div>"
        )
    document = facts.confirmation.document
    rows = document["rows"]
    metrics = [
        name for name in _metrics_of(rows) if not name.startswith("test_coarse_") or name in _COARSE
    ]
    head = ["", "method", "seeds", *(name.removeprefix("test_") for name in metrics)]
    cells = [
        [_text(row["name"]), _text(row["method"]), _number(row["seeds"])]
        + [_mean(row["metrics"].get(metric)) for metric in metrics]
        for row in rows
    ]
    paired = [one for one in document["paired"] if one["metric"] == document["metric"]]
    against = [
        [
            _text(one["against"]),
            _number(one["difference"], "{:+.4f}"),
            _interval(one["ci95"]),
            _number(one["p"], "{:.2g}"),
            _number(one.get("p_corrected"), "{:.2g}"),
            _number(one.get("noise_floor"), "{:.4f}"),
        ]
        for one in paired
    ]
    winner = [place for place, row in enumerate(rows) if row["name"] == document["winner"]["name"]]
    verdict = escape(document["verdict"])
    notes = "".join(f"<p>{escape(note)}</p>" for note in document.get("cautions", []))
    return "\n".join(
        [
            f'<h2 id="verdict">Verdict</h2><div class="card verdict {verdict}" data-verdict="{verdict}">',
            f"<strong>{escape(document['sentence'])}</strong>{notes}{openings}</div>",
            '<div class="card">',
            _table(
                "Sealed test set: mean ± standard deviation over seeds",
                head,
                cells,
                best=winner,
                ident="rows",
            ),
            "</div>",
            '<div class="card">',
            _table(
                f"{document['winner']['name']} minus the others in {document['metric']}, paired by seed and split",
                ["against", "difference", "95% interval", "p", "corrected p", "noise floor"],
                against,
                ident="paired",
            ),
            "</div>",
        ]
    )


_COARSE = ("test_coarse_auroc", "test_coarse_tnr95")
_SHOWN = (
    "test_auroc",
    "test_fine_auroc",
    "test_coarse_auroc",
    "test_fine_tnr95",
    "test_coarse_tnr95",
    "test_accuracy",
)


def _metrics_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    there = {name for row in rows for name in row["metrics"]}
    return [name for name in _SHOWN if name in there]


def _openings(openings: Sequence[Mapping[str, Any]]) -> str:
    if not openings:
        return '<p class="soft" data-openings="0">The sealed test set was never opened.</p>'
    items = "".join(
        f"<li>{datetime.fromtimestamp(one['time_ms'] / 1000, UTC):%Y-%m-%d %H:%M UTC}, {escape(str(one['who']))}: "
        f"<code>{escape(str(one['command']))}</code></li>"
        for one in openings
    )
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    said = f"The sealed test set was opened {times}:<ul>{items}</ul>"
    return f'<div class="soft" data-openings="{len(openings)}">{said}</div>'


def _best(facts: Facts) -> str:
    best = facts.summary["best"]
    if best is None:
        return '<h2 id="best">Best parameters</h2><div class="card">No trial is complete yet.</div>'
    head = ["parameter", "best trial", "searched"]
    rows = [
        [
            _text(name),
            _number(value) if _is_number(value) else _text(value),
            _text(_range_of(facts, name)),
        ]
        for name, value in best["params"].items()
    ]
    metrics = [
        [_text(name), _number(value), _number(facts.baseline.get(name))]
        for name, value in best["metrics"].items()
    ]
    feasible = (
        "" if best["feasible"] else " It misses the constraints least of all; none meets them."
    )
    return "\n".join(
        [
            '<h2 id="best">Best parameters</h2><div class="card">',
            (
                f"<p>Trial {best['trial']}, {escape(facts.spec.objective.metric)} "
                f'<b data-value="{best["value"]!r}" data-best="{best["trial"]}">{best["value"]:.4f}</b>'
                f" (validation).{feasible}</p>"
            ),
            _table("", head, rows, ident="params"),
            "</div>",
            '<div class="card">',
            _table(
                "Its last epoch, and the baseline's",
                ["metric", "best trial", "baseline"],
                metrics,
                ident="metrics",
            ),
            "</div>",
        ]
    )


def _range_of(facts: Facts, name: str) -> str:
    searched = facts.spec.space.get(name)
    if searched is None:
        return ""
    if searched.choices is not None:
        return ", ".join(map(str, searched.choices))
    step = f", step {searched.step:g}" if searched.step is not None else ""
    return f"{searched.low:g} to {searched.high:g}{', log' if searched.log else ''}{step}"


def _figure(drawing: Drawing) -> str:
    title, caption = escape(drawing.title), escape(drawing.caption)
    wide = ' class="wide"' if drawing.name in WIDE and drawing.png is not None else ""
    if drawing.png is None:
        return (
            f'<figure id="figure-{drawing.name}"{wide} data-missing="yes"><h3>{title}</h3>'
            f'<p class="missing">Not drawn: {escape(drawing.missing or "")}.</p></figure>'
        )
    content = base64.b64encode(drawing.png).decode()
    return (
        f'<figure id="figure-{drawing.name}"{wide}><h3>{title}</h3>'
        f'<img alt="{title}" src="data:image/png;base64,{content}"><figcaption>{caption}</figcaption></figure>'
    )


def _trials(facts: Facts) -> str:
    searched = facts.searched
    metrics = [
        name
        for name in ("val_accuracy", "val_fine_auroc", "val_coarse_auroc")
        if any(name in row["metrics"] for row in facts.leaderboard)
    ]
    head = [
        "trial",
        "state",
        facts.spec.objective.metric,
        "feasible",
        *metrics,
        *searched,
        "epochs",
    ]
    cells = []
    for row in facts.leaderboard:
        params = [row["params"].get(name) for name in searched]
        cells.append(
            [_number(row["trial"]), _text(row["state"]), _number(row["value"])]
            + [_text({None: "-", True: "yes", False: "no"}[row["feasible"]])]
            + [_number(row["metrics"].get(name)) for name in metrics]
            + [
                _number(value) if _is_number(value) else _text("-" if value is None else value)
                for value in params
            ]
            + [_number(row["epochs"])]
        )
    best = facts.summary["best"]["trial"] if facts.summary["best"] else None
    bold = [place for place, row in enumerate(facts.leaderboard) if row["trial"] == best]
    failures = "".join(
        f"<li>trial {row['trial']}: {escape(str(row['failure']))}</li>"
        for row in facts.leaderboard
        if row["failure"]
    )
    listed = f"<h3>Failed</h3><ul>{failures}</ul>" if failures else ""
    table = _table("", head, cells, best=bold, ident="leaderboard")
    return f'<h2 id="trials">Trials</h2><div class="card">{table}{listed}</div>'


def _provenance(facts: Facts, spec_yaml: str, environment: Mapping[str, Any]) -> str:
    where = facts.summary["tracking_uri"]
    run = facts.summary["parent_run_id"]
    return "\n".join(
        [
            '<h2 id="provenance">Provenance</h2><div class="card">',
            (
                f"<p>MLflow: {escape(str(where))}{f', run {escape(str(run))}' if run else ''}; "
                f"data fingerprint {escape(str(facts.fingerprint))}</p>"
            ),
            f"<details><summary>The spec, as resolved</summary><pre>{escape(spec_yaml)}</pre></details>",
            (
                "<details><summary>Versions and machine</summary>"
                f"<pre>{escape(json.dumps(environment, indent=2))}</pre></details>"
            ),
            "</div>",
        ]
    )


# Cells


def _table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    best: Sequence[int] = (),
    ident: str,
) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    bold = [' class="best"' if place in best else "" for place in range(len(rows))]
    lines = "\n".join(
        f"<tr{kind}>{''.join(row)}</tr>" for kind, row in zip(bold, rows, strict=True)
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table id="table-{ident}">{said}<thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return f"<td>{escape(str(value))}</td>"


def _number(value: Any, form: str = "{:.4g}") -> str:
    if value is None:
        return "<td>-</td>"
    shown = str(value) if isinstance(value, int) else form.format(value)
    return f'<td data-value="{escape(repr(value))}">{shown}</td>'


def _mean(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "<td>-</td>"
    sd = f" ± {found['sd']:.4f}" if found["sd"] is not None else ""
    low, high = found["ci95"] or (math.nan, math.nan)
    return (
        f'<td data-value="{found["mean"]!r}" title="95% interval of the mean: {low:.4f} to {high:.4f}">'
        f"{found['mean']:.4f}{sd}</td>"
    )


def _interval(ends: Sequence[float] | None) -> str:
    return "<td>-</td>" if ends is None else f"<td>{ends[0]:+.4f} to {ends[1]:+.4f}</td>"
