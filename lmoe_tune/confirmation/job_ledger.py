"""The second study in a sweep's folder: its jobs, and the record of every opening of the test set.

A job belongs to a candidate, and a candidate has a purpose: to be tested, or to be validated with
other seeds beforehand.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmoe_tune import advice
from lmoe_tune.confirmation.plan import (
    CONFIRM,
    Candidate,
    Plan,
    Purpose,
    spec_of,
    trains_held_out,
)
from lmoe_tune.data import describe_splits, load_search_data
from lmoe_tune.data.decoded_cache import ImageFile
from lmoe_tune.data.inspection import refuse_unsound
from lmoe_tune.data.sealed_images import Opened, open_test_data
from lmoe_tune.data.usable_images import Say
from lmoe_tune.errors import UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.source_code import PARTS, changes, code_of
from lmoe_tune.spec import DataSpec, Spec, diff
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.rebuild import write_about
from lmoe_tune.sweep.same_data import change_of_data
from lmoe_tune.wording import counted

CODE = (*PARTS, "confirmation/job.py")
_Key = tuple[int | None, int, int]
"""A job: the place of its candidate in the study's list, None before it has one, split and seed."""


@dataclass(frozen=True)
class Job:
    """A training that is asked for, and its state."""

    row: Candidate
    split: int
    seed: int
    trial: TrialRecord | None
    """None if it has not been started."""
    of: Candidate
    """The first row with the same parameters: it is trained once for both."""

    @property
    def is_complete(self) -> bool:
        return self.trial is not None and self.trial.state == "complete"

    @property
    def is_failed(self) -> bool:
        return self.trial is not None and self.trial.state == "failed"

    @property
    def started(self) -> TrialRecord:
        """Its trial, of a job that has one."""
        assert self.trial is not None, f"{self} has not been started"
        return self.trial

    def __str__(self) -> str:
        return f"{self.row.name}, split {self.split}, seed {self.seed}"


class JobLedger:
    """A sweep's confirmation, opened for writing, where the caller holds both locks, or for reading,
    at any moment.

    Candidates and jobs are only ever added, so that a later confirmation with more of them trains
    what is missing.
    """

    def __init__(self, sweep: Ledger, import_path: Path, *, is_writing: bool = True) -> None:
        self.sweep = sweep
        self.folder = sweep.folder.confirmation
        self.import_path = import_path
        self._wanted_spec = spec_of(sweep.spec)
        self._ledger: Ledger | None = None
        if self.folder.is_begun():
            open_ = Ledger.writing if is_writing else Ledger.reading
            self._ledger = open_(self.folder, view.read_spec(self.folder))

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "the confirmation has not been begun"
        return self._ledger

    def is_done(self, plan: Plan) -> bool:
        """Whether all jobs of the plan, and of the plans before it, have ended well."""
        return all(job.is_complete for job in self.jobs(plan))

    def num_waiting(self, purpose: Purpose) -> int:
        """The jobs for a purpose that were asked for and have not ended."""
        if self._ledger is None:
            return 0

        records = self._records()
        candidates = [records[point["candidate"]] for point in self._ledger.unfinished_points()]
        return sum(candidate["purpose"] == purpose for candidate in candidates)

    def rows(self, plan: Plan) -> list[Candidate]:
        """The plan's rows, and those that earlier plans of its purpose have trained: no later plan
        makes the table smaller.
        """
        rows = list(plan.rows)
        for record in self._records():
            if record["purpose"] == plan.purpose and not any(row.is_same(record) for row in rows):
                row = Candidate.of_record(record)
                while any(row.name == other.name for other in rows):
                    row = replace(row, name=f"{row.name} (earlier)")
                rows.append(row)
        return rows

    def jobs(self, plan: Plan) -> list[Job]:
        """Row by row the plan's jobs and all that earlier plans have asked for; of a failed job its
        last trial.
        """
        queued, trials = set[_Key](), dict[_Key, TrialRecord]()
        if self._ledger is not None:
            queued = {_key(point) for point in self._ledger.points()}
            trials = {_key(trial.params): trial for trial in self._ledger.trials()}

        found, records, rows = list[Job](), self._records(), self.rows(plan)
        for row in rows:
            first = next(other for other in rows if other.is_same(row.as_record()))
            place = _place(records, row, plan.purpose)
            cells = {(split, seed) for of, split, seed in queued if of == place}
            if row in plan.rows:
                cells |= set(plan.cells())
            for split, seed in sorted(cells):
                trial = trials.get((place, split, seed))
                found.append(Job(row, split, seed, trial, first))
        return found

    def work_in_words(self, plan: Plan) -> str:
        """How many jobs the plan has, with those of earlier ones, and how many are to be done."""
        jobs = distinct(self.jobs(plan))
        rows, seeds = {job.row.name for job in jobs}, {job.seed for job in jobs}
        splits, to_do = {job.split for job in jobs}, sum(not job.is_complete for job in jobs)
        sizes = ((rows, "configuration"), (seeds, "seed"), (splits, "split"))
        words = ", ".join(counted(len(found), what) for found, what in sizes)
        if len(rows) * len(seeds) * len(splits) > len(jobs):
            words += ", not all of them together"
        words += f": {counted(len(jobs), 'job')}"
        if to_do < len(jobs):
            words += f", {to_do} of them to do"
        twice = {job.row.name: job.of.name for job in self.jobs(plan) if job.row != job.of}
        if twice:
            same = ", ".join(f"{of} and {name}" for name, of in twice.items())
            words += f" ({same}: the same parameters)"
        return words

    def _records(self) -> list[dict[str, Any]]:
        if self._ledger is not None:
            return list(self._ledger.attrs["candidates"])

        return []

    def begin(
        self, plan: Plan, command: str, *, allow_changes: bool = False, say: Say | None = None
    ) -> int:
        """Queue the jobs that are missing, and record that the test set is about to be opened,
        where it is.

        Returns how many jobs there are to do, including those of earlier plans.

        Raises:
            UsageError: spec, code or data differ from those of the sweep, or of the jobs so far; or
                the data of a split cannot be used.
        """
        changed = self.changed()
        if changed and not allow_changes:
            lines = "\n".join(f"  {line}" for line in changed)
            raise UsageError(
                f"not everything about the sweep '{self.sweep.folder.name}' is as it was when {self.since}:\n{lines}\n"
                f"Restore the old state, or continue anyway with {advice.ALLOW_CHANGES}, which the confirmation records"
            )
        self._open(command, changed)
        for split in plan.splits:
            refuse_unsound(_at_split(self.sweep.spec, split), self.folder.home, say)
        ledger = self.ledger
        records = list(ledger.attrs["candidates"])
        for row in plan.rows:
            if _place(records, row, plan.purpose) is None:
                record = row.as_record() | {"purpose": plan.purpose}
                if row.trial is not None and plan.purpose == CONFIRM:
                    record["keeps_model_of"] = plan.seeds[0]
                records.append(record)
        known = {_key(point) for point in ledger.points()}
        wanted = [
            (_place(records, row, plan.purpose), split, seed)
            for row in plan.rows
            for split, seed in plan.cells()
        ]
        missing = [
            {"candidate": place, "split": split, "seed": seed}
            for place, split, seed in dict.fromkeys(wanted)
            if (place, split, seed) not in known
        ]
        ledger.enqueue(missing, {"candidates": records, "resume_command": command})
        ledger.retry_failed(
            number
            for number in ledger.standing.failed
            if records[ledger.trial(number).params["candidate"]]["purpose"] == plan.purpose
        )
        num_jobs = self.num_waiting(plan.purpose)
        if plan.purpose == CONFIRM:
            view.record_opening(self.sweep, who(), command, num_jobs)
            write_about(self.sweep)
        return num_jobs

    def open_split(self, split: int) -> Opened:
        """The images of a split, those of its sealed test included; the opening is recorded before."""
        assert view.test_openings(self.sweep), (
            "the test set is about to be opened, and nothing says so"
        )
        data = _at_split(self.sweep.spec, split)
        with_held_out = trains_held_out(self.sweep.spec)
        return open_test_data(data, self.folder.home, with_held_out=with_held_out)

    def files(self, plan: Plan) -> Iterator[tuple[DataSpec, Sequence[ImageFile]]]:
        """Split by split the image files that the jobs will read."""
        for split in plan.splits:
            data = _at_split(self.sweep.spec, split)
            if plan.purpose == CONFIRM:
                yield data, self.open_split(split).files()
            else:
                yield data, load_search_data(data, self.folder.home).files()

    @property
    def since(self) -> str:
        """From when on nothing may change."""
        if self._ledger is None:
            return "it was searched"

        return "its confirmation was started"

    def changed(self) -> list[str]:
        """What of code, data and spec differs from the search, or from the jobs so far; a line each."""
        before: Ledger = self.sweep
        parts: Sequence[str] = PARTS
        if self._ledger is not None:
            before, parts = self._ledger, CODE
        code = code_of(self.sweep.spec, self.import_path, parts)
        found = changes(before.attrs.get("code", code), code)
        in_data = change_of_data(before, self.sweep.spec.data)
        if in_data is not None:
            found.append(in_data)
        if self._ledger is not None:
            found += diff(self._ledger.spec, self._wanted_spec)
        return found

    def _fingerprint(self) -> str:
        return str(describe_splits(self.sweep.spec.data, self.folder.home)["fingerprint"])

    def _open(self, command: str, changed: Sequence[str]) -> None:
        """Bring the study's spec and code up to date, with these changes; create it if new."""
        first = None
        now: dict[str, Any] = {
            "code": code_of(self.sweep.spec, self.import_path, CODE),
            "fingerprint": self._fingerprint(),
        }
        if self._ledger is None:
            first = {
                "kind": "confirm",
                "of_sweep": self.sweep.folder.name,
                "of_sweep_id": self.sweep.sweep_id,
                "candidates": [],
                "import_path": str(self.import_path),
                "resume_command": command,
                "budget": {"trials": 0, "time_s": None, "gpu_hours": None, "max_failed": None},
                **now,
            }
        write_records(self.folder, self._wanted_spec)
        self._ledger = Ledger.writing(self.folder, self._wanted_spec, first)
        if changed:
            change = {"time_ms": now_ms(), "lines": changed}
            now[f"change:{self._ledger.num_runs():04d}"] = change
        self._ledger.set_attrs(now)


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """Each once that several rows share."""
    return [job for job in jobs if job.row == job.of]


def who() -> str:
    """Who works here: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _place(records: Sequence[dict[str, Any]], candidate: Candidate, purpose: Purpose) -> int | None:
    for place, record in enumerate(records):
        if record["purpose"] == purpose and candidate.is_same(record):
            return place
    return None


def _key(point: Mapping[str, Any]) -> _Key:
    return point["candidate"], point["split"], point["seed"]


def _at_split(spec: Spec, split: int) -> DataSpec:
    return spec.data.model_copy(update={"split": split})
