"""The ledger of a sweep: an Optuna study that holds every trial's parameters, epochs, state and
value.

Only the holder of the sweep's lock writes, and every change is one transaction. `schema.py` has
every key.
"""

from __future__ import annotations

import gc
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lmoe_tune import advice
from lmoe_tune.garbage import uncollected
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.budget import Budget, Usage, UsedUp, used_up
from lmoe_tune.sweep.contents import COMPLETE, FAIL, PRUNED, STATES, Contents, StoredTrial
from lmoe_tune.sweep.folder import SweepFolder, lost_ledger
from lmoe_tune.sweep.lines import LedgerError, LedgerFile
from lmoe_tune.sweep.schema import SCHEMA, Key
from lmoe_tune.sweep.standing import Standing, violation_of

if TYPE_CHECKING:
    import optuna

    from lmoe_tune.sweep.journal import JournalFile

log = logging.getLogger(__name__)

T = TypeVar("T")

MANY_TRIALS = 1000


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the study and the values of the searched parameters."""

    number: int
    params: dict[str, Any]


_EVEN_CLOCK = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # the first one counts a suspended machine's time
_BOOTED_NS = time.time_ns() - time.clock_gettime_ns(_EVEN_CLOCK)


class Ledger:
    """The study of one sweep, opened with `writing` or `reading`."""

    def __init__(
        self,
        folder: SweepFolder,
        spec: Spec,
        *,
        writable: bool,
        path: Path | None = None,
        first_attrs: Mapping[str, Any] | None = None,
        enqueue: bool = True,
    ) -> None:
        """Open it; use `writing` or `reading`.

        Args:
            path: of the file, where it is not the folder's.
            first_attrs: of a new sweep.
            enqueue: whether a new sweep's start points wait to be tried.
        """
        self.folder = folder
        self.spec = spec
        self._path = path or folder.ledger
        self._contents = Contents()
        self._journal: JournalFile | None = None  # of one that is written
        self._run: int | None = None  # that this process has begun
        with uncollected():
            if writable:
                self._open_for_writing(first_attrs or {}, enqueue=enqueue)
            else:
                self._file = LedgerFile(self._path)
                self._standing = Standing(spec)
                self._pull()
                self._refuse_unknown()

    @classmethod
    def writing(
        cls, folder: SweepFolder, spec: Spec, first_attrs: Mapping[str, Any] | None = None
    ) -> Ledger:
        """Open for writing; the caller holds the sweep's lock.

        Args:
            first_attrs: what to record about the sweep together with its creation, where it is a
                new one.
        """
        return cls(folder, spec, writable=True, first_attrs=first_attrs)

    @classmethod
    def reading(cls, folder: SweepFolder, spec: Spec) -> Ledger:
        """Open for reading, at any moment, beside a writer."""
        return cls(folder, spec, writable=False)

    # ------------------------------------------------------------------ asking

    def ask(self) -> Suggestion:
        """Create the next trial, or take the next one that waits with given parameters."""
        number = next(iter(self._standing.waiting), self._standing.num_trials)
        with self.transaction():
            trial = self._suggestions.ask(self.study, number)
        assert trial.number == number, f"asked for trial {number}, got {trial.number}"
        self._written.running[trial.number] = trial
        self._follow()
        return Suggestion(number, dict(trial.params))

    def retry_failed(self, numbers: Iterable[int] | None = None) -> int:
        """Enqueue failed trials that were not retried yet once more, with the same parameters; how
        many they are.

        Args:
            numbers: of those to try again; None: all.
        """
        failed = sorted(self._standing.failed if numbers is None else set(numbers))
        with self.transaction():
            for number in failed:
                attrs = {schema.RETRY_OF.name: number}
                self.study.enqueue_trial(self._trial(number).params, user_attrs=attrs)
        self._follow()
        return len(failed)

    def enqueue(self, points: Sequence[Mapping[str, Any]], attrs: Mapping[str, Any]) -> None:
        """Have these points tried next, and the budget of trials grow by them; `attrs` are recorded
        with that.
        """
        standing = self._standing
        waiting = len(standing.waiting) - standing.waiting_retries
        trials = standing.num_started + waiting + len(points)
        budget = schema.BUDGET.read(self._attrs) | {"trials": trials}
        with self.transaction():
            self._set_study({**attrs, schema.BUDGET.name: budget})
            for point in points:
                self.study.enqueue_trial(dict(point))
        self._follow()

    # ------------------------------------------------------------------ recording

    def record_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], baseline: Mapping[str, float]
    ) -> bool:
        """Record one epoch, the pruner's decision and the trial's end in one transaction; True if
        the trial ends.

        An epoch is recorded once: a trial that continues from a checkpoint may deliver its last one
        again.
        """
        from lmoe_tune.sweep.pruning import misses_of

        return self.record_judged(number, epoch, metrics, misses_of(self.spec, metrics, baseline))

    def record_judged(
        self, number: int, epoch: int, metrics: Mapping[str, float], misses: Mapping[str, float]
    ) -> bool:
        """The same, if it is already known how far the epoch misses each constraint."""
        trial = self._trial(number)
        if trial.is_finished:
            return True
        recorded = trial.user_attrs.get(schema.EPOCH.at(epoch))
        if recorded is not None:
            self._say_differences(number, epoch, metrics, recorded["metrics"])
            return False
        done = self._standing.running[number]
        assert epoch == done + 1, f"trial {number}: epoch {epoch} is out of turn"
        values = self._values(metrics)
        found = {"metrics": dict(metrics), "misses": dict(misses), "time_ms": now_ms()}

        with self.transaction():
            if len(values) == 1:  # Optuna takes no more
                self._written.trial(number).report(values[0], step=epoch)
            self._set(number, schema.EPOCH.at(epoch), found)
            self._follow()
            if epoch >= self.spec.train.epochs:
                self._tell(number, COMPLETE, misses, values)
            elif self._standing.pruning.decides_against(number):
                self._tell(number, PRUNED, misses)
            else:
                return False
        self._follow()
        return True

    def count_retry(self, number: int) -> int:
        """Record that a trial's process died; returns how often it has, over all runs."""
        deaths = (schema.RETRIES.get(self._trial(number).user_attrs) or 0) + 1
        self._keep(number, {schema.RETRIES.name: deaths})
        return deaths

    def place(self, number: int, *, host: str, device: str | None, gpu: str | None) -> None:
        """Record where a running trial is, if that is new."""
        known = self._trial(number).user_attrs
        where = {schema.HOST.name: host, schema.DEVICE.name: device, schema.GPU.name: gpu}
        news = {
            name: value
            for name, value in where.items()
            if value is not None and known.get(name) != value
        }
        self._keep(number, news)

    def note(self, number: int, texts: Sequence[str]) -> None:
        """Record the warnings of a running trial's process."""
        notes = [*(schema.NOTES.get(self._trial(number).user_attrs) or ()), *texts]
        self._keep(number, {schema.NOTES.name: notes})

    def _keep(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Record attributes of a trial that has not ended."""
        if attrs and not self._trial(number).is_finished:
            with self.transaction():
                for name, value in attrs.items():
                    self._set(number, name, value)
            self._follow()

    # ------------------------------------------------------------------ ending

    def end_early(self, number: int, reason: str) -> None:
        """End a running trial at its last recorded epoch, for a budget that is used up."""
        epochs = self.trial(number).epochs
        with self.transaction():
            self._set(number, schema.ENDED_BY.name, reason)
            self._tell(number, PRUNED, epochs[-1].misses if epochs else {})
        self._follow()

    def fail(self, number: int, message: str, traceback: str | None = None) -> None:
        """End a trial as failed; what went wrong is kept in its records."""
        if self.is_finished(number):
            return
        with self.transaction():
            self._set(number, schema.FAILURE.name, message)
            if traceback:
                self._set(number, schema.TRACEBACK.name, traceback)
            self._tell(number, FAIL)
        self._follow()

    def _tell(
        self,
        number: int,
        state: int,
        misses: Mapping[str, float] | None = None,
        values: Sequence[float] | None = None,
    ) -> None:
        """End a trial; its constraints are those of its last epoch, or where they were heading."""
        from optuna.trial import TrialState

        trial = self._written.trial(number)
        if misses:
            epoch = self._standing.running[number]
            for name, missed in self._standing.pruning.heading(epoch, misses).items():
                trial.set_constraint(name, missed)
        told = None if values is None else list(values)
        self.study.tell(trial, told, state=TrialState(state))

    # ------------------------------------------------------------------ the sweep as a whole

    def get(self, key: Key[T]) -> T | None:
        """What the ledger says about the sweep."""
        return key.get(self._attrs)

    @property
    def attrs(self) -> dict[str, Any]:
        """Everything that the ledger says about the sweep."""
        return dict(self._attrs)

    def set_attr(self, key: str, value: Any) -> None:
        """Record something about the sweep as a whole."""
        self.set_attrs({key: value})

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Record several things about the sweep at once."""
        before = self._attrs
        changed = {
            key: value for key, value in attrs.items() if key not in before or before[key] != value
        }
        if changed:
            with self.transaction():
                self._set_study(changed)

    def begin_run(self, details: Mapping[str, Any]) -> int:
        """Record that a process starts to work on the sweep; returns the run's number.

        An earlier run that was killed is closed with the time of its last record.
        """
        attrs: dict[str, Any] = {}
        number = self.num_runs()
        if self.run_is_open():
            ended = {"ended_ms": self._last_sign_ms(number - 1), "how": "killed"}
            attrs[schema.RUN_END.at(number - 1)] = ended
        attrs[schema.RUN.at(number)] = {"started_ms": now_ms(), **details}
        self.set_attrs(attrs)
        self._run = number
        return number

    def end_run(self, run: int, how: str) -> None:
        """Record how a run ended; one that was killed has no such record until the next one begins."""
        self.set_attr(schema.RUN_END.at(run), {"ended_ms": now_ms(), "how": how})

    def num_runs(self) -> int:
        """How many processes have worked on the sweep so far."""
        return len(schema.RUN.all(self._attrs))

    def run_is_open(self) -> bool:
        """Whether the last run has not recorded its end: it is still running, or was killed."""
        runs = self.num_runs()
        return runs > 0 and schema.RUN_END.at(runs - 1) not in self._attrs

    def wall_s(self) -> float:
        """Seconds that processes worked on the sweep, over all runs; a killed run counts to its
        last record.
        """
        starts, ends = schema.RUN.all(self._attrs), schema.RUN_END.all(self._attrs)
        total_ms = 0
        for number, run in starts.items():
            if number in ends:
                end = ends[number]["ended_ms"]
            elif number == self._run or (self._journal is None and self.folder.is_running()):
                end = now_ms()
            else:
                end = self._last_sign_ms(number)

            total_ms += end - run["started_ms"]
        return total_ms / 1000

    def _last_sign_ms(self, run: int) -> int:
        """When the last epoch of the last run was recorded, or that run began."""
        started_ms: int = self._attrs[schema.RUN.at(run)]["started_ms"]
        return max(started_ms, self.standing.last_ms)

    def gpu_hours(self) -> float:
        """GPU-hours that were reserved, the wait for the baseline included, at a trial's share of a
        GPU. They do not include what a killed process had not reported yet.
        """
        return self.standing.reserved_s * self.spec.resources.gpu / 3600

    @property
    def study(self) -> optuna.Study:
        """The same as Optuna has it; of one that is read, as Optuna itself reads the file now."""
        if self._journal is not None:
            return self._written.study

        from lmoe_tune.sweep.study import read_study

        return read_study(self._path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that the block records at once."""
        assert self._journal is not None, "this ledger was opened for reading"
        with self._journal.transaction():
            yield

    @property
    def budget(self) -> Budget:
        return Budget(**schema.BUDGET.read(self._attrs))

    def usage(self) -> Usage:
        """What the sweep has used of its budgets."""
        standing = self.standing
        return Usage(
            trials=standing.num_started,
            running=len(standing.running),
            failed=len(standing.failed),
            time_s=self.wall_s(),
            gpu_hours=self.gpu_hours(),
            points=len(standing.tried),
            waiting=len(standing.waiting),
            waiting_retries=standing.waiting_retries,
        )

    def exhausted(self) -> UsedUp | None:
        """Why no further trial may start, or None."""
        return used_up(self.budget, self.usage(), self.num_points)

    @property
    def num_points(self) -> int | None:
        """How many points the space has; None if a part of it is continuous."""
        return self._standing.tried.points.in_all

    def is_complete(self) -> bool:
        """Nothing runs and nothing may start any more."""
        return not self.standing.running and self.exhausted() is not None

    @property
    def outcome(self) -> Literal["complete", "interrupted"]:
        """What it is while no process works on it: there is nothing left to do, or it can be
        resumed.
        """
        return "complete" if self.is_complete() else "interrupted"

    @property
    def in_transaction(self) -> bool:
        return self._journal is not None and self._journal.in_transaction

    @property
    def sweep_id(self) -> str:
        return schema.SWEEP_ID.read(self._attrs)

    @property
    def has_jobs(self) -> bool:
        """Whether its trials are the jobs of a confirmation."""
        return self.get(schema.KIND) is not None

    @property
    def resume_command(self) -> str:
        """What to run to continue with it."""
        return self.get(schema.RESUME_COMMAND) or advice.resume(
            self.folder.name, home=self.folder.home
        )

    @property
    def created_ms(self) -> int:
        return schema.CREATED_MS.read(self._attrs)

    # ------------------------------------------------------------------ trials

    @property
    def standing(self) -> Standing:
        """The sweep's present state."""
        self._pull()
        return self._standing

    def unfinished(self) -> list[Suggestion]:
        """Trials that were started and have not ended, in order."""
        return [
            Suggestion(number, self._trial(number).params)
            for number in sorted(self.standing.running)
        ]

    def is_finished(self, number: int) -> bool:
        self._pull()
        return self._trial(number).is_finished

    def trial(self, number: int) -> TrialRecord:
        self._pull()
        return _record(self._trial(number), self.spec.objective.metrics)

    def trials(self) -> list[TrialRecord]:
        """All trials that have been started, by number."""
        waiting = self.standing.waiting
        return self._records(n for n in range(len(self._contents.trials)) if n not in waiting)

    def points(self) -> list[dict[str, Any]]:
        """The parameters of all trials that were started or wait with given parameters, without
        retries.
        """
        self._pull()
        return [
            _given_params(trial)
            for trial in self._contents.trials
            if schema.RETRY_OF.get(trial.user_attrs) is None
        ]

    def unfinished_points(self) -> list[dict[str, Any]]:
        """The parameters of all trials that were started and have not ended, or wait with given
        ones.
        """
        self._pull()
        standing = self._standing
        return [
            _given_params(self._contents.trials[number])
            for number in (*standing.running, *standing.waiting)
        ]

    def best(self) -> TrialRecord | None:
        """The best complete trial; where none is feasible, the one that misses the constraints
        least.

        With several objectives, the one of the Pareto front with the best first objective.
        """
        return next(iter(self.ranked(1)), None)

    def ranked(self, count: int | None = None) -> list[TrialRecord]:
        """The complete trials, best first, or the best few; a Pareto front goes before all others."""
        standing = self.standing
        numbers = standing.ranking.best(len(standing.ranking) if count is None else count)
        return self._records(numbers)

    def pareto_front(self) -> list[TrialRecord]:
        """The feasible complete trials that no other one betters in every objective, by number."""
        return self._records(sorted(self.standing.ranking.front()))

    # ------------------------------------------------------------------ within

    def _open_for_writing(self, first_attrs: Mapping[str, Any], *, enqueue: bool) -> None:
        from lmoe_tune.sweep.journal import JournalFile
        from lmoe_tune.sweep.pruning import Pruning
        from lmoe_tune.sweep.sampling import Suggestions
        from lmoe_tune.sweep.study import OptunaStudy

        self._journal = JournalFile(self._path, self._contents)
        standing = self._standing = Standing(self.spec, Pruning(self.spec))
        if self._contents.attrs is not None:
            self._refuse_unknown()
            self._written = OptunaStudy(self._journal, standing.waiting)
        else:
            self._refuse_emptied()
            with self.transaction():
                directions = self.spec.objective.directions
                self._written = OptunaStudy(self._journal, standing.waiting, directions)
                self._set_study(self._first_attrs() | dict(first_attrs))
                for point in self.spec.search.start_from if enqueue else ():
                    self.study.enqueue_trial(dict(point))
        self._suggestions = Suggestions(self.spec, standing.tried, standing.space)
        self._follow()
        if standing.num_trials > MANY_TRIALS:
            gc.freeze()  # else the next collection, and each large one, goes through all of it

    def _first_attrs(self) -> dict[str, Any]:
        return {
            schema.VERSION.name: SCHEMA,
            schema.SWEEP_ID.name: str(uuid.uuid4()),
            schema.NAME.name: self.folder.name,
            schema.CREATED_MS.name: now_ms(),
            schema.BUDGET.name: vars(Budget.of(self.spec)),
        }

    def _refuse_emptied(self) -> None:
        """Raises LedgerError if this is a sweep's ledger, and it has held a study."""
        lost = lost_ledger(self.folder, "holds no study")
        if lost is not None and self._path == self.folder.ledger:
            raise LedgerError(lost)

    def _refuse_unknown(self) -> None:
        if self._contents.attrs is None:
            self._refuse_emptied()
            raise LedgerError(f"{self._path}: holds no study yet; start the sweep again")
        found = self.get(schema.VERSION)
        if found != SCHEMA:
            raise LedgerError(
                f"{self._path}: written in schema {found}, but this version reads {SCHEMA}; "
                "start another sweep, or read it with the version that wrote it"
            )

    @property
    def _attrs(self) -> dict[str, Any]:
        """The study's attributes, not copied."""
        self._pull()
        assert self._contents.attrs is not None
        return self._contents.attrs

    def _set_study(self, attrs: Mapping[str, Any]) -> None:
        for key, value in attrs.items():
            schema.key_of("sweep", key)
            self._written.set_attr(key, value)

    def _set(self, number: int, key: str, value: Any) -> None:
        schema.key_of("trial", key)
        self._written.set_trial_attr(number, key, value)

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(float(metrics[name]) for name in self.spec.objective.metrics)

    def _say_differences(
        self, number: int, epoch: int, metrics: Mapping[str, float], recorded: Mapping[str, float]
    ) -> None:
        """Another machine, or a GPU, may repeat an epoch with another value: the record is kept."""
        for name in self.spec.objective.metrics:
            if metrics[name] != recorded[name]:
                text = "trial %d epoch %d: %s repeated as %r, recorded as %r"
                log.warning(text, number, epoch, name, metrics[name], recorded[name])

    def _trial(self, number: int) -> StoredTrial:
        return self._contents.trials[number]

    def _records(self, numbers: Iterable[int]) -> list[TrialRecord]:
        objectives = self.spec.objective.metrics
        self._pull()
        return [_record(self._trial(number), objectives) for number in numbers]

    def _pull(self) -> None:
        """Of a ledger that is read: take in what has been written since."""
        if self._journal is None:
            for record in self._file.pull():
                self._contents.apply(record)
            self._follow()

    def _follow(self) -> None:
        """Take in all trials that have changed."""
        for number in self._contents.take_changed():
            trial = self._trial(number)
            self._standing.update(trial)
            if trial.is_finished and self._journal is not None:
                self._written.running.pop(number, None)


def now_ms() -> int:
    """Milliseconds since the epoch, by a clock that runs evenly: setting the system's clock while a
    sweep runs neither uses up its time nor gives some back.
    """
    return (_BOOTED_NS + time.clock_gettime_ns(_EVEN_CLOCK)) // 1_000_000


def system_ms() -> int:
    """Milliseconds since the epoch, by the system's clock as it is set now, for comparing machines."""
    return time.time_ns() // 1_000_000


def _given_params(trial: StoredTrial) -> dict[str, Any]:
    """Those it has, or will have."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def _record(trial: StoredTrial, objectives: Sequence[str]) -> TrialRecord:
    attrs = trial.user_attrs
    epochs = _epochs(attrs)
    values = tuple(float(epochs[-1].metrics[name]) for name in objectives if epochs)
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=trial.params,
        epochs=tuple(epochs),
        started_ms=trial.started_ms,
        ended_ms=trial.ended_ms,
        values=values,
        violation=violation_of(trial),
        notes=tuple(schema.NOTES.get(attrs) or ()),
        distributions=dict(trial.distributions),
        optuna=dict(trial.system_attrs),
        **{key.name: attrs[key.name] for key in schema.RECORD_KEYS if key.name in attrs},
    )


def _epochs(attrs: Mapping[str, Any]) -> list[EpochRecord]:
    """Those of a trial; they follow each other without a gap."""
    epochs: list[EpochRecord] = []
    while (found := attrs.get(schema.EPOCH.at(len(epochs) + 1))) is not None:
        epochs.append(EpochRecord(len(epochs) + 1, **found))
    return epochs
