"""Hyperparameters that several methods have."""

from __future__ import annotations

from lmoe_tune.spec import Parameter

OUTLIER_RATIO = Parameter(
    "outlier_ratio",
    "float",
    1.0,
    "rho, outliers per in-distribution image of a batch",
    low=0,
    low_exclusive=True,
)
PER = Parameter(
    "per", "choice", "batch", "one lambda per batch, or one per pair", choices=("batch", "sample")
)
BATCH_NORM = Parameter(
    "batch_norm",
    "choice",
    "joint",
    "one forward for all rows; or one per group; or frozen statistics (needs a much smaller lr)",
    choices=("joint", "separate", "frozen"),
)
