from __future__ import annotations

import pytest

from lmoe_tune.cli.pace import Pace, until_a_budget_ends
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.sweep.budget import Budget


def trial(epochs: int, state: str = "running", gap_s: float = 2.0) -> TrialRecord:
    """A trial that has reported so many epochs, each so long after the one before."""
    reported = tuple(
        EpochRecord(epoch, {"epoch_s": 1.5}, time_ms=round(1000 * gap_s * epoch))
        for epoch in range(1, epochs + 1)
    )
    return TrialRecord(0, state, {}, reported, started_ms=0)  # type: ignore[arg-type]


def test_nothing_is_foretold_before_something_was_measured() -> None:
    assert Pace(10).left_s(5, [0, 0]) is None


def test_a_first_epoch_counts_as_it_says_and_later_ones_with_all_between_them() -> None:
    pace = Pace(10)
    pace.add_epoch(trial(1))
    assert pace.epoch_s == 1.5
    for epochs in (2, 3, 4):
        pace.add_epoch(trial(epochs))
    assert pace.epoch_s == 2.0


def test_what_was_pruned_shortens_what_is_left() -> None:
    pace = Pace(10)
    pace.add_epoch(trial(2))
    whole = pace.left_s(4, [0, 0])
    assert whole == pytest.approx((2 * 10 + 4 * 10) / 2 * 2.0)

    for epochs, state in ((10, "complete"), (2, "pruned"), (2, "pruned"), (2, "pruned")):
        pace.add_end(trial(epochs, state))
    assert pace.epochs_per_trial == 4
    assert pace.left_s(4, [0, 0]) == pytest.approx((2 * 4 + 4 * 4) / 2 * 2.0)


def test_failed_trials_tell_nothing() -> None:
    pace = Pace(10)
    pace.add_end(trial(1, "failed"))
    assert pace.epochs_per_trial == 10


def test_the_last_trial_takes_as_long_as_it_takes_however_many_slots_are_free() -> None:
    pace = Pace(10)
    pace.add_epoch(trial(2))
    pace.left_s(0, [1, 1, 1, 1])
    assert pace.left_s(0, [1]) == pytest.approx(9 * 2.0)


def test_one_that_came_far_goes_on_for_about_half_of_what_it_lacks() -> None:
    pace = Pace(10)
    pace.add_epoch(trial(2))
    pace.add_end(trial(2, "pruned"))
    assert pace.left_s(0, [6]) == pytest.approx(2 * 2.0)


def test_budgets_of_time_and_gpu_hours() -> None:
    used = {"wall_s": 600.0, "gpu_hours": 1.0}
    both = Budget(trials=None, time_s=3600, gpu_hours=3, max_failed=None)
    assert until_a_budget_ends(both, **used, gpus=2) == [3000, 3600]
    assert until_a_budget_ends(both, **used, gpus=0) == [3000]
