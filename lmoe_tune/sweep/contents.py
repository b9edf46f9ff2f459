"""The state that the records of a ledger add up to: the sweep's attributes and its trials.

Optuna's journal storage says the same of them, and a test compares the two. Commands that only look
at a sweep read this, which needs nothing of Optuna's; a driver that opens a ledger hands Optuna one
record for each trial instead of a dozen (`Contents.records`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any

from lmoe_tune.records import TrialState
from lmoe_tune.sweep.lines import Record


class Operation(IntEnum):
    """What a record does, by Optuna's numbers."""

    CREATE_STUDY = 0
    SET_STUDY_ATTR = 2
    SET_STUDY_SYSTEM_ATTR = 3
    CREATE_TRIAL = 4
    SET_PARAM = 5
    SET_STATE = 6
    SET_INTERMEDIATE = 7
    SET_TRIAL_ATTR = 8
    SET_TRIAL_SYSTEM_ATTR = 9


RUNNING, COMPLETE, PRUNED, FAIL, WAITING = range(5)
"""States of a trial, by Optuna's numbers."""

STATES: dict[int, TrialState] = {
    RUNNING: "running",
    COMPLETE: "complete",
    PRUNED: "pruned",
    FAIL: "failed",
}
"""Those of a trial that has been started."""


@dataclass(slots=True)
class StoredTrial:
    """One trial as its records say; times as they are written there."""

    number: int
    state: int
    started: str | None
    ended: str | None = None
    values: list[float] | None = None
    stored_params: dict[str, float] = field(default_factory=dict)
    """By name, as Optuna keeps them: of a choice its place."""
    distributions: dict[str, str] = field(default_factory=dict)
    """What each parameter was drawn from, in Optuna's JSON."""
    reported: dict[int, float] = field(default_factory=dict)
    """The objective after each epoch."""
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.state in (COMPLETE, PRUNED, FAIL)

    @property
    def params(self) -> dict[str, Any]:
        """The values of the parameters."""
        kinds = self.distributions
        return {name: _value(kinds[name], kept) for name, kept in self.stored_params.items()}

    @property
    def started_ms(self) -> int:
        assert self.started is not None, "a trial that was never started"
        return _milliseconds(self.started)

    @property
    def ended_ms(self) -> int | None:
        return None if self.ended is None else _milliseconds(self.ended)


class Contents:
    """The study of a ledger, as its records build it up.

    Attributes:
        attrs: the attributes of the study; None before there is one.
        trials: by number.
    """

    def __init__(self) -> None:
        self.attrs: dict[str, Any] | None = None
        self.trials: list[StoredTrial] = []
        self._study: Record = {}
        self._system_attrs: dict[str, Any] = {}
        self._changed: set[int] = set()
        self._texts: dict[str, str] = {}  # of distributions, each kept once

    def take_changed(self) -> list[int]:
        """Numbers of the trials that are new or have changed since this was asked for, in order."""
        found, self._changed = sorted(self._changed), set()
        return found

    def apply(self, record: Record) -> None:
        """Take in the next record."""
        operation = record["op_code"]
        if operation >= Operation.SET_PARAM:
            trial = self.trials[record["trial_id"]]
            if not trial.is_finished:
                self._change(trial, operation, record)
        elif operation == Operation.CREATE_TRIAL:
            self._create(record)
        elif operation == Operation.CREATE_STUDY:
            self._study, self.attrs = record, {}
        elif operation == Operation.SET_STUDY_ATTR:
            self.attrs = {**(self.attrs or {}), **record["user_attr"]}
        else:
            assert operation == Operation.SET_STUDY_SYSTEM_ATTR, f"operation {operation} is unknown"
            self._system_attrs.update(record["system_attr"])

    def records(self) -> Iterator[Record]:
        """Records that add up to the same: one for each trial."""
        if self.attrs is None:
            return

        of_study = {"worker_id": "", "study_id": 0}
        yield self._study
        for key, value in self.attrs.items():
            yield of_study | {"op_code": Operation.SET_STUDY_ATTR, "user_attr": {key: value}}
        for key, value in self._system_attrs.items():
            yield of_study | {
                "op_code": Operation.SET_STUDY_SYSTEM_ATTR,
                "system_attr": {key: value},
            }
        for trial in self.trials:
            yield of_study | _created(trial)

    def _create(self, record: Record) -> None:
        number = len(self.trials)
        values = record.get("values")
        if values is None and record.get("value") is not None:
            values = [record["value"]]
        distributions = record.get("distributions", {})
        trial = StoredTrial(
            number=number,
            state=record.get("state", RUNNING),
            started=record["datetime_start"],
            ended=record.get("datetime_complete"),
            values=values,
            stored_params=dict(record.get("params", {})),
            distributions={name: self._once(text) for name, text in distributions.items()},
            reported={
                int(at): value for at, value in record.get("intermediate_values", {}).items()
            },
            user_attrs=dict(record.get("user_attrs", {})),
            system_attrs=dict(record.get("system_attrs", {})),
        )
        self.trials.append(trial)
        self._changed.add(number)

    def _change(self, trial: StoredTrial, operation: int, record: Record) -> None:
        if operation == Operation.SET_TRIAL_ATTR:
            trial.user_attrs.update(record["user_attr"])
        elif operation == Operation.SET_INTERMEDIATE:
            trial.reported[record["step"]] = record["intermediate_value"]
        elif operation == Operation.SET_PARAM:
            name = record["param_name"]
            trial.stored_params[name] = record["param_value_internal"]
            trial.distributions[name] = self._once(record["distribution"])
        elif operation == Operation.SET_TRIAL_SYSTEM_ATTR:
            trial.system_attrs.update(record["system_attr"])
        else:
            assert operation == Operation.SET_STATE, f"operation {operation} is unknown"
            _set_state(trial, record)
        self._changed.add(trial.number)

    def _once(self, text: str) -> str:
        return self._texts.setdefault(text, text)


def _set_state(trial: StoredTrial, record: Record) -> None:
    state = record["state"]
    if state == RUNNING:
        if trial.state == RUNNING:
            return
        trial.started = record["datetime_start"]

    trial.state = state
    if trial.is_finished:
        trial.ended = record["datetime_complete"]
    if record["values"] is not None:
        trial.values = record["values"]


def _created(trial: StoredTrial) -> Record:
    """The record that makes a trial as it is now."""
    record: Record = {
        "op_code": Operation.CREATE_TRIAL,
        "state": trial.state,
        "datetime_start": trial.started,
        "values": trial.values,
        "params": trial.stored_params,
        "distributions": trial.distributions,
        "intermediate_values": trial.reported,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
    }
    if not trial.is_finished:  # these keep changing, and Optuna keeps what it is given
        record["user_attrs"] = dict(trial.user_attrs)
        record["system_attrs"] = dict(trial.system_attrs)
    if trial.ended is not None:
        record["datetime_complete"] = trial.ended
    return record


@lru_cache(maxsize=1024)
def _attributes(distribution: str) -> tuple[str, Mapping[str, Any]]:
    """Kind and attributes of a distribution in Optuna's JSON."""
    found = json.loads(distribution)
    return found["name"], found["attributes"]


def _value(distribution: str, kept: float) -> Any:
    """A parameter's value, of what Optuna keeps for it."""
    kind, attributes = _attributes(distribution)
    if kind == "CategoricalDistribution":
        return attributes["choices"][int(kept)]
    if kind == "IntDistribution":
        return int(kept)

    return kept


def _milliseconds(written: str) -> int:
    return round(datetime.fromisoformat(written).timestamp() * 1000)
