"""What a confirmation found, from the recorded jobs and the kept results of their tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmoe_tune.arrays import read_arrays
from lmoe_tune.confirmation import plain
from lmoe_tune.confirmation.asking import ask, foresee, look
from lmoe_tune.confirmation.cautions import accuracy_bounds, cautions_of
from lmoe_tune.confirmation.job_ledger import Job, JobLedger
from lmoe_tune.confirmation.plan import (
    DESCRIPTION,
    DIVERGED,
    MODEL,
    RESAMPLED,
    SCORES,
    Candidate,
    Plan,
)
from lmoe_tune.durable import read_text, write_durably
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.questions import read_questions
from lmoe_tune.spec.metrics import TEST_METRICS
from lmoe_tune.statistics import (
    Asked,
    Paired,
    Run,
    Summary,
    VerdictName,
    compare,
    least_shown,
    needs_of,
    summarise,
    verdict,
)
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder

METRIC = TEST_METRICS[0]
CONFIRM_FILE = "confirm.json"
"""Where the result is kept, in the confirmation's folder."""
NUM_CLASS_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """A configuration of the table, and its test metrics over its trainings."""

    name: str
    method: str
    trial: int | None
    """The search's trial that it is."""
    params: Mapping[str, Any]
    seeds: int
    runs: int
    diverged: int
    """How many of the runs diverged to non-finite numbers; they count as chance."""
    metrics: Mapping[str, Summary]


@dataclass(frozen=True)
class Winner:
    """The configuration that was confirmed, and where the weights of its first training are."""

    trial: int
    name: str
    method: str
    params: Mapping[str, Any]
    job: int
    split: int
    seed: int
    model: str | None
    """A state dict, relative to the confirmation's folder; None if it is not kept."""
    describes: Mapping[str, Any] | None
    """What the weights need to be used."""


@dataclass(frozen=True)
class Confirmation:
    """Whether the winner of a sweep is real, and everything that says so; `to_json` is what the
    command prints.
    """

    sweep: str
    verdict: VerdictName
    sentence: str
    cautions: tuple[str, ...]
    metric: str
    """What the verdict is about."""
    compared_with: str
    question: int
    """Its number in the home."""
    look: int
    level: float
    """One-sided, of this look."""
    noise_floor: float
    winner: Winner
    rows: tuple[Row, ...]
    paired: tuple[Paired, ...]
    """The winner minus the others, metric by metric, its own defaults first."""
    ci95_classes: tuple[float, float] | None
    """Of the first of these: its interval over other novel classes; None if there are fewer than
    two.
    """
    num_novel_classes: int
    """Of one split."""
    needs: tuple[tuple[float, int], ...]
    """As pairs varied here at most, the seeds that some differences need to be found in four of
    five cases by the next look.
    """
    cannot_show: float
    """Below this difference these test images cannot show anything, however many seeds there are.
    """
    test_openings: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    jobs: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]
    """The trainings without a result: they are tried again by the next confirmation."""
    changes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return plain(self)


@dataclass(frozen=True)
class _Tested:
    """A job that has succeeded, and what was kept of its test."""

    job: Job
    run: Run
    fingerprint: str
    """Of the test images."""
    novel: Mapping[int, tuple[float, int]]
    """AUROC and number of images of each novel class."""

    @property
    def cell(self) -> tuple[int, int]:
        return self.job.split, self.job.seed


def write_result(study: JobLedger, result: Confirmation) -> None:
    """Keep the result beside the confirmation's ledger."""
    content = json.dumps(result.to_json(), indent=2) + "\n"
    write_durably(study.folder.path / CONFIRM_FILE, content.encode())


def conclude(study: JobLedger, plan: Plan, *, notes: Iterable[str] = ()) -> Confirmation:
    """The result of a plan whose jobs have all ended; some may have failed.

    All existing trainings count, also those of earlier plans. The look is recorded in the home.

    Args:
        notes: further cautions.

    Raises:
        LmoeTuneError: too many failed to compare anything, or what was kept of a test is gone.
    """
    jobs = study.jobs(plan)
    tested = [_read(study.folder, job) for job in jobs if job.is_complete]
    _refuse_other_images(tested, study.folder)
    runs = [one.run for one in tested]
    names = comparable(plan, jobs, runs, plan.winner)
    comparators = [row.name for row in (plan.own_defaults, *plan.others) if row.name in names]
    rows = (plan.winner.name, plan.own_defaults.name)
    missing = [str(job) for job in jobs if job.row.name in rows and not job.is_complete]
    margin, least = accuracy_bounds(study.sweep.spec)
    asked = _asked(study, plan, tested, recorded=not missing)
    in_order = not plan.winner_is_default  # else there is no first step to pass
    found = verdict(
        runs, *rows, comparators, METRIC,
        asked=asked, missing=missing, accuracy_margin=margin, accuracy_least=least, in_order=in_order,
    )  # fmt: skip

    by_class, num_novel = _over_classes(tested, *rows)
    cautions = cautions_of(
        replace(plan, notes=(*notes, *plan.notes)), study.sweep.spec, runs, found,
        ci95_classes=by_class, num_novel_classes=num_novel, import_path=study.import_path,
    )  # fmt: skip
    metrics = [name for name in TEST_METRICS if name in runs[0].metrics]
    own = found.paired[0]
    more = replace(asked, look=asked.look + 1)
    return Confirmation(
        sweep=study.sweep.folder.name,
        verdict=found.name,
        sentence=found.sentence,
        cautions=tuple(cautions),
        metric=METRIC,
        compared_with=plan.own_defaults.name,
        question=asked.question,
        look=asked.look,
        level=asked.level,
        noise_floor=own.noise_floor,
        winner=_winner(study, plan, tested),
        rows=tuple(row_of(row, runs) for row in study.rows(plan)),
        paired=(
            *found.paired,
            *compare(runs, plan.winner.name, comparators, metrics[1:], in_order=in_order),
        ),
        ci95_classes=by_class,
        num_novel_classes=num_novel,
        needs=tuple(needs_of(own.spreads, more.level)),
        cannot_show=least_shown(own.image_sd, more.level),
        test_openings=tuple(view.test_openings(study.sweep)),
        seeds=tuple(sorted({job.seed for job in jobs})),
        splits=tuple(sorted({job.split for job in jobs})),
        jobs=tuple(_as_record(study.folder, one) for one in tested),
        failed=failed_of(jobs),
        changes=tuple(view.changes_of(study.ledger)),
    )


def fingerprints_of(study: JobLedger, plan: Plan, *, opens: bool = True) -> dict[int, str]:
    """Of the test images of each split that the winner is or will be tested on.

    Args:
        opens: whether those of splits without a test are read, whose opening is recorded before;
            else they are as the sweep's questions say, or `sealed` if it has asked none.
    """
    jobs = [job for job in study.jobs(plan) if job.row == plan.winner]
    known = {job.split: _read(study.folder, job).fingerprint for job in jobs if job.is_complete}
    recorded: dict[str, str] = {}
    for question in read_questions(study.folder.home):
        if question.sweep_id == study.sweep.sweep_id:
            recorded |= question.about["test_sets"]

    for split in {job.split for job in jobs} - known.keys():
        if opens:
            known[split] = study.open_split(split).test.fingerprint
        else:
            known[split] = recorded.get(str(split), "sealed")
    return known


def _asked(study: JobLedger, plan: Plan, tested: Sequence[_Tested], *, recorded: bool) -> Asked:
    if plan.winner_is_default:  # compared with itself, it asks nothing
        return foresee(study, plan, fingerprints_of(study, plan))[1]

    question = ask(study, plan, fingerprints_of(study, plan))
    if not recorded:  # nothing can be claimed, so it is not a look
        return Asked(question.number, len(question.looks) + 1)

    rows = (plan.winner.name, plan.own_defaults.name)
    return look(study, question, [one.job for one in tested if one.job.row.name in rows])


def _winner(study: JobLedger, plan: Plan, tested: Sequence[_Tested]) -> Winner:
    """Its first job, on the spec's own split where that is among those asked for."""
    own_split = study.sweep.spec.data.split
    of_winner = [one for one in tested if one.job.row.name == plan.winner.name]
    first = min(of_winner, key=lambda one: (one.job.split != own_split, one.cell))
    number = first.job.started.number
    folder = study.folder.trial(number)
    model = describes = None
    if (folder / MODEL).is_file() and (folder / DESCRIPTION).is_file():
        model = _relative(study.folder, number, MODEL)
        describes = json.loads(read_text(folder / DESCRIPTION))

    assert plan.winner.trial is not None, "the winner is a trial of the search"
    return Winner(
        trial=plan.winner.trial,
        name=plan.winner.name,
        method=plan.winner.method,
        params=_given(plan.winner),
        job=number,
        split=first.job.split,
        seed=first.job.seed,
        model=model,
        describes=describes,
    )


def row_of(row: Candidate, runs: Sequence[Run]) -> Row:
    """A row of the table."""
    own = [run for run in runs if run.configuration == row.name]
    names = list(own[0].metrics) if own else []
    return Row(
        name=row.name,
        method=row.method,
        trial=row.trial,
        params=_given(row),
        seeds=len({run.seed for run in own}),
        runs=len(own),
        diverged=sum(run.diverged for run in own),
        metrics={name: summarise(own, row.name, name) for name in names},
    )


def _as_record(folder: SweepFolder, one: _Tested) -> dict[str, Any]:
    return {
        **_about(one.job),
        "diverged": one.run.diverged,
        "metrics": one.run.metrics,
        "scores": _relative(folder, one.job.started.number, SCORES),
    }


def failed_of(jobs: Iterable[Job]) -> tuple[Mapping[str, Any], ...]:
    """What a document says about the jobs without a result."""
    failed = (job for job in jobs if job.is_failed)
    return tuple({**_about(job), "failure": job.started.failure} for job in failed)


def _about(job: Job) -> dict[str, Any]:
    number, row = job.started.number, job.row.name
    return {"job": number, "row": row, "split": job.split, "seed": job.seed}


def comparable(plan: Plan, jobs: Iterable[Job], runs: Sequence[Run], row: Candidate) -> set[str]:
    """The configurations that share a split and seed with a row, the winner or its defaults.

    Raises:
        LmoeTuneError: the winner and its defaults share none.
    """
    cells = {(run.split, run.seed) for run in runs if run.configuration == row.name}
    names = {run.configuration for run in runs if (run.split, run.seed) in cells}
    if {plan.winner.name, plan.own_defaults.name} <= names:
        return names

    failures = [job.started.failure for job in jobs if job.is_failed]
    raise LmoeTuneError(
        f"no job of {plan.winner.name} and {plan.own_defaults.name} with the same seed has succeeded, so there is "
        f"nothing to compare: {failures[0] if failures else 'no job has ended'}"
    )


def _over_classes(
    tested: Sequence[_Tested], winner: str, other: str
) -> tuple[tuple[float, float] | None, int]:
    """Where the winner's gain in `test_auroc` lies over other novel classes, and how many a split
    has.

    A bootstrap over the classes of each split, all images of a class together. The AUROC against
    several classes is the mean of theirs, weighted by their numbers of images; the coarse half of
    `test_auroc` stays as it is.
    """
    own = {one.cell: one for one in tested if one.job.row.name == winner}
    theirs = {one.cell: one for one in tested if one.job.row.name == other}
    cells = sorted(own.keys() & theirs.keys())
    counts = [len(own[cell].novel) for cell in cells]
    if not cells or min(counts) < 2 or "test_fine_auroc" not in own[cells[0]].run.metrics:
        return None, min(counts, default=0)

    rng = np.random.default_rng(0)
    drawn = np.zeros(NUM_CLASS_RESAMPLES)
    for split in sorted({split for split, _ in cells}):
        pairs = [(own[cell], theirs[cell]) for cell in cells if cell[0] == split]
        classes = sorted(pairs[0][0].novel)
        images = np.array([pairs[0][0].novel[one][1] for one in classes])
        gains = np.array(
            [[ours.novel[one][0] - their.novel[one][0] for one in classes] for ours, their in pairs]
        ).mean(axis=0)
        weights = images * rng.multinomial(
            len(classes), np.full(len(classes), 1 / len(classes)), size=NUM_CLASS_RESAMPLES
        )
        fine = (weights * gains).sum(axis=1) / weights.sum(axis=1)
        total, metric = fine, "test_coarse_auroc"
        if all(metric in one.run.metrics for pair in pairs for one in pair):
            coarse = [ours.run.metrics[metric] - their.run.metrics[metric] for ours, their in pairs]
            total = (fine + np.mean(coarse)) / 2
        drawn += total * len(pairs) / len(cells)

    low, high = np.percentile(drawn, [2.5, 97.5])
    return (float(low), float(high)), min(counts)


def _read(folder: SweepFolder, job: Job) -> _Tested:
    path, found = folder.trial(job.started.number) / SCORES, job.started.metrics
    metrics = {name: value for name, value in found.items() if name.startswith("test_")}
    diverged = metrics.pop(DIVERGED, 0.0) > 0
    try:
        arrays = read_arrays(path)
        resampled = {
            name.removeprefix(RESAMPLED): array
            for name, array in arrays.items()
            if name.startswith(RESAMPLED)
        }
        by_class = zip(
            arrays["novel_class"].tolist(),
            arrays["novel_auroc"].tolist(),
            arrays["novel_count"].tolist(),
            strict=True,
        )
        novel = {one: (auroc, count) for one, auroc, count in by_class}
        run = Run(job.row.name, job.split, job.seed, metrics, resampled, diverged)
        return _Tested(job, run, str(arrays["fingerprint"]), novel)
    except (OSError, ValueError, KeyError) as error:
        raise LmoeTuneError(
            f"{path}: cannot be read ({error}); move {folder.path} aside and run the confirmation again"
        ) from error


def _refuse_other_images(tested: Sequence[_Tested], folder: SweepFolder) -> None:
    for split in {one.job.split for one in tested}:
        if len({one.fingerprint for one in tested if one.job.split == split}) > 1:
            raise LmoeTuneError(
                f"the test images of split {split} have changed from one job to the next, so they cannot be compared; "
                f"move {folder.path} aside and run the confirmation again"
            )


def _given(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.params.items() if value is not None}


def _relative(folder: SweepFolder, job: int, name: str) -> str:
    return str((folder.trial(job) / name).relative_to(folder.path))
