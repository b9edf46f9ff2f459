"""MLflow's own pages, opened on a prepared comparison: filter, order, columns and charts, behind a
link.

MLflow keeps a view that a user shares as a tag `mlflow.sharedViewState.KEY` of the experiment, and
opens it by `viewStateShareKey=KEY`. Neither is documented, so all of it is here, and
`tests/tracking/test_browser.py` looks at the charts in a real browser. We write under keys of our
own only: one for each sweep, one for each confirmation, one that compares the sweeps of an
experiment. Without such a view MLflow shows one closed row, without metrics.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lmoe_tune.snapshot import SweepSnapshot
from lmoe_tune.tracking import content
from lmoe_tune.tracking.judge import translated

if TYPE_CHECKING:
    from lmoe_tune.tracking.runs import Runs

TAG = "mlflow.sharedViewState."
SWEEPS_KEY = "lmoe-sweeps"
_COMPRESSED = "deflate;"  # how MLflow's page tells that the rest is zlib's, in base64
_MAX_RUNS, _MAX_CURVES = 1000, 100
_MAX_TEST_CHARTS = 6

View = dict[str, Any]
Chart = dict[str, Any]


def sweep_key(sweep_id: str, kind: str = "sweep") -> str:
    """The key of a sweep's view, or of its confirmation's."""
    return f"lmoe-{kind}-{sweep_id}"


def view_page(experiment_id: str, key: str, *, table: bool = False) -> str:
    """What follows MLflow's address in the link that opens a view, on its charts or on its table."""
    mode = "TABLE" if table else "CHART"
    wanted = f"viewStateShareKey={key}&compareRunsMode={mode}&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{wanted}"


def deliver(
    runs: Runs, known_tags: dict[str, str], snapshot: SweepSnapshot, parent_run_id: str
) -> None:
    """Write the views of a sweep, or of a confirmation, if they are missing or different.

    Args:
        known_tags: of the experiment; what is written is added.
    """
    own = sweep_key(snapshot.sweep_id, snapshot.kind)
    if snapshot.kind == "confirm":
        views = {own: _of_confirmation(snapshot, parent_run_id)}
    else:
        views = {own: _of_trials(snapshot, parent_run_id), SWEEPS_KEY: _of_sweeps(snapshot)}

    for key, view in views.items():
        value = packed(view)
        if known_tags.get(TAG + key) != value:
            with translated(runs.uri):
                runs.client.set_experiment_tag(runs.experiment_id, TAG + key, value)
            known_tags[TAG + key] = value


def packed(view: View) -> str:
    """As MLflow's page reads it: its tags are short."""
    text = json.dumps(view, sort_keys=True, separators=(",", ":"))
    return _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _of_trials(snapshot: SweepSnapshot, parent_run_id: str) -> View:
    """The trials of a sweep, flat and best first."""
    objectives = (snapshot.objective, *snapshot.also)
    wanted = [
        *objectives,
        *snapshot.constrained,
        "val_accuracy",
        "val_fine_auroc",
        "val_coarse_auroc",
    ]
    metrics = list(dict.fromkeys(wanted))
    charts = [_parallel(snapshot.searched, objectives), *map(_curves, objectives)]
    if len(objectives) > 1:
        charts.append(_scatter(_metric(objectives[0]), _metric(objectives[1])))
    charts.append(_scatter(_metric("val_accuracy"), _metric("val_auroc")))
    for name in snapshot.searched:
        charts.append(_scatter(_param(name), _metric(objectives[0])))

    return _view(
        f"Sweep {snapshot.sweep}",
        where=f"tags.`{content.PARENT}` = '{parent_run_id}' and tags.`lmoe_tune.trial` != ''",
        order_by=f"metrics.`{content.FINAL}`",
        ascending=snapshot.direction == "minimize",
        columns=[
            *(f"params.`{name}`" for name in snapshot.searched),
            f"metrics.`{content.FINAL}`",
            *(f"metrics.`{name}`" for name in metrics),
            f"metrics.`{content.FEASIBLE}`",
            f"metrics.`{content.EPOCHS}`",
            "tags.`lmoe_tune.state`",
        ],
        charts=charts,
    )


def _of_sweeps(snapshot: SweepSnapshot) -> View:
    """The sweeps of an experiment, by their best values."""
    best = f"best_{snapshot.objective}"
    shown = ("state", "trainable", "arch", "data", "ood_data", "split", "lr", "epochs", "sampler",
             "best_trial", "best_params", "verdict", "version")  # fmt: skip
    return _view(
        "Sweeps",
        where="tags.`lmoe_tune.kind` = 'sweep'",
        order_by=f"metrics.`{best}`",
        ascending=snapshot.direction == "minimize",
        columns=[f"metrics.`{best}`", *(f"tags.`lmoe_tune.{name}`" for name in shown)],
        charts=[_bars(best), _curves(best)],
    )


def _of_confirmation(snapshot: SweepSnapshot, parent_run_id: str) -> View:
    """The rows of a confirmation: who is compared, over which seeds, and what the test says."""
    measured = {name for trial in snapshot.trials[:1] for name in trial.metrics}
    tested = sorted(name for name in measured if name.startswith("test_"))
    about = ("candidate", "method", "split", "seed")
    shown = tested[:_MAX_TEST_CHARTS]
    charts = [_scatter(_param("candidate"), _metric(name)) for name in shown]
    if {"test_accuracy", "test_auroc"} <= set(tested):
        charts.append(_scatter(_metric("test_accuracy"), _metric("test_auroc")))

    return _view(
        f"Confirmation of {snapshot.sweep}",
        where=f"tags.`{content.PARENT}` = '{parent_run_id}'",
        order_by="params.`candidate`",
        ascending=True,
        columns=[
            *(f"params.`{name}`" for name in about),
            *(f"metrics.`{name}`" for name in tested),
            "tags.`lmoe_tune.state`",
        ],
        charts=charts,
    )


def _view(
    title: str,
    *,
    where: str,
    order_by: str,
    ascending: bool,
    columns: Iterable[str],
    charts: Iterable[Chart],
) -> View:
    section = "lmoe-tune"
    placed = [
        {"uuid": f"{section}-{place}", "metricSectionId": section, "deleted": False,
         "isGenerated": False, **chart}
        for place, chart in enumerate(charts)
    ]  # fmt: skip
    return {
        "searchFilter": where,
        "orderByKey": order_by,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["attributes.`Duration`", *columns],
        "compareRunCharts": placed,
        "compareRunSections": [
            {"uuid": section, "name": title, "display": True, "isReordered": False,
             "deleted": False, "isGenerated": False, "columns": 2, "cardHeight": 360}
        ],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": False,
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {
            "xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": "",
        },
    }  # fmt: skip


def _parallel(params: Iterable[str], metrics: Iterable[str]) -> Chart:
    return {
        "type": "PARALLEL",
        "displayName": "Searched parameters",
        "runsCountToCompare": _MAX_RUNS,
        "selectedParams": list(params),
        "selectedMetrics": list(metrics),
        "showAllRuns": True,
    }


def _curves(metric: str) -> Chart:
    return {
        "type": "LINE",
        "runsCountToCompare": _MAX_CURVES,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "selectedYAxisMetricKey": metric,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
        "useGlobalLineSmoothing": False,
        "useGlobalXaxisKey": False,
    }


def _bars(metric: str) -> Chart:
    return {
        "type": "BAR",
        "runsCountToCompare": _MAX_CURVES,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
    }


def _scatter(x: dict[str, str], y: dict[str, str]) -> Chart:
    return {
        "type": "SCATTER",
        "displayName": f"{y['key']} against {x['key']}",
        "runsCountToCompare": _MAX_RUNS,
        "xaxis": x,
        "yaxis": y,
        "tooltipDataKeys": [],
    }


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _param(name: str) -> dict[str, str]:
    return {"key": name, "type": "PARAM"}
