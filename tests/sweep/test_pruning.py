from __future__ import annotations

import importlib
import os
from collections.abc import Callable

import pytest

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.pruning import Pruning, misses_of

MakeSpec = Callable[..., Spec]
BASELINE = {"val_accuracy": 0.99}


def pruning(spec: MakeSpec, *settings: str) -> Pruning:
    return Pruning(spec("train.epochs=9", "search.min_epochs=1", *settings))


def add(found: Pruning, number: int, auroc: float, missed: float = 0.0) -> bool:
    """Report the next epoch of a trial; True where it is to be stopped."""
    found.add_epoch(number, {"val_auroc": auroc}, {"val_accuracy:min": missed})
    return found.decides_against(number)


def complete(found: Pruning, number: int, missed: tuple[float, ...]) -> None:
    """A trial that had missed the constraint by these numbers, epoch by epoch."""
    for one in missed:
        found.add_epoch(number, {"val_auroc": 0.5}, {"val_accuracy:min": one})
    found.end(number, complete=True)


def test_asha_promotes_the_best_third_at_each_rung_and_nobody_between(spec: MakeSpec) -> None:
    asha = pruning(spec, "search.pruner=asha")
    assert [add(asha, number, auroc) for number, auroc in enumerate((0.5, 0.4, 0.6))] == [
        False, True, False,
    ]  # fmt: skip
    assert add(asha, 2, 0.6) is False, "the second epoch is no rung"
    assert [add(asha, number, auroc) for number, auroc in ((3, 0.55), (4, 0.7), (5, 0.65))] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(1, []), (3, [1]), (5, [1, 3]), (10, [2, 6]), (50, [10, 30])]
)
def test_nothing_is_pruned_before_a_fifth_of_the_epochs(
    spec: MakeSpec, epochs: int, rungs: list[int]
) -> None:
    assert Pruning(spec(f"train.epochs={epochs}", "search.pruner=asha"))._rungs(0) == rungs


def test_hyperband_begins_after_a_fifth_of_the_epochs_in_one_of_its_brackets(
    spec: MakeSpec,
) -> None:
    hyperband = Pruning(spec("train.epochs=10", "search.pruner=hyperband"))
    assert {tuple(hyperband._rungs(number)) for number in range(60)} == {(2, 6), (6,)}


def test_the_objective_is_minimised_where_the_spec_says_so(spec: MakeSpec) -> None:
    asha = Pruning(
        spec(
            "train.epochs=9",
            "search.min_epochs=1",
            "objective={metric: train_loss, direction: minimize, constraints: {}}",
        )
    )
    decided = []
    for number, loss in enumerate((0.5, 0.4, 0.6)):
        asha.add_epoch(number, {"train_loss": loss}, {})
        decided.append(asha.decides_against(number))
    assert decided == [False, False, True]


def test_a_trial_that_misses_the_constraint_comes_below_all_feasible_ones(spec: MakeSpec) -> None:
    asha = pruning(spec, "search.pruner=asha")
    complete(asha, 0, (0.04,) * 9)
    assert add(asha, 1, 0.6, missed=0.0) is False
    assert add(asha, 2, 0.99, missed=0.04) is True, "its like never met the constraint"
    assert add(asha, 3, 0.55, missed=-0.01) is True, "a feasible one is judged by its value"


def test_a_constraint_is_judged_by_where_trials_like_it_came_to(spec: MakeSpec) -> None:
    asha = pruning(spec, "search.pruner=asha")
    complete(asha, 0, (0.2, *(0.0,) * 8))
    assert asha.violation(1, [0.15]) == 0, "its like recovered"
    assert asha.violation(1, [0.001]) == 0, "of such nothing is known"
    complete(asha, 1, (0.001, *(0.001,) * 8))
    assert asha.violation(1, [0.001]) == pytest.approx(0.001)


def test_what_is_recorded_of_a_stopped_trial_is_where_it_was_heading(spec: MakeSpec) -> None:
    asha = pruning(spec)
    misses = {"val_accuracy:min": 0.2}
    assert asha.heading(1, misses) == misses, "nothing is known: what was measured"
    complete(asha, 0, (0.25, *(0.125,) * 8))
    assert asha.heading(1, misses) == {"val_accuracy:min": pytest.approx(0.1)}
    assert asha.heading(9, misses) == misses
    assert asha.heading(1, {"val_accuracy:min": -0.1}) == {"val_accuracy:min": -0.1}


def test_median_waits_for_complete_trials_and_stops_the_worse_half(spec: MakeSpec) -> None:
    median = pruning(spec, "search.pruner=median")
    assert add(median, 9, 0.1) is False
    for number, auroc in enumerate((0.2, 0.4, 0.6, 0.8)):
        for _ in range(9):
            median.add_epoch(number, {"val_auroc": auroc}, {})
        median.end(number, complete=True)
    assert add(median, 10, 0.3) is True
    assert add(median, 11, 0.7) is False
    assert add(median, 11, 0.3) is False, "the best that it has shown counts"


def test_hyperbands_brackets_compete_among_themselves_and_prune_at_different_epochs(
    spec: MakeSpec,
) -> None:
    hyperband = pruning(spec, "search.pruner=hyperband")
    rungs = {tuple(hyperband._rungs(number)) for number in range(60)}
    assert rungs == {(1, 3), (3,), ()}
    whole = next(number for number in range(60) if not hyperband._rungs(number))
    assert add(hyperband, whole, 0.0) is False


def test_none_and_several_objectives_prune_nothing(spec: MakeSpec) -> None:
    for found in (
        pruning(spec, "search.pruner=none"),
        pruning(
            spec, "objective=[{metric: val_auroc}, {metric: val_accuracy}]", "search.pruner=none"
        ),
    ):
        for number, auroc in enumerate((0.9, 0.1)):
            found.add_epoch(number, {"val_auroc": auroc, "val_accuracy": 0.5}, {})
            assert found.decides_against(number) is False


def test_both_sides_of_a_bound_are_constraints(spec: MakeSpec) -> None:
    bounded = spec(
        "objective.constraints={val_accuracy: {min: baseline - 0.02}, train_loss: {max: 1.0}}"
    )
    missed = misses_of(bounded, {"val_accuracy": 0.9, "train_loss": 0.5}, BASELINE)
    assert missed == {"val_accuracy:min": pytest.approx(0.07), "train_loss:max": -0.5}


@pytest.mark.slow
def test_on_landscapes_whose_truth_is_known_the_constraint_is_honoured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few seeds of `benchmarks/constraint_landscapes.py`, which has the figures over twenty."""
    landscapes = importlib.import_module("benchmarks.constraint_landscapes")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    bought = landscapes.simulate("bought", "asha", seeds=3, slots=2, trials=32)
    assert all(one.best_true > 0.899 for one in bought), "a feasible one is found"
    assert all(one.epochs <= 0.55 * 31 * 10 for one in bought)
    assert all(one.complete_feasible >= 3 for one in bought)
    late = landscapes.simulate("late", "asha", seeds=3, slots=2, trials=32)
    lost = sum(one.lost for one in late) / sum(one.feasible_quarter for one in late)
    assert lost <= 0.1
