from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.confirmation import job_ledger as study_module
from lmoe_tune.confirmation.job_ledger import JobLedger, who
from lmoe_tune.confirmation.plan import (
    CONFIRM,
    RESEED,
    Candidate,
    Plan,
    make_plan,
    make_reseeding,
    with_taken_seeds,
)
from lmoe_tune.errors import UsageError
from lmoe_tune.sweep import picture, view
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.folder import find_sweeps, parts_of
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import LedgerError
from lmoe_tune.sweep.rebuild import rebuild

NOWHERE = Path("/nowhere")
COMMAND = "lmoe-tune confirm small"


def plan_of(sweep: Ledger, top: int = 1, num_seeds: int = 2, **more: Any) -> Plan:
    return with_taken_seeds(make_plan(sweep, NOWHERE, top=top, num_seeds=num_seeds, **more), sweep)


def trial_of(study: JobLedger, plan: Plan, row: str, seed: int) -> Any:
    (found,) = (job.trial for job in study.jobs(plan) if (job.row.name, job.seed) == (row, seed))
    return found


def same(name: str, split: int, seed: int) -> float:
    return 0.9


def test_a_job_for_every_row_split_and_seed_is_queued(sweep: Ledger) -> None:
    study, plan = JobLedger(sweep, NOWHERE), plan_of(sweep)
    assert not study.is_done(plan)
    assert study.begin(plan, COMMAND) == 12
    points = study.ledger.points()
    assert points[:3] == [
        {"candidate": 0, "split": 0, "seed": 1000},
        {"candidate": 0, "split": 0, "seed": 1001},
        {"candidate": 1, "split": 0, "seed": 1000},
    ]
    assert len(points) == 12
    assert study.ledger.budget.trials == 12
    assert [record["name"] for record in study.ledger.attrs["candidates"]] == [
        row.name for row in plan.rows
    ]


def test_the_opening_is_recorded_before_the_test_data_are_opened(
    sweep: Ledger, openings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), plan_of(sweep)

    def opened(data: Any, home: Path, *, with_held_out: bool) -> Any:
        assert len(openings(sweep)) == 1, "opened, and nobody knows"
        raise UsageError("not here")

    monkeypatch.setattr(study_module, "open_test_data", opened)
    with pytest.raises(AssertionError, match="nothing says so"):
        next(study.files(plan))
    study.begin(plan, COMMAND)
    with pytest.raises(UsageError, match="not here"):
        next(study.files(plan))
    (opening,) = openings(sweep)
    assert (opening["who"], opening["command"], opening["jobs"]) == (who(), COMMAND, 12)
    assert opening["time_ms"] > 1.7e12


def test_openings_are_shown_ever_after_and_survive_a_rebuilt_ledger(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), plan_of(sweep)
    study.begin(plan, COMMAND)
    assert len(view.summary(sweep)["test_openings"]) == 1
    lines = sweep.folder.ledger.read_bytes().splitlines(keepends=True)
    sweep.folder.ledger.write_bytes(b"".join(lines[: len(lines) // 2]) + b"damaged\n")
    rebuild(sweep.folder, sweep.spec)
    assert len(view.test_openings(view.read_sweep(sweep.folder))) == 1


def test_a_confirmation_that_has_lost_its_ledger_is_not_begun_anew(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), plan_of(sweep)
    study.begin(plan, COMMAND)
    study.folder.ledger.write_bytes(b"")  # a kill in the first transaction
    again = JobLedger(sweep, NOWHERE)
    assert not again.is_done(plan)
    assert again.begin(plan, COMMAND) == 12
    again.folder.trial(0).mkdir(parents=True)
    again.folder.ledger.write_bytes(b"")
    for is_writing in (True, False):
        with pytest.raises(LedgerError, match=r"holds no study, but its trials are there: move"):
            JobLedger(sweep, NOWHERE, is_writing=is_writing)


def test_all_done_nothing_is_opened_again(
    sweep: Ledger, run_jobs: Callable[..., None], openings: Callable[..., Any]
) -> None:
    plan = plan_of(sweep)
    JobLedger(sweep, NOWHERE).begin(plan, COMMAND)
    study = JobLedger(sweep, NOWHERE)
    assert not study.is_done(plan), "queued is not done"
    run_jobs(study, same)
    assert study.is_done(plan)
    assert JobLedger(sweep, NOWHERE).is_done(plan)
    assert study.ledger.is_complete()
    assert len(openings(sweep)) == 1


def test_more_seeds_and_rows_are_added_to_what_there_is(
    sweep: Ledger, run_jobs: Callable[..., None], openings: Callable[..., Any]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    run_jobs(study, same)
    more = plan_of(sweep, top=2, num_seeds=3)
    again = JobLedger(sweep, NOWHERE)
    assert not again.is_done(more)
    assert again.begin(more, COMMAND) == 6 + 3  # a seed for each of six rows, three for the seventh
    assert again.ledger.attrs["candidates"][:6] == study.ledger.attrs["candidates"]
    assert again.ledger.attrs["candidates"][6]["name"] == "trial 1"
    words = "7 configurations, 3 seeds, 1 split: 21 jobs, 9 of them to do"
    assert again.work_in_words(more) == words
    run_jobs(again, same)
    assert again.is_done(more) and again.is_done(plan_of(sweep))
    assert len(openings(sweep)) == 2


def test_a_row_that_is_there_under_another_name_is_not_trained_twice(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    ledger = make_ledger("budget.trials=1")
    add_trial(ledger, 0.9)  # the defaults
    study, plan = JobLedger(ledger, NOWHERE), plan_of(ledger)
    assert study.begin(plan, COMMAND) == 10
    assert study.work_in_words(plan) == (
        "5 configurations, 2 seeds, 1 split: 10 jobs (trial 0 and logit_mixoe untuned: the same parameters)"
    )
    study.ledger.ask()
    of_defaults = trial_of(study, plan, "logit_mixoe untuned", 1000)
    assert trial_of(study, plan, "trial 0", 1000) == of_defaults


def test_a_row_that_another_one_of_its_name_has_replaced_keeps_results_of_its_own(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    before, now = (Candidate("mixoe tuned", "mixoe", {"mix_weight": value}) for value in (1.0, 2.0))
    study.begin(replace(plan_of(sweep), others=(before,)), COMMAND)
    run_jobs(study, same)
    plan = replace(plan_of(sweep), others=(now,))
    study.begin(plan, COMMAND)
    assert [row.name for row in study.rows(plan)][-2:] == ["mixoe tuned", "mixoe tuned (earlier)"]
    assert [job.is_complete for job in study.jobs(plan)][-4:] == [False, False, True, True]


def test_failed_jobs_are_tried_once_more(sweep: Ledger, run_jobs: Callable[..., None]) -> None:
    study, plan = JobLedger(sweep, NOWHERE), plan_of(sweep)
    study.begin(plan, COMMAND)
    run_jobs(
        study, lambda name, split, seed: None if name == "mixoe untuned" and seed == 1001 else 0.9
    )
    failed = trial_of(study, plan, "mixoe untuned", 1001)
    assert failed is not None and failed.state == "failed"
    again = JobLedger(sweep, NOWHERE)
    assert not again.is_done(plan)
    assert again.begin(plan, COMMAND) == 1
    run_jobs(again, same)
    assert again.is_done(plan)
    tried = trial_of(again, plan, "mixoe untuned", 1001)
    assert tried is not None and tried.retry_of == failed.number


def test_a_reseeding_opens_nothing_and_is_no_part_of_a_confirmations_table(
    sweep: Ledger, run_jobs: Callable[..., None], openings: Callable[..., Any]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    reseeding = with_taken_seeds(make_reseeding(sweep, NOWHERE, top=2, num_seeds=2), sweep)
    assert study.begin(reseeding, COMMAND) == 6 == study.num_waiting(RESEED)
    assert openings(sweep) == []
    assert not (sweep.folder.home / "questions.jsonl").read_text(encoding="utf-8").count("question")
    run_jobs(study, same)
    assert study.is_done(reseeding)

    plan = plan_of(sweep)
    assert [row.name for row in study.rows(plan)] == [row.name for row in plan.rows]
    assert study.begin(plan, COMMAND) == 12 == study.num_waiting(CONFIRM)
    assert len(openings(sweep)) == 1
    winner = [record for record in study.ledger.attrs["candidates"] if record["trial"] == 2]
    assert [(one["purpose"], one.get("keeps_model_of")) for one in winner] == [
        ("reseed", None),
        ("confirm", plan.seeds[0]),
    ]


def test_a_reseeding_tries_no_failed_job_of_a_confirmation_again(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    run_jobs(study, lambda name, split, seed: None if name == "mixoe untuned" else 0.9)
    study.begin(make_reseeding(sweep, NOWHERE, top=1, num_seeds=2), COMMAND)
    assert study.num_waiting(CONFIRM) == 0
    assert study.num_waiting(RESEED) == 4
    run_jobs(study, same)
    assert study.begin(plan_of(sweep), COMMAND) == 2


def test_the_best_of_an_extended_sweep_joins_the_candidates(
    sweep: Ledger, add_trial: Callable[..., int], run_jobs: Callable[..., None]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    run_jobs(study, same)
    add_trial(sweep, 0.99)
    plan = plan_of(sweep)
    assert plan.winner.trial == 3
    again = JobLedger(sweep, NOWHERE)
    assert again.begin(plan, COMMAND) == 2
    assert [record["trial"] for record in again.ledger.attrs["candidates"]] == [
        2,
        None,
        None,
        None,
        None,
        None,
        3,
    ]


def test_code_that_has_changed_is_refused_unless_that_is_allowed(sweep: Ledger) -> None:
    plan = plan_of(sweep)
    right = sweep.attrs["code"]
    sweep.set_attr("code", right | {"lmoe_tune/model.py": "0"})
    with pytest.raises(UsageError, match="when it was searched:\n  lmoe_tune/model.py: changed"):
        JobLedger(sweep, NOWHERE).begin(plan, COMMAND)
    assert view.test_openings(sweep) == []
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan, COMMAND, allow_changes=True)
    assert view.changes_of(study.ledger) == ["lmoe_tune/model.py: changed"]
    study.ledger.set_attr(
        "code", study.ledger.attrs["code"] | {"lmoe_tune/confirmation/job.py": "0"}
    )
    with pytest.raises(
        UsageError,
        match="when its confirmation was started:\n  lmoe_tune/confirmation/job.py: changed",
    ):
        JobLedger(sweep, NOWHERE).begin(plan, COMMAND)


def test_a_spec_that_has_changed_is_refused_but_other_resources_are_not(sweep: Ledger) -> None:
    JobLedger(sweep, NOWHERE).begin(plan_of(sweep), COMMAND)
    spec = sweep.spec
    sweep.spec = spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"max_retries": 7})}
    )
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    assert study.ledger.spec.resources.max_retries == 7
    sweep.spec = spec.model_copy(update={"train": spec.train.model_copy(update={"lr": 0.5})})
    with pytest.raises(UsageError, match="train.lr: 0.01 -> 0.5"):
        JobLedger(sweep, NOWHERE).begin(plan_of(sweep), COMMAND)


def test_data_that_have_changed_are_refused(sweep: Ledger) -> None:
    sweep.set_attr("fingerprint", "0" * 16)
    with pytest.raises(UsageError, match="data: 0000000000000000 -> "):
        JobLedger(sweep, NOWHERE).begin(plan_of(sweep), COMMAND)


def test_it_is_no_sweep_of_its_own_but_is_delivered_with_it(sweep: Ledger) -> None:
    JobLedger(sweep, NOWHERE).begin(plan_of(sweep), COMMAND)
    assert [folder.name for folder in find_sweeps(sweep.folder.home)] == ["small"]
    assert [folder.name for folder in parts_of(sweep.folder)] == ["small/confirm"]


def test_a_worker_is_told_the_job_and_where_the_sweep_goes_on(sweep: Ledger) -> None:
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    control = SweepControl(study.ledger, observer=None, import_path=NOWHERE)  # type: ignore[arg-type]
    config = control.worker_config(study.ledger.ask())
    assert config["candidates"][config["params"]["candidate"]]["name"] == "trial 2"
    assert study.ledger.resume_command == COMMAND
    of_search = SweepControl(sweep, observer=None, import_path=NOWHERE)  # type: ignore[arg-type]
    assert of_search.worker_config(sweep.ask())["candidates"] is None
    assert sweep.resume_command.startswith("lmoe-tune resume small --home ")


def test_its_runs_in_mlflow_are_of_their_own_kind(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study = JobLedger(sweep, NOWHERE)
    study.begin(plan_of(sweep), COMMAND)
    run_jobs(study, same)
    study.ledger.set_attrs({"verdict": "noise"})
    found = picture.snapshot(study.ledger, "complete")
    assert (found.kind, found.sweep, found.sweep_id) == ("confirm", "small", sweep.sweep_id)
    assert found.tags == {"lmoe_tune.verdict": "noise"}
    assert found.best is None and found.baseline is None
    first = found.trials[0]
    about = {"candidate": "trial 2", "split": 0, "seed": 1000}
    assert about.items() <= first.params.items()
    assert first.params["method"] == "logit_mixoe"
    assert first.params.keys() <= set(found.searched)
    assert None not in first.params.values()
    assert picture.models(study.ledger) == []


def test_the_record_of_candidates_is_plain_json(sweep: Ledger) -> None:
    records = [row.as_record() for row in plan_of(sweep).rows]
    assert json.loads(json.dumps(records)) == records
