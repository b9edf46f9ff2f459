"""Fine-tuning with cross-entropy alone: what every method is compared with."""

from __future__ import annotations

from lmoe_tune.spec import Declaration, Term
from trainables.method import Method


class Baseline(Method):
    """Cross-entropy on the in-distribution images; no outliers."""

    declaration = Declaration(
        name="baseline",
        summary="cross-entropy on the in-distribution images; no outliers",
        parameters=(),
        needs_outliers=False,
        terms=(Term("id_loss"),),
    )

    objective_class = "lmoe_tune.methods.baseline:CrossEntropy"
