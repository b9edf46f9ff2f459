"""Which parameters mattered, by Optuna's estimate."""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from lmoe_tune.sweep.ledger import Ledger

MIN_TRIALS = 4  # with fewer, a forest has nothing to split


def importances(ledger: Ledger) -> dict[str, float]:
    """The share of the objective's variance that each parameter explains (fANOVA), largest first;
    sums to 1.

    Of the complete trials, and of the parameters that all of them have. Empty where there are too
    few trials, or where all have the same value. With several objectives, of the first one.
    """
    several = len(ledger.spec.objective.metrics) > 1
    complete = [trial for trial in ledger.trials() if trial.state == "complete"]
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) < 2:
        return {}
    target = (lambda trial: float(trial.values[0])) if several else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found = get_param_importances(
                ledger.study, evaluator=FanovaImportanceEvaluator(seed=0), target=target
            )
    except (ValueError, RuntimeError):  # no parameter is in all trials, or none was varied
        return {}
    return {name: float(share) for name, share in found.items()}
