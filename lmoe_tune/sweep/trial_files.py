"""The records beside the ledger: what one trial was and gave, in files that anything can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lmoe_tune.durable import write_aside, writing
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.sweep.folder import SweepFolder

METRICS = "metrics.jsonl"
TRIAL = "trial.json"


def write_record(folder: SweepFolder, trial: TrialRecord) -> None:
    """Write a trial's `trial.json` and `metrics.jsonl` (an epoch a line) from the ledger.

    They are renamed into place, but not synced: the ledger is, and `mend_records` writes what a
    kill left out.
    """
    path = folder.trial(trial.number)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    write_aside(path / METRICS, _lines(trial.epochs))
    _write_about(path, trial)


def write_news(
    folder: SweepFolder, trial: TrialRecord, num_written: int, *, about: bool = True
) -> None:
    """Add the epochs that are new to `metrics.jsonl`, and write `trial.json`: the same as
    `write_record` where so many epochs are written already.

    Args:
        about: False leaves `trial.json` as it is: what a running trial has reached is in its
            epochs, and where it runs is in the ledger. A file that is renamed after each of them
            costs more than they do.
    """
    path = folder.trial(trial.number)
    fresh = trial.epochs[num_written:]
    with writing(path):
        if num_written == 0:
            path.mkdir(parents=True, exist_ok=True)
        if fresh or num_written == 0:  # of a new trial, an empty file
            with open(f"{path}/{METRICS}", "ab") as file:
                file.write(_lines(fresh))
    if about:
        _write_about(path, trial)


def _lines(epochs: Iterable[EpochRecord]) -> bytes:
    return "".join(f"{json.dumps(vars(epoch))}\n" for epoch in epochs).encode()


def _write_about(path: Path, trial: TrialRecord) -> None:
    about = replace(trial, epochs=()).to_json()
    del about["epochs"]
    # A field a line: `indent` would take the slow way of the library, a tenth of a trial's time here.
    fields = [f' "{name}": {json.dumps(value)}' for name, value in about.items()]
    write_aside(path / TRIAL, ("{\n" + ",\n".join(fields) + "\n}\n").encode())


def read_record(path: Path) -> TrialRecord | None:
    """A trial as its record has it; None if that is missing or damaged."""
    try:
        about = json.loads((path / TRIAL).read_text(encoding="utf-8"))
        epochs = [
            json.loads(line) for line in (path / METRICS).read_text(encoding="utf-8").splitlines()
        ]
        return TrialRecord.from_json({**about, "epochs": epochs})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mend_records(folder: SweepFolder, trials: Iterable[TrialRecord]) -> None:
    """Rewrite what does not agree with the ledger."""
    for trial in trials:
        path = folder.trial(trial.number)
        for torn in path.glob(".*.tmp"):  # a kill in the middle of a write left it
            torn.unlink(missing_ok=True)
        if recorded_extent(path) != (trial.state, len(trial.epochs)):
            write_record(folder, trial)


def recorded_extent(path: Path) -> tuple[str, int] | None:
    """A trial's state and number of epochs as its record has them; None if that is missing or
    torn.
    """
    try:
        with open(f"{path}/{TRIAL}", "rb") as about, open(f"{path}/{METRICS}", "rb") as metrics:
            lines = metrics.read()
            if lines and not lines.endswith(b"\n"):
                return None
            return json.loads(about.read())["state"], lines.count(b"\n")
    except (OSError, ValueError, KeyError, TypeError):
        return None
