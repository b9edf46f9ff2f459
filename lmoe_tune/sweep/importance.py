"""Which parameters mattered, by Optuna's estimate."""

from __future__ import annotations

import warnings

import optuna
from optuna.distributions import json_to_distribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.study import new_study

MIN_TRIALS = 4  # with fewer, a forest has nothing to split
MAX_TRIALS = 100  # the cost grows with the square: 2 s of CPU for these, minutes for 5,000


def importances(ledger: Ledger) -> dict[str, float]:
    """The share of the objective's variance that each parameter explains (fANOVA), largest first;
    sums to 1.

    Of the complete trials, of very many MAX_TRIALS spread evenly over them, and of the parameters
    that all of these have. Empty where there are too few trials, or where all have the same value.
    With several objectives, of the first one.
    """
    several = len(ledger.spec.objective.metrics) > 1
    complete = sorted(ledger.standing.ranking)
    num_taken = min(len(complete), MAX_TRIALS)
    taken = [
        ledger.trial(complete[place * len(complete) // num_taken]) for place in range(num_taken)
    ]
    if len(taken) < MIN_TRIALS or len({trial.value for trial in taken}) < 2:
        return {}
    num_trees = 64 if len(complete) <= MAX_TRIALS else 32
    target = (lambda trial: float(trial.values[0])) if several else None
    study = new_study(ledger.spec.objective.directions)
    study.add_trials([_frozen(trial) for trial in taken])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found = get_param_importances(
                study,
                evaluator=FanovaImportanceEvaluator(n_trees=num_trees, seed=0),
                target=target,
            )
    except (ValueError, RuntimeError):  # no parameter is in all trials, or none was varied
        return {}
    return {name: float(share) for name, share in found.items()}


def _frozen(trial: TrialRecord) -> FrozenTrial:
    kinds = {name: json_to_distribution(text) for name, text in trial.distributions.items()}
    return create_trial(values=list(trial.values), params=trial.params, distributions=kinds)
