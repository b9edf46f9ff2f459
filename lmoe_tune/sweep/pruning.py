"""Which trials are stopped early: feasible ones are judged by their objective, infeasible ones come
below them all.

A constraint is judged by where its metric is heading, as accuracy often recovers late: how far an
early epoch misses it is reduced by the share that the sweep's own finished trials still made up
from that epoch on, those that had missed it by about as much. Without such a trial there is nothing
to go by, and the constraint counts as met.

All of this is a pure function of the recorded epochs: nothing is kept in the ledger, and each
decision is made with what is known at that moment. Optuna's own pruners do not know constraints,
and stick to earlier judgements.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lmoe_tune.data.splits import derived_seed
from lmoe_tune.spec import Spec

REDUCTION_FACTOR = 3
MIN_COMPLETE = 4  # before the median says something
QUANTILE = (
    0.75  # of the shares made up: a trial continues if a quarter of similar ones met the constraint
)
NO_BIN = -128

Misses = Mapping[str, float]
"""How far each constraint is missed; what is met is 0 or less."""


class Gains:
    """What share of a missed constraint finished trials still made up after an epoch.

    They are sorted into bins by how far they had missed it, each twice as wide as the one below.
    """

    def __init__(self) -> None:
        self._near: dict[int, array[float]] = defaultdict(lambda: array("d"))
        self.expected = np.full(256, np.inf)
        """By bin, the share that a trial may still make up; everything, where none is known."""
        self.expected[NO_BIN] = 0.0

    def add(self, missed: float, gained: float) -> None:
        """Take in a finished trial that had missed the constraint by `missed`."""
        if missed <= 0:
            return
        place = bin_of(missed)
        for near in (place - 1, place, place + 1):
            gains = self._near[near]
            insort(gains, gained / missed)
            self.expected[near] = gains[math.ceil(QUANTILE * (len(gains) - 1))]


def bin_of(missed: float) -> int:
    """The bin of a missed constraint: the exponent of two below it."""
    if missed <= 0:
        return NO_BIN
    return min(100, max(-100, math.frexp(missed)[1]))


class Table:
    """All trials that reached an epoch, as they were there: costs, and how far each constraint was
    missed.
    """

    def __init__(self, num_constraints: int) -> None:
        self._costs = array("d")
        self._missed = [array("d") for _ in range(num_constraints)]
        self._bins = [array("b") for _ in range(num_constraints)]

    def __len__(self) -> int:
        return len(self._costs)

    def add(self, cost: float, missed: Sequence[float]) -> None:
        """Take in a trial."""
        self._costs.append(cost)
        for place, value in enumerate(missed):
            self._missed[place].append(value)
            self._bins[place].append(bin_of(value))

    def num_better(self, cost: float, violation: float, gains: Sequence[Gains]) -> int:
        """How many of them are better than a trial with this cost and violation, by what is known
        now.
        """
        costs = np.frombuffer(self._costs)
        violations = np.zeros(len(self))
        for missed, bins, gained in zip(self._missed, self._bins, gains, strict=True):
            expected = gained.expected[np.frombuffer(bins, np.int8)]
            violations += np.maximum(0.0, np.frombuffer(missed) * (1 - expected))
        better = (violations < violation) | ((violations == violation) & (costs < cost))
        return int(np.count_nonzero(better))


class Pruning:
    """What is kept of all trials to decide which continue; with several objectives, all do."""

    def __init__(self, spec: Spec) -> None:
        objective = spec.objective
        self._kind = "none" if len(objective.metrics) > 1 else spec.search.pruner
        self._metric = objective.metric
        self._sign = -1.0 if objective.direction == "maximize" else 1.0
        self._constraints = names_of_constraints(spec)
        self._epochs = spec.train.epochs
        self._min_epochs = spec.first_rung
        self._seed = spec.search.seed
        self._brackets = _brackets(self._min_epochs, self._epochs)
        self._tables: dict[tuple[int, int], Table] = {}
        self._gains: dict[int, list[Gains]] = {}
        self._running: dict[int, list[tuple[float, list[float]]]] = defaultdict(list)
        self._num_complete = 0

    def add_epoch(self, number: int, metrics: Mapping[str, float], misses: Misses) -> None:
        """Take in the next epoch of a trial."""
        cost = self._sign * float(metrics[self._metric])
        missed = [misses.get(name, 0.0) for name in self._constraints]
        epochs = self._running[number]
        epochs.append((cost, missed))
        if self._kind in ("asha", "hyperband") and len(epochs) in self._rungs(number):
            self._table(number, len(epochs)).add(cost, missed)

    def end(self, number: int, *, complete: bool) -> None:
        """A trial has ended; what it gained is known where it is complete."""
        epochs = self._running.pop(number, [])
        if not complete or not epochs:
            return
        self._num_complete += 1
        _, last = epochs[-1]
        for epoch, (cost, missed) in enumerate(epochs, start=1):
            if self._kind == "median":
                self._table(number, epoch).add(cost, missed)
            for gains, before, after in zip(self._gains_at(epoch), missed, last, strict=True):
                gains.add(before, before - after)

    def heading(self, epoch: int, misses: Misses) -> dict[str, float]:
        """How far each constraint will be missed in the end, by what is known; as it is where
        nothing is.
        """
        if epoch >= self._epochs:
            return dict(misses)
        found = {}
        for name, gains in zip(self._constraints, self._gains_at(epoch), strict=True):
            missed = misses.get(name, 0.0)
            expected = float(gains.expected[bin_of(missed)])
            is_known = missed > 0 and math.isfinite(expected)
            found[name] = max(0.0, missed * (1 - expected)) if is_known else missed
        return found

    def decides_against(self, number: int) -> bool:
        """Whether a trial is to be stopped at the epoch that it was given last."""
        epochs = self._running[number]
        epoch = len(epochs)
        if self._kind == "none" or epoch >= self._epochs:
            return False
        if self._kind == "median":
            return self._is_below_median(number)
        if epoch not in self._rungs(number):
            return False
        table = self._table(number, epoch)
        promoted = max(1, len(table) // REDUCTION_FACTOR)
        cost, missed = epochs[-1]
        violation = self.violation(epoch, missed)
        return table.num_better(cost, violation, self._gains_at(epoch)) >= promoted

    def _is_below_median(self, number: int) -> bool:
        """Whether the best that it has shown is worse than the median of the complete trials at
        this epoch.
        """
        epochs = self._running[number]
        epoch = len(epochs)
        if self._num_complete < MIN_COMPLETE or epoch < self._min_epochs:
            return False
        violation, cost = min(
            (self.violation(at, missed), cost) for at, (cost, missed) in enumerate(epochs, start=1)
        )
        table = self._table(number, epoch)
        return 2 * table.num_better(cost, violation, self._gains_at(epoch)) > len(table)

    def violation(self, epoch: int, missed: list[float]) -> float:
        """What a trial at an epoch is judged by besides its objective: 0 where it may still be
        feasible.
        """
        pairs = zip(missed, self._gains_at(epoch), strict=True)
        left = [value * (1 - float(gains.expected[bin_of(value)])) for value, gains in pairs]
        return sum(max(0.0, value) for value in left)

    def _gains_at(self, epoch: int) -> list[Gains]:
        if epoch not in self._gains:
            self._gains[epoch] = [Gains() for _ in self._constraints]
        return self._gains[epoch]

    def _table(self, number: int, epoch: int) -> Table:
        key = self._bracket(number), epoch
        if key not in self._tables:
            self._tables[key] = Table(len(self._constraints))
        return self._tables[key]

    def _rungs(self, number: int) -> list[int]:
        """Epochs at which a trial competes."""
        found, epoch = [], self._min_epochs * REDUCTION_FACTOR ** self._bracket(number)
        while epoch < self._epochs:
            found.append(epoch)
            epoch *= REDUCTION_FACTOR
        return found

    def _bracket(self, number: int) -> int:
        """Hyperband's brackets compete among themselves; the others are one."""
        if self._kind != "hyperband":
            return 0
        place = derived_seed("bracket", self._seed, number) % sum(self._brackets)
        for bracket, size in enumerate(self._brackets):
            place -= size
            if place < 0:
                return bracket
        raise AssertionError("a place beyond all brackets")


def _brackets(min_epochs: int, epochs: int) -> list[int]:
    """How many trials of a round each bracket of Hyperband gets, the one that prunes first to begin
    with.
    """
    count = 1
    while min_epochs * REDUCTION_FACTOR**count <= epochs:
        count += 1
    return [
        math.ceil(count * REDUCTION_FACTOR ** (count - 1 - bracket) / (count - bracket))
        for bracket in range(count)
    ]


def names_of_constraints(spec: Spec) -> list[str]:
    """`METRIC:min` or `METRIC:max`, one for each bound."""
    return [
        f"{metric}:{side}"
        for metric, bound in spec.objective.constraints.items()
        for side in ("min", "max")
        if getattr(bound, side) is not None
    ]


def misses_of(spec: Spec, metrics: Misses, baseline: Mapping[str, float]) -> dict[str, float]:
    """How far an epoch misses each constraint."""
    found = {}
    for metric, bound in spec.objective.constraints.items():
        reference = baseline.get(metric, math.nan)
        if bound.min is not None:
            found[f"{metric}:min"] = bound.min.value(reference) - metrics[metric]
        if bound.max is not None:
            found[f"{metric}:max"] = metrics[metric] - bound.max.value(reference)
    return found
