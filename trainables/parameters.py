"""Hyperparameters that several methods have."""

from __future__ import annotations

from dataclasses import replace

from lmoe_tune.spec import Parameter


def only_with(parameter: Parameter, *weights: str) -> Parameter:
    """The parameter in a method in which it has no effect while all of these weights are 0."""
    return replace(parameter, only_with=weights)


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
