"""Fine-tuning with cross-entropy alone: what every method is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmoe_tune.spec import Declaration, Term
from trainables.method import Method

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective


class Baseline(Method):
    """Cross-entropy on the in-distribution images; no outliers."""

    declaration = Declaration(
        name="baseline",
        summary="cross-entropy on the in-distribution images; no outliers",
        parameters=(),
        needs_outliers=False,
        terms=(Term("id_loss"),),
    )

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.baseline import CrossEntropy

        return CrossEntropy()
