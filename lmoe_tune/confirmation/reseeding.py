"""What a reseeding found: the best trials and the defaults over fresh seeds, on validation images
alone.

It shows how much of a trial's value was due to its seed, and how much pairs vary, from which a
confirmation is planned. It opens nothing, asks nothing, and decides nothing: the rows of a
confirmation stay those of the search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lmoe_tune.confirmation import plain
from lmoe_tune.confirmation.forecast import Forecast, forecast_of
from lmoe_tune.confirmation.job_ledger import Job, JobLedger
from lmoe_tune.confirmation.plan import RESEED_FILE, VAL_DIVERGED, Plan
from lmoe_tune.confirmation.result import Row, comparable, failed_of, row_of
from lmoe_tune.data.inspection import inspect
from lmoe_tune.durable import write_durably
from lmoe_tune.placements import COMPARABLE, Placements, mean_placements, read_placements
from lmoe_tune.statistics import Paired, Run, compare

METRIC = COMPARABLE[0]
SHOWN = (*COMPARABLE, "val_accuracy")


@dataclass(frozen=True)
class Reseeding:
    """Trials and defaults over fresh seeds; `to_json` is what the command prints."""

    sweep: str
    metric: str
    """What is compared."""
    compared_with: str
    rows: tuple[Row, ...]
    searched: Mapping[str, float]
    """What the search measured with its one seed, by row; the defaults only where it tried them."""
    gains: Mapping[str, Paired]
    """Each trial minus the defaults of the best one's method, that one first."""
    seed_sd: float
    """Of a pair's difference, over seeds."""
    image_sd: float | None
    """Of the mean difference over samples of as many images as the sealed test has, if they vary
    like the validation images; None if that is not known.
    """
    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    failed: tuple[Mapping[str, Any], ...]
    """The trainings without a result: they are tried again by the next call."""
    forecast: Forecast
    """The forecast of a confirmation, with this included."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return plain(self)


def conclude_reseeding(study: JobLedger, plan: Plan, planned: Plan) -> Reseeding:
    """What the jobs of a plan found, those of earlier plans included. The spreads are kept for the
    forecasts of the home, and used for one of the confirmation that is planned.

    Raises:
        LmoeTuneError: no training of the best trial and the defaults with the same seed has ended
            well.
    """
    jobs, own = study.jobs(plan), plan.own_defaults
    runs = [_as_run(job) for job in jobs if job.is_complete]
    names = comparable(plan, jobs, runs, own)
    rows = study.rows(plan)
    trials = [row.name for row in rows if row.name in names and row != own]
    gains = {name: compare(runs, name, [own.name], [METRIC])[0] for name in trials}
    spreads = replace(gains[plan.winner.name].spreads, image_sd=_image_sd(study, plan, jobs))
    content = json.dumps(asdict(spreads), indent=2) + "\n"
    write_durably(study.folder.path / RESEED_FILE, content.encode())

    values = {trial.number: trial.metrics for trial in study.sweep.trials()}
    return Reseeding(
        sweep=study.sweep.folder.name,
        metric=METRIC,
        compared_with=own.name,
        rows=tuple(row_of(row, runs) for row in rows),
        searched={
            row.name: values[row.trial][METRIC]
            for row in rows
            if row.trial is not None and METRIC in values.get(row.trial, {})
        },
        gains=gains,
        seed_sd=spreads.seed_sd,
        image_sd=spreads.image_sd,
        seeds=tuple(sorted({job.seed for job in jobs})),
        splits=plan.splits,
        failed=failed_of(jobs),
        forecast=forecast_of(study, planned),
    )


def _as_run(job: Job) -> Run:
    found = job.started.metrics
    metrics = {name: found[name] for name in SHOWN if name in found}
    diverged = found.get(VAL_DIVERGED, 0.0) > 0
    return Run(job.row.name, job.split, job.seed, metrics, diverged=diverged)


def _image_sd(study: JobLedger, plan: Plan, jobs: Sequence[Job]) -> float | None:
    """By DeLong: image by image the mean over seeds, on as many images as the test has. The test
    itself stays sealed: only the counts of its images are known.
    """
    kept: dict[str, dict[int, Placements]] = {plan.winner.name: {}, plan.own_defaults.name: {}}
    for job in jobs:
        if job.row.name in kept and job.is_complete:
            found = read_placements(study.folder.trial(job.started.number))
            if found is not None and found.can_compare(METRIC):
                kept[job.row.name][job.seed] = found

    ours, theirs = kept.values()
    shared = sorted(ours.keys() & theirs.keys())
    if not shared or not all(ours[seed].is_alike(theirs[seed]) for seed in shared):
        return None

    counts = inspect(study.sweep.spec.data, study.folder.home).splits
    parts = {"known": "test", "fine": "test_fine", "coarse": "test_coarse"}
    sizes = {kind: counts[part]["images"] for kind, part in parts.items() if part in counts}
    sizes = {kind: number for kind, number in sizes.items() if number > 0}
    own = mean_placements([ours[seed] for seed in shared])
    defaults = mean_placements([theirs[seed] for seed in shared])
    return math.sqrt(own.variance_of_difference(defaults, METRIC, sizes))
