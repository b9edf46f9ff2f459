from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState as State

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.remarks import IGNORING_CONSTRAINTS, remarks
from lmoe_tune.sweep.sampling import make_sampler

FINITE = ("space={mixing_alpha: {choices: [1, 2, 3]}}", "search.start_from=[]")


def test_a_space_with_fewer_points_than_trials_is_said(spec: Callable[..., Spec]) -> None:
    (said,) = remarks(spec(*FINITE, "budget.trials=9"))
    assert "only 3 points" in said and "after 3 trials, not 9" in said
    assert remarks(spec(*FINITE, "budget.trials=3")) == []
    assert remarks(spec("budget.trials=9")) == []


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_samplers_that_ignore_constraints_are_those_whose_suggestions_do_not_change_with_them(
    spec: Callable[..., Spec], sampler: str
) -> None:
    chosen = spec(f"search.sampler={sampler}", "budget.trials=30")
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    found = []
    for infeasible in (False, True):
        study = optuna.create_study(direction="maximize")
        kind = optuna.distributions.FloatDistribution(0.0, 1.0)
        for number in range(12):
            trial = optuna.trial.create_trial(
                params={"x": number / 12, "y": number % 5 / 5},
                distributions={"x": kind, "y": kind},
                value=float(number),
                state=State.COMPLETE,
                system_attrs={"constraints:c": 1.0 if infeasible and number > 6 else -1.0},
            )
            study.add_trial(trial)
        study.sampler = make_sampler(chosen, 12)
        found.append(study.ask(fixed_distributions={"x": kind, "y": kind}).params)
    assert (found[0] == found[1]) is (sampler in IGNORING_CONSTRAINTS)
    assert bool(remarks(chosen)) is (sampler in IGNORING_CONSTRAINTS)


def test_a_check_stays_quick() -> None:
    code = (
        "import sys, lmoe_tune.sweep.remarks\n"
        "heavy = {'optuna', 'numpy', 'torch', 'ray'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
