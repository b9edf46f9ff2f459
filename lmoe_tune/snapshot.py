"""A picture of the ledger, as MLflow's projection needs it: `lmoe_tune.sweep` makes it,
`lmoe_tune.tracking` shows it.

All times are milliseconds since the epoch and come from the ledger, never from the clock: MLflow
stores a metric that is repeated with the same value, step and time only once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lmoe_tune.records import EpochRecord, TrialRecord, Value

BaselineState = Literal["running", "complete", "failed"]
SweepState = Literal["running", "interrupted", "complete"]
SweepKind = Literal["sweep", "confirm"]


@dataclass(frozen=True)
class DatasetRecord:
    """A set of images that a trial sees, and what for; the digest changes with their content."""

    name: str
    role: str
    digest: str
    source: str
    num_images: int


@dataclass(frozen=True)
class BaselineSnapshot:
    """The training all trials start from; `key` is its content hash."""

    key: str
    state: BaselineState
    params: Mapping[str, Value]
    epochs: tuple[EpochRecord, ...]
    started_ms: int
    ended_ms: int | None = None


@dataclass(frozen=True)
class SweepSnapshot:
    """A sweep and its trials. `searched` names the parameters of the space; `best` is a trial's
    number.

    Or the sweep's confirmation and its jobs: these have runs of their own kind, below the sweep's.
    """

    sweep: str
    sweep_id: str
    experiment: str
    state: SweepState
    spec_yaml: str
    trainable: str
    objective: str
    direction: str
    started_ms: int
    trials: Sequence[TrialRecord]
    """By number, those that have been started; each may be read when it is asked for."""
    best: int | None
    feasible: bool
    baseline: BaselineSnapshot | None
    searched: tuple[str, ...]
    kind: SweepKind = "sweep"
    also: tuple[str, ...] = ()
    """Further objectives."""
    constrained: tuple[str, ...] = ()
    """Metrics that have bounds."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """What is the same for all trials: architecture, data, learning rate, versions, …"""
    datasets: tuple[DatasetRecord, ...] = ()
    gpus: float = 0.0
    """The share of a GPU, or the number of them, that a trial has."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More to say on its own run."""


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint to keep as a logged model: a file of `torch.save({"model": …, "describes":
    {…}})`.

    `describes` is the document of a `lmoe_tune.description.ModelDescription`.
    """

    trial: int
    checkpoint: Path
