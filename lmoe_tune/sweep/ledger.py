"""The ledger of a sweep: an Optuna study that holds every trial's parameters, epochs, state and value.

Only the holder of the sweep's lock writes, and every change is one transaction.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as State

from lmoe_tune.records import EpochRecord, TrialRecord, TrialState
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.journal import JournalFile, LedgerError
from lmoe_tune.sweep.sampling import ask, make_pruner, make_sampler, num_grid_trials

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

SCHEMA = 1
STUDY = "sweep"  # always: Hyperband hashes the name, and a sweep may be renamed
CONSTRAINT_PREFIX = "constraints:"
EPOCH_PREFIX = "epoch:"
RECORD_ATTRS = ("failure", "traceback", "ended_by", "retry_of", "retries")
"""Attributes of a trial that are fields of its record."""

STATES: dict[State, TrialState] = {
    State.RUNNING: "running",
    State.COMPLETE: "complete",
    State.PRUNED: "pruned",
    State.FAIL: "failed",
}


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the study and the values of the searched parameters."""

    number: int
    params: dict[str, Any]


@dataclass(frozen=True)
class Budget:
    """What a sweep may use over all its runs; None is unlimited."""

    trials: int | None
    time_s: float | None
    gpu_hours: float | None
    max_failed: int | None

    @classmethod
    def of(cls, spec: Spec) -> Budget:
        """A spec's budget."""
        budget = spec.budget
        return cls(budget.trials, budget.time, budget.gpu_hours, budget.max_failed)


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
        self._trials: dict[int, Trial] = {}
        self._views: dict[int, TrialRecord] = {}
        self._storage = optuna.storages.JournalStorage(backend)
        # An idle sampler: each trial gets one of its own, and rebuilding a trial must not draw from one.
        idle = optuna.samplers.RandomSampler(seed=0)
        try:
            self.study = optuna.load_study(
                study_name=STUDY, storage=self._storage, sampler=idle, pruner=make_pruner(spec)
            )
        except KeyError:
            if not backend.writable:
                raise LedgerError(
                    f"{folder.ledger}: holds no study yet; start the sweep again"
                ) from None
            self._create(idle, first_attrs or {}, enqueue=enqueue)
        found = self.study.user_attrs.get("schema")
        if found != SCHEMA:
            raise LedgerError(
                f"{folder.ledger}: written in schema {found}, but this version reads {SCHEMA}"
            )

    @classmethod
    def writing(
        cls, folder: SweepFolder, spec: Spec, first_attrs: Mapping[str, Any] | None = None
    ) -> Ledger:
        """Open for writing; the caller holds the sweep's lock.

        Args:
            first_attrs: what to record about the sweep together with its creation, where it is a new one.
        """
        return cls(folder, spec, JournalFile(folder.ledger, writable=True), first_attrs)

    @classmethod
    def reading(cls, folder: SweepFolder, spec: Spec) -> Ledger:
        """Open for reading, at any moment, beside a writer."""
        return cls(folder, spec, JournalFile(folder.ledger, writable=False))

    # ------------------------------------------------------------------ writing

    def points(self) -> list[dict[str, Any]]:
        """The parameters of all trials that were started or wait with given ones, those tried again left out."""
        return [
            dict(trial.params or trial.system_attrs.get("fixed_params", {}))
            for trial in self._frozen()
            if not _is_retry(trial)
        ]

    def ask(self) -> Suggestion:
        """Create the next trial, or take the next one that waits with given parameters."""
        waiting = self._frozen(State.WAITING)
        number = waiting[0].number if waiting else len(self._frozen())
        idle, self.study.sampler = self.study.sampler, make_sampler(self.spec, number)
        with self._backend.transaction():
            trial = ask(self.study, self.spec)
        self.study.sampler = idle
        assert trial.number == number, f"asked for trial {number}, got {trial.number}"
        self._trials[number] = trial
        return Suggestion(number, dict(trial.params))

    def record_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], baseline: Mapping[str, float]
    ) -> bool:
        """Record one epoch, decide on pruning and tell the end, in one transaction; True when the trial ends.

        An epoch is recorded once: a trial that continues from a checkpoint may deliver its last one again.
        """
        frozen = self._frozen_trial(number)
        if frozen.state.is_finished():
            return True
        values = self._values(metrics)
        recorded = frozen.user_attrs.get(epoch_key(epoch))
        if recorded is not None:
            for name, value, old in zip(
                self.spec.objective.metrics, values, self._values(recorded["metrics"]), strict=True
            ):
                if old != value:  # another machine, or a GPU: the record stands
                    log.warning(
                        "trial %d epoch %d: %s repeated as %r, recorded as %r",
                        number,
                        epoch,
                        name,
                        value,
                        old,
                    )
            return False
        assert epoch == _num_epochs(frozen) + 1, f"trial {number}: epoch {epoch} is out of turn"
        trial = self._trial(number)
        one = (
            len(values) == 1
        )  # Optuna's pruners judge by one objective, and `report` takes no more
        with self._backend.transaction():
            if one:
                trial.report(values[0], step=epoch)
            self._set(trial, epoch_key(epoch), {"metrics": dict(metrics), "time_ms": now_ms()})
            if epoch >= self.spec.train.epochs:
                self._set_constraints(trial, metrics, baseline)
                self.study.tell(trial, list(values), state=State.COMPLETE)
                return True
            if one and trial.should_prune():
                self._set_constraints(trial, metrics, baseline)
                self.study.tell(trial, state=State.PRUNED)
                return True
        return False

    def end_early(self, number: int, reason: str, baseline: Mapping[str, float]) -> None:
        """End a running trial at its last recorded epoch, for a budget that is used up."""
        trial, epochs = self._trial(number), self.trial(number).epochs
        with self._backend.transaction():
            self._set(trial, "ended_by", reason)
            if epochs:
                self._set_constraints(trial, epochs[-1].metrics, baseline)
            self.study.tell(trial, state=State.PRUNED)

    def fail(self, number: int, message: str, traceback: str | None = None) -> None:
        """End a trial as failed; what went wrong is kept in its records."""
        if self._frozen_trial(number).state.is_finished():
            return
        trial = self._trial(number)
        with self._backend.transaction():
            self._set(trial, "failure", message)
            if traceback:
                self._set(trial, "traceback", traceback)
            self.study.tell(trial, state=State.FAIL)

    def count_retry(self, number: int) -> int:
        """Record that a trial's process died; returns how often it has, over all runs."""
        frozen = self._frozen_trial(number)
        deaths = int(frozen.user_attrs.get("retries", 0)) + 1
        if not frozen.state.is_finished():
            with self._backend.transaction():
                self._set(self._trial(number), "retries", deaths)
        return deaths

    def note(self, number: int, texts: Sequence[str]) -> None:
        """Keep what a running trial's process warned of."""
        frozen = self._frozen_trial(number)
        if not frozen.state.is_finished():
            with self._backend.transaction():
                self._set(
                    self._trial(number), "notes", [*frozen.user_attrs.get("notes", ()), *texts]
                )

    def retry_failed(self) -> int:
        """Enqueue every failed trial that was not retried yet once more, with the same parameters."""
        trials = self.trials()
        retried = {trial.retry_of for trial in trials}
        retried |= {trial.user_attrs.get("retry_of") for trial in self._frozen(State.WAITING)}
        failed = [
            trial for trial in trials if trial.state == "failed" and trial.number not in retried
        ]
        with self._backend.transaction():
            for trial in failed:
                self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
        return len(failed)

    def enqueue(self, points: Sequence[Mapping[str, Any]], attrs: Mapping[str, Any]) -> None:
        """Have these points tried next, and the budget of trials grow by them; `attrs` are recorded with that."""
        budget = self.study.user_attrs["budget"]
        trials = sum(not _is_retry(trial) for trial in self._frozen()) + len(points)
        with self._backend.transaction():
            for key, value in {**attrs, "budget": {**budget, "trials": trials}}.items():
                self.study.set_user_attr(key, value)
            for point in points:
                self.study.enqueue_trial(dict(point))

    def set_attr(self, key: str, value: Any) -> None:
        """Record something about the sweep as a whole."""
        self.set_attrs({key: value})

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Record several things about the sweep at once."""
        before = self.study.user_attrs
        changed = {
            key: value for key, value in attrs.items() if key not in before or before[key] != value
        }
        if changed:
            with self._backend.transaction():
                for key, value in changed.items():
                    self.study.set_user_attr(key, value)

    def begin_run(self, details: Mapping[str, Any]) -> int:
        """Record that a process starts to work on the sweep; returns the run's number."""
        run = self.num_runs()
        self.set_attr(f"run:{run:04d}", {"started_ms": now_ms(), **details})
        return run

    def end_run(self, run: int, how: str) -> None:
        """Record how a run ended; one that was killed has no such record."""
        self.set_attr(f"run:{run:04d}:end", {"ended_ms": now_ms(), "how": how})

    def _create(
        self, sampler: optuna.samplers.BaseSampler, first_attrs: Mapping[str, Any], *, enqueue: bool
    ) -> None:
        with self._backend.transaction():
            self.study = optuna.create_study(
                study_name=STUDY,
                storage=self._storage,
                directions=self.spec.objective.directions,
                sampler=sampler,
                pruner=make_pruner(self.spec),
            )
            attrs: dict[str, Any] = {
                "schema": SCHEMA,
                "sweep_id": str(uuid.uuid4()),
                "name": self.folder.name,
                "created_ms": now_ms(),
                "budget": vars(Budget.of(self.spec)),
                **first_attrs,
            }
            for key, value in attrs.items():
                self.study.set_user_attr(key, value)
            for point in self.spec.search.start_from if enqueue else ():
                self.study.enqueue_trial(dict(point))

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(float(metrics[name]) for name in self.spec.objective.metrics)

    def _set_constraints(
        self, trial: Trial, metrics: Mapping[str, float], baseline: Mapping[str, float]
    ) -> None:
        for metric, bound in self.spec.objective.constraints.items():
            value = metrics[metric]
            reference = baseline.get(metric, math.nan)
            if bound.min is not None:
                trial.set_constraint(f"{metric}:min", bound.min.value(reference) - value)
            if bound.max is not None:
                trial.set_constraint(f"{metric}:max", value - bound.max.value(reference))

    def _set(self, trial: Trial, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _trial(self, number: int) -> Trial:
        if number not in self._trials:
            self._trials[number] = Trial(self.study, self._frozen_trial(number)._trial_id)
        return self._trials[number]

    # ------------------------------------------------------------------ reading

    @property
    def in_transaction(self) -> bool:
        return self._backend.in_transaction

    @property
    def sweep_id(self) -> str:
        return str(self.study.user_attrs["sweep_id"])

    @property
    def kind(self) -> str:
        """`sweep`, or `confirm` where the trials are a confirmation's jobs."""
        return str(self.study.user_attrs.get("kind", "sweep"))

    @property
    def resume_command(self) -> str:
        """What to run to go on with it."""
        return str(
            self.study.user_attrs.get("resume_command", f"lmoe-tune resume {self.folder.name}")
        )

    @property
    def created_ms(self) -> int:
        return int(self.study.user_attrs["created_ms"])

    @property
    def budget(self) -> Budget:
        return Budget(**self.study.user_attrs["budget"])

    @property
    def attrs(self) -> dict[str, Any]:
        return dict(self.study.user_attrs)

    def unfinished(self) -> list[Suggestion]:
        """Trials that a former run left running, in order."""
        return [
            Suggestion(trial.number, dict(trial.params)) for trial in self._frozen(State.RUNNING)
        ]

    def is_finished(self, number: int) -> bool:
        return self._frozen_trial(number).state.is_finished()

    def trial(self, number: int) -> TrialRecord:
        return self._view(self._frozen_trial(number))

    def trials(self) -> list[TrialRecord]:
        """All trials that have been started, by number."""
        return [self._view(trial) for trial in self._frozen() if trial.state != State.WAITING]

    def _view(self, frozen: FrozenTrial) -> TrialRecord:
        view = self._views.get(frozen.number)
        if view is None:
            view = _record(frozen, self.spec.objective.metrics)
            if frozen.state.is_finished():  # nothing changes it any more
                self._views[frozen.number] = view
        return replace(view, params=dict(view.params))

    def num_trials(self) -> int:
        """Trials that have been started, those that try a failed one again included."""
        return sum(trial.state != State.WAITING for trial in self._frozen())

    def num_started(self) -> int:
        """Trials that have been started, those that try a failed one again left out."""
        return sum(
            trial.state != State.WAITING and not _is_retry(trial) for trial in self._frozen()
        )

    def num_failed(self) -> int:
        return len(self._frozen(State.FAIL))

    def best(self, trials: Sequence[TrialRecord] | None = None) -> TrialRecord | None:
        """The best complete trial; where none is feasible, the one that misses the constraints least.

        With several objectives, the one of the Pareto front with the best first objective.
        """
        ranked = self.ranked(self.trials() if trials is None else trials)
        return ranked[0] if ranked else None

    def ranked(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The complete trials, best first; of equal ones the earlier. A Pareto front goes before all others."""
        complete = [
            trial for trial in trials if trial.state == "complete" and trial.value is not None
        ]
        front = {trial.number for trial in self.pareto_front(complete)}
        costs = {trial.number: self._costs(trial) for trial in complete}
        return sorted(
            complete,
            key=lambda trial: (
                trial.violation,
                trial.number not in front,
                costs[trial.number][0],
                trial.number,
            ),
        )

    def pareto_front(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The feasible complete trials that no other one betters in every objective, by number.

        With one objective, these are the trials with the best value.
        """
        found = [
            trial
            for trial in trials
            if trial.state == "complete" and trial.violation == 0 and trial.values
        ]
        costs = {trial.number: self._costs(trial) for trial in found}

        def dominates(one: TrialRecord, other: TrialRecord) -> bool:
            pairs = list(zip(costs[one.number], costs[other.number], strict=True))
            return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        if len(self.spec.objective.metrics) == 1:
            least = min(costs.values(), default=())
            return [trial for trial in found if costs[trial.number] == least]
        return [trial for trial in found if not any(dominates(other, trial) for other in found)]

    def _costs(self, trial: TrialRecord) -> tuple[float, ...]:
        """The objectives' values, less being better."""
        pairs = zip(trial.values, self.spec.objective.directions, strict=True)
        return tuple(-value if direction == "maximize" else value for value, direction in pairs)

    def wall_s(self) -> float:
        """Seconds that processes worked on the sweep, over all runs; a killed run counts to its last record."""
        attrs = self.study.user_attrs
        starts = [(key, record["started_ms"]) for key, record in self._runs()]
        times = sorted(epoch.time_ms for trial in self.trials() for epoch in trial.epochs)
        total_ms = 0
        for place, (key, start) in enumerate(starts):
            end = attrs.get(f"{key}:end", {}).get("ended_ms")
            if end is None and place + 1 == len(starts) and self.folder.is_running():
                end = now_ms()
            elif end is None:
                until = starts[place + 1][1] if place + 1 < len(starts) else math.inf
                end = max((time_ms for time_ms in times if start <= time_ms < until), default=start)
            total_ms += end - start
        return total_ms / 1000

    def num_runs(self) -> int:
        """How many processes have worked on the sweep, one after the other."""
        return len(self._runs())

    def run_is_open(self) -> bool:
        """Whether the last run has not recorded its end: it works, or was killed."""
        runs = self._runs()
        return bool(runs) and f"{runs[-1][0]}:end" not in self.study.user_attrs

    def gpu_hours(self) -> float:
        """GPU-hours of all recorded epochs, at the share of a GPU that a trial has."""
        seconds = sum(
            epoch.metrics.get("epoch_s", 0.0) for trial in self.trials() for epoch in trial.epochs
        )
        return seconds * self.spec.resources.gpu / 3600

    def exhausted(self) -> str | None:
        """Why no further trial may start, or None."""
        budget = self.budget
        if budget.max_failed is not None and self.num_failed() > budget.max_failed:
            return "failures"
        if budget.gpu_hours is not None and self.gpu_hours() >= budget.gpu_hours:
            return "GPU-hours"
        if budget.time_s is not None and self.wall_s() >= budget.time_s:
            return "time"
        if any(_is_retry(trial) for trial in self._frozen(State.WAITING)):
            return None
        if budget.trials is not None and self.num_started() >= budget.trials:
            return "trials"
        if self.spec.search.sampler == "grid" and self.num_started() >= num_grid_trials(self.spec):
            return "grid"
        return None

    def is_complete(self) -> bool:
        """Nothing runs and nothing may start any more."""
        return not self._frozen(State.RUNNING) and self.exhausted() is not None

    def _runs(self) -> list[tuple[str, dict[str, Any]]]:
        attrs = self.study.user_attrs
        keys = sorted(key for key in attrs if key.startswith("run:") and not key.endswith(":end"))
        return [(key, attrs[key]) for key in keys]

    def _frozen(self, *states: State) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _frozen_trial(self, number: int) -> FrozenTrial:
        return self._frozen()[number]


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _is_retry(trial: FrozenTrial) -> bool:
    return "retry_of" in trial.user_attrs


def epoch_key(epoch: int) -> str:
    """The attribute of a trial that holds an epoch."""
    return f"{EPOCH_PREFIX}{epoch:04d}"


def _num_epochs(trial: FrozenTrial) -> int:
    return sum(key.startswith(EPOCH_PREFIX) for key in trial.user_attrs)


def _record(trial: FrozenTrial, objectives: Sequence[str]) -> TrialRecord:
    attrs = trial.user_attrs
    numbers = sorted(
        int(key.removeprefix(EPOCH_PREFIX)) for key in attrs if key.startswith(EPOCH_PREFIX)
    )
    epochs = [
        EpochRecord(epoch, judged=trial.intermediate_values.get(epoch), **attrs[epoch_key(epoch)])
        for epoch in numbers
    ]
    values = tuple(float(epochs[-1].metrics[name]) for name in objectives) if epochs else ()
    violations = [
        max(0.0, value)
        for key, value in trial.system_attrs.items()
        if key.startswith(CONSTRAINT_PREFIX)
    ]
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
        violation=sum(violations),
        notes=tuple(attrs.get("notes", ())),
        distributions={name: _as_json(kind) for name, kind in trial.distributions.items()},
        optuna=dict(trial.system_attrs),
        **{key: attrs[key] for key in RECORD_ATTRS if key in attrs},
    )


@lru_cache
def _as_json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)
