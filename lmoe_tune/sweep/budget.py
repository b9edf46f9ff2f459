"""What a sweep may use over all its runs, what it has used, and what extends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Spec

BudgetName = Literal["trials", "time", "gpu_hours", "max_failed", "points"]


@dataclass(frozen=True)
class Budget:
    """Limits; None is unlimited."""

    trials: int | None
    time_s: float | None
    gpu_hours: float | None
    max_failed: int | None

    @classmethod
    def of(cls, spec: Spec) -> Budget:
        """A spec's budget."""
        budget = spec.budget
        return cls(budget.trials, budget.time, budget.gpu_hours, budget.max_failed)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Usage:
    """What a sweep has used so far."""

    trials: int
    """Started ones; those that try a failed one again are left out."""
    failed: int
    """Trials that failed and were not tried again, or failed again."""
    time_s: float
    gpu_hours: float
    points: int
    """Different points of a finite space that were tried."""
    waiting: int
    """Trials that wait with given parameters, retries included."""
    waiting_retries: int


@dataclass(frozen=True)
class UsedUp:
    """The budget for which no further trial may start."""

    budget: BudgetName
    used: float
    limit: float

    def __str__(self) -> str:
        said = {
            "trials": f"all {self.limit:g} trials have been started",
            "time": f"the time is used up ({self.limit:g} s)",
            "gpu_hours": f"the GPU-hours are used up ({self.limit:g})",
            "max_failed": f"{self.used:g} trials failed, and budget.max_failed is {self.limit:g}",
            "points": f"all {self.limit:g} points of the space have been tried",
        }
        return said[self.budget]

    @property
    def extended_by(self) -> dict[str, Any] | None:
        """What `advice.resume` takes to go on; None where no budget helps: the space itself is used up."""
        more: dict[BudgetName, dict[str, Any]] = {
            "trials": {"trials": "+8"},
            "time": {"time": f"+{_round_time(self.limit)}"},
            "gpu_hours": {"gpu_hours": f"+{self.limit or 1:g}"},
            "max_failed": {"retry_failed": True},
        }
        return more.get(self.budget)


def used_up(budget: Budget, usage: Usage, num_points: int | None) -> UsedUp | None:
    """Why no further trial may start, or None.

    Failed trials that wait to be tried again always run.

    Args:
        num_points: of a finite space.
    """
    if usage.waiting_retries:
        return None
    if budget.max_failed is not None and usage.failed > budget.max_failed:
        return UsedUp("max_failed", usage.failed, budget.max_failed)
    if budget.gpu_hours is not None and usage.gpu_hours >= budget.gpu_hours:
        return UsedUp("gpu_hours", usage.gpu_hours, budget.gpu_hours)
    if budget.time_s is not None and usage.time_s >= budget.time_s:
        return UsedUp("time", usage.time_s, budget.time_s)
    if budget.trials is not None and usage.trials >= budget.trials:
        return UsedUp("trials", usage.trials, budget.trials)
    if num_points is not None and usage.points >= num_points and not usage.waiting:
        return UsedUp("points", usage.points, num_points)
    return None


@dataclass(frozen=True)
class BudgetChange:
    """What a command line says about the budget; None leaves it as it is.

    `more_…` adds to what the sweep may use, or to what it has used where that is more.
    """

    trials: int | None = None
    """In all, runs before included."""
    more_trials: int = 0
    time_s: float | None = None
    more_time_s: float = 0.0
    gpu_hours: float | None = None
    more_gpu_hours: float = 0.0
    max_failed: int | None = None
    more_failed: int = 0

    def applied(self, budget: Budget, usage: Usage | None = None) -> Budget:
        """The budget after the change, for a sweep that has used so much."""
        used = usage or Usage(0, 0, 0.0, 0.0, 0, 0, 0)
        trials = budget.trials if self.trials is None else max(self.trials, used.trials)
        if self.more_trials:
            trials = (used.trials if trials is None else trials) + self.more_trials

        time_s = budget.time_s if self.time_s is None else self.time_s
        if self.more_time_s:
            time_s = max(time_s or 0.0, used.time_s) + self.more_time_s

        gpu_hours = budget.gpu_hours if self.gpu_hours is None else self.gpu_hours
        if self.more_gpu_hours:
            gpu_hours = max(gpu_hours or 0.0, used.gpu_hours) + self.more_gpu_hours

        max_failed = budget.max_failed if self.max_failed is None else self.max_failed
        if self.more_failed and max_failed is not None:
            max_failed = max(max_failed, used.failed) + self.more_failed
        return Budget(trials, time_s, gpu_hours, max_failed)

    def refuse_useless(
        self, budget: Budget, usage: Usage, num_points: int | None, advice: str
    ) -> None:
        """Raises UsageError where the sweep is complete, and stays so with the budget that this adds.

        Args:
            budget: as it is after the change.
            advice: what would help.
        """
        left = used_up(budget, usage, num_points)
        if left is not None and self != BudgetChange():
            raise UsageError(f"that does not extend the sweep, as {left}; {advice}")


def exceeded(usage: Usage, budget: Budget, complete: int) -> bool:
    """Whether more trials failed than are allowed, or more than were completed."""
    over = budget.max_failed is not None and usage.failed > budget.max_failed
    return over or usage.failed > complete


def budget_of(found: Mapping[str, Any]) -> Budget:
    """A budget as the ledger holds it."""
    return replace(Budget(None, None, None, None), **found)


def _round_time(seconds: float) -> str:
    """About as much again, as one would type it."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{round(seconds / size)}{unit}"
    return f"{max(1, round(seconds))}s"
