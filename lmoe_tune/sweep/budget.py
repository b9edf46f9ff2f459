"""What a sweep may use over all its runs, what it has used, and what extends it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from lmoe_tune import advice
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Spec, duration_s
from lmoe_tune.spec.quantity import is_number
from lmoe_tune.wording import shown

Number = TypeVar("Number", int, float)
BudgetName = Literal["trials", "time", "gpu_hours", "max_failed", "points"]


@dataclass(frozen=True)
class Budget:
    """Limits; None is unlimited."""

    trials: int | None = None
    time_s: float | None = None
    gpu_hours: float | None = None
    max_failed: int | None = None

    @classmethod
    def of(cls, spec: Spec) -> Budget:
        """A spec's budget."""
        budget = spec.budget
        return cls(budget.trials, budget.time, budget.gpu_hours, budget.max_failed)

    def allows_more_than(self, other: Budget) -> bool:
        """Whether a limit is above the other's."""
        limits = zip(astuple(self), astuple(other), strict=True)
        return any(limit > before for limit, before in limits if before is not None)


@dataclass(frozen=True)
class Usage:
    """What a sweep has used so far."""

    trials: int = 0
    """Trials that were started, without retries of failed ones."""
    running: int = 0
    """Trials that were started and have not ended."""
    failed: int = 0
    """Trials that failed and were not tried again, or failed again."""
    time_s: float = 0.0
    gpu_hours: float = 0.0
    points: int = 0
    """Different points of a finite space that were tried."""
    waiting: int = 0
    """Trials that wait with given parameters, retries included."""
    waiting_retries: int = 0


@dataclass(frozen=True)
class UsedUp:
    """The budget for which no further trial may start, and others that are used up as well."""

    budget: BudgetName
    used: float
    limit: float
    also: tuple[UsedUp, ...] = ()

    def __str__(self) -> str:
        return " and ".join(one._in_words() for one in (self, *self.also))

    def _in_words(self) -> str:
        said = {
            "trials": f"all {self.limit:g} trials have been started",
            "time": f"the time is used up ({self.limit:g} s)",
            "gpu_hours": f"the GPU-hours are used up ({self.limit:g})",
            "max_failed": f"{self.used:g} trials failed, and budget.max_failed is {self.limit:g}",
            "points": f"all {self.limit:g} points of the space have been tried",
        }
        return said[self.budget]

    @property
    def ends_trials(self) -> bool:
        """Whether running trials end as well, at their last epoch."""
        return any(one.budget in ("time", "gpu_hours") for one in (self, *self.also))

    @property
    def extended_by(self) -> dict[str, Any] | None:
        """What `advice.resume` needs to continue; None if no budget helps because the space itself
        is used up.
        """
        if self.budget == "max_failed":
            return {"retry_failed": True}  # retries run whatever else is used up
        return _more((self, *self.also))

    @property
    def without_retries(self) -> dict[str, Any] | None:
        """The same for a sweep that is to go on beside its failed trials."""
        more = _more(self.also)
        return None if more is None else {"max_failed": f"+{self.used:g}", **more}


def used_up(budget: Budget, usage: Usage, num_points: int | None) -> UsedUp | None:
    """Why no further trial may start, or None.

    Failed trials that wait to be tried again always run.

    Args:
        num_points: of a finite space.
    """
    if usage.waiting_retries:
        return None
    rows: list[tuple[BudgetName, float, float | None]] = [
        ("max_failed", usage.failed, budget.max_failed),
        ("gpu_hours", usage.gpu_hours, budget.gpu_hours),
        ("time", usage.time_s, budget.time_s),
        ("trials", usage.trials, budget.trials),
        ("points", usage.points, None if usage.waiting else num_points),
    ]
    found = [
        UsedUp(name, used, limit)
        for name, used, limit in rows
        if limit is not None and (used > limit or (used == limit and name != "max_failed"))
    ]
    return _together(found)


def _together(found: Sequence[UsedUp]) -> UsedUp | None:
    return replace(found[0], also=tuple(found[1:])) if found else None


def _more(used: Sequence[UsedUp]) -> dict[str, Any] | None:
    """What `advice.resume` needs to extend all of these; None if nothing helps."""
    found: dict[str, Any] = {}
    for one in used:
        more: dict[BudgetName, dict[str, Any]] = {
            "trials": {"trials": "+8"},
            "time": {"time": f"+{_round_time(one.limit)}"},
            "gpu_hours": {"gpu_hours": f"+{one.limit or 1:g}"},
            "max_failed": {"max_failed": f"+{one.used:g}"},
        }
        if one.budget not in more:
            return None
        found |= more[one.budget]
    return found


@dataclass(frozen=True)
class Amount(Generic[Number]):
    """What the user gives for one budget."""

    total: Number | None = None
    """In all, including earlier runs."""
    more: Number | None = None
    """On top of what the sweep may use, or of what it has used where that is more."""

    def applied(self, limit: Number | None, used: Number) -> Number | None:
        """The limit after it, of a sweep that has used so much."""
        if self.total is not None:
            limit = self.total
        if self.more is not None:
            limit = max(limit or 0, used) + self.more
        return limit


@dataclass(frozen=True)
class BudgetChange:
    """What the command line says about the budget."""

    trials: Amount[int] = Amount()
    time_s: Amount[float] = Amount()
    gpu_hours: Amount[float] = Amount()
    max_failed: Amount[int] = Amount()

    def applied(self, budget: Budget, usage: Usage | None = None) -> Budget:
        """The budget after the change, for a sweep that has used so much."""
        used = usage or Usage()
        trials = self.trials.applied(budget.trials, used.trials)
        if trials is not None and self.trials.total is not None:
            trials = max(trials, used.trials)
        max_failed = self.max_failed.applied(budget.max_failed, used.failed)
        if budget.max_failed is None and self.max_failed.total is None:
            max_failed = None  # more than unlimited
        return Budget(
            trials=trials,
            time_s=self.time_s.applied(budget.time_s, used.time_s),
            gpu_hours=self.gpu_hours.applied(budget.gpu_hours, used.gpu_hours),
            max_failed=max_failed,
        )


def refuse_useless(
    change: BudgetChange,
    budget: Budget,
    usage: Usage,
    num_points: int | None,
    name: str,
    home: Path,
) -> None:
    """Raises UsageError if no further trial may start, and the added budget does not change that."""
    after = change.applied(budget, usage)
    left = used_up(after, usage, num_points)
    if left is None or change == BudgetChange():
        return
    if usage.running and not after.allows_more_than(budget):
        return  # what was started is to be ended, and no more

    before = used_up(budget, usage, num_points)  # which the change would have extended
    lacking = {one.budget: one for used in (left, before) if used for one in (used, *used.also)}
    everything = _together([replace(one, also=()) for one in lacking.values()])
    assert everything is not None, "something is left"
    raise UsageError(
        f"that does not extend '{name}': {left}; {how_to_extend(everything, name, home)}"
    )


def why_complete(used: UsedUp, name: str, home: Path) -> str:
    """Why nothing of a sweep is left to do, and how it can be continued."""
    return f"the sweep '{name}' is complete: {used}; {how_to_extend(used, name, home)}"


def how_to_extend(used: UsedUp, name: str, home: Path) -> str:
    """How a complete sweep can be continued."""
    more = used.extended_by
    if more is None:
        return "start another sweep with a larger space"
    if used.budget == "max_failed":
        how = f"once the cause is fixed: {advice.resume(name, **more, home=home)}"
        if used.without_retries is None:
            return how
        again = advice.resume(name, **used.without_retries, home=home)
        return f"{how}, or to continue without them: {again}"
    return f"to extend it: {advice.resume(name, **more, home=home)}"


def change_of(
    *,
    trials: str | int | None = None,
    time: str | float | None = None,
    gpu_hours: str | float | None = None,
    max_failed: str | int | None = None,
) -> BudgetChange:
    """What the user types: `+8` is eight more, `24` is 24 in all, over all runs.

    Raises:
        UsageError: a text is not of that kind.
    """
    return BudgetChange(
        trials=_amount("trials", trials, int),
        time_s=_duration(time),
        gpu_hours=_amount("gpu_hours", gpu_hours, float),
        max_failed=_amount("max_failed", max_failed, int),
    )


def _amount(called: str, given: str | float | None, kind: type[Number]) -> Amount[Number]:
    if given is None:
        return Amount()
    number = r"\d{1,10}" if kind is int else r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
    text = str(given).strip()
    found = re.fullmatch(rf"(\+?)({number})", text)
    least = 0 if called == "max_failed" and not text.startswith("+") else 1e-9
    if found is None or not least <= float(found[2]) < math.inf:
        raise UsageError(f"{called} is {shown(text)}, but must be +N (N more) or N (N in all)")
    return _read(found[1], kind(found[2]))


def _duration(given: str | float | None) -> Amount[float]:
    """In seconds."""
    if given is None:
        return Amount()
    text = str(given).strip()
    found = seconds(text.removeprefix("+"), "time", more=", with + for that much more")
    return _read(text, found or 0.0)


def _read(text: str, number: Number) -> Amount[Number]:
    if text.startswith("+"):
        return Amount(more=number)

    return Amount(total=number)


def seconds(value: str | float | None, called: str, *, more: str = "") -> float | None:
    """A duration in seconds: 90, "90s", "30m", "8h", "2d". Raises UsageError that names what was
    given, and says `more`.
    """
    if value is None or (is_number(value) and value >= 0):
        return value
    try:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no duration")
        return duration_s(float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else value)
    except ValueError as error:
        raise UsageError(
            f"{called} is {shown(value)}, but must be a duration such as 90s, 30m, 8h or 2d{more}"
        ) from error


def exceeded(usage: Usage, budget: Budget, complete: int) -> bool:
    """Whether more trials failed than are allowed, or more than were completed."""
    over = budget.max_failed is not None and usage.failed > budget.max_failed
    return over or usage.failed > complete


def _round_time(seconds: float) -> str:
    """About as much again, as a user would type it."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{round(seconds / size)}{unit}"
    return f"{max(1, round(seconds))}s"
