"""The ledger of a sweep: an Optuna study that holds every trial's parameters, epochs, state and
value.

Only the holder of the sweep's lock writes, and every change is one transaction. `schema.py` has
every key.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as State

from lmoe_tune import advice
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.budget import Budget, Usage, UsedUp, budget_of, used_up
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.journal import JournalFile, LedgerError, LedgerStorage
from lmoe_tune.sweep.pruning import misses_of
from lmoe_tune.sweep.sampling import Suggestions
from lmoe_tune.sweep.schema import SCHEMA, STUDY, Key
from lmoe_tune.sweep.standing import STATES, Standing, violation_of

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

T = TypeVar("T")


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the study and the values of the searched parameters."""

    number: int
    params: dict[str, Any]


class Ledger:
    """The study of one sweep, opened with `writing` or `reading`."""

    def __init__(
        self,
        folder: SweepFolder,
        spec: Spec,
        backend: JournalFile,
        first_attrs: Mapping[str, Any] | None = None,
        *,
        enqueue: bool = True,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self._backend = backend
        self._trials: dict[int, Trial] = {}  # those that run
        self._seen: list[FrozenTrial] = []
        self._standing = Standing(spec)
        self._suggestions = Suggestions(spec, self._standing.tried, self._standing.space)
        if backend.writable:
            waiting = self._standing.waiting
        else:
            waiting = None
        self._storage = LedgerStorage(backend, waiting)
        # An idle sampler: each trial gets one of its own, and rebuilding a trial must not draw from one.
        options: dict[str, Any] = {
            "study_name": STUDY,
            "storage": self._storage,
            "sampler": optuna.samplers.RandomSampler(seed=0),
            "pruner": optuna.pruners.NopPruner(),
        }
        try:
            self.study = optuna.load_study(**options)
        except KeyError:
            if not backend.writable:
                raise LedgerError(
                    f"{folder.ledger}: holds no study yet; start the sweep again"
                ) from None
            self._create(options, first_attrs or {}, enqueue=enqueue)
        self._study_id = self._storage.get_study_id_from_name(STUDY)
        found = self.get(schema.VERSION)
        if found != SCHEMA:
            raise LedgerError(
                f"{folder.ledger}: written in schema {found}, but this version reads {SCHEMA}; "
                "start another sweep, or read it with the version that wrote it"
            )
        self._follow()

    @classmethod
    def writing(
        cls, folder: SweepFolder, spec: Spec, first_attrs: Mapping[str, Any] | None = None
    ) -> Ledger:
        """Open for writing; the caller holds the sweep's lock.

        Args:
            first_attrs: what to record about the sweep together with its creation, where it is a
                new one.
        """
        return cls(folder, spec, JournalFile(folder.ledger, writable=True), first_attrs)

    @classmethod
    def reading(cls, folder: SweepFolder, spec: Spec) -> Ledger:
        """Open for reading, at any moment, beside a writer."""
        return cls(folder, spec, JournalFile(folder.ledger, writable=False))

    # ------------------------------------------------------------------ asking

    def ask(self) -> Suggestion:
        """Create the next trial, or take the next one that waits with given parameters."""
        number = next(iter(self._standing.waiting), self._standing.num_trials)
        with self._backend.transaction():
            trial = self._suggestions.ask(self.study, number)
        assert trial.number == number, f"asked for trial {number}, got {trial.number}"
        self._trials[number] = trial
        self._touch(number)
        return Suggestion(number, dict(trial.params))

    def retry_failed(self) -> int:
        """Enqueue every failed trial that was not retried yet once more, with the same parameters."""
        failed = sorted(self._standing.failed)
        with self._backend.transaction():
            for number in failed:
                attrs = {schema.RETRY_OF.name: number}
                self.study.enqueue_trial(self._frozen(number).params, user_attrs=attrs)
        self._touch_new(len(failed))
        return len(failed)

    def enqueue(self, points: Sequence[Mapping[str, Any]], attrs: Mapping[str, Any]) -> None:
        """Have these points tried next, and the budget of trials grow by them; `attrs` are recorded
        with that.
        """
        standing = self._standing
        waiting = len(standing.waiting) - standing.waiting_retries
        trials = standing.num_started + waiting + len(points)
        budget = schema.BUDGET.read(self._attrs) | {"trials": trials}
        with self._backend.transaction():
            self._set_study({**attrs, schema.BUDGET.name: budget})
            for point in points:
                self.study.enqueue_trial(dict(point))
        self._touch_new(len(points))

    # ------------------------------------------------------------------ recording

    def record_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], baseline: Mapping[str, float]
    ) -> bool:
        """Record one epoch, decide on pruning and tell the end, in one transaction; True when the
        trial ends.

        An epoch is recorded once: a trial that continues from a checkpoint may deliver its last one
        again.
        """
        return self.record_judged(number, epoch, metrics, misses_of(self.spec, metrics, baseline))

    def record_judged(
        self, number: int, epoch: int, metrics: Mapping[str, float], misses: Mapping[str, float]
    ) -> bool:
        """The same where it is known how far the epoch misses each constraint."""
        frozen = self._frozen(number)
        if frozen.state.is_finished():
            return True
        recorded = frozen.user_attrs.get(schema.EPOCH.at(epoch))
        if recorded is not None:
            self._say_differences(number, epoch, metrics, recorded["metrics"])
            return False
        done = self._standing.running[number]
        assert epoch == done + 1, f"trial {number}: epoch {epoch} is out of turn"
        values = self._values(metrics)
        found = {"metrics": dict(metrics), "misses": dict(misses), "time_ms": now_ms()}

        with self._backend.transaction():
            if len(values) == 1:  # Optuna takes no more
                self._trial(number).report(values[0], step=epoch)
            self._set(number, schema.EPOCH.at(epoch), found)
            self._touch(number)
            if epoch >= self.spec.train.epochs:
                self._tell(number, State.COMPLETE, misses, values)
            elif self._standing.pruning.decides_against(number):
                self._tell(number, State.PRUNED, misses)
            else:
                return False
        self._touch(number)
        return True

    def count_retry(self, number: int) -> int:
        """Record that a trial's process died; returns how often it has, over all runs."""
        frozen = self._frozen(number)
        deaths = (schema.RETRIES.get(frozen.user_attrs) or 0) + 1
        if not frozen.state.is_finished():
            with self._backend.transaction():
                self._set(number, schema.RETRIES.name, deaths)
            self._touch(number)
        return deaths

    def place(self, number: int, *, host: str, device: str | None, gpu: str | None) -> None:
        """Keep where a running trial is, if that is news."""
        frozen = self._frozen(number)
        known = {schema.HOST.name: host, schema.DEVICE.name: device, schema.GPU.name: gpu}
        news = {
            name: value
            for name, value in known.items()
            if value is not None and frozen.user_attrs.get(name) != value
        }
        if news and not frozen.state.is_finished():
            with self._backend.transaction():
                for name, value in news.items():
                    self._set(number, name, value)
            self._touch(number)

    def note(self, number: int, texts: Sequence[str]) -> None:
        """Keep what a running trial's process warned of."""
        frozen = self._frozen(number)
        if not frozen.state.is_finished():
            notes = [*(schema.NOTES.get(frozen.user_attrs) or ()), *texts]
            with self._backend.transaction():
                self._set(number, schema.NOTES.name, notes)
            self._touch(number)

    # ------------------------------------------------------------------ ending

    def end_early(self, number: int, reason: str, baseline: Mapping[str, float]) -> None:
        """End a running trial at its last recorded epoch, for a budget that is used up."""
        epochs = self.trial(number).epochs
        with self._backend.transaction():
            self._set(number, schema.ENDED_BY.name, reason)
            self._tell(number, State.PRUNED, epochs[-1].misses if epochs else {})
        self._touch(number)

    def fail(self, number: int, message: str, traceback: str | None = None) -> None:
        """End a trial as failed; what went wrong is kept in its records."""
        if self.is_finished(number):
            return
        with self._backend.transaction():
            self._set(number, schema.FAILURE.name, message)
            if traceback:
                self._set(number, schema.TRACEBACK.name, traceback)
            self._tell(number, State.FAIL)
        self._touch(number)

    def _tell(
        self,
        number: int,
        state: State,
        misses: Mapping[str, float] | None = None,
        values: Sequence[float] | None = None,
    ) -> None:
        """End a trial; its constraints are those of its last epoch, or where they were heading."""
        trial = self._trial(number)
        if misses:
            epoch = self._standing.running[number]
            for name, missed in self._standing.pruning.heading(epoch, misses).items():
                trial.set_constraint(name, missed)
        self.study.tell(trial, None if values is None else list(values), state=state)

    # ------------------------------------------------------------------ the sweep as a whole

    def get(self, key: Key[T]) -> T | None:
        """What the ledger says of the sweep."""
        return key.get(self._attrs)

    @property
    def attrs(self) -> dict[str, Any]:
        """All that the ledger says of the sweep."""
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
            with self._backend.transaction():
                self._set_study(changed)

    def begin_run(self, details: Mapping[str, Any]) -> int:
        """Record that a process starts to work on the sweep; returns the run's number.

        A former run that was killed is closed with the time of its last record.
        """
        attrs: dict[str, Any] = {}
        number = self.num_runs()
        if self.run_is_open():
            ended = {"ended_ms": self._last_sign_ms(number - 1), "how": "killed"}
            attrs[schema.RUN_END.at(number - 1)] = ended
        attrs[schema.RUN.at(number)] = {"started_ms": now_ms(), **details}
        self.set_attrs(attrs)
        return number

    def end_run(self, run: int, how: str) -> None:
        """Record how a run ended; one that was killed has no such record until the next one begins."""
        self.set_attr(schema.RUN_END.at(run), {"ended_ms": now_ms(), "how": how})

    def num_runs(self) -> int:
        """How many processes have worked on the sweep, one after the other."""
        return len(schema.RUN.all(self._attrs))

    def run_is_open(self) -> bool:
        """Whether the last run has not recorded its end: it works, or was killed."""
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
            elif self.folder.is_running():
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
        """GPU-hours of all recorded epochs, at the share of a GPU that a trial has."""
        return self.standing.epoch_s * self.spec.resources.gpu / 3600

    @property
    def budget(self) -> Budget:
        return budget_of(schema.BUDGET.read(self._attrs))

    def usage(self) -> Usage:
        """What the sweep has used of its budgets."""
        standing = self.standing
        return Usage(
            trials=standing.num_started,
            failed=standing.num_failed,
            time_s=self.wall_s(),
            gpu_hours=self.gpu_hours(),
            points=0 if standing.tried is None else len(standing.tried),
            waiting=len(standing.waiting),
            waiting_retries=standing.waiting_retries,
        )

    def exhausted(self) -> UsedUp | None:
        """Why no further trial may start, or None."""
        return used_up(self.budget, self.usage(), self.num_points)

    @property
    def num_points(self) -> int | None:
        """How many points the space has; None where it is continuous."""
        tried = self._standing.tried
        if tried is None:
            return None

        return tried.points.size

    def is_complete(self) -> bool:
        """Nothing runs and nothing may start any more."""
        return not self.standing.running and self.exhausted() is not None

    @property
    def in_transaction(self) -> bool:
        return self._backend.in_transaction

    @property
    def sweep_id(self) -> str:
        return schema.SWEEP_ID.read(self._attrs)

    @property
    def kind(self) -> str:
        """`sweep`, or `confirm` where the trials are a confirmation's jobs."""
        return self.get(schema.KIND) or "sweep"

    @property
    def resume_command(self) -> str:
        """What to run to go on with it."""
        return self.get(schema.RESUME_COMMAND) or advice.resume(
            self.folder.name, home=self.folder.home
        )

    @property
    def created_ms(self) -> int:
        return schema.CREATED_MS.read(self._attrs)

    # ------------------------------------------------------------------ trials

    @property
    def standing(self) -> Standing:
        """Where the sweep stands now."""
        if not self._backend.writable:
            self._follow()
        return self._standing

    def unfinished(self) -> list[Suggestion]:
        """Trials that were started and have not ended, in order."""
        return [
            Suggestion(number, dict(self._frozen(number).params))
            for number in sorted(self.standing.running)
        ]

    def is_finished(self, number: int) -> bool:
        return self._frozen(number).state.is_finished()

    def trial(self, number: int) -> TrialRecord:
        return _record(self._frozen(number), self.spec.objective.metrics)

    def trials(self) -> list[TrialRecord]:
        """All trials that have been started, by number."""
        waiting = self.standing.waiting
        return self._records(n for n in range(len(self._seen)) if n not in waiting)

    def points(self) -> list[dict[str, Any]]:
        """The parameters of all trials that were started or wait with given ones, those tried again
        left out.
        """
        self._follow()
        return [
            dict(trial.params or trial.system_attrs.get("fixed_params", {}))
            for trial in self._seen
            if schema.RETRY_OF.get(trial.user_attrs) is None
        ]

    def num_trials(self) -> int:
        """Trials that have been started, those that try a failed one again included."""
        return self.standing.counts.total()

    def num_started(self) -> int:
        """Trials that have been started, those that try a failed one again left out."""
        return self.standing.num_started

    def num_failed(self) -> int:
        """Trials that failed and were not tried again; of those that were, the last try counts."""
        return self.standing.num_failed

    def best(self) -> TrialRecord | None:
        """The best complete trial; where none is feasible, the one that misses the constraints
        least.

        With several objectives, the one of the Pareto front with the best first objective.
        """
        found = self.ranked(1)
        if found:
            return found[0]

        return None

    def ranked(self, count: int | None = None) -> list[TrialRecord]:
        """The complete trials, best first, or the best few; a Pareto front goes before all others."""
        standing = self.standing
        numbers = standing.ranking.best(len(standing.ranking) if count is None else count)
        return self._records(numbers)

    def pareto_front(self) -> list[TrialRecord]:
        """The feasible complete trials that no other one betters in every objective, by number."""
        return self._records(sorted(self.standing.ranking.front()))

    # ------------------------------------------------------------------ within

    def _create(
        self, options: dict[str, Any], first_attrs: Mapping[str, Any], *, enqueue: bool
    ) -> None:
        with self._backend.transaction():
            self.study = optuna.create_study(directions=self.spec.objective.directions, **options)
            self._study_id = self._storage.get_study_id_from_name(STUDY)
            attrs: dict[str, Any] = {
                schema.VERSION.name: SCHEMA,
                schema.SWEEP_ID.name: str(uuid.uuid4()),
                schema.NAME.name: self.folder.name,
                schema.CREATED_MS.name: now_ms(),
                schema.BUDGET.name: Budget.of(self.spec).to_json(),
            }
            self._set_study(attrs | dict(first_attrs))
            for point in self.spec.search.start_from if enqueue else ():
                self.study.enqueue_trial(dict(point))

    @property
    def _attrs(self) -> dict[str, Any]:
        """The study's attributes, not copied."""
        return self._storage.get_study_user_attrs(self._study_id)

    def _set_study(self, attrs: Mapping[str, Any]) -> None:
        for key, value in attrs.items():
            schema.key_of("sweep", key)
            self._storage.set_study_user_attr(self._study_id, key, value)

    def _set(self, number: int, key: str, value: Any) -> None:
        schema.key_of("trial", key)
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(float(metrics[name]) for name in self.spec.objective.metrics)

    def _say_differences(
        self, number: int, epoch: int, metrics: Mapping[str, float], recorded: Mapping[str, float]
    ) -> None:
        """Another machine, or a GPU, may repeat an epoch with another value: the record stands."""
        for name in self.spec.objective.metrics:
            if metrics[name] != recorded[name]:
                text = "trial %d epoch %d: %s repeated as %r, recorded as %r"
                log.warning(text, number, epoch, name, metrics[name], recorded[name])

    def _id(self, number: int) -> int:
        """What the storage calls a trial."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _trial(self, number: int) -> Trial:
        """A running trial, to report to."""
        if number not in self._trials:
            self._trials[number] = Trial(self.study, self._id(number))
        return self._trials[number]

    def _records(self, numbers: Iterable[int]) -> list[TrialRecord]:
        objectives = self.spec.objective.metrics
        if not self._backend.writable:
            self._follow()
        return [_record(self._seen[number], objectives) for number in numbers]

    def _touch(self, number: int) -> None:
        """Take in a trial that this process has changed."""
        frozen = self._frozen(number)
        self._seen[number : number + 1] = [frozen]
        self._standing.update(frozen)
        if frozen.state.is_finished():
            self._trials.pop(number, None)

    def _touch_new(self, count: int) -> None:
        for number in range(len(self._seen), len(self._seen) + count):
            self._touch(number)

    def _follow(self) -> None:
        """Take in all trials that have changed, whoever changed them."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        for number, trial in enumerate(trials):
            # Optuna replaces a trial that changes, so that those that have not need no second look.
            if number >= len(self._seen) or self._seen[number] is not trial:
                self._seen[number : number + 1] = [trial]
                self._standing.update(trial)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _record(trial: FrozenTrial, objectives: Sequence[str]) -> TrialRecord:
    attrs = trial.user_attrs
    epochs = [EpochRecord(epoch, **found) for epoch, found in schema.EPOCH.all(attrs).items()]
    if epochs:
        values = tuple(float(epochs[-1].metrics[name]) for name in objectives)
    else:
        values = ()
    assert trial.datetime_start is not None, "a trial that was never started"
    ended = trial.datetime_complete
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=dict(trial.params),
        epochs=tuple(epochs),
        started_ms=round(trial.datetime_start.timestamp() * 1000),
        ended_ms=None if ended is None else round(ended.timestamp() * 1000),
        values=values,
        violation=violation_of(trial),
        notes=tuple(schema.NOTES.get(attrs) or ()),
        distributions={name: _as_json(kind) for name, kind in trial.distributions.items()},
        optuna=dict(trial.system_attrs),
        **{key.name: attrs[key.name] for key in schema.RECORD_KEYS if key.name in attrs},
    )


@lru_cache
def _as_json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)
