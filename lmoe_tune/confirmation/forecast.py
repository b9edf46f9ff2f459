"""What a confirmation would cost and what it could find, said before anything is trained or opened.

How much pairs vary is known from earlier confirmations and reseedings on the same data in this
home. If there is none, the first two pairs will show it, and the result says it then. It is used
only to plan seeds: no search and no choice of a winner ever reads what a test has shown.

A few pairs say little of how much pairs vary, so plans are made with what their standard deviation
is most likely below.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lmoe_tune.confirmation import plain
from lmoe_tune.confirmation.asking import foresee
from lmoe_tune.confirmation.job_ledger import JobLedger, distinct
from lmoe_tune.confirmation.plan import RESEED_FILE, Plan
from lmoe_tune.confirmation.result import CONFIRM_FILE, fingerprints_of
from lmoe_tune.durable import read_object
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.spec import Spec
from lmoe_tune.statistics import (
    SURE,
    Spreads,
    least_difference,
    least_shown,
    needs_of,
)
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder, find_sweeps
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.baseline_record import read_baseline_record
from lmoe_tune.wording import duration

SEEDS = (3, 5, 10, 20)
FEW_DF = 4
"""With fewer degrees of freedom, what is known of the spread is said to be little."""


@dataclass(frozen=True)
class Forecast:
    """Of a plan, with what earlier ones have trained."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    jobs: int
    """Trainings that are missing."""
    hours: float | None
    """What they take one after the other, their baselines included; None if no epoch has been
    timed.
    """
    notes: tuple[str, ...]
    """What is particular about its rows."""
    winner_is_default: bool
    """Whether the winner has its method's defaults: then there is no difference to find."""
    is_new: bool
    """Whether it asks a new question, as far as can be known before the test set is opened."""
    question: int
    """Its number in the home, or the one that it would have."""
    look: int
    """The number of the look that it would be at the question."""
    level: float
    """One-sided, of that look."""
    refusals: tuple[str, ...]
    """Why `confirm` would refuse to train anything as things are, a sentence each."""
    work: str
    """How many jobs there are, in words."""
    source: str | None
    """Where the following come from; None if nothing is known yet, and they are empty."""
    spreads: Spreads | None
    seed_sd_at_most: float | None
    """What it is planned with: the standard deviation over seeds is below it in four of five cases.
    """
    finds: tuple[tuple[int, float], ...]
    """By number of seeds, the smallest difference that they find in four of five cases."""
    needs: tuple[tuple[float, int], ...]
    """By difference, the seeds that it needs for that; differences that no number of seeds finds
    are left out.
    """
    cannot_show: float | None
    """Below this difference these test images cannot show anything, however many seeds there are.
    """

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return plain(self)

    def lines(self) -> list[str]:
        """The same in words."""
        found = [self.work]
        if self.hours is not None:
            found[0] += f", about {duration(3600 * self.hours)} one after the other"
        if self.is_new:
            asked = f"as a new question it would be number {self.question} of the home"
        else:
            asked = f"it would be look {self.look} at question {self.question} of the home, which was asked before"
        if not self.winner_is_default:  # else it asks nothing
            found.append(f"{asked}, at a level of {self.level:.2g}")
        found += [f"- {note}" for note in self.notes]
        found += [f"- it would be refused: {why}" for why in self.refusals]
        if self.winner_is_default:
            return found
        if self.source is None or self.spreads is None:
            found.append(
                "nothing is known yet about how much pairs vary on these data: `--reseed 3` measures it on the "
                "validation images; else the result gives it from the first two pairs on"
            )
            return found

        pairs, sd = self.spreads.pairs, self.spreads.seed_sd
        found.append(
            f"in {self.source} the differences of {pairs} pairs varied by {sd:.4f} over seeds; planned with "
            f"{self.seed_sd_at_most:.4f}, the most by which they vary in {SURE:.0%} of cases:"
        )
        found += [
            f"  {seeds} seeds find {least:+.4f} in four of five cases"
            for seeds, least in self.finds
        ]
        found += needs_lines(self.needs, self.cannot_show)
        if self.spreads.seed_df < FEW_DF:
            found.append(
                f"  {pairs} pairs say little about how much pairs vary: `--reseed 5` says more, on the "
                "validation images"
            )
        return found


def forecast_of(study: JobLedger, plan: Plan) -> Forecast:
    """What the plan of a sweep's confirmation costs, and what it could find; nothing is opened."""
    jobs, sweep = study.jobs(plan), study.sweep
    missing = [job for job in distinct(jobs) if not job.is_complete]
    question, asked = foresee(study, plan, fingerprints_of(study, plan, opens=False))
    source, spreads = next(_known_spreads(sweep), (None, None))
    at_most = cannot_show = None
    finds: list[tuple[int, float]] = []
    if spreads is not None and spreads.image_sd is not None:
        at_most = spreads.seed_sd_at_most
        cannot_show = least_shown(spreads.image_sd, asked.level)
        finds = [(n, least_difference(n, at_most, spreads.image_sd, asked.level)) for n in SEEDS]
    return Forecast(
        rows=tuple(row.name for row in study.rows(plan)),
        seeds=tuple(sorted({job.seed for job in jobs})),
        splits=tuple(sorted({job.split for job in jobs})),
        jobs=len(missing),
        hours=_hours(sweep, len(missing), len({(job.split, job.seed) for job in missing})),
        notes=plan.notes,
        winner_is_default=plan.winner_is_default,
        is_new=question is None,
        question=asked.question,
        look=asked.look,
        level=asked.level,
        refusals=tuple(_changes(study)) if missing else (),
        work=study.work_in_words(plan),
        source=source,
        spreads=spreads,
        seed_sd_at_most=at_most,
        finds=tuple(finds),
        needs=tuple(needs_of(spreads, asked.level)),
        cannot_show=cannot_show,
    )


def _changes(study: JobLedger) -> Iterator[str]:
    for line in study.changed():
        yield f"{line}, since {study.since} (--allow-changes continues)"


def needs_lines(needs: tuple[tuple[float, int], ...], cannot_show: float | None) -> list[str]:
    """The numbers for planning."""
    found = [f"  {effect:+.3f} needs {seeds} seeds" for effect, seeds in needs]
    if cannot_show:
        found.append(f"  below {cannot_show:.4f} these test images cannot show anything")
    return found


def _known_spreads(ledger: Ledger) -> Iterator[tuple[str, Spreads]]:
    """Source and spreads of confirmations and reseedings on the same data, this sweep's own first."""
    folders = find_sweeps(ledger.folder.home)
    for folder in sorted(folders, key=lambda one: one.name != ledger.folder.name):
        if not _has_same_data(folder, ledger.spec):
            continue
        for what, file in (("confirmation", CONFIRM_FILE), ("reseeding", RESEED_FILE)):
            found = _spreads(folder.confirmation.path / file)
            if found is not None:
                yield f"the {what} of '{folder.name}'", found


def _has_same_data(folder: SweepFolder, wanted: Spec) -> bool:
    try:
        data = view.read_spec(folder).data
    except (LmoeTuneError, OSError):
        return False
    return (data.id, data.coarse_ood) == (wanted.data.id, wanted.data.coarse_ood)


def _spreads(path: Path) -> Spreads | None:
    """Those of the winner's gain in a document; None if there are none that a plan could be made
    with.
    """
    try:
        document = read_object(path)
        if path.name == CONFIRM_FILE:
            document = document["paired"][0]
        found = Spreads(*(document[field.name] for field in fields(Spreads)))
        return found if found.can_plan else None
    except (KeyError, TypeError, IndexError):
        return None


def _hours(ledger: Ledger, jobs: int, cells: int) -> float | None:
    """Of so many trainings, and a baseline for each pair of split and seed."""
    timed = [
        epoch.metrics["epoch_s"]
        for trial in ledger.trials()
        for epoch in trial.epochs
        if "epoch_s" in epoch.metrics
    ]
    if not timed:
        return None

    seconds = jobs * ledger.spec.train.epochs * statistics.median(timed)
    key = ledger.attrs.get("baseline")
    record = read_baseline_record(ledger.folder.home, key) if key else None
    if record is not None:
        epochs = [epoch["metrics"].get("epoch_s", 0.0) for epoch in record["epochs"]]
        seconds += cells * sum(epochs)
    return seconds / 3600
