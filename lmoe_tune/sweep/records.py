"""The records beside the ledger: what one trial was and gave, in files that anything can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmoe_tune.durable import write_aside, writing
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import TrialView
from lmoe_tune.tracking import EpochRecord

METRICS = "metrics.jsonl"
_SAME = (
    "state", "value", "params", "violation", "failure", "traceback", "ended_by", "retry_of", "started_ms",
    "ended_ms", "retries",
)  # fmt: skip
TRIAL = "trial.json"


def write_record(folder: SweepFolder, trial: TrialView) -> None:
    """Write a trial's `trial.json` and `metrics.jsonl` (an epoch a line) from the ledger.

    They are renamed into place, but not synced: the ledger is, and `mend_records` writes what a kill left out.
    """
    path = folder.trial(trial.number)
    with writing(path):
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
        "retries": trial.retries,
        "notes": trial.notes,
        "optuna": trial.system_attrs,
    }
    lines = [
        json.dumps({"epoch": epoch.epoch, "time_ms": epoch.time_ms, "metrics": epoch.metrics})
        for epoch in trial.epochs
    ]
    write_aside(path / METRICS, "".join(f"{line}\n" for line in lines).encode())
    write_aside(path / TRIAL, (json.dumps(about, indent=1) + "\n").encode())


def read_record(path: Path, objectives: Sequence[str]) -> TrialView | None:
    """A trial as its record has it; None where that is missing or damaged."""
    try:
        about = json.loads((path / TRIAL).read_text(encoding="utf-8"))
        epochs = []
        for line in (path / METRICS).read_text(encoding="utf-8").splitlines():
            epoch = json.loads(line)
            epochs.append(EpochRecord(epoch["epoch"], epoch["metrics"], epoch["time_ms"]))
        values = tuple(float(epochs[-1].metrics[name]) for name in objectives) if epochs else ()
        return TrialView(
            number=about["trial"],
            values=values,
            epochs=tuple(epochs),
            system_attrs=about["optuna"],
            notes=tuple(about["notes"]),
            **{name: about[name] for name in _SAME},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mend_records(folder: SweepFolder, trials: Iterable[TrialView]) -> None:
    """Write again what does not agree with the ledger."""
    for trial in trials:
        path = folder.trial(trial.number)
        for name in _names_in(path):
            if name.startswith(".") and name.endswith(
                ".tmp"
            ):  # a kill in the middle of a write left it
                (path / name).unlink(missing_ok=True)
        if recorded_extent(path) != (trial.state, len(trial.epochs)):
            write_record(folder, trial)


def recorded_extent(path: Path) -> tuple[str, int] | None:
    """A trial's state and number of epochs as its record has them; None where that is missing or damaged."""
    try:
        with open(f"{path}/{TRIAL}", "rb") as about, open(f"{path}/{METRICS}", "rb") as metrics:
            return json.loads(about.read())["state"], metrics.read().count(b"\n")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names_in(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
