"""How well scores separate in-distribution from out-of-distribution, and how well the classes are
recognised.

A score is higher for in-distribution, everywhere in this project, and in-distribution is the
positive class. What is measured, and what it does not say: docs/evaluation.md.
"""

from lmoe_tune.evaluation.detection import aupr_in, aupr_out, auroc, threshold_at_tpr, tnr_at_tpr
from lmoe_tune.evaluation.scores import (
    SCORES,
    Outputs,
    Score,
    ScoreName,
    calibration_errors,
    outputs,
    score,
)
from lmoe_tune.evaluation.splits import (
    chance_metrics,
    metrics_of_scores,
    resampled_metrics_of_scores,
    resampled_test_metrics,
    test_metrics,
    validation_metrics,
)

__all__ = [
    "SCORES",
    "Outputs",
    "Score",
    "ScoreName",
    "aupr_in",
    "aupr_out",
    "auroc",
    "calibration_errors",
    "chance_metrics",
    "metrics_of_scores",
    "outputs",
    "resampled_metrics_of_scores",
    "resampled_test_metrics",
    "score",
    "test_metrics",
    "threshold_at_tpr",
    "tnr_at_tpr",
    "validation_metrics",
]
