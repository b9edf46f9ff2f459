"""What a report shows, gathered from the ledger and from a confirmation: plain values, nothing
drawn yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmoe_tune.arrays import read_arrays
from lmoe_tune.durable import read_object
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.importance import importances
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.picture import baseline_snapshot

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confirmation:
    """What `lmoe-tune confirm` has found."""

    document: dict[str, Any]
    folder: Path

    def jobs(self, row: str) -> list[dict[str, Any]]:
        """The tested trainings of a row."""
        return [job for job in self.document["jobs"] if job["row"] == row]

    def scores(self, job: dict[str, Any]) -> dict[str, Floats]:
        """The test scores of a job by set: `id`, `fine`, `coarse_<set>`; empty if they are gone."""
        try:
            arrays = read_arrays(self.folder / job["scores"])
        except (OSError, ValueError, KeyError):
            return {}
        prefix = "scores_"
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }


@dataclass(frozen=True)
class Facts:
    """A sweep at one moment."""

    home: Path
    spec: Spec
    summary: dict[str, Any]
    leaderboard: list[dict[str, Any]]
    trials: list[TrialRecord]
    """By number."""
    best: TrialRecord | None
    front: list[TrialRecord]
    baseline: dict[str, float]
    """The metrics of the baseline after its last epoch; empty if it is not known."""
    importances: dict[str, float]
    confirmation: Confirmation | None
    fingerprint: str | None

    @property
    def document(self) -> dict[str, Any]:
        """The confirmation's; empty if there is none."""
        return {} if self.confirmation is None else self.confirmation.document

    @property
    def searched(self) -> list[str]:
        """The searched parameters that a trial has, in the order of the spec."""
        return [
            name for name in self.spec.space if any(name in trial.params for trial in self.trials)
        ]


def gather(ledger: Ledger) -> Facts:
    """The facts of a sweep that may still run."""
    trials = ledger.trials()
    trained = baseline_snapshot(ledger)
    epochs = trained and trained.epochs
    return Facts(
        home=ledger.folder.home,
        spec=ledger.spec,
        summary=view.summary(ledger),
        leaderboard=view.leaderboard(ledger),
        trials=trials,
        best=ledger.best(),
        front=ledger.pareto_front(),
        baseline=dict(epochs[-1].metrics) if epochs else {},
        importances=importances(ledger),
        confirmation=_confirmation(ledger),
        fingerprint=ledger.attrs.get("fingerprint"),
    )


def _confirmation(ledger: Ledger) -> Confirmation | None:
    folder = ledger.folder.confirmation.path
    document = read_object(folder / "confirm.json")
    if "rows" not in document:
        return None
    if len(document.get("test_openings", ())) < len(view.test_openings(ledger)):
        return None  # a later confirmation has begun and not ended, so this one may be superseded
    return Confirmation(document, folder)
