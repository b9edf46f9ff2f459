"""The records beside the ledger: what one trial was and gave, in files that anything can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import TrialView

METRICS = "metrics.jsonl"
TRIAL = "trial.json"


def write_record(folder: SweepFolder, trial: TrialView) -> None:
    """Write a trial's `trial.json` and `metrics.jsonl` (an epoch a line) from the ledger.

    They are renamed into place, but not synced: the ledger is, and `mend_records` writes what a kill left out.
    """
    path = folder.trial(trial.number)
    path.mkdir(parents=True, exist_ok=True)
    about = {
        "trial": trial.number,
        "state": trial.state,
        "value": trial.value,
        "params": trial.params,
        "violation": trial.violation,
        "failure": trial.failure,
        "traceback": trial.traceback,
        "ended_by": trial.ended_by,
        "retry_of": trial.retry_of,
        "started_ms": trial.started_ms,
        "ended_ms": trial.ended_ms,
    }
    lines = [
        json.dumps({"epoch": epoch.epoch, "time_ms": epoch.time_ms, "metrics": epoch.metrics}) for epoch in trial.epochs
    ]
    _replace(path / METRICS, "".join(f"{line}\n" for line in lines))
    _replace(path / TRIAL, json.dumps(about, indent=1) + "\n")


def mend_records(folder: SweepFolder, trials: Iterable[TrialView]) -> None:
    """Write again what does not agree with the ledger."""
    for trial in trials:
        if _recorded(folder.trial(trial.number)) != (trial.state, len(trial.epochs)):
            write_record(folder, trial)


def _recorded(path: Path) -> tuple[str, int] | None:
    try:
        return json.loads((path / TRIAL).read_text())["state"], (path / METRICS).read_text().count("\n")
    except (OSError, ValueError, KeyError):
        return None


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text)
    aside.replace(path)
