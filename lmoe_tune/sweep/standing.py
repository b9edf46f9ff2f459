"""What is kept of all trials, so that no result and no new trial requires going through all of
them.

Counts, sums, the ranking, the pruner's tables and the points that were tried: a pure function of
the ledger, built when it is opened, and then brought up to date with each trial that has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.records import TrialState
from lmoe_tune.spec import Spec
from lmoe_tune.spec.metrics import RESERVED
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.contents import STATES, WAITING, StoredTrial
from lmoe_tune.sweep.points import Points, Tried
from lmoe_tune.sweep.ranking import Place, Ranking, costs_of

if TYPE_CHECKING:
    from lmoe_tune.sweep.pruning import Pruning

CONSTRAINT_PREFIX = "constraints:"


class Standing:
    """The present state of a sweep.

    Attributes:
        counts: trials in each state, but for those that wait.
        waiting: numbers of trials that wait with given parameters, in order.
        running: of each trial that was started and has not ended, its last epoch.
        num_trials: trials in the study, those that wait included.
        failed: numbers of trials that failed and were not tried again; of those that were, the last
            try counts.
        last_ms: when the last epoch was recorded; 0 before the first one.
        ranking: the complete trials, best first.
        space: the parameters that all complete and pruned trials have, with what they were drawn
            from, in Optuna's JSON.
        tried: the points of the space's finite part that were tried.
    """

    def __init__(self, spec: Spec, pruning: Pruning | None = None) -> None:
        """Nothing has been started.

        Args:
            pruning: kept up to date, too: what decides which trials continue. A reader needs none.
        """
        self.counts: Counter[TrialState] = Counter()
        self.waiting: dict[int, bool] = {}
        self.running: dict[int, int] = {}
        self.num_trials = 0
        self.last_ms = 0
        self.ranking = Ranking()
        self._pruning = pruning
        self.space: dict[str, str] = {}
        self._num_in_space = 0
        self.tried = Tried(Points.of(spec))
        self._directions = spec.objective.directions
        self._num_retries = 0
        self._retried: set[int] = set()
        self.failed: set[int] = set()
        self._reserved_us = 0  # in whole microseconds, so that the sum depends on no order

    @property
    def pruning(self) -> Pruning:
        assert self._pruning is not None, "this ledger was opened for reading"
        return self._pruning

    @property
    def num_started(self) -> int:
        """Trials that were started, without retries of failed ones."""
        return self.counts.total() - self._num_retries

    @property
    def waiting_retries(self) -> int:
        return sum(self.waiting.values())

    @property
    def reserved_s(self) -> float:
        """Seconds that slots were held for, up to each one's last recorded epoch."""
        return self._reserved_us / 1e6

    def update(self, trial: StoredTrial) -> None:
        """Take in a trial that is new or has changed. One that has ended never changes again."""
        number, attrs = trial.number, trial.user_attrs
        self.num_trials = max(self.num_trials, number + 1)
        retry_of = schema.RETRY_OF.get(attrs)
        if retry_of is not None:
            self._retried.add(retry_of)
            self.failed.discard(retry_of)
        if trial.state == WAITING:
            self.waiting[number] = retry_of is not None
            return

        self.waiting.pop(number, None)
        if number not in self.running:
            self._start(trial, is_retry=retry_of is not None)
        self._add_epochs(number, attrs)
        if trial.is_finished:
            self._end(trial)

    def _start(self, trial: StoredTrial, *, is_retry: bool) -> None:
        self.running[trial.number] = 0
        self.counts["running"] += 1
        self._num_retries += is_retry
        self.tried.add(trial.params)

    def _add_epochs(self, number: int, attrs: dict[str, Any]) -> None:
        epoch = self.running[number] + 1
        while (found := attrs.get(schema.EPOCH.at(epoch))) is not None:
            self._reserved_us += round(1e6 * found["metrics"].get(RESERVED, 0.0))
            self.last_ms = max(self.last_ms, found["time_ms"])
            if self._pruning is not None:
                self._pruning.add_epoch(number, found["metrics"], found["misses"])
            self.running[number] = epoch
            epoch += 1

    def _end(self, trial: StoredTrial) -> None:
        number, state = trial.number, STATES[trial.state]
        del self.running[number]
        self.counts["running"] -= 1
        self.counts[state] += 1
        if self._pruning is not None:
            self._pruning.end(number, complete=state == "complete")
        if state != "failed":
            self._narrow(trial.distributions)
        if state == "complete":
            assert trial.values is not None, f"trial {number} is complete without a value"
            costs = costs_of(trial.values, self._directions)
            self.ranking.add(Place(violation_of(trial), costs, number))
        elif state == "failed" and number not in self._retried:
            self.failed.add(number)

    def _narrow(self, distributions: Mapping[str, str]) -> None:
        """Keep what this trial has in common with all earlier ones."""
        if self._num_in_space == 0:
            self.space.update(distributions)
        self._num_in_space += 1
        for name in [name for name, kind in self.space.items() if distributions.get(name) != kind]:
            del self.space[name]


def violation_of(trial: StoredTrial) -> float:
    """How far a trial misses its constraints, summed; 0 is feasible."""
    return sum(
        max(0.0, float(value))
        for key, value in trial.system_attrs.items()
        if key.startswith(CONSTRAINT_PREFIX)
    )
