from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as State

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.points import Points, Tried
from lmoe_tune.sweep.sampling import Suggestions, make_sampler

MakeSpec = Callable[..., Spec]
SAMPLERS = ("tpe", "random", "qmc", "grid", "cmaes", "gp")
GRID = (
    "space.mixing_alpha={choices: [0.5, 1.0, 2.0]}",
    "space.consistency_weight={low: 0, high: 2, step: 1}",
    "space.outlier_ratio={choices: [0.5, 1]}",
)


def of_space(name: str) -> tuple[str, ...]:
    return (f"search.sampler={name}", *(GRID if name == "grid" else ()))


def suggestions(
    spec: Spec,
    count: int,
    *,
    told: State | None = State.COMPLETE,
    study: optuna.Study | None = None,
) -> list[dict[str, Any]]:
    """What a sweep is suggested, one trial after the other; untold they all run at once."""
    study, found = study or optuna.create_study(direction="maximize"), []
    tried = Tried(Points.of(spec))
    asked = Suggestions(spec, tried)
    for number in range(count):
        trial = asked.ask(study, number)
        found.append(dict(trial.params))
        tried.add(trial.params)
        if told is not None:
            study.tell(trial, float(number % 3) if told is State.COMPLETE else None, state=told)
    return found


def all_points(spec: Spec) -> list[dict[str, Any]]:
    points = Points.of(spec)
    return [points.at(index) for index in range(points.size)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_be_built(spec: MakeSpec, name: str) -> None:
    if name == "cmaes":
        pytest.importorskip("cmaes")
    assert isinstance(make_sampler(spec(*of_space(name)), 0), optuna.samplers.BaseSampler)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "grid"])
def test_a_suggestion_is_a_function_of_the_study_the_seed_and_the_number(
    spec: MakeSpec, name: str
) -> None:
    chosen = spec(*of_space(name))
    assert suggestions(chosen, 6) == suggestions(chosen, 6)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_sweeps_of_two_seeds_share_no_suggestion(spec: MakeSpec, name: str) -> None:
    chosen = [suggestions(spec(*of_space(name), f"search.seed={seed}"), 12) for seed in (1, 2)]
    values = [{value for params in found for value in params.values()} for found in chosen]
    assert not values[0] & values[1]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "grid"])
def test_trials_that_run_at_the_same_time_are_all_different(spec: MakeSpec, name: str) -> None:
    found = suggestions(spec(*of_space(name)), 8, told=None)
    assert len({tuple(params.values()) for params in found}) == 8


@pytest.mark.parametrize("told", [State.COMPLETE, State.FAIL], ids=["complete", "failed"])
@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_the_trials_of_one_sweep_are_all_different(spec: MakeSpec, name: str, told: State) -> None:
    found = suggestions(spec(*of_space(name)), 8, told=told)
    assert len({tuple(params.values()) for params in found}) == 8


def test_a_grid_is_covered_once(spec: MakeSpec) -> None:
    chosen = spec(*of_space("grid"))
    found = suggestions(chosen, 18)
    assert all(point in all_points(chosen) for point in found)
    assert len({tuple(sorted(point.items())) for point in found}) == 18
    assert found != all_points(chosen), "in an order of its own"


def test_a_start_point_on_the_grid_is_not_tried_twice(spec: MakeSpec, folder: SweepFolder) -> None:
    chosen = spec(
        *of_space("grid"),
        "budget.trials=30",
        "search.start_from=[{mixing_alpha: 1.0, consistency_weight: 1.0, outlier_ratio: 1.0}]",
    )
    written, found = Ledger.writing(folder, chosen), []
    while written.exhausted() is None:
        found.append(written.ask().params)
    assert found[0] == {"mixing_alpha": 1.0, "consistency_weight": 1.0, "outlier_ratio": 1.0}
    assert len(found) == 18 and all(point in found for point in all_points(chosen))


def test_a_grid_with_a_start_point_that_leaves_something_out_is_refused_or_runs(
    spec: MakeSpec, folder: SweepFolder
) -> None:
    refused = None
    try:
        chosen = spec(*of_space("grid"), "search.start_from=[{mixing_alpha: 1.0}]")
    except SpecError as error:
        refused = str(error)
    if refused is not None:
        assert "start_from" in refused
        return
    suggestion = Ledger.writing(folder, chosen).ask()
    assert suggestion.params["mixing_alpha"] == 1.0
    assert set(suggestion.params) == set(chosen.space)


def test_a_grid_reaches_the_top_of_a_range(spec: MakeSpec) -> None:
    chosen = spec(
        "search.sampler=grid",
        "space.mixing_alpha={low: 1, high: 3, step: 1}",
        "space.consistency_weight={low: 0, high: 0.3, step: 0.1}",
        "space.outlier_ratio={choices: [0.5, 1]}",
    )
    points = all_points(chosen)
    assert {point["mixing_alpha"] for point in points} == {1, 2, 3}
    assert {point["consistency_weight"] for point in points} == {0, 0.1, 0.2, 0.3}


def test_a_grid_without_a_number_of_trials_ends_when_it_is_covered(
    spec: MakeSpec, ledger: Callable[..., Ledger], run_trial: Callable[..., Any]
) -> None:
    written = ledger(
        *of_space("grid"), "budget.trials=null", "budget.time=1h", "search.pruner=none"
    )
    for _ in range(18):
        assert written.exhausted() is None
        run_trial(written)
    assert written.exhausted() is not None
    assert written.is_complete()


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2"])
def test_a_method_without_parameters_is_suggested_once(spec: MakeSpec, name: str) -> None:
    chosen = spec(
        f"search.sampler={name}",
        "space={method: {choices: [logit_mixoe, baseline, energy_oe]}, "
        "mixing_alpha: {low: 0.1, high: 10, log: true}, m_in: {choices: [-20, -10]}}",
    )
    study = optuna.create_study()
    study.enqueue_trial({"method": "baseline"})
    found = suggestions(chosen, 24, study=study)

    finite = [tuple(point.values()) for point in found if point["method"] != "logit_mixoe"]
    assert len(finite) == len(set(finite)) == 3
    assert found[0] == {"method": "baseline"}, "as it was given"
    assert len({point.get("mixing_alpha") for point in found}) == 22, "the others are all different"


def test_values_stay_within_their_distributions(spec: MakeSpec) -> None:
    chosen = spec(
        "space.mixing_alpha={low: 0.1, high: 10, log: true}",
        "space.consistency_weight={low: 0, high: 4, step: 2}",
        "space.outlier_ratio={choices: [0.5, 1]}",
    )
    for params in suggestions(chosen, 12):
        assert 0.1 <= params["mixing_alpha"] <= 10
        assert params["consistency_weight"] in (0, 2, 4)
        assert params["outlier_ratio"] in (0.5, 1)
