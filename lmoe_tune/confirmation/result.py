"""What a confirmation found: the document that it prints, from the recorded jobs and what was kept of their tests."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import DESCRIPTION, MODEL, RESAMPLED, SCORES, Candidate, Plan
from lmoe_tune.durable import write_durably
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.statistics import Floats, Paired, Run, compare, summarise, verdict
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder

METRIC = "test_auroc"
COMPARED = (
    METRIC, "test_fine_auroc", "test_coarse_auroc", "test_fine_tnr95", "test_coarse_tnr95", "test_accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class _Tested:
    """A job that has ended, and what was kept of its test."""

    row: str
    split: int
    seed: int
    trial: TrialRecord
    resampled: Mapping[str, Floats]
    fingerprint: str

    @property
    def metrics(self) -> dict[str, float]:
        return {
            name: value for name, value in self.trial.metrics.items() if name.startswith("test_")
        }


def confirm_file(folder: SweepFolder) -> Path:
    """Where the document is kept; `folder` is the confirmation's."""
    return folder.path / "confirm.json"


def write_document(study: JobLedger, document: Mapping[str, Any]) -> None:
    """Keep the document beside the confirmation's ledger."""
    write_durably(confirm_file(study.folder), (json.dumps(document, indent=2) + "\n").encode())


def make_document(study: JobLedger, plan: Plan, *, notes: Iterable[str] = ()) -> dict[str, Any]:
    """The document of a plan whose jobs have all ended, some perhaps failed.

    Raises:
        LmoeTuneError: too many failed to compare anything, or what was kept of a test is gone.
    """
    jobs = study.jobs(plan)
    tested = [
        _read(study.folder, row, split, seed, trial)
        for (row, split, seed), trial in jobs.items()
        if trial is not None and trial.state == "complete"
    ]
    failed = [
        {"job": trial.number, "row": row, "split": split, "seed": seed, "failure": trial.failure}
        for (row, split, seed), trial in jobs.items()
        if trial is not None and trial.state == "failed"
    ]
    _refuse_other_images(tested, study.folder)
    runs = [Run(one.row, one.split, one.seed, one.metrics, one.resampled) for one in tested]
    comparators = _comparable(runs, plan)
    if plan.own_defaults.name not in comparators:
        raise LmoeTuneError(
            f"no job of {plan.winner.name} and {plan.own_defaults.name} with the same seed has ended well, so there is "
            f"nothing to compare: {failed[0]['failure'] if failed else 'no job has ended'}"
        )
    found = verdict(runs, plan.winner.name, plan.own_defaults.name, comparators, METRIC)
    metrics = [name for name in COMPARED if name in tested[0].metrics]
    paired = [*found.paired]
    for metric in metrics[1:]:
        paired += compare(runs, plan.winner.name, comparators, [metric])
    return {
        "sweep": study.sweep.folder.name,
        "verdict": found.name,
        "sentence": found.sentence,
        "metric": METRIC,
        "noise_floor": found.paired[0].noise_floor,
        "compared_with": plan.own_defaults.name,
        "winner": _winner(study, plan, tested),
        "rows": [_row(row, runs) for row in plan.rows],
        "paired": [_pair(one) for one in paired],
        "test_openings": view.test_openings(study.sweep),
        "seeds": list(plan.seeds),
        "splits": list(plan.splits),
        "jobs": [
            {
                "job": one.trial.number,
                "row": one.row,
                "split": one.split,
                "seed": one.seed,
                "metrics": one.metrics,
                "scores": _relative(study.folder, one.trial.number, SCORES),
            }
            for one in tested
        ],
        "failed": failed,
        "notes": [*plan.notes, *notes],
        "changes": view.changes_of(study.ledger),
    }


def _winner(study: JobLedger, plan: Plan, tested: Sequence[_Tested]) -> dict[str, Any]:
    """Its first job, on the spec's own split where that is among those asked for."""
    own_split = study.sweep.spec.data.split
    of_winner = [one for one in tested if one.row == plan.winner.name]
    first = min(
        of_winner, key=lambda one: (one.split != own_split, plan.splits.index(one.split), one.seed)
    )
    folder = study.folder.trial(first.trial.number)
    described = folder / DESCRIPTION
    has_model = (folder / MODEL).is_file() and described.is_file()
    return {
        "trial": plan.winner.trial,
        "name": plan.winner.name,
        "method": plan.winner.method,
        "params": _given(plan.winner),
        "job": first.trial.number,
        "model": _relative(study.folder, first.trial.number, MODEL) if has_model else None,
        "describes": json.loads(described.read_text(encoding="utf-8")) if has_model else None,
        "split": first.split,
        "seed": first.seed,
    }


def _row(row: Candidate, runs: Sequence[Run]) -> dict[str, Any]:
    own = [run for run in runs if run.configuration == row.name]
    metrics: dict[str, Any] = {}
    for name in own[0].metrics if own else ():
        found = summarise(own, row.name, name)
        metrics[name] = {
            "mean": found.mean,
            "sd": found.sd,
            "ci95": None if found.ci95 is None else list(found.ci95),
            "median": found.median,
            "minimum": found.minimum,
        }
    return {
        "name": row.name,
        "method": row.method,
        "trial": row.trial,
        "params": _given(row),
        "seeds": len({run.seed for run in own}),
        "runs": len(own),
        "metrics": metrics,
    }


def _pair(paired: Paired) -> dict[str, Any]:
    return {
        "against": paired.against,
        "metric": paired.metric,
        "difference": paired.difference,
        "ci95": None if paired.ci95 is None else list(paired.ci95),
        "p": paired.p,
        "p_corrected": paired.p_corrected,
        "noise_floor": paired.noise_floor,
        "pairs": paired.num_pairs,
    }


def _comparable(runs: Sequence[Run], plan: Plan) -> list[str]:
    """The rows, other than the search's trials, that share a split and seed with the winner."""
    cells = {(run.split, run.seed) for run in runs if run.configuration == plan.winner.name}
    names = {run.configuration for run in runs if (run.split, run.seed) in cells}
    return [row.name for row in (plan.own_defaults, *plan.others) if row.name in names]


def _read(folder: SweepFolder, row: str, split: int, seed: int, trial: TrialRecord) -> _Tested:
    path = folder.trial(trial.number) / SCORES
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            resampled = {
                name.removeprefix(RESAMPLED): arrays[name]
                for name in arrays
                if name.startswith(RESAMPLED)
            }
            return _Tested(row, split, seed, trial, resampled, str(arrays["fingerprint"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LmoeTuneError(
            f"{path}: cannot be read ({error}); move {folder.path} aside and run the confirmation again"
        ) from error


def _refuse_other_images(tested: Sequence[_Tested], folder: SweepFolder) -> None:
    for split in {one.split for one in tested}:
        if len({one.fingerprint for one in tested if one.split == split}) > 1:
            raise LmoeTuneError(
                f"the test images of split {split} have changed from one job to the next, so they cannot be compared; "
                f"move {folder.path} aside and run the confirmation again"
            )


def _given(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.params.items() if value is not None}


def _relative(folder: SweepFolder, job: int, name: str) -> str:
    return str((folder.trial(job) / name).relative_to(folder.path))
