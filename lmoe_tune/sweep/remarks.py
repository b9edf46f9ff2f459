"""What `check` says about a search that can run, but perhaps not as one thinks. Imports neither
Optuna nor NumPy.
"""

from __future__ import annotations

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.points import num_points

IGNORING_CONSTRAINTS = ("random", "qmc", "grid", "cmaes")
"""Samplers whose suggestions take no account of constraints (read in Optuna 5.0.0)."""


def remarks(spec: Spec) -> list[str]:
    """One sentence each."""
    found, trials = [], spec.budget.trials
    points = num_points(spec)
    if points is not None and (trials is None or points < trials):
        planned = "" if trials is None else f", not {trials}"
        found.append(
            f"the space has only {points} points, and none is trained twice: "
            f"the search ends after {points} trials{planned}"
        )
    if spec.objective.constraints and spec.search.sampler in IGNORING_CONSTRAINTS:
        names = ", ".join(spec.objective.constraints)
        found.append(
            f"search.sampler: {spec.search.sampler} suggests without regard to the constraint on {names}; "
            "the ranking and the pruner go by it, and so do the samplers tpe, gp and nsga2"
        )
    return found
