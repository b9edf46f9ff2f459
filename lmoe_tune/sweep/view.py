"""A sweep as others see it: the picture that tracking projects, and what the commands print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lmoe_tune.durable import read_text
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.spec import Spec, spec_from_resolved
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.tracking import BaselineSnapshot, ModelSource, SweepSnapshot, default_uri, shown
from lmoe_tune.training.baseline_record import read_baseline_record

OPENING_PREFIX = "test_opening:"


def read_sweep(folder: SweepFolder) -> Ledger:
    """A sweep's ledger, for reading."""
    return Ledger.reading(folder, read_spec(folder))


def read_spec(folder: SweepFolder) -> Spec:
    """A sweep's spec, as it was frozen when the sweep was started."""
    return spec_from_resolved(read_text(folder.spec))


def state_of(ledger: Ledger) -> str:
    """`running` while a process works on it, `complete`, or `interrupted`: it can be resumed."""
    if ledger.is_complete():
        return "complete"
    return "running" if ledger.folder.is_running() else "interrupted"


def snapshot(ledger: Ledger, state: str) -> SweepSnapshot:
    """The picture of a ledger that tracking projects."""
    spec = ledger.spec
    trials = ledger.trials()
    best = ledger.best(trials)
    ends = [trial.ended_ms for trial in trials if trial.ended_ms is not None]
    if ledger.kind == "confirm":
        return _confirm_snapshot(ledger, state)
    return SweepSnapshot(
        sweep=ledger.folder.name,
        sweep_id=ledger.sweep_id,
        experiment=spec.tracking.experiment or spec.name,
        state=state,  # type: ignore[arg-type]
        spec_yaml=read_text(ledger.folder.spec),
        trainable=spec.trainable,
        objective=spec.objective.metric,
        direction=spec.objective.direction,
        started_ms=ledger.created_ms,
        ended_ms=max(ends, default=ledger.created_ms) if state == "complete" else None,
        trials=tuple(trials),
        best=best.number if best else None,
        feasible=best is not None and best.violation == 0,
        baseline=_baseline_snapshot(ledger),
        searched=tuple(spec.space),
    )


def models(ledger: Ledger) -> list[ModelSource]:
    """The last checkpoints of the best trials, as far as they are there."""
    found: list[ModelSource] = []
    if ledger.kind == "confirm":
        return found  # its checkpoints are gone; the winner's weights are in the folder of its job
    for trial in ledger.ranked(ledger.trials())[: ledger.spec.tracking.best_checkpoints]:
        path = checkpoint_of(ledger.folder, trial.number)
        if path is not None:
            found.append(ModelSource(trial.number, path))
    return found


def checkpoint_of(folder: SweepFolder, number: int) -> Path | None:
    """A trial's newest checkpoint file; the names sort by epoch (`lmoe_tune.checkpoint`)."""
    return max(folder.checkpoints(number).glob("epoch-*.pt"), default=None)


def summary(ledger: Ledger) -> dict[str, Any]:
    """What `search --json` and `status --format json` print."""
    trials = ledger.trials()
    counts = {
        name: sum(trial.state == name for trial in trials)
        for name in ("complete", "pruned", "failed", "running")
    }
    tracking = tracking_of(ledger)
    return {
        "sweep": ledger.folder.name,
        "state": state_of(ledger),
        "trials": {"planned": ledger.budget.trials, **counts},
        "best": best_of(ledger, trials),
        "tracking_uri": tracking["tracking_uri"],
        "experiment_id": tracking["experiment_id"],
        "parent_run_id": tracking["parent_run_id"],
        **(
            {"pareto_front": [trial.number for trial in ledger.pareto_front(trials)]}
            if len(ledger.spec.objective.metrics) > 1
            else {}
        ),
        "changes": changes_of(ledger),
        "test_openings": test_openings(ledger),
        "wall_s": round(ledger.wall_s(), 3),
        "folder": str(ledger.folder.path),
    }


def changes_of(ledger: Ledger) -> list[str]:
    """What was allowed to be different from the start of it, a line each."""
    changes = [change for key, change in sorted(ledger.attrs.items()) if key.startswith("change:")]
    return [line for change in changes for line in change["lines"]]


def test_openings(ledger: Ledger) -> list[dict[str, Any]]:
    """Every time that the sealed test set was opened: `time_ms`, `who`, `command`, and how many `jobs` it was for."""
    return [
        opening for key, opening in sorted(ledger.attrs.items()) if key.startswith(OPENING_PREFIX)
    ]


def record_opening(ledger: Ledger, who: str, command: str, jobs: int) -> None:
    """Record in the sweep that its test set is about to be opened. The caller holds the sweep's lock."""
    key = f"{OPENING_PREFIX}{len(test_openings(ledger)):04d}"
    ledger.set_attr(key, {"time_ms": now_ms(), "who": who, "command": command, "jobs": jobs})


def best_of(ledger: Ledger, trials: list[TrialRecord]) -> dict[str, Any] | None:
    """The best trial so far, or None."""
    best = ledger.best(trials)
    if best is None:
        return None
    checkpoint = checkpoint_of(ledger.folder, best.number)
    several = len(ledger.spec.objective.metrics) > 1
    return {
        "trial": best.number,
        "value": best.value,
        **(
            {"values": dict(zip(ledger.spec.objective.metrics, best.values, strict=True))}
            if several
            else {}
        ),
        "params": best.params,
        "feasible": best.violation == 0,
        "metrics": best.metrics,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "run_id": tracking_of(ledger)["run_ids"].get(best.number),
        "model_id": tracking_of(ledger)["models"].get(best.number),
    }


def leaderboard(ledger: Ledger) -> list[dict[str, Any]]:
    """All trials, best first: complete ones by rank, then running, pruned and failed ones by value."""
    trials = ledger.trials()
    run_ids = tracking_of(ledger)["run_ids"]
    ranked = ledger.ranked(trials)
    several = len(ledger.spec.objective.metrics) > 1
    front = {trial.number for trial in ledger.pareto_front(trials)} if several else set()
    order = {"running": 0, "pruned": 1, "failed": 2, "complete": 3}
    sign = -1 if ledger.spec.objective.direction == "maximize" else 1
    others = sorted(
        (trial for trial in trials if trial.state != "complete"),
        key=lambda trial: (
            order[trial.state],
            sign * trial.value if trial.value is not None else 1e9,
            trial.number,
        ),
    )
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            **({"pareto": trial.number in front} if several else {}),
            "feasible": trial.violation == 0 if trial.state == "complete" else None,
            "params": trial.params,
            "metrics": trial.metrics,
            "epochs": len(trial.epochs),
            "run_id": run_ids.get(trial.number),
            "failure": trial.failure,
            "retry_of": trial.retry_of,
        }
        for trial in [*ranked, *others]
    ]


def tracking_uri(home: Path, spec: Spec) -> str:
    """The tracking server: the spec's, else MLFLOW_TRACKING_URI, else a database under the home."""
    return spec.tracking.uri or default_uri(home)


def tracking_of(ledger: Ledger, server: str | None = None) -> dict[str, Any]:
    """Where the sweep is shown in MLflow, as far as the tracking server, its own by default, has answered."""
    uri = shown(server or tracking_uri(ledger.folder.home, ledger.spec))
    attrs = ledger.attrs
    prefix = f"mlflow:{uri}"
    found: dict[str, Any] = attrs.get(prefix) or {}
    numbered = [key.removeprefix(f"{prefix}#") for key in attrs if key.startswith(f"{prefix}#")]
    return {
        "tracking_uri": uri,
        "experiment_id": found.get("experiment_id"),
        "parent_run_id": found.get("parent_run_id"),
        "models": {int(number): model for number, model in found.get("models", {}).items()},
        "run_ids": {int(number): attrs[f"{prefix}#{number}"] for number in numbered},
    }


def is_delivered(ledger: Ledger) -> bool:
    """Whether MLflow has all that the sweep's runs gave; false after a kill between the end and the delivery."""
    uri = shown(tracking_uri(ledger.folder.home, ledger.spec))
    return bool(ledger.attrs.get("delivered") == {"uri": uri, "runs": ledger.num_runs()})


def _confirm_snapshot(ledger: Ledger, state: str) -> SweepSnapshot:
    """The picture of a confirmation: its runs name the sweep, and carry no number of a trial of its."""
    spec, attrs, trials = ledger.spec, ledger.attrs, ledger.trials()
    candidates = attrs["candidates"]
    jobs, names = [], {}
    for trial in trials:
        candidate = candidates[trial.params["candidate"]]
        about = {"candidate": candidate["name"], "method": candidate["method"]}
        about |= {"split": trial.params["split"], "seed": trial.params["seed"]}
        about |= {key: value for key, value in candidate["params"].items() if value is not None}
        names[trial.number] = (
            f"confirm {candidate['name']}, split {about['split']}, seed {about['seed']}"
        )
        jobs.append(replace(trial, params=about))
    ends = [trial.ended_ms for trial in trials if trial.ended_ms is not None]
    return SweepSnapshot(
        sweep=attrs["of_sweep"],
        sweep_id=attrs["of_sweep_id"],
        experiment=spec.tracking.experiment or spec.name,
        state=state,  # type: ignore[arg-type]
        spec_yaml=read_text(ledger.folder.spec),
        trainable=spec.trainable,
        objective=spec.objective.metric,
        direction=spec.objective.direction,
        started_ms=ledger.created_ms,
        ended_ms=max(ends, default=ledger.created_ms) if state == "complete" else None,
        trials=tuple(jobs),
        best=None,
        feasible=False,
        baseline=None,
        searched=tuple(dict.fromkeys(name for job in jobs for name in job.params)),
        kind="confirm",
        names=names,
        tags={
            f"lmoe_tune.{key}": str(attrs[key])
            for key in ("verdict", "verdict_sentence")
            if key in attrs
        },
    )


def _baseline_snapshot(ledger: Ledger) -> BaselineSnapshot | None:
    key = ledger.attrs.get("baseline")
    record = read_baseline_record(ledger.folder.home, key) if key else None
    if key is None or record is None:
        return None
    epochs = tuple(
        EpochRecord(epoch["epoch"], epoch["metrics"], epoch["time_ms"])
        for epoch in record["epochs"]
    )
    return BaselineSnapshot(
        key=key,
        state=record["state"],
        params=record["params"],
        epochs=epochs,
        started_ms=record["started_ms"],
        ended_ms=epochs[-1].time_ms if epochs and record["state"] == "complete" else None,
    )
