from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.sweep.budget import (
    Amount,
    Budget,
    BudgetChange,
    Usage,
    UsedUp,
    change_of,
    exceeded,
    how_to_extend,
    refuse_useless,
    used_up,
)

HOME = Path("lmoe_runs")
LIMITS = Budget(trials=10, time_s=7200, gpu_hours=2, max_failed=1)


def usage(**changed: Any) -> Usage:
    values = {
        "trials": 4, "failed": 0, "time_s": 60.0, "gpu_hours": 0.1, "points": 0, "waiting": 0,
        "waiting_retries": 0,
    }  # fmt: skip
    return Usage(**(values | changed))


USED_UP = [
    ({"trials": 10}, "trials"),
    ({"time_s": 7200.0}, "time"),
    ({"gpu_hours": 2.0}, "gpu_hours"),
    ({"failed": 2}, "max_failed"),
    ({"points": 6}, "points"),
]


@pytest.mark.parametrize(("used", "name"), USED_UP)
def test_the_budget_that_is_used_up_is_named_and_waiting_retries_run_all_the_same(
    used: dict[str, Any], name: str
) -> None:
    assert used_up(LIMITS, usage(), 6) is None
    found = used_up(LIMITS, usage(**used), 6)
    assert found is not None and found.budget == name
    assert used_up(LIMITS, usage(**used, waiting=1, waiting_retries=1), 6) is None


def test_points_that_wait_are_run_although_the_space_is_used_up() -> None:
    assert used_up(LIMITS, usage(points=6, waiting=1), 6) is None


@pytest.mark.parametrize(("used", "name"), USED_UP)
def test_what_is_advised_does_extend_the_sweep(used: dict[str, Any], name: str) -> None:
    now = usage(**used)
    found = used_up(LIMITS, now, 6)
    assert found is not None
    if name == "points":
        assert found.extended_by is None
        assert "larger space" in how_to_extend(found, "cars", HOME)
        return
    assert "lmoe-tune resume cars --" in how_to_extend(found, "cars", HOME)
    more = dict(found.extended_by or {})
    if more.pop("retry_failed", False):
        more = {"max_failed": f"+{found.used:g}"}
    change = change_of(**more)
    assert used_up(change.applied(LIMITS, now), now, None) is None
    refuse_useless(change, LIMITS, now, None, "cars", HOME)


@pytest.mark.parametrize("several", list(combinations(USED_UP[:-1], 2)))
def test_what_is_advised_extends_a_sweep_that_has_used_up_two_budgets(several: Any) -> None:
    """Also where it is advised because what was typed extended only one of them."""
    now = usage(**{name: value for used, _ in several for name, value in used.items()})
    found = used_up(LIMITS, now, None)
    assert found is not None and {found.budget, found.also[0].budget} == {n for _, n in several}
    advised = [how_to_extend(found, "cars", HOME)]
    for typed in ({"trials": "+3"}, {"time": "+1h"}, {"gpu_hours": "+1"}, {"max_failed": "+1"}):
        with pytest.raises(UsageError) as refused:
            refuse_useless(change_of(**typed), LIMITS, now, None, "cars", HOME)
        advised.append(str(refused.value))
    for sentence in advised:
        words = sentence.rpartition("lmoe-tune resume cars ")[2].split()[:-2]  # without --home
        change = change_of(**{
            option.removeprefix("--").replace("-", "_"): value
            for option, value in zip(words[::2], words[1::2], strict=True)
        })  # fmt: skip
        refuse_useless(change, LIMITS, now, None, "cars", HOME)


def test_a_limit_below_what_was_used_is_advised_with_what_was_used_up_before() -> None:
    done = Budget(10, None, None, None)
    with pytest.raises(UsageError, match=r"the time is used up \(2 s\) and all 10 trials.*"):
        refuse_useless(change_of(time="2"), done, usage(trials=10), None, "cars", HOME)


def test_a_sweep_may_be_cut_to_the_trials_that_have_been_started() -> None:
    open_trials = usage(trials=6, running=2)
    for cut in ("6", "3"):
        refuse_useless(change_of(trials=cut), LIMITS, open_trials, None, "cars", HOME)
    with pytest.raises(UsageError, match="all 10 trials have been started"):
        refuse_useless(change_of(trials="10"), LIMITS, usage(trials=10), None, "cars", HOME)
    late = usage(trials=6, running=2, time_s=7300.0)
    with pytest.raises(UsageError, match="the time is used up"):
        refuse_useless(change_of(trials="+3"), LIMITS, late, None, "cars", HOME)


def test_what_cannot_help_is_refused_with_what_would() -> None:
    failed = usage(failed=2, trials=10)
    with pytest.raises(UsageError, match=r"2 trials failed, and budget.max_failed is 1; once the "
                       r"cause is fixed: lmoe-tune resume cars --retry-failed"):  # fmt: skip
        refuse_useless(change_of(trials="+3"), LIMITS, failed, None, "cars", HOME)
    late = usage(time_s=7300.0)
    with pytest.raises(UsageError, match=r"--time \+2h"):
        refuse_useless(change_of(trials="+3"), LIMITS, late, None, "cars", HOME)
    refuse_useless(change_of(trials="+3", time="+1h"), LIMITS, late, None, "cars", HOME)


def test_a_sweep_that_is_not_complete_takes_any_change() -> None:
    refuse_useless(change_of(time="3h"), LIMITS, usage(), None, "cars", HOME)


@pytest.mark.parametrize(
    ("typed", "change"),
    [
        ({"trials": "+8"}, BudgetChange(trials=Amount(more=8))),
        ({"trials": 24}, BudgetChange(trials=Amount(24))),
        ({"time": "+2h"}, BudgetChange(time_s=Amount(more=7200.0))),
        ({"time": "90"}, BudgetChange(time_s=Amount(90.0))),
        ({"gpu_hours": "+0.5"}, BudgetChange(gpu_hours=Amount(more=0.5))),
        ({"gpu_hours": 3}, BudgetChange(gpu_hours=Amount(3.0))),
        ({"max_failed": "0"}, BudgetChange(max_failed=Amount(0))),
        ({"max_failed": "+2"}, BudgetChange(max_failed=Amount(more=2))),
    ],
)
def test_amounts_are_typed_in_all_or_with_a_plus(
    typed: dict[str, Any], change: BudgetChange
) -> None:
    assert change_of(**typed) == change


@pytest.mark.parametrize(
    "typed",
    [{"trials": "0"}, {"trials": "-3"}, {"trials": "1.5"}, {"gpu_hours": "nan"}, {"time": "+soon"},
     {"max_failed": "+0"}],
)  # fmt: skip
def test_what_is_no_amount_is_refused(typed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="but must be"):
        change_of(**typed)


def test_more_is_added_to_what_was_used_where_that_is_more_than_was_allowed() -> None:
    over = usage(time_s=9000.0, gpu_hours=5.0, failed=4, trials=10)
    change = change_of(time="+1h", gpu_hours="+1", max_failed="+1", trials="+1")
    assert change.applied(LIMITS, over) == Budget(11, 12600.0, 6.0, 5)


@pytest.mark.parametrize(
    ("failed", "complete", "expected"), [(0, 0, False), (1, 3, False), (2, 9, True), (1, 0, True)]
)
def test_too_many_failed_is_more_than_allowed_or_than_were_completed(
    failed: int, complete: int, expected: bool
) -> None:
    assert exceeded(usage(failed=failed), LIMITS, complete) is expected


def test_a_used_up_budget_reads_as_a_sentence() -> None:
    assert str(UsedUp("trials", 3, 3)) == "all 3 trials have been started"
