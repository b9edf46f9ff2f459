"""Mixture Outlier Exposure (Zhang et al., WACV 2023); the formula is in `lmoe_tune.methods.mixoe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.spec import Declaration, Parameter, Range, Term
from trainables.method import Method
from trainables.parameters import BATCH_NORM, OUTLIER_RATIO, PER, only_with

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective


class MixOE(Method):
    """Mixes in-distribution and outlier images in input space."""

    declaration = Declaration(
        name="mixoe",
        summary="outlier exposure by mixing images, with mixup or cutmix",
        parameters=(
            Parameter(
                "mixing",
                "choice",
                "mixup",
                "how to mix: interpolate pixels, or paste a box of the outlier into the image",
                choices=("mixup", "cutmix"),
                only_with=("mix_weight",),
            ),
            Parameter(
                "mixing_alpha",
                "float",
                None,
                "lambda ~ Beta(alpha, alpha); default: as published, 1 for mixup and 2 for cutmix",
                low=0,
                low_exclusive=True,
                tune=Range(0.1, 10, log=True),
                only_with=("mix_weight",),
            ),
            Parameter(
                "mix_weight",
                "float",
                5.0,
                "beta, weight of the softened cross-entropy on mixed images",
                low=0,
                tune=Range(0.5, 50, log=True),
            ),
            only_with(OUTLIER_RATIO, "mix_weight"),
            only_with(PER, "mix_weight"),
            BATCH_NORM,
        ),
        terms=(Term("id_loss"), Term("mix_loss", ("mix_weight",))),
    )

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.mixoe import MixOE as Objective

        return Objective(**self.own(params))
