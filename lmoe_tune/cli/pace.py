"""The time a sweep will still take, from its measured epochs and from what was pruned so far."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection

from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.budget import Budget

NUM_GAPS = 64  # the newest ones: what a node that joined has changed shows soon


class Pace:
    """What is known of the trials' speed.

    Attributes:
        num_slots: the most trials that were seen at a time.
    """

    def __init__(self, epochs: int) -> None:
        """`epochs` are those of a trial that is not pruned."""
        self._epochs = epochs
        self._gaps_s: deque[float] = deque(maxlen=NUM_GAPS)
        self._num_ended = self._num_epochs = 0
        self.num_slots = 1

    def add_epoch(self, trial: TrialRecord) -> None:
        """Take in the last epoch of a trial: the time since the one before, with all between them."""
        last = trial.epochs[-1]
        if len(trial.epochs) > 1:
            self._gaps_s.append((last.time_ms - trial.epochs[-2].time_ms) / 1000)
        elif "epoch_s" in last.metrics:
            self._gaps_s.append(last.metrics["epoch_s"])

    def add_end(self, trial: TrialRecord) -> None:
        """Take in how far a trial came; a failed one says nothing."""
        if trial.state != "failed":
            self._num_ended += 1
            self._num_epochs += len(trial.epochs)

    @property
    def epoch_s(self) -> float | None:
        """Seconds of an epoch of a trial; None before the first one."""
        if not self._gaps_s:
            return None

        return statistics.median(self._gaps_s)

    @property
    def epochs_per_trial(self) -> float:
        """Of those that ended: less than a trial has where some are pruned."""
        if self._num_ended == 0:
            return float(self._epochs)

        return self._num_epochs / self._num_ended

    def left_s(self, num_waiting: int, running: Collection[int]) -> float | None:
        """Seconds until all trials have ended; None if nothing was measured yet.

        Args:
            num_waiting: how many have not started.
            running: of those that run, how many epochs are done.
        """
        if self.epoch_s is None:
            return None

        self.num_slots = max(self.num_slots, len(running))
        still = [self._left_of(done) for done in running]
        to_do = sum(still) + num_waiting * self.epochs_per_trial
        at_least = max([*still, self.epochs_per_trial if num_waiting else 0.0], default=0.0)
        return max(to_do / self.num_slots, at_least) * self.epoch_s

    def _left_of(self, done: int) -> float:
        """Epochs that a running trial probably still has before it; one that has come far usually
        runs to its end.
        """
        if done < self.epochs_per_trial:
            return self.epochs_per_trial - done

        return (self._epochs - done) / 2


def until_a_budget_ends(
    budget: Budget, *, wall_s: float, gpu_hours: float, gpus: float
) -> list[float]:
    """Seconds until the time or the GPU-hours are used up, where they are bounded.

    Args:
        wall_s: used so far.
        gpu_hours: used so far.
        gpus: how many are in use.
    """
    found = []
    if budget.time_s is not None:
        found.append(max(0.0, budget.time_s - wall_s))
    if budget.gpu_hours is not None and gpus > 0:
        found.append(max(0.0, budget.gpu_hours - gpu_hours) / gpus * 3600)
    return found
