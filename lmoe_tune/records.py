"""What one trial was and gave: the record that the ledger, `trial.json`, MLflow, the report and the
API share.

All times are milliseconds since the epoch and come from the ledger, never from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TrialState = Literal["running", "complete", "pruned", "failed"]
Value = float | int | str | bool | None

PLACEMENTS_FILE = "validation.npz"
"""In a trial's folder: see `lmoe_tune.placements`."""

_EMPTY: Mapping[str, Any] = {}


def in_words(state: str, sweep_state: str) -> str:
    """What people are told of a trial's state: while no process works on its sweep, it does not
    run, but continues from its checkpoint with the next resume.
    """
    if state == "running" and sweep_state != "running":
        return "interrupted"

    return state


@dataclass(frozen=True)
class EpochRecord:
    """The metrics of one epoch; epochs count from 1."""

    epoch: int
    metrics: Mapping[str, float]
    time_ms: int
    misses: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    """How far each constraint was missed, by metric and side; 0 or less is met.

    A key reads `val_accuracy:min`.
    """


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the ledger has it.

    The values are those of its last epoch. In JSON the number is called `trial`.
    """

    number: int
    state: TrialState
    params: dict[str, Any]
    epochs: tuple[EpochRecord, ...]
    started_ms: int
    ended_ms: int | None = None
    values: tuple[float, ...] = ()
    """One for each objective; empty before the first epoch."""
    violation: float = 0.0
    """How far the constraints are missed, summed; 0 is feasible. Of a pruned trial: by where it was
    heading.
    """
    failure: str | None = None
    traceback: str | None = None
    ended_by: str | None = None
    """The budget for which it was ended early."""
    retry_of: int | None = None
    """The failed trial that it tries again."""
    retries: int = 0
    """How often its process died."""
    host: str | None = None
    """The machine that its last epoch was trained on."""
    device: str | None = None
    """`cpu` or `cuda`."""
    gpu: str | None = None
    """The name of the GPU."""
    notes: tuple[str, ...] = ()
    """Warnings of its process, such as a damaged checkpoint."""
    distributions: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """What each parameter was drawn from, as Optuna writes it."""
    optuna: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """What Optuna's samplers and pruners noted about it, its constraints included."""

    @property
    def value(self) -> float | None:
        """Of the first objective."""
        if self.values:
            return self.values[0]

        return None

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last epoch."""
        if self.epochs:
            return dict(self.epochs[-1].metrics)

        return {}

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` reads them."""
        found = dict(vars(self))
        found["epochs"] = [dict(vars(epoch)) for epoch in self.epochs]
        return {"trial": found.pop("number"), "value": self.value, **found}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> TrialRecord:
        """Raises KeyError or TypeError if `found` is not such a record."""
        values = dict(found)
        values["number"] = values.pop("trial")
        del values["value"]  # the first of the values
        values["epochs"] = tuple(EpochRecord(**epoch) for epoch in values["epochs"])
        values["values"] = tuple(values["values"])
        values["notes"] = tuple(values["notes"])
        return cls(**values)
