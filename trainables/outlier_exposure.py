"""Outlier Exposure (Hendrycks et al., ICLR 2019); the formula is in
`lmoe_tune.methods.outlier_exposure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.spec import Declaration, Parameter, Range, Term
from trainables.method import Method
from trainables.parameters import BATCH_NORM, OUTLIER_RATIO, only_with

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective


class OutlierExposure(Method):
    """Pushes the outliers' predictions towards the uniform distribution."""

    declaration = Declaration(
        name="outlier_exposure",
        summary="outliers pushed towards the uniform distribution",
        parameters=(
            Parameter(
                "outlier_weight",
                "float",
                1.0,
                "delta, weight of CE(outlier logits, uniform)",
                low=0,
                tune=Range(0.05, 5, log=True),
            ),
            only_with(OUTLIER_RATIO, "outlier_weight"),
            BATCH_NORM,
        ),
        terms=(Term("id_loss"), Term("outlier_loss", ("outlier_weight",))),
    )

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.outlier_exposure import OutlierExposure as Objective

        return Objective(**self.own(params))
