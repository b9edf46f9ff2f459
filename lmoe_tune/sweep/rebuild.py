"""Rebuilds a damaged ledger from its undamaged part and from the records beside it.

Every trial has its own record (`trials/N/trial.json`, `metrics.jsonl`), written after each change
of the ledger; `sweep.json` has what the ledger says about the sweep as a whole.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from lmoe_tune.durable import read_object, sync_folder, write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.contents import STATES, Operation
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.sweep.lines import LedgerError, good_records, whole_prefix
from lmoe_tune.sweep.trial_files import read_record, recorded_extent


@dataclass(frozen=True)
class Remains:
    """What is left of a sweep whose ledger is damaged."""

    attrs: dict[str, Any]
    """Of the sweep as a whole."""
    system_attrs: dict[str, Any]
    """Optuna's, of the study."""
    trials: dict[int, TrialRecord]
    lost: tuple[int, ...]
    """Numbers of trials that are lost entirely."""
    num_from_records: int
    """Trials whose record knows more than the undamaged part of the ledger."""

    def __str__(self) -> str:
        epochs = sum(len(trial.epochs) for trial in self.trials.values())
        text = f"{len(self.trials)} trials with {epochs} epochs"
        if self.lost:
            return f"{text}; nothing is left of trial {', '.join(map(str, self.lost))}"

        return text


def survey(folder: SweepFolder, spec: Spec) -> Remains:
    """What can be rebuilt; changes nothing.

    Raises:
        LedgerError: not even the sweep's identity is left.
    """
    content = folder.ledger.read_bytes() if folder.ledger.is_file() else b""
    attrs, trials = _read_prefix(whole_prefix(content), spec, folder)
    system_attrs, from_records = dict[str, Any](), 0
    for record in good_records(content):  # the damage is mostly small: what follows it counts too
        if record.get("op_code") == Operation.SET_STUDY_ATTR:
            attrs.update(record["user_attr"])
        elif record.get("op_code") == Operation.SET_STUDY_SYSTEM_ATTR:
            system_attrs.update(record["system_attr"])
    about = read_object(folder.about)
    if "sweep_id" not in attrs:
        attrs |= about
    if "sweep_id" not in attrs:
        raise LedgerError(
            f"{folder.path}: neither the ledger nor {folder.about.name} says which sweep this is"
        )
    # Whatever is lost, it stays known that the test set was opened.
    attrs = {key: of for key, of in about.items() if schema.TEST_OPENING.holds(key)} | attrs
    for path in folder.trials.glob("[0-9]*"):
        record_of_trial = read_record(path)
        if record_of_trial is None:
            continue
        known = trials.get(record_of_trial.number)
        if known is None or _extent(record_of_trial) > _extent(known):
            trials[record_of_trial.number] = record_of_trial
            from_records += 1
    expected = range(max(trials, default=-1) + 1)
    waiting = len(spec.search.start_from)
    lost = tuple(number for number in expected if number not in trials and number >= waiting)
    return Remains(attrs, system_attrs, dict(sorted(trials.items())), lost, from_records)


def rebuild(folder: SweepFolder, spec: Spec) -> tuple[Remains, Path]:
    """Rebuild the ledger; the caller holds the lock. Returns what it holds, and where the damaged
    one is kept.

    Raises:
        LedgerError: nothing is left to build it from.
    """
    remains = survey(folder, spec)
    aside = folder.ledger.with_name("ledger.jsonl.rebuilt")
    aside.unlink(missing_ok=True)
    ledger = Ledger(
        folder, spec, writable=True, path=aside, first_attrs=remains.attrs, enqueue=False
    )
    with ledger.transaction():
        for key, value in remains.system_attrs.items():
            ledger.study._storage.set_study_system_attr(ledger.study._study_id, key, value)
        for number in range(max([*remains.trials, *remains.lost], default=-1) + 1):
            trial = remains.trials.get(number)
            if trial is not None:
                ledger.study.add_trial(_frozen(trial, spec.objective.metrics))
            elif number < len(spec.search.start_from):
                ledger.study.enqueue_trial(dict(spec.search.start_from[number]))
            else:
                ledger.study.add_trial(_lost(number))
        for point in spec.search.start_from[len(ledger.study.get_trials(deepcopy=False)) :]:
            ledger.study.enqueue_trial(dict(point))
    kept = folder.ledger.with_name(f"ledger.jsonl.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.ledger.is_file():
        write_durably(kept, folder.ledger.read_bytes())
    aside.replace(folder.ledger)
    sync_folder(folder.path)
    return remains, kept


def write_about(ledger: Ledger) -> None:
    """Write `sweep.json`: what the ledger says about the sweep as a whole."""
    attrs = ledger.attrs
    if read_object(ledger.folder.about) != attrs:
        write_durably(ledger.folder.about, json.dumps(attrs, indent=1).encode())


def behind(ledger: Ledger) -> str | None:
    """What the trials' records know and the ledger does not, in words; None if it knows everything.

    The ledger is written first and synced, so it can only be behind when it has lost something.
    """
    known = {
        trial.number: (trial.state != "running", len(trial.epochs)) for trial in ledger.trials()
    }
    ahead = []
    for path in ledger.folder.trials.glob("[0-9]*"):
        recorded = recorded_extent(path) if path.name.isdigit() else None
        if recorded is None:
            continue
        state, num_epochs = recorded
        number = int(path.name)
        if number not in known or (state != "running", num_epochs) > known[number]:
            ahead.append(number)
    if not ahead:
        return None
    numbers = ", ".join(map(str, sorted(ahead)[:8])) + (", …" if len(ahead) > 8 else "")
    return f"the ledger lacks what the records of trial {numbers} hold: it has lost its end"


def _read_prefix(
    content: bytes, spec: Spec, folder: SweepFolder
) -> tuple[dict[str, Any], dict[int, TrialRecord]]:
    """What a ledger said of the sweep and of its trials before it was damaged."""
    with tempfile.TemporaryDirectory(prefix="lmoe-tune-") as scratch:
        path = Path(scratch) / "ledger.jsonl"
        path.write_bytes(content)
        try:
            ledger = Ledger(folder, spec, writable=False, path=path)
            return ledger.attrs, {trial.number: trial for trial in ledger.trials()}
        except (LedgerError, KeyError):
            return {}, {}


def _extent(trial: TrialRecord) -> tuple[bool, int]:
    return trial.state != "running", len(trial.epochs)


def _frozen(trial: TrialRecord, objectives: Sequence[str]) -> FrozenTrial:
    """The trial as Optuna keeps it."""
    attrs: dict[str, Any] = {}
    for epoch in trial.epochs:
        found = dict(vars(epoch))
        attrs[schema.EPOCH.at(found.pop("epoch"))] = found
    notes = {key.name: getattr(trial, key.name) for key in schema.RECORD_KEYS}
    notes[schema.RETRIES.name] = trial.retries or None
    notes[schema.NOTES.name] = list(trial.notes) or None
    attrs |= {key: value for key, value in notes.items() if value is not None}
    reported = {}
    if len(objectives) == 1:
        reported = {epoch.epoch: float(epoch.metrics[objectives[0]]) for epoch in trial.epochs}
    values = list(trial.values) if trial.state == "complete" else None
    if trial.state == "pruned" and reported:
        values = [reported[max(reported)]]  # as Optuna itself takes it
    state = next(State(state) for state, name in STATES.items() if name == trial.state)
    ended = None if trial.state == "running" else _datetime(trial.ended_ms or now_ms())
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=None,
        values=values,
        datetime_start=_datetime(trial.started_ms),
        datetime_complete=ended,
        params=dict(trial.params),
        distributions={
            name: json_to_distribution(kind) for name, kind in trial.distributions.items()
        },
        user_attrs=attrs,
        system_attrs=dict(trial.optuna),
        intermediate_values=reported,
    )


def _lost(number: int) -> FrozenTrial:
    """In the place of a trial of which nothing is left."""
    now = _datetime(now_ms())
    return FrozenTrial(
        number=number, trial_id=number, state=State.FAIL, value=None, datetime_start=now, datetime_complete=now,
        params={}, distributions={}, user_attrs={"failure": "its records were lost with the ledger"},
        system_attrs={}, intermediate_values={},
    )  # fmt: skip


def _datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone().replace(tzinfo=None)


def refuse_whole(folder: SweepFolder, spec: Spec) -> None:
    """Raises UsageError if the ledger is undamaged and complete: there is nothing to rebuild."""
    try:
        ledger = Ledger.reading(folder, spec)
    except LedgerError:
        return
    if behind(ledger) is None:
        raise UsageError(f"the ledger of '{folder.name}' is intact: there is nothing to rebuild")
