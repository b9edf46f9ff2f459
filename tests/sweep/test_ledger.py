from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from lmoe_tune.cli.lines import end_line
from lmoe_tune.data.splits import derived_seed
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import ledger as module
from lmoe_tune.sweep.budget import UsedUp, exceeded
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import LedgerError, LedgerFile, has_transaction
from lmoe_tune.sweep.rebuild import write_about
from lmoe_tune.sweep.sampling import make_distributions
from lmoe_tune.sweep.schema import SCHEMA

MakeLedger = Callable[..., Ledger]
RunTrial = Callable[..., TrialRecord]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What time it is, in milliseconds; the tests set it."""
    now = [1_700_000_000_000]
    monkeypatch.setattr(module, "now_ms", lambda: now[0])
    return now


def test_setting_the_systems_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, hour_ns = module.now_ms(), 3_600_000_000_000
    now = time.time_ns()
    monkeypatch.setattr(module.time, "time_ns", lambda: now + hour_ns)
    assert 0 <= module.now_ms() - before < 600_000
    assert module.system_ms() - before >= 3_600_000 - 1000


def values(auroc: float, accuracy: float = 0.95, **more: float) -> dict[str, float]:
    return {"val_auroc": auroc, "val_accuracy": accuracy, "epoch_s": 1.0, **more}


def test_a_trial_is_asked_for_recorded_and_told(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger("search.pruner=none")
    suggestion = written.ask()
    assert suggestion.number == 0
    assert set(suggestion.params) == {"mixing_alpha", "consistency_weight", "outlier_ratio"}
    assert written.trial(0).state == "running" and written.trial(0).value is None
    ended = [
        written.record_epoch(0, epoch, values(0.7 + epoch / 100), baseline) for epoch in (1, 2, 3)
    ]
    assert ended == [False, False, True]
    trial = written.trial(0)
    assert trial.state == "complete"
    assert trial.value == 0.73
    assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3]
    assert trial.metrics == values(0.73)
    assert trial.ended_ms is not None and trial.ended_ms >= trial.started_ms


def test_what_is_recorded_is_there_for_the_next_process(
    ledger: MakeLedger, run_trial: RunTrial, folder: SweepFolder
) -> None:
    written = ledger()
    run_trial(written)
    written.ask()
    written.fail(1, "epoch 1: train_loss is nan", "Traceback …")
    again, reader = ledger(), Ledger.reading(folder, written.spec)
    assert again.trials() == written.trials() == reader.trials()
    assert again.sweep_id == written.sweep_id == reader.sweep_id


def test_a_reader_sees_what_is_written_after_it_was_opened(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger()
    reader = Ledger.reading(written.folder, written.spec)
    assert reader.trials() == []
    run_trial(written)
    assert reader.trials() == written.trials()


def test_reading_before_there_is_a_study_says_so(
    spec: Callable[..., Spec], folder: SweepFolder
) -> None:
    folder.ledger.write_bytes(b"")
    with pytest.raises(LedgerError, match="holds no study yet"):
        Ledger.reading(folder, spec())


def test_whether_a_study_was_begun_is_told_by_its_first_transaction(
    ledger: MakeLedger, folder: SweepFolder
) -> None:
    ledger()
    whole = folder.ledger.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) > 2, "the first transaction has several lines"
    for end in (0, 1, *ends[:-1], len(whole) - 1):
        folder.ledger.write_bytes(whole[:end])
        assert not has_transaction(folder.ledger)
        assert LedgerFile(folder.ledger).pull() == []
    for content in (whole, whole + b'{"torn', b"x" + whole):
        folder.ledger.write_bytes(content)
        assert has_transaction(folder.ledger)


@pytest.mark.parametrize("content", [b"", b'{"op_code":0,"wor'])
def test_a_ledger_that_has_lost_its_study_is_not_begun_anew(
    content: bytes, ledger: MakeLedger, run_trial: RunTrial, folder: SweepFolder
) -> None:
    written = ledger()
    run_trial(written)
    write_about(written)
    folder.ledger.write_bytes(content)
    for open_ in (Ledger.reading, Ledger.writing):
        with pytest.raises(LedgerError, match=r"holds no study, but .* doctor --rebuild"):
            open_(folder, written.spec)
    assert folder.is_begun() and content.startswith(folder.ledger.read_bytes())
    folder.about.unlink()
    assert not folder.is_begun(), "what a kill at the very beginning leaves"
    assert not has_transaction(folder.ledger)
    assert Ledger.writing(folder, written.spec).trials() == []


def test_a_ledger_of_another_schema_is_refused(ledger: MakeLedger) -> None:
    ledger().set_attr("schema", 99)
    with pytest.raises(LedgerError, match=f"schema 99, but this version reads {SCHEMA}"):
        ledger()


def test_two_sweeps_of_one_name_have_different_ids(ledger: MakeLedger, folder: SweepFolder) -> None:
    first = ledger().sweep_id
    folder.ledger.unlink()
    assert ledger().sweep_id != first


# ------------------------------------------------------------------ epochs


def test_an_epoch_delivered_again_is_recorded_once(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger("search.pruner=none")
    written.ask()
    written.record_epoch(0, 1, values(0.7), baseline)
    size = written.folder.ledger.stat().st_size
    assert written.record_epoch(0, 1, values(0.7), baseline) is False
    assert written.folder.ledger.stat().st_size == size
    assert written.record_epoch(0, 2, values(0.8), baseline) is False
    assert [epoch.epoch for epoch in written.trial(0).epochs] == [1, 2]


def test_a_repeated_epoch_with_another_value_is_said_and_the_record_stands(
    ledger: MakeLedger, baseline: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    written = ledger()
    written.ask()
    written.record_epoch(0, 1, values(0.7), baseline)
    written.record_epoch(0, 1, values(0.71), baseline)
    assert written.trial(0).value == 0.7
    assert "trial 0 epoch 1: val_auroc repeated as 0.71, recorded as 0.7" in caplog.text


def test_an_epoch_out_of_turn_is_a_broken_invariant(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger()
    written.ask()
    with pytest.raises(AssertionError, match="epoch 2 is out of turn"):
        written.record_epoch(0, 2, values(0.7), baseline)


def test_what_comes_after_the_end_of_a_trial_changes_nothing(
    ledger: MakeLedger, run_trial: RunTrial, baseline: dict[str, float]
) -> None:
    written = ledger("search.pruner=none")
    before = run_trial(written)
    assert written.record_epoch(0, 3, values(0.1), baseline) is True
    written.fail(0, "too late")
    written.count_retry(0)
    assert written.trial(0) == before


def test_values_are_kept_to_the_last_bit(ledger: MakeLedger, baseline: dict[str, float]) -> None:
    written = ledger()
    written.ask()
    measured = values(0.1 + 0.2, train_loss=1e-310, lr=1 / 3)
    written.record_epoch(0, 1, measured, baseline)
    assert ledger().trial(0).metrics == measured


# ------------------------------------------------------------------ ends


def test_pruned_failed_and_complete_are_told_apart(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger("search.pruner=median", "search.min_epochs=1")
    for auroc in (0.9, 0.91, 0.92, 0.93):
        number = written.ask().number
        for epoch in (1, 2, 3):
            written.record_epoch(number, epoch, values(auroc), baseline)
    assert written.record_epoch(written.ask().number, 1, values(0.5), baseline) is True
    written.fail(written.ask().number, "epoch 1: train_loss is nan", "the trace")
    states = [trial.state for trial in written.trials()]
    assert states == ["complete"] * 4 + ["pruned", "failed"]
    pruned, failed = written.trials()[4:]
    assert pruned.value == 0.5 and len(pruned.epochs) == 1
    assert (failed.failure, failed.traceback, failed.value) == (
        "epoch 1: train_loss is nan",
        "the trace",
        None,
    )
    assert len(written.standing.failed) == 1


def test_a_pruned_trial_has_its_constraints_set(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger("search.pruner=median", "search.min_epochs=1")
    for auroc in (0.9, 0.91, 0.92, 0.93):
        number = written.ask().number
        for epoch in (1, 2, 3):
            written.record_epoch(number, epoch, values(auroc), baseline)
    number = written.ask().number
    written.record_epoch(number, 1, values(0.5, accuracy=0.5), baseline)
    assert written.trial(number).state == "pruned"
    assert written.trial(number).violation == pytest.approx(0.95 - 0.02 - 0.5)
    assert written.study.trials[number].constraints == {"val_accuracy:min": pytest.approx(0.43)}


def test_a_minimised_metric_is_ranked_the_other_way(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger(
        "search.pruner=none", "objective={metric: train_loss, direction: minimize, constraints: {}}"
    )
    for loss in (0.5, 0.2, 0.8):
        number = written.ask().number
        for epoch in (1, 2, 3):
            written.record_epoch(number, epoch, values(0.9, train_loss=loss), baseline)
    assert [trial.number for trial in written.ranked()] == [1, 0, 2]


def test_a_trial_that_is_ended_for_the_budget_keeps_its_epochs(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger()
    written.ask()
    written.record_epoch(0, 1, values(0.7, accuracy=0.9), baseline)
    written.end_early(0, "the sweep's time is used up")
    trial = written.trial(0)
    assert trial.state == "pruned" and trial.value == 0.7
    assert trial.ended_by == "the sweep's time is used up"
    assert trial.violation == pytest.approx(0.03)
    assert end_line(trial, written).startswith(
        "trial 0 ended at epoch 1: the sweep's time is used up; val_auroc 0.7"
    )


# ------------------------------------------------------------------ the best


@pytest.mark.parametrize(
    ("outcomes", "best", "feasible"),
    [
        ([(0.8, 0.95), (0.9, 0.94), (0.85, 0.99)], 1, True),
        (
            [(0.8, 0.95), (0.99, 0.90), (0.7, 0.93)],
            0,
            True,
        ),  # the second misses val_accuracy >= 0.93
        (
            [(0.8, 0.80), (0.7, 0.92), (0.9, 0.85)],
            1,
            False,
        ),  # none holds it: the smallest violation
        ([(0.8, 0.95), (0.8, 0.95)], 0, True),  # of equal ones the earlier
    ],
)
def test_the_best_is_feasible_or_else_the_nearest_to_it(
    ledger: MakeLedger,
    baseline: dict[str, float],
    outcomes: list[tuple[float, float]],
    best: int,
    feasible: bool,
) -> None:
    written = ledger("search.pruner=none")
    for auroc, accuracy in outcomes:
        number = written.ask().number
        for epoch in (1, 2, 3):
            written.record_epoch(number, epoch, values(auroc, accuracy), baseline)
    found = written.best()
    assert found is not None
    assert found.number == best
    assert (found.violation == 0) is feasible


def test_only_the_last_epoch_counts(ledger: MakeLedger, baseline: dict[str, float]) -> None:
    written = ledger("search.pruner=none")
    written.ask()
    for epoch, auroc, accuracy in ((1, 0.99, 0.5), (2, 0.98, 0.5), (3, 0.7, 0.95)):
        written.record_epoch(0, epoch, values(auroc, accuracy), baseline)
    assert written.trial(0).value == 0.7
    assert written.trial(0).violation == 0


def test_without_a_complete_trial_there_is_no_best(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger()
    assert written.best() is None
    written.ask()
    written.record_epoch(0, 1, values(0.9), baseline)
    written.fail(written.ask().number, "no")
    assert written.best() is None


def test_a_bound_may_be_a_number_and_an_upper_one(
    ledger: MakeLedger, baseline: dict[str, float]
) -> None:
    written = ledger(
        "search.pruner=none",
        "objective.constraints={val_accuracy: {min: 0.9}, val_fine_auroc: {max: 0.99}}",
    )
    written.ask()
    for epoch in (1, 2, 3):
        written.record_epoch(0, epoch, values(0.9, 0.85, val_fine_auroc=1.0), baseline)
    assert written.trial(0).violation == pytest.approx(0.05 + 0.01)


# ------------------------------------------------------------------ retries


def test_failed_trials_are_retried_as_new_ones_that_name_them(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger("search.pruner=none")
    params = written.ask().params
    written.fail(0, "no")
    run_trial(written)
    assert written.retry_failed() == 1
    assert written.retry_failed() == 0, "it waits already"
    again = written.ask()
    assert (again.number, again.params) == (2, params)
    assert written.trial(2).retry_of == 0
    assert written.retry_failed() == 0, "it runs already"
    written.fail(2, "again")
    assert written.retry_failed() == 1
    assert written.ask().params == params
    assert written.trial(3).retry_of == 2


def test_a_retry_waits_across_a_restart(ledger: MakeLedger) -> None:
    written = ledger()
    params = written.ask().params
    written.fail(0, "no")
    written.retry_failed()
    assert ledger().ask().params == params


def test_a_complete_sweep_runs_the_retries_it_is_asked_for(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger("budget.trials=2", "search.pruner=none")
    run_trial(written)
    written.fail(written.ask().number, "no")
    assert written.is_complete()
    written.retry_failed()
    assert written.exhausted() is None, (
        "the failed trial's place in the budget is free for its retry"
    )
    run_trial(written)
    assert written.is_complete()
    assert [trial.retry_of for trial in written.trials()] == [None, None, 1]


def test_retries_run_although_the_failures_are_used_up_and_what_they_mend_no_longer_counts(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger("budget.trials=3", "budget.max_failed=0", "search.pruner=none")
    written.fail(written.ask().number, "no")
    assert written.exhausted() == UsedUp("max_failed", 1, 0)
    written.retry_failed()
    assert written.exhausted() is None
    run_trial(written)
    assert len(written.standing.failed) == 0
    assert ledger().exhausted() is None, "the planned trials go on, in a later process as well"
    run_trial(written)
    run_trial(written)
    assert written.exhausted() == UsedUp("trials", 3, 3)
    assert not exceeded(written.usage(), written.budget, complete=3)


def test_a_retry_that_fails_counts_once(ledger: MakeLedger) -> None:
    written = ledger()
    written.fail(written.ask().number, "no")
    written.retry_failed()
    written.fail(written.ask().number, "again")
    assert len(written.standing.failed) == 1


def test_a_process_that_died_is_counted(ledger: MakeLedger) -> None:
    written = ledger()
    written.ask()
    written.count_retry(0)
    written.count_retry(0)
    assert ledger().study.trials[0].user_attrs["retries"] == 2


# ------------------------------------------------------------------ budgets


def test_a_number_of_trials_is_a_bound(ledger: MakeLedger, run_trial: RunTrial) -> None:
    written = ledger("budget.trials=2")
    run_trial(written)
    assert written.exhausted() is None
    written.ask()
    assert written.exhausted() == UsedUp("trials", 2, 2)
    assert not written.is_complete(), "one still runs"
    written.fail(1, "no")
    assert written.is_complete()


def test_points_to_start_from_count_once_they_start(ledger: MakeLedger) -> None:
    written = ledger("budget.trials=2", "search.start_from=[{mixing_alpha: 2}, {mixing_alpha: 3}]")
    assert written.standing.num_started == 0
    assert written.trials() == []
    assert written.exhausted() is None


def test_failures_are_a_bound(ledger: MakeLedger) -> None:
    written = ledger("budget.max_failed=1")
    for number in range(2):
        assert written.exhausted() is None
        written.fail(written.ask().number, f"no {number}")
    assert written.exhausted() == UsedUp("max_failed", 2, 1)


def test_wall_time_adds_up_over_runs_and_a_killed_one_counts_to_its_last_record(
    ledger: MakeLedger, baseline: dict[str, float], clock: list[int]
) -> None:
    first = ledger("search.pruner=none")
    run = first.begin_run({})
    clock[0] += 10_000
    first.end_run(run, "interrupted")
    clock[0] += 500_000  # nobody works on it
    killed = ledger("search.pruner=none")
    killed.begin_run({})
    killed.ask()
    clock[0] += 7_000
    killed.record_epoch(0, 1, values(0.7), baseline)
    clock[0] += 3_000
    assert killed.run_is_open()
    clock[0] += 800_000
    last = ledger("search.pruner=none")
    with last.folder.locked():
        assert last.wall_s() == 17, "who takes it up has not worked since"
    run = last.begin_run({})
    clock[0] += 2_000
    last.record_epoch(0, 2, values(0.8), baseline)
    last.end_run(run, "complete")
    assert last.wall_s() == 19
    assert not last.run_is_open()


def test_while_it_is_worked_on_the_wall_time_runs(ledger: MakeLedger, clock: list[int]) -> None:
    written = ledger()
    reader = Ledger.reading(written.folder, written.spec)
    with written.folder.locked():
        written.begin_run({})
        clock[0] += 4_000
        assert written.wall_s() == reader.wall_s() == 4
    assert reader.wall_s() == 0, "killed before its first record"


def test_time_is_a_bound(ledger: MakeLedger, clock: list[int]) -> None:
    written = ledger("budget.time=10s")
    for _ in range(2):
        assert written.exhausted() is None
        run = written.begin_run({})
        clock[0] += 5_000
        written.end_run(run, "interrupted")
    assert written.exhausted() == UsedUp("time", 10, 10)


def test_gpu_hours_are_a_bound(ledger: MakeLedger, baseline: dict[str, float]) -> None:
    written = ledger("resources.gpu=0.5", "budget.gpu_hours=1.0", "search.pruner=none")
    written.ask()
    written.record_epoch(0, 1, values(0.7) | {"reserved_s": 3600.0}, baseline)
    assert written.gpu_hours() == 0.5
    assert written.exhausted() is None
    written.record_epoch(0, 2, values(0.7) | {"reserved_s": 3600.0}, baseline)
    assert written.exhausted() == UsedUp("gpu_hours", 1, 1)


# ------------------------------------------------------------------ suggestions


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "qmc"])
def test_a_point_that_was_tried_is_not_trained_again(
    ledger: MakeLedger, run_trial: RunTrial, sampler: str
) -> None:
    space = (
        "space={mixing_alpha: {choices: [1, 2, 3]}, outlier_ratio: {low: 0.5, high: 1, step: 0.25}}"
    )
    start = "search.start_from=[{mixing_alpha: 2, outlier_ratio: 0.5}]"
    chosen = (space, start, f"search.sampler={sampler}", "budget.trials=20", "search.pruner=none")
    written = ledger(*chosen)
    failed = written.ask()
    written.fail(failed.number, "no")
    points = [failed.params]
    while written.exhausted() is None:
        points.append(run_trial(written).params)
        written = ledger(*chosen)
    assert written.exhausted() == UsedUp("points", 9, 9)
    assert len(points) == len({tuple(point.items()) for point in points}) == 9
    written.retry_failed()
    assert written.ask().params == failed.params, "a failed one may be tried again"


def test_suggestions_are_those_of_a_sampler_that_reads_the_whole_space_anew(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger("budget.trials=30")
    for number in range(24):
        if number == 15:
            written.fail(written.ask().number, "no")
            continue
        sampler = optuna.samplers.TPESampler(
            seed=derived_seed("sampler", written.spec.search.seed, number) % 2**32
        )
        trials = written.study.get_trials()
        study = optuna.create_study(sampler=sampler, direction="maximize")
        study.add_trials(trials)
        expected = study.ask(fixed_distributions=make_distributions(written.spec)).params
        found = run_trial(written).params
        assert number < len(written.spec.search.start_from) or found == expected


def test_points_to_start_from_go_first_and_in_order(ledger: MakeLedger) -> None:
    written = ledger("search.start_from=[{mixing_alpha: 2}, {mixing_alpha: 3, outlier_ratio: 0.5}]")
    first, second, third = written.ask(), written.ask(), written.ask()
    assert first.params["mixing_alpha"] == 2
    assert (second.params["mixing_alpha"], second.params["outlier_ratio"]) == (3, 0.5)
    assert [first.number, second.number, third.number] == [0, 1, 2]
    assert set(first.params) == set(third.params), "what a point leaves out is sampled"


def test_a_fresh_process_is_suggested_what_the_old_one_would_have_been(
    ledger: MakeLedger, run_trial: RunTrial, folder: SweepFolder
) -> None:
    one = ledger()
    expected = [run_trial(one).params for _ in range(6)]
    folder.ledger.unlink()
    assert [run_trial(ledger()).params for _ in range(6)] == expected


def test_opening_draws_from_no_sampler(ledger: MakeLedger) -> None:
    written = ledger()
    written.ask()
    size = written.folder.ledger.stat().st_size
    ledger().unfinished()
    assert written.folder.ledger.stat().st_size == size


def test_an_attribute_that_stays_the_same_is_not_written_again(ledger: MakeLedger) -> None:
    written = ledger()
    written.set_attr("baseline", "abc")
    size = written.folder.ledger.stat().st_size
    written.set_attr("baseline", "abc")
    assert written.folder.ledger.stat().st_size == size
    assert ledger().attrs["baseline"] == "abc"


def test_nothing_in_a_trial_view_is_shared_with_the_study(
    ledger: MakeLedger, run_trial: RunTrial
) -> None:
    written = ledger()
    view: Any = run_trial(written)
    view.params["mixing_alpha"] = math.nan
    assert not math.isnan(written.trial(0).params["mixing_alpha"])
