"""Logit Mixture Outlier Exposure (arXiv 2509.11892); the formula is in
`lmoe_tune.methods.logit_mixoe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.spec import Declaration, Parameter, Range, Term
from trainables.method import Method
from trainables.parameters import BATCH_NORM, OUTLIER_RATIO, PER, only_with

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective

MIXING = ("mix_weight", "consistency_weight")
WEIGHTS = (*MIXING, "outlier_weight")
PARAMETERS = (
    Parameter(
        "mixing_alpha",
        "float",
        1.0,
        "lambda ~ Beta(alpha, alpha): small values mix little, large ones half and half",
        low=0,
        low_exclusive=True,
        tune=Range(0.1, 10, log=True),
        only_with=MIXING,
    ),
    Parameter(
        "mix_weight",
        "float",
        1.0,
        "beta, weight of the softened cross-entropy on mixed logits",
        low=0,
        tune=Range(0.5, 10, log=True),
    ),
    Parameter(
        "consistency_weight",
        "float",
        1.0,
        "gamma, weight of the distance between the logits of the mixed input and the mixed logits",
        low=0,
        tune=Range(0.01, 100, log=True),
    ),
    only_with(OUTLIER_RATIO, *WEIGHTS),
    Parameter(
        "outlier_weight", "float", 0.0, "delta, weight of CE(outlier logits, uniform)", low=0
    ),
    Parameter(
        "consistency",
        "choice",
        "mse",
        "the distance D between logits",
        choices=("mse", "mse_log_softmax", "kl", "js"),
        only_with=("consistency_weight",),
    ),
    Parameter(
        "center_logits",
        "bool",
        False,
        "subtract each row's mean before D: a shift then costs nothing",
        only_with=("consistency_weight",),
    ),
    Parameter(
        "stop_gradient",
        "choice",
        "none",
        "side of D that gets no gradient",
        choices=("none", "mixed_logits", "mixed_input"),
        only_with=("consistency_weight",),
    ),
    only_with(PER, *MIXING),
    BATCH_NORM,
)


class LogitMixOE(Method):
    """Mixes in-distribution and outlier images in logit space, consistent with mixing the inputs."""

    declaration = Declaration(
        name="logit_mixoe",
        summary="outlier exposure by mixing logits, kept consistent with the logits of mixed inputs",
        parameters=PARAMETERS,
        terms=(
            Term("id_loss"),
            Term("mix_loss", ("mix_weight",)),
            Term("consistency_loss", ("consistency_weight",)),
            Term("outlier_loss", ("outlier_weight",)),
            Term("margin", WEIGHTS),
        ),
    )

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.logit_mixoe import LogitMixOE as Objective

        return Objective(**self.own(params))
