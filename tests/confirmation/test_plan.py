from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.confirmation.plan import (
    CONFIRM,
    RESEED,
    candidate_of,
    fresh_seeds,
    make_plan,
    make_reseeding,
    spec_of,
    trial_at_defaults,
    untuned,
    with_taken_seeds,
)
from lmoe_tune.errors import UsageError
from lmoe_tune.questions import FILE
from lmoe_tune.spec import Distribution, resolved_yaml, spec_from_resolved
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import BudgetChange, first_attrs, write_records

NOWHERE = Path("/nowhere")


def test_the_rows_are_the_best_by_validation_then_every_method_untuned(sweep: Ledger) -> None:
    plan = make_plan(sweep, NOWHERE, top=2, num_seeds=3)
    assert [row.name for row in plan.rows] == [
        "trial 2", "trial 1", "logit_mixoe untuned", "mixoe untuned", "outlier_exposure untuned", "energy_oe untuned",
        "baseline untuned",
    ]  # fmt: skip
    assert plan.winner.trial == 2
    assert plan.splits == (0,)
    assert len(plan.seeds) == 3
    assert plan.notes == ()


def test_a_candidate_has_a_value_for_every_hyperparameter_of_its_method(sweep: Ledger) -> None:
    plan = make_plan(sweep, NOWHERE, top=1, num_seeds=2)
    searched = sweep.trial(2).params
    assert {name: plan.winner.params[name] for name in searched} == searched
    assert plan.winner.params["mix_weight"] == 1.0
    assert plan.own_defaults.params["mixing_alpha"] == 1.0


def test_fewer_complete_trials_than_asked_for_are_taken_and_that_is_said(sweep: Ledger) -> None:
    plan = make_plan(sweep, NOWHERE, top=9, num_seeds=2)
    assert [row.trial for row in plan.top] == [2, 1, 0]
    assert "3 complete trials" in plan.notes[0]


def test_a_sweep_without_a_complete_trial_has_nothing_to_confirm(
    make_ledger: Callable[..., Ledger],
) -> None:
    with pytest.raises(UsageError, match="no complete trial yet; see `lmoe-tune leaderboard"):
        make_plan(make_ledger(), NOWHERE, top=3, num_seeds=5)


def test_trials_with_the_same_parameters_are_one_row(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    ledger = make_ledger(
        "space={per: {choices: [batch, sample]}}", "search.sampler=random", "budget.trials=6"
    )
    for place in range(6):  # two points, some of them more than once
        add_trial(ledger, 0.9 + place / 100)
    found = make_plan(ledger, NOWHERE, top=3, num_seeds=2).top
    assert [row.params["per"] for row in found] in (["batch", "sample"], ["sample", "batch"])
    assert found[0].trial == 5


def test_a_winner_with_its_methods_defaults_is_said_to_be_one(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    ledger = make_ledger()
    add_trial(ledger, 0.9)
    plan = make_plan(ledger, NOWHERE, top=1, num_seeds=2)
    assert plan.winner_is_default
    assert "has its method's defaults" in plan.notes[0]


def test_a_winner_that_misses_the_constraints_is_said_to(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    ledger = make_ledger()
    add_trial(ledger, 0.99, accuracy=0.5)
    assert any(
        "misses them least" in note for note in make_plan(ledger, NOWHERE, top=1, num_seeds=2).notes
    )


def test_what_the_spec_fixes_stays_fixed_for_its_own_method_and_training_settings_for_all(
    make_ledger: Callable[..., Ledger],
) -> None:
    spec = make_ledger("fixed={mix_weight: 3.0, lr: 0.5}").spec
    own, other = untuned(spec, "logit_mixoe", NOWHERE), untuned(spec, "mixoe", NOWHERE)
    assert (own.params["mix_weight"], own.params["lr"]) == (3.0, 0.5)
    assert (other.params["mix_weight"], other.params["lr"]) == (5.0, 0.5)


def test_without_outliers_the_methods_that_need_them_are_left_out(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    ledger = make_ledger(
        change=lambda spec: spec.model_copy(
            update={
                "trainable": "baseline",
                "data": spec.data.model_copy(update={"outliers": None}),
                "space": {"lr": Distribution(low=0.001, high=0.1)},
                "search": spec.search.model_copy(update={"start_from": ()}),
            }
        )
    )
    add_trial(ledger, 0.9)
    plan = make_plan(ledger, NOWHERE, top=1, num_seeds=2)
    assert [row.name for row in plan.rows] == ["trial 0", "baseline untuned"]
    assert plan.own_defaults.params["lr"] is None, "as in train"
    assert plan.notes[0].endswith("left out, as the spec has no outliers to train with")


def test_a_sweep_over_methods_is_compared_with_the_winners_method(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]
) -> None:
    space = (
        "space={method: {choices: [outlier_exposure, mixoe]}, outlier_ratio: {low: 0.25, high: 1}}"
    )
    ledger = make_ledger("trainable=mixoe", space, "search.sampler=random")
    add_trial(ledger, 0.9)
    method = ledger.trial(0).params["method"]
    plan = make_plan(ledger, NOWHERE, top=1, num_seeds=2)
    assert plan.winner.method == method
    assert plan.own_defaults.name == f"{method} untuned"
    assert sorted(row.method for row in plan.rows[1:]) == [
        "baseline", "energy_oe", "logit_mixoe", "mixoe", "outlier_exposure"
    ]  # fmt: skip
    assert candidate_of(ledger.spec, ledger.trial(0), NOWHERE).params[
        "outlier_ratio"
    ] == pytest.approx(ledger.trial(0).params["outlier_ratio"])


def test_other_splits_are_taken_with_a_warning(sweep: Ledger) -> None:
    plan = make_plan(sweep, NOWHERE, top=1, num_seeds=2, splits=(0, 3, 3))
    assert plan.splits == (0, 3)
    assert list(plan.cells()) == [(0, 1000), (0, 1001), (3, 1000), (3, 1001)]
    assert any(
        "the search saw images that are test images in other splits" in note for note in plan.notes
    )
    assert make_plan(sweep, NOWHERE, top=1, num_seeds=2, splits=(0,)).notes == ()


def test_seeds_are_fresh_and_those_of_more_begin_with_those_of_fewer(
    make_ledger: Callable[..., Ledger],
) -> None:
    ledger = make_ledger("train.seed=1001")
    assert fresh_seeds(ledger, CONFIRM, 3, takes=True) == (1000, 1002, 1003)
    assert fresh_seeds(ledger, RESEED, 2, takes=True) == (1004, 1005)
    more = fresh_seeds(ledger, CONFIRM, 9)
    assert more[:4] == (1000, 1002, 1003, 1006) == fresh_seeds(ledger, CONFIRM, 4, takes=True)


def test_a_reseeding_is_of_the_best_and_the_defaults_with_seeds_of_its_own(sweep: Ledger) -> None:
    plan = with_taken_seeds(make_reseeding(sweep, NOWHERE, top=2, num_seeds=2), sweep)
    assert [row.name for row in plan.rows] == ["trial 2", "trial 1", "logit_mixoe untuned"]
    assert (plan.purpose, plan.splits, plan.seeds) == (RESEED, (0,), (1000, 1001))
    assert make_plan(sweep, NOWHERE, top=2, num_seeds=2).seeds == (1002, 1003)


def test_the_trial_that_was_the_defaults_is_found(sweep: Ledger) -> None:
    number = trial_at_defaults(sweep, "logit_mixoe", NOWHERE)
    assert number is not None
    assert set(sweep.trial(number).params.values()) == {1.0}
    assert trial_at_defaults(sweep, "mixoe", NOWHERE) is None


def test_a_plan_that_is_only_made_takes_no_seeds(sweep: Ledger) -> None:
    planned = make_plan(sweep, NOWHERE, top=1, num_seeds=2)
    assert planned.seeds == (1000, 1001)
    assert not (sweep.folder.home / FILE).exists()
    assert with_taken_seeds(planned, sweep) == planned
    longer = make_plan(sweep, NOWHERE, top=1, num_seeds=3)
    assert longer.seeds == (1000, 1001, 1002)


def test_seeds_that_another_sweep_of_the_home_was_trained_with_are_not_fresh(
    sweep: Ledger, tmp_path: Path
) -> None:
    other = SweepFolder(sweep.folder.home, "other")
    spec = sweep.spec.model_copy(
        update={"train": sweep.spec.train.model_copy(update={"seed": 1000})}
    )
    write_records(other, spec)
    Ledger.writing(other, spec, first_attrs(spec, BudgetChange(), tmp_path, other.home))
    assert make_plan(sweep, NOWHERE, top=1, num_seeds=2).seeds == (1001, 1002)


def test_the_spec_of_a_confirmation_is_the_sweeps_with_jobs_for_parameters(sweep: Ledger) -> None:
    spec = spec_of(sweep.spec)
    assert (spec.data, spec.model, spec.train) == (
        sweep.spec.data,
        sweep.spec.model,
        sweep.spec.train,
    )
    assert spec.objective.score == sweep.spec.objective.score
    assert spec.search.pruner == "none"
    assert set(spec.space) == {"candidate", "split", "seed"}
    assert spec_from_resolved(resolved_yaml(spec)) == spec
