"""Energy-bounded outlier exposure (Liu et al., NeurIPS 2020); the formula is in
`lmoe_tune.methods.energy_oe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.spec import Declaration, Parameter, Range, Term
from trainables.method import Method
from trainables.parameters import BATCH_NORM, OUTLIER_RATIO, only_with

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective


class EnergyOE(Method):
    """Separates the energies of in-distribution images and outliers by two squared hinges."""

    declaration = Declaration(
        name="energy_oe",
        summary="energies of images and outliers kept apart by squared hinges; use objective.score: energy",
        parameters=(
            Parameter(
                "energy_weight",
                "float",
                0.1,
                "eta, weight of the two squared hinges",
                low=0,
                tune=Range(0.005, 1, log=True),
            ),
            Parameter(
                "m_in",
                "float",
                None,
                "energy that in-distribution images fall below; default: -10 - log(classes)",
                only_with=("energy_weight",),
            ),
            Parameter(
                "m_out",
                "float",
                None,
                "energy that outliers rise above; default: -1 - log(classes)",
                only_with=("energy_weight",),
            ),
            only_with(OUTLIER_RATIO, "energy_weight"),
            BATCH_NORM,
        ),
        terms=(Term("id_loss"), Term("energy_loss", ("energy_weight",))),
    )

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.energy_oe import EnergyOE as Objective

        return Objective(**self.own(params))
